"""large_dir and domain_dirs: what cannot be trained on is told before the training."""

import os
import re
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
from data_inputs import archive, faces_named
from PIL import Image

from assets.lib.other_folders import check_folders


def save(folder, numbers, side=40, same=False, name="{}.png"):
    """Pictures of noise, each of its own, or all the same."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for i in numbers:
        noise = np.random.default_rng(0 if same else i).integers(0, 256, (6, 5, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((side, side + 5)).save(Path(folder, name.format(i)))


def save_text(folder, numbers):
    Path(folder).mkdir(parents=True, exist_ok=True)
    for i in numbers:
        Path(folder, f"text{i}.png").write_text(f"no picture {i}", encoding="utf-8")


def settings(**changes):
    fixed = dict(next_steps=True, batch_size=None, domain_dirs=None, large_dir="drawn")
    return types.SimpleNamespace(**fixed | changes)


def check(n_faces=4, **changes):
    check_folders(settings(**changes), faces_named(*(f"{i}.png" for i in range(n_faces))))


def too_few():
    save("large", range(20), 150)


def too_small():
    save("large", range(40), 100)
    save("large", range(40, 60), 150)


def all_unreadable():
    save_text("large", range(40))


def some_unreadable():
    save("large", range(40), 150)
    save_text("large", range(6))


def copies():
    save("large", range(40), 150, same=True)


def too_few_in_folders():
    for folder in "abc":
        save(f"large/{folder}", range(ord(folder), ord(folder) + 9), 150)


BAD_LARGE = {
    too_few: 'of 128 pixels or more, 20 and not 32. Add or replace some, or set large_dir = "dr',
    too_small: "it has too few different images of 128 pixels or more, 20 and not 32",
    all_unreadable: "it has unreadable images, 40 of 40; the first, text0.png: it is no picture",
    some_unreadable: "it has unreadable images, 6 of 46; the first, text0.png",
    copies: "it has too few different images of 128 pixels or more, 1 and not 32",
    too_few_in_folders: "it has too few different images of 128 pixels or more, 11 and not 32",
}


@pytest.mark.parametrize("make", BAD_LARGE, ids=lambda make: make.__name__)
def test_a_large_dir_that_cannot_be_trained_on_is_named(empty_place, make):
    make()
    with pytest.raises(ValueError, match=f"large_dir = 'large' .*{re.escape(BAD_LARGE[make])}"):
        check(large_dir="large")
    check(large_dir="large", next_steps=False)


def test_a_zip_of_too_few_large_photographs_is_named(empty_place):
    Path("large.zip").write_bytes(archive([f"{i}.jpg" for i in range(40)]))  # of 20 x 30 pixels
    with pytest.raises(ValueError, match="large_dir = 'large.zip' .* of 128 pixels"):
        check(large_dir="large.zip")


def test_a_large_dir_that_is_not_needed_is_not_looked_at(empty_place):
    too_few()
    faces = faces_named(*(f"{i}.png" for i in range(40)))
    faces.sides[:32] = 128  # enough for a batch
    check_folders(settings(large_dir="large"), faces)
    check_folders(settings(large_dir="large", batch_size=16), faces_named("a.png"))
    for large_dir in ("drawn", "celeba_128/"):
        check(large_dir=large_dir)
    save("large", range(20, 32), 128)
    check(large_dir="large")


def in_both():
    save("a", range(30))
    save("b", range(20, 60))
    return ["a", "b"], "10 images are in both folders, such as 20.png. Keep each in one"


def in_both_by_other_names():
    save("a", range(30))
    save("b/inner", range(30, 60))
    shutil.copy("a/7.png", "b/inner/other.png")
    return ["a", "b"], "1 images are in both folders, such as 7.png"


def one_in_the_other():
    save("a", range(30))
    save("a/inner", range(30, 60))
    return ["a", "a/inner"], "one folder is inside the other"


def the_other_in_one():
    save("a", range(30))
    save("a/inner/deep", range(30, 60))
    return ["a/inner/deep", "a/"], "one folder is inside the other"


def by_a_link():
    save("a/inner", range(30))
    os.symlink("a", "link")
    return ["a/inner", "link"], "one folder is inside the other"


def one_face():
    save("a", range(1))
    save("b", range(10, 40))
    return [
        "a",
        "b",
    ], "'a' has too few different images, 1 and not 8. Add or replace some, or set"


def one_face_many_times():
    save("a", range(10, 40))
    save("b", range(30), same=True)
    return ["a", "b"], "'b' has too few different images, 1 and not 8"


def seven_readable():
    save("a", range(7))
    save("b", range(10, 40))
    return ["a", "b"], "'a' has too few different images, 7 and not 8"


def unreadable():
    save("a", range(20))
    save_text("b", range(20))
    return ["a", "b"], "'b' has unreadable images, 20 of 20"


BAD_DOMAINS = [in_both, in_both_by_other_names, one_in_the_other, the_other_in_one, by_a_link]
BAD_DOMAINS += [one_face, one_face_many_times, seven_readable, unreadable]


@pytest.mark.parametrize("make", BAD_DOMAINS, ids=lambda make: make.__name__)
@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_domain_dirs_that_cannot_be_trained_on_are_named(empty_place, make):
    folders, message = make()
    with pytest.raises(ValueError, match=f"domain_dirs = .* does not work: {re.escape(message)}"):
        check(domain_dirs=folders)
    check(domain_dirs=folders, next_steps=False)


def test_two_folders_beside_each_other_pass(empty_place):
    save("faces/without", range(8))
    save("faces/with", range(8, 16))
    save("faces/with_hats", range(16, 30))
    check(domain_dirs=["faces/without", "faces/with"])
    check(domain_dirs=[Path("faces/with"), Path("faces/with_hats")])


def test_a_hundred_pictures_of_a_large_folder_are_looked_at(empty_place, monkeypatch):
    from assets.lib import other_folders

    save("large", range(450), 130)
    asked = []

    def look_at(path, size):
        asked.append(path)
        return (130, path), None

    monkeypatch.setattr(other_folders, "look_at", look_at)
    check(large_dir="large")
    assert len(asked) == 100 and len({*asked}) == 100, f"expected 100 of them, got {len(asked)}"
