"""Paint the head of a drawn face: neck, clothes, ears, skin and hair.

Each function takes a Canvas and the parameters of its people: numbers (n, 1, 1), colors
(n, 3, 1, 1).
"""

from typing import NamedTuple

import torch

from assets.lib.drawing.canvas import bump, rgb, ridge, soft_mask

SKIN_SHADOW = rgb(1.0, 0.91, 0.87)  # shadows on skin are warm
BLUSH = rgb(0.1, 0.9, 0.8)  # what a blush takes away


class Hill(NamedTuple):
    """A hill or hollow of the face; on both sides unless u is 0."""

    u: float
    v: float
    width: float
    height: float
    relief: float  # how far it comes forward
    shadow: float  # how much light it takes away


RELIEF = (
    Hill(0, 0.12, 0.062, 0.16, 0.033, 0),  # bridge of the nose
    Hill(0.23, -0.14, 0.17, 0.06, 0.027, 0),  # brow bones
    Hill(0.17, -0.03, 0.09, 0.07, -0.015, 0.12),  # eye sockets
    Hill(0.34, 0.24, 0.17, 0.13, 0.042, -0.02),  # cheeks
    Hill(0, 0.66, 0.14, 0.035, -0.018, 0.12),  # below the lips
    Hill(0, 0.77, 0.14, 0.09, 0.03, -0.02),  # chin
    Hill(0, -0.38, 0.30, 0.16, 0.03, -0.03),  # forehead
    Hill(0.13, 0.42, 0.06, 0.08, -0.006, 0.03),  # beside the upper lip
    Hill(0, 0.43, 0.025, 0.04, -0.006, 0.06),  # philtrum
    Hill(0.085, 0.10, 0.032, 0.12, 0, 0.09),  # sides of the nose
)


def paint_neck(canvas, people):
    """The neck, in the shadow of the chin."""
    width = people.neck_width
    across = canvas.x / width
    shadow_x = canvas.x + 0.1 * people.light_x
    below_chin = canvas.y - people.chin
    tone = 0.80 + 0.25 * across * people.light_x
    tone = tone - 0.2 * across.square()
    tone = tone - 0.36 * bump(shadow_x, below_chin, 0.5, 0.17)
    tone = tone.clamp(0.25, 1)[:, None]

    shoulders = (canvas.y - 1).clamp(min=0)
    edge = across.abs() * width - width - 0.35 * shoulders
    mask = soft_mask(edge, canvas.pixel)
    mask = mask * (canvas.y > 0.3)
    color = people.skin * people.light * SKIN_SHADOW
    canvas.paint(color * tone, mask)


def paint_clothes(canvas, people):
    """Clothes with a round collar."""
    collar = 0.92 + 0.28 * canvas.x.abs()
    collar = collar + 0.16 * bump(canvas.x, canvas.y - 1.1, 0.22, 0.4)
    mask = soft_mask(collar - canvas.y, 1.5 * canvas.pixel)
    tone = 0.72 + 0.22 * canvas.x * people.light_x
    tone = tone + 0.10 * canvas.coarse
    color = people.clothes * people.light
    canvas.paint(color * tone[:, None], mask)


def paint_ears(canvas, people):
    """Both ears, the far one narrower."""
    side = canvas.x.sign()
    beyond = canvas.x.abs() - people.head_width
    turned = 1 - side * people.yaw * 1.6
    x = beyond / (0.085 * turned.clamp(0.2, 1.2))
    y = (canvas.y - 0.12 + 0.1 * beyond) / 0.17
    hollow = bump(x - 0.3, y, 0.35, 0.6)
    tone = 0.78 + 0.3 * side * people.light_x
    tone = tone - 0.35 * hollow
    radius = (x.square() + y.square()).sqrt()
    mask = soft_mask((radius - 1) * 0.08, canvas.pixel)
    color = people.skin * people.light * SKIN_SHADOW
    canvas.paint(color * tone[:, None], mask)


def paint_skin(canvas, people):
    """The head with its relief, wrinkles, blush and freckles, under one light."""
    shape_face(canvas, people)
    shape_nose(canvas.rows(0, 0.6), people)
    shape_smile_lines(canvas.rows(0, 0.6), people)
    shape_wrinkles(canvas.rows(-0.45, 0.25), people)

    direct = (canvas.lambert * 0.75 + 0.25).clamp_(0, 1.3)
    tone = people.ambient + (1.08 - people.ambient) * direct
    tone = tone * (1 - canvas.shadow)
    tone = (tone + 0.012 * canvas.fine)[:, None]
    tint = SKIN_SHADOW + (1 - SKIN_SHADOW) * tone.clamp(max=1)
    skin = people.skin * people.light * tone * tint

    redness = blush(canvas, people) + freckles(canvas, people)
    shine = (canvas.lambert - 0.72).clamp_(0, 0.6).square_()
    gloss = 2.2 * people.gloss * shine
    color = skin * (1 - redness[:, None] * BLUSH)
    color = color + gloss[:, None] * people.light
    canvas.paint(color, canvas.head)


def blush(canvas, people):
    """How red the cheeks are, (n, rows, size)."""
    x = canvas.abs_u - 0.35
    y = canvas.v - 0.25 + 0.3 * x
    strength = 0.07 + 0.13 * people.Rosy_Cheeks
    strength = strength + 0.13 * people.Heavy_Makeup * people.makeup_strength
    return strength * bump(x, y, 0.17, 0.12)


def freckles(canvas, people):
    """How dark the freckles are, (n, rows, size)."""
    spots = 0.4 * (canvas.fine - 1).clamp_(0, 1)
    cheeks = bump(canvas.abs_u - 0.2, canvas.v - 0.2, 0.28, 0.14)
    return spots * people.freckles * cheeks


def shape_face(canvas, people):
    """Tilt the skin toward the light and away from it, by the hills of the face."""
    for hill in RELIEF:
        top = hill.v - 2 * hill.height
        bottom = hill.v + 2 * hill.height
        rows = canvas.rows(top, bottom)
        x, light_x = rows.u, people.light_x
        if hill.u:
            x = rows.abs_u - hill.u
            light_x = rows.side * people.light_x
        y = rows.v - hill.v
        form = bump(x, y, hill.width, hill.height)
        slope_x = x * light_x / hill.width**2
        slope_y = y * people.light_y / hill.height**2
        rows.lambert += 2 * hill.relief * form * (slope_x + slope_y)
        rows.shadow += hill.shadow * form


def shape_nose(rows, people):
    """Tip and wings of the nose, nostrils, and the shadow below."""
    x = rows.u - 0.09 * people.yaw
    y = rows.v - people.nose_y
    width, relief = people.nose_width, people.nose_relief
    from_middle = x.abs()
    from_wing = from_middle - width

    tip = bump(x, y, width * 0.8, 0.065)
    slope = 5.6 * x * people.light_x + 6.7 * y * people.light_y
    rows.lambert += relief * tip * slope
    wings = bump(from_wing, y - 0.015, 0.042, 0.045)
    slope = 6.7 * from_wing * rows.side * people.light_x
    slope = slope + 6 * y * people.light_y
    rows.lambert += relief * wings * slope
    shine = bump(x, y + 0.02, 0.035, 0.035)
    rows.lambert += 0.16 * shine

    nostrils = bump(from_middle - width * 0.55, y - 0.048, 0.027, 0.016)
    rows.shadow += 0.55 * nostrils
    below = bump(x + 0.05 * people.light_x, y - 0.085, width * 1.3, 0.03)
    rows.shadow += 0.27 * below
    creases = bump(from_middle - width * 1.38, y - 0.01, 0.018, 0.04)
    rows.shadow += 0.22 * creases


def shape_smile_lines(rows, people):
    """The folds from the nose to the corners of the mouth, deeper with a smile or with age."""
    length = people.mouth_y - people.nose_y + 0.06
    along = rows.v - people.nose_y + 0.02
    along = (along / length).clamp(0, 1)
    distance = rows.abs_u - people.nose_width * 1.35
    distance = distance - (people.mouth_width - 0.08) * along
    depth = 0.13 * people.Smiling + 0.17 * people.age + 0.03
    depth = depth * (1 - (2 * along - 1).square())
    rows.shadow += depth * ridge(distance, 0.034)
    rows.lambert += depth * 0.35 * ridge(distance - 0.05, 0.04)


def shape_wrinkles(rows, people):
    """Forehead lines, crow's feet, and bags under the eyes."""
    lines = 75 * rows.v + 9 * rows.u.square() + rows.coarse
    lines = lines.sin_().clamp_(min=0)
    forehead = bump(rows.u, rows.v + 0.33, 0.3, 0.09)

    feet = 70 * rows.v + 20 * rows.abs_u
    feet = feet.sin_().clamp_(min=0)
    temples = bump(rows.abs_u - 0.44, rows.v - 0.01, 0.05, 0.07)

    wrinkles = 0.13 * lines * forehead + 0.16 * feet * temples
    rows.shadow += people.age * wrinkles

    x = rows.abs_u - 0.235
    y = rows.v - 0.105 + 1.8 * x.square()
    bags = bump(x, y, 0.11, 0.018)
    rows.shadow += (0.07 + 0.20 * people.age) * bags


class Hair(NamedTuple):
    """The hair of n people: masks and distances (n, size, size), color (n, 3, size, size)."""

    mask: torch.Tensor  # where hair is, behind the face or before it
    opening: torch.Tensor  # distance to the opening for the face, negative inside
    color: torch.Tensor


def grow_hair(canvas, people):
    """The Hair of the people."""
    down = canvas.y.clamp(min=0)
    sway = canvas.y * 9 + 4 * people.part + 2 * canvas.coarse
    sway = sway.sin_() * people.wave
    width = people.head_width + people.hair_side
    width = width + people.hair_flare * down
    width = width + 0.03 * sway * down.clamp(max=1)
    height = people.crown + people.hair_top
    x = canvas.x / width
    y = canvas.y.clamp(max=0) / height
    radius2 = x.square() + y.square() - 0.35 * (x * y).square()

    strands = comb_strands(canvas, people, x, sway)
    rough = 0.005 * strands
    rough = rough + 0.03 * people.curl * canvas.fine
    rough = rough + 0.01 * canvas.coarse
    outline = (radius2.sqrt() - 1) * 0.65 + rough
    tips = canvas.y - people.hair_length - 0.06 * strands
    softness = canvas.pixel + 0.04 * people.curl
    mask = soft_mask(torch.maximum(outline, tips), softness)
    return Hair(
        mask=mask * (1 - people.Bald),
        opening=open_hair(canvas, people, strands),
        color=color_hair(people, x, y, radius2, strands),
    )


def comb_strands(canvas, people, x, sway):
    """Lighter and darker strands, about -1 to 1."""
    flow = x * 20 + 1.6 * sway
    flow = flow + 2.6 * canvas.coarse + 0.2 * canvas.fine
    strands = 0.22 * flow.sin()
    strands = strands + 0.3 * (flow * 2.3 + 5 * people.part).sin_()
    strands = strands + 0.4 * (flow * 0.37).sin_()
    return strands + (0.22 + 0.5 * people.curl) * canvas.fine


def open_hair(canvas, people, strands):
    """Distance to the opening for the face, a rounded square or an ellipse."""
    x = canvas.u - 0.1 * people.part
    y = canvas.v + people.hairline_skew * canvas.u
    y = y.clamp(max=0)
    x2 = (x / people.opening_width).square()
    y2 = (y / people.opening_height).square()
    inside = (x2 < 1) & (y2 < 1)
    corners = people.opening_square * x2 * y2 * inside
    return (x2 + y2 - corners - 1 + 0.05 * strands) * 0.25


def color_hair(people, x, y, radius2, strands):
    """The color of round, shining hair under the light."""
    depth = (1 - radius2).clamp_(min=0).sqrt_()
    dome = x * people.light_x + y * people.light_y
    dome = 0.8 * dome + depth * people.light_z
    sheen_y = y + 0.55 + 0.05 * strands
    sheen = bump(sheen_y, x - people.light_x, 0.16, 0.8)
    sheen = sheen * (1 - people.curl)
    tone = 0.42 + 0.42 * dome.clamp(min=-0.3)
    tone = tone + 0.20 * strands + 0.35 * sheen
    tone = tone.clamp_(0.05, 1.5)[:, None]
    color = people.hair * (0.25 + 0.85 * tone)
    color = color + 0.12 * sheen[:, None]
    return color * (people.light * 0.5 + 0.45)


def paint_hair_behind(canvas, hair):
    """The hair behind head and neck."""
    canvas.paint(hair.color * 0.55, hair.mask)


def paint_hair_in_front(canvas, people, hair):
    """The hair around the face, and its shadow on the forehead."""
    shadow = soft_mask(-hair.opening - 0.03, 0.12) * canvas.head
    shadow = shadow * soft_mask(canvas.v, 0.3)
    canvas.paint(people.skin * 0.4, 0.4 * shadow * (1 - people.Bald))

    is_short = people.hair_length < 0.2
    below = canvas.v - people.hair_length
    fade = soft_mask(below, 0.04 + 0.2 * is_short)
    around = soft_mask(-hair.opening, 0.05 + 0.05 * is_short)
    canvas.paint(hair.color, hair.mask * fade * around)
