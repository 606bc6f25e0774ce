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
    outside_lips = distance_from_lips(canvas, people)
    mustache = mustache_outline(canvas, people)
    goatee = goatee_outline(canvas, outside_lips)
    full = torch.minimum(beard_outline(canvas, outside_lips), mustache)
    edge = torch.where(beard == GOATEE, goatee, full)
    edge = torch.where(beard == MUSTACHE, mustache, edge)

    cover = torch.where(beard == STUBBLE, 0.34, 0.88)
    cover = cover * (1 + 0.16 * canvas.fine)
    mask = soft_mask(edge, 0.05) * cover.clamp_(0, 0.95)
    mask = mask * canvas.head * (beard != CLEAN_SHAVEN)
    tone = 0.42 + 0.3 * canvas.lambert.clamp(0, 1)
    tone = tone + 0.06 * canvas.fine
    color = people.hair * people.light
    canvas.paint(color * tone[:, None], mask)


def distance_from_lips(canvas, people):
    """1 in the middle of the lips, 0 around them, negative beyond."""
    x = canvas.u / 1.1 / people.mouth_width
    y = (canvas.v - people.mouth_y - 0.03) / 0.095
    return 1 - (x.square() + y.square()).sqrt_()


def beard_outline(canvas, outside_lips):
    """Distance to the outline of a full beard without its mustache, negative inside."""
    beside_chin = (canvas.abs_u - 0.22).clamp(min=0)
    edge = 0.49 - canvas.v - 1.25 * beside_chin
    edge = edge + 0.02 * canvas.fine
    return torch.maximum(edge, 0.06 * outside_lips)


def mustache_outline(canvas, people):
    """Distance to the outline of a mustache, negative inside."""
    u2 = canvas.u.square()
    below = canvas.v - people.mouth_y + 0.085 - 0.25 * u2
    below = below - 0.012 * canvas.fine
    edge = below.abs() - 0.045 + 0.6 * u2
    ends = canvas.abs_u - people.mouth_width * 1.1
    return torch.maximum(edge, ends)


def goatee_outline(canvas, outside_lips):
    """Distance to the outline of a goatee, negative inside."""
    x2 = canvas.u.square() / 0.03
    y = (canvas.v - 0.74) / 0.15
    edge = (x2 + y.square()).sqrt_() - 1
    return 0.1 * torch.maximum(edge, outside_lips)


class Mouth(NamedTuple):
    """Where pixels lie on the mouths, (n, rows, size) each."""

    x: torch.Tensor  # -1 and 1 in the corners
    y: torch.Tensor  # below the line between the lips
    bow: torch.Tensor  # 1 in the middle, 0 in the corners and beyond
    gap: torch.Tensor  # how far the lips are apart
    inside: torch.Tensor  # distance to the opening, negative inside


def paint_mouth(canvas, people):
    """Lips, and teeth or the dark between them."""
    mouth = map_mouth(canvas, people)
    paint_lips(canvas, people, mouth)
    paint_lip_line(canvas, people, mouth)
    paint_teeth(canvas, people, mouth)


def map_mouth(canvas, people):
    """The Mouth of the people."""
    x = canvas.u / people.mouth_width
    bow = (1 - x.square()).clamp_(min=0)
    curve = people.mouth_lift * (x.square() - 0.35)
    y = canvas.v - people.mouth_y + curve
    gap = people.gape * bow
    inside = torch.maximum(-0.3 * gap - y, y - 0.7 * gap)
    return Mouth(x, y, bow, gap, inside)


def paint_lips(canvas, people, mouth):
    """Both lips, in their own color or with lipstick."""
    x, y, bow, gap, _ = mouth
    lipstick, fullness = people.Wearing_Lipstick, people.lip_fullness
    notch = 1.05 - 0.28 * ridge(x, 0.16)
    top = -0.05 * fullness * bow * notch - 0.3 * gap
    bottom = 0.068 * fullness * bow + 0.7 * gap
    edge = torch.maximum(top - y, y - bottom)
    mask = soft_mask(edge, 1.3 * canvas.pixel) * (bow > 0)

    natural = people.skin * LIP_TINT
    painted = people.lipstick * (0.6 + 0.4 * people.skin)
    cover = 0.55 + 0.35 * people.makeup_strength
    color = natural.lerp(painted, (lipstick * cover)[:, None])
    tone = 0.74 + 0.22 * (y > 0)
    color = color * people.light * tone[:, None]
    gloss_x = x + 0.2 * people.light_x
    gloss_y = y - bottom * 0.55
    gloss = bump(gloss_x, gloss_y, 0.4, 0.014)
    gloss = gloss * (0.12 + 0.14 * lipstick)
    color = color + gloss[:, None]
    canvas.paint(color, mask * (0.88 + 0.1 * lipstick))


def paint_lip_line(canvas, people, mouth):
    """The dark line between the lips."""
    line = soft_mask(mouth.inside.abs() - 0.006, 1.5 * canvas.pixel)
    ends = (mouth.x.abs() - 1) * 0.15
    mask = line * soft_mask(ends, 2 * canvas.pixel)
    color = people.skin * 0.3 * LIP_TINT
    canvas.paint(color, 0.75 * mask)


def paint_teeth(canvas, people, mouth):
    """The inside of an open mouth, with the upper teeth."""
    x, y, bow, gap, inside = mouth
    opening = soft_mask(inside, canvas.pixel)
    opening = opening * (people.gape > 0) * (bow > 0)
    canvas.paint(DARK * 1.6, opening)

    length = (0.34 + 0.3 * people.Smiling) * gap
    teeth = soft_mask(y - length, canvas.pixel)
    teeth = teeth * soft_mask(x.abs() - 0.86, 0.15)
    strength = 0.45 + 0.5 * people.Smiling
    tone = 0.9 - 0.35 * x.square()
    color = IVORY * (0.45 + 0.45 * people.light)
    canvas.paint(color * tone[:, None], opening * teeth * strength)


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
    height = people.eye_height * bow
    upper = y + height * (1.1 + 0.15 * x)
    lower = y - height * (0.62 - 0.12 * people.Smiling)
    beyond = (x.abs() - 1).clamp(min=0)
    edge = torch.maximum(-upper, lower) + 0.3 * beyond
    opening = soft_mask(edge, canvas.pixel)
    opening = opening * (bow > 0)
    return Eyes(x, y, upper, lower, beyond, opening)


def paint_lids(canvas, people, eyes, makeup):
    """Eyeshadow, and the crease above the eye."""
    shadow = bump(eyes.x, eyes.upper + 0.035, 0.95, 0.045)
    shadow = 0.75 * makeup * (eyes.y < 0) * shadow
    color = people.eyeshadow * (0.5 + 0.5 * people.skin)
    canvas.paint(color, shadow)

    crease = bump(eyes.upper + 0.038, eyes.x - 0.1, 0.011, 0.8)
    crease = crease * (0.45 + 0.2 * people.age)
    crease = crease * (1 - 0.4 * makeup)
    canvas.paint(people.skin * 0.45, crease)


def paint_eyeballs(canvas, people, eyes):
    """The white of the eyes, in the shadow of the upper lid."""
    tone = 0.92 - 0.25 * ridge(eyes.upper, 0.03)
    tone = tone - 0.18 * eyes.x.square()
    tone = tone.clamp_(min=0.3)[:, None]
    color = tone * (0.5 + 0.42 * people.light) * IVORY
    canvas.paint(color, eyes.opening)


def paint_irises(canvas, people, eyes):
    """Iris, pupil, and the reflection of the light."""
    radius, opening = people.iris_radius, eyes.opening
    gaze = canvas.side * people.gaze
    x = canvas.abs_u - people.eye_x - gaze
    y = eyes.y + 0.006
    distance = (x.square() + y.square()).sqrt_()
    distance = distance / radius
    below = (y / radius).clamp(-1, 1)
    rim = (distance - 0.75).clamp(0, 1)
    glow = 1 + 0.6 * below - rim
    glow = glow.clamp_(0.6, 1.65)[:, None]
    iris = soft_mask((distance - 1) * radius, 1.5 * canvas.pixel)
    canvas.paint(people.iris * glow, opening * iris)

    pupil = soft_mask((distance - 0.46) * radius, canvas.pixel)
    canvas.paint(people.iris * 0.12, opening * pupil)

    from_light = x * canvas.side - 0.022 * people.light_x.sign()
    reflection = bump(from_light, y + 0.02, 0.014, 0.014)
    canvas.paint(WHITE, 0.95 * opening * reflection)


def paint_lashes(canvas, people, eyes, makeup):
    """Upper lashes, longer and darker with makeup, and the edge of the lower lid."""
    wing = 0.06 * makeup * (eyes.x - 0.9).clamp(min=0)
    curve = eyes.upper + wing + 0.06 * eyes.beyond
    edge = curve.abs() - 0.009 - 0.004 * (eyes.x > 0)
    edge = edge - makeup * (0.009 + 0.006 * eyes.x)
    ends = (eyes.x.abs() - 1.02 - 0.1 * makeup) * 0.1
    lashes = soft_mask(edge, canvas.pixel)
    lashes = lashes * soft_mask(ends, canvas.pixel)
    strength = 0.72 + 0.2 * makeup - 0.12 * people.Male
    canvas.paint(DARK, lashes * strength)

    lower = bump(eyes.lower, eyes.x, 0.010, 0.75)
    canvas.paint(people.skin * 0.4, lower * (0.35 + 0.4 * makeup))


def paint_brows(canvas, people):
    """Tapering brows with a little grain."""
    x = (canvas.abs_u - people.eye_x - 0.01) / 0.165
    arch = 1 - 0.55 * (x - 0.25).square()
    y = canvas.v - people.brow_y + people.brow_arch * arch
    y = y - people.brow_tilt * x
    taper = 1.05 - 0.4 * x.clamp(-1, 1)
    y = y / people.brow_height / taper
    mask = (1.6 - 1.5 * y.square()).clamp_(0, 1)
    grain = (0.68 + 0.1 * canvas.fine).clamp_(0, 0.9)
    grain = grain * soft_mask((x.abs() - 1) * 0.12, 0.09)
    strength = 0.75 + 0.25 * people.Bushy_Eyebrows
    color = people.hair * 0.38 + 0.02
    canvas.paint(color, mask * grain * strength)


def paint_glasses(canvas, people):
    """Lenses and frames, on those who wear glasses."""
    from_middle = canvas.abs_u - people.eye_x - 0.01
    x = from_middle / people.frame_width
    y = (canvas.v - 0.03) / people.frame_height
    radius = x.square().square_() + y.square().square_()
    edge = 0.14 * (radius.sqrt_().sqrt_() - 1)
    paint_lenses(canvas, people, x, y, edge)
    paint_frames(canvas, people, from_middle, edge)


def paint_lenses(canvas, people, x, y, edge):
    """Clear or dark lenses that reflect, and their shadow on the cheeks."""
    lens = soft_mask(edge, canvas.pixel) * people.Eyeglasses
    tint = (0.97 - 0.08 * y).clamp_(0, 0.98)
    canvas.paint(people.frame * 0.4, lens * people.sunglasses * tint)

    glare = 9 * (canvas.u - canvas.v) + 2 * people.part
    glare = glare.sin_().clamp_(min=0)
    canvas.paint(WHITE, 0.16 * lens * glare)

    shadow = bump(y - 1.15, x, 0.12, 0.8)
    canvas.paint(people.skin * 0.4, 0.25 * shadow * people.Eyeglasses)


def paint_frames(canvas, people, from_middle, edge):
    """Rims, bridge and temples."""
    rims = edge.abs()
    bridge_y, temples_y = canvas.v + 0.01, canvas.v + 0.02
    bridge = torch.maximum(bridge_y.abs(), from_middle + people.frame_width)
    temples = torch.maximum(temples_y.abs(), people.frame_width - from_middle)
    beside_head = canvas.x.abs() > people.head_width + 0.02
    temples = temples + 9 * beside_head
    distance = torch.minimum(torch.minimum(rims, bridge), temples)
    frames = soft_mask(distance - people.frame_thickness, canvas.pixel)
    color = people.frame * (0.8 + 0.3 * people.light)
    canvas.paint(color, frames * people.Eyeglasses)
