"""Every script behind the documents' tables and pictures runs, in small."""

import csv
import importlib
import types
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import helpers

STOP_RULE = helpers.StopRule  # as it is outside of the fixture below
ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT / ".ci" / "experiments"
N_IMAGES = 80  # of each training, in place of minutes


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An empty folder, with networks of few channels and few drawn faces."""
    place = tmp_path_factory.mktemp("experiments")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.syspath_prepend(EXPERIMENTS)
        lesson = importlib.import_module("common").lesson
        small = dict(n_drawn=1000, batch_size=8, d_conv_dim=4, g_conv_dim=4, domain_batch=8)
        for name, value in small.items():
            patch.setattr(lesson, name, value)
        baseline = importlib.import_module("baseline")
        patch.setattr(baseline, "networks", partial(baseline.networks, width=4))
        patch.setattr(helpers, "CACHE", helpers.CACHE)  # the benchmark sets another one
        stop = helpers.StopRule
        patch.setattr(
            helpers, "StopRule", lambda minutes=None, images=N_IMAGES: stop(images=images)
        )
        patch.setattr(lesson, "score", partial(lesson.score, n=100))
        yield place


@pytest.fixture
def no_export(monkeypatch):
    """Runs that leave no generator.pt2, whose export takes seconds."""
    monkeypatch.setattr(helpers, "export_generator", lambda *args: None)


def run(script, *arguments):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    importlib.import_module(script).main([str(argument) for argument in arguments])
    torch.set_num_threads(threads)


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def train(script, place, *arguments):
    """Run a script that adds rows, twice: the second time it must find them there -> the rows."""
    table = place / f"{script}.csv"
    options = "--runs", place / "runs", "--table", table
    run(script, "drawn", *arguments, *options)
    rows = read(table)
    run(script, "drawn", *arguments, *options)
    assert read(table) == rows, f"{script}: expected no row twice"
    committed = read(EXPERIMENTS / f"{script}.csv")[0].keys()
    assert rows[0].keys() == committed, f"{script}: expected the columns of the committed table"
    return rows


@pytest.fixture(scope="module")
def a_run(place):
    """The folder of a finished run, with a generator and sample grids."""
    recipes = "baseline", "R1, linear decay", "the discriminator wins"
    rows = train("results", place, "--minutes", 1, "--only", *recipes)
    names = {row["recipe"] for row in rows}
    assert names == {"real", "noise", "usual", *recipes[1:]}, f"expected every recipe, got {names}"
    assert all(float(row["ffd"]) > 0 for row in rows), f"expected scores, got {rows}"
    rows = train("results", place, "--images", 16, 32, "--only", "rate: linear decay")
    assert [row["images"] for row in rows[-2:]] == ["16", "32"], f"expected both, got {rows[-2:]}"
    return next((place / "runs" / "results").rglob("R1*"))


def test_results(a_run):
    assert (a_run / "generator.pt2").exists(), f"expected a generator in {a_run}"


@pytest.mark.parametrize("kind", ["strip", "faces", "losses", "rows"])
def test_pictures(a_run, tmp_path, kind):
    run("pictures", kind, a_run, tmp_path / "picture.png")
    contrast = np.array(Image.open(tmp_path / "picture.png")).std()
    assert contrast > 5, f"{kind}: expected a picture, got a contrast of {contrast:.1f}"


def test_pictures_of_three_runs_and_of_drawn_faces(a_run, tmp_path):
    run("pictures", "three_runs", a_run, a_run, a_run, tmp_path / "three.png")
    run("pictures", "drawn", tmp_path / "drawn.png", "--n", 4, "--columns", 2)
    size = Image.open(tmp_path / "drawn.png").size
    assert size == (130, 130), f"expected 2 x 2 faces of 64 pixels, got {size}"


def test_pictures_of_styles(place, tmp_path, monkeypatch):
    pictures = importlib.import_module("pictures")
    lesson = pictures.lesson
    generator = lesson.StyleGenerator(lesson.z_size, lesson.g_conv_dim)
    state = {"averaged": lesson.AveragedModel(generator).state_dict()}
    monkeypatch.setattr(helpers, "load_checkpoint", lambda path: state)
    run("pictures", "styles", tmp_path, tmp_path / "styles.png")
    assert Image.open(tmp_path / "styles.png").height == 2 * (5 * 34 - 2), "expected five rows"


def test_audit(a_run, capsys):
    folder = importlib.import_module("common").lesson.faces_dir
    run("audit", folder, a_run / "generator.pt2", "--n", 200)
    printed = capsys.readouterr().out
    assert "| very light |" in printed, f"expected the table of the audit, got {printed}"
    assert "of those held out" in printed, f"expected the share of copies, got {printed}"


def test_conditional(place, no_export, monkeypatch):
    monkeypatch.setattr(importlib.import_module("conditional"), "SAMPLES", 200)
    rows = train("conditional", place, "--labels", "Male", "Smiling")
    measures = {row["measure"] for row in rows}
    assert "balanced accuracy, generated" in measures, f"expected it measured, got {measures}"
    rows = train("conditional", place, "--balanced", "Male")
    measures = {row["measure"] for row in rows}
    assert "share, generated from equal shares" in measures, f"expected shares, got {measures}"


def test_makeup(place, no_export, monkeypatch):
    monkeypatch.setattr(importlib.import_module("makeup"), "PEOPLE", 20)
    rows = train("makeup", place)
    subjects = {row["subject"] for row in rows}
    expected = {"A to B, CycleGAN", "B to A, CycleGAN", "G_BA(G_AB(A))"}
    assert expected <= subjects, f"expected {expected}, got {subjects}"
    rows = train("makeup", place, "--same", "")
    n = {row["experiment"]: int(row["n"]) for row in rows if row["measure"] == "faces to train on"}
    few, many = n["Heavy_Makeup"], n["Heavy_Makeup, same any"]
    assert few < many, f"expected more faces among all than among women, got {many} and {few}"


def test_changes_by_makeup_are_split_by_region(place):
    makeup = importlib.import_module("makeup")
    faces = torch.full((20, 3, 32, 32), -0.5)
    region = makeup.makeup_region(32, 13)
    rows = list(makeup.change_by_band("G", faces, faces + 0.2 * region, 13))
    values = {measure: round(value, 5) for _, measure, value, _ in rows}
    expected = {"change inside": 0.2, "change outside": 0.0}
    assert values == expected, f"expected {expected}, got {values}"


def test_album(place, no_export):
    rows = train("album", place, "--label", "Smiling", "--n", 60, "--augmented", "--minutes", 2)
    found = {(row["subject"], row["measure"]) for row in rows}
    expected = {(subject, measure) for subject in ("real", "from nothing, shifted")
                for measure in ("FFD", "copies")}  # fmt: skip
    assert expected <= found, f"expected {expected}, got {found}"


def test_growing(place, no_export):
    rows = train("growing", place, "--size", 64, "--grown-only")
    assert all(row["subject"].startswith("grown") for row in rows), "expected no other way"
    rows = train("growing", place, "--size", 64)
    starts = {row["subject"].partition(":")[0] for row in rows}
    assert starts == {"grown", "from the start"}, f"expected both, got {starts}"
    for way in starts:
        subject = f"{way}: at 64 pixels, test faces"
        found = {row["measure"] for row in rows if row["subject"] == subject}
        assert found >= {"ffd", "precision", "recall"}, f"{way}: expected all scores, got {found}"
    smaller = next((place / "runs").rglob("grown_to_32_of_64/last.pt"))
    rows = train("growing", place, "--size", 64, "--grown-only", "--start", smaller)
    rows = [row for row in rows if row["experiment"] == f"growing from {smaller.as_posix()}"]
    sizes = {row["subject"].partition(" pixels")[0] for row in rows}
    assert sizes == {"grown: at 64"}, f"from a file: expected the full size alone, got {sizes}"


def test_benchmark(place, monkeypatch, capsys):
    benchmark = importlib.import_module("benchmark")
    monkeypatch.setattr(benchmark, "in_own_process", lambda function, *args: function(*args))
    monkeypatch.setattr(benchmark, "speed_of", lambda *args: 1000.0)
    monkeypatch.setattr(benchmark, "MOST_STEPS", 2)
    monkeypatch.setattr(helpers, "has_fast_bfloat16", lambda device: False)
    data = str(helpers.find_data("drawn", n_drawn=1000, image_size=32))
    small = "--sizes", 32, "--batch", 8, "--seconds", 0.01, "--pairs", 1, "--data", data
    run("benchmark", *small)
    assert "with the default settings |" in capsys.readouterr().out, "expected the first row"
    run("benchmark", "--ranks", 2, *small)
    assert "1.00 (1.00 to 1.00)" in capsys.readouterr().out, "expected ratios"
    benchmark.train_as_rank(8, 0.01, data)
    assert "images/s: " in capsys.readouterr().out, "expected a rank's speed"


def test_the_face_network_can_be_trained(place, tmp_path, monkeypatch, capsys):
    script = importlib.import_module("train_face_network")
    monkeypatch.setattr(script, "FaceNetwork", partial(script.FaceNetwork, (4, 4, 4, 4)))
    folder = helpers.find_data("drawn", n_drawn=1000, image_size=32)
    attributes = next(Path(folder).rglob("list_attr*"))
    run("train_face_network", folder, attributes, "--epochs", 1, "--weights", tmp_path / "new.pt")
    assert "at 32 pixels" in capsys.readouterr().out, "expected the accuracy"
    stored = torch.load(tmp_path / "new.pt", weights_only=True)
    assert set(stored) == {"attributes", "weights"}, f"expected both, got {set(stored)}"


def test_diagrams_are_the_committed_ones(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    run("diagrams", "--folder", tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    run("diagrams", "--folder", tmp_path)
    for name, content in first.items():
        assert (tmp_path / name).read_bytes() == content, f"{name}: expected the same bytes again"
        size = (ROOT / "assets" / name).stat().st_size
        same = abs(size - len(content)) < 0.05 * size
        assert same, f"{name}: expected the committed one, got another size"


def test_equal_steps(place, monkeypatch):
    monkeypatch.setattr(helpers, "StopRule", STOP_RULE)
    monkeypatch.setattr(importlib.import_module("equal_steps"), "CASES", ((8, 1.0), (16, 2.0)))
    features = helpers.face_features  # of fewer faces, to save time
    monkeypatch.setattr(helpers, "face_features", lambda faces: features(faces[:200]))
    rows = train("equal_steps", place, "--steps", 3, 6)
    batches = [(row["batch"], row["steps"], row["images"]) for row in rows]
    expected = [("8", "3", "24"), ("16", "3", "48"), ("8", "6", "48"), ("16", "6", "96")]
    assert batches == expected, f"expected {expected}, got {batches}"
    assert all(float(row["ffd"]) > 0 for row in rows), f"expected scores, got {rows}"


def test_a_run_beyond_a_limit_gives_no_row(place, capsys):
    common = importlib.import_module("common")
    run = types.SimpleNamespace(folder="runs/a", seconds=1200.0, images=50_000)
    limits = dict(minutes=2), dict(minutes=20), dict(images=3000), dict(images=50_000)
    found = [common.is_past(run, **limit) for limit in limits]
    assert found == [True, False, True, False], f"expected 2 minutes, 3,000 images, got {found}"
    assert capsys.readouterr().out.count("has had 20 minutes, 50,000 images: no row") == 2


def test_gpu(place, no_export, monkeypatch):
    gpu = importlib.import_module("gpu")
    monkeypatch.setattr(gpu, "run_cells", lambda settings, namespace: iter([]))  # test_devices.py
    monkeypatch.setattr(gpu, "STEPS", 2)
    small = "--sizes", 32, "--batches", 4, "--seconds", 0.01, "--minutes", 1
    table, options = place / "gpu.csv", ("--runs", place / "gpu", "--table", place / "gpu.csv")
    run("gpu", "drawn", *small, *options)
    rows = read(table)
    run("gpu", "drawn", *small, *options)
    assert read(table) == rows, "expected no row twice"
    speeds = [row for row in rows if row["experiment"] == "speed"]
    assert [float(row["value"]) > 0 for row in speeds] == [True] * 3, f"got {speeds}"
    values = {row["experiment"]: row["value"] for row in rows}
    assert values["checkpoint"] == "4", f"expected 2 steps and 2 more, got {values['checkpoint']}"
    elsewhere = place / "gpu_elsewhere.csv"
    late = "--limit", 0, "--runs", place / "gpu", "--table", elsewhere
    run("gpu", "drawn", "--only", "checkpoint", "speed", "faces", *small, *late)
    steps = [(row["experiment"], row["value"]) for row in read(elsewhere)]
    assert steps == [("checkpoint", "8")], f"expected 4 steps more, and no time left, got {steps}"
    scored = {row["measure"] for row in rows if row["experiment"] == "faces"}
    assert {"ffd", "precision", "recall"} <= scored, f"expected scores, got {scored}"


def test_the_committed_generator_is_written(place):
    pytest.importorskip("onnxscript", reason="onnxscript is optional")
    common = importlib.import_module("common")
    D, G = common.lesson.build_network(32, 48, 100)
    sizes = dict(image_size=32, z_size=100, d_conv_dim=32, g_conv_dim=48)
    state = dict(settings=sizes | {"data": "/"}, step=2, random_state=None, D=D.state_dict())
    torch.save(state | {"G": G.state_dict()}, place / "best.pt")
    run("committed", place / "best.pt", "--folder", place)
    z = torch.randn(3, 100)
    wanted = helpers.recalibrate_batch_norm(G, 100)(z)
    off = (common.load_generator(place / "celeba_32.pt")(z) - wanted).abs().max()
    assert off < 1e-5, f"expected the same faces from the weights, got {off} off"
    kept = torch.load(place / "celeba_32.pt", weights_only=True)
    assert kept["settings"] == sizes, f"expected the sizes alone, got {kept['settings']}"
    for name, weight in D.state_dict().items():
        assert kept["D"][name].equal(weight), f"expected the run's discriminator, not so {name}"
    written = (place / "celeba_32.onnx").read_bytes()
    assert str(ROOT).encode() not in written, "expected no path of this machine in the file"
