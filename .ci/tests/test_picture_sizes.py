"""Image files are decoded no larger than needed, once each, and several at a time."""

import errno
import functools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision import transforms

from assets.lib import pictures
from assets.lib.files import DataError, DiskError
from assets.lib.pictures import load_image, read_image, read_squares


def photograph(width, height, mode="RGB"):
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.BICUBIC).convert(mode)


def small(image, size):
    return np.asarray(ImageOps.fit(image, (size, size), Image.BILINEAR)).astype(float)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("width, height", [(178, 218), (640, 480), (1024, 1024), (1000, 1048)])
def test_small_jpegs_are_read_bit_for_bit_as_ever(tmp_path, size, width, height):
    photograph(width, height).save(tmp_path / "a.jpg")
    expected = Image.open(tmp_path / "a.jpg").convert("RGB")
    found = load_image(tmp_path / "a.jpg", size)
    assert np.array_equal(found, expected), "expected the same pixels"


@pytest.mark.parametrize(
    "mode, options",
    [
        ("RGB", {}),
        ("L", {}),
        ("CMYK", {}),
        ("RGB", {"progressive": True}),
        ("RGB", {"quality": 30}),
    ],
)
@pytest.mark.parametrize("size", [16, 64, 256])
def test_large_jpegs_are_read_small_and_look_the_same(tmp_path, mode, options, size):
    photograph(2000, 1500, mode).save(tmp_path / "a.jpg", **options)
    found, own_size = read_image(tmp_path / "a.jpg", size)
    assert own_size == (2000, 1500), f"expected its own size, got {own_size}"
    assert 2 * size <= found.height < 1500, f"expected a part of the size, got {found.size}"
    whole = load_image(tmp_path / "a.jpg")
    assert whole.size == own_size, "expected all of it where no size is given"
    off = np.abs(small(found, size) - small(whole, size)).mean()
    assert off < 2, f"expected the same picture, got {off:.2f} from it"


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("size", [None, 64])
def test_large_jpegs_are_turned_as_the_camera_was_held(tmp_path, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photograph(1600, 1200).save(tmp_path / "a.jpg", exif=exif)
    image, own_size = read_image(tmp_path / "a.jpg", size)
    is_upright = orientation in (6, 8)
    expected = (1200, 1600) if is_upright else (1600, 1200)
    assert own_size == expected, f"expected {expected}, got {own_size}"
    assert (image.height > image.width) == is_upright, f"got {image.size}"


def album(notebook, n=12, size=(60, 40)):
    Path("photos").mkdir()
    for i in range(n):
        image = photograph(*(size if i % 2 else size[::-1])).rotate(30 * i)
        image.save(f"photos/{i:02}.jpg")
    return notebook.FaceFolder("photos")


def test_squares_are_what_resize_and_crop_give(empty_place, notebook):
    dataset = album(notebook)
    steps = transforms.Resize(64), transforms.CenterCrop(64), transforms.ToTensor()
    to_square = transforms.Compose(steps)
    order = [5, 3, 8, 0]
    chosen, squares, sizes = read_squares(dataset, np.array(order), 64)
    assert [int(i) for i in chosen] == order, f"expected the order asked for, got {chosen}"
    expected = torch.stack([to_square(dataset[i][0]) for i in order])
    assert torch.equal(squares, expected), "expected the same pixels"
    assert sizes == [dataset[i][0].size for i in order], f"got {sizes}"


def test_squares_are_read_once_each(empty_place, notebook, monkeypatch):
    dataset, opened = album(notebook, 30), []
    decode = pictures.decode
    monkeypatch.setattr(pictures, "decode", lambda *x: opened.append(1) or decode(*x))
    read_squares(dataset, range(30), 16)
    assert len(opened) == 30, f"expected each picture to be decoded once, got {len(opened)}"


def test_unreadable_squares_are_left_out(empty_place, notebook):
    dataset = album(notebook, 6)
    Path("photos/02.jpg").write_text("no picture", encoding="utf-8")
    Path("photos/04.jpg").unlink()
    chosen, squares, sizes = read_squares(dataset, [4, 5, 2, 1], 16)
    assert chosen == [5, 1] and len(squares) == len(sizes) == 2, f"got {chosen}"
    message = "None of the 2 images tried in photos can be read; the first, 04.jpg: it is not there"
    with pytest.raises(DataError, match=message):
        read_squares(dataset, [4, 2], 16)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_drive_that_fails_is_not_an_unreadable_picture(
    empty_place, notebook, monkeypatch, number
):
    dataset = album(notebook, 4)
    monkeypatch.setattr(pictures.time, "sleep", lambda seconds: None)
    failures = [1] * 2

    def drive(path, *mode):
        if str(path).endswith("02.jpg") and failures.pop():
            raise OSError(number, os.strerror(number), path)
        return open(path, *mode)

    monkeypatch.setattr(pictures, "open", drive, raising=False)
    failures[:0] = [0]
    assert len(read_squares(dataset, range(4), 16)[0]) == 4, "expected another try"
    failures[:] = [1] * 9
    with pytest.raises(DiskError, match="02.jpg is there but cannot be read") as caught:
        read_squares(dataset, range(4), 16)
    assert caught.value.errno == number, f"got {caught.value}"


def test_a_folder_that_decodes_small_pictures_has_the_same_faces(empty_place, notebook):
    """With the loader that get_dataloader gives FaceFolder."""
    dataset = album(notebook, 4, (2000, 1500))
    steps = transforms.Resize(32), transforms.CenterCrop(32), transforms.ToTensor()
    dataset.transform = transforms.Compose(steps)
    whole = torch.stack([dataset[i][0] for i in range(4)])
    dataset.loader = functools.partial(load_image, size=32)
    reduced = torch.stack([dataset[i][0] for i in range(4)])
    assert (whole - reduced).abs().mean() < 0.01, "expected the same faces"
