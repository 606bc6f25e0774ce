"""A student's copy of the notebook: what counts, what is said of it, and the summary."""

import inspect
import json
import os
import re
import subprocess
import sys
import types

import plain_solutions as plain
import pytest
from conftest import ROOT

import problem_unittests as checks
from assets.checks import exercises
from assets.checks.notebooks import grade, read_lesson, read_submission

EXERCISES = checks.exercises()  # by the name of the check
CHECK_OF = {exercise: checks.CHECKS[name] for name, exercise in EXERCISES.items()}
NAMES = [*CHECK_OF]


@pytest.fixture(autouse=True)
def new_kernel(monkeypatch):
    monkeypatch.setattr(exercises, "OWN", {})
    monkeypatch.setattr(exercises, "SOLUTIONS", {})


def source_of(name):
    """A plain solution, as a student may write it."""
    return inspect.getsource(getattr(plain, name)).replace(
        "check_size(", "helpers.check_image_size("
    )


def student_notebook(path, written=None, without=()):
    """The lesson's notebook with these sources in place of stubs, and without some cells.

    `without` holds texts that mark cells to leave out.
    """
    notebook = json.loads(checks.NOTEBOOK.read_text(encoding="utf-8"))
    cells = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        for name, own in (written or {}).items():
            if "@tests.exercise" in source:
                source = replaced(source, name, own)
        if not any(text in source for text in without):
            cells.append(cell | {"source": source})
    path.write_text(json.dumps(notebook | {"cells": cells}), encoding="utf-8")
    return path


def replaced(source, name, own):
    """The source of a cell with another definition of this name."""
    pattern = rf"(@tests\.exercise\n)(?:def|class) {name}\b.*?(?=\n\n\n|\Z)"
    return re.sub(pattern, lambda match: match[1] + own.rstrip(), source, flags=re.DOTALL)


def graded(notebook):
    """By exercise: "passed", or what the student is told."""
    lesson = types.ModuleType("lesson_of_a_student")
    read_lesson(checks.NOTEBOOK, lesson)
    written = read_submission(notebook, lesson, NAMES)
    return {
        name: grade(check, name, written, notebook.name) or "passed"
        for name, check in CHECK_OF.items()
    }


def test_reading_a_notebook_runs_its_definitions_only(tmp_path):
    cells = [
        "%matplotlib inline\nimport math\nwidth = 3\nprint('run')\nring = [math.pi] * width",
        "%%bash\nexit 1",
        "def area(width=width):\n    !ls\n    return width**2",
        "def around(centers=ring):\n    return centers",
    ]
    cells = [{"cell_type": "code", "metadata": {}, "source": source} for source in cells]
    path = tmp_path / "small.ipynb"
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    module = types.ModuleType("small")
    read_lesson(path, module)
    found = {name for name in vars(module) if not name.startswith("__")}
    assert found == {"math", "width", "area"}, f"expected no value that is computed, got {found}"
    assert module.area() == 9


def test_the_lesson_itself_has_nothing_written(tmp_path):
    results = graded(student_notebook(tmp_path / "student.ipynb"))
    assert results == {name: f"{name} is not written yet." for name in NAMES}


@pytest.mark.parametrize("is_marked", [True, False], ids=["marked", "unmarked"])
def test_all_that_is_written_passes(tmp_path, is_marked):
    path = student_notebook(tmp_path / "student.ipynb", {name: source_of(name) for name in NAMES})
    if not is_marked:
        text = path.read_text(encoding="utf-8").replace(r"@tests.exercise\n", "")
        path.write_text(text, encoding="utf-8")
    assert graded(path) == dict.fromkeys(NAMES, "passed")


@pytest.mark.parametrize("name", NAMES)
def test_one_exercise_counts_without_the_others(tmp_path, name):
    results = graded(student_notebook(tmp_path / "student.ipynb", {name: source_of(name)}))
    assert results.pop(name) == "passed"
    assert all(result.endswith("is not written yet.") for result in results.values())


def test_solutions_of_the_student_do_not_count(tmp_path):
    path = student_notebook(tmp_path / "student.ipynb")
    text = path.read_text(encoding="utf-8").replace("x * (high - low) + low", "x * 2 - 1")
    path.write_text(text, encoding="utf-8")
    assert graded(path)["scale"] == "scale is not written yet."


def test_a_handout_without_solutions_is_graded_alike(tmp_path):
    written = {"train_step": source_of("train_step"), "adam": source_of("adam")}
    path = student_notebook(tmp_path / "student.ipynb", written, without=["@tests.solution"])
    results = graded(path)
    assert results["train_step"] == results["adam"] == "passed"
    assert results["real_loss"] == "real_loss is not written yet."


BROKEN = {
    "no longer there": ("", "scale is not defined in student.ipynb"),
    "a syntax error": (
        "def scale(x, feature_range=(-1, 1)):\n    return x +\n",
        r"scale is broken: SyntaxError: .*student.ipynb, cell \d+, line 3",
    ),
    "a default that fails": (
        "def scale(x, feature_range=ends):\n    return x\n",
        "scale is broken: NameError: name 'ends' is not defined",
    ),
    "wrong": (
        "def scale(x, feature_range=(-1, 1)):\n    return x\n",
        "expected -1, 1, got 0, 1. Correct it, or empty the stub",
    ),
}


@pytest.mark.parametrize("source, message", BROKEN.values(), ids=BROKEN)
def test_what_is_broken_says_how(tmp_path, source, message):
    without = () if source else ["@tests.exercise\ndef scale"]
    path = student_notebook(tmp_path / "student.ipynb", {"scale": source}, without)
    result = graded(path)["scale"]
    assert re.search(message, result), f"got {result}"


def test_what_stands_beside_an_exercise_is_used_too(tmp_path):
    own = """def real_loss(D_out, smooth=False):
    return criterion(D_out, torch.full_like(D_out, 0.9 if smooth else 1.0))


criterion = nn.BCEWithLogitsLoss()"""
    path = student_notebook(tmp_path / "student.ipynb", {"real_loss": own})
    assert graded(path)["real_loss"] == "passed"


def run_pytest(submission):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "problem_unittests.py"]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"SUBMISSION": str(submission), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
    )


def test_a_submission_that_is_not_there_is_named(tmp_path):
    done = run_pytest(tmp_path / "student.ipynb")
    printed = done.stdout + done.stderr
    assert done.returncode == 1
    assert "student.ipynb' is no notebook: FileNotFoundError" in printed, f"got {printed}"
    assert "exercises passed" not in printed, "expected no count of what was not checked"


def test_pytest_grades_a_submission(tmp_path):
    wrong = source_of("real_loss").replace("0.9", "0.7")
    written = {name: source_of(name) for name in ("scale", "Generator", "adam")}
    written["Discriminator"] = source_of("Discriminator").replace("LeakyReLU(0.2)", "ReLU()")
    path = student_notebook(tmp_path / "student.ipynb", written | {"real_loss": wrong})
    done = run_pytest(path)
    lines = done.stdout.splitlines()
    assert done.returncode == 1, f"expected failed tests, got {done.stdout}{done.stderr}"
    for line in (
        "scale: passed.",
        "Discriminator: passed. Note: ReLU where the text has LeakyReLU.",
        "fake_loss: failed. fake_loss is not written yet.",
        "4 of 8 exercises passed",
    ):
        assert line in lines, f"expected the line {line}, got {done.stdout}"
    (told,) = [line for line in lines if line.startswith("real_loss: ")]
    with pytest.raises(AssertionError) as caught:
        checks.test_real_loss(plain.changed(checks.test_real_loss, {"0.9": "0.7"}))
    assert told == f"real_loss: failed. {caught.value}", (
        "expected the sentence that the student sees"
    )
    assert "4 failed, 4 passed" in lines[-1]
    assert "Traceback" not in done.stdout and "exception" not in done.stdout
