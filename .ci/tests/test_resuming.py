"""A run that was killed continues bit for bit."""

import contextlib
import multiprocessing
import random
import time

import numpy as np
import pytest
import torch
from small_runs import small_step, start

from assets.lib.checkpoints import load_checkpoint
from assets.lib.devices import random_state, restore_random_state
from assets.lib.identity import plain


def test_every_random_state_comes_back(tmp_path):
    def draw():
        return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()

    np.random.standard_normal()  # numpy keeps a second number for the next call
    torch.save(plain(random_state()), tmp_path / "state.pt")
    first = draw()
    restore_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    again = draw()
    assert again == first, f"expected {first} of PyTorch, NumPy and Python again, got {again}"


def with_r1(run, step):
    """A training step that, as the lesson's, depends on the recent d_loss."""

    def whole_step(D, G, real, d_optimizer, g_optimizer):
        losses = step(D, G, real, d_optimizer, g_optimizer)
        if run.recent_d_loss is not None:
            with torch.no_grad():
                next(D.parameters()).mul_(1 - 1e-3 * run.recent_d_loss)
        return losses

    return whole_step


def train_until_killed(folder, n_epochs):
    """A training process that writes a checkpoint at each step."""
    torch.set_num_threads(1)
    run, train = start(folder, averaged=True)
    log = run.log
    run.log = lambda *args: (log(*args), run.save())
    train(n_epochs, step=with_r1(run, small_step), print_every=7)


@pytest.fixture(scope="module")
def processes():
    """A way to start processes that have imported PyTorch already, where there is one."""
    kinds = multiprocessing.get_all_start_methods()
    method = "forkserver" if "forkserver" in kinds else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["small_runs", "torch._dynamo", "torch.export"])
    return context


def step_in(folder):
    for name in ("last.pt", "previous.pt"):
        with contextlib.suppress(FileNotFoundError):
            return load_checkpoint(folder / name)["step"]
    return -1


def leaves(value, path=""):
    """All numbers and tensors in nested dicts and lists, by where they are."""
    if isinstance(value, dict):
        return {k: v for name in value for k, v in leaves(value[name], f"{path}.{name}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for i, one in enumerate(value) for k, v in leaves(one, f"{path}.{i}").items()}
    return {path: value}


def test_a_run_that_was_killed_three_times_continues_bit_for_bit(tmp_path, processes):
    def begin(folder, n_epochs):
        process = processes.Process(target=train_until_killed, args=(folder, n_epochs))
        process.start()
        return process

    chance, reached, folder = random.Random(0), [0], tmp_path / "killed"
    for _ in range(3):
        process = begin(folder, 10**6)
        while process.is_alive() and step_in(folder) <= reached[-1] + 15:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.3))
        assert process.is_alive(), f"expected it to be at work, got an end after {step_in(folder)}"
        process.kill()
        process.join()
        reached.append(step_in(folder))
    assert not list(folder.glob("damaged*")), "expected no checkpoint to be damaged by a kill"
    assert sorted({*reached}) == reached, f"expected ever more steps, got {reached}"
    n_epochs = max(8, reached[-1] // 10 + 2)
    for path in (folder, tmp_path / "whole"):
        begin(path, n_epochs).join()
    killed, whole = (load_checkpoint(path / "last.pt") for path in (folder, tmp_path / "whole"))
    assert killed["step"] == whole["step"] == 10 * n_epochs, f"got {killed['step']} steps"
    for state in (killed, whole):
        state["random_state"] = state["random_state"]["torch"]  # only PyTorch's was seeded
    names = ["D", "G", "averaged", "d_optimizer", "g_optimizer", "d_losses", "random_state"]
    losses = [[row[3:] for row in state["rows"]] for state in (killed, whole)]
    assert losses[0] == losses[1], "expected the same losses in every row after three kills"
    for name in names:
        found, expected = leaves(killed[name]), leaves(whole[name])
        assert found.keys() == expected.keys(), f"{name}: expected the same parts"
        for path, value in expected.items():
            same = np.array_equal(np.asarray(value), np.asarray(found[path]))
            assert same, f"{name}{path}: expected the same bits after three kills, got others"
