"""Draw the two diagrams of the notebook: assets/images/gan.svg and assets/images/cyclegan.svg.

    python .ci/experiments/diagrams.py [--folder assets]

The same code draws the same bytes: no date, no random names, letters as outlines.
"""

import argparse
import sys
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

INK, GREY, PAPER = "#24292f", "#6e7781", "#ffffff"
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


def write(axis, x, y, text, colour=INK, size=10, **options):
    axis.text(x, y, text, color=colour, fontsize=size, ha="center", va="center", **options)


def network(axis, x, y, heights, name, colour, width=1.2, size=15):
    """A shape around (x, y), so high at its left, in its middle and at its right."""
    edges = [(x + width * place, height / 2) for place, height in zip((-0.5, 0, 0.5), heights)]
    upper = [(place, y + half) for place, half in edges]
    lower = [(place, y - half) for place, half in reversed(edges)]
    shape = Polygon(upper + lower, facecolor=PALE[colour], edgecolor=colour, linewidth=1.6)
    shape.set_joinstyle("round")
    axis.add_patch(shape)
    write(axis, x, y, name, colour, size, weight="bold")


def picture(axis, pixels, x, y, side):
    """Pixels, uint8 (S, S, 3), as a square around (x, y)."""
    large = pixels.repeat(8, 0).repeat(8, 1)  # so that no viewer smooths them
    half = side / 2
    axis.imshow(large, extent=(x - half, x + half, y - half, y + half), zorder=2)
    axis.add_patch(plt.Rectangle((x - half, y - half), side, side, fill=False, color=INK, zorder=3))


def arrow(axis, start, end, colour=INK, dashed=False, head=True):
    """From one point to another: solid for what is computed, dashed for a gradient."""
    line = FancyArrowPatch(
        start,
        end,
        arrowstyle="-|>" if head else "-",
        mutation_scale=13,
        linewidth=1.7 if dashed else 1.4,
        linestyle=(0, (4, 2)) if dashed else "solid",
        color=colour,
        shrinkA=0,
        shrinkB=0,
        zorder=4,
    )
    axis.add_patch(line)


def path(axis, *points, colour=INK):
    """Straight pieces through these points, with a head at the last."""
    axis.plot(*zip(*points[:-1]), color=colour, linewidth=1.4, zorder=4)
    arrow(axis, points[-2], points[-1], colour)


def box(axis, x, y, width, height, lines, colour):
    """A rounded box around (x, y): a heading, and code below it."""
    frame = FancyBboxPatch(
        (x - width / 2, y - height / 2),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=0.12",
        facecolor=PALE[colour],
        edgecolor=colour,
        linewidth=1.4,
    )
    axis.add_patch(frame)
    heading, *code = lines
    top = y + 0.13 * len(code)
    write(axis, x, top, heading, colour, 10.5, weight="bold")
    for i, line in enumerate(code):
        write(axis, x, top - 0.27 * (i + 1), line, INK, 9.5, family="monospace")


def faces(n, **fixed):
    """n drawn faces, uint8 (n, 32, 32, 3)."""
    return draw_faces(n, 32, seed=5, **fixed)[0].permute(0, 2, 3, 1).numpy()


def generated_face(row, column):
    """One face of assets/images/samples_drawn.png, where each takes 34 pixels, twice enlarged."""
    grid = np.asarray(Image.open(ROOT / "assets" / "samples_drawn.png").convert("RGB"))[::2, ::2]
    return grid[34 * row : 34 * row + 32, 34 * column : 34 * column + 32]


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
    middle, data = (real + fake) / 2, faces(40)
    for k in range(9):
        picture(axis, data[k + 10], 1.55 + 0.5 * (k % 3), real + 0.5 - 0.5 * (k // 3), 0.46)
    write(axis, 2.05, real + 0.95, "training faces")
    arrow(axis, (2.9, real), (3.93, real))
    picture(axis, data[21], 4.55, real, 1.1)
    write(axis, 4.55, real + 0.75, "real faces x")

    noise = np.random.default_rng(0).normal(128, 50, (10, 10, 1)).clip(0, 255)
    picture(axis, noise.astype(np.uint8).repeat(3, 2), 0.85, fake, 0.85)
    write(axis, 0.85, fake + 0.6, "latents z")
    arrow(axis, (1.32, fake), (2.03, fake))
    write(axis, 1.68, fake - 0.2, "(N, 100)", GREY, 9)
    network(axis, 2.6, fake, (0.7, 1.15, 1.6), "G", GREEN, 1.1)
    arrow(axis, (3.18, fake), (3.93, fake))
    picture(axis, generated_face(0, 8), 4.55, fake, 1.1)
    write(axis, 4.55, fake + 0.75, "fake faces G(z)")

    network(axis, 7.1, middle, (3.6, 3.2, 2.8), "D", ORANGE, 1.3, 17)
    for y, shapes in ((real, real - 0.2), (fake, fake - 0.5)):
        arrow(axis, (5.15, y), (6.43, y))
        arrow(axis, (7.78, y), (8.83, y))
        write(axis, 5.78, shapes, "(N, 3, 32, 32)", GREY, 9)
        write(axis, 8.25, shapes, "(N, 1)", GREY, 9)
    write(axis, 8.25, real - 0.42, "logits D(x)", size=9.5)
    write(axis, 8.2, fake + 0.25, "D(G(z))", size=9.5)
    path(axis, (8.7, fake), (8.7, middle), (10.1, middle), (10.1, real - 0.63))
    d_code = ("real_loss(D(x))", "+ fake_loss(D(G(z)))")
    box(axis, 10.1, real, 2.4, 1.2, ["loss of D", *d_code], ORANGE)
    box(axis, 10.1, fake, 2.4, 0.9, ["loss of G", "real_loss(D(G(z)))"], GREEN)


def backwards(axis, real, fake):
    """Where the gradients go: dashed arrows, in the colour of the loss that they come from."""
    middle, above, below = (real + fake) / 2, fake + 0.28, fake - 0.28
    arrow(axis, (8.85, real + 0.28), (7.8, real + 0.28), ORANGE, dashed=True)
    write(axis, 7.1, middle + 0.65, "its loss\nmoves the\nweights of D", ORANGE, 9.5)
    arrow(axis, (6.42, above), (5.98, above), ORANGE, dashed=True, head=False)
    for x in (5.82, 5.92):
        axis.plot((x - 0.06, x + 0.06), (above - 0.16, above + 0.16), color=ORANGE, linewidth=2.4)
    write(axis, 5.8, above + 0.53, "cut by", ORANGE, 9.5)
    write(axis, 5.8, above + 0.32, "fake.detach()", ORANGE, 9.5, family="monospace")

    arrow(axis, (8.85, below), (7.8, below), GREEN, dashed=True)
    arrow(axis, (7.73, below), (6.47, below), GREEN, dashed=True, head=False)
    arrow(axis, (6.42, below), (5.17, below), GREEN, dashed=True)
    arrow(axis, (3.93, below), (3.2, below), GREEN, dashed=True)
    write(axis, 7.1, middle - 1.98, "goes through D and\nkeeps its weights as they are", GREEN, 9.5)
    write(axis, 2.6, fake - 1.0, "its loss moves\nthe weights of G", GREEN, 9.5)


def legend(axis):
    entries = (
        (1.2, INK, False, "computed"),
        (3.6, ORANGE, True, "gradient of the loss of D"),
        (7.4, GREEN, True, "gradient of the loss of G"),
    )
    for x, colour, dashed, words in entries:
        arrow(axis, (x, 0.5), (x + 0.6, 0.5), colour, dashed)
        axis.text(x + 0.72, 0.5, words, color=colour, fontsize=10, va="center")


def draw_cyclegan():
    """Two translations, their discriminators, the cycles and the identities."""
    figure, axis = page(12.4, 7.6)
    without, made_up = (faces(40, Male=False, Heavy_Makeup=worn) for worn in (False, True))
    a, b, other_a, other_b = 14, 1, 9, 16
    top = (without[a], made_up[a], "a", "b", GREEN, PINK, made_up[other_b])
    bottom = (made_up[b], without[b], "b", "a", PINK, GREEN, without[other_a])
    for up, y, row in ((1, 4.95, top), (-1, 2.65, bottom)):
        start, there, x, other, go, back, real = row
        cycle(axis, y, up, *row)
        identity(axis, y, up, other, f"G_{x}{other}".upper(), go, real)
    write(axis, 4.4, 3.8, "cycle: on the way back it becomes the face that it was", PURPLE)
    write(axis, 10.45, 3.8, "identity: a face of that domain stays", BLUE)
    write(axis, 10.45, 6.85, "domain A: faces without makeup", size=11)
    write(axis, 10.45, 6.5, "domain B: faces with makeup", size=11)
    write(axis, 10.45, 0.85, "every face: (N, 3, 32, 32)", GREY, 10)
    return figure


def cycle(axis, y, up, start, there, x, other, go, back, real):
    """One row: from domain x to the other and back; its discriminator above (`up` = 1) or below."""
    first, second = (f"G_{x}{other}".upper(), f"G_{other}{x}".upper())
    for place, pixels, words in (
        (1.1, start, f"real {x}"),
        (4.4, there, f"fake {other}"),
        (7.7, start, f"{x} again"),
    ):
        picture(axis, pixels, place, y, 0.95)
        write(axis, place, y + 0.64 * up, words)
    network(axis, 2.75, y, (1.2, 0.75, 1.2), first, go, 1.4, 12)
    network(axis, 6.05, y, (1.2, 0.75, 1.2), second, back, 1.4, 12)
    for left, right in ((1.6, 2.03), (3.47, 3.9), (4.9, 5.33), (6.77, 7.2)):
        arrow(axis, (left, y), (right, y))

    level = y + 1.75 * up
    arrow(axis, (4.4, y + 0.8 * up), (4.4, level - 0.5 * up))
    network(axis, 4.4, level, (1.2, 0.95, 0.7), f"D_{other}".upper(), ORANGE, 1.2, 12)
    picture(axis, real, 1.1, level, 0.95)
    write(axis, 2.1, level + 0.2, f"real {other}")
    arrow(axis, (1.6, level), (3.78, level))
    arrow(axis, (5.02, level), (5.9, level))
    write(axis, 5.42, level - 0.2, "(N, 1, 7, 7)", GREY, 9)
    write(axis, 6.95, level, f"real or fake {other}?\nfor each patch", ORANGE, 10)

    under = y - 0.78 * up
    path(axis, (1.1, y - 0.5 * up), (1.1, under), (3.4, under), colour=PURPLE)
    path(axis, (7.7, y - 0.5 * up), (7.7, under), (5.4, under), colour=PURPLE)
    code = f"|{second}({first}({x})) - {x}|"
    write(axis, 4.4, under, code, PURPLE, 9.5, family="monospace")


def identity(axis, y, up, x, name, colour, real):
    """Right of a row: a face that is in the domain x already stays as it is."""
    picture(axis, real, 9.25, y, 0.75)
    network(axis, 10.45, y, (0.95, 0.6, 0.95), name, colour, 1.1, 10)
    picture(axis, real, 11.65, y, 0.75)
    arrow(axis, (9.65, y), (9.88, y))
    arrow(axis, (11.02, y), (11.25, y))
    write(axis, 10.45, y - 0.78 * up, f"|{name}({x}) - {x}|", BLUE, 9.5, family="monospace")
    write(axis, 9.25, y + 0.55 * up, f"real {x}")
    write(axis, 11.65, y + 0.55 * up, f"still {x}")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "assets")
    folder = parser.parse_args(arguments).folder
    with plt.rc_context(STYLE):
        for name, draw in (("gan", draw_gan), ("cyclegan", draw_cyclegan)):
            figure = draw()
            figure.savefig(folder / f"{name}.svg", transparent=True, metadata={"Date": None})
            plt.close(figure)


if __name__ == "__main__":
    main()
