"""A run's clock: how long its training steps take, and how fast it is."""

import contextlib
import statistics
import time
import types
from collections import deque

PAUSE = 20  # a step so many times as long as those around it was interrupted
SHORTEST_PAUSE = 1.0  # in seconds
WARM_UP = 5  # steps that do not count for the speed ...
MEASURED = 20  # ... once there are more than these


class Clock:
    """Seconds and images per second of the training steps of this process.

    A suspended laptop or a debugger does not train: an interrupted step counts as long as the
    steps around it, and the first two steps, which have none, count a second at most.
    """

    def __init__(self):
        self.durations = deque(maxlen=100)  # of the last steps, in seconds
        self.n_steps = self.n_images = 0
        self.seconds = 0.0
        self.warm_up = 0, 0.0  # images and seconds
        self.start_step()

    @staticmethod
    def now():
        return time.perf_counter()  # nobody can set it

    def start_step(self):
        """The next step begins here."""
        self.began = self.now()

    def end_step(self, n_images):
        """Count a step on `n_images`, and begin the next one -> the seconds it trained."""
        began = self.began
        self.start_step()
        duration = self.began - began
        seconds = duration if self._is_training(duration) else self._typical()
        self.durations.append(duration)
        self.n_steps += 1
        self.n_images += n_images
        self.seconds += seconds
        if self.n_steps == WARM_UP:
            self.warm_up = self.n_images, self.seconds
        return seconds

    @contextlib.contextmanager
    def other_work(self):
        """Let the step wait. Yields an object that has `seconds` at the end."""
        work, began = types.SimpleNamespace(), self.now()
        yield work
        work.seconds = self.now() - began
        self.began += work.seconds

    @property
    def images_per_second(self):
        """The speed without the first steps, which are slower; 0 before the first step."""
        n_images, seconds = self.warm_up if self.n_steps > MEASURED else (0, 0.0)
        return (self.n_images - n_images) / max(self.seconds - seconds, 1e-9)

    def _is_training(self, duration):
        if duration <= SHORTEST_PAUSE:
            return True
        longest = sorted(self.durations)[-2:]  # the very longest may have been a pause
        return len(longest) == 2 and duration <= PAUSE * longest[0]

    def _typical(self):
        known = len(self.durations) >= 2
        return statistics.median(self.durations) if known else SHORTEST_PAUSE
