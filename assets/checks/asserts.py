"""What the checks share: assertions whose messages are sentences."""

import contextlib
import dis
import inspect
import math
import re
import sys
import time
import types

import numpy as np
import torch


@contextlib.contextmanager
def at_most(seconds):
    """Python code in it that runs for longer stops with a TimeoutError, on any system."""
    end, before = time.monotonic() + seconds, sys.gettrace()

    def trace(frame, event, arg):
        if time.monotonic() > end:
            raise TimeoutError("a loop that does not end")
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def assert_refuses(call, what, word):
    """`call` must raise a ValueError whose message names the setting or the folder."""
    expected = f"{what}: expected a ValueError that names {word}"
    try:
        call()
    except ValueError as error:
        named = re.sub(r"[\s_]+", "_", str(error).lower())
        assert word in named, f"{expected}, got a ValueError that says: {error}"
    except Exception as error:
        raise AssertionError(f"{expected}, got {type(error).__name__}: {error}.") from error
    else:
        raise AssertionError(f"{expected}, got no error: check it before anything else runs.")


def assert_tensor(what, value):
    assert value is not None, f"{what}: expected a tensor, got None. Is there a `return`?"
    kind = type(value).__name__
    assert isinstance(value, torch.Tensor), (
        f"{what}: expected a tensor, got {kind}. Without .item() it keeps its gradient."
    )


def assert_shape(what, tensor, *shape, hint=""):
    assert_tensor(what, tensor)
    got = tuple(tensor.shape)
    assert got == shape, f"{what}: expected the shape {shape}, got {got}. {hint}"


def assert_two(what, result):
    assert result is not None, f"{what}: expected two values, got None. Is there a `return`?"
    got = len(result) if isinstance(result, (tuple, list)) else f"one {type(result).__name__}"
    assert got == 2, f"{what}: expected two values, got {got}."


def other_device():
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "meta"


# "meta" is a device without numbers: what prints one stops there, and works on any other
PRINTS_A_NUMBER = r"item\(\) cannot be called on meta|unsupported format string"


def assert_stays_on_device(what, function, x, hint):
    """The result is on the device of x, wherever that is."""
    x = x.to(other_device())
    try:
        device = function(x).device
    except Exception as error:
        if re.search(PRINTS_A_NUMBER, str(error)):
            return
        raise AssertionError(f"{what}: got {type(error).__name__}. {hint}") from error
    assert device == x.device, f"{what}: expected the result there, got it on {device}. {hint}"


def numbers_of(values):
    values = values.detach().cpu() if isinstance(values, torch.Tensor) else values
    return [float(number) for number in np.ravel(values)]


def is_close(got, expected, within=1e-4):
    got, expected = numbers_of(got), numbers_of(expected)
    return len(got) == len(expected) and np.allclose(got, expected, rtol=0, atol=within)


def as_text(values):
    return ", ".join(f"{round(x, 4):g}" for x in numbers_of(values))


def assert_close(what, got, expected, within=1e-4, hint=""):
    """One number, or several."""
    text = f"{what}: expected {as_text(expected)}, got {as_text(got)}. {hint}"
    assert is_close(got, expected, within), text


def assert_between(what, got, low, high):
    got = float(got)
    assert low <= got <= high, f"{what}: expected {low:g} to {high:g}, got {got:.2f}."


def assert_rising(what, values):
    text = ", ".join(f"{value:.3g}" for value in values)
    is_rising = all(a < b for a, b in zip(values, values[1:]))
    assert is_rising, f"{what}: expected larger and larger numbers, got {text}."


def names_of_globals(code):
    inner = filter(inspect.iscode, code.co_consts)
    names = {op.argval for op in dis.get_instructions(code) if "GLOBAL" in op.opname}
    return names.union(*map(names_of_globals, inner))


def assert_no_globals(function):
    """Functions, classes and modules may be read from outside; settings and networks may not."""
    function = inspect.unwrap(function)
    fine = (types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type)
    outside = {k for k, v in function.__globals__.items() if not isinstance(v, fine)}
    read = ", ".join(sorted(names_of_globals(function.__code__) & outside))
    assert not read, (
        f"{function.__name__}: expected it to use its arguments only, got a read of the global "
        f"{read}. Take that from an argument (G.z_size, real.device ...)."
    )


def assert_numbers(what, pair):
    """d_loss and g_loss, finite and detached."""
    assert_two(f"{what}, d_loss and g_loss", pair)
    for name, loss in zip(("d_loss", "g_loss"), pair):
        assert not getattr(loss, "requires_grad", False), (
            f"{what}, {name}: expected a detached number, got a tensor with its graph: .detach()"
        )
        is_number = torch.as_tensor(loss).numel() == 1 and math.isfinite(loss)
        assert is_number, f"{what}, {name}: expected one finite number, got {loss}."
