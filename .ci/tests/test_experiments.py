"""Every script behind the documents' tables and pictures runs, in small."""

import contextlib
import csv
import importlib
import re
import types
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

EXPERIMENTS = ROOT / ".ci" / "experiments"
N_IMAGES = 80  # of each training


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The scripts, by name, in an empty folder, for small networks and few faces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("experiments"))
        patch.syspath_prepend(EXPERIMENTS)
        common, baseline = map(importlib.import_module, ("common", "baseline"))
        narrow = dict(d_conv_dim=4, g_conv_dim=4)
        small = common.lesson.settings.but(n_drawn=1000, batch_size=8, domain_batch=8, **narrow)
        patch.setattr(common.lesson, "settings", small)
        patch.setattr(common, "N_SCORED", 100)
        recalibrate = partial(common.helpers.recalibrate_batch_norm, batches=5)
        patch.setattr("assets.lib.stored_runs.recalibrate_batch_norm", recalibrate)
        for name, value in (narrow | dict(batch_size=16)).items():
            patch.setitem(baseline.SETTINGS, name, value)
        yield importlib.import_module


@pytest.fixture
def no_export(scripts, monkeypatch):
    """Runs that leave no generator.pt2, whose export takes a while."""
    monkeypatch.setattr("assets.lib.run_files.export_generator", lambda *args: None)


def run(scripts, name, *arguments):
    scripts(name).main([str(argument) for argument in arguments])


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rows_of(scripts, name, *arguments):
    """Run a script that adds rows, twice: the second time it must find them there -> the rows."""
    table = Path(f"{name}.csv")
    before = read(table) if table.exists() else []
    run(scripts, name, "drawn", *arguments, "--runs", "runs", "--table", table)
    rows = read(table)
    run(scripts, name, "drawn", *arguments, "--runs", "runs", "--table", table)
    assert read(table) == rows, f"{name}: expected no row twice"
    assert all(row["machine"] and row["commit"] for row in rows), "expected machine and commit"
    return rows[len(before) :]


def of_runs(rows):
    """Those rows that are not of real faces or noise, which are added once."""
    return [row for row in rows if row["seed"]]


def values_of(rows, name):
    return {row[name] for row in rows}


# ---------------------------------------------------------------- recipes


@pytest.fixture(scope="module")
def recipe_rows(scripts):
    recipes = "--only", "baseline", "R1, linear decay", "the discriminator wins"
    limits, narrow = ("--images", 16, N_IMAGES), ("--set", "d_conv_dim=4")
    return rows_of(scripts, "results", *recipes, *limits, *narrow)


@pytest.fixture(scope="module")
def a_run(recipe_rows):
    """The folder of a finished run, with a generator and sample grids."""
    return next(Path("runs", "results").rglob(f"R1*{N_IMAGES}_images"))


def test_each_recipe_adds_a_row_for_each_number_of_images(recipe_rows):
    runs = [(row["recipe"], row["images"]) for row in recipe_rows if row["seed"]]
    assert len(set(runs)) == len(runs) == 6, f"expected three recipes twice, got {runs}"
    assert values_of(recipe_rows, "recipe") > {"real", "noise"}, "expected both to compare with"
    assert all(float(row["ffd"]) > 0 for row in recipe_rows), f"expected scores in {recipe_rows}"


def test_a_row_of_a_recipe_says_what_ran(scripts, no_export):
    changed = "--images", N_IMAGES, "--set", "beta1=0.5", "g_conv_dim=6"
    one, other = of_runs(rows_of(scripts, "results", *changed, "--only", "equal rates", "baseline"))
    for words in ("g_conv_dim 6", "lr 0.0008", "d_lr 0.0008", "beta1 0.5"):
        assert words in one["settings"], f"expected {words}, got {one['settings']}"
    for words in ("batch_size 16", "g_conv_dim 6", "lr 0.0002", "d_lr 0.0002", "beta1 0.5"):
        assert words in other["settings"], f"expected {words}, got {other['settings']}"
    generator = scripts("common").load_generator(checkpoint_of("equal_rates"))
    width = generator.layers[-1].in_channels
    assert width == 6, f"expected a generator with 6 channels before the last layer, got {width}"


def checkpoint_of(words):
    return next(Path("runs", "results").rglob(f"{words}*/best.pt"))


def test_a_recipe_can_be_bounded_by_minutes_and_trained_at_another_size(scripts, no_export):
    limit = "--minutes", 0.002, "--size", 16
    (row,) = of_runs(rows_of(scripts, "results", *limit, "--only", "G: nearest"))
    assert row["minutes"] == "0.002" and int(row["images"]) > 0, f"got {row}"
    assert "image_size 16" in row["settings"], f"got {row['settings']}"


def test_variants_of_the_whole_run_can_be_trained(scripts, no_export):
    names = "notebook, a layer at full size", "notebook, by clusters", "notebook, by attributes"
    rows = of_runs(rows_of(scripts, "results", "--images", N_IMAGES, "--only", *names))
    assert values_of(rows, "recipe") == {*names}, f"expected all of them, got {rows}"


def test_clusters_of_well_separated_points_are_found(scripts):
    centers = torch.tensor([[0.0, 0], [50, 0], [0, 50]])
    truth = torch.arange(3).repeat(40)
    points = centers[truth] + torch.randn(120, 2)
    found = scripts("conditioning").cluster(points, 3)
    pairs = set(zip(truth.tolist(), found.tolist()))
    assert len(pairs) == 3, f"expected a cluster for each center, got the pairs {pairs}"


def test_the_recipes_of_the_committed_rows_exist(scripts):
    recipes = {"baseline", "real", "noise", *scripts("results").CHANGES}
    unknown = values_of(read(EXPERIMENTS / "results.csv"), "recipe") - recipes
    assert not unknown, f"expected recipes of results.py, got {unknown}"


def test_a_run_beyond_a_limit_gives_no_row(scripts, capsys):
    run = types.SimpleNamespace(folder="runs/a", seconds=1200.0, images=50_000)
    limits = dict(minutes=2), dict(minutes=20), dict(images=3000), dict(images=50_000)
    found = [scripts("common").is_past(run, **limit) for limit in limits]
    assert found == [True, False, True, False], f"expected 2 minutes, 3,000 images, got {found}"
    assert capsys.readouterr().out.count("has reached 20 minutes and 50,000 images: no row") == 2


@pytest.mark.parametrize(
    "name",
    [
        *("album", "conditional", "flow", "growing", "judge"),
        *("makeup", "rejection", "results", "speed"),
    ],
)
def test_committed_rows_have_the_expected_columns(scripts, name):
    columns = scripts("results").COLUMNS if name == "results" else scripts("common").MEASURES
    committed = tuple(read(EXPERIMENTS / f"{name}.csv")[0])
    assert committed == tuple(columns), f"expected {columns}, got {committed}"


def test_a_table_refuses_a_column_that_it_lacks(scripts, tmp_path):
    table = scripts("common").Table(tmp_path / "rows.csv")
    with pytest.raises(ValueError, match="rows.csv has no column values"):
        table.add(measure="FFD", values=3)
    assert not table.rows(), "expected no row"


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("kind", ["strip", "faces", "rows"])
def test_pictures_of_a_run(scripts, a_run, tmp_path, kind):
    run(scripts, "pictures", kind, a_run, tmp_path / "picture.png")
    contrast = np.array(Image.open(tmp_path / "picture.png")).std()
    assert contrast > 5, f"{kind}: expected a picture, got a contrast of {contrast:.1f}"


def test_pictures_of_three_runs_and_of_drawn_faces(scripts, a_run, tmp_path):
    run(scripts, "pictures", "three_runs", a_run, a_run, a_run, tmp_path / "three.png")
    contrast = np.array(Image.open(tmp_path / "three.png")).std()
    assert contrast > 5, f"expected a picture, got a contrast of {contrast:.1f}"
    run(scripts, "pictures", "drawn", tmp_path / "drawn.png", "--n", 4, "--columns", 2)
    size = Image.open(tmp_path / "drawn.png").size
    assert size == (130, 130), f"expected 2 x 2 faces of 64 pixels, got {size}"


def test_pictures_of_styles(scripts, tmp_path):
    lesson = scripts("common").lesson
    generator = lesson.StyleGenerator(8, 4, image_size=16)
    averaged = lesson.AveragedModel(generator)
    state = dict(settings=dict(z_size=8, g_conv_dim=4, image_size=16), step=1, random_state=None)
    state |= dict(G=generator.state_dict(), averaged=averaged.state_dict())
    torch.save(state, tmp_path / "best.pt")
    with small_latents(lesson):
        run(scripts, "pictures", "styles", tmp_path, tmp_path / "styles.png")
    size = Image.open(tmp_path / "styles.png").size
    assert size == (2 * (8 * 18 - 2), 2 * (5 * 18 - 2)), f"expected five rows of eight, got {size}"


@contextlib.contextmanager
def small_latents(lesson):
    before = lesson.settings
    lesson.settings = before.but(z_size=8)
    yield
    lesson.settings = before


def words_and_shapes(svg):
    """The words of a diagram, in order, and how many of each kind of shape it has."""
    words = re.findall(r"<!-- (.*?) -->", svg, re.DOTALL)
    kinds = re.findall(r"<(path|image|use|g)\b", svg)
    return words, {kind: kinds.count(kind) for kind in kinds}


def test_diagrams_are_the_committed_ones(scripts, tmp_path):
    run(scripts, "diagrams", "--folder", tmp_path)
    drawn = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert drawn.keys() == {"gan.svg", "cyclegan.svg"}, f"expected two, got {drawn.keys()}"
    for name, svg in drawn.items():
        committed = (ROOT / "assets" / "images" / name).read_text(encoding="utf-8")
        found, expected = words_and_shapes(svg), words_and_shapes(committed)
        assert found == expected, f"{name}: expected {expected}, got {found}"
        assert str(ROOT) not in svg, f"{name}: expected no path of this machine"


# ---------------------------------------------------------------- labels, makeup, albums, sizes


def test_audit(scripts, a_run, capsys):
    folder = Path("drawn_faces", "1000_at_64_v3")
    run(scripts, "audit", folder, a_run / "generator.pt2", "--n", 200)
    printed = capsys.readouterr().out
    for words in ("Smiling: ", "very light", "of the held-out ones"):
        assert words in printed, f"expected {words!r} in the audit, got {printed}"


def test_conditional(scripts, no_export, monkeypatch):
    monkeypatch.setattr(scripts("conditional"), "N_SAMPLES", 200)
    images = "--images", N_IMAGES, "--size", 16
    rows = rows_of(scripts, "conditional", *images, "--labels", "Male", "Smiling")
    measures = values_of(rows, "measure")
    assert "balanced accuracy, generated" in measures, f"expected it measured, got {measures}"
    assert values_of(rows, "images") == {str(N_IMAGES)}, "expected the images that were asked for"
    rows = rows_of(scripts, "conditional", *images, "--labels", "Black_Hair", "--predicted")
    assert values_of(rows, "experiment") == {"predicted labels Black_Hair"}, f"got {rows}"
    rows = rows_of(scripts, "conditional", *images, "--balanced", "Male")
    measures = values_of(rows, "measure")
    assert "share, generated from equal shares" in measures, f"expected shares, got {measures}"


def test_labels_that_exclude_each_other_are_named_by_a_classifier(scripts):
    conditional = scripts("conditional")

    class Asked(torch.nn.Linear):  # a picture that is the labels themselves
        z_size = 2

        def forward(self, z, labels):
            return labels

    generator, classifier = Asked(1, 1), torch.nn.Linear(3, 3)
    classifier.load_state_dict({"weight": torch.eye(3), "bias": torch.zeros(3)})
    truth = torch.eye(3).repeat(5, 1)
    classified = classifier, truth.roll(1, 1), truth  # all real faces are named wrongly
    rows = list(conditional.right_labels(generator, classified, ["a", "b", "c"]))
    found = {(name, measure): value for name, measure, value, _ in rows}
    for name in "abc":
        assert found[name, "right label, generated"] == 1, f"{name}: got {found}"
        assert found[name, "right label, real faces"] == 0, f"{name}: got {found}"


def test_makeup(scripts, no_export, monkeypatch):
    monkeypatch.setattr(scripts("makeup"), "N_PEOPLE", 20)
    small = "--size", 16, "--images"
    rows = rows_of(scripts, "makeup", *small, N_IMAGES)
    expected = {"A to B, CycleGAN", "B to A, CycleGAN", "G_BA(G_AB(A))"}
    assert expected <= values_of(rows, "subject"), f"expected {expected}, got {rows}"
    others = rows_of(scripts, "makeup", *small, 8, "--same", "")
    assert values_of(others, "experiment") == {"Heavy_Makeup, same any"}
    few, many = ([int(row["n"]) for row in x if row["subject"] == "A"] for x in (rows, others))
    assert few[0] < many[0], f"expected more faces among all than among women, got {few}, {many}"


def test_changes_by_makeup_are_split_by_region(scripts):
    makeup = scripts("makeup")
    faces = torch.full((20, 3, 32, 32), -0.5)
    region = makeup.makeup_region(32, 13)
    rows = list(makeup.change_by_band("G", faces, faces + 0.2 * region, 13))
    values = {measure: round(value, 5) for _, measure, value, _ in rows}
    expected = {"change inside": 0.2, "change outside": 0.0}
    assert values == expected, f"expected {expected}, got {values}"


def test_album(scripts, no_export, monkeypatch):
    monkeypatch.setattr(scripts("album"), "N_GENERATED", 200)
    kind = "--label", "Smiling", "--n", 60, "--augmented"
    rows = rows_of(scripts, "album", *kind, "--images", 64, 128)
    found = {(row["subject"], row["images"], row["measure"]) for row in rows}
    for subject, images in (("real", ""), ("from nothing, shifted", "64")):
        for measure in ("FFD", "copies"):
            assert (subject, images, measure) in found, f"{subject}, {measure}: got {found}"
    assert ("from nothing, shifted", "128", "recall") in found, f"expected both, got {found}"


def test_growing(scripts, no_export):
    small = "--size", 64, "--images", N_IMAGES
    rows = rows_of(scripts, "growing", *small, "--grown-only")
    assert all(row["subject"].startswith("grown") for row in rows), "expected no other way"
    rows += rows_of(scripts, "growing", *small)
    for way in ("grown", "from the start"):
        subject = f"{way}: at 64 pixels, test faces"
        found = {row["measure"] for row in rows if row["subject"] == subject}
        assert found >= {"ffd", "precision", "recall"}, f"{way}: expected all scores, got {found}"
    smaller = next(Path("runs").rglob("grown_to_32_of_64*/last.pt"))
    rows = rows_of(scripts, "growing", *small, "--grown-only", "--start", smaller)
    sizes = {row["subject"].partition(" pixels")[0] for row in rows}
    assert sizes == {"grown: at 64"}, f"from a file: expected the full size alone, got {sizes}"


def test_flow(scripts, no_export):
    small = "--size", 16, "--minutes", 0.002
    rows = rows_of(scripts, "flow", *small)
    kinds = {(row["experiment"], row["subject"]) for row in rows}
    steps = {("flow", f"{n} steps") for n in scripts("flow").N_STEPS}
    assert kinds == {("GAN", ""), *steps}, f"expected both kinds, got {kinds}"
    measures = values_of(rows, "measure")
    assert {"ffd", "recall", "ms a face"} <= measures, f"expected all scores, got {measures}"
    paths = "--runs", "runs", "--table", "flow.csv", "--picture", "flow.png"
    run(scripts, "flow", "drawn", *small, *paths)
    size = Image.open("flow.png").size
    assert size == (8 * 18 - 2, 2 * 18 - 2), f"expected two rows of eight, got {size}"


def test_rejection(scripts, a_run):
    rows = rows_of(scripts, "rejection", a_run / "best.pt", "--n", 600)
    kept = {row["subject"]: float(row["value"]) for row in rows if row["measure"] == "kept"}
    assert kept.pop("all") == 1, "expected all faces for comparison"
    assert len(kept) == 3 and all(0 < share < 1 for share in kept.values()), f"got {kept}"


class MeanColors:
    """In place of dlib's network: the mean color of each face, 128 times with a little noise."""

    def compute_face_descriptor(self, images):
        colors = np.stack(images).mean((1, 2)) / 255
        noise = np.random.default_rng(0).normal(size=(len(images), 128))
        return list(colors.mean(1, keepdims=True) + 0.01 * noise)


def test_judge(scripts, a_run, monkeypatch):
    monkeypatch.setattr(scripts("judge"), "load_judge", MeanColors)
    rows = rows_of(scripts, "judge", a_run / "best.pt", "--n", 60)
    distances = {
        row["experiment"]: float(row["value"])
        for row in rows
        if row["measure"] == "Fréchet distance"
    }
    assert len(distances) == 3, f"expected a run, real faces and noise, got {distances}"
    assert distances["real"] < distances["noise"], f"got {distances}"


def test_the_judge_says_where_it_looks_for_runs(scripts, tmp_path, monkeypatch):
    monkeypatch.setattr(scripts("judge"), "load_judge", MeanColors)
    with pytest.raises(ValueError, match="train them with results.py"):
        run(scripts, "judge", "drawn", "--runs", tmp_path)


def test_faces_with_larger_logits_are_accepted_more_often(scripts):
    logits = torch.linspace(-3, 3, 500)
    for quantile in (0.5, 0.95):
        accepted = scripts("rejection").acceptance(logits, quantile)
        assert (accepted.diff() >= 0).all(), "expected probabilities that rise with the logit"
        assert accepted[0] < 0.2 and accepted[-1] > 0.9, f"got {accepted[[0, -1]]}"


# ---------------------------------------------------------------- speed


@pytest.fixture
def small_benchmark(scripts, monkeypatch):
    """benchmark.py in one process, and the arguments for a short call."""
    benchmark = scripts("benchmark")
    monkeypatch.setattr(benchmark, "in_own_process", lambda function, *args: function(*args))
    monkeypatch.setattr(benchmark, "MOST_STEPS", 2)
    monkeypatch.setattr("assets.lib.decoding.CACHE", Path("cache"))  # it sets another
    return "--sizes", 32, "--batch", 8, "--seconds", 0.01, "--pairs", 1


def test_benchmark(scripts, small_benchmark):
    cases = "--only", "first step", "default", "float32, step only"
    rows = rows_of(scripts, "benchmark", *small_benchmark, *cases)
    found = {(row["experiment"], row["measure"]): float(row["value"]) for row in rows}
    for case in ("32 x 32, with the default settings", "32 x 32, batch 8, float32, step only"):
        for measure in ("baseline, images/s", "notebook, images/s", "ratio", "notebook, MB"):
            assert found[case, measure] > 0, f"{case}: expected the {measure}, got {found}"
    assert found["first step", "seconds, the first time"] > 0, f"expected seconds, got {found}"


def test_benchmark_of_ranks(scripts, small_benchmark, monkeypatch, capsys):
    benchmark = scripts("benchmark")
    data = scripts("common").prepare("drawn").settings.data_dir
    monkeypatch.setattr(benchmark, "speed_of", lambda *args: 1000.0)
    run(scripts, "benchmark", "drawn", "--ranks", 2, *small_benchmark)
    assert "1.00 (1.00 to 1.00)" in capsys.readouterr().out, "expected ratios"
    benchmark.train_as_rank(8, 0.01, data)
    assert "images/s: " in capsys.readouterr().out, "expected a rank's speed"


def test_gpu(scripts, no_export, monkeypatch):
    gpu = scripts("gpu")
    monkeypatch.setattr(gpu, "run_cells", lambda settings, namespace: iter([]))  # test_devices.py
    monkeypatch.setattr(gpu, "STEPS", 2)
    small = "--sizes", 32, "--batches", 4, "--seconds", 0.01, "--minutes", 0.002
    table, runs = Path("gpu.csv").absolute(), ("--runs", "gpu")
    run(scripts, "gpu", "drawn", *small, *runs, "--table", table)
    rows = read(table)
    run(scripts, "gpu", "drawn", *small, *runs, "--table", table)
    assert read(table) == rows, "expected no row twice"
    speeds = [row for row in rows if row["experiment"] == "speed"]
    assert [float(row["value"]) > 0 for row in speeds] == [True] * 3, f"got {speeds}"
    values = {row["experiment"]: row["value"] for row in rows}
    assert values["checkpoint"] == "4", f"expected 2 steps and 2 more, got {values['checkpoint']}"
    scored = {row["measure"] for row in rows if row["experiment"] == "faces"}
    assert {"ffd", "precision", "recall"} <= scored, f"expected scores, got {scored}"
    late = "--limit", 0, "--only", "checkpoint", "speed", "faces"
    run(scripts, "gpu", "drawn", *small, *late, *runs, "--table", "elsewhere.csv")
    steps = [(row["experiment"], row["value"]) for row in read("elsewhere.csv")]
    assert steps == [("checkpoint", "8")], f"expected 4 steps more, and no time left, got {steps}"


def test_where_time_goes(scripts, no_export):
    rows = rows_of(scripts, "where_time_goes", "--sizes", 16, "--steps", 2)
    shares = [float(row["value"]) for row in rows if row["measure"] == "share of the time"]
    assert 0.9 < sum(shares) < 1.5, f"expected shares of about one whole, got {shares}"
    speeds = {row["subject"]: row["value"] for row in rows if row["measure"] == "GFLOP/s"}
    assert all(float(speed) > 0 for speed in speeds.values()) and len(speeds) == 2, f"got {speeds}"


# ---------------------------------------------------------------- all of them


def test_all_in_small(scripts, no_export, small_benchmark, monkeypatch, capsys):
    monkeypatch.setattr(scripts("conditional"), "N_SAMPLES", 200)
    monkeypatch.setattr(scripts("makeup"), "N_PEOPLE", 20)
    monkeypatch.setattr(scripts("album"), "N_GENERATED", 200)
    run(scripts, "all", "--quick")
    assert "hours left" in capsys.readouterr().out, "expected an estimate"
    tables = {path.stem: read(path) for path in Path("quick").glob("*.csv")}
    expected = {"album", "conditional", "flow", "growing", "makeup", "results", "speed"}
    assert tables.keys() == expected, f"expected tables of {expected}, got {tables.keys()}"


def test_all_names_what_failed_and_runs_the_rest(scripts, monkeypatch, tmp_path, capsys):
    experiments, called = scripts("all"), []

    def failing(arguments):
        called.append(arguments[0])
        raise ValueError("no faces")

    monkeypatch.setattr(scripts("flow"), "main", failing)
    some = [experiments.Experiment("flow", "drawn", ("--seed", n), 1) for n in (0, 1)]
    some.append(experiments.Experiment("flow", "missing", (), 1))
    failed = experiments.run_all(some, tmp_path, tmp_path, tmp_path)
    assert failed == some[:2] and called == ["drawn"] * 2, f"got {failed}, {called}"
    printed = capsys.readouterr()
    assert "missing is missing: skipped" in printed.out, f"got {printed.out}"
    assert "no faces" in printed.err, f"expected the error, got {printed.err}"


def test_all_calls_scripts_with_arguments_that_they_know(scripts):
    for experiment in (*scripts("all").everything(), *scripts("all").in_small()):
        script = (EXPERIMENTS / f"{experiment.script}.py").read_text(encoding="utf-8")
        shared = (EXPERIMENTS / "common.py").read_text(encoding="utf-8")
        for word in map(str, experiment.arguments):
            is_known = not word.startswith("--") or f'"{word}"' in script + shared
            assert is_known, f"{experiment}: {experiment.script}.py does not know {word}"


# ---------------------------------------------------------------- committed weights


def test_the_face_network_can_be_trained(scripts, tmp_path, monkeypatch, capsys):
    script = scripts("train_face_network")
    monkeypatch.setattr(script, "FaceNetwork", partial(script.FaceNetwork, (4, 4, 4, 4)))
    folder = scripts("common").prepare("drawn").settings.data_dir
    attributes = next(Path(folder).rglob("list_attr*"))
    new = tmp_path / "new.pt"
    run(scripts, "train_face_network", folder, attributes, "--epochs", 1, "--weights", new)
    assert "at 32 pixels" in capsys.readouterr().out, "expected the accuracy"
    stored = torch.load(new, weights_only=True)
    assert set(stored) == {"attributes", "weights", "right_when_sure"}, f"got {set(stored)}"


def test_the_committed_generator_is_written_in_the_sizes_of_its_run(scripts, tmp_path):
    pytest.importorskip("onnxscript", reason="onnxscript is optional")
    common = scripts("common")
    D, G = common.lesson.build_network(4, 6, 8, 16)
    sizes = dict(image_size=16, z_size=8, d_conv_dim=4, g_conv_dim=6)
    state = dict(settings=sizes | {"data": "/"}, step=2, random_state=None, D=D.state_dict())
    torch.save(state | {"G": G.state_dict()}, tmp_path / "best.pt")
    run(scripts, "committed", tmp_path / "best.pt", "--folder", tmp_path)
    z = torch.randn(3, 8)
    wanted = scripts("committed").helpers.recalibrate_batch_norm(G, 8)(z)
    off = (common.load_generator(tmp_path / "celeba_16.pt")(z) - wanted).abs().max()
    assert off < 1e-5, f"expected the same faces from the weights, got {off} off"
    kept = torch.load(tmp_path / "celeba_16.pt", weights_only=True)
    assert kept["settings"] == sizes, f"expected the sizes alone, got {kept['settings']}"
    for name, weight in D.state_dict().items():
        assert kept["D"][name].equal(weight), f"expected the run's discriminator, not so {name}"
    written = (tmp_path / "celeba_16.onnx").read_bytes()
    assert str(ROOT).encode() not in written, "expected no path of this machine in the file"


def test_a_generator_with_labels_is_written_with_an_input_for_them(scripts, tmp_path, capfd):
    pytest.importorskip("onnxscript", reason="onnxscript is optional")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is optional")
    common, script = scripts("common"), scripts("committed")
    rows = torch.eye(3)[torch.randint(3, (50,))]
    kinds = dict(
        D=partial(common.lesson.ProjectionDiscriminator, n_labels=3),
        G=partial(common.lesson.ConditionalGenerator, labels=rows),
    )
    D, G = common.lesson.build_network(4, 6, 8, 16, **kinds)
    sizes = dict(image_size=16, z_size=8, d_conv_dim=4, g_conv_dim=6)
    state = dict(settings=sizes, step=2, random_state=None, D=D.state_dict(), G=G.state_dict())
    torch.save(state, tmp_path / "best.pt")
    run(scripts, "committed", tmp_path / "best.pt", "--folder", tmp_path)
    script.helpers.recalibrate_batch_norm(G, 8)
    capfd.readouterr()
    session = onnxruntime.InferenceSession(tmp_path / "celeba_16.onnx")
    printed = capfd.readouterr()
    assert not printed.out + printed.err, f"expected no warning, got {printed}"
    z, labels = torch.randn(5, 8), torch.tensor([[1.0, 0, 0]]).expand(5, -1)
    drawn = torch.full((5, 3), torch.nan)
    with torch.no_grad():
        for asked, wanted in ((labels, G(z, labels)), (drawn, G(z))):
            (faces,) = session.run(None, {"z": z.numpy(), "labels": asked.numpy()})
            off = (torch.from_numpy(faces) - wanted).abs().max()
            assert off < 1e-4, f"expected the faces of the run for {asked[0]}, got {off:.1e} off"
        plain = common.load_generator(tmp_path / "celeba_16.pt")(z)
        off = (plain - G(z, torch.full((5, 3), 0.5))).abs().max()
    assert off < 1e-5, f"expected a plain generator to begin with, got {off:.1e} off"
    written = "--size", 16, "--generator", tmp_path / "celeba_16.onnx"
    rows = rows_of(scripts, "conditional", *written)
    assert values_of(rows, "subject") == {"Male", "Young", "Smiling"}, f"got {rows}"
