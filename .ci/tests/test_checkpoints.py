"""Checkpoints: locks, files that are damaged, foreign, newer, or on a full disk."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import small_runs
import torch
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from small_runs import contents_of, printed_by, start
from torch import nn

from assets.lib.checkpoints import Checkpoints, begin_with, check_start, load_checkpoint
from assets.lib.runs import Run

SEARCH = hypothesis.settings(
    deadline=None,
    derandomize=True,
    max_examples=20,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of 20 steps."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    start(folder)[1](2)
    return folder


@pytest.fixture
def folder(tmp_path, finished):
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "run")


def resumed(folder, **options):
    return start(folder, **options)[0].resume()


# ---------------------------------------------------------------- what is kept


@SEARCH
@given(
    settings=st.dictionaries(
        st.text(max_size=8),
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("abc/"),
        max_size=4,
    ),
    rows=st.lists(
        st.tuples(st.integers(0, 2**40), st.floats(width=32, allow_nan=False)), max_size=3
    ),
)
def test_a_checkpoint_brings_back_what_was_saved(tmp_path_factory, settings, rows):
    settings = settings | {"seed": 0}
    folder, network = tmp_path_factory.mktemp("place") / "run", nn.Linear(1, 1)
    run = Run(folder, settings, D=network)
    run.state.scores, run.state.step = rows, 7
    folder.mkdir()
    run.save()
    again = Run(folder, settings, D=network).resume()
    assert again.folder == run.folder, f"expected the same settings, got {again.settings}"
    assert again.scores == rows and again.step == 7, f"expected {rows}, got {again.scores}"


def test_numpy_numbers_do_not_make_a_checkpoint_unreadable(tmp_path):
    parts = small_runs.small_parts(averaged=False)
    parts["d_optimizer"].param_groups[0]["lr"] = np.float64(1e-3)
    parts["g_optimizer"].param_groups[0]["betas"] = (np.float32(0.5), np.float64(0.999))
    schedule = torch.optim.lr_scheduler.StepLR(parts["d_optimizer"], np.int64(5), np.float64(0.5))
    settings = {"seed": np.int64(0), "lr": np.float64(0.1), "on": np.bool_(True)}
    options = dict(parts={**parts, "d_schedule": schedule}, score=lambda _: np.float64(2.5))
    run, train = start(tmp_path / "run", settings, **options)
    run.state.warnings = [np.str_("a word")]
    train(1)
    for name in ("last.pt", "best.pt"):
        state = load_checkpoint(run.folder / name)
        assert state["scores"][0][-1] == 2.5, f"expected the score in {name}, got {state['scores']}"
        assert type(state["d_optimizer"]["param_groups"][0]["lr"]) is float, "expected a plain rate"
    again, train = start(tmp_path / "run", settings, **options)
    train(2)
    assert again.step == 20, f"expected the run to continue, got step {again.step}"


def test_a_checkpoint_of_committed_weights_loads(notebook):
    path = ROOT / "assets/weights/celeba_32.pt"
    D, G = notebook.build_network(32, 48, 100)
    begin_with(path, D, G)
    state = load_checkpoint(path)
    same = torch.equal(next(D.parameters()), next(iter(state["D"].values())))
    assert same, "expected the weights of the file"


# ---------------------------------------------------------------- damaged and foreign files


DAMAGE = {
    "a twelfth": lambda whole: whole[: len(whole) // 12],
    "half": lambda whole: whole[: len(whole) // 2],
    "nearly all": lambda whole: whole[:-1000],
    "the beginning": lambda whole: whole[:100],
    "nothing": lambda whole: b"",
    "other content": lambda whole: b"no checkpoint",
    "zeros in the middle": lambda whole: whole[:5000] + bytes(9000) + whole[14000:],
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(folder, name):
    last, previous = folder / "last.pt", folder / "previous.pt"
    previous.write_bytes(last.read_bytes())
    damaged = DAMAGE[name](last.read_bytes())
    last.write_bytes(damaged)
    run, train = start(folder)
    printed = printed_by(run.resume)
    assert run.step == 20, f"expected the checkpoint before it, got step {run.step}"
    assert "is damaged and was renamed" in printed, f"expected a line that says so, got {printed}"
    kept = (folder / "damaged.pt").read_bytes()
    assert kept == damaged, "expected the damaged file to be kept"
    train(3)
    assert load_checkpoint(last)["step"] == 30, "expected the run to be whole again"


def test_a_run_killed_between_two_renames_continues(folder):
    (folder / "last.pt").replace(folder / "previous.pt")
    run, train = start(folder)
    train(3)
    assert run.step == 30, f"expected it to continue at step 20, got {run.step}"


def test_two_damaged_checkpoints_are_left_as_they_are(folder):
    files = folder / "last.pt", folder / "previous.pt"
    for path in files:
        path.write_bytes(path.read_bytes()[:500])
    before = contents_of(folder)
    with pytest.raises(ValueError, match="is not a checkpoint of this notebook, or it is damaged"):
        resumed(folder)
    with pytest.raises(ValueError, match="is not a checkpoint of this notebook, or it is damaged"):
        start(folder)[1](3)
    assert contents_of(folder) == before, "expected all files untouched"


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("kind", ["text", "weights", "a trap"])
def test_a_foreign_checkpoint_is_refused_and_nothing_in_it_is_executed(tmp_path, kind):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text('{"seed": 0}')
    last = tmp_path / "run" / "last.pt"
    if kind == "text":
        last.write_bytes(b"no checkpoint")
    else:
        trap = {"settings": {}, "random_state": {}, "step": Trap(tmp_path / "sprung")}
        torch.save({"weights": torch.zeros(3)} if kind == "weights" else trap, last)
    before = last.read_bytes()
    with pytest.raises(ValueError, match="last.pt is not a checkpoint of this notebook"):
        resumed(tmp_path / "run")
    assert last.read_bytes() == before, "expected the file untouched"
    assert not (tmp_path / "sprung").exists(), "expected nothing in a checkpoint to be executed"


@pytest.mark.parametrize("version", ["99.0", "99.1.2+cu999", "99.0.0a0+git1234"])
def test_a_checkpoint_that_a_newer_pytorch_wrote_names_the_version(folder, version):
    path = folder / "settings.json"
    assert json.loads(path.read_text())["torch"] == torch.__version__, "expected this version"
    path.write_text(json.dumps({"seed": 0, "torch": version}))
    assert resumed(folder).step == 20, "expected a file that can be read to be read"
    (folder / "last.pt").write_bytes(b"a format of the future")
    before = contents_of(folder)
    sentence = f"PyTorch {version} wrote it, and this is the older {torch.__version__}. Update"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        resumed(folder)
    assert contents_of(folder) == before, "expected no file to be set aside"


def test_a_checkpoint_of_other_networks_changes_nothing(folder):
    wider = small_runs.small_parts(averaged=False)
    wider["G"] = small_runs.Generator(48)
    wider["g_optimizer"] = torch.optim.Adam(wider["G"].parameters())
    more = {**small_runs.small_parts(averaged=False), "other": nn.Linear(1, 1)}
    for what, parts in {"a wider G": wider, "one part more": more}.items():
        before = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
        with pytest.raises(ValueError, match="belongs to other networks.*set resume = False"):
            resumed(folder, parts=parts)
        for name, part in parts.items():
            torch.testing.assert_close(part.state_dict(), before[name], rtol=0, atol=0, msg=what)
    fewer = small_runs.small_parts(averaged=False)
    del fewer["g_optimizer"]
    assert resumed(folder, parts=fewer).step == 20, "expected a run that needs less to continue"


def test_optimizers_of_other_networks_are_refused_by_name(tmp_path):
    parts, fresh = (small_runs.small_parts(averaged=False) for _ in range(2))
    parts["D"] = fresh["D"]  # the networks were built again, the optimizers were not
    with pytest.raises(ValueError, match="d_optimizer .*Rerun the cell that makes the optimizers"):
        start(tmp_path / "run", parts=parts)
    parts["d_optimizer"] = fresh["d_optimizer"]
    start(tmp_path / "run", parts=parts)


# ---------------------------------------------------------------- beginning with another run


def test_a_run_may_begin_with_the_weights_of_another(tmp_path):
    run, train = start(tmp_path / "run", averaged=True)
    train(1)
    path, fresh = run.folder / "last.pt", small_runs.small_parts()
    before = contents_of(run.folder)
    begin_with(path, fresh["D"], fresh["G"])
    with Run(run.folder, run.settings | {"start_from": str(path)}, **fresh) as other:
        pass
    assert other.folder != run.folder, "expected a folder of its own for a run that begins so"
    assert contents_of(run.folder) == before, "expected the run that it began with kept"
    for name, expected in (("D", run.parts["D"]), ("G", run.parts["averaged"].module)):
        for key, value in expected.state_dict().items():
            same = torch.equal(fresh[name].state_dict()[key], value)
            assert same, f"expected {name}.{key} of the run, and of G the average, got another"
    state = load_checkpoint(path)
    del state["averaged"]  # as in the first part of a lesson
    torch.save(state, path)
    begin_with(path, fresh["D"], fresh["G"])
    newest, begun = run.parts["G"].state_dict(), fresh["G"].state_dict()
    assert all(torch.equal(begun[key], newest[key]) for key in newest), "expected G's own weights"
    with pytest.raises(ValueError, match="last.pt is of other networks.*start_from = None"):
        begin_with(path, fresh["D"], small_runs.Generator(48))


class Sizes:
    """As much of Settings as check_start looks at."""

    image_size, z_size, d_conv_dim, g_conv_dim = 16, 8, 4, 6


@pytest.mark.parametrize(
    "kept, path, words",
    [
        ({"z_size": 8}, "last.pt", None),
        ({}, "last.pt", None),  # of a run that did not say
        ({"d_conv_dim": 32}, "last.pt", "d_conv_dim = 32. Set d_conv_dim to that"),
        ({"image_size": 64}, "last.pt", "image_size = 64. Set image_size to that"),
        ({}, "missing.pt", "there is no such file"),
        ({}, "losses.csv", "that is not the checkpoint of a run"),
        ({}, "", "there is no such file"),
    ],
)
def test_a_start_that_does_not_fit_is_refused_by_name(tmp_path, kept, path, words):
    run, train = start(tmp_path / "run", settings={"seed": 0, **kept})
    train(1)
    if words is None:
        check_start(run.folder / path, Sizes)
    else:
        with pytest.raises(ValueError, match=f"does not work: .*{words}"):
            check_start(run.folder / path, Sizes)


# ---------------------------------------------------------------- one process at a time


HOLD = """
import sys, filelock
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_but_a_killed_one_does_not_count(folder):
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", HOLD, folder / "run.lock"], **pipes) as other:
        other.stdout.readline()
        run, train = start(folder)  # to look at it is no harm
        sentence = "Another run is using .*run. Wait until it"
        for action in (run.resume, lambda: train(3)):
            with pytest.raises(RuntimeError, match=sentence):
                action()
        other.kill()
        other.wait()
    train(3)
    assert run.step == 30, "expected the lock of a killed process not to count"


def test_a_folder_is_free_before_and_after_the_work(folder):
    first, train_first = start(folder)
    second, train_second = start(folder)
    train_first(3)
    train_second(4)
    assert (first.step, second.step) == (30, 40), f"got {first.step} and {second.step}"
    with pytest.raises(RuntimeError, match="Another run is using"):
        with first:
            train_second(5)
    train_second(5)
    assert second.step == 50, f"expected the lock to be free after the error, got {second.step}"


def test_two_notebooks_that_begin_anew_never_share_a_folder(tmp_path):
    """Both have chosen `run`, as nothing was there yet: the slower one is told."""
    first, train_first = start(tmp_path / "run", resume=False)
    second, train_second = start(tmp_path / "run", resume=False)
    assert first.folder == second.folder, "expected nothing to be created before the training"
    train_first(1)
    before = contents_of(first.folder)
    with pytest.raises(RuntimeError, match="Another run has begun in .*run. Rerun the cell"):
        train_second(1)
    assert contents_of(first.folder) == before, "expected no change"
    third, train_third = start(tmp_path / "run", resume=False)
    train_third(1)
    assert third.folder.name == "run-2", f"expected a folder of its own, got {third.folder}"
    train_first(2)
    assert first.step == 20, "expected the first to continue in its own folder"


def test_a_folder_that_a_run_of_other_settings_took_is_left_alone(tmp_path):
    slow, train_slow = start(tmp_path / "run", settings={"seed": 1})
    start(tmp_path / "run", settings={"seed": 2})[1](1)
    before = contents_of(slow.folder)
    with pytest.raises(RuntimeError, match="Another run has begun"):
        train_slow(1)
    assert contents_of(slow.folder) == before, "expected the other run as it was"
    again, train = start(tmp_path / "run", settings={"seed": 1})
    train(1)
    assert again.folder.name == "run-2", f"expected a folder of its own, got {again.folder}"


def test_a_run_that_continues_takes_what_another_process_has_trained(folder):
    here, train_here = start(folder)
    here.resume()
    start(folder)[1](4)
    train_here(5)
    rows = [row[0] for row in here.rows]
    assert here.step == 50 and rows == sorted({*rows}), f"expected each row once, got {rows}"


# ---------------------------------------------------------------- the disk


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full to stand for a full disk")
@pytest.mark.parametrize("name", ["last.pt", "losses.csv", "generator.pt2", "training.gif"])
def test_a_full_disk_is_explained_and_spares_what_is_there(tmp_path, name):
    folder = tmp_path / "run"
    start(folder, averaged=True)[1](1)
    before = contents_of(folder)
    (folder / f"{name}.new").symlink_to("/dev/full")
    run, train = start(folder, averaged=True)
    with pytest.raises(OSError, match=f"{name} cannot be written.*Make room on the disk"):
        train(2)
    load_checkpoint(folder / "last.pt")
    assert (folder / name).read_bytes() == before[name], f"expected {name} as it was"
    train(2)  # there is room again: the link is gone
    assert run.step == 20, f"expected the same run to continue, got {run.step}"
    assert load_checkpoint(folder / "last.pt")["step"] == 20, "expected it to be kept"


def test_a_folder_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    run, train = start(tmp_path / "file" / "run")
    with pytest.raises(OSError, match="cannot be written: .*choose another out_dir"):
        train(1)
    if hasattr(os, "geteuid") and os.geteuid():  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o555)
        run, train = start(tmp_path / "locked" / "run")
        with pytest.raises(OSError, match="cannot be written: Permission denied.*another out_dir"):
            train(1)


def test_checkpoints_know_nothing_of_training(tmp_path):
    content = {"settings": {}, "step": 3, "random_state": None, "anything": [1, 2]}
    checkpoints = Checkpoints(tmp_path / "run", {"seed": 0}, resume=True)
    assert checkpoints.version() is None, "expected nothing"
    with checkpoints.held():
        for step in (3, 4):
            checkpoints.write("last.pt", content | {"step": step})
    assert Checkpoints(tmp_path / "run", {"seed": 0}, True).read() == content | {"step": 4}
    previous = load_checkpoint(tmp_path / "run" / "previous.pt")
    assert previous == content, f"expected the one before, got {previous}"


def test_a_process_that_lost_its_lock_writes_nothing_more(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run", {}, resume=True)
    with checkpoints.held():
        checkpoints.write("last.pt", {"step": 1})
        before = contents_of(tmp_path / "run")
        checkpoints.lock.release(force=True)  # as after a long sleep, on a drive without locks
        with pytest.raises(RuntimeError, match="taken over .*run"):
            checkpoints.write("last.pt", {"step": 2})
        assert contents_of(tmp_path / "run") == before, "expected the files as they were"
