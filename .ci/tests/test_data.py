"""Getting the data, reading pictures, decoding, settings, figures."""

import errno
import os
import re
import sys
import types
import warnings
from collections import Counter
from pathlib import Path
from unittest import mock

import hypothesis
import numpy as np
import pytest
import torch
from data_inputs import (
    faces_named,
    photo_bytes,
    save_faces,
    save_shades,
    sha256,
)
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
