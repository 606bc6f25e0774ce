"""Figures: pixels, names, and that a notebook shows them whatever its environment says."""

import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import nbclient
import nbformat
import numpy as np
import pytest
import torch

import helpers
from assets.lib import figures


def test_pixels_are_clipped_and_never_rescaled():
    values = torch.tensor([-3.0, -1.0, 0.0, 0.5, 1.0, 2.0])
    images = values.view(6, 1, 1, 1).expand(6, 3, 4, 4)
    found = figures.to_bytes(images)[:, 0, 0, 0].tolist()
    assert found == [0, 0, 128, 191, 255, 255], f"expected -1 at 0 and 1 at 255, got {found}"
    assert figures.to_bytes(images[2:3], (0, 1)).max() == 0, "expected the range to be used"


def test_a_grid_has_white_gaps():
    images = torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    grid = figures.image_grid(images, columns=2)
    assert grid.shape == (10, 10, 3) and grid.dtype == np.uint8, f"got {grid.shape}"
    assert (grid[4:6] == 255).all() and (grid[:4, :4] == 0).all(), "expected white gaps"
    assert figures.image_grid(images[:1]).shape == (4, 4, 3), "one image: expected no gap"


NAMES = [
    ["$a_{", "100 $ and 5 $", "脸 \\frac{"],
    ["مرحبا", "हिन्दी", "ไทย"],
    ["\U0001f600", "\U0001f469‍\U0001f9b0", "\U00020000"],
    ["\x01\x1f", "\ufffe\uffff", "\ue000"],
    ["a\nb", "", " "],
    ["e\u0301", "é", "x" * 300],
]


@pytest.mark.parametrize("names", NAMES, ids=range(len(NAMES)))
def test_figures_show_any_name(monkeypatch, names):
    shown, images = [], torch.zeros(3, 3, 4, 4)
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        helpers.show_images(images, names[0], names, columns=2, row_labels=names[1:])
    texts = [text.get_text() for text in shown[0].findobj(plt.Text)]
    assert set(names) <= set(texts), f"expected the names as they are, got {texts}"
    assert not plt.get_fignums(), "expected the figure to be closed"


SHOWING = """
import helpers, torch
from assets.lib.figures import show_live, use_inline_figures
import matplotlib.pyplot as plt
use_inline_figures()
helpers.show_images(torch.zeros(2, 3, 4, 4), "Two faces")
handle = show_live("a line")
helpers.progress(range(3), "bar").close()
"""


@pytest.mark.parametrize(
    "backend, first",
    [
        ("nonsense", ""),
        ("svg", "import matplotlib.pyplot\n"),  # by a cell before the lesson's
    ],
)
def test_a_notebook_shows_figures_whatever_the_environment_says(monkeypatch, backend, first):
    monkeypatch.setenv("PYTHONPATH", str(Path(helpers.__file__).parent))
    monkeypatch.setenv("MPLBACKEND", backend)
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(first + SHOWING)])
    nbclient.NotebookClient(book, kernel_name="python3").execute()
    outputs = book.cells[0].outputs
    pictures = [one for one in outputs if "image/png" in one.get("data", {})]
    assert len(pictures) == 1, f"expected one picture, got {outputs}"
    alt = pictures[0].metadata["image/png"]["alt"]
    assert alt == "Two faces", f"expected the title as alternative text, got {alt}"
    assert not [one for one in outputs if one.get("name") == "stderr"], f"got {outputs}"
