"""Labels: what is known about images, from lists, class folders and file names."""

import os
import posixpath
import re

import torch

from assets.lib.attributes import listed_labels, some
from assets.lib.files import printable, say_once, to_path
from assets.lib.folders import find_images

MOST_CLASSES = 100  # more are names of people
PART_OF_DATA = re.compile(
    r"(train(ing)?|val(id(ation)?)?|test(ing)?|dev|eval(uation)?)([\W_]*(set|data|images|\d+|[AB]))*"
    r"|(part|fold|batch|set)[\W_]*\d+|\d{3,}",
    re.IGNORECASE,
)
UTKFACE = re.compile(
    r"(\d|[1-9]\d|1[01]\d)_([01])_([0-4])_20\d{6,15}(?!\d)"  # age, gender, origin, date
)
ORIGINS = "White", "Black", "Asian", "Indian", "Other"  # in UTKFace's words and order
AGES = "Under_20", "From_20_to_39", "From_40_to_59", "From_60"


def known_labels(folder, names, classes=(), class_numbers=None, needed=None):
    """What is known about n images: {label: bools (n,)}, and a sentence from where; {} if nothing.

    From a list of attributes; from file names like UTKFace's, age, gender and origin; else the
    class that each folder is, unless they are parts of the data or people.

    `names`: the images' paths below `folder`, with "/"; `class_numbers`: ints (n,), places in
    `classes`; `needed`: bools (n,), which images must be in a list for it to be used (None: all).
    """
    if names and (known := listed_labels(folder, names, needed)):
        return known
    if known := utkface_labels(names):
        source = "file names like UTKFace's, age_gender_origin_date"
    elif known := class_labels(classes, class_numbers):
        source = "the folders of the images"
    if known:
        say_once(f"Labels from {source}: {some(known)}.")
    return known


def names_below(folder, paths):
    """Paths below a folder, as paths from it on, with "/"."""
    start = os.path.join(to_path(folder), "")
    return [path.removeprefix(start).replace(os.sep, "/") for path in paths]


def class_folders(folder):
    """Class names below `folder` for an ImageFolder: its sub-folders that hold images.

    Or the folders one or more levels deeper, where all lie in a single folder or in parts of the
    data, such as train and test. Without at least two class folders, or with many images beside
    them, all images are of one class, "."; a few images beside class folders are left out.
    """
    return sorted({name for _, name in classified_images(folder) if name})


def labelled_images(folder, classes):
    """[(path, class number), ...] of the images below `folder`; `classes`: {name: number}."""
    return [(path, classes[name]) for path, name in classified_images(folder) if name in classes]


def classified_images(folder):
    """[(path, class name), ...] of the images below a folder; the name is None for those left out.

    A sentence says how many images are beside the class folders.
    """
    paths = find_images(folder)
    names = names_below(folder, paths)
    classes = classes_of([name.split("/")[:-1] for name in names])
    found, strays = {*classes} - {None}, [row for row, name in enumerate(classes) if name is None]
    is_one = len(found) < 2 or len(strays) > max(3, len(paths) // 10)
    if len(found) > 1 and strays:
        first = printable(names[strays[0]])
        if is_one:
            message = f"The folders {some(sorted(found))} are not used as labels"
            say_once(f"{message}: {len(strays):,} of {len(paths):,} images are beside them.")
        else:
            say_once(f"Left out {len(strays)} images next to the class folders, such as {first}.")
    return [(path, "." if is_one else name) for path, name in zip(paths, classes)]


def classes_of(folders):
    """The class of each image, whose folders are given from the outer to the inner one, or None.

    The outer folders are the classes, unless they are one folder around all, or parts of the data
    in which there are classes.
    """
    tops = {parts[0] for parts in folders if parts}
    is_around = len(tops) == 1
    if is_around or tops and all(map(PART_OF_DATA.fullmatch, tops)):
        deeper = classes_of([parts[1:] for parts in folders])
        if is_around or len({*deeper} - {None}) > 1:
            return deeper
    return [parts[0] if parts else None for parts in folders]


def class_labels(classes, class_numbers):
    """{class: bools (n,)} of the classes that are labels, and a sentence about those that are not.

    Those named like parts of the data are not labels. Among other classes, "valid" may be a label.
    """
    if len(classes) < 2:
        return {}
    if len(classes) > MOST_CLASSES:
        message = f"The folders {some(classes)} are not used as labels"
        say_once(f"{message}: more than {MOST_CLASSES} are taken for people.")
        return {}
    parts = {name for name in classes if PART_OF_DATA.fullmatch(name)}
    if len(parts) < len(classes):
        parts -= {name for name in parts if name.lower() == "valid"}
    if parts:
        message = f"The folders {some(sorted(parts))} are not used as labels"
        say_once(f"{message}: they are named like parts of the data.")
    return {name: class_numbers == k for k, name in enumerate(classes) if name not in parts}


def utkface_labels(names):
    """{label: bools (n,)} from names like UTKFace's: age, gender, origin (Zhang et al., 2017)."""
    found = [UTKFACE.match(posixpath.basename(name)) for name in names]
    if not names or sum(map(bool, found)) < 0.99 * len(names):  # a few of UTKFace's lack a number
        return {}
    numbers = [list(map(int, one.groups())) if one else [-1] * 3 for one in found]
    age, gender, origin = torch.tensor(numbers).T.contiguous()
    band = torch.bucketize(age, torch.tensor([0, 20, 40, 60]), right=True) - 1
    labels = {"Male": gender == 0}
    labels.update({name: origin == k for k, name in enumerate(ORIGINS)})
    labels.update({name: band == k for k, name in enumerate(AGES)})
    return labels


def captions(dataset, indices, most=2):
    """A caption for each of these images of an ImageFolder: rarest labels, class or file name."""
    names = names_below(dataset.root, [path for path, _ in dataset.samples])
    numbers = torch.tensor(dataset.targets)
    known = known_labels(dataset.root, names, dataset.classes, numbers)
    if known:
        rarest = sorted(known, key=lambda label: known[label].float().mean())
        found = [[label for label in rarest if known[label][i]][:most] for i in indices]
        return ["\n".join(labels).replace("_", " ") for labels in found]
    if len(dataset.classes) > 1:
        return [dataset.classes[dataset.targets[i]] for i in indices]
    stems = (posixpath.splitext(posixpath.basename(names[i]))[0] for i in indices)
    return [printable(stem[:16]) for stem in stems]
