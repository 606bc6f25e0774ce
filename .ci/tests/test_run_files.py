"""What a run leaves in its folder: promised files, missing ones, outdated ones, the best one."""

import copy
import csv
import os
import time

import pytest
import small_runs
import torch
from small_runs import contents_of, printed_by, start

from assets.lib import run_files
from assets.lib.checkpoints import load_checkpoint
from assets.lib.export import load_generator


@pytest.fixture
def trained(tmp_path):
    """A run of 10 steps with an average and a score."""
    run, train = start(tmp_path / "run", averaged=True, score=lambda generator: 1.0)
    train(1)
    return run


def again(run, score=1.0):
    return start(run.folder, averaged=True, score=lambda generator: score)


def test_a_run_leaves_what_it_promises(tmp_path):
    run, train = start(tmp_path / "run", averaged=True)
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
    header = (run.folder / "scores.csv").read_text()
    assert header == "step,images,seconds,score\n", f"expected no score, got {header}"
    state = load_checkpoint(run.folder / "last.pt")
    assert {"settings", "D", "averaged", "d_optimizer", "random_state", "step"} <= state.keys(), (
        f"expected settings, parts, random state and counters, got {list(state)}"
    )
    faces = load_generator(run.folder / "generator.pt2")(torch.randn(3, small_runs.Z_SIZE))
    assert faces.shape == (3, 3, 16, 16), f"expected faces, got {tuple(faces.shape)}"


def test_a_run_without_sample_keeps_no_pictures_and_no_generator(tmp_path):
    run, train = start(tmp_path / "run", averaged=True, sample=None, score=lambda generator: 1.0)
    train(1)
    names = sorted(path.name for path in run.folder.rglob("*.*"))
    expected = ["best.pt", "last.pt", "losses.csv", "previous.pt", "run.lock", "scores.csv"]
    assert names == [*expected, "settings.json"], f"expected no pictures, got {names}"


def test_a_run_without_a_folder_only_counts(empty_place):
    run, train = start()
    printed = printed_by(train, 2)
    assert (run.step, run.images, run.epoch) == (20, 80, 2), f"expected 20 steps, got {run.step}"
    assert not printed and not list(empty_place.iterdir()), f"expected nothing, got {printed}"
    assert len(run.losses) == 5, f"expected a row every 4 steps, got {run.losses}"


def test_averaging_may_begin_later(tmp_path):
    parts = small_runs.small_parts()
    averaged = parts.pop("averaged")
    run, train = start(tmp_path / "run", parts=parts)
    train(1)
    assert not (run.folder / "generator.pt2").exists(), "expected no generator without an average"
    later, train = start(tmp_path / "run", parts={**parts, "averaged": averaged})
    train(2)
    assert later.step == 20 and later.folder == run.folder, f"expected the same run, got {later}"
    assert (run.folder / "generator.pt2").exists(), "expected the averaged generator"
    before = contents_of(run.folder)
    start(tmp_path / "run")[1](2)
    assert contents_of(run.folder) == before, (
        "expected a finished run, opened without its average, to stay as it is"
    )


# ---------------------------------------------------------------- missing and outdated files


def test_a_finished_run_is_left_as_it_is(trained):
    before = {path.name: path.stat().st_mtime_ns for path in trained.folder.rglob("*.*")}
    again(trained)[0].resume()
    printed = printed_by(again(trained)[1], 1)
    assert "is finished: 10 steps, 40 images, 0.0 minutes" in printed, f"got {printed}"
    assert "To train longer, raise n_epochs." in printed, f"expected what to do, got {printed}"
    assert "Continuing" not in printed and "100%" in printed, f"expected 100%, got {printed}"
    after = {path.name: path.stat().st_mtime_ns for path in trained.folder.rglob("*.*")}
    assert after == before, "expected every file as it was"


MADE = ["losses.csv", "scores.csv", "training.gif", "generator.pt2", "best.pt"]


@pytest.mark.parametrize("name", MADE)
def test_a_file_that_was_deleted_comes_back_when_the_run_is_opened(trained, name):
    path = trained.folder / name
    before = path.read_bytes()
    path.unlink()
    run = again(trained)[0].resume()
    assert run.step == 10 and path.exists(), f"expected {name}, and no step"
    if name.endswith(".csv"):
        assert path.read_bytes() == before, f"expected the same {name}"
    path.unlink()
    again(trained)[1](1)
    assert path.exists(), f"expected {name} of a finished run that is run again"


def test_samples_that_were_deleted_come_back_as_the_newest_grid(trained):
    newest = (trained.folder / "samples" / "step_0000010.png").read_bytes()
    for path in [*(trained.folder / "samples").iterdir(), trained.folder / "training.gif"]:
        path.unlink()
    (trained.folder / "samples").rmdir()
    again(trained)[0].resume()
    names = sorted(path.name for path in (trained.folder / "samples").iterdir())
    assert names == ["step_0000010.png"], f"expected the newest grid, got {names}"
    assert (trained.folder / "samples" / names[0]).read_bytes() == newest, "expected the same faces"
    assert (trained.folder / "training.gif").exists(), "expected an animation"


def test_all_files_but_the_checkpoint_may_be_deleted(trained):
    for path in trained.folder.rglob("*.*"):
        if path.name not in ("last.pt", "settings.json"):
            path.unlink()
    run, train = again(trained)
    train(2)
    names = {path.name for path in run.folder.glob("*.*")}
    assert {*MADE, "previous.pt"} <= names, f"expected all files, got {names}"
    rows = small_runs.read_table(run.folder / "losses.csv")
    steps = [row["step"] for row in rows]
    assert steps == [4, 8, 10, 12, 16, 20], f"expected the first rows as well, got {steps}"


@pytest.mark.parametrize("offset", [-86_400, 0, 86_400], ids=["set back", "right", "set forward"])
def test_generator_and_animation_are_the_newest_whatever_the_clock_says(trained, offset):
    """A clock that was set back makes old files look newer than the checkpoint."""
    for name in ("generator.pt2", "training.gif"):
        moment = time.time() - offset
        os.utime(trained.folder / name, (moment, moment))
    run, train = again(trained, score=0.5)
    save = run.files.checkpoints.write

    def write_at_another_time(name, content):
        save(name, content)
        moment = time.time() + offset
        os.utime(run.folder / name, (moment, moment))

    run.files.checkpoints.write = write_at_another_time
    before = contents_of(run.folder)
    train(2)
    after = contents_of(run.folder)
    for name in ("generator.pt2", "training.gif"):
        assert after[name] != before[name], f"expected {name} to be made anew"


def test_a_run_that_was_killed_before_its_export_gets_one(trained):
    run, train = again(trained, score=0.5)
    run.complete_files = lambda *_, **__: None  # as if it was killed before
    train(2)
    old = (run.folder / "generator.pt2").read_bytes()
    again(trained)[1](2)
    new = (run.folder / "generator.pt2").read_bytes()
    assert new != old, "expected the generator of step 20"


@pytest.mark.parametrize(
    "content", [b"", b"an archive of the future", None], ids=["empty", "unknown", "cut"]
)
def test_a_generator_that_this_pytorch_cannot_open_is_made_anew(trained, content):
    path, stat = trained.folder / "generator.pt2", (trained.folder / "generator.pt2").stat()
    whole = path.read_bytes()
    path.write_bytes(whole[:500] if content is None else content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again(trained)[1](1)
    faces = load_generator(path)(torch.randn(2, small_runs.Z_SIZE))
    assert faces.shape == (2, 3, 16, 16), f"expected faces, got {tuple(faces.shape)}"


def test_whatever_torch_raises_makes_a_generator_unusable(tmp_path, monkeypatch):
    for error in (KeyError("format"), RuntimeError("version"), OSError("zip"), TypeError()):

        def load(path, error=error):
            raise error

        monkeypatch.setattr(torch.export, "load", load)
        assert not run_files.opens(tmp_path / "generator.pt2"), f"expected no use after {error!r}"


# ---------------------------------------------------------------- the best checkpoint


def test_a_network_is_given_as_it_was_at_the_best_score(trained):
    with torch.no_grad():
        for weight in trained.parts["D"].parameters():
            weight += 1
    best, now = trained.at_best("D"), trained.parts["D"]
    kept = load_checkpoint(trained.folder / "best.pt")["D"]
    is_best = all(kept[name].equal(x) for name, x in best.state_dict().items())
    assert is_best and best is not now, "expected a copy with the weights of best.pt"
    assert not any(kept[name].equal(x) for name, x in now.named_parameters()), "expected now's"


@pytest.mark.parametrize("what", ["missing", "damaged", "empty", "of other networks", "of less"])
def test_without_the_best_checkpoint_the_newest_weights_are_used(trained, what):
    path = trained.folder / "best.pt"
    state = load_checkpoint(path)
    if what == "missing":
        path.unlink()
    elif what == "damaged":
        path.write_bytes(path.read_bytes()[:1000])
    elif what == "empty":
        path.write_bytes(b"")
    else:
        D = small_runs.Discriminator()
        D.layers[3] = torch.nn.Linear(128, 1)  # the layers before it fit
        state |= {"D": D.state_dict()}
        if what == "of less":
            del state["D"]
        torch.save(state, path)
    now = copy.deepcopy(trained.parts["D"].state_dict())
    found = []
    printed = printed_by(lambda: found.append(trained.at_best("D").state_dict()))
    expected = "best.pt is missing, damaged, or from other networks: using the current D."
    assert expected in printed, f"expected a sentence, got {printed}"
    same = all(now[name].equal(x) for name, x in found[0].items())
    assert same, "expected the newest weights, and none of the file's"


def test_best_is_written_anew_if_the_process_was_killed_before_it(trained):
    path = trained.folder / "best.pt"
    older = load_checkpoint(path) | {"step": 4}
    for left in ("missing", "of an older step"):
        path.unlink() if left == "missing" else torch.save(older, path)
        again(trained)[0].resume()
        step = load_checkpoint(path)["step"]
        assert step == 10, f"{left}: expected best.pt to be made of last.pt, got step {step}"


def test_the_best_generator_is_exported(tmp_path, monkeypatch):
    values, seen = iter([3.0, 1.0, 2.0]), []

    def score(generator):
        assert not generator.training, "expected a generator in eval mode"
        seen.append(copy.deepcopy(generator))
        return next(values)

    run, train = start(tmp_path / "run", averaged=True, score=score)
    for n_epochs in (1, 2, 3):
        train(n_epochs)  # each ends with a score
    rows = small_runs.read_table(run.folder / "scores.csv")
    found = [(row["step"], row["score"]) for row in rows]
    assert found == [(10, 3), (20, 1), (30, 2)], f"expected three scores, got {found}"
    best = load_checkpoint(run.folder / "best.pt")
    assert best["step"] == 20, f"expected step 20 in best.pt, got {best['step']}"
    z = torch.randn(5, small_runs.Z_SIZE)
    faces = load_generator(run.folder / "generator.pt2")(z)
    near, far = ((faces - network(z)).abs().mean() for network in (seen[1], seen[-1]))
    assert near < 1e-4 < far, f"expected the best generator's faces, got {near} and {far} off"


def test_a_run_that_ended_without_a_score_gets_one(tmp_path):
    start(tmp_path / "run")[1](1)
    run, train = start(tmp_path / "run", score=lambda generator: 2.5)
    train(1)
    assert run.step == 10 and len(run.scores) == 1, f"got step {run.step}, scores {run.scores}"
    assert (run.folder / "best.pt").exists(), "expected a best.pt"
