"""Where the data is found: a folder, an archive, drawn faces; and what is no source."""

import os
import re
import shutil
import sys
import unicodedata
import zipfile
from pathlib import Path

import pytest
import torch
from data_inputs import archive, file_answer, names_below, save_faces, serve, zip_of_shades
from PIL import Image

import helpers
from assets.lib import archives
from assets.lib.downloads import PUBLISHED_SHA256, PUBLISHED_URL
from assets.lib.files import DataError
from assets.lib.folders import find_images
from assets.lib.pictures import load_face
from assets.lib.sources import are_two_folders, find_data, is_source

DEFAULT = "processed_celeba_small/"
REFUSED = "http://127.0.0.1:9/refused.zip"


@pytest.mark.parametrize("url", [PUBLISHED_URL, None, ""])
def test_no_network_means_drawn_faces(empty_place, capsys, monkeypatch, url):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    folder = find_data(DEFAULT, url, PUBLISHED_SHA256, n_drawn=8)
    assert len(find_images(folder)) == 8, "expected 8 drawn faces"
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Data")]
    reason = "no network (" if url else "no folder of photographs"
    assert len(printed) == 1 and reason in printed[0], f"expected one line, got {printed}"
    assert not Path(DEFAULT).exists(), "expected nothing half-made"


def test_large_photographs_are_drawn_where_their_folder_is_missing(empty_place, capsys):
    folder = find_data("celeba_128/", n_drawn=2, image_size=128)
    assert folder.name.startswith("2_at_128"), f"expected two drawn faces, got {folder}"


@pytest.mark.parametrize(
    "url",
    [REFUSED, "http://no-such-host.invalid/faces.zip", "gone"],
    ids=["refused", "no host", "404"],
)
def test_an_own_address_that_does_not_answer_is_an_error(empty_place, url):
    with serve(lambda handler: handler.send_error(404)) as dead:
        with pytest.raises(DataError, match="data_url = .*cannot be fetched") as caught:
            find_data(DEFAULT, dead if url == "gone" else url, None, 8)
    assert "drawn" in str(caught.value), f"expected the way out, got {caught.value}"
    assert not Path("drawn_faces").exists(), "expected no other faces than those asked for"


WRONG_FOLDERS = {
    "face": "faces",
    "Drawn": "drawn",
    "drawn/": "drawn",
    "faces/*.jpg": "faces",
    '"faces"': "faces",
    "faces ": "faces",
    "file:///nowhere/faces": "data_url",
    r"sub\faces": "faces",
    "https://example.org/faces.zip": "data_url",
    "img_align_celeba.zip": "celeba.zip",
    "/nowhere/at/all": "drawn",
    "~/no_such_faces": "drawn",
    "facs/part1": "faces",
    "FACES_": "faces",
    "./celebA": "celeba.zip",
}


ELSEWHERE = {"/nowhere/at/all", "~/no_such_faces", "./celebA"}  # an own archive may go there
URLS = {"published": PUBLISHED_URL, "none": None, "own": REFUSED}
WRONG_PAIRS = [(name, url) for name in WRONG_FOLDERS for url in URLS]
WRONG_PAIRS = [pair for pair in WRONG_PAIRS if pair[1] != "own" or pair[0] not in ELSEWHERE]


@pytest.mark.parametrize("wrong, url", WRONG_PAIRS)
def test_a_folder_that_was_chosen_and_is_not_there_is_an_error(empty_place, wrong, url):
    save_faces("faces", 2)
    Path("celeba.zip").write_bytes(archive())
    with pytest.raises(DataError, match="data_dir = .*is not there") as caught:
        find_data(wrong, URLS[url], None, 20, 16)
    nearest = WRONG_FOLDERS[wrong]
    found = str(caught.value).partition("nearest names are")[2]
    assert nearest in found, f"expected {nearest} to be named, got {caught.value}"
    assert not Path("drawn_faces").exists(), "expected no other faces"


def test_a_name_near_the_default_is_an_error(empty_place, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    save_faces("processed-celeba-small", 2)
    with pytest.raises(DataError, match="nearest names are 'processed-celeba-small"):
        find_data(DEFAULT, PUBLISHED_URL)


def test_a_folder_with_an_address_of_its_own_is_fetched(empty_place):
    save_faces("faces1", 2)
    with serve(file_answer(archive())) as url:
        folder = find_data(empty_place / "faces2", url)
    assert folder == empty_place / "faces2" and len(find_images(folder)) == 2


@pytest.mark.parametrize("wrong", [None, 5, "", " ", b"faces", ["faces"], True])
def test_what_is_no_folder_is_refused(empty_place, wrong):
    with pytest.raises(ValueError, match=f"data_dir = {re.escape(repr(wrong))} does not work"):
        find_data(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        r"C:\Users\me\faces.zip",
        "file://faces.zip",
        "s3://bucket/faces.zip",
        "http://127.0.0.1/my faces.zip",
        "/data/faces.zip",
        Path("faces.zip"),
        "faces.zip",
        "http:///faces.zip",
        "https://example.org/faces.zip\n",
        "ftp://example.org/faces.zip",
        7,
    ],
)
def test_an_address_that_can_never_work_is_an_error(empty_place, wrong):
    with pytest.raises(ValueError, match=f"data_url = {re.escape(repr(wrong))} does not work"):
        find_data("faces", wrong, None, 20, 16)


def test_a_file_address_that_leads_nowhere_is_an_error(empty_place):
    with pytest.raises(DataError, match="no file /nowhere/faces.zip"):
        find_data("faces", "file:///nowhere/faces.zip", None, 20, 16)


def test_folders_that_do_not_work(empty_place):
    Path("empty").mkdir()
    Path("file.txt").write_text("no folder", encoding="utf-8")
    Path("faces.tar.gz").write_bytes(b"\x1f\x8b")
    cases = ("empty", "holds no images"), ("file.txt", "not a folder"), ("faces.tar.gz", "a .zip")
    for name, message in cases:
        with pytest.raises(DataError, match=f"{name}.*{message}"):
            find_data(name)


def test_home_is_home(empty_place, monkeypatch, notebook):
    monkeypatch.setenv("HOME", str(empty_place / "home"))
    save_faces("home/faces", 12)
    save_faces("home/b", 9, first=50)
    folder = find_data("~/faces", None, None, 20, 16)
    assert folder == empty_place / "home" / "faces", f"got {folder}"
    assert len(notebook.get_dataloader(4, 16, "~/faces").dataset) == 12, "expected the 12 there"
    assert are_two_folders(["~/faces", "~/b"]), "expected both to be found"
    assert load_face("~/faces/000001.jpg", 16).shape == (1, 3, 16, 16)
    assert os.listdir() == ["home", "cache"] or sorted(os.listdir()) == ["cache", "home"]


def of_shade(folder):
    return {Image.open(path).getpixel((0, 0)) for path in find_images(folder)}


def test_an_archive_that_has_changed_is_unpacked_anew(empty_place, capsys):
    Path("own.zip").write_bytes(zip_of_shades(["1.png"]))
    assert find_data("own.zip") == Path("own"), "expected its own folder"
    Path("own.zip").write_bytes(zip_of_shades(["x.txt", "1.png"]))
    folder = find_data("own.zip")
    assert folder == Path("own-2") and of_shade(folder) == {10}, f"got {of_shade(folder)}"
    assert "own was not made from own.zip as it is" in capsys.readouterr().out
    assert find_data("own.zip") == Path("own-2"), "expected it to be found again"
    assert of_shade("own") == {0}, "expected the older folder as it was"


BESIDE = {
    "unrelated photographs": lambda: save_faces("own", 3),
    "an empty folder": lambda: Path("own").mkdir(),
    "a file": lambda: Path("own").write_text("text", encoding="utf-8"),
    "a folder without images": lambda: Path("own/a/b").mkdir(parents=True),
    "one unpacked by hand": lambda: zipfile.ZipFile("own.zip").extractall("own"),
    "one with a mark of another archive": lambda: (
        Path("own").mkdir(),
        Path("own", archives.MARK).write_text("12 abc", encoding="utf-8"),
    ),
}


@pytest.mark.parametrize("kind", BESIDE)
def test_a_folder_that_is_not_the_archives_is_left_alone(empty_place, kind, capsys):
    Path("own.zip").write_bytes(zip_of_shades(["a/1.png", "b/2.png"]))
    BESIDE[kind]()
    before = names_below("own")
    folder = find_data("own.zip")
    assert folder == Path("own-2") and of_shade(folder) == {0, 10}, "expected the archive's images"
    assert names_below("own") == before, "expected the folder as it was"
    assert "own was not made from own.zip" in capsys.readouterr().out, "expected a sentence"


@pytest.mark.parametrize("move", ["copied", "touched", "emptied in part"])
def test_an_unpacked_folder_is_known_again(empty_place, move):
    Path("own.zip").write_bytes(zip_of_shades(["1.png", "2.png"]))
    find_data("own.zip")
    if move == "copied":
        for name in ("own", "own.zip"):
            shutil.move(name, f"{name}.before")
        shutil.copytree("own.before", "own")
        shutil.copyfile("own.zip.before", "own.zip")
    elif move == "touched":
        os.utime("own.zip", (1, 1))
    else:
        Path("own/2.png").unlink()
    folder = find_data("own.zip")
    assert folder == Path("own"), f"expected it to be taken again, got {folder}"


@pytest.mark.parametrize("name", ["own.zip", "a b.ZIP", "x.y.zip"])
def test_a_zip_where_nothing_can_be_written_is_unpacked_in_the_cache(
    empty_place, monkeypatch, name
):
    for k, place in enumerate(["drive", "other"]):
        Path(place).mkdir()
        Path(place, name).write_bytes(zip_of_shades([*k * ["x.txt"], "1.png"]))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    stem = Path(name).stem
    for _ in range(2):
        folders = [find_data(f"{place}/{name}") for place in ("drive", "other")]
        assert folders == [Path("cache", stem), Path("cache", f"{stem}-2")], f"got {folders}"
    assert [of_shade(folder) for folder in folders] == [{0}, {10}], "expected each one's image"
    assert os.listdir("drive") == [name], "expected nothing to be written there"


# ---------------------------------------------------------------- names in other forms


def spelled(form, text):
    return unicodedata.normalize(form, text)


FORMS = ["NFC", "NFD"]
NAMES = ["für Zoë", "Fotos/Zoë/für dich", "한국 얼굴", "가/é.x", "Å", "~/Bilder ü"]


@pytest.mark.parametrize("on_disk, typed", [FORMS, FORMS[::-1]])
@pytest.mark.parametrize("name", NAMES)
def test_a_folder_spelled_in_the_other_form_is_found(
    empty_place, notebook, monkeypatch, name, on_disk, typed
):
    monkeypatch.setenv("HOME", str(empty_place))
    there = Path(spelled(on_disk, name)).expanduser()
    save_faces(there, 4)
    folder = find_data(spelled(typed, name))
    assert os.path.samefile(folder, there), f"expected {there}, got {folder}"
    assert len(notebook.get_dataloader(2, 16, spelled(typed, name)).dataset) == 4
    assert is_source(spelled(typed, name)), "expected large_dir to find it, too"
    assert load_face(spelled(typed, f"{name}/000001.jpg"), 16).shape == (1, 3, 16, 16)


@pytest.mark.parametrize("form", FORMS)
def test_of_two_forms_the_one_that_was_typed_is_taken(empty_place, form):
    save_faces(spelled("NFC", "é"), 2)
    save_faces(spelled("NFD", "é"), 3)
    n = len(find_images(find_data(spelled(form, "é"))))
    assert n == {"NFC": 2, "NFD": 3}[form], f"got {n} images"


def test_a_zip_spelled_in_the_other_form_is_found(empty_place):
    Path(spelled("NFD", "Zoë.zip")).write_bytes(archive())
    folder = find_data(spelled("NFC", "Zoë.zip"))
    assert len(find_images(folder)) == 2, "expected its two images"


@pytest.mark.parametrize("name", ["own ", " own", "own\t", "own.", "own\u00a0"])
def test_a_name_that_looks_the_same_is_shown_in_quotes(empty_place, name):
    save_faces(name, 2)
    with pytest.raises(DataError, match=re.escape(f"nearest names are {name!r}")):
        find_data("own")
    assert len(find_images(find_data(name))) == 2, "expected it by its own name"


ODD = ["a\nb", "\x1b[31m", "\u202egnp.exe", "🙂\u200d", "脸 \\frac{", "$x_", "a\x7f", "\u0378"]
if sys.platform == "linux":  # elsewhere names are text
    ODD += [os.fsdecode(b"b\xfcro"), os.fsdecode(b"\xff\xfe"), os.fsdecode("é".encode("latin-1"))]


@pytest.mark.parametrize("name", ODD)
def test_names_that_are_no_text_are_read_and_shown(empty_place, notebook, name, capsys):
    save_faces(Path("faces", name), 30, name.replace("{", "{{") + "{}.jpg")
    save_faces("faces/other", 30)
    Path("faces", name, f"{name}.jpg").write_bytes(b"no picture")
    folder = find_data(Path("faces", name))
    photographs = notebook.FaceFolder("faces")
    chosen = range(0, 61, 12)  # of both classes
    helpers.show_images(torch.zeros(6, 3, 4, 4), "", helpers.captions(photographs, chosen))
    assert len(notebook.get_dataloader(4, 16, "faces").dataset) == 60, "expected all to be read"
    for path, message in ((folder / "gone", "is not there"), (folder.parent / "x", "x' is not")):
        with pytest.raises(DataError, match=message) as caught:
            find_data(path)
        str(caught.value).encode()
    printed = capsys.readouterr().out
    printed.encode()  # a notebook keeps no text that UTF-8 cannot hold
    assert "\x1b" not in printed and "\u202e" not in printed, f"got {printed!r}"
