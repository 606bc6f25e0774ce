"""Lists of attributes: which there are, what is in them, and to which images it belongs."""

import unicodedata
from pathlib import Path
from unittest import mock

import pytest
import torch
from data_inputs import faces_named, save_faces, write_list

import helpers
from assets.lib.attributes import attribute_lists, read_attributes
from assets.lib.files import say_once

CELEBA = "list_attr_celeba.txt"


def values(labels):
    return {name: has.tolist() for name, has in labels.items()}


@pytest.fixture(autouse=True)
def say_anew():
    say_once.cache_clear()


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
    names, rows = read_attributes(tmp_path / "list.txt")
    found = {file: row.tolist() for file, row in rows.items()}
    expected = {file: [a > 0, b > 0] for file, a, b in ROWS}
    assert names == ["Male", "Smiling"], f"expected the two names, got {names}"
    assert found == expected, f"expected {expected}, got {found}"


def test_files_may_have_spaces_and_commas(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text('Male\nan old one.jpg 1\n"a quoted one.jpg" -1\n1 1\n', encoding="utf-8")
    _, rows = read_attributes(path)
    assert list(rows) == ["an old one.jpg", "a quoted one.jpg", "1"], f"got {list(rows)}"
    path.write_text('file,Male\n"Doe, Jane.jpg",1\n1,0\n', encoding="utf-8")
    _, rows = read_attributes(path)
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
        ("image_id,age,Male\n1.jpg,25,1\n2.jpg,31,0\n", "names no files: .* the column 'age'"),
        ("age,Male,Smiling\n25,1,0\n31,0,1\n", "the column 'age'"),
        ("subject;Male\n12;1\n13;0\n", "the column 'subject'"),
        (",score,Male\n0,0.7,1\n1,0.4,0\n", "the column 'score'"),
        (",Male,Smiling\n0,1,0\n1,0,1\n", "row numbers"),
        ("Male Smiling\n1 1 -1\n2 -1 1\n3 1 1\n", "row numbers"),
    ],
)
def test_what_is_no_list_of_attributes_is_refused(tmp_path, text, message):
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_attributes(tmp_path / "list.txt")


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
BETWEEN = {
    "torchvision's root": ("celeba/img_align_celeba", f"celeba/{CELEBA}"),
    "deeper": ("data/celeba/img", f"data/celeba/{CELEBA}"),
    "in an Anno": ("CelebA/Img/img_align_celeba", f"CelebA/Anno/{CELEBA}"),
    "CelebAMask-HQ's": ("HQ/CelebA-HQ-img", "HQ/CelebAMask-HQ-attribute-anno.txt"),
    "beside the images": ("celeba/img", f"celeba/img/{CELEBA}"),
    "of both parts": ("celeba/train", f"celeba/{CELEBA}"),
}


@pytest.mark.parametrize("place", BETWEEN)
def test_lists_are_found_on_the_way_to_the_images(tmp_path, place):
    folder, path = BETWEEN[place]
    names = [f"{i:06d}.jpg" for i in range(4)]
    write_list(tmp_path, {"Male": [True, False, False, True]}, names, path)
    known = faces_named(*(f"{folder}/{name}" for name in names), root=tmp_path).known
    assert values(known) == {"Male": [True, False, False, True]}, f"got {known}"


@pytest.mark.parametrize("place", PLACES)
def test_lists_are_found_where_people_have_them(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    folder, path = PLACES[place]
    Path(folder).mkdir(parents=True)
    write_list(".", {"Male": [True, False]}, ["0.jpg", "1.jpg"], path)
    for one in (folder, Path(folder).resolve()):
        found = [*attribute_lists(one, ["0.jpg"])]
        assert found == [Path(path).resolve()], f"expected {path}, got {found}"


def test_other_files_are_no_lists(tmp_path):
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    for name in ("list_eval_partition.txt", "attributes.csv", "list_attr_celeba.zip"):
        (folder / name).write_text("Male\n0.jpg 1\n", encoding="utf-8")
    (tmp_path / CELEBA).write_text("Male\n0.jpg 1\n", encoding="utf-8")  # three above
    assert [*attribute_lists(folder, ["0.jpg"])] == [], "expected no list"


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


BY_PATH = {
    "from the folder on": ("{}/{}.jpg", ""),
    "from the folder above on": ("faces/{}/{}.jpg", ""),
    "with other folders before": ("data/faces/{}/{}.jpg", ""),
    "backslashes": ("{}\\{}.jpg", ""),
    "without endings": ("{}/{}", ""),
    "other capitals": ("FACES/{}/{}.JPG", ""),
    "a list above": ("{}/{}.jpg", "../"),
}


@pytest.mark.parametrize("form", BY_PATH)
def test_lists_may_name_images_by_their_paths(tmp_path, form):
    listed, place = BY_PATH[form]
    pairs = [(folder, i) for folder in "ab" for i in range(4)]
    male = [folder == "a" for folder, _ in pairs]
    (tmp_path / "faces").mkdir()
    names = [listed.format(*pair) for pair in pairs]
    write_list(tmp_path / "faces", {"Male": male}, names, place + CELEBA)
    faces = faces_named(*(f"{folder}/{i}.jpg" for folder, i in pairs), root=tmp_path / "faces")
    assert values(faces.known) == {"Male": male}, f"expected those of a, got {faces.known}"


def test_a_row_is_not_shared_by_images_of_one_name(tmp_path, capsys):
    write_list(tmp_path, {"Male": [True, False]}, ["1.jpg", "2.jpg"])
    assert faces_named("a/1.jpg", "b/1.jpg", root=tmp_path).known == {}, "expected no guess"
    assert "nothing about 2 of 2 images" in capsys.readouterr().out, "expected a sentence"
    known = faces_named("a/1.jpg", "b/2.jpg", root=tmp_path).known
    assert values(known) == {"Male": [True, False]}, f"expected what is listed, got {known}"


OTHERS_LISTS = {
    "beside the folder": ("frames", CELEBA, "/list_attr_celeba.txt"),
    "two folders above": ("video/frames", CELEBA, "/list_attr_celeba.txt"),
    "in an Anno beside": ("frames", f"Anno/{CELEBA}", "Anno/list_attr_celeba.txt"),
    "between": ("data", f"data/celeba/{CELEBA}", "celeba/list_attr_celeba.txt"),
    "CelebAMask-HQ's": ("img", "CelebAMask-HQ-attribute-anno.txt", "/CelebAMask-HQ-attribute-anno"),
}


@pytest.mark.parametrize("place", OTHERS_LISTS)
def test_it_is_said_from_which_list_labels_come(tmp_path, capsys, place):
    folder, path, said = OTHERS_LISTS[place]
    (tmp_path / folder).mkdir(parents=True)
    names = [f"{i:06d}.jpg" for i in range(1, 40)]
    half = [i % 2 == 0 for i in range(1, 40)]
    write_list(tmp_path, dict(Male=half, Young=half, Bald=half, Hat=half), names, path)
    inner = "celeba/img_align_celeba/" if place == "between" else ""
    faces = faces_named(*(inner + name for name in names[:9]), root=tmp_path / folder)
    assert list(faces.known) == ["Male", "Young", "Bald", "Hat"], f"got {faces.known}"
    printed = capsys.readouterr().out
    assert "Labels from " in printed and f"{said}" in printed, f"expected the list, got {printed}"
    assert "Male, Young, Bald and 1 more." in printed, f"expected some names, got {printed}"


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
