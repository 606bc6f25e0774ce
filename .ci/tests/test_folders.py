"""Folders: which images lie below them, what is passed over, what helps where none are."""

import errno
import os
from pathlib import Path
from unittest import mock

import pytest
from data_inputs import photo_bytes, save_faces, save_shades

import helpers
from assets.lib import pictures
from assets.lib.folders import find_images
from assets.lib.sources import are_two_folders, find_data


def test_what_pillow_reads_is_read_and_the_rest_is_counted(empty_place, notebook, capsys):
    kinds = {"pgm": "PPM", "jfif": "JPEG", "jpe": "JPEG", "gif": "GIF", "apng": "PNG", "": "JPEG"}
    if "AVIF" in pictures.IMAGE_FORMATS:
        kinds["avif"] = "AVIF"
    for ending, kind in kinds.items():
        save_faces("mixed", 2, f"{ending}{{}}" + (f".{ending}" if ending else ""), kind=kind)
    for i in range(5):
        Path(f"mixed/IMG_{i}.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    Path("mixed/README").write_text("no picture", encoding="utf-8")
    Path("mixed/.hidden.jpg").write_bytes(photo_bytes())
    find_data("mixed")
    printed = capsys.readouterr().out
    n = 2 * len(kinds)
    expected = f"{n} images found in mixed; passed over: 5 .heic, 1 without ending"
    assert expected in printed, f"expected {expected!r}, got {printed}"
    assert len(notebook.get_dataloader(2, 16, "mixed").dataset) == n, "expected all to be decoded"


def test_folders_of_tools_and_our_own_are_skipped(empty_place):
    tools = ".ipynb_checkpoints @eaDir __MACOSX lost+found #recycle $RECYCLE.BIN .git".split()
    for folder in ("man", "woman", *tools, "assets", "runs/lesson/samples", "drawn_faces/8"):
        save_faces(Path("place", folder), 2)
    names = {path.split("/")[1] for path in find_images("place")}
    assert names == {"man", "woman", "assets", "runs", "drawn_faces"}, f"got {names}"
    Path("place/helpers.py").write_text("", encoding="utf-8")
    assert helpers.class_folders("place") == ["man", "woman"], "expected none of our own"


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_to_the_folder_above_is_not_followed(empty_place):
    save_faces(empty_place / "album" / "faces", 3)
    save_faces(empty_place / "album" / "others", 4, "other {}.jpg")
    os.symlink("..", empty_place / "album" / "faces" / "up")
    found = len(find_images(empty_place / "album" / "faces"))
    assert found == 3, f"expected the 3 images of the folder, got {found}"


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
                find_data(folder)
            assert caught.value.errno == number, f"expected {number}, got {caught.value.errno}"
        with pytest.raises(OSError, match="cannot be listed"):
            are_two_folders(["faces/part1", "faces/part2"])
    assert len(find_images(find_data("faces"))) == 6, "expected all, later"


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_that_go_in_circles_move_no_image_to_another_class(empty_place, notebook):
    for name in "ab":
        save_shades(Path("photos", name), 3)
        Path("photos", name, "back").symlink_to("..")
        Path("photos", name, "other").symlink_to(Path("..", "ba"["ab".index(name)]))
    faces = notebook.get_dataloader(2, 16, "photos").dataset
    expected = [0] * 3 + [1] * 3
    assert faces.classes == ["a", "b"] and faces.labels.tolist() == expected, f"got {faces.labels}"
