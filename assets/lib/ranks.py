"""Several processes that train together: joining, averaging gradients, sharing batches."""

import atexit
import contextlib
import os
import re
import sys
from datetime import timedelta
from functools import lru_cache

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from assets.lib.devices import has_fast_bfloat16, has_gpu
from assets.lib.files import say_once
from assets.lib.settings import check, number


def find_device():
    """The device to train on: this rank's CUDA GPU, else an Apple GPU, else the CPU."""
    _, ranks = world()  # gives each rank its own GPU
    if has_gpu():
        torch.backends.cudnn.benchmark = True  # all batches have one shape
        return torch.device("cuda")
    has_mps = torch.backends.mps.is_available()
    if has_mps and ranks > 1:
        print("Several processes cannot share an Apple GPU: training on the CPU instead.")
    return torch.device("mps" if has_mps and ranks == 1 else "cpu")


def default_batch_size(n_images, image_size=32):
    """Images per training step: 32; for small faces on a GPU 128 or 256 (see performance.md).

    For fewer than 36 images it is the largest power of two that is at most 90% of them.
    """
    device = find_device()
    if device.type == "cpu" or n_images < 1000 or image_size > 64:
        most = max(1, int(0.9 * n_images))
        return min(32, 2 ** (most.bit_length() - 1))
    n = 256 if has_fast_bfloat16(device) and image_size <= 32 else 128
    print(f"On this GPU a step takes {n} images, not 32. To change that, set batch_size.")
    return n


is_single = False


def world():
    """This process's rank and the number of ranks; (0, 1) without torchrun."""
    return (0, 1) if is_single else join_ranks()


@contextlib.contextmanager
def single_process():
    """Let each rank work by itself: for checks."""
    global is_single
    before, is_single = is_single, True
    try:
        yield
    finally:
        is_single = before


@lru_cache(1)
def join_ranks():
    """Join the ranks that torchrun started: by NCCL between GPUs, by gloo between CPUs.

    From then on only rank 0 prints.
    """
    size = os.environ.get("WORLD_SIZE", "").strip() or "1"
    check(
        "WORLD_SIZE", size, re.compile("[1-9][0-9]*").fullmatch, "it must be a number of processes"
    )
    size, needed = int(size), {"RANK", "LOCAL_RANK", "MASTER_ADDR"}
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
    """Explain a broken connection: another rank has ended."""
    try:
        yield
    except RuntimeError as error:  # of gloo, NCCL or the store
        signs = r"connection|\bpeer\b|socket|timed? ?out|gloo|nccl|tcpstore"
        if not re.search(signs, str(error), re.IGNORECASE):
            raise
        raise ConnectionError(
            "Another rank has ended or does not answer, so this one ends too. With --max-restarts "
            "torchrun restarts all of them, and the run resumes from its checkpoint."
        ) from error


def numbers_from_rank_0(*numbers):
    """Rank 0's numbers, on every rank: cheap enough for each step, since nothing is pickled."""
    if world()[1] == 1:
        return numbers
    tensor = torch.tensor(numbers, dtype=torch.float64)
    with explain_lost_ranks():
        dist.broadcast(tensor, 0)
    return tensor.tolist()


def from_rank_0(value=None):
    """Rank 0's value of any kind, on every rank; the others wait for it."""
    values = [value]
    if world()[1] > 1:
        with explain_lost_ranks():
            dist.broadcast_object_list(values, device=torch.device("cpu"))
    return values[0]


@contextlib.contextmanager
def rank_0_first():
    """Let the other ranks start after rank 0 has finished, and reuse its result."""
    rank, _ = world()
    if rank:
        from_rank_0()
    try:
        yield
    finally:  # after an error, too: the others would wait forever
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

    A batch size that is no multiple of the number of ranks is rounded down to one, but each rank
    has at least one image. A loader of an IterableDataset is taken as the rank's own; all ranks'
    must be equally long.
    """
    _, size = world()
    if size == 1 or isinstance(loader.dataset, IterableDataset):
        return loader
    order = list(loader.sampler)  # so that the next batch is the same for any number of ranks
    n = max(1, loader.batch_size // size)
    advice = f"{size} ranks share {len(order)} images: lower it, or start fewer ranks"
    name = "batch_size or domain_batch"
    check(name, loader.batch_size, lambda _: n * size <= len(order), advice)
    if n * size != loader.batch_size:
        say_once(f"{size} ranks share batches of {n * size} images, not {loader.batch_size}.")
    own = [order[i] for i in DistributedSampler(order, shuffle=False, drop_last=True)]
    return DataLoader(loader.dataset, n, sampler=own, drop_last=True, collate_fn=loader.collate_fn)


@contextlib.contextmanager
def ordered(loader, seed):
    """Let the order of a DataLoader follow from a seed. Yields this rank's share of it."""
    sampler = getattr(loader, "sampler", None)
    if sampler is None:  # such as a list of batches
        yield loader
        return
    sampler.generator = torch.Generator().manual_seed(seed)
    try:
        yield share_of(loader)
    finally:  # another loop draws its order as before
        sampler.generator = None


def average_gradients(optimizer, *_):
    """Replace the gradients that an optimizer is about to use by their means over the ranks."""
    if world()[1] == 1:
        return
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    flat = mean_of_ranks(torch.cat([gradient.flatten() for gradient in gradients]))
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts):
        gradient.copy_(part.view_as(gradient))


@contextlib.contextmanager
def averaged_gradients(networks, optimizers):
    """Let optimizers step by the means of all ranks' gradients, from rank 0's weights on.

    Batch-norm statistics stay each rank's own.
    """
    several, hooks = world()[1] > 1, []
    if several and not optimizers:
        raise ValueError("Training on several ranks needs a Run: pass one to train().")
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


def as_batch(batch):
    """The collate_fn for DecodedFaces: they serve whole batches."""
    return batch
