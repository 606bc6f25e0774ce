"""Labels: class folders, what file names say, and labels that can be learned."""

import pytest
import torch
from data_inputs import faces_named, save_faces

import helpers
from assets.lib import labels
from assets.lib.files import say_once


def values(labels):
    return {name: has.tolist() for name, has in labels.items()}


@pytest.fixture(autouse=True)
def say_anew():
    say_once.cache_clear()


def test_labels_from_names_and_folders(tmp_path):
    names = "19_0_0_20170109.jpg", "20_1_3_20170117.jpg.chip.jpg", "116_0_4_20170120134921760.jpg"
    known = faces_named(*names, root=tmp_path).known
    second = [name for name, has in known.items() if has[1]]
    assert second == ["Indian", "From_20_to_39"], f"a woman of 20 from India: got {second}"
    assert known["Male"].tolist() == [True, False, True], f"got {known['Male']}"
    assert known["Under_20"].tolist() == [True, False, False], f"got {known['Under_20']}"
    counts = [int(known[name].sum()) for name in labels.ORIGINS]
    assert counts == [1, 0, 0, 1, 1], f"got {counts}"
    mixed = faces_named("19_0_0_20170109.jpg", "other.jpg", root=tmp_path)
    assert mixed.known == {}, "expected most names to be UTKFace's"
    many = [f"30_{i % 2}_2_2017{i:04d}.jpg" for i in range(199)]
    known = faces_named(*many, "39_1_20170116174525125.jpg", root=tmp_path).known
    assert known["Asian"].sum() == 199, f"got {known['Asian'].sum()}"
    assert not any(has[-1] for has in known.values()), "a name without origin: nothing of it"
    given = dict(labels=torch.tensor([1, 0]), classes=["cats", "dogs"], root=tmp_path)
    known = values(faces_named("x.jpg", "y.jpg", **given).known)
    assert known == {"cats": [False, True], "dogs": [True, False]}, f"got {known}"


NOT_UTKFACE = {
    "subject, session, camera, frame": "{:03d}_0_3_0042.jpg",
    "frames of eight digits": "{:03d}_1_2_00000042.jpg",
    "a year alone": "{}_0_1_2017.jpg",
    "older than anybody": "1{:02d}7_1_0_20170109.jpg",
    "longer than a date": "{}_1_0_201701091350213219.jpg",
    "no date": "{}_0_0_2.jpg",
}


@pytest.mark.parametrize("name", NOT_UTKFACE.values(), ids=NOT_UTKFACE)
def test_names_like_utkfaces_are_not_taken_for_them(tmp_path, name):
    faces = faces_named(*(name.format(i) for i in range(1, 41)), root=tmp_path)
    assert faces.known == {}, f"expected no labels, got {list(faces.known)}"


@pytest.mark.parametrize(
    "classes, expected",
    [
        (["man", "woman"], ["man", "woman"]),
        (["train", "val"], []),
        (["test", "train", "valid"], []),
        (["Training", "Validation"], []),
        (["test2017", "train2017", "val2017"], []),
        (["test_set", "training_set"], []),
        (["testA", "trainA"], []),
        (["00000", "01000", "02000"], []),
        (["part1", "part2", "part3"], []),
        (["fold_0", "fold_1"], []),
        (["0", "1"], ["0", "1"]),
        (["00", "01", "10"], ["00", "01", "10"]),
        (["training_fake", "training_real"], ["training_fake", "training_real"]),
        (["healthy", "tested_positive"], ["healthy", "tested_positive"]),
        (["fake", "valid"], ["fake", "valid"]),
        (["Devi", "Valentina"], ["Devi", "Valentina"]),
        (["evaluated", "trainer"], ["evaluated", "trainer"]),
        (["batches", "folded"], ["batches", "folded"]),
        (["20-29", "30-39"], ["20-29", "30-39"]),
        (["cats", "dogs", "test"], ["cats", "dogs"]),
        (["."], []),
        (["all"], []),
        ([f"person {i}" for i in range(101)], []),
        ([f"person {i}" for i in range(100)], [f"person {i}" for i in range(100)]),
    ],
    ids=lambda names: f"{names[0] if names else None} ({len(names)})",
)
def test_parts_and_people_are_no_labels(tmp_path, capsys, classes, expected):
    names = [f"{i}.jpg" for i in range(len(classes))]
    numbers = torch.arange(len(classes))
    known = faces_named(*names, labels=numbers, classes=classes, root=tmp_path).known
    assert list(known) == expected, f"expected {expected}, got {list(known)}"
    is_said = "are not used as labels" in capsys.readouterr().out
    assert is_said == (len(known) < len(classes) > 1), "expected a word about those that are none"
    for name in known:
        has = known[name].nonzero().flatten().tolist()
        assert has == [classes.index(name)], f"{name}: expected its own row, got {has}"


def paths_of(counts):
    """Relative paths of so many pictures in each of these folders."""
    return [f"{folder}/{i}.jpg" for folder, n in counts.items() for i in range(n)]


def in_both(*folders):
    """Three pictures of women and three of men in each of these folders."""
    return {f"{folder}/{kind}": 3 for folder in folders for kind in ("female", "male")}


DEEPER = {
    "classes at the top": {"female": 3, "male": 3},
    "parts of the data": in_both("train", "val"),
    "Kaggle's parts": in_both("Training", "Validation"),
    "a folder around": in_both("wrap/dataset"),
    "parts in a folder": {"gender/test/female": 2, **in_both("gender/train")},
    "a folder in parts": in_both("test/images", "train/images"),
    "folds": in_both("fold_0", "fold_1", "fold_2"),
    "folders in classes": {"female/2019/a": 2, "female/2020": 2, "male": 3},
    "a class in one part only": {"train/female": 4, "test/male": 4},
}


@pytest.mark.parametrize("layout", DEEPER)
def test_class_folders_are_found_below_others(tmp_path, layout):
    names = paths_of(DEEPER[layout])
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert labels.class_folders(tmp_path) == ["female", "male"], "expected the two classes"
    found = labels.labelled_images(tmp_path, {"female": 0, "male": 1})
    expected = {str(tmp_path / name): int("/male/" in f"/{name}") for name in names}
    assert dict(found) == expected, f"expected each image in its class, got {found}"


FLAT = {
    "no folders": {".": 5},
    "one folder": {"celeba": 5},
    "folders in one another": {"celeba/img/aligned": 5},
    "a folder beside images": {".": 2, "new": 3},
    "a folder beside images, deeper": {"celeba": 2, "celeba/New Folder With Items": 3},
    "the same folder in each part": {"train/faces": 5},
}


@pytest.mark.parametrize("layout", FLAT)
def test_folders_that_are_no_classes_are_one(tmp_path, capsys, layout):
    for name in paths_of(FLAT[layout]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert labels.class_folders(tmp_path) == ["."], "expected one class"
    assert len(labels.labelled_images(tmp_path, {".": 0})) == 5, "expected all images"
    assert not capsys.readouterr().out, "expected nothing to be said"


STRAYS = {
    "beside the classes": ({"female": 100, "male": 100, ".": 25}, True),
    "beside the classes, a few": ({"female": 100, "male": 100, ".": 2}, False),
    "beside the parts": ({"train/a": 20, "train/b": 20, ".": 9}, True),
    "in a part": ({"train/a": 20, "train/b": 20, "test": 20}, True),
    "in the folder around": ({"wrap/a": 20, "wrap/b": 20, "wrap": 3}, False),
    "around the folder around": ({"wrap/a": 20, "wrap/b": 20, ".": 3}, False),
}


@pytest.mark.parametrize("layout", STRAYS)
def test_images_beside_class_folders_are_spoken_of(tmp_path, capsys, layout):
    counts, are_many = STRAYS[layout]
    for name in paths_of(counts):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    classes = labels.class_folders(tmp_path)
    found = labels.labelled_images(tmp_path, {name: k for k, name in enumerate(classes)})
    said = capsys.readouterr().out
    n, n_strays = sum(counts.values()), [*counts.values()][-1]
    assert (classes == ["."]) == are_many, f"expected one class for many strays, got {classes}"
    assert len(found) == (n if are_many else n - n_strays), f"got {len(found)} of {n}"
    word = f"not used as labels: {n_strays} of {n}" if are_many else f"Left out {n_strays} images"
    assert word in said, f"expected {word!r}, got {said}"


def test_captions_of_faces_without_labels(tmp_path, notebook):
    save_faces(tmp_path / "plain", 2, "a very long name indeed {}.jpg")
    captions = helpers.captions(notebook.FaceFolder(tmp_path / "plain"), [1])
    assert captions == ["a very long name"], f"expected the name, cut off, got {captions}"
    save_faces(tmp_path / "utk", 2, "3{}_0_1_20170109.jpg")
    captions = helpers.captions(notebook.FaceFolder(tmp_path / "utk"), [0])
    assert captions == ["Male\nBlack"], f"expected what the name says, got {captions}"
