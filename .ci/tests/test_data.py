"""Getting the data, reading pictures, decoding, settings, figures."""

import contextlib
import errno
import os
import re
import stat
import sys
import tempfile
import time
import types
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from unittest import mock

import hypothesis
import numpy as np
import pytest
import torch
from data_inputs import (
    archive,
    encoded,
    faces_named,
    file_answer,
    of_kind,
    photo_bytes,
    save_faces,
    save_shades,
    serve,
    sha256,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import helpers
from assets import drawn_faces, face_files

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


# ---------------------------------------------------------------- archives


def test_archive_over_http(empty_place, capsys):
    content = archive()
    with serve(file_answer(content)) as url:
        folder = helpers.find_data("faces_here", url, sha256(content))
    found = names_below(folder)
    expected = ["celeba/000001.jpg", "celeba/000002.jpg"]
    assert found == expected, f"expected only the two images, got {found}"
    assert "Data: 2 images found in faces_here" in printed_by(capsys), "expected one line"
    helpers.find_data("faces_here", REFUSED)
    assert "found in faces_here" in printed_by(capsys), "expected the folder the next time"
    assert not list(Path("cache").glob("*.zip")), "expected the archive to be removed"


def test_archive_from_a_file(empty_place):
    Path("faces.zip").write_bytes(archive())
    for number, url in enumerate((Path("faces.zip").resolve().as_uri(), "file://localhost")):
        url = url if number == 0 else url + Path("faces.zip").resolve().as_posix()
        folder = helpers.find_data(f"faces_{number}", url)
        assert len(face_files.find_images(folder)) == 2, f"{url}: expected two images"
    assert Path("faces.zip").exists(), "expected one's own file to be left in place"


@pytest.mark.parametrize("name", ["faces.zip", "FACES.ZIP", "~/faces.zip"])
def test_a_zip_as_data_dir_is_unpacked_next_to_it(empty_place, monkeypatch, name):
    monkeypatch.setenv("HOME", str(empty_place))
    Path(name.replace("~/", "")).write_bytes(archive())
    folder = helpers.find_data(name, helpers.PUBLISHED_URL, face_files.PUBLISHED_SHA256)
    assert folder.name == Path(name).stem, f"expected a folder of its stem, got {folder}"
    assert len(face_files.find_images(folder)) == 2, "expected two images"
    Path(folder, "celeba", "000001.jpg").unlink()
    assert len(face_files.find_images(helpers.find_data(name))) == 1, "expected it to stay"


def test_download_goes_on_where_it_stopped(empty_place):
    content, partial = archive(), Path("got.partial")
    partial.write_bytes(content[:100])
    answer = file_answer(content)
    with serve(answer) as url:
        path = face_files.download(url, "got", sha256(content))
    assert answer.asked == [100], f"expected only the rest to be sent, got {answer.asked}"
    assert path.read_bytes() == content and not partial.exists(), "expected the whole archive"


def test_a_download_that_was_complete_is_not_fetched_anew(empty_place):
    content = archive()
    for sha in (sha256(content), None):
        Path("got.partial").write_bytes(content)
        answer = file_answer(content)
        with serve(answer) as url:
            path = face_files.download(url, "got", sha)
        assert answer.asked == [len(content)], f"expected one question, got {answer.asked}"
        assert path.read_bytes() == content, "expected the archive that was there"
        path.unlink()
    Path("got.partial").write_bytes(b"something else, longer than the archive" * 200)
    with serve(file_answer(content)) as url:
        path = face_files.download(url, "got", sha256(content))
    assert path.read_bytes() == content, "expected a wrong beginning to be fetched anew"


def test_a_download_that_breaks_off_is_not_taken_for_whole(empty_place):
    content = archive()
    with serve(file_answer(content[:150], claimed=len(content))) as url:
        with pytest.raises(face_files.Unreachable, match="broke off"):
            face_files.download(url, "got", sha256(content))
    assert not Path("got.zip").exists(), "expected no archive under its final name"
    with serve(file_answer(content)) as url:
        path = face_files.download(url, "got", sha256(content))
    assert path.read_bytes() == content, "expected it to be completed"


def test_a_web_page_spares_what_was_downloaded(empty_place):
    def page(handler):  # without a Content-Length, as login pages are often sent
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"<!doctype html><html>Please log in</html>")

    Path("got.partial").write_bytes(archive()[:100])
    with serve(page) as url, pytest.raises(helpers.DataError, match="web page"):
        face_files.download(url, "got")
    assert Path("got.partial").read_bytes() == archive()[:100], "expected the beginning to be kept"


def test_a_zip_that_speaks_of_html_is_a_zip(empty_place):
    content = archive(["faces/1.jpg"], texts=[("faces/0.txt", "<html><!doctype")])
    content = archive(["<html>/1.jpg"])
    with serve(file_answer(content)) as url:
        assert face_files.download(url, "got").read_bytes() == content, (
            "expected the signature first"
        )


def test_an_archive_that_was_fetched_is_not_fetched_again(empty_place):
    answer = file_answer(archive())
    with serve(answer) as url:
        assert face_files.download(url, "got") == face_files.download(url, "got")
    assert len(answer.asked) == 1, f"expected one download, got {len(answer.asked)}"


ENCRYPTED = archive(["faces/1.jpg"]).replace(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0")
UNKNOWN_COMPRESSION = (
    archive(["faces/1.jpg"])
    .replace(b"PK\3\4\x14\0\0\0\0\0", b"PK\3\4\x14\0\0\0\x63\0")
    .replace(b"PK\1\2\x14\3\x14\0\0\0\0\0", b"PK\1\2\x14\3\x14\0\0\0\x63\0")
)
WRONG_ARCHIVES = {
    "html": (b"<!DOCTYPE html><html>Quota exceeded</html>", None, r"web page \(HTML\)"),
    "gzip": (b"\x1f\x8b not a zip", None, "no zip archive"),
    "sha256": (archive(), "0" * 64, "wrong sha256"),
    "size": (archive(), face_files.PUBLISHED_SHA256, "wrong size"),
    "truncated": (archive()[:-30], None, "cannot be unpacked"),
    "damaged": (archive().replace(b"JFIF", b"FIFJ", 1), None, "'faces.*' is damaged"),
    "no images": (archive(["faces/notes.txt"]), None, "no images"),
    "dot dot": (archive(["faces/../../out.jpg"]), None, "leads outside"),
    "absolute": (archive(["/etc/out.jpg"]), None, "leads outside"),
    "drive": (archive(["C:/out.jpg"]), None, "leads outside"),
    "backslash": (archive(["faces\\..\\out.jpg"]), None, "leads outside"),
    "backslash drive": (archive(["C:\\out.jpg"]), None, "leads outside"),
    "share": (archive(["\\\\server\\out.jpg"]), None, "leads outside"),
    "link": (archive(change=of_kind(stat.S_IFLNK)), None, "is a link or a device"),
    "device": (archive(change=of_kind(stat.S_IFBLK)), None, "is a link or a device"),
    "pipe": (archive(change=of_kind(stat.S_IFIFO)), None, "is a link or a device"),
    "encrypted": (ENCRYPTED, None, "encrypted"),
    "file as folder": (archive(["f/1.jpg", "f/1.jpg/2.jpg"]), None, "cannot be unpacked"),
    "damaged bzip2": (
        archive(compression=zipfile.ZIP_BZIP2).replace(b"BZh9", b"BZh0"),
        None,
        "cannot be unpacked",
    ),
    "damaged lzma": (
        archive(compression=zipfile.ZIP_LZMA).replace(b"\x5d\0\0", b"\xff\0\0"),
        None,
        "cannot be unpacked",
    ),
    "endless name": (archive([f"faces/{300 * 'x'}.jpg"]), None, "cannot hold the name 'faces/xxx"),
    "endless folder": (archive([f"{300 * 'x'}/1.jpg", "2.jpg"]), None, "cannot hold the name 'xxx"),
    "name that is no text": (
        archive(["faces/\xe9\u8138.jpg"]).replace("\u8138".encode(), b"\xff\xff\xff"),
        None,
        "cannot be unpacked",
    ),
    "unknown compression": (UNKNOWN_COMPRESSION, None, "cannot be unpacked"),
    "empty": (b"", None, "no zip archive"),
    "empty zip": (b"PK\5\6" + bytes(18), None, "no images"),
    "only a signature": (b"PK\3\4 and nothing more", None, "cannot be unpacked"),
}


@pytest.fixture(scope="module")
def shelf():
    """One server of all wrong archives, by name."""

    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(WRONG_ARCHIVES[handler.path[1:].replace("_", " ")][0])

    with serve(answer) as url:
        yield url.rpartition("/")[0]


@pytest.mark.parametrize("name", WRONG_ARCHIVES)
def test_wrong_archives_are_refused(empty_place, shelf, name):
    _, sha, message = WRONG_ARCHIVES[name]
    with pytest.raises(helpers.DataError, match=message) as caught:
        helpers.find_data("faces_here", f"{shelf}/{name.replace(' ', '_')}", sha)
    assert 'data_dir = "drawn"' in str(caught.value), f"expected the way out, got {caught.value}"
    left = [path.name for path in empty_place.iterdir() if path.suffix != ".lock"]
    assert left == ["cache"], f"expected nothing half-unpacked, got {left}"


def test_an_archive_in_an_archive_is_named(empty_place):
    with zipfile.ZipFile("outer.zip", "w") as pack:
        pack.writestr("Photos/img_align_celeba.zip", archive())
    with pytest.raises(helpers.DataError, match="no images, but img_align_celeba.zip: unpack it"):
        helpers.find_data("outer.zip")


def test_another_kind_of_archive_is_told(empty_place):
    Path("faces.zip").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(200))
    with pytest.raises(helpers.DataError, match="'faces.zip' is damaged, or no .zip"):
        helpers.find_data("faces.zip")


def test_a_link_to_the_folder_above_is_not_followed(empty_place):
    save_faces(empty_place / "album" / "faces", 3)
    save_faces(empty_place / "album" / "others", 4, "other {}.jpg")
    os.symlink("..", empty_place / "album" / "faces" / "up")
    found = len(face_files.find_images(empty_place / "album" / "faces"))
    assert found == 3, f"expected the 3 images of the folder, got {found}"


def test_a_huge_archive_is_refused(empty_place, monkeypatch):
    Path("huge.zip").write_bytes(archive(["faces/1.jpg"]))
    monkeypatch.setattr(face_files, "MAX_UNPACKED_BYTES", 10)
    with pytest.raises(helpers.DataError, match="more than"):
        helpers.find_data("huge.zip")


@hypothesis.settings(SEARCH, max_examples=150)
@given(
    names=st.lists(
        st.text(st.sampled_from("ab./\\: é脸\u202e\n~$"), min_size=1, max_size=12),
        min_size=1,
        max_size=3,
    )
)
def test_no_name_in_an_archive_leads_outside(empty_place, names):
    with tempfile.TemporaryDirectory(dir=".") as place:
        Path(place, "a.zip").write_bytes(archive([f"{name}.jpg" for name in names]))
        target = Path(place, "in", "here")
        target.mkdir(parents=True)
        with contextlib.suppress(helpers.DataError, OSError):
            face_files.unpack(f"{place}/a.zip", target)
        found = [path for path in Path(place).rglob("*") if path.is_file()]
        outside = [path for path in found if "here" not in path.parts and path.name != "a.zip"]
        assert not outside and os.listdir() == [Path(place).name], f"{names}: got {outside}"


TWO = [f"{kind}/{kind}{i}.jpg" for kind in ("man", "woman") for i in range(3)]
ALIKE = [f"{kind}/{i}.jpg" for kind in ("man", "woman") for i in range(3)]
LIST = ("celeba/list_attr_celeba.txt", "Male\n0.jpg 1\n1.jpg 1\n2.jpg -1\n")
LAYOUTS = {
    "two classes": (TWO, (), TWO),
    "numbered alike": (ALIKE, (), ALIKE),
    "classes in a folder": ([f"top/{name}" for name in TWO], (), TWO),
    "a class and a stray": (["man/1.jpg", "2.jpg"], (), ["2.jpg", "man/1.jpg"]),
    "a list": (
        [f"celeba/{i}.jpg" for i in range(3)],
        [LIST],
        ["0.jpg", "1.jpg", "2.jpg", "list_attr_celeba.txt"],
    ),
    "a list above": (
        ["img/1.jpg"],
        [("list_attr_celeba.csv", "image_id,Male\n1.jpg,1\n")],
        ["img/1.jpg", "list_attr_celeba.csv"],
    ),
    "a list in Anno": (
        ["CelebA/Img/1.jpg"],
        [("CelebA/Anno/list_attr_celeba.txt", "Male\n1.jpg 1\n")],
        ["Anno/list_attr_celeba.txt", "Img/1.jpg"],
    ),
    "backslashes": ([f"faces\\{i}.jpg" for i in range(3)], (), ["0.jpg", "1.jpg", "2.jpg"]),
    "backslashes and classes": (["a\\1.jpg", "b\\1.jpg"], (), ["a/1.jpg", "b/1.jpg"]),
    "tools": (["a/1.jpg", "a/@eaDir/1.jpg", "a/.thumbs/1.jpg", "__MACOSX/1.jpg"], (), ["1.jpg"]),
    "no ending": (["faces/one", "faces/2.jpg"], (), ["2.jpg", "one"]),
}
if os.name != "nt":
    LAYOUTS["colons"] = (["faces/shot 12:30:01.jpg"], (), ["shot 12:30:01.jpg"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_archives_keep_their_folders_and_lists(empty_place, layout):
    names, texts, expected = LAYOUTS[layout]
    Path("own.zip").write_bytes(archive(names, texts=texts))
    found = names_below(helpers.find_data("own.zip"))
    assert found == expected, f"expected {expected}, got {found}"


def test_an_archive_stays_when_the_disk_is_full(empty_place, monkeypatch):
    monkeypatch.setattr(face_files.shutil, "copyfileobj", full)
    with serve(file_answer(archive())) as url:
        with pytest.raises(OSError, match="faces_here cannot be written: No space.*Make room"):
            helpers.find_data("faces_here", url)
    assert list(Path("cache").glob("*.zip")), "expected the archive to be kept"
    assert not Path("faces_here").exists(), "expected nothing half-unpacked"


# ---------------------------------------------------------------- where the data is


@pytest.mark.parametrize("url", [helpers.PUBLISHED_URL, None, ""])
def test_no_network_means_drawn_faces(empty_place, capsys, monkeypatch, url):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    folder = helpers.find_data(DEFAULT, url, face_files.PUBLISHED_SHA256, n_drawn=8)
    assert len(face_files.find_images(folder)) == 8, "expected 8 drawn faces"
    printed = [line for line in printed_by(capsys).splitlines() if line.startswith("Data")]
    reason = "no network (" if url else "no folder of photographs"
    assert len(printed) == 1 and reason in printed[0], f"expected one line, got {printed}"
    assert not Path(DEFAULT).exists(), "expected nothing half-made"


def test_large_photographs_are_drawn_where_their_folder_is_missing(empty_place, capsys):
    folder = helpers.find_data("celeba_128/", n_drawn=2, image_size=128)
    assert folder.name.startswith("2_at_128"), f"expected two drawn faces, got {folder}"


@pytest.mark.parametrize(
    "url",
    [REFUSED, "http://no-such-host.invalid/faces.zip", "gone"],
    ids=["refused", "no host", "404"],
)
def test_an_own_address_that_does_not_answer_is_an_error(empty_place, url):
    with serve(lambda handler: handler.send_error(404)) as dead:
        with pytest.raises(helpers.DataError, match="data_url = .*cannot be fetched") as caught:
            helpers.find_data(DEFAULT, dead if url == "gone" else url, None, 8)
    assert "drawn" in str(caught.value), f"expected the way out, got {caught.value}"
    assert not Path("drawn_faces").exists(), "expected no other faces than those asked for"


def test_a_server_that_hangs_is_given_up(empty_place):
    def half(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(archive())))
        handler.end_headers()
        handler.wfile.write(archive()[:200])
        handler.wfile.flush()
        time.sleep(1.5)

    cases = (lambda handler: time.sleep(1.5), "no network"), (half, "broke off")
    for answer, message in cases:
        with serve(answer) as url, pytest.raises(face_files.Unreachable, match=message):
            face_files.download(url, "got", timeout=0.3)


def test_a_redirect_to_a_login_page_is_named(empty_place):
    def answer(handler):
        is_login = "login" in handler.path
        handler.send_response(200 if is_login else 302)
        handler.send_header("Location", "/login")
        handler.end_headers()
        handler.wfile.write(b"<html>Please log in</html>" if is_login else b"")

    with serve(answer) as url, pytest.raises(helpers.DataError, match="At .*/login there is a web"):
        face_files.download(url, "got")


def test_a_full_disk_ends_a_download_but_keeps_its_beginning(empty_place, monkeypatch):
    bar = mock.MagicMock()
    bar.update.side_effect = full
    monkeypatch.setattr(helpers, "progress", lambda *_, **__: bar)
    with serve(file_answer(archive())) as url, pytest.raises(OSError, match="No space.*Make room"):
        helpers.find_data("faces_here", url)
    assert list(Path("cache").glob("*.partial")), "expected the partial file to be kept"
    assert not list(Path("cache").glob("*.zip")), "expected no archive under its final name"


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
URLS = {"published": helpers.PUBLISHED_URL, "none": None, "own": REFUSED}
WRONG_PAIRS = [(name, url) for name in WRONG_FOLDERS for url in URLS]
WRONG_PAIRS = [pair for pair in WRONG_PAIRS if pair[1] != "own" or pair[0] not in ELSEWHERE]


@pytest.mark.parametrize("wrong, url", WRONG_PAIRS)
def test_a_folder_that_was_chosen_and_is_not_there_is_an_error(empty_place, wrong, url):
    save_faces("faces", 2)
    Path("celeba.zip").write_bytes(archive())
    with pytest.raises(helpers.DataError, match="data_dir = .*is not there") as caught:
        helpers.find_data(wrong, URLS[url], None, 20, 16)
    nearest = WRONG_FOLDERS[wrong]
    found = str(caught.value).partition("nearest names are")[2]
    assert nearest in found, f"expected {nearest} to be named, got {caught.value}"
    assert not Path("drawn_faces").exists(), "expected no other faces"


def test_a_name_near_the_default_is_an_error(empty_place, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    save_faces("processed-celeba-small", 2)
    with pytest.raises(helpers.DataError, match="nearest names are processed-celeba-small"):
        helpers.find_data(DEFAULT, helpers.PUBLISHED_URL)


def test_a_folder_with_an_address_of_its_own_is_fetched(empty_place):
    save_faces("faces1", 2)
    with serve(file_answer(archive())) as url:
        folder = helpers.find_data(empty_place / "faces2", url)
    assert folder == empty_place / "faces2" and len(face_files.find_images(folder)) == 2


@pytest.mark.parametrize("wrong", [None, 5, "", " ", b"faces", ["faces"], True])
def test_what_is_no_folder_is_refused(empty_place, wrong):
    with pytest.raises(ValueError, match=f"data_dir = {re.escape(repr(wrong))} does not work"):
        helpers.find_data(wrong)


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
        helpers.find_data("faces", wrong, None, 20, 16)


def test_a_file_address_that_leads_nowhere_is_an_error(empty_place):
    with pytest.raises(helpers.DataError, match="no file /nowhere/faces.zip"):
        helpers.find_data("faces", "file:///nowhere/faces.zip", None, 20, 16)


def test_folders_that_do_not_work(empty_place):
    Path("empty").mkdir()
    Path("file.txt").write_text("no folder", encoding="utf-8")
    Path("faces.tar.gz").write_bytes(b"\x1f\x8b")
    cases = ("empty", "holds no images"), ("file.txt", "not a folder"), ("faces.tar.gz", "a .zip")
    for name, message in cases:
        with pytest.raises(helpers.DataError, match=f"{name}.*{message}"):
            helpers.find_data(name)


def test_home_is_home(empty_place, monkeypatch, notebook):
    monkeypatch.setenv("HOME", str(empty_place / "home"))
    save_faces("home/faces", 12)
    save_faces("home/b", 9, first=50)
    folder = helpers.find_data("~/faces", None, None, 20, 16)
    assert folder == empty_place / "home" / "faces", f"got {folder}"
    assert len(notebook.get_dataloader(4, 16, "~/faces").dataset) == 12, "expected the 12 there"
    settings = {"domain_dirs": ["~/faces", "~/b"], "photograph": "~/faces/000001.jpg"}
    helpers.check_settings(settings | {"image_size": 16})
    assert os.listdir() == ["home", "cache"] or sorted(os.listdir()) == ["cache", "home"]


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


# ---------------------------------------------------------------- folders


def test_what_pillow_reads_is_read_and_the_rest_is_counted(empty_place, notebook, capsys):
    kinds = {"pgm": "PPM", "jfif": "JPEG", "jpe": "JPEG", "gif": "GIF", "apng": "PNG", "": "JPEG"}
    if "AVIF" in face_files.IMAGE_FORMATS:
        kinds["avif"] = "AVIF"
    for ending, kind in kinds.items():
        save_faces("mixed", 2, f"{ending}{{}}" + (f".{ending}" if ending else ""), kind=kind)
    for i in range(5):
        Path(f"mixed/IMG_{i}.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    Path("mixed/README").write_text("no picture", encoding="utf-8")
    Path("mixed/.hidden.jpg").write_bytes(photo_bytes())
    helpers.find_data("mixed")
    printed = printed_by(capsys)
    n = 2 * len(kinds)
    expected = f"{n} images found in mixed; passed over: 5 .heic, 1 without ending"
    assert expected in printed, f"expected {expected!r}, got {printed}"
    assert len(notebook.get_dataloader(2, 16, "mixed").dataset) == n, "expected all to be decoded"


def test_folders_of_tools_and_our_own_are_skipped(empty_place):
    tools = ".ipynb_checkpoints @eaDir __MACOSX lost+found #recycle $RECYCLE.BIN .git".split()
    for folder in ("man", "woman", *tools, "assets", "runs/lesson/samples", "drawn_faces/8"):
        save_faces(Path("place", folder), 2)
    names = {path.split("/")[1] for path in face_files.find_images("place")}
    assert names == {"man", "woman", "assets", "runs", "drawn_faces"}, f"got {names}"
    Path("place/helpers.py").write_text("", encoding="utf-8")
    assert helpers.class_folders("place") == ["man", "woman"], "expected none of our own"


def test_strays_take_no_class_away(empty_place, capsys):
    for name in ("man", "woman"):
        save_faces(Path("faces", name), 15)
    save_faces("faces", 1, "cover{}.jpg")
    assert helpers.class_folders("faces") == ["man", "woman"], "expected the two classes"
    assert "Left out 1 images next to the class folders, such as cover1.jpg" in printed_by(capsys)
    assert len(helpers.labelled_images("faces", {"man": 0, "woman": 1})) == 30
    save_faces("faces", 20, "more{}.jpg")
    assert helpers.class_folders("faces") == ["."], "expected one class, as they are many"
    assert len(helpers.labelled_images("faces", {".": 0})) == 51, "expected all of them"


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ENOTCONN])
def test_folders_that_cannot_be_listed_are_an_error(empty_place, number):
    save_faces("faces/part1", 3)
    save_faces("faces/part2", 3, first=50)
    listing = os.scandir

    def drive(path="."):
        if str(path).endswith("part2"):
            raise OSError(number, os.strerror(number), str(path))
        return listing(path)

    with mock.patch("os.scandir", drive):
        for folder in ("faces", "faces/part2"):
            with pytest.raises(OSError, match="part2 cannot be listed") as caught:
                helpers.find_data(folder)
            assert caught.value.errno == number, f"expected {number}, got {caught.value.errno}"
        with pytest.raises(OSError, match="cannot be listed"):
            helpers.check_settings({"domain_dirs": ["faces/part1", "faces/part2"]})
    assert len(face_files.find_images(helpers.find_data("faces"))) == 6, "expected all, later"


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_that_go_in_circles_move_no_image_to_another_class(empty_place, notebook):
    for name in "ab":
        save_shades(Path("photos", name), 3)
        Path("photos", name, "back").symlink_to("..")
        Path("photos", name, "other").symlink_to(Path("..", "ba"["ab".index(name)]))
    faces = notebook.get_dataloader(2, 16, "photos").dataset
    expected = [0] * 3 + [1] * 3
    assert faces.classes == ["a", "b"] and faces.labels.tolist() == expected, f"got {faces.labels}"


# ---------------------------------------------------------------- pictures


def kinds_of_images():
    """File names, contents and, for those that can be read, the colour that a person would see."""
    orange, seen = Image.new("RGB", (40, 48), (220, 120, 40)), (220, 120, 40)
    grey = orange.convert("L")
    shade, white = (grey.getpixel((0, 0)),) * 3, (255, 255, 255)
    clear, half = orange.convert("RGBA"), orange.convert("RGBA")
    clear.putalpha(0)
    half.putalpha(128)
    palette = orange.convert("P", palette=Image.Palette.ADAPTIVE)
    deep = Image.fromarray(np.full((48, 40), 200 * 257, np.uint16))
    upside_down = Image.Exif()
    upside_down[0x0112] = 3
    jpeg, png = encoded(orange, "JPEG", quality=95), encoded(orange, "PNG")
    cmyk, bad_exif = orange.convert("CMYK"), b"Exif\0\0II*\0\xff\xff\xff\xff"
    noise = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    rough = encoded(Image.fromarray(noise), "JPEG", quality=95)
    yield "plain.jpg", jpeg, seen
    yield "progressive.jpg", encoded(orange, "JPEG", quality=95, progressive=True), seen
    yield "grey.jpg", encoded(grey, "JPEG"), shade
    yield "cmyk.jpg", encoded(cmyk, "JPEG", quality=95), seen
    yield "turned.jpg", encoded(orange, "JPEG", quality=95, exif=upside_down), seen
    yield "damaged exif.jpg", encoded(orange, "JPEG", quality=95, exif=bad_exif), seen
    yield "a png.jpg", png, seen
    yield "a jpeg.png", jpeg, seen
    yield "a webp.jpg", encoded(orange, "WEBP", lossless=True), seen
    yield "palette.png", encoded(palette, "PNG"), seen
    yield (
        "clear palette.png",
        encoded(palette, "PNG", transparency=palette.getpixel((0, 0))),
        white,
    )
    yield "clear.png", encoded(clear, "PNG"), white
    yield "half clear.png", encoded(half, "PNG"), tuple((c + 255) // 2 for c in seen)
    yield "grey alpha.png", encoded(half.convert("LA"), "PNG"), ((shade[0] + 255) // 2,) * 3
    yield "one bit.png", encoded(Image.new("1", (40, 40), 1), "PNG"), white
    yield "sixteen bits.png", encoded(deep, "PNG"), (200, 200, 200)
    yield "sixteen bits.tif", encoded(deep, "TIFF"), (200, 200, 200)
    for top in (1, 255, 65535):
        values = np.full((48, 40), 200 / 255 * top)
        values[0, 0] = top
        yield f"float {top}.tif", encoded(Image.fromarray(values.astype(np.float32)), "TIFF"), None
        yield (
            f"long {top}.tif",
            encoded(Image.fromarray(values.round().astype(np.int32)), "TIFF"),
            None,
        )
    yield "packed.tiff", encoded(orange, "TIFF", compression="tiff_lzw"), seen
    yield "a gif.jpg", encoded(palette, "GIF"), seen
    yield "old.bmp", encoded(orange, "BMP"), seen
    yield "SHOUTED.JPG", jpeg, seen
    yield "one pixel.png", encoded(orange.crop((0, 0, 1, 1)), "PNG"), seen
    yield "Zoë's 脸 🙂.png", png, seen
    yield "no end marker.jpg", jpeg[:-2], seen
    yield "half an end marker.jpg", jpeg[:-1], seen
    yield "empty.jpg", b"", "unreadable"
    yield "text.jpg", b"no picture", "unreadable"
    yield "page.jpg", b"<!doctype html><html>gone</html>", "unreadable"
    yield "cut off.jpg", rough[: len(rough) // 2], "unreadable"
    yield "cut off near the end.jpg", rough[:-400], "unreadable"
    yield "cut off.png", png[: len(png) // 2], "unreadable"
    yield "overwritten.png", png[:40] + bytes(40) + png[80:], "unreadable"
    yield "archive.png", archive(), "unreadable"
    yield "drawing.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF", "unreadable"
    yield "bomb.png", encoded(Image.new("1", (14_000, 14_000)), "PNG"), "unreadable"
    yield "strip.png", encoded(Image.new("1", (1, 30_000)), "PNG"), "unreadable"


ROWS = [
    (name, content, (200, 200, 200) if colour is None else colour)
    for name, content, colour in kinds_of_images()
]
ROWS = [row if row[0] != "long 1.tif" else (*row[:2], (255, 255, 255)) for row in ROWS]


def test_images_are_read_as_a_person_sees_them(empty_place):
    for name, content, colour in ROWS:
        Path(name).write_bytes(content)
        try:
            image = helpers.load_image(name)
        except face_files.UNREADABLE as error:
            assert colour == "unreadable", f"{name}: expected it to be read, got {error!r}"
            continue
        assert colour != "unreadable", f"{name}: expected it to be left out, got {image.size}"
        found = image.getpixel((image.width // 2, image.height // 2))
        is_near = np.abs(np.subtract(found, colour)).max() <= 3
        assert image.mode == "RGB" and is_near, f"{name}: expected {colour}, got {found}"


def test_a_folder_of_all_kinds_loads(empty_place, notebook, capsys):
    save_shades("photos", 200)
    for name, content, _ in ROWS:
        Path("photos", name).write_bytes(content)
    n_bad = sum(colour == "unreadable" for *_, colour in ROWS)
    n_good = 200 + len(ROWS) - n_bad
    if os.name != "nt":
        links = ("round.jpg", "round.jpg"), ("gone.jpg", "nowhere"), ("round", "."), ("back", "..")
        for name, target in (*links, ("link.jpg", "plain.jpg")):
            Path("photos", name).symlink_to(target)
        n_good, n_bad = n_good + 1, n_bad + 2
    faces = notebook.get_dataloader(3, 16, "photos").dataset
    assert len(faces) == n_good, f"expected the {n_good} readable images, got {len(faces)}"
    printed = printed_by(capsys)
    expected = f"Left out {n_bad} unreadable files, the first: archive.png, bomb.png"
    assert expected in printed, f"expected {expected!r}, got {printed}"
    assert all(image.any() for image in faces.images[faces.rows]), "expected no black picture"


@hypothesis.settings(SEARCH, max_examples=100)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM"]),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_images_are_read_or_left_out(empty_place, kind, changes):
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    content = bytearray(encoded(Image.fromarray(noise), kind))
    for place, value in changes:
        content[int(place * len(content))] = value
    Path("damaged.img").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with contextlib.suppress(*face_files.UNREADABLE):
            assert helpers.load_image("damaged.img").mode == "RGB", "expected RGB"


def test_photographs_are_turned_as_the_camera_was_held(empty_place, notebook):
    Path("photos").mkdir()
    photo, turned = Image.new("RGB", (40, 60), (200, 0, 0)), Image.Exif()
    photo.paste((0, 0, 200), (0, 0, 40, 30))
    turned[0x0112] = 6  # to be seen rotated by a quarter, clockwise
    photo.save("photos/portrait.jpg", exif=turned)
    image, _ = notebook.get_dataloader(1, 16, "photos").dataset[0]
    assert image[2, 8, 14] > 0.5 and image[0, 8, 1] > 0.5, "expected the blue half on the right"


def test_a_face_of_ones_own(tmp_path):
    picture = Image.new("RGB", (200, 100), "red")
    picture.paste("blue", (150, 0, 200, 50))
    picture.save(tmp_path / "me.png")
    face = helpers.load_face(tmp_path / "me.png", 32)
    assert face.shape == (1, 3, 32, 32), f"expected (1, 3, 32, 32), got {face.shape}"
    assert face[0, :, 16, 16].tolist() == [1, -1, -1], "expected the red centre"
    face = helpers.load_face(tmp_path / "me.png", 16, (150, 0, 200, 50))
    assert torch.allclose(face[0, :, 8, 8], torch.tensor([-1.0, -1, 1])), "expected the blue box"
    for box in ((150, 0, 250, 50), (50, 0, 20, 50)):
        with pytest.raises(ValueError, match="does not lie in .*200 x 100 pixels"):
            helpers.load_face(tmp_path / "me.png", 16, box)
    (tmp_path / "me.txt").write_text("no picture", encoding="utf-8")
    for name, message in (("me.txt", ""), ("nobody.png", "No such file"), ("", "directory")):
        with pytest.raises(ValueError, match=f"{name}.* cannot be read as a picture .*{message}"):
            helpers.load_face(tmp_path / name, 16)


# ---------------------------------------------------------------- decoding


def test_faces_are_decoded_once(empty_place, notebook, monkeypatch, capsys):
    save_shades("photos", 21)
    Path("photos/broken.jpg").write_bytes(photo_bytes()[:200])
    Path("photos/text.png").write_text("no picture", encoding="utf-8")
    first = notebook.get_dataloader(3, 32, "photos").dataset
    expected = "Left out 2 unreadable files, the first: broken.jpg, text.png"
    assert len(first) == 21 and expected in printed_by(capsys), "expected the readable images"
    with monkeypatch.context() as patch:
        patch.setattr(helpers, "decode_together", lambda *_: pytest.fail("expected the cache"))
        second = notebook.get_dataloader(3, 32, "photos").dataset
    assert torch.equal(first.images, second.images), "expected the same pixels from the cache"
    rows = first.rows.tolist()
    assert [first.names[row] for row in rows] == [f"{i:03}.png" for i in range(21)], "all rows"
    Path("photos/new.jpg").write_bytes(photo_bytes())
    Path("photos/text.png").unlink()
    assert len(notebook.get_dataloader(3, 32, "photos").dataset) == 22, "expected it anew"
    smaller = notebook.get_dataloader(3, 16, "photos").dataset
    assert smaller.images.shape[-1] == 16, "expected another size to be decoded anew"
    if os.name != "nt":
        Path("photos/gone.jpg").symlink_to("nowhere.jpg")
        faces = notebook.get_dataloader(3, 32, "photos").dataset
        assert len(faces) == 22 and "gone.jpg" in printed_by(capsys), "expected it to be left out"
    for name in ("text.png", "text2.png"):
        Path("photos", name).write_text("no picture", encoding="utf-8")
    with pytest.raises(
        helpers.DataError, match="[34] of the 2[56] images in photos cannot be read"
    ):
        notebook.get_dataloader(3, 32, "photos")


def test_the_newest_decoded_copies_are_kept(empty_place, notebook, capsys):
    save_shades("photos", 4)
    save_shades("others", 4)
    notebook.get_dataloader(2, 16, "others")
    for i in range(helpers.KEPT_COPIES + 2):
        save_faces("photos", 1, "more{}.jpg", first=i)
        notebook.get_dataloader(2, 16, "photos")
    copies = list(Path("cache").glob("decoded_*"))
    assert len(copies) == helpers.KEPT_COPIES + 1, f"expected the newest few, got {len(copies)}"
    assert printed_by(capsys).count("Removed 1 older decoded copies from cache") == 2
    os.rename("others", "elsewhere")
    notebook.get_dataloader(2, 32, "photos")
    sources = [Path(note).read_text() for note in Path("cache").glob("*/source.txt")]
    assert not any("others" in source for source in sources), "expected no copy of what is gone"


def test_copies_of_folders_with_odd_names_are_kept(empty_place, notebook, monkeypatch):
    monkeypatch.setenv("HOME", str(empty_place))
    monkeypatch.setenv("USERPROFILE", str(empty_place))
    names = [Path("~", "photos")]
    if sys.platform == "linux":  # elsewhere names are text
        names.append(Path(os.fsdecode(b"b\xfcro")))
    for name in names:
        save_shades(face_files.to_path(name), 4)
        notebook.get_dataloader(2, 16, name)
    copies = len(list(Path("cache").glob("decoded_*")))
    assert copies == len(names), f"expected a copy of each, got {copies}"


def test_an_archive_that_cannot_be_read_says_so(empty_place):
    Path("faces.zip").mkdir()  # opening it fails, as it does without permission
    with pytest.raises(face_files.DataError, match="faces.zip cannot be read"):
        face_files.fetch(Path("faces.zip"), empty_place / "faces", None, empty_place)


def transform(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[:, :16, :16] / 255


def test_transforms_that_give_other_shapes_are_refused(empty_place, notebook):
    save_faces("photos", 3)
    Image.new("RGB", (10, 10)).save("photos/small.png")
    with pytest.raises(ValueError, match="let it end in CenterCrop"):
        helpers.decode_once(notebook.FaceFolder("photos", transform))
    assert not list(Path("cache").glob("decoded_*")), "expected nothing half-made"


def drive_that_fails(path, times, number=errno.EIO):
    """A loader of pictures that fails for this file a few times."""
    left = [times]

    def load(asked):
        if asked.endswith(path) and left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number), asked)
        return helpers.load_image(asked)

    return load


def test_a_read_error_is_not_a_damaged_picture(empty_place, notebook, monkeypatch):
    monkeypatch.setattr(face_files.time, "sleep", lambda seconds: None)
    save_faces("photos", 10)
    faces = notebook.FaceFolder("photos", transform)
    faces.loader = drive_that_fails("03.jpg", 2)
    assert len(helpers.decode_once(faces)) == 10, "expected a transient error to pass"
    for number in (errno.EIO, errno.EACCES, errno.ESTALE):
        save_faces("photos", 1, "new.jpg")
        faces = notebook.FaceFolder("photos", transform)
        faces.loader = drive_that_fails("new.jpg", 10**6, number)
        with pytest.raises(OSError, match="new.jpg is there but cannot be read") as caught:
            helpers.decode_once(faces)
        assert caught.value.errno == number, f"expected {number}, got {caught.value.errno}"
        with pytest.raises(OSError, match="new.jpg is there but cannot be read"):
            helpers.readable(faces, [10])
    faces.loader = helpers.load_image
    assert len(helpers.decode_once(faces)) == 11, "expected it to be tried again the next time"


def test_readable_names_the_first(empty_place, notebook):
    save_faces("photos", 2)
    Path("photos/b.jpg").write_text("no picture", encoding="utf-8")
    faces = notebook.FaceFolder("photos")
    assert helpers.readable(faces, [0, 1, 2]) == [0, 1], "expected the readable ones"
    with pytest.raises(helpers.DataError, match="None of the 1 images tried .* b.jpg: Unid"):
        helpers.readable(faces, [2])


@pytest.mark.parametrize("what", ["no mmap", "full", "filling", "read-only"])
def test_drives_that_cannot_do_everything(empty_place, notebook, monkeypatch, what):
    save_faces("photos", 6)
    load = np.load

    def load_without_maps(path, mmap_mode=None):
        if mmap_mode:
            raise OSError(errno.ENODEV, "No such device")
        return load(path)

    usage = types.SimpleNamespace(free=100)
    if what == "no mmap":
        monkeypatch.setattr(np, "load", load_without_maps)
        assert len(notebook.get_dataloader(2, 16, "photos").dataset.images) == 6
        return
    if what == "full":
        monkeypatch.setattr(helpers.shutil, "disk_usage", lambda path: usage)
    if what == "filling":
        monkeypatch.setattr(helpers, "write_rows", full)
    if what == "read-only":
        error = OSError(errno.EROFS, os.strerror(errno.EROFS))
        monkeypatch.setattr(face_files, "FileLock", mock.Mock(side_effect=error))
    message = "Make it writable, or start" if what == "read-only" else "Make room on the disk"
    with pytest.raises(OSError, match=f"cache cannot be written: .*{message}"):
        notebook.get_dataloader(2, 16, "photos")
    assert not list(Path("cache").glob("decoded*")), "expected nothing half-made"


def test_a_disk_without_room_for_drawn_faces_is_named(empty_place, monkeypatch):
    monkeypatch.setattr(drawn_faces, "_save", full)
    with pytest.raises(OSError, match="drawn_faces/20_at_64_v3 cannot be written: No space"):
        helpers.find_data("drawn", n_drawn=20)
    assert not Path("drawn_faces/20_at_64_v3").exists(), "expected nothing half-made"


def anonymous_megabytes():
    """The memory of this process without the pages of mapped files; nan where nobody says so."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    return int(re.search(r"RssAnon:\s+(\d+)", status.read_text())[1]) / 1e3


class Shades:
    """Stands for an ImageFolder of n pictures, each of one shade."""

    root, classes, transform, most = ".", ["a"], None, 0

    def __init__(self, n):
        self.samples, self.targets = [(__file__, 0)] * n, [0] * n

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        if index % 100 == 0:
            self.most = max(self.most, anonymous_megabytes())
        return torch.full((3, 64, 64), index % 256 / 255), 0


@pytest.mark.skipif(anonymous_megabytes() != anonymous_megabytes(), reason="there is no /proc")
def test_decoded_faces_take_disk_and_not_memory(empty_place):
    before, folder = anonymous_megabytes(), Shades(20_000)
    faces = helpers.decode_once(folder, flip=True)  # 246 MB of pixels
    faces.rows, shades = torch.arange(len(folder)), torch.empty(200, 100)
    loader = torch.utils.data.DataLoader(faces, 100, collate_fn=helpers.as_batch)
    for row, (images, _) in zip(shades, loader):
        row[:] = images[:, 0, 0, 0]
    most = max(folder.most, anonymous_megabytes())
    found = (255 * shades.flatten()).round().long()
    assert torch.equal(found, torch.arange(20_000) % 256), "expected them in order"
    assert most - before < 150, f"expected pixels on the disk, got {most - before:.0f} MB of memory"


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
    parts = face_files.parts_of(celeba)
    numbers = np.array([int(name[:6]) for name in celeba])
    assert (parts[numbers <= 162_770] == 0).all(), "expected no training image held out"
    assert np.bincount(parts)[1:].tolist() == [974, 974], f"got {np.bincount(parts)}"
    few = [f"{i:06d}.jpg" for i in range(1, 1601)] + ["162771.jpg"]
    held = (face_files.parts_of(few) > 0).sum()
    assert held == 200, f"expected an eighth where hardly one has CelebA's high numbers, got {held}"
    other = [f"{drawn_faces.OTHER_SEED}{i:06d}.jpg" for i in range(125)]
    drawn = [f"{i:06d}.jpg" for i in range(1000)] + other
    held = face_files.parts_of(drawn).nonzero()[0].tolist()
    assert held == [*range(1000, 1125)], "expected the drawn faces of the other seed, no others"
    photos = [f"photo{i}.png" for i in range(1200)]
    parts = dict(zip(photos, face_files.parts_of(photos)))
    back = dict(zip(photos[::-1], face_files.parts_of(photos[::-1])))
    assert sum(part > 0 for part in parts.values()) == 150, "expected an eighth of any folder"
    assert parts == back, "expected names to decide, got the order"
    assert not face_files.parts_of(photos[:999]).any(), "expected a small folder whole"
    digest = sha256(face_files.parts_of(photos).tobytes())
    assert digest == "f6e849b2f6eb3ba6e3a73857df3bbc15cefcce0bc1a5e5b72079386ebd98d13d", (
        f"expected the parts of earlier versions, got {digest}"
    )


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


# ---------------------------------------------------------------- figures and devices


def test_pixels_are_clipped_and_never_rescaled():
    values = torch.tensor([-3.0, -1.0, 0.0, 0.5, 1.0, 2.0])
    images = values.view(6, 1, 1, 1).expand(6, 3, 4, 4)
    found = helpers.to_bytes(images)[:, 0, 0, 0].tolist()
    assert found == [0, 0, 128, 191, 255, 255], f"expected -1 at 0 and 1 at 255, got {found}"
    assert helpers.to_bytes(images[2:3], (0, 1)).max() == 0, "expected the range to be honoured"
    grid = helpers.image_grid(images, columns=4)
    assert grid.shape == (10, 22, 3) and grid.dtype == np.uint8, f"got {grid.shape}"
    assert (grid[4:6] == 255).all() and (grid[:4, :4] == 0).all(), "expected white gaps"
    assert helpers.image_grid(images[:1]).shape == (4, 4, 3), "one image: expected no gap"


def test_figures_show_any_name(monkeypatch):
    shown, images = [], torch.zeros(3, 3, 4, 4)
    monkeypatch.setattr(helpers.plt, "show", lambda: shown.append(helpers.plt.gcf()))
    names = ["$a_{", "100 $ and 5 $", "脸 \\frac{"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        helpers.show_images(images, "$x^$", names, columns=2, row_labels=["$_", "^$"])
    shown[0].canvas.draw()
    texts = [text.get_text() for text in shown[0].findobj(helpers.plt.Text)]
    assert {*names, "$x^$", "$_", "^$"} <= set(texts), (
        f"expected the names as they are, got {texts}"
    )
    assert not helpers.plt.get_fignums(), "expected the figure to be closed"


def test_figures_are_seen_whatever_the_environment_says(empty_place, monkeypatch):
    import nbclient
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(Path(helpers.__file__).parent))
    monkeypatch.setenv("MPLBACKEND", "Agg")  # as servers and Docker set it
    source = """
import helpers, torch
helpers.check_settings({})
helpers.show_images(torch.zeros(2, 3, 4, 4), "Two faces")
handle = helpers.show_live("a line")
helpers.progress(range(3), "bar").close()
"""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(book, kernel_name="python3").execute()
    outputs = book.cells[0].outputs
    pictures = [one for one in outputs if "image/png" in one.get("data", {})]
    assert len(pictures) == 1, f"expected one picture, got {outputs}"
    alt = pictures[0].metadata["image/png"]["alt"]
    assert alt == "Two faces", f"expected the title as alternative text, got {alt}"
    assert not [one for one in outputs if one.get("name") == "stderr"], f"got {outputs}"


def test_mixed_precision_sees_weights_change():
    layer, x = nn.Linear(8, 8), torch.randn(4, 8)
    with helpers.autocast(torch.device("cpu")):
        before = layer(x)
        with torch.no_grad():
            layer.weight.mul_(2)
        after = layer(x)
    assert not torch.equal(before, after), "expected training inside the block to be felt"


@pytest.mark.parametrize(
    "capability, built, expected",
    [
        ((7, 0), "sm_75 sm_80 sm_90 compute_90", False),
        ((7, 5), "sm_75 sm_80 sm_90", True),
        ((8, 6), "sm_80 sm_90", True),
        ((8, 0), "sm_86 sm_90", False),
        ((9, 0), "sm_80 sm_90a", True),
        ((12, 0), "sm_90 compute_90", True),
        ((12, 0), "sm_80 sm_90", False),
        ((8, 0), "sm_70 compute_70 sm_90", True),
        ((10, 0), "sm_100 sm_120", True),
        ((6, 1), "", True),
    ],
)
def test_a_gpu_without_kernels_is_left_alone(monkeypatch, capsys, capability, built, expected):
    cuda = torch.cuda
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(cuda, "get_arch_list", built.split)
    monkeypatch.setattr(cuda, "get_device_name", lambda *_: "Old GPU")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    helpers.has_gpu.cache_clear()
    found = helpers.find_device().type
    helpers.has_gpu.cache_clear()
    assert found == ("cuda" if expected else "cpu"), f"got {found}"
    said = "no kernels for the Old GPU" in printed_by(capsys)
    assert said != expected, "expected a sentence where the GPU stays unused"


def test_several_ranks_do_not_share_an_apple_gpu(monkeypatch, capsys):
    monkeypatch.setattr(helpers, "has_gpu", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert helpers.find_device().type == "mps", "expected the Apple GPU"
    monkeypatch.setattr(helpers, "world", lambda: (0, 2))
    assert helpers.find_device().type == "cpu", "expected the processor"
    assert "Apple GPU" in printed_by(capsys), "expected a sentence"


# ---------------------------------------------------------------- settings

GOOD = dict(
    data_dir="faces",
    data_url=None,
    image_size=32,
    batch_size=4,
    lr=2e-4,
    d_lr=np.float64(4e-4),
    beta1=0,
    max_minutes=None,
    patience=np.int64(3),
    z_size=np.int32(10),
    seed=0,
    resume=True,
    next_steps=False,
    label_names=["Male"],
    domain_same=None,
    cycle_weight=3,
    identity_weight=np.float32(0.5),
    out_dir=Path("runs"),
    a_name_that_is_no_setting=object(),
)
NUMBERS = (
    "lr d_lr beta1 max_minutes domain_lr cycle_weight identity_weight seed patience image_size "
)
NUMBERS += "batch_size z_size d_conv_dim g_conv_dim n_epochs print_every n_drawn experiment_images "
NUMBERS += "domain_batch"
NEVER_NONE = (
    "image_size lr data_dir out_dir large_dir resume domain_label domain_loss seed n_epochs"
)
BAD = [
    *((name, value) for name in NUMBERS.split() for value in ("0.5", "1e-4", "None", True)),
    *((name, float("nan")) for name in NUMBERS.split()),
    *(
        (name, value)
        for name in ("resume", "next_steps", "inception")
        for value in ("no", "false", 2)
    ),
    *((name, value) for name in ("out_dir", "data_dir", "large_dir") for value in (5, "", " \t")),
    *((name, None) for name in NEVER_NONE.split()),
    *(("image_size", value) for value in (48, 8, 512, 64.0)),
    *(("batch_size", value) for value in (0, -4, 2.5, np.float64(2))),
    *(("lr", value) for value in (0, 1, -0.1, float("inf"))),
    *(("max_minutes", value) for value in (0, -1)),
    *(("z_size", value) for value in (0, 1, 2.5)),
    *(("seed", value) for value in (-1, 2**32, 0.5)),
    *(("beta1", 1), ("patience", 0), ("domain_lr", 2), ("identity_weight", -1)),
    *(("domain_dirs", "faces"), ("domain_dirs", 5), ("domain_dirs", ["nowhere", "faces"])),
    *(("domain_dirs", ["faces"]), ("domain_dirs", ["faces", "empty"]), ("domain_dirs", [1, 2])),
    *(("domain_dirs", ["faces", "faces/"]), ("out_dir", "."), ("out_dir", "./")),
    *(("large_dir", value) for value in ("nowhere", "empty", "faces/000001.jpg")),
    *(("label_names", value) for value in ("Male", True, 5, [5], [""])),
    *(("domain_label", value) for value in (5, "", ["Male"])),
    *(("domain_loss", value) for value in ("hinge", 5)),
    *(("data_sha256", value) for value in ("abc", 5, "g" * 64)),
    *(("data_url", value) for value in ("faces.zip", 5)),
    *(("photograph", value) for value in (5, "nobody.png", "empty")),
    *(("start_from", value) for value in (5, "nowhere.pt", "faces", "faces/000001.jpg")),
    *(("photograph_box", value) for value in (5, "box", [1, 2, 3], [1, 2, 3, "4"])),
]


@pytest.fixture
def place_of_faces(empty_place):
    save_faces("faces", 2)
    Path("empty").mkdir()


def test_bad_settings_are_named(place_of_faces):
    helpers.check_settings(GOOD)
    for folder in ("faces", "drawn", "celeba_128/", Path("faces/")):
        helpers.check_settings(GOOD | {"large_dir": folder})
    for setting, value in BAD:
        with pytest.raises(ValueError, match=re.escape(f"{setting} = {value!r}")):
            helpers.check_settings(GOOD | {setting: value})


def test_the_notebooks_own_settings_pass(empty_place, notebook):
    settings = {name: value for name, value in vars(notebook).items() if not name.startswith("_")}
    known = {name for names, *_ in helpers.SETTINGS for name in names.split()}
    helpers.check_settings(settings)
    assert len(known & settings.keys()) > 20, "expected the notebook to have these settings"


def test_a_photograph_and_its_box_are_checked_together(place_of_faces):
    good = {"photograph": "faces/000001.jpg", "photograph_box": [0, 0, 10, 10], "image_size": 16}
    helpers.check_settings(good)
    with pytest.raises(ValueError, match="photograph_box = .*does not lie"):
        helpers.check_settings(good | {"photograph_box": [0, 0, 100, 10]})


def test_choices_are_listed_nearest_first():
    with pytest.raises(ValueError, match="norm = 'bach' does not work.* one of 'batch', "):
        helpers.check_choice(["pixel", "batch", None], norm="bach")
    helpers.check_choice(["pixel", None], norm=None)
