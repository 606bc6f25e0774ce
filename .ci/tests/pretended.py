"""A GPU that is not there: what goes wrong between devices shows on a machine without a GPU.

Within `pretended("cuda")` or `pretended("mps")` a tensor that is put there says that it is there.
Its values stay in the processor's memory; its storage is marked. What a GPU refuses is refused:
tensors of two devices in one operation, `.numpy()`, a random source of the processor, float64 on an
Apple GPU. Where the processor would wait for the GPU is noted in `waits`.

It cannot show whether a GPU has a kernel for an operation, how precise or fast that is, what fits
into its memory, or what happens inside PyTorch's own functions.
"""

import contextlib
import traceback
import types
from pathlib import Path
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

import helpers

PROJECT = Path(helpers.__file__).parent
DOUBLE = torch.float64, torch.complex128
# These bring values from the GPU, or need to know how many there are
READING = set(
    "item tolist __bool__ __float__ __int__ __index__ __format__ __repr__ __contains__ nonzero "
    "argwhere masked_select unique equal allclose bincount".split()
)
MAKING = set("tensor as_tensor asarray".split())  # out of numbers of the processor
BETWEEN_DEVICES = set(
    "copy_ __set__ __getitem__ __setitem__ type_as _has_compatible_shallow_copy_type".split()
)


def has_values(x):
    """Whether it is a tensor that an operation cannot take over as a number."""
    return isinstance(x, torch.Tensor) and x.dim() > 0


class PretendedGPU(TorchFunctionMode):
    """`kind`: "cuda" or "mps"; `waits`: (function, place in the project), as they happened."""

    def __init__(self, kind):
        super().__init__()
        self.device, self.waits = torch.device(kind, 0), []

    def holds(self, tensor):
        return getattr(tensor.untyped_storage(), "device_kind", None) == self.device.type

    def take(self, tensor):
        """Mark a tensor's storage as being on the GPU."""
        if self.device.type == "mps" and tensor.dtype in DOUBLE:
            raise TypeError("The MPS framework does not support float64")
        tensor.untyped_storage().device_kind = self.device.type
        return tensor

    def is_here(self, device):
        return device is not None and torch.device(device).type == self.device.type

    def wait(self, name):
        frames = [frame for frame in traceback.extract_stack() if self.is_of_project(frame)]
        self.waits.append((name, f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "?"))

    @staticmethod
    def is_of_project(frame):
        path = Path(frame.filename)
        return (
            path.is_relative_to(PROJECT)
            and ".ci" not in path.parts
            or path.name.startswith("cell ")
        )

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name, kwargs = function.__name__, dict(kwargs or {})
        if name == "__get__":
            return self.attribute(function, *args)
        if name in ("to", "cpu", "cuda"):
            return self.move(name, function, *args, **kwargs)
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        here = [x for x in tensors if self.holds(x)]
        place, wanted = kwargs.get("device"), self.is_here(kwargs.get("device"))
        if here:
            self.refuse(name, args, here, tensors)
        if here or wanted:
            self.note(name, args, kwargs, here)
        if wanted:
            self.refuse_generator(name, kwargs)
            kwargs["device"] = "cpu"
        result = function(*args, **kwargs)
        if wanted or here and place is None:
            others = {id(x.untyped_storage()) for x in tensors if not self.holds(x)}
            for x in tree_leaves(result):
                if isinstance(x, torch.Tensor) and id(x.untyped_storage()) not in others:
                    self.take(x)
        return result

    def attribute(self, function, tensor, *rest):
        """`tensor.device` and the like."""
        name, value = function.__self__.__name__, function(tensor, *rest)
        if not self.holds(tensor):
            return value
        if name == "device":
            return self.device
        if name in ("is_cuda", "is_mps", "is_cpu"):
            return name == f"is_{self.device.type}"
        return self.take(value) if isinstance(value, torch.Tensor) else value

    def move(self, name, function, tensor, *args, **kwargs):
        """`tensor.to(device, ...)`, `.cpu()`, `.cuda()`: a copy that is marked, or not."""
        target = kwargs.pop("device", name if name != "to" else None)
        for x in args:  # a device, a dtype, another tensor, non_blocking: as they come
            if isinstance(x, torch.dtype):
                kwargs["dtype"] = x
            elif isinstance(x, bool):
                kwargs["non_blocking"] = x
            elif isinstance(x, torch.Tensor):
                target, kwargs["dtype"] = x.device, x.dtype
            elif x is not None:
                target = x
        target = tensor.device if target is None else torch.device(target)
        was_here, non_blocking = self.holds(tensor), kwargs.pop("non_blocking", False)
        result = torch.Tensor.to(tensor, "cpu", **kwargs)
        if self.is_here(target) == was_here:
            return self.take(result) if was_here else result
        if result.untyped_storage() is tensor.untyped_storage():
            result = result.clone()
        if was_here or not non_blocking:
            self.wait(f"{name} {target}")
        return result if was_here else self.take(result)

    def refuse(self, name, args, here, tensors):
        if name in ("numpy", "__array__"):
            raise TypeError(f"can't convert {self.device} device type tensor to numpy")
        joined = name in ("stack", "cat")  # not even single numbers of another device
        others = [x for x in tensors if (has_values(x) or joined) and not self.holds(x)]
        if name == "__setitem__" and isinstance(args[1], torch.Tensor):
            is_mixed = not self.holds(args[0]) or has_values(args[2]) and not self.holds(args[2])
        elif name == "__getitem__":
            is_mixed = not self.holds(args[0])
        else:
            is_mixed = others and name not in BETWEEN_DEVICES
        if is_mixed:
            shapes = [tuple(x.shape) for x in tensors]
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found {self.device} and cpu "
                f"({name} of {shapes})"
            )

    def refuse_generator(self, name, kwargs):
        source = kwargs.get("generator")
        if source is not None and source.device.type != self.device.type:
            raise RuntimeError(f"Expected a '{self.device.type}' generator ({name})")

    def note(self, name, args, kwargs, here):
        """Note it if the processor waits here."""
        indices = args[1] if name in ("__getitem__", "__setitem__") else ()
        by_index = [x for x in tree_leaves(indices) if has_values(x)]
        is_masked = any(x.dtype == torch.bool for x in by_index)
        from_processor = [x for x in by_index if not self.holds(x)]
        between = name == "copy_" and self.holds(args[0]) != self.holds(args[1])
        is_reading = name in READING and here or name in MAKING and not here
        if is_reading or is_masked or from_processor or between and not kwargs.get("non_blocking"):
            self.wait(name)


def changes_of_cuda(bfloat16):
    """What torch.cuda says of the pretended GPU."""
    no, nothing = (lambda *args: False), (lambda *args: None)
    return dict(
        is_available=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        get_device_name=lambda *args: "Pretended GPU",
        get_device_capability=lambda *args: (9, 0),
        get_arch_list=lambda: ["sm_90"],
        mem_get_info=lambda *args: (14 * 2**30, 15 * 2**30),
        is_bf16_supported=lambda including_emulation=True: bfloat16 or including_emulation,
        get_rng_state_all=lambda: [torch.get_rng_state()],
        set_rng_state_all=nothing,
        manual_seed_all=nothing,
        is_current_stream_capturing=no,
        empty_cache=nothing,
    )


@contextlib.contextmanager
def pretended(kind, bfloat16=False):
    """Within it there is a GPU of this kind, "cuda" or "mps" -> its PretendedGPU."""
    autocast = torch.autocast

    def autocast_here(device_type, *args, **kwargs):
        return autocast("cpu" if device_type == kind else device_type, *args, **kwargs)

    stream = types.SimpleNamespace(is_capturing=lambda: False)
    accelerator = dict(is_available=lambda: True, current_stream=lambda *args: stream)
    accelerator["current_accelerator"] = lambda *args, **kwargs: torch.device(kind)
    change, benchmark = mock.patch.multiple, torch.backends.cudnn.benchmark
    with contextlib.ExitStack() as stack:
        stack.enter_context(change(torch, autocast=autocast_here))
        stack.enter_context(change(torch.accelerator, **accelerator))
        if kind == "cuda":
            stack.enter_context(change(torch.cuda, **changes_of_cuda(bfloat16)))
        else:
            stack.enter_context(change(torch.backends.mps, is_available=lambda: True))
            states = dict(get_rng_state=torch.get_rng_state, set_rng_state=torch.set_rng_state)
            stack.enter_context(change(torch.mps, **states))
        helpers.has_gpu.cache_clear()
        try:
            with PretendedGPU(kind) as gpu:
                yield gpu
        finally:
            helpers.has_gpu.cache_clear()
            torch.backends.cudnn.benchmark = benchmark
