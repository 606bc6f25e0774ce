"""What a run leaves in its folder: checkpoints, tables, sample grids, training.gif, a generator."""

from assets.lib.checkpoints import load_checkpoint
from assets.lib.export import export_generator, load_generator
from assets.lib.files import write_file
from assets.lib.samples import SampleGrids

COLUMNS = {
    "losses.csv": "step,images,seconds,d_loss,g_loss",
    "scores.csv": "step,images,seconds,score",
}


class RunFiles:
    """The files of a run: `checkpoints` and what goes with them.

    `sample`: see SampleGrids; without it there are no pictures and no generator.pt2.
    """

    def __init__(self, checkpoints, sample):
        self.checkpoints, self.folder = checkpoints, checkpoints.folder
        self.grids = SampleGrids(self.folder, sample) if sample else None

    def save(self, name, content):
        """Write a checkpoint and the tables."""
        self.checkpoints.write(name, content)
        for table in COLUMNS:
            self._write_table(table, content)

    def keep_grid(self, step, generator):
        """Write and show a grid of samples -> whether they are all alike."""
        return self.grids is not None and self.grids.keep(step, generator)

    def show_last_grid(self):
        if self.grids:
            self.grids.show_last()

    def complete_best(self, content):
        """Write best.pt if `content` is the best checkpoint: a kill may have come before it."""
        try:
            is_there = load_checkpoint(self.folder / "best.pt")["step"] == content["step"]
        except (ValueError, FileNotFoundError):
            is_there = False
        if not is_there:
            self.checkpoints.write("best.pt", content)

    def complete(self, content, make_newest, make_best, outdated):
        """Make the files that are missing and, with `outdated`, those that training has outdated.

        `content`: the checkpoint's step and rows. `make_newest()` returns the generator of a grid,
        `make_best()` the one to export; it is None if there is none.
        """
        for table in COLUMNS:
            if not (self.folder / table).exists():
                self._write_table(table, content)
        if self.grids is None:
            return
        if not self.grids.files():
            self.grids.keep(content["step"], make_newest())
        makers = {"training.gif": self.grids.animate}
        if make_best:
            makers["generator.pt2"] = lambda path: export_generator(make_best(), path)
        for name, make in makers.items():
            if not (self._is_usable(name) if outdated else (self.folder / name).exists()):
                make(self.folder / name)
                self.checkpoints.mark_current(name)

    def _is_usable(self, name):
        """Whether a file is of the newest checkpoint, and this version of PyTorch opens it."""
        if not self.checkpoints.is_current(name):
            return False
        return name != "generator.pt2" or opens(self.folder / name)

    def _write_table(self, name, content):
        rows = content[name.removesuffix(".csv").replace("losses", "rows")]
        lines = [COLUMNS[name], *(",".join(map(str, row)) for row in rows), ""]
        text = "\n".join(lines).encode()
        write_file(self.folder / name, lambda file: file.write(text))


def opens(path):
    """Whether this version of PyTorch can load an exported generator."""
    try:
        load_generator(path)
        return True
    except ValueError:
        return False
