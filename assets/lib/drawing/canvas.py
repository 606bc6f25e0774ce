"""The canvas of the drawn faces: where each pixel lies on a head, and soft brushes.

Lengths are in head units: the origin is between the eyes, y and v point down, the chin is at about
0.8 and the ears are at about 0.6 on either side.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F


@dataclass
class Canvas:
    """Portraits of n people in the making, and maps of their pixels, (n, rows, size) each."""

    image: torch.Tensor  # (n, 3, rows, size), painted in place
    pixel: torch.Tensor  # the width of a pixel, (n, 1, 1)
    x: torch.Tensor  # position (x, y) from between the eyes, with the head upright
    y: torch.Tensor
    u: torch.Tensor  # position (u, v) on the face, with the head turned to the front
    v: torch.Tensor
    abs_u: torch.Tensor  # for what is on both sides
    side: torch.Tensor  # the sign of u
    head: torch.Tensor  # mask of the head
    lambert: torch.Tensor  # light that falls on the skin
    shadow: torch.Tensor  # light that does not reach the skin
    coarse: torch.Tensor  # smooth noise
    fine: torch.Tensor
    vignette: torch.Tensor  # brightness, lower toward the corners

    def paint(self, color, mask):
        """Blend a color (n or 1, 3, rows or 1, size or 1) in through a mask (n, rows, size)."""
        self.image.lerp_(color, mask[:, None])

    def rows(self, top, bottom):
        """A view of a whole canvas: the rows that show heights `top` to `bottom`, in any pose."""
        size = self.image.shape[-1]
        start, stop = (row_of(height, size) for height in (top - 0.16, bottom + 0.16))
        maps = {name: values for name, values in vars(self).items() if name != "pixel"}
        views = {name: values[..., start:stop, :] for name, values in maps.items()}
        return Canvas(pixel=self.pixel, **views)


def row_of(height, size):
    """The row that a height on an average head falls into."""
    return int(min(max(height * 0.56 + 0.445, 0), 1) * size)


def prepare_canvas(people, size):
    """The Canvas of the people in their poses, with the backdrop painted."""
    across = (torch.arange(size) + 0.5) * 2 / size - 1
    picture_x = across - people.shift_x
    picture_y = across[:, None] + people.shift_y
    pixel = 2 / size / people.zoom
    coarse, fine = pick_noise(people, size)
    mix = 0.5 + people.backdrop_x * picture_x + people.backdrop_y * picture_y
    mix = (mix + people.backdrop_noise * coarse).clamp_(0, 1)[:, None]
    return Canvas(
        image=people.backdrop + (people.backdrop_2 - people.backdrop) * mix,
        pixel=pixel,
        coarse=coarse,
        fine=fine,
        vignette=1.12 - 0.11 * (picture_x.square() + picture_y.square()),
        **map_head(people, picture_x, picture_y, pixel),
    )


def map_head(people, picture_x, picture_y, pixel):
    """The maps that depend on pose and shape of the head, as a dict."""
    cos, sin = people.roll.cos(), people.roll.sin()
    x = (picture_x * cos + picture_y * sin) / people.zoom
    y = (picture_y * cos - picture_x * sin) / people.zoom
    round_y = torch.where(y > 0, y / people.chin, y / people.crown)
    below = round_y.clamp(0, 1.2)
    width = people.head_width * (1 - people.taper * below)
    round_x = (x - 0.12 * people.yaw * below) / width
    squareness = 1 - people.jaw + people.jaw * round_y.abs()
    radius2 = round_x.square() + round_y.square() * squareness
    depth = (1 - radius2).clamp_(min=0.02).sqrt_()
    u = people.head_width * (round_x * people.yaw.cos() - depth * people.yaw.sin())
    lambert = round_x * people.light_x + round_y * people.light_y
    lambert = lambert * (0.5 + 0.5 * radius2.clamp(max=1)) + depth * people.light_z
    return dict(
        x=x,
        y=y,
        u=u,
        v=y + 0.12 * people.pitch * (depth - 0.5),
        abs_u=u.abs(),
        side=u.sign(),
        head=soft_mask((radius2.sqrt() - 1) * 0.6, pixel),
        lambert=lambert,
        shadow=(radius2 - 0.45).clamp_(0, 0.6) * 0.35,
    )


def pick_noise(people, size):
    """Coarse and fine noise for each person, (n, size, size)."""
    coarse, fine = noise_tiles(size)
    return coarse[people.coarse_tile.flatten()], fine[people.fine_tile.flatten()]


@lru_cache(4)
def noise_tiles(size):
    """24 tiles of coarse noise and 24 of fine noise, which all faces share, (24, size, size)."""
    generator = np.random.default_rng(7)
    tiles = []
    for cells in (7, 44):
        grid = generator.standard_normal((24, 1, cells, cells), np.float32)
        grid = torch.from_numpy(grid)
        tile = F.interpolate(grid, (size, size), mode="bicubic", align_corners=True)
        tiles.append(tile[:, 0])
    return tiles


def soft_mask(distance, softness):
    """Antialiased mask of the region in which the distance to its outline is negative."""
    return (0.5 - distance / softness).clamp_(0, 1)


def bump(x, y, width_x, width_y):
    """A Gaussian hill of height 1 around the origin."""
    return ((x / width_x).square() + (y / width_y).square()).neg_().exp_()


def ridge(distance, width):
    """A Gaussian ridge of height 1 along the line at distance 0."""
    return (distance / width).square_().neg_().exp_()


def rgb(red, green, blue):
    """A color to paint with, (3, 1, 1)."""
    return torch.tensor([red, green, blue]).view(3, 1, 1)
