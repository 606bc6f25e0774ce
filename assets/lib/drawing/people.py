"""Who the people of the drawn faces are: attributes, proportions, hair, colors, light.

Every person follows from one row of random numbers. Each property has its own place in the row,
so fixing one attribute leaves the rest of the person as it is.
"""

import numpy as np

from assets.lib.drawing.attributes import (
    DRAWN_ATTRIBUTES,
    LONG,
    SHORT,
    Chance,
    imagine_beard,
    imagine_character,
    imagine_hair_color,
    imagine_hairline,
    imagine_hairstyle,
)
from assets.lib.drawing.colors import (
    CLOTHES_RGB,
    EYESHADOW_RGB,
    FRAME_RGB,
    HAIR_RGB,
    IRIS_RGB,
    LIPSTICK_RGB,
    skin_rgb,
)

NUMBERS_PER_PERSON = 200  # length of a row; longer than what is used


def imagine_faces(n, seed=0, first=0, **fixed):
    """Attributes and drawing parameters of n people, from number `first` on: {name: array}.

    Attributes are bool arrays (n,); `ita` is the skin's typology angle in degrees, (n,); lengths
    are in units of about half the picture; colors are sRGB, (n, 3). Person k of a seed is the
    same in every call. A keyword such as Heavy_Makeup=True fixes an attribute for everybody. If
    two fixed attributes contradict each other, the returned ones are those that are drawn.
    Raises ValueError for an attribute that is not in DRAWN_ATTRIBUTES.
    """
    unknown = sorted(set(fixed) - set(DRAWN_ATTRIBUTES))
    if unknown:
        known = ", ".join(DRAWN_ATTRIBUTES)
        raise ValueError(f"Unknown attribute {', '.join(unknown)}: choose from {known}.")
    generator = np.random.default_rng(seed)
    generator.bit_generator.advance(NUMBERS_PER_PERSON * first)
    chance = Chance(generator.random((n, NUMBERS_PER_PERSON)), fixed)
    people = {}
    for imagine in STEPS:
        people |= imagine(chance, people)
    return people


def imagine_pose(chance, people):
    """Turn of the head in radians, and where in the picture it is."""
    return dict(
        yaw=chance.bell(0, 0.55),
        roll=chance.bell(0, 0.14),
        pitch=chance.bell(0, 0.3),
        zoom=chance.bell(1.12, 0.13),
        shift_x=chance.bell(0, 0.07),
        shift_y=chance.bell(0.11, 0.06),
    )


def imagine_head(chance, people):
    """The outline, measured from between the eyes."""
    male = people["Male"]
    return dict(
        head_width=chance.bell(0.575 + 0.015 * male, 0.05),
        crown=chance.bell(0.76, 0.05),
        chin=chance.bell(0.79 + 0.05 * male, 0.06),
        jaw=chance.bell(0.4 + 0.3 * male, 0.3),
        taper=chance.bell(0.07 - 0.06 * male, 0.06),
        neck_width=chance.bell(0.31 + 0.09 * male, 0.04),
    )


def imagine_eyes(chance, people):
    """Eyes and brows."""
    male, old = people["Male"], ~people["Young"]
    height = 0.066 - 0.009 * male - 0.006 * old - 0.008 * people["Smiling"]
    return dict(
        eye_x=chance.bell(0.245, 0.02),
        eye_width=chance.bell(0.14 - 0.006 * male, 0.014),
        gaze=chance.bell(0, 0.03),
        eye_height=chance.bell(height, 0.014),
        eye_tilt=chance.bell(0.008, 0.022),
        iris_radius=chance.bell(0.062, 0.004),
        brow_y=chance.bell(-0.162 + 0.016 * male, 0.025),
        brow_arch=chance.bell(0.035 - 0.015 * male, 0.02),
        brow_height=chance.bell(0.024 + 0.008 * male, 0.008) + 0.011 * people["Bushy_Eyebrows"],
        brow_tilt=chance.bell(0.002, 0.018),
    )


def imagine_nose_and_mouth(chance, people):
    """Nose and mouth; a smile widens the mouth and lifts its corners."""
    male, old, ita = people["Male"], ~people["Young"], people["ita"]
    smiling, is_open = people["Smiling"], people["Mouth_Slightly_Open"]
    fullness = 1.05 - 0.15 * male - 0.15 * old - 0.003 * ita
    return dict(
        nose_width=chance.bell(0.085 + 0.008 * male - 0.0002 * ita, 0.018),
        nose_y=chance.bell(0.30, 0.035),
        nose_relief=chance.bell(1, 0.35),
        mouth_y=chance.bell(0.52, 0.03),
        mouth_width=chance.bell(0.185, 0.02) + 0.05 * smiling,
        mouth_lift=chance.bell(0.02, 0.014) + 0.05 * smiling,
        lip_fullness=chance.bell(fullness, 0.25),
        gape=is_open * chance.bell(0.045 + 0.025 * smiling, 0.02),
    )


def imagine_details(chance, people):
    """Signs of age, freckles, the shape of glasses, and how strong the makeup is."""
    old, is_light = ~people["Young"], people["ita"] > 35
    return dict(
        age=old * chance.uniform(0.55, 1),
        freckles=chance.uniform(-8, 1).clip(0) * is_light,
        frame_width=chance.bell(0.185, 0.025),
        frame_height=chance.bell(0.125, 0.035),
        frame_thickness=chance.uniform(0.008, 0.028),
        sunglasses=chance.uniform() < 0.18,
        makeup_strength=chance.uniform(0.65, 1),
    )


def imagine_haircut(chance, people):
    """Outline of the hair, its opening for the face, part and curl."""
    style, wavy, bangs = people["style"], people["Wavy_Hair"], people["Bangs"]

    def by_style(short, bob, long, tied, afro):
        return np.choose(style, (short, bob, long, tied, afro))

    side = by_style(0.012, 0.12, 0.10, 0.015, 0.24)
    top = by_style(0.06, 0.10, 0.09, 0.03, 0.22)
    length = by_style(0, 0.72, 1.9, 0.1, 0.55)
    flare = by_style(0, 0.04, 0.08, 0, 0)
    square = by_style(0.55, 0.5, 0.3, 0.4, 0.6)
    opening_width = by_style(0.56, 0.50, 0.50, 0.60, 0.57)
    opening_height = np.where(bangs, 0.235, by_style(0.52, 0.46, 0.46, 0.46, 0.46))
    opening_height = opening_height + 0.1 * people["Receding_Hairline"]
    spread = by_style(0.4, 1, 1, 1, 1)
    return dict(
        hair_side=side + spread * chance.uniform(0, 0.05) + 0.03 * wavy,
        hair_top=top + chance.uniform(0, 0.09),
        hair_length=length + chance.uniform(-0.04, 0.1),
        hair_flare=flare + chance.bell(0, 0.08) * (style == LONG),
        wave=wavy * chance.uniform(0.5, 1),
        part=chance.bell(0, 1),
        hairline_skew=chance.bell(0, 0.35) * ~bangs,
        opening_square=(square * chance.uniform(0.6, 1.2)).clip(0, 1),
        opening_width=opening_width + chance.bell(0, 0.03),
        opening_height=opening_height + chance.bell(0, 0.04),
        curl=by_style(0, 0, 0, 0, 1.0) + 0.3 * wavy * (style == SHORT),
    )


def imagine_light(chance, people):
    """Direction and warmth of the light."""
    warmth = chance.bell(0.04, 0.07)
    azimuth = chance.bell(0, 1.15)
    elevation = chance.bell(0.42, 0.35)
    return dict(
        warmth=warmth,
        light_x=np.sin(azimuth) * np.cos(elevation),
        light_y=-np.sin(elevation),
        light_z=np.cos(azimuth) * np.cos(elevation),
    )


def imagine_colors(chance, people):
    """Colors of skin, hair, eyes, makeup, clothes and light; darker skin is exposed longer."""
    ita, warmth = people["ita"], people["warmth"]
    iris = chance.uniform(-3.5, 3) + np.interp(ita, [0, 60], [-2.5, 3])
    iris = iris.clip(0, 5.9).astype(int)
    tint = np.stack([chance.uniform(low, 1) for low in (0.72, 0.72, 0.65)], axis=1)
    exposure = chance.bell(1.24, 0.12) - 0.0013 * ita
    hair = np.array(list(HAIR_RGB.values()))[people["hair_color"]]
    light = np.stack([1 + warmth, np.ones_like(warmth), 1 - warmth], axis=1)
    return dict(
        backdrop_tint=tint,
        light=light * exposure[:, None],
        skin=skin_rgb(ita) * chance.bell(1, 0.04)[:, None],
        hair=chance.vary(hair, 0.22),
        iris=chance.vary(np.array(IRIS_RGB)[iris], 0.2),
        lipstick=chance.vary(chance.pick(LIPSTICK_RGB), 0.15),
        eyeshadow=chance.pick(EYESHADOW_RGB),
        clothes=chance.vary(chance.pick(CLOTHES_RGB)),
        frame=chance.vary(chance.pick(FRAME_RGB)),
    )


def imagine_surroundings(chance, people):
    """Fill light, shine, and the backdrop: two colors that blend into each other, and noise."""
    tint = people["backdrop_tint"]
    return dict(
        ambient=chance.bell(0.40, 0.2),
        gloss=chance.bell(0.34, 0.2),
        backdrop_x=chance.bell(0, 0.5),
        backdrop_y=chance.bell(-0.1, 0.4),
        backdrop_noise=chance.uniform(0, 0.32),
        coarse_tile=(24 * chance.uniform()).astype(int),
        fine_tile=(24 * chance.uniform()).astype(int),
        backdrop=(tint * chance.uniform(0.1, 1.15)[:, None]).clip(0, 0.96),
        backdrop_2=tint**0.5 * chance.uniform(0.1, 1)[:, None],
    )


# Each step takes the next random numbers and what the steps before it decided, and returns more
# properties. Another order, of steps or within a step, draws other people.
STEPS = (
    imagine_character,
    imagine_hairline,
    imagine_hair_color,
    imagine_hairstyle,
    imagine_beard,
    imagine_pose,
    imagine_head,
    imagine_eyes,
    imagine_nose_and_mouth,
    imagine_details,
    imagine_haircut,
    imagine_light,
    imagine_colors,
    imagine_surroundings,
)
