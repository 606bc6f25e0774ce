"""Which device is used, in which precision, and the advice when its memory runs out."""

import gc
import weakref

import pytest
import torch
from torch import nn

import helpers
from assets.lib import ranks
from assets.lib.devices import explain_too_little_memory, has_gpu


def test_mixed_precision_sees_weights_change():
    layer, x = nn.Linear(8, 8), torch.randn(4, 8)
    with helpers.autocast(torch.device("cpu")):
        before = layer(x)
        with torch.no_grad():
            layer.weight.mul_(2)
        after = layer(x)
    assert not torch.equal(before, after), "expected training inside the block to have an effect"


@pytest.mark.parametrize(
    "capability, built, expected",
    [
        ((7, 0), "sm_75 sm_80 sm_90 compute_90", False),
        ((7, 5), "sm_75 sm_80 sm_90", True),
        ((8, 6), "sm_80 sm_90", True),
        ((8, 0), "sm_86 sm_90", False),
        ((9, 0), "sm_80 sm_90a", True),
        ((12, 0), "sm_90 compute_90", True),
        ((12, 0), "sm_80 sm_90", False),
        ((8, 0), "sm_70 compute_70 sm_90", True),
        ((10, 0), "sm_100 sm_120", True),
        ((6, 1), "", True),
    ],
)
def test_a_gpu_without_kernels_is_not_used(monkeypatch, capsys, capability, built, expected):
    cuda = torch.cuda
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(cuda, "get_arch_list", built.split)
    monkeypatch.setattr(cuda, "get_device_name", lambda *_: "Old GPU")
    found = has_gpu.__wrapped__()
    assert found == expected, f"got {found}"
    said = "no kernels for the Old GPU" in capsys.readouterr().out
    assert said != expected, "expected a sentence where the GPU stays unused"


def test_several_ranks_do_not_share_an_apple_gpu(monkeypatch, capsys):
    monkeypatch.setattr(ranks, "has_gpu", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert ranks.find_device().type == "mps", "expected the Apple GPU"
    monkeypatch.setattr(ranks, "world", lambda: (0, 2))
    assert ranks.find_device().type == "cpu", "expected the processor"
    assert "Apple GPU" in capsys.readouterr().out, "expected a sentence"


# ---------------------------------------------------------------- too little memory

TOO_LITTLE = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
    RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
    RuntimeError("Failed to allocate private MTLBuffer for size 33554432"),
    RuntimeError("Invalid buffer size: 20.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    RuntimeError("unable to mmap 800 bytes from file <x>: Cannot allocate memory (12)"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("bad allocation"),
    MemoryError("Unable to allocate 8 GiB for an array"),
    MemoryError(),
]
OTHERS = [
    RuntimeError("another error"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x3 and 4x3)"),
    ValueError("out of memory"),
]


@pytest.mark.parametrize("error", TOO_LITTLE, ids=lambda error: str(error)[:60])
def test_too_little_memory_names_the_settings(error):
    advice = "lower batch_size, d_conv_dim, g_conv_dim or image_size, .*programs. "
    with pytest.raises(MemoryError, match=advice) as caught:
        with explain_too_little_memory():
            raise error
    assert type(error).__name__ in str(caught.value), f"expected the reason, got {caught.value}"


@pytest.mark.parametrize("error", OTHERS, ids=lambda error: str(error)[:60])
def test_other_errors_stay_as_they_are(error):
    with pytest.raises(type(error)) as caught:
        with explain_too_little_memory():
            raise error
    assert caught.value is error, f"expected the error itself, got {caught.value!r}"


def test_the_largest_tensor_of_all_gives_the_advice():
    with pytest.raises(MemoryError, match="lower batch_size"):
        with explain_too_little_memory():
            torch.empty(2**55)


def test_the_advice_says_what_was_saved():
    for what_stands in ("Step 10 stands.", lambda: "Step 10 stands."):
        with pytest.raises(MemoryError, match="programs. Step 10 stands. [(]MemoryError: ") as one:
            with explain_too_little_memory(), explain_too_little_memory(what_stands):
                raise MemoryError("too much")
        assert str(one.value).count("too little") == 1, f"expected the advice once, got {one.value}"


def test_a_function_can_be_decorated_and_called_twice():
    @explain_too_little_memory()
    def score(n):
        return n if n < 10 else torch.empty(2**55)

    assert score(3) == 3
    for _ in range(2):
        with pytest.raises(MemoryError, match="lower batch_size"):
            score(10)


def test_nothing_of_the_failed_step_stays_in_memory(monkeypatch):
    held, emptied = [], []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))

    def step():
        activations = torch.zeros(2**16)
        held.append(weakref.ref(activations))
        try:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        except RuntimeError as error:
            deeper = torch.zeros(2**16)
            held.append(weakref.ref(deeper))
            raise RuntimeError("out of memory") from error

    try:
        with explain_too_little_memory():
            step()
    except MemoryError as error:
        kept = error  # as a notebook keeps the last one
    gc.collect()
    alive = sum(ref() is not None for ref in held)
    assert alive == 0, f"expected nothing of the failed step, got {alive} of {len(held)} tensors"
    assert kept.__context__ is None and kept.__cause__ is None, "expected no trace of the first"
    assert emptied, "expected the GPU's cache to be emptied"
