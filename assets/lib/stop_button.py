"""Jupyter's stop button and Ctrl-C while a run trains."""

import contextlib
import signal
import threading


class StopButton:
    """Notes the first press, for a run to end after the current step; a second one interrupts.

    Within `held()` presses wait: a second one is only noted, too.
    """

    def __init__(self):
        self.pressed = self.is_held = False

    def press(self, *_):
        if self.pressed and not self.is_held:
            raise KeyboardInterrupt
        self.pressed = True

    @contextlib.contextmanager
    def held(self):
        before, self.is_held = self.is_held, True
        try:
            yield
        finally:
            self.is_held = before

    @contextlib.contextmanager
    def watched(self):
        """Let the button and Ctrl-C call press()."""
        self.pressed = False
        is_main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGINT)
        is_watched = is_main and before is not signal.SIG_IGN  # as in a background job
        if is_watched:
            signal.signal(signal.SIGINT, self.press)
        try:
            yield
        finally:
            if is_watched:
                signal.signal(signal.SIGINT, before)
