"""Make the pictures in assets/: what the generators of finished runs draw, and the drawn faces they may learn from.

    python .ci/pictures.py CELEBA_RUN DRAWN_RUN

CELEBA_RUN, DRAWN_RUN: folders that the notebook left (its `out_dir`), trained on photographs and on drawn faces.
Latents are drawn with seed 0 and none is left out.
"""

import sys
from pathlib import Path

import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import helpers  # noqa: E402


def save(images, name, value_range=(-1, 1), zoom=1):
    sheet = Image.fromarray(helpers.tile(images, columns=14, value_range=value_range))
    sheet.resize((zoom * sheet.width, zoom * sheet.height), Image.NEAREST).save(ROOT / "assets" / name, optimize=True)


def generated(run, n=42):
    generator = torch.export.load(Path(run, "generator.pt2")).module()
    return generator(torch.randn(n, 100, generator=torch.Generator().manual_seed(0))).detach()


if __name__ == "__main__":
    celeba_run, drawn_run = sys.argv[1:]
    (ROOT / "assets").mkdir(exist_ok=True)
    save(generated(celeba_run), "samples.png", zoom=2)
    save(generated(drawn_run), "samples_drawn.png", zoom=2)
    save(helpers.draw_faces(42, 64)[0] / 255, "drawn_faces.png", value_range=(0, 1))
