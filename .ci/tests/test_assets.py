"""The tree of modules, the committed generator, and what the documents say."""

import ast
import graphlib
import hashlib
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, needs_real_faces
from PIL import Image
from test_lesson import photographs

import helpers

ASSETS = ROOT / "assets"
WEIGHTS = ASSETS / "weights"
DOCUMENTS = [ROOT / "README.md", *sorted(ASSETS.glob("**/*.md"))]


# ---------------------------------------------------------------- the modules


def imports_of(path):
    """The names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_go_one_way():
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in modules()}
    imported = {name: {*imports_of(path)} for name, path in files.items()}
    for name, others in imported.items():
        above = others & {"helpers", "problem_unittests"}
        assert not above, f"{name}: expected nothing from above, got an import of {above}"
    order = graphlib.TopologicalSorter(
        {name: others & files.keys() for name, others in imported.items()}
    )
    order.prepare()  # a CycleError names modules that import each other


def modules():
    return sorted(ASSETS.glob("**/*.py"))


def test_the_library_knows_nothing_of_the_checks():
    for path in sorted((ASSETS / "lib").glob("**/*.py")):
        checks = [name for name in imports_of(path) if name.startswith("assets.checks")]
        assert not checks, f"{path.name}: expected no import of {checks}"


# ---------------------------------------------------------------- the committed generator


@pytest.fixture(scope="module")
def committed(notebook):
    """The committed generator, from its weights."""
    D, G = notebook.build_network(32, 48, 100)
    helpers.begin_with(WEIGHTS / "celeba_32.pt", D, G)
    return G.eval()


@pytest.mark.parametrize("name", ["celeba_32.pt", "celeba_32.onnx"])
def test_the_committed_generator_is_the_one_described(name):
    path = WEIGHTS / name
    assert path.stat().st_size < 7e6, f"expected at most 7 MB, got {path.stat().st_size:,} bytes"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    card = (WEIGHTS / "celeba_32.md").read_text(encoding="utf-8")
    assert sha256 in card, f"expected the model card to name the file's sha256, {sha256}"


@pytest.mark.parametrize("n", [1, 64])
def test_the_onnx_file_makes_the_same_faces(committed, n):
    reason = "onnxruntime is optional"
    onnxruntime = pytest.importorskip("onnxruntime", reason=reason)
    session = onnxruntime.InferenceSession(WEIGHTS / "celeba_32.onnx")
    z = torch.randn(n, 100, generator=torch.Generator().manual_seed(n))
    (faces,) = session.run(None, {"z": z.numpy()})
    with torch.no_grad():
        off = (torch.from_numpy(faces) - committed(z)).abs().max()
    assert off < 1e-4, f"{n} latents: expected PyTorch's faces to 1e-4, got {off:.1e} off"


@needs_real_faces
def test_the_committed_generator_scores_as_stated(notebook, committed):
    card = (WEIGHTS / "celeba_32.md").read_text(encoding="utf-8")
    stated = float(re.search(r"FFD ([\d.]+) \(5,000 samples", card)[1])
    photos, _ = photographs("processed-celeba-small.zip", part="test")
    real = F.interpolate(photos, size=(32, 32), mode="bilinear", antialias=True)
    latents = torch.randn(5000, 100, generator=torch.Generator().manual_seed(1000))
    with torch.no_grad():
        faces = torch.cat([committed(part) for part in latents.split(250)])
    features = helpers.face_features(faces), helpers.face_features(real)
    score = notebook.frechet_distance(*features)
    assert abs(score - stated) < 0.1, f"expected the FFD of the card, {stated}, got {score:.2f}"


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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_tests_that_are_named_exist(document):
    text = document.read_text(encoding="utf-8")
    files = {path.name: path for path in (ROOT / ".ci" / "tests").glob("test_*.py")}
    missing = set(re.findall(r"test_\w+\.py", text)) - files.keys()
    assert not missing, f"{document.name}: expected the files .ci/tests/{missing}"
    defined = "\n".join(path.read_text(encoding="utf-8") for path in files.values())
    for name in re.findall(r"\btest_\w+\b(?!\.py)", text):
        assert f"def {name}(" in defined, f"{document.name}: expected a test called {name}"


def test_every_promise_stands_in_a_section_that_names_its_tests():
    text = (ASSETS / "docs" / "guarantees.md").read_text(encoding="utf-8")
    _, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    assert len(sections) > 3, f"expected sections, got {len(sections)}"
    for section in sections:
        title = section.splitlines()[0]
        assert re.search(r"test_\w+\.py", section), f"{title}: expected the names of its tests"


def test_no_document_says_where_it_was_made():
    for document in DOCUMENTS:
        found = re.search(r"/(home|root|tmp|work|Users)/", document.read_text(encoding="utf-8"))
        assert not found, f"{document.name}: expected no path of a machine, got {found}"
