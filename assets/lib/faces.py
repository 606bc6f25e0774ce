"""Decoded faces: the cache, the split into parts, and batches."""

import contextlib
import copy
import errno
import functools
import hashlib
import math
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from assets.lib.drawn import OTHER_SEED
from assets.lib.figures import progress
from assets.lib.files import (
    CACHE,
    ELSEWHERE,
    DataError,
    explain_disk_errors,
    filled,
    locked,
    printable,
    to_path,
)
from assets.lib.labels import WELL_KNOWN, known_labels
from assets.lib.pictures import read_item
from assets.lib.ranks import from_rank_0, mean_of_ranks, wait_for_ranks, world
from assets.lib.settings import DEFAULT_LABELS, check, check_choice

MOST_UNREADABLE = 0.1  # of a folder's images
KEPT_COPIES = 4  # of a folder, at several sizes
PARTS = "train", "validation", "test"  # to train on; to choose by; to report scores on


class DecodedFaces(torch.utils.data.Dataset):
    """One part of an image folder whose pictures have been decoded and transformed once.

    `images`: uint8 (n, 3, S, S), memory-mapped; `labels`: int64 (n,), class numbers, or other
    labels, float32 (n, k); `names`: of the files, by which they belong to one of PARTS (without
    names, all are in every part); `readable`: bools (n,), the others are in no part; `flip`: mirror
    an image with a chance of one half as it is served; `root`: their folder. `rows`: those of this
    part; `known`: {label: bools (n,)}.
    """

    def __init__(self, images, labels, classes, flip=False, names=(), readable=None, root="."):
        self.images, self.labels, self.classes, self.root = images, labels, classes, root
        self.class_numbers = labels  # they stay when other labels take their place
        self.flip, self.names = flip, names
        rows = np.arange(len(images)) if readable is None else np.flatnonzero(readable)
        parts = np.full(len(images), -1)
        parts[rows] = parts_of([names[row] for row in rows]) if names else 0
        self.parts = torch.from_numpy(parts)
        self.held_out = int((self.parts > 0).sum())
        self.rows = (self.parts == 0).nonzero().flatten()

    @functools.cached_property
    def known(self):
        return known_labels(self)

    def part(self, name):
        """Another of PARTS, not mirrored. Where nothing is held out, it is the same images."""
        faces, number = copy.copy(self), PARTS.index(name) if self.held_out else 0
        faces.flip, faces.rows = False, (self.parts == number).nonzero().flatten()
        return faces

    def where(self, chosen):
        """Those faces, in this part and the others, for which `chosen`, bools (n,), is true."""
        faces = copy.copy(self)
        faces.parts = torch.where(chosen, self.parts, -1)
        faces.rows = self.rows[chosen[self.rows]]
        return faces

    def batch(self, indices):
        """Faces of this part: float32 (B, 3, S, S) in [0, 1], where `images` are; their labels."""
        rows = self.rows[torch.as_tensor(indices, dtype=torch.int64)]
        images = self.images[rows.to(self.images.device, non_blocking=True)]
        return images.float() / 255, self.labels[rows]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, indices):
        images, labels = self.batch(indices)
        if self.flip:
            mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
            images = torch.where(mirrored, images.flip(-1), images)
        return images, labels


def decode_once(dataset, flip=False):
    """Decode an ImageFolder, whose transform ends in ToTensor, into the DecodedFaces to train on.

    The pixels are kept in `cache/` and taken from there as long as folder and transform stay the
    same. Unreadable files are left out and named in one line; DataError for more than a tenth.
    """
    rank, _ = world()
    folder = from_rank_0(None if rank else CACHE / f"decoded_{cache_key(dataset)}")
    if not from_rank_0(folder.exists()):
        decode_together(dataset, folder)
    with contextlib.suppress(OSError):
        os.utime(folder)  # it is the last to be used
    mask, names = np.load(folder / "readable.npy"), [Path(path).name for path, _ in dataset.samples]
    lost = np.flatnonzero(~mask)
    first = ", ".join(printable(names[row]) for row in lost[:3])
    if len(lost) > MOST_UNREADABLE * len(mask):
        wait_for_ranks()
        shutil.rmtree(folder, ignore_errors=True)  # so that they are tried again
        found = f"{len(lost)} of the {len(mask)} images in {dataset.root} cannot be read"
        reason = read_item(dataset, lost[0])[1]
        message = f"{found}, more than {MOST_UNREADABLE:.0%}, such as {first}. {reason}."
        raise DataError(f"{message} Replace them, or take them out.")
    if len(lost):
        print(f"Left out {len(lost)} unreadable files, the first: {first}.")
    try:
        images = np.load(folder / "images.npy", mmap_mode="c")
    except OSError:  # a drive that maps no files
        images = np.load(folder / "images.npy")
    images, labels = torch.from_numpy(images), torch.tensor(dataset.targets)
    return DecodedFaces(images, labels, dataset.classes, flip, names, mask, dataset.root)


def cache_key(dataset):
    """A short name for what the pixels depend on: the transform, the files, their dates."""
    key = hashlib.sha256(f"2 {dataset.transform!r}".encode())  # 2: this way of reading pictures
    for path, _ in dataset.samples:
        key.update(repr(path).encode())
        with contextlib.suppress(OSError):  # decoding will explain it
            file = os.stat(path)
            key.update(f"{file.st_size} {file.st_mtime_ns}".encode())
    return key.hexdigest()[:16]


def pixels_of(dataset, index):
    """The pixels of one image, uint8 (3, S, S), or None if it cannot be read."""
    item, _ = read_item(dataset, index)
    return None if item is None else (item[0] * 255).round().byte().numpy()


def decode_together(dataset, folder):
    """Fill `folder` with images.npy, uint8 (n, 3, S, S), and readable.npy, bool (n,)."""
    (rank, size), n = world(), len(dataset)
    on_rank_0 = contextlib.nullcontext if rank else lambda context: context
    with explain_disk_errors(CACHE, ELSEWHERE), on_rank_0(locked(folder)):
        if not from_rank_0(folder.exists()):
            with on_rank_0(filled(folder)) as unfinished:
                shape = None if rank else create_array(dataset, unfinished / "images.npy")
                unfinished, shape = from_rank_0((unfinished, shape))
                rows = np.array_split(np.arange(n), size)[rank]
                mask = write_rows(dataset, rows, unfinished / "images.npy", shape)
                if not rank:
                    np.save(unfinished / "readable.npy", mask)
                    source = to_path(dataset.root).resolve()
                    (unfinished / "source.txt").write_bytes(os.fsencode(source))
            if not rank:
                with locked(CACHE / "copies"):  # another process may remove them, too
                    remove_old_copies()
    wait_for_ranks()


def create_array(dataset, path):
    """An .npy file of zeros for the dataset's pixels; returns the shape of an image.

    It is written as a file: a writable memory map would end in a crash on a full disk.
    """
    images = (pixels_of(dataset, index) for index in range(len(dataset)))
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

    Returns bools (n,), whether an image was readable, for the rows of all ranks.
    """
    size, mask = math.prod(shape), torch.zeros(len(dataset))
    start = path.stat().st_size - len(dataset) * size
    portions = [rows[k : k + 256] for k in range(0, len(rows), 256)]  # a pool notes all it gets
    with open(path, "r+b") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
        decode = functools.partial(pixels_of, dataset)
        decoded = (image for portion in portions for image in pool.map(decode, portion))
        bar = progress(decoded, "decode", len(rows), unit="img", disable=len(rows) < 1000)
        for row, image in zip(rows.tolist(), bar):
            if image is None:
                continue
            if image.shape != shape:
                message = f"The transform gives images {shape} and {image.shape}"
                raise ValueError(f"{message}: let it end in CenterCrop(image_size), ToTensor().")
            file.seek(start + row * size)
            file.write(image.tobytes())
            mask[row] = 1
    return mean_of_ranks(mask).numpy() > 0


def remove_old_copies():
    """Keep the newest decoded copies of each folder that is still there; say what is removed."""
    copies, removed = {}, 0
    for note in CACHE.glob("decoded_*/source.txt"):
        copies.setdefault(os.fsdecode(note.read_bytes()), []).append(note.parent)
    for source, folders in copies.items():
        folders.sort(key=os.path.getmtime, reverse=True)
        for folder in folders[KEPT_COPIES if os.path.exists(source) else 0 :]:
            doomed = folder.with_name(f".{folder.name}.old")  # so that it is never half there
            with contextlib.suppress(OSError):  # Windows keeps what is in use
                os.replace(folder, doomed)
                removed += os.path.exists(source)  # a deleted folder's copies go unsaid
            shutil.rmtree(doomed, ignore_errors=True)
    if removed:
        print(f"Removed {removed} older decoded copies from {CACHE}.")


def keep_on(device, dataset):
    """Move the pixels of DecodedFaces to a GPU with room for them twice; leave others in place."""
    if device.type == "cuda" and isinstance(dataset, DecodedFaces):
        if 2 * dataset.images.nbytes < torch.cuda.mem_get_info(device)[0]:
            dataset.images = dataset.images.to(device)


def check_faces(faces, label_names=None, domain_label=None, domain_same=None):
    """DataError for too few faces; ValueError for a label that is unknown, or too rare to learn."""
    if len(faces) < 4:  # precision and recall look at the third nearest neighbour
        raise DataError(f"Scores need at least 4 images, and {len(faces)} can be read: add some.")
    chosen = [("label_names", name) for name in label_names or ()]
    chosen += [("domain_label", domain_label), ("domain_same", domain_same)]
    for setting, name in chosen:
        if name is not None and name != DEFAULT_LABELS.get(setting):
            sentence = "nothing is known about these faces; assets/docs/settings.md says what helps"
            check(setting, name, lambda _: faces.known, sentence)
            check_choice(faces.known, **{setting: name})
    for name in label_names or ():
        has = faces.known[name][faces.rows]
        sentence = f"{has.sum()} of {len(has)} training faces have it; 20 must, 20 must not, and "
        sentence += "there must be both among those held out"
        check("label_names", name, usable_labels(faces).__contains__, sentence)
    if domain_label not in (None, DEFAULT_LABELS["domain_label"]):
        sentence = "too few faces with it and without it are alike in domain_same: each part of "
        sentence += "the data, train, validation and test, needs 8 of both"
        is_split = split_domains(faces, domain_label, domain_same)
        check("domain_label", domain_label, lambda _: is_split, sentence)


def most_held_out(n, most=5000):
    """Of n images at most an eighth; none of fewer than 1,000."""
    return min(most, n // 8) if n >= 1000 else 0


def parts_of(names):
    """Whether each image is for training, validation or test: 0, 1 or 2, an array (n,).

    By its file name. Held out are, of CelebA, some of its own validation and test images (numbers
    above 162,770); of drawn faces, those of another seed; of others, those whose hashes are first.
    """
    drawn = [i for i, name in enumerate(names) if name.startswith(OTHER_SEED)]
    numbered = [i for i, name in enumerate(names) if re.fullmatch(r"\d{6}\.\w+", name)]
    celeba = [i for i in numbered if int(names[i][:6]) > 162_770]
    n = len(drawn) or most_held_out(len(names))
    pool = drawn or (celeba if len(celeba) >= n / 2 else range(len(names)))
    held = sorted(pool, key=lambda i: hashlib.sha256(os.fsencode(names[i])).digest())[:n]
    parts = np.zeros(len(names), int)
    parts[held[::2]], parts[held[1::2]] = 1, 2
    return parts


def usable_labels(faces):
    """The labels that 20 training faces have and 20 lack, and one held out, well-known ones first.

    Where none is held out, the parts are the same faces.
    """
    least = {"train": 20, "validation": 1, "test": 1}
    parts = [(faces.part(name).rows, n) for name, n in least.items()]

    def is_usable(has):
        return all(n <= has[rows].sum() <= len(rows) - n for rows, n in parts)

    usable = [name for name, has in faces.known.items() if is_usable(has)]
    return sorted(usable, key=lambda name: name not in WELL_KNOWN)


def split_domains(faces, label, same=None):
    """Faces without and with a label, all alike in another one: A, B, {same: bool}.

    Of the two values of `same` it is the one that leaves more faces in the smallest part of A or B.
    None if that is less than 8, or if the label is unknown.
    """
    if label not in faces.known:
        return None
    has = faces.known[label]
    options = [(torch.ones_like(has), {})]
    if same in faces.known and same != label:
        options = [(faces.known[same] == value, {same: value}) for value in (True, False)]
    found = []
    for chosen, common in options:
        A, B = faces.where(chosen & ~has), faces.where(chosen & has)
        sizes = [len(X.part(part)) for X in (A, B) for part in ("train", "validation", "test")]
        found.append((min(sizes), A, B, common))
    smallest, A, B, common = max(found, key=lambda pair: pair[0])
    return (A, B, common) if smallest >= 8 else None
