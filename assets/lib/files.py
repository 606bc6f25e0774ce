"""Files and folders that are written whole or not at all, by one process at a time."""

import contextlib
import errno
import io
import os
import re
import shutil
import threading
import time
import unicodedata
import uuid
import weakref
from functools import lru_cache
from pathlib import Path

from filelock import FileLock, Timeout

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None

CACHE = Path("cache")
ELSEWHERE = "start the notebook in a folder that you may write to"
FULL = errno.ENOSPC, errno.EDQUOT
NO_LOCKS = errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF
GONE = errno.ENOENT, errno.ELOOP
NO_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class DataError(ValueError):
    """Data that is there but wrong. The message ends with the way out: the drawn faces."""

    def __init__(self, message):
        super().__init__(f'{as_text(message)} To continue without it, set data_dir = "drawn".')


class DiskError(OSError):
    """An error of the system, with what to do about it."""


@lru_cache(1000)
def say_once(sentence):
    """Print a sentence, the first time only."""
    print(as_text(sentence))


def to_path(path):
    """A path with ~ as the home folder, and with é and the like as the drive spells them.

    One form of Unicode has one letter there, the other two.
    """
    path = Path(os.path.expanduser(path))
    if os.path.lexists(path) or path == path.parent:
        return path
    folder, same = to_path(path.parent), []
    with contextlib.suppress(OSError):  # the folder is not there, either
        same = [name for name in os.listdir(folder) if composed(name) == composed(path.name)]
    return folder / (same or [path.name])[0]


def composed(name):
    return unicodedata.normalize("NFC", name)


def as_text(text):
    """The same, with a mark in place of control characters and of bytes that are not text."""
    return NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", str(text))


def printable(path):
    """The file's name as a text that can be shown anywhere."""
    return as_text(os.path.basename(path))


@contextlib.contextmanager
def explain_disk_errors(path, advice="choose another out_dir"):
    """Re-raise disk errors with the path and what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, DiskError) or error.errno is None:
            raise
        remedy = "Make room on the disk" if error.errno in FULL else "Make it writable"
        message = f"{as_text(path)} cannot be written: {error.strerror}. {remedy}, or {advice}."
        raise DiskError(error.errno, message) from error


class MarkerLock:
    """A lock for drives without file locks: a file that exists while a process holds the lock.

    A thread of the holder rewrites the file every BEAT seconds. A file that has not changed for
    STALE seconds was left by a process that has ended, and is taken over. Only the waiting
    process's own clock counts, because clocks of machines and drives differ.
    """

    BEAT, STALE, POLL = 2.0, 20.0, 0.2

    def __init__(self, path):
        self.path, self.token = Path(path), uuid.uuid4().hex
        self.seen, self.seen_at = None, 0.0  # another process's content, and since when
        self.thread = self.let_go = None

    @property
    def is_locked(self):
        """Whether this object still holds the lock: another process may have taken it over."""
        return self.let_go is not None and self.let_go.alive and self.thread.is_alive()

    def acquire(self, timeout=-1):
        """Hold the lock; Timeout if another process is alive and holds it after `timeout` seconds.

        A negative timeout waits as long as it takes.
        """
        begin, is_alive = time.monotonic(), False
        while not self._create():
            is_alive |= self._look()
            now = time.monotonic()
            if now - self.seen_at > self.STALE and self._take_over():
                break
            if is_alive and 0 <= timeout <= now - begin:
                raise Timeout(str(self.path))
            time.sleep(self.POLL)
        ended = threading.Event()
        beat = self.path, self.token, ended, self.BEAT
        self.thread = threading.Thread(target=keep_marker, args=beat, daemon=True)
        self.thread.start()
        self.let_go = weakref.finalize(self, remove_marker, self.path, self.token, ended)

    def release(self, force=False):
        """Let the lock go. `force` is there because FileLock has it."""
        if self.let_go:
            self.let_go()

    def _create(self):
        try:
            with open(self.path, "x") as file:
                file.write(self.token)
            return True
        except FileExistsError:
            return False

    def _look(self):
        """Whether the holder has rewritten the file since the last look."""
        before, content = self.seen, read_marker(self.path)
        if content == before:
            return False
        if before is None:
            print(
                f"Another process seems to hold {self.path}: watching it for {self.STALE:.0f} "
                "seconds. If no other process is running, delete that file."
            )
        self.seen, self.seen_at = content, time.monotonic()
        return before is not None

    def _take_over(self):
        """Replace a file that was left by this lock's own; False if another process was faster."""
        own = self.path.with_name(f"{self.path.name}.{self.token}")
        own.write_text(self.token)
        if read_marker(self.path) != self.seen:
            own.unlink()
            return False
        os.replace(own, self.path)
        time.sleep(5 * self.POLL)  # until all who take it over have: the last one has it
        if self.token not in read_marker(self.path):
            return False
        print(f"{self.path} was left by a process that has ended: this process takes it over.")
        return True


def read_marker(path):
    """The content of a MarkerLock's file; "" if there is none."""
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def keep_marker(path, token, ended, seconds):
    """Rewrite a MarkerLock's file until `ended` is set, or another process has taken it over."""
    count = 0
    while not ended.wait(seconds):
        count += 1
        try:
            with open(path, "r+") as file:  # which makes no new file
                if token not in file.read():
                    return
                file.seek(0)
                file.write(f"{token} {count}")
        except FileNotFoundError:
            return
        except OSError:  # a drive that fails for a while
            continue


def remove_marker(path, token, ended):
    """End a MarkerLock: its thread, and its file if that is still its own."""
    ended.set()
    with contextlib.suppress(OSError):
        if token in read_marker(path):
            path.unlink()


def locks_files(path):
    """Whether the drive of a file locks files. Some network drives do not."""
    if fcntl is None:
        return True
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in NO_LOCKS
    return True


def lock_of(path):
    """A lock on a file, by which processes know of each other: `acquire(timeout)`, `release()`."""
    return FileLock(path) if locks_files(path) else MarkerLock(f"{path}.exists")


def acquire_lock(path, timeout=-1):
    """Hold the lock on a file; Timeout if another process holds it after `timeout` seconds."""
    lock = lock_of(path)
    lock.acquire(timeout)
    return lock


@contextlib.contextmanager
def locked(path):
    """Keep other processes out of blocks that lock the same path: the second one waits."""
    place = Path(path).with_name(f".{Path(path).name}.lock")
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = lock_of(place)
    try:
        lock.acquire(1)
    except Timeout:
        print(f"Another process is making {as_text(path)}: waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def filled(folder):
    """Yield an empty folder that becomes `folder` at the end; after an error nothing is left."""
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def make_once(folder, make, advice=ELSEWHERE):
    """Let make(empty folder) fill `folder` unless it is there; a second process waits for it."""
    if not folder.exists():
        with explain_disk_errors(folder, advice), locked(folder):
            if not folder.exists():
                with filled(folder) as empty:
                    make(empty)


def write_file(path, write, previous=None):
    """Have `write` fill a file that takes the place of `path` when it is whole and on the disk.

    `previous`: where to keep the old one.
    """
    new, content = path.with_name(f"{path.name}.new"), io.BytesIO()
    write(content)  # to memory first: on a full disk torch.save would end the process
    with explain_disk_errors(path):
        try:
            with open(new, "wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            if previous and path.exists():
                os.replace(path, previous)
            os.replace(new, path)
        finally:
            new.unlink(missing_ok=True)
