"""Fingerprints of functions: what changes them and what does not."""

import functools
import subprocess
import sys
import textwrap

import pytest
from conftest import ROOT

from assets.lib import fingerprints
from assets.lib.fingerprints import fingerprint, is_other

STEP = """
def loss(x):
    return 2 * x


def step(x, run=None):
    "A step."
    y = loss(x)
    return y if x in {"a", "b"} else [loss(z) for z in x]
"""


def defined(source, name="step"):
    place = {"__name__": "the_notebook"}
    exec(compile(source, "a cell", "exec"), place)
    return place[name]


@pytest.mark.parametrize(
    "what, change",
    [
        ("nothing", lambda text: text),
        ("lines above", lambda text: "\n\n# a comment\n" + text),
        ("a comment", lambda text: text.replace("y = loss(x)", "y = loss(x)  # the loss")),
        ("a docstring", lambda text: text.replace('"A step."', '"The step of the lesson."')),
        ("the name of a variable", lambda text: text.replace("y", "value")),
        ("a function that is not called", lambda text: text + "def other(x):\n    return x\n"),
    ],
)
def test_what_does_not_change_what_a_step_does(what, change):
    same = fingerprint(defined(change(STEP))) == fingerprint(defined(STEP))
    assert same, f"{what}: expected the same fingerprint"


@pytest.mark.parametrize(
    "what, change",
    [
        ("a constant", lambda text: text.replace('"b"', '"c"')),
        ("an operation", lambda text: text.replace("return y if", "return -y if")),
        ("a function that it calls", lambda text: text.replace("2 * x", "3 * x")),
        ("another function", lambda text: text.replace("y = loss(x)", "y = abs(x)")),
        ("an order", lambda text: text.replace("2 * x", "x * 2")),
        ("an argument of a comprehension", lambda text: text.replace("loss(z) for", "loss(x) for")),
    ],
)
def test_what_changes_a_step(what, change):
    changed = fingerprint(defined(change(STEP))) != fingerprint(defined(STEP))
    assert changed, f"{what}: expected another fingerprint"


def test_wrappers_do_not_count():
    step = defined(STEP)

    @functools.wraps(step)
    def wrapper(*args):
        return step(*args)

    for one in (functools.partial(step, run=1), functools.partial(wrapper), wrapper):
        assert fingerprint(one) == fingerprint(step), f"expected the function's own, got {one}"


@pytest.mark.parametrize("function", [len, max, type("C", (), {"__call__": lambda self: 1})()])
def test_whatever_can_be_called_has_a_fingerprint(function):
    assert fingerprint(function), f"expected a text for {function}"


def test_a_fingerprint_is_the_same_in_every_process():
    code = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from assets.lib.fingerprints import fingerprint
        place = {{"__name__": "the_notebook"}}
        exec({STEP!r}, place)
        print(fingerprint(place["step"]))
    """)
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2", "3")
    }
    assert printed == {fingerprint(defined(STEP))}, f"expected one fingerprint, got {printed}"


def test_other_versions_of_python_cannot_tell(monkeypatch):
    version = fingerprints.python_version()
    assert is_other(f"{version}-a", [f"{version}-b", "2.7-a"]), "expected another step"
    assert not is_other(f"{version}-a", [f"{version}-b", f"{version}-a"]), "expected a known step"
    assert not is_other(f"{version}-a", ["2.7-b"]), "expected no word without a comparison"
    assert not is_other(f"{version}-a", []), "expected no word without a comparison"
