"""Settings: what each may be, that its edges work, and what is said of other values."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from data_inputs import save_faces
from torch.utils.data import DataLoader, TensorDataset

from assets.lib.pictures import load_face
from assets.lib.settings import Settings, check_choice, check_settings
from assets.lib.sources import read_settings


def first_cell():
    """The names in the notebook's first code cell, as papermill finds them."""
    cells = json.loads((ROOT / "dlnd_face_generation.ipynb").read_bytes())["cells"]
    names = {}
    source = next(x["source"] for x in cells if "parameters" in x["metadata"].get("tags", ()))
    exec("".join(source), names)
    return names


DEFAULTS = Settings(**{item.name: first_cell()[item.name] for item in dataclasses.fields(Settings)})
FIELDS = {item.name: str(item.type) for item in dataclasses.fields(Settings)}
NUMBERS = [name for name, kind in FIELDS.items() if "int" in kind or "float" in kind]

# ---------------------------------------------------------------- values that do not work

COUNTS = [
    "n_drawn",
    "batch_size",
    "d_conv_dim",
    "g_conv_dim",
    "n_epochs",
    "patience",
    "print_every",
    "experiment_images",
    "domain_batch",
]
FLAGS = ["inception", "resume", "next_steps"]
BAD = {
    **dict.fromkeys(COUNTS, [0, -4, 2.5, np.float64(2), 10**10, [3]]),
    **dict.fromkeys(FLAGS, ["no", "false", 2, 0, None]),
    **dict.fromkeys(["lr", "d_lr", "domain_lr"], [0, 1, -0.1, float("inf"), None]),
    **dict.fromkeys(["data_dir", "large_dir"], [None, 5, "", " \t", b"faces", "a\0b"]),
    **dict.fromkeys(["cycle_weight", "identity_weight"], [-1, float("inf"), None]),
    "image_size": [48, 8, 512, 64.0, None],
    "z_size": [0, 1, 2.5, None],
    "beta1": [1, 1.0, -0.1, None],
    "max_minutes": [0, -1, float("inf")],
    "seed": [-1, 2**32, 0.5, None],
    "out_dir": [None, 5, "", " ", ".", "./", "..", "a/.."],
    "data_url": ["faces.zip", 5, "ftp://a.b/c", "https://a.b/c d", "https:///c"],
    "data_sha256": ["abc", 5, "g" * 64, "0" * 65],
    "start_from": [5, "", b"x"],
    "label_names": ["Male", True, 5, [5], [""]],
    "domain_label": [5, "", ["Male"], None],
    "domain_same": [5, "", ["Male"]],
    "domain_dirs": ["faces", 5, ["faces"], [1, 2], ["a", "b", "c"]],
    "domain_loss": ["hinge", 5, None, "Least Squares"],
    "photograph": [5, "", b"x"],
    "photograph_box": [
        [1, 2, 3],
        [1, 2, 3, "4"],
        "box",
        [0.1, 0.1, 0.4, 0.4],  # shares, as other tools have them
        [0.2, 0.2, 0.49, 9],
        [1.5, 1.5, 2.5, 2.5],  # both are rounded to 2
        [5, 5, 5, 9],
        [9, 0, 5, 9],
        [-1, 0, 5, 9],
        [0, 0, float("nan"), 9],
    ],
}


@pytest.mark.parametrize("name", FIELDS)
def test_values_that_do_not_work_are_named(name):
    as_text = ["0.5", "1e-4", "None", True, float("nan")] if name in NUMBERS else []
    for value in [*BAD[name], *as_text]:
        with pytest.raises(ValueError, match=re.escape(f"{name} = {value!r} does not work: ")):
            DEFAULTS.but(**{name: value})
        with pytest.raises(ValueError, match=re.escape(f"{name} = {value!r}")):
            check_settings({name: value})


def test_names_that_are_no_settings_are_left_to_others():
    check_settings({"a_name_that_is_no_setting": object(), "lr": 0.1})


def test_a_setting_that_is_missing_is_named():
    names = first_cell()
    del names["beta1"]
    with pytest.raises(ValueError, match="The setting beta1 is missing: run the first cell"):
        read_settings(names)


def test_settings_cannot_be_changed_later():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFAULTS.lr = 0.1
    other = DEFAULTS.but(lr=0.1)
    assert (other.lr, other.beta1, DEFAULTS.lr) == (0.1, DEFAULTS.beta1, first_cell()["lr"])
    with pytest.raises(TypeError):
        DEFAULTS.but(learning_rate=0.1)


def test_choices_are_listed_nearest_first():
    with pytest.raises(ValueError, match="norm = 'bach' does not work.* one of 'batch', "):
        check_choice(["pixel", "batch", None], norm="bach")
    check_choice(["pixel", None], norm=None)


# ---------------------------------------------------------------- values at the edge

EDGES = {
    **dict.fromkeys(COUNTS, [1, 10**9, np.int64(3)]),
    **dict.fromkeys(FLAGS, [True, False]),
    **dict.fromkeys(["lr", "d_lr", "domain_lr"], [5e-324, 1e-12, 0.999, np.float32(0.5)]),
    **dict.fromkeys(["data_dir", "large_dir"], ["a", "drawn", "~/a b/", Path("a"), "脸"]),
    **dict.fromkeys(["cycle_weight", "identity_weight"], [0, 1e9, np.float32(0.5)]),
    "image_size": [16, 32, 64, 128, 256, np.int64(32)],
    "z_size": [2, 3, np.int32(10)],
    "beta1": [0, 0.0, 0.999999, np.float64(0.5)],
    "max_minutes": [None, 5e-324, 1, 1e9],
    "seed": [0, 2**32 - 1, np.int64(7)],
    "out_dir": ["a", "../a", Path("/a/b"), "a.b/"],
    "data_url": [
        None,
        "",
        "https://a.b/c.zip",
        "HTTP://a:8/c?d=e",
        "file:///c",
        "file://localhost/c",
    ],
    "data_sha256": [None, "", "0" * 64, "aF" * 32],
    "start_from": [None, "a.pt", Path("a.pt")],
    "label_names": [None, [], ["Male"], ("a", "b c")],
    "domain_label": ["Male", "my label"],
    "domain_same": [None, "Male"],
    "domain_dirs": [None, ["a", "b"], (Path("a"), "b")],
    "domain_loss": ["least squares", "cross-entropy"],
    "photograph": [None, "a.png", Path("a.png")],
    "photograph_box": [None, [0, 0, 1, 1], (0.4, 0.4, 0.6, 0.6), [2, 3.2, 10**6, 9]],
}


@pytest.mark.parametrize("name", FIELDS)
def test_values_at_the_edge_are_taken(name):
    for value in EDGES[name]:
        taken = getattr(DEFAULTS.but(**{name: value}), name)
        is_same = Path(taken) == Path(value) if name == "out_dir" else taken == value
        assert is_same, f"{name} = {value!r}: expected it as it is, got {taken!r}"
        kind = {"<class 'int'>": int, "<class 'float'>": float}.get(FIELDS[name])
        assert kind in (None, type(taken)), f"{name} = {value!r}: got {type(taken)}"


TINY = DEFAULTS.but(image_size=16, batch_size=4, z_size=4, d_conv_dim=2, g_conv_dim=2, n_epochs=1)
USED = {
    "image_size": [16, 32, 64, 128, 256],
    "batch_size": [1, 2, 7, 8],
    "z_size": [2, 3, 1000],
    "d_conv_dim": [1, 3, 33],
    "g_conv_dim": [1, 3, 33],
    "lr": [5e-324, 1e-12, 0.5],
    "d_lr": [5e-324, 1e-12, 0.5],
    "beta1": [0, 0.999999, np.float32(0.5)],
    "n_epochs": [1, 3],
    "print_every": [1, 10**9],
    "seed": [0, 2**32 - 1, np.int64(7)],
}
WALK = [(name, value) for name, values in USED.items() for value in values]


@pytest.mark.parametrize("name, value", WALK)
def test_the_lesson_trains_at_the_edges_of_its_settings(notebook, name, value):
    settings = TINY.but(**{name: value})
    torch.manual_seed(settings.seed)
    widths = settings.d_conv_dim, settings.g_conv_dim
    D, G = notebook.build_network(*widths, settings.z_size, settings.image_size)
    d_optimizer = notebook.adam(D, settings.d_lr, settings.beta1)
    g_optimizer = notebook.adam(G, settings.lr, settings.beta1)
    size = settings.image_size
    faces = TensorDataset(torch.rand(8, 3, size, size), torch.zeros(8, dtype=torch.int64))
    loader = DataLoader(faces, settings.batch_size, shuffle=True, drop_last=True)
    n_epochs, print_every = settings.n_epochs, settings.print_every
    losses = notebook.train(D, G, loader, d_optimizer, g_optimizer, n_epochs, print_every)
    assert np.isfinite(losses).all() and len(losses), f"expected losses, got {losses}"
    faces = notebook.sample_faces(G, 3, settings.seed)
    assert faces.shape == (3, 3, size, size) and faces.abs().max() <= 1, f"got {faces.shape}"


def test_the_smallest_box_is_a_face(tmp_path):
    save_faces(tmp_path, 1)
    for box in ([0, 0, 1, 1], [0.4, 0.4, 0.6, 0.6], [18.6, 22.6, 20, 24]):
        check_settings({"photograph_box": box})
        face = load_face(tmp_path / "000001.jpg", 16, box)
        assert face.shape == (1, 3, 16, 16) and face.max() > -1, f"{box}: expected no black"


# ---------------------------------------------------------------- files and folders they name


@pytest.fixture
def place_of_faces(empty_place):
    save_faces("faces", 2)
    Path("empty").mkdir()
    return first_cell() | {"image_size": 16}


def test_the_notebooks_own_settings_pass(empty_place):
    assert read_settings(first_cell()) == DEFAULTS


def test_a_photograph_and_its_box_are_checked_together(place_of_faces):
    good = {"photograph": "faces/000001.jpg", "photograph_box": [0, 0, 10, 10]}
    read_settings(place_of_faces | good)
    with pytest.raises(ValueError, match="photograph_box = .*does not lie"):
        read_settings(place_of_faces | good | {"photograph_box": [0, 0, 100, 10]})


@pytest.mark.parametrize(
    "name, value",
    [
        ("large_dir", "nowhere"),
        ("large_dir", "faces/000001.jpg"),
        ("domain_dirs", ["nowhere", "faces"]),
        ("domain_dirs", ["faces", "empty"]),
        ("domain_dirs", ["faces", "faces/"]),
        ("photograph", "nobody.png"),
        ("photograph", "empty"),
        ("start_from", "nowhere.pt"),
        ("start_from", "faces"),
        ("start_from", "faces/000001.jpg"),
    ],
)
def test_what_a_setting_names_must_be_there(place_of_faces, name, value):
    with pytest.raises(ValueError, match=re.escape(f"{name} = {value!r}")):
        read_settings(place_of_faces | {name: value})
