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
from data_inputs import SEARCH, archive, file_answer, full, names_below, of_kind, serve, sha256
from hypothesis import given
from hypothesis import strategies as st

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


def test_another_kind_of_archive_is_told(empty_place):
    Path("faces.zip").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(200))
    with pytest.raises(DataError, match="'faces.zip' is a 7z archive, no"):
        find_data("faces.zip")


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
        archives.fetch(Path("faces.zip"), empty_place / "faces", None, empty_place)
