"""What identifies a run: its settings, and the folder that they lead to."""

import contextlib
import json
import re
import unicodedata
from pathlib import Path, PurePosixPath

import numpy as np

from assets.lib.ranks import default_batch_size, from_rank_0, world

OF_SETTINGS = "z_size", "d_conv_dim", "g_conv_dim", "lr", "d_lr", "beta1", "seed"


def identity(settings, loader, **more):
    """What tells one run from another, for settings.json: values of `settings`, data and batches.

    `loader`: of DecodedFaces; `more`: whatever else the run depends on.
    """
    faces = loader.dataset
    known = {name: getattr(settings, name) for name in OF_SETTINGS}
    known |= {
        "image_size": faces.images.shape[-1],
        "batch_size": loader.batch_size,
        "data": place_of(faces.root),
        "images": len(faces),
    }
    if settings.start_from:
        known["start_from"] = str(settings.start_from)
    return known | more


def place_of(folder):
    """A folder as settings.json names it: relative if it is below the current folder."""
    path = Path(folder)
    if path.is_absolute():
        with contextlib.suppress(ValueError):
            path = path.relative_to(Path.cwd())
    return path.as_posix()


def batch_size_of(settings, n_images, data=None):
    """The batch size of `settings`, or that of the run which they continue, or a default.

    The default depends on the device, so a run keeps the one it began with. `n_images`: of the
    training data; `data`: their folder.
    """
    if settings.batch_size:
        return settings.batch_size
    found = None
    if settings.resume and world()[0] == 0:
        found = begun_batch_size(settings, n_images, data)
    found = from_rank_0(found)
    return found or default_batch_size(n_images, settings.image_size)


def begun_batch_size(settings, n_images, data):
    """The batch size of the newest run in out_dir that differs in nothing else; None if none."""
    known = {name: getattr(settings, name) for name in (*OF_SETTINGS, "image_size", "start_from")}
    if data is not None:
        known["data"] = place_of(data)
    for folder in reversed(folders_of_runs(settings.out_dir).values()):
        with contextlib.suppress(OSError, ValueError, TypeError):
            stored = stored_settings(folder)
            begun = {name: stored.get(name) for name in known}
            n = stored.get("batch_size")
            if comparable(plain(known)) == comparable(begun) and 0 < n <= n_images:
                print(f"The run in {folder} continues with its own batch size, {n}.")
                return n


# ---------------------------------------------------------------- folders


def choose_folder(out_dir, settings, resume):
    """`out_dir` or, where that holds another run, out_dir-2, out_dir-3 ...

    With `resume` it is the newest one with these settings, if there is one.
    """
    runs = folders_of_runs(out_dir)
    differences = {folder: difference(folder, settings) for folder in runs.values()}
    same = [folder for folder, words in differences.items() if not words]
    if resume and same:
        return same[-1]
    if not runs:
        return Path(out_dir).expanduser()
    for folder, words in differences.items():
        print(f"The run in {folder} {words or 'is kept as it is'}.")
    folder = numbered(out_dir, max(runs) + 1)
    print(f"This run will be in {folder}.")
    return folder


def numbered(out_dir, number):
    path = Path(out_dir).expanduser()
    return path if number == 1 else path.with_name(f"{path.name}-{number}")


def folders_of_runs(out_dir):
    """Those of out_dir, out_dir-2, out_dir-3 ... that hold a run: {number: folder}, by number."""
    path, numbers = Path(out_dir).expanduser(), [1]
    pattern = re.compile(re.escape(normal(path.name)) + "-([2-9]|[1-9][0-9]+)", re.IGNORECASE)
    with contextlib.suppress(OSError):  # no such folder yet
        found = [pattern.fullmatch(normal(other.name)) for other in path.parent.iterdir()]
        numbers += sorted({int(match[1]) for match in found if match})
    folders = {number: numbered(out_dir, number) for number in numbers}
    return {number: folder for number, folder in folders.items() if has_checkpoint(folder)}


def has_checkpoint(folder):
    return any((folder / name).exists() for name in ("last.pt", "previous.pt"))


# ---------------------------------------------------------------- settings


def stored_settings(folder):
    """The settings in a run's settings.json, without the version of PyTorch."""
    stored = dict(json.loads((folder / "settings.json").read_bytes()))
    stored.pop("torch", None)
    return stored


def difference(folder, settings):
    """What tells the run in a folder from one with these settings, in words; "" if nothing does."""
    try:
        old = stored_settings(folder)
    except FileNotFoundError:
        return "has no settings.json, and is kept as it is"
    except (OSError, ValueError, TypeError) as error:
        return f"has a settings.json that cannot be read ({error}), and is kept as it is"
    names = [name for name in old | settings if not is_same(old.get(name), settings.get(name))]
    changes = ", ".join(f"{name} {old.get(name)} -> {settings.get(name)}" for name in sorted(names))
    return changes and f"has other settings: {changes}"


def is_same(one, other):
    """Whether two values of settings are the same, where paths may be spelled differently."""
    return comparable(one) == comparable(other)


def comparable(value):
    """The same for all spellings of a path: Windows's and others, with ./ or a slash at the end."""
    if isinstance(value, str):
        return PurePosixPath(normal(value).replace("\\", "/"))
    if isinstance(value, list):
        return [comparable(item) for item in value]
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items()}
    return value


def normal(text):
    """A text in the Unicode form that joins letters and accents; Macs split them in file names."""
    return unicodedata.normalize("NFC", text)


def plain_settings(settings):
    """Settings as JSON holds them: lists for tuples, text for paths, Python's numbers."""
    return json.loads(json.dumps(plain(settings), default=str))


def plain(value):
    """The same with Python's numbers in place of numpy's, which a checkpoint cannot hold."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if type(value) is dict:
        return {plain(key): plain(item) for key, item in value.items()}
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value
