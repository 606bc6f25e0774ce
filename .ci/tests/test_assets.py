"""The face network, the committed generator, and what the documents say."""

import ast
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import needs_real_faces
from PIL import Image
from test_lesson import photographs

import helpers
from assets import face_network

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "assets"
DOCUMENTS = [ROOT / "README.md", *sorted(ASSETS.glob("**/*.md"))]


# ---------------------------------------------------------------- colours and the face network


def test_colours_in_lab():
    pixels = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, -1, 1], [-1, -1, -1]])
    white, red, blue, black = [100, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86], [0, 0, 0]
    lab = face_network.to_lab(pixels[:, :, None, None]).flatten(1)
    error = (lab - torch.tensor([white, red, blue, black])).abs().max()
    assert error < 0.1, f"white, red, blue, black: expected textbook values, got {lab.tolist()}"


def test_a_missing_face_network_says_what_to_fetch(tmp_path, monkeypatch):
    monkeypatch.setattr(face_network, "WEIGHTS", tmp_path / "assets" / "face_network.pt")
    with pytest.raises(FileNotFoundError, match="face_network.pt is missing.*assets"):
        face_network.load_face_network.__wrapped__()


@pytest.mark.parametrize("path", sorted(ASSETS.glob("*.py")), ids=lambda path: path.stem)
def test_assets_import_nothing_of_helpers(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    above = imported & {"helpers", "problem_unittests"}
    assert not above, f"{path.name}: expected one-way traffic, got an import of {above}"


# ---------------------------------------------------------------- the committed generator


@pytest.fixture(scope="module")
def committed(notebook):
    """The committed generator, from its weights."""
    D, G = notebook.build_network(32, 48, 100)
    helpers.begin_with(ASSETS / "celeba_32.pt", D, G)
    return G.eval()


@pytest.mark.parametrize("name", ["celeba_32.pt", "celeba_32.onnx"])
def test_the_committed_generator_is_the_one_described(name):
    path = ASSETS / name
    assert path.stat().st_size < 7e6, f"expected at most 7 MB, got {path.stat().st_size:,} bytes"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    card = (ASSETS / "celeba_32.md").read_text(encoding="utf-8")
    assert sha256 in card, f"expected the model card to name the file's sha256, {sha256}"


@pytest.mark.parametrize("n", [1, 64])
def test_the_onnx_file_makes_the_same_faces(committed, n):
    reason = "onnxruntime is optional"
    onnxruntime = pytest.importorskip("onnxruntime", reason=reason)
    session = onnxruntime.InferenceSession(ASSETS / "celeba_32.onnx")
    z = torch.randn(n, 100, generator=torch.Generator().manual_seed(n))
    (faces,) = session.run(None, {"z": z.numpy()})
    with torch.no_grad():
        off = (torch.from_numpy(faces) - committed(z)).abs().max()
    assert off < 1e-4, f"{n} latents: expected PyTorch's faces to 1e-4, got {off:.1e} off"


@needs_real_faces
def test_the_committed_generator_scores_as_stated(notebook, committed):
    results = (ASSETS / "docs" / "results.md").read_text(encoding="utf-8")
    row = re.search(r"^\| \[`assets/weights/celeba_32.pt`\].*?FFD ([\d.]+)", results, re.MULTILINE)
    stated = float(row[1])
    photos, _ = photographs("processed-celeba-small.zip", part="test")
    real = F.interpolate(photos, size=(32, 32), mode="bilinear", antialias=True)
    latents = torch.randn(5000, 100, generator=torch.Generator().manual_seed(1000))
    with torch.no_grad():
        faces = torch.cat([committed(part) for part in latents.split(250)])
    features = helpers.face_features(faces), helpers.face_features(real)
    score = notebook.frechet_distance(*features)
    assert abs(score - stated) < 0.3, f"expected the FFD of the table, {stated}, got {score:.2f}"


# ---------------------------------------------------------------- the documents


def snippets():
    """The Python of the documents that runs outside of Colab."""
    for document in DOCUMENTS:
        for code in re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.S):
            if not code.startswith("!"):
                yield pytest.param(code, id=f"{document.stem}: {code.splitlines()[-1][:40]}")


@pytest.mark.parametrize("code", list(snippets()))
def test_snippets_run(committed, code, tmp_path, monkeypatch):
    for package in ("onnxruntime", "onnx"):
        if package in code:
            pytest.importorskip(package, reason=f"{package} is optional")
    if "onnxruntime" in code:
        assert "torch" not in code, "expected a snippet that needs no PyTorch"
    run = tmp_path / "runs" / "lesson"
    run.mkdir(parents=True)
    helpers.export_generator(committed, run / "generator.pt2")
    assert "helpers" not in code, "expected a snippet that needs nothing of this project"
    monkeypatch.chdir(tmp_path)
    exec(code.replace('"assets/', f'"{ASSETS.as_posix()}/'), {})
    for path in tmp_path.glob("*.png"):
        contrast = np.array(Image.open(path)).std()
        assert contrast > 20, f"{path.name}: expected faces, got a contrast of {contrast:.0f}"
    assert len([*tmp_path.iterdir()]) > 1, "expected a file, got none"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_links_lead_somewhere(document):
    text = document.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = document.parent / path if path else document
        assert target.exists(), f"{document.name}: expected {path} to exist"
        if anchor:
            headings = re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in headings]
            assert anchor in anchors, f"{document.name}: expected #{anchor} in {target.name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_files_and_scripts_that_are_named_exist(document):
    named = re.findall(r"(?:assets|\.ci)/[\w/]+\.\w+", document.read_text(encoding="utf-8"))
    missing = sorted({path for path in named if not (ROOT / path).exists()})
    assert not missing, f"{document.name}: expected these to exist: {', '.join(missing)}"


def test_every_guarantee_names_a_test():
    text = (ASSETS / "docs" / "guarantees.md").read_text(encoding="utf-8")
    files = [ROOT / "problem_unittests.py", *sorted((ROOT / ".ci" / "tests").glob("test_*.py"))]
    defined = {file.name: file.read_text(encoding="utf-8") for file in files}
    everything = "\n".join(defined.values())
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in everything, f"expected a test called {name}"
    for name in re.findall(r"`(test_\w+\.py)`", text):
        assert name in defined, f"expected the file .ci/tests/{name}"
    for row in re.findall(r"^\| .* \|$", text, re.MULTILINE)[1:]:
        words = "promise", "---"
        holds = "test_" in row or any(word in row for word in words)
        assert holds, f"expected a test in the row: {row}"


def test_no_document_says_where_it_was_made():
    for document in DOCUMENTS:
        found = re.search(r"/(home|root|tmp|work|Users)/", document.read_text(encoding="utf-8"))
        assert not found, f"{document.name}: expected no path of a machine, got {found}"
