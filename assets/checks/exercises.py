"""Exercises in a notebook: empty stubs, the learner's own code, solutions, and checks under cells.

A stub stands under `@exercise`, its solution under `@solution` in the next cell. Whatever the
learner has written is used in place of the solution. A check is a function that takes the
definitions by name, asserts what must hold and returns notes on what may differ.
"""

import contextlib
import dis
import functools
import inspect
import linecache
import re
import textwrap
import traceback

import torch
from torch import nn

from assets.lib.ranks import single_process

OWN = {}  # by name: the learner's own code, or an empty stub
SOLUTIONS = {}  # by name: the solutions whose cells have run

RUN_THE_SOLUTION = "run the next cell, which holds the solution"
EMPTY_IT = "Correct it, or empty the stub to continue with the solution."


class NotWritten(NotImplementedError):
    """An empty stub was used."""


def exercise(definition):
    """Mark a function or class that the learner may write. Using an empty one raises NotWritten."""
    OWN[definition.__name__] = definition
    if not unwritten(definition):
        return definition
    if not inspect.isclass(definition):
        return raising(definition, definition.__name__)
    definition.__init__ = raising(definition.__init__, definition.__name__)
    return definition


def raising(function, name):
    """A function in place of an empty one, which says that it is empty."""

    @functools.wraps(function)
    def refuse(*args, **kwargs):
        raise NotWritten(f"{name} is not written yet: {RUN_THE_SOLUTION}.")

    return refuse


def solution(definition):
    """The learner's own definition of this name if there is one, otherwise the solution."""
    name = definition.__name__
    SOLUTIONS[name] = definition
    own = OWN.get(name)
    if own is None or unwritten(own):
        return definition
    print(f"Using your own {name}.")
    return own


# ---------------------------------------------------------------- stubs


class Stub(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self):
        """Nothing yet."""


def instructions(function):
    return [(op.opname, op.argval) for op in dis.get_instructions(function) if op.opname != "NOP"]


EMPTY_BODIES = [instructions(Stub.__init__), instructions(Stub.forward)]


def unwritten(definition):
    """Whether a function, or __init__ and forward of a class, hold no code yet."""
    parts = [definition]
    if inspect.isclass(definition):
        parts = [definition.__init__, getattr(definition, "forward", None)]
    parts = [inspect.unwrap(part) for part in parts]
    parts = [part for part in parts if part not in (nn.Module.__init__, nn.Module.forward)]
    return all(inspect.isfunction(part) and instructions(part) in EMPTY_BODIES for part in parts)


# ---------------------------------------------------------------- checks

HINTS = {
    "second time": "Does D's own step see fake.detach()?",
    "does not require grad": "Is something detached that should not be?",
    "Module.__init__.. call|_backward_hooks": "__init__ begins with super().__init__().",
    "shapes cannot be multiplied": "Does the linear layer fit? Is there an nn.Flatten, padding=1?",
    "between 0 and 1": "These are logits: use F.binary_cross_entropy_with_logits.",
    "target size|same as input": "The labels need the shape of the logits: torch.ones_like(D_out).",
    "list is not a Module": "self.upsample returns a list: unpack it with a star.",
    "view size is not compatible": "Use reshape: images may be stored with the channels last.",
    "modified by an inplace": "Compute g_loss after d_optimizer.step(), with D as it is then.",
    "deepcopy protocol": (
        "Keep no activations in self, and take spectral_norm from nn.utils.parametrizations."
    ),
    "already exists|cannot assign|leaf Variable|'ParametrizationList'|has to be a tensor": (
        "nn.init.normal_(m.weight, ...) changes weights in place, for "
        "isinstance(m, (nn.Conv2d, ...)) only."
    ),
    "NoneType. object has no attribute .(zero_|fill_|data)": (
        "Some layers have no bias: theirs is None."
    ),
    "Boolean value of Tensor": "Ask `is not None` of a tensor that may be missing.",
    "desired output type Long": "Labels are floats: torch.ones_like(D_out).",
    "object is not iterable": "Adam takes network.parameters(), with parentheses.",
    "on the same device": "Make new tensors on the device of the input, such as real.device.",
}


def check(test, of_exercise=False):
    """Print "Tests Passed" and the test's notes, or raise an AssertionError that is a sentence."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        __tracebackhide__ = True  # the message says it all
        given = inspect.signature(test).bind(*args, **kwargs).arguments
        stubs = [name for name, definition in given.items() if unwritten(definition)]
        if of_exercise:
            remember(given)
        if not stubs:
            advice = EMPTY_IT if of_exercise and not are_solutions(given) else ""
            notes = notes_of(test, given, advice)
            print("Tests Passed", *(f"Note: {note}" for note in notes), sep="\n")
        elif of_exercise:
            print(*(f"{name} is not written yet: {RUN_THE_SOLUTION}." for name in stubs), sep="\n")
        else:
            raise AssertionError(f"{stubs[0]} is not written yet: its body is empty.")

    run.of_exercise = of_exercise
    return run


def check_exercise(test):
    """A check under a stub and its solution."""
    return check(test, of_exercise=True)


def are_solutions(given):
    return all(SOLUTIONS.get(name) is definition for name, definition in given.items())


def remember(given):
    """Keep whatever is not a solution as the learner's own, with or without the line @exercise."""
    for name, definition in given.items():
        if SOLUTIONS.get(name) is not definition:
            OWN[name] = definition


def notes_of(test, given, advice=""):
    """Run a test -> its notes; AssertionError with a sentence, and the advice, if it fails."""
    __tracebackhide__ = True
    try:
        with reproducible():
            notes = test(**given) or []
            name, is_on = " and ".join(given), torch.is_grad_enabled()
            assert is_on, f"{name} switches gradients off. Use `with torch.no_grad():` in it."
            return notes
    except (AssertionError, NotWritten) as error:
        problem = str(error).strip()
    except Exception as error:
        problem = explained(error, given)
    raise AssertionError(f"{problem} {advice}".strip())


@contextlib.contextmanager
def reproducible():
    """The same random numbers each time, none used up; one process, one thread, gradients on."""
    threads = torch.get_num_threads()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices), single_process(), torch.enable_grad():
        torch.default_generator.manual_seed(0)
        torch.set_num_threads(1)  # small work waits longer for threads than it takes
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def explained(error, given):
    """What went wrong, in a sentence, with the learner's line that caused it."""
    names = " and ".join(given)
    modules = {definition.__module__ for definition in given.values()}
    frames = traceback.walk_tb(error.__traceback__)
    own = [
        (frame.f_code.co_filename, line)
        for frame, line in frames
        if frame.f_globals.get("__name__") in modules
    ]
    if not own and "NoneType" in str(error):
        return f"{names} returned None: is there a `return`?"
    text = textwrap.shorten(str(error), 200, placeholder=" ...")
    parts = [f"{names}: expected a result, got {type(error).__name__}: {text}."]
    if own and (line := linecache.getline(*own[-1]).strip()):
        parts.append(f"It happened in this line: `{line}`.")
    parts += [hint for sign, hint in HINTS.items() if re.search(sign, str(error))]
    return " ".join(parts)
