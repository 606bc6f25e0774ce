"""Sample grids: what they show, their order, and the animation made of them."""

import shutil

import pytest
import torch
from PIL import Image

from assets.lib import samples
from assets.lib.samples import SampleGrids


def grey_faces(shade, n=32, size=16):
    return torch.full((n, 3, size, size), shade)


def frames_of(path):
    """The brightness of each frame, and how long it is shown, in milliseconds."""
    shades, durations = [], []
    with Image.open(path) as animation:
        for frame in range(animation.n_frames):
            animation.seek(frame)
            shades.append(animation.convert("L").getpixel((20, 20)))
            durations.append(animation.info["duration"])
    return shades, durations


def test_the_animation_begins_with_noise_and_rests_on_the_last_grid(tmp_path):
    grids = SampleGrids(tmp_path, grey_faces)
    for step in range(50):
        grids.keep(step, step / 25 - 1)
    grids.animate(tmp_path / "training.gif")
    shades, durations = frames_of(tmp_path / "training.gif")
    assert len(shades) == 20, f"expected 20 frames, got {len(shades)}"
    assert shades == sorted(shades) and shades[0] == 0, f"expected step 0 first, got {shades}"
    assert shades[-1] > 240, f"expected the last grid last, got {shades}"
    assert durations[-1] == 2000 > max(durations[:-1]), f"expected a rest, got {durations}"


@pytest.mark.parametrize(
    "n, size, expected",
    [
        (32, 16, (3 * 142, 3 * 34)),  # two rows of eight, three times as large
        (48, 32, (2 * 270, 2 * 66)),
        (32, 64, (526, 130)),
        (8, 128, (540, 67)),  # one row, half as large
        (32, 256, (540, 135)),
        (4, 16, (7 * 70, 7 * 16)),
    ],
)
def test_the_animation_shows_whole_faces_at_a_size_that_fits_a_page(tmp_path, n, size, expected):
    grids = SampleGrids(tmp_path, lambda _: torch.rand(n, 3, size, size) * 2 - 1)
    for step in range(4):
        grids.keep(step, None)
    grids.animate(tmp_path / "training.gif")
    with Image.open(tmp_path / "training.gif") as animation:
        assert animation.n_frames == 4, f"expected 4 frames, got {animation.n_frames}"
        assert animation.size == expected, f"expected {expected}, got {animation.size}"


@pytest.mark.parametrize("n, size", [(32, 16), (32, 64), (16, 256), (1, 16)])
def test_the_animation_stays_below_3_mb_whatever_it_shows(tmp_path, n, size):
    grids = SampleGrids(tmp_path, lambda _: torch.rand(n, 3, size, size) * 2 - 1)
    for step in range(3):
        grids.keep(step, None)
    for step in range(3, 20):
        shutil.copy(grids.files()[step % 3], grids.folder / f"step_{step}.png")
    grids.animate(tmp_path / "training.gif")
    with Image.open(tmp_path / "training.gif") as animation:
        assert animation.n_frames == 20, f"expected 20 frames, got {animation.n_frames}"
        assert animation.width <= 600, f"expected at most 600 pixels, got {animation.width}"
    megabytes = (tmp_path / "training.gif").stat().st_size / 2**20
    assert megabytes <= 3, f"expected at most 3 MB, got {megabytes:.1f}"


def test_grids_are_in_the_order_of_their_steps_and_other_files_are_left_out(tmp_path):
    grids = SampleGrids(tmp_path, lambda _: grey_faces(0.0))
    for step in (12_345_678, 9_999_999, 5, 0):
        grids.keep(step, None)
    for name in ("step_last.png", "my favourite.png"):
        (grids.folder / name).write_bytes(b"")
    steps = [samples.step_of(path) for path in grids.files()]
    assert steps == [0, 5, 9_999_999, 12_345_678], f"expected them in order, got {steps}"


def test_grids_of_another_size_are_left_out_of_the_animation(tmp_path):
    grids = SampleGrids(tmp_path, lambda n: torch.rand(n, 3, 16, 16))
    for step, n in enumerate((8, 8, 32, 32, 32)):
        grids.keep(step, n)
    grids.animate(tmp_path / "training.gif")
    with Image.open(tmp_path / "training.gif") as animation:
        assert animation.n_frames == 3, f"expected the last three grids, got {animation.n_frames}"


def test_samples_that_are_all_alike_are_told_from_different_ones(tmp_path):
    different = torch.rand(8, 3, 16, 16) * 2 - 1
    nearly = different[:1] + 0.01 * torch.rand(8, 3, 16, 16)
    grids = SampleGrids(tmp_path, lambda images: images)
    found = [grids.keep(step, x) for step, x in enumerate((different, nearly, different[:1]))]
    assert found == [False, True, False], f"expected only the second to be alike, got {found}"


def test_the_newest_grid_is_shown_with_an_alternative_text(tmp_path, monkeypatch):
    shown = []

    def show_live(picture, handle, alt):
        shown.append((picture.size, handle, alt))
        return "the output"

    monkeypatch.setattr(samples, "show_live", show_live)
    grids = SampleGrids(tmp_path, lambda _: grey_faces(0.0))
    grids.keep(0, None)
    grids.keep(1200, None)
    size = 5 * 142, 5 * 70
    expected = [(size, None, "Samples after 0 steps"), (size, "the output", shown[-1][2])]
    assert shown == expected, f"expected one output, zoomed, got {shown}"
    assert shown[-1][2] == "Samples after 1,200 steps", f"got {shown[-1][2]}"
