"""How exercises and checks work together: stubs, own code, solutions, and what a check leaves."""

import random
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from conftest import ROOT
from plain_solutions import SOLUTIONS, Discriminator, changed, fake_loss, real_loss, scale
from plain_solutions import adam as plain_adam
from torch import nn

import problem_unittests as checks
from assets.checks import exercises
from assets.checks.exercises import NotWritten, unwritten
from assets.checks.notebooks import cells_of

NOT_WRITTEN = "is not written yet: run the next cell, which holds the solution."
EXERCISES = {check: SOLUTIONS[check] for check in SOLUTIONS if check.of_exercise}


@pytest.fixture(autouse=True)
def new_kernel(monkeypatch):
    """Nothing has been written, and no cell has run."""
    monkeypatch.setattr(exercises, "OWN", {})
    monkeypatch.setattr(exercises, "SOLUTIONS", {})


def cell(source, namespace):
    """Run a cell in a namespace as in a notebook."""
    namespace.setdefault("__name__", "__main__")
    namespace |= dict(tests=checks, torch=torch, nn=nn)
    exec(source, namespace)


# ---------------------------------------------------------------- what is empty


def with_docstring(x):
    """Nothing yet."""


def with_pass(x):
    # your code
    pass


def with_dots(x): ...


class EmptyNetwork(nn.Module):
    """Nothing yet."""


class NetworkOfStubs(nn.Module):
    widest = 8

    def __init__(self, conv_dim):
        """Build the layers."""
        super().__init__()
        # your code

    def upsample(self, x):
        return x

    def forward(self, x): ...


class NetworkWithLayers(nn.Module):
    def __init__(self, conv_dim=8):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x):
        """Nothing yet."""


class OtherWidth(Discriminator):
    widest = 4


def the_same(x):
    return x


STUBS = [with_docstring, with_pass, with_dots, EmptyNetwork, NetworkOfStubs]
WRITTEN = [the_same, scale, Discriminator, NetworkWithLayers, OtherWidth, lambda x: x]


@pytest.mark.parametrize("definition", STUBS + WRITTEN, ids=lambda item: item.__name__)
def test_empty_stubs_are_recognized(definition):
    found = unwritten(definition)
    assert found == (definition in STUBS), f"{definition}: expected {not found}, got {found}"


def stub_of(definition):
    """An empty function or class of the same name."""
    if isinstance(definition, type):
        return type(definition.__name__, (nn.Module,), {})
    return types.FunctionType(with_pass.__code__, globals(), definition.__name__)


@pytest.mark.parametrize("check", EXERCISES, ids=lambda check: check.__name__)
@pytest.mark.parametrize("mark", [checks.exercise, lambda stub: stub], ids=["marked", "unmarked"])
def test_a_stub_gives_a_sentence(capsys, check, mark):
    stub = stub_of(EXERCISES[check])
    check(mark(stub))
    assert capsys.readouterr().out == f"{stub.__name__} {NOT_WRITTEN}\n"


@pytest.mark.parametrize("check", EXERCISES, ids=lambda check: check.__name__)
def test_a_stub_that_is_used_all_the_same_says_what_to_run(check):
    stub = checks.exercise(stub_of(EXERCISES[check]))
    with pytest.raises(NotWritten, match=f"{stub.__name__} {NOT_WRITTEN}"):
        stub(None)
    if isinstance(stub, type):
        with pytest.raises(NotWritten, match=f"{stub.__name__} {NOT_WRITTEN}"):
            type("Subclass", (stub,), {})(8, 32)


def test_a_later_check_names_the_cell_that_was_skipped():
    stub = checks.exercise(stub_of(Discriminator))

    def build_network(d_conv_dim, g_conv_dim, z_size):
        return stub(d_conv_dim), None

    with pytest.raises(AssertionError, match=f"^Discriminator {NOT_WRITTEN}$"):
        checks.test_build_network(build_network)


def test_a_stub_elsewhere_is_an_error():
    with pytest.raises(AssertionError, match="build_network is not written yet: its body is empty"):
        checks.test_build_network(with_pass)


# ---------------------------------------------------------------- whose code is used

OWN_SCALE = """
def scale(x, feature_range=(-1, 1)):
    low, high = feature_range
    return low + (high - low) * x

tests.test_scale(scale)
own = scale
"""
WRONG_SCALE = OWN_SCALE.replace("low + ", "low - ")
EMPTY_SCALE = (
    "def scale(x, feature_range=(-1, 1)):\n    '''Nothing yet.'''\ntests.test_scale(scale)"
)
SOLUTION = """
@tests.solution
def scale(x, feature_range=(-1, 1)):
    return x * (feature_range[1] - feature_range[0]) + feature_range[0]

solution = scale
tests.test_scale(scale)
"""


@pytest.mark.parametrize("mark", ["@tests.exercise", ""], ids=["marked", "unmarked"])
def test_the_learners_own_code_stays(mark, capsys):
    notebook = {}
    cell(mark + OWN_SCALE, notebook)
    cell(SOLUTION, notebook)
    assert notebook["scale"] is notebook["own"], "expected the learner's own scale"
    assert capsys.readouterr().out == "Tests Passed\nUsing your own scale.\nTests Passed\n"


@pytest.mark.parametrize("mark", ["@tests.exercise", ""], ids=["marked", "unmarked"])
def test_wrong_code_is_not_replaced_silently(mark, capsys):
    notebook = {}
    with pytest.raises(AssertionError, match="or empty the stub to continue with the solution"):
        cell(mark + WRONG_SCALE, notebook)
    with pytest.raises(AssertionError):
        cell(SOLUTION, notebook)
    assert capsys.readouterr().out == "Using your own scale.\n"
    cell(f"{mark}\n{EMPTY_SCALE}", notebook)
    cell(SOLUTION, notebook)
    assert capsys.readouterr().out == f"scale {NOT_WRITTEN}\nTests Passed\n"


def test_the_solution_is_nobodys_own(capsys):
    notebook = {}
    for _ in range(2):  # the same cells again, in any order
        cell(SOLUTION, notebook)
        cell("tests.test_scale(scale)", notebook)
        cell(f"@tests.exercise\n{EMPTY_SCALE}", notebook)
    cell(SOLUTION, notebook)
    assert "your own" not in capsys.readouterr().out
    assert exercises.SOLUTIONS["scale"] is notebook["scale"]


def test_own_code_after_the_solution_is_used(capsys):
    notebook = {}
    cell(SOLUTION, notebook)
    cell(OWN_SCALE, notebook)
    cell(SOLUTION, notebook)
    assert notebook["scale"] is notebook["own"]


def test_a_failing_solution_is_not_to_be_emptied():
    with pytest.raises(AssertionError) as caught:
        cell("@tests.solution" + WRONG_SCALE, {})
    assert "empty the stub" not in str(caught.value)


def test_each_loss_has_its_own_check(capsys):
    checks.test_real_loss(checks.exercise(real_loss))
    checks.test_fake_loss(checks.exercise(stub_of(fake_loss)))
    assert capsys.readouterr().out == f"Tests Passed\nfake_loss {NOT_WRITTEN}\n"


def test_a_check_without_a_name_of_a_module_says_what_is_wrong():
    space = {}
    exec("def scale(x, feature_range=(-1, 1)): return nothing", space)
    with pytest.raises(AssertionError, match="NameError: name 'nothing' is not defined"):
        checks.test_scale(space["scale"])


# ---------------------------------------------------------------- what a check leaves behind


def test_a_check_changes_no_random_state_and_no_threads():
    torch.manual_seed(7)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    states = np.random.get_state()[1].copy(), random.getstate()
    checks.test_train_step(SOLUTIONS[checks.test_train_step])
    with pytest.raises(AssertionError):
        checks.test_scale(changed(checks.test_scale, {"(-1, 1)": "(0, 1)"}))
    assert torch.equal(torch.get_rng_state(), before), "expected torch's random state as before"
    assert torch.get_num_threads() == threads, "expected as many threads as before"
    assert (np.random.get_state()[1] == states[0]).all() and random.getstate() == states[1]


def test_a_check_says_the_same_each_time():
    messages = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        with pytest.raises(AssertionError) as caught:
            wrong = changed(checks.test_train_step, {"torch.randn(": "torch.rand("})
            checks.test_train_step(wrong)
        messages.append(str(caught.value))
    assert messages[0] == messages[1], f"expected the same numbers, got {messages}"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
def test_a_check_leaves_the_random_state_of_the_gpu():
    torch.cuda.manual_seed(7)
    before = torch.cuda.get_rng_state()
    checks.test_adam(plain_adam)
    assert torch.equal(torch.cuda.get_rng_state(), before), "expected CUDA's random state as before"


def test_the_notebook_imports_no_test_tools():
    code = "import sys, problem_unittests; print(*{'pytest', 'hypothesis'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and not run.stdout.strip(), f"got {run.stdout}{run.stderr[-500:]}"


# ---------------------------------------------------------------- the notebook


def test_each_check_is_under_a_cell_of_the_notebook():
    source = checks.NOTEBOOK.read_text(encoding="utf-8")
    missing = [name for name in checks.CHECKS if f"tests.{name}(" not in source]
    assert not missing, f"expected every check in the notebook, got none of {missing}"


def test_the_checks_of_exercises_are_those_under_stubs():
    stubs = [source for source in sources_of_cells() if "@tests.exercise" in source]
    for name, exercise in checks.exercises().items():
        assert any(f"tests.{name}({exercise})" in source for source in stubs), f"{name}: no stub"
    n_stubs = "".join(stubs).count("@tests.exercise")
    assert n_stubs == len(checks.exercises()) == 8, f"expected 8 exercises, got {n_stubs} stubs"


def sources_of_cells():
    return [cell.source for cell in cells_of(checks.NOTEBOOK)]


@pytest.mark.parametrize("check", EXERCISES, ids=lambda check: check.__name__)
def test_the_notebooks_own_solutions_give_no_note(check, notebook, capsys):
    check(getattr(notebook, checks.exercises()[check.__name__]))
    assert capsys.readouterr().out == "Tests Passed\n"


def test_the_definitions_come_with_the_settings(notebook):
    assert notebook.settings.image_size == notebook.image_size
    assert notebook.settings.out_dir == notebook.out_dir
