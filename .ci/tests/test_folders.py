"""Folders: which images lie below them, what is passed over, what helps where none are."""

import errno
import os
import re
from pathlib import Path
from unittest import mock

import folders
import hypothesis
import numpy as np
import pytest
import torch
from data_inputs import SEARCH, encoded, faces_named, photo_bytes, save_faces, save_shades
from hypothesis import given
from PIL import Image

import helpers
from assets.lib import pictures
from assets.lib.files import DataError
from assets.lib.folders import find_images
from assets.lib.sources import are_two_folders, find_data

NOISE = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
PICTURE = Image.fromarray(NOISE)


def test_what_pillow_reads_is_read_and_the_rest_is_counted(empty_place, notebook, capsys):
    kinds = {"pgm": "PPM", "jfif": "JPEG", "jpe": "JPEG", "gif": "GIF", "apng": "PNG", "mpo": "MPO"}
    kinds |= {"jp2": "JPEG2000", "": "JPEG"}
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
    expected = f"{n} images found in mixed; passed over: 5 .heic, 1 hidden, 1 without ending"
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


def write(folder, names, content=b"no picture"):
    for name in names:
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def jpegs(folder, n):
    save_faces(folder, n, "{}.jpg")


HEIC = b"\0\0\0\x18ftypheic"
NO_IMAGES = {
    "HEIC": (["1.HEIC", "2.heic"], HEIC, "but 2 .heic: convert pictures to JPEG or PNG"),
    "HEIF and videos": (["1.heif", "2.mov"], HEIC, "but 1 .heif, 1 .mov: convert"),
    "Targa": (["1.tga"], encoded(PICTURE, "TGA"), "but 1 .tga: convert"),
    "raw": (["1.cr2", "2.NEF", "3.dng"], encoded(PICTURE, "TIFF"), "1 .cr2, 1 .dng, 1 .nef: con"),
    "arrays": (["faces.npy", "train.parquet"], b"\x93NUMPY", "but 1 .npy, 1 .parquet: convert"),
    "layers": (["1.psd"], b"8BPS\0\1", "but 1 .psd: convert"),
    "no archive unpacked": (["img.zip", "list_attr_celeba.txt"], b"PK\3\4", "img.zip: unpack it"),
    "a tar": (["README.md", "lfw.tgz"], b"\x1f\x8b", "but lfw.tgz: unpack it, and set data_dir"),
    "an archive below": (["a/b/part1.7z"], b"7z", "but part1.7z: unpack it"),
    "hidden": ([".photos/1.jpg", ".2.jpg"], b"\xff\xd8", "but 2 hidden: convert"),
    "text": (["notes.txt", "README"], b"Hello", "but 1 .txt, 1 without ending: convert"),
    "a run": (["last.pt", "settings.json", "training.gif"], b"", "but 3 files of a run: convert"),
    "many kinds": ([f"1.x{i}" for i in range(9)], b"", "1 .x4, 4 others: convert"),
}


@pytest.mark.parametrize("kind", NO_IMAGES)
def test_a_folder_without_images_says_what_is_there_and_what_helps(empty_place, kind):
    names, content, message = NO_IMAGES[kind]
    write("own", names, content)
    with pytest.raises(DataError, match=f"'own' holds no images.*{message}"):
        find_data("own")


@pytest.mark.parametrize("name", ["img_align_celeba", "CelebA/img", "faces 2", "ünï", "a/b/c"])
def test_an_empty_folder_names_the_one_beside_it(empty_place, name):
    Path("celeba").mkdir()
    jpegs(name, 2)
    expected = re.escape(repr(name.split("/")[0]))
    with pytest.raises(DataError, match=f"'celeba' holds no images, but {expected} beside it"):
        find_data("celeba")


def test_an_empty_folder_alone_is_to_be_filled(empty_place):
    jpegs("empty/__MACOSX", 1)
    jpegs("cache/unpacked", 1)
    with pytest.raises(DataError, match="holds no images: put some into it"):
        find_data("empty")


@pytest.mark.parametrize(
    "names, kind",
    [
        (["subject01.happy", "subject02.sad"], "GIF"),
        (["1.jpg?size=large", "2.jpg_large"], "JPEG"),
        (["1.jpg:large", "2.webp!w500"], "WEBP"),
        (["IMG_1.jpg~", "IMG_2.jpg.bak"], "JPEG"),
        (["img_align_celeba.000001"], "PNG"),
        (["1.jpg.download", "a/2.tmp"], "JPEG"),
    ],
)
def test_where_no_name_says_image_contents_do(empty_place, names, kind, capsys):
    write("own", names, encoded(PICTURE, kind))
    write("own", ["notes.txt", "more.xyz"])
    assert len(find_images(find_data("own"))) == len(names), "expected the pictures"
    assert "passed over: 1 .txt, 1 .xyz" in capsys.readouterr().out, "expected the rest in a line"


FIRST = "@alice #2020 $name ~me _private -x (old) !new +1 '90s \u200b 0 runs cache assets"


@pytest.mark.parametrize("name", FIRST.split(" "))
def test_no_first_letter_drops_a_folder(empty_place, name):
    jpegs(Path("people", name), 2)
    jpegs("people/bob", 2)
    assert len(find_images("people")) == 4, f"expected the images in {name}"


@pytest.mark.parametrize("name", [".faces", ".../x", ".album/a/b", "a/.b", ".c/.d"])
def test_hidden_folders_are_passed_over_with_a_word(empty_place, name, capsys):
    jpegs(Path("people", name), 2)
    jpegs("people/bob", 2)
    find_data("people")
    assert "2 images found in people; passed over: 1 hidden." in capsys.readouterr().out


def flat(path, mode="L", kind=None, value=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new(mode, (48, 48), 0)
    mask.paste(value, (10, 10, 30, 40))
    mask.save(path, kind)


def masks_of(kind, n=12):
    """Masks of n images, in a layout of this kind; returns how many files they are."""
    paths = {
        "CelebAMask-HQ": ["CelebAMask-HQ-mask-anno/{a}/{i:05d}_hair.png"],
        "LaPa": ["labels/{i}.png"],
        "Helen": ["SegClasses/segmentation/{i}.png", "parsing_maps/{i}.png"],
        "of each person": ["{a}/Mask/{i}.png"],
        "beside": ["photos/{i}_mask.png", "photos/{i}_MASK2.png"],
        "matting": ["alpha_matte/{i}.png"],
        "as JPEG": ["masks/{i}.jpg"],
        "palette": ["SegmentationClass/{i}.png"],
        "in color": ["face_segmentation/{i}.png"],
    }[kind]
    mode, value = {"palette": ("P", 7), "in color": ("RGB", (200, 0, 9))}.get(kind, ("L", 255))
    for i in range(n):
        for path in paths:
            flat(Path("own", path.format(i=i, a=i % 3)), mode, value=value)
    return n * len(paths)


MASKS = "CelebAMask-HQ,LaPa,Helen,of each person,beside,matting,as JPEG,palette,in color"


@pytest.mark.parametrize("kind", MASKS.split(","))
@pytest.mark.parametrize("place", ["own", "own/CelebAMask-HQ"])
def test_masks_do_not_become_faces(empty_place, kind, place, capsys):
    jpegs(Path(place, "photos"), 12)
    n = masks_of(kind)
    find_data("own")
    assert f"12 images found in own; passed over: {n} masks." in capsys.readouterr().out


@pytest.mark.parametrize(
    "folders",
    [
        ["with_mask", "without_mask"],
        ["masked singer", "b"],
        ["Hannover", "Annotated"],
        ["label_0", "label_1"],
        ["segment", "matte/x"],
        ["train/labelled", "valid/labelled"],
    ],
)
def test_photographs_in_folders_named_like_masks_are_kept(empty_place, folders):
    for folder in folders:
        jpegs(Path("own", folder), 6)
    assert len(find_images("own")) == 12, "expected the photographs"


def test_drawings_that_are_all_there_is_are_kept(empty_place):
    for i in range(5):
        flat(Path("own/masks", f"{i}.png"))
    assert len(find_images("own")) == 5, "expected them, as there is nothing else"


def leave_run(folder, files, grids=3):
    """What a run leaves in a folder, in part."""
    write(folder, files)
    grid = encoded(PICTURE, "PNG")
    write(Path(folder, "samples"), [f"step_{50 * i:07d}.png" for i in range(grids)], grid)
    if "training.gif" in files:
        write(folder, ["training.gif"], encoded(PICTURE, "GIF"))


ALL = "settings.json run.lock last.pt previous.pt best.pt losses.csv training.gif generator.pt2"
RUNS = {
    "a whole run": ("faces/run", ALL.split(), 11),
    "a run in the folder itself": ("faces", ALL.split(), 11),
    "killed before its first checkpoint": ("faces", ["run.lock"], 4),
    "copied without its lock": ("faces/old", ALL.split()[:1] + ALL.split()[2:], 10),
    "samples alone": ("faces/a/b", [], 3),
    "a run of another section": ("faces/run_next/makeup", ["settings.json", "last.pt"], 5),
    "an animation and the generator": ("faces", ["training.gif", "generator.pt2"], 5),
}


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_never_reads_its_own_output(empty_place, kind, capsys):
    folder, files, n = RUNS[kind]
    jpegs("faces", 7)
    leave_run(folder, files)
    find_data("faces")
    printed = capsys.readouterr().out
    expected = f"7 images found in faces; passed over: {n} files of a run."
    assert expected in printed, f"expected {expected}, got {printed}"


def test_pictures_that_are_named_like_a_runs_are_kept(empty_place):
    jpegs("faces/samples", 3)
    write("faces", ["training.gif", "step_0000001.png"], encoded(PICTURE, "GIF"))
    write("faces/samples", ["step_1.png"], encoded(PICTURE, "PNG"))
    assert len(find_images("faces")) == 6, "expected all, as no run was here"


@pytest.mark.parametrize("place", [".", "project", "a/project"])
def test_the_projects_own_pictures_are_no_faces(empty_place, place):
    jpegs("faces", 3)
    write(place, ["helpers.py"])
    for folder in ("assets/images", "runs/x", "cache/unpacked", "drawn_faces/20_at_64_v3"):
        jpegs(Path(place, folder), 2)
    assert len(find_images(".")) == 3, "expected the faces alone"


def test_what_a_notebook_makes_where_it_runs_is_no_photograph(empty_place):
    jpegs(".", 3)
    jpegs("cache/unpacked", 2)
    jpegs("drawn_faces/20_at_64_v3", 2)
    assert len(find_images(".")) == len(find_images(empty_place)) == 3, "expected the photographs"
    assert len(find_images("drawn_faces/20_at_64_v3")) == 2, "expected them when asked for"


@hypothesis.settings(SEARCH, max_examples=15)
@given(folders.made_folders())
def test_generated_folders_end_in_pictures_or_in_a_sentence(made):
    folders.check(made)


@pytest.mark.parametrize("lost", ["x/1.jpg", "@alice/1.jpg", "1.heic"])
def test_a_picture_that_is_lost_without_a_word_is_noticed(lost):
    made, content = folders.Made("data"), folders.picture("JPEG", "RGB", True)
    made.files = {f"{i}.jpg": content for i in range(3)} | {"x/@eaDir/4.jpg": content}
    made.sound = dict.fromkeys(made.files, True)
    assert folders.check(made) is None, "expected pictures"
    faces = faces_named(*"012")
    folders.check_words(made, faces, "Data: 3 images")
    made.files[lost] = content
    with pytest.raises(AssertionError, match="3 faces of 4 files, and no word"):
        folders.check_words(made, faces, "Data: 3 images")
    folders.check_words(made, faces, "Data: 3 images; passed over: 1 .jpg")


def test_labels_of_other_pictures_are_noticed():
    made = folders.Made("data")
    faces = faces_named("0.png", "1.png")
    faces.images = torch.stack([torch.zeros(3, 4, 4), torch.full((3, 4, 4), 255)])
    folders.check_labels(made, faces, {"Bright": torch.tensor([False, True])})
    with pytest.raises(AssertionError, match="2 of 2 labels are of other pictures"):
        folders.check_labels(made, faces, {"Bright": torch.tensor([True, False])})


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("x."), OSError(2, "x")])
def test_a_bare_error_is_noticed(error):
    with pytest.raises(AssertionError, match="expected a sentence of ours"):
        try:
            raise error
        except Exception as caught:
            folders.assert_ours(caught)
