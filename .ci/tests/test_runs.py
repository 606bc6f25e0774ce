"""Runs: how they end, how they continue, and what they say."""

import functools
import re
import signal

import pytest
import small_runs
import torch
from no_locks import lock_no_files
from small_runs import Clock, assert_same_bits, contents_of, printed_by, start, trainer

from assets.lib import checkpoints
from assets.lib.checkpoints import load_checkpoint
from assets.lib.run_state import StopRule
from assets.lib.runs import Run

# ---------------------------------------------------------------- the stop button


def pressing(stop_button, at, times=1):
    """A training step in which the stop button is pressed, in half of which D is changed."""
    steps = iter(range(1, 1000))

    def step(D, *args):
        if next(steps) == at:
            stop_button()
            if times > 1:
                with torch.no_grad():
                    next(D.parameters()).add_(1)
                stop_button()
        return small_runs.small_step(D, *args)

    return step


@pytest.mark.parametrize("stop_at", [1, 10, 18])  # at once, at the end of an epoch, within one
def test_the_stop_button_ends_a_run_and_it_continues_bit_for_bit(tmp_path, stop_button, stop_at):
    whole, train = start(tmp_path / "whole", averaged=True)
    train(3)
    run, train = start(tmp_path / "split", averaged=True)
    printed = printed_by(train, 3, step=pressing(stop_button, stop_at))
    assert run.step == stop_at and run.losses, f"expected the end of step {stop_at}: {run.step}"
    assert f"Stopped after {stop_at} steps" in printed, f"expected a line, got {printed}"
    assert ", stopped" in printed.split("Stopping")[1], f"expected the bar to say so, got {printed}"
    handler = signal.getsignal(signal.SIGINT)
    assert handler is signal.default_int_handler, f"expected Ctrl-C as it was, got {handler}"
    assert (run.folder / "generator.pt2").exists(), "expected a generator"

    torch.manual_seed(99)
    split, train = start(tmp_path / "split", averaged=True)
    assert split.folder == run.folder, "expected the same run to continue"
    train(3)
    assert_same_bits_but_rows(whole, split)


def assert_same_bits_but_rows(whole, split):
    """A stop adds a row; the weights and the other rows are the same."""
    one, other = small_runs.weights_of(whole), small_runs.weights_of(split)
    assert whole.step == split.step, f"expected {whole.step} steps, got {split.step}"
    for key, value in one.items():
        assert torch.equal(value, other[key]), f"{key}: expected the same bits, got others"
    assert whole.losses[-1] == split.losses[-1], f"expected {whole.losses[-1]}, got {split.losses}"


@pytest.mark.parametrize("kept_at", [10, 12])
def test_pressed_twice_it_goes_back_to_the_last_whole_checkpoint(tmp_path, stop_button, kept_at):
    whole, train = start(tmp_path / "whole")
    train(3)
    run, train = start(tmp_path / "split")
    log = run.log
    run.log = lambda *args: (log(*args), run.step == kept_at and run.save())
    train(3, step=pressing(stop_button, 14, times=2))
    assert run.step == kept_at, f"expected the checkpoint of step {kept_at}, got {run.step}"
    again, train = start(tmp_path / "split")
    train(3)
    assert_same_bits_but_rows(whole, again)


def test_pressed_twice_in_the_first_steps_nothing_is_trained(tmp_path, stop_button):
    run, train = start(tmp_path / "run")
    printed = printed_by(train, 2, step=pressing(stop_button, 3, times=2))
    assert run.step == 0 and "Stopped after 0 steps" in printed, f"got {run.step}, {printed}"
    assert small_runs.read_table(run.folder / "losses.csv") == [], "expected a table without rows"
    train(2)
    whole, train = start(tmp_path / "whole")
    train(2)
    assert_same_bits(whole, run)


def test_it_does_not_disturb_the_writing_of_a_checkpoint(tmp_path, stop_button, monkeypatch):
    run, train = start(tmp_path / "run")
    write_file, log, pressed = checkpoints.write_file, run.log, []

    def pressed_while_writing(path, *args):
        if run.step == 12 and path.name == "last.pt":
            pressed.extend([stop_button(), stop_button(), stop_button()])
        write_file(path, *args)

    run.log = lambda *args: (log(*args), run.step == 12 and run.save())
    monkeypatch.setattr(checkpoints, "write_file", pressed_while_writing)
    train(3)
    assert len(pressed) == 3, "expected the button to be pressed while last.pt was written"
    assert run.step == 13, f"expected the run to end with the step after it, got {run.step}"
    steps = [load_checkpoint(run.folder / f"{name}.pt")["step"] for name in ("last", "previous")]
    assert steps == [13, 12], f"expected 13 and 12, got {steps}"


def test_without_a_folder_an_interrupted_run_keeps_what_it_has(stop_button):
    run, train = start()
    train(3, step=pressing(stop_button, 5, times=2))
    assert run.step == 4 and run.losses, f"expected four steps and a row, got {run.step}"


# ---------------------------------------------------------------- limits


def test_minutes_images_and_patience_end_a_run_and_its_message_names_them(tmp_path, monkeypatch):
    scores = iter([3.0, 2.0, *[4.0] * 99])
    limits = {
        "max_minutes": (StopRule(minutes=0.5), 30),
        "the number of images": (StopRule(images=50), 13),
        "n_epochs": (None, 40),
        "patience": (StopRule(patience=3), None),
    }
    for name, (stop, n_steps) in limits.items():
        score = (lambda generator: next(scores)) if name == "patience" else None
        run, train = start(tmp_path / name, stop=stop, score=score)
        Clock(monkeypatch, run, 30 if name == "patience" else 1)
        train(4 if name == "n_epochs" else 10**6)
        assert n_steps in (None, run.step), f"{name}: expected {n_steps} steps, got {run.step}"
        again, train = start(tmp_path / name, stop=stop, score=score)
        printed = printed_by(train, 4 if name == "n_epochs" else 10**6)
        assert again.step == run.step, f"{name}: expected a finished run to stay, got {again.step}"
        assert f"To train longer, raise {name}." in printed, f"{name}: got {printed}"
    assert len(run.scores) == 5, f"expected 3 scores after the best, got {run.scores}"


def test_a_higher_limit_continues_a_finished_run(tmp_path):
    start(tmp_path / "run", stop=StopRule(images=40))[1](10**6)
    run, train = start(tmp_path / "run", stop=StopRule(images=80))
    printed = printed_by(train, 10**6)
    assert run.images == 80 and "Continuing the run" in printed, f"got {run.images}, {printed}"


@pytest.mark.parametrize(
    "first, second, n_epochs",
    [
        (StopRule(images=80), StopRule(images=160), (10**6, 10**6)),
        (StopRule(minutes=1 / 3), StopRule(minutes=2 / 3), (10**6, 10**6)),
        (None, None, (2, 4)),
        (StopRule(images=80), None, (10**6, 4)),
        (StopRule(patience=9), StopRule(images=160), (2, 10**6)),
    ],
)
def test_an_extended_run_begins_in_the_middle(tmp_path, monkeypatch, first, second, n_epochs):
    run, train = start(tmp_path / "run", stop=first)
    Clock(monkeypatch, run, 1.0)
    train(n_epochs[0])
    assert run.step == 20 and run.progress == 1, f"expected the end, got {run.progress}"
    run, train = start(tmp_path / "run", stop=second)
    Clock(monkeypatch, run, 1.0)
    seen, bar = [], []
    log = run.log
    run.log = lambda *args: (log(*args), bar.append(run.bar.n))
    train(n_epochs[1], set_rates=seen.append)
    assert seen[0] == pytest.approx(0.5), f"expected the first step at a half, got {seen[0]}"
    assert seen == sorted(seen) and seen[-1] < 1, f"expected ever more, got {seen}"
    assert 50 <= bar[0] < 60 and bar[-1] == 100, f"expected a bar from a half on, got {bar}"


def test_progress_is_known_before_the_first_step():
    run, loader = Run(stop=StopRule(images=400)), small_runs.noise_loader()
    run.state.images, run.state.step = 100, 25
    assert run.progress == 0.25, f"expected a quarter of the images, got {run.progress}"
    next(run.epochs(5))
    next(run.watch(loader, 2))
    assert run.progress == 0.5, f"expected 25 of 50 steps, got {run.progress}"


def test_the_progress_bar_ends_at_100(tmp_path, monkeypatch):
    run, train = start(tmp_path / "run", stop=StopRule(minutes=1), score=lambda generator: 2.5)
    Clock(monkeypatch, run, 0.5)
    line = re.split(r"[\r\n]+", printed_by(train, 30).strip())[-1]
    assert line.startswith("100%") and ", finished" in line, f"expected 100%, got {line}"
    for word in ("epoch 12", "480 images", " 8 img/s", "d_loss", "g_loss", "best score 2.50"):
        assert word in line, f"expected {word}, got {line}"
    assert "left" not in line, f"expected no time left, got {line}"


# ---------------------------------------------------------------- continuing


def test_a_run_that_is_entered_again_continues_bit_for_bit(tmp_path):
    whole, train = start(tmp_path / "whole")
    train(3)
    run, train = start(tmp_path / "run")
    for n_epochs in (1, 2, 3):
        train(n_epochs)
        torch.manual_seed(n_epochs)  # as other cells of a notebook draw random numbers
    assert_same_bits_but_rows(whole, run)


@pytest.mark.parametrize("folder", ["run", None])
def test_an_extended_run_is_the_same_run_with_more_parts(tmp_path, folder):
    """As section 14 continues section 12's run: with an average, a score and other limits."""
    parts = small_runs.small_parts()
    averaged = parts.pop("averaged")
    run, train = start(folder and tmp_path / folder, parts=parts, stop=StopRule(images=40))
    train(1)
    more = run.extended(
        StopRule(images=120),
        score=lambda generator: 1.0,
        sample=small_runs.sample_four,
        averaged=averaged,
    )
    assert (more.step, more.folder) == (10, run.folder), f"got {more.step} in {more.folder}"
    assert more.progress == pytest.approx(1 / 3), f"expected 40 of 120 images: {more.progress}"
    trainer(more)(10**6)
    assert (more.step, run.step) == (30, 10), f"expected the first as it was, got {run.step}"
    assert int(averaged.n_averaged) == 20, f"expected an average of 20, got {averaged.n_averaged}"
    if folder:
        state = load_checkpoint(run.folder / "last.pt")
        assert state["step"] == 30 and "averaged" in state, f"got {state['step']}"
        run.resume()
        assert run.step == 30, f"expected the first to follow, got {run.step}"


def test_an_extended_run_never_takes_another_folder(tmp_path):
    """Although a newer run with the same settings is there: resume = False made this one."""
    start(tmp_path / "run")[1](1)
    run, train = start(tmp_path / "run", resume=False)
    train(1)
    start(tmp_path / "run", resume=False)[1](3)
    before = contents_of(tmp_path / "run-3")
    more = run.extended(StopRule(images=80))
    trainer(more)(10**6)
    assert more.folder.name == "run-2" and more.step == 20, f"got {more.step} in {more.folder}"
    assert contents_of(tmp_path / "run-3") == before, "expected the newer run as it was"


def test_the_whole_lesson_continues_in_a_new_process_bit_for_bit(tmp_path):
    """Sections 12 and 14, once in one go and once restarted in the middle of each."""

    def lesson(folder, first_epochs, epochs):
        parts = small_runs.small_parts()
        averaged = parts.pop("averaged")
        run = Run(folder, {"seed": 1}, sample=small_runs.sample_four, **parts)
        if not run.resume().scores:
            trainer(run)(first_epochs)
        if epochs:
            run = run.extended(
                score=lambda G: 1.0, sample=small_runs.sample_four, averaged=averaged
            )
            trainer(run)(epochs)
        return run

    whole = lesson(tmp_path / "whole", 2, 5)
    for first_epochs, epochs in ((1, 0), (2, 0), (2, 3), (2, 5)):
        torch.manual_seed(9)
        split = lesson(tmp_path / "split", first_epochs, epochs)
    assert_same_bits_but_rows(whole, split)


def test_resuming_loads_and_changes_no_file(tmp_path):
    start(tmp_path / "run")[1](2)
    before = contents_of(tmp_path / "run")
    run, _ = start(tmp_path / "run")
    assert run.step == 0 and not run.rows, "expected nothing to be loaded by constructing"
    assert run.resume() is run and run.step == 20 and run.rows, f"expected step 20, got {run.step}"
    assert contents_of(tmp_path / "run") == before, "expected the files as they were"
    new = start(tmp_path / "new")[0].resume()
    assert new.step == 0 and not (tmp_path / "new").exists(), "expected no folder for nothing"


def test_constructing_a_run_neither_writes_nor_loads(tmp_path):
    start(tmp_path / "run")[1](1)
    parts = small_runs.small_parts(averaged=False)
    weights = [weight.clone() for weight in parts["D"].parameters()]
    start(tmp_path / "run", parts=parts)
    for name in ("run", "other"):
        start(tmp_path / name, settings={"seed": 5}, parts=parts)
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "expected no other folder"
    now = list(parts["D"].parameters())
    assert all(map(torch.equal, weights, now)), "expected the weights as they were"


def test_a_drive_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    lock_no_files(monkeypatch.setattr)
    run, train = start(tmp_path / "run")
    with run:
        locks = [path.name for path in run.folder.glob("run.lock*")]
    assert "run.lock.exists" in locks, f"expected another kind of lock, got {locks}"
    train(1)
    (run.folder / "run.lock.exists").write_text("of a machine that was taken away")
    again, train = start(tmp_path / "run")
    train(2)
    assert again.step == 20, f"expected the run to continue, got step {again.step}"


# ---------------------------------------------------------------- the order of the data


def test_a_loader_draws_its_order_after_a_run_as_before():
    loader = small_runs.noise_loader()

    def order():
        torch.manual_seed(3)
        return torch.cat([labels for _, labels in loader]), torch.rand(1)

    loader.dataset.labels = torch.arange(len(loader.dataset))
    before = order()
    assert sum(1 for _ in Run().watch(loader, 0)) == len(loader), "expected every batch"
    next(Run().watch(loader, 0))  # and a loop that ends in the middle
    after = order()
    assert torch.equal(before[0], after[0]), "expected the same order from the same seed"
    assert before[1] == after[1], "expected as many random numbers drawn as before"


def test_an_epoch_that_has_become_shorter_is_over():
    run, loader = Run(), small_runs.noise_loader(8)  # two batches
    run.state.batch = 7
    assert not [*run.watch(loader, 3)], "expected no batch more"
    found = run.epoch, run.state.batch
    assert found == (4, 0), f"expected epoch 4, got {found}"


def test_a_loader_without_a_batch_is_refused():
    loader = torch.utils.data.DataLoader(torch.rand(3, 2), batch_size=4, drop_last=True)
    with pytest.raises(ValueError, match="no batch: lower batch_size"):
        next(Run().watch(loader, 0))


@pytest.mark.parametrize("n", [1, 3])
def test_whatever_yields_batches_can_be_watched(n):
    run = Run()
    batches = [torch.rand(2, 3)] * n
    with run:
        for epoch in run.epochs(2):
            for batch in run.watch(batches, epoch):
                run.log(1.0, 2.0, len(batch), 1)
    assert (run.step, run.images) == (2 * n, 4 * n), f"got {run.step} steps, {run.images} images"


# ---------------------------------------------------------------- whose step trained it


def own_step(*args):
    """Another training step than small_runs.small_step."""
    losses = small_runs.small_step(*args)
    return losses


def noted(folder, step, n_epochs=1, **options):
    run, train = start(folder, **options)
    run.note_code(step)
    return run, printed_by(train, n_epochs, step=step)


OTHER = "trained with another train_step: to train with yours, set resume = False"


def test_a_finished_run_says_that_another_step_trained_it(tmp_path):
    step = small_runs.small_step
    printed = noted(tmp_path / "run", step)[1]
    assert OTHER not in printed, f"expected no word to a new run, got {printed}"
    cases = {
        "the same step": (step, False),
        "its partial": (functools.partial(step), False),
        "an own step": (own_step, True),
        "an own step in a wrapper": (functools.partial(own_step), True),
    }
    for what, (other, is_told) in cases.items():
        run, printed = noted(tmp_path / "run", other)
        assert (OTHER in printed) == is_told, f"{what}: got {printed}"
        assert run.step == 10, f"{what}: expected no step, got {run.step}"


def test_a_run_that_continues_takes_the_step_that_it_is_given(tmp_path):
    noted(tmp_path / "run", small_runs.small_step)
    run, printed = noted(tmp_path / "run", own_step, n_epochs=2)
    assert run.step == 20 and OTHER not in printed, f"expected it to train, got {printed}"
    for step in (small_runs.small_step, own_step):
        printed = noted(tmp_path / "run", step, n_epochs=2)[1]
        assert OTHER not in printed, f"expected both to be known, got {printed}"


def test_a_new_run_is_trained_with_the_own_step(tmp_path):
    noted(tmp_path / "run", small_runs.small_step)
    calls = []

    def counted(*args):
        calls.append(1)
        return own_step(*args)

    run, _ = noted(tmp_path / "run", counted, resume=False)
    assert len(calls) == run.step == 10, f"expected ten steps, got {len(calls)}"
