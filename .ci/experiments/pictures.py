"""Make the pictures in assets/images from finished runs.

    python .ci/experiments/pictures.py KIND PATHS... PICTURE [--columns 14] [--n 42] [--zoom 2]

    strip RUN [GENERATOR]                   strip.png
    faces RUN                               celeba_64.png, gallery_32.png, grown_128.png
    three_runs HEALTHY COLLAPSED WINS       three_runs.png
    rows RUN [RUN ...]                      album.png
    styles RUN                              styles.png
    drawn                                   drawn_faces.png

RUN: the folder of a run; for faces and rows also a checkpoint or exported generator. strip: sample
grids at the start and after 10 s, 1 minute, 5 minutes and an hour (if the run took that long), and
the same latents through another run's generator. faces: the first latents of seed 0, none left out.
three_runs: loss curves above the last samples. rows: eight faces of each run. styles: faces of a
StyleGenerator, mixed, and moved toward the mean style.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from common import lesson, load_generator
from PIL import Image, ImageDraw, ImageFont

from assets.lib.checkpoints import load_checkpoint, weights_of
from assets.lib.drawn import draw_faces
from assets.lib.figures import image_grid

MOMENTS = {"10 seconds": 10, "1 minute": 60, "5 minutes": 300, "1 hour": 3600}  # in seconds
GAP = 16  # pixels between the panels of a strip
BELOW = 36  # pixels for the words below them


def save(picture, path, zoom=1):
    """Write a picture, uint8 (H, W, 3), each of its pixels as zoom x zoom."""
    large = np.asarray(picture).repeat(zoom, 0).repeat(zoom, 1)
    Image.fromarray(large).save(path, optimize=True)


def read_losses(run):
    return np.genfromtxt(run / "losses.csv", delimiter=",", names=True, ndmin=1)


def grids(run):
    """The sample grids of a run, and the seconds of training after which each was made."""
    losses = read_losses(run)
    files = sorted((run / "samples").glob("step_*.png"))
    steps = [int(file.stem.removeprefix("step_")) for file in files]
    seconds = np.interp(steps, [0, *losses["step"]], [0, *losses["seconds"]])
    return files, seconds


def at_moments(run):
    """{words: file}: the first grid and those nearest to MOMENTS, if the run took that long."""
    files, seconds = grids(run)
    chosen = {"untrained": files[0]}
    for words, moment in MOMENTS.items():
        if moment <= 1.2 * seconds[-1]:
            chosen[words] = files[np.abs(seconds - moment).argmin()]
    return chosen


def strip(run, *generator_and_path):
    """Panels of the same latents, each with its time below; the last is of another generator."""
    *generators, path = generator_and_path
    panels = {}
    for words, file in at_moments(run).items():
        panels[words] = Image.open(file).convert("RGB")
    for file in generators:
        panels["1 hour"] = Image.fromarray(image_grid(generated(file, 32)))
    size = (panels["untrained"].width + 2) // 8  # a face and its gap; grids have eight in a row
    box = 0, 0, 4 * size - 2, 3 * size - 2
    width, height = 2 * box[2], 2 * box[3]
    whole = len(panels) * (width + GAP) - GAP, height + BELOW
    page = Image.new("RGB", whole, "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(22)
    for k, (words, grid) in enumerate(panels.items()):
        left = k * (width + GAP)
        panel = grid.resize((width, height), Image.NEAREST, box)
        page.paste(panel, (left, 0))
        middle = left + width // 2, height + 20
        draw.text(middle, words, "black", font, anchor="mm")
    page.save(path, optimize=True)


def latents(n):
    return torch.randn(n, lesson.settings.z_size, generator=torch.Generator().manual_seed(0))


def generated(run, n):
    generator = load_generator(run / "generator.pt2" if run.is_dir() else run)
    return lesson.in_batches(generator, latents(n))


def plot_losses(axis, run, title=""):
    table = read_losses(run)[:-1]  # the last one is the mean of fewer steps
    for name in ("d_loss", "g_loss"):
        axis.plot(table["seconds"], table[name], label=name, linewidth=1)
    for value in (2 * np.log(2), 0.325):
        axis.axhline(value, color="gray", linewidth=0.5)
    axis.set(xlabel="seconds", ylabel="loss", ylim=(0, None), title=title)
    axis.legend()


def show_samples(axis, run):
    files, _ = grids(run)
    axis.imshow(plt.imread(files[-1]), interpolation="nearest")
    axis.axis("off")


def three_runs(healthy, collapsed, wins, path):
    """Loss curves and samples of three runs, side by side."""
    runs = {"healthy": healthy, "collapsed": collapsed, "the discriminator wins": wins}
    figure, axes = plt.subplots(2, 3, figsize=(12, 5.2), dpi=80)
    for column, (title, run) in zip(axes.T, runs.items()):
        above, below = column
        plot_losses(above, run, title)
        show_samples(below, run)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def drawn(path, n=42, columns=14):
    """The first of the drawn faces."""
    images, _ = draw_faces(n, 64)
    save(image_grid(images / 255, columns, value_range=(0, 1)), path)


def rows(*runs_and_path):
    """A row of eight faces of each run's generator; small faces are enlarged to 128 pixels."""
    *runs, path = runs_and_path
    faces = torch.cat([generated(run, 8) for run in runs])
    size = faces.shape[-1]
    save(image_grid(faces, 8), path, zoom=max(1, 128 // size))


def style_generator(path):
    """The StyleGenerator of a checkpoint, in eval mode."""
    state = load_checkpoint(path)
    sizes = state["settings"]
    generator = lesson.StyleGenerator(sizes["z_size"], sizes["g_conv_dim"], sizes["image_size"])
    generator.load_state_dict(weights_of(state))
    return generator.eval()


@torch.no_grad()
def styles(run, path):
    """Rows of faces of a StyleGenerator: A; B; coarse layers of A with fine ones of B; A with its
    styles moved half of the way to the mean, and all of it."""
    generator = style_generator(run / "best.pt")
    n_layers = len(generator.layers)
    w = generator.mapping(latents(1016))
    a, b, mean = w[:8], w[8:16], w.mean(0).expand(8, -1)
    chosen = [
        [a] * n_layers,
        [b] * n_layers,
        [a] * 2 + [b] * (n_layers - 2),
        [a.lerp(mean, 0.5)] * n_layers,
        [mean] * n_layers,
    ]
    faces = torch.cat([generator.synthesis(row) for row in chosen])
    save(image_grid(faces, 8), path, zoom=2)


def main(arguments=None):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    of_runs = {"strip": strip, "three_runs": three_runs, "rows": rows, "styles": styles}
    parser.add_argument("kind", choices=[*of_runs, "faces", "drawn"])
    parser.add_argument("paths", type=Path, nargs="+", help="runs, and last the picture")
    parser.add_argument("--columns", type=int, default=14)
    parser.add_argument("--n", type=int, default=42)
    parser.add_argument("--zoom", type=int, default=2)
    args = parser.parse_args(arguments)
    if args.kind == "drawn":
        drawn(*args.paths, args.n, args.columns)
    elif args.kind == "faces":
        run, path = args.paths
        faces = generated(run, args.n)
        save(image_grid(faces, args.columns), path, args.zoom)
    else:
        of_runs[args.kind](*args.paths)


if __name__ == "__main__":
    main()
