"""Two processes at once on one folder, cache or download: none sees a half-made thing."""

import errno
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from data_inputs import archive, file_answer, save_faces, save_shades, serve, start
from filelock import FileLock

import helpers
import problem_unittests
from assets import face_files


def fetch_draw_and_decode(url, place):
    """What a notebook does with data; waits for the other process before each part."""
    notebook = problem_unittests.read_notebook()
    torch.set_num_threads(1)
    os.chdir(place)
    for part in ("fetch", "draw", "decode"):
        meet(part)
        if part == "fetch":
            faces = face_files.find_images(helpers.find_data("fetched", url))
        elif part == "draw":
            faces = face_files.find_images(helpers.find_data("drawn", n_drawn=60, image_size=16))
        else:
            images = notebook.get_dataloader(4, 16, "photos").dataset.images
            faces = [image for image in images if image.any()]
        print(part, len(faces))


def wait_until(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("expected the other one to come this far")


def meet(part):
    """Return when both processes are here."""
    Path(f"{part}_{os.getpid()}.here").touch()
    wait_until(lambda: len(list(Path(".").glob(f"{part}_*.here"))) == 2)


def test_two_notebooks_at_once(empty_place):
    names = [f"faces/{i}.jpg" for i in range(30)]
    save_faces("photos", 300)
    answer = file_answer(archive(names))
    code = "import sys, test_locks; test_locks.fetch_draw_and_decode(*sys.argv[1:])"
    with serve(answer) as url:
        both = [start(code, url, empty_place) for _ in range(2)]
        printed = [process.communicate(timeout=100)[0] for process in both]
    for process, text in zip(both, printed):
        assert process.returncode == 0, f"expected both to end well, got {text[-1500:]}"
        found = re.findall(r"^(fetch|draw|decode) (\d+)$", text, re.MULTILINE)
        expected = [("fetch", "30"), ("draw", "60"), ("decode", "300")]
        assert found == expected, f"expected {expected}, got {found}"
    assert len(answer.asked) == 1, f"expected one download, got {len(answer.asked)}"
    kept = {path.name for path in empty_place.rglob("*") if "unfinished" in path.name}
    assert not kept, f"expected nothing unfinished, got {kept}"


def test_the_second_waits_and_finds_what_the_first_made(empty_place, capsys):
    inside, go_on, order = threading.Event(), threading.Event(), []

    def make(name):
        def fill(folder):
            order.append(name)
            (folder / "one").touch()
            inside.set()
            assert go_on.wait(20), "expected to go on"
            (folder / "two").touch()

        return fill

    target = Path("made")
    threads = [
        threading.Thread(target=face_files.make_once, args=(target, make(name), "..."))
        for name in "ab"
    ]
    threads[0].start()
    assert inside.wait(20) and not target.exists(), "expected nothing to be seen before the end"
    threads[1].start()
    wait_until(lambda: "waiting for it" in capsys.readouterr().out)
    go_on.set()
    for thread in threads:
        thread.join()
    assert order == ["a"], f"expected the second to make nothing, got {order}"
    assert sorted(os.listdir(target)) == ["one", "two"], "expected the whole"


def test_what_fails_leaves_nothing_and_can_be_made_again(empty_place):
    def fail(folder):
        (folder / "half").touch()
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        face_files.make_once(Path("made"), fail)
    left = [path.name for path in empty_place.iterdir() if path.suffix != ".lock"]
    assert not left, f"expected nothing, got {left}"
    Path(".made.unfinished").mkdir()  # of a process that was killed
    Path(".made.unfinished/old").touch()
    face_files.make_once(Path("made"), lambda folder: (folder / "new").touch())
    assert os.listdir("made") == ["new"], f"got {os.listdir('made')}"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_drives_without_locks_are_locked_by_a_file(empty_place, monkeypatch, number):
    lock = mock.Mock(side_effect=OSError(number, os.strerror(number)))
    monkeypatch.setattr(FileLock, "acquire", lock)
    monkeypatch.setattr(face_files.SoftFileLock, "acquire", face_files.SoftFileLock.acquire)
    with face_files.locked("thing"):
        with pytest.raises(face_files.Timeout):
            face_files.acquire_lock(Path(".thing.lock"), 0)
    face_files.acquire_lock(Path(".thing.lock"), 0).release()
    assert lock.called, "expected a real lock to be tried first"


def test_errors_of_the_disk_say_what_to_do():
    cases = (
        (
            errno.ENOSPC,
            "place cannot be written: No space left on device. Make room on the disk, or",
        ),
        (errno.EDQUOT, "Make room on the disk, or choose another out_dir"),
        (
            errno.EROFS,
            "place cannot be written: Read-only file system. Make it writable, or choose",
        ),
        (errno.EACCES, "place cannot be written: Permission denied"),
    )
    for number, message in cases:
        with pytest.raises(OSError, match=message) as caught:
            with face_files.explain_disk_errors("outer"), face_files.explain_disk_errors("place"):
                raise OSError(number, os.strerror(number))
        assert caught.value.errno == number, f"expected {number}, got {caught.value.errno}"
    with (
        pytest.raises(OSError, match="^image file is truncated$"),
        face_files.explain_disk_errors("x"),
    ):
        raise OSError("image file is truncated")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs mounts")
def test_places_that_cannot_be_written(empty_place, notebook, monkeypatch):
    save_faces("faces", 30)
    pictures, place = Path("faces").resolve(), Path("full").resolve()
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", place]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounts are not allowed here")
    try:
        monkeypatch.chdir(place)
        with pytest.raises(OSError, match="drawn_faces/.* cannot be written: No space left"):
            helpers.find_data("drawn", None, None, 300, 16)
        with pytest.raises(OSError, match="cache cannot be written: No space left"):
            notebook.get_dataloader(4, 256, pictures)
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        with pytest.raises(OSError, match="cache cannot be written: Read-only file system"):
            notebook.get_dataloader(4, 16, pictures)
        with pytest.raises(OSError, match="drawn_faces/.* cannot be written: Read-only"):
            helpers.find_data("drawn", None, None, 20, 16)
    finally:
        monkeypatch.chdir(empty_place)
        subprocess.run(["umount", place], check=True)


def decode_by_two(folder):
    """Two ranks decode a folder together, and read it as one does by itself."""
    notebook, (rank, _) = problem_unittests.read_notebook(), helpers.world()
    faces = notebook.get_dataloader(4, 16, folder).dataset
    files = sorted(path.name for path in next(helpers.CACHE.glob("decoded_*")).iterdir())
    assert files == ["images.npy", "readable.npy", "source.txt"], f"one file for all, got {files}"
    with helpers.single_process():
        again = notebook.get_dataloader(4, 16, folder).dataset
        own, helpers.CACHE = helpers.CACHE, Path(f"own_{rank}")
        whole = notebook.get_dataloader(4, 16, folder).dataset
        helpers.CACHE = own
    assert len(faces) == len(whole) == 21, f"expected the 21 readable ones, got {len(faces)}"
    for one in (faces, again):
        assert torch.equal(one.images, whole.images), "expected the same pixels"
        assert one.names == whole.names and torch.equal(one.rows, whole.rows), "in the same order"
    found = helpers.find_data("drawn", n_drawn=4, image_size=16)
    assert len(face_files.find_images(found)) == 4, "expected every rank to find what rank 0 drew"


def test_ranks_fill_one_file(tmp_path):
    save_shades(tmp_path / "photos", 22)
    (tmp_path / "photos" / "017.png").write_bytes(b"no picture")
    code = "import test_locks; test_locks.decode_by_two('photos')"
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    process = start("", cwd=tmp_path, command=[sys.executable, *ranks, sys.executable, "-c", code])
    printed = process.communicate(timeout=100)[0]
    assert process.returncode == 0, f"expected both ranks to end well, got {printed[-2000:]}"
    assert printed.count("Data: 4 drawn faces") == 1, f"expected rank 0 to speak, got {printed}"


def test_several_ranks_need_a_launcher(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ValueError, match="WORLD_SIZE = 2 does not work: start it with torchrun"):
        helpers.join_ranks.__wrapped__()


def test_array_files_are_read_by_numpy(empty_place, notebook):
    save_shades("photos", 5)
    faces = notebook.FaceFolder("photos", lambda image: torch.full((3, 4, 4), 1 / 255))
    shape = helpers.create_array(faces, Path("images.npy"))
    assert shape == (3, 4, 4) and not np.load("images.npy").any(), "expected zeros"
    mask = helpers.write_rows(faces, np.array([1, 3]), Path("images.npy"), shape)
    assert mask.tolist() == [False, True, False, True, False], f"expected these rows, got {mask}"
    rows = np.load("images.npy").reshape(5, -1)
    assert (rows[[1, 3]] == 1).all() and not rows[[0, 2, 4]].any(), "expected no other rows"
