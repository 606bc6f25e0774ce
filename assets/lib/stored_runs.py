"""The state, the networks and the files of a run: loading, saving, and the best checkpoint."""

import contextlib
import copy

import torch

from assets.lib.checkpoints import Checkpoints, load_checkpoint, load_parts, split_parts
from assets.lib.devices import random_state, restore_random_state
from assets.lib.identity import plain_settings
from assets.lib.losses import RecentLosses
from assets.lib.ranks import from_rank_0, world
from assets.lib.run_files import RunFiles
from assets.lib.run_state import RunState
from assets.lib.scores import recalibrate_batch_norm
from assets.lib.stop_button import StopButton

PATIENCE = 30  # seconds in which ranks that torchrun restarts let a folder go


def of_state(name):
    return property(lambda run: getattr(run.state, name), doc=f"`{name}` of the RunState.")


class StoredRun:
    """A run as it is in memory and in its folder; the base of Run, which explains the arguments.

    Of several ranks, rank 0 alone has files.
    """

    step = of_state("step")
    images = of_state("images")
    epoch = of_state("epoch")
    seconds = of_state("seconds")
    rows = of_state("rows")
    scores = of_state("scores")
    best = of_state("best")
    losses = of_state("losses")
    recent_d_loss = of_state("recent_d_loss")

    def __init__(self, out_dir, settings, resume):
        self.rank, self.ranks = world()
        self.settings = plain_settings(settings or {})
        self.state, self.recent_losses = RunState(), RecentLosses()
        self.checkpoints = self.folder = None
        if out_dir is not None:
            if self.rank == 0:
                patience = PATIENCE if self.ranks > 1 else 0
                self.checkpoints = Checkpoints(out_dir, self.settings, resume, patience)
            self.folder = from_rank_0(self.checkpoints and self.checkpoints.folder)

    def take(self, sample, parts):
        """Work with these parts from here on."""
        self.parts = parts
        self.networks, self.optimizers = split_parts(parts)
        self.files = RunFiles(self.checkpoints, sample) if self.checkpoints else None
        self.button = StopButton()
        self.in_memory = None  # the version of the checkpoint that parts and state are of
        self.what_stands = ""

    def resume(self):
        """Load the newest checkpoint of the folder, if there is one, and remake missing files."""
        is_begun = self.checkpoints and self.checkpoints.version()
        with self.checkpoints.held() if is_begun else contextlib.nullcontext():
            self.load()
            if is_begun:
                self.complete_files(outdated=False)
        return self

    def load(self):
        """Load the newest checkpoint of the folder, unless it is in memory."""
        content = None
        if self.files and self.checkpoints.version() != self.in_memory:
            content = self.checkpoints.read()
        content = from_rank_0(content)
        if content is None:
            return
        load_parts(self.parts, content)
        self.state = RunState.of(content)
        self.recent_losses = RecentLosses(content.get("recent_losses", ()))
        self.what_stands = f"The checkpoint of step {self.step:,} stands."
        if self.files:
            if self.scores and self.best[0] == self.step:
                self.files.complete_best(content)
            self.in_memory = self.checkpoints.version()

    def save(self, name="last.pt"):
        """Write a checkpoint and the tables; nothing without a folder."""
        if self.files is None:
            return
        content = {part: network.state_dict() for part, network in self.parts.items()}
        content |= self.state.as_dict()
        content["random_state"] = self.state.random_state or random_state()
        content |= dict(settings=self.settings, recent_losses=self.recent_losses.as_tensor())
        with self.button.held():
            self.files.save(name, content)
        self.what_stands = f"The checkpoint of step {self.step:,} stands."

    def complete_files(self, outdated=True):
        """Make the files that are missing and, with `outdated`, those of an older step."""
        if self.files is None:
            return
        make_best = self.best_generator if "averaged" in self.parts else None
        with torch.no_grad(), same_random_numbers():
            self.files.complete(self.state.as_dict(), self.averaged_generator, make_best, outdated)

    def averaged_generator(self):
        """The averaged generator, recalibrated, in eval mode; None without a part `averaged`."""
        averaged = self.parts.get("averaged")
        return averaged and recalibrate_batch_norm(averaged.module, averaged.module.z_size)

    def at_best(self, name):
        """A copy of the network `name` as it was at the best score, or else as it is."""
        network = copy.deepcopy(self.parts[name])
        if not self.scores:
            return network
        try:
            network.load_state_dict(load_checkpoint(self.folder / "best.pt")[name])
        except (ValueError, LookupError, FileNotFoundError, RuntimeError):
            print(f"best.pt is missing, damaged, or from other networks: using the current {name}.")
            return copy.deepcopy(self.parts[name])  # half of it may have been loaded
        return network

    def best_generator(self):
        """The averaged generator at its best score, recalibrated, in eval mode."""
        generator = self.at_best("averaged").module
        return recalibrate_batch_norm(generator, generator.z_size)


@contextlib.contextmanager
def same_random_numbers():
    """After it, random numbers are drawn as if nothing had happened. Yields the state before."""
    before = random_state()
    yield before
    restore_random_state(before)
