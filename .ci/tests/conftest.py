"""What the tests share: the paths, the notebook's definitions, an empty working folder."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
for folder in (ROOT, Path(__file__).parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import problem_unittests  # noqa: E402

REAL_FACES = os.environ.get("REAL_FACES")
needs_real_faces = pytest.mark.skipif(
    not REAL_FACES, reason="REAL_FACES does not name the folder of real faces"
)


@pytest.fixture(scope="session")
def notebook():
    """The notebook's functions, classes and constants, as a module."""
    return problem_unittests.read_notebook()


@pytest.fixture
def empty_place(tmp_path, monkeypatch):
    """An empty working folder, in which caches and drawn faces may be left."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def stop_button():
    """Ctrl-C works, even if the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)  # small work waits longer for threads than it takes
