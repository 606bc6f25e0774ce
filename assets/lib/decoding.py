"""Decode each picture of a folder once, into a cache that all later runs read."""

import contextlib
import errno
import functools
import hashlib
import math
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from assets.lib.faces import DecodedFaces
from assets.lib.figures import progress
from assets.lib.files import (
    CACHE,
    ELSEWHERE,
    DataError,
    DiskError,
    explain_disk_errors,
    filled,
    locked,
    printable,
    to_path,
)
from assets.lib.labels import names_below
from assets.lib.pictures import read_item, shorter_side
from assets.lib.ranks import from_rank_0, mean_of_ranks, wait_for_ranks, world

MOST_UNREADABLE = 0.1  # of a folder's images
KEPT_COPIES = 4  # of a folder, at several sizes
SAMPLED = 32, 2**20  # files whose contents are in the cache's key, and bytes of each
READING = 3  # the number of this way of reading pictures


def decode_once(dataset, flip=False):
    """Decode an ImageFolder, whose transform ends in ToTensor, into the DecodedFaces to train on.

    The pixels are kept in `cache/` and taken from there as long as folder and transform stay the
    same. Unreadable files are left out and named in one line; DataError for more than a tenth.
    """
    rank, _ = world()
    folder = from_rank_0(None if rank else CACHE / f"decoded_{cache_key(dataset)}")
    copy = read_copy(folder, len(dataset))
    if not from_rank_0(copy is not None):
        decode_together(dataset, folder)
        copy = read_copy(folder, len(dataset))
    if copy is None:
        message = f"{folder} was written and cannot be read. Remove it, or {ELSEWHERE}."
        raise DiskError(errno.EIO, message)
    with contextlib.suppress(OSError):
        os.utime(folder)  # it is the last to be used
    images, sides = (torch.from_numpy(array) for array in copy)
    names = names_below(dataset.root, [path for path, _ in dataset.samples])
    check_readable(dataset, names, sides < 0, folder)
    labels = torch.tensor(dataset.targets)
    options = dict(readable=sides >= 0, root=dataset.root, sides=sides)
    return DecodedFaces(images, labels, dataset.classes, flip, names, **options)


def check_readable(dataset, names, is_lost, folder):
    """Name the images that could not be decoded in a line; DataError for more than a tenth."""
    lost = is_lost.nonzero().flatten().tolist()
    first = ", ".join(printable(names[row]) for row in lost[:3])
    if len(lost) > MOST_UNREADABLE * len(names):
        wait_for_ranks()
        shutil.rmtree(folder, ignore_errors=True)  # so that they are tried again
        found = f"{len(lost)} of the {len(names)} images in {dataset.root} cannot be read"
        reason = read_item(dataset, lost[0])[1] or "Now the first can be read"
        message = f"{found}, more than {MOST_UNREADABLE:.0%}, such as {first}. {reason}."
        raise DataError(f"{message} Replace or remove them.")
    if lost:
        print(f"Left out {len(lost)} unreadable files, the first: {first}.")


def cache_key(dataset):
    """A short name for what the pixels depend on: the transform, and the files.

    Other contents of the same size and date are told by the file system's own time of the last
    change, which no program can set. Where there is none, as on Windows, a sample of the contents
    detects a folder that was replaced as a whole.
    """
    key = hashlib.sha256(f"{READING} {dataset.transform!r}".encode())
    sampled = {*np.linspace(0, len(dataset.samples) - 1, SAMPLED[0]).astype(int).tolist()}
    for row, (path, _) in enumerate(dataset.samples):
        key.update(repr(path).encode())
        with contextlib.suppress(OSError):  # decoding will explain it
            file = os.stat(path)
            key.update(f"{file.st_size} {file.st_mtime_ns} {file.st_ctime_ns}".encode())
            if row in sampled:
                with open(path, "rb") as content:
                    key.update(content.read(SAMPLED[1]))
    return key.hexdigest()[:16]


def read_copy(folder, n):
    """What decode_together wrote there for n images, or None if it is incomplete.

    Pixels, uint8 (n, 3, S, S), mapped from the file, and the shorter sides of the pictures, int64
    (n,), -1 for unreadable ones.
    """
    try:
        sides = read_array(folder / "sides.npy")
        try:
            images = np.lib.format.open_memmap(folder / "images.npy", mode="c")
        except OSError:  # a drive that maps no files
            images = read_array(folder / "images.npy")
    except Exception:  # numpy raises nearly anything for damaged headers
        return None
    kinds = [(array.dtype, array.shape[:1]) for array in (images, sides)]
    is_whole = kinds == [(np.uint8, (n,)), (np.int64, (n,))] and images.ndim == 4
    return (images, sides) if is_whole and (folder / "source.txt").is_file() else None


def read_array(path):
    with open(path, "rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def decode_together(dataset, folder):
    """Fill `folder` with images.npy, sides.npy and source.txt, each rank a part of the images."""
    (rank, size), n = world(), len(dataset)
    on_rank_0 = contextlib.nullcontext if rank else lambda context: context
    with explain_disk_errors(CACHE, ELSEWHERE), on_rank_0(locked(folder)):
        if not from_rank_0(not rank and read_copy(folder, n) is not None):
            if not rank:
                discard(folder)
            with on_rank_0(filled(folder)) as unfinished:
                shape = None if rank else create_array(dataset, unfinished / "images.npy")
                unfinished, shape = from_rank_0((unfinished, shape))
                rows = np.array_split(np.arange(n), size)[rank]
                sides = write_rows(dataset, rows, unfinished / "images.npy", shape)
                if not rank:
                    np.save(unfinished / "sides.npy", sides)
                    source = to_path(dataset.root).resolve()
                    (unfinished / "source.txt").write_bytes(os.fsencode(source))
            if not rank:
                with locked(CACHE / "copies"):  # another process may remove them, too
                    remove_old_copies()
    wait_for_ranks()


def discard(path):
    """Remove a folder, or a file in its place; nothing if it is not there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def pixels_of(dataset, index):
    """Pixels, uint8 (3, S, S), and shorter side of one image; None and -1 if it is unreadable."""
    item, _ = read_item(dataset, index)
    if item is None:
        return None, -1
    return (item[0] * 255).round().byte().numpy(), shorter_side(dataset.samples[index][0])


def create_array(dataset, path):
    """An .npy file of zeros for the dataset's pixels; returns the shape of an image.

    It is written as a file: a writable memory map would end in a crash on a full disk.
    """
    images = (pixels_of(dataset, index)[0] for index in range(len(dataset)))
    shape = next((image.shape for image in images if image is not None), (3, 1, 1))
    n_bytes = len(dataset) * math.prod(shape)
    if shutil.disk_usage(path.parent).free < n_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(dataset), *shape)}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + n_bytes)
    return shape


def write_rows(dataset, rows, path, shape):
    """Write the pixels of these rows into the file of create_array.

    Returns the shorter sides, int64 (n,), -1 if unreadable, for the rows of all ranks.
    """
    size, sides = math.prod(shape), torch.zeros(len(dataset), dtype=torch.float64)
    start = path.stat().st_size - len(dataset) * size
    portions = [rows[k : k + 256] for k in range(0, len(rows), 256)]  # a pool notes all it gets
    with open(path, "r+b") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
        decode = functools.partial(pixels_of, dataset)
        decoded = (image for portion in portions for image in pool.map(decode, portion))
        bar = progress(decoded, "decode", len(rows), unit="img", disable=len(rows) < 1000)
        for row, (image, side) in zip(rows.tolist(), bar):
            sides[row] = side
            if image is None:
                continue
            if image.shape != shape:
                message = f"The transform gives images {shape} and {image.shape}"
                raise ValueError(f"{message}: let it end in CenterCrop(image_size), ToTensor().")
            file.seek(start + row * size)
            file.write(image.tobytes())
        file.flush()
        os.fsync(file.fileno())  # or a power cut might leave black pictures
    n_ranks = world()[1]
    return (mean_of_ranks(sides) * n_ranks).round().long().numpy()


def remove_old_copies():
    """Keep the newest decoded copies of each folder that is still there; say what is removed."""
    copies, removed = {}, 0
    for note in CACHE.glob("decoded_*/source.txt"):
        with contextlib.suppress(OSError):  # damaged, or another process has removed it
            last_used, source = note.parent.stat().st_mtime, os.fsdecode(note.read_bytes())
            copies.setdefault(source, []).append((last_used, note.parent))
    for source, found in copies.items():
        newest_first = [folder for _, folder in sorted(found, reverse=True)]
        for folder in newest_first[KEPT_COPIES if os.path.exists(source) else 0 :]:
            doomed = folder.with_name(f".{folder.name}.old")  # so that it is never half there
            with contextlib.suppress(OSError):  # Windows keeps what is in use
                os.replace(folder, doomed)
                removed += os.path.exists(source)  # a deleted folder's copies go unsaid
            shutil.rmtree(doomed, ignore_errors=True)
    if removed:
        print(f"Removed {removed} older decoded copies from {CACHE}.")
