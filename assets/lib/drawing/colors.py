"""Skin tones, and the palettes of hair, eyes, makeup, clothes and glasses, in sRGB from 0 to 1."""

import numpy as np

# The individual typology angle (ITA), in degrees, measures skin tone: the larger, the lighter.
ITA_EDGES = 65, 55, 41, 28, 10, -30, -62  # of six bands, all equally common
ITA_SKINS = np.array(
    [  # ITA, L*, a*, b*
        (-65, 27, 9, 10.5),
        (-50, 34, 11, 14),
        (-10, 46.5, 13, 19),
        (19, 56, 12, 18),
        (35, 62, 11, 17),
        (48, 67, 9, 15),
        (65, 73, 7, 11),
    ]
)
D65_WHITE = np.array([[0.9505], [1.0], [1.089]])
XYZ_TO_RGB = np.array(
    [
        (3.2406, -1.5372, -0.4986),
        (-0.9689, 1.8758, 0.0415),
        (0.0557, -0.2040, 1.057),
    ]
)

HAIR_RGB = {
    "Black_Hair": (0.10, 0.08, 0.08),
    "Brown_Hair": (0.33, 0.21, 0.13),
    "Blond_Hair": (0.80, 0.63, 0.38),
    "Red_Hair": (0.56, 0.25, 0.11),
    "Gray_Hair": (0.70, 0.69, 0.68),
}
IRIS_RGB = (  # from dark to light
    (0.20, 0.11, 0.06),
    (0.30, 0.17, 0.08),
    (0.36, 0.34, 0.16),
    (0.28, 0.44, 0.30),
    (0.30, 0.47, 0.62),
    (0.45, 0.53, 0.58),
)
LIPSTICK_RGB = (
    (0.72, 0.10, 0.16),
    (0.80, 0.27, 0.36),
    (0.60, 0.10, 0.25),
    (0.74, 0.36, 0.34),
    (0.84, 0.32, 0.25),
    (0.45, 0.10, 0.17),
)
EYESHADOW_RGB = (
    (0.35, 0.20, 0.18),
    (0.30, 0.22, 0.34),
    (0.25, 0.28, 0.35),
    (0.45, 0.30, 0.20),
    (0.16, 0.13, 0.14),
)
CLOTHES_RGB = (
    (0.13, 0.14, 0.18),
    (0.85, 0.84, 0.82),
    (0.20, 0.28, 0.45),
    (0.55, 0.16, 0.18),
    (0.25, 0.40, 0.33),
    (0.62, 0.50, 0.36),
    (0.45, 0.47, 0.52),
    (0.60, 0.45, 0.62),
)
FRAME_RGB = (
    (0.05, 0.05, 0.06),
    (0.22, 0.12, 0.07),
    (0.60, 0.55, 0.45),
    (0.30, 0.10, 0.12),
)


def skin_rgb(ita):
    """sRGB of skin with a typology angle, (n, 3)."""
    angles, *lab = ITA_SKINS.T
    return lab_to_rgb(*(np.interp(ita, angles, values) for values in lab))


def lab_to_rgb(lightness, a, b):
    """CIE L*a*b* under white D65 to sRGB, (n, 3)."""
    y = (lightness + 16) / 116
    f = np.stack([y + a / 500, y, y - b / 200])
    xyz = np.where(f > 6 / 29, f**3, (f - 4 / 29) * 108 / 841) * D65_WHITE
    rgb = XYZ_TO_RGB @ xyz
    curve = 1.055 * rgb.clip(0.003) ** (1 / 2.4) - 0.055
    return np.where(rgb > 0.0031308, curve, 12.92 * rgb).T
