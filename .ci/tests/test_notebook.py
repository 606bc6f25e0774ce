"""The whole notebook: run in small in many settings, and the committed one as it lies there."""

import contextlib
import csv
import dataclasses
import dis
import functools
import hashlib
import inspect
import io
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import papermill
import pytest
import torch
from conftest import REAL_FACES, ROOT, needs_real_faces
from PIL import Image

import helpers
import problem_unittests
from assets.lib.drawn import draw_faces

NOTEBOOK = ROOT / f"{problem_unittests.LESSON}.ipynb"
SMALL = {
    "n_drawn": 300,
    "image_size": 16,
    "batch_size": 32,
    "d_conv_dim": 4,
    "g_conv_dim": 4,
    "max_minutes": 0.05,
    "print_every": 5,
    "experiment_images": 64,
    "next_steps": False,
}


def read_cells(path=NOTEBOOK):
    """The cells of a notebook, each with its source as one string."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in cells]


CELLS = read_cells()
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]
PROSE = [cell["source"] for cell in CELLS if cell["cell_type"] == "markdown"]


def outputs_of(path):
    return [output for cell in read_cells(path) for output in cell.get("outputs", [])]


def text_of(outputs):
    return "".join("".join(output.get("text", "")) for output in outputs)


def run_notebook(place, monkeypatch, path=str(ROOT), notebook=NOTEBOOK, **settings):
    """Run the notebook in small in the folder `place` -> all that it printed."""
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    executed = place / "executed.ipynb"
    papermill.execute_notebook(notebook, executed, SMALL | settings, cwd=place, progress_bar=False)
    return text_of(outputs_of(executed))


def shortened(place):
    """The path of a copy that ends with the trained generator, without the two-dimensional game."""
    content, kept, headings = json.loads(NOTEBOOK.read_text(encoding="utf-8")), [], []
    for cell in content["cells"]:
        lines = cell["source"] if cell["cell_type"] == "markdown" else []
        headings += [line.strip() for line in lines if line.startswith(("## ", "### "))]
        if "## Optional: the faces in numbers" in headings:
            break
        if headings[-1] != "### See the game":
            kept.append(cell)
    path = place / "short.ipynb"
    path.write_text(json.dumps(content | {"cells": kept}), encoding="utf-8")
    return path


def assert_checked(printed, notebook=NOTEBOOK):
    """Each check of the notebook has passed, but those under the stubs."""
    code = [cell["source"] for cell in read_cells(notebook) if cell["cell_type"] == "code"]
    written = [source for source in code if "@tests.exercise" not in source]
    n, passed = "".join(written).count("tests.test_"), printed.count("Tests Passed")
    assert passed == n > 10, f"expected {n} checks to pass, got {passed}"
    stubs = "".join(code).count("@tests.exercise")
    unwritten = printed.count("is not written yet: run the next cell")
    assert unwritten == stubs, f"expected a sentence for each of {stubs} stubs, got {unwritten}"


# ---------------------------------------------------------------- runs in small


def test_without_a_network(tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    printed = run_notebook(tmp_path, monkeypatch, next_steps=True)
    assert "300 drawn faces" in printed, "expected 300 drawn faces"
    assert "no network" in printed, "expected the reason for drawn faces"
    assert_checked(printed)
    outputs = outputs_of(tmp_path / "executed.ipynb")
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) > 20, f"expected figures whatever MPLBACKEND says, got {len(pictures)}"
    warned = [output["text"] for output in outputs if output.get("name") == "stderr"]
    assert not warned, f"expected nothing on stderr, got {warned}"
    run = tmp_path / "runs" / "lesson"
    for name in ("generator.pt2", "last.pt", "best.pt", "losses.csv", "scores.csv", "training.gif"):
        assert (run / name).stat().st_size > 20, f"expected {name} in the run's folder"
    generator = torch.export.load(run / "generator.pt2").module()
    faces = generator(torch.randn(5, 100))
    assert faces.shape == (5, 3, 16, 16) and faces.abs().max() <= 1, f"got {faces.shape}"


def test_in_two_ranks(tmp_path):
    settings = SMALL | {"data_dir": "drawn", "n_drawn": 600, "max_minutes": 0.1}
    settings |= {"d_conv_dim": 8, "g_conv_dim": 8}  # wide enough to learn
    given = [word for name, value in settings.items() for word in ("-p", name, str(value))]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"]
    command = ["papermill", str(shortened(tmp_path)), "-", "--no-progress-bar", *given]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", *command],
        cwd=tmp_path,
        timeout=400,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, f"expected a run to the end, got {done.stderr[-3000:]}"
    assert os.listdir(tmp_path / "runs") == ["lesson"], "expected one run"
    run = tmp_path / "runs" / "lesson"
    with open(run / "losses.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    is_whole = all(int(row["images"]) == 32 * int(row["step"]) for row in rows)
    assert is_whole, f"expected batches of 32 for both ranks, got {rows[-1]}"
    with open(run / "scores.csv", encoding="utf-8") as file:
        best = min(float(row["score"]) for row in csv.DictReader(file))
    assert best < 100, f"expected better than noise (180) and no training (125), got {best:.0f}"
    faces = torch.export.load(run / "generator.pt2").module()(torch.randn(16, 100))
    spread = faces.std(0).mean()
    assert faces.shape == (16, 3, 16, 16) and spread > 0.1, f"expected faces, got {spread:.3f}"


@contextlib.contextmanager
def served(folder):
    """The address of a local HTTP server for a folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@needs_real_faces
def test_the_real_archive_over_http(empty_place, capsys):
    path = Path(REAL_FACES, "processed-celeba-small.zip")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    with served(path.parent) as address:
        folder = helpers.find_data("processed_celeba_small/", f"{address}/{path.name}", sha256)
    printed = capsys.readouterr().out
    assert "40,045 images" in printed, f"expected 40,045 images, got {printed}"
    found = len(os.listdir(Path(folder, "celeba")))
    assert found == 40_045, f"expected one flat folder of 40,045 images, got {found}"


def some_photographs():
    """Names and bytes of 1,001 files of the published archive, or else of drawn faces."""
    if REAL_FACES:
        with zipfile.ZipFile(Path(REAL_FACES, "processed-celeba-small.zip")) as pack:
            return {name: pack.read(name) for name in pack.namelist()[1::40]}
    files = {}
    for i, face in enumerate(draw_faces(1001, 64)[0]):
        buffer = io.BytesIO()
        Image.fromarray(face.permute(1, 2, 0).numpy()).save(buffer, "JPEG")
        files[f"faces/celeba/{i + 1:06d}.jpg"] = buffer.getvalue()
    return files


def test_on_an_archive_over_http_and_again_on_its_folder(tmp_path, monkeypatch, notebook):
    archive = tmp_path / "server" / "faces.zip"
    archive.parent.mkdir()
    files = some_photographs()
    name = next(name for name in files if name.endswith("1.jpg"))
    with zipfile.ZipFile(archive, "w") as pack:
        for path, content in files.items():
            pack.writestr(path, content[:300] if path == name else content)
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    networks = zip("DG", notebook.build_network(4, 4, 100, 16))
    state = {name: network.state_dict() for name, network in networks}
    torch.save(state | dict(settings={}, step=0, random_state=None), tmp_path / "start.pt")
    short = {"notebook": shortened(tmp_path), "start_from": "start.pt"}
    with served(archive.parent) as address:
        url = f"{address}/faces.zip"
        printed = run_notebook(tmp_path, monkeypatch, data_url=url, data_sha256=sha256, **short)
    assert_checked(printed, short["notebook"])
    assert "begin with the weights in start.pt" in printed, "expected to read what it began with"
    assert "1,001 images found in" in printed, "expected to read where the images are"
    assert Path(name).name in printed, f"expected the broken {name} to be named"
    losses = tmp_path / "runs" / "lesson" / "losses.csv"
    before = losses.read_text(encoding="utf-8")
    gone = "http://127.0.0.1:9/gone.zip"
    printed = run_notebook(tmp_path, monkeypatch, data_url=gone, **short)
    assert_checked(printed, short["notebook"])
    assert losses.read_text(encoding="utf-8") == before, "expected no more training of a whole run"


# ---------------------------------------------------------------- what is wrong is said at once


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"image_size": 48}, "image_size = 48"),
        ({"data_dir": "texts"}, "texts"),
    ],
)
def test_wrong_settings_end_it_before_it_trains(tmp_path, monkeypatch, settings, message):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.jpg").write_text("no picture", encoding="utf-8")
    with pytest.raises(papermill.exceptions.PapermillExecutionError, match=message):
        run_notebook(tmp_path, monkeypatch, **settings)
    assert not (tmp_path / "runs").exists(), f"{settings}: expected an error before any training"


def run_first_cells(place, path):
    """Run the settings and imports with these folders as PYTHONPATH -> the error's last line."""
    until = next(i for i, cell in enumerate(CODE) if "import problem_unittests" in cell["source"])
    source = "\n".join(cell["source"] for cell in CODE[: until + 1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def test_the_notebook_without_its_files_says_what_is_missing(tmp_path):
    message = run_first_cells(tmp_path, [])
    assert "helpers is missing" in message, f"expected what is missing, got {message}"


@pytest.mark.parametrize("name", ["helpers.py", "problem_unittests.py"])
def test_another_module_of_the_name_is_refused(tmp_path, name):
    other = tmp_path / "other" / name
    other.parent.mkdir()
    other.write_text("def test_discriminator(D):\n    pass\n", encoding="utf-8")
    message = run_first_cells(tmp_path, [other.parent, ROOT])
    assert str(other) in message, f"expected the path of the other {name}, got {message}"


# ---------------------------------------------------------------- the committed notebook


def test_the_committed_notebook_is_one_clean_run():
    counts = [cell["execution_count"] for cell in CODE]
    assert counts == list(range(1, len(CODE) + 1)), f"expected a run in order, got {counts}"
    outputs = outputs_of(NOTEBOOK)
    errors = [output["evalue"] for output in outputs if output["output_type"] == "error"]
    assert not errors, f"expected no errors, got {errors}"
    warned = [output["text"] for output in outputs if output.get("name") == "stderr"]
    assert not warned, f"expected nothing on stderr, got {warned}"
    assert_checked(text_of(outputs))


def test_cells_are_short_enough_to_read_at_once():
    lines = {cell["execution_count"]: cell["source"].count("\n") + 1 for cell in CODE[1:]}
    long = {number: n for number, n in lines.items() if n > 30}
    assert not long, f"expected at most 30 lines in a cell, got {long}"
    size = NOTEBOOK.stat().st_size
    assert size < 5_000_000, f"expected less than 5 MB, got {size:,} bytes"


def test_no_function_of_the_notebook_reads_a_setting_from_a_global(notebook):
    names = {field.name for field in dataclasses.fields(helpers.Settings)}
    names |= {"settings", "device", "loader", "faces_dir", "run", "D", "G", "generator"}
    for name, function in vars(notebook).items():
        code = getattr(function, "__code__", None)
        if code is not None and function.__module__ == notebook.__name__:
            found = names & set(global_names(code))
            assert not found, f"{name}: expected arguments, got a read of {found}"


def global_names(code):
    """The global names that a function and those within it read."""
    for instruction in dis.get_instructions(code):
        if "GLOBAL" in instruction.opname:
            yield instruction.argval
    for constant in code.co_consts:
        if inspect.iscode(constant):
            yield from global_names(constant)


def test_the_committed_notebook_tells_nothing_of_a_machine():
    text = NOTEBOOK.read_text(encoding="utf-8")
    found = re.findall(r"/(?:root|home|tmp|work|Users)/[\w./-]+|\w+-packages/[\w./-]+", text)
    assert not found, f"expected no paths of a machine, got {found[:5]}"
    info = json.loads(text)["metadata"]["language_info"]
    assert {"name", "version", "file_extension", "mimetype"} <= info.keys(), f"got {info}"


def test_links_and_pictures_of_the_text_exist():
    text = "\n".join(PROSE)
    anchors = set(re.findall(r'id="([\w-]+)"', text))
    missing = set(re.findall(r"\]\(#([\w-]+)\)", text)) - anchors
    assert not missing, f"expected a place for each link, got none for {missing}"
    files = re.findall(r"\]\(((?:assets|\.ci)/[^)#]+)|src=\"(assets/[^\"]+)", text)
    missing = [name for pair in files for name in pair if name and not (ROOT / name).exists()]
    assert not missing, f"expected these files: {missing}"


def test_solutions_are_folded_and_exercises_are_not():
    for cell in CODE:
        hidden = cell["metadata"].get("jupyter", {}).get("source_hidden", False)
        is_solution = "@tests.solution" in cell["source"]
        assert hidden == is_solution, f"source_hidden is {hidden}: {cell['source'][:200]}"


# ---------------------------------------------------------------- the tree


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is not a git checkout")
def test_the_visible_top_has_six_entries():
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    tops = {name.partition("/")[0] for name in listing.stdout.splitlines()}
    visible = sorted(name for name in tops if not name.startswith(".") and name != "LICENSE")
    files = ["README.md", "helpers.py", "problem_unittests.py", "requirements.txt", NOTEBOOK.name]
    assert visible == sorted([*files, "assets"]), f"got {visible}"
