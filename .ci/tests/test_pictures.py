"""Image files: read as a person sees them, or left out by name."""

import contextlib
import os
import struct
import warnings
import zlib
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from data_inputs import SEARCH, archive, encoded, photo_bytes, save_shades
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from assets.lib import pictures
from assets.lib.pictures import UnreadableImage, load_face, load_image, read_image


def kinds_of_images():
    """File names, contents and, for those that can be read, the color that a person would see."""
    orange, seen = Image.new("RGB", (40, 48), (220, 120, 40)), (220, 120, 40)
    gray = orange.convert("L")
    shade, white = (gray.getpixel((0, 0)),) * 3, (255, 255, 255)
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
    yield "gray.jpg", encoded(gray, "JPEG"), shade
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
    yield "gray alpha.png", encoded(half.convert("LA"), "PNG"), ((shade[0] + 255) // 2,) * 3
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
    (name, content, (200, 200, 200) if color is None else color)
    for name, content, color in kinds_of_images()
]
ROWS = [row if row[0] != "long 1.tif" else (*row[:2], (255, 255, 255)) for row in ROWS]


def test_images_are_read_as_a_person_sees_them(empty_place):
    for name, content, color in ROWS:
        Path(name).write_bytes(content)
        try:
            image = load_image(name)
        except UnreadableImage as error:
            assert color == "unreadable", f"{name}: expected it to be read, got {error!r}"
            continue
        assert color != "unreadable", f"{name}: expected it to be left out, got {image.size}"
        found = image.getpixel((image.width // 2, image.height // 2))
        is_near = np.abs(np.subtract(found, color)).max() <= 3
        assert image.mode == "RGB" and is_near, f"{name}: expected {color}, got {found}"


def test_a_folder_of_all_kinds_loads(empty_place, notebook, capsys):
    save_shades("photos", 200)
    for name, content, _ in ROWS:
        Path("photos", name).write_bytes(content)
    n_bad = sum(color == "unreadable" for *_, color in ROWS)
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


@hypothesis.settings(SEARCH, max_examples=150)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM", "GIF", "JPEG2000", "AVIF"]),
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
    assert face[0, :, 16, 16].tolist() == [1, -1, -1], "expected the red center"
    face = load_face(tmp_path / "me.png", 16, (150, 0, 200, 50))
    assert torch.allclose(face[0, :, 8, 8], torch.tensor([-1.0, -1, 1])), "expected the blue box"
    for box in ((150, 0, 250, 50), (50, 0, 20, 50)):
        with pytest.raises(ValueError, match="does not lie in .*200 x 100 pixels"):
            load_face(tmp_path / "me.png", 16, box)
    (tmp_path / "me.txt").write_text("no picture", encoding="utf-8")
    for name, message in (("me.txt", ""), ("nobody.png", "No such file"), ("", "directory")):
        with pytest.raises(ValueError, match=f"{name}.* cannot be read as a picture .*{message}"):
            load_face(tmp_path / name, 16)


# ---------------------------------------------------------------- more than 8 bits

RAMP = np.linspace(0, 1, 2304).reshape(48, 48)
BRIGHT = np.where(RAMP > 0.9, 255, 255 * RAMP)
DEEP = {
    "floats from -1 to 1": (2 * RAMP - 1, "TIFF", 255 * RAMP),
    "floats of mean 0 and deviation 1": ((RAMP - 0.5) * 3.46, "TIFF", 255 * RAMP),
    "floats from 0 to 1000": (1000 * RAMP, "TIFF", 255 * RAMP),
    "floats from 0 to 1": (RAMP, "TIFF", 255 * RAMP),
    "dark floats": (0.4 * RAMP, "TIFF", 102 * RAMP),
    "floats a little out of 0 to 1": (1.1 * RAMP - 0.05, "TIFF", 255 * RAMP),
    "floats that are bytes": ((200 * RAMP).round(), "TIFF", 200 * RAMP),
    "floats with holes": (np.where(RAMP > 0.9, np.nan, RAMP), "TIFF", 255 * RAMP * (RAMP <= 0.9)),
    "infinite floats": (np.where(RAMP > 0.9, np.inf, RAMP), "TIFF", BRIGHT),
    "only holes": (0 * RAMP + np.nan, "TIFF", 0 * RAMP),
    "temperatures": (np.float32(-20 + 60 * RAMP), "TIFF", 255 * RAMP),
    "a tomography, from -1000 to 3000": (np.int32(4000 * RAMP - 1000), "TIFF", 255 * RAMP),
    "32 bits with large values": (np.int32(2e9 * RAMP), "TIFF", 255 * RAMP),
    "16 bits with values of 8": (np.uint16(255 * RAMP), "PNG", 255 * RAMP),
    "10 bits": (np.uint16(1023 * RAMP), "PNG", 255 * RAMP),
    "12 bits": (np.uint16(4095 * RAMP), "PNG", 255 * RAMP),
    "12 bits as TIFF": (np.uint16(4095 * RAMP), "TIFF", 255 * RAMP),
    "12 bits as JPEG 2000": (np.uint16(4095 * RAMP), "JPEG2000", 255 * RAMP),
    "14 bits": (np.uint16(16383 * RAMP), "PNG", 255 * RAMP),
    "16 bits": (np.uint16(65535 * RAMP), "PNG", 255 * RAMP),
    "16 bits, not all used": (np.uint16(30000 * RAMP), "PNG", 117 * RAMP),
    "16 bits as PGM": (np.uint16(65535 * RAMP), "PPM", 255 * RAMP),
    "black": (np.uint16(0 * RAMP), "PNG", 0 * RAMP),
}


@pytest.mark.parametrize("kind", DEEP)
def test_deep_gray_is_seen_in_its_own_range(tmp_path, kind):
    values, file_format, expected = DEEP[kind]
    values = values.astype(np.float32) if values.dtype == np.float64 else values
    Image.fromarray(values).save(tmp_path / "deep", file_format)
    found = np.asarray(load_image(tmp_path / "deep")).astype(float)
    assert (found[..., 0] == found[..., 1]).all(), "expected gray"
    off = np.abs(found[..., 0] - expected).max()
    assert off <= 1.5, f"expected the ramp, got {off:.1f} from it, up to {found.max():.0f}"


def deep_png(values, color):
    """The bytes of a PNG of 16 bits a channel; `color`: 2 for RGB, 4 for gray and alpha, 6 RGBA."""

    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", values.shape[1], len(values), 16, color, 0, 0, 0)
    parts = (b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("n_bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("color, channels", [(2, 3), (6, 4), (4, 2)])
def test_deep_color_is_right_or_said_not_to_be(tmp_path, n_bits, color, channels):
    values = np.repeat(RAMP[..., None] * (2**n_bits - 1), channels, 2)
    if color != 2:
        values[..., -1] = 65535  # opaque
    (tmp_path / "deep.png").write_bytes(deep_png(values, color))
    if n_bits < 16:
        with pytest.raises(UnreadableImage, match="16 bits a color and uses the lower ones"):
            load_image(tmp_path / "deep.png")
    else:
        found = np.asarray(load_image(tmp_path / "deep.png"))[..., 0]
        assert np.abs(found - 255 * RAMP).max() <= 1, "expected the ramp"


# ---------------------------------------------------------------- sound, though odd


def with_text(kind, size=2_000_000):
    text = PngImagePlugin.PngInfo()
    if kind == "iTXt":
        text.add_itxt("XML:com.adobe.xmp", "x" * size, zip=True)
    else:
        text.add_text("workflow", "x" * size, zip=kind == "zTXt")
    return text


def spoilt(content, kind):
    """A PNG with a wrong checksum in its chunk of this kind."""
    place = content.index(kind)
    length = int.from_bytes(content[place - 4 : place], "big")
    return content[: place + 4 + length] + b"\0\0\0\0" + content[place + 8 + length :]


def sound_pictures():
    tan = Image.new("RGB", (64, 64), "tan")
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 1, 72.0
    jpeg = encoded(tan, "JPEG", exif=exif, quality=95)
    text = encoded(tan, "PNG", pnginfo=with_text("tEXt", 50))
    yield "compressed text", encoded(tan, "PNG", pnginfo=with_text("zTXt"))
    yield "international text", encoded(tan, "PNG", pnginfo=with_text("iTXt"))
    yield "long text", encoded(tan, "PNG", pnginfo=with_text("tEXt", 70_000_000))
    yield "profile", encoded(tan, "PNG", icc_profile=b"0123456789" * 200_000)
    yield "text with a wrong checksum", spoilt(text, b"tEXt")
    yield "profile with a wrong checksum", spoilt(encoded(tan, "PNG", icc_profile=b"0"), b"iCCP")
    yield (
        "text of another compression",
        spoilt(
            encoded(tan, "PNG", pnginfo=with_text("zTXt", 9)).replace(
                b"workflow\0\0", b"workflow\0\7"
            ),
            b"zTXt",
        ),
    )
    yield "profile of a JPEG", encoded(tan, "JPEG", icc_profile=b"no profile" * 9000, quality=95)
    yield "odd EXIF data", jpeg.replace(b"\x01\x12\0\x03", b"\x01\x12\0\x07")
    yield "cut EXIF data", jpeg.replace(b"Exif\0\0MM", b"Exif\0\0XX")
    yield "something after the end", jpeg + b"\0" * 1000 + b"trailer"
    yield "a second picture after the end", jpeg + jpeg
    yield (
        "several pictures in one",
        encoded(tan, "MPO", save_all=True, append_images=[Image.new("RGB", (64, 64))], quality=95),
    )
    yield "JPEG 2000", encoded(tan, "JPEG2000")
    yield "XMP in a WebP", encoded(tan, "WEBP", xmp=b"x" * 2_000_000, lossless=True)


@pytest.mark.parametrize(
    "kind, content", [*sound_pictures()], ids=lambda x: x if str(x) == x else ""
)
def test_sound_pictures_are_read(tmp_path, kind, content):
    (tmp_path / "picture").write_bytes(content)
    image = load_image(tmp_path / "picture")
    off = np.abs(np.subtract(image.getpixel((20, 20)), (210, 180, 140))).max()
    assert image.size == (64, 64) and off <= 3, f"got {image.size}, {image.getpixel((20, 20))}"


@pytest.mark.parametrize("width, height", [(12_000, 9_000), (16_320, 12_240)])
def test_phones_with_many_pixels_are_read_small(tmp_path, width, height):
    Image.new("L", (width, height), 180).save(tmp_path / "phone.jpg")
    image, own_size = read_image(tmp_path / "phone.jpg", 64)
    assert own_size == (width, height) and image.width <= width // 8, f"got {image.size}"
    assert image.getpixel((9, 9)) == (180, 180, 180), "expected its shade"


@pytest.mark.parametrize(
    "width, height, n_bytes, is_sound",
    [
        (16_320, 12_240, 30_000_000, True),  # a phone
        (12_000, 9_000, 2_000_000, True),  # a plain one
        (14_000, 14_000, 25_000, False),  # nothing but zeros
        (16_000, 16_000, 600, False),
        (30_000, 30_000, 90_000_000, False),
        (4_000, 3_000, 300, True),  # small enough for any memory
        (1, 30_000, 400, False),
        (2_000, 99, 10_000, False),
        (2_000, 101, 10_000, True),
        (64, 64, 2**30 + 1, False),
    ],
)
def test_what_would_fill_the_memory_is_no_picture(width, height, n_bytes, is_sound):
    if is_sound:
        pictures.check_shape(width, height, n_bytes)
    else:
        with pytest.raises(UnreadableImage, match="a strip|too large"):
            pictures.check_shape(width, height, n_bytes)


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "it is empty"),
        (b"no picture", "it is no picture of a known kind"),
        (b"\0\0\0\x18ftypheic" + bytes(100), "HEIC photograph, whatever its name: convert"),
        (b"\0\0\0\x18ftypmif1heic" + bytes(100), "HEIC photograph"),
        (encoded(Image.new("1", (14_000, 14_000)), "PNG"), "too large: 14,000 x 14,000 pixels"),
        (encoded(Image.new("1", (1, 300)), "PNG"), "a strip of 1 x 300 pixels"),
        (photo_bytes()[:-200], "Pillow cannot read it"),
    ],
)
def test_what_is_no_picture_says_why(tmp_path, content, reason):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason) as caught:
        load_image(tmp_path / "a.jpg")
    assert "0x" not in str(caught.value), "expected no address in memory"
