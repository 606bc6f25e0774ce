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
    print(f"PyTorch has no kernels for the {torch.cuda.get_device_name()}: it stays unused.")
    return False


def describe_device(device):
    """The device in words."""
    if device.type != "cpu":
        is_cuda = device.type == "cuda"
        return f"the GPU: {torch.cuda.get_device_name(device) if is_cuda else 'of this Mac'}"
    precision = " and bfloat16" if has_fast_bfloat16(device) else ""
    return f"the processor, with {torch.get_num_threads()} threads{precision}"


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


NO_MEMORY = "(?i)(out of|not enough|allocate) memory|STATUS_ALLOC_FAILED|unable to find an engine"


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


def random_state():
    """The state of every source of random numbers."""
    has_mps = torch.backends.mps.is_available()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
        "mps": torch.mps.get_rng_state() if has_mps else None,
        "python": random.getstate(),
        "numpy": np.random.get_state(),
    }


def restore_random_state(state):
    """Bring back what random_state() returned, on the devices that are here; None: nothing."""
    if state is None:
        return
    torch.set_rng_state(state["torch"])
    torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])
    if state["mps"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
