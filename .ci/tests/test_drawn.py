"""The drawn faces: the same for a seed, with true attributes, in a folder as CelebA's."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from data_inputs import full, names_below, sha256
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from assets.lib.drawn import (
    DRAWING,
    DRAWN_ATTRIBUTES,
    OTHER_SEED,
    draw_faces,
    imagine_faces,
    write_folder,
)
from assets.lib.sources import find_data

HAIR_COLORS = "Black_Hair", "Brown_Hair", "Blond_Hair", "Gray_Hair"
EXCLUSIVE = (  # of each group, nobody has two
    ("Bald", "Bangs", "Receding_Hairline"),
    ("Bald", "Straight_Hair", "Wavy_Hair"),
    ("Bald", *HAIR_COLORS),
    ("No_Beard", "Mustache"),
    ("No_Beard", "Goatee"),
)


def test_a_seed_always_draws_the_same_faces():
    images, attributes = draw_faces(40, 32, seed=3)
    assert images.shape == (40, 3, 32, 32) and images.dtype == torch.uint8, "expected uint8"
    assert tuple(attributes) == DRAWN_ATTRIBUTES, f"expected every attribute, got {attributes}"
    again, _ = draw_faces(12, 32, seed=3, first=20)
    assert torch.equal(images[20:32], again), "expected face 20 to be the same face in any call"
    other, _ = draw_faces(40, 32, seed=4)
    assert not torch.equal(images, other), "expected another seed to draw other faces"


def test_a_face_does_not_depend_on_those_drawn_with_it():
    images, _ = draw_faces(67, 64)  # more than are drawn at once
    for first in (0, 63, 64, 66):
        alone, _ = draw_faces(1, 64, first=first)
        assert torch.equal(images[first], alone[0]), f"expected face {first} to be the same alone"


def test_drawn_bytes_do_not_change(tmp_path):
    images, _ = draw_faces(20, 64, seed=0)
    expected = "f5a459fc25505b6832a9132118ada029ff9e82718ee6ee075634db9e639f6de5"
    got = sha256(images.numpy().tobytes())
    assert got == expected, f"images: expected {expected}, got {got}"
    write_folder(tmp_path, 24, 64, 3, lambda n: None)
    expected = "3870da25c5ae0f3214ef4f71f6abbd3161e58d2b1b1442d157843e3c1ee05381"
    got = sha256((tmp_path / "list_attr_celeba.txt").read_bytes().replace(b"\r\n", b"\n"))
    assert got == expected, f"attributes: expected {expected}, got {got}"


def test_a_folder_is_laid_out_as_celeba(tmp_path):
    progress = []
    write_folder(tmp_path, 5, 32, 3, progress.append)
    names = [f"{k:06d}.jpg" for k in range(1, 6)]
    names += [f"{OTHER_SEED}{k:06d}.jpg" for k in range(1, 4)]
    files = [*(f"faces/{name}" for name in names), "list_attr_celeba.txt"]
    assert names_below(tmp_path) == files, f"expected {files}, got {names_below(tmp_path)}"
    assert progress == [5, 3], f"expected the progress, got {progress}"

    count, header, *rows = (tmp_path / "list_attr_celeba.txt").read_text("utf-8").splitlines()
    assert count == "8", f"expected the number of faces, got {count}"
    assert tuple(header.split()) == DRAWN_ATTRIBUTES, f"expected the attributes, got {header}"
    assert [row.split()[0] for row in rows] == names, f"expected a row per face, got {rows}"

    for prefix, seed, n in (("", 0, 5), (OTHER_SEED, 1, 3)):
        images, attributes = draw_faces(n, 32, seed)
        last = f"{prefix}{n:06d}.jpg"
        saved = np.asarray(Image.open(tmp_path / "faces" / last)).astype(int)
        error = abs(saved - images[-1].permute(1, 2, 0).numpy()).mean()
        assert error < 3, f"{last}: expected the last face of seed {seed}, got an error of {error}"
        signs = ["1" if attributes[name][-1] else "-1" for name in DRAWN_ATTRIBUTES]
        got = next(row.split()[1:] for row in rows if row.startswith(last))
        assert got == signs, f"{last}: expected {signs}, got {got}"


def test_faces_are_drawn_once(empty_place, capsys):
    folder = find_data("drawn", n_drawn=5, image_size=16)
    expected = Path("drawn_faces", f"5_at_64_v{DRAWING}")
    assert folder == expected, f"expected {expected}, got {folder}"
    (folder / "faces" / "000003.jpg").unlink()
    assert find_data("drawn", n_drawn=5) == folder, "expected the same folder"
    assert not (folder / "faces" / "000003.jpg").exists(), "expected the folder as it was"
    printed = capsys.readouterr().out
    assert printed.count("Data: 5 drawn faces in") == 2, f"expected a line each, got {printed}"


def test_a_disk_without_room_for_drawn_faces_is_named(empty_place, monkeypatch):
    monkeypatch.setattr(Image.Image, "save", full)
    message = f"drawn_faces/20_at_64_v{DRAWING} cannot be written: No space"
    with pytest.raises(OSError, match=message):
        find_data("drawn", n_drawn=20)
    left = [path for path in Path("drawn_faces").iterdir() if path.is_dir()]
    assert not left, f"expected no half-made folder, got {left}"


def test_makeup_changes_the_face_and_leaves_the_rest():
    without, _ = draw_faces(60, 64, seed=1, Heavy_Makeup=False)
    wearing, _ = draw_faces(60, 64, seed=1, Heavy_Makeup=True)
    changed = (without.int() - wearing.int()).abs().amax(1) > 8
    assert changed.flatten(1).any(1).all(), "expected makeup to be seen on every face"
    hair = changed[:, :12].float().mean()
    assert hair < 0.01, f"expected the hair untouched, got {hair:.1%} of the pixels changed"
    assert changed.float().mean() < 0.3, "expected the background untouched"


@pytest.mark.parametrize("attribute", DRAWN_ATTRIBUTES)
def test_a_fixed_attribute_holds_for_all_and_leaves_who_they_are(attribute):
    by_chance = imagine_faces(300, seed=2)
    for value in (True, False):
        fixed = imagine_faces(300, seed=2, **{attribute: value})
        assert (fixed[attribute] == value).all(), f"expected {attribute}={value} for everybody"
        as_before = by_chance[attribute] == value
        assert 0 < as_before.mean() < 1, f"expected some with and some without {attribute}"
        for name in ("ita", "yaw", "backdrop", "clothes"):
            same = np.array_equal(fixed[name], by_chance[name])
            assert same, f"{attribute}={value}: expected the same {name}"


def test_an_unknown_attribute_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match="Smilng.*Smiling"):
        draw_faces(1, Smilng=True)


@pytest.mark.parametrize("group", EXCLUSIVE, ids="-".join)
def test_contradictory_attributes_are_returned_as_they_are_drawn(group):
    for one, other in combinations(group, 2):
        for fixed in ({}, {one: True}, {other: True}, {one: True, other: True}):
            people = imagine_faces(500, seed=6, **fixed)
            both = (people[one] & people[other]).sum()
            assert both == 0, f"{fixed}: expected nobody with {one} and {other}, got {both}"


def test_attributes_are_as_common_as_in_life():
    people = imagine_faces(3000, seed=5)
    ranges = {
        "Male": (0.4, 0.55),
        "Young": (0.6, 0.85),
        "Smiling": (0.4, 0.6),
        "Eyeglasses": (0.05, 0.2),
    }
    for name, (low, high) in ranges.items():
        share = people[name].mean()
        assert low < share < high, f"{name}: expected {low:.0%} to {high:.0%}, got {share:.0%}"
    makeup, male = people["Heavy_Makeup"], people["Male"]
    men, women = makeup[male].mean(), makeup[~male].mean()
    assert 0 < men < women < 1, f"makeup: expected a loose tie, got {men:.0%} and {women:.0%}"


class CountOperations(TorchDispatchMode):
    """Within it, counts the calls of PyTorch operators."""

    count = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.count += 1
        return operator(*args, **(kwargs or {}))


def operations(n):
    with CountOperations() as counted:
        draw_faces(n, 64)
    return counted.count


def test_a_chunk_of_faces_takes_as_many_operations_as_one_face():
    operations(1)  # makes the noise that all faces share
    one, chunk, chunks = operations(1), operations(64), operations(130)
    assert chunk == one, f"expected {one} operations for 64 faces, got {chunk}"
    assert chunks <= 3 * one, f"expected three chunks of {one} operations, got {chunks}"
