"""Which run is it: settings, folders, and the batch size of a run that continues."""

import json
import types
import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
import torch
from small_runs import noise_loader

from assets.lib import identity as module
from assets.lib.identity import batch_size_of, choose_folder, difference, identity, plain_settings


def leave_run(folder, **settings):
    """What matters of a run here: a checkpoint, which is not read, and settings.json."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "last.pt").write_bytes(b"not read")
    text = json.dumps(plain_settings(settings) | {"torch": "2.6"})
    (folder / "settings.json").write_text(text)


def chosen(settings, resume=True, out_dir="runs/lesson"):
    return choose_folder(out_dir, plain_settings(settings), resume).as_posix()


@pytest.fixture(autouse=True)
def place(empty_place):
    return empty_place


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize(
    "left, wanted",
    [
        pytest.param({}, "lesson", id="none"),
        pytest.param({"lesson": 3}, "lesson", id="this one"),
        pytest.param({"lesson": 1}, "lesson-2", id="another one"),
        pytest.param({"lesson": 1, "lesson-2": 3}, "lesson-2", id="the second"),
        pytest.param({"lesson-2": 3}, "lesson-2", id="the first was deleted"),
        pytest.param({"lesson": 1, "lesson-3": 3}, "lesson-3", id="the second was deleted"),
        pytest.param({"lesson-7": 3}, "lesson-7", id="all before were deleted"),
        pytest.param({"lesson-3": 1}, "lesson-4", id="only another one is left"),
        pytest.param({"lesson": 3, "lesson-4": 3}, "lesson-4", id="the newest of two"),
        pytest.param({"lesson": 3, "lesson-10": 3, "lesson-9": 3}, "lesson-10", id="by number"),
        pytest.param({"lesson": 3, "lesson-4": 1}, "lesson", id="a newer one is another"),
        pytest.param({"lesson_2": 3, "lesson-x": 3, "lessons": 3}, "lesson", id="other names"),
        pytest.param({"lesson-2-2": 3, "lesson-02": 3}, "lesson", id="numbers of other kinds"),
    ],
)
def test_the_newest_run_with_these_settings_is_found_whatever_is_missing(left, wanted):
    for name, lr in left.items():
        leave_run(f"runs/{name}", lr=lr)
    got = chosen({"lr": 3})
    assert got == f"runs/{wanted}", f"expected {wanted}, got {got}"


@pytest.mark.parametrize("left", [["lesson"], ["lesson-2"], ["lesson", "lesson-5"]])
def test_without_resume_a_run_gets_a_folder_after_all_others(left, capsys):
    for name in left:
        leave_run(f"runs/{name}", lr=3)
    got = chosen({"lr": 3}, resume=False)
    number = int(left[-1].partition("-")[2] or 1) + 1
    assert got == f"runs/lesson-{number}", f"expected the next number, got {got}"
    printed = capsys.readouterr().out
    assert printed.count("is kept as it is") == len(left), f"expected a line each, got {printed}"
    assert f"This run will be in runs/lesson-{number}" in printed, f"got {printed}"


def test_choosing_creates_nothing(place):
    chosen({"lr": 3})
    assert not list(place.iterdir()), f"expected nothing, got {list(place.iterdir())}"


def test_a_folder_without_a_run_is_taken(capsys):
    Path("runs/lesson/photos").mkdir(parents=True)
    got = chosen({"lr": 3})
    assert got == "runs/lesson" and not capsys.readouterr().out, f"expected it, got {got}"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_with_accents_are_found(form):
    name = unicodedata.normalize(form, "leçon [1] (été)")
    leave_run(f"runs/{name}", lr=1)
    leave_run(f"runs/{name}-3", lr=3)
    got = chosen({"lr": 3}, out_dir=f"runs/{name}")
    assert got == f"runs/{name}-3", f"expected the third, got {got}"


def test_another_run_is_described_by_what_differs(capsys):
    leave_run("runs/lesson", lr=0.1, seed=0)
    chosen({"lr": 0.2, "seed": 0, "beta1": 0.5})
    printed = capsys.readouterr().out
    expected = "The run in runs/lesson has other settings: beta1 None -> 0.5, lr 0.1 -> 0.2."
    assert expected in printed, f"expected {expected}, got {printed}"


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "has no settings.json"),
        (b"[broken", "cannot be read"),
        (b"null", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[1, 2]", "cannot be read"),
    ],
)
def test_a_run_whose_settings_are_lost_is_kept(content, words, capsys):
    leave_run("runs/lesson", lr=3)
    path = Path("runs/lesson/settings.json")
    path.unlink() if content is None else path.write_bytes(content)
    assert chosen({"lr": 3}) == "runs/lesson-2", "expected a folder of its own"
    printed = capsys.readouterr().out
    assert words in printed and "kept as it is" in printed, f"expected {words}, got {printed}"


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "one, other",
    [
        ("drawn_faces/20000_at_64", "drawn_faces\\20000_at_64"),
        (PureWindowsPath("faces/mine"), PurePosixPath("faces/mine")),
        ("faces/", "faces"),
        ("./faces", "faces"),
        ("faces//mine", "faces/mine"),
        (["a\\b", "c\\d"], ["a/b", "c/d/"]),
        (unicodedata.normalize("NFD", "visages été"), "visages été"),
        (r"C:\Users\me\faces", "C:/Users/me/faces"),
        ({"with": "a\\b"}, {"with": "a/b"}),
    ],
)
def test_paths_compare_as_paths(one, other):
    for first, second in ((one, other), (other, one)):
        leave_run("runs/lesson", data=first)
        words = difference(Path("runs/lesson"), plain_settings({"data": second}))
        assert not words, f"expected the same run, got {words}"


@pytest.mark.parametrize(
    "one, other",
    [
        ("faces", "Faces"),
        ("faces/a", "faces/b"),
        ("/faces", "faces"),
        (32, 64),
        (32, "32"),
        ([1, 2], [2, 1]),
        (None, "weights/celeba_32.pt"),
        ("linear", "cosine"),
    ],
)
def test_other_values_are_another_run(one, other):
    leave_run("runs/lesson", value=one)
    assert difference(Path("runs/lesson"), plain_settings({"value": other})), "expected another"


def test_settings_are_compared_as_plain_values():
    kept = {"seed": np.int64(0), "lr": np.float64(0.1), "widths": (4, 4), "data": Path("faces")}
    leave_run("runs/lesson", **kept)
    same = {"seed": 0, "lr": 0.1, "widths": [np.int32(4), 4], "data": "faces", "start_from": None}
    words = difference(Path("runs/lesson"), plain_settings(same))
    assert not words, f"expected the same run, got {words}"


SETTINGS = dict(
    image_size=16, z_size=8, d_conv_dim=4, g_conv_dim=6, lr=0.1, d_lr=0.2, beta1=0.3, seed=5
)


def lesson_settings(**changes):
    """Settings as the notebook has them, as far as a run's identity goes."""
    other = dict(batch_size=None, start_from=None, resume=True, out_dir="runs/lesson")
    return types.SimpleNamespace(**SETTINGS | other | changes)


def test_a_run_is_known_by_its_networks_rates_seed_data_and_batches(place):
    loader = noise_loader(40, 4)
    loader.dataset.root = place / "faces" / "mine"
    got = identity(lesson_settings(), loader, name="wide")
    expected = SETTINGS | dict(batch_size=4, data="faces/mine", images=40, name="wide")
    assert got == expected, f"expected {expected}, got {got}"
    loader.dataset.root = "/elsewhere/faces"
    started = identity(lesson_settings(start_from=Path("best.pt")), loader)
    assert started["data"] == "/elsewhere/faces", f"expected the whole path, got {started}"
    assert started["start_from"] == "best.pt", f"expected how it began, got {started}"
    assert json.loads(json.dumps(started)) == started, "expected plain values"


# ---------------------------------------------------------------- the batch size of a run


@pytest.fixture
def gpu(monkeypatch):
    """A function that says which kind of device there is."""

    def have(kind, bfloat16=False):
        monkeypatch.setattr("assets.lib.ranks.find_device", lambda: torch.device(kind))
        monkeypatch.setattr("assets.lib.ranks.has_fast_bfloat16", lambda device: bfloat16)

    have("cpu")
    return have


def test_a_run_keeps_its_batch_size_on_another_device(gpu, capsys):
    gpu("cuda")
    assert batch_size_of(lesson_settings(), 20_000) == 128, "expected a T4's default"
    leave_run("runs/lesson", **SETTINGS, batch_size=128, data="faces", images=18_000)
    capsys.readouterr()
    for kind, bfloat16 in (("cuda", True), ("cpu", False), ("cuda", False)):
        gpu(kind, bfloat16)
        got = batch_size_of(lesson_settings(), 20_000)
        assert got == 128, f"{kind}, bfloat16 {bfloat16}: expected the run's own, got {got}"
        printed = capsys.readouterr().out
        expected = "The run in runs/lesson continues with its own batch size, 128.\n"
        assert printed == expected, f"expected one line, got {printed}"


@pytest.mark.parametrize(
    "what, changes, kept",
    [
        ("a batch size that is set", dict(batch_size=64), {}),
        ("resume = False", dict(resume=False), {}),
        ("another seed", dict(seed=6), {}),
        ("another start", dict(start_from="best.pt"), {}),
        ("more images in a batch than there are", {}, dict(batch_size=512)),
        ("no batch size", {}, dict(batch_size=None)),
        ("a batch size that is none", {}, dict(batch_size="many")),
    ],
)
def test_another_run_has_no_say_in_the_batch_size(gpu, what, changes, kept):
    leave_run("runs/lesson", **SETTINGS | dict(batch_size=128) | kept)
    got = batch_size_of(lesson_settings(**changes), 400)
    expected = changes.get("batch_size", 32)
    assert got == expected, f"{what}: expected {expected}, got {got}"


def test_the_newest_run_has_the_say(gpu):
    leave_run("runs/lesson", **SETTINGS, batch_size=128)
    leave_run("runs/lesson-3", **SETTINGS, batch_size=256)
    leave_run("runs/lesson-4", **SETTINGS | {"seed": 9}, batch_size=64)
    Path("runs/lesson-5").mkdir()
    assert batch_size_of(lesson_settings(), 20_000) == 256, "expected lesson-3's"


def test_other_data_is_told_apart_if_it_is_known(gpu):
    leave_run("runs/lesson", **SETTINGS, batch_size=128, data="faces\\mine")
    assert batch_size_of(lesson_settings(), 20_000, "faces/mine") == 128, "expected the run's"
    assert batch_size_of(lesson_settings(), 20_000, "faces/other") == 32, "expected the default"


def test_numbers_of_numpy_become_plain_ones():
    value = {"a": np.float64(1.5), "b": (np.int64(2), [np.bool_(True)]), "c": np.arange(2)}
    got = module.plain(value)
    expected = {"a": 1.5, "b": (2, [True]), "c": [0, 1]}
    assert got == expected and type(got["a"]) is float and type(got["b"][0]) is int, f"got {got}"
