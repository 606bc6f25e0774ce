"""Portraits of people who do not exist, drawn by code from a seed, with their true attributes.

`draw_faces` returns images and attributes, `imagine_faces` who the people are, and `write_folder`
writes faces to the disk as CelebA lays them out. How a face is drawn is in assets/lib/drawing.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from assets.lib.drawing import features, head
from assets.lib.drawing.attributes import DRAWN_ATTRIBUTES
from assets.lib.drawing.canvas import prepare_canvas
from assets.lib.drawing.people import imagine_faces

DRAWING = 3  # raise it when the faces change, so that folders of drawn faces are made anew
OTHER_SEED = "seed1_"  # prefix of the names of held-out faces
CHUNK_PIXELS = 64 * 64**2  # of the faces drawn at once: their maps fit into the cache
BATCH = 1000  # faces between two progress reports


def draw_faces(n, size=64, seed=0, first=0, **fixed):
    """Portraits of n people, from number `first` on, and their attributes.

    Returns uint8 images (n, 3, size, size) and {attribute: bool tensor (n,)}. Keywords fix
    attributes, as for imagine_faces.
    """
    people = imagine_faces(n, seed, first, **fixed)
    images = torch.empty(n, 3, size, size, dtype=torch.uint8)
    chunk = max(1, CHUNK_PIXELS // size**2)
    with torch.inference_mode():
        for start in range(0, n, chunk):
            stop = start + chunk
            some = {name: to_parameter(values[start:stop]) for name, values in people.items()}
            images[start:stop] = paint_portraits(SimpleNamespace(**some), size)
    return images, {name: torch.from_numpy(people[name]) for name in DRAWN_ATTRIBUTES}


def to_parameter(values):
    """Values of n people as a tensor to draw with, (n, ..., 1, 1): int64 as it is, or float32."""
    values = torch.from_numpy(np.ascontiguousarray(values))
    if values.dtype != torch.int64:
        values = values.float()
    return values[..., None, None]


def paint_portraits(people, size):
    """Portraits of some people, back to front: uint8, (n, 3, size, size)."""
    canvas = prepare_canvas(people, size)
    hair = head.grow_hair(canvas, people)
    head.paint_hair_behind(canvas, hair)
    head.paint_neck(canvas, people)
    head.paint_clothes(canvas, people)
    head.paint_ears(canvas, people)
    head.paint_skin(canvas, people)
    features.paint_beard(canvas.rows(0, 0.95), people)
    features.paint_mouth(canvas.rows(0.38, 0.72), people)
    features.paint_eyes(canvas.rows(-0.2, 0.14), people)
    features.paint_brows(canvas.rows(-0.26, -0.06), people)
    head.paint_hair_in_front(canvas, people, hair)
    features.paint_glasses(canvas.rows(-0.15, 0.22), people)
    image = canvas.image * canvas.vignette[:, None] - 0.035
    return (image * 255 + 0.5).clamp_(0, 255).to(torch.uint8)


def write_folder(folder, n, size, held_out, on_progress):
    """Draw n faces, and `held_out` faces of another seed, and write them as CelebA does.

    Writes images to folder/faces and their attributes to folder/list_attr_celeba.txt. Calls
    on_progress(number of faces) after each batch.
    """
    (folder / "faces").mkdir()
    lines = [str(n + held_out), " ".join(DRAWN_ATTRIBUTES)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for seed, count, prefix in ((0, n, ""), (1, held_out, OTHER_SEED)):
            for first in range(0, count, BATCH):
                images, attributes = draw_faces(min(BATCH, count - first), size, seed, first)
                numbers = range(first + 1, first + 1 + len(images))
                names = [f"{prefix}{number:06d}.jpg" for number in numbers]
                save_faces(images, folder / "faces", names, pool)
                lines += list_attributes(names, attributes)
                on_progress(len(images))
    text = "\n".join(lines) + "\n"
    (folder / "list_attr_celeba.txt").write_text(text, encoding="utf-8")


def save_faces(images, folder, names, pool):
    """Save images (n, 3, size, size) as JPEG files with threads of the pool."""
    paths = [folder / name for name in names]
    pixels = images.permute(0, 2, 3, 1).numpy()
    list(pool.map(_save, pixels, paths))  # list() raises what went wrong in a thread


def list_attributes(names, attributes):
    """A line per face: its name, and 1 or -1 for each attribute."""
    values = torch.stack([attributes[name] for name in DRAWN_ATTRIBUTES], dim=1)
    rows = (values.int() * 2 - 1).tolist()
    return [" ".join([name, *map(str, row)]) for name, row in zip(names, rows)]


def _save(pixels, path):
    Image.fromarray(pixels).save(path, quality=95, subsampling=0)
