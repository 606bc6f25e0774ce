"""Files and folders that are written whole or not at all, by one process at a time."""

import contextlib
import errno
import io
import os
import shutil
from functools import lru_cache
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

CACHE = Path("cache")
ELSEWHERE = "start the notebook in a folder that you may write to"
FULL = errno.ENOSPC, errno.EDQUOT
NO_LOCKS = errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF
GONE = errno.ENOENT, errno.ELOOP


class DataError(ValueError):
    """Data that is there but wrong. The message ends with the way out: the drawn faces."""

    def __init__(self, message):
        super().__init__(f'{message} To go on without it, set data_dir = "drawn".')


class DiskError(OSError):
    """An error of the system, with what to do about it."""


@lru_cache(1000)
def say_once(sentence):
    """Print a sentence, the first time only."""
    print(sentence)


def to_path(path):
    """A path, with ~ as the home folder."""
    return Path(os.path.expanduser(path))


def printable(path):
    """The file's name, with question marks for bytes that are no text."""
    return os.fsencode(os.path.basename(path)).decode("utf-8", "replace")


@contextlib.contextmanager
def explain_disk_errors(path, advice="choose another out_dir"):
    """Within it, an error of the disk says which path it is about and what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, DiskError) or error.errno is None:
            raise
        remedy = "Make room on the disk" if error.errno in FULL else "Make it writable"
        message = f"{path} cannot be written: {error.strerror}. {remedy}, or {advice}."
        raise DiskError(error.errno, message) from error


def acquire_lock(path, timeout=-1):
    """A lock on a file, by which processes know of each other; Timeout if another one holds it."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout)
    except (OSError, NotImplementedError) as error:
        if isinstance(error, Timeout) or getattr(error, "errno", errno.ENOSYS) not in NO_LOCKS:
            raise
        lock = SoftFileLock(f"{path}.exists")  # for drives that lock no files
        lock.acquire(timeout)
    return lock


@contextlib.contextmanager
def locked(path):
    """Within it no other process is in a block that the same path locks: the second one waits."""
    place = Path(path).with_name(f".{Path(path).name}.lock")
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = acquire_lock(place, 1)
    except Timeout:
        print(f"Another process is making {path}: waiting for it.")
        lock = acquire_lock(place)
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


def make_once(folder, make, advice="start the notebook in a folder that you may write to"):
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
