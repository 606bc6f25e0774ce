"""How several ranks share batches, and how large a batch is; without any other process."""

import functools

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from assets.lib import files, ranks


def in_a_world(monkeypatch, n_ranks, rank=0):
    """Stand for one of so many ranks."""
    monkeypatch.setattr(ranks, "world", lambda: (rank, n_ranks))
    sampler = functools.partial(DistributedSampler, num_replicas=n_ranks, rank=rank)
    monkeypatch.setattr(ranks, "DistributedSampler", sampler)


def loader_of(n_images, batch_size):
    faces = TensorDataset(torch.arange(n_images))
    return DataLoader(faces, batch_size, shuffle=True, drop_last=True)


@pytest.mark.parametrize(
    "n_ranks, batch_size, shared",
    [(2, 32, 32), (3, 32, 30), (3, 96, 96), (5, 16, 15), (6, 16, 12), (12, 32, 24), (32, 16, 32)],
)
def test_any_number_of_ranks_shares_any_batch(monkeypatch, capsys, n_ranks, batch_size, shared):
    files.say_once.cache_clear()
    seen = []
    for rank in range(n_ranks):
        in_a_world(monkeypatch, n_ranks, rank)
        for _ in range(2):  # epochs
            loader = loader_of(400, batch_size)
            loader.sampler.generator = torch.Generator().manual_seed(5)
            own = [batch.tolist() for (batch,) in ranks.share_of(loader)]
        assert {len(batch) for batch in own} == {shared // n_ranks}, f"rank {rank}: got {own}"
        assert len(own) == 400 // n_ranks // (shared // n_ranks), f"rank {rank}: {len(own)} batches"
        seen += [image for batch in own for image in batch]
    assert len(seen) == len({*seen}), "expected no image to be seen twice in an epoch"
    printed = capsys.readouterr().out
    sentence = f"{n_ranks} ranks share batches of {shared} images, not {batch_size}.\n"
    expected = "" if shared == batch_size else sentence
    assert printed == expected, f"expected {expected or 'nothing'}, got {printed}"


@pytest.mark.parametrize("n_ranks, batch_size, n_images", [(2, 64, 40), (8, 4, 6), (3, 42, 41)])
def test_what_cannot_be_shared_is_refused_by_name(monkeypatch, n_ranks, batch_size, n_images):
    in_a_world(monkeypatch, n_ranks)
    sentence = f"batch_size or domain_batch = {batch_size} does not work: {n_ranks} ranks share"
    with pytest.raises(ValueError, match=sentence):
        ranks.share_of(loader_of(n_images, batch_size))


@pytest.mark.parametrize("text", ["", " ", "1"])
def test_a_world_of_one_needs_no_launcher(monkeypatch, text):
    monkeypatch.setenv("WORLD_SIZE", text)
    found = ranks.join_ranks.__wrapped__()
    assert found == (0, 1), f"expected one process, got {found}"


@pytest.mark.parametrize(
    "text, words",
    [
        ("two", "number of processes"),
        ("0", "number of processes"),
        ("-1", "number of processes"),
        ("1.5", "number of processes"),
        ("4", "torchrun"),
    ],
)
def test_a_world_that_nobody_started_is_refused(monkeypatch, text, words):
    monkeypatch.setenv("WORLD_SIZE", text)
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ValueError, match=f"WORLD_SIZE = .*{text}.* does not work: .*{words}"):
        ranks.join_ranks.__wrapped__()


@pytest.mark.parametrize(
    "n_images, expected",
    [(20, 16), (40, 32), (36, 32), (35, 16), (9, 8), (3, 2), (1, 1), (999, 32)],
)
def test_a_small_album_has_small_batches(n_images, expected):
    got = ranks.default_batch_size(n_images)
    assert got == expected, f"expected {expected} of {n_images}, got {got}"
