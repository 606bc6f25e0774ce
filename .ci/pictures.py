"""Make the pictures in assets/ from finished runs, and the drawn faces that one may learn from.

    python .ci/pictures.py drawn_faces.png
    python .ci/pictures.py samples.png RUN [--columns 14] [--faces 42] [--zoom 2]
    python .ci/pictures.py collapsed.png RUN --losses

RUN: the folder that a run left. What its generator draws, from latents of seed 0, none left out; with --losses, its loss
curves above its last sheet of samples.
"""

import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import helpers  # noqa: E402


def sheet(images, columns, zoom=1, value_range=(-1, 1)):
    image = Image.fromarray(helpers.tile(images, columns, value_range))
    return image.resize((zoom * image.width, zoom * image.height), Image.NEAREST)


def generated(run, n):
    generator = helpers.load_generator(run / "generator.pt2")
    with torch.no_grad():
        return generator(torch.randn(n, generator.z_size, generator=torch.Generator().manual_seed(0)))


def with_losses(run, path):
    table = np.genfromtxt(run / "losses.csv", delimiter=",", names=True)[:-1]
    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 6.2), height_ratios=(2, 3), dpi=100)
    above.plot(table["seconds"], table["d_loss"], label="discriminator")
    above.plot(table["seconds"], table["g_loss"], label="generator")
    above.set(xlabel="seconds", ylabel="loss", ylim=(0, None))
    above.legend()
    below.imshow(plt.imread(max((run / "samples").glob("step_*.png"))), interpolation="nearest")
    below.axis("off")
    figure.tight_layout()
    figure.savefig(path)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("name")
    options.add_argument("run", type=Path, nargs="?", help="drawn faces without it")
    options.add_argument("--losses", action="store_true")
    options.add_argument("--columns", type=int, default=14)
    options.add_argument("--faces", type=int, default=42)
    options.add_argument("--zoom", type=int, default=2)
    chosen = options.parse_args()
    path = ROOT / "assets" / chosen.name
    if chosen.losses:
        with_losses(chosen.run, path)
    elif chosen.run:
        sheet(generated(chosen.run, chosen.faces), chosen.columns, chosen.zoom).save(path, optimize=True)
    else:
        sheet(helpers.draw_faces(chosen.faces, 64)[0] / 255, chosen.columns, value_range=(0, 1)).save(path, optimize=True)


if __name__ == "__main__":
    main()
