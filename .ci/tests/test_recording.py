"""What a run does besides its steps: rows, grids, scores, warnings, and what a step costs."""

import gc
import itertools
import math
import sys
import weakref

import numpy as np
import pytest
import small_runs
import torch
from small_runs import Clock, assert_same_bits, drive_steps, printed_by, start

from assets.lib import run_state, samples
from assets.lib.checkpoints import load_checkpoint

# ---------------------------------------------------------------- the cost of a step


class Rows(list):
    """A list that counts how many of its items are read."""

    read = 0

    def __iter__(self):
        self.read += len(self)
        return super().__iter__()

    def __getitem__(self, key):
        got = super().__getitem__(key)
        self.read += len(got) if isinstance(key, slice) else 1
        return got


def calls_of(action):
    """How many functions of Python are called by an action."""
    calls = []
    sys.setprofile(lambda frame, event, argument: event == "call" and calls.append(frame.f_code))
    try:
        action()
    finally:
        sys.setprofile(None)
    return len(calls)


def cost_of_steps(n_rows, n_scores, print_every, monkeypatch):
    """Items of rows and scores that 120 steps read, and functions that they call."""
    run, _ = start()
    Clock(monkeypatch)
    rows, scores = Rows(), Rows()
    with run:
        rows.extend((i, i * 32, i * 0.16, 1.2, 2.3) for i in range(n_rows))
        scores.extend((i, i * 32, i * 0.16, 1.0 + i) for i in range(n_scores))
        run.state.step = n_rows
        run.state.rows, run.state.scores, run.state.best_index = rows, scores, 0
        run.stop = run_state.StopRule(minutes=1e9, images=10**12, patience=10**9)
        losses = torch.rand(2)

        def steps():
            for _ in range(120):
                run.log(*losses, 4, print_every)
                assert run.recent_d_loss is None or run.recent_d_loss > 0
                assert run.progress < 1 and not run.finished

        calls = calls_of(steps)
        cost = rows.read + scores.read, calls
        run.state.rows, run.state.scores = [], []
    return cost


@pytest.mark.parametrize("print_every", [1, 50, 10**6])
@pytest.mark.parametrize("n_scores", [1, 10_000])
def test_a_step_costs_the_same_after_200_000_rows(monkeypatch, print_every, n_scores):
    first = cost_of_steps(1_000, 1, print_every, monkeypatch)
    late = cost_of_steps(200_000, n_scores, print_every, monkeypatch)
    assert late[0] == first[0] <= 120 * 50, f"expected as many items to be read, got {first, late}"
    assert abs(late[1] - first[1]) < 120, f"expected as many calls, got {first, late}"


def test_a_step_without_a_row_reads_nothing_from_the_device(monkeypatch):
    run, _ = start()
    with run:
        losses = torch.rand(2).unbind()
        for name in ("item", "tolist", "cpu", "__bool__", "__float__", "numpy"):
            monkeypatch.setattr(torch.Tensor, name, lambda *_: pytest.fail("the device waits"))
        for _ in range(49):
            run.log(*losses, 4, 50)
        monkeypatch.undo()


# ---------------------------------------------------------------- rows and R1


@pytest.mark.parametrize("print_every", [1, 7, 50, 64, 10**6])
def test_r1_does_not_depend_on_how_often_rows_are_printed(print_every):
    run, _ = start()
    found, losses = [], torch.rand(320, generator=torch.Generator().manual_seed(4)).tolist()
    with run:
        for d_loss in losses:
            run.log(d_loss, 1.0, 4, print_every)
            found.append(run.recent_d_loss)
    blocks = [np.mean(np.float32(losses[i : i + 50])) for i in range(0, 300, 50)]
    assert found[48] is None, "expected none before the first block of 50 steps is full"
    for n in range(1, 7):
        got, expected = found[50 * n - 1], np.mean(blocks[max(0, n - 5) : n])
        assert got == pytest.approx(expected, rel=1e-6), f"{n} blocks: {expected}, got {got}"
        until_the_next = {*found[50 * n - 1 : 50 * n + 49]}
        assert until_the_next == {got}, f"expected it to change with a block, got {until_the_next}"


def test_with_a_row_every_50_steps_it_is_the_mean_of_the_last_five_rows():
    run, _ = start()
    with run:
        for d_loss in torch.rand(400).tolist():
            run.log(d_loss, 1.0, 4, 50)
    expected = np.mean([d_loss for d_loss, _ in run.losses[-5:]])
    assert run.recent_d_loss == expected, f"expected {expected}, got {run.recent_d_loss}"


def test_a_run_shorter_than_a_print_still_has_losses(tmp_path):
    run, train = start(tmp_path / "run", n=12)
    losses = train(1)  # 3 steps, and a print after every 4
    lines = (run.folder / "losses.csv").read_text(encoding="utf-8").splitlines()
    assert len(losses) == 1 and len(lines) == 2, f"expected one row for what there is, got {lines}"


# ---------------------------------------------------------------- grids and scores


def test_samples_and_scores_do_not_change_what_training_does(tmp_path, monkeypatch):
    def noisy(generator):
        np.random.rand()
        return torch.rand(4, 3, 16, 16) * 2 - 1 + 0 * generator(small_runs.LATENTS)

    quiet, train = start(tmp_path / "quiet", averaged=True, sample=None)
    train(2)
    score = lambda _: torch.rand(()).item()  # noqa: E731
    watched, train = start(tmp_path / "watched", averaged=True, sample=noisy, score=score)
    Clock(monkeypatch, watched, 5)
    train(2)
    assert len(list((watched.folder / "samples").iterdir())) > 5, "expected grids while it trained"
    assert len(watched.scores) > 3, f"expected scores while it trained, got {watched.scores}"
    assert_same_bits(quiet, watched)


def test_grids_and_scores_come_when_they_are_due(tmp_path, monkeypatch):
    grids, scores = [], []
    clock = Clock(monkeypatch)

    def sample(generator):
        grids.append(run.seconds)
        clock.add(0.5)
        return small_runs.NOISE

    def score(generator):
        scores.append(run.seconds)
        clock.add(1)
        return 1.0

    run, _ = start(tmp_path / "run", sample=sample, score=score)
    clock.drive(run, 0.5)
    drive_steps(run, 400, print_every=10**6)
    gaps = np.diff(grids[:-1])  # the last one comes however soon
    assert grids[0] == 0 and gaps.min() >= 10, f"expected 20 times its cost between, got {grids}"
    gaps = np.diff(scores[:-1])
    assert scores[0] >= 10 and gaps.min() >= 20, f"expected 20 s between scores, got {scores}"
    assert grids[-1] == scores[-1] == 200, f"expected both at the end, got {grids}, {scores}"
    other = 0.5 * len(grids) + len(scores)
    assert run.state.other_seconds == pytest.approx(other), f"got {run.state.other_seconds}"


def test_a_score_that_is_no_number_is_never_the_best(tmp_path, monkeypatch):
    values = itertools.chain([math.nan, torch.tensor(3.0)], itertools.repeat(5))
    run, _ = start(tmp_path / "run", score=lambda generator: next(values))
    Clock(monkeypatch, run, 10)
    drive_steps(run, 10)
    assert run.best[-1] == 3 and type(run.best[-1]) is float, f"expected 3.0, got {run.best}"


def test_grids_are_shown_with_an_alternative_text(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(samples, "show_live", lambda *args: shown.append(args[2]))
    run, train = start(tmp_path / "run")
    train(1)
    expected = ["Samples after 0 steps", "Samples after 10 steps"]
    assert shown == expected, f"expected {expected}, got {shown}"
    shown.clear()
    start(tmp_path / "run")[1](1)
    assert shown == expected[1:], f"expected the last grid again, got {shown}"


# ---------------------------------------------------------------- warnings


def test_a_warning_is_printed_once_in_a_run(tmp_path):
    run, _ = start(tmp_path / "run")
    printed = printed_by(drive_steps, run, 100, g_loss=3.0, d_loss=0.36)
    assert printed.count("almost won") == 1, f"expected it once, got {printed}"
    assert "At step 40: d_loss" in printed, f"expected the step, got {printed}"
    again, _ = start(tmp_path / "run")
    printed = printed_by(drive_steps, again, 100, g_loss=3.0, d_loss=0.36)
    assert "almost won" not in printed, "expected it not again by the same run"


@pytest.mark.parametrize("averaged", [False, True], ids=["the first part", "with an average"])
def test_samples_that_are_all_alike_are_reported_once(tmp_path, monkeypatch, averaged):
    def sample(generator):
        return small_runs.NOISE[:1].expand(4, -1, -1, -1)

    run, _ = start(tmp_path / "run", averaged=averaged, sample=sample)
    Clock(monkeypatch, run, 1.0)
    printed = printed_by(drive_steps, run, 490, print_every=50)
    assert "all look alike" not in printed, f"expected patience with a young run, got {printed}"
    again, _ = start(tmp_path / "run", averaged=averaged, sample=sample)
    Clock(monkeypatch, again, 100.0)
    printed = printed_by(drive_steps, again, 30, print_every=50)
    assert printed.count("all look alike") == 1, f"expected it once, got {printed}"


def test_a_new_run_says_that_its_networks_are_not_fresh(tmp_path):
    run, train = start(tmp_path / "run")
    train(1)
    other, train = start(tmp_path / "other", parts=run.parts)
    printed = printed_by(train, 1)
    assert "trained already" in printed, f"expected a line that says so, got {printed}"
    again, train = start(tmp_path / "run")
    assert "trained already" not in printed_by(train, 2), "expected no word to a run that continues"


# ---------------------------------------------------------------- divergence


def diverges(step):
    """A training step whose g_loss is not a number from some step on."""
    count = itertools.count(1)

    def bad_step(*args):
        d_loss, g_loss = small_runs.small_step(*args)
        return d_loss, g_loss * math.nan if next(count) >= step else g_loss

    return bad_step


def breaks(step):
    """A training step after which a weight of G is infinite."""
    count = itertools.count(1)

    def bad_step(D, G, *args):
        if next(count) == step:
            next(G.parameters()).data[0, 0] = math.inf
        return torch.zeros(()), torch.zeros(())

    return bad_step


@pytest.mark.parametrize(
    "step, message",
    [
        (diverges(3), "g_loss is not finite at step 13"),
        (breaks(3), "a weight of G is not finite at step 16"),
    ],
)
def test_a_run_that_diverges_ends_before_that_is_saved(tmp_path, step, message):
    start(tmp_path / "run")[1](1)
    good = tmp_path / "run" / "last.pt"
    before = good.read_bytes()
    run, train = start(tmp_path / "run")
    expected = f"{message}.*Lower lr.*checkpoint of step 10 stands"
    with pytest.raises(FloatingPointError, match=expected):
        train(3, step=step)
    assert good.read_bytes() == before, "expected the last good checkpoint to stand"
    train(2)
    assert run.step == 20, "expected the same run to continue from the checkpoint"
    assert all(math.isfinite(x) for pair in run.losses for x in pair), f"got {run.losses}"


def test_without_a_folder_no_checkpoint_stands():
    run, train = start()
    with pytest.raises(FloatingPointError) as caught:
        train(3, step=diverges(3))
    assert "checkpoint" not in str(caught.value), f"expected none named, got {caught.value}"


# ---------------------------------------------------------------- too little memory


def test_too_little_memory_says_what_to_lower_and_which_checkpoint_stands(tmp_path):
    def too_much(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    advice = "lower batch_size, d_conv_dim, g_conv_dim or image_size"
    with pytest.raises(MemoryError, match=advice):
        start()[1](1, step=too_much)
    run, train = start(tmp_path / "run", score=too_much)
    with pytest.raises(MemoryError, match=f"{advice}.*The checkpoint of step 10 stands"):
        train(1)
    assert load_checkpoint(run.folder / "last.pt")["step"] == 10, "expected it to stand"
    with pytest.raises(RuntimeError, match="another error"):
        with start(tmp_path / "run")[0]:
            raise RuntimeError("another error")


def test_after_too_little_memory_nothing_of_the_step_stays():
    held = []

    def step(*args):
        activations = torch.zeros(2**16)
        held.append(weakref.ref(activations))
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    try:
        start()[1](1, step=step)
    except MemoryError as error:
        kept = error  # as a notebook keeps the last one
    gc.collect()
    assert held[0]() is None, "expected nothing of the failed step to stay"
    assert kept.__context__ is None and kept.__cause__ is None, "expected no trace of the first"
