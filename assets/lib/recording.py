"""What a run does besides its steps: rows of losses, grids, checkpoints, scores, warnings."""

import contextlib
import math

import torch
from tqdm import tqdm

from assets.lib.clocks import Clock
from assets.lib.devices import random_state
from assets.lib.losses import ALL_ALIKE, training_warnings
from assets.lib.ranks import from_rank_0
from assets.lib.run_state import BLOCK, Done
from assets.lib.stored_runs import StoredRun, same_random_numbers

YOUNG = 500  # steps in which samples that are all alike are no warning
MOST_OTHER = 60  # seconds that a piece of other work counts: a longer one was interrupted


class RecordedRun(StoredRun):
    """A run that keeps rows, grids, checkpoints and scores; the base of Run."""

    def take(self, sample, score, parts):
        """Work with these functions and parts from here on."""
        super().take(sample, parts)
        self.score = score
        self.clock, self.done = Clock(), Done()

    def start_recording(self):
        """Begin with the first grid and checkpoint of a new run, or with the last grid of it."""
        self.first_step = self.step
        self.done = Done(self.seconds, self.seconds, self.seconds, saved=self.clock.now())
        if self.folder and self.step == 0:
            if any(optimizer.state for optimizer in self.optimizers.values()):
                print("This run is new, but its networks are trained already.", end=" ")
                print("For fresh ones, rerun the notebook from the cell that builds them.")
            self.look(with_score=False)
        elif self.files:
            self.files.show_last_grid()
        self.clock.start_step()

    def end_recording(self):
        """Keep the last row, grid, checkpoint and score, and complete the folder."""
        is_new = self.step > self.first_step
        if self.state.steps_since_row and self.recent_losses.losses:
            self.add_losses(is_row=True)
            is_new = True
        if self.folder and (is_new or self.score and not self.scores):
            self.look(with_score=True)
        self.complete_files()
        if self.folder and self.state.random_state is None:
            self.state.random_state = random_state()  # the next step continues from here

    @torch.no_grad()
    def look(self, with_score):
        """Keep a grid, a checkpoint and, if asked, a score; training continues as without."""
        self.check_losses()
        pending = self.state.random_state
        with same_random_numbers() as before:
            self.state.random_state = pending or before
            with self.other_work() as work:
                generator = self.averaged_generator()
                if self.files and self.files.keep_grid(self.step, generator) and self.step >= YOUNG:
                    self.warn(ALL_ALIKE)
                self.save()
            self.done.add_look(self.seconds, work.seconds, self.clock.now())
            if with_score and self.files and self.score:
                self._add_score(generator)
        self.state.random_state = pending
        shared = self.state.other_seconds, self.state.scores, self.state.best_index
        self.state.other_seconds, self.state.scores, self.state.best_index = from_rank_0(shared)

    def _add_score(self, generator):
        if self.scores and self.scores[-1][0] == self.step:
            return
        with self.other_work() as work:
            value = float(self.score(generator))
            is_best = self.state.add_score(math.inf if math.isnan(value) else value)
            self.save()
            if is_best:
                self.save("best.pt")  # after last.pt: a kill may come between the two
        self.done.add_score(self.seconds, work.seconds)

    def add_losses(self, is_row, is_block=False):
        """Check the losses of the last steps; keep their means as a row, and d_loss as a block."""
        self.check_losses()
        if is_block:
            self.state.add_block(self.recent_losses.means(BLOCK)[0])
        if is_row:
            self.state.add_row(*self.recent_losses.means(self.state.steps_since_row))
            self.done.row = self.seconds
            self.warn(*training_warnings(self.rows))
        self.recent_losses.keep(max(self.state.steps_since_row, self.step % BLOCK))

    def check_losses(self):
        """Raise a FloatingPointError if a loss or a weight is not finite."""
        self.recent_losses.check(self.networks, self.step, self.what_stands)

    def warn(self, *sentences):
        """Print each sentence once in a run."""
        for sentence in sentences:
            if sentence not in self.state.warnings:
                self.state.warnings.append(sentence)
                tqdm.write(f"At step {self.step:,}: {sentence}")  # above the progress bar

    @contextlib.contextmanager
    def other_work(self):
        """Do not count time as training. Yields an object that has `seconds` at the end."""
        with self.clock.other_work() as work:
            yield work
        self.state.other_seconds += min(work.seconds, MOST_OTHER)
