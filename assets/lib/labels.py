"""Labels: lists of attributes, class folders, and labels in file names."""

import contextlib
import csv
import itertools
import os
import re
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from assets.lib.files import printable, say_once, to_path
from assets.lib.pictures import find_images

ATTRIBUTE_LIST = re.compile(
    r"(list_attr_celeba|CelebAMask-HQ-attribute-anno)[^.]*\.(txt|csv)", re.IGNORECASE
)
FILE_COLUMN = {"image_id", "image", "file", "filename", "file_name", "name", "img", "id", "path"}
VALUES = dict.fromkeys(["1", "1.0", "True", "true", "TRUE"], 1)
VALUES |= dict.fromkeys(["-1", "0", "-1.0", "0.0", "False", "false", "FALSE"], 0)
MOST_CLASSES = 100  # more are names of people
WELL_KNOWN = "Male", "Young", "Smiling", "Eyeglasses", "No_Beard"
NO_LABEL = re.compile(
    r"(train|val|test|dev|eval)\w*|(part|fold|batch|set)?[\W_]*\d+", re.IGNORECASE
)
UTKFACE = re.compile(r"(\d{1,3})_([01])_([0-4])_\d+")  # age, gender, origin, date
ORIGINS = "White", "Black", "Asian", "Indian", "Other"  # in UTKFace's words and order
AGES = "Under_20", "From_20_to_39", "From_40_to_59", "From_60"


def read_attributes(path):
    """Read a list of attributes: (names, {file name: row of bools}). ValueError if it is none.

    In CelebA's own form, in Kaggle's, or as pandas writes it; values 1 and -1, 1 and 0, or words.
    """
    content = Path(path).read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    lines = [line for line in content.decode(encoding, "replace").splitlines() if line.strip()]
    if any(word in line.lower() for line in lines[:5] for word in ("<html", "<!doctype")):
        raise ValueError(f"{path} is a web page (HTML) instead of a list of attributes.")
    if lines and lines[0].strip().isdigit():  # how many there are
        lines = lines[1:]
    if len(lines) < 2:
        raise ValueError(f"{path} lists no images.")
    if sum(line.count('"') for line in lines) % 2:
        raise ValueError(f"{path} is no list of attributes: a quotation mark is not closed.")
    names, rows = parse_table(lines)
    table = {}
    for file, values in rows:
        if len(values) != len(names) or not values or not VALUES.keys() >= set(values):
            found = f"{file} {' '.join(values)}"[:60]
            message = f"{path} is no list of attributes: after {len(names)} names each line has"
            raise ValueError(f"{message} a file name and as many times 1 or -1, not {found!r}.")
        table[file] = np.frombuffer(bytes(map(VALUES.get, values)), bool)
    return names, table


def parse_table(lines):
    """Columns and an iterator of (file, values) of a table with commas, tabs or spaces."""
    mark = next((mark for mark in ",;\t" if mark in lines[0]), None)
    if mark is None:
        names = lines[0].split()
        names = names[1:] if names[0].lower() in FILE_COLUMN else names
        cells = (line.rsplit(maxsplit=len(names)) for line in lines[1:])  # files may have spaces
        return names, split_rows(cells, len(names), len(names) + 1)
    cells = csv.reader(lines, delimiter=mark, skipinitialspace=True)
    header, first = next(cells), next(cells)
    are_values = [cell in VALUES for cell in first[1:]]
    n = [*are_values[::-1], False].index(False)  # the file's name stands before the last n
    return header[-n:], split_rows(itertools.chain([first], cells), n, len(first))


def split_rows(rows, n, width):
    for row in rows:
        if len(row) == width:
            yield row[-n - 1].strip('"'), row[-n:]
        else:  # which is an error of the list
            yield row[0], row[1:]


def find_attributes(folder):
    """The list of attributes of a folder of faces: in it, up to two above, or in Anno there."""
    folder = to_path(folder).resolve()
    for above in (folder, *folder.parents[:2]):
        for place in (above, above / "Anno"):
            with contextlib.suppress(OSError):
                if found := sorted(filter(ATTRIBUTE_LIST.fullmatch, os.listdir(place))):
                    return place / found[0]
    return None


def file_key(name):
    """What a file's name keeps in other folders, endings, capitals and Unicode forms."""
    stem = os.path.splitext(name.replace("\\", "/").rpartition("/")[2])[0]
    return unicodedata.normalize("NFC", stem).casefold()


def listed_labels(folder, names, needed):
    """{label: bools (n,)} for files of these names, from the folder's list of attributes.

    {}, and a sentence, if there is a list that cannot be used: all that are `needed` must be in it.
    """
    path = find_attributes(folder)
    if path is None:
        return {}
    try:
        attributes, rows = read_attributes(path)
    except (OSError, ValueError, csv.Error) as error:
        say_once(f"The list of attributes is not used: {error}")
        return {}
    found = [rows.get(name) for name in names]
    if any(row is None for row in found):
        keys = [file_key(file) for file in rows]
        counts, by_key = Counter(keys), dict(zip(keys, rows.values()))
        for i, key in enumerate(map(file_key, names)):
            if found[i] is None and counts[key] == 1:  # else it is not known which is meant
                found[i] = by_key[key]
    pairs = zip(names, found, needed)
    missing = [name for name, row, is_needed in pairs if row is None and is_needed]
    if missing:
        first = printable(missing[0])
        message = f"{path.name} says nothing about {len(missing):,} of {len(names):,} images"
        say_once(f"{message} (the first: {first}): it is not used.")
        return {}
    empty = np.zeros(len(attributes), bool)
    table = np.array([empty if row is None else row for row in found])
    return dict(zip(attributes, torch.from_numpy(table).T))


def utkface_labels(names):
    """{label: bools (n,)} from names as UTKFace's: age, gender, origin (Zhang et al., 2017)."""
    found = [UTKFACE.match(name) for name in names]
    if not names or sum(map(bool, found)) < 0.99 * len(names):  # a few of UTKFace's lack a number
        return {}
    numbers = [list(map(int, one.groups())) if one else [-1] * 3 for one in found]
    age, gender, origin = torch.tensor(numbers).T.contiguous()
    band = torch.bucketize(age, torch.tensor([0, 20, 40, 60]), right=True) - 1
    labels = {"Male": gender == 0}
    labels.update({name: origin == k for k, name in enumerate(ORIGINS)})
    labels.update({name: band == k for k, name in enumerate(AGES)})
    return labels


def known_labels(faces):
    """What is known about DecodedFaces: {label: bools (n,)}, for all their rows.

    From a list of attributes; else, from file names as UTKFace's, age, gender and origin; else the
    class that each sub-folder is, unless they are parts of the data or people. {} if nothing.
    """
    known = listed_labels(faces.root, faces.names, faces.parts >= 0) or utkface_labels(faces.names)
    if known or not 1 < len(faces.classes) <= MOST_CLASSES:
        return known
    names = {k: name for k, name in enumerate(faces.classes) if not NO_LABEL.fullmatch(name)}
    return {name: faces.class_numbers == k for k, name in names.items()}


def captions(dataset, indices, most=2):
    """A caption for each of these images of an ImageFolder: rarest labels, class or file name."""
    names = [os.path.basename(path) for path, _ in dataset.samples]
    known = listed_labels(dataset.root, names, [True] * len(names)) or utkface_labels(names)
    if known:
        rarest = sorted(known, key=lambda label: known[label].float().mean())
        found = [[label for label in rarest if known[label][i]][:most] for i in indices]
        return ["\n".join(labels).replace("_", " ") for labels in found]
    if len(dataset.classes) > 1:
        return [dataset.classes[dataset.targets[i]] for i in indices]
    return [printable(os.path.splitext(names[i])[0][:16]) for i in indices]


def class_folders(folder):
    """Class names below `folder` for an ImageFolder: its sub-folders that hold images.

    Images directly in `folder` make it one class, ".", with all that is below it; but a few of
    them next to several class folders are left out.
    """
    images = [Path(path).relative_to(to_path(folder)).parts for path in find_images(folder)]
    classes = sorted({parts[0] for parts in images if len(parts) > 1})
    strays = [parts[0] for parts in images if len(parts) == 1]
    if strays and (len(classes) < 2 or len(strays) > max(3, len(images) // 10)):
        return ["."]
    if strays:
        say_once(f"Left out {len(strays)} images next to the class folders, such as {strays[0]}.")
    return classes


def labelled_images(folder, classes):
    """[(path, class number), ...] of the images below `folder`; `classes`: {name: number}."""
    paths = find_images(folder)
    if "." in classes:
        return [(path, 0) for path in paths]
    tops = [Path(path).relative_to(to_path(folder)).parts[0] for path in paths]
    return [(path, classes[top]) for path, top in zip(paths, tops) if top in classes]
