"""Archives: unpacked whole and safely, or refused with the true reason and the way out."""

import contextlib
import os
import shutil
import stat
import tempfile
import zipfile
from pathlib import Path

import hypothesis
import pytest
from data_inputs import (
    SEARCH,
    archive,
    file_answer,
    full,
    names_below,
    of_kind,
    serve,
    sha256,
    zip_of_shades,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from assets.lib import archives
from assets.lib.downloads import PUBLISHED_SHA256, PUBLISHED_URL
from assets.lib.files import DataError
from assets.lib.folders import find_images
from assets.lib.sources import find_data

REFUSED = "http://127.0.0.1:9/refused.zip"


def test_archive_over_http(empty_place, capsys):
    content = archive()
    with serve(file_answer(content)) as url:
        folder = find_data("faces_here", url, sha256(content))
    found = names_below(folder)
    expected = ["celeba/000001.jpg", "celeba/000002.jpg", "celeba/notes.txt"]
    assert found == expected, f"expected the files of the folder, got {found}"
    assert "Data: 2 images found in faces_here" in capsys.readouterr().out, "expected one line"
    find_data("faces_here", REFUSED)
    assert "found in faces_here" in capsys.readouterr().out, "expected the folder the next time"
    assert not list(Path("cache").glob("*.zip")), "expected the archive to be removed"


def test_archive_from_a_file(empty_place):
    Path("faces.zip").write_bytes(archive())
    for number, url in enumerate((Path("faces.zip").resolve().as_uri(), "file://localhost")):
        url = url if number == 0 else url + Path("faces.zip").resolve().as_posix()
        folder = find_data(f"faces_{number}", url)
        assert len(find_images(folder)) == 2, f"{url}: expected two images"
    assert Path("faces.zip").exists(), "expected one's own file to be left in place"


@pytest.mark.parametrize("name", ["faces.zip", "FACES.ZIP", "~/faces.zip"])
def test_a_zip_as_data_dir_is_unpacked_next_to_it(empty_place, monkeypatch, name):
    monkeypatch.setenv("HOME", str(empty_place))
    Path(name.replace("~/", "")).write_bytes(archive())
    folder = find_data(name, PUBLISHED_URL, PUBLISHED_SHA256)
    assert folder.name == Path(name).stem, f"expected a folder of its stem, got {folder}"
    assert len(find_images(folder)) == 2, "expected two images"
    Path(folder, "celeba", "000001.jpg").unlink()
    assert len(find_images(find_data(name))) == 1, "expected it to stay"


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
    "size": (archive(), PUBLISHED_SHA256, "wrong size"),
    "truncated": (archive()[:-30], None, "cannot be unpacked"),
    "damaged": (archive().replace(b"JFIF", b"FIFJ", 1), None, "'celeba/000001.jpg' is damaged"),
    "no images": (archive([], texts=[("faces/notes.txt", "Hello")]), None, "no images"),
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
    "endless name": (archive([f"faces/{300 * 'x'}.jpg"]), None, "cannot hold the name 'xxx"),
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
    with pytest.raises(DataError, match=message) as caught:
        find_data("faces_here", f"{shelf}/{name.replace(' ', '_')}", sha)
    assert 'data_dir = "drawn"' in str(caught.value), f"expected the way out, got {caught.value}"
    left = [path.name for path in empty_place.iterdir() if path.suffix != ".lock"]
    assert left == ["cache"], f"expected nothing half-unpacked, got {left}"


def test_an_archive_in_an_archive_is_named(empty_place):
    with zipfile.ZipFile("outer.zip", "w") as pack:
        pack.writestr("Photos/img_align_celeba.zip", archive())
    with pytest.raises(DataError, match="no images, but img_align_celeba.zip: unpack it"):
        find_data("outer.zip")


def test_a_huge_archive_is_refused(empty_place, monkeypatch):
    Path("huge.zip").write_bytes(archive(["faces/1.jpg"]))
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 10)
    with pytest.raises(DataError, match="more than"):
        find_data("huge.zip")


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
        with contextlib.suppress(DataError, OSError):
            archives.unpack(f"{place}/a.zip", target)
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
    found = names_below(find_data("own.zip"))
    assert found == expected, f"expected {expected}, got {found}"


def test_an_archive_stays_when_the_disk_is_full(empty_place, monkeypatch):
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with serve(file_answer(archive())) as url:
        with pytest.raises(OSError, match="faces_here cannot be written: No space.*Make room"):
            find_data("faces_here", url)
    assert list(Path("cache").glob("*.zip")), "expected the archive to be kept"
    assert not Path("faces_here").exists(), "expected nothing half-unpacked"


def test_an_archive_that_cannot_be_read_says_so(empty_place):
    Path("faces.zip").mkdir()  # opening it fails, as it does without permission
    with pytest.raises(DataError, match="faces.zip cannot be read"):
        archives.unpack_once(Path("faces.zip"))


def method(number):
    """Makes an entry of a zip seem compressed by another method."""

    def change(content):
        content = bytearray(content)
        for sign, offset in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
            place = content.find(sign)
            while place >= 0:
                content[place + offset : place + offset + 2] = number.to_bytes(2, "little")
                place = content.find(sign, place + 4)
        return bytes(content)

    return change


@pytest.mark.parametrize("number", [1, 6, 9, 97, 98, 99])  # shrunk, imploded, Deflate64, ...
def test_a_sound_archive_of_another_method_is_not_called_damaged(empty_place, number):
    Path("faces.zip").write_bytes(method(number)(archive(["f/1.jpg", "f/2.jpg"])))
    message = "cannot be unpacked: Python has no way to unpack '1.jpg'.*another program"
    with pytest.raises(DataError, match=message):
        find_data("faces.zip")


OTHER_KINDS = {
    "7z": b"7z\xbc\xaf\x27\x1c",
    "rar": b"Rar!\x1a\7",
    "gzip": b"\x1f\x8b\x08",
    "bzip2": b"BZh91AY",
    "xz": b"\xfd7zXZ\0",
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_another_kind_of_archive_is_told(empty_place, kind):
    Path("faces.zip").write_bytes(OTHER_KINDS[kind] + bytes(200))
    with pytest.raises(DataError, match=f"'faces.zip' is an? {kind} archive, no.*another program"):
        find_data("faces.zip")


@pytest.mark.parametrize("n_bytes", [1, 300, 900, 3000])
def test_a_part_of_a_split_archive_is_told(empty_place, n_bytes):
    Path("faces.zip").write_bytes(archive()[n_bytes:])
    with pytest.raises(DataError, match="damaged, or no .zip .its beginning is missing"):
        find_data("faces.zip")
    Path("faces.z01").write_bytes(archive()[:n_bytes])
    with pytest.raises(DataError, match="is the last of several parts, no complete .zip"):
        find_data("faces.zip")


TWICE = {
    "the first": (["1.png", "2.png", "1.png"], {"1.png": 20, "2.png": 10}),
    "in a class": (["f/a/1.png", "f/b/1.png", "f/a/1.png"], {"a/1.png": 20, "b/1.png": 10}),
    "three times": (["1.png"] * 3, {"1.png": 20}),
    "by another separator": (["a\\1.png", "b/1.png", "a/1.png"], {"a/1.png": 20, "b/1.png": 10}),
    "by a dot": (["a/1.png", "b.png", "./a/1.png"], {"a/1.png": 20, "b.png": 10}),
    "all": (["1.png", "2.png"] * 2, {"1.png": 20, "2.png": 30}),
    "in Finder's folder, which is no repetition": (
        ["f/1.png", "f/New Folder With Items/1.png"],
        {"1.png": 0, "f/New Folder With Items/1.png": 10},
    ),
}


@pytest.mark.parametrize("kind", TWICE)
def test_of_two_entries_with_one_name_the_later_one_counts(empty_place, kind):
    names, expected = TWICE[kind]
    Path("faces.zip").write_bytes(zip_of_shades(names))
    folder = find_data("faces.zip")
    found = {name: Image.open(folder / name).getpixel((0, 0)) for name in names_below(folder)}
    assert found == expected, f"expected {expected}, got {found}"


LONG = {
    "a name": "f/" + 260 * "a" + ".jpg",
    "a folder": "f/" + 300 * "b" + "/1.jpg",
    "letters of three bytes": "f/" + 90 * "脸" + ".jpg",
    "a path": "f/" + 30 * (200 * "c" + "/") + "1.jpg",
    "without an ending": "f/" + 256 * "d",
}


@pytest.mark.parametrize("kind", LONG)
def test_one_name_that_is_too_long_takes_one_image(empty_place, kind, capsys):
    Path("faces.zip").write_bytes(archive([LONG[kind], *(f"f/{i}.jpg" for i in range(9))]))
    assert len(find_images(find_data("faces.zip"))) == 9, "expected the others"
    printed = capsys.readouterr().out
    assert "Left out 1 files with names that this system cannot hold, such as" in printed, printed
    assert max(map(len, printed.splitlines())) < 200, "expected the name to be cut"


NAMED = {
    "UTF-8, as a Mac writes it": ("Zoe\u0308/für dich.jpg", "utf-8"),
    "UTF-8 and far": ("脸/🙂 ж.jpg", "utf-8"),
    "Japanese": ("写真/男の子 1.jpg", "cp932"),
    "Japanese with a backslash in a letter": ("表示/ソ.jpg", "cp932"),
    "Chinese": ("照片/女人_01.jpg", "gbk"),
    "of the format itself": ("Zoë/Amélie.jpg", "cp437"),
    "Spanish": ("niños/señor.jpg", "cp437"),
    "a letter alone": ("é/1.jpg", "cp437"),
    "ASCII": ("a/b~1.jpg", "ascii"),
}


@pytest.mark.parametrize("kind", NAMED)
def test_names_without_a_flag_are_read_as_they_were_meant(empty_place, kind):
    name, encoding = NAMED[kind]
    raw = name.encode(encoding)
    content = archive([len(raw) * "x", "top.jpg"])
    Path("own.zip").write_bytes(content.replace(len(raw) * b"x", raw))
    found = names_below(find_data("own.zip"))
    assert found == sorted([name, "top.jpg"]), f"expected {name}, got {found}"


PASSED_OVER = {
    "HEIC": ({"f/1.HEIC": b"", "f/2.heic": b""}, "2 .heic"),
    "another zip": ({"f/part2.zip": b"PK\3\4"}, "1 .zip"),
    "videos": ({"f/a/1.mov": b"", "f/a/2.mp4": b""}, "1 .mov, 1 .mp4"),
    "raw": ({"raw/1.CR2": b"II*\0"}, "1 .cr2"),
    "hidden": ({"f/.album/1.jpg": b""}, "1 hidden"),
    "without ending": ({"f/README": b"text"}, "1 without ending"),
    "a run": ({"f/run.lock": b"", "f/samples/step_0000050.png": b""}, "2 files of a run"),
}


@pytest.mark.parametrize("kind", PASSED_OVER)
def test_what_an_archive_holds_besides_images_gets_a_word(empty_place, kind, capsys):
    others, word = PASSED_OVER[kind]
    content = archive([f"f/{i}.jpg" for i in range(3)], texts=others.items())
    Path("own.zip").write_bytes(content)
    for _ in range(2):  # also when it has been unpacked before
        find_data("own.zip")
        printed = capsys.readouterr().out
        assert f"3 images found in own; passed over: {word}." in printed, f"got {printed}"


@pytest.mark.parametrize(
    "others, message",
    [
        ({"f/1.HEIC": b""}, "own.zip holds no images that can be read, but 1 .heic: convert"),
        ({"f/1.tga": b"", "2.tga": b""}, "but 2 .tga: convert"),
        ({"a/inner.tar": b""}, "holds no images, but inner.tar: unpack it"),
        ({"faces.npy": b""}, "but 1 .npy: convert"),
        ({}, "holds no images: put some into it"),
        ({"__MACOSX/._1.jpg": b"", "f/.DS_Store": b""}, "holds no images: put some into it"),
    ],
)
def test_an_archive_without_images_says_what_is_there(empty_place, others, message):
    Path("own.zip").write_bytes(archive([], texts=others.items()))
    with pytest.raises(DataError, match=message):
        find_data("own.zip")
    assert not Path("own").exists(), "expected nothing to be left"
