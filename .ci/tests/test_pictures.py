"""Image files: read as a person sees them, no larger than needed, or left out by name."""

import contextlib
import os
import warnings
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from data_inputs import SEARCH, archive, encoded, save_faces, save_shades
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from assets.lib.files import DataError
from assets.lib.pictures import UnreadableImage, load_face, load_image, readable


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
            image = load_image(name)
        except UnreadableImage as error:
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
    printed = capsys.readouterr().out
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
        with contextlib.suppress(UnreadableImage):
            assert load_image("damaged.img").mode == "RGB", "expected RGB"


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
    face = load_face(tmp_path / "me.png", 32)
    assert face.shape == (1, 3, 32, 32), f"expected (1, 3, 32, 32), got {face.shape}"
    assert face[0, :, 16, 16].tolist() == [1, -1, -1], "expected the red centre"
    face = load_face(tmp_path / "me.png", 16, (150, 0, 200, 50))
    assert torch.allclose(face[0, :, 8, 8], torch.tensor([-1.0, -1, 1])), "expected the blue box"
    for box in ((150, 0, 250, 50), (50, 0, 20, 50)):
        with pytest.raises(ValueError, match="does not lie in .*200 x 100 pixels"):
            load_face(tmp_path / "me.png", 16, box)
    (tmp_path / "me.txt").write_text("no picture", encoding="utf-8")
    for name, message in (("me.txt", ""), ("nobody.png", "No such file"), ("", "directory")):
        with pytest.raises(ValueError, match=f"{name}.* cannot be read as a picture .*{message}"):
            load_face(tmp_path / name, 16)


def test_readable_names_the_first(empty_place, notebook):
    save_faces("photos", 2)
    Path("photos/b.jpg").write_text("no picture", encoding="utf-8")
    faces = notebook.FaceFolder("photos")
    assert readable(faces, [0, 1, 2]) == [0, 1], "expected the readable ones"
    with pytest.raises(DataError, match="None of the 1 images tried .* b.jpg: it is no picture"):
        readable(faces, [2])
