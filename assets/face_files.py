"""Faces as people have them: archives, folders, pictures, lists of attributes.

Fetched, unpacked, found and read with care: nothing is lost or half made without a word.
"""

import contextlib
import csv
import difflib
import errno
import hashlib
import http.client
import io
import itertools
import lzma
import os
import re
import shutil
import stat
import struct
import threading
import time
import unicodedata
import urllib.error
import urllib.request
import warnings
import zipfile
import zlib
from collections import Counter
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import numpy as np
import torch
from filelock import FileLock, SoftFileLock, Timeout
from PIL import Image, ImageOps
from tqdm import tqdm

from assets.drawn_faces import OTHER_SEED

PUBLISHED_SHA256 = "2cd4fbba4b618faeb4be18c69da3a68ff6a163057d12ff321cb044fc51f416d3"
PUBLISHED_BYTES = 247_694_507
DEFAULT_FOLDERS = Path("processed_celeba_small"), Path("celeba_128")
MAX_UNPACKED_BYTES = 20 * 2**30
FULL = errno.ENOSPC, errno.EDQUOT
NO_LOCKS = errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF
GONE = errno.ENOENT, errno.ELOOP
BAD_NAME = errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EEXIST, errno.ENOTDIR
PACKED = ".zip", ".7z", ".rar", ".tar", ".gz", ".tgz"
BAD_ARCHIVE = zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, ValueError, EOFError


class DataError(ValueError):
    """Data that is there but wrong. The message ends with the way out: the drawn faces."""

    def __init__(self, message):
        super().__init__(f'{message} To go on without it, set data_dir = "drawn".')


class DiskError(OSError):
    """An error of the system, with what to do about it."""


class Unreachable(Exception):
    """The archive could not be fetched, through no fault of the data."""


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


# ---------------------------------------------------------------- what is made once


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


# ---------------------------------------------------------------- names and archives


def likeness(one, other):
    """How alike two texts are, capitals aside, from 0 to 1."""
    return difflib.SequenceMatcher(None, str(one).lower(), str(other).lower()).ratio()


def check_folder_name(data_dir, is_own):
    """DataError for a folder that is not there and is no default, or whose name is misspelt.

    With an address of its own (`is_own`) a new name is fine, if it is unlike those around it.
    """
    chosen = folder = to_path(data_dir)
    while not folder.parent.is_dir() and folder != folder.parent:
        folder = folder.parent
    name, names = folder.name, ["drawn", folder.parent.name or "drawn"]
    with contextlib.suppress(OSError):
        found = [path for path in folder.parent.iterdir() if path.is_dir() or path.suffix == ".zip"]
        names += [path.name for path in found if not path.name.startswith(".")]
    nearest = sorted({*names}, key=lambda other: -likeness(other, name))[:3]
    has_number = is_own and name != nearest[0]  # such as faces_2 after faces_1
    is_next = has_number and re.sub(r"\d", "", name) == re.sub(r"\d", "", nearest[0])
    is_like = likeness(nearest[0], name) > 0.85 and not is_next
    is_odd = re.search(r'[*?"<>|:\\]|^\s|\s$|\.zip$', name)
    if is_like or is_odd or not (is_own or chosen in DEFAULT_FOLDERS):
        message = f"data_dir = {str(data_dir)!r} is not there. The nearest names are"
        raise DataError(f"{message} {', '.join(nearest)}. An address belongs into data_url.")


def fetch(source, folder, sha256, cache, progress=tqdm):
    """Unpack a zip, by its path or its address, into an empty folder; downloads go to `cache`."""
    if str(source).lower().startswith("file:"):
        address, source = source, Path(urllib.request.url2pathname(urlsplit(source).path))
        if not source.is_file():
            raise DataError(f"data_url = {address!r} does not work: there is no file {source}.")
    if isinstance(source, Path):
        try:
            source.open("rb").close()
        except OSError as error:
            raise DataError(f"{source} cannot be read: {error.strerror}.") from error
        check_archive(source, sha256, source)
        unpack(source, folder, progress)
        return
    if not source:
        raise Unreachable("there is no folder of photographs")
    cached = Path(cache, sha256 or hashlib.sha256(source.encode()).hexdigest())
    with locked(cached):
        path = download(source, cached, sha256, progress=progress)
        try:
            unpack(path, folder, progress)
        except DataError:
            path.unlink()
            raise
        path.unlink()


def download(url, path, sha256=None, timeout=15, progress=tqdm):
    """Fetch `url` (http or https) to `path`, with a progress bar, going on where it stopped.

    Returns the path, once zip signature, size and sha256 are right. Raises Unreachable when the
    address does not answer and DataError when what it answers is not the archive.
    """
    path = Path(path).with_suffix(".zip")
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():  # fetched and checked before, but not unpacked
        return path
    have = partial.stat().st_size if partial.exists() else 0
    answer = open_url(url, have, timeout)
    if answer is None and not zipfile.is_zipfile(partial):
        answer = open_url(url, 0, timeout)
    if answer is not None:
        with contextlib.closing(answer):
            copy_answer(answer, partial, url, progress)
    try:
        check_archive(partial, sha256, url)
    except DataError:
        partial.unlink()
        raise
    os.replace(partial, path)
    return path


def open_url(url, offset, timeout):
    """urlopen in a thread of its own, as looking up a name can hang; None if no bytes are left."""
    headers = {"User-Agent": "face-generation-lesson"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    request, outcome = urllib.request.Request(url, headers=headers), [TimeoutError("no answer")]

    def fetch():
        try:
            outcome.append(urllib.request.urlopen(request, timeout=timeout))
        except Exception as error:  # raised below
            outcome.append(error)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    thread.join(timeout + 5)
    answer = outcome[-1]
    if isinstance(answer, urllib.error.HTTPError) and answer.code == 416:
        return None
    if isinstance(answer, urllib.error.HTTPError):
        raise Unreachable(f"the server of the archive answers {answer.code} {answer.reason}")
    if isinstance(answer, Exception):
        reason = getattr(answer, "reason", answer)
        raise Unreachable(f"no network ({getattr(reason, 'strerror', None) or reason})")
    return answer


def copy_answer(answer, partial, url, progress):
    """Write a server's answer to the file `partial`, or the rest of it."""
    have = partial.stat().st_size if answer.status == 206 else 0
    length = answer.headers.get("Content-Length")
    total = have + int(length) if length else None
    try:
        block = answer.read(2**18)
        if not have:
            check_head(block, answer.geturl())  # before anything is overwritten
        print(f"Downloading {url}")
        bar = progress(total=total, initial=have, unit="B", unit_scale=True, desc="download")
        with bar, open(partial, "r+b" if have else "wb") as file:
            file.seek(have)
            while block:
                have += file.write(block)
                bar.update(len(block))
                block = answer.read(2**18)
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) in (*FULL, errno.EROFS, errno.EACCES, errno.EIO):
            raise  # the disk's
        raise Unreachable(f"the download broke off ({error}); run again to go on") from error
    if total and have < total:
        raise Unreachable("the download broke off; run again to go on")


def check_head(head, url):
    """DataError unless these first bytes are a zip file's."""
    if head.startswith(b"PK"):
        return
    kind = "no zip archive"
    if b"<html" in head.lower() or b"<!doctype" in head.lower():
        kind = "a web page (HTML), as for a login or a quota,"
    message = f"At {url} there is {kind} instead of the archive."
    raise DataError(f"{message} Download it in a browser and set data_dir to the .zip.")


def check_archive(path, sha256, source):
    """DataError unless the file, fetched from `source`, has this sha256."""
    if not sha256:
        return
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    size, found = path.stat().st_size, digest.hexdigest()
    wrong = f"sha256, {found}, not {sha256}" if found != sha256.lower() else None
    if sha256 == PUBLISHED_SHA256 and size != PUBLISHED_BYTES:
        wrong = f"size, {size:,} bytes, not {PUBLISHED_BYTES:,}"
    if wrong:
        message = f"{source} has the wrong {wrong}: it is damaged, or another file"
        raise DataError(f"{message}. Try again, or set data_sha256 = None to take any archive.")


def unpack(archive, folder, progress=tqdm):
    """Unpack the images and lists of attributes of a zip into an empty folder.

    Without a top folder that all share, and without "New Folder With Items", which Finder made.
    DataError for damaged archives, huge ones, and those that safe_path refuses.
    """
    name = os.path.basename(archive)
    try:
        with zipfile.ZipFile(archive) as pack:
            all_entries = [(safe_path(member), member) for member in pack.infolist()]
            entries = [pair for pair in all_entries if is_wanted(*pair)]
            if sum(member.file_size for _, member in entries) > MAX_UNPACKED_BYTES:
                raise DataError(f"{name} would unpack to more than 20 GiB.")
            tops = {path.parts[0] if path.parts[1:] else "" for path, _ in entries}
            drop = 1 if len(tops) == 1 and "" not in tops else 0
            hidden = len(entries) < 1000
            for path, member in progress(entries, "unpack", unit="img", disable=hidden):
                name = member.filename
                parts = [part for part in path.parts[drop:] if part != "New Folder With Items"]
                target = folder.joinpath(*parts)
                if target.exists():
                    target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with pack.open(member) as source, open(target, "xb") as file:
                    shutil.copyfileobj(source, file)
    except DataError:
        raise
    except (*BAD_ARCHIVE, OSError) as error:
        number = getattr(error, "errno", None)
        if number not in (None, *BAD_NAME):
            raise  # the disk's fault, not the archive's
        what = f"{name!r} is damaged, or no .zip"
        if number:
            what = f"this system cannot hold the name {name!r}"
        raise DataError(f"The archive cannot be unpacked: {what} ({error}).") from error
    if not holds_images(folder):
        inner = [path.name for path, _ in all_entries if path.suffix.lower() in PACKED]
        advice = f", but {inner[0]}: unpack it, and set data_dir to that folder" if inner else ""
        raise DataError(f"The archive holds no images{advice}.")


def safe_path(member):
    """The path of an entry of a zip; DataError if no honest archive would hold it."""
    name, kind = member.filename.replace("\\", "/"), stat.S_IFMT(member.external_attr >> 16)
    path, refused = PurePosixPath(name), None
    if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:/", name):
        refused = "leads outside the folder"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        refused = "is a link or a device, not a file"
    elif member.flag_bits & 1:
        refused = "is encrypted"
    elif os.name == "nt" and re.search('[:*?"<>|]', name):
        refused = "has a name that this system cannot hold"
    if refused:
        raise DataError(f"The archive was refused: its entry {member.filename!r} {refused}.")
    return path


def is_wanted(path, member):
    """Whether to unpack this entry of a zip: a picture, what may be one, a list of attributes."""
    if member.is_dir() or any(map(TOOL_FOLDER.fullmatch, path.parts)):
        return False
    is_list = ATTRIBUTE_LIST.fullmatch(path.name) is not None
    return is_list or path.suffix.lower() in ("", *IMAGE_TYPES)


# ---------------------------------------------------------------- pictures

Image.init()
SAFE_FORMATS = "JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF"
IMAGE_FORMATS = [kind for kind in SAFE_FORMATS if kind in Image.OPEN]  # whatever the name says
IMAGE_TYPES = [end for end, kind in Image.registered_extensions().items() if kind in IMAGE_FORMATS]
TOOL_FOLDER = re.compile(r"[.@].*|__MACOSX|lost\+found|#recycle|\$RECYCLE\.BIN|System Volume.*")
OWN_FOLDERS = "assets", "runs", "cache", "drawn_faces"
MAX_SHAPE = 20  # times as long as wide, at most: made square, a strip would fill the memory
UNREADABLE = (
    *(OSError, ValueError, SyntaxError, LookupError, TypeError, ArithmeticError, EOFError),
    *(struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning),
)  # what Pillow raises on damaged files
warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd EXIF data and the like
warnings.simplefilter("error", Image.DecompressionBombWarning)  # so that they are unreadable


def is_image(path):
    """Whether `path` names a picture, by its ending or, without one, by its first bytes."""
    name = os.path.basename(path)
    ending = os.path.splitext(name)[1].lower()
    if ending or name.startswith("."):
        return ending in IMAGE_TYPES and not name.startswith(".")
    try:
        with Image.open(path, formats=IMAGE_FORMATS):
            return True
    except UNREADABLE as error:
        return getattr(error, "errno", None) not in (None, *GONE)  # the drive's fault: see later


def files_below(folder):
    """The paths of the files below `folder`; DiskError where a folder cannot be listed.

    Without hidden ones, folders of tools and, next to our helpers.py, our own. Links to folders
    elsewhere are followed, into each folder once.
    """

    def fail(error):
        message = (
            f"{error.filename} cannot be listed: {error.strerror}. Its images would be lacking"
        )
        raise DiskError(error.errno, f"{message}: make it readable, or try again later.") from error

    seen, top = set(), Path(folder).resolve()
    for root, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        real = Path(root).resolve()
        is_loop = os.path.islink(root) and (real.is_relative_to(top) or top.is_relative_to(real))
        if real in seen or seen and is_loop:  # it is found under its own name, or holds all this
            folders.clear()
            continue
        seen.add(real)
        skipped = OWN_FOLDERS if "helpers.py" in names else ()
        folders[:] = sorted(
            set(folders).difference(skipped, filter(TOOL_FOLDER.fullmatch, folders))
        )
        yield from (os.path.join(root, name) for name in sorted(names) if name[0] != ".")


def is_source(folder):
    """Whether it is a folder of images, a .zip, "drawn", or a default folder, there or not."""
    path = to_path(folder)
    is_zip = path.suffix.lower() == ".zip" and path.is_file()
    return is_zip or str(folder) == "drawn" or path in DEFAULT_FOLDERS or holds_images(path)


def are_two_folders(folders):
    """Whether it is a list of two folders, not the same, that hold images."""
    if not isinstance(folders, (list, tuple)) or len(folders) != 2:
        return False
    return all(map(holds_images, folders)) and not os.path.samefile(*map(to_path, folders))


def holds_images(folder):
    """Whether there is any image below a folder; False for what is no folder."""
    is_folder = isinstance(folder, (str, os.PathLike)) and os.path.isdir(to_path(folder))
    return is_folder and any(map(is_image, files_below(to_path(folder))))


def find_images(folder, others=None):
    """The paths of the images below `folder`; DataError if there are none.

    `others`: a Counter, to which the endings of other files are added, lists of attributes aside.
    """
    folder, images = to_path(folder), []
    others = Counter() if others is None else others
    if not os.path.isdir(folder):
        raise DataError(
            f"{folder} is not a folder. data_dir must name a folder of images or a .zip."
        )
    for path in files_below(folder):
        if is_image(path):
            images.append(path)
        elif not ATTRIBUTE_LIST.fullmatch(os.path.basename(path)):
            others[os.path.splitext(path)[1].lower() or "without ending"] += 1
    if not images:
        name = folder.resolve().name
        raise DataError(f"The folder {name} ({folder}) holds no images. Put some into it.")
    return images


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


def load_image(path):
    """An image file as RGB, as a person sees it: upright, in 8 bits, on white where transparent."""
    try:
        return to_rgb(path)
    except OSError as error:
        content = Path(path).read_bytes() if "truncated" in str(error) else b""
        if not content.startswith(b"\xff\xd8"):
            raise
    return to_rgb(io.BytesIO(content + bytes(16)))  # a JPEG may lack its end marker, and no more


def to_rgb(source):
    with Image.open(source, formats=IMAGE_FORMATS) as image:
        if max(image.size) > MAX_SHAPE * min(image.size):
            raise ValueError(f"a strip of {image.width} x {image.height} pixels")
        image = ImageOps.exif_transpose(image)
        if image.mode[0] in "IF":  # grey of more than 8 bits, which Pillow would cut off at 255
            values = np.nan_to_num(np.asarray(image, np.float32))
            ranges = (65535,) if image.mode.startswith("I;16") else (1, 255, 65535)
            top = next((high for high in ranges if values.max() <= high), values.max())
            image = Image.fromarray((values / top * 255).clip(0, 255).round().astype(np.uint8))
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        return image.convert("RGB")


def load_face(path, image_size, box=None):
    """A photograph, cut to its centre or to `box` (left, top, right, bottom, in pixels).

    Returns (1, 3, S, S) in [-1, 1].
    """
    try:
        image = load_image(to_path(path))
    except UNREADABLE as error:  # or not there
        message = f"photograph = {str(path)!r} cannot be read as a picture ({error})"
        raise ValueError(f"{message}. Give the path of a JPEG or PNG file.") from error
    if box is not None:
        left, top, right, bottom = box
        if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
            message = f"photograph_box = {box!r} does not lie in {path}, which is {image.width} x"
            raise ValueError(f"{message} {image.height} pixels: give left, top, right, bottom.")
        image = image.crop(box)
    face = np.asarray(ImageOps.fit(image, (image_size, image_size), Image.BICUBIC), np.float32)
    return torch.from_numpy(face / 127.5 - 1).permute(2, 0, 1)[None]


def read_item(dataset, index):
    """(an item of an ImageFolder, None), or (None, why it cannot be read).

    DiskError where not the file but the drive is at fault, after two more tries.
    """
    path = dataset.samples[index][0]
    for _ in range(3):
        try:
            return dataset[index], None
        except UNREADABLE as error:
            if getattr(error, "errno", None) in (None, *GONE):
                return None, f"{printable(path)}: {type(error).__name__}: {error}"
            failed = error
            time.sleep(0.1)
    message = f"{path} is there but cannot be read: {failed.strerror}"
    raise DiskError(failed.errno, f"{message}. Make it readable, or try again.") from failed


def readable(dataset, indices):
    """Those of `indices` whose images an ImageFolder can read; DataError if there are none."""
    found = [index for index in indices if read_item(dataset, index)[1] is None]
    if not found:
        reason = read_item(dataset, indices[0])[1]
        message = f"None of the {len(indices)} images tried in {dataset.root} can be read"
        raise DataError(f"{message}; the first, {reason}.")
    return found


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


# ---------------------------------------------------------------- labels

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
