"""Decoded faces: their parts, their labels, and batches."""

import copy
import functools
import hashlib
import os
import posixpath
import re
from collections import Counter

import numpy as np
import torch

from assets.lib.drawn import OTHER_SEED
from assets.lib.files import say_once
from assets.lib.labels import known_labels

PARTS = "train", "validation", "test"  # to train on; to choose by; to report scores on
LEAST_IN_DOMAIN = 8  # faces in each part of each of two domains
WELL_KNOWN = "Male", "Young", "Smiling", "Eyeglasses", "No_Beard"


class DecodedFaces(torch.utils.data.Dataset):
    """One part of an image folder whose pictures have been decoded and transformed once.

    `images`: uint8 (n, 3, S, S), memory-mapped; `labels`: int64 (n,), class numbers, or other
    labels, float32 (n, k); `flip`: mirror an image with a chance of one half as it is served;
    `names`: the files' paths below `root`, with "/", by which they belong to one of PARTS (without
    names, all are in every part); `readable`: bools (n,), the others are in no part; `sides`: int64
    (n,), the shorter sides of the pictures in pixels, before they were transformed (None: S).

    `rows`: int64, the places in `images` of this part's faces; `held_out`: how many faces are not
    trained on. If it is 0, all parts are the same faces, and scores do not measure new ones.
    """

    def __init__(
        self, images, labels, classes, flip=False, names=(), readable=None, root=".", sides=None
    ):
        self.images, self.labels, self.classes, self.root = images, labels, classes, root
        self.class_numbers = labels  # they stay when other labels take their place
        self.flip, self.names = flip, names
        self.sure = {}  # {label: bools (n,)}, of labels that are not known of every face
        self.sides = torch.full((len(images),), images.shape[-1]) if sides is None else sides
        rows = np.arange(len(images)) if readable is None else np.flatnonzero(readable)
        parts = np.full(len(images), -1)
        found = [names[row] for row in rows] if names else []
        parts[rows] = parts_of(found, labels[rows].tolist()) if names else 0
        self.parts = torch.from_numpy(parts)
        self.held_out = int((self.parts > 0).sum())
        self.rows = (self.parts == 0).nonzero().flatten()

    @functools.cached_property
    def known(self):
        """{label: bools (n,)}, for all rows of `images`; {} if nothing is known."""
        needed = self.parts >= 0
        return known_labels(self.root, self.names, self.classes, self.class_numbers, needed)

    def part(self, name):
        """Another of PARTS, not mirrored. Where nothing is held out, all parts are the same."""
        faces, number = copy.copy(self), PARTS.index(name) if self.held_out else 0
        faces.flip, faces.rows = False, (self.parts == number).nonzero().flatten()
        return faces

    def where(self, chosen):
        """Those faces, in this part and the others, for which `chosen`, bools (n,), is true."""
        faces = copy.copy(self)
        faces.parts = torch.where(chosen, self.parts, -1)
        faces.rows = self.rows[chosen[self.rows]]
        return faces

    def sure_of(self, *labels):
        """Those faces of which all of these labels are known: all, unless labels are predicted."""
        chosen = torch.ones(len(self.images), dtype=torch.bool)
        for label in labels:
            chosen &= self.sure.get(label, chosen)
        return self.where(chosen)

    def count_large(self, size):
        """How many faces of this part come from pictures at least `size` pixels wide and high."""
        return int((self.sides[self.rows] >= size).sum())

    def large_enough(self, size):
        """Those faces; a sentence says how many are left out."""
        n_large, n = self.count_large(size), len(self)
        if n_large < n:
            message = f"{n - n_large:,} of {n:,} images are smaller than {size} pixels"
            say_once(f"{message}: they are left out here.")
        return self.where(self.sides >= size)

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

    def usable_labels(self):
        """The labels that 20 training faces have and 20 lack, well-known ones first.

        One face of each other part must have it, and one lack it.
        """
        least = {"train": 20, "validation": 1, "test": 1}

        def is_usable(label, has):
            faces = self.sure_of(label)
            parts = [(faces.part(name).rows, n) for name, n in least.items()]
            return all(n <= has[rows].sum() <= len(rows) - n for rows, n in parts)

        usable = [label for label, has in self.known.items() if is_usable(label, has)]
        return sorted(usable, key=lambda name: name not in WELL_KNOWN)

    def split_domains(self, label, same=None):
        """Faces without and with a label, all alike in another one: A, B, {same: bool}.

        Of the two values of `same` it is the one that leaves more faces in the smallest part of A
        or B. None if these are fewer than 8, or if the label is unknown.
        """
        if label not in self.known:
            return None
        has, faces = self.known[label], self.sure_of(label)
        options = [(torch.ones_like(has), {})]
        if same in self.known and same != label:
            faces = faces.sure_of(same)
            options = [(self.known[same] == value, {same: value}) for value in (True, False)]
        found = []
        for chosen, common in options:
            A, B = faces.where(chosen & ~has), faces.where(chosen & has)
            sizes = [len(X.part(part)) for X in (A, B) for part in PARTS]
            found.append((min(sizes), A, B, common))
        smallest, A, B, common = max(found, key=lambda pair: pair[0])
        return (A, B, common) if smallest >= LEAST_IN_DOMAIN else None


split_domains = DecodedFaces.split_domains


def keep_on(device, dataset):
    """Move the pixels of DecodedFaces to a GPU with room for them twice; leave others in place."""
    if device.type == "cuda" and isinstance(dataset, DecodedFaces):
        if 2 * dataset.images.nbytes < torch.cuda.mem_get_info(device)[0]:
            dataset.images = dataset.images.to(device)


def most_held_out(n, most=5000):
    """How many of n images to hold out: at most an eighth, none of fewer than 1,000."""
    return min(most, n // 8) if n >= 1000 else 0


def parts_of(names, classes=None):
    """Whether each image is for training, validation or test: 0, 1 or 2, an array (n,).

    By its file name; where several files have the name, by its class (n,) and path below the
    folder. Held out are, of CelebA, some of its own validation and test images (numbers above
    162,770); of drawn faces, those of another seed; of others, those with the smallest hashes.
    """
    files = [posixpath.basename(name) for name in names]
    counts = Counter(files)
    keys = [
        file if counts[file] == 1 else f"{kind} {name}"
        for file, kind, name in zip(files, classes or files, names)
    ]
    hashes = [hashlib.sha256(os.fsencode(key)).digest() for key in keys]
    drawn = [i for i, file in enumerate(files) if file.startswith(OTHER_SEED)]
    numbered = [i for i, file in enumerate(files) if re.fullmatch(r"\d{6}\.\w+", file)]
    celeba = [i for i in numbered if int(files[i][:6]) > 162_770]
    n, pool = most_held_out(len(names)), range(len(names))
    if len(drawn) >= n / 2 > 0:
        n, pool = len(drawn), drawn
    elif len(celeba) >= n / 2:
        pool = celeba
    held = sorted(pool, key=hashes.__getitem__)[:n]
    parts = np.zeros(len(names), int)
    parts[held[::2]], parts[held[1::2]] = 1, 2
    return parts
