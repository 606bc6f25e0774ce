"""What a run has reached, when it ends, and what is due after a step: all without training."""

import dataclasses
import math

import numpy as np
import pytest

from assets.lib.run_state import BLOCK, Done, RunState, StopRule, due


def simulate(seconds, step=1.0, cost=0.0, score_cost=0.0, print_every=10**6):
    """What is done when in a run of steps of `step` seconds: {"row": [seconds], ...}."""
    state, done, now = RunState(), Done(), 0.0
    found = {"row": [], "look": [], "score": [], "saved": []}

    def look():
        nonlocal now
        now += cost
        done.add_look(state.seconds, cost, now)
        found["look"].append(state.seconds)
        found["saved"].append(now)

    look()
    while state.seconds < seconds:
        state.step += 1
        state.seconds += step
        now += step
        is_due = due(state, done, now, print_every)
        if is_due.row:
            done.row = state.seconds
            found["row"].append(state.seconds)
        if is_due.look:
            look()
        if is_due.score:
            now += score_cost
            done.add_score(state.seconds, score_cost)
            found["score"].append(state.seconds)
    return found


# ---------------------------------------------------------------- what is due


def test_grids_come_often_at_first_and_then_ever_less_often():
    looks = simulate(200, step=0.25)["look"]
    assert looks[:4] == [0, 2, 10, 11], f"expected noise, 2 s, 10 s, a tenth more: {looks[:4]}"
    gaps = [b / a for a, b in zip(looks[3:-1], looks[4:])]
    assert 1.09 < min(gaps) < max(gaps) < 1.13, f"expected a tenth more each time, got {looks}"


@pytest.mark.parametrize("cost, step", [(0.5, 0.1), (2.0, 0.1), (0.1, 1.0), (30.0, 5.0)])
def test_grids_take_a_twentieth_of_the_time_or_come_every_five_minutes(cost, step):
    looks = simulate(3000, step=step, cost=cost)["look"]
    gaps = np.diff(looks)
    assert gaps.min() >= min(20 * cost, 240), f"expected 20 times its cost between, got {gaps}"


@pytest.mark.parametrize("cost, step", [(0.0, 10.0), (25.0, 1.0), (40.0, 10.0), (0.0, 29.0)])
def test_a_checkpoint_is_at_most_five_minutes_old(cost, step):
    saved = simulate(8000, step=step, cost=cost, score_cost=0.0)["saved"]
    age = np.diff(saved).max() - cost  # until the next one is begun
    assert age <= 300, f"expected one in five minutes, got {np.diff(saved)}"


def test_a_checkpoint_is_due_at_once_after_a_pause():
    state = RunState(step=1000, seconds=400.0)
    done = Done(look=399.0, look_costs=[1.0], saved=399.0)
    assert not due(state, done, 400.0, 50).look, "expected none after a second"
    assert due(state, done, 400.0 + 3600, 50).look, "expected one after a night"


@pytest.mark.parametrize("score_cost", [0.1, 1.0, 5.0])
def test_scores_take_a_twentieth_of_the_time(score_cost):
    scores = simulate(1000, step=0.25, score_cost=score_cost)["score"]
    assert scores[0] >= 10 and len(scores) > 3, f"expected scores from 10 s on, got {scores}"
    gaps = np.diff(scores)
    assert gaps.min() >= 20 * score_cost, f"expected 20 times its cost between, got {gaps}"


def test_one_long_score_does_not_postpone_all_others():
    done = Done(look=100.0, score=100.0, look_costs=[1, 1])
    for cost in (1.0, 3600.0):
        done.add_score(100.0, cost)
    assert due(RunState(step=1, seconds=130.0), done, 130.0, 50).score, "expected 20 s, not a day"


def test_a_score_comes_with_a_grid_only():
    for seconds in range(100, 400):
        done = Done(look=100.0, look_costs=[2.0], saved=100.0)
        is_due = due(RunState(step=7, seconds=float(seconds)), done, float(seconds), 50)
        assert is_due.look or not is_due.score, f"after {seconds} s: expected a grid, too"


@pytest.mark.parametrize("print_every, expected", [(50, 20), (1, 1000), (10**6, 2)])
def test_rows_come_every_so_many_steps_and_every_minute(print_every, expected):
    rows = simulate(125, step=0.125, print_every=print_every)["row"]
    assert len(rows) == expected, f"expected {expected} rows in 1,000 steps, got {len(rows)}"


def test_what_is_due_depends_on_its_arguments_alone():
    state, done = RunState(step=50, seconds=9.0), Done(look=2.0, look_costs=[0.1])
    before = dataclasses.astuple(state), dataclasses.astuple(done)
    found = {due(state, done, 9.0, 50) for _ in range(3)}
    assert len(found) == 1, f"expected one answer, got {found}"
    assert (dataclasses.astuple(state), dataclasses.astuple(done)) == before, "expected no change"


# ---------------------------------------------------------------- when a run ends


def reached(stop, **values):
    return stop.reached(RunState(step=100, **values))


def scored(*values):
    return [(i, 32 * i, float(i), value) for i, value in enumerate(values)]


@pytest.mark.parametrize(
    "stop, values, expected",
    [
        (
            StopRule(minutes=1),
            dict(seconds=59.9),
            [],
        ),
        (
            StopRule(minutes=1),
            dict(seconds=60.0),
            ["max_minutes"],
        ),
        (
            StopRule(minutes=1),
            dict(seconds=50.0, other_seconds=10.0),
            ["max_minutes"],
        ),
        (
            StopRule(minutes=1),
            dict(seconds=29.0, other_seconds=3600.0),
            [],
        ),
        (
            StopRule(minutes=1),
            dict(seconds=30.0, other_seconds=3600.0),
            ["max_minutes"],
        ),
        (
            StopRule(images=50),
            dict(images=49),
            [],
        ),
        (
            StopRule(images=50),
            dict(images=52),
            ["the number of images"],
        ),
        (
            StopRule(patience=2),
            dict(scores=scored(3, 2, 4)),
            [],
        ),
        (
            StopRule(patience=2),
            dict(scores=scored(3, 2, 4, 2)),
            ["patience"],
        ),
        (
            StopRule(patience=2),
            dict(),
            [],
        ),
        (
            StopRule(1, 50),
            dict(seconds=60.0, images=50),
            ["max_minutes", "the number of images"],
        ),
        (
            StopRule(),
            dict(seconds=1e9, images=10**12),
            [],
        ),
    ],
)
def test_limits_end_a_run(stop, values, expected):
    got = reached(stop, **values)
    assert got == expected, f"expected {expected}, got {got}"


@pytest.mark.parametrize("stop", [StopRule(minutes=1e-9), StopRule(images=1e-9), StopRule(1, 1, 1)])
def test_no_limit_is_reached_before_the_first_step(stop):
    got = stop.reached(RunState(seconds=1e6, other_seconds=1e6, images=10**9, scores=scored(1, 2)))
    assert got == [], f"expected none, got {got}"


@pytest.mark.parametrize(
    "stop, values, expected",
    [
        (
            StopRule(),
            dict(seconds=100.0),
            0,
        ),
        (
            StopRule(images=200),
            dict(images=50),
            0.25,
        ),
        (
            StopRule(minutes=1),
            dict(seconds=15.0),
            0.25,
        ),
        (
            StopRule(minutes=1),
            dict(seconds=15.0, other_seconds=30.0),
            15 / 45,
        ),
        (
            StopRule(minutes=1),
            dict(seconds=30.0, other_seconds=3600.0),
            1,
        ),
        (
            StopRule(minutes=1),
            dict(seconds=3600.0, other_seconds=3600.0),
            1,
        ),
        (
            StopRule(minutes=1, images=200),
            dict(seconds=15.0, images=150),
            0.75,
        ),
    ],
)
def test_progress_is_the_share_of_the_nearest_limit(stop, values, expected):
    got = stop.progress(RunState(step=1, **values))
    assert got == pytest.approx(expected), f"expected {expected}, got {got}"


def test_progress_reaches_1_exactly_when_the_time_is_over():
    stop, state = StopRule(minutes=1), RunState(step=1)
    last = 0.0
    while not stop.reached(state):
        share = stop.progress(state)
        assert last <= share < 1, f"expected ever more, below 1, got {last}, then {share}"
        last, state.seconds = share, state.seconds + 1
        state.other_seconds += 0.1
    assert stop.progress(state) == 1, f"expected 1 at the end, got {stop.progress(state)}"


# ---------------------------------------------------------------- the state


def test_a_state_comes_back_from_what_is_kept_of_it():
    state = RunState(7, 28, 1, 3, 2.5, 1.5, [(1, 4, 0.5, 1.0, 2.0)], scored(2.0, 1.0), ["alike"])
    again = RunState.of({"D": "weights", **state.as_dict()})
    assert again == state and again.best == state.best, f"expected {state}, got {again}"
    sparse = RunState.of({"step": 3, "settings": {}, "D": "weights"})
    assert sparse == RunState(step=3), f"expected a new run's values, got {sparse}"


def test_the_best_score_is_the_first_of_the_lowest_ones():
    state = RunState()
    found = []
    for step, value in enumerate([math.inf, 3.0, 1.0, 2.0, 1.0]):
        state.step = step
        found.append(state.add_score(value))
    assert found == [True, True, True, False, False], f"expected three records, got {found}"
    assert state.best[0] == 2, f"expected the score of step 2, got {state.best}"
    assert RunState.of(state.as_dict()).best == state.best, "expected it again after loading"


def test_recent_d_loss_is_the_mean_of_the_last_five_blocks():
    state = RunState()
    assert state.recent_d_loss is None, "expected none before the first block"
    for value in (9.0, 1.0, 2.0, 3.0, 4.0, 5.0):
        state.add_block(value)
    assert state.recent_d_loss == 3.0, f"expected the mean of 1 to 5, got {state.recent_d_loss}"
    assert BLOCK == 50, "the lesson's text says 50"
