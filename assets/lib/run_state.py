"""What a run has reached, when it ends, and what is due after a step."""

import dataclasses
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

BLOCK = 50  # steps whose losses are averaged for `recent_d_loss`
N_BLOCKS = 5
ROW_SECONDS = 60  # between two rows of losses at most
CHECKPOINT_SECONDS = 270  # between two checkpoints; a step and a grid may come on top
FIRST_LOOKS = 2, 10  # seconds of training
FIRST_COST = 0.5  # seconds that a grid or a score is expected to take at first
SHARE = 20  # grids take a twentieth of the time, and so do scores


@dataclass
class RunState:
    """What a checkpoint keeps of a run besides its parts: plain numbers, text and lists of them.

    `rows`: (step, images, seconds, d_loss, g_loss); `scores`: (step, images, seconds, score), the
    lower the better; `seconds`: of training; `other_seconds`: of grids, scores and checkpoints.
    """

    step: int = 0
    images: int = 0
    epoch: int = 0
    batch: int = 0  # of the epoch
    seconds: float = 0.0
    other_seconds: float = 0.0
    rows: list = field(default_factory=list)
    scores: list = field(default_factory=list)
    warnings: list = field(default_factory=list)
    d_losses: list = field(default_factory=list)  # means of the last five blocks of 50 steps
    codes: list = field(default_factory=list)  # fingerprints of the training steps used
    random_state: dict | None = None  # to be restored before the next step

    def __post_init__(self):
        indices = range(len(self.scores))
        self.best_index = min(indices, key=lambda i: self.scores[i][-1], default=None)

    @classmethod
    def of(cls, checkpoint):
        """The state that a checkpoint holds; what it lacks is as in a new run."""
        names = {item.name for item in dataclasses.fields(cls)} & checkpoint.keys()
        return cls(**{name: checkpoint[name] for name in names})

    def as_dict(self):
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}

    def add_row(self, d_loss, g_loss):
        self.rows.append((self.step, self.images, round(self.seconds, 2), d_loss, g_loss))

    def add_score(self, score):
        """Keep the score of this step -> whether it is the best."""
        self.scores.append((self.step, self.images, round(self.seconds, 2), score))
        is_best = self.best_index is None or score < self.best[-1]
        if is_best:
            self.best_index = len(self.scores) - 1
        return is_best

    def add_block(self, d_loss):
        self.d_losses = [*self.d_losses, d_loss][-N_BLOCKS:]

    @property
    def best(self):
        """The row (step, images, seconds, score) of the best score."""
        return self.scores[self.best_index]

    @property
    def losses(self):
        """All losses, one (d_loss, g_loss) per row: a new list each time."""
        return [(d_loss, g_loss) for *_, d_loss, g_loss in self.rows]

    @property
    def recent_d_loss(self):
        """The mean d_loss of the last five blocks of 50 steps; None before the first is full."""
        return float(np.mean(self.d_losses)) if self.d_losses else None

    @property
    def steps_since_row(self):
        return self.step - (self.rows[-1][0] if self.rows else 0)

    @property
    def limited_seconds(self):
        """What a limit of minutes bounds: training, and other work that takes no longer."""
        return self.seconds + min(self.other_seconds, self.seconds)


class StopRule:
    """When a run ends: minutes, images seen, scores in a row without a better one.

    No limit is reached before the first step.
    """

    def __init__(self, minutes=None, images=None, patience=None):
        self.minutes, self.images, self.patience = minutes, images, patience

    def progress(self, state):
        """How far a run is, from 0 to 1; patience cannot be foreseen."""
        shares = [0.0]
        if self.images:
            shares.append(state.images / self.images)
        if self.minutes:  # of the time that other work leaves
            left = 60 * self.minutes - min(state.other_seconds, state.seconds)
            shares.append(state.seconds / left if left > 0 else 1.0)
        return min(1.0, max(shares))

    def reached(self, state):
        """The limits that a run has reached, by the names of their settings."""
        if state.step == 0:
            return []
        since_best = len(state.scores) - 1 - state.best_index if state.scores else 0
        limits = {
            "max_minutes": self.minutes and state.limited_seconds >= 60 * self.minutes,
            "the number of images": self.images and state.images >= self.images,
            "patience": self.patience and since_best >= self.patience,
        }
        return [name for name, is_reached in limits.items() if is_reached]


@dataclass
class Done:
    """When things were last done, in seconds of training, and what they cost, in seconds.

    `saved` is the time of the last checkpoint by the clock. A pause may make one cost too high, so
    the lower one of the last two counts.
    """

    row: float = 0.0
    look: float = 0.0
    score: float = 0.0
    saved: float = 0.0
    look_costs: list = field(default_factory=list)
    score_costs: list = field(default_factory=list)

    def add_look(self, seconds, cost, now):
        self.look, self.saved = seconds, now
        self.look_costs = [*self.look_costs[-1:], cost]

    def add_score(self, seconds, cost):
        self.score = seconds
        self.score_costs = [*self.score_costs[-1:], cost]


class Due(NamedTuple):
    """What is due: a row of losses; a look, which is a grid and a checkpoint; a score with it."""

    row: bool
    look: bool
    score: bool


def due(state, done, now, print_every):
    """What is due after a step -> Due. `now`: the time by the clock of `done.saved`.

    Grids come soon at first, then ever less often; grids and scores each take a twentieth of the
    time; checkpoints, which come with the grids, are at most five minutes old.
    """
    row = state.step % print_every == 0 or state.seconds > done.row + ROW_SECONDS
    soon = next((t for t in FIRST_LOOKS if done.look < t), 1.1 * done.look)
    pause = SHARE * min(done.look_costs, default=FIRST_COST)
    look = state.seconds >= max(soon, done.look + pause) or now >= done.saved + CHECKPOINT_SECONDS
    pause = SHARE * min(done.score_costs, default=FIRST_COST)
    return Due(row, look, look and state.seconds >= done.score + pause)
