"""Checks of the data: the data loader and its scale."""

import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from assets.checks.asserts import (
    assert_close,
    assert_refuses,
    assert_shape,
    assert_stays_on_device,
)
from assets.checks.exercises import check, check_exercise
from assets.checks.layers import BAD_IMAGE_SIZES

N_PHOTOS, BATCH = 22, 4


def save_photos(root, folders):
    """A bright disc on a dark ground, its shade telling the photos apart: half wide, half tall."""
    for i in range(N_PHOTOS):
        width, height = (60, 40) if i % 2 else (40, 60)
        x, y, shade = width / 2, height / 2, 135 + 5 * i
        photo = Image.new("RGB", (width, height), (40, 10, 20))
        ImageDraw.Draw(photo).ellipse((x - 12, y - 12, x + 12, y + 12), fill=(shade,) * 3)
        folder = root / folders[i * len(folders) // N_PHOTOS]
        folder.mkdir(parents=True, exist_ok=True)
        photo.convert("L" if i == 3 else "RGB").save(folder / f"{i:03}.png")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "._000.jpg").write_bytes(b"\0\5\26\7")


def assert_images(images, labels, n_classes):
    kinds = images.dtype, labels.dtype
    assert kinds == (torch.float32, torch.int64), f"Expected float32 and int64, got {kinds}."
    low, high = images.min().item(), images.max().item()
    assert 0 <= low <= 0.2 and 0.8 <= high <= 1, (
        f"Dark and bright photos: expected values in [0, 1], got {low:.2f} to {high:.2f}. "
        "ToTensor divides by 255, and scale() maps them to [-1, 1] later."
    )
    n = len(labels.unique())
    assert n == n_classes, f"{n_classes} folders of photos: expected as many labels, got {n}."
    discs = images.amax(1) > 0.35  # (N, S, S)
    heights, widths = discs.any(2).sum(1), discs.any(1).sum(1)
    apart = (heights - widths).abs().max().item()
    assert apart <= 1 + images.shape[-1] // 32, (
        f"Photos that are not square: expected round discs, got some {apart} pixels off. "
        "Resize(image_size) and CenterCrop(image_size) crop; Resize((S, S)) stretches."
    )


def assert_serves(loader, size, n_classes):
    batches, served = list(loader), []
    assert len(batches) == len(loader) and len(batches) in (5, 6), (
        f"{N_PHOTOS} photos in batches of {BATCH}: expected 5 batches, or 6 with the rest, got "
        f"{len(batches)} and a len(loader) of {len(loader)}. Are all folders read, and .DS_Store "
        "and __MACOSX left out?"
    )
    for images, labels in batches[:5]:
        assert_shape("A batch of images", images, BATCH, 3, size, size)
        assert_shape("Its labels", labels, BATCH)
    for epoch in (batches, list(loader)):
        images, labels = (torch.cat(part) for part in zip(*epoch))
        assert_images(images, labels, n_classes)
        shades = images[:, 1, size // 2, size // 2].mul(51).round().tolist()
        served.append(shades)
        n, most = len(set(shades)), len(images)
        is_whole = n == most >= N_PHOTOS - N_PHOTOS % BATCH
        assert is_whole, f"An epoch: expected each photo once, got {n} different ones in {most}."
    assert served[0] != served[1], "Two epochs: expected another order. Is it shuffle=True?"


@check
def test_get_dataloader(get_dataloader):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        save_photos(root, ["flat"])
        save_photos(root, ["classes/a", "classes/b"])
        (root / "empty_folder").mkdir()
        (root / "only_text").mkdir()
        (root / "only_text" / "text.jpg").write_text("not a picture", encoding="utf-8")

        def serve(name="flat", batch_size=BATCH, size=32):
            return get_dataloader(batch_size, size, data_dir=str(root / name))

        for name, size, n_classes in (("flat", 32, 1), ("classes", 16, 2), ("classes", 64, 2)):
            assert_serves(serve(name, size=size), size, n_classes)
        for size in BAD_IMAGE_SIZES:
            assert_refuses(lambda x=size: serve(size=x), f"image_size = {size}", "image_size")
        for n in (0, -4, N_PHOTOS + 1):
            what = f"batch_size = {n} for {N_PHOTOS} photos"
            assert_refuses(lambda x=n: serve("flat", x), what, "batch_size")
        for name in ("empty_folder", "only_text", "no_such_folder"):
            assert_refuses(lambda x=name: serve(x, 1), f"data_dir = '{name}'", name)


def assert_scales(scale, x, given, low, high):
    before = x.clone()
    y = scale(x, *given)
    what = f"scale to feature_range ({low}, {high})"
    assert torch.equal(x, before), "Expected x unchanged, got it changed in place."
    assert_shape(what, y, *x.shape)
    assert y.dtype == x.dtype, f"{what}: expected {x.dtype}, got {y.dtype}."
    ends = scale(torch.tensor([0.0, 1.0]), *given)
    hint = "Are low and high swapped?" if ends[0] > ends[1] else ""
    assert_close(f"{what}, of 0 and 1", ends, (low, high), hint=hint)
    expected = low + x * (high - low)
    assert torch.allclose(y, expected, atol=1e-5), (
        f"{what}, of x from {x.min():.2f} to {x.max():.2f}: expected {expected.min():.2f} to "
        f"{expected.max():.2f}, got {y.min():.2f} to {y.max():.2f}. 0 goes to low and 1 to high, "
        "whatever the smallest and largest value of x."
    )


@check_exercise
def test_scale(scale):
    some = 0.2 + 0.4 * torch.rand(2, 3, 5, 5)
    for given, (low, high) in (
        ((), (-1, 1)),
        (((0, 1),), (0, 1)),
        (((-2, 3),), (-2, 3)),
    ):
        assert_scales(scale, some, given, low, high)
    by_name = scale(some, feature_range=(0, 2))
    assert torch.allclose(by_name, 2 * some), "Expected feature_range to work by name."
    hint = "Compute with x and numbers: NumPy and new tensors are on the CPU."
    assert_stays_on_device("scale of an x on another device", scale, some, hint)
