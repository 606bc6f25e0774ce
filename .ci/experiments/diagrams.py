"""Draw the two diagrams of the notebook: assets/images/gan.svg and assets/images/cyclegan.svg.

    python .ci/experiments/diagrams.py [--folder assets/images]

The same code draws the same bytes: no date, no random names, letters as outlines.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from assets.lib.drawn import draw_faces  # noqa: E402

INK, GRAY, PAPER = "#24292f", "#6e7781", "#ffffff"
ORANGE, GREEN, PURPLE, PINK, BLUE = "#c4500a", "#157a5c", "#5b54a4", "#b8246f", "#0b61a4"
PALE = {ORANGE: "#fdeadd", GREEN: "#dff3ec", PURPLE: "#eae8f6", PINK: "#fae3ef"}
STYLE = {
    "svg.fonttype": "path",
    "svg.hashsalt": "faces",
    "font.family": "DejaVu Sans",
    "mathtext.fontset": "dejavusans",
}


def page(width, height):
    """An empty page of so many units, white with round corners, for light and dark backgrounds."""
    figure = plt.figure(figsize=(width, height))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axis.axis("off")
    paper = FancyBboxPatch(
        (0.12, 0.12),
        width - 0.24,
        height - 0.24,
        boxstyle="round,pad=0,rounding_size=0.2",
        facecolor=PAPER,
        edgecolor="#d0d7de",
    )
    axis.add_patch(paper)
    return figure, axis


def write(axis, x, y, text, color=INK, size=10, **options):
    options |= {"ha": "center", "va": "center"}
    axis.text(x, y, text, color=color, fontsize=size, **options)


def network(axis, x, y, heights, name, color, width=1.2, size=15):
    """A shape around (x, y), so high at its left, in its middle and at its right."""
    places = x + width * -0.5, x + width * 0, x + width * 0.5
    upper = [(place, y + height / 2) for place, height in zip(places, heights)]
    lower = [(place, y - height / 2) for place, height in zip(places, heights)]
    outline = upper + lower[::-1]
    shape = Polygon(outline, facecolor=PALE[color], edgecolor=color, linewidth=1.6)
    shape.set_joinstyle("round")
    axis.add_patch(shape)
    write(axis, x, y, name, color, size, weight="bold")


def picture(axis, pixels, x, y, side):
    """Pixels, uint8 (S, S, 3), as a square around (x, y)."""
    large = pixels.repeat(8, 0).repeat(8, 1)  # so that no viewer smooths them
    left, right = x - side / 2, x + side / 2
    bottom, top = y - side / 2, y + side / 2
    axis.imshow(large, extent=(left, right, bottom, top), zorder=2)
    frame = plt.Rectangle((left, bottom), side, side, fill=False, color=INK, zorder=3)
    axis.add_patch(frame)


def arrow(axis, start, end, color=INK, dashed=False, head=True):
    """From one point to another: solid for what is computed, dashed for a gradient."""
    line = FancyArrowPatch(
        start,
        end,
        arrowstyle="-|>" if head else "-",
        mutation_scale=13,
        linewidth=1.7 if dashed else 1.4,
        linestyle=(0, (4, 2)) if dashed else "solid",
        color=color,
        shrinkA=0,
        shrinkB=0,
        zorder=4,
    )
    axis.add_patch(line)


def across(axis, y, start, end, color=INK, dashed=False, head=True):
    """A horizontal arrow at this height."""
    arrow(axis, (start, y), (end, y), color, dashed, head)


def path(axis, *points, color=INK):
    """Straight pieces through these points, with a head at the last."""
    *before, end = points
    axis.plot(*zip(*before), color=color, linewidth=1.4, zorder=4)
    arrow(axis, before[-1], end, color)


def box(axis, x, y, width, height, lines, color):
    """A rounded box around (x, y): a heading, and code below it."""
    frame = FancyBboxPatch(
        (x - width / 2, y - height / 2),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=0.12",
        facecolor=PALE[color],
        edgecolor=color,
        linewidth=1.4,
    )
    axis.add_patch(frame)
    heading, *code = lines
    top = y + 0.13 * len(code)
    write(axis, x, top, heading, color, 10.5, weight="bold")
    for i, line in enumerate(code, start=1):
        write(axis, x, top - 0.27 * i, line, INK, 9.5, family="monospace")


def faces(n, **fixed):
    """n drawn faces, uint8 (n, 32, 32, 3)."""
    images, _ = draw_faces(n, 32, seed=5, **fixed)
    return images.permute(0, 2, 3, 1).numpy()


def generated_face(row, column):
    """One face of assets/images/samples_drawn.png, where each takes 34 pixels, twice enlarged."""
    path = ROOT / "assets" / "images" / "samples_drawn.png"
    grid = np.asarray(Image.open(path).convert("RGB"))[::2, ::2]
    top, left = 34 * row, 34 * column
    return grid[top : top + 32, left : left + 32]


def draw_gan():
    """Noise and data, the two networks, their losses, and where each gradient goes."""
    figure, axis = page(11.6, 5.5)
    real, fake = 4.15, 2.15  # the heights of the two rows
    forwards(axis, real, fake)
    backwards(axis, real, fake)
    legend(axis)
    return figure


def forwards(axis, real, fake):
    """What is computed: solid arrows, with the shapes below them."""
    inputs(axis, real, fake)
    middle = (real + fake) / 2
    network(axis, 7.1, middle, (3.6, 3.2, 2.8), "D", ORANGE, 1.3, 17)
    for y, shapes in ((real, real - 0.2), (fake, fake - 0.5)):
        across(axis, y, 5.15, 6.43)
        across(axis, y, 7.78, 8.83)
        write(axis, 5.78, shapes, "(N, 3, 32, 32)", GRAY, 9)
        write(axis, 8.25, shapes, "(N, 1)", GRAY, 9)
    write(axis, 8.25, real - 0.42, "logits D(x)", size=9.5)
    write(axis, 8.2, fake + 0.25, "D(G(z))", size=9.5)
    path(axis, (8.7, fake), (8.7, middle), (10.1, middle), (10.1, real - 0.63))
    d_loss = "loss of D", "real_loss(D(x))", "+ fake_loss(D(G(z)))"
    g_loss = "loss of G", "real_loss(D(G(z)))"
    box(axis, 10.1, real, 2.4, 1.2, d_loss, ORANGE)
    box(axis, 10.1, fake, 2.4, 0.9, g_loss, GREEN)


def inputs(axis, real, fake):
    """Where the faces that D sees come from."""
    data = faces(40)
    for k in range(9):
        row, column = divmod(k, 3)
        picture(axis, data[k + 10], 1.55 + 0.5 * column, real + 0.5 - 0.5 * row, 0.46)
    write(axis, 2.05, real + 0.95, "training faces")
    across(axis, real, 2.9, 3.93)
    picture(axis, data[21], 4.55, real, 1.1)
    write(axis, 4.55, real + 0.75, "real faces x")

    noise = np.random.default_rng(0).normal(128, 50, (10, 10, 1))
    noise = noise.clip(0, 255).astype(np.uint8)
    picture(axis, noise.repeat(3, 2), 0.85, fake, 0.85)
    write(axis, 0.85, fake + 0.6, "latents z")
    across(axis, fake, 1.32, 2.03)
    write(axis, 1.68, fake - 0.2, "(N, 100)", GRAY, 9)
    network(axis, 2.6, fake, (0.7, 1.15, 1.6), "G", GREEN, 1.1)
    across(axis, fake, 3.18, 3.93)
    picture(axis, generated_face(0, 8), 4.55, fake, 1.1)
    write(axis, 4.55, fake + 0.75, "fake faces G(z)")


def backwards(axis, real, fake):
    """Where the gradients go: dashed arrows, in the color of the loss that they come from."""
    middle, above, below = (real + fake) / 2, fake + 0.28, fake - 0.28
    across(axis, real + 0.28, 8.85, 7.8, ORANGE, dashed=True)
    write(axis, 7.1, middle + 0.65, "its loss\nmoves the\nweights of D", ORANGE, 9.5)
    across(axis, above, 6.42, 5.98, ORANGE, dashed=True, head=False)
    for x in (5.82, 5.92):
        ends = above - 0.16, above + 0.16
        axis.plot((x - 0.06, x + 0.06), ends, color=ORANGE, linewidth=2.4)
    write(axis, 5.8, above + 0.53, "cut by", ORANGE, 9.5)
    write(axis, 5.8, above + 0.32, "fake.detach()", ORANGE, 9.5, family="monospace")

    across(axis, below, 8.85, 7.8, GREEN, dashed=True)
    across(axis, below, 7.73, 6.47, GREEN, dashed=True, head=False)
    across(axis, below, 6.42, 5.17, GREEN, dashed=True)
    across(axis, below, 3.93, 3.2, GREEN, dashed=True)
    write(axis, 7.1, middle - 1.98, "goes through D and\nkeeps its weights as they are", GREEN, 9.5)
    write(axis, 2.6, fake - 1.0, "its loss moves\nthe weights of G", GREEN, 9.5)


def legend(axis):
    entries = (
        (1.2, INK, False, "computed"),
        (3.6, ORANGE, True, "gradient of the loss of D"),
        (7.4, GREEN, True, "gradient of the loss of G"),
    )
    for x, color, dashed, words in entries:
        across(axis, 0.5, x, x + 0.6, color, dashed)
        axis.text(x + 0.72, 0.5, words, color=color, fontsize=10, va="center")


@dataclass
class Translation:
    """One row of the CycleGAN: from a domain to the other and back, at the height `y`.

    `up`: 1 if the discriminator is above the row, -1 if it is below. `colors`: of the generator,
    and of the one that leads back. `start` becomes `there`; `real` is of the other domain.
    """

    y: float
    up: int
    domain: str
    other: str
    colors: tuple
    start: np.ndarray
    there: np.ndarray
    real: np.ndarray

    @property
    def generator(self):
        return f"G_{self.domain}{self.other}".upper()

    @property
    def way_back(self):
        return f"G_{self.other}{self.domain}".upper()


def draw_cyclegan():
    """Two translations, their discriminators, the cycles and the identities."""
    figure, axis = page(12.4, 7.6)
    without = faces(40, Male=False, Heavy_Makeup=False)
    made_up = faces(40, Male=False, Heavy_Makeup=True)
    pictures_a = without[14], made_up[14], made_up[16]
    pictures_b = made_up[1], without[1], without[9]
    for row in (
        Translation(4.95, 1, "a", "b", (GREEN, PINK), *pictures_a),
        Translation(2.65, -1, "b", "a", (PINK, GREEN), *pictures_b),
    ):
        there_and_back(axis, row)
        discriminator(axis, row)
        cycle_loss(axis, row)
        identity(axis, row)
    write(axis, 4.4, 3.8, "cycle: on the way back it becomes the face that it was", PURPLE)
    write(axis, 10.45, 3.8, "identity: a face of that domain stays", BLUE)
    write(axis, 10.45, 6.85, "domain A: faces without makeup", size=11)
    write(axis, 10.45, 6.5, "domain B: faces with makeup", size=11)
    write(axis, 10.45, 0.85, "every face: (N, 3, 32, 32)", GRAY, 10)
    return figure


def there_and_back(axis, row):
    """Three faces, and the two generators between them."""
    x, y, heights = row.domain, row.y, (1.2, 0.75, 1.2)
    shown = (
        (1.1, row.start, f"real {x}"),
        (4.4, row.there, f"fake {row.other}"),
        (7.7, row.start, f"{x} again"),
    )
    for place, pixels, words in shown:
        picture(axis, pixels, place, y, 0.95)
        write(axis, place, y + 0.64 * row.up, words)
    go, back = row.colors
    network(axis, 2.75, y, heights, row.generator, go, 1.4, 12)
    network(axis, 6.05, y, heights, row.way_back, back, 1.4, 12)
    across(axis, y, 1.6, 2.03)
    across(axis, y, 3.47, 3.9)
    across(axis, y, 4.9, 5.33)
    across(axis, y, 6.77, 7.2)


def discriminator(axis, row):
    """The discriminator of the other domain, above or below its fake."""
    up, other = row.up, row.other
    y = row.y + 1.75 * up
    arrow(axis, (4.4, row.y + 0.8 * up), (4.4, y - 0.5 * up))
    network(axis, 4.4, y, (1.2, 0.95, 0.7), f"D_{other.upper()}", ORANGE, 1.2, 12)
    picture(axis, row.real, 1.1, y, 0.95)
    write(axis, 2.1, y + 0.2, f"real {other}")
    across(axis, y, 1.6, 3.78)
    across(axis, y, 5.02, 5.9)
    write(axis, 5.42, y - 0.2, "(N, 1, 7, 7)", GRAY, 9)
    write(axis, 6.95, y, f"real or fake {other}?\nfor each patch", ORANGE, 10)


def cycle_loss(axis, row):
    """What the first face and the last one are compared by."""
    start, y = row.y - 0.5 * row.up, row.y - 0.78 * row.up
    path(axis, (1.1, start), (1.1, y), (3.4, y), color=PURPLE)
    path(axis, (7.7, start), (7.7, y), (5.4, y), color=PURPLE)
    code = f"|{row.way_back}({row.generator}({row.domain})) - {row.domain}|"
    write(axis, 4.4, y, code, PURPLE, 9.5, family="monospace")


def identity(axis, row):
    """Right of a row: a face that is in the other domain already stays as it is."""
    y, up, x, name = row.y, row.up, row.other, row.generator
    picture(axis, row.real, 9.25, y, 0.75)
    network(axis, 10.45, y, (0.95, 0.6, 0.95), name, row.colors[0], 1.1, 10)
    picture(axis, row.real, 11.65, y, 0.75)
    across(axis, y, 9.65, 9.88)
    across(axis, y, 11.02, 11.25)
    code = f"|{name}({x}) - {x}|"
    write(axis, 10.45, y - 0.78 * up, code, BLUE, 9.5, family="monospace")
    write(axis, 9.25, y + 0.55 * up, f"real {x}")
    write(axis, 11.65, y + 0.55 * up, f"still {x}")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "assets" / "images")
    folder = parser.parse_args(arguments).folder
    with plt.rc_context(STYLE):
        for name, draw in (("gan", draw_gan), ("cyclegan", draw_cyclegan)):
            figure = draw()
            figure.savefig(folder / f"{name}.svg", transparent=True, metadata={"Date": None})
            plt.close(figure)


if __name__ == "__main__":
    main()
