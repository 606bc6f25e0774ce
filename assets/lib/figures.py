"""Figures and progress bars."""

import base64
import io
import math
import os
import sys
import warnings
from pathlib import Path

from PIL import Image
from torchvision.utils import make_grid
from tqdm import tqdm

from assets.lib.files import as_text

INLINE = "module://matplotlib_inline.backend_inline"
COLORS = 128  # of a figure in a notebook


def in_notebook():
    """Whether this code runs in a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


if in_notebook():  # whatever the environment says: pyplot raises an error for an unknown backend
    os.environ["MPLBACKEND"] = INLINE

import matplotlib.pyplot as plt  # noqa: E402


def show_live(shown, handle=None, alt=""):
    """Show a picture or a line of text in place of what `handle` showed; returns the next handle.

    `alt`: what a picture shows, for those who do not see it.
    """
    if not in_notebook():
        return None
    settings = {"raw": True, "metadata": {"image/png": {"alt": alt}}}
    bundle = {"text/plain": shown} if isinstance(shown, str) else bundle_of(shown, alt)
    if handle is None:
        return sys.modules["IPython"].display.display(bundle, display_id=True, **settings)
    handle.update(bundle, **settings)
    return handle


def bundle_of(image, alt):
    """An image as a PNG with few colors, so that a notebook full of faces stays small."""
    file = io.BytesIO()
    few = image.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    few.save(file, "PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return {"image/png": data, "text/plain": alt}


def show_animation(path):
    """Show a GIF in the notebook, as HTML: the form that every viewer of notebooks plays."""
    if in_notebook():
        data = base64.b64encode(Path(path).read_bytes()).decode("ascii")
        alt = "Samples during training"
        html = f'<img src="data:image/gif;base64,{data}" alt="{alt}">'
        sys.modules["IPython"].display.display({"text/html": html, "text/plain": alt}, raw=True)


class InPlace(io.TextIOBase):
    """What tqdm writes to in a notebook: one output that changes."""

    encoding, handle = "utf-8", None

    def write(self, text):
        if line := text.strip():
            self.handle = show_live(line, self.handle)


def progress(*args, **settings):
    """A tqdm bar: a single changing line in a notebook, on stdout elsewhere."""
    file = InPlace() if in_notebook() else sys.stdout
    return tqdm(*args, file=file, mininterval=0.5, **settings)


def use_inline_figures():
    """In a notebook, show figures below their cell, whichever backend pyplot has."""
    if in_notebook() and plt.get_backend().lower() not in ("inline", INLINE):
        sys.modules["IPython"].get_ipython().run_line_magic("matplotlib", "inline")


def to_bytes(images, value_range=(-1, 1)):
    """Images float (N, 3, H, W) -> uint8, on the CPU; clipped, never rescaled."""
    low, high = value_range
    unit = (images.detach().float().cpu() - low) / (high - low)
    return (unit.clamp(0, 1) * 255).round().byte()


def image_grid(images, columns=8, value_range=(-1, 1)):
    """Images (N, 3, H, W) in `value_range` -> one picture with white gaps, uint8 (H, W, 3)."""
    grid = make_grid(to_bytes(images, value_range), columns, padding=2, pad_value=255)
    return (grid[:, 2:-2, 2:-2] if len(images) > 1 else grid).permute(1, 2, 0).numpy()


def show_images(
    images, title=None, labels=None, columns=8, value_range=(-1, 1), cell=1.1, row_labels=None
):
    """Show images (N, 3, H, W) in `value_range`, `cell` inches each, with labels if given."""
    pixels = to_bytes(images, value_range).permute(0, 2, 3, 1).numpy()
    rows = math.ceil(len(pixels) / columns)
    width, height = columns * cell, rows * (cell + (0.35 if labels else 0))
    width, height = width + (1 if row_labels else 0), height + (0.3 if title else 0)
    figure, axes = plt.subplots(rows, columns, squeeze=False, figsize=(width, height))
    for axis in axes.flat:
        axis.axis("off")
    for index, (axis, image) in enumerate(zip(axes.flat, pixels)):
        axis.imshow(image)
        if labels:
            axis.set_title(as_text(labels[index]), fontsize=7, pad=2, parse_math=False)
    for axis, label in zip(axes[:, 0], row_labels or ()):
        place = dict(transform=axis.transAxes, ha="right", va="center")
        axis.text(-0.05, 0.5, as_text(label), fontsize=8, parse_math=False, **place)
    if title:
        figure.suptitle(title, fontsize=11, y=1 - 0.03 / height, va="top", parse_math=False)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # of names that the font lacks, or of long ones
        figure.tight_layout(pad=0.3)
        show_figure(figure, title or "Images")


def show_figure(figure, alt):
    """Show a figure, then close it; `alt`: what it shows, for those who do not see it."""
    if in_notebook():
        file = io.BytesIO()
        figure.savefig(file, format="png", bbox_inches="tight")
        metadata = {"image/png": {"alt": alt}}
        bundle = bundle_of(Image.open(file), alt)
        sys.modules["IPython"].display.display(bundle, raw=True, metadata=metadata)
    else:
        plt.show()
    plt.close(figure)
