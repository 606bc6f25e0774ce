"""What is known about the faces: lists of attributes, names of files, classes."""

import unicodedata
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from data_inputs import faces_named, save_faces, write_list

import helpers
from assets.lib import labels
from assets.lib.faces import parts_of
from assets.lib.files import say_once

CELEBA = "list_attr_celeba.txt"


def values(labels):
    return {name: has.tolist() for name, has in labels.items()}


@pytest.fixture(autouse=True)
def say_anew():
    say_once.cache_clear()


# ---------------------------------------------------------------- lists of attributes

ROWS = [("000001.jpg", -1, 1), ("000002.jpg", 1, -1), ("000003.jpg", 1, 1)]


def table(separator=" ", header="Male Smiling", write=str, first=""):
    lines = [separator.join(header.split(" "))]
    lines += [separator.join([file, write(a), write(b)]) for file, a, b in ROWS]
    return first + "\n".join(lines) + "\n"


def zero_or_one(value):
    return str(max(value, 0))


def word(value):
    return str(value > 0)


WITH_INDEX = ",image_id,Male,Smiling\n" + "".join(
    f"{i},{file},{a},{b}\n" for i, (file, a, b) in enumerate(ROWS)
)
FORMS = {
    "celeba": table(first="3\n"),
    "no count": table(),
    "two spaces": table().replace(" ", "  "),
    "windows": table(first="3\n").replace("\n", "\r\n"),
    "byte order mark": "\ufeff" + table(first="3\n"),
    "empty lines": table() + "\n\n",
    "kaggle": table(",", "image_id Male Smiling"),
    "comma and space": table(", ", "image_id Male Smiling"),
    "semicolons": table(";", "filename Male Smiling"),
    "tabs": table("\t", "image_id Male Smiling"),
    "tabs without a first column": table("\t"),
    "quotes": table(",", "image_id Male Smiling").replace("000001.jpg", '"000001.jpg"'),
    "pandas with spaces": table(" ", "image_id Male Smiling"),
    "pandas with an index": WITH_INDEX,
    "pandas with an unnamed column": table(",", " Male Smiling"),
    "0 and 1": table(write=zero_or_one),
    "0 and 1 of Kaggle": table(",", "image_id Male Smiling", zero_or_one),
    "words": table(",", "image_id Male Smiling", word),
    "floats": table(",", "image_id Male Smiling", lambda value: f"{value:.1f}"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_lists_in_the_forms_people_have(tmp_path, form, encoding):
    content = FORMS[form].replace("\ufeff", "" if encoding == "utf-16" else "\ufeff")
    (tmp_path / "list.txt").write_bytes(content.encode(encoding))
    names, rows = labels.read_attributes(tmp_path / "list.txt")
    found = {file: row.tolist() for file, row in rows.items()}
    expected = {file: [a > 0, b > 0] for file, a, b in ROWS}
    assert names == ["Male", "Smiling"], f"expected the two names, got {names}"
    assert found == expected, f"expected {expected}, got {found}"


def test_files_may_have_spaces_and_commas(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text('Male\nan old one.jpg 1\n"a quoted one.jpg" -1\n1 1\n', encoding="utf-8")
    _, rows = labels.read_attributes(path)
    assert list(rows) == ["an old one.jpg", "a quoted one.jpg", "1"], f"got {list(rows)}"
    path.write_text('file,Male\n"Doe, Jane.jpg",1\n1,0\n', encoding="utf-8")
    _, rows = labels.read_attributes(path)
    assert list(rows) == ["Doe, Jane.jpg", "1"], f"got {list(rows)}"


@pytest.mark.parametrize(
    "text, message",
    [
        ("<!DOCTYPE html>\n<html>Quota exceeded</html>", r"web page \(HTML\)"),
        ("", "lists no images"),
        ("2\nMale Smiling\n", "lists no images"),
        ("Male Smiling\n000001.jpg 1\n", "'000001.jpg 1'"),
        ("Male Smiling\n000001.jpg 1 yes\n", "'000001.jpg 1 yes'"),
        ("image_id,partition\n000001.jpg,2\n", "no list of attributes"),
        ("image_id,Male,Smiling\n000001.jpg,1,1\n000002.jpg,1\n", "no list of attributes"),
        ("image_id,Male,part\n000001.jpg,1,0\n000002.jpg,1,2\n", "'000002.jpg 1 2'"),
    ],
)
def test_what_is_no_list_of_attributes_is_refused(tmp_path, text, message):
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        labels.read_attributes(tmp_path / "list.txt")


PLACES = {
    "in it": ("faces", f"faces/{CELEBA}"),
    "in its Anno": ("CelebA", f"CelebA/Anno/{CELEBA}"),
    "CelebA's": ("CelebA/Img/img_align_celeba", f"CelebA/Anno/{CELEBA}"),
    "torchvision's": ("celeba/img_align_celeba", f"celeba/{CELEBA}"),
    "Kaggle's": ("archive/img_align_celeba/img_align_celeba", "archive/list_attr_celeba.csv"),
    "CelebAMask-HQ's": ("HQ/CelebA-HQ-img", "HQ/CelebAMask-HQ-attribute-anno.txt"),
    "capitals": ("faces", "faces/List_Attr_CelebA.TXT"),
    "fetched twice": ("faces", "faces/list_attr_celeba (1).txt"),
}


@pytest.mark.parametrize("place", PLACES)
def test_lists_are_found_where_people_have_them(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    folder, path = PLACES[place]
    Path(folder).mkdir(parents=True)
    write_list(".", {"Male": [True, False]}, ["0.jpg", "1.jpg"], path)
    for one in (folder, Path(folder).resolve()):
        found = labels.find_attributes(one)
        assert found == Path(path).resolve(), f"expected {path}, got {found}"


def test_other_files_are_no_lists(tmp_path):
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    for name in ("list_eval_partition.txt", "attributes.csv", "list_attr_celeba.zip"):
        (folder / name).write_text("Male\n0.jpg 1\n", encoding="utf-8")
    (tmp_path / CELEBA).write_text("Male\n0.jpg 1\n", encoding="utf-8")  # three above
    assert labels.find_attributes(folder) is None, "expected no list"


NAMES = {
    "as listed": ("{:06d}.jpg", "{:06d}.jpg"),
    "another ending": ("{:06d}.png", "{:06d}.jpg"),
    "capitals": ("{:06d}.JPG", "{:06d}.jpg"),
    "all capitals": ("IMG_{}.JPG", "img_{}.jpg"),
    "folders in the list": ("{:06d}.jpg", "img_align_celeba/{:06d}.jpg"),
    "backslashes in the list": ("{:06d}.jpg", "img\\{:06d}.jpg"),
    "no ending in the list": ("{:06d}.jpg", "{:06d}"),
    "no ending on the disk": ("{:06d}", "{:06d}.jpg"),
    "NFD on the disk": (unicodedata.normalize("NFD", "Zoë {}.jpg"), "Zoë {}.jpg"),
    "NFD in the list": ("Zoë {}.jpg", unicodedata.normalize("NFD", "Zoë {}.jpg")),
    "other capitals": ("STRASSE {}.jpg", "straße {}.jpg"),
}


@pytest.mark.parametrize("form", NAMES)
def test_names_that_differ_only_in_form_are_the_same(tmp_path, notebook, form):
    on_disk, listed = NAMES[form]
    folder = tmp_path / "faces"
    save_faces(folder, 5, on_disk, kind="JPEG")
    male = [i % 2 == 0 for i in range(5)]
    write_list(folder, {"Male": male}, [listed.format(i) for i in range(1, 6)])
    names = sorted((on_disk.format(i) for i in range(1, 6)), key=lambda name: name)
    known = faces_named(*names, root=folder).known
    expected = {on_disk.format(i + 1): male[i] for i in range(5)}
    assert list(known) == ["Male"], f"expected Male, got {known}"
    assert dict(zip(names, known["Male"].tolist())) == expected, f"expected {expected}"
    captions = helpers.captions(notebook.FaceFolder(folder), range(5))
    assert captions == ["Male" if expected[name] else "" for name in names], f"got {captions}"


def test_names_that_two_rows_could_mean_are_not_guessed(tmp_path, capsys):
    write_list(tmp_path, {"Male": [True, False]}, ["a/1.jpg", "b/1.jpg"])
    assert faces_named("1.jpg", root=tmp_path).known == {}, "expected no guess"
    assert "nothing about 1 of 1 images (the first: 1.jpg)" in capsys.readouterr().out
    write_list(tmp_path, {"Male": [True, False]}, ["1.jpg", "1.png"])
    known = faces_named("1.png", "1.jpg", root=tmp_path).known
    assert values(known) == {"Male": [False, True]}, f"expected the names as they are, got {known}"


def test_kaggles_layout_as_a_whole(tmp_path, notebook, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_faces("celeba/img_align_celeba/img_align_celeba", 60)
    lines = [f"{i:06d}.jpg,{i % 2 * 2 - 1},{i % 3 // 2 * 2 - 1}\n" for i in range(1, 61)]
    text = "image_id,Male,Smiling\n" + "".join(lines)
    Path("celeba/list_attr_celeba.csv").write_text(text, encoding="utf-8")
    folder = helpers.find_data("celeba")
    assert "60 images found in celeba.\n" in capsys.readouterr().out
    has = notebook.get_dataloader(8, 16, folder).dataset.known["Smiling"].tolist()
    assert has == [i % 3 == 2 for i in range(1, 61)], f"got {has}"
    captions = helpers.captions(notebook.FaceFolder(folder), [0, 4])
    assert captions == ["Male", "Smiling\nMale"], f"expected the rarest first, got {captions}"


def test_labels_are_used_only_if_they_are_there_for_all(tmp_path, capsys):
    folder = tmp_path / "faces"
    folder.mkdir()
    assert faces_named("a.jpg", root=folder).known == {}, "expected nothing to be known"
    for place in (tmp_path, folder):  # above the folder, or in it
        path = place / CELEBA
        text = "Male Smiling\na.jpg -1 1\nno_image.jpg 1 1\nb.jpg 1 1\n"
        path.write_text(text, encoding="utf-8")
        known = values(faces_named("b.jpg", "a.jpg", root=folder).known)
        assert known == {"Male": [True, False], "Smiling": [True, True]}, f"got {known}"
        assert faces_named("a.jpg", "c.jpg", root=folder).known == {}, "c.jpg is missing"
        assert "1 of 2 images (the first: c.jpg)" in capsys.readouterr().out, "expected a sentence"
        unreadable = faces_named("a.jpg", "c.jpg", readable=[True, False], root=folder)
        known = values(unreadable.known)
        assert known["Smiling"] == [True, False], f"an unreadable one is not needed, got {known}"
        path.unlink()
        say_once.cache_clear()


@pytest.mark.parametrize("trouble", ["page", "folder", "drive"])
def test_a_list_that_cannot_be_used_stops_nothing(tmp_path, notebook, capsys, trouble):
    folder = tmp_path / "faces"
    for name in ("cats", "dogs"):
        save_faces(folder / name, 2, f"{name}{{}}.jpg")
    if trouble == "folder":
        (folder / CELEBA).mkdir()
    else:
        (folder / CELEBA).write_text("<html>Quota exceeded</html>", encoding="utf-8")
    dataset = notebook.FaceFolder(folder)
    error = OSError(5, "Input/output error")
    drive = mock.patch.object(Path, "read_bytes", side_effect=error) if trouble == "drive" else None
    with drive or mock.MagicMock():
        captions = helpers.captions(dataset, [0, 3])
        labels = torch.tensor(dataset.targets)
        names = [Path(path).name for path, _ in dataset.samples]
        known = faces_named(*names, labels=labels, classes=dataset.classes, root=folder).known
    assert captions == ["cats", "dogs"], f"expected the classes, got {captions}"
    assert list(known) == ["cats", "dogs"], f"expected the classes, got {known}"
    printed = capsys.readouterr().out
    assert printed.count("The list of attributes is not used") == 1, f"one sentence, got {printed}"


# ---------------------------------------------------------------- names of files, classes


def test_labels_from_names_and_folders(tmp_path):
    names = "19_0_0_2017.jpg", "20_1_3_2017.jpg.chip.jpg", "116_0_4_20.jpg"
    known = faces_named(*names, root=tmp_path).known
    second = [name for name, has in known.items() if has[1]]
    assert second == ["Indian", "From_20_to_39"], f"a woman of 20 from India: got {second}"
    assert known["Male"].tolist() == [True, False, True], f"got {known['Male']}"
    assert known["Under_20"].tolist() == [True, False, False], f"got {known['Under_20']}"
    counts = [int(known[name].sum()) for name in labels.ORIGINS]
    assert counts == [1, 0, 0, 1, 1], f"got {counts}"
    mixed = faces_named("19_0_0_2017.jpg", "other.jpg", root=tmp_path)
    assert mixed.known == {}, "expected most names to be UTKFace's"
    many = [f"30_{i % 2}_2_2017{i:04d}.jpg" for i in range(199)]
    known = faces_named(*many, "39_1_20170116174525125.jpg", root=tmp_path).known
    assert known["Asian"].sum() == 199, f"got {known['Asian'].sum()}"
    assert not any(has[-1] for has in known.values()), "a name without origin: nothing of it"
    given = dict(labels=torch.tensor([1, 0]), classes=["cats", "dogs"], root=tmp_path)
    known = values(faces_named("x.jpg", "y.jpg", **given).known)
    assert known == {"cats": [False, True], "dogs": [True, False]}, f"got {known}"


@pytest.mark.parametrize(
    "classes, expected",
    [
        (["man", "woman"], ["man", "woman"]),
        (["train", "val"], []),
        (["test", "train", "valid"], []),
        (["Training", "Validation"], []),
        (["00000", "01000", "02000"], []),
        (["part1", "part2", "part3"], []),
        (["fold_0", "fold_1"], []),
        (["20-29", "30-39"], ["20-29", "30-39"]),
        (["cats", "dogs", "test"], ["cats", "dogs"]),
        (["."], []),
        (["all"], []),
        ([f"person {i}" for i in range(101)], []),
        ([f"person {i}" for i in range(100)], [f"person {i}" for i in range(100)]),
    ],
    ids=lambda names: f"{names[0] if names else None} ({len(names)})",
)
def test_parts_and_people_are_no_labels(tmp_path, classes, expected):
    names = [f"{i}.jpg" for i in range(len(classes))]
    numbers = torch.arange(len(classes))
    known = faces_named(*names, labels=numbers, classes=classes, root=tmp_path).known
    assert list(known) == expected, f"expected {expected}, got {list(known)}"
    for name in known:
        has = known[name].nonzero().flatten().tolist()
        assert has == [classes.index(name)], f"{name}: expected its own row, got {has}"


def test_labels_that_teach_nothing_are_refused(tmp_path):
    half, few = [i % 2 == 0 for i in range(100)], [i < 19 for i in range(100)]
    many = [not has for has in few]
    columns = dict(Smiling=half, Bald=[False] * 100, Eyeglasses=few, Young=many, Male=half)
    faces = write_list(tmp_path, columns)
    assert helpers.usable_labels(faces) == ["Smiling", "Male"], "expected those of one half"
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


def test_labels_are_counted_where_they_are_learnt(tmp_path):
    names = [f"{i}.jpg" for i in range(1200)]
    held_out = {row for row, part in enumerate(parts_of(names)) if part}
    trained = [row for row in range(1200) if row not in held_out]
    for hats in (trained[:19] + [*held_out], trained[:30]):  # too few to learn; none to test on
        faces = write_list(tmp_path, dict(Hat=[row in hats for row in range(1200)]), names)
        assert len(faces) == len(trained) < 1200, "expected some to be held out"
        assert helpers.usable_labels(faces) == [], "expected too few hats in one part"
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
    with pytest.raises(ValueError, match="label_names = 'Male' .* nothing is known"):
        helpers.check_faces(unknown, ["Male"], "Heavy_Makeup", "Male")


def test_too_few_faces_are_told_before_anything_is_trained():
    for n in range(4):
        with pytest.raises(helpers.DataError, match=f"at least 4 images, and {n} can be read"):
            helpers.check_faces(range(n), None, "Heavy_Makeup", "Male")


def test_captions_of_faces_without_labels(tmp_path, notebook):
    save_faces(tmp_path / "plain", 2, "a very long name indeed {}.jpg")
    captions = helpers.captions(notebook.FaceFolder(tmp_path / "plain"), [1])
    assert captions == ["a very long name"], f"expected the name, cut off, got {captions}"
    save_faces(tmp_path / "utk", 2, "3{}_0_1_2017.jpg")
    captions = helpers.captions(notebook.FaceFolder(tmp_path / "utk"), [0])
    assert captions == ["Male\nBlack"], f"expected what the name says, got {captions}"
