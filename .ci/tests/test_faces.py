"""Decoded faces: their parts, batches and labels, and checks of them."""

import numpy as np
import pytest
import torch
from data_inputs import faces_named, save_faces, sha256, write_list
from PIL import Image

import helpers
from assets.lib.drawn import OTHER_SEED
from assets.lib.faces import parts_of
from assets.lib.files import say_once


@pytest.fixture(autouse=True)
def say_anew():
    say_once.cache_clear()


def test_flips_mirror_half_of_the_images():
    images = torch.arange(400 * 3 * 16).reshape(400, 3, 1, 16).remainder(256).byte()
    faces = helpers.DecodedFaces(images, torch.zeros(400, dtype=torch.int64), ["a"], flip=True)
    served, _ = faces.__getitems__(list(range(400)))
    straight = images.float() / 255
    same = (served == straight).flatten(1).all(1)
    mirrored = (served == straight.flip(-1)).flatten(1).all(1)
    half = (same ^ mirrored).all() and 120 < mirrored.sum() < 280
    assert half, "expected about half of the images mirrored, and none changed otherwise"
    assert torch.equal(faces.batch(range(400))[0], straight), "expected batch to mirror none"
    assert torch.equal(faces.part("test").__getitems__([3])[0], straight[3:4]), "nor a part"


def test_parts_of_decoded_faces():
    names = [f"photo{i}.png" for i in range(1201)]
    readable = np.arange(1201) != 7
    faces = faces_named(*names, readable=readable)
    parts = {name: set(faces.part(name).rows.tolist()) for name in helpers.PARTS}
    assert [len(parts[name]) for name in helpers.PARTS] == [1050, 75, 75], "an eighth held out"
    assert set.union(*parts.values()) == set(range(1201)) - {7}, "expected all but the unreadable"
    whole = faces_named(*(name for i, name in enumerate(names) if i != 7))
    assert whole.held_out == faces.held_out == 150, "expected the readable ones to be dealt out"
    even = faces.where(torch.arange(1201) % 2 == 0)
    assert set(even.part("test").rows.tolist()) == {r for r in parts["test"] if r % 2 == 0}
    assert len(faces) == 1050, "expected the faces to be left as they were"
    images, labels = even.batch([0, 1])
    assert torch.equal((images[:, 1, 0, 0] * 255).long(), even.rows[:2] % 256), "expected its rows"
    few = faces_named("a.png", "b.png", readable=[True, False])
    assert few.part("validation").rows.tolist() == [0], "nothing held out: the same images"


def test_parts_do_not_overlap_and_do_not_move():
    celeba = [f"{i:06d}.jpg" for i in range(1, 202_600, 13)]
    parts = parts_of(celeba)
    numbers = np.array([int(name[:6]) for name in celeba])
    assert (parts[numbers <= 162_770] == 0).all(), "expected no training image held out"
    assert np.bincount(parts)[1:].tolist() == [974, 974], f"got {np.bincount(parts)}"
    few = [f"{i:06d}.jpg" for i in range(1, 1601)] + ["162771.jpg"]
    held = (parts_of(few) > 0).sum()
    assert held == 200, f"expected an eighth where hardly one has CelebA's high numbers, got {held}"
    other = [f"{OTHER_SEED}{i:06d}.jpg" for i in range(125)]
    drawn = [f"{i:06d}.jpg" for i in range(1000)] + other
    held = parts_of(drawn).nonzero()[0].tolist()
    assert held == [*range(1000, 1125)], "expected the drawn faces of the other seed, no others"
    photos = [f"photo{i}.png" for i in range(1200)]
    parts = dict(zip(photos, parts_of(photos)))
    back = dict(zip(photos[::-1], parts_of(photos[::-1])))
    assert sum(part > 0 for part in parts.values()) == 150, "expected an eighth of any folder"
    assert parts == back, "expected names to decide, got the order"
    assert not parts_of(photos[:999]).any(), "expected a small folder whole"
    digest = sha256(parts_of(photos).tobytes())
    assert digest == "f6e849b2f6eb3ba6e3a73857df3bbc15cefcce0bc1a5e5b72079386ebd98d13d", (
        f"expected the parts that runs before this one had, got {digest}"
    )


SAME_NAMES = {
    "in two classes": ["man/{:04d}.jpg", "woman/{:04d}.jpg"],
    "as CelebA numbers them": ["man/{:06d}.jpg", "woman/{:06d}.jpg"],
    "in three classes": ["a/{}.png", "b/{}.png", "c/{}.png"],
    "in parts": [f"{part}/{kind}/{{}}.jpg" for part in ("train", "test") for kind in "ab"],
    "below a folder": ["data/faces/female/IMG_{}.JPG", "data/faces/male/IMG_{}.JPG"],
    "in other writings": ["脸/{}.webp", "Zoë/{}.webp"],
}


@pytest.mark.parametrize("kind", SAME_NAMES)
def test_each_class_is_in_each_part_if_files_are_named_alike(tmp_path, kind):
    forms, n = SAME_NAMES[kind], 600
    names = [form.format(i) for form in forms for i in range(n)]
    classes = sorted({form.split("/")[-2] for form in forms})
    numbers = torch.tensor([classes.index(name.split("/")[-2]) for name in names])
    faces = faces_named(*names, labels=numbers, classes=classes, root=tmp_path)
    for part in helpers.PARTS:
        shares = torch.bincount(numbers[faces.part(part).rows], minlength=len(classes))
        shares = shares / shares.sum() * len(classes)
        assert 0.6 < shares.min(), f"{part}: expected about as many of each, got {shares}"
    assert faces.usable_labels() == classes, f"expected all classes, got {faces.usable_labels()}"
    helpers.check_faces(faces, classes[:1])


def test_classes_tell_files_of_one_name_apart():
    names, numbers = [f"{i:04d}.jpg" for i in range(600)] * 2, torch.arange(1200) // 600
    faces = faces_named(*names, labels=numbers, classes=["man", "woman"], root="nowhere")
    assert faces.usable_labels() == ["man", "woman"], f"got {faces.usable_labels()}"


def test_a_few_files_named_as_drawn_faces_are_change_nothing():
    few = [f"{OTHER_SEED}{i}.jpg" for i in range(3)]
    assert not parts_of([*few, *(f"{i}.jpg" for i in range(100))]).any(), "too few to hold out"
    found = parts_of([*few, *(f"{i}.jpg" for i in range(1997))])
    assert np.bincount(found).tolist() == [1750, 125, 125], f"got {np.bincount(found)}"


KEPT_SPLITS = {  # the scores in the results were taken with these
    "CelebA": ([f"{i:06d}.jpg" for i in range(1, 202_600, 13)], "162a706cc0c60103"),
    "drawn": (
        [f"{OTHER_SEED}{i:06d}.jpg" for i in range(125)] + [f"{i:06d}.jpg" for i in range(1000)],
        "72411684945d3c48",
    ),
    "a part of CelebA": ([f"{i:06d}.jpg" for i in [*range(1, 1601), 162771]], "bc7d73adb04e0687"),
    "one folder": ([f"IMG {i}.JPG" for i in range(5000)], "0f8ef56ac46a8809"),
}


@pytest.mark.parametrize("folder", ["", "celeba/", "data/celeba/img_align_celeba/"])
@pytest.mark.parametrize("kind", KEPT_SPLITS)
def test_splits_stay_as_they_were_wherever_the_folder_begins(kind, folder):
    names, digest = KEPT_SPLITS[kind]
    found = sha256(parts_of([folder + name for name in names]).tobytes())[:16]
    assert found == digest, f"expected the split of the committed scores, got {found}"


SIZES = {  # the pictures' sizes, how many are 64 pixels or more wide and high
    "one small one": ([(300, 400)] * 29 + [(40, 50)], 29),
    "a few small ones": ([(128, 128)] * 20 + [(63, 200)] * 5 + [(200, 63)] * 5, 20),
    "all large": ([(64, 64)] * 30, 30),
    "all small": ([(48, 56)] * 30, 0),
    "strips": ([(640, 40)] * 10 + [(70, 640)] * 20, 20),
    "a large one": ([(32, 32)] * 29 + [(2000, 3000)], 1),
}


@pytest.mark.parametrize("kind", SIZES)
def test_pictures_that_are_large_enough_can_be_chosen(empty_place, notebook, capsys, kind):
    sizes, n_large = SIZES[kind]
    for i, size in enumerate(sizes):
        save_faces("photos", 1, f"{i:02}.jpg")
        Image.open(f"photos/{i:02}.jpg").resize(size).save(f"photos/{i:02}.jpg")
    (empty_place / "photos" / "text.jpg").write_text("no picture", encoding="utf-8")
    faces = notebook.get_dataloader(4, 32, "photos").dataset
    assert faces.count_large(64) == n_large, f"got {faces.count_large(64)}"
    capsys.readouterr()
    large = faces.large_enough(64)
    assert [sizes[row] for row in large.rows] == [size for size in sizes if min(size) >= 64]
    said, n_small = capsys.readouterr().out, len(sizes) - n_large
    sentence = f"{n_small} of {len(sizes)} images are smaller than 64 pixels: they are left out"
    assert (sentence in said) == (n_small > 0), f"expected how many are left out, got {said}"
    assert len(faces) == len(sizes), "expected the faces to be left as they were"


def test_faces_without_pictures_are_as_large_as_they_are():
    faces = faces_named("a.png", "b.png")
    assert (faces.count_large(4), faces.count_large(5)) == (2, 0)


def test_data_that_a_gpu_cannot_keep_stays_where_it_is(monkeypatch):
    own = helpers.DecodedFaces(torch.zeros(4, 3, 16, 16).byte(), torch.zeros(4), ["a"])
    other = torch.utils.data.TensorDataset(torch.zeros(4, 3, 16, 16), torch.zeros(4))
    cases = ("cpu", own), ("mps", own), ("cpu", other), ("cuda", other), ("cuda", own)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 200))
    for device, data in cases:
        before = data[0][0]
        helpers.keep_on(torch.device(device), data)
        after = data[0][0]
        assert after.device.type == "cpu" and torch.equal(before, after), f"{device}: as it was"


# ---------------------------------------------------------------- labels, and checks


def test_labels_that_teach_nothing_are_refused(tmp_path):
    half, few = [i % 2 == 0 for i in range(100)], [i < 19 for i in range(100)]
    many = [not has for has in few]
    columns = dict(Smiling=half, Bald=[False] * 100, Eyeglasses=few, Young=many, Male=half)
    faces = write_list(tmp_path, columns)
    assert faces.usable_labels() == ["Smiling", "Male"], "expected those of one half"
    for name, count in (("Bald", 0), ("Eyeglasses", 19), ("Young", 81)):
        message = f"label_names = '{name}' .*: {count} of 100 training faces have it; 20 must"
        with pytest.raises(ValueError, match=message):
            helpers.check_faces(faces, ["Male", name], "Heavy_Makeup", name)
        helpers.check_faces(faces, None, "Heavy_Makeup", name)  # one kind is enough
    faces = faces_named(*faces.names, readable=np.arange(100) >= 62, root=tmp_path)
    with pytest.raises(ValueError, match="19 of 38 training faces have it"):
        helpers.check_faces(faces, ["Smiling"], "Heavy_Makeup", "Male")


def test_a_makeup_that_leaves_too_few_faces_is_refused_at_once(tmp_path):
    worn, male = ([i % n == 0 for i in range(120)] for n in (12, 2))  # by men only
    faces = write_list(tmp_path, dict(Beard=worn, Male=male, Bald=[i < 7 for i in range(120)]))
    A, B, common = helpers.split_domains(faces, "Beard", "Male")
    assert (len(A), len(B), common) == (50, 10, {"Male": True}), f"got {len(A)}, {len(B)}, {common}"
    helpers.check_faces(faces, None, "Beard", "Male")
    for label in ("Bald", "Hat"):
        assert helpers.split_domains(faces, label, None) is None, f"expected too few with {label}"
    with pytest.raises(ValueError, match="domain_label = 'Bald' .* too few .* needs 8 of both"):
        helpers.check_faces(faces, None, "Bald", "Male")


def test_labels_are_counted_where_they_are_learned(tmp_path):
    names = [f"{i}.jpg" for i in range(1200)]
    held_out = {row for row, part in enumerate(parts_of(names)) if part}
    trained = [row for row in range(1200) if row not in held_out]
    for hats in (trained[:19] + [*held_out], trained[:30]):  # too few to learn; none to test on
        faces = write_list(tmp_path, dict(Hat=[row in hats for row in range(1200)]), names)
        assert len(faces) == len(trained) < 1200, "expected some to be held out"
        assert faces.usable_labels() == [], "expected too few hats in one part"
        n = len({*hats} - held_out)
        with pytest.raises(ValueError, match=f"{n} of {len(faces)} training faces have it"):
            helpers.check_faces(faces, ["Hat"], "Heavy_Makeup", "Male")


def test_labels_that_were_chosen_are_checked_as_soon_as_the_data_is_known(tmp_path):
    half = [i % 2 == 0 for i in range(100)]
    faces = write_list(tmp_path / "labelled", dict.fromkeys(["Smiling", "Male", "Young"], half))
    (tmp_path / "plain" / "and" / "far").mkdir(parents=True)
    unknown = faces_named(*faces.names, root=tmp_path / "plain" / "and" / "far")
    helpers.check_faces(faces, None, "Heavy_Makeup", "Male")
    helpers.check_faces(unknown, None, "Heavy_Makeup", "Male")
    helpers.check_faces(faces, ["Smiling"], "Young", None)
    cases = (
        (["Male", "Smilling"], "Young", None, "label_names = 'Smilling' .* one of 'Smiling'"),
        (None, "Makeup", "Male", "domain_label = 'Makeup' .* one of"),
        (None, "Heavy_Makeup", "male", "domain_same = 'male' .* one of 'Male'"),
    )
    for label_names, domain_label, domain_same, message in cases:
        with pytest.raises(ValueError, match=message):
            helpers.check_faces(faces, label_names, domain_label, domain_same)
    with pytest.raises(ValueError, match="label_names = 'Hat' .* one of .*'Wearing_Hat'"):
        helpers.check_faces(unknown, ["Hat"], "Heavy_Makeup", "Male")  # the face network's


def test_too_few_faces_are_told_before_anything_is_trained():
    for n in range(4):
        with pytest.raises(helpers.DataError, match=f"at least 4 images, and {n} can be read"):
            helpers.check_faces(range(n), None, "Heavy_Makeup", "Male")
