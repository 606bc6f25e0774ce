"""Training runs: the loop around the steps, when it ends, and how it continues."""

import contextlib
import copy

import torch
from tqdm import tqdm

from assets.lib.devices import explain_too_little_memory, restore_random_state
from assets.lib.figures import progress
from assets.lib.fingerprints import fingerprint, is_other
from assets.lib.losses import RecentLosses
from assets.lib.ranks import (
    averaged_gradients,
    from_rank_0,
    numbers_from_rank_0,
    ordered,
    wait_for_ranks,
)
from assets.lib.recording import RecordedRun
from assets.lib.run_state import BLOCK, StopRule, due

OTHER_CODE = (
    "It was trained with another train_step: to train with yours, set resume = False or choose "
    "another out_dir."
)
BAR = dict(total=100, bar_format="{percentage:3.0f}%|{bar:20}| {desc}", miniters=0, delay=1e-9)
PRIME = 1_000_003  # keeps the seeds of runs, epochs and ranks apart


class Run(RecordedRun):
    """One training run: its loop, its clock, its counters, and what it leaves in a folder.

    `out_dir`, `settings`, `resume`: see Checkpoints; without an `out_dir` nothing is kept. Nothing
    is locked, loaded or written before `with run:` or `run.resume()`. `stop`: a StopRule.
    `score(generator)` returns a number, the lower the better; `sample(generator)` the images of
    SampleGrids, without which there is no animation and no generator.pt2. Both get the averaged
    generator, recalibrated, in eval mode (None if no part is called `averaged`). `parts`: networks,
    optimizers and schedulers, by name. Of several ranks, rank 0 alone scores, saves and shows.
    """

    def __init__(
        self, out_dir=None, settings=None, stop=None, resume=True, score=None, sample=None, **parts
    ):
        super().__init__(out_dir, settings, resume)
        self.take(sample, score, parts)
        self.stop = stop or StopRule()
        self.stopped = False  # by the stop button
        self.n_epochs = self.n_batches = None  # of the whole run, and of an epoch
        self.code = ""

    def extended(self, stop=None, score=None, sample=None, **more_parts):
        """A Run that continues this one in the same folder, with more parts."""
        run = copy.copy(self)
        run.state = copy.deepcopy(self.state)
        run.recent_losses = RecentLosses(self.recent_losses.losses)
        run.take(sample, score, self.parts | more_parts)
        run.stop, run.n_epochs = stop or StopRule(), None
        return run

    @property
    def progress(self):
        """How far the run is, from 0 to 1, by its epochs and the limits of `stop`."""
        n_steps = (self.n_epochs or 0) * (self.n_batches or 0)
        by_steps = self.step / n_steps if n_steps else 0.0
        return min(1.0, max(by_steps, self.stop.progress(self.state)))

    @property
    def finished(self):
        """Whether a limit is reached or the stop button was pressed: the same on all ranks."""
        return self.stopped or bool(self.stop.reached(self.state))

    @property
    def images_per_second(self):
        """Images per second of training, without the first steps of this process."""
        return self.clock.images_per_second or self.images / max(self.seconds, 1e-9)

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(explain_too_little_memory(lambda: self.what_stands))
            if self.checkpoints:
                stack.enter_context(self.checkpoints.held())
            self.load()
            networks, optimizers = self.networks.values(), self.optimizers.values()
            stack.enter_context(averaged_gradients(networks, optimizers))
            self.bar = stack.enter_context(progress(**BAR, disable=self.files is None))
            self.in_memory, self.stopped = None, False  # from here on steps change the parts
            self.start_recording()
            stack.enter_context(self.button.watched())
            stack.push(self._end)
            self.exit = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self.exit.__exit__(*error)

    def _end(self, kind, error, trace):
        """Keep what there is; after an error in a step the last checkpoint stands."""
        interrupted = kind is KeyboardInterrupt and self.ranks == 1  # others would wait for it
        if kind and not interrupted:
            return False
        with self.button.held():
            if interrupted:
                self.load()  # in the middle of a step: back to the last whole one
            self.stopped = from_rank_0(self.button.pressed)
            if self.stopped and self.files:
                tqdm.write("Stopping: saving the last samples and their score ...")
            self.end_recording()
            self._show_progress("stopped" if self.stopped else "finished")
            if self.stopped and self.files:
                print(f"Stopped after {self.step:,} steps. Rerun the cell to continue.")
            if self.files:
                self.in_memory = self.checkpoints.version()
            wait_for_ranks()
        return interrupted

    def note_code(self, step_function):
        """Tell the run which training step it is trained with."""
        self.code = fingerprint(step_function)

    def epochs(self, n_epochs):
        """Yield the epochs left, counted from 0, until `n_epochs` or a limit is reached."""
        self.n_epochs = n_epochs
        limits = self.stop.reached(self.state) + ["n_epochs"] * (self.epoch >= n_epochs)
        if self.folder:
            print_status(self, limits)
        if self.code and not limits and self.code not in self.state.codes:
            self.state.codes = [*self.state.codes, self.code]
        while self.epoch < n_epochs and not self.finished:
            yield self.epoch

    def watch(self, loader, epoch):
        """Yield the batches of this epoch, from where the run left off until a limit is reached."""
        state, seed = self.state, self.settings.get("seed", 0)
        pending, state.random_state = state.random_state, None
        with ordered(loader, PRIME * seed + epoch) as own:  # so that the run can continue
            self.n_batches = count_batches(own)
            restore_random_state(pending)
            batches = iter(own)
            with self.other_work():
                for _ in range(state.batch):
                    next(batches, None)  # none left: the epoch has become shorter
            restore_random_state(pending if state.batch else None)
            if self.rank:  # other latents than rank 0's, and never the same again
                torch.manual_seed(seed + self.rank + PRIME * self.step)
            while not self.finished:  # asked first: an unused batch would use random numbers
                batch = next(batches, None)
                if batch is None:
                    state.epoch, state.batch = epoch + 1, 0
                    return
                yield batch

    def log(self, d_loss, g_loss, n_images, print_every=50):
        """Count a step on `n_images` real images; every `print_every` steps make a row."""
        state, n_images = self.state, n_images * self.ranks
        state.step += 1
        state.batch += 1
        state.images += n_images
        state.seconds += self.clock.end_step(n_images)
        self.recent_losses.add(d_loss, g_loss)
        is_due = due(state, self.done, self.clock.now(), print_every)
        clock = state.seconds, state.other_seconds
        shared = numbers_from_rank_0(*clock, self.button.pressed, *is_due)
        state.seconds, state.other_seconds, *flags = shared
        self.stopped, row, look, score = map(bool, flags)
        is_block = state.step % BLOCK == 0
        if row or is_block:
            self.add_losses(row, is_block)
        self._show_progress()
        if look and self.folder:
            self.look(score)

    def _show_progress(self, end=""):
        self.bar.n = 100 if end == "finished" else round(100 * self.progress)
        self.bar.set_description_str(status_words(self, end), refresh=bool(end))
        self.bar.update(0)  # every half a second


def count_batches(loader):
    """The number of batches of a loader, None if it is not known; ValueError if there are none."""
    try:
        n_batches = len(loader)
    except TypeError:
        return None
    if n_batches == 0:
        raise ValueError("The loader has no batch: lower batch_size, or give more images.")
    return n_batches


def print_status(run, limits):
    """Say whether a run is finished, by these limits, or continues."""
    state, minutes = run.state, (run.state.seconds + run.state.other_seconds) / 60
    so_far = f"{state.step:,} steps, {state.images:,} images, {minutes:.1f} minutes"
    if limits:
        sentences = [f"The run in {run.folder} is finished: {so_far}."]
        sentences.append(f"To train longer, raise {' and '.join(limits)}.")
        if run.code and is_other(run.code, state.codes):
            sentences.append(OTHER_CODE)
        print(*sentences)
    elif state.step:
        print(f"Continuing the run in {run.folder}: {so_far} so far.", end=" ")
        print("To start a new run beside it, set resume = False.")


def status_words(run, end):
    """What the progress bar says; `end`: how the run has ended, if it has."""
    state = run.state
    seconds = round(state.limited_seconds * (1 / max(run.progress, 1e-9) - 1))
    left = end or f"{seconds // 60}:{seconds % 60:02} left"
    epoch = state.epoch + (state.batch > 0)
    words = f"epoch {epoch}, {state.images:,} images, {run.images_per_second:,.0f} img/s, {left}"
    if state.rows:
        words += ", d_loss {:.2f}, g_loss {:.2f}".format(*state.rows[-1][3:])
    if state.scores:
        words += f", best score {state.best[-1]:.2f}"
    return words
