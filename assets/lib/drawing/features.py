"""Paint the features of a drawn face: beard, mouth, eyes, brows, glasses.

Each function takes a Canvas and the parameters of its people: numbers (n, 1, 1), colors
(n, 3, 1, 1).
"""

from typing import NamedTuple

import torch

from assets.lib.drawing.attributes import CLEAN_SHAVEN, GOATEE, MUSTACHE, STUBBLE
from assets.lib.drawing.canvas import bump, rgb, ridge, soft_mask

IVORY = rgb(0.97, 0.95, 0.93)  # eyeballs and teeth
LIP_TINT = rgb(0.90, 0.64, 0.63)  # from skin to lips
DARK = rgb(0.07, 0.05, 0.05)
WHITE = rgb(1.0, 1.0, 1.0)


def paint_beard(canvas, people):
    """Stubble, mustache, goatee or full beard."""
    beard = people.beard
    full, mustache, goatee = beard_outlines(canvas, people)
    distance = torch.where(beard == GOATEE, goatee, torch.minimum(full, mustache))
    distance = torch.where(beard == MUSTACHE, mustache, distance)
    cover = torch.where(beard == STUBBLE, 0.34, 0.88) * (1 + 0.16 * canvas.fine)
    tone = 0.42 + 0.3 * canvas.lambert.clamp(0, 1) + 0.06 * canvas.fine
    mask = soft_mask(distance, 0.05) * cover.clamp_(0, 0.95)
    mask = mask * canvas.head * (beard != CLEAN_SHAVEN)
    canvas.paint(people.hair * people.light * tone[:, None], mask)


def beard_outlines(canvas, people):
    """Distances to the outlines of a full beard, a mustache and a goatee, negative inside."""
    u2 = canvas.u.square()
    below_mouth = canvas.v - people.mouth_y
    lips_x = canvas.u / 1.1 / people.mouth_width
    lips_y = (below_mouth - 0.03) / 0.095
    outside_lips = 1 - (lips_x.square() + lips_y.square()).sqrt_()

    full = 0.49 - canvas.v - 1.25 * (canvas.abs_u - 0.22).clamp(min=0) + 0.02 * canvas.fine
    full = torch.maximum(full, 0.06 * outside_lips)

    mustache = below_mouth + 0.085 - 0.25 * u2 - 0.012 * canvas.fine
    ends = canvas.abs_u - people.mouth_width * 1.1
    mustache = torch.maximum(mustache.abs() - 0.045 + 0.6 * u2, ends)

    chin_y = (canvas.v - 0.74) / 0.15
    goatee = (u2 / 0.03 + chin_y.square()).sqrt_() - 1
    goatee = 0.1 * torch.maximum(goatee, outside_lips)
    return full, mustache, goatee


class Mouth(NamedTuple):
    """Where pixels lie on the mouths, (n, rows, size) each."""

    x: torch.Tensor  # -1 and 1 in the corners
    y: torch.Tensor  # below the line between the lips
    bow: torch.Tensor  # 1 in the middle, 0 in the corners and beyond
    gap: torch.Tensor  # how far the lips are apart
    inside: torch.Tensor  # distance to the opening, negative inside


def paint_mouth(canvas, people):
    """Lips, and teeth or the dark between them."""
    x = canvas.u / people.mouth_width
    bow = (1 - x.square()).clamp_(min=0)
    y = canvas.v - people.mouth_y + people.mouth_lift * (x.square() - 0.35)
    gap = people.gape * bow
    inside = torch.maximum(-0.3 * gap - y, y - 0.7 * gap)
    mouth = Mouth(x, y, bow, gap, inside)
    paint_lips(canvas, people, mouth)
    paint_teeth(canvas, people, mouth)


def paint_lips(canvas, people, mouth):
    """Both lips, in their own color or with lipstick, and the line between them."""
    x, y, bow, gap, inside = mouth
    lipstick = people.Wearing_Lipstick
    notch = 1.05 - 0.28 * ridge(x, 0.16)
    top = -0.05 * people.lip_fullness * bow * notch - 0.3 * gap
    bottom = 0.068 * people.lip_fullness * bow + 0.7 * gap
    cover = lipstick * (0.55 + 0.35 * people.makeup_strength)
    made_up = people.lipstick * (0.6 + 0.4 * people.skin)
    color = (people.skin * LIP_TINT).lerp(made_up, cover[:, None])
    color = color * people.light * (0.74 + 0.22 * (y > 0))[:, None]
    gloss = bump(x + 0.2 * people.light_x, y - bottom * 0.55, 0.4, 0.014)
    gloss = gloss * (0.12 + 0.14 * lipstick)
    mask = soft_mask(torch.maximum(top - y, y - bottom), 1.3 * canvas.pixel) * (bow > 0)
    canvas.paint(color + gloss[:, None], mask * (0.88 + 0.1 * lipstick))

    line = soft_mask(inside.abs() - 0.006, 1.5 * canvas.pixel)
    line = line * soft_mask((x.abs() - 1) * 0.15, 2 * canvas.pixel)
    canvas.paint(people.skin * 0.3 * LIP_TINT, 0.75 * line)


def paint_teeth(canvas, people, mouth):
    """The inside of an open mouth, with the upper teeth."""
    x, y, bow, gap, inside = mouth
    opening = soft_mask(inside, canvas.pixel) * (people.gape > 0) * (bow > 0)
    canvas.paint(DARK * 1.6, opening)
    edge = y - (0.34 + 0.3 * people.Smiling) * gap
    teeth = soft_mask(edge, canvas.pixel) * soft_mask(x.abs() - 0.86, 0.15)
    color = IVORY * (0.45 + 0.45 * people.light) * (0.9 - 0.35 * x.square())[:, None]
    canvas.paint(color, opening * teeth * (0.45 + 0.5 * people.Smiling))


class Eyes(NamedTuple):
    """Where pixels lie on the eyes, both sides alike, (n, rows, size) each."""

    x: torch.Tensor  # -1 in the inner corner, 1 in the outer one
    y: torch.Tensor  # below the line between the corners
    upper: torch.Tensor  # below the edge of the upper lid
    lower: torch.Tensor  # below the edge of the lower lid
    beyond: torch.Tensor  # how far beyond the corners
    opening: torch.Tensor  # mask of the open eye


def paint_eyes(canvas, people):
    """Lids with makeup, eyeballs, irises and lashes."""
    eyes = map_eyes(canvas, people)
    makeup = people.Heavy_Makeup * people.makeup_strength
    paint_lids(canvas, people, eyes, makeup)
    paint_eyeballs(canvas, people, eyes)
    paint_irises(canvas, people, eyes)
    paint_lashes(canvas, people, eyes, makeup)


def map_eyes(canvas, people):
    """The Eyes of the people."""
    x = (canvas.abs_u - people.eye_x) / people.eye_width
    y = canvas.v + people.eye_tilt * x
    bow = (1 - x.square()).clamp_(min=0)
    beyond = (x.abs() - 1).clamp(min=0)
    upper = y + people.eye_height * bow * (1.1 + 0.15 * x)
    lower = y - people.eye_height * bow * (0.62 - 0.12 * people.Smiling)
    opening = torch.maximum(-upper, lower) + 0.3 * beyond
    opening = soft_mask(opening, canvas.pixel) * (bow > 0)
    return Eyes(x, y, upper, lower, beyond, opening)


def paint_lids(canvas, people, eyes, makeup):
    """Eyeshadow, and the crease above the eye."""
    shadow = 0.75 * makeup * (eyes.y < 0) * bump(eyes.x, eyes.upper + 0.035, 0.95, 0.045)
    canvas.paint(people.eyeshadow * (0.5 + 0.5 * people.skin), shadow)
    crease = bump(eyes.upper + 0.038, eyes.x - 0.1, 0.011, 0.8)
    crease = crease * (0.45 + 0.2 * people.age) * (1 - 0.4 * makeup)
    canvas.paint(people.skin * 0.45, crease)


def paint_eyeballs(canvas, people, eyes):
    """The white of the eyes, in the shadow of the upper lid."""
    tone = 0.92 - 0.25 * ridge(eyes.upper, 0.03) - 0.18 * eyes.x.square()
    color = tone.clamp_(min=0.3)[:, None] * (0.5 + 0.42 * people.light) * IVORY
    canvas.paint(color, eyes.opening)


def paint_irises(canvas, people, eyes):
    """Iris, pupil, and the reflection of the light."""
    radius, opening = people.iris_radius, eyes.opening
    x = canvas.abs_u - people.eye_x - canvas.side * people.gaze
    y = eyes.y + 0.006
    distance = (x.square() + y.square()).sqrt_() / radius
    glow = 1 + 0.6 * (y / radius).clamp(-1, 1) - (distance - 0.75).clamp(0, 1)
    glow = glow.clamp_(0.6, 1.65)[:, None]
    iris = soft_mask((distance - 1) * radius, 1.5 * canvas.pixel)
    canvas.paint(people.iris * glow, opening * iris)
    pupil = soft_mask((distance - 0.46) * radius, canvas.pixel)
    canvas.paint(people.iris * 0.12, opening * pupil)
    to_light = 0.022 * people.light_x.sign()
    reflection = bump(x * canvas.side - to_light, y + 0.02, 0.014, 0.014)
    canvas.paint(WHITE, 0.95 * opening * reflection)


def paint_lashes(canvas, people, eyes, makeup):
    """Upper lashes, longer and darker with makeup, and the edge of the lower lid."""
    wing = 0.06 * makeup * (eyes.x - 0.9).clamp(min=0)
    lashes = (eyes.upper + wing + 0.06 * eyes.beyond).abs()
    lashes = lashes - 0.009 - 0.004 * (eyes.x > 0) - makeup * (0.009 + 0.006 * eyes.x)
    ends = (eyes.x.abs() - 1.02 - 0.1 * makeup) * 0.1
    mask = soft_mask(lashes, canvas.pixel) * soft_mask(ends, canvas.pixel)
    canvas.paint(DARK, mask * (0.72 + 0.2 * makeup - 0.12 * people.Male))
    edge = bump(eyes.lower, eyes.x, 0.010, 0.75)
    canvas.paint(people.skin * 0.4, edge * (0.35 + 0.4 * makeup))


def paint_brows(canvas, people):
    """Tapering brows with a little grain."""
    x = (canvas.abs_u - people.eye_x - 0.01) / 0.165
    arch = people.brow_arch * (1 - 0.55 * (x - 0.25).square())
    y = canvas.v - people.brow_y + arch - people.brow_tilt * x
    taper = 1.05 - 0.4 * x.clamp(-1, 1)
    mask = 1.6 - 1.5 * (y / people.brow_height / taper).square()
    grain = (0.68 + 0.1 * canvas.fine).clamp_(0, 0.9)
    grain = grain * soft_mask((x.abs() - 1) * 0.12, 0.09)
    strength = 0.75 + 0.25 * people.Bushy_Eyebrows
    canvas.paint(people.hair * 0.38 + 0.02, mask.clamp_(0, 1) * grain * strength)


def paint_glasses(canvas, people):
    """Lenses, clear or dark, with rims, bridge and temples."""
    from_center = canvas.abs_u - people.eye_x - 0.01
    x, y = from_center / people.frame_width, (canvas.v - 0.03) / people.frame_height
    radius = (x.square().square_() + y.square().square_()).sqrt_().sqrt_()
    edge = 0.14 * (radius - 1)
    lens = soft_mask(edge, canvas.pixel) * people.Eyeglasses
    glare = (9 * (canvas.u - canvas.v) + 2 * people.part).sin_().clamp_(min=0)
    tint = (0.97 - 0.08 * y).clamp_(0, 0.98)
    canvas.paint(people.frame * 0.4, lens * people.sunglasses * tint)
    canvas.paint(WHITE, 0.16 * lens * glare)
    cast = bump(y - 1.15, x, 0.12, 0.8)
    canvas.paint(people.skin * 0.4, 0.25 * cast * people.Eyeglasses)

    bridge = torch.maximum((canvas.v + 0.01).abs(), from_center + people.frame_width)
    temples = torch.maximum((canvas.v + 0.02).abs(), people.frame_width - from_center)
    temples = temples + 9 * (canvas.x.abs() > people.head_width + 0.02)
    frame = torch.minimum(torch.minimum(edge.abs(), bridge), temples)
    mask = soft_mask(frame - people.frame_thickness, canvas.pixel)
    canvas.paint(people.frame * (0.8 + 0.3 * people.light), mask * people.Eyeglasses)
