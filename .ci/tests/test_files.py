"""Files and folders: whole or not at all, by one process at a time, also where drives fail."""

import errno
import os
import re
import subprocess
import threading
import time
from pathlib import Path

import pytest
import torch
from data_inputs import archive, file_answer, save_faces, serve, start
from no_locks import lock_no_files

import helpers
import problem_unittests
from assets.lib import files
from assets.lib.files import (
    MarkerLock,
    Timeout,
    acquire_lock,
    explain_disk_errors,
    locked,
    make_once,
)
from assets.lib.folders import find_images

# ---------------------------------------------------------------- two processes at once


def fetch_draw_and_decode(url, place):
    """What a notebook does with data; waits for the other process before each part."""
    notebook = problem_unittests.read_notebook()
    torch.set_num_threads(1)
    os.chdir(place)
    for part in ("fetch", "draw", "decode"):
        meet(part)
        if part == "fetch":
            faces = find_images(helpers.find_data("fetched", url))
        elif part == "draw":
            faces = find_images(helpers.find_data("drawn", n_drawn=60, image_size=16))
        else:
            images = notebook.get_dataloader(4, 16, "photos").dataset.images
            faces = [image for image in images if image.any()]
        print(part, len(faces))


def wait_until(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("expected the other process to come this far")


def meet(part):
    """Return when both processes are here."""
    Path(f"{part}_{os.getpid()}.here").touch()
    wait_until(lambda: len(list(Path(".").glob(f"{part}_*.here"))) == 2)


def test_two_notebooks_at_once_find_the_same_data(empty_place):
    names = [f"faces/{i}.jpg" for i in range(30)]
    save_faces("photos", 300)
    answer = file_answer(archive(names))
    code = "import sys, test_files; test_files.fetch_draw_and_decode(*sys.argv[1:])"
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
    inside, resume, order = threading.Event(), threading.Event(), []

    def make(name):
        def fill(folder):
            order.append(name)
            (folder / "one").touch()
            inside.set()
            assert resume.wait(20), "expected to continue"
            (folder / "two").touch()

        return fill

    target = Path("made")
    threads = [threading.Thread(target=make_once, args=(target, make(name))) for name in "ab"]
    threads[0].start()
    assert inside.wait(20) and not target.exists(), "expected nothing to be seen before the end"
    threads[1].start()
    wait_until(lambda: "Another process is making made" in capsys.readouterr().out)
    resume.set()
    for thread in threads:
        thread.join()
    assert order == ["a"], f"expected the second to make nothing, got {order}"
    assert sorted(os.listdir(target)) == ["one", "two"], "expected the whole"


def test_what_fails_leaves_nothing_and_can_be_made_again(empty_place):
    def fail(folder):
        (folder / "half").touch()
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        make_once(Path("made"), fail)
    left = [path.name for path in empty_place.iterdir() if path.suffix != ".lock"]
    assert not left, f"expected nothing, got {left}"
    Path(".made.unfinished").mkdir()  # of a process that was killed
    Path(".made.unfinished/old").touch()
    make_once(Path("made"), lambda folder: (folder / "new").touch())
    assert os.listdir("made") == ["new"], f"got {os.listdir('made')}"


# ---------------------------------------------------------------- drives without locks

MARKER = Path(".thing.lock.exists")


@pytest.fixture
def no_locks(empty_place, monkeypatch):
    lock_no_files(monkeypatch.setattr, stale=0.5)


def holder(seconds):
    """A process that holds the lock on "thing" for so long."""
    process = start(f"import no_locks; no_locks.hold({seconds})")
    wait_until(Path("held").exists)
    return process


@pytest.mark.parametrize(
    "number", [errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF]
)
def test_a_drive_without_locks_is_locked_by_a_file(empty_place, monkeypatch, number):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", refuse)
    monkeypatch.setattr(MarkerLock, "BEAT", 0.1)
    for _ in range(2):
        with locked("thing"):
            assert MARKER.exists(), "expected a file that says so"
            with pytest.raises(Timeout):
                acquire_lock(Path(".thing.lock"), 0)
        assert not MARKER.exists(), "expected the file to go with the lock"


def test_a_living_process_keeps_its_lock(empty_place, monkeypatch, capsys):
    lock_no_files(monkeypatch.setattr)
    process = holder(6)  # more than twice as long as it takes for a lock to be stale
    with pytest.raises(Timeout):
        acquire_lock(Path(".thing.lock"), 0)
    with locked("thing"):
        assert process.communicate(timeout=60)[0] == "let go\n", "expected it to end first"
    printed = capsys.readouterr().out
    assert "delete that file" in printed and str(MARKER) in printed, f"got {printed}"
    assert "Another process is making thing: waiting for it" in printed, f"got {printed}"
    assert "takes it over" not in printed, f"got {printed}"


LEFT = {
    "nothing": "",
    "another library's": "4711\nthe-machine-before\n",
    "this one's": f"{'0' * 32} 17",
    "no text": "\x00\ufffd" * 9,
    "from the future": "later",
    "a killed takeover": "taken",
}


@pytest.mark.parametrize("kind", LEFT)
def test_a_lock_that_was_left_is_taken_over(no_locks, capsys, kind):
    MARKER.write_text(LEFT[kind], encoding="utf-8")
    if kind == "from the future":
        os.utime(MARKER, (2**32, 2**32))
    if kind == "a killed takeover":
        MARKER.with_name(f"{MARKER.name}.{'1' * 32}").write_text("1" * 32)
    make_once(Path("thing"), lambda folder: (folder / "new").touch())
    printed = capsys.readouterr().out
    assert os.listdir("thing") == ["new"] and not MARKER.exists(), "expected the whole"
    watching = f"Another process seems to hold {MARKER}: watching it"
    assert watching in printed and "delete that file" in printed, f"got {printed}"
    assert f"{MARKER} was left by a process that has ended" in printed, f"got {printed}"


def test_a_killed_process_leaves_a_lock_that_is_taken_over(no_locks, capsys):
    process = holder(100)
    process.kill()
    process.wait()
    assert MARKER.exists(), "expected its lock to stay"
    with locked("thing"):
        assert "takes it over" in capsys.readouterr().out


def test_a_lock_whose_file_is_deleted_is_had_at_once(no_locks, monkeypatch):
    monkeypatch.setattr(MarkerLock, "STALE", 1000)
    MARKER.touch()
    timer = threading.Timer(0.3, MARKER.unlink)
    timer.start()
    acquire_lock(Path(".thing.lock")).release()


def test_one_of_many_takes_a_lock_over(no_locks):
    MARKER.touch()
    inside, most = [], []

    def work():
        with locked("thing"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] * 6, f"expected one at a time, got {most}"


def test_a_process_that_slept_too_long_knows_that_it_lost_its_lock(no_locks):
    slept = acquire_lock(Path(".thing.lock"))
    assert slept.is_locked
    MARKER.write_text("another's")  # who took it over meanwhile
    wait_until(lambda: not slept.is_locked)
    slept.release()
    assert MARKER.read_text() == "another's", "expected the other's lock to stay"


def test_a_lock_that_nobody_refers_to_is_let_go(no_locks):
    lock = acquire_lock(Path(".thing.lock"))
    assert MARKER.exists() and lock.is_locked
    del lock
    assert not MARKER.exists(), "expected the lock to go with its object"


def test_a_process_that_ends_lets_go(no_locks):
    code = "from no_locks import *; from assets.lib.files import acquire_lock; lock_no_files()\n"
    code += "lock = acquire_lock('.thing.lock'); assert lock.is_locked"
    printed = start(code).communicate(timeout=60)[0]
    assert not printed and not MARKER.exists(), f"expected no lock to stay, got {printed}"


# ---------------------------------------------------------------- disks that fail


@pytest.mark.parametrize(
    "number, message",
    [
        (errno.ENOSPC, "written: No space left on device. Make room on the disk, or choose"),
        (errno.EDQUOT, "Make room on the disk, or choose another out_dir"),
        (errno.EROFS, "written: Read-only file system. Make it writable, or choose"),
        (errno.EACCES, "place cannot be written: Permission denied. Make it writable, or"),
        (errno.EIO, "place cannot be written: Input/output error"),
    ],
)
def test_errors_of_the_disk_say_what_to_do(number, message):
    with pytest.raises(OSError, match=message) as caught:
        with explain_disk_errors("outer"), explain_disk_errors("place"):
            raise OSError(number, os.strerror(number))
    assert caught.value.errno == number, f"expected {number}, got {caught.value.errno}"


def test_other_errors_are_not_of_the_disk():
    with pytest.raises(OSError, match="^image file is truncated$"), explain_disk_errors("place"):
        raise OSError("image file is truncated")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write_file(path, lambda file: file.write(b"old"))
    files.write_file(path, lambda file: file.write(b"new"), tmp_path / "previous")
    assert (tmp_path / "previous").read_bytes() == b"old" and path.read_bytes() == b"new"

    def fail(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="file cannot be written: No space left"):
        files.write_file(path, lambda file: file.write(b"newest"), tmp_path / "previous")
    kept = {item.name: item.read_bytes() for item in tmp_path.iterdir()}
    assert kept == {"file": b"new", "previous": b"old"}, f"expected both as before, got {kept}"


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
