"""Make the pictures in assets/images from finished runs.

    python .ci/experiments/pictures.py KIND PATHS... PICTURE [--columns 14] [--n 42] [--zoom 2]

    strip RUN [GENERATOR]                   strip.png
    faces RUN                               gallery_32.png, grown_128.png
    losses RUN
    three_runs HEALTHY COLLAPSED WINS       three_runs.png
    rows RUN [RUN ...]                      album.png
    styles RUN                              styles.png
    drawn                                   drawn_faces.png

RUN: the folder that a run left, or for faces and rows a checkpoint. strip: its sample grids at the
start and after 10 s, 1 minute, 5 minutes and an hour (as far as it went), and what a generator of
another run makes of the same latents. faces: what its generator makes of latents of seed 0, none
left out. losses: its curves above its last samples. rows: eight faces of each run. styles: faces of
a StyleGenerator, mixed, and moved towards the mean style.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from common import helpers, lesson, load_generator
from PIL import Image, ImageDraw, ImageFont

from assets.lib.drawn import draw_faces

MOMENTS = {"10 seconds": 10, "1 minute": 60, "5 minutes": 300, "1 hour": 3600}  # in seconds


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
    steps = [int(file.stem.split("_")[1]) for file in files]
    seconds = np.interp(steps, [0, *losses["step"]], [0, *losses["seconds"]])
    return files, seconds


def at_moments(run):
    """{words: file} of the first grid and of those nearest to MOMENTS, as far as the run went."""
    files, seconds = grids(run)
    chosen = {"untrained": files[0]}
    for words, moment in MOMENTS.items():
        if moment <= 1.2 * seconds[-1]:
            chosen[words] = files[np.abs(seconds - moment).argmin()]
    return chosen


def strip(run, *generator_and_path):
    """Panels of the same faces, each with its moment below it; last another run's generator."""
    *generators, path = generator_and_path
    panels = {words: Image.open(file).convert("RGB") for words, file in at_moments(run).items()}
    for file in generators:
        panels["1 hour"] = Image.fromarray(helpers.image_grid(generated(file, 32)))
    size = (panels["untrained"].width + 2) // 8  # a face and its gap; grids have eight in a row
    box = 0, 0, 4 * size - 2, 3 * size - 2
    width, height, gap = 2 * box[2], 2 * box[3], 16
    page = Image.new("RGB", (len(panels) * (width + gap) - gap, height + 36), "white")
    write = ImageDraw.Draw(page)
    for k, (words, grid) in enumerate(panels.items()):
        left = k * (width + gap)
        page.paste(grid.resize((width, height), Image.NEAREST, box), (left, 0))
        middle = left + width // 2, height + 20
        write.text(middle, words, "black", ImageFont.load_default(22), anchor="mm")
    page.save(path, optimize=True)


def generated(run, n):
    generator = load_generator(run / "generator.pt2" if run.is_dir() else run)
    latents = torch.randn(n, 100, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return torch.cat([generator(part) for part in latents.split(100)])


def plot_losses(axis, run, title=""):
    table = read_losses(run)[:-1]  # the last one is the mean of fewer steps
    axis.plot(table["seconds"], table["d_loss"], label="d_loss", linewidth=1)
    axis.plot(table["seconds"], table["g_loss"], label="g_loss", linewidth=1)
    for value in (2 * np.log(2), 0.325):
        axis.axhline(value, color="grey", linewidth=0.5)
    axis.set(xlabel="seconds", ylabel="loss", ylim=(0, None), title=title)
    axis.legend()


def show_samples(axis, run):
    axis.imshow(plt.imread(grids(run)[0][-1]), interpolation="nearest")
    axis.axis("off")


def losses(run, path):
    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 6.2), height_ratios=(2, 3), dpi=100)
    plot_losses(above, run)
    show_samples(below, run)
    figure.tight_layout()
    figure.savefig(path)


def three_runs(healthy, collapsed, wins, path):
    """Loss curves and samples of three runs, side by side."""
    figure, axes = plt.subplots(2, 3, figsize=(12, 5.2), dpi=80)
    titles = "healthy", "collapsed", "the discriminator wins"
    for above, below, run, title in zip(*axes, (healthy, collapsed, wins), titles):
        plot_losses(above, run, title)
        show_samples(below, run)
    figure.tight_layout()
    figure.savefig(path)


def drawn(path, n=42, columns=14):
    """The first of the drawn faces."""
    save(helpers.image_grid(draw_faces(n, 64)[0] / 255, columns, value_range=(0, 1)), path)


def rows(*runs_and_path):
    """A row of eight faces of each run's generator; small faces are enlarged to 128 pixels."""
    *runs, path = runs_and_path
    faces = torch.cat([generated(run, 8) for run in runs])
    save(helpers.image_grid(faces, 8), path, max(1, 128 // faces.shape[-1]))


def styles(run, path):
    """Rows of faces of a StyleGenerator: A; B; coarse layers of A with fine ones of B; A with its
    styles moved half of the way to the mean, and all of it."""
    state = helpers.load_checkpoint(run / "best.pt")["averaged"]
    state = {name.removeprefix("module."): x for name, x in state.items() if "." in name}
    generator = lesson.StyleGenerator(lesson.settings.z_size, lesson.settings.g_conv_dim).eval()
    generator.load_state_dict(state)
    n_layers = len(generator.layers)
    latents = torch.randn(1016, lesson.settings.z_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        w = generator.mapping(latents)
        coarse, fine, mean = w[:8], w[8:16], w.mean(0)
        chosen = [[coarse] * n_layers, [fine] * n_layers]
        chosen.append([coarse] * 2 + [fine] * (n_layers - 2))
        chosen += [[mean + psi * (coarse - mean)] * n_layers for psi in (0.5, 0)]
        faces = torch.cat([generator.synthesis(one) for one in chosen])
    save(helpers.image_grid(faces, 8), path, zoom=2)


def main(arguments=None):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    kinds = {"strip": strip, "losses": losses, "three_runs": three_runs}
    kinds |= {"rows": rows, "styles": styles}
    parser.add_argument("kind", choices=[*kinds, "faces", "drawn"])
    parser.add_argument("paths", type=Path, nargs="+", help="runs, and last the picture")
    parser.add_argument("--columns", type=int, default=14)
    parser.add_argument("--n", type=int, default=42)
    parser.add_argument("--zoom", type=int, default=2)
    args = parser.parse_args(arguments)
    if args.kind == "drawn":
        drawn(*args.paths, args.n, args.columns)
    elif args.kind == "faces":
        run, path = args.paths
        save(helpers.image_grid(generated(run, args.n), args.columns), path, args.zoom)
    else:
        kinds[args.kind](*args.paths)


if __name__ == "__main__":
    main()
