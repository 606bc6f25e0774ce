"""The definitions of a notebook without running it: the lesson's, or those of a student's copy."""

import ast
import contextlib
import dataclasses
import json
import linecache
import re
from pathlib import Path

from assets.checks.exercises import unwritten
from assets.lib.settings import Settings


def read_lesson(path, module):
    """Run a notebook's imports, functions, classes and constants in a module, and nothing else.

    The constants of the cell tagged "parameters" are there as `module.settings`, too. A definition
    that needs a value which only a run computes, such as a default, is left out.
    """
    for cell in cells_of(path):
        for node in definitions(parsed(cell)):
            with contextlib.suppress(NameError):
                run(node, cell.file, module)
        if "parameters" in cell.tags:
            names = [item.name for item in dataclasses.fields(Settings)]
            module.settings = Settings(**{name: getattr(module, name) for name in names})


def read_submission(path, module, exercises):
    """Run a student's definitions in the lesson's module -> what was written, by exercise.

    The values are definitions, or the error in place of one. In the module the lesson's solution
    stands in for what is missing, empty or broken. The student's solution cells do not count.
    """
    written, solutions = {}, {name: getattr(module, name) for name in exercises}
    for cell in cells_of(path):
        try:
            nodes = [node for node in parsed(cell) if not is_solution(node)]
        except SyntaxError as error:
            names = re.findall(r"(?:def|class) +(\w+)", cell.source)
            written |= {name: error for name in names if name in exercises}
            continue
        of_exercise = {name_of(node) for node in nodes} & set(exercises)
        for node in nodes:
            if is_definition(node) or (of_exercise and isinstance(node, ast.Assign)):
                own = try_to_run(node, cell.file, module)
                if name_of(node) in exercises:
                    written[node.name] = own
        for name in of_exercise:
            if isinstance(written[name], Exception) or unwritten(written[name]):
                setattr(module, name, solutions[name])
    return written


def name_of(node):
    return getattr(node, "name", None)


def try_to_run(node, file, module):
    """Run one statement -> the function or class that it defines, or the error that it raises."""
    try:
        run(node, file, module)
    except Exception as error:
        return error
    return getattr(module, name_of(node) or "", None)


# ---------------------------------------------------------------- cells


@dataclasses.dataclass
class Cell:
    """A code cell of a notebook."""

    source: str
    tags: list
    file: str  # the name in tracebacks


def cells_of(path):
    """The code cells of a notebook, but for those in other languages."""
    path = Path(path)
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source, tags = "".join(cell["source"]), cell["metadata"].get("tags", [])
        if cell["cell_type"] == "code" and not source.startswith("%%"):
            yield Cell(source, tags, f"{path.name}, cell {number}")


def parsed(cell):
    """The statements of a cell, without magic and shell commands."""
    linecache.cache[cell.file] = len(cell.source), None, cell.source.splitlines(True), cell.file
    python = re.sub(r"^(\s*)[%!].*$", r"\1pass", cell.source, flags=re.MULTILINE)
    return ast.parse(python, cell.file).body


def definitions(nodes):
    return [node for node in nodes if is_definition(node)]


def is_definition(node):
    """An import, a function, a class, or a constant such as 64, (0.5, 0.999), {"a": lambda: 1}."""
    if isinstance(node, ast.Try):
        return all(map(is_definition, node.body))
    if isinstance(node, (ast.Assign, ast.AugAssign)):
        target = node.target if isinstance(node, ast.AugAssign) else node.targets[0]
        values = node.value.values if isinstance(node.value, ast.Dict) else [node.value]
        parts = [part for x in values if not isinstance(x, ast.Lambda) for part in ast.walk(x)]
        is_constant = not any(isinstance(part, (ast.Name, ast.Call)) for part in parts)
        return is_constant and isinstance(target, ast.Name)
    return isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))


def is_solution(node):
    """Whether a function or class stands under @tests.solution."""
    decorators = map(ast.unparse, getattr(node, "decorator_list", ()))
    return any(re.fullmatch(r"(\w+\.)?solution", decorator) for decorator in decorators)


def run(node, file, module):
    exec(compile(ast.Module([node], []), file, "exec"), module.__dict__)


# ---------------------------------------------------------------- grades


def grade(check, exercise, written, notebook):
    """Run the check of an exercise on what was written -> what is wrong with it, a sentence."""
    own = written.get(exercise)
    if own is None:
        return f"{exercise} is not defined in {notebook}."
    if isinstance(own, Exception):
        return f"{exercise} is broken: {type(own).__name__}: {own}."
    if unwritten(own):
        return f"{exercise} is not written yet."
    try:
        check(own)
    except AssertionError as error:
        return str(error)
    return ""


class Summary:
    """A plugin of pytest: a line for each exercise at the end, whether it has passed."""

    def __init__(self, notebook, exercises):
        self.notebook, self.exercises = notebook, exercises  # names, by name of the check
        self.lines, self.n_passed = [], 0

    def pytest_runtest_logreport(self, report):
        if report.when != "call":
            return
        name = self.exercises[report.nodeid.rpartition("::")[2]]
        self.n_passed += report.passed
        if report.passed:
            notes = [line for line in report.capstdout.splitlines() if line.startswith("Note: ")]
            self.lines.append(" ".join([f"{name}: passed.", *notes]))
        else:
            self.lines.append(f"{name}: failed. {report.longreprtext}")

    def pytest_terminal_summary(self, terminalreporter):
        terminalreporter.section(str(self.notebook))
        count = f"{self.n_passed} of {len(self.exercises)} exercises passed"
        for line in [*self.lines, count] if self.lines else ["no exercise was checked"]:
            terminalreporter.line(line)
