"""Lists of attributes, as CelebA has one: find them, read them, and find each image in them."""

import contextlib
import csv
import itertools
import os
import posixpath
import re
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from assets.lib.files import printable, say_once, to_path

ATTRIBUTE_LIST = re.compile(
    r"(list_attr_celeba|CelebAMask-HQ-attribute-anno)[^.]*\.(txt|csv)", re.IGNORECASE
)
FILE_COLUMN = re.compile(r"(image|img|file|picture|photo).*|.*(name|path)|id", re.IGNORECASE)
VALUES = dict.fromkeys(["1", "1.0", "True", "true", "TRUE"], 1)
VALUES |= dict.fromkeys(["-1", "0", "-1.0", "0.0", "False", "false", "FALSE"], 0)
MOST_PLACES = 100  # where a list is looked for: people may have a folder each


def read_attributes(path):
    """Read a list of attributes: (names, {file name: row of bools}). ValueError if it is not one.

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
        raise ValueError(f"{path} is not a list of attributes: a quotation mark is not closed.")
    title, names, rows = parse_table(lines)
    table = {}
    for file, values in rows:
        if len(values) != len(names) or not values or not VALUES.keys() >= set(values):
            found = f"{file} {' '.join(values)}"[:60]
            message = f"{path} is no list of attributes: after {len(names)} names each line needs"
            raise ValueError(f"{message} a file name and as many values 1 or -1, not {found!r}.")
        table[file] = np.frombuffer(bytes(map(VALUES.get, values)), bool)
    are_row_numbers = not title and [*table] in (counted(table, 0), counted(table, 1))
    if are_row_numbers or title and not FILE_COLUMN.fullmatch(title):
        column = "row numbers" if are_row_numbers else f"the column {title!r}"
        raise ValueError(f"{path} names no files: before the attributes it has {column}.")
    return names, table


def counted(table, first):
    return [str(number) for number in range(first, first + len(table))]


def parse_table(lines):
    """A table with commas, tabs or spaces: the title of its file column ("" if it has none), the
    other titles, and an iterator of (file, values)."""
    mark = next((mark for mark in ",;\t" if mark in lines[0]), None)
    if mark is None:
        names = lines[0].split()
        title = names.pop(0) if FILE_COLUMN.fullmatch(names[0]) else ""
        cells = (line.rsplit(maxsplit=len(names)) for line in lines[1:])  # files may have spaces
        return title, names, split_rows(cells, len(names), len(names) + 1)
    cells = csv.reader(lines, delimiter=mark, skipinitialspace=True)
    header, first = next(cells), next(cells)
    are_values = [cell in VALUES for cell in first[1:]]
    n = [*are_values[::-1], False].index(False)  # the file's name stands before the last n
    title = header[-n - 1].strip() if len(header) > n else ""
    return title, header[-n:], split_rows(itertools.chain([first], cells), n, len(first))


def split_rows(rows, n, width):
    for row in rows:
        if len(row) == width:
            yield row[-n - 1].strip('"'), row[-n:]
        else:  # which is an error of the list
            yield row[0], row[1:]


def attribute_lists(folder, names):
    """The lists of attributes for images of these names (paths) below a folder.

    In it, on the way to the images, or up to two folders above; there or in a folder Anno.
    """
    folder = to_path(folder).resolve()
    between = {""}
    for inner in {posixpath.dirname(name) for name in names}:
        while inner not in between:
            between.add(inner)
            inner = posixpath.dirname(inner)
    inside = sorted(between, key=lambda inner: (inner.count("/"), inner))[:MOST_PLACES]
    for place in (*(folder / inner for inner in inside), *folder.parents[:2]):
        for shelf in (place, place / "Anno"):
            with contextlib.suppress(OSError):
                found = sorted(filter(ATTRIBUTE_LIST.fullmatch, os.listdir(shelf)))
                yield from (shelf / name for name in found)


def listed_labels(folder, names, needed=None):
    """{label: bools (n,)} for images of these names, from the first list of attributes that fits.

    All images that are `needed` must be in it. A sentence says which list it is, and why another
    one is not used. {} without a list.
    """
    for path in attribute_lists(folder, names):
        try:
            attributes, rows = read_attributes(path)
        except (OSError, ValueError, csv.Error) as error:
            say_once(f"The list of attributes is not used: {error}")
            continue
        found = [rows.get(file) for file in match(folder, names, rows)]
        lost = [name for k, name in enumerate(names) if found[k] is None]
        if needed is not None:
            lost = [name for k, name in enumerate(names) if found[k] is None and needed[k]]
        if lost:
            message = f"{path.name} says nothing about {len(lost):,} of {len(names):,} images"
            say_once(f"{message} (the first: {printable(lost[0])}): it is not used.")
            continue
        empty = np.zeros(len(attributes), bool)
        table = np.array([empty if row is None else row for row in found])
        sentence = f"Labels from {path.parent.name}/{path.name}: {some(attributes)}."
        if not path.is_relative_to(to_path(folder).resolve()):
            sentence += " If the list describes other images, move it elsewhere."
        say_once(sentence)
        return dict(zip(attributes, torch.from_numpy(table).T))
    return {}


def match(folder, names, files):
    """Which of the `files` of a list each image is, by their paths: files, or None.

    The ends of both paths must agree, as far as possible, and belong to no other file or image; if
    none do, then regardless of extensions, capitals and Unicode forms.
    """
    above = to_path(folder).resolve().as_posix()
    found = [name if name in files else None for name in names]
    for spelling in (with_slashes, file_key):
        if None not in found:
            break
        ends, depth = {}, 1
        for file in files:
            parts = spelling(file).split("/")
            depth = max(depth, len(parts))
            for k in range(len(parts)):
                end = "/".join(parts[k:])
                ends[end] = None if end in ends else file  # None: two files have it
        for row, name in enumerate(names):
            if found[row] is None:
                parts = spelling(f"{above}/{name}").rsplit("/", depth)[-depth:]
                every = ("/".join(parts[k:]) for k in range(len(parts)))
                found[row] = next((ends[end] for end in every if end in ends), None)
    counts = Counter(found)
    return [file if counts[file] == 1 or file == name else None for file, name in zip(found, names)]


def with_slashes(path):
    return path.replace("\\", "/")


def file_key(path):
    """A path regardless of its extension, capitals and Unicode form."""
    stem = os.path.splitext(with_slashes(path))[0]
    return unicodedata.normalize("NFC", stem).casefold()


def some(names, most=3):
    """The first few of some names, and how many more there are."""
    shown = ", ".join(map(printable, list(names)[:most]))
    return shown + (f" and {len(names) - most:,} more" if len(names) > most else "")
