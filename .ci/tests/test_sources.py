"""Where the data is found: a folder, an archive, drawn faces; and what is no source."""

import os
import re
from pathlib import Path

import pytest
from data_inputs import archive, file_answer, save_faces, serve

from assets.lib.downloads import PUBLISHED_SHA256, PUBLISHED_URL
from assets.lib.files import DataError
from assets.lib.folders import find_images
from assets.lib.pictures import load_face
from assets.lib.sources import are_two_folders, find_data

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
