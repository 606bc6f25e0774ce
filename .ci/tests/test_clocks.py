"""The clock of a run: it counts training, whatever happens to the process meanwhile."""

import os
import re
import signal
import subprocess
import time

import pytest
import small_runs
from small_runs import printed_by, start

from assets.lib.clocks import Clock
from assets.lib.run_state import StopRule

HOUR = 3600.0


@pytest.fixture
def clock(monkeypatch):
    """A Clock and a function that lets a step take so many seconds -> what the clock counts."""
    fake = small_runs.Clock(monkeypatch)
    clock = Clock()

    def step(seconds, n_images=4):
        fake.add(seconds)
        return clock.end_step(n_images)

    clock.step, clock.add = step, fake.add
    return clock


def counted(clock, *durations):
    return sum(clock.step(seconds) for seconds in durations)


@pytest.mark.parametrize(
    "durations, expected",
    [
        pytest.param([0.1] * 30, 3.0, id="even steps"),
        pytest.param([0.1, 0.1, 0.9] * 10, 11.0, id="every third step is slow"),
        pytest.param(([0.01] * 49 + [0.9]) * 4, 5.56, id="one that waits for the device"),
        pytest.param([0.5] * 3 + [30.0] * 4, 62.5, id="steps become slow: the third counts"),
        pytest.param([1.0, 1.0, *[15.0] * 10], 152.0, id="slow steps on an old machine"),
    ],
)
def test_seconds_of_training_count(clock, durations, expected):
    seconds = counted(clock, *durations)
    assert seconds == pytest.approx(expected), f"expected {expected} s, got {seconds}"


@pytest.mark.parametrize(
    "durations, expected",
    [
        pytest.param([0.1] * 10 + [HOUR] + [0.1] * 10, 2.1, id="a lid closed for an hour"),
        pytest.param([0.1] * 10 + [3.0] + [0.1] * 10, 2.1, id="Ctrl-Z for three seconds"),
        pytest.param([0.1] * 10 + [HOUR, 0.1, HOUR] + [0.1] * 10, 2.3, id="twice"),
        pytest.param([HOUR] + [0.1] * 10, 2.0, id="in the first step, which counts a second"),
        pytest.param([0.1, HOUR] + [0.1] * 9, 2.0, id="in the second step"),
        pytest.param([15.0] * 10 + [HOUR], 2 * 1 + 9 * 15, id="in slow steps"),
        pytest.param([0.1] * 150 + [HOUR] + [0.1] * 150, 30.1, id="late in a run"),
    ],
)
def test_a_pause_counts_as_one_more_step(clock, durations, expected):
    seconds = counted(clock, *durations)
    assert seconds == pytest.approx(expected), f"expected {expected} s of training, got {seconds}"


def test_other_work_is_no_part_of_a_step(clock):
    counted(clock, *[0.1] * 5)
    with clock.other_work() as work:
        clock.add(40)
    seconds = clock.step(0.1)
    assert work.seconds == pytest.approx(40), f"expected 40 s of other work, got {work.seconds}"
    assert seconds == pytest.approx(0.1), f"expected 0.1 s of training, got {seconds}"


def test_the_speed_leaves_the_first_steps_out(clock):
    assert clock.images_per_second == 0, "expected no speed before the first step"
    counted(clock, *[0.8] * 5, *[0.1] * 15)
    early = clock.images_per_second
    assert early == pytest.approx(20 * 4 / 5.5), f"expected all of the few steps, got {early}"
    counted(clock, *[0.1] * 10)
    late = clock.images_per_second
    assert late == pytest.approx(40), f"expected 4 images in 0.1 s, got {late}"


# ---------------------------------------------------------------- runs


def pause(run, fake, at, seconds):
    """Let step number `at` of a run take so much longer."""
    fake.drive(run, lambda step: 1.0 + seconds * (step == at))


@pytest.mark.parametrize("at", [0, 1, 20, 28])
def test_a_pause_neither_ends_a_run_nor_moves_its_rates(tmp_path, monkeypatch, at):
    progress = {}
    for name, seconds in (("whole", 0), ("paused", HOUR)):
        run, train = start(tmp_path / name, stop=StopRule(minutes=0.5))
        pause(run, small_runs.Clock(monkeypatch), at, seconds)
        progress[name] = []
        train(10**6, set_rates=progress[name].append)
        assert run.step == 30, f"{name}: expected 30 steps of a second, got {run.step}"
    assert progress["paused"] == progress["whole"], f"expected the same shares, got {progress}"


@pytest.mark.parametrize("piece", ["a grid", "a score", "a checkpoint", "the first grid"])
def test_a_pause_in_other_work_ends_no_run(tmp_path, monkeypatch, piece):
    fake, calls = small_runs.Clock(monkeypatch), []

    def slow(name, n):
        calls.append(name)
        if name == piece and calls.count(name) == n:
            fake.add(HOUR)

    def sample(generator):
        slow("the first grid", 1)
        slow("a grid", 4)
        return small_runs.sample_four(generator)

    run, train = start(
        tmp_path / "run",
        stop=StopRule(minutes=10),
        sample=sample,
        score=lambda generator: slow("a score", 2) or 1.0,
    )
    save = run.save
    run.save = lambda *args: (slow("a checkpoint", 4), save(*args))
    fake.drive(run, 4.0)
    train(10**6)
    assert calls.count(piece) >= 4 or piece == "a score", f"expected {piece}, got {calls}"
    assert 135 <= run.step <= 150, f"expected nearly ten minutes of steps, got {run.step}"


def test_a_slow_drive_ends_no_run(tmp_path, monkeypatch):
    fake = small_runs.Clock(monkeypatch)

    def slow_grid(generator):
        fake.add(200)
        return small_runs.sample_four(generator)

    run, train = start(tmp_path / "run", stop=StopRule(minutes=2), sample=slow_grid)
    fake.drive(run, 1.0)
    train(10**6)
    assert run.step == 60, f"expected at least half of the time for training, got {run.step} steps"
    rows = small_runs.read_table(run.folder / "losses.csv")
    assert rows[-1]["step"] == 60, f"expected a last row, got {rows[-1]}"


@pytest.mark.parametrize("minutes", [1e-9, 0.001, 0.05])
def test_a_limit_of_almost_nothing_trains_one_step(tmp_path, monkeypatch, minutes):
    fake = small_runs.Clock(monkeypatch)

    def slow_grid(generator):
        fake.add(30)
        return small_runs.sample_four(generator)

    run, train = start(tmp_path / "run", stop=StopRule(minutes=minutes), sample=slow_grid)
    fake.drive(run, 5.0)
    losses = train(10**6)
    assert run.step >= 1 and run.finished, f"expected a step and the end, got {run.step}"
    rows = small_runs.read_table(run.folder / "losses.csv")
    assert len(rows) == len(losses) >= 1, f"expected a row for each step, got {rows}"


def test_minutes_include_other_work_that_takes_no_longer_than_training(tmp_path, monkeypatch):
    fake = small_runs.Clock(monkeypatch)

    def grid(generator):
        fake.add(2)
        return small_runs.sample_four(generator)

    run, train = start(tmp_path / "run", stop=StopRule(minutes=5), sample=grid)
    fake.drive(run, 2.0)
    printed = printed_by(train, 10**6)
    other = run.state.other_seconds
    assert 0.04 * 300 < other < 0.12 * 300, f"expected a twentieth for grids, got {other} s"
    in_all = run.seconds + other
    assert 300 <= in_all < 308, f"expected five minutes in all, got {in_all} s"
    again, train = start(tmp_path / "run", stop=StopRule(minutes=5))
    printed = printed_by(train, 10**6)
    assert re.search(r"5\.[01] minutes", printed), f"expected them all, got {printed}"


def test_seconds_in_the_tables_are_of_training(tmp_path, monkeypatch):
    fake = small_runs.Clock(monkeypatch)

    def slow(generator):
        fake.add(10)
        return small_runs.sample_four(generator)

    run, train = start(tmp_path / "run", sample=slow, score=lambda _: fake.add(10) or 1.0)
    fake.drive(run, 0.5)
    train(3)
    assert run.seconds == pytest.approx(15), (
        f"expected 30 steps of half a second, got {run.seconds}"
    )
    rows = small_runs.read_table(run.folder / "losses.csv")
    expected = [{"step": row["step"], "seconds": row["step"] / 2} for row in rows]
    got = [{name: row[name] for name in ("step", "seconds")} for row in rows]
    assert got == expected, f"expected half a second a step, got {got}"
    scores = small_runs.read_table(run.folder / "scores.csv")
    assert scores[-1]["seconds"] == 15, f"expected the seconds of training, got {scores}"


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no SIGSTOP")
def test_a_process_that_is_suspended_does_not_train_meanwhile(tmp_path):
    run, train = start(tmp_path / "run")
    log, durations = run.log, []

    def suspended(*args):
        if run.step == 20:
            wake = f"kill -STOP {os.getpid()}; sleep 3; kill -CONT {os.getpid()}"
            subprocess.Popen(["sh", "-c", wake])
            time.sleep(0.2)  # until it is
        before = time.perf_counter(), run.seconds
        log(*args)
        durations.append(run.seconds - before[1])

    run.log = suspended
    train(4)
    assert max(durations) < 2.5, f"expected no step of 3 s, got {max(durations):.1f}"
