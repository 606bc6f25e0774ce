"""Getting the data, reading pictures, decoding, settings, figures."""

import errno
import os
import re
import warnings
from collections import Counter
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from data_inputs import (
    save_faces,
    sha256,
)
from torch import nn

import helpers
from assets import drawn_faces

SEARCH = hypothesis.settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
DEFAULT = "processed_celeba_small/"
REFUSED = "http://127.0.0.1:9/refused.zip"


def printed_by(capsys):
    return capsys.readouterr().out


def names_below(folder):
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# ---------------------------------------------------------------- drawn faces


def test_drawn_faces_are_the_same_for_the_same_seed():
    images, attributes = drawn_faces.draw_faces(40, 32, seed=3)
    assert images.shape == (40, 3, 32, 32) and images.dtype == torch.uint8, "expected uint8"
    again, _ = drawn_faces.draw_faces(12, 32, seed=3, first=20)
    assert torch.equal(images[20:32], again), "expected face 20 to be the same face in any call"
    other = drawn_faces.draw_faces(40, 32, seed=4)[0]
    assert not torch.equal(images, other), "expected another seed to draw other faces"
    assert list(attributes) == list(drawn_faces.DRAWN_ATTRIBUTES), "expected every attribute"


def test_drawn_bytes_do_not_change(empty_place):
    pixels = drawn_faces.draw_faces(20, 64, seed=0)[0].numpy().tobytes()
    expected = "f5a459fc25505b6832a9132118ada029ff9e82718ee6ee075634db9e639f6de5"
    assert sha256(pixels) == expected, f"expected {expected}, got {sha256(pixels)}"
    drawn, done = Path("drawn"), []
    drawn.mkdir()
    drawn_faces.write_folder(drawn, 24, 64, 3, done.append)
    names = names_below(drawn)
    assert len(names) == 28 and "faces/seed1_000003.jpg" in names, "expected 3 of another seed"
    text = (drawn / "list_attr_celeba.txt").read_text(encoding="utf-8")
    assert (
        sha256(text.encode()) == "3870da25c5ae0f3214ef4f71f6abbd3161e58d2b1b1442d157843e3c1ee05381"
    ), f"expected the same attributes, got {sha256(text.encode())}"
    assert done == [24, 3], f"expected the progress, got {done}"


def test_drawn_faces_are_drawn_once(empty_place, monkeypatch, capsys):
    folder = helpers.find_data("drawn", n_drawn=5, image_size=16)
    monkeypatch.setattr(drawn_faces, "draw_faces", lambda *_: pytest.fail("expected the folder"))
    assert helpers.find_data("drawn", n_drawn=5) == folder == Path("drawn_faces", "5_at_64_v3")
    assert printed_by(capsys).count("Data: 5 drawn faces in") == 2, "expected a line each time"


def test_one_attribute_changes_and_the_rest_stays():
    without, _ = drawn_faces.draw_faces(60, 64, seed=1, Heavy_Makeup=False)
    wearing, attributes = drawn_faces.draw_faces(60, 64, seed=1, Heavy_Makeup=True)
    assert attributes["Heavy_Makeup"].all(), "expected makeup on everybody"
    changed = (without.int() - wearing.int()).abs().amax(1) > 8
    assert changed.flatten(1).any(1).all(), "expected makeup to be seen on every face"
    hair = changed[:, :12].float().mean()
    assert hair < 0.01 and changed.float().mean() < 0.3, "expected hair and background untouched"
    with pytest.raises(ValueError, match="Smiling"):
        drawn_faces.draw_faces(1, Smilng=True)


def test_drawn_people_differ_as_people_do():
    people = drawn_faces.imagine_faces(3000, seed=5)
    ranges = {"Male": (0.4, 0.55), "Young": (0.6, 0.85), "Smiling": (0.4, 0.6)}
    for name, (low, high) in {**ranges, "Eyeglasses": (0.05, 0.2)}.items():
        share = people[name].mean()
        assert low < share < high, f"{name}: expected {low:.0%} to {high:.0%}, got {share:.0%}"
    makeup, male = people["Heavy_Makeup"], people["Male"].astype(bool)
    men, women = makeup[male].mean(), makeup[~male].mean()
    assert 0 < men < women < 1, f"makeup: expected a loose tie, got {men:.0%} and {women:.0%}"


def test_drawing_is_counted_not_timed(monkeypatch):
    """20,000 faces in under a minute: chunks as large as the cache, one pass of each layer."""
    calls = Counter()
    paint = drawn_faces._paint
    monkeypatch.setattr(drawn_faces, "_paint", lambda *x: calls.update(["paint"]) or paint(*x))
    drawn_faces.draw_faces(130, 64)
    assert calls["paint"] == 3, f"expected chunks of 64 faces, got {calls['paint']} for 130"


def test_a_disk_without_room_for_drawn_faces_is_named(empty_place, monkeypatch):
    monkeypatch.setattr(drawn_faces, "_save", full)
    with pytest.raises(OSError, match="drawn_faces/20_at_64_v3 cannot be written: No space"):
        helpers.find_data("drawn", n_drawn=20)
    assert not Path("drawn_faces/20_at_64_v3").exists(), "expected nothing half-made"


# ---------------------------------------------------------------- figures and devices


def test_pixels_are_clipped_and_never_rescaled():
    values = torch.tensor([-3.0, -1.0, 0.0, 0.5, 1.0, 2.0])
    images = values.view(6, 1, 1, 1).expand(6, 3, 4, 4)
    found = helpers.to_bytes(images)[:, 0, 0, 0].tolist()
    assert found == [0, 0, 128, 191, 255, 255], f"expected -1 at 0 and 1 at 255, got {found}"
    assert helpers.to_bytes(images[2:3], (0, 1)).max() == 0, "expected the range to be honoured"
    grid = helpers.image_grid(images, columns=4)
    assert grid.shape == (10, 22, 3) and grid.dtype == np.uint8, f"got {grid.shape}"
    assert (grid[4:6] == 255).all() and (grid[:4, :4] == 0).all(), "expected white gaps"
    assert helpers.image_grid(images[:1]).shape == (4, 4, 3), "one image: expected no gap"


def test_figures_show_any_name(monkeypatch):
    shown, images = [], torch.zeros(3, 3, 4, 4)
    monkeypatch.setattr(helpers.plt, "show", lambda: shown.append(helpers.plt.gcf()))
    names = ["$a_{", "100 $ and 5 $", "脸 \\frac{"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        helpers.show_images(images, "$x^$", names, columns=2, row_labels=["$_", "^$"])
    shown[0].canvas.draw()
    texts = [text.get_text() for text in shown[0].findobj(helpers.plt.Text)]
    assert {*names, "$x^$", "$_", "^$"} <= set(texts), (
        f"expected the names as they are, got {texts}"
    )
    assert not helpers.plt.get_fignums(), "expected the figure to be closed"


def test_figures_are_seen_whatever_the_environment_says(empty_place, monkeypatch):
    import nbclient
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(Path(helpers.__file__).parent))
    monkeypatch.setenv("MPLBACKEND", "Agg")  # as servers and Docker set it
    source = """
import helpers, torch
helpers.check_settings({})
helpers.show_images(torch.zeros(2, 3, 4, 4), "Two faces")
handle = helpers.show_live("a line")
helpers.progress(range(3), "bar").close()
"""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(book, kernel_name="python3").execute()
    outputs = book.cells[0].outputs
    pictures = [one for one in outputs if "image/png" in one.get("data", {})]
    assert len(pictures) == 1, f"expected one picture, got {outputs}"
    alt = pictures[0].metadata["image/png"]["alt"]
    assert alt == "Two faces", f"expected the title as alternative text, got {alt}"
    assert not [one for one in outputs if one.get("name") == "stderr"], f"got {outputs}"


def test_mixed_precision_sees_weights_change():
    layer, x = nn.Linear(8, 8), torch.randn(4, 8)
    with helpers.autocast(torch.device("cpu")):
        before = layer(x)
        with torch.no_grad():
            layer.weight.mul_(2)
        after = layer(x)
    assert not torch.equal(before, after), "expected training inside the block to be felt"


@pytest.mark.parametrize(
    "capability, built, expected",
    [
        ((7, 0), "sm_75 sm_80 sm_90 compute_90", False),
        ((7, 5), "sm_75 sm_80 sm_90", True),
        ((8, 6), "sm_80 sm_90", True),
        ((8, 0), "sm_86 sm_90", False),
        ((9, 0), "sm_80 sm_90a", True),
        ((12, 0), "sm_90 compute_90", True),
        ((12, 0), "sm_80 sm_90", False),
        ((8, 0), "sm_70 compute_70 sm_90", True),
        ((10, 0), "sm_100 sm_120", True),
        ((6, 1), "", True),
    ],
)
def test_a_gpu_without_kernels_is_left_alone(monkeypatch, capsys, capability, built, expected):
    cuda = torch.cuda
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(cuda, "get_arch_list", built.split)
    monkeypatch.setattr(cuda, "get_device_name", lambda *_: "Old GPU")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    helpers.has_gpu.cache_clear()
    found = helpers.find_device().type
    helpers.has_gpu.cache_clear()
    assert found == ("cuda" if expected else "cpu"), f"got {found}"
    said = "no kernels for the Old GPU" in printed_by(capsys)
    assert said != expected, "expected a sentence where the GPU stays unused"


def test_several_ranks_do_not_share_an_apple_gpu(monkeypatch, capsys):
    monkeypatch.setattr(helpers, "has_gpu", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert helpers.find_device().type == "mps", "expected the Apple GPU"
    monkeypatch.setattr(helpers, "world", lambda: (0, 2))
    assert helpers.find_device().type == "cpu", "expected the processor"
    assert "Apple GPU" in printed_by(capsys), "expected a sentence"


# ---------------------------------------------------------------- settings

GOOD = dict(
    data_dir="faces",
    data_url=None,
    image_size=32,
    batch_size=4,
    lr=2e-4,
    d_lr=np.float64(4e-4),
    beta1=0,
    max_minutes=None,
    patience=np.int64(3),
    z_size=np.int32(10),
    seed=0,
    resume=True,
    next_steps=False,
    label_names=["Male"],
    domain_same=None,
    cycle_weight=3,
    identity_weight=np.float32(0.5),
    out_dir=Path("runs"),
    a_name_that_is_no_setting=object(),
)
NUMBERS = (
    "lr d_lr beta1 max_minutes domain_lr cycle_weight identity_weight seed patience image_size "
)
NUMBERS += "batch_size z_size d_conv_dim g_conv_dim n_epochs print_every n_drawn experiment_images "
NUMBERS += "domain_batch"
NEVER_NONE = (
    "image_size lr data_dir out_dir large_dir resume domain_label domain_loss seed n_epochs"
)
BAD = [
    *((name, value) for name in NUMBERS.split() for value in ("0.5", "1e-4", "None", True)),
    *((name, float("nan")) for name in NUMBERS.split()),
    *(
        (name, value)
        for name in ("resume", "next_steps", "inception")
        for value in ("no", "false", 2)
    ),
    *((name, value) for name in ("out_dir", "data_dir", "large_dir") for value in (5, "", " \t")),
    *((name, None) for name in NEVER_NONE.split()),
    *(("image_size", value) for value in (48, 8, 512, 64.0)),
    *(("batch_size", value) for value in (0, -4, 2.5, np.float64(2))),
    *(("lr", value) for value in (0, 1, -0.1, float("inf"))),
    *(("max_minutes", value) for value in (0, -1)),
    *(("z_size", value) for value in (0, 1, 2.5)),
    *(("seed", value) for value in (-1, 2**32, 0.5)),
    *(("beta1", 1), ("patience", 0), ("domain_lr", 2), ("identity_weight", -1)),
    *(("domain_dirs", "faces"), ("domain_dirs", 5), ("domain_dirs", ["nowhere", "faces"])),
    *(("domain_dirs", ["faces"]), ("domain_dirs", ["faces", "empty"]), ("domain_dirs", [1, 2])),
    *(("domain_dirs", ["faces", "faces/"]), ("out_dir", "."), ("out_dir", "./")),
    *(("large_dir", value) for value in ("nowhere", "empty", "faces/000001.jpg")),
    *(("label_names", value) for value in ("Male", True, 5, [5], [""])),
    *(("domain_label", value) for value in (5, "", ["Male"])),
    *(("domain_loss", value) for value in ("hinge", 5)),
    *(("data_sha256", value) for value in ("abc", 5, "g" * 64)),
    *(("data_url", value) for value in ("faces.zip", 5)),
    *(("photograph", value) for value in (5, "nobody.png", "empty")),
    *(("start_from", value) for value in (5, "nowhere.pt", "faces", "faces/000001.jpg")),
    *(("photograph_box", value) for value in (5, "box", [1, 2, 3], [1, 2, 3, "4"])),
]


@pytest.fixture
def place_of_faces(empty_place):
    save_faces("faces", 2)
    Path("empty").mkdir()


def test_bad_settings_are_named(place_of_faces):
    helpers.check_settings(GOOD)
    for folder in ("faces", "drawn", "celeba_128/", Path("faces/")):
        helpers.check_settings(GOOD | {"large_dir": folder})
    for setting, value in BAD:
        with pytest.raises(ValueError, match=re.escape(f"{setting} = {value!r}")):
            helpers.check_settings(GOOD | {setting: value})


def test_the_notebooks_own_settings_pass(empty_place, notebook):
    settings = {name: value for name, value in vars(notebook).items() if not name.startswith("_")}
    known = {name for names, *_ in helpers.SETTINGS for name in names.split()}
    helpers.check_settings(settings)
    assert len(known & settings.keys()) > 20, "expected the notebook to have these settings"


def test_a_photograph_and_its_box_are_checked_together(place_of_faces):
    good = {"photograph": "faces/000001.jpg", "photograph_box": [0, 0, 10, 10], "image_size": 16}
    helpers.check_settings(good)
    with pytest.raises(ValueError, match="photograph_box = .*does not lie"):
        helpers.check_settings(good | {"photograph_box": [0, 0, 100, 10]})


def test_choices_are_listed_nearest_first():
    with pytest.raises(ValueError, match="norm = 'bach' does not work.* one of 'batch', "):
        helpers.check_choice(["pixel", "batch", None], norm="bach")
    helpers.check_choice(["pixel", None], norm=None)
