"""The settings of a run: their names, types and checks."""

import dataclasses
import difflib
import math
import os
import re
from dataclasses import dataclass, field

import numpy as np

IMAGE_SIZES = 16, 32, 64, 128, 256
LOSSES = "least squares", "cross-entropy"
DEFAULT_LABELS = {"domain_label": "Heavy_Makeup", "domain_same": "Male"}
ABOVE_0, BELOW_1 = math.nextafter(0, 1), math.nextafter(1, 0)


def number(low, high=1e9, whole=False):
    """A test: is a value a number, not text and not True, from `low` to `high`?"""
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    return lambda x: isinstance(x, kinds) and not isinstance(x, bool) and low <= x <= high


def text(pattern=r"[^\0]*[^\s\0][^\0]*", kinds=str):
    """A test: is a value a text that matches the whole pattern?"""
    fits = re.compile(pattern, re.IGNORECASE).fullmatch
    return lambda x: isinstance(x, kinds) and fits(os.fspath(x)) is not None


def list_of(test, length=None):
    """A test: is a value a list, of this length if given, whose items pass `test`?"""
    kinds, lengths = (list, tuple), range(1000) if length is None else [length]
    return lambda x: isinstance(x, kinds) and len(x) in lengths and all(map(test, x))


def is_box(x):
    """Whether a value is (left, top, right, bottom) in pixels, at least one pixel wide and high."""
    if not list_of(number(0), 4)(x):
        return False
    left, top, right, bottom = map(round, x)  # as Pillow cuts
    return left < right and top < bottom


def is_folder_name(x):
    """Whether a value names a folder below the current one or another, not the current one."""
    return PATH(x) and os.path.basename(os.path.normpath(x)) not in ("", os.curdir, os.pardir)


PATH = text(kinds=(str, os.PathLike))
ADDRESS = text(r"|https?://[^/\s]+/\S*|file://(localhost)?/\S+")
WHOLE = number(1, whole=True)
IS_WHOLE = "it must be a whole number of at least 1"


def setting(test, advice):
    """A field of Settings: a test that a value must pass, and what to do if it does not."""
    return field(metadata={"test": test, "advice": advice})


def count():
    return setting(WHOLE, IS_WHOLE)


def rate():
    return setting(number(ABOVE_0, BELOW_1), "it must be a number between 0 and 1")


def flag():
    return setting(lambda x: isinstance(x, bool), "give True or False")


def weight():
    return setting(number(0), "a weight is a number of at least 0")


def label():
    return setting(text(), "give the name of a label")


@dataclass(frozen=True)
class Settings:
    """All settings of the lesson, checked as they are made: a ValueError names the first bad one.

    The first cell of the notebook explains each and holds its default. A `None` is allowed where
    the type says so.
    """

    data_dir: str = setting(PATH, 'give a folder of images, a .zip of them, or "drawn"')
    data_url: str | None = setting(
        ADDRESS, "an address begins with https://, http:// or file:/// and has no spaces"
    )
    data_sha256: str | None = setting(text("[0-9a-f]{64}|"), "give 64 hexadecimal digits, or None")
    n_drawn: int = count()
    image_size: int = setting(
        lambda size: number(16, 256, whole=True)(size) and size in IMAGE_SIZES,
        "the networks halve and double the image, so it must be one of "
        + ", ".join(map(str, IMAGE_SIZES)),
    )
    batch_size: int | None = count()
    z_size: int = setting(number(2, whole=True), "it must be a whole number of at least 2")
    d_conv_dim: int = count()
    g_conv_dim: int = count()
    lr: float = rate()
    d_lr: float = rate()
    beta1: float = setting(
        number(0, BELOW_1), "it must be a number of at least 0 and below 1; try 0.3"
    )
    n_epochs: int = count()
    max_minutes: float | None = setting(
        number(ABOVE_0), "give a number above 0, or None for no limit"
    )
    patience: int | None = count()
    inception: bool = flag()
    print_every: int = count()
    seed: int = setting(
        number(0, 2**32 - 1, whole=True), f"give a whole number from 0 to {2**32 - 1}"
    )
    out_dir: str = setting(is_folder_name, "give the name of a folder of its own")
    start_from: str | None = setting(
        PATH, 'give the checkpoint of a run, such as "assets/weights/celeba_32.pt"'
    )
    resume: bool = flag()
    next_steps: bool = flag()
    experiment_images: int = count()
    large_dir: str = setting(PATH, "give a folder of images")
    label_names: list | None = setting(
        list_of(text()), 'give a list of names, such as ["Smiling"], or None'
    )
    domain_label: str = label()
    domain_same: str | None = label()
    domain_dirs: list | None = setting(list_of(PATH, 2), "give two folders that hold images")
    domain_batch: int = count()
    domain_lr: float = rate()
    domain_loss: str = setting(LOSSES.__contains__, f"it must be one of {LOSSES}")
    cycle_weight: float = weight()
    identity_weight: float = weight()
    photograph: str | None = setting(PATH, "give the path of a picture, or None")
    photograph_box: list | None = setting(
        is_box, "give left, top, right, bottom in pixels, or None"
    )

    def __post_init__(self):
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        check_settings(values)
        for item in dataclasses.fields(self):  # plain numbers: papermill passes 0 for 0.0
            kind = {int: int, float: float, float | None: float, int | None: int}.get(item.type)
            if kind and values[item.name] is not None:
                object.__setattr__(self, item.name, kind(values[item.name]))
        object.__setattr__(self, "out_dir", os.path.normpath(self.out_dir))  # no slash at the end

    def but(self, **changes):
        """The same settings except for these."""
        return dataclasses.replace(self, **changes)


def check(name, value, test, advice):
    """Raise a ValueError that names the setting unless its value passes the test."""
    if not test(value):
        raise ValueError(f"{name} = {value!r} does not work: {advice}.")


def check_settings(values):
    """Check a dict of settings; a ValueError names the first bad one. Other names are ignored."""
    for item in dataclasses.fields(Settings):
        may_be_none = "None" in str(item.type)
        if item.name in values and not (values[item.name] is None and may_be_none):
            check(item.name, values[item.name], item.metadata["test"], item.metadata["advice"])


def check_image_size(image_size):
    """Raise a ValueError unless image_size (pixels) is a power of two from 16 to 256."""
    check_settings({"image_size": image_size})


def check_counts(**counts):
    """Raise a ValueError that names the first of `counts` that is not a whole number above zero."""
    for name, value in counts.items():
        check(name, value, WHOLE, IS_WHOLE)


def check_choice(choices, **setting):
    """Raise a ValueError that lists `choices`, nearest first, unless the one setting is one."""
    ((name, value),) = setting.items()
    order = sorted(choices, key=lambda choice: -likeness(choice, value))
    advice = f"it must be one of {', '.join(map(repr, order[:10]))}"
    check(name, value, order.__contains__, advice)


def likeness(one, other):
    """How alike two texts are, capitals aside, from 0 to 1."""
    return difflib.SequenceMatcher(None, str(one).lower(), str(other).lower()).ratio()
