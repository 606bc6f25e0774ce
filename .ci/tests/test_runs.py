"""Runs: what they leave, how they end, how they go on, what they say."""

import contextlib
import copy
import csv
import functools
import gc
import itertools
import json
import math
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import small_runs
import torch
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_runs import Clock, assert_same_bits, drive_steps, printed_by, start_small
from torch import nn

import helpers
from assets import run_files
from problem_unittests import read_notebook

SEARCH = hypothesis.settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def small_run(notebook, tmp_path):
    return lambda out_dir="run", *args, **kwargs: start_small(
        notebook, tmp_path / out_dir, *args, **kwargs
    )


# ---------------------------------------------------------------- what a run leaves


def test_a_run_leaves_what_it_promises(small_run):
    run, train = small_run()
    losses = train(2)
    names = {path.name for path in run.folder.rglob("*.*")}
    promised = {"generator.pt2", "last.pt", "previous.pt", "losses.csv", "scores.csv"}
    promised |= {"training.gif", "settings.json", "step_0000000.png", "step_0000020.png"}
    assert promised <= names, f"expected {sorted(promised)}, missing {sorted(promised - names)}"
    rows = list(csv.DictReader(open(run.folder / "losses.csv", encoding="utf-8")))
    columns = ["step", "images", "seconds", "d_loss", "g_loss"]
    assert list(rows[0]) == columns, f"expected the columns {columns}, got {list(rows[0])}"
    stored = [(float(row["d_loss"]), float(row["g_loss"])) for row in rows]
    assert stored == losses, f"expected the losses {losses}, got {stored}"
    images = [int(row["images"]) for row in rows]
    assert images == [16, 32, 48, 64, 80], f"expected real images, every 4 steps of 4, got {images}"
    state = helpers.load_checkpoint(run.folder / "last.pt")
    assert {"settings", "D", "averaged", "d_optimizer", "random_state", "step"} <= state.keys(), (
        f"expected settings, parts, random state and counters, got {list(state)}"
    )


def test_a_run_without_sample_keeps_no_pictures_and_no_generator(small_run):
    run, train = small_run(sample=None, score=lambda generator: 1.0)
    train(1)
    names = sorted(path.name for path in run.folder.rglob("*.*"))
    expected = ["best.pt", "last.pt", "losses.csv", "previous.pt", "run.lock", "scores.csv"]
    assert names == [*expected, "settings.json"], f"expected no pictures, got {names}"


def test_a_run_without_a_folder_only_counts(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = small_runs.small_parts(notebook)
    run, train = start_small(notebook, None, parts=parts)
    printed = printed_by(train, 2)
    assert (run.step, run.images, run.epoch) == (20, 80, 2), f"expected 20 steps, got {run.step}"
    assert not printed and not list(tmp_path.iterdir()), f"expected nothing, got {printed}"
    losses = notebook.train(*[parts[k] for k in ("D", "G")], small_runs.noise_loader(),
                            parts["d_optimizer"], parts["g_optimizer"], 1, 4)  # fmt: skip
    assert len(losses) == 3, f"expected rows at steps 4, 8 and 10 without any run, got {losses}"


def test_a_run_shorter_than_a_print_still_has_losses(small_run):
    run, train = small_run(n=12)
    losses = train(1)  # 3 steps, and a print after every 4
    lines = (run.folder / "losses.csv").read_text(encoding="utf-8").splitlines()
    assert len(losses) == 1 and len(lines) == 2, f"expected one row for what there is, got {lines}"


def test_averaging_may_begin_later(notebook, tmp_path):
    parts = small_runs.small_parts(notebook)
    averaged = parts.pop("averaged")
    run, train = start_small(
        notebook, tmp_path / "run", parts=parts, sample=lambda _: torch.rand(4, 3, 16, 16)
    )
    train(1)
    assert not (run.folder / "generator.pt2").exists(), "expected no generator without an average"
    again, train = start_small(notebook, tmp_path / "run", parts={**parts, "averaged": averaged})
    train(2)
    assert again.step == 20 and again.folder == run.folder, f"expected the same run, got {again}"
    assert (run.folder / "generator.pt2").exists(), "expected the averaged generator"
    before = {path.name: path.read_bytes() for path in run.folder.glob("*.*")}
    parts = {
        name: part for name, part in small_runs.small_parts(notebook).items() if name != "averaged"
    }
    start_small(notebook, tmp_path / "run", parts=parts)[1](2)
    after = {path.name: path.read_bytes() for path in run.folder.glob("*.*")}
    assert after == before, "expected a finished run, opened without its average, to stay as it is"


# ---------------------------------------------------------------- beginning with an earlier run


def test_a_run_may_begin_with_the_weights_of_another(small_run, notebook):
    run, train = small_run()
    train(1)
    path, fresh = run.folder / "last.pt", small_runs.small_parts(notebook)
    before = {file.name: file.read_bytes() for file in run.folder.glob("*.*")}
    helpers.begin_with(path, fresh["D"], fresh["G"])
    other = helpers.Run(run.folder, run.settings | {"start_from": str(path)}, **fresh)
    with other:
        pass
    assert other.folder != run.folder, "expected a folder of its own for a run that begins so"
    after = {file.name: file.read_bytes() for file in run.folder.glob("*.*")}
    assert after == before, "expected the run that it began with kept"
    for name, expected in (("D", run.parts["D"]), ("G", run.parts["averaged"].module)):
        for key, value in expected.state_dict().items():
            same = torch.equal(fresh[name].state_dict()[key], value)
            assert same, f"expected {name}.{key} of the run, and of G the average, got another"
    state = helpers.load_checkpoint(path)
    del state["averaged"]  # as in the first part of a lesson
    torch.save(state, path)
    helpers.begin_with(path, fresh["D"], fresh["G"])
    newest, begun = run.parts["G"].state_dict(), fresh["G"].state_dict()
    assert all(torch.equal(begun[key], newest[key]) for key in newest), "expected G's own weights"
    wider = notebook.Generator(small_runs.Z_SIZE, 8, 16)
    with pytest.raises(ValueError, match="last.pt is of other networks.*start_from = None"):
        helpers.begin_with(path, fresh["D"], wider)


def test_a_start_of_another_size_is_refused_by_name(small_run):
    run, train = small_run(settings={"z_size": 8, "d_conv_dim": 4})
    train(1)
    settings = {"z_size": 8, "d_conv_dim": 4, "start_from": str(run.folder / "last.pt")}
    helpers.check_settings(settings)
    with pytest.raises(
        ValueError, match="last.pt' does not work: it .* d_conv_dim = 4. Set d_conv"
    ):
        helpers.check_settings(settings | {"d_conv_dim": 32})


# ---------------------------------------------------------------- ending


@pytest.mark.parametrize("stop_at", [1, 10, 18])  # at once, at the end of an epoch, within one
def test_the_stop_button_ends_a_run_and_it_goes_on_bit_for_bit(
    small_run, notebook, stop_button, monkeypatch, capsys, stop_at
):
    whole, train = small_run("whole")
    train(3)

    run, train = small_run("split")
    plain_step, steps = notebook.train_step, iter(range(1, 100))

    def pressed_within_a_step(*args):
        if next(steps) == stop_at:
            stop_button()
        return plain_step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(notebook, "train_step", pressed_within_a_step)
        losses = train(3)
    assert run.step == stop_at and losses, f"expected the end of step {stop_at}, got {run.step}"
    printed = capsys.readouterr().out
    assert f"Stopped after {stop_at} steps" in printed, (
        f"expected a line that says so, got {printed}"
    )
    assert ", stopped" in printed.split("Stopping")[1], f"expected the bar to say so, got {printed}"
    handler = signal.getsignal(signal.SIGINT)
    assert handler is signal.default_int_handler, f"expected Ctrl-C as it was, got {handler}"
    torch.export.load(run.folder / "generator.pt2")

    torch.manual_seed(99)
    split, train = small_run("split")
    assert split.folder == run.folder and split.step == stop_at, "expected the same run to go on"
    train(3)
    assert_same_bits(whole, split)


def test_the_stop_button_pressed_twice_goes_back_to_the_last_whole_checkpoint(
    small_run, notebook, stop_button, monkeypatch
):
    whole, train = small_run("whole")
    train(3)
    run, train = small_run("split")
    plain_step, log = notebook.train_step, run.log

    def pressed_twice(D, *args):
        if run.step == 12:
            stop_button()
            with torch.no_grad():
                next(D.parameters()).add_(1)  # half a step
            stop_button()
        return plain_step(D, *args)

    run.log = lambda *args: (log(*args), run.step == 10 and run.recorder.save())
    with monkeypatch.context() as patch:
        patch.setattr(notebook, "train_step", pressed_twice)
        train(3)
    assert run.step == 10, f"expected the checkpoint of step 10, got {run.step}"
    assert (run.folder / "generator.pt2").exists(), "expected generator.pt2"
    split, train = small_run("split")
    train(3)
    assert_same_bits(whole, split)


def test_the_stop_button_does_not_disturb_the_writing_of_a_checkpoint(
    small_run, stop_button, monkeypatch
):
    run, train = small_run()
    write_file, log, pressed = run_files.write_file, run.log, []

    def pressed_while_writing(path, *args):
        if run.step == 12 and path.name == "last.pt":
            pressed.extend([stop_button(), stop_button(), stop_button()])
        write_file(path, *args)

    run.log = lambda *args: (log(*args), run.step == 12 and run.recorder.save())
    monkeypatch.setattr(run_files, "write_file", pressed_while_writing)
    train(3)
    assert len(pressed) >= 3, "expected the button to be pressed while last.pt was written"
    assert run.step == 13, f"expected the run to end with the step after it, got {run.step}"
    step = helpers.load_checkpoint(run.folder / "last.pt")["step"]
    previous = helpers.load_checkpoint(run.folder / "previous.pt")["step"]
    assert (step, previous) == (13, 13) or previous == 12, f"expected 13 and 12, got {step}"


def test_minutes_images_and_patience_end_a_run(small_run, monkeypatch):
    run, train = small_run("minutes", stop=helpers.StopRule(minutes=0.5))
    Clock(monkeypatch, run)
    train(10**6)
    assert run.step == 30, f"expected 30 steps of a second in half a minute, got {run.step}"
    assert run.progress == 1, f"expected the run to be through, got {run.progress}"
    again, train = small_run("minutes", stop=helpers.StopRule(minutes=0.5))
    printed = printed_by(train, 10**6)
    assert again.step == 30, f"expected a finished run not to be trained further, got {again.step}"
    assert "is finished" in printed and "raise max_minutes" in printed, f"got {printed}"

    run, train = small_run("images", stop=helpers.StopRule(images=50))
    train(10**6)
    assert run.images == 52, f"expected the first step past 50 images, got {run.images}"
    assert "raise the number of images" in printed_by(small_run("images", stop=run.stop)[1], 10)


def test_patience_ends_a_run_and_says_so(small_run, monkeypatch):
    def started(patience, clock=None):
        values = itertools.chain([3.0, 2.0], itertools.repeat(4.0))
        stop = helpers.StopRule(patience=patience)
        run, train = small_run(score=lambda generator: next(values), stop=stop)
        Clock(monkeypatch, run, 30)
        return run, train

    run, train = started(3)
    printed = printed_by(train, 200)
    assert len(run.scores) == 5 and run.epoch < 200, f"expected 3 after the best, got {run.scores}"
    again, train = started(3)
    assert again.best[-1] == 2 and again.finished, f"expected the scores again, got {again.scores}"
    printed = printed_by(train, 400)
    assert again.step == run.step, f"expected no further step, got {again.step - run.step}"
    assert "To train longer, raise patience." in printed, f"expected patience, got {printed}"
    longer, train = started(5)
    train(200)
    assert longer.step > run.step, "expected a run of more patience to go on, as the message says"


# ---------------------------------------------------------------- going on


def test_every_random_state_comes_back(tmp_path):
    def draw():
        return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()

    np.random.standard_normal()  # numpy keeps a second number for the next call
    torch.save(run_files.plain(run_files.random_state()), tmp_path / "state.pt")
    first = draw()
    run_files.restore_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    again = draw()
    assert again == first, f"expected {first} of PyTorch, NumPy and Python again, got {again}"


def test_samples_and_scores_do_not_change_what_training_does(small_run, monkeypatch):
    def noisy(generator):
        return torch.rand(4, 3, 16, 16) * 2 - 1 + 0 * generator(small_runs.LATENTS)

    quiet, train = small_run("quiet", sample=None)
    train(2)
    watched, train = small_run("watched", sample=noisy, score=lambda _: torch.rand(()).item())
    Clock(monkeypatch, watched, 5)
    train(2)
    assert len(list((watched.folder / "samples").iterdir())) > 5, "expected grids while it trained"
    assert_same_bits(quiet, watched)


def train_until_killed(folder, n_epochs):
    """A training process that writes a checkpoint at each step."""
    torch.set_num_threads(1)
    run, train = start_small(read_notebook(), folder)
    log = run.log
    run.log = lambda *args: (log(*args), run.recorder.save())
    train(n_epochs)


def test_a_killed_run_leaves_a_checkpoint_and_goes_on_bit_for_bit(tmp_path):
    kinds = multiprocessing.get_all_start_methods()
    method = "forkserver" if "forkserver" in kinds else "spawn"
    processes = multiprocessing.get_context(method)
    if method == "forkserver":
        processes.set_forkserver_preload(["problem_unittests", "torch._dynamo", "torch.export"])

    def start(folder, n_epochs):
        process = processes.Process(target=train_until_killed, args=(folder, n_epochs))
        process.start()
        return process

    def step(folder):
        for name in ("last.pt", "previous.pt"):
            with contextlib.suppress(FileNotFoundError):
                return helpers.load_checkpoint(folder / name)["step"]
        return -1

    chance, reached, folder = random.Random(0), [], tmp_path / "killed"
    for life in range(4):
        process = start(folder, 10**6)
        if life:  # the first may die before it has written anything
            while process.is_alive() and step(folder) <= max(reached):
                time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.3))
        assert process.is_alive(), f"expected it to be at work, got an end after {step(folder)}"
        process.kill()
        process.join()
        reached.append(step(folder))
    assert not list(folder.glob("damaged*")), "expected no checkpoint to be damaged by a kill"
    assert sorted(set(reached[1:])) == reached[1:], f"expected ever more steps, got {reached}"
    for path in (folder, tmp_path / "whole"):
        start(path, max(reached) // 10 + 3).join()
    killed, whole = (
        helpers.load_checkpoint(path / "last.pt") for path in (folder, tmp_path / "whole")
    )
    assert killed["step"] == whole["step"] > max(reached), (
        f"expected one step, got {killed['step']}"
    )
    for name in ("D", "G", "averaged", "d_optimizer", "g_optimizer"):
        for path, value in torch.utils._pytree.tree_flatten_with_path(whole[name])[0]:
            keys = [getattr(key, "key", getattr(key, "idx", None)) for key in path]
            other = functools.reduce(lambda tree, key: tree[key], keys, killed[name])
            same = torch.equal(value, other) if torch.is_tensor(value) else value == other
            assert same, f"{name} {keys}: expected the same bits after four kills, got others"


def test_a_damaged_checkpoint_gives_way_to_the_one_before(small_run, capsys):
    run, train = small_run()
    train(2)
    last, previous = run.folder / "last.pt", run.folder / "previous.pt"
    whole = last.read_bytes()
    previous.write_bytes(whole)
    parts = [whole[: len(whole) * k // 12] for k in (1, 4, 6, 9)]
    for damaged in (*parts, whole[:-1000], whole[:100], b"", b"no checkpoint"):
        last.write_bytes(damaged)
        again, train = small_run()
        assert again.step == 20, f"expected the checkpoint before it, got step {again.step}"
        assert "is damaged" in capsys.readouterr().out, "expected a line that says so"
        kept = (run.folder / "damaged.pt").read_bytes()
        assert kept == damaged, "expected the damaged file to be kept"
        train(2)
        again.recorder.save()
        assert helpers.load_checkpoint(last)["step"] == 20, "expected the run to be whole again"
        previous.write_bytes(whole)
    last.unlink()
    again, train = small_run()
    assert again.step == 20, "expected a run killed between two renames to go on"
    train(2)
    for path in (last, previous):
        path.write_bytes(whole[:500])
    with pytest.raises(ValueError, match="is no checkpoint of this notebook, or a damaged one"):
        small_run()
    assert last.read_bytes() == previous.read_bytes() == whole[:500], "expected both untouched"


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_foreign_checkpoint_is_refused(small_run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text('{"seed": 0}')
    last = tmp_path / "run" / "last.pt"
    trap = {"settings": {}, "random_state": {}, "step": Trap(tmp_path / "sprung")}
    for content in (b"no checkpoint", {"weights": torch.zeros(3)}, trap):
        last.write_bytes(content) if isinstance(content, bytes) else torch.save(content, last)
        before = last.read_bytes()
        with pytest.raises(ValueError, match="last.pt is no checkpoint of this notebook"):
            small_run()
        assert last.read_bytes() == before, "expected the file untouched"
    assert not (tmp_path / "sprung").exists(), "expected nothing in a checkpoint to be executed"


def test_a_checkpoint_of_other_networks_changes_nothing(small_run, notebook):
    run, train = small_run()
    train(1)
    parts = small_runs.small_parts(notebook)
    fewer = {name: part for name, part in parts.items() if name != "g_optimizer"}
    wider = small_runs.small_parts(notebook)
    wider["G"] = notebook.Generator(small_runs.Z_SIZE, 8, 16)
    wider["g_optimizer"] = torch.optim.Adam(wider["G"].parameters())
    more = {**parts, "other": nn.Linear(1, 1)}
    for what, others in {"a wider G": wider, "one part more": more}.items():
        before = {name: copy.deepcopy(part.state_dict()) for name, part in others.items()}
        with pytest.raises(ValueError, match="not of these networks.*set resume = False"):
            small_run(parts=others)
        for name, part in others.items():
            for key, value in part.state_dict().items():
                same = (
                    torch.equal(value, before[name][key])
                    if torch.is_tensor(value)
                    else value == before[name][key]
                )
                assert same, f"{what}: expected {name}.{key} to stay, got another"
    assert small_run(parts=fewer)[0].step == 10, "expected a run that needs less to go on"


def test_optimizers_of_other_networks_are_refused_by_name(small_run, notebook):
    parts, fresh = small_runs.small_parts(notebook), small_runs.small_parts(notebook)
    parts |= {"D": fresh["D"], "averaged": fresh["averaged"]}  # section 8 again, 11 not
    with pytest.raises(ValueError, match="d_optimizer .*section 11"):
        small_run(parts=parts)
    parts["d_optimizer"] = fresh["d_optimizer"]
    small_run(parts=parts)


def test_section_8_begins_with_the_same_weights_each_time():
    cells = json.loads((ROOT / "dlnd_face_generation.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    built, *_ = [text for text in sources if re.search(r"^D, G = build_network\(", text, re.M)]
    before = built.split("D, G = build_network(")[0]
    assert "torch.manual_seed(seed)" in before, f"expected the seed in the same cell, got {built}"


def test_a_loader_draws_its_order_after_a_run_as_before(small_run):
    loader = small_runs.noise_loader()

    def order():
        torch.manual_seed(3)
        return torch.cat([labels for _, labels in loader]), torch.rand(1)

    loader.dataset.labels = torch.arange(len(loader.dataset))
    before = order()
    assert sum(1 for _ in helpers.Run().watch(loader, 0)) == len(loader), "expected every batch"
    next(helpers.Run().watch(loader, 0))  # and a loop that ends in the middle
    after = order()
    assert torch.equal(before[0], after[0]), "expected the same order from the same seed"
    assert before[1] == after[1], "expected as many random numbers drawn as before"


def test_an_epoch_that_has_become_shorter_is_over():
    run, loader = helpers.Run(), small_runs.noise_loader(8)  # two batches
    run.batch = 7
    assert not [*run.watch(loader, 3)], "expected no batch more"
    assert (run.epoch, run.batch) == (4, 0), f"expected epoch 4, got {run.epoch}, {run.batch}"


def test_a_new_run_says_that_its_networks_are_not_fresh(small_run, capsys):
    run, train = small_run()
    train(1)
    capsys.readouterr()
    small_run("other", parts=run.parts)
    assert "trained already" in capsys.readouterr().out, "expected a line that says so"


# ---------------------------------------------------------------- which run it is


def test_other_settings_make_another_run(small_run, capsys):
    first, train = small_run(settings={"seed": 0, "lr": 0.1})
    train(1)
    second, _ = small_run(settings={"seed": 0, "lr": 0.2})
    assert second.folder.name == "run-2" and second.step == 0, (
        f"expected run-2, got {second.folder}"
    )
    printed = capsys.readouterr().out
    assert "lr 0.1 -> 0.2" in printed, f"expected a line that says what differs, got {printed}"
    third, train = small_run(settings={"seed": 0, "lr": 0.1}, resume=False)
    assert third.folder.name == "run-2" and third.step == 0, f"expected run-2, got {third.folder}"
    train(1)
    newest = small_run(settings={"seed": 0, "lr": 0.1})[0]
    assert newest.folder.name == "run-2", f"expected the newest of them, got {newest.folder}"
    step = helpers.load_checkpoint(first.folder / "last.pt")["step"]
    assert step == 10, f"expected the first run untouched, got step {step}"


def test_settings_are_compared_as_plain_values(small_run):
    settings = {"seed": np.int64(0), "lr": np.float64(0.1), "widths": (4, 4), "data": Path("faces")}
    first, train = small_run(settings=settings)
    train(1)
    same = {"seed": 0, "lr": 0.1, "widths": [np.int32(4), 4], "data": "faces"}
    again, _ = small_run(settings=same)
    assert again.step == 10, f"expected the same run, got step {again.step} in {again.folder}"


def test_choosing_a_folder_reads_no_checkpoint_but_the_one_to_go_on_with(small_run, monkeypatch):
    for lr in (1, 2, 3):
        small_run(settings={"lr": lr})[1](1)
    load, loaded = run_files.load_checkpoint, []
    monkeypatch.setattr(
        run_files, "load_checkpoint", lambda path: (loaded.append(path), load(path))[1]
    )
    small_run(settings={"lr": 2})
    small_run(settings={"lr": 4})
    names = [f"{path.parent.name}/{path.name}" for path in loaded]
    assert names == ["run-2/last.pt"], f"expected one checkpoint to be read, got {names}"


def test_a_run_of_the_old_version_is_kept(small_run, capsys):
    run, train = small_run()
    train(1)
    (run.folder / "settings.json").unlink()  # which the old version did not write
    before = {path.name: path.read_bytes() for path in run.folder.glob("*.*")}
    new, train = small_run()
    printed = capsys.readouterr().out
    assert new.folder.name == "run-2" and new.step == 0, f"expected run-2, got {new.folder}"
    assert printed.count("made by an older version") == 1, f"expected one line, got {printed}"
    train(1)
    after = {path.name: path.read_bytes() for path in run.folder.glob("*.*")}
    assert after == before, "expected the old run's files as they were"
    (run.folder / "settings.json").write_text("[broken")
    (new.folder / "settings.json").write_text("null")
    assert small_run()[0].folder.name == "run-3", "expected damaged settings to be no run of ours"
    assert capsys.readouterr().out.count("cannot be read") == 2, "expected a line for each"


@hypothesis.settings(SEARCH, max_examples=20)
@given(
    settings=st.dictionaries(
        st.text(max_size=8),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=8),
        max_size=4,
    ),
    rows=st.lists(
        st.tuples(st.integers(0, 2**40), st.floats(width=32, allow_nan=False)), max_size=3
    ),
)
def test_a_checkpoint_brings_back_what_was_saved(tmp_path_factory, settings, rows):
    settings = settings | {"seed": 0}
    folder, network = tmp_path_factory.mktemp("place") / "run", nn.Linear(1, 1)
    run = helpers.Run(folder, settings, D=network)
    run.scores, run.step = rows, 7
    run.recorder.save()
    run.recorder.checkpoints.lock.release(force=True)
    again = helpers.Run(folder, settings, D=network)
    assert again.folder == run.folder, f"expected the same settings, got {again.settings}"
    assert again.scores == rows and again.step == 7, f"expected {rows}, got {again.scores}"


def test_numpy_numbers_do_not_make_a_checkpoint_unreadable(small_run, notebook):
    parts = small_runs.small_parts(notebook)
    parts["d_optimizer"].param_groups[0]["lr"] = np.float64(1e-3)
    parts["g_optimizer"].param_groups[0]["betas"] = (np.float32(0.5), np.float64(0.999))
    schedule = torch.optim.lr_scheduler.StepLR(parts["d_optimizer"], np.int64(5), np.float64(0.5))
    settings = {"seed": np.int64(0), "lr": np.float64(0.1), "on": np.bool_(True)}
    score = lambda generator: np.float64(2.5)  # noqa: E731
    run, train = small_run(settings=settings, parts={**parts, "d_schedule": schedule}, score=score)
    run.warned = [np.str_("a word")]
    train(1)
    for name in ("last.pt", "best.pt"):
        state = helpers.load_checkpoint(run.folder / name)
        assert state["scores"][0][-1] == 2.5, f"expected the score in {name}, got {state['scores']}"
        assert type(state["d_optimizer"]["param_groups"][0]["lr"]) is float, "expected a plain rate"
    again, train = small_run(
        settings=settings, parts={**parts, "d_schedule": schedule}, score=score
    )
    train(2)
    assert again.step == 20, f"expected the run to go on, got step {again.step}"


# ---------------------------------------------------------------- the folder


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full to stand for a full disk")
@pytest.mark.parametrize("name", ["last.pt", "losses.csv", "generator.pt2", "training.gif"])
def test_a_full_disk_is_explained_and_spares_what_is_there(small_run, name):
    run, train = small_run()
    train(1)
    before = {path.name: path.read_bytes() for path in run.folder.glob("*.*")}
    again, train = small_run()
    (run.folder / f"{name}.new").symlink_to("/dev/full")
    with pytest.raises(OSError, match=f"{name} cannot be written.*Make room on the disk"):
        train(2)
    helpers.load_checkpoint(run.folder / "last.pt")
    after = (run.folder / name).read_bytes()
    assert after == before[name], f"expected {name} as it was"


def test_a_folder_that_cannot_be_written_is_explained(small_run, tmp_path):
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with pytest.raises(OSError, match="cannot be written: .*choose another out_dir"):
        small_run("file/run")
    if hasattr(os, "geteuid") and os.geteuid():  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o555)
        with pytest.raises(OSError, match="cannot be written: Permission denied.*another out_dir"):
            small_run("locked/run")


def test_a_second_run_is_refused_but_a_killed_one_does_not_count(small_run, tmp_path):
    (tmp_path / "run").mkdir()
    hold = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire()"
    hold += "; print('held', flush=True); sys.stdin.read()"
    lock = tmp_path / "run" / "run.lock"
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", hold, lock], **pipes) as other:
        other.stdout.readline()
        with pytest.raises(RuntimeError, match="Another run is at work in .*run. Wait until it"):
            small_run()
        other.kill()
        other.wait()
    run, train = small_run()
    again, train = small_run()  # the cell run again in the same process
    train(1)
    assert again.step == 10, "expected the lock of a killed process, and our own, not to count"


def test_a_drive_without_locks_is_no_obstacle(small_run, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    run, train = small_run()
    locks = [path.name for path in run.folder.glob("run.lock*")]
    assert "run.lock.exists" in locks, f"expected another kind of lock, got {locks}"
    train(1)
    again, train = small_run()
    train(2)
    assert again.step == 20, f"expected the run to go on, got step {again.step}"


def test_a_checkpoint_is_at_most_five_minutes_old(small_run, monkeypatch):
    run, _ = small_run(sample=None)
    clock, saved, save = Clock(monkeypatch, run, 10), [], run.recorder.save

    def timed():
        saved.append(clock.now)
        clock.add(40)  # on a slow drive
        save()

    run.recorder.save = timed
    drive_steps(run, 300, print_every=100)
    gaps = np.diff(saved)
    assert gaps.max() <= 350 and clock.now > 3000, f"expected one in five minutes, got {gaps}"


# ---------------------------------------------------------------- what goes wrong


def test_a_step_that_diverges_ends_the_run_before_it_is_saved(small_run, notebook, monkeypatch):
    first, train = small_run()
    train(1)
    good, plain_step = first.folder / "last.pt", notebook.train_step
    before = good.read_bytes()

    def diverges(D, G, *args):
        d_loss, g_loss = plain_step(D, G, *args)
        return (d_loss, g_loss * math.nan if run.step == 12 else g_loss)

    def breaks(D, G, *args):
        if run.step == 12:
            next(G.parameters()).data[0, 0] = math.inf
        return torch.zeros(()), torch.zeros(())

    cases = (
        (diverges, "g_loss is no finite number at step 13"),
        (breaks, "a weight of G is no .* 16"),
    )
    for step, message in cases:
        run, train = small_run()
        monkeypatch.setattr(notebook, "train_step", step)
        expected = f"{message}.*lower lr.*checkpoint of step 10 stands"
        with pytest.raises(FloatingPointError, match=expected):
            train(3)
        assert good.read_bytes() == before, "expected the last good checkpoint to stand"

    run, train = start_small(notebook, None)
    with pytest.raises(FloatingPointError) as caught:
        train(3)
    assert "checkpoint" not in str(caught.value), f"expected none named, got {caught.value}"


def test_the_check_reads_the_device_once(notebook, monkeypatch):
    run, _ = start_small(notebook, None)
    reads = []
    for name in ("tolist", "item", "__bool__"):
        plain = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda self, plain=plain: (reads.append(1), plain(self))[1]
        )
    helpers.check_finite(run.networks, [torch.ones(2)] * 50, 50, "")
    assert len(reads) == 1, f"expected one read for 50 losses and all weights, got {len(reads)}"


def rows_of(losses):
    return [
        (50 * i, 1600 * i, float(i), d_loss, g_loss) for i, (d_loss, g_loss) in enumerate(losses)
    ]


def test_what_the_losses_warn_of():
    healthy = [(1.2 + 0.1 * math.sin(i), 1.5 + 0.5 * math.cos(i)) for i in range(100)]
    wins = [(0.36 + 0.02 * math.sin(i), 3.0) for i in range(60)]
    climbs = [(0.8, 2 + i / 10) for i in range(100)]
    least_squares = [(0.4 + 0.02 * math.sin(i), 0.6) for i in range(60)]
    wasserstein = [(-3.0, 4.0 + math.cos(i)) for i in range(60)]
    for losses, words in ((healthy, ""), (wins, "all but won"), (climbs, "keeps climbing"),
                          (wins[:39], ""), (least_squares, ""), (wasserstein, "")):  # fmt: skip
        found = helpers.training_warnings(rows_of(losses[:40] if losses is climbs else losses))
        assert len(found) == bool(words), f"expected {words or 'nothing'}, got {found}"
        assert words in " ".join(found), f"expected {words}, got {found}"
    assert helpers.training_warnings([]) == [], "expected nothing of no rows"


def test_a_warning_is_printed_once(small_run, capsys):
    run, _ = small_run()
    drive_steps(run, 100, g_loss=3.0, d_loss=0.36)
    printed = capsys.readouterr().out
    assert printed.count("all but won") == 1, f"expected it once, got {printed}"
    again, _ = small_run()
    drive_steps(again, 100, g_loss=3.0, d_loss=0.36)
    assert "all but won" not in capsys.readouterr().out, "expected it not again by the same run"


def test_samples_that_are_all_alike_are_reported_once(small_run, capsys, monkeypatch):
    run, _ = small_run()
    clock = Clock(monkeypatch)
    with torch.no_grad():
        for layer in run.parts["averaged"].module.layers[-3:]:
            for weight in layer.parameters():
                weight.zero_()
    with run:
        run.step = 400
        clock.add(20)
        run.log(*torch.ones(2), 4, 10**6, 1)
        assert "all alike" not in capsys.readouterr().out, "expected patience with a young run"
        run.step = 500
        for _ in range(3):
            clock.add(400)
            run.log(*torch.ones(2), 4, 10**6, 1)
    printed = capsys.readouterr().out
    assert printed.count("all alike") == 1, f"expected it once, got {printed}"


TOO_LITTLE = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
    RuntimeError("MPS backend out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    MemoryError("Unable to allocate 8 GiB for an array"),
]


@pytest.mark.parametrize("error", TOO_LITTLE, ids=lambda error: str(error)[:30])
def test_too_little_memory_names_the_settings(notebook, monkeypatch, error):
    def too_much(*args):
        raise error

    advice = "lower batch_size, d_conv_dim, g_conv_dim or image_size"
    monkeypatch.setattr(notebook, "train_step", too_much)
    with pytest.raises(MemoryError, match=advice):
        start_small(notebook, None)[1](1)


def test_too_little_memory_for_a_score_says_which_checkpoint_stands(small_run):
    def too_much(generator):
        raise TOO_LITTLE[0]

    run, train = small_run(score=too_much)
    with pytest.raises(MemoryError, match="lower batch_size.*The checkpoint of step 10 stands"):
        train(1)
    with pytest.raises(RuntimeError, match="another error"):
        with small_run()[0]:
            raise RuntimeError("another error")


def test_after_too_little_memory_nothing_of_the_step_stays(notebook, monkeypatch):
    held, emptied = [], []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))

    def step(*args):
        activations = torch.zeros(2**16)
        held.append(weakref.ref(activations))
        try:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        except RuntimeError as error:
            deeper = torch.zeros(2**16)
            held.append(weakref.ref(deeper))
            raise RuntimeError("out of memory") from error

    monkeypatch.setattr(notebook, "train_step", step)
    try:
        start_small(notebook, None)[1](1)
    except MemoryError as error:
        kept = error  # as a notebook keeps the last one
    gc.collect()
    alive = sum(ref() is not None for ref in held)
    assert alive == 0, f"expected nothing of the failed step, got {alive} of {len(held)} tensors"
    assert kept.__context__ is None and kept.__cause__ is None, "expected no trace of the first"
    assert emptied, "expected the GPU's cache to be emptied"


# ---------------------------------------------------------------- grids, scores, progress


def looks_of(small_run, monkeypatch, seconds, cost=0.0, step=1.0):
    """The seconds at which grids are kept by a run whose grids cost so much."""
    clock = Clock(monkeypatch)
    kept = []

    def sample(generator):
        kept.append(clock.now)
        clock.add(cost)
        return small_runs.sample_four(generator)

    run, _ = small_run(sample=sample)
    clock.drive(run, step)
    drive_steps(run, round(seconds / step), print_every=10**6)
    return kept


def test_grids_come_often_at_first_and_then_ever_less_often(small_run, monkeypatch):
    kept = looks_of(small_run, monkeypatch, 200, step=0.25)
    assert kept[:4] == [0, 2, 10, 11], f"expected noise, 2 s, 10 s and a tenth more, got {kept[:4]}"
    later = [b / a for a, b in zip(kept[3:-2], kept[4:-1])]
    assert 1.09 < min(later) < max(later) < 1.13, f"expected a tenth more each time, got {later}"


def test_grids_come_every_five_minutes_at_least(small_run, monkeypatch):
    kept = looks_of(small_run, monkeypatch, 8000, step=50)
    assert max(np.diff(kept)) <= 350, f"expected one in five minutes, got {np.diff(kept)}"


def test_grids_take_a_twentieth_of_the_time_however_short_the_epochs_are(small_run, monkeypatch):
    kept = looks_of(small_run, monkeypatch, 600, cost=0.5, step=0.1)
    spent = 0.5 * len(kept) / 600
    assert spent < 0.06, f"expected a twentieth of the time for grids, got {spent:.0%}"
    gaps = np.diff(kept[:-1])
    assert gaps.min() >= 10, f"expected 20 times as long between grids as one takes, got {gaps}"


def test_the_animation_begins_with_noise_and_rests_on_the_last_grid(tmp_path):
    (tmp_path / "samples").mkdir()
    grids = helpers.SampleGrids(
        tmp_path, lambda brightness: torch.full((32, 3, 16, 16), brightness)
    )
    for step in range(50):
        grids.keep(step, step / 25 - 1)
    grids.animate(tmp_path / "training.gif")
    shades, durations = [], []
    with Image.open(tmp_path / "training.gif") as animation:
        assert 360 < animation.width <= 540, f"expected about 540 across, got {animation.width}"
        for frame in range(animation.n_frames):
            animation.seek(frame)
            shades.append(animation.convert("L").getpixel((20, 20)))
            durations.append(animation.info["duration"])
    assert len(shades) == 20, f"expected 20 frames, got {len(shades)}"
    assert shades == sorted(shades) and shades[0] == 0, f"expected step 0 first, got {shades}"
    assert shades[-1] > 240, f"expected the last grid last, got {shades}"
    assert durations[-1] == 2000 > max(durations[:-1]), f"expected a rest, got {durations}"


@pytest.mark.parametrize(
    "n, size, expected", [(8, 128, 128), (32, 16, 3 * 34), (48, 32, 2 * 66), (4, 16, 7 * 16)]
)
def test_the_animation_shows_whole_faces(tmp_path, n, size, expected):
    (tmp_path / "samples").mkdir()
    grids = helpers.SampleGrids(tmp_path, lambda _: torch.rand(n, 3, size, size) * 2 - 1)
    for step in (0, 5, 12_345_678, 9_999_999):
        grids.keep(step, None)
    steps = [int(path.stem[5:]) for path in grids.files()]
    assert steps == [0, 5, 9_999_999, 12_345_678], f"expected them in order, got {steps}"
    grids.animate(tmp_path / "training.gif")
    with Image.open(tmp_path / "training.gif") as animation:
        assert animation.n_frames == 4, f"expected 4 frames, got {animation.n_frames}"
        assert animation.height == expected, f"expected {expected} high, got {animation.size}"


def test_grids_are_shown_with_an_alternative_text(small_run, monkeypatch):
    shown = []
    monkeypatch.setattr(helpers, "show_live", lambda *args, **kwargs: shown.append((args, kwargs)))
    run, train = small_run()
    train(1)
    words = [str(args[2:]) + str(kwargs) for args, kwargs in shown]
    assert "after 0 steps" in words[0] and "after 10 steps" in words[-1], f"got {words}"
    shown.clear()
    small_run()[1](1)
    words = [str(args[2:]) + str(kwargs) for args, kwargs in shown]
    assert len(words) == 1 and "10 steps" in words[0], f"expected the last grid again, got {words}"


def test_a_finished_run_says_so_and_is_left_as_it_is(small_run, capsys):
    run, train = small_run(score=lambda generator: 2.5)
    train(1)
    capsys.readouterr()
    before = {path.name: path.stat().st_mtime_ns for path in run.folder.rglob("*.*")}
    small_run(score=lambda generator: 2.5)[1](1)
    printed = capsys.readouterr().out
    assert "is finished: 10 steps, 40 images, 0.0 minutes" in printed, f"got {printed}"
    assert "To train longer, raise n_epochs." in printed, f"expected how to go on, got {printed}"
    assert "Going on" not in printed and "100%" in printed, f"expected 100 %, got {printed}"
    after = {path.name: path.stat().st_mtime_ns for path in run.folder.rglob("*.*")}
    assert after == before, "expected a finished run to be left as it is"
    small_run()[1](2)
    assert "Going on with the run" in capsys.readouterr().out, "expected it to say that it goes on"


def test_a_run_that_ended_without_a_score_gets_one(small_run):
    small_run()[1](1)
    run, train = small_run(score=lambda generator: 2.5)
    train(1)
    assert run.step == 10 and len(run.scores) == 1, f"got step {run.step}, scores {run.scores}"
    assert (run.folder / "best.pt").exists(), "expected a best.pt"


def test_a_finished_run_makes_up_for_what_is_missing(small_run):
    run, train = small_run()
    train(1)
    for name in ("generator.pt2", "training.gif"):
        (run.folder / name).unlink()
        again, train = small_run()
        train(1)
        assert again.step == 10 and (run.folder / name).exists(), f"expected {name} and no step"


def test_the_progress_bar_ends_at_100(small_run, monkeypatch, capsys):
    run, train = small_run(stop=helpers.StopRule(minutes=1), score=lambda generator: 2.5)
    Clock(monkeypatch, run, 7.0)
    train(10)
    line = re.split(r"[\r\n]+", capsys.readouterr().out.strip())[-1]
    assert line.startswith("100%") and ", finished" in line, f"expected 100 %, got {line}"
    for word in ("epoch 1", "36 images", "img/s", "d_loss", "g_loss", "best score 2.50"):
        assert word in line, f"expected {word}, got {line}"
    assert "left" not in line, f"expected no time left, got {line}"


def test_the_best_generator_is_kept(small_run, monkeypatch):
    values, seen = iter([3.0, 1.0, 2.0, 2.0]), []

    def score(generator):
        assert not generator.training, "expected a generator in eval mode"
        seen.append(copy.deepcopy(generator))
        return next(values)

    run, train = small_run(score=score)
    Clock(monkeypatch, run, 20.0)
    log = run.log

    def scored_at_times(*args):
        run.recorder.next_score = 0 if run.step in (9, 19) else math.inf
        log(*args)

    run.log = scored_at_times
    train(3)
    rows = small_runs.read_table(run.folder / "scores.csv")
    steps, scores = zip(*[(row["step"], row["score"]) for row in rows])
    assert scores == (3, 1, 2) and steps == (10, 20, 30), f"expected three scores, got {rows}"
    best = helpers.load_checkpoint(run.folder / "best.pt")
    assert best["step"] == 20, f"expected step 20 in best.pt, got {best['step']}"
    z = torch.randn(5, small_runs.Z_SIZE)
    faces = torch.export.load(run.folder / "generator.pt2").module()(z)
    near, far = ((faces - network(z)).abs().mean() for network in (seen[1], seen[-1]))
    assert near < 0.02 < far, (
        f"expected the best generator's faces, got {near:.3f} and {far:.3f} off"
    )
    (run.folder / "best.pt").write_bytes(b"damaged")
    assert "best.pt is missing or damaged" in printed_by(run.best_generator), "expected a line"


def test_a_network_is_given_as_it_was_at_the_best_score(small_run):
    run, train = small_run(score=lambda generator: 1.0)
    train(1)
    with torch.no_grad():
        for weight in run.parts["D"].parameters():
            weight += 1
    best, now = run.at_best("D"), run.parts["D"]
    kept = helpers.load_checkpoint(run.folder / "best.pt")["D"]
    is_best = all(kept[name].equal(x) for name, x in best.state_dict().items())
    assert is_best and best is not now, "expected a copy with the weights of best.pt"
    assert not any(kept[name].equal(x) for name, x in now.named_parameters()), "expected now's"
    (run.folder / "best.pt").unlink()
    printed = printed_by(functools.partial(run.at_best, "D"))
    assert "best.pt is missing or damaged: D is taken as it is now" in printed, f"got {printed}"
    same = run.at_best("D").state_dict()
    assert all(x.equal(same[name]) for name, x in now.state_dict().items()), "expected now's"


def test_scores_take_a_twentieth_of_the_time(small_run, monkeypatch):
    clock, scored = Clock(monkeypatch), []

    def score(generator):
        scored.append(clock.now)
        clock.add(1)
        return 1.0

    run, _ = small_run(score=score)
    clock.drive(run, 0.25)
    drive_steps(run, 1000, print_every=10**6)
    gaps = np.diff(scored[:-1])  # the last one is taken however soon
    assert scored[0] >= 10 and len(gaps) > 1, f"expected scores from 10 s on, got {scored}"
    assert gaps.min() >= 20, f"expected 20 times as long between scores as one takes, got {gaps}"


def test_a_score_that_is_no_number_is_never_the_best(small_run, monkeypatch):
    values = itertools.chain([math.nan, torch.tensor(3.0)], itertools.repeat(5))
    run, _ = small_run(score=lambda generator: next(values))
    Clock(monkeypatch, run, 10)
    drive_steps(run, 10)
    assert run.best[-1] == 3 and type(run.best[-1]) is float, f"expected 3.0, got {run.best}"


def test_best_is_written_anew_if_the_process_was_killed_before_it(small_run):
    run, train = small_run(score=lambda generator: 1.0)
    train(1)
    (run.folder / "best.pt").unlink()
    small_run(score=lambda generator: 1.0)
    step = helpers.load_checkpoint(run.folder / "best.pt")["step"]
    assert step == 10, f"expected best.pt to be made of last.pt, got step {step}"


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


def test_a_row_of_losses_costs_the_same_after_200_000_rows(notebook, monkeypatch):
    read = {}
    for n in (1_000, 200_000):
        run, _ = start_small(notebook, None)
        Clock(monkeypatch)
        rows = Rows((i * 50, i * 1600, i * 0.16, 1.2, 2.3) for i in range(n))
        with run:
            run.rows = rows
            for _ in range(10):
                run.log(*torch.rand(2), 4, 10**9, 1)
            read[n] = rows.read
            run.rows = []
    assert read[200_000] == read[1_000] <= 500, f"expected as many rows to be read, got {read}"


# ---------------------------------------------------------------- networks


def test_summary_changes_nothing(notebook, capsys):
    D, G = notebook.build_network(4, 4, 8, 16)
    G.layers[0].eval()
    state = torch.get_rng_state()
    before = copy.deepcopy([D.state_dict(), G.state_dict()])
    helpers.summary(D, 3, 16, 16)
    helpers.summary(G, 8)
    for old, new in zip(before, (D.state_dict(), G.state_dict())):
        for key, value in old.items():
            assert torch.equal(value, new[key]), f"expected {key} as it was, got {new[key]}"
    assert D.training and not G.layers[0].training, "expected the modes as they were"
    assert torch.equal(state, torch.get_rng_state()), "expected no random number to be used"
    printed = capsys.readouterr().out
    count = f"{sum(p.numel() for p in D.parameters()):,}"
    assert "logit Linear" in printed and count in printed, f"expected {count}, got {printed}"


def test_recalibrated_statistics_are_those_of_100_small_batches(notebook):
    _, G = notebook.build_network(4, 8, 8, 16)
    first = next(layer for layer in G.modules() if isinstance(layer, nn.BatchNorm2d))
    outputs = []
    hook = first.register_forward_pre_hook(lambda _, inputs: outputs.append(inputs[0].detach()))
    returned = helpers.recalibrate_batch_norm(G, 8)
    hook.remove()
    assert returned is G and not G.training, "expected the generator itself, in eval mode"
    sizes = [len(x) for x in outputs]
    assert sizes == [32] * 100, f"expected 100 batches of 32, got {sizes}"
    means = torch.stack([x.float().mean((0, 2, 3)) for x in outputs]).mean(0)
    assert torch.allclose(first.running_mean, means, atol=1e-4), f"expected {means}"
    z = torch.randn(9, 8)
    off = (G(z)[:1] - G(z[:1])).abs().max()
    assert off < 1e-5, f"expected the same face for a latent in any batch, got {off}"
