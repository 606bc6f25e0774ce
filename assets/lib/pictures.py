"""Image files: find them and read them as a person sees them."""

import io
import os
import re
import struct
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from assets.lib.files import GONE, DataError, DiskError, printable, to_path

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


def holds_images(folder):
    """Whether there is any image below a folder; False for what is no folder."""
    is_folder = isinstance(folder, (str, os.PathLike)) and os.path.isdir(to_path(folder))
    return is_folder and any(map(is_image, files_below(to_path(folder))))


def find_images(folder, others=None):
    """The paths of the images below `folder`; DataError if there are none.

    `others`: a list, to which the paths of other files are added.
    """
    folder, images = to_path(folder), []
    if not os.path.isdir(folder):
        raise DataError(
            f"{folder} is not a folder. data_dir must name a folder of images or a .zip."
        )
    for path in files_below(folder):
        if is_image(path):
            images.append(path)
        elif others is not None:
            others.append(path)
    if not images:
        name = folder.resolve().name
        raise DataError(f"The folder {name} ({folder}) holds no images. Put some into it.")
    return images


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
