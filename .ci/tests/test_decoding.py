"""Decoding: each picture once, into a cache."""

import errno
import os
import re
import shutil
import sys
import time
import types
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from data_inputs import photo_bytes, save_faces, save_shades, start
from PIL import Image

import helpers
from assets.lib import decoding, files, pictures
from problem_unittests import read_notebook


def printed_by(capsys):
    return capsys.readouterr().out


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_faces_are_decoded_once(empty_place, notebook, monkeypatch, capsys):
    save_shades("photos", 21)
    Path("photos/broken.jpg").write_bytes(photo_bytes()[:200])
    Path("photos/text.png").write_text("no picture", encoding="utf-8")
    first = notebook.get_dataloader(3, 32, "photos").dataset
    expected = "Left out 2 unreadable files, the first: broken.jpg, text.png"
    assert len(first) == 21 and expected in printed_by(capsys), "expected the readable images"
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "decode_together", lambda *_: pytest.fail("expected the cache"))
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


def exchange(kind):
    """Other contents for photos/, of the same names, sizes and dates."""
    paths = sorted(Path("photos").iterdir())
    dates = {path.name: path.stat().st_mtime_ns for path in paths}
    white = Image.new("RGB", (20, 24), "white")
    if kind == "all, in place":
        for path in paths:
            white.save(path)
    elif kind == "one, in place":
        white.save(paths[17])
    elif kind == "one, by another file":
        white.save("new.bmp")
        os.replace("new.bmp", paths[17])
    elif kind == "two for each other":
        os.replace(paths[16], "kept.bmp")
        os.replace(paths[17], paths[16])
        os.replace("kept.bmp", paths[17])
    elif kind == "one byte":
        content = bytearray(paths[17].read_bytes())
        content[len(content) // 2] ^= 255
        paths[17].write_bytes(content)
    else:  # the whole folder
        os.rename("photos", "before")
        shutil.copytree("before", "photos")
        white.save(paths[17])
    for path in paths:
        os.utime(path, ns=(dates[path.name], dates[path.name]))


EXCHANGES = "all, in place", "one, in place", "one, by another file", "two for each other"


@pytest.mark.parametrize("kind", [*EXCHANGES, "one byte", "the whole folder"])
def test_other_pictures_of_the_same_size_and_date_are_decoded(empty_place, notebook, kind):
    save_faces("photos", 40, "{:02}.bmp")
    before = notebook.get_dataloader(4, 16, "photos").dataset
    time.sleep(0.02)  # the file system's clock ticks
    exchange(kind)
    after = notebook.get_dataloader(4, 16, "photos").dataset
    assert not torch.equal(before.images, after.images), "expected the new pictures"
    for path in Path("cache").glob("decoded_*"):
        shutil.rmtree(path)
    fresh = notebook.get_dataloader(4, 16, "photos").dataset
    assert torch.equal(after.images, fresh.images), "expected what is decoded without a cache"


def test_a_folder_that_was_exchanged_is_noticed_without_times_of_changes(
    empty_place, notebook, monkeypatch
):
    save_faces("photos", 40, "{:02}.bmp")
    stat, names = os.stat, "st_size st_mtime_ns st_mode st_dev st_ino".split()

    def stat_of_windows(path, **options):
        found = stat(path, **options)
        return types.SimpleNamespace(
            st_ctime_ns=0, **{name: getattr(found, name) for name in names}
        )

    monkeypatch.setattr(decoding.os, "stat", stat_of_windows)
    before = decoding.cache_key(notebook.FaceFolder("photos"))
    assert decoding.cache_key(notebook.FaceFolder("photos")) == before, "expected the same key"
    exchange("all, in place")
    assert decoding.cache_key(notebook.FaceFolder("photos")) != before, "expected another key"


def damage(copy, what):
    name, _, how = what.partition(": ")
    path = copy / name
    if how == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "cut by a byte":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "zeros":
        path.write_bytes(bytes(path.stat().st_size))
    elif how == "another header":
        content = path.read_bytes()
        path.write_bytes(content[:10] + b"{'shape': (((" + content[23:])
    elif how == "of fewer pictures":
        np.save(path, np.load(path)[:-1])
    elif how == "a folder":
        path.unlink()
        path.mkdir()
    elif how == "a file":
        shutil.rmtree(copy)
        copy.write_bytes(b"")
    elif how == "nothing":
        shutil.rmtree(copy)
        copy.mkdir()
    else:  # missing
        path.unlink()


DAMAGES = [f"{name}: {how}" for name in ("images.npy", "sides.npy") for how in ("cut", "empty")]
DAMAGES += [f"{name}: missing" for name in ("images.npy", "sides.npy", "source.txt")]
DAMAGES += [
    "images.npy: zeros",
    "images.npy: another header",
    "images.npy: a folder",
    "images.npy: of fewer pictures",
]
DAMAGES += ["images.npy: cut by a byte", "source.txt: empty", "source.txt: a folder"]


@pytest.mark.parametrize("what", [*DAMAGES, ": a file", ": nothing"])
def test_a_damaged_cache_means_decoding_anew(empty_place, notebook, what):
    save_shades("photos", 12)
    before = notebook.get_dataloader(3, 16, "photos").dataset.images.clone()
    (copy,) = Path("cache").glob("decoded_*")
    damage(copy, what)
    for _ in range(2):
        after = notebook.get_dataloader(3, 16, "photos").dataset
        assert torch.equal(after.images, before) and len(after) == 12, "expected the same pixels"
    save_faces("photos", 1)
    assert len(notebook.get_dataloader(3, 16, "photos").dataset) == 13, "expected it to go on"


def test_the_newest_decoded_copies_are_kept(empty_place, notebook, capsys):
    save_shades("photos", 4)
    save_shades("others", 4)
    notebook.get_dataloader(2, 16, "others")
    for i in range(decoding.KEPT_COPIES + 2):
        save_faces("photos", 1, "more{}.jpg", first=i)
        notebook.get_dataloader(2, 16, "photos")
    copies = list(Path("cache").glob("decoded_*"))
    assert len(copies) == decoding.KEPT_COPIES + 1, f"expected the newest few, got {len(copies)}"
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
        save_shades(files.to_path(name), 4)
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
    monkeypatch.setattr(pictures.time, "sleep", lambda seconds: None)
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
        monkeypatch.setattr(decoding.shutil, "disk_usage", lambda path: usage)
    if what == "filling":
        monkeypatch.setattr(decoding, "write_rows", full)
    if what == "read-only":
        error = OSError(errno.EROFS, os.strerror(errno.EROFS))
        monkeypatch.setattr(files, "FileLock", mock.Mock(side_effect=error))
    message = "Make it writable, or start" if what == "read-only" else "Make room on the disk"
    with pytest.raises(OSError, match=f"cache cannot be written: .*{message}"):
        notebook.get_dataloader(2, 16, "photos")
    assert not list(Path("cache").glob("decoded*")), "expected nothing half-made"


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


def decode_by_two(folder):
    """Two ranks decode a folder together, and read it as one does by itself."""
    notebook, (rank, _) = read_notebook(), helpers.world()
    faces = notebook.get_dataloader(4, 16, folder).dataset
    names = sorted(path.name for path in next(decoding.CACHE.glob("decoded_*")).iterdir())
    assert names == ["images.npy", "sides.npy", "source.txt"], f"one file for all, got {names}"
    with helpers.single_process():
        again = notebook.get_dataloader(4, 16, folder).dataset
        shared, decoding.CACHE = decoding.CACHE, Path(f"own_{rank}")
        whole = notebook.get_dataloader(4, 16, folder).dataset
        decoding.CACHE = shared
    assert len(faces) == len(whole) == 21, f"expected the 21 readable ones, got {len(faces)}"
    for one in (faces, again):
        assert torch.equal(one.images, whole.images), "expected the same pixels"
        assert torch.equal(one.sides, whole.sides), "expected the same sizes"
        assert one.names == whole.names and torch.equal(one.rows, whole.rows), "in the same order"


def test_ranks_fill_one_file(tmp_path):
    save_shades(tmp_path / "photos", 22)
    (tmp_path / "photos" / "017.png").write_bytes(b"no picture")
    code = "import test_decoding; test_decoding.decode_by_two('photos')"
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    process = start("", cwd=tmp_path, command=[sys.executable, *ranks, sys.executable, "-c", code])
    printed = process.communicate(timeout=100)[0]
    assert process.returncode == 0, f"expected both ranks to end well, got {printed[-2000:]}"
    assert printed.count("Left out 1 unreadable") == 3, f"expected rank 0 to speak, got {printed}"


def test_array_files_are_read_by_numpy(empty_place, notebook):
    save_shades("photos", 5)
    faces = notebook.FaceFolder("photos", lambda image: torch.full((3, 4, 4), 1 / 255))
    shape = decoding.create_array(faces, Path("images.npy"))
    assert shape == (3, 4, 4) and not np.load("images.npy").any(), "expected zeros"
    sides = decoding.write_rows(faces, np.array([1, 3]), Path("images.npy"), shape)
    assert sides.tolist() == [0, 20, 0, 20, 0], f"expected these rows, got {sides}"
    rows = np.load("images.npy").reshape(5, -1)
    assert (rows[[1, 3]] == 1).all() and not rows[[0, 2, 4]].any(), "expected no other rows"
