"""Ranks that decode together, and the array file that they fill."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from data_inputs import save_shades, start

import helpers
import problem_unittests
from assets import face_files


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
