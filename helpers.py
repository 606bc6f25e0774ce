"""What the lesson needs and does not teach.

Sections, in the order in which `dlnd_face_generation.ipynb` first needs them: settings · devices ·
progress · ranks · getting the data · decoding · figures · labels · networks · scores · runs.
Archives, folders and pictures are read by `assets/face_files.py`, the files of a run are written by
`assets/run_files.py`.
"""

import atexit
import base64
import contextlib
import copy
import errno
import functools
import hashlib
import http.client
import io
import json
import math
import os
import re
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, Subset
from torchvision.utils import make_grid
from tqdm import tqdm

from assets import drawn_faces, face_files, run_files
from assets.face_network import load_face_network

LESSON = "dlnd_face_generation"  # tells this module from others of its name
IMAGE_SIZES = 16, 32, 64, 128, 256
CACHE = Path("cache")
ELSEWHERE = "start the notebook in a folder that you may write to"

DataError, explain_disk_errors = face_files.DataError, face_files.explain_disk_errors
is_image, load_image, load_face = face_files.is_image, face_files.load_image, face_files.load_face
class_folders, labelled_images = face_files.class_folders, face_files.labelled_images
readable, captions = face_files.readable, face_files.captions
usable_labels, split_domains = face_files.usable_labels, face_files.split_domains

# ---------------------------------------------------------------- settings


def number(low, high=1e9, whole=False):
    """A test: is a value a number, no text and no True, from `low` to `high`?"""
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    return lambda x: isinstance(x, kinds) and not isinstance(x, bool) and low <= x <= high


def text(pattern=r"[^\0]*\S[^\0]*", kinds=str):
    """A test: is a value a text that fits the pattern from end to end?"""
    fits = re.compile(pattern, re.IGNORECASE).fullmatch
    return lambda x: isinstance(x, kinds) and fits(os.fspath(x)) is not None


def list_of(test, length=None):
    """A test: is a value a list, of this length if given, whose items pass `test`?"""
    kinds, lengths = (list, tuple), range(1000) if length is None else [length]
    return lambda x: isinstance(x, kinds) and len(x) in lengths and all(map(test, x))


PATH = text(kinds=(str, os.PathLike))
ADDRESS = text(r"|https?://[^/\s]+/\S*|file://(localhost)?/\S+")
ABOVE_0, BELOW_1 = math.nextafter(0, 1), math.nextafter(1, 0)
COUNT = number(1, whole=True), "it must be a whole number of at least 1"
LOSSES = "least squares", "cross-entropy"
DEFAULT_LABELS = {"domain_label": "Heavy_Makeup", "domain_same": "Male"}
MAY_BE_NONE = (
    "data_url data_sha256 batch_size max_minutes patience label_names domain_same domain_dirs "
    "photograph photograph_box start_from"
)
SETTINGS = (  # names, test, what is right
    ("data_dir", PATH, 'give a folder of images, a .zip of them, or "drawn"'),
    ("data_url", ADDRESS, "an address begins with https://, http:// or file:/// and has no spaces"),
    ("data_sha256", text("[0-9a-f]{64}|"), "give 64 hexadecimal digits, or None"),
    ("n_drawn batch_size d_conv_dim g_conv_dim n_epochs print_every", *COUNT),
    ("z_size", number(2, whole=True), "it must be a whole number of at least 2"),
    ("patience experiment_images domain_batch", *COUNT),
    ("lr d_lr domain_lr", number(ABOVE_0, BELOW_1), "it must be a number between 0 and 1"),
    ("beta1", number(0, BELOW_1), "it must be a number of at least 0 and below 1; try 0.3"),
    ("max_minutes", number(ABOVE_0), "give a number above 0, or None for no limit"),
    ("seed", number(0, 2**32 - 1, whole=True), f"give a whole number from 0 to {2**32 - 1}"),
    ("inception resume next_steps", lambda x: x is True or x is False, "give True or False"),
    ("out_dir", lambda x: PATH(x) and Path(x).name, "give the name of a folder of its own"),
    ("large_dir", lambda x: PATH(x) and face_files.is_source(x), "give a folder of images"),
    ("start_from", PATH, 'give the checkpoint of a run, such as "assets/celeba_32.pt"'),
    ("label_names", list_of(text()), 'give a list of names, such as ["Smiling"], or None'),
    ("domain_label domain_same", text(), "give the name of a label"),
    ("domain_dirs", face_files.are_two_folders, "give two folders that hold images"),
    ("domain_loss", LOSSES.__contains__, f"it must be one of {LOSSES}"),
    ("cycle_weight identity_weight", number(0), "a weight is a number of at least 0"),
    ("photograph", PATH, "give the path of a picture, or None"),
    ("photograph_box", list_of(number(0), 4), "give left, top, right, bottom in pixels, or None"),
)


def check(name, value, test, sentence):
    """Raise a ValueError that names the setting unless its value passes the test."""
    if not test(value):
        raise ValueError(f"{name} = {value!r} does not work: {sentence}.")


def check_image_size(image_size):
    """Raise a ValueError unless image_size (pixels) is a power of two from 16 to 256."""
    sentence = "the networks halve and double the image, so it must be one of "
    sentence += ", ".join(map(str, IMAGE_SIZES))
    check("image_size", image_size, number(16, 256, whole=True), sentence)
    check("image_size", image_size, IMAGE_SIZES.__contains__, sentence)


def check_counts(**counts):
    """Raise a ValueError that names the first of `counts` that is not a whole number above zero."""
    for name, value in counts.items():
        check(name, value, *COUNT)


def check_choice(choices, **setting):
    """Raise a ValueError that lists `choices`, nearest first, unless the one setting is one."""
    ((name, value),) = setting.items()
    order = sorted(choices, key=lambda choice: -face_files.likeness(choice, value))
    sentence = f"it must be one of {', '.join(map(repr, order[:10]))}"
    check(name, value, order.__contains__, sentence)


def check_settings(settings):
    """Check the settings, a dict, before anything runs; a ValueError names the first bad one.

    Names that are no settings are ignored. In a notebook, figures are switched on.
    """
    use_inline_figures()
    size = settings.get("image_size", 64)
    check_image_size(size)
    for names, test, sentence in SETTINGS:
        for name in settings.keys() & names.split():
            if settings[name] is not None or name not in MAY_BE_NONE.split():
                check(name, settings[name], test, sentence)
    if settings.get("photograph") is not None:
        load_face(settings["photograph"], size, settings.get("photograph_box"))
    if settings.get("start_from") is not None:
        run_files.check_start(settings["start_from"], settings)


# ---------------------------------------------------------------- devices


@lru_cache(1)
def has_gpu():
    """Whether there is a CUDA GPU for which this build of PyTorch has kernels."""
    if not torch.cuda.is_available():
        return False
    try:
        major, minor = torch.cuda.get_device_capability()
    except (RuntimeError, AssertionError):  # it cannot say
        return True
    built = " ".join(torch.cuda.get_arch_list())  # such as "sm_86 sm_90 compute_90"
    can_compile = any(10 * major + minor >= int(n) for n in re.findall(r"compute_(\d+)", built))
    has_kernels = re.search(rf"sm_{major}[0-{minor}](?!\d)", built)
    if torch.version.hip or not built or can_compile or has_kernels:
        return True
    print(f"PyTorch has no kernels for the {torch.cuda.get_device_name()}: it stays unused.")
    return False


def find_device():
    """The device to train on: this rank's CUDA GPU, else an Apple GPU, else the processor."""
    _, ranks = world()  # gives each rank its own GPU
    if has_gpu():
        torch.backends.cudnn.benchmark = True  # all batches have one shape
        return torch.device("cuda")
    has_mps = torch.backends.mps.is_available()
    if has_mps and ranks > 1:
        print("Several processes cannot share an Apple GPU: they train on the processor.")
    return torch.device("mps" if has_mps and ranks == 1 else "cpu")


def describe_device(device):
    """The device in words."""
    if device.type != "cpu":
        is_cuda = device.type == "cuda"
        return f"the GPU: {torch.cuda.get_device_name(device) if is_cuda else 'of this Mac'}"
    precision = " and bfloat16" if has_fast_bfloat16(device) else ""
    return f"the processor, with {torch.get_num_threads()} threads{precision}"


def default_batch_size(n_images, image_size=32):
    """Images per training step: 32; for small faces on a GPU 128 or 256 (see performance.md)."""
    device = find_device()
    if device.type == "cpu" or n_images < 1000 or image_size > 64:
        return 32
    n = 256 if has_fast_bfloat16(device) and image_size <= 32 else 128
    print(f"On this GPU a step takes {n} images, not 32. To change that, set batch_size.")
    return n


def has_fast_bfloat16(device):
    """Whether the device multiplies bfloat16 matrices faster than float32 ones."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    names = "_is_amx_tile_supported", "_is_avx512_bf16_supported"
    checks = [getattr(torch.cpu, name, lambda: False) for name in names]
    return device.type == "cpu" and any(check() for check in checks)


def autocast(device):
    """Mixed precision: matrix products in bfloat16 where that is faster, else plain float32.

    Without autocast's cache, which would keep the weights as they were when the block was entered.
    """
    if not has_fast_bfloat16(device):
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


# ---------------------------------------------------------------- progress


def in_notebook():
    """Whether this code runs in a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def show_live(shown, handle=None, alt=""):
    """Show a picture or a line of text in place of what `handle` showed; returns the next handle.

    `alt`: what a picture shows, for those who do not see it.
    """
    if not in_notebook():
        return None
    settings = {"metadata": {"image/png": {"alt": alt}}}
    if isinstance(shown, str):  # which itself would be shown in quotes
        shown, settings = {"text/plain": shown}, {"raw": True}
    if handle is None:
        return sys.modules["IPython"].display.display(shown, display_id=True, **settings)
    handle.update(shown, **settings)
    return handle


def show_animation(path):
    """Show a GIF in the notebook, as HTML: the form that every viewer of notebooks plays."""
    if in_notebook():
        data = base64.b64encode(Path(path).read_bytes()).decode("ascii")
        alt = "The samples as training went on"
        html = f'<img src="data:image/gif;base64,{data}" alt="{alt}">'
        sys.modules["IPython"].display.display({"text/html": html, "text/plain": alt}, raw=True)


class InPlace(io.TextIOBase):
    """What tqdm writes to in a notebook: one output that changes."""

    encoding, handle = "utf-8", None

    def write(self, text):
        if line := text.strip():
            self.handle = show_live(line, self.handle)


def progress(*args, **settings):
    """A tqdm bar: a single changing line in a notebook, on stdout elsewhere."""
    file = InPlace() if in_notebook() else sys.stdout
    return tqdm(*args, file=file, mininterval=0.5, **settings)


# ---------------------------------------------------------------- ranks

is_single = False


def world():
    """This process's rank and the number of ranks; (0, 1) without torchrun."""
    return (0, 1) if is_single else join_ranks()


@contextlib.contextmanager
def single_process():
    """Within it, each rank works by itself: for checks."""
    global is_single
    before, is_single = is_single, True
    try:
        yield
    finally:
        is_single = before


@lru_cache(1)
def join_ranks():
    """Join the ranks that torchrun started: by NCCL between GPUs, by gloo between processors.

    From then on only rank 0 prints.
    """
    size, needed = int(os.environ.get("WORLD_SIZE", 1)), {"RANK", "LOCAL_RANK", "MASTER_ADDR"}
    if size == 1:
        return 0, 1
    check("WORLD_SIZE", size, lambda _: needed <= os.environ.keys(), "start it with torchrun")
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    if has_gpu():
        n_gpus = torch.cuda.device_count()
        sentence = f"each process needs a GPU of its own, and there are {n_gpus}"
        check("--nproc-per-node", local_rank + 1, number(1, n_gpus), sentence)
        torch.cuda.set_device(local_rank)
    with explain_lost_ranks():
        store, _, _ = next(dist.rendezvous("env://"))
        if os.environ.get("GROUP_WORLD_SIZE") == "1":  # the store outlives ranks that are restarted
            restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)
            store = dist.PrefixStore(f"start_{restarts}", store)
        backend = "cpu:gloo,cuda:nccl" if has_gpu() else "gloo"
        patience = timedelta(hours=2)  # while rank 0 fetches the data, or scores
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=patience)
    atexit.register(dist.destroy_process_group)
    if rank:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
    return rank, size


@contextlib.contextmanager
def explain_lost_ranks():
    """Within it, a broken connection is explained: another rank has ended."""
    try:
        yield
    except RuntimeError as error:  # of gloo, NCCL or the store
        signs = r"connection|\bpeer\b|socket|timed? ?out|gloo|nccl|tcpstore"
        if not re.search(signs, str(error), re.IGNORECASE):
            raise
        raise ConnectionError(
            "Another rank has ended, or does not answer, and this one ends with it. With "
            "--max-restarts torchrun starts all again, and the run goes on from its checkpoint."
        ) from error


def from_rank_0(value=None):
    """Rank 0's value, on every rank; the others wait for it."""
    values = [value]
    if world()[1] > 1:
        with explain_lost_ranks():
            dist.broadcast_object_list(values, device=torch.device("cpu"))
    return values[0]


@contextlib.contextmanager
def rank_0_first():
    """Within it, the other ranks begin when rank 0 is through, and find what it left."""
    rank, _ = world()
    if rank:
        from_rank_0()
    try:
        yield
    finally:  # after an error, too: the others would wait for ever
        if not rank:
            from_rank_0()


def mean_of_ranks(tensor):
    """A tensor of floats, changed to its mean over all ranks, which wait for each other."""
    if world()[1] > 1:
        with explain_lost_ranks():
            dist.all_reduce(tensor)
        tensor /= world()[1]
    return tensor


def wait_for_ranks():
    """Return when all ranks are here."""
    mean_of_ranks(torch.zeros(()))


def share_of(loader):
    """This rank's share of a DataLoader: the ranks' batches together are the loader's own.

    A loader of an IterableDataset is taken as the rank's own; all ranks' must be equally long.
    """
    _, size = world()
    if size == 1 or isinstance(loader.dataset, IterableDataset):
        return loader
    order = list(loader.sampler)  # so that the next batch is the same for any number of ranks
    n, sentence = loader.batch_size, f"{size} ranks share it: give a multiple, {len(order)} at most"
    check("batch_size or domain_batch", n, range(size, len(order) + 1, size).__contains__, sentence)
    own = [order[i] for i in DistributedSampler(order, shuffle=False, drop_last=True)]
    collate = loader.collate_fn
    return DataLoader(loader.dataset, n // size, sampler=own, drop_last=True, collate_fn=collate)


def average_gradients(optimizer, *_):
    """Replace the gradients that an optimizer is about to use by their means over the ranks."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    flat = mean_of_ranks(torch.cat([gradient.flatten() for gradient in gradients]))
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts):
        gradient.copy_(part.view_as(gradient))


@contextlib.contextmanager
def averaged_gradients(networks, optimizers):
    """Within it, optimizers step by the means of all ranks' gradients, from rank 0's weights on.

    Batch-norm statistics stay each rank's own.
    """
    several, hooks = world()[1] > 1, []
    if several and not optimizers:
        raise ValueError("Several ranks train together only what a run holds: give train a run.")
    for network in networks if several else ():
        for tensor in network.state_dict().values():
            whole = tensor.contiguous()
            with explain_lost_ranks():
                dist.broadcast(whole, 0)
            tensor.copy_(whole)
    if several:
        hooks = [one.register_step_pre_hook(average_gradients) for one in optimizers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


# ---------------------------------------------------------------- getting the data

PUBLISHED_URL = (
    "https://s3.amazonaws.com/video.udacity-data.com/topher/2018/November/"
    "5be7eb6f_processed-celeba-small/processed-celeba-small.zip"
)


def find_data(data_dir, url=None, sha256=None, n_drawn=20_000, image_size=64):
    """Find the faces, say in one line where, and return their folder (a Path).

    In this order: images below `data_dir`, or in the .zip that it names; the archive at `url`,
    unpacked into `data_dir`; `n_drawn` drawn faces, if `data_dir` is "drawn", or if it is the
    default and there is no network. Raises DataError when data is there but wrong.
    """
    return from_rank_0(None if world()[0] else _find(data_dir, url, sha256, n_drawn, image_size))


def _find(data_dir, url, sha256, n_drawn, image_size):
    check_settings({"data_dir": data_dir, "data_url": url, "data_sha256": sha256})
    if str(data_dir) == "drawn":
        return drawn_folder(n_drawn, image_size, 'data_dir = "drawn"')
    folder, source, is_own = face_files.to_path(data_dir), url, url not in (None, "", PUBLISHED_URL)
    if folder.suffix.lower() == ".zip" and folder.is_file():
        folder, source, sha256 = folder.with_suffix(""), folder, None
    elif not folder.exists():
        face_files.check_folder_name(data_dir, is_own)
    try:
        fetch = functools.partial(face_files.fetch, source, sha256=sha256, cache=CACHE)
        face_files.make_once(folder, lambda empty: fetch(empty, progress=progress), ELSEWHERE)
    except face_files.Unreachable as error:
        if not is_own:
            return drawn_folder(n_drawn, image_size, error)
        message = f"data_url = {url!r} cannot be fetched: {error}. Correct it, or give data_dir"
        raise DataError(f"{message} a folder of images or a .zip of them.") from None
    others = Counter()
    n = len(face_files.find_images(folder, others))
    endings = ", ".join(f"{count:,} {ending}" for ending, count in others.most_common(5))
    print(f"Data: {n:,} images found in {folder}{'; passed over: ' if others else ''}{endings}.")
    return folder


def drawn_folder(n, image_size, reason):
    """A folder of `n` drawn faces and of an eighth as many to be held out."""
    check_counts(n_drawn=n)
    size, held_out = max(64, image_size), face_files.most_held_out(n)
    folder = Path("drawn_faces", f"{n}_at_{size}_v{drawn_faces.DRAWING}")

    def draw(empty):
        with progress(total=n + held_out, unit="img", desc="drawing") as bar:
            drawn_faces.write_folder(empty, n, size, held_out, bar.update)

    face_files.make_once(folder, draw, ELSEWHERE)
    print(f"Data: {n:,} drawn faces in {folder}, and {held_out:,} more held out; {reason}.")
    return folder


# ---------------------------------------------------------------- decoding, once

MOST_UNREADABLE = 0.1  # of a folder's images
KEPT_COPIES = 4  # of a folder, at several sizes
PARTS = "train", "validation", "test"  # to train on; to choose by; to report scores on


class DecodedFaces(torch.utils.data.Dataset):
    """One part of an image folder whose pictures have been decoded and transformed once.

    `images`: uint8 (n, 3, S, S), memory-mapped; `labels`: int64 (n,), class numbers, or other
    labels, float32 (n, k); `names`: of the files, by which they belong to one of PARTS (without
    names, all are in every part); `readable`: bools (n,), the others are in no part; `flip`: mirror
    an image with a chance of one half as it is served; `root`: their folder. `rows`: those of this
    part; `known`: {label: bools (n,)}.
    """

    def __init__(self, images, labels, classes, flip=False, names=(), readable=None, root="."):
        self.images, self.labels, self.classes, self.root = images, labels, classes, root
        self.class_numbers = labels  # they stay when other labels take their place
        self.flip, self.names = flip, names
        rows = np.arange(len(images)) if readable is None else np.flatnonzero(readable)
        parts = np.full(len(images), -1)
        parts[rows] = face_files.parts_of([names[row] for row in rows]) if names else 0
        self.parts = torch.from_numpy(parts)
        self.held_out = int((self.parts > 0).sum())
        self.rows = (self.parts == 0).nonzero().flatten()

    @functools.cached_property
    def known(self):
        return face_files.known_labels(self)

    def part(self, name):
        """Another of PARTS, not mirrored. Where nothing is held out, it is the same images."""
        faces, number = copy.copy(self), PARTS.index(name) if self.held_out else 0
        faces.flip, faces.rows = False, (self.parts == number).nonzero().flatten()
        return faces

    def where(self, chosen):
        """Those faces, in this part and the others, for which `chosen`, bools (n,), is true."""
        faces = copy.copy(self)
        faces.parts = torch.where(chosen, self.parts, -1)
        faces.rows = self.rows[chosen[self.rows]]
        return faces

    def batch(self, indices):
        """Faces of this part: float32 (B, 3, S, S) in [0, 1], where `images` are; their labels."""
        rows = self.rows[torch.as_tensor(indices, dtype=torch.int64)]
        images = self.images[rows.to(self.images.device, non_blocking=True)]
        return images.float() / 255, self.labels[rows]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, indices):
        images, labels = self.batch(indices)
        if self.flip:
            mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
            images = torch.where(mirrored, images.flip(-1), images)
        return images, labels


def decode_once(dataset, flip=False):
    """Decode an ImageFolder, whose transform ends in ToTensor, into the DecodedFaces to train on.

    The pixels are kept in `cache/` and taken from there as long as folder and transform stay the
    same. Unreadable files are left out and named in one line; DataError for more than a tenth.
    """
    rank, _ = world()
    folder = from_rank_0(None if rank else CACHE / f"decoded_{cache_key(dataset)}")
    if not from_rank_0(folder.exists()):
        decode_together(dataset, folder)
    with contextlib.suppress(OSError):
        os.utime(folder)  # it is the last to be used
    mask, names = np.load(folder / "readable.npy"), [Path(path).name for path, _ in dataset.samples]
    lost = np.flatnonzero(~mask)
    first = ", ".join(face_files.printable(names[row]) for row in lost[:3])
    if len(lost) > MOST_UNREADABLE * len(mask):
        wait_for_ranks()
        shutil.rmtree(folder, ignore_errors=True)  # so that they are tried again
        found = f"{len(lost)} of the {len(mask)} images in {dataset.root} cannot be read"
        reason = face_files.read_item(dataset, lost[0])[1]
        message = f"{found}, more than {MOST_UNREADABLE:.0%}, such as {first}. {reason}."
        raise DataError(f"{message} Replace them, or take them out.")
    if len(lost):
        print(f"Left out {len(lost)} unreadable files, the first: {first}.")
    try:
        images = np.load(folder / "images.npy", mmap_mode="c")
    except OSError:  # a drive that maps no files
        images = np.load(folder / "images.npy")
    images, labels = torch.from_numpy(images), torch.tensor(dataset.targets)
    return DecodedFaces(images, labels, dataset.classes, flip, names, mask, dataset.root)


def cache_key(dataset):
    """A short name for what the pixels depend on: the transform, the files, their dates."""
    key = hashlib.sha256(f"2 {dataset.transform!r}".encode())  # 2: this way of reading pictures
    for path, _ in dataset.samples:
        key.update(repr(path).encode())
        with contextlib.suppress(OSError):  # decoding will explain it
            file = os.stat(path)
            key.update(f"{file.st_size} {file.st_mtime_ns}".encode())
    return key.hexdigest()[:16]


def pixels_of(dataset, index):
    """The pixels of one image, uint8 (3, S, S), or None if it cannot be read."""
    item, _ = face_files.read_item(dataset, index)
    return None if item is None else (item[0] * 255).round().byte().numpy()


def decode_together(dataset, folder):
    """Fill `folder` with images.npy, uint8 (n, 3, S, S), and readable.npy, bool (n,)."""
    (rank, size), n = world(), len(dataset)
    on_rank_0 = contextlib.nullcontext if rank else lambda context: context
    with explain_disk_errors(CACHE, ELSEWHERE), on_rank_0(face_files.locked(folder)):
        if not from_rank_0(folder.exists()):
            with on_rank_0(face_files.filled(folder)) as unfinished:
                shape = None if rank else create_array(dataset, unfinished / "images.npy")
                unfinished, shape = from_rank_0((unfinished, shape))
                rows = np.array_split(np.arange(n), size)[rank]
                mask = write_rows(dataset, rows, unfinished / "images.npy", shape)
                if not rank:
                    np.save(unfinished / "readable.npy", mask)
                    source = face_files.to_path(dataset.root).resolve()
                    (unfinished / "source.txt").write_bytes(os.fsencode(source))
            if not rank:
                with face_files.locked(CACHE / "copies"):  # another process may remove them, too
                    remove_old_copies()
    wait_for_ranks()


def create_array(dataset, path):
    """An .npy file of zeros for the dataset's pixels; returns the shape of an image.

    It is written as a file: a writable memory map would end in a crash on a full disk.
    """
    images = (pixels_of(dataset, index) for index in range(len(dataset)))
    shape = next((image.shape for image in images if image is not None), (3, 1, 1))
    n_bytes = len(dataset) * math.prod(shape)
    if shutil.disk_usage(path.parent).free < n_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(dataset), *shape)}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + n_bytes)
    return shape


def write_rows(dataset, rows, path, shape):
    """Write the pixels of these rows into the file of create_array.

    Returns bools (n,), whether an image was readable, for the rows of all ranks.
    """
    size, mask = math.prod(shape), torch.zeros(len(dataset))
    start = path.stat().st_size - len(dataset) * size
    portions = [rows[k : k + 256] for k in range(0, len(rows), 256)]  # a pool notes all it gets
    with open(path, "r+b") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
        decode = functools.partial(pixels_of, dataset)
        decoded = (image for portion in portions for image in pool.map(decode, portion))
        bar = progress(decoded, "decode", len(rows), unit="img", disable=len(rows) < 1000)
        for row, image in zip(rows.tolist(), bar):
            if image is None:
                continue
            if image.shape != shape:
                message = f"The transform gives images {shape} and {image.shape}"
                raise ValueError(f"{message}: let it end in CenterCrop(image_size), ToTensor().")
            file.seek(start + row * size)
            file.write(image.tobytes())
            mask[row] = 1
    return mean_of_ranks(mask).numpy() > 0


def remove_old_copies():
    """Keep the newest decoded copies of each folder that is still there; say what is removed."""
    copies, removed = {}, 0
    for note in CACHE.glob("decoded_*/source.txt"):
        copies.setdefault(os.fsdecode(note.read_bytes()), []).append(note.parent)
    for source, folders in copies.items():
        folders.sort(key=os.path.getmtime, reverse=True)
        for folder in folders[KEPT_COPIES if os.path.exists(source) else 0 :]:
            doomed = folder.with_name(f".{folder.name}.old")  # so that it is never half there
            with contextlib.suppress(OSError):  # Windows keeps what is in use
                os.replace(folder, doomed)
                removed += os.path.exists(source)  # a deleted folder's copies go unsaid
            shutil.rmtree(doomed, ignore_errors=True)
    if removed:
        print(f"Removed {removed} older decoded copies from {CACHE}.")


def keep_on(device, dataset):
    """Move the pixels of DecodedFaces to a GPU with room for them twice; leave others in place."""
    if device.type == "cuda" and isinstance(dataset, DecodedFaces):
        if 2 * dataset.images.nbytes < torch.cuda.mem_get_info(device)[0]:
            dataset.images = dataset.images.to(device)


def as_batch(batch):
    """The collate_fn for DecodedFaces: they serve whole batches."""
    return batch


# ---------------------------------------------------------------- figures


def use_inline_figures():
    """Show figures in a notebook even if the environment sets MPLBACKEND=Agg, as servers do."""
    shell = sys.modules["IPython"].get_ipython() if in_notebook() else None
    if hasattr(shell, "kernel") and plt.get_backend().lower() == "agg":
        shell.run_line_magic("matplotlib", "inline")


def to_bytes(images, value_range=(-1, 1)):
    """Images float (N, 3, H, W) -> uint8, on the processor; clipped, never rescaled."""
    low, high = value_range
    unit = (images.detach().float().cpu() - low) / (high - low)
    return (unit.clamp(0, 1) * 255).round().byte()


def image_grid(images, columns=8, value_range=(-1, 1)):
    """Images (N, 3, H, W) in `value_range` -> one picture with white gaps, uint8 (H, W, 3)."""
    grid = make_grid(to_bytes(images, value_range), columns, padding=2, pad_value=255)
    return (grid[:, 2:-2, 2:-2] if len(images) > 1 else grid).permute(1, 2, 0).numpy()


def show_images(
    images, title=None, labels=None, columns=8, value_range=(-1, 1), cell=1.1, row_labels=None
):
    """Show images (N, 3, H, W) in `value_range`, `cell` inches each, with labels if given."""
    pixels = to_bytes(images, value_range).permute(0, 2, 3, 1).numpy()
    rows = math.ceil(len(pixels) / columns)
    width, height = columns * cell, rows * (cell + (0.35 if labels else 0))
    width, height = width + (1 if row_labels else 0), height + (0.3 if title else 0)
    figure, axes = plt.subplots(rows, columns, squeeze=False, figsize=(width, height))
    for axis in axes.flat:
        axis.axis("off")
    for index, (axis, image) in enumerate(zip(axes.flat, pixels)):
        axis.imshow(image)
        if labels:
            axis.set_title(labels[index], fontsize=7, pad=2, parse_math=False)
    for axis, label in zip(axes[:, 0], row_labels or ()):
        place = dict(transform=axis.transAxes, ha="right", va="center")
        axis.text(-0.05, 0.5, label, fontsize=8, parse_math=False, **place)
    if title:
        figure.suptitle(title, fontsize=11, y=1 - 0.03 / height, va="top", parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # of names in a script that the font lacks
        figure.tight_layout(pad=0.3)
        show_figure(figure, title or "Images")


def show_figure(figure, alt):
    """Show a figure, then close it; `alt`: what it shows, for those who do not see it."""
    if in_notebook():
        metadata = {"image/png": {"alt": alt}}
        sys.modules["IPython"].display.display(figure, metadata=metadata)
    else:
        plt.show()
    plt.close(figure)


# ---------------------------------------------------------------- labels


def check_faces(faces, label_names=None, domain_label=None, domain_same=None):
    """DataError for too few faces; ValueError for a label that is unknown, or too rare to learn."""
    if len(faces) < 4:  # precision and recall look at the third nearest neighbour
        raise DataError(f"Scores need at least 4 images, and {len(faces)} can be read: add some.")
    chosen = [("label_names", name) for name in label_names or ()]
    chosen += [("domain_label", domain_label), ("domain_same", domain_same)]
    for setting, name in chosen:
        if name is not None and name != DEFAULT_LABELS.get(setting):
            sentence = "nothing is known about these faces; assets/docs/settings.md says what helps"
            check(setting, name, lambda _: faces.known, sentence)
            check_choice(faces.known, **{setting: name})
    for name in label_names or ():
        has = faces.known[name][faces.rows]
        sentence = f"{has.sum()} of {len(has)} training faces have it; 20 must, 20 must not, and "
        sentence += "there must be both among those held out"
        check("label_names", name, usable_labels(faces).__contains__, sentence)
    if domain_label not in (None, DEFAULT_LABELS["domain_label"]):
        sentence = "too few faces with it and without it are alike in domain_same: each part of "
        sentence += "the data, train, validation and test, needs 8 of both"
        is_split = split_domains(faces, domain_label, domain_same)
        check("domain_label", domain_label, lambda _: is_split, sentence)


# ---------------------------------------------------------------- networks


def summary(network, *input_shape):
    """Print a network's layers, output shapes and parameters, for an input (2, *input_shape)."""
    network = copy.deepcopy(network).eval()  # in training mode its running statistics would change
    names = {layer: name for name, layer in network.named_modules() if not list(layer.children())}

    def show(layer, inputs, output):
        if layer in names:
            name = f"{names[layer]} {type(layer).__name__}"
            count = sum(p.numel() for p in layer.parameters())
            print(f"  {name:32} {str(tuple(output.shape[1:])):18} {count:>10,}")

    print(f"{type(network).__name__}: input {input_shape}")
    print(f"  {'layer':32} {'output':18} {'parameters':>10}")
    with torch.no_grad(), register_module_forward_hook(show):
        network(torch.zeros(2, *input_shape, device=next(network.parameters()).device))
    print(f"  {'parameters':51} {sum(p.numel() for p in network.parameters()):>10,}\n")


def recalibrate_batch_norm(generator, z_size, batches=100, batch_size=32, seed=0):
    """Give a generator batch-norm statistics that fit its weights, from latents of a fixed seed.

    Averaged weights make other activations than those whose statistics training has collected. The
    batches are as small as in training, where each is normalised by itself.
    Returns the generator in eval mode: from then on a latent gives the same face in any batch.
    """
    device, source = next(generator.parameters()).device, torch.Generator().manual_seed(seed)
    latents = (torch.randn(batch_size, z_size, generator=source) for _ in range(batches))
    with autocast(device):
        update_bn((z.to(device) for z in latents), generator)
    return generator.eval()


# ---------------------------------------------------------------- scores

INCEPTION = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"  # ends in the first digits of the sha256
)


def face_features(faces, batch_size=250):
    """Faces (N, 3, S, S) in [-1, 1] -> features of the face network, float32 (N, 144), CPU."""
    device, features = torch.device("cuda" if has_gpu() else "cpu"), []
    network = load_face_network()[1].to(device)
    with torch.no_grad(), autocast(device):
        for batch in faces.split(batch_size):
            batch = batch.to(device, memory_format=torch.channels_last)
            features.append(network.features(batch).cpu())
    return torch.cat(features)


def inception_scores(real, fake):
    """{"FID": ..., "KID": ...} of images (N, 3, S, S) in [-1, 1]; without weights {} and a line.

    FID: Heusel et al., 2017; KID: Bińkowski et al., 2018.
    """
    from torch_fidelity import calculate_metrics  # here, because that takes seconds

    path = Path(torch.hub.get_dir(), "checkpoints", INCEPTION.rpartition("/")[2])
    try:
        with rank_0_first():
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(INCEPTION, str(path), path.stem[-8:], progress=False)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        print(f"No FID and KID without Inception's weights, {INCEPTION} ({error}).", end=" ")
        print(f"Put the file into {path.parent} to have them.")
        return {}
    torch.load(path, weights_only=True)  # refuses all but weights, as the library below does not
    inputs = {f"input{i}": Subset(to_bytes(x), range(len(x))) for i, x in ((1, real), (2, fake))}
    options = dict(fid=True, kid=True, kid_subset_size=min(1000, len(real), len(fake)))
    options |= dict(feature_extractor_weights_path=str(path), cuda=has_gpu(), verbose=False)
    scores = calculate_metrics(**inputs, **options, save_cpu_ram=True)  # without workers
    names = {"FID": "frechet_inception_distance", "KID": "kernel_inception_distance_mean"}
    return {name: scores[key] for name, key in names.items()}


# ---------------------------------------------------------------- runs

Checkpoints, load_checkpoint = run_files.Checkpoints, run_files.load_checkpoint
write_file, export_generator = run_files.write_file, run_files.export_generator
begin_with, random_state = run_files.begin_with, run_files.random_state
NO_MEMORY = "(?i)(out of|not enough|allocate) memory|STATUS_ALLOC_FAILED|unable to find an engine"
D_WINS = "d_loss is near its least: the discriminator has all but won. Lower d_lr or d_conv_dim."
G_CLIMBS = "g_loss keeps climbing: the discriminator is getting out of reach. Lower d_lr."
ALIKE = "the samples are all alike: the generator has collapsed. Lower lr, or go back to best.pt."
COUNTERS = "step", "images", "epoch", "batch", "seconds", "progress", "rows", "scores", "warned"


class StopRule:
    """When a run ends: minutes of training, images seen, scores in a row without a better one."""

    def __init__(self, minutes=None, images=None, patience=None):
        self.minutes, self.images, self.patience = minutes, images, patience

    def progress(self, run):
        """How far the run is, from 0 to 1; patience cannot be foreseen."""
        by_time = run.seconds / (60 * self.minutes) if self.minutes else 0.0
        by_images = run.images / self.images if self.images else 0.0
        return min(1.0, max(by_time, by_images))

    def reached(self, run):
        """The limits that the run has reached, by the names of their settings."""
        limits = {
            "max_minutes": self.minutes and run.seconds >= 60 * self.minutes,
            "the number of images": self.images and run.images >= self.images,
            "patience": self.patience and run.scores and run.best in run.scores[: -self.patience],
        }
        return [name for name, reached in limits.items() if reached]


class SampleGrids:
    """Grids of samples as training goes on, in folder/samples, and the animation made of them.

    `sample(generator)` gives images (N, 3, H, W) in [-1, 1], always of the same latents.
    """

    def __init__(self, folder, sample):
        self.folder, self.sample, self.handle = folder / "samples", sample, None

    def files(self):
        return sorted(self.folder.glob("step_*.png"), key=lambda path: int(path.stem[5:]))

    def keep(self, step, generator):
        """Write and show the grid of this step -> whether the samples are all alike."""
        images = self.sample(generator).float()
        grid = Image.fromarray(image_grid(images))
        write_file(self.folder / f"step_{step:07d}.png", lambda file: grid.save(file, "PNG"))
        self.show_last()
        return images.std(0).mean() < 0.1

    def show_last(self):
        """Show the last grid in place of the one before."""
        for path in self.files()[-1:]:
            grid = Image.open(path)
            zoom = max(1, 800 // grid.width)
            grid = grid.resize((grid.width * zoom, grid.height * zoom), Image.NEAREST)
            alt = f"Samples after {int(path.stem[5:]):,} steps"
            self.handle = show_live(grid, self.handle, alt)

    def animate(self, path, most=20, width=540):
        """Write a GIF about `width` pixels wide: two rows of up to `most` grids."""
        files = self.files()
        chosen = np.linspace(0, len(files) - 1, min(most, len(files))).round().astype(int)
        grids = [Image.open(files[i]) for i in chosen]
        w, h = grids[0].size
        h, zoom = min(h, (w + 2) // 4 - 2), max(1, width // w)  # of rows of eight
        frames = [x.resize((w * zoom, h * zoom), Image.NEAREST, (0, 0, w, h)) for x in grids]
        milliseconds = [250] * (len(frames) - 1) + [2000]  # it rests on the last one
        options = dict(save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
        write_file(path, lambda file: frames[0].save(file, "GIF", **options))


class Run:
    """One training run: its clock, its counters, and what it leaves in a folder.

    `out_dir`, `settings`, `resume`: see Checkpoints; without an `out_dir` nothing is kept. `stop`:
    a StopRule. `score(generator)` gives a number, at best 0; `sample(generator)` the images of
    SampleGrids, without which there is no animation and no generator.pt2. Both get the averaged
    generator, recalibrated, in eval mode (None if no part is called `averaged`). `parts`: networks,
    optimizers and schedulers, by name. Of several ranks rank 0 alone scores, saves and shows.
    """

    def __init__(
        self, out_dir=None, settings=None, stop=None, resume=True, score=None, sample=None, **parts
    ):
        self.settings = json.loads(json.dumps(run_files.plain(settings or {}), default=str))
        self.stop, self.parts, (self.rank, self.ranks) = stop or StopRule(), parts, world()
        self.networks, self.optimizers = run_files.split_parts(parts)
        self.step = self.images = self.epoch = self.batch = 0
        self.seconds, self.progress, self.stopped = 0.0, 0.0, False
        self.rows, self.scores, self.warned = [], [], []
        self.folder, self.random_state, self.share = None, None, 1  # share: ranks in a batch
        self.recorder = Recorder(self, score)
        if out_dir is not None:
            self.recorder.open(out_dir, resume, sample)

    @property
    def losses(self):
        """The losses so far, one (d_loss, g_loss) per row."""
        return [(d_loss, g_loss) for *_, d_loss, g_loss in self.rows]

    @property
    def best(self):
        """The row (step, images, seconds, score) of the best score so far."""
        return min(self.scores, key=lambda row: row[-1])

    @property
    def finished(self):
        """Whether a limit is reached or the stop button was pressed: the same on all ranks."""
        return self.stopped or bool(self.stop.reached(self))

    def __enter__(self):
        self.stopped = self.pressed = self.ending = False
        self.started = time.perf_counter() - self.seconds
        with contextlib.ExitStack() as stack:
            stack.enter_context(explain_too_little_memory(self.recorder))
            parts = self.networks.values(), self.optimizers.values()
            stack.enter_context(averaged_gradients(*parts))
            self.recorder.start(stack)
            stack.enter_context(stop_button(self._press))
            stack.push(self._end)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self.stack.__exit__(*error)

    def epochs(self, n_epochs):
        """Yield the epochs left, counted from 0, until `n_epochs` or a limit is reached."""
        limits = self.stop.reached(self) + (["n_epochs"] if self.epoch >= n_epochs else [])
        so_far = f"{self.step:,} steps, {self.images:,} images, {self.seconds / 60:.1f} minutes"
        if self.folder and limits:
            print(f"The run in {self.folder} is finished: {so_far}.", end=" ")
            print(f"To train longer, raise {' and '.join(limits)}.")
        elif self.folder and self.step:
            print(f"Going on with the run in {self.folder}: {so_far} so far.", end=" ")
            print("For a new run beside it, set resume = False.")
        while self.epoch < n_epochs and not self.finished:
            yield self.epoch

    def watch(self, loader, epoch):
        """Yield the batches of this epoch, from where the run left off until a limit is reached."""
        seed, state, self.random_state = self.settings.get("seed", 0), self.random_state, None
        sampler = getattr(loader, "sampler", None)
        if sampler is not None:  # its order belongs to the epoch, so that a run can go on
            sampler.generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
            loader, self.share = share_of(loader), self.ranks
        run_files.restore_random_state(state)
        batches = iter(loader)
        for _ in range(self.batch):
            next(batches, None)  # fewer than then: the epoch is over
        run_files.restore_random_state(state if self.batch else None)
        if self.rank:  # other latents than rank 0's, and never the same again
            torch.manual_seed(seed + self.rank + 1_000_003 * self.step)
        try:
            while not self.finished:  # asked first: an unused batch would use random numbers
                batch = next(batches, None)
                if batch is None:
                    self.epoch, self.batch = epoch + 1, 0
                    return
                yield batch
        finally:
            if sampler is not None:  # a loop without a run draws its order as before
                sampler.generator = None

    def log(self, d_loss, g_loss, n_images, n_steps, print_every):
        """Count a step on `n_images` real images, one of at most `n_steps` in the whole run.

        Every `print_every` steps the mean losses become a row.
        """
        self.step, self.batch = self.step + 1, self.batch + 1
        self.images += n_images * self.share
        self.seconds, self.stopped = from_rank_0((time.perf_counter() - self.started, self.pressed))
        self.progress = min(1.0, max(self.step / n_steps, self.stop.progress(self)))
        losses = [torch.as_tensor(loss, dtype=torch.float32) for loss in (d_loss, g_loss)]
        self.recorder.after_step(mean_of_ranks(torch.stack(losses).detach()), print_every)

    def at_best(self, name):
        """A copy of the network `name` as it was at the best score, or else as it is now."""
        network = copy.deepcopy(self.parts[name])
        if self.scores:
            try:
                network.load_state_dict(load_checkpoint(self.folder / "best.pt")[name])
            except (ValueError, LookupError, FileNotFoundError):
                print(f"best.pt is missing or damaged: {name} is taken as it is now.")
        return network

    def best_generator(self):
        """The averaged generator at its best score, recalibrated, in eval mode."""
        generator = self.at_best("averaged").module
        return recalibrate_batch_norm(generator, generator.z_size)

    def warn(self, *sentences):
        """Print each sentence once in a run."""
        for sentence in sentences:
            if sentence not in self.warned:
                self.warned.append(sentence)
                tqdm.write(f"At step {self.step:,}: {sentence}")  # above the progress bar

    def _press(self):
        """The stop button: the current step is finished. Pressed again, it interrupts at once."""
        if self.pressed and not self.ending and not self.recorder.is_writing:
            raise KeyboardInterrupt
        self.pressed = True

    def _end(self, kind, error, trace):
        """Keep what there is by now; after an error in a step the last checkpoint stands."""
        self.ending = True
        interrupted = kind is KeyboardInterrupt and self.ranks == 1  # others would wait for it
        if kind and not interrupted:
            return False
        if interrupted and self.folder:  # in the middle of a step: back to the last whole one
            self.recorder.load()
        self.stopped = from_rank_0(self.pressed)
        self.recorder.finish()
        return interrupted


class Recorder:
    """What is done around a run's steps: rows of losses, progress bar, grids, scores, files."""

    def __init__(self, run, score):
        self.run, self.score = run, score
        self.checkpoints = self.grids = None  # but with an out_dir, on rank 0
        self.sums, self.kept = [], ""

    def open(self, out_dir, resume, sample):
        """Hold the run's folder and go on from its newest checkpoint, if there is one."""
        run = self.run
        if not run.rank:
            patience = 0 if run.ranks == 1 else 30  # what torchrun ended may take some seconds
            self.checkpoints = Checkpoints(out_dir, run.settings, resume, patience)
            self.grids = SampleGrids(self.checkpoints.folder, sample) if sample else None
        run.folder = from_rank_0(self.checkpoints and self.checkpoints.folder)
        self.load()
        if run.step == 0 and any(optimizer.state for optimizer in run.optimizers.values()):
            print("This new run begins with networks that have been trained already.", end=" ")
            print("For fresh ones, run the notebook again from section 8.")

    def load(self):
        run = self.run
        state = from_rank_0(self.checkpoints and self.checkpoints.load(run.parts))
        if state is None:
            return
        if run.rank:
            run_files.load_parts(run.parts, state)
        vars(run).update({name: state[name] for name in (*COUNTERS, "random_state")})
        self.sums, self.kept = [], f"The checkpoint of step {run.step:,} stands."
        is_best = self.checkpoints and run.scores and run.best[0] == run.step
        if is_best and not self.checkpoints.is_current("best.pt"):  # a kill came before it
            self.checkpoints.write("best.pt", state)

    def start(self, stack):
        """Begin to record: a new run with a checkpoint and a grid of noise."""
        run = self.run
        self.before, self.last_row, self.is_writing = run.step, run.seconds, False
        self.next_look = self.next_score = run.seconds + 10
        if self.checkpoints:
            self.checkpoints.acquire()
            stack.callback(self.checkpoints.lock.release, force=True)
        bar = dict(total=100, initial=round(100 * run.progress), disable=not self.checkpoints)
        bar |= dict(bar_format="{percentage:3.0f}%|{bar:20}| {desc}", miniters=0, delay=1e-9)
        self.bar = stack.enter_context(progress(**bar))
        if run.folder and run.step == 0:
            self.look()
        elif self.grids:
            self.grids.show_last()

    def after_step(self, losses, print_every):
        """What is due: a row, the progress bar, a look."""
        run = self.run
        self.sums.append(losses)  # read when they become a row: reading waits for the device
        if run.step % print_every == 0 or run.seconds > self.last_row + 60:
            self.add_row()
        self.report()
        if run.folder and run.seconds >= self.next_look:
            self.look()

    def add_row(self):
        run = self.run
        check_finite(run.networks, self.sums, run.step, self.kept)
        means = torch.stack(self.sums).mean(0).tolist()
        run.rows.append((run.step, run.images, round(run.seconds, 2), *means))
        self.sums, self.last_row = [], run.seconds
        run.warn(*training_warnings(run.rows))

    @torch.no_grad()
    @torch.random.fork_rng(devices=[])  # training goes on as if nobody had looked
    def look(self, last=False):
        """Keep a grid, a checkpoint and a score, each for a twentieth of the time."""
        run, pending, began = self.run, self.run.random_state, time.perf_counter()
        run.random_state = pending or random_state()
        check_finite(run.networks, self.sums, run.step, self.kept)
        averaged = run.parts.get("averaged")
        generator = averaged and recalibrate_batch_norm(averaged.module, averaged.module.z_size)
        if self.grids:
            if self.grids.keep(run.step, generator) and generator and run.step >= 500:
                run.warn(ALIKE)
        if self.checkpoints:
            self.save()
        now = time.perf_counter()
        run.seconds, cost = now - run.started, now - began
        soon = next((t for t in (2, 10) if run.seconds < t), 1.1 * run.seconds)
        self.next_look = min(run.seconds + 300, max(soon, run.seconds + 20 * cost))
        scored = [step for step, *_ in run.scores]
        is_due = run.step not in scored and (last or run.seconds >= self.next_score)
        if self.checkpoints and self.score and is_due:
            value = float(self.score(generator))
            value = math.inf if math.isnan(value) else value
            run.scores.append((run.step, run.images, round(run.seconds, 2), value))
            self.save()
            if run.best is run.scores[-1]:
                self.save("best.pt")  # after last.pt: a kill may come between the two
            self.next_score = run.seconds + 21 * (time.perf_counter() - now)
        known = from_rank_0((run.seconds, run.scores, self.next_look))
        run.seconds, run.scores, self.next_look = known
        run.random_state = pending

    def report(self, end=""):
        """Bring the progress bar up to date; `end` says how the run has ended."""
        run = self.run
        epoch, rate = run.epoch + (run.batch > 0), run.images / max(run.seconds, 1e-9)
        seconds = round(run.seconds * (1 / max(run.progress, 1e-9) - 1))
        left = end or f"{seconds // 60}:{seconds % 60:02} left"
        words = f"epoch {epoch}, {run.images:,} images, {rate:,.0f} img/s, {left}"
        if run.rows:
            words += ", d_loss {:.2f}, g_loss {:.2f}".format(*run.rows[-1][3:])
        if run.scores:
            words += f", best score {run.best[-1]:.2f}"
        self.bar.n = 100 if end == "finished" else round(100 * run.progress)
        self.bar.set_description_str(words, refresh=bool(end))
        self.bar.update(0)  # every half a second

    def save(self, name="last.pt"):
        """Write a checkpoint, losses.csv and scores.csv."""
        run = self.run
        state = {name: part.state_dict() for name, part in run.parts.items()}
        state |= {name: getattr(run, name) for name in COUNTERS}
        state |= dict(settings=run.settings, random_state=run.random_state or random_state())
        tables = dict(losses=("d_loss,g_loss", run.rows), scores=("score", run.scores))
        self.is_writing = True  # the stop button waits
        self.checkpoints.write(name, state, **tables)
        self.is_writing, self.kept = False, f"The checkpoint of step {run.step:,} stands."

    def finish(self):
        """The last row, grid, score and checkpoint; then what is made of them, if need be."""
        run = self.run
        if run.stopped and run.folder:
            tqdm.write("Stopping: the last samples and their score ...")
        if self.sums:
            self.add_row()
        if run.folder and (run.step > self.before or self.score and not run.scores):
            self.look(last=True)
        makers = {"training.gif": self.grids.animate} if self.grids and self.grids.files() else {}
        if makers and "averaged" in run.parts:
            makers["generator.pt2"] = lambda path: export_generator(run.best_generator(), path)
        for name, make in makers.items():
            if not self.checkpoints.is_current(name):
                make(run.folder / name)
        self.report("stopped" if run.stopped else "finished")
        if run.stopped and run.folder:
            print(f"Stopped after {run.step:,} steps. Run the cell again to go on (resume = True).")
        wait_for_ranks()


def check_finite(networks, losses, step, kept):
    """FloatingPointError unless all losses of the last steps, and all weights, are finite."""
    checks = []
    for i, (d_loss, g_loss) in enumerate(losses, step - len(losses) + 1):
        checks += [("d_loss", i, d_loss), ("g_loss", i, g_loss)]
    for name, network in networks.items():
        checks += [(f"a weight of {name}", step, weight) for weight in network.parameters()]
    device = checks[-1][2].device  # losses that were plain numbers are on the CPU
    finite = torch.stack([x.isfinite().all().to(device) for *_, x in checks]).tolist()  # read once
    if not all(finite):
        what, step, _ = checks[finite.index(False)]
        raise FloatingPointError(
            f"Training has diverged: {what} is no finite number at step {step:,}. Set a lower lr "
            "or d_lr, or take another loss, and run the notebook again from section 8, where the "
            f"networks are built. {kept}"
        )


def training_warnings(rows):
    """What the last 40 rows (step, images, seconds, d_loss, g_loss) warn of, in sentences."""
    if len(rows) < 40:
        return []
    d_losses, g_losses = np.array(rows[-40:])[:, 3:].T
    quarters, found = g_losses.reshape(4, 10).mean(1), []
    # With a smoothed label d_loss stays above 0.325; other losses have other ranges
    if 0.32 < d_losses[20:].min() and d_losses[20:].max() < 0.45 and g_losses[20:].min() > 2:
        found.append(D_WINS)
    if quarters[-1] > max(5, 2 * quarters[0]) and (np.diff(quarters) > 0).all():
        found.append(G_CLIMBS)
    return found


@contextlib.contextmanager
def stop_button(press):
    """Within it, Jupyter's stop button and Ctrl-C call `press`."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if is_main and before is not signal.SIG_IGN:  # as in a background job
        signal.signal(signal.SIGINT, lambda *_: press())
    try:
        yield
    finally:
        if is_main:
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def explain_too_little_memory(recorder):
    """Within it, an error for want of memory says what to lower, and frees what the step held."""
    try:
        yield
        return
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not re.search(NO_MEMORY, str(error)):
            raise
        while error:
            traceback.clear_frames(error.__traceback__)
            error = error.__cause__ or error.__context__
    torch.cuda.empty_cache()
    advice = MemoryError(
        "There is too little memory for these settings: lower batch_size, d_conv_dim, g_conv_dim "
        f"or image_size, or end other programs that use it. {recorder.kept}"
    )
    try:
        raise advice
    finally:
        advice.__context__ = None  # the first error, which would keep the step's tensors
