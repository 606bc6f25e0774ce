"""Sliders that redraw a face in an open notebook, beside a figure that everybody sees."""

import io
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image

from assets.lib.figures import image_grid, in_notebook, show_images

WIDTH = 320  # pixels of a face in the panel, and of a slider
LARGEST = 2**31 - 1  # the largest number of a face
STYLE = {"description_width": "110px"}
TEXT = (
    "A panel of sliders: run this cell to use it. If you did, install ipywidgets where Jupyter "
    "itself runs, and reload the page."
)
MISSING = "The panel of sliders needs ipywidgets: pip install ipywidgets, then rerun this cell."


@dataclass
class Sliders:
    """A face that depends on numbers, with a slider from `low` to `high` for each of `names`.

    `draw(number, values)`: an image (1, 3, S, S) in [-1, 1] of the face of this number, a whole
    one, with these values, one for each name. The sliders start at the values `start`.
    """

    title: str
    draw: Callable
    names: Sequence[str]
    start: Sequence[float]
    low: float
    high: float


def show_panel(groups, number=0):
    """Show some Sliders to somebody who can move them and, below, a figure of their ends.

    A saved notebook has the figure only, since sliders need a kernel. `number`: the first face.
    """
    if is_watched():
        try:
            Panel(groups, number).display()
        except ModuleNotFoundError:
            print(MISSING)
    for group in groups:
        show_ends(group, number)


def is_watched():
    """Whether somebody runs this cell in a notebook, and not papermill, nbconvert or a terminal.

    A frontend for people says with each cell that it could answer an `input()`. Colab can as well.
    """
    shell = sys.modules["IPython"].get_ipython() if in_notebook() else None
    if not hasattr(shell, "get_parent"):  # a terminal
        return False
    can_answer = shell.get_parent().get("content", {}).get("allow_stdin", False)
    return can_answer or "google.colab" in sys.modules


def show_ends(group, number):
    """A row of faces: as the sliders of a group start, and with each alone at its further end."""
    faces, titles = [group.draw(number, group.start)], ["at the start"]
    for k, (name, value) in enumerate(zip(group.names, group.start)):
        end = max(group.high, group.low, key=lambda x: abs(x - value))
        faces.append(group.draw(number, [*group.start[:k], end, *group.start[k + 1 :]]))
        titles.append(f"{name} {end:g}")
    show_images(torch.cat(faces), group.title, titles, columns=len(faces), cell=1.3)


def png_of(face):
    """An image (1, 3, S, S) in [-1, 1] -> a PNG, as bytes, enlarged with sharp pixels."""
    image = Image.fromarray(image_grid(face))
    zoom = max(1, WIDTH // image.width)
    file = io.BytesIO()
    image.resize((image.width * zoom, image.height * zoom), Image.NEAREST).save(file, "PNG")
    return file.getvalue()


class Panel:
    """The widgets of some Sliders: for each group a picture and its sliders, and two buttons."""

    def __init__(self, groups, number=0):
        import ipywidgets  # here, because a notebook can do without

        self.groups, self.number = groups, number
        self.pictures = [ipywidgets.Image(format="png", width=WIDTH) for _ in groups]
        self.sliders = [self.sliders_of(group, ipywidgets.FloatSlider) for group in groups]
        self.new_face = ipywidgets.Button(description="New face")
        self.reset = ipywidgets.Button(description="Reset sliders")
        self.new_face.on_click(self.take_another)
        self.reset.on_click(self.move_back)
        columns = [
            ipywidgets.VBox([ipywidgets.Label(group.title), picture, *sliders])
            for group, picture, sliders in zip(groups, self.pictures, self.sliders)
        ]
        buttons = ipywidgets.HBox([self.new_face, self.reset])
        layout = {"flex_flow": "row wrap", "grid_gap": "16px"}  # below each other on a narrow page
        row = ipywidgets.HBox(columns, layout=layout)
        self.box = ipywidgets.VBox([buttons, row])
        for k, sliders in enumerate(self.sliders):
            self.draw(k)
            for slider in sliders:
                slider.observe(partial(self.draw, k), "value")

    def sliders_of(self, group, kind):
        step = (group.high - group.low) / 60
        ends = dict(min=group.low, max=group.high, step=step, readout_format=".1f")
        look = dict(style=STYLE, layout={"width": f"{WIDTH}px"})
        return [
            kind(x, description=name, **ends, **look) for name, x in zip(group.names, group.start)
        ]

    def draw(self, k, change=None):
        """Draw the face of a group, after a change of a slider say."""
        values = [slider.value for slider in self.sliders[k]]
        self.pictures[k].value = png_of(self.groups[k].draw(self.number, values))

    def take_another(self, button=None):
        """Draw another face in every group, with the sliders as they are."""
        self.number = random.randint(0, LARGEST)
        for k in range(len(self.groups)):
            self.draw(k)

    def move_back(self, button=None):
        """Move all sliders back to where they started."""
        for group, sliders in zip(self.groups, self.sliders):
            for slider, value in zip(sliders, group.start):
                slider.value = value

    def display(self):
        """Display the widgets; where they cannot be shown, a line of text."""
        view = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        bundle = {"application/vnd.jupyter.widget-view+json": view, "text/plain": TEXT}
        sys.modules["IPython"].display.display(bundle, raw=True)
