"""A drive that locks no files, and a process that holds a lock there; quick to import."""

import time
from pathlib import Path

from assets.lib import files


def lock_no_files(change=setattr, stale=2.5):
    """Stand for such a drive. A lock that was left is stale after `stale` seconds."""
    change(files, "locks_files", lambda path: False)
    for name, seconds in {"BEAT": 0.1, "STALE": stale, "POLL": 0.02}.items():
        change(files.MarkerLock, name, seconds)


def hold(seconds):
    """Hold a lock, at work that leaves other threads of this process little time."""
    lock_no_files()
    with files.locked("thing"):
        Path("held").touch()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sorted(range(100_000), key=str)
    print("let go")
