"""What the lesson needs and does not teach: data, pictures, devices, runs.

Sections, in the order in which `dlnd_face_generation.ipynb` first needs them:
settings · progress · ranks · getting the data · drawn faces · decoding · pictures and labels · networks · speed · scores ·
runs · a generator to take home.
"""

import atexit
import base64
import contextlib
import copy
import difflib
import errno
import hashlib
import http.client
import inspect
import io
import itertools
import lzma
import math
import os
import pickle
import random
import re
import shutil
import signal
import stat
import struct
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import lru_cache
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from filelock import FileLock, Timeout
from matplotlib.animation import ArtistAnimation
from PIL import Image, ImageOps
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset
from torchvision.models.resnet import BasicBlock
from tqdm import tqdm

IMAGE_SIZES = (16, 32, 64, 128, 256)
IMAGE_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")  # of the contents, whatever the name says
IMAGE_TYPES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
CACHE = Path("cache")


# ---------------------------------------------------------------- settings

def check_image_size(image_size):
    """Raise a ValueError unless image_size (pixels) is a power of two from 16 to 256."""
    if not isinstance(image_size, (int, np.integer)) or image_size not in IMAGE_SIZES:
        raise ValueError(f"image_size = {image_size!r} does not work: the networks halve and double the image, "
                         f"so it must be one of {', '.join(map(str, IMAGE_SIZES))}.")


def check_counts(**counts):
    """Raise a ValueError that names the first of `counts` that is not a whole number above zero."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name} = {value!r} does not work: it must be a whole number of at least 1.")


def check_choice(choices, **setting):
    """Raise a ValueError that lists `choices`, nearest first, unless the one setting is among them."""
    (name, value), = setting.items()
    if value not in list(choices):
        order = sorted(choices, key=lambda choice: -difflib.SequenceMatcher(None, str(choice), str(value)).ratio())
        raise ValueError(f"{name} = {value!r} does not work: it must be one of {', '.join(map(repr, order))}.")


def check_settings(image_size, lr, d_lr, beta1, max_minutes, patience, seed=0, section_minutes=1, row_minutes=1, swap_lr=0.001,
                   swap_loss="least squares", swap_dirs=None, cycle_weight=1, identity_weight=1, label_names=None, photograph=None,
                   photograph_box=None, **counts):
    """Check the notebook's settings before anything is fetched or trained; raises ValueError."""
    check_image_size(image_size)
    check_counts(**counts, **{} if patience is None else {"patience": patience})
    for name, rate in (("lr", lr), ("d_lr", d_lr), ("swap_lr", swap_lr)):
        if not 0 < rate < 1:
            raise ValueError(f"{name} = {rate!r} does not work: a learning rate lies between 0 and 1; try 0.0008.")
    if not 0 <= beta1 < 1:
        raise ValueError(f"beta1 = {beta1!r} does not work: it must be at least 0 and below 1; try 0.3.")
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed = {seed!r} does not work: it must be a whole number from 0 to {2**32 - 1}.")
    if max_minutes is not None and not max_minutes > 0:
        raise ValueError(f"max_minutes = {max_minutes!r} does not work: give minutes above 0, or None for no limit.")
    for name, minutes in (("section_minutes", section_minutes), ("row_minutes", row_minutes)):
        if minutes is None or not minutes > 0:
            raise ValueError(f"{name} = {minutes!r} does not work: give minutes above 0.")
    check_choice(("least squares", "cross-entropy"), swap_loss=swap_loss)
    for name, weight in (("cycle_weight", cycle_weight), ("identity_weight", identity_weight)):
        if not weight >= 0:
            raise ValueError(f"{name} = {weight!r} does not work: a weight is at least 0.")
    if swap_dirs is not None and (isinstance(swap_dirs, str) or len(swap_dirs) != 2 or not all(map(os.path.isdir, swap_dirs))):
        raise ValueError(f"swap_dirs = {swap_dirs!r} does not work: give two folders that are there, or None.")
    if isinstance(label_names, str):
        raise ValueError(f"label_names = {label_names!r} does not work: give a list of names, [{label_names!r}], or None.")
    if photograph is not None:
        load_face(photograph, image_size, photograph_box)


# ---------------------------------------------------------------- progress

def in_notebook():
    """Whether this code runs in a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def show_live(picture, handle=None):
    """Show a PIL image or a line of text in place of what `handle` showed; returns the handle for the next one.

    Outside a notebook nothing is shown and None comes back.
    """
    if not in_notebook():
        return None
    raw = isinstance(picture, str)  # a string itself would be shown in quotes
    picture = {"text/plain": picture} if raw else picture
    if handle is None:
        return sys.modules["IPython"].display.display(picture, raw=raw, display_id=True)
    handle.update(picture, raw=raw)
    return handle


def show_film(path):
    """Show a GIF in the notebook, as HTML: the form that every viewer of notebooks plays."""
    if in_notebook():
        film = base64.b64encode(Path(path).read_bytes()).decode("ascii")
        sys.modules["IPython"].display.display(sys.modules["IPython"].display.HTML(
            f'<img src="data:image/gif;base64,{film}" alt="The samples as training went on">'))


def show_slider(frames, labels):
    """Show uint8 arrays (H, W, 3) in the notebook, one at a time, with a slider and a label each."""
    if not in_notebook():
        return
    height, width, _ = frames[0].shape
    figure, axis = plt.subplots(figsize=(8, 8 * height / width + 0.3), dpi=75)
    axis.axis("off")
    pictures = [[axis.imshow(frame, animated=True), axis.text(0.5, 1.02, label, transform=axis.transAxes, ha="center")]
                for frame, label in zip(frames, labels)]
    with plt.rc_context({"animation.frame_format": "jpeg"}):
        html = ArtistAnimation(figure, pictures, interval=600).to_jshtml(default_mode="once")
    sys.modules["IPython"].display.display(sys.modules["IPython"].display.HTML(html))
    plt.close(figure)


class InPlace(io.TextIOBase):
    """What tqdm writes to in a notebook: one output that changes, where stdout would leave hundreds."""

    encoding, handle = "utf-8", None

    def write(self, text):
        if line := text.strip():
            self.handle = show_live(line, self.handle)


def progress(*args, **settings):
    """A tqdm bar: a single changing line in a notebook, on stdout elsewhere."""
    return tqdm(*args, file=InPlace() if in_notebook() else sys.stdout, mininterval=0.5, **settings)


# ---------------------------------------------------------------- ranks

on_its_own = False


def world():
    """This process's rank and the number of ranks, as torchrun says; (0, 1) without it. The first call joins the group."""
    return (0, 1) if on_its_own else _join()


@contextlib.contextmanager
def alone():
    """Within it, each rank works by itself: for checks."""
    global on_its_own
    before, on_its_own = on_its_own, True
    try:
        yield
    finally:
        on_its_own = before


@lru_cache(1)
def _join():
    """Join the group named by RANK, LOCAL_RANK, WORLD_SIZE and MASTER_ADDR: by NCCL between GPUs, by gloo between processors.

    Only rank 0 is heard to print from then on.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        return 0, 1
    if missing := {"RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} - os.environ.keys():
        raise ValueError(f"WORLD_SIZE = {size} does not work without {', '.join(sorted(missing))}: start the processes with torchrun, "
                         "or unset it to work alone.")
    rank, local_rank, has_gpu = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"]), torch.cuda.is_available()
    if has_gpu and local_rank >= torch.cuda.device_count():
        raise ValueError(f"--nproc-per-node does not work: each process needs a GPU of its own, and this machine has "
                         f"{torch.cuda.device_count()}.")
    if has_gpu:
        torch.cuda.set_device(local_rank)
    with all_present():
        store, _, _ = next(dist.rendezvous("env://"))
        if os.environ.get("GROUP_WORLD_SIZE") == "1":  # torchrun's store still holds the addresses of ranks that it has restarted
            store = dist.PrefixStore(f"start_{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        dist.init_process_group("cpu:gloo,cuda:nccl" if has_gpu else "gloo", store=store, rank=rank, world_size=size,
                                timeout=timedelta(hours=2))  # while rank 0 fetches the data, or scores
    atexit.register(dist.destroy_process_group)
    if rank:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
    return rank, size


@contextlib.contextmanager
def all_present():
    """Within it, a connection that breaks off is told as what it is: another rank is gone."""
    try:
        yield
    except RuntimeError as error:  # of gloo, NCCL or the store where they meet
        if not re.search(r"connection|\bpeer\b|socket|timed? ?out|gloo|nccl|tcpstore", str(error), re.IGNORECASE):
            raise
        raise ConnectionError("Another rank has ended, or does not answer, and this one ends with it. With --max-restarts torchrun "
                              "starts all of them again, and the run goes on from its checkpoint.") from error


def from_rank_0(value=None):
    """Rank 0's value, on every rank; the others wait for it."""
    if world()[1] == 1:
        return value
    values = [value]
    with all_present():
        dist.broadcast_object_list(values, device=torch.device("cpu"))
    return values[0]


@contextlib.contextmanager
def rank_0_first():
    """Within it, the other ranks begin when rank 0 is through, and find what it left."""
    rank, _ = world()
    if rank:
        from_rank_0()
    yield
    if not rank:
        from_rank_0()


def mean_of_ranks(tensor):
    """A tensor of floats, changed to its mean over all ranks; they wait for each other."""
    if world()[1] > 1:
        with all_present():
            dist.all_reduce(tensor)
        tensor /= world()[1]
    return tensor


def wait_for_ranks():
    """Return when all ranks have come here."""
    mean_of_ranks(torch.zeros(()))


def share_of(loader):
    """This rank's share of a DataLoader: its batches are those of all ranks together, in the order that its sampler gives.

    A loader of an IterableDataset, which has no order, is taken as the rank's own; all ranks' must be equally long.
    """
    _, size = world()
    if size == 1 or isinstance(loader.dataset, IterableDataset):
        return loader
    if loader.batch_size % size:
        raise ValueError(f"Batches of {loader.batch_size} do not work with {size} ranks, which share each of them: batch_size and "
                         f"swap_batch must be multiples of {size}.")
    order = list(loader.sampler)  # dealt out in turn, so that the next batch holds the same faces for any number of ranks
    mine = [order[i] for i in DistributedSampler(order, shuffle=False, drop_last=True)]
    return DataLoader(loader.dataset, loader.batch_size // size, sampler=mine, drop_last=True, collate_fn=loader.collate_fn,
                      num_workers=loader.num_workers, pin_memory=loader.pin_memory)


@contextlib.contextmanager
def trained_together(*networks):
    """Within it, the gradients of these networks are the means over all ranks, by DistributedDataParallel.

    On GPUs batch normalisation takes its statistics over all ranks (SyncBatchNorm), on processors over each rank's own images.
    """
    if world()[1] == 1:
        networks = ()
    elif not networks:
        raise ValueError("Several ranks train as one only what they know: give train a run that has D and G among its parts.")
    for network in networks:
        with all_present():
            network.forward = _together(network)
    try:
        yield
    finally:
        for network in networks:
            del network.forward


def _together(network):
    """A network's forward, such that the backward pass after it takes the mean over all ranks."""
    ranks, plain, inside = DistributedDataParallel(network), network.forward, False
    # Running statistics stay each rank's: training does not use them, and to set them between D's two looks would spoil its
    # backward pass. (By its argument this would warn, or fail, depending on the version of PyTorch.)
    ranks.broadcast_buffers = False
    norms = [(parent, name, norm, nn.SyncBatchNorm.convert_sync_batchnorm(norm)) for parent in network.modules()
             for name, norm in parent.named_children() if isinstance(norm, nn.BatchNorm2d) and norm.weight.is_cuda]

    def forward(*inputs):
        nonlocal inside
        if inside:
            return plain(*inputs)
        judged = [x for x in inputs if torch.is_tensor(x) and x.requires_grad]
        # Only the generator's images (D gets no gradients of that loss) and the leaves of a penalty have gradients themselves; a
        # penalty's second backward pass, which SyncBatchNorm has not, is part of D's own
        slopes, inside = any(x.is_leaf for x in judged), True
        try:
            for parent, name, norm, synced in norms:
                setattr(parent, name, norm if slopes else synced)
            return plain(*inputs) if judged else ranks(*inputs)
        finally:
            inside = False
            for parent, name, norm, _ in norms:
                setattr(parent, name, norm)

    return forward


# ---------------------------------------------------------------- getting the data

# The published archive, whose size is known before the download starts
PUBLISHED_BYTES = {"2cd4fbba4b618faeb4be18c69da3a68ff6a163057d12ff321cb044fc51f416d3": 247_694_507}
MAX_UNPACKED_BYTES = 20 * 2**30
MAX_SHAPE = 20  # times as long as wide, at most: made square, a strip would fill the memory
UNREADABLE = (OSError, ValueError, SyntaxError, LookupError, TypeError, ArithmeticError, EOFError, struct.error, zlib.error,
              Image.DecompressionBombError, Image.DecompressionBombWarning)  # what Pillow raises on damaged files
FULL = errno.ENOSPC, errno.EDQUOT
INCEPTION = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
OTHER_SEED = "seed1_"  # begins the names of the drawn faces that are held out
WAY_OUT = 'To go on without it, set data_dir = "drawn".'


class DataError(ValueError):
    """Data that is there but wrong. The message ends with the way out: the drawn faces."""

    def __init__(self, message):
        super().__init__(f"{message} {WAY_OUT}")


class Unreachable(Exception):
    """The archive could not be fetched, through no fault of the data."""


def find_data(data_dir, url=None, sha256=None, n_drawn=20_000, image_size=64, why='data_dir = "drawn"'):
    """Find the faces, say in one line where, and return their folder (a Path).

    In this order: images below `data_dir`; the archive at `url`, unpacked into `data_dir`;
    `n_drawn` drawn faces. `data_dir="drawn"` chooses the drawn faces outright, and says `why`.
    Raises DataError when data is there but wrong: no images in the folder, a damaged archive.
    """
    return from_rank_0(None if world()[0] else _find_data(data_dir, url, sha256, n_drawn, image_size, why))


def _find_data(data_dir, url, sha256, n_drawn, image_size, why):
    if str(data_dir) == "drawn":
        return _drawn_folder(n_drawn, image_size, why)
    folder = Path(data_dir)
    if folder.exists():
        print(f"Data: {len(find_images(folder)):,} images found in {folder}.")
        return folder
    try:
        if not url:
            raise Unreachable("no archive address is set")
        archive = download(url, CACHE / (sha256 or hashlib.sha256(url.encode()).hexdigest()), sha256)
    except Unreachable as error:
        return _drawn_folder(n_drawn, image_size, f"there is no folder {folder}, and {error}")
    try:
        n_images = unpack(archive, folder)
    except DataError:
        archive.unlink()
        raise
    archive.unlink()
    print(f"Data: {n_images:,} images downloaded from {url} into {folder}.")
    return folder


def is_image(path):
    """Whether `path` names a picture, and not what Finder and zip leave beside them."""
    name = os.path.basename(path)
    return (os.path.splitext(name)[1].lower() in IMAGE_TYPES and not name.startswith(".")
            and "__MACOSX" not in str(path))


def load_image(path):
    """An image file as RGB, as a person would see it: upright, 16 bits brought to 8, on white where it is transparent."""
    with Image.open(path, formats=IMAGE_FORMATS) as image:
        if max(image.size) > MAX_SHAPE * min(image.size):
            raise ValueError(f"{path} is a strip of {image.width} x {image.height} pixels.")
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # grey of 16 bits, which Pillow would cut off at 255
            image = Image.fromarray((np.asarray(image, np.float32) / 257).round().clip(0, 255).astype(np.uint8))
        if image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        return image.convert("RGB")


def load_face(path, image_size, box=None):
    """A photograph, cut to its centre or to `box` (left, top, right, bottom, in pixels): (1, 3, S, S) in [-1, 1]."""
    try:
        with refusing_bombs():
            image = load_image(path)
    except UNREADABLE as error:  # or not there
        raise ValueError(f"{path} cannot be read as a picture ({error}). Give the path of a JPEG or PNG file.") from error
    if box is not None:
        if len(box) != 4 or not (0 <= box[0] < box[2] <= image.width and 0 <= box[1] < box[3] <= image.height):
            raise ValueError(f"The box {box} does not lie in {path}, which is {image.width} x {image.height} pixels: give left, top, "
                             "right and bottom, in pixels from the upper left corner.")
        image = image.crop(box)
    face = np.asarray(ImageOps.fit(image, (image_size, image_size), Image.BICUBIC), np.float32)
    return torch.from_numpy(face / 127.5 - 1).permute(2, 0, 1)[None]


@contextlib.contextmanager
def refusing_bombs():
    """Within it, a picture of more pixels than Pillow thinks safe is unreadable instead of a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def readable(dataset, indices):
    """Those of `indices` whose images in an ImageFolder can be read; DataError if there are none."""
    def can_be_read(index):
        with contextlib.suppress(*UNREADABLE):
            return dataset[index] is not None

    with refusing_bombs():
        found = [index for index in indices if can_be_read(index)]
    if not found:
        raise DataError(f"None of the {len(indices)} images tried in {dataset.root} can be read "
                        f"(the first: {printable(dataset.samples[indices[0]][0])}).")
    return found


def printable(path):
    """The file's name, with question marks for bytes that are no text."""
    return os.fsencode(os.path.basename(path)).decode("utf-8", "replace")


def find_images(folder):
    """The paths of the images below `folder`, at any depth; DataError if there are none.

    Links to folders elsewhere are followed, into each folder once: links that go round in circles do no harm.
    """
    if not Path(folder).is_dir():
        raise DataError(f"{folder} is not a folder. data_dir must name a folder of images; "
                        "for an archive on disk set data_url to its file:// address.")
    paths, seen, top = [], set(), os.path.realpath(folder)
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen or seen and os.path.islink(root) and Path(real).is_relative_to(top):
            folders.clear()  # what lies below `folder` comes under its own name
            continue
        seen.add(real)
        folders.sort()
        paths += filter(is_image, (os.path.join(root, name) for name in sorted(names)))
    if not paths:
        raise DataError(f"The folder {Path(folder).resolve().name} ({folder}) holds no images "
                        f"({', '.join(IMAGE_TYPES)}). Put some into it, or remove it so that the archive is fetched.")
    return paths


def class_folders(folder):
    """Class names below `folder` for an ImageFolder: its sub-folders that hold images.

    Images that lie directly in `folder` make it one class, ".", with all that is below it.
    """
    tops = {Path(path).relative_to(folder).parts[0] for path in find_images(folder)}
    return ["."] if any(Path(folder, name).is_file() for name in tops) else sorted(tops)


def labelled_images(folder, classes):
    """[(path, class number), ...] of the images below `folder`; `classes`: names from class_folders to their numbers."""
    return [(path, 0 if "." in classes else classes[Path(path).relative_to(folder).parts[0]]) for path in find_images(folder)]


def download(url, path, sha256=None, timeout=15):
    """Fetch `url` (http, https or file) to `path`, with a progress bar, going on where it stopped.

    Returns the path, once size, zip signature and sha256 are right. Raises Unreachable when the
    address does not answer and DataError when what it answers is not the archive.
    """
    path = Path(path).with_suffix(".zip")
    if path.exists():  # fetched and checked before, but not unpacked
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    have = partial.stat().st_size if partial.exists() else 0
    with contextlib.closing(_open_url(url, have, timeout)) as answer:
        _copy(answer, partial, have, sha256, url)
    _check_archive(partial, sha256, url)
    os.replace(partial, path)
    return path


def _open_url(url, offset, timeout):
    """urlopen in a thread of its own: looking up a name can hang for longer than any timeout."""
    headers = {"User-Agent": "face-generation-lesson"} | ({"Range": f"bytes={offset}-"} if offset else {})
    outcome = []

    def fetch():
        try:
            outcome.append(urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout))
        except Exception as error:  # handed to the caller below
            outcome.append(error)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    thread.join(timeout + 5)
    answer = outcome[0] if outcome else TimeoutError("no answer")
    if isinstance(answer, urllib.error.HTTPError) and answer.code == 416:  # nothing left to send
        return _open_url(url, 0, timeout)
    if isinstance(answer, ValueError):
        raise DataError(f"data_url = {url!r} is not an address: it must start with https://, http:// or file://.")
    if isinstance(answer, Exception):
        reason = getattr(answer, "reason", None) or answer
        raise Unreachable(f"the archive at {url} cannot be reached ({reason})")
    return answer


def _copy(answer, partial, have, sha256, url):
    """Write `answer` to the file `partial`, of which `have` bytes are there; Unreachable if it breaks off."""
    if getattr(answer, "status", None) != 206:  # the server starts again from the beginning
        have = 0
    length = answer.headers.get("Content-Length")
    total = have + int(length) if length else PUBLISHED_BYTES.get(sha256)
    size = f"{total / 1e6:,.0f} MB" if total else "size unknown"
    try:
        block = answer.read(2**16)
        if not have:
            _check_head(block, url, answer.geturl())  # before anything is overwritten
        print(f"Downloading {url} ({size}).")
        with progress(total=total, initial=have, unit="B", unit_scale=True, desc="download") as bar, \
                open(partial, "r+b" if have else "wb") as file:
            file.seek(have)
            while block:
                file.write(block)
                have += len(block)
                bar.update(len(block))
                block = answer.read(2**18)
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) in FULL:
            raise OSError(error.errno, f"The disk is full: of {size}, {have / 1e6:.0f} MB could be downloaded. Make room, "
                                       "and run the cell again to go on from there") from error
        raise Unreachable(f"the download broke off at {have / 1e6:.0f} MB ({error}); "
                          "run the cell again to go on from there") from error
    if total and have < total:
        raise Unreachable(f"the download broke off at {have / 1e6:.0f} of {size}; "
                          "run the cell again to go on from there")


def _check_head(head, url, came_from):
    """DataError unless these first bytes of an answer, which `came_from` that address, are a zip file's."""
    if b"<html" in head.lower() or b"<!doctype" in head.lower():
        redirected = f"sends on to {came_from}, which " * (came_from != url)
        raise DataError(f"{url} {redirected}answers with a web page (HTML) instead of the archive, as a login page or a "
                        "download quota does. Download the archive in a browser and set data_url to its file:// address.")
    if not head.startswith(b"PK"):
        raise DataError(f"What lies at {url} is not a zip archive: its first bytes are not a zip file's.")


def _check_archive(path, sha256, url):
    """DataError, and the file is removed, unless it has this sha256."""
    if sha256 and (came := _sha256(path)) != sha256.lower():
        size, expected = path.stat().st_size, PUBLISHED_BYTES.get(sha256)
        path.unlink()
        raise DataError(f"What lies at {url} has the " + (
            f"wrong size, {size:,} bytes instead of {expected:,}" if expected and size != expected
            else f"wrong sha256, {came} instead of {sha256}")
            + ": it is damaged, or another file. It was removed; try again, or correct data_sha256.")


def _sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def filled(folder):
    """Yield an empty folder that takes the place of `folder` once all is in it; after an error nothing is left."""
    beside = Path(f"{folder}.unfinished")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        os.replace(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def unpack(archive, folder):
    """Unpack the images of a zip into `folder` and return how many; all of them or none.

    Without the folder levels that only the archive has: its top and "New Folder With Items", which Finder made. A DataError
    where an entry is not as it should be (_is_wanted), or all together are more than MAX_UNPACKED_BYTES.
    """
    try:
        with zipfile.ZipFile(archive) as pack, filled(folder) as beside:
            members = [member for member in pack.infolist() if _is_wanted(member)]
            if not members:
                raise DataError("The archive holds no images.")
            if sum(member.file_size for member in members) > MAX_UNPACKED_BYTES:
                raise DataError(f"The archive would unpack to more than {MAX_UNPACKED_BYTES / 2**30:.0f} GiB.")
            for member in progress(members, desc="unpack", unit="img", disable=len(members) < 1000):
                *folders, name = PurePosixPath(member.filename).parts
                target = beside.joinpath(*[part for part in folders[1:] if part != "New Folder With Items"], name)
                if target.exists():
                    target = beside.joinpath(*folders, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                with pack.open(member) as source, open(target, "xb") as file:
                    shutil.copyfileobj(source, file)
        return len(members)
    except DataError:
        raise
    except (OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, ValueError, EOFError) as error:
        if getattr(error, "errno", None) in (None, errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ):
            raise DataError(f"The archive cannot be unpacked: {error}.") from error
        raise OSError(  # the disk's fault, not the archive's, which stays
            error.errno, f"The archive cannot be unpacked into {folder}: {error.strerror}. Change that, and run the cell "
                         f"again. {WAY_OUT}") from error


def _is_wanted(member):
    """Whether to unpack this entry of a zip; DataError if no honest archive would hold it."""
    name = member.filename
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise DataError(f"The archive was refused: its entry {name!r} leads outside the folder.")
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DataError(f"The archive was refused: its entry {name!r} is a link or a device, not a file.")
    if member.flag_bits & 1:
        raise DataError(f"The archive was refused: its entry {name!r} is encrypted.")
    return not member.is_dir() and is_image(name)


def _drawn_folder(n, image_size, reason):
    """Draw `n` faces into a folder, once, as CelebA lays them out: images and a list of attributes.

    Beside them faces from another seed, an eighth as many, that are held out of the training.
    """
    check_counts(n_drawn=n)
    size, held_out = max(64, image_size), most_held_out(n)
    folder = Path("drawn_faces", f"{n}_at_{size}_v{DRAWING}")
    if not folder.exists():
        with filled(folder) as beside, open(beside / ATTRIBUTES_FILE, "w", encoding="utf-8") as table, \
                ThreadPoolExecutor(os.cpu_count()) as pool, progress(total=n + held_out, unit="img", desc="drawing") as bar:
            (beside / "faces").mkdir()
            print(n + held_out, " ".join(DRAWN_ATTRIBUTES), sep="\n", file=table)
            portions = [(seed, first, min(1000, count - first)) for seed, count in enumerate((n, held_out))
                        for first in range(0, count, 1000)]
            for seed, first, count in portions:
                images, attributes = draw_faces(count, size, seed, first)
                names = [f"{OTHER_SEED * seed}{first + i + 1:06d}.jpg" for i in range(count)]
                pixels = (Image.fromarray(image) for image in images.permute(0, 2, 3, 1).numpy())
                paths = [beside / "faces" / name for name in names]
                list(pool.map(lambda image, path: image.save(path, quality=95, subsampling=0), pixels, paths))
                signs = torch.stack([attributes[name] for name in DRAWN_ATTRIBUTES], 1).int() * 2 - 1
                for name, row in zip(names, signs.tolist()):
                    print(name, *row, file=table)
                bar.update(len(images))
    print(f"Data: {n:,} drawn faces in {folder}{f' and {held_out:,} to be held out' * (held_out > 0)}, because {reason}.")
    return folder


# ---------------------------------------------------------------- drawn faces

DRAWING = 3  # to be raised when the faces change, so that they are drawn anew
DRAWN_ATTRIBUTES = tuple(
    "Male Young Smiling Mouth_Slightly_Open Eyeglasses Heavy_Makeup Wearing_Lipstick Rosy_Cheeks Black_Hair Brown_Hair Blond_Hair "
    "Gray_Hair Bald Receding_Hairline Bangs Straight_Hair Wavy_Hair Bushy_Eyebrows No_Beard Mustache Goatee".split())

# Skin tones: edges of six bands of the typology angle; angle, L*, a*, b* of seven skins
ITA_EDGES = 65, 55, 41, 28, 10, -30, -62
ITA_SKINS = np.array([(-65, 27, 9, 10.5), (-50, 34, 11, 14), (-10, 46.5, 13, 19),
                      (19, 56, 12, 18), (35, 62, 11, 17), (48, 67, 9, 15), (65, 73, 7, 11)])
HAIR_RGB = dict(Black_Hair=(.10, .08, .08), Brown_Hair=(.33, .21, .13),
                Blond_Hair=(.80, .63, .38), Red_Hair=(.56, .25, .11), Gray_Hair=(.70, .69, .68))
IRIS_RGB = ((.20, .11, .06), (.30, .17, .08), (.36, .34, .16), (.28, .44, .30), (.30, .47, .62), (.45, .53, .58))
LIP_RGB = ((.72, .10, .16), (.80, .27, .36), (.60, .10, .25), (.74, .36, .34), (.84, .32, .25), (.45, .10, .17))
LID_RGB = (.35, .20, .18), (.30, .22, .34), (.25, .28, .35), (.45, .30, .20), (.16, .13, .14)
CLOTH_RGB = ((.13, .14, .18), (.85, .84, .82), (.20, .28, .45), (.55, .16, .18), (.25, .40, .33),
             (.62, .50, .36), (.45, .47, .52), (.60, .45, .62))
FRAME_RGB = (.05, .05, .06), (.22, .12, .07), (.6, .55, .45), (.3, .1, .12)

# The hills of a face: centre below the eye line, widths, height, occlusion
RELIEF = ((0, .12, .062, .16, .033, 0), (.23, -.14, .17, .06, .027, 0), (.17, -.03, .09, .07, -.015, .12),
          (.34, .24, .17, .13, .042, -.02), (0, .66, .14, .035, -.018, .12), (0, .77, .14, .09, .03, -.02),
          (0, -.38, .30, .16, .03, -.03), (.13, .42, .06, .08, -.006, .03), (0, .43, .025, .04, -.006, .06),
          (.085, .10, .032, .12, 0, .09))
WARM, COOL, EYE_WHITE, LIP_TINT, DARK, WHITE = (torch.tensor(colour).view(3, 1, 1) for colour in (
    (1., .91, .87), (.1, .9, .8), (.97, .95, .93), (.90, .64, .63), (.07, .05, .05), (1., 1., 1.)))
CHUNK_PIXELS = 64 * 64 ** 2  # what the cache holds


class _Chance:
    """Deals out the columns of one table of uniforms, a row per person."""

    def __init__(self, table, fixed):
        self.columns, self.fixed, self.faces = iter(table.T), fixed, {}

    def uniform(self, low=0., high=1.):
        return low + (high - low) * next(self.columns)

    def bell(self, mean, width):
        """A triangular bell on mean +- width."""
        return mean + width * (next(self.columns) + next(self.columns) - 1)

    def flag(self, name, p):
        """An attribute, noted and returned: true with probability p, unless it is settled."""
        drawn = next(self.columns) < p
        self.faces[name] = np.full_like(drawn, bool(self.fixed[name])) if name in self.fixed else drawn
        return self.faces[name]

    def choice(self, weights, names=()):
        """One option by weight, wishes first; a lost option moves nobody else."""
        wish = [(name in self.fixed) * (2000 * bool(self.fixed.get(name)) - 1000) for name in names] or [0] * len(weights)
        scores = [np.log(w + 1e-9) - np.log(-np.log(next(self.columns) + 1e-12)) + extra for w, extra in zip(weights, wish)]
        return np.argmax(scores, axis=0)

    def rgb(self, colours, width=.3):
        """Colours, one a person, made lighter or darker and tinged."""
        tinge = np.stack([self.bell(1, .06) for _ in range(3)], 1)
        return (colours * tinge * self.bell(1, width)[:, None]).clip(.02, 1)

    def pick(self, palette):
        return np.array(palette)[(self.uniform() * len(palette)).astype(int)]


def _skin_rgb(ita):
    """Skin of a typology angle, from CIE L*a*b* (D65) to sRGB."""
    light, a, b = (np.interp(ita, ITA_SKINS[:, 0], ITA_SKINS[:, k]) for k in (1, 2, 3))
    f = np.stack([(light + 16) / 116 + a / 500, (light + 16) / 116, (light + 16) / 116 - b / 200])
    xyz = np.where(f > 6 / 29, f ** 3, (f - 4 / 29) * 108 / 841) * [[.9505], [1], [1.089]]
    to_rgb = [[3.2406, -1.5372, -.4986], [-.9689, 1.8758, .0415], [.0557, -.2040, 1.057]]
    rgb = np.array(to_rgb) @ xyz
    return np.where(rgb > .0031308, 1.055 * rgb.clip(.003) ** (1 / 2.4) - .055, 12.92 * rgb).T


def _imagine_people(c):
    """Who they are, with the loose ties attributes have among people."""
    a, flag = c.faces, c.flag
    a["ita"] = np.interp(6 * c.uniform(), range(7), ITA_EDGES)
    pale = np.interp(a["ita"], [-20, 50], [0, 1])
    male = flag("Male", .46)
    young = flag("Young", np.where(male, .69, .81))
    flag("Mouth_Slightly_Open", np.where(flag("Smiling", np.where(male, .42, .54)), .75, .18))
    flag("Eyeglasses", np.where(young, .06, .19))
    heavy = flag("Heavy_Makeup", np.where(male, .02, .56 + .14 * young))
    told = "Heavy_Makeup" in c.fixed  # then lipstick follows
    flag("Wearing_Lipstick", heavy * 1. if told else np.where(heavy, .95, .12 * ~male))
    flag("Rosy_Cheeks", np.where(heavy, .25, .05))
    flag("Bushy_Eyebrows", np.where(male, .25, .06))

    haired = any(c.fixed.get(k) for k in (*HAIR_RGB, "Bangs", "Straight_Hair", "Wavy_Hair", "Receding_Hairline"))
    bald = flag("Bald", (not haired) * np.where(male, np.where(young, .03, .2), .002))
    receding = flag("Receding_Hairline", np.where(male, np.where(young, .06, .35), .02))
    a["Bangs"] = flag("Bangs", np.where(male, .07, .20) * ~receding) & ~bald
    a["Receding_Hairline"] = receding & ~bald & ~a["Bangs"]
    a["hue"] = c.choice([1.1 - .8 * pale, .2 + .35 * pale, .01 + .34 * pale ** 2, .01 + .05 * pale,
                         np.where(young, .005, .7)], HAIR_RGB)
    a.update({name: (a["hue"] == k) & ~bald for k, name in enumerate(HAIR_RGB)})
    style = c.choice([np.where(male, m, f) for m, f in (  # short, bob, long, tied, afro
        (.84, .10), (.02, .20), (.07, .50), (.01, .14))] + [.06 * (1.4 - pale)])
    straight = c.fixed.get("Straight_Hair")
    p = np.where(male, .25, .5) + (style == 4) if straight is None else 1 - bool(straight)
    a["Wavy_Hair"] = flag("Wavy_Hair", p) & ~bald
    a["Straight_Hair"] = ~a["Wavy_Hair"] & ~bald
    a["style"] = np.where((style == 4) & a["Straight_Hair"], 0, style)

    full = .15 * bool(c.fixed.get("Mustache", True))  # it has a moustache
    beard = c.choice([np.where(male, w, w == .5) for w in (.50, .18, .07, .10, full)],
                     ["No_Beard", "", "Mustache", "Goatee", ""])
    a["beard"] = beard  # none, stubble, moustache, goatee, full
    a.update(No_Beard=beard == 0, Mustache=(beard == 2) | (beard == 4), Goatee=beard == 3)


def _imagine_features(c, a):
    """Pose and face, in units of about half the picture."""
    male, old, smile = a["Male"] * 1., ~a["Young"] * 1., a["Smiling"] * 1.
    return dict(
        yaw=c.bell(0, .55), roll=c.bell(0, .14), pitch=c.bell(0, .3), zoom=c.bell(1.12, .13),
        dx=c.bell(0, .07), dy=c.bell(.11, .06), wide=c.bell(.575 + .015 * male, .05), up=c.bell(.76, .05),
        low=c.bell(.79 + .05 * male, .06), jaw=c.bell(.4 + .3 * male, .3), taper=c.bell(.07 - .06 * male, .06),
        neck=c.bell(.31 + .09 * male, .04), eye_x=c.bell(.245, .02), eye_w=c.bell(.14 - .006 * male, .014),
        gaze=c.bell(0, .03), eye_h=c.bell(.066 - .009 * male - .006 * old - .008 * smile, .014),
        tilt=c.bell(.008, .022), iris_r=c.bell(.062, .004), brow_y=c.bell(-.162 + .016 * male, .025),
        brow_arch=c.bell(.035 - .015 * male, .02),
        brow_t=c.bell(.024 + .008 * male, .008) + .011 * a["Bushy_Eyebrows"], brow_tilt=c.bell(.002, .018),
        nose_w=c.bell(.085 + .008 * male - .0002 * a["ita"], .018), nose_y=c.bell(.30, .035), nose_h=c.bell(1, .35),
        mouth_y=c.bell(.52, .03), mouth_w=c.bell(.185, .02) + .05 * smile, lift=c.bell(.02, .014) + .05 * smile,
        lip=c.bell(1.05 - .15 * male - .15 * old - .003 * a["ita"], .25),
        gape=a["Mouth_Slightly_Open"] * c.bell(.045 + .025 * smile, .02), smile=smile, age=old * c.uniform(.55, 1),
        freckles=c.uniform(-8, 1).clip(0) * (a["ita"] > 35), frame_w=c.bell(.185, .025), frame_h=c.bell(.125, .035),
        frame_t=c.uniform(.008, .028), shades=c.uniform() < .18, strength=c.uniform(.65, 1))


def _imagine_hair(c, a):
    """The cut: outline, opening for the face, part and curl."""
    style, wavy = a["style"], a["Wavy_Hair"]
    cut = lambda *each: np.choose(style, each)
    return dict(
        side=cut(.012, .12, .10, .015, .24) + cut(.4, 1, 1, 1, 1) * c.uniform(0, .05) + .03 * wavy,
        top=cut(.06, .10, .09, .03, .22) + c.uniform(0, .09), length=cut(0, .72, 1.9, .1, .55) + c.uniform(-.04, .1),
        flare=cut(0, .04, .08, 0, 0) + c.bell(0, .08) * (style == 2), wave=wavy * c.uniform(.5, 1), part=c.bell(0, 1),
        skew=c.bell(0, .35) * ~a["Bangs"], square=(cut(.55, .5, .3, .4, .6) * c.uniform(.6, 1.2)).clip(0, 1),
        open_x=cut(.56, .50, .50, .60, .57) + c.bell(0, .03),
        open_y=np.where(a["Bangs"], .235, cut(.52, .46, .46, .46, .46)) + .1 * a["Receding_Hairline"] + c.bell(0, .04),
        curl=cut(0, 0, 0, 0, 1.) + .3 * wavy * (style == 0))


def _imagine_colours(c, a):
    """Pigments, light and surroundings; colours are (n, 3)."""
    ita, warm, angle, high = a["ita"], c.bell(.04, .07), c.bell(0, 1.15), c.bell(.42, .35)
    iris = (c.uniform(-3.5, 3) + np.interp(ita, [0, 60], [-2.5, 3])).clip(0, 5.9).astype(int)
    tint = np.stack([c.uniform(low, 1) for low in (.72, .72, .65)], 1)
    exposure = c.bell(1.24, .12) - .0013 * ita  # as a photographer would
    return dict(
        skin=_skin_rgb(ita) * c.bell(1, .04)[:, None],
        hair=c.rgb(np.array(list(HAIR_RGB.values()))[a["hue"]], .22), iris=c.rgb(np.array(IRIS_RGB)[iris], .2),
        lipstick=c.rgb(c.pick(LIP_RGB), .15), lid=c.pick(LID_RGB), cloth=c.rgb(c.pick(CLOTH_RGB)),
        frame=c.rgb(c.pick(FRAME_RGB)),
        light=np.stack([1 + warm, np.ones_like(warm), 1 - warm], 1) * exposure[:, None],
        lx=np.sin(angle) * np.cos(high), ly=-np.sin(high), lz=np.cos(angle) * np.cos(high), ambient=c.bell(.40, .2),
        gloss=c.bell(.34, .2), back_x=c.bell(0, .5), back_y=c.bell(-.1, .4), blobs=c.uniform(0, .32),
        coarse=(24 * c.uniform()).astype(int), fine=(24 * c.uniform()).astype(int),
        back=(tint * c.uniform(.1, 1.15)[:, None]).clip(0, .96), back2=tint ** .5 * c.uniform(.1, 1)[:, None])


def imagine_faces(n, seed=0, first=0, **fixed):
    """The attributes and latent parameters of n people, from number `first` on, one row each.

    Person k of a seed is the same in every call. A keyword such as Heavy_Makeup=True
    settles an attribute for all and leaves the rest of each person; where wishes
    contradict each other, the attributes tell what is drawn.
    """
    unknown = sorted(set(fixed) - set(DRAWN_ATTRIBUTES))
    if unknown:
        raise ValueError(f"unknown attributes {unknown}; known are {', '.join(DRAWN_ATTRIBUTES)}")
    source = np.random.default_rng(seed)
    source.bit_generator.advance(200 * first)
    chance = _Chance(source.random((n, 200)), fixed)
    _imagine_people(chance)
    for imagine in _imagine_features, _imagine_hair, _imagine_colours:
        chance.faces.update(imagine(chance, chance.faces))
    return chance.faces


@lru_cache(4)
def _noise_tiles(size):
    """Smooth random tiles, coarse and fine, that all faces share."""
    rng = np.random.default_rng(7)
    grids = [torch.from_numpy(rng.standard_normal((24, 1, k, k), np.float32)) for k in (7, 44)]
    return [F.interpolate(g, (size, size), mode="bicubic", align_corners=True)[:, 0] for g in grids]


def _within(d, soft):
    """Antialiased mask of the region where the distance d is negative."""
    return (.5 - d / soft).clamp_(0, 1)


def _bump(x, y, sx, sy):
    """A Gaussian hill of unit height."""
    return ((x / sx).square() + (y / sy).square()).neg_().exp_()


def _ridge(d, width):
    return (d / width).square_().neg_().exp_()


def _blend(v, colour, mask):
    """Paint a colour through a mask, in place."""
    v.img.lerp_(colour, mask[:, None])


def _rows(v, top, bottom):
    """Views of the maps on a band of rows, given in face units, with a margin."""
    size = v.img.shape[-1]
    cut = slice(*(int(min(max(t * .56 + .445, 0), 1) * size) for t in (top - .16, bottom + .16)))
    return SimpleNamespace(**{k: m[..., cut, :] if m.shape[-2] == size else m for k, m in vars(v).items()})


def _maps(p, size):
    """Pixel maps: head coordinates x, y and, round the turned head, face u, w."""
    t = (torch.arange(size) + .5) * 2 / size - 1
    gx, gy = t - p.dx, t[:, None] + p.dy
    x = (gx * p.roll.cos() + gy * p.roll.sin()) / p.zoom
    y = (gy * p.roll.cos() - gx * p.roll.sin()) / p.zoom
    ry = torch.where(y > 0, y / p.low, y / p.up)
    below = ry.clamp(0, 1.2)
    rx = (x - .12 * p.yaw * below) / (p.wide * (1 - p.taper * below))
    r2 = rx.square() + ry.square() * (1 - p.jaw + p.jaw * ry.abs())
    nz = (1 - r2).clamp_(min=.02).sqrt_()
    u = p.wide * (rx * p.yaw.cos() - nz * p.yaw.sin())
    coarse, fine = (tiles[k.flatten()] for tiles, k in zip(_noise_tiles(size), (p.coarse, p.fine)))
    mix = (.5 + p.back_x * gx + p.back_y * gy + p.blobs * coarse).clamp_(0, 1)[:, None]
    px = 2 / size / p.zoom
    return SimpleNamespace(img=p.back + (p.back2 - p.back) * mix, px=px, x=x, y=y, rx=rx, ry=ry, r2=r2, nz=nz, u=u,
        w=y + .12 * p.pitch * (nz - .5), au=u.abs(), sign=u.sign(), coarse=coarse, fine=fine,
        head=_within((r2.sqrt() - 1) * .6, px), vignette=1.12 - .11 * (gx.square() + gy.square()))


def _hair(v, p):
    """Outline, opening for the face, and shaded colour of the hair."""
    down = v.y.clamp(min=0)
    sway = (v.y * 9 + 4 * p.part + 2 * v.coarse).sin_() * p.wave
    hx = v.x / (p.wide + p.side + p.flare * down + .03 * sway * down.clamp(max=1))
    hy = v.y.clamp(max=0) / (p.up + p.top)
    r2 = hx.square() + hy.square() - .35 * (hx * hy).square()
    flow = hx * 20 + 1.6 * sway + 2.6 * v.coarse + .2 * v.fine
    strand = (.22 * flow.sin() + .3 * (flow * 2.3 + 5 * p.part).sin_() + .4 * (flow * .37).sin_()
              + (.22 + .5 * p.curl) * v.fine)
    rough = .005 * strand + .03 * p.curl * v.fine + .01 * v.coarse
    edge = torch.maximum((r2.sqrt() - 1) * .65 + rough, v.y - p.length - .06 * strand)
    ox = ((v.u - .1 * p.part) / p.open_x).square()
    oy = ((v.w + p.skew * v.u).clamp(max=0) / p.open_y).square()
    opening = (ox + oy - p.square * ox * oy * ((ox < 1) & (oy < 1)) - 1 + .05 * strand) * .25
    dome = .8 * (hx * p.lx + hy * p.ly) + (1 - r2).clamp_(min=0).sqrt_() * p.lz
    sheen = _bump(hy + .55 + .05 * strand, hx - p.lx, .16, .8) * (1 - p.curl)
    tone = (.42 + .42 * dome.clamp(min=-.3) + .20 * strand + .35 * sheen).clamp_(.05, 1.5)
    colour = p.hair * (.25 + .85 * tone[:, None]) + .12 * sheen[:, None]
    return _within(edge, v.px + .04 * p.curl) * (1 - p.Bald), opening, colour * (p.light * .5 + .45)


def _paint_front_hair(v, p, mask, opening, colour):
    """Hair round the face, with its shadow on the brow."""
    cast = _within(-opening - .03, .12) * v.head * _within(v.w, .3)
    _blend(v, p.skin * .4, .4 * cast * (1 - p.Bald))
    short = p.length < .2
    fade = _within(v.w - p.length, .04 + .2 * short)
    _blend(v, colour, mask * fade * _within(-opening, .05 + .05 * short))


def _paint_body(v, p):
    """Neck in the shadow of the chin, clothes, and ears, the far one narrower."""
    side, out, far = v.x / p.neck, v.x.abs() - p.wide, v.x.sign()
    tone = .80 + .25 * side * p.lx - .2 * side.square()
    tone = tone - .36 * _bump(v.x + .1 * p.lx, v.y - p.low, .5, .17)
    neck = _within(side.abs() * p.neck - p.neck - .35 * (v.y - 1).clamp(min=0), v.px) * (v.y > .3)
    _blend(v, p.skin * p.light * WARM * tone.clamp(.25, 1)[:, None], neck)
    collar = .92 + .28 * v.x.abs() + .16 * _bump(v.x, v.y - 1.1, .22, .4)
    shade = .72 + .22 * v.x * p.lx + .10 * v.coarse
    _blend(v, p.cloth * p.light * shade[:, None], _within(collar - v.y, 1.5 * v.px))
    ex, ey = out / (.085 * (1 - far * p.yaw * 1.6).clamp(.2, 1.2)), (v.y - .12 + .1 * out) / .17
    tone = .78 + .3 * far * p.lx - .35 * _bump(ex - .3, ey, .35, .6)
    ear = _within(((ex.square() + ey.square()).sqrt() - 1) * .08, v.px)
    _blend(v, p.skin * p.light * WARM * tone[:, None], ear)


def _paint_head(v, p):
    """The head under one light, its relief tilting the normals."""
    v.lam = (v.rx * p.lx + v.ry * p.ly) * (.5 + .5 * v.r2.clamp(max=1)) + v.nz * p.lz
    v.dark = (v.r2 - .45).clamp_(0, .6) * .35
    for cx, cy, sx, sy, height, dark in RELIEF:
        r = _rows(v, cy - 2 * sy, cy + 2 * sy)
        dx, dy, lx = (r.au - cx, r.w - cy, r.sign * p.lx) if cx else (r.u, r.w - cy, p.lx)
        hill = _bump(dx, dy, sx, sy)
        r.lam += 2 * height * hill * (dx * lx / sx ** 2 + dy * p.ly / sy ** 2)
        r.dark += dark * hill
    _shape_nose(_rows(v, 0, .6), p)
    _shape_age(_rows(v, -.45, .25), p)
    tone = p.ambient + (1.08 - p.ambient) * (v.lam * .75 + .25).clamp_(0, 1.3)
    tone = (tone * (1 - v.dark) + .012 * v.fine)[:, None]
    blush = _bump(v.au - .35, v.w - .25 + .3 * (v.au - .35), .17, .12)
    blush *= .07 + .13 * p.Rosy_Cheeks + .13 * p.Heavy_Makeup * p.strength
    spots = .4 * (v.fine - 1).clamp_(0, 1) * p.freckles * _bump(v.au - .2, v.w - .2, .28, .14)
    skin = p.skin * p.light * tone * (WARM + (1 - WARM) * tone.clamp(max=1))  # shadows glow
    gloss = 2.2 * p.gloss * (v.lam - .72).clamp_(0, .6).square_()
    _blend(v, skin * (1 - (blush + spots)[:, None] * COOL) + gloss[:, None] * p.light, v.head)


def _shape_nose(r, p):
    """Nose with wings, nostrils and cast shadow, and the smile folds."""
    cx, cy, nw = r.u - .09 * p.yaw, r.w - p.nose_y, p.nose_w
    ax = cx.abs()
    ball, wing = _bump(cx, cy, nw * .8, .065), _bump(ax - nw, cy - .015, .042, .045)
    r.lam += p.nose_h * ball * (5.6 * cx * p.lx + 6.7 * cy * p.ly)
    r.lam += p.nose_h * wing * (6.7 * (ax - nw) * r.sign * p.lx + 6 * cy * p.ly)
    r.lam += .16 * _bump(cx, cy + .02, .035, .035)
    r.dark += .55 * _bump(ax - nw * .55, cy - .048, .027, .016)
    r.dark += .27 * _bump(cx + .05 * p.lx, cy - .085, nw * 1.3, .03)
    r.dark += .22 * _bump(ax - nw * 1.38, cy - .01, .018, .04)
    t = ((cy + .02) / (p.mouth_y - p.nose_y + .06)).clamp(0, 1)
    fold = r.au - nw * 1.35 - (p.mouth_w - .08) * t
    deep = (.13 * p.smile + .17 * p.age + .03) * (1 - (2 * t - 1).square())
    r.dark += deep * _ridge(fold, .034)
    r.lam += deep * .35 * _ridge(fold - .05, .04)


def _shape_age(r, p):
    """Forehead lines, crow's feet and bags under the eyes."""
    lines = (75 * r.w + 9 * r.u.square() + r.coarse).sin_().clamp_(min=0)
    feet = (70 * r.w + 20 * r.au).sin_().clamp_(min=0)
    bag = _bump(r.au - .235, r.w - .105 + 1.8 * (r.au - .235).square(), .11, .018)
    r.dark += p.age * (.13 * lines * _bump(r.u, r.w + .33, .3, .09)
                       + .16 * feet * _bump(r.au - .44, r.w - .01, .05, .07))
    r.dark += (.07 + .20 * p.age) * bag


def _paint_eyes(v, p):
    """Lids, eyeball, iris and lashes, both sides at once."""
    ex = (v.au - p.eye_x) / p.eye_w
    ey, bow = v.w + p.tilt * ex, (1 - ex.square()).clamp_(min=0)
    upper = ey + p.eye_h * bow * (1.1 + .15 * ex)  # height below the upper lid
    lower = ey - p.eye_h * bow * (.62 - .12 * p.smile)
    made, beyond = p.Heavy_Makeup * p.strength, (ex.abs() - 1).clamp(min=0)
    shadow = .75 * made * (ey < 0) * _bump(ex, upper + .035, .95, .045)
    _blend(v, p.lid * (.5 + .5 * p.skin), shadow)
    crease = _bump(upper + .038, ex - .1, .011, .8)
    _blend(v, p.skin * .45, crease * (.45 + .2 * p.age) * (1 - .4 * made))
    hole = _within(torch.maximum(-upper, lower) + .3 * beyond, v.px) * (bow > 0)
    white = .92 - .25 * _ridge(upper, .03) - .18 * ex.square()
    _blend(v, white.clamp_(min=.3)[:, None] * (.5 + .42 * p.light) * EYE_WHITE, hole)
    ix, iy = v.au - p.eye_x - v.sign * p.gaze, ey + .006
    rad = (ix.square() + iy.square()).sqrt_() / p.iris_r
    glow = (1 + .6 * (iy / p.iris_r).clamp(-1, 1) - (rad - .75).clamp(0, 1)).clamp_(.6, 1.65)
    _blend(v, p.iris * glow[:, None], hole * _within((rad - 1) * p.iris_r, 1.5 * v.px))
    _blend(v, p.iris * .12, hole * _within((rad - .46) * p.iris_r, v.px))
    _blend(v, WHITE, .95 * hole * _bump(ix * v.sign - .022 * p.lx.sign(), iy + .02, .014, .014))
    lash = (upper + .06 * made * (ex - .9).clamp(min=0) + .06 * beyond).abs()
    lash = lash - .009 - .004 * (ex > 0) - made * (.009 + .006 * ex)
    lash = _within(lash, v.px) * _within((ex.abs() - 1.02 - .1 * made) * .1, v.px)
    _blend(v, DARK, lash * (.72 + .2 * made - .12 * p.Male))
    _blend(v, p.skin * .4, _bump(lower, ex, .010, .75) * (.35 + .4 * made))


def _paint_brows(v, p):
    """Tapering brows with a little grain."""
    bx = (v.au - p.eye_x - .01) / .165
    dy = v.w - p.brow_y + p.brow_arch * (1 - .55 * (bx - .25).square()) - p.brow_tilt * bx
    mask = 1.6 - 1.5 * (dy / p.brow_t / (1.05 - .4 * bx.clamp(-1, 1))).square()
    grain = (.68 + .1 * v.fine).clamp_(0, .9) * _within((bx.abs() - 1) * .12, .09)
    _blend(v, p.hair * .38 + .02, mask.clamp_(0, 1) * grain * (.75 + .25 * p.Bushy_Eyebrows))


def _paint_beard(v, p):
    """Stubble, moustache, goatee or full beard, by kind."""
    lip = ((v.u / 1.1 / p.mouth_w).square() + ((v.w - p.mouth_y - .03) / .095).square()).sqrt_()
    full = .49 - v.w - 1.25 * (v.au - .22).clamp(min=0) + .02 * v.fine
    full = torch.maximum(full, .06 * (1 - lip))
    tash = v.w - p.mouth_y + .085 - .25 * v.u.square() - .012 * v.fine
    tash = torch.maximum(tash.abs() - .045 + .6 * v.u.square(), v.au - p.mouth_w * 1.1)
    chin = (v.u.square() / .03 + ((v.w - .74) / .15).square()).sqrt_() - 1
    chin = .1 * torch.maximum(chin, 1 - lip)
    d = torch.where(p.beard == 2, tash, torch.where(p.beard == 3, chin, torch.minimum(full, tash)))
    depth = torch.where(p.beard == 1, .34, .88) * (1 + .16 * v.fine)
    tone = .42 + .3 * v.lam.clamp(0, 1) + .06 * v.fine
    _blend(v, p.hair * p.light * tone[:, None], _within(d, .05) * depth.clamp_(0, .95) * v.head * (p.beard > 0))


def _paint_mouth(v, p):
    """Lips, and teeth or the dark between them."""
    mx = v.u / p.mouth_w
    bow, stick = (1 - mx.square()).clamp_(min=0), p.Wearing_Lipstick
    y, gap = v.w - p.mouth_y + p.lift * (mx.square() - .35), p.gape * bow
    top = -.05 * p.lip * bow * (1.05 - .28 * _ridge(mx, .16)) - .3 * gap
    bottom = .068 * p.lip * bow + .7 * gap
    lips = (p.skin * LIP_TINT).lerp(p.lipstick * (.6 + .4 * p.skin), (stick * (.55 + .35 * p.strength))[:, None])
    lips = lips * p.light * (.74 + .22 * (y > 0))[:, None]
    gloss = _bump(mx + .2 * p.lx, y - bottom * .55, .4, .014) * (.12 + .14 * stick)
    body = _within(torch.maximum(top - y, y - bottom), 1.3 * v.px) * (bow > 0)
    _blend(v, lips + gloss[:, None], body * (.88 + .1 * stick))
    inner = torch.maximum(-.3 * gap - y, y - .7 * gap)
    line = _within(inner.abs() - .006, 1.5 * v.px) * _within((mx.abs() - 1) * .15, 2 * v.px)
    _blend(v, p.skin * .3 * LIP_TINT, .75 * line)
    hole = _within(inner, v.px) * (p.gape > 0) * (bow > 0)
    _blend(v, DARK * 1.6, hole)
    teeth = _within(y - (.34 + .3 * p.smile) * gap, v.px) * _within(mx.abs() - .86, .15)
    ivory = EYE_WHITE * (.45 + .45 * p.light) * (.9 - .35 * mx.square())[:, None]
    _blend(v, ivory, hole * teeth * (.45 + .5 * p.smile))


def _paint_glasses(v, p):
    """Two lenses, clear or dark, with rims, bridge and arms."""
    inner = v.au - p.eye_x - .01
    gx, gy = inner / p.frame_w, (v.w - .03) / p.frame_h
    d = .14 * ((gx.square().square_() + gy.square().square_()).sqrt_().sqrt_() - 1)
    bridge = torch.maximum((v.w + .01).abs(), inner + p.frame_w)
    arm = torch.maximum((v.w + .02).abs(), p.frame_w - inner) + 9 * (v.x.abs() > p.wide + .02)
    rim = torch.minimum(torch.minimum(d.abs(), bridge), arm) - p.frame_t
    lens, glare = _within(d, v.px) * p.Eyeglasses, (9 * (v.u - v.w) + 2 * p.part).sin_().clamp_(min=0)
    _blend(v, p.frame * .4, lens * p.shades * (.97 - .08 * gy).clamp_(0, .98))
    _blend(v, WHITE, .16 * lens * glare)
    _blend(v, p.skin * .4, .25 * _bump(gy - 1.15, gx, .12, .8) * p.Eyeglasses)
    _blend(v, p.frame * (.8 + .3 * p.light), _within(rim, v.px) * p.Eyeglasses)


def _paint(p, size):
    """One chunk of portraits, back to front."""
    v = _maps(p, size)
    mask, opening, colour = _hair(v, p)
    _blend(v, colour * .55, mask)  # what hangs behind
    _paint_body(v, p)
    _paint_head(v, p)
    _paint_beard(_rows(v, 0, .95), p)
    _paint_mouth(_rows(v, .38, .72), p)
    _paint_eyes(_rows(v, -.2, .14), p)
    _paint_brows(_rows(v, -.26, -.06), p)
    _paint_front_hair(v, p, mask, opening, colour)
    _paint_glasses(_rows(v, -.15, .22), p)
    return ((v.img * v.vignette[:, None] - .035) * 255 + .5).clamp_(0, 255).to(torch.uint8)


def draw_faces(n, size=64, seed=0, first=0, **fixed):
    """Portraits of n people, from number `first` on, and their attributes.

    Returns uint8 images (n, 3, size, size) and a dict of bool tensors; keywords
    settle attributes as for imagine_faces.
    """
    faces = {k: torch.from_numpy(np.ascontiguousarray(a)) for k, a in imagine_faces(n, seed, first, **fixed).items()}
    images = torch.empty(n, 3, size, size, dtype=torch.uint8)
    chunk = max(1, CHUNK_PIXELS // size ** 2)
    with torch.inference_mode():
        for k in range(0, n, chunk):
            p = {name: (a if a.dtype == torch.int64 else a.float())[k:k + chunk, ..., None, None] for name, a in faces.items()}
            images[k:k + chunk] = _paint(SimpleNamespace(**p), size)
    return images, {name: faces[name] for name in DRAWN_ATTRIBUTES}


# ---------------------------------------------------------------- decoding, once

MOST_UNREADABLE = 0.1  # of a folder's images
PARTS = "train", "validation", "test"  # to train on; to choose the best epoch and the recipe by; to report scores on


class DecodedFaces(torch.utils.data.Dataset):
    """One part of an image folder whose pictures have been decoded and transformed once.

    `images`: uint8 (n, 3, S, S), memory-mapped, so that it need not fit into memory, or on a GPU;
    `labels`: int64 (n,), the numbers of their classes, or float32 (n, k), other labels; `flip`: mirror each image with
    a chance of one half, as it is served; `names`: of the files, by which they belong to one of PARTS; without them all
    images are in every part.
    A list of indices gives a whole batch: images float32 (B, 3, S, S) in [0, 1], labels (B,).
    """

    def __init__(self, images, labels, classes, flip=False, names=(), part="train"):
        self.images, self.labels, self.classes, self.flip, self.all_names = images, labels, classes, flip, names
        self.class_numbers = labels  # they stay when other labels take their place
        parts = parts_of(names)
        self.held_out = int((parts > 0).sum())
        self.rows = torch.from_numpy(np.flatnonzero(parts == PARTS.index(part))) if self.held_out else torch.arange(len(images))

    @property
    def names(self):
        """The names of this part's files."""
        return [self.all_names[row] for row in self.rows]

    def part(self, name):
        """Another of PARTS, not mirrored. Where nothing is held out, it is the same images."""
        faces = DecodedFaces(self.images, self.class_numbers, self.classes, names=self.all_names, part=name)
        faces.labels = self.labels
        return faces

    def only(self, chosen):
        """Those of this part's faces for which `chosen`, bools for the images of every part, says yes."""
        faces = copy.copy(self)
        faces.rows = self.rows[chosen[self.rows]]
        return faces

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, indices):
        rows = self.rows[torch.as_tensor(indices, dtype=torch.int64)]
        images = self.images[rows.to(self.images.device, non_blocking=True)]
        if self.flip:
            mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
            images = torch.where(mirrored, images.flip(-1), images)
        return images.float() / 255, self.labels[rows]


def most_held_out(n, most=5000):
    """Of n images at most an eighth; none of fewer than 1,000."""
    return min(most, n // 8) if n >= 1000 else 0


def parts_of(names):
    """Which of PARTS each image belongs to, by its file name: 0, 1 or 2, an array (n,).

    Held out are, of CelebA, some of its own validation and test images (numbers above 162,770); of drawn
    faces, those of another seed; of any others, those whose names' hashes come first.
    """
    drawn = [i for i, name in enumerate(names) if name.startswith(OTHER_SEED)]
    celeba = [i for i, name in enumerate(names) if re.fullmatch(r"\d{6}\.\w+", name) and int(name[:6]) > 162_770]
    n = len(drawn) or most_held_out(len(names))
    pool = drawn or (celeba if len(celeba) >= n / 2 else range(len(names)))
    held = sorted(pool, key=lambda i: hashlib.sha256(os.fsencode(names[i])).digest())[:n]
    parts = np.zeros(len(names), int)
    parts[held[::2]], parts[held[1::2]] = 1, 2
    return parts


def decode_once(dataset, flip=False):
    """Decode an ImageFolder, whose transform ends in ToTensor, into the part of DecodedFaces that is trained on.

    The pixels are kept under `cache/` and taken from there as long as folder and transform stay
    the same. Unreadable files are left out and named in one line; DataError if they are more than a tenth.
    """
    key = hashlib.sha256(f"{dataset.transform!r} {fingerprint(load_image)}".encode())
    for path, _ in dataset.samples:
        key.update(repr(path).encode())
        with contextlib.suppress(OSError):  # it will be among the unreadable
            file = os.stat(path)
            key.update(f"{file.st_size} {file.st_mtime_ns}".encode())
    folder = CACHE / f"decoded_{key.hexdigest()[:16]}"
    if not from_rank_0(folder.exists()):
        _decode(dataset, folder)
    shards = [(path.with_name(path.name.replace("kept", "images")), np.load(path)) for path in sorted(folder.glob("kept*.npy"))]
    kept = np.concatenate([readable for _, readable in shards])
    unreadable = [printable(dataset.samples[i][0]) for i in np.flatnonzero(~kept)]
    if len(unreadable) > MOST_UNREADABLE * len(kept):
        wait_for_ranks()
        shutil.rmtree(folder, ignore_errors=True)  # whatever is changed, they will be tried again
        try:
            dataset[np.argmin(kept)]
            reason = "though now the first one can"
        except UNREADABLE as error:
            reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{len(unreadable)} of the {len(kept)} images in {dataset.root} cannot be read, more than "
                        f"{MOST_UNREADABLE:.0%}. The first: {', '.join(unreadable[:3])} ({reason}). Replace them, or take "
                        "them out.")
    if unreadable:
        print(f"Left out {len(unreadable)} unreadable files, the first: {', '.join(unreadable[:3])}.")
    images = [torch.from_numpy(np.load(path, mmap_mode="c"))[:readable.sum()] for path, readable in shards if readable.any()]
    images = Shards(images) if len(images) > 1 else images[0]
    names = [os.path.basename(path) for (path, _), is_kept in zip(dataset.samples, kept) if is_kept]
    return DecodedFaces(images, torch.tensor(dataset.targets)[torch.from_numpy(kept)], dataset.classes, flip, names)


def keep_on(device, dataset):
    """Move the pixels of DecodedFaces to a GPU that has room for them twice over; leave any other data where it is."""
    if device.type == "cuda" and isinstance(dataset, DecodedFaces):
        if 2 * dataset.images.nbytes < torch.cuda.mem_get_info(device)[0]:
            dataset.images = dataset.images.to(device)


def as_batch(batch):
    """The collate_fn for DecodedFaces: they serve whole batches, so there is nothing left to collate."""
    return batch


class Shards:
    """Images that lie in several files, of which any rows can be had as if from one: uint8 (n, 3, S, S)."""

    def __init__(self, parts):
        self.parts, self.ends = parts, torch.tensor([len(part) for part in parts]).cumsum(0)
        self.shape, self.device = (int(self.ends[-1]), *parts[0].shape[1:]), parts[0].device
        self.nbytes = sum(part.nbytes for part in parts)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        if rows.dtype == torch.bool:
            rows = rows.nonzero().flatten()
        images = torch.empty(len(rows), *self.shape[1:], dtype=torch.uint8)
        home = torch.bucketize(rows, self.ends, right=True)
        for k in home.unique().tolist():
            images[home == k] = self.parts[k][rows[home == k] - self.ends[k] + len(self.parts[k])]
        return images

    def __iter__(self):
        return itertools.chain(*self.parts)

    def to(self, device):
        return torch.cat([part.to(device) for part in self.parts])


def _decode(dataset, folder):
    """Write the pixels of the readable images, and which these are, into `folder`: each rank a shard of its own."""
    rank, size = world()
    share = np.array_split(np.arange(len(dataset)), size)[rank]
    with filled(folder) if not rank else contextlib.nullcontext(Path(f"{folder}.unfinished")) as beside:
        from_rank_0()  # the folder is there
        _decode_share(dataset, share, beside, f"_{rank:04d}" * (size > 1))
        if not rank:
            (beside / "source.txt").write_text(str(Path(dataset.root).resolve()), encoding="utf-8")
        wait_for_ranks()  # all shards are there
    from_rank_0()  # ... and have their name
    for source in CACHE.glob("decoded_*/source.txt"):
        if not rank and not Path(source.read_text(encoding="utf-8")).exists():
            shutil.rmtree(source.parent, ignore_errors=True)  # of a folder that is gone


def _decode_share(dataset, share, folder, number):
    """Write images`number`.npy, the pixels of those images with indices in `share` that are readable, and kept`number`.npy."""
    def load(index):
        try:
            return (dataset[index][0] * 255).round().byte().numpy()
        except UNREADABLE:
            return None

    kept, images, n_kept = np.zeros(len(share), bool), None, 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        portions = (share[start:start + 1024] for start in range(0, len(share), 1024))  # a pool takes notes on all that it is given
        decoded = (image for portion in portions for image in pool.map(load, portion))
        for place, image in enumerate(progress(decoded, "decode", len(share), unit="img", disable=len(share) < 1000)):
            if image is None:
                continue
            if images is None:
                path = folder / f"images{number}.npy"
                images = np.lib.format.open_memmap(path, "w+", np.uint8, (len(share), *image.shape))
                if hasattr(os, "posix_fallocate"):  # a disk without room is told now, not by a crash in the middle
                    with open(path, "r+b") as file, told_plainly(folder):
                        os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))
            images[n_kept] = image
            kept[place], n_kept = True, n_kept + 1
    np.save(folder / f"kept{number}.npy", kept)
    del images  # Windows renames only closed files


# ---------------------------------------------------------------- pictures and labels

ATTRIBUTES_FILE = "list_attr_celeba.txt"
UTKFACE = re.compile(r"(\d{1,3})_([01])_([0-4])_\d+")  # age, gender, origin, date
ORIGINS = "White", "Black", "Asian", "Indian", "Other"  # in UTKFace's words and order
AGES = "Under_20", "From_20_to_39", "From_40_to_59", "From_60"
FEWEST = 20  # faces with a label, and without it, to learn it from


def to_pixels(images, value_range=(-1, 1)):
    """Images float (N, 3, H, W) in `value_range` -> uint8 array (N, H, W, 3); clipped, never rescaled."""
    low, high = value_range
    unit = (images.detach().float().cpu() - low) / (high - low)
    return (unit.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def tile(images, columns=8, value_range=(-1, 1), gap=2):
    """Images (N, 3, H, W) in `value_range` -> one white-spaced contact sheet, uint8 (rows, width, 3)."""
    pixels = np.pad(to_pixels(images, value_range), ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
    blank = np.full((-len(pixels) % columns, *pixels.shape[1:]), 255, np.uint8)
    cells = np.concatenate([pixels, blank])
    _, height, width, _ = cells.shape
    sheet = cells.reshape(-1, columns, height, width, 3).swapaxes(1, 2).reshape(-1, columns * width, 3)
    return sheet[:-gap, :-gap] if gap else sheet


def show_images(images, title=None, labels=None, columns=8, value_range=(-1, 1), cell=1.1):
    """Show images (N, 3, H, W) in `value_range` as a grid, `cell` inches each, with a label each if given."""
    pixels = to_pixels(images, value_range)
    rows = math.ceil(len(pixels) / columns)
    width, height = columns * cell, rows * (cell + 0.35 * bool(labels)) + 0.3 * bool(title)
    figure, axes = plt.subplots(rows, columns, squeeze=False, figsize=(width, height))
    for axis in axes.flat:
        axis.axis("off")
    for index, (axis, image) in enumerate(zip(axes.flat, pixels)):
        axis.imshow(image)
        if labels:
            axis.set_title(labels[index], fontsize=7, pad=2)
    if title:
        figure.suptitle(title, fontsize=11, y=1 - 0.03 / height, va="top")
    figure.tight_layout(pad=0.3)
    plt.show()
    plt.close(figure)


def captions(dataset, indices, most=2):
    """A caption for each of these images of an ImageFolder: its rarest attributes, else class or file name."""
    paths = [Path(dataset.samples[i][0]) for i in indices]
    table = Path(dataset.root, ATTRIBUTES_FILE)
    if table.exists():
        names, rows = read_attributes(table)
        rarest = np.argsort(np.mean(list(rows.values()), axis=0))
        known = [[names[i] for i in rarest if rows[path.name][i]][:most] if path.name in rows else [] for path in paths]
        return ["\n".join(words).replace("_", " ") for words in known]
    if len(dataset.classes) > 1:
        return [dataset.classes[dataset.targets[i]] for i in indices]
    return [printable(path.stem[:16]) for path in paths]


def read_attributes(path):
    """Read CelebA's list of attributes: (names, {file name: row of bools}); the count in its first line is optional.

    Raises DataError for what is no such list: a web page, a row of another length, values other than 1 and -1.
    """
    lines = [line for line in Path(path).read_text(encoding="utf-8-sig", errors="replace").splitlines() if line.strip()]
    if any(word in line.lower() for line in lines[:5] for word in ("<html", "<!doctype")):
        raise DataError(f"{path} is a web page (HTML) instead of a list of attributes. Fetch it again, or remove it.")
    if lines and lines[0].strip().isdigit():
        lines = lines[1:]
    names = lines[0].split() if lines else []
    rows = [line.rsplit(maxsplit=len(names)) for line in lines[1:]]  # a file's name may have spaces
    for row in rows:
        if len(row) != len(names) + 1 or not {"1", "-1"}.issuperset(row[1:]):
            raise DataError(f"{path} is no list of attributes: after {len(names)} names each line has a file name and as many "
                            f"times 1 or -1; there is {' '.join(row)[:60]!r}.")
    if not rows:
        raise DataError(f"{path} lists no images.")
    return names, {file: np.array(values) == "1" for file, *values in rows}


def known_labels(folder, faces):
    """What is known about DecodedFaces from `folder`: {label: bools (n,)}, for the images of every part.

    From CelebA's list of attributes, in the folder or beside it; else, from file names as UTKFace's, age, gender and origin
    (Zhang et al., 2017); else the class that each sub-folder is. {} if there is none of these.
    """
    names = faces.all_names
    for table in (Path(folder, ATTRIBUTES_FILE), Path(folder).resolve().parent / ATTRIBUTES_FILE):
        if table.exists():
            attributes, rows = read_attributes(table)
            missing = [printable(name) for name in names if name not in rows]
            if not missing:
                return dict(zip(attributes, torch.from_numpy(np.array([rows[name] for name in names])).T))
            print(f"{table} says nothing about {len(missing):,} of {len(names):,} images (the first: {missing[0]}): it is not used.")
    told = [UTKFACE.match(name) for name in names]
    if names and sum(map(bool, told)) >= 0.99 * len(names):  # a few of UTKFace's names lack a number: of these nothing is known
        age, gender, origin = torch.tensor([list(map(int, one.groups())) if one else [-1] * 3 for one in told]).T.contiguous()
        band = torch.bucketize(age, torch.tensor([0, 20, 40, 60]), right=True) - 1
        return ({"Male": gender == 0} | {name: origin == k for k, name in enumerate(ORIGINS)}
                | {name: band == k for k, name in enumerate(AGES)})
    return {name: faces.class_numbers == k for k, name in enumerate(faces.classes)} if len(faces.classes) > 1 else {}


def labels_of(folder, faces, names):
    """Those of the known labels, float (n, k), 0 or 1, for the images of every part; a ValueError for what cannot be learnt."""
    known = known_labels(folder, faces)
    if not known:
        raise DataError(f"Nothing is known about the faces in {folder}: put CelebA's {ATTRIBUTES_FILE} into it, sort them into "
                        "sub-folders, one for each label, or name the files as UTKFace does.")
    for name in names:
        check_choice(known, label=name)
        counts = {"with": int(known[name].sum()), "without": int((~known[name]).sum())}
        fewer = min(counts, key=counts.get)
        if counts[fewer] < FEWEST:
            raise ValueError(f"label = {name!r} does not work: of the {len(known[name]):,} faces in {folder} {counts[fewer]} are "
                             f"{fewer} it, and fewer than {FEWEST} teach nothing. Choose another, or add such faces.")
    return torch.stack([known[name] for name in names], 1).float()


def two_kinds(folder, faces, label, alike=None):
    """Faces without a label and with it: {part: [without, with]} for each of PARTS, and what all have in common, a dict.

    `faces`: the DecodedFaces of `folder` to train on; `alike`: a label whose value is the same for all of them, the value which
    leaves the larger of the two smaller piles.
    """
    labels = labels_of(folder, faces, [label, alike] if alike else [label]).bool()
    has, chosen, common = labels[:, 0], torch.ones(len(labels), dtype=torch.bool), {}
    if alike:
        counts = {value: min(int((has & (labels[:, 1] == value)).sum()), int((~has & (labels[:, 1] == value)).sum()))
                  for value in (False, True)}
        common = {alike: max(counts, key=counts.get)}
        chosen = labels[:, 1] == common[alike]
    kinds = {part: [one.only(chosen & ~has), one.only(chosen & has)]
             for part, one in zip(PARTS, (faces, faces.part("validation"), faces.part("test")))}
    for part, two in kinds.items():
        if min(map(len, two)) < 8:
            if part == "train":
                among = "".join(f" with {name} = {value}" for name, value in common.items())
                raise ValueError(f"label = {label!r} does not work: among the faces in {folder}{among}, there are {len(two[0]):,} to "
                                 f"train on without it and {len(two[1]):,} with it, and fewer than 8 teach nothing.")
            print(f"Of the faces held out for {part} fewer than 8 are of one kind: those of the training take their place.")
            kinds[part] = [copy.copy(kind) for kind in kinds["train"]]
    return kinds, common


def check_apart(a, b):
    """A ValueError if two sets of DecodedFaces have images in common, in whatever part."""
    first, second = ({hashlib.sha256(image.numpy().tobytes()).digest(): row for row, image in enumerate(faces.images)}
                     for faces in (a, b))
    if both := first.keys() & second.keys():
        raise ValueError(f"The two kinds of faces overlap: {len(both):,} images are in both, the first as "
                         f"{printable(a.all_names[min(first[pixels] for pixels in both)])}. Take them out of one of the folders.")


def equal_shares(folder, faces, balanced, fewest=FEWEST):
    """Weights (n,) by which to draw DecodedFaces, so that all their groups come equally often: float32.

    `balanced`: a label, whose two values are the groups; several of them, whose combinations are; or a function that gives each
    face's group number. A ValueError if a group has fewer than `fewest` faces, which would come again and again.
    """
    if callable(balanced):
        groups = balanced(faces)
    else:
        names = [balanced] if isinstance(balanced, str) else balanced
        groups = labels_of(folder, faces, names)[faces.rows].unique(dim=0, return_inverse=True)[1]
    counts = groups.bincount()
    if counts[counts > 0].min() < fewest:
        what = getattr(balanced, "__name__", balanced)
        raise ValueError(f"balanced = {what!r} does not work: its smallest group has {counts[counts > 0].min()} of the {len(faces):,} "
                         f"faces in {folder}, and fewer than {fewest} would be learnt by heart. Take fewer labels, or add such faces.")
    return (1 / counts)[groups]


# ---------------------------------------------------------------- networks

def summary(network, *input_shape):
    """Print a network's layers with their output shapes and parameters, for an input (2, *input_shape)."""
    names = {layer: name for name, layer in network.named_modules() if not list(layer.children())}

    def show(layer, inputs, output):
        if layer in names:
            n_weights = sum(p.numel() for p in layer.parameters())
            print(f"  {f'{names[layer]} {type(layer).__name__}':32} {str(tuple(output.shape[1:])):18} {n_weights:>10,}")

    print(f"{type(network).__name__}: input {input_shape}")
    with torch.no_grad(), register_module_forward_hook(show):
        network(torch.zeros(2, *input_shape, device=next(network.parameters()).device))
    print(f"  {'parameters':51} {sum(p.numel() for p in network.parameters()):>10,}\n")


# ---------------------------------------------------------------- speed

def has_fast_bfloat16(device):
    """Whether the processor multiplies bfloat16 matrices faster than float32 ones, by what it says it can do."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    can = [getattr(torch.cpu, name, lambda: False) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")]
    return device.type == "cpu" and any(check() for check in can)


def autocast(device):
    """Mixed precision: bfloat16 for the matrix products where that is faster, else plain float32.

    Without autocast's cache, which would keep the weights as they were when the block was entered.
    """
    if not has_fast_bfloat16(device):
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


# ---------------------------------------------------------------- scores

class FaceNetwork(nn.Module):
    """Faces (N, 3, S, S) in [-1, 1] -> logits (N, 40) of CelebA's attributes; all sizes are brought to 64 x 64.

    A small residual network (He et al., 2016). `features(faces)`, float32 (N, 144), are what it knows of
    a face before it names the attributes.
    """

    def __init__(self, widths=(32, 64, 96, 144), n_attributes=40):
        super().__init__()
        layers = [nn.Conv2d(3, widths[0], 5, 2, 2, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for narrow, wide in zip(widths, widths[1:]):
            way_round = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(narrow, wide, 1, bias=False), nn.BatchNorm2d(wide))
            layers.append(BasicBlock(narrow, wide, 2, way_round))                         # (N, wide, S/2, S/2)
        self.layers = nn.Sequential(*layers, BasicBlock(widths[-1], widths[-1]))
        self.attributes = nn.Sequential(nn.Dropout(0.2), nn.Linear(widths[-1], n_attributes))

    def features(self, faces):
        if faces.shape[-1] != 64:
            faces = F.interpolate(faces, size=(64, 64), mode="bilinear", antialias=True)
        return self.layers(faces).float().mean((2, 3))

    def forward(self, faces):
        return self.attributes(self.features(faces)).float()


@lru_cache(1)
def face_network():
    """The names of CelebA's attributes, and the network that `.ci/face_network.py` trained on them, in eval mode."""
    path = Path(__file__).with_name("assets") / "face_network.pt"
    if not path.exists():
        raise FileNotFoundError(f"{path.name} is missing: put the folder assets, which comes with this notebook, beside it.")
    state = torch.load(path, weights_only=True)
    network = FaceNetwork(n_attributes=len(state["attributes"]))
    network.load_state_dict({name: value.float() for name, value in state["weights"].items()})
    return state["attributes"], network.eval().to(memory_format=torch.channels_last)


def face_features(faces, batch_size=250):
    """What the face network sees in faces (N, 3, S, S) in [-1, 1]: float32 (N, 144)."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = face_network()[1].to(device)
    with torch.no_grad(), autocast(device):
        return torch.cat([network.features(x.to(device, memory_format=torch.channels_last)).cpu()
                          for x in faces.split(batch_size)])


def attribute_logits(features, names):
    """What the face network says of features (N, 144): logits (N, k) of these of CelebA's attributes, above 0 for yes."""
    known, network = face_network()
    with torch.no_grad():
        logits = network.attributes(features.to(next(network.parameters()).device))
    return logits.cpu()[:, [known.index(name) for name in names]]


def to_lab(images):
    """Images (N, 3, H, W) in [-1, 1], sRGB, in CIE L*a*b* (D65): L* from 0 to 100, a* and b* from about -100 to 100."""
    rgb = (images.clamp(-1, 1) + 1) / 2
    light = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = torch.tensor([[0.4339, 0.3763, 0.1898], [0.2126, 0.7152, 0.0722], [0.0177, 0.1095, 0.8728]])  # white: 1, 1, 1
    xyz = torch.einsum("ij,njhw->inhw", to_xyz, light)
    x, y, z = torch.where(xyz > (6 / 29) ** 3, xyz.clamp(min=1e-6) ** (1 / 3), xyz * 841 / 108 + 4 / 29)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def inception_weights():
    """The file of the Inception network's weights, fetched if need be; without it None, and a line that says why."""
    with rank_0_first():
        return _inception_weights()


def _inception_weights():
    path = Path(torch.hub.get_dir(), "checkpoints", INCEPTION.rpartition("/")[2])
    partial = path.with_suffix(".partial")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.closing(_open_url(INCEPTION, 0, 15)) as answer, open(partial, "wb") as file:
                shutil.copyfileobj(answer, file)
        except (Unreachable, OSError, http.client.HTTPException) as error:
            print(f"No FID and KID without Inception's weights: {error}. Put the file into {path.parent} to have them.")
            return None
        if not _sha256(partial).startswith(path.stem.rpartition("-")[2]):  # the name ends in the sha256's first digits
            print(f"No FID and KID: what lies at {INCEPTION} is damaged, or another file.")
            return None
        os.replace(partial, path)
    return path


def inception_scores(real, fake):
    """FID (Heusel et al., 2017) and KID (Bińkowski et al., 2018) between images (N, 3, S, S) in [-1, 1]; {} without weights."""
    from torchmetrics.image.fid import FrechetInceptionDistance, NoTrainInceptionV3
    from torchmetrics.image.kid import KernelInceptionDistance
    from torchmetrics.wrappers import FeatureShare

    path = inception_weights()
    if path is None:
        return {}
    torch.load(path, weights_only=True)  # refuses all but weights, as the libraries below do not
    network = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(path))
    metrics = FeatureShare([FrechetInceptionDistance(network),
                            KernelInceptionDistance(network, subset_size=min(1000, len(real), len(fake)))])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    metrics.to(device)
    for images, are_real in ((real, True), (fake, False)):
        for batch in torch.from_numpy(to_pixels(images)).permute(0, 3, 1, 2).split(50):
            metrics.update(batch.to(device), real=are_real)
    scores = metrics.compute()
    return {"FID": scores["FrechetInceptionDistance"].item(), "KID": scores["KernelInceptionDistance"][0].item()}


# ---------------------------------------------------------------- runs

def fingerprint(*definitions):
    """A short name for the source code of these functions and classes: other code, another name."""
    # Method by method, because inspect does not find the source of a class that a notebook defines
    parts = [part for one in definitions for part in (vars(one).values() if inspect.isclass(one) else [one])]
    source = "".join(inspect.getsource(part) for part in parts if inspect.isfunction(part))
    return hashlib.sha256(source.encode()).hexdigest()[:8]


def settle(averaged, z_size, batches=5, batch_size=100, seed=0):
    """Give an averaged generator batch-norm statistics of its own, from latents of a fixed seed.

    Averaged weights make other activations than those whose statistics batch norm has seen.
    Returns the generator in eval mode: from then on a latent gives the same face in any batch.
    """
    device = next(averaged.parameters()).device
    source = torch.Generator().manual_seed(seed)
    latents = (torch.randn(batch_size, z_size, generator=source).to(device) for _ in range(batches))
    with autocast(device):
        update_bn(latents, averaged)
    return averaged.eval()


class Run:
    """One training run and the folder it leaves: checkpoints, losses, sample grids, the generator.

    `out_dir`: the folder; None keeps nothing and only counts. It belongs to one run at a time: a second process is refused
    with a RuntimeError. `settings`: what makes it this run and no other; a run with other settings goes beside it, numbered.
    `max_minutes`: the time for training, over the whole run (None: no limit). `resume`: go on from `last.pt` if there is one.
    `score`: takes the settled generator, gives a number, at best 0; the best is kept as `best.pt`, and training ends after
    `patience` scores without a better one (None: goes on). `won`: the d_loss below which the discriminator is said to have
    all but won (None: not said). `shown`: whether progress, samples and troubles are seen, and `generator.pt2` and the film
    are made. `parts`: what a checkpoint holds, by name: networks, optimizers, schedules; the one called `averaged` (an
    AveragedModel of the generator) makes the samples, unless `sheet` does: a function that gives images (N, 3, H, W) in
    [-1, 1], in rows of eight. Under torchrun every rank has its Run; rank 0's alone shows, scores and keeps, by its clock.
    """

    PROGRESS = "step", "images", "epoch", "batch", "seconds", "progress", "rows", "sums", "scores", "told"

    def __init__(self, out_dir=None, settings=None, max_minutes=None, resume=True, n_faces=32, score=None, patience=None,
                 won=0.45, shown=True, sheet=None, **parts):
        self.settings, self.max_minutes, self.parts = settings or {}, max_minutes, parts
        (self.rank, self.ranks), self.share = world(), 1  # share: how many ranks' batches make one
        self.said = None  # rank 0's word on whether it has finished
        self.score, self.patience, self.won, self.shown, self.sheet = score, patience, won, shown and not self.rank, sheet
        self.step = self.images = self.epoch = self.batch = self.saved = 0
        self.rows, self.sums, self.scores, self.told = [], [], [], []
        self.seconds, self.progress, self.next_report, self.next_score = 0.0, 0.0, 0.0, 0.0
        self.next_grid, self.next_save = 10.0, 300.0
        self.random_state, self.picture, self.stopped, self.latents = None, None, False, None
        self.seed = self.settings.get("seed", 0)
        self.folder = from_rank_0(None if out_dir is None or self.rank else self._choose_folder(Path(out_dir), resume))
        self.keeps = self.folder is not None and not self.rank
        if self.folder:
            if not sheet:
                source = torch.Generator().manual_seed(self.seed)  # its own, so that watching changes nothing
                self.latents = torch.randn(n_faces, parts["averaged"].module.z_size, generator=source)
            with rank_0_first(), self._claimed():
                self._begin()

    @property
    def device(self):
        """Where the networks are."""
        return next(weight for part in self.parts.values() if isinstance(part, nn.Module) for weight in part.parameters()).device

    def _trained(self):
        """The networks among the parts that have gradients."""
        for name, part in self.parts.items():
            if isinstance(part, nn.Module) and name != "averaged" and any(True for _ in part.parameters()):
                yield from part if isinstance(part, nn.ModuleList) else [part]

    @property
    def losses(self):
        """The losses so far, one (d_loss, g_loss) per print."""
        return [(d_loss, g_loss) for *_, d_loss, g_loss in self.rows]

    @property
    def best(self):
        """The row (step, images, seconds, score) of the best score so far."""
        return min(self.scores, key=lambda row: row[-1])

    @property
    def finished(self):
        """Whether time is up, or `patience`, or someone has pressed the stop button; among ranks, what rank 0 said."""
        if self.said is not None:
            return bool(self.said)
        out_of_time = self.max_minutes is not None and self.seconds >= 60 * self.max_minutes
        stale = self.patience and self.scores and self.best in self.scores[:-self.patience]
        return out_of_time or bool(stale) or self.stopped and self.step > 0

    def __enter__(self):
        self.stopped, self.finishing, self.signal_handler = False, False, None
        with self._leading():
            if self.keeps:
                with self._claimed():
                    if not has_checkpoint(self.folder):
                        self.save()  # from its first moment on, the folder says whose it is
        self.before = self.step, self.images, self.seconds
        self.started, self.last_row = time.perf_counter() - self.seconds, self.seconds
        self.bar = progress(total=100, bar_format="{percentage:3.0f}%|{bar:20}| {desc}", disable=not (self.folder and self.shown))
        self.together = trained_together(*self._trained())
        self.together.__enter__()
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a background job
            self.signal_handler = signal.signal(signal.SIGINT, self._stop)
        return self

    def __exit__(self, kind, error, trace):
        """What there is by the end of training is written; after an error in a step, the last checkpoint stands."""
        self.finishing = True
        if self.stopped and self.folder:
            print("Stopping: the last samples and their score ...")
        interrupted = kind is KeyboardInterrupt and self.ranks == 1  # other ranks would wait for this one
        try:
            if interrupted and self.folder:  # in the middle of a step: back to the last whole one that was kept
                self._load(self._newest())
            if kind is None or interrupted:
                with self._leading() as leads:
                    if leads:
                        self._finish()
                    if not self.bar.disable and self.step > self.before[0]:
                        self._report()  # with the last score
                vars(self).update(from_rank_0({name: getattr(self, name) for name in self.PROGRESS}))
            if self.ranks > 1 and error:
                with all_present():
                    raise error
        except RuntimeError as caught:
            error = caught
            raise
        finally:
            self.bar.close()
            self.together.__exit__(None, None, None)
            if self.signal_handler is not None:
                signal.signal(signal.SIGINT, self.signal_handler)
            if self.keeps:
                self.lock.release(force=True)
            if isinstance(error, RuntimeError) and re.search("out of memory|can't allocate memory", str(error)):
                raise MemoryError("There is too little memory for these settings: lower batch_size, d_conv_dim, g_conv_dim or "
                                  f"image_size, or end other programs that use it. {self._what_stands()}") from error
        if interrupted or kind is None and self.stopped:
            kept = "What there is by now is kept: with resume = True, running the cell again goes on." if self.folder else ""
            print(f"Stopped after {self.step:,} steps. {kept}")
            return True

    def _stop(self, *_):
        """Jupyter's stop button: the step under way is finished. Pressed again before that, it interrupts at once."""
        if self.stopped and not self.finishing:
            raise KeyboardInterrupt
        self.stopped = True

    def _finish(self):
        """The last row, checkpoint, sheet and score; then the best generator and the film, unless they are there."""
        if self.sums:
            self._add_row()
        if not self.folder:
            return
        if (self.step > self.before[0] or not (self.folder / "last.pt").exists()
                or not any((self.folder / "samples").glob("step_*.png"))):
            self.save()
            self.next_score = 0.0
            self.keep_grid(f"step_{self.step:07d}")
        generator, film = self.folder / "generator.pt2", self.folder / "training.gif"
        newest = (self.folder / "last.pt").stat().st_mtime
        if self.shown and not ((generator.exists() or self.sheet) and film.exists() and film.stat().st_mtime >= newest):
            if not self.sheet:
                export_generator(self.best_generator(), generator)
            self.animate()

    def best_generator(self):
        """The averaged generator as it was at the best score, settled, in eval mode."""
        averaged = copy.deepcopy(self.parts["averaged"])
        if self.scores:
            try:
                averaged.load_state_dict(load_checkpoint(self.folder / "best.pt")["averaged"])
            except (ValueError, FileNotFoundError):
                print("best.pt is missing or damaged: this is the generator as it is now.")
        return settle(averaged, self.latents.shape[1]).module

    def epochs(self, n_epochs):
        """Yield the epochs still to train, counted from 0, until there are `n_epochs` or time is up."""
        while self.epoch < n_epochs and not self.finished:
            yield self.epoch

    def watch(self, loader, epoch):
        """Yield the batches of this epoch, from where the run left off until time is up."""
        if hasattr(loader, "sampler"):  # an order that belongs to the epoch, so that a run can go on within it
            loader.sampler.generator = torch.Generator().manual_seed(1_000_003 * self.seed + epoch)
            loader, self.share = share_of(loader), self.ranks
        if self.random_state:
            restore_random_state(self.random_state)
        batches = iter(loader)
        for _ in range(self.batch):
            next(batches)
        if self.random_state and self.batch:  # what it was within the epoch, after the batches skipped
            restore_random_state(self.random_state)
        self.random_state = None
        if self.rank:  # other latents than rank 0's, and never the same again
            torch.manual_seed(self.seed + self.rank + 1_000_003 * self.step)
        while not self.finished:  # asked before a batch is drawn: one that is not used would use up random numbers
            batch = next(batches, None)
            if batch is None:
                self.epoch, self.batch = epoch + 1, 0
                with self._leading() as leads:
                    if leads and self.folder:
                        self.keep_grid(f"epoch_{self.epoch:04d}")
                return
            yield batch

    def log(self, d_loss, g_loss, n_images, n_steps, print_every):
        """Note a step on `n_images` real images; every `print_every` steps the mean losses become a row."""
        self.step, self.batch, self.images = self.step + 1, self.batch + 1, self.images + n_images * self.share
        self.seconds = time.perf_counter() - self.started
        self.progress = min(1.0, max(self.step / n_steps, self.seconds / (60 * self.max_minutes) if self.max_minutes else 0))
        # Losses stay on the device until they are printed: reading them would wait for it
        losses = mean_of_ranks(torch.stack([torch.as_tensor(loss, dtype=torch.float32) for loss in (d_loss, g_loss)]))
        with self._leading() as leads:
            if leads:
                self.sums.append(losses)
                self._look_after(print_every)

    def _look_after(self, print_every):
        """What is due after a step: a row, the bar, a sheet, a checkpoint."""
        if self.step % print_every == 0 or self.seconds > self.last_row + 60:  # a slow machine has curves, too
            self._add_row()
        if not self.bar.disable and (self.seconds > self.next_report or self.finished):
            self._report()
        if self.folder and self.seconds >= self.next_grid:
            self.keep_grid(f"step_{self.step:07d}")
        elif self.folder and self.seconds >= self.next_save:
            self.save()

    @contextlib.contextmanager
    def _leading(self):
        """Whether this is rank 0, for what it does without the others; afterwards they know what it knows, or that it diverged."""
        try:
            yield not self.rank
        except FloatingPointError:
            self._hear_rank_0(diverged=True)
            raise
        self._hear_rank_0()

    def _hear_rank_0(self, diverged=False):
        """Whether rank 0 has finished, its clock and its newest score, on every rank; FloatingPointError if its run diverged."""
        if self.ranks == 1:
            return
        self.said = None
        word = torch.tensor([diverged, self.finished, self.seconds, self.progress, *(self.scores or [[0] * 4])[-1]], dtype=torch.double)
        with all_present():
            dist.broadcast(word, 0)
        diverged, self.said, self.seconds, self.progress, *score = word.tolist()
        if self.rank and diverged:
            raise FloatingPointError("Training has diverged: rank 0 says where.")
        if self.rank and score[0] > (self.scores[-1][0] if self.scores else 0):
            self.scores.append(score)

    def _add_row(self):
        """The mean losses since the last row."""
        self._check_finite()
        means = torch.stack(self.sums).mean(0).tolist()
        self.rows.append((self.step, self.images, round(self.seconds, 2), *means))
        self.sums, self.last_row = [], self.seconds
        self._tell_trouble()

    def _check_finite(self):
        """FloatingPointError if a loss since the last row, or a weight, is no finite number."""
        losses = torch.stack(self.sums).tolist() if self.sums else []
        wrong = [(name, step) for step, pair in enumerate(losses, self.step - len(losses) + 1)
                 for name, loss in zip(("d_loss", "g_loss"), pair) if not math.isfinite(loss)]
        wrong += [(f"a weight of {name}", self.step) for name, part in self.parts.items()
                  if isinstance(part, nn.Module) and not all(weight.isfinite().all() for weight in part.parameters())]
        if wrong:
            what, step = wrong[0]
            raise FloatingPointError(f"Training has diverged: {what} is no finite number at step {step:,}. Set a lower lr "
                                     "or d_lr, or take another loss, and run the notebook again from section 8, where the "
                                     f"networks are built. {self._what_stands()}")

    def _what_stands(self):
        return f"The checkpoint of step {self.saved:,} stands in {self.folder}." if self.folder else ""

    def _tell_trouble(self, rows=40):
        """Say once each what the losses of the last rows warn of."""
        d_losses, g_losses = np.array(self.losses[-rows:]).T
        if len(d_losses) < rows:
            return
        quarters = g_losses.reshape(4, -1).mean(1)
        if self.won is not None and d_losses[rows // 2:].max() < self.won:
            self._tell("d_loss is near its least: the discriminator has all but won, and its gradient says little to the "
                       "generator. Lower d_lr, or give it dropout or more data.")
        if quarters[-1] > 5 and (np.diff(quarters) > 0).all() and quarters[-1] > 2 * quarters[0]:
            self._tell("g_loss keeps climbing: the generator is losing touch with the discriminator. Lower d_lr.")

    def _tell(self, trouble):
        if trouble not in self.told:
            self.told.append(trouble)
            if self.shown:
                print(f"At step {self.step:,}: {trouble}")

    def _report(self):
        """Bring the progress bar up to date."""
        self.next_report = self.seconds + 1
        minutes, seconds = divmod(round(self.seconds * (1 - self.progress) / self.progress), 60)
        rate = (self.images - self.before[1]) / max(self.seconds - self.before[2], 1e-9)
        d_loss, g_loss = self.losses[-1] if self.rows else self.sums[-1].tolist()
        self.bar.n = round(100 * self.progress)
        self.bar.set_description_str(f"epoch {self.epoch + 1}, {self.images:,} images, {rate:,.0f} img/s, "
                                     f"{minutes}:{seconds:02} left, d_loss {d_loss:.2f}, g_loss {g_loss:.2f}"
                                     + (f", best score {self.best[-1]:.1f}" if self.scores else ""))

    def keep_grid(self, name):
        """Write the faces of the fixed latents to samples/`name`.png, show them in place of the last ones, score and save."""
        self._check_finite()
        began = time.perf_counter()
        averaged = None if self.sheet else settle(self.parts["averaged"], self.latents.shape[1])
        with torch.no_grad(), autocast(self.device):
            faces = self.sheet() if self.sheet else averaged(self.latents.to(self.device))
        if averaged and self.step >= 500 and faces.float().std(0).mean() < 0.1:
            self._tell("the samples have become all alike: the generator has collapsed. Start anew with a lower lr, or go back "
                       "to best.pt.")
        sheet = Image.fromarray(tile(faces))
        write_whole(self.folder / "samples" / f"{name}.png", lambda file: sheet.save(file, "PNG"))
        zoom = max(1, 800 // sheet.width)
        if self.shown:
            self.picture = show_live(sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.NEAREST), self.picture)
        cost = time.perf_counter() - began
        self._take_score(averaged)
        # Often at first, then whenever the run is a tenth older, at least every five minutes, for 5 % of the time
        self.seconds = time.perf_counter() - self.started
        self.next_grid = self.seconds + max(min(max(10, 0.1 * self.seconds), 300), 20 * cost)
        self.save()

    def _take_score(self, averaged):
        """Score the averaged generator, for at most 5 % of the time, and keep it if it is the best so far."""
        began = time.perf_counter()
        is_new = not self.scores or self.scores[-1][0] < self.step
        if self.score and is_new and began >= self.next_score:
            self.scores.append((self.step, self.images, round(self.seconds, 2), self.score(averaged)))
            if self.best is self.scores[-1]:
                self.save()
                self.save("best.pt")  # after last.pt, which can replace it if the process is killed in between
            now = time.perf_counter()
            self.next_score = now + 20 * (now - began)

    def save(self, name="last.pt"):
        """Write a checkpoint, losses.csv and scores.csv. What was last.pt becomes previous.pt."""
        self._check_finite()
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {name: getattr(self, name) for name in ("settings", "latents", *self.PROGRESS)}
        state |= {"random_state": random_state() if self.random_state is None else self.random_state}
        keep = self.folder / "previous.pt" if name == "last.pt" else None
        write_whole(self.folder / name, lambda file: torch.save(state, file), keep)
        if name == "last.pt":
            self.saved, self.next_save = self.step, self.seconds + 300
        for table, columns, rows in (("losses", ("d_loss", "g_loss"), self.rows), ("scores", ("score",), self.scores)):
            text = "".join(",".join(map(str, row)) + "\n" for row in [("step", "images", "seconds", *columns), *rows])
            write_whole(self.folder / f"{table}.csv", lambda file, text=text: file.write(text.encode()))

    def animate(self, most=20, width=540):
        """Write training.gif, about `width` pixels wide: the first rows of up to `most` of the grids kept so far."""
        grids = sorted((self.folder / "samples").glob("step_*.png"))
        chosen = np.linspace(0, len(grids) - 1, min(most, len(grids))).round().astype(int)
        frames = [Image.open(grids[i]) for i in chosen]
        zoom, (w, h) = max(1, width // frames[0].width), frames[0].size
        half = (0, 0, w, h // 2)  # half of the faces make half of the file
        frames = [frame.resize((zoom * w, zoom * (h // 2)), Image.NEAREST, box=half) for frame in frames]
        write_whole(self.folder / "training.gif", lambda file: frames[0].save(
            file, "GIF", save_all=True, append_images=frames[1:], loop=0,
            duration=[250] * (len(frames) - 1) + [2000]))  # milliseconds: it rests on the last one

    def _choose_folder(self, wanted, resume):
        """The folder of the newest run with these settings, or the first free one."""
        folder, taken = wanted, []
        while has_checkpoint(folder):
            taken.append((folder, differences(newest_checkpoint(folder)[1]["settings"], self.settings)))
            folder = wanted.with_name(f"{wanted.name}-{len(taken) + 1}")
        same = [one for one, differs in taken if not differs]
        if resume and same:
            return same[-1]
        for one, differs in taken * self.shown:
            print(f"The run in {one} {f'has other settings: {differs}' if differs else 'is kept as it is'}.")
        if taken and self.shown:
            print(f"This one will be in {folder}.")
        return folder

    @contextlib.contextmanager
    def _claimed(self):
        """Hold the folder's lock, which ends with the process and with an error: a RuntimeError if another has it."""
        if self.rank:
            yield
            return
        with told_plainly(self.folder):
            (self.folder / "samples").mkdir(parents=True, exist_ok=True)
            self.lock = FileLock(self.folder / "run.lock", is_singleton=True)  # running a cell again is no second run
            try:
                self.lock.acquire(timeout=0 if self.ranks == 1 else 30)  # what torchrun ended may take a moment
            except Timeout:
                raise RuntimeError(f"Another run is at work in {self.folder}. Wait until it ends, stop it, or choose another "
                                   "out_dir.") from None
        try:
            yield
        except BaseException:
            self.lock.release(force=True)
            raise

    def _begin(self):
        """Go on from the newest checkpoint, if there is one."""
        if has_checkpoint(self.folder):
            self._load(self._newest())
            if self.shown:
                print(f"Going on with the run in {self.folder}: {self.step:,} steps, {self.images:,} images, "
                      f"{self.seconds / 60:.1f} minutes so far. To train longer, raise max_minutes or n_epochs; "
                      "for a new run beside it, set resume = False.")
        elif any(part.state for part in self.parts.values() if isinstance(part, torch.optim.Optimizer)):
            print("This new run begins with networks that have been trained already: for fresh ones, run the notebook again "
                  "from section 8.")

    def _newest(self):
        """The newest checkpoint of this folder, which is ours; a damaged last.pt is set aside."""
        path, state = newest_checkpoint(self.folder)
        last = self.folder / "last.pt"
        if path != last and last.exists():
            os.replace(last, self.folder / "damaged.pt")
            print(f"{last} is damaged, and is now damaged.pt. The checkpoint before it takes its place.")
        return state

    def _load(self, state):
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
        except (RuntimeError, LookupError, ValueError, TypeError) as error:
            raise ValueError(f"The checkpoint in {self.folder} is not of these networks ({error}). Choose another out_dir, or "
                             "set resume = False.") from error
        for name in {*self.PROGRESS, "random_state"} & state.keys():  # an older notebook's may lack some
            setattr(self, name, state[name])
        self.sums = [losses.to(self.device) for losses in self.sums]
        self.saved, self.next_save, self.next_grid = self.step, self.seconds + 300, self.seconds + 10
        if self.keeps and self.scores and self.best[0] == self.step:  # the process may have been killed before best.pt was written
            self.save("best.pt")


def random_state():
    """The state of every source of random numbers, in a form that loads without unpickling."""
    kind, key, *rest = np.random.get_state()
    return {"torch": torch.get_rng_state(), "python": random.getstate(), "numpy": (kind, torch.from_numpy(key), *rest),
            "cuda": torch.cuda.get_rng_state_all(),
            "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None}


def restore_random_state(state):
    """Bring back what random_state() returned."""
    if "torch" not in state:  # an older notebook's
        return
    torch.set_rng_state(state["torch"])
    torch.cuda.set_rng_state_all(state["cuda"][:torch.cuda.device_count()])
    if state["mps"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
    random.setstate(state["python"])
    kind, key, *rest = state["numpy"]
    np.random.set_state((kind, key.numpy(), *rest))


@contextlib.contextmanager
def told_plainly(path):
    """Within it, an OSError says what is wrong with the disk or folder, and what to do."""
    try:
        yield
    except OSError as error:
        full, refused = "the disk is full. Make room, and run the cell again", "choose another out_dir, or allow it"
        what = full if error.errno in FULL else f"{error.strerror or error}; {refused}"
        raise OSError(error.errno, f"{path} cannot be written: {what}. What was saved before stands") from error


def write_whole(path, write, previous=None):
    """Have `write` fill a file that takes the place of `path` once it is complete and on the disk.

    A process that is killed, or a full disk, leaves the old file as it was. `previous`: keep the old file there.
    """
    new, content = path.with_name(f"{path.name}.new"), io.BytesIO()
    write(content)  # to memory first: on a full disk, torch.save would abort the process
    with told_plainly(path):
        try:
            with open(new, "wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            if previous and path.exists():
                os.replace(path, previous)
            os.replace(new, path)
        finally:
            new.unlink(missing_ok=True)


def has_checkpoint(folder):
    """Whether a run's folder holds last.pt, or what is left of it by a process that was killed as it wrote."""
    return any((folder / name).exists() for name in ("last.pt", "previous.pt"))


def newest_checkpoint(folder):
    """(path, contents) of last.pt or, if that is missing or damaged, of previous.pt. ValueError if neither can be read."""
    errors = []
    for path in (folder / "last.pt", folder / "previous.pt"):
        try:
            return path, load_checkpoint(path)
        except (ValueError, FileNotFoundError) as error:
            errors.append(error)
    raise next((error for error in errors if isinstance(error, ValueError)), errors[0])


def load_checkpoint(path):
    """The contents of a checkpoint, on the CPU; nothing in it is executed. ValueError if it is none."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state["settings"], state["latents"], state["step"]
        return state
    except (RuntimeError, EOFError, LookupError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is no checkpoint of this notebook, or a damaged one. Move it away, "
                         "or choose another out_dir.") from error


def differences(old, new):
    """What differs between two dicts of settings, in words: 'lr 0.0002 -> 0.001'; '' if nothing does."""
    return ", ".join(f"{name} {old.get(name)} -> {new.get(name)}"
                     for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name))


def export_generator(generator, path):
    """Write a generator, (N, z_size) -> float32 (N, 3, S, S) for any N, as a torch.export program."""
    generator = copy.deepcopy(generator).to("cpu", torch.float32, memory_format=torch.contiguous_format).eval()
    example = torch.zeros(2, generator.z_size)  # a batch of 1 would be taken for a constant
    program = torch.export.export(generator, (example,), dynamic_shapes=({0: torch.export.Dim("N", min=1)},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # with the paths of this machine
    write_whole(path, lambda file: torch.export.save(program, file))


# ---------------------------------------------------------------- a generator to take home

GENERATOR_SHA256 = {"celeba_32.pt2": "4fef024c36ac807731153962af286432b08faa5c8ea81343ab2edc5148084c14"}  # in assets


def load_generator(path):
    """An exported generator as a module: latents (N, z_size) -> faces, float32 (N, 3, S, S) in [-1, 1]; `z_size` is its attribute.

    `path`: a generator.pt2 that a run of yours left, or the one in assets, whose sha256 is checked. Loading can execute what is in
    the file: take none from others. ValueError for a file that this version of PyTorch cannot read.
    """
    program = _load_program(Path(path))
    generator = program.module()
    generator.z_size = program.example_inputs[0][0].shape[1]
    return generator


def _load_program(path):
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}: a run leaves its generator.pt2 when it ends.")
    if path.name in GENERATOR_SHA256 and _sha256(path) != GENERATOR_SHA256[path.name]:
        raise ValueError(f"{path} is not the file that comes with this notebook: its sha256 is another. Fetch it again.")
    try:
        return torch.export.load(path)
    except Exception as error:  # whatever an archive in another format leads to
        raise ValueError(f"{path} cannot be read by PyTorch {torch.__version__} ({type(error).__name__}: {error}). What a newer version "
                         "wrote needs that version.") from error


def write_faces(generator, path, n=64, truncation=None, seed=0, columns=8):
    """Draw n faces: one contact sheet where `path` ends in .png, else face_0001.png ... in that folder; returns the paths.

    `generator`: from load_generator; `truncation`: no number of a latent beyond it (None: any; the truncation trick of Brock et
    al., 2019); `seed`: the same one, the same faces.
    """
    check_counts(n=n, columns=columns)
    if truncation is not None and not truncation > 0:
        raise ValueError(f"truncation = {truncation!r} does not work: give a number above 0, or None.")
    path, source, z = Path(path), torch.Generator().manual_seed(seed), torch.empty(n, generator.z_size)
    for latent in z:  # one by one, so that more faces begin with the same ones
        if truncation is None:
            latent.normal_(generator=source)
        else:
            nn.init.trunc_normal_(latent, a=-truncation, b=truncation, generator=source)
    with torch.no_grad():
        faces = torch.cat([generator(part) for part in z.split(100)])
    if path.suffix.lower() == ".png":
        sheets = {path: tile(faces, min(n, columns))}
    else:
        sheets = {path / f"face_{i + 1:04d}.png": pixels for i, pixels in enumerate(to_pixels(faces))}
    for file, pixels in sheets.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    return list(sheets)


def export_onnx(path, onnx_path):
    """Write an exported generator as ONNX, input `z` (N, z_size), output `faces` (N, 3, S, S), N free; needs onnxscript."""
    try:
        import onnxscript  # noqa: F401
    except ModuleNotFoundError:
        raise ModuleNotFoundError("ONNX needs another package: pip install onnxscript") from None
    torch.onnx.export(_load_program(Path(path)), f=onnx_path, dynamo=True, input_names=["z"], output_names=["faces"], external_data=False,
                      verbose=False)
