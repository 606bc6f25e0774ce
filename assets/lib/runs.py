"""Training runs: the clock, what is due when, and what a run leaves."""

import contextlib
import copy
import json
import math
import signal
import threading
import time

import numpy as np
import torch
from tqdm import tqdm

from assets.lib.checkpoints import Checkpoints, load_checkpoint, load_parts, plain, split_parts
from assets.lib.devices import explain_too_little_memory, random_state, restore_random_state
from assets.lib.export import export_generator
from assets.lib.figures import progress
from assets.lib.ranks import (
    averaged_gradients,
    from_rank_0,
    mean_of_ranks,
    share_of,
    wait_for_ranks,
    world,
)
from assets.lib.samples import SampleGrids
from assets.lib.scores import recalibrate_batch_norm

D_WINS = "d_loss is near its least: the discriminator has all but won. Lower d_lr or d_conv_dim."
G_CLIMBS = "g_loss keeps climbing: the discriminator is getting out of reach. Lower d_lr."
ALIKE = "the samples are all alike: the generator has collapsed. Lower lr, or go back to best.pt."
COUNTERS = "step", "images", "epoch", "batch", "seconds", "progress", "rows", "scores", "warned"


class StopRule:
    """When a run ends: minutes of training, images seen, scores in a row without a better one."""

    def __init__(self, minutes=None, images=None, patience=None):
        self.minutes, self.images, self.patience = minutes, images, patience

    def progress(self, run):
        """How far the run is, from 0 to 1; patience cannot be foreseen."""
        by_time = run.seconds / (60 * self.minutes) if self.minutes else 0.0
        by_images = run.images / self.images if self.images else 0.0
        return min(1.0, max(by_time, by_images))

    def reached(self, run):
        """The limits that the run has reached, by the names of their settings."""
        limits = {
            "max_minutes": self.minutes and run.seconds >= 60 * self.minutes,
            "the number of images": self.images and run.images >= self.images,
            "patience": self.patience and run.scores and run.best in run.scores[: -self.patience],
        }
        return [name for name, reached in limits.items() if reached]


class Run:
    """One training run: its clock, its counters, and what it leaves in a folder.

    `out_dir`, `settings`, `resume`: see Checkpoints; without an `out_dir` nothing is kept. `stop`:
    a StopRule. `score(generator)` gives a number, at best 0; `sample(generator)` the images of
    SampleGrids, without which there is no animation and no generator.pt2. Both get the averaged
    generator, recalibrated, in eval mode (None if no part is called `averaged`). `parts`: networks,
    optimizers and schedulers, by name. Of several ranks rank 0 alone scores, saves and shows.
    """

    def __init__(
        self, out_dir=None, settings=None, stop=None, resume=True, score=None, sample=None, **parts
    ):
        self.settings = json.loads(json.dumps(plain(settings or {}), default=str))
        self.stop, self.parts, (self.rank, self.ranks) = stop or StopRule(), parts, world()
        self.networks, self.optimizers = split_parts(parts)
        self.step = self.images = self.epoch = self.batch = 0
        self.seconds, self.progress, self.stopped = 0.0, 0.0, False
        self.rows, self.scores, self.warned = [], [], []
        self.folder, self.random_state, self.share = None, None, 1  # share: ranks in a batch
        self.recorder = Recorder(self, score)
        if out_dir is not None:
            self.recorder.open(out_dir, resume, sample)

    @property
    def losses(self):
        """The losses so far, one (d_loss, g_loss) per row."""
        return [(d_loss, g_loss) for *_, d_loss, g_loss in self.rows]

    @property
    def best(self):
        """The row (step, images, seconds, score) of the best score so far."""
        return min(self.scores, key=lambda row: row[-1])

    @property
    def finished(self):
        """Whether a limit is reached or the stop button was pressed: the same on all ranks."""
        return self.stopped or bool(self.stop.reached(self))

    def __enter__(self):
        self.stopped = self.pressed = self.ending = False
        self.started = time.perf_counter() - self.seconds
        with contextlib.ExitStack() as stack:
            stack.enter_context(explain_too_little_memory(lambda: self.recorder.kept))
            parts = self.networks.values(), self.optimizers.values()
            stack.enter_context(averaged_gradients(*parts))
            self.recorder.start(stack)
            stack.enter_context(stop_button(self._press))
            stack.push(self._end)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self.stack.__exit__(*error)

    def epochs(self, n_epochs):
        """Yield the epochs left, counted from 0, until `n_epochs` or a limit is reached."""
        limits = self.stop.reached(self) + (["n_epochs"] if self.epoch >= n_epochs else [])
        so_far = f"{self.step:,} steps, {self.images:,} images, {self.seconds / 60:.1f} minutes"
        if self.folder and limits:
            print(f"The run in {self.folder} is finished: {so_far}.", end=" ")
            print(f"To train longer, raise {' and '.join(limits)}.")
        elif self.folder and self.step:
            print(f"Going on with the run in {self.folder}: {so_far} so far.", end=" ")
            print("For a new run beside it, set resume = False.")
        while self.epoch < n_epochs and not self.finished:
            yield self.epoch

    def watch(self, loader, epoch):
        """Yield the batches of this epoch, from where the run left off until a limit is reached."""
        seed, state, self.random_state = self.settings.get("seed", 0), self.random_state, None
        sampler = getattr(loader, "sampler", None)
        if sampler is not None:  # its order belongs to the epoch, so that a run can go on
            sampler.generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
            loader, self.share = share_of(loader), self.ranks
        restore_random_state(state)
        batches = iter(loader)
        for _ in range(self.batch):
            next(batches, None)  # fewer than then: the epoch is over
        restore_random_state(state if self.batch else None)
        if self.rank:  # other latents than rank 0's, and never the same again
            torch.manual_seed(seed + self.rank + 1_000_003 * self.step)
        try:
            while not self.finished:  # asked first: an unused batch would use random numbers
                batch = next(batches, None)
                if batch is None:
                    self.epoch, self.batch = epoch + 1, 0
                    return
                yield batch
        finally:
            if sampler is not None:  # a loop without a run draws its order as before
                sampler.generator = None

    def log(self, d_loss, g_loss, n_images, n_steps, print_every):
        """Count a step on `n_images` real images, one of at most `n_steps` in the whole run.

        Every `print_every` steps the mean losses become a row.
        """
        self.step, self.batch = self.step + 1, self.batch + 1
        self.images += n_images * self.share
        self.seconds, self.stopped = from_rank_0((time.perf_counter() - self.started, self.pressed))
        self.progress = min(1.0, max(self.step / n_steps, self.stop.progress(self)))
        losses = [torch.as_tensor(loss, dtype=torch.float32) for loss in (d_loss, g_loss)]
        self.recorder.after_step(mean_of_ranks(torch.stack(losses).detach()), print_every)

    def at_best(self, name):
        """A copy of the network `name` as it was at the best score, or else as it is now."""
        network = copy.deepcopy(self.parts[name])
        if self.scores:
            try:
                network.load_state_dict(load_checkpoint(self.folder / "best.pt")[name])
            except (ValueError, LookupError, FileNotFoundError):
                print(f"best.pt is missing or damaged: {name} is taken as it is now.")
        return network

    def best_generator(self):
        """The averaged generator at its best score, recalibrated, in eval mode."""
        generator = self.at_best("averaged").module
        return recalibrate_batch_norm(generator, generator.z_size)

    def warn(self, *sentences):
        """Print each sentence once in a run."""
        for sentence in sentences:
            if sentence not in self.warned:
                self.warned.append(sentence)
                tqdm.write(f"At step {self.step:,}: {sentence}")  # above the progress bar

    def _press(self):
        """The stop button: the current step is finished. Pressed again, it interrupts at once."""
        if self.pressed and not self.ending and not self.recorder.is_writing:
            raise KeyboardInterrupt
        self.pressed = True

    def _end(self, kind, error, trace):
        """Keep what there is by now; after an error in a step the last checkpoint stands."""
        self.ending = True
        interrupted = kind is KeyboardInterrupt and self.ranks == 1  # others would wait for it
        if kind and not interrupted:
            return False
        if interrupted and self.folder:  # in the middle of a step: back to the last whole one
            self.recorder.load()
        self.stopped = from_rank_0(self.pressed)
        self.recorder.finish()
        return interrupted


class Recorder:
    """What is done around a run's steps: rows of losses, progress bar, grids, scores, files."""

    def __init__(self, run, score):
        self.run, self.score = run, score
        self.checkpoints = self.grids = None  # but with an out_dir, on rank 0
        self.sums, self.kept = [], ""

    def open(self, out_dir, resume, sample):
        """Hold the run's folder and go on from its newest checkpoint, if there is one."""
        run = self.run
        if not run.rank:
            patience = 0 if run.ranks == 1 else 30  # what torchrun ended may take some seconds
            self.checkpoints = Checkpoints(out_dir, run.settings, resume, patience)
            self.grids = SampleGrids(self.checkpoints.folder, sample) if sample else None
        run.folder = from_rank_0(self.checkpoints and self.checkpoints.folder)
        self.load()
        if run.step == 0 and any(optimizer.state for optimizer in run.optimizers.values()):
            print("This new run begins with networks that have been trained already.", end=" ")
            print("For fresh ones, run the notebook again from section 8.")

    def load(self):
        run = self.run
        state = from_rank_0(self.checkpoints and self.checkpoints.load(run.parts))
        if state is None:
            return
        if run.rank:
            load_parts(run.parts, state)
        vars(run).update({name: state[name] for name in (*COUNTERS, "random_state")})
        self.sums, self.kept = [], f"The checkpoint of step {run.step:,} stands."
        is_best = self.checkpoints and run.scores and run.best[0] == run.step
        if is_best and not self.checkpoints.is_current("best.pt"):  # a kill came before it
            self.checkpoints.write("best.pt", state)

    def start(self, stack):
        """Begin to record: a new run with a checkpoint and a grid of noise."""
        run = self.run
        self.before, self.last_row, self.is_writing = run.step, run.seconds, False
        self.next_look = self.next_score = run.seconds + 10
        if self.checkpoints:
            self.checkpoints.acquire()
            stack.callback(self.checkpoints.lock.release, force=True)
        bar = dict(total=100, initial=round(100 * run.progress), disable=not self.checkpoints)
        bar |= dict(bar_format="{percentage:3.0f}%|{bar:20}| {desc}", miniters=0, delay=1e-9)
        self.bar = stack.enter_context(progress(**bar))
        if run.folder and run.step == 0:
            self.look()
        elif self.grids:
            self.grids.show_last()

    def after_step(self, losses, print_every):
        """What is due: a row, the progress bar, a look."""
        run = self.run
        self.sums.append(losses)  # read when they become a row: reading waits for the device
        if run.step % print_every == 0 or run.seconds > self.last_row + 60:
            self.add_row()
        self.report()
        if run.folder and run.seconds >= self.next_look:
            self.look()

    def add_row(self):
        run = self.run
        check_finite(run.networks, self.sums, run.step, self.kept)
        means = torch.stack(self.sums).mean(0).tolist()
        run.rows.append((run.step, run.images, round(run.seconds, 2), *means))
        self.sums, self.last_row = [], run.seconds
        run.warn(*training_warnings(run.rows))

    @torch.no_grad()
    @torch.random.fork_rng(devices=[])  # training goes on as if nobody had looked
    def look(self, last=False):
        """Keep a grid, a checkpoint and a score, each for a twentieth of the time."""
        run, pending, began = self.run, self.run.random_state, time.perf_counter()
        run.random_state = pending or random_state()
        check_finite(run.networks, self.sums, run.step, self.kept)
        averaged = run.parts.get("averaged")
        generator = averaged and recalibrate_batch_norm(averaged.module, averaged.module.z_size)
        if self.grids:
            if self.grids.keep(run.step, generator) and generator and run.step >= 500:
                run.warn(ALIKE)
        if self.checkpoints:
            self.save()
        now = time.perf_counter()
        run.seconds, cost = now - run.started, now - began
        soon = next((t for t in (2, 10) if run.seconds < t), 1.1 * run.seconds)
        self.next_look = min(run.seconds + 300, max(soon, run.seconds + 20 * cost))
        scored = [step for step, *_ in run.scores]
        is_due = run.step not in scored and (last or run.seconds >= self.next_score)
        if self.checkpoints and self.score and is_due:
            value = float(self.score(generator))
            value = math.inf if math.isnan(value) else value
            run.scores.append((run.step, run.images, round(run.seconds, 2), value))
            self.save()
            if run.best is run.scores[-1]:
                self.save("best.pt")  # after last.pt: a kill may come between the two
            self.next_score = run.seconds + 21 * (time.perf_counter() - now)
        known = from_rank_0((run.seconds, run.scores, self.next_look))
        run.seconds, run.scores, self.next_look = known
        run.random_state = pending

    def report(self, end=""):
        """Bring the progress bar up to date; `end` says how the run has ended."""
        run = self.run
        epoch, rate = run.epoch + (run.batch > 0), run.images / max(run.seconds, 1e-9)
        seconds = round(run.seconds * (1 / max(run.progress, 1e-9) - 1))
        left = end or f"{seconds // 60}:{seconds % 60:02} left"
        words = f"epoch {epoch}, {run.images:,} images, {rate:,.0f} img/s, {left}"
        if run.rows:
            words += ", d_loss {:.2f}, g_loss {:.2f}".format(*run.rows[-1][3:])
        if run.scores:
            words += f", best score {run.best[-1]:.2f}"
        self.bar.n = 100 if end == "finished" else round(100 * run.progress)
        self.bar.set_description_str(words, refresh=bool(end))
        self.bar.update(0)  # every half a second

    def save(self, name="last.pt"):
        """Write a checkpoint, losses.csv and scores.csv."""
        run = self.run
        state = {name: part.state_dict() for name, part in run.parts.items()}
        state |= {name: getattr(run, name) for name in COUNTERS}
        state |= dict(settings=run.settings, random_state=run.random_state or random_state())
        tables = dict(losses=("d_loss,g_loss", run.rows), scores=("score", run.scores))
        self.is_writing = True  # the stop button waits
        self.checkpoints.write(name, state, **tables)
        self.is_writing, self.kept = False, f"The checkpoint of step {run.step:,} stands."

    def finish(self):
        """The last row, grid, score and checkpoint; then what is made of them, if need be."""
        run = self.run
        if run.stopped and run.folder:
            tqdm.write("Stopping: the last samples and their score ...")
        if self.sums:
            self.add_row()
        if run.folder and (run.step > self.before or self.score and not run.scores):
            self.look(last=True)
        makers = {"training.gif": self.grids.animate} if self.grids and self.grids.files() else {}
        if makers and "averaged" in run.parts:
            makers["generator.pt2"] = lambda path: export_generator(run.best_generator(), path)
        for name, make in makers.items():
            if not self.checkpoints.is_current(name):
                make(run.folder / name)
        self.report("stopped" if run.stopped else "finished")
        if run.stopped and run.folder:
            print(f"Stopped after {run.step:,} steps. Run the cell again to go on (resume = True).")
        wait_for_ranks()


def check_finite(networks, losses, step, kept):
    """FloatingPointError unless all losses of the last steps, and all weights, are finite."""
    checks = []
    for i, (d_loss, g_loss) in enumerate(losses, step - len(losses) + 1):
        checks += [("d_loss", i, d_loss), ("g_loss", i, g_loss)]
    for name, network in networks.items():
        checks += [(f"a weight of {name}", step, weight) for weight in network.parameters()]
    device = checks[-1][2].device  # losses that were plain numbers are on the CPU
    finite = torch.stack([x.isfinite().all().to(device) for *_, x in checks]).tolist()  # read once
    if not all(finite):
        what, step, _ = checks[finite.index(False)]
        raise FloatingPointError(
            f"Training has diverged: {what} is no finite number at step {step:,}. Set a lower lr "
            "or d_lr, or take another loss, and run the notebook again from section 8, where the "
            f"networks are built. {kept}"
        )


def training_warnings(rows):
    """What the last 40 rows (step, images, seconds, d_loss, g_loss) warn of, in sentences."""
    if len(rows) < 40:
        return []
    d_losses, g_losses = np.array(rows[-40:])[:, 3:].T
    quarters, found = g_losses.reshape(4, 10).mean(1), []
    # With a smoothed label d_loss stays above 0.325; other losses have other ranges
    if 0.32 < d_losses[20:].min() and d_losses[20:].max() < 0.45 and g_losses[20:].min() > 2:
        found.append(D_WINS)
    if quarters[-1] > max(5, 2 * quarters[0]) and (np.diff(quarters) > 0).all():
        found.append(G_CLIMBS)
    return found


@contextlib.contextmanager
def stop_button(press):
    """Within it, Jupyter's stop button and Ctrl-C call `press`."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if is_main and before is not signal.SIG_IGN:  # as in a background job
        signal.signal(signal.SIGINT, lambda *_: press())
    try:
        yield
    finally:
        if is_main:
            signal.signal(signal.SIGINT, before)
