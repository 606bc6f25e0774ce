"""Getting the data, reading pictures, decoding, settings, figures."""

import errno
import os
from collections import Counter
from pathlib import Path

import hypothesis
import pytest
import torch
from data_inputs import sha256

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
