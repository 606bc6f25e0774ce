"""Portraits of people who do not exist, drawn by code from a seed, with their true attributes.

`draw_faces` gives images and attributes; `imagine_faces` who the people are, before they are drawn;
`write_folder` lays faces out on the disk as CelebA does.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

DRAWING = 3  # to be raised when the faces change, so that they are drawn anew
OTHER_SEED = "seed1_"  # begins the names of the faces that are held out
DRAWN_ATTRIBUTES = tuple(
    (
        "Male Young Smiling Mouth_Slightly_Open Eyeglasses Heavy_Makeup Wearing_Lipstick "
        "Rosy_Cheeks Black_Hair Brown_Hair Blond_Hair Gray_Hair Bald Receding_Hairline Bangs "
        "Straight_Hair Wavy_Hair Bushy_Eyebrows No_Beard Mustache Goatee"
    ).split()
)

# Skin tones: edges of six bands of the typology angle; angle, L*, a*, b* of seven skins
ITA_EDGES = 65, 55, 41, 28, 10, -30, -62
ITA_SKINS = np.array(
    [
        (-65, 27, 9, 10.5),
        (-50, 34, 11, 14),
        (-10, 46.5, 13, 19),
        (19, 56, 12, 18),
        (35, 62, 11, 17),
        (48, 67, 9, 15),
        (65, 73, 7, 11),
    ]
)
HAIR_RGB = dict(
    Black_Hair=(0.10, 0.08, 0.08),
    Brown_Hair=(0.33, 0.21, 0.13),
    Blond_Hair=(0.80, 0.63, 0.38),
    Red_Hair=(0.56, 0.25, 0.11),
    Gray_Hair=(0.70, 0.69, 0.68),
)
IRIS_RGB = (
    (0.20, 0.11, 0.06),
    (0.30, 0.17, 0.08),
    (0.36, 0.34, 0.16),
    (0.28, 0.44, 0.30),
    (0.30, 0.47, 0.62),
    (0.45, 0.53, 0.58),
)
LIP_RGB = (
    (0.72, 0.10, 0.16),
    (0.80, 0.27, 0.36),
    (0.60, 0.10, 0.25),
    (0.74, 0.36, 0.34),
    (0.84, 0.32, 0.25),
    (0.45, 0.10, 0.17),
)
LID_RGB = (
    (0.35, 0.20, 0.18),
    (0.30, 0.22, 0.34),
    (0.25, 0.28, 0.35),
    (0.45, 0.30, 0.20),
    (0.16, 0.13, 0.14),
)
CLOTH_RGB = (
    (0.13, 0.14, 0.18),
    (0.85, 0.84, 0.82),
    (0.20, 0.28, 0.45),
    (0.55, 0.16, 0.18),
    (0.25, 0.40, 0.33),
    (0.62, 0.50, 0.36),
    (0.45, 0.47, 0.52),
    (0.60, 0.45, 0.62),
)
FRAME_RGB = (0.05, 0.05, 0.06), (0.22, 0.12, 0.07), (0.6, 0.55, 0.45), (0.3, 0.1, 0.12)

# The hills of a face: centre below the eye line, widths, height, occlusion
RELIEF = (
    (0, 0.12, 0.062, 0.16, 0.033, 0),
    (0.23, -0.14, 0.17, 0.06, 0.027, 0),
    (0.17, -0.03, 0.09, 0.07, -0.015, 0.12),
    (0.34, 0.24, 0.17, 0.13, 0.042, -0.02),
    (0, 0.66, 0.14, 0.035, -0.018, 0.12),
    (0, 0.77, 0.14, 0.09, 0.03, -0.02),
    (0, -0.38, 0.30, 0.16, 0.03, -0.03),
    (0.13, 0.42, 0.06, 0.08, -0.006, 0.03),
    (0, 0.43, 0.025, 0.04, -0.006, 0.06),
    (0.085, 0.10, 0.032, 0.12, 0, 0.09),
)
WARM, COOL, EYE_WHITE, LIP_TINT, DARK, WHITE = (
    torch.tensor(colour).view(3, 1, 1)
    for colour in (
        (1.0, 0.91, 0.87),
        (0.1, 0.9, 0.8),
        (0.97, 0.95, 0.93),
        (0.90, 0.64, 0.63),
        (0.07, 0.05, 0.05),
        (1.0, 1.0, 1.0),
    )
)
CHUNK_PIXELS = 64 * 64**2  # what the cache holds


class _Chance:
    """Deals out the columns of one table of uniforms, a row per person."""

    def __init__(self, table, fixed):
        self.columns, self.fixed, self.faces = iter(table.T), fixed, {}

    def uniform(self, low=0.0, high=1.0):
        return low + (high - low) * next(self.columns)

    def bell(self, mean, width):
        """A triangular bell on mean +- width."""
        return mean + width * (next(self.columns) + next(self.columns) - 1)

    def flag(self, name, p):
        """An attribute, noted and returned: true with probability p, unless it is fixed."""
        drawn = next(self.columns) < p
        self.faces[name] = (
            np.full_like(drawn, bool(self.fixed[name])) if name in self.fixed else drawn
        )
        return self.faces[name]

    def choice(self, weights, names=()):
        """One option by weight, wishes first; a lost option moves nobody else."""
        wish = [
            (name in self.fixed) * (2000 * bool(self.fixed.get(name)) - 1000) for name in names
        ] or [0] * len(weights)
        scores = [
            np.log(w + 1e-9) - np.log(-np.log(next(self.columns) + 1e-12)) + extra
            for w, extra in zip(weights, wish)
        ]
        return np.argmax(scores, axis=0)

    def rgb(self, colours, width=0.3):
        """Colours, one a person, made lighter or darker and tinged."""
        tinge = np.stack([self.bell(1, 0.06) for _ in range(3)], 1)
        return (colours * tinge * self.bell(1, width)[:, None]).clip(0.02, 1)

    def pick(self, palette):
        return np.array(palette)[(self.uniform() * len(palette)).astype(int)]


def _skin_rgb(ita):
    """Skin of a typology angle, from CIE L*a*b* (D65) to sRGB."""
    light, a, b = (np.interp(ita, ITA_SKINS[:, 0], ITA_SKINS[:, k]) for k in (1, 2, 3))
    f = np.stack([(light + 16) / 116 + a / 500, (light + 16) / 116, (light + 16) / 116 - b / 200])
    xyz = np.where(f > 6 / 29, f**3, (f - 4 / 29) * 108 / 841) * [[0.9505], [1], [1.089]]
    to_rgb = [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.057]]
    rgb = np.array(to_rgb) @ xyz
    return np.where(rgb > 0.0031308, 1.055 * rgb.clip(0.003) ** (1 / 2.4) - 0.055, 12.92 * rgb).T


def _imagine_people(c):
    """Who they are, with the loose ties attributes have among people."""
    a, flag = c.faces, c.flag
    a["ita"] = np.interp(6 * c.uniform(), range(7), ITA_EDGES)
    pale = np.interp(a["ita"], [-20, 50], [0, 1])
    male = flag("Male", 0.46)
    young = flag("Young", np.where(male, 0.69, 0.81))
    flag("Mouth_Slightly_Open", np.where(flag("Smiling", np.where(male, 0.42, 0.54)), 0.75, 0.18))
    flag("Eyeglasses", np.where(young, 0.06, 0.19))
    heavy = flag("Heavy_Makeup", np.where(male, 0.02, 0.56 + 0.14 * young))
    share = np.where(heavy, 0.95, 0.12 * ~male)
    flag("Wearing_Lipstick", heavy * 1.0 if "Heavy_Makeup" in c.fixed else share)
    flag("Rosy_Cheeks", np.where(heavy, 0.25, 0.05))
    flag("Bushy_Eyebrows", np.where(male, 0.25, 0.06))
    _imagine_head(c, a, male, young, pale)


def _imagine_head(c, a, male, young, pale):
    """Hair, or none, and beard."""
    flag = c.flag
    haired = any(
        c.fixed.get(k)
        for k in (*HAIR_RGB, "Bangs", "Straight_Hair", "Wavy_Hair", "Receding_Hairline")
    )
    bald = flag("Bald", (not haired) * np.where(male, np.where(young, 0.03, 0.2), 0.002))
    receding = flag("Receding_Hairline", np.where(male, np.where(young, 0.06, 0.35), 0.02))
    a["Bangs"] = flag("Bangs", np.where(male, 0.07, 0.20) * ~receding) & ~bald
    a["Receding_Hairline"] = receding & ~bald & ~a["Bangs"]
    dark, brown = 1.1 - 0.8 * pale, 0.2 + 0.35 * pale
    blond, red, grey = 0.01 + 0.34 * pale**2, 0.01 + 0.05 * pale, np.where(young, 0.005, 0.7)
    a["hue"] = c.choice([dark, brown, blond, red, grey], HAIR_RGB)
    a.update({name: (a["hue"] == k) & ~bald for k, name in enumerate(HAIR_RGB)})
    shares = (0.84, 0.10), (0.02, 0.20), (0.07, 0.50), (0.01, 0.14)  # short, bob, long, tied
    style = c.choice([*(np.where(male, m, f) for m, f in shares), 0.06 * (1.4 - pale)])  # afro
    straight = c.fixed.get("Straight_Hair")
    p = np.where(male, 0.25, 0.5) + (style == 4) if straight is None else 1 - bool(straight)
    a["Wavy_Hair"] = flag("Wavy_Hair", p) & ~bald
    a["Straight_Hair"] = ~a["Wavy_Hair"] & ~bald
    a["style"] = np.where((style == 4) & a["Straight_Hair"], 0, style)
    _imagine_beard(c, a, male)


def _imagine_beard(c, a, male):
    """None, stubble, moustache, goatee or a full beard."""
    full = 0.15 * bool(c.fixed.get("Mustache", True))  # it has a moustache
    beard = c.choice(
        [np.where(male, w, w == 0.5) for w in (0.50, 0.18, 0.07, 0.10, full)],
        ["No_Beard", "", "Mustache", "Goatee", ""],
    )
    a["beard"] = beard
    a.update(No_Beard=beard == 0, Mustache=(beard == 2) | (beard == 4), Goatee=beard == 3)


def _imagine_features(c, a):
    """Pose and face, in units of about half the picture."""
    male, old, smile = a["Male"] * 1.0, ~a["Young"] * 1.0, a["Smiling"] * 1.0
    return dict(
        yaw=c.bell(0, 0.55),
        roll=c.bell(0, 0.14),
        pitch=c.bell(0, 0.3),
        zoom=c.bell(1.12, 0.13),
        dx=c.bell(0, 0.07),
        dy=c.bell(0.11, 0.06),
        wide=c.bell(0.575 + 0.015 * male, 0.05),
        up=c.bell(0.76, 0.05),
        low=c.bell(0.79 + 0.05 * male, 0.06),
        jaw=c.bell(0.4 + 0.3 * male, 0.3),
        taper=c.bell(0.07 - 0.06 * male, 0.06),
        neck=c.bell(0.31 + 0.09 * male, 0.04),
        eye_x=c.bell(0.245, 0.02),
        eye_w=c.bell(0.14 - 0.006 * male, 0.014),
        gaze=c.bell(0, 0.03),
        eye_h=c.bell(0.066 - 0.009 * male - 0.006 * old - 0.008 * smile, 0.014),
        tilt=c.bell(0.008, 0.022),
        iris_r=c.bell(0.062, 0.004),
        brow_y=c.bell(-0.162 + 0.016 * male, 0.025),
        brow_arch=c.bell(0.035 - 0.015 * male, 0.02),
        brow_t=c.bell(0.024 + 0.008 * male, 0.008) + 0.011 * a["Bushy_Eyebrows"],
        brow_tilt=c.bell(0.002, 0.018),
        nose_w=c.bell(0.085 + 0.008 * male - 0.0002 * a["ita"], 0.018),
        nose_y=c.bell(0.30, 0.035),
        nose_h=c.bell(1, 0.35),
        mouth_y=c.bell(0.52, 0.03),
        mouth_w=c.bell(0.185, 0.02) + 0.05 * smile,
        lift=c.bell(0.02, 0.014) + 0.05 * smile,
        lip=c.bell(1.05 - 0.15 * male - 0.15 * old - 0.003 * a["ita"], 0.25),
        gape=a["Mouth_Slightly_Open"] * c.bell(0.045 + 0.025 * smile, 0.02),
        smile=smile,
        age=old * c.uniform(0.55, 1),
        freckles=c.uniform(-8, 1).clip(0) * (a["ita"] > 35),
        frame_w=c.bell(0.185, 0.025),
        frame_h=c.bell(0.125, 0.035),
        frame_t=c.uniform(0.008, 0.028),
        shades=c.uniform() < 0.18,
        strength=c.uniform(0.65, 1),
    )


def _imagine_hair(c, a):
    """The cut: outline, opening for the face, part and curl."""
    style, wavy = a["style"], a["Wavy_Hair"]

    def cut(*each):
        return np.choose(style, each)

    return dict(
        side=cut(0.012, 0.12, 0.10, 0.015, 0.24)
        + cut(0.4, 1, 1, 1, 1) * c.uniform(0, 0.05)
        + 0.03 * wavy,
        top=cut(0.06, 0.10, 0.09, 0.03, 0.22) + c.uniform(0, 0.09),
        length=cut(0, 0.72, 1.9, 0.1, 0.55) + c.uniform(-0.04, 0.1),
        flare=cut(0, 0.04, 0.08, 0, 0) + c.bell(0, 0.08) * (style == 2),
        wave=wavy * c.uniform(0.5, 1),
        part=c.bell(0, 1),
        skew=c.bell(0, 0.35) * ~a["Bangs"],
        square=(cut(0.55, 0.5, 0.3, 0.4, 0.6) * c.uniform(0.6, 1.2)).clip(0, 1),
        open_x=cut(0.56, 0.50, 0.50, 0.60, 0.57) + c.bell(0, 0.03),
        open_y=np.where(a["Bangs"], 0.235, cut(0.52, 0.46, 0.46, 0.46, 0.46))
        + 0.1 * a["Receding_Hairline"]
        + c.bell(0, 0.04),
        curl=cut(0, 0, 0, 0, 1.0) + 0.3 * wavy * (style == 0),
    )


def _imagine_colours(c, a):
    """Pigments, light and surroundings; colours are (n, 3)."""
    ita, warm, angle, high = a["ita"], c.bell(0.04, 0.07), c.bell(0, 1.15), c.bell(0.42, 0.35)
    iris = (c.uniform(-3.5, 3) + np.interp(ita, [0, 60], [-2.5, 3])).clip(0, 5.9).astype(int)
    tint = np.stack([c.uniform(low, 1) for low in (0.72, 0.72, 0.65)], 1)
    exposure = c.bell(1.24, 0.12) - 0.0013 * ita  # as a photographer would
    return dict(
        skin=_skin_rgb(ita) * c.bell(1, 0.04)[:, None],
        hair=c.rgb(np.array(list(HAIR_RGB.values()))[a["hue"]], 0.22),
        iris=c.rgb(np.array(IRIS_RGB)[iris], 0.2),
        lipstick=c.rgb(c.pick(LIP_RGB), 0.15),
        lid=c.pick(LID_RGB),
        cloth=c.rgb(c.pick(CLOTH_RGB)),
        frame=c.rgb(c.pick(FRAME_RGB)),
        light=np.stack([1 + warm, np.ones_like(warm), 1 - warm], 1) * exposure[:, None],
        lx=np.sin(angle) * np.cos(high),
        ly=-np.sin(high),
        lz=np.cos(angle) * np.cos(high),
        ambient=c.bell(0.40, 0.2),
        gloss=c.bell(0.34, 0.2),
        back_x=c.bell(0, 0.5),
        back_y=c.bell(-0.1, 0.4),
        blobs=c.uniform(0, 0.32),
        coarse=(24 * c.uniform()).astype(int),
        fine=(24 * c.uniform()).astype(int),
        back=(tint * c.uniform(0.1, 1.15)[:, None]).clip(0, 0.96),
        back2=tint**0.5 * c.uniform(0.1, 1)[:, None],
    )


def imagine_faces(n, seed=0, first=0, **fixed):
    """The attributes and latent parameters of n people, from number `first` on, one row each.

    Person k of a seed is the same in every call. A keyword such as Heavy_Makeup=True
    fixes an attribute for all and leaves the rest of each person; where wishes
    contradict each other, the attributes are what is drawn.
    """
    unknown = sorted(set(fixed) - set(DRAWN_ATTRIBUTES))
    if unknown:
        raise ValueError(f"unknown attributes {unknown}; known are {', '.join(DRAWN_ATTRIBUTES)}")
    source = np.random.default_rng(seed)
    source.bit_generator.advance(200 * first)
    chance = _Chance(source.random((n, 200)), fixed)
    _imagine_people(chance)
    for imagine in _imagine_features, _imagine_hair, _imagine_colours:
        chance.faces.update(imagine(chance, chance.faces))
    return chance.faces


@lru_cache(4)
def _noise_tiles(size):
    """Smooth random tiles, coarse and fine, that all faces share."""
    rng = np.random.default_rng(7)
    grids = [torch.from_numpy(rng.standard_normal((24, 1, k, k), np.float32)) for k in (7, 44)]
    return [F.interpolate(g, (size, size), mode="bicubic", align_corners=True)[:, 0] for g in grids]


def _within(d, soft):
    """Antialiased mask of the region where the distance d is negative."""
    return (0.5 - d / soft).clamp_(0, 1)


def _bump(x, y, sx, sy):
    """A Gaussian hill of unit height."""
    return ((x / sx).square() + (y / sy).square()).neg_().exp_()


def _ridge(d, width):
    return (d / width).square_().neg_().exp_()


def _blend(v, colour, mask):
    """Paint a colour through a mask, in place."""
    v.img.lerp_(colour, mask[:, None])


def _rows(v, top, bottom):
    """Views of the maps on a band of rows, given in face units, with a margin."""
    size = v.img.shape[-1]
    cut = slice(
        *(int(min(max(t * 0.56 + 0.445, 0), 1) * size) for t in (top - 0.16, bottom + 0.16))
    )
    return SimpleNamespace(
        **{k: m[..., cut, :] if m.shape[-2] == size else m for k, m in vars(v).items()}
    )


def _maps(p, size):
    """Pixel maps: head coordinates x, y and, round the turned head, face u, w."""
    t = (torch.arange(size) + 0.5) * 2 / size - 1
    gx, gy = t - p.dx, t[:, None] + p.dy
    x = (gx * p.roll.cos() + gy * p.roll.sin()) / p.zoom
    y = (gy * p.roll.cos() - gx * p.roll.sin()) / p.zoom
    ry = torch.where(y > 0, y / p.low, y / p.up)
    below = ry.clamp(0, 1.2)
    rx = (x - 0.12 * p.yaw * below) / (p.wide * (1 - p.taper * below))
    r2 = rx.square() + ry.square() * (1 - p.jaw + p.jaw * ry.abs())
    nz = (1 - r2).clamp_(min=0.02).sqrt_()
    u = p.wide * (rx * p.yaw.cos() - nz * p.yaw.sin())
    coarse, fine = (tiles[k.flatten()] for tiles, k in zip(_noise_tiles(size), (p.coarse, p.fine)))
    mix = (0.5 + p.back_x * gx + p.back_y * gy + p.blobs * coarse).clamp_(0, 1)[:, None]
    px, w = 2 / size / p.zoom, y + 0.12 * p.pitch * (nz - 0.5)
    maps = dict(px=px, x=x, y=y, rx=rx, ry=ry, r2=r2, nz=nz, u=u, w=w, coarse=coarse, fine=fine)
    maps.update(au=u.abs(), sign=u.sign(), head=_within((r2.sqrt() - 1) * 0.6, px))
    maps.update(img=p.back + (p.back2 - p.back) * mix)
    return SimpleNamespace(**maps, vignette=1.12 - 0.11 * (gx.square() + gy.square()))


def _hair(v, p):
    """Outline, opening for the face, and shaded colour of the hair."""
    down = v.y.clamp(min=0)
    sway = (v.y * 9 + 4 * p.part + 2 * v.coarse).sin_() * p.wave
    hx = v.x / (p.wide + p.side + p.flare * down + 0.03 * sway * down.clamp(max=1))
    hy = v.y.clamp(max=0) / (p.up + p.top)
    r2 = hx.square() + hy.square() - 0.35 * (hx * hy).square()
    flow = hx * 20 + 1.6 * sway + 2.6 * v.coarse + 0.2 * v.fine
    strand = (
        0.22 * flow.sin()
        + 0.3 * (flow * 2.3 + 5 * p.part).sin_()
        + 0.4 * (flow * 0.37).sin_()
        + (0.22 + 0.5 * p.curl) * v.fine
    )
    rough = 0.005 * strand + 0.03 * p.curl * v.fine + 0.01 * v.coarse
    edge = torch.maximum((r2.sqrt() - 1) * 0.65 + rough, v.y - p.length - 0.06 * strand)
    ox = ((v.u - 0.1 * p.part) / p.open_x).square()
    oy = ((v.w + p.skew * v.u).clamp(max=0) / p.open_y).square()
    opening = (ox + oy - p.square * ox * oy * ((ox < 1) & (oy < 1)) - 1 + 0.05 * strand) * 0.25
    dome = 0.8 * (hx * p.lx + hy * p.ly) + (1 - r2).clamp_(min=0).sqrt_() * p.lz
    sheen = _bump(hy + 0.55 + 0.05 * strand, hx - p.lx, 0.16, 0.8) * (1 - p.curl)
    tone = (0.42 + 0.42 * dome.clamp(min=-0.3) + 0.20 * strand + 0.35 * sheen).clamp_(0.05, 1.5)
    colour = p.hair * (0.25 + 0.85 * tone[:, None]) + 0.12 * sheen[:, None]
    return (
        _within(edge, v.px + 0.04 * p.curl) * (1 - p.Bald),
        opening,
        colour * (p.light * 0.5 + 0.45),
    )


def _paint_front_hair(v, p, mask, opening, colour):
    """Hair round the face, with its shadow on the brow."""
    cast = _within(-opening - 0.03, 0.12) * v.head * _within(v.w, 0.3)
    _blend(v, p.skin * 0.4, 0.4 * cast * (1 - p.Bald))
    short = p.length < 0.2
    fade = _within(v.w - p.length, 0.04 + 0.2 * short)
    _blend(v, colour, mask * fade * _within(-opening, 0.05 + 0.05 * short))


def _paint_body(v, p):
    """Neck in the shadow of the chin, clothes, and ears, the far one narrower."""
    side, out, far = v.x / p.neck, v.x.abs() - p.wide, v.x.sign()
    tone = 0.80 + 0.25 * side * p.lx - 0.2 * side.square()
    tone = tone - 0.36 * _bump(v.x + 0.1 * p.lx, v.y - p.low, 0.5, 0.17)
    neck = _within(side.abs() * p.neck - p.neck - 0.35 * (v.y - 1).clamp(min=0), v.px) * (v.y > 0.3)
    _blend(v, p.skin * p.light * WARM * tone.clamp(0.25, 1)[:, None], neck)
    collar = 0.92 + 0.28 * v.x.abs() + 0.16 * _bump(v.x, v.y - 1.1, 0.22, 0.4)
    shade = 0.72 + 0.22 * v.x * p.lx + 0.10 * v.coarse
    _blend(v, p.cloth * p.light * shade[:, None], _within(collar - v.y, 1.5 * v.px))
    ex, ey = (
        out / (0.085 * (1 - far * p.yaw * 1.6).clamp(0.2, 1.2)),
        (v.y - 0.12 + 0.1 * out) / 0.17,
    )
    tone = 0.78 + 0.3 * far * p.lx - 0.35 * _bump(ex - 0.3, ey, 0.35, 0.6)
    ear = _within(((ex.square() + ey.square()).sqrt() - 1) * 0.08, v.px)
    _blend(v, p.skin * p.light * WARM * tone[:, None], ear)


def _paint_head(v, p):
    """The head under one light, its relief tilting the normals."""
    v.lam = (v.rx * p.lx + v.ry * p.ly) * (0.5 + 0.5 * v.r2.clamp(max=1)) + v.nz * p.lz
    v.dark = (v.r2 - 0.45).clamp_(0, 0.6) * 0.35
    for cx, cy, sx, sy, height, dark in RELIEF:
        r = _rows(v, cy - 2 * sy, cy + 2 * sy)
        dx, dy, lx = (r.au - cx, r.w - cy, r.sign * p.lx) if cx else (r.u, r.w - cy, p.lx)
        hill = _bump(dx, dy, sx, sy)
        r.lam += 2 * height * hill * (dx * lx / sx**2 + dy * p.ly / sy**2)
        r.dark += dark * hill
    _shape_nose(_rows(v, 0, 0.6), p)
    _shape_age(_rows(v, -0.45, 0.25), p)
    tone = p.ambient + (1.08 - p.ambient) * (v.lam * 0.75 + 0.25).clamp_(0, 1.3)
    tone = (tone * (1 - v.dark) + 0.012 * v.fine)[:, None]
    blush = _bump(v.au - 0.35, v.w - 0.25 + 0.3 * (v.au - 0.35), 0.17, 0.12)
    blush *= 0.07 + 0.13 * p.Rosy_Cheeks + 0.13 * p.Heavy_Makeup * p.strength
    spots = 0.4 * (v.fine - 1).clamp_(0, 1) * p.freckles * _bump(v.au - 0.2, v.w - 0.2, 0.28, 0.14)
    skin = p.skin * p.light * tone * (WARM + (1 - WARM) * tone.clamp(max=1))  # shadows glow
    gloss = 2.2 * p.gloss * (v.lam - 0.72).clamp_(0, 0.6).square_()
    _blend(v, skin * (1 - (blush + spots)[:, None] * COOL) + gloss[:, None] * p.light, v.head)


def _shape_nose(r, p):
    """Nose with wings, nostrils and cast shadow, and the smile folds."""
    cx, cy, nw = r.u - 0.09 * p.yaw, r.w - p.nose_y, p.nose_w
    ax = cx.abs()
    ball, wing = _bump(cx, cy, nw * 0.8, 0.065), _bump(ax - nw, cy - 0.015, 0.042, 0.045)
    r.lam += p.nose_h * ball * (5.6 * cx * p.lx + 6.7 * cy * p.ly)
    r.lam += p.nose_h * wing * (6.7 * (ax - nw) * r.sign * p.lx + 6 * cy * p.ly)
    r.lam += 0.16 * _bump(cx, cy + 0.02, 0.035, 0.035)
    r.dark += 0.55 * _bump(ax - nw * 0.55, cy - 0.048, 0.027, 0.016)
    r.dark += 0.27 * _bump(cx + 0.05 * p.lx, cy - 0.085, nw * 1.3, 0.03)
    r.dark += 0.22 * _bump(ax - nw * 1.38, cy - 0.01, 0.018, 0.04)
    t = ((cy + 0.02) / (p.mouth_y - p.nose_y + 0.06)).clamp(0, 1)
    fold = r.au - nw * 1.35 - (p.mouth_w - 0.08) * t
    deep = (0.13 * p.smile + 0.17 * p.age + 0.03) * (1 - (2 * t - 1).square())
    r.dark += deep * _ridge(fold, 0.034)
    r.lam += deep * 0.35 * _ridge(fold - 0.05, 0.04)


def _shape_age(r, p):
    """Forehead lines, crow's feet and bags under the eyes."""
    lines = (75 * r.w + 9 * r.u.square() + r.coarse).sin_().clamp_(min=0)
    feet = (70 * r.w + 20 * r.au).sin_().clamp_(min=0)
    bag = _bump(r.au - 0.235, r.w - 0.105 + 1.8 * (r.au - 0.235).square(), 0.11, 0.018)
    r.dark += p.age * (
        0.13 * lines * _bump(r.u, r.w + 0.33, 0.3, 0.09)
        + 0.16 * feet * _bump(r.au - 0.44, r.w - 0.01, 0.05, 0.07)
    )
    r.dark += (0.07 + 0.20 * p.age) * bag


def _paint_eyes(v, p):
    """Lids, eyeball, iris and lashes, both sides at once."""
    ex = (v.au - p.eye_x) / p.eye_w
    ey, bow = v.w + p.tilt * ex, (1 - ex.square()).clamp_(min=0)
    upper = ey + p.eye_h * bow * (1.1 + 0.15 * ex)  # height below the upper lid
    lower = ey - p.eye_h * bow * (0.62 - 0.12 * p.smile)
    made, beyond = p.Heavy_Makeup * p.strength, (ex.abs() - 1).clamp(min=0)
    shadow = 0.75 * made * (ey < 0) * _bump(ex, upper + 0.035, 0.95, 0.045)
    _blend(v, p.lid * (0.5 + 0.5 * p.skin), shadow)
    crease = _bump(upper + 0.038, ex - 0.1, 0.011, 0.8)
    _blend(v, p.skin * 0.45, crease * (0.45 + 0.2 * p.age) * (1 - 0.4 * made))
    hole = _within(torch.maximum(-upper, lower) + 0.3 * beyond, v.px) * (bow > 0)
    white = 0.92 - 0.25 * _ridge(upper, 0.03) - 0.18 * ex.square()
    _blend(v, white.clamp_(min=0.3)[:, None] * (0.5 + 0.42 * p.light) * EYE_WHITE, hole)
    ix, iy = v.au - p.eye_x - v.sign * p.gaze, ey + 0.006
    rad = (ix.square() + iy.square()).sqrt_() / p.iris_r
    glow = (1 + 0.6 * (iy / p.iris_r).clamp(-1, 1) - (rad - 0.75).clamp(0, 1)).clamp_(0.6, 1.65)
    _blend(v, p.iris * glow[:, None], hole * _within((rad - 1) * p.iris_r, 1.5 * v.px))
    _blend(v, p.iris * 0.12, hole * _within((rad - 0.46) * p.iris_r, v.px))
    _blend(
        v, WHITE, 0.95 * hole * _bump(ix * v.sign - 0.022 * p.lx.sign(), iy + 0.02, 0.014, 0.014)
    )
    lash = (upper + 0.06 * made * (ex - 0.9).clamp(min=0) + 0.06 * beyond).abs()
    lash = lash - 0.009 - 0.004 * (ex > 0) - made * (0.009 + 0.006 * ex)
    lash = _within(lash, v.px) * _within((ex.abs() - 1.02 - 0.1 * made) * 0.1, v.px)
    _blend(v, DARK, lash * (0.72 + 0.2 * made - 0.12 * p.Male))
    _blend(v, p.skin * 0.4, _bump(lower, ex, 0.010, 0.75) * (0.35 + 0.4 * made))


def _paint_brows(v, p):
    """Tapering brows with a little grain."""
    bx = (v.au - p.eye_x - 0.01) / 0.165
    dy = v.w - p.brow_y + p.brow_arch * (1 - 0.55 * (bx - 0.25).square()) - p.brow_tilt * bx
    mask = 1.6 - 1.5 * (dy / p.brow_t / (1.05 - 0.4 * bx.clamp(-1, 1))).square()
    grain = (0.68 + 0.1 * v.fine).clamp_(0, 0.9) * _within((bx.abs() - 1) * 0.12, 0.09)
    _blend(v, p.hair * 0.38 + 0.02, mask.clamp_(0, 1) * grain * (0.75 + 0.25 * p.Bushy_Eyebrows))


def _paint_beard(v, p):
    """Stubble, moustache, goatee or full beard, by kind."""
    lip = ((v.u / 1.1 / p.mouth_w).square() + ((v.w - p.mouth_y - 0.03) / 0.095).square()).sqrt_()
    full = 0.49 - v.w - 1.25 * (v.au - 0.22).clamp(min=0) + 0.02 * v.fine
    full = torch.maximum(full, 0.06 * (1 - lip))
    tash = v.w - p.mouth_y + 0.085 - 0.25 * v.u.square() - 0.012 * v.fine
    tash = torch.maximum(tash.abs() - 0.045 + 0.6 * v.u.square(), v.au - p.mouth_w * 1.1)
    chin = (v.u.square() / 0.03 + ((v.w - 0.74) / 0.15).square()).sqrt_() - 1
    chin = 0.1 * torch.maximum(chin, 1 - lip)
    d = torch.where(p.beard == 2, tash, torch.where(p.beard == 3, chin, torch.minimum(full, tash)))
    depth = torch.where(p.beard == 1, 0.34, 0.88) * (1 + 0.16 * v.fine)
    tone = 0.42 + 0.3 * v.lam.clamp(0, 1) + 0.06 * v.fine
    _blend(
        v,
        p.hair * p.light * tone[:, None],
        _within(d, 0.05) * depth.clamp_(0, 0.95) * v.head * (p.beard > 0),
    )


def _paint_mouth(v, p):
    """Lips, and teeth or the dark between them."""
    mx = v.u / p.mouth_w
    bow, stick = (1 - mx.square()).clamp_(min=0), p.Wearing_Lipstick
    y, gap = v.w - p.mouth_y + p.lift * (mx.square() - 0.35), p.gape * bow
    top = -0.05 * p.lip * bow * (1.05 - 0.28 * _ridge(mx, 0.16)) - 0.3 * gap
    bottom = 0.068 * p.lip * bow + 0.7 * gap
    lips = (p.skin * LIP_TINT).lerp(
        p.lipstick * (0.6 + 0.4 * p.skin), (stick * (0.55 + 0.35 * p.strength))[:, None]
    )
    lips = lips * p.light * (0.74 + 0.22 * (y > 0))[:, None]
    gloss = _bump(mx + 0.2 * p.lx, y - bottom * 0.55, 0.4, 0.014) * (0.12 + 0.14 * stick)
    body = _within(torch.maximum(top - y, y - bottom), 1.3 * v.px) * (bow > 0)
    _blend(v, lips + gloss[:, None], body * (0.88 + 0.1 * stick))
    inner = torch.maximum(-0.3 * gap - y, y - 0.7 * gap)
    line = _within(inner.abs() - 0.006, 1.5 * v.px) * _within((mx.abs() - 1) * 0.15, 2 * v.px)
    _blend(v, p.skin * 0.3 * LIP_TINT, 0.75 * line)
    hole = _within(inner, v.px) * (p.gape > 0) * (bow > 0)
    _blend(v, DARK * 1.6, hole)
    teeth = _within(y - (0.34 + 0.3 * p.smile) * gap, v.px) * _within(mx.abs() - 0.86, 0.15)
    ivory = EYE_WHITE * (0.45 + 0.45 * p.light) * (0.9 - 0.35 * mx.square())[:, None]
    _blend(v, ivory, hole * teeth * (0.45 + 0.5 * p.smile))


def _paint_glasses(v, p):
    """Two lenses, clear or dark, with rims, bridge and arms."""
    inner = v.au - p.eye_x - 0.01
    gx, gy = inner / p.frame_w, (v.w - 0.03) / p.frame_h
    d = 0.14 * ((gx.square().square_() + gy.square().square_()).sqrt_().sqrt_() - 1)
    bridge = torch.maximum((v.w + 0.01).abs(), inner + p.frame_w)
    arm = torch.maximum((v.w + 0.02).abs(), p.frame_w - inner) + 9 * (v.x.abs() > p.wide + 0.02)
    rim = torch.minimum(torch.minimum(d.abs(), bridge), arm) - p.frame_t
    lens, glare = (
        _within(d, v.px) * p.Eyeglasses,
        (9 * (v.u - v.w) + 2 * p.part).sin_().clamp_(min=0),
    )
    _blend(v, p.frame * 0.4, lens * p.shades * (0.97 - 0.08 * gy).clamp_(0, 0.98))
    _blend(v, WHITE, 0.16 * lens * glare)
    _blend(v, p.skin * 0.4, 0.25 * _bump(gy - 1.15, gx, 0.12, 0.8) * p.Eyeglasses)
    _blend(v, p.frame * (0.8 + 0.3 * p.light), _within(rim, v.px) * p.Eyeglasses)


def _paint(p, size):
    """One chunk of portraits, back to front."""
    v = _maps(p, size)
    mask, opening, colour = _hair(v, p)
    _blend(v, colour * 0.55, mask)  # what hangs behind
    _paint_body(v, p)
    _paint_head(v, p)
    _paint_beard(_rows(v, 0, 0.95), p)
    _paint_mouth(_rows(v, 0.38, 0.72), p)
    _paint_eyes(_rows(v, -0.2, 0.14), p)
    _paint_brows(_rows(v, -0.26, -0.06), p)
    _paint_front_hair(v, p, mask, opening, colour)
    _paint_glasses(_rows(v, -0.15, 0.22), p)
    return ((v.img * v.vignette[:, None] - 0.035) * 255 + 0.5).clamp_(0, 255).to(torch.uint8)


def draw_faces(n, size=64, seed=0, first=0, **fixed):
    """Portraits of n people, from number `first` on, and their attributes.

    Returns uint8 images (n, 3, size, size) and a dict of bool tensors; keywords
    fix attributes as for imagine_faces.
    """
    faces = {
        k: torch.from_numpy(np.ascontiguousarray(a))
        for k, a in imagine_faces(n, seed, first, **fixed).items()
    }
    images = torch.empty(n, 3, size, size, dtype=torch.uint8)
    chunk = max(1, CHUNK_PIXELS // size**2)
    with torch.inference_mode():
        for k in range(0, n, chunk):
            p = {
                name: (a if a.dtype == torch.int64 else a.float())[k : k + chunk, ..., None, None]
                for name, a in faces.items()
            }
            images[k : k + chunk] = _paint(SimpleNamespace(**p), size)
    return images, {name: faces[name] for name in DRAWN_ATTRIBUTES}


def write_folder(folder, n, size, held_out, on_progress):
    """Draw n faces, and as many of another seed as are to be held out, as CelebA lays them out.

    Leaves images in folder/faces and a list of attributes; calls on_progress(number drawn).
    """
    (folder / "faces").mkdir()
    lines = [str(n + held_out), " ".join(DRAWN_ATTRIBUTES)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for seed, count in enumerate((n, held_out)):
            prefix = OTHER_SEED if seed else ""
            for first in range(0, count, 1000):
                images, attributes = draw_faces(min(1000, count - first), size, seed, first)
                names = [f"{prefix}{first + i + 1:06d}.jpg" for i in range(len(images))]
                paths = [folder / "faces" / name for name in names]
                pixels = images.permute(0, 2, 3, 1).numpy()
                list(pool.map(_save, pixels, paths))
                values = torch.stack([attributes[name] for name in DRAWN_ATTRIBUTES], 1)
                for name, row in zip(names, (values.int() * 2 - 1).tolist()):
                    lines.append(" ".join([name, *map(str, row)]))
                on_progress(len(images))
    text = "\n".join(lines) + "\n"
    (folder / "list_attr_celeba.txt").write_text(text, encoding="utf-8")


def _save(pixels, path):
    Image.fromarray(pixels).save(path, quality=95, subsampling=0)
