"""Sample grids of a run, and the animation made of them."""

import re

import numpy as np
from PIL import Image

from assets.lib.figures import image_grid, show_live
from assets.lib.files import write_file

NAME = re.compile(r"step_(\d+)\.png")
MOST_FRAMES = 20
WIDTH = 540  # of the animation, in pixels: 20 frames of any content stay below 3 MB
ALIKE = 0.1  # the mean standard deviation below which all samples look the same


class SampleGrids:
    """Grids of samples as training goes on, in folder/samples, and the animation made of them.

    `sample(generator)` returns images (N, 3, H, W) in [-1, 1], always of the same latents.
    """

    def __init__(self, folder, sample):
        self.folder = folder / "samples"
        self.sample = sample
        self.handle = None  # of the output in which the notebook shows the newest grid

    def files(self):
        """The grids, oldest first."""
        found = [path for path in self.folder.glob("*.png") if NAME.fullmatch(path.name)]
        return sorted(found, key=step_of)

    def keep(self, step, generator):
        """Write and show the grid of this step -> whether the samples are all alike."""
        images = self.sample(generator).float()
        grid = Image.fromarray(image_grid(images))
        self.folder.mkdir(parents=True, exist_ok=True)
        write_file(self.folder / f"step_{step:07d}.png", lambda file: grid.save(file, "PNG"))
        self.show_last()
        return len(images) > 1 and bool(images.std(0).mean() < ALIKE)

    def show_last(self):
        """Show the newest grid in place of the one before."""
        for path in self.files()[-1:]:
            with Image.open(path) as grid:
                zoom = max(1, 800 // grid.width)
                size = grid.width * zoom, grid.height * zoom
                shown = grid.resize(size, Image.Resampling.NEAREST)
            alt = f"Samples after {step_of(path):,} steps"
            self.handle = show_live(shown, self.handle, alt)

    def animate(self, path):
        """Write a GIF, at most 600 pixels wide and 3 MB: two rows of up to 20 grids."""
        files = self.files()
        chosen = np.linspace(0, len(files) - 1, min(MOST_FRAMES, len(files))).round().astype(int)
        frames = [frame_of(files[i]) for i in chosen]
        frames = [frame for frame in frames if frame.size == frames[-1].size]
        milliseconds = [250] * (len(frames) - 1) + [2000]  # it rests on the last one
        options = dict(save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
        write_file(path, lambda file: frames[0].save(file, "GIF", **options))


def step_of(path):
    """The step in the name of a grid."""
    return int(NAME.fullmatch(path.name)[1])


def frame_of(path):
    """A frame of the animation: the first two rows of a grid of eight columns, scaled."""
    with Image.open(path) as grid:
        width, height = grid.size
        height = min(height, (width + 2) // 4 - 2)
        rows = grid.crop((0, 0, width, height))
    if width <= WIDTH:  # whole pixels stay sharp
        zoom, method = WIDTH // width, Image.Resampling.NEAREST
        size = width * zoom, height * zoom
    else:
        size, method = (WIDTH, round(height * WIDTH / width)), Image.Resampling.LANCZOS
    return rows.resize(size, method)
