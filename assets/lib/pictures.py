"""Read image files as a person sees them, no larger than they are needed."""

import contextlib
import functools
import io
import os
import struct
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.transforms import functional as transforms

from assets.lib.figures import progress
from assets.lib.files import GONE, DataError, DiskError, as_text, printable, to_path

Image.init()
SAFE_FORMATS = "JPEG PNG GIF BMP WEBP TIFF PPM AVIF JPEG2000".split()
IMAGE_FORMATS = [kind for kind in SAFE_FORMATS if kind in Image.OPEN]  # whatever the name says
IMAGE_TYPES = [end for end, kind in Image.registered_extensions().items() if kind in IMAGE_FORMATS]
IMAGE_TYPES.append(".mpo")  # JPEGs, of cameras with two lenses
MAX_BYTES = 2**30
MAX_SHAPE = 20  # times as long as wide, at most: made square, a strip would fill the memory
MANY_PIXELS = 90_000_000  # more take up to 800 MB: one such picture at a time
MANY_PER_BYTE = 500  # pixels; enormous pictures with more are empty, or made to do harm
SMALL_PIXELS = 2**20  # pictures of fewer are always decoded at their full size
FULL_SCALES = 1, 255, 1023, 4095, 16383, 65535  # of gray values with 1, 8, 10, 12, 14 and 16 bits
NEEDED_CHUNKS = b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND"  # of a PNG
one_large_picture = threading.Lock()
Image.MAX_IMAGE_PIXELS = MOST_PIXELS = 2**28  # phones take 200 million
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd EXIF data and the like


class UnreadableImage(ValueError):
    """A file that is no picture, is damaged, or has a shape or size that cannot be used."""


def is_image(path):
    """Whether `path` names a picture, by its ending or, without one, by its first bytes."""
    name = os.path.basename(path)
    ending = os.path.splitext(name)[1].lower()
    return not name.startswith(".") and (ending in IMAGE_TYPES or not ending and has_picture(path))


def has_picture(path, formats=IMAGE_FORMATS):
    """Whether a file begins as a picture does, or cannot be read (reported later)."""
    if not os.path.isfile(path):  # a pipe would wait forever
        return False
    try:
        with Image.open(path, formats=formats):
            return True
    except Exception as error:
        return getattr(error, "errno", None) not in (None, *GONE)


def shorter_side(path):
    """A picture's shorter side in pixels, from its header if readable; 0 if it is unreadable."""
    with contextlib.suppress(Exception), Image.open(path, formats=IMAGE_FORMATS) as image:
        return min(image.size)
    with contextlib.suppress(OSError, UnreadableImage):
        return min(read_image(path)[1])
    return 0


def load_image(path, size=None):
    """An image file as RGB, as a person sees it: upright, in 8 bits, on white where transparent.

    `size`: the pixels that its shorter side is needed at. Large JPEGs are then decoded at a half,
    a quarter or an eighth of their size, but not below twice `size`. UnreadableImage if the file
    is at fault, OSError if the drive is.
    """
    return read_image(path, size)[0]


def read_image(path, size=None):
    """What load_image returns, and the picture's own (width, height), upright."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        if error.errno not in GONE:
            raise
        raise UnreadableImage(f"it is not there ({error.strerror})") from error
    try:
        return decode_or_repair(content, size)
    except Exception as error:  # Pillow raises nearly anything for damaged files
        raise UnreadableImage(reason_of(error, content)) from error


def decode_or_repair(content, size):
    try:
        return decode(content, size)
    except Exception:
        repaired = repair(content)
        if repaired is None:
            raise
    return decode(repaired, size)


def decode(content, size):
    """Bytes of an image file -> an RGB image and its own (width, height), upright."""
    with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
        n_pixels, own_size = image.width * image.height, image.size
        check_shape(*own_size, len(content))
        is_deep = ";16" in str(image.tile)
        if size and n_pixels > SMALL_PIXELS:
            image.draft(None, (2 * size, 2 * size))
        is_large = image.width * image.height > MANY_PIXELS
        with one_large_picture if is_large else contextlib.nullcontext():
            image.load()
            turned = upright(image)
            own_size = own_size if turned.size == image.size else own_size[::-1]
            return to_rgb(turned, is_deep), own_size


def check_shape(width, height, n_bytes):
    """UnreadableImage for strips and for what would fill the memory."""
    shape = f"{width:,} x {height:,} pixels"
    if max(width, height) > MAX_SHAPE * min(width, height):
        raise UnreadableImage(f"it is a strip of {shape}")
    most_pixels = min(MOST_PIXELS, max(MANY_PIXELS, MANY_PER_BYTE * n_bytes))
    if n_bytes > MAX_BYTES or width * height > most_pixels:
        raise UnreadableImage(f"it is too large: {shape} from {n_bytes:,} bytes")


def upright(image):
    """The image as the camera was held, by its EXIF data; as it is where these are damaged."""
    with contextlib.suppress(Exception):
        return ImageOps.exif_transpose(image)
    return image


def to_rgb(image, is_deep):
    """A loaded image in RGB. `is_deep`: the file has 16 bits a channel."""
    if image.mode[0] in "IF":  # one channel, which Pillow would cut off at 255
        image = to_8_bits(image)
    elif is_deep and max(high for _, high in image.convert("RGB").getextrema()) < 64:
        raise UnreadableImage("it has 16 bits a color and uses the lower ones, which are not read")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def to_8_bits(image):
    """A gray image of whole numbers or floats, from the range that it uses to 0 .. 255."""
    values = np.asarray(image).astype(np.float64)
    is_finite = np.isfinite(values)
    used = values[is_finite] if is_finite.any() else np.zeros(1)
    low, high = range_of(used.min(), used.max(), is_whole=not (used % 1).any())
    values = np.where(np.isnan(values), low, values).clip(low, high)
    return Image.fromarray(((values - low) / (high - low) * 255).round().astype(np.uint8))


def range_of(low, high, is_whole):
    """What is black and what white in a picture of values from `low` to `high`.

    That is 0 and the largest number of so many bits for whole numbers, 0 and 1 or -1 and 1 for
    fractions, and the smallest and the largest value for others.
    """
    if -1 <= low < -0.5 and high <= 1:
        return -1, 1
    scales = FULL_SCALES if is_whole else FULL_SCALES[:1]
    full = next((scale for scale in scales if high <= scale), None)
    if low >= 0 and full:
        return 0, full
    return (low, high) if low < high else (low - 1, low + 1)


def repair(content):
    """The same picture with an end marker or without what need not be read; None for others."""
    if content.startswith(b"\xff\xd8"):
        return content + bytes(16)  # a JPEG may lack its end marker, and no more
    if not content.startswith(b"\x89PNG"):
        return None
    kept, start = content[:8], 8  # a PNG, without text, profiles and their checksums
    while start + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, start)
        end = start + 12 + length
        kept += content[start:end] if kind in NEEDED_CHUNKS else b""
        start = end
    return kept


def reason_of(error, content):
    """Why a file cannot be read, in a few words."""
    if isinstance(error, UnreadableImage):
        return str(error)
    if content[4:8] == b"ftyp" and content[8:11] in (b"hei", b"mif", b"hev"):
        return "it is a HEIC photograph, whatever its name: convert it to JPEG"
    if not isinstance(error, UnidentifiedImageError):
        return f"Pillow cannot read it ({type(error).__name__}: {error})"
    return "it is no picture of a known kind" if content else "it is empty"


def load_face(path, image_size, box=None):
    """A photograph, cut to its center or to `box` (left, top, right, bottom, in pixels).

    Returns (1, 3, S, S) in [-1, 1].
    """
    try:
        image = load_image(to_path(path))
    except (OSError, UnreadableImage) as error:
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
    return try_to_read(dataset.samples[index][0], lambda: dataset[index])


def try_to_read(path, read):
    """(what `read` returns, None), or (None, why the file at `path` cannot be read)."""
    for _ in range(3):
        try:
            return read(), None
        except UnreadableImage as error:
            return None, f"{printable(path)}: {error}"
        except OSError as error:
            if error.errno is None:  # of Pillow, in another loader than load_image
                return None, f"{printable(path)}: {error}"
            failed = error
            time.sleep(0.1)
    message = f"{as_text(path)} is there but cannot be read: {failed.strerror}"
    raise DiskError(failed.errno, f"{message}. Make it readable, or try again.") from failed


def read_squares(dataset, indices, size=64):
    """Read some images of an ImageFolder, each once, reduced and cut to squares.

    Returns those of `indices` that can be read (a list), their pixels, float32 (n, 3, size, size)
    in [0, 1], and the (width, height) of each file. DataError if none can be read. A progress bar
    appears if it takes longer than two seconds.
    """
    paths = [dataset.samples[index][0] for index in indices]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read = pool.map(functools.partial(read_square, size=size), paths)
        results = list(progress(read, "look", len(paths), unit="img", delay=2))
    found = [(index, *square) for index, (square, _) in zip(indices, results) if square]
    if not found:
        message = f"None of the {len(paths)} images tried in {dataset.root} can be read"
        raise DataError(f"{message}; the first, {results[0][1]}.")
    chosen, squares, sizes = map(list, zip(*found))
    return chosen, torch.stack(squares), sizes


def read_square(path, size):
    """((pixels (3, size, size) in [0, 1], own (width, height)), None), or (None, why not)."""

    def read():
        image, own_size = read_image(path, size)
        square = transforms.center_crop(transforms.resize(image, size), size)
        return transforms.to_tensor(square), own_size

    return try_to_read(path, read)
