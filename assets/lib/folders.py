"""Find the images below a folder, and say what else lies there."""

import itertools
import mimetypes
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np

from assets.lib.files import DataError, DiskError, as_text, to_path
from assets.lib.pictures import (
    IMAGE_FORMATS,
    IMAGE_TYPES,
    UnreadableImage,
    has_picture,
    is_image,
    load_image,
)

TOOL_FOLDER = re.compile(
    r"__MACOSX|lost\+found|System Volume Information|\$RECYCLE\.BIN|[#@]Recycle|#snapshot|@eaDir"
    r"|\.(git|ipynb_checkpoints|venv|cache|thumb\w*|Trash.*|Spotlight-V100|fseventsd)",
    re.IGNORECASE,
)
WORK_FOLDERS = {"cache", "drawn_faces"}  # in the folder that the notebook runs in
PROJECT_FOLDERS = {"assets", "runs"} | WORK_FOLDERS  # next to our helpers.py
RUN_FILES = {
    *("settings.json", "losses.csv", "scores.csv", "run.lock", "run.lock.exists"),
    *("last.pt", "previous.pt", "best.pt", "damaged.pt", "generator.pt2", "training.gif"),
}
SAMPLE_GRID = re.compile(r"step_\d{7,}\.png")
MASK_NAME = re.compile(r"mask|anno|label|segment|parsing|matte", re.IGNORECASE)
PACKED = ".zip", ".7z", ".rar", ".tar", ".gz", ".tgz"
KNOWN = mimetypes.MimeTypes().guess_type  # of endings, on any system
NOT_RAW = [kind for kind in IMAGE_FORMATS if kind != "TIFF"]  # as which raw files begin, too


def find_images(folder):
    """The paths of the images below `folder`; DataError if there are none."""
    return survey(folder)[0]


def survey(folder):
    """What look_below returns; DataError for no folder, or one without images."""
    folder = to_path(folder)
    if not os.path.isdir(folder):
        message = f"{str(folder)!r} is not a folder"
        raise DataError(f"{message}. data_dir must name a folder of images or a .zip.")
    images, others = look_below(folder)
    if not images:
        raise DataError(f"The folder {str(folder)!r} holds no images{what_helps(others, folder)}.")
    return images, others


def holds_images(folder):
    """Whether there is any image below a folder; False if it is not a folder."""
    is_folder = isinstance(folder, (str, os.PathLike)) and os.path.isdir(to_path(folder))
    return is_folder and bool(look_below(to_path(folder))[0])


def look_below(folder):
    """The paths of the images below `folder`, and {path of whatever else is there: its kind}.

    Names say what is an image and, where no name does, contents. Files of a run, masks and what
    is hidden are no images.
    """
    images, others, ignored = [], {}, {}
    for root, names, hidden in walk(folder):
        ignored.update((os.path.join(root, name), "hidden") for name in hidden)
        of_runs = files_of_runs(root, names)
        for name in names:
            path = os.path.join(root, name)
            if name in of_runs:
                ignored[path] = "files of a run"
            elif is_image(path):
                images.append(path)
            else:
                others[path] = os.path.splitext(name)[1].lower() or "without ending"
    if not images:
        images = [path for path in others if not KNOWN(path)[0] and has_picture(path, NOT_RAW)]
        for path in images:
            del others[path]
    masks = find_masks(images, len(str(folder)))
    images = [path for path in images if path not in masks]
    return images, others | ignored | dict.fromkeys(masks, "masks")


def walk(folder):
    """Yield (path, file names, hidden names) for `folder` and all below it, each once.

    Links are followed. Folders of tools and our own are passed over. DiskError where a folder
    cannot be listed.
    """
    seen, top = set(), Path(folder).resolve()
    for root, folders, names in os.walk(folder, onerror=explain_listing, followlinks=True):
        real = Path(root).resolve()
        is_loop = os.path.islink(root) and (real.is_relative_to(top) or top.is_relative_to(real))
        if real in seen or seen and is_loop:  # it is found under its own name, or holds all this
            folders.clear()
            continue
        seen.add(real)
        kept = {name for name in folders if not TOOL_FOLDER.fullmatch(name)}
        kept -= PROJECT_FOLDERS if "helpers.py" in names else set()
        kept -= WORK_FOLDERS if real == Path.cwd() else set()
        folders[:] = sorted(name for name in kept if not name.startswith("."))
        yield root, sorted(name for name in names if name[0] != "."), hidden_names(kept, names)


def hidden_names(folders, names):
    """The hidden ones among folders and pictures; without macOS's notes about its files (._x)."""
    pictures = [name for name in names if os.path.splitext(name)[1].lower() in IMAGE_TYPES]
    hidden = [name for name in [*folders, *pictures] if name.startswith(".")]
    return [name for name in hidden if not name.startswith("._")]


def explain_listing(error):
    message = f"{as_text(error.filename)} cannot be listed: {error.strerror}"
    message = f"{message}. Its images would be left out: make it readable, or try again later."
    raise DiskError(error.errno, message) from error


def files_of_runs(root, names):
    """Those of the files in the folder `root` that a run has left."""
    if os.path.basename(root) == "samples":
        return {name for name in names if SAMPLE_GRID.fullmatch(name)}
    found = RUN_FILES.intersection(names)
    return found if len(found) > 1 or found & {"run.lock", "run.lock.exists"} else set()


def find_masks(images, start):
    """The masks among images, a set: so called by the paths from `start` on, and of few colors.

    An empty set if that is all of them.
    """
    groups = {}
    for path in images:
        *folders, name = path[start:].split(os.sep)
        if word := MASK_NAME.search(name):
            groups.setdefault(word[0].lower(), []).append(path)
        elif named := list(filter(MASK_NAME.search, folders)):
            groups.setdefault(named[-1], []).append(path)
    spread = {key: paths[:: len(paths) // 8 + 1] for key, paths in groups.items()}
    masks = [groups[key] for key, paths in spread.items() if all(map(has_few_colors, paths))]
    found = set(itertools.chain.from_iterable(masks))
    return found if len(found) < len(images) else set()


def has_few_colors(path):
    """Whether 20 colors cover nine tenths of a picture, as in masks and never in photographs."""
    try:
        image = load_image(path, 64)
    except (OSError, UnreadableImage):
        return False
    pixels = np.asarray(image.resize((64, 64), resample=0)).reshape(-1, 3)  # 0: no new colors
    _, counts = np.unique(pixels, axis=0, return_counts=True)
    return np.sort(counts)[-20:].sum() > 0.9 * len(pixels)


def count_kinds(others, most=5):
    """What else there is, by kind, the most frequent first: "200 .heic, 3 .txt"."""
    counts = sorted(Counter(others.values()).items(), key=lambda pair: (-pair[1], pair[0]))
    shown = [f"{count:,} {kind}" for kind, count in counts[:most]]
    rest = sum(count for _, count in counts[most:])
    return as_text(", ".join([*shown, f"{rest:,} others"] if rest else shown))


def what_helps(others, folder=None):
    """What to do if look_below found these files and no images: the end of a sentence.

    `folder`: its neighbors are looked at, too.
    """
    packed = [os.path.basename(path) for path in others if path.lower().endswith(PACKED)]
    if packed:
        return f", but {as_text(packed[0])}: unpack it, and set data_dir to that folder"
    if others:
        return f" that can be read, but {count_kinds(others)}: convert pictures to JPEG or PNG"
    neighbor = folder and neighbor_with_images(folder)
    return f", but {neighbor!r} beside it does" if neighbor else ": put some into it"


def neighbor_with_images(folder):
    """The name of a folder beside `folder` that holds images, or None."""
    for path in sorted(folder.absolute().parent.iterdir()):
        is_own = path.name in PROJECT_FOLDERS or path.name.startswith(".")
        if path.is_dir() and not is_own:
            files = (os.path.join(root, name) for root, names, _ in walk(path) for name in names)
            if any(map(is_image, itertools.islice(files, 1000))):
                return path.name
    return None
