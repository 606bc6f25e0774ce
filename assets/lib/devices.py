"""The device: precision, random numbers, and advice when memory runs out."""

import contextlib
import random
import re
import traceback
from functools import lru_cache

import numpy as np
import torch


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
    print(f"PyTorch has no kernels for the {torch.cuda.get_device_name()}: it is not used.")
    return False


def describe_device(device):
    """The device in words."""
    if device.type != "cpu":
        is_cuda = device.type == "cuda"
        return f"the GPU: {torch.cuda.get_device_name(device) if is_cuda else 'of this Mac'}"
    precision = " and bfloat16" if has_fast_bfloat16(device) else ""
    n_threads = torch.get_num_threads()
    return f"the CPU, with {n_threads} thread{'s' * (n_threads > 1)}{precision}"


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


TOO_LITTLE = "There is too little memory for these settings"
SIGNS_OF_TOO_LITTLE = (  # in the messages of CUDA, cuBLAS, cuDNN, MPS and the processor
    "out of memory",
    "not enough memory",
    "allocate memory",
    "failed to allocate",
    "bad.?alloc",
    "alloc(ation)?_failed",
    "status_not_initialized",
    "unable to find an engine",
    "invalid buffer size",
)


def is_too_little_memory(error):
    """Whether an error says that there is too little memory."""
    signs = "|".join(SIGNS_OF_TOO_LITTLE)
    return isinstance(error, MemoryError) or re.search(signs, str(error), re.IGNORECASE) is not None


@contextlib.contextmanager
def explain_too_little_memory(what_stands=""):
    """Re-raise an out-of-memory error of a block, or of a function it decorates, with advice.

    The MemoryError says which settings to lower; what the failed step held is freed.
    `what_stands`: a sentence about what was saved, or a function that returns one.
    """
    try:
        yield
        return
    except (RuntimeError, MemoryError) as error:
        if str(error).startswith(TOO_LITTLE) or not is_too_little_memory(error):
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        free_frames(error)
    torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    stands = what_stands() if callable(what_stands) else what_stands
    remedy = "lower batch_size, d_conv_dim, g_conv_dim or image_size, or end other programs"
    sentences = f"{TOO_LITTLE}: {remedy}.", stands, f"({reason[:150]})"
    advice = MemoryError(" ".join(filter(None, sentences)))
    try:
        raise advice
    finally:
        advice.__context__ = None  # the first error, which would keep the step's tensors


def free_frames(error):
    """Clear the local variables of the frames that an error, and those before it, went through."""
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def random_state():
    """The state of every random number generator."""
    has_mps = torch.backends.mps.is_available()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
        "mps": torch.mps.get_rng_state() if has_mps else None,
        "python": random.getstate(),
        "numpy": np.random.get_state(),
    }


def restore_random_state(state):
    """Restore what random_state() returned, on the devices that are here; None changes nothing."""
    if state is None:
        return
    torch.set_rng_state(state["torch"])
    torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])
    if state["mps"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])


@contextlib.contextmanager
def aside(seed):
    """Draw separate random numbers, from this seed, on one thread.

    For networks of a few numbers, on which several threads wait longer than they compute. Random
    numbers after it are what they would be without it.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs, too
            yield
    finally:
        torch.set_num_threads(n_threads)
