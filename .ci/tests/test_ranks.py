"""Several processes as one: gradients, runs, decoding, and what happens when one of them ends."""

import contextlib
import csv
import os
import re
import signal
import socket
import subprocess
import sys
import types
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import small_runs
import torch
from conftest import ROOT
from PIL import Image
from small_runs import start_small
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import helpers
from problem_unittests import read_notebook

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
ENVIRONMENT["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])


def torchrun(place, function, *args, ranks=2, restarts=0, timeout=240):
    """Run a function of this module in so many processes -> what they print, their errors."""
    code = f"import test_ranks\ntest_ranks.{function.__name__}(*{args!r})"
    options = ["--standalone", "--nproc-per-node", str(ranks), f"--max-restarts={restarts}"]
    process = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *options, "--no-python"]
        + [sys.executable, "-c", code],
        cwd=place,
        timeout=timeout,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=os.environ | ENVIRONMENT,
    )
    pattern = r"(\[rank\d\]: ?)?\w*(Error|Interrupt)\b"
    errors = [line for line in process.stderr.splitlines() if re.match(pattern, line)]
    unnamed = process.stderr[-2000:] if process.returncode else ""
    return process.stdout, errors or unnamed


def all_by_two():
    """One after the other, because starting two processes takes long."""
    for function in (step_by_two, decode_by_two, refused_by_two, stopped_by_two):
        function()
        print("passed", function.__name__)


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
    """A function that tells whether two ranks came through a function of this module."""
    place = tmp_path_factory.mktemp("ranks")
    (place / "photos").mkdir()
    for i in range(22):
        noise = np.random.default_rng(i).integers(0, 256, (6, 5, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize((24, 28), Image.BICUBIC)
        picture.save(place / "photos" / f"{i:03}.png")
    (place / "photos" / "017.png").write_bytes(b"no picture")
    printed, errors = torchrun(place, all_by_two)

    def check(function):
        passed = f"passed {function.__name__}\n" in printed
        assert passed, f"expected {function.__name__} to end well, got {errors}"

    return check


# ---------------------------------------------------------------- gradients


def order_of(loader):
    """The order in which a loader's sampler gives its rows, always the same."""
    loader.sampler.generator = torch.Generator().manual_seed(5)
    return loader.sampler


def step_by_two():
    """One step of two ranks, and of one process on the whole batch: their gradients and rows."""
    rank, ranks = helpers.world()
    notebook = read_notebook()
    torch.manual_seed(0)
    images = torch.rand(24, 3, 16, 16, dtype=torch.double) * 2 - 1
    faces = TensorDataset(images, torch.arange(24))
    loader = DataLoader(faces, 8, shuffle=True, drop_last=True)
    whole = list(DataLoader(faces, 8, sampler=list(order_of(loader)), drop_last=True))
    order_of(loader)
    own = list(helpers.share_of(loader))
    assert ranks == 2 and len(own) == len(whole) == 3, f"expected 3 batches each, got {len(own)}"
    for (_, rows), (_, all_rows) in zip(own, whole):
        half = set(all_rows.tolist()[rank::2])
        assert set(rows.tolist()) == half, f"rank {rank}: expected the half {half}, got {rows}"

    generators = [torch.Generator().manual_seed(k) for k in range(2)]
    latents = [torch.randn(4, 8, dtype=torch.double, generator=one) for one in generators]
    both = torch.cat([torch.arange(8)[k::2] for k in range(2)])  # ranks' rows, one after the other
    half, total = (whole[0][0][rank::2], latents[rank]), (whole[0][0][both], torch.cat(latents))
    for what, step in steps_of(notebook).items():
        gradients = []
        for (real, z), together in ((half, True), (total, False)):
            torch.manual_seed(0 if rank == 0 or not together else 1)  # rank 0's weights count
            gradients.append([weight.grad for weight in step(real, z, together)])
        for two, one in zip(*gradients, strict=True):
            assert one.abs().max() > 0, f"{what}: expected gradients, got zeros"
            same = torch.allclose(two, one, rtol=1e-6, atol=1e-12)
            assert same, f"{what}: expected the whole batch's gradients, got {two - one} more"


def steps_of(notebook):
    """Functions (real, latents, together) that make a step and return the weights, by name."""

    def gan(step, real, latents, together):
        networks = notebook.build_network(4, 4, 8, 16)
        for network in networks:
            notebook.exchange_norm(network, None).double()
        optimizers = [torch.optim.SGD(network.parameters(), lr=10.0) for network in networks]
        averaging = helpers.averaged_gradients(networks, optimizers)
        with averaging if together else contextlib.nullcontext():
            with mock.patch.object(torch, "randn", lambda *_, **__: latents):
                step(*networks, real, *optimizers)
        return [weight for network in networks for weight in network.parameters()]

    def penalized(*args):
        def penalties(D, real, fake):
            return notebook.penalty(D, real, fake, r1=0.5, r2=0.5)

        return notebook.step_with(penalties=penalties)(*args, run=helpers.Run())

    def ahead(D, *args):
        run = types.SimpleNamespace(step=16, losses=[(-1e6, 2.0)])  # R1 is long
        losses = notebook.regularised_step(D, *args, run=run)
        for name, weight in D.named_parameters():
            if name.endswith("bias"):
                weight.grad = torch.ones_like(weight)  # R1 says nothing: D is piecewise linear
        return losses

    def cyclegan(real, _, together):
        class Pool:
            def exchange(self, images):
                return images

        kinds = notebook.ImageToImageGenerator, notebook.PatchDiscriminator
        pairs = [nn.ModuleList([kind(4, 16), kind(4, 16)]).double() for kind in kinds]
        optimizers = [torch.optim.SGD(pair.parameters(), lr=0.1) for pair in pairs]
        averaging = helpers.averaged_gradients(pairs, optimizers)
        with averaging if together else contextlib.nullcontext():
            notebook.cyclegan_step(*pairs, [Pool(), Pool()], real, real.flip(-1), *optimizers)
        return [weight for pair in pairs for weight in pair.parameters()]

    return {
        "the lesson's step": lambda *args: gan(notebook.train_step, *args),
        "R1 and R2": lambda *args: gan(penalized, *args),
        "R1, clipped": lambda *args: gan(ahead, *args),
        "CycleGAN": cyclegan,
    }


def test_two_ranks_have_the_gradients_of_one_on_the_whole_batch(by_two):
    by_two(step_by_two)


# ---------------------------------------------------------------- runs


def train_by_two(folder, n_epochs, dies_at=None):
    """Train a small run, in which rank 1 dies at a step of its first life."""
    notebook = read_notebook()
    parts = small_runs.small_parts(notebook)
    run, train = start_small(notebook, folder, parts=parts, score=lambda generator: 1.0)
    rank, _ = helpers.world()
    log = run.log

    def log_and_die(*args):
        log(*args)
        if rank == 0 and run.step % 4 == 0:
            run.recorder.save()
        is_first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if rank == 1 and run.step == dies_at and is_first:
            os.kill(os.getpid(), signal.SIGKILL)

    run.log = log_and_die
    losses = train(n_epochs, schedule="linear")
    for name, network in run.networks.items():
        for weight in network.parameters():
            same = torch.equal(weight, helpers.from_rank_0(weight))
            assert same, f"rank {rank}: expected rank 0's weights of {name}, got others"
    own = [run.step, run.images, run.seconds, run.scores, run.progress, losses, run.rows]
    other = helpers.from_rank_0(own)
    assert own == other, f"rank {rank}: expected {other}, got {own}"
    rates = [group["lr"] for one in run.optimizers.values() for group in one.param_groups]
    assert rates == helpers.from_rank_0(rates), f"rank {rank}: expected one rate, got {rates}"
    assert (run.folder / "generator.pt2").exists(), f"rank {rank}: expected to wait for it"


def test_two_ranks_leave_one_run_that_any_number_goes_on_with(tmp_path, notebook, capsys):
    folder = tmp_path / "run"
    for ranks, n_epochs in ((2, 2), (1, 3), (2, 4)):
        if ranks == 2:
            printed, errors = torchrun(tmp_path, train_by_two, str(folder), n_epochs)
            assert not errors, f"expected both ranks to end well, got {errors}"
        else:
            start_small(notebook, folder, score=lambda generator: 1.0)[1](n_epochs)
            printed = capsys.readouterr().out
        goes_on = "Going on with the run" in printed
        assert goes_on == (n_epochs > 2), f"expected it to say whether it goes on, got {printed}"
        state = helpers.load_checkpoint(folder / "last.pt")
        counts = state["step"], state["images"]
        assert counts == (10 * n_epochs, 40 * n_epochs), f"expected each face once, got {counts}"
    folders = [path.name for path in tmp_path.glob("run*")]
    assert folders == ["run"], f"expected one folder, got {folders}"
    rows = list(csv.DictReader(open(folder / "losses.csv", encoding="utf-8")))
    steps = [int(row["step"]) for row in rows]
    expected = [4, 8, 12, 16, 20, 24, 28, 30, 32, 36, 40]  # every 4, and at the end of each run
    assert steps == expected, f"expected {expected}, got {steps}"
    names = {path.name for path in folder.rglob("*.*")}
    promised = {"generator.pt2", "training.gif", "step_0000000.png", "step_0000040.png"}
    assert promised <= names, f"expected a whole run, missing {promised - names}"


def test_ranks_that_are_left_end_too_and_a_restart_goes_on(tmp_path):
    folder = tmp_path / "run"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    place |= ENVIRONMENT | {"WORLD_SIZE": "2"}
    code = f"import test_ranks\ntest_ranks.train_by_two({str(folder)!r}, 10**6, 30)"
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    printed = ranks[0].communicate(timeout=240)[0]
    ended = ranks[1].wait(timeout=60)
    assert ended == -signal.SIGKILL, f"expected rank 1 to be killed, got {ended}"
    last = printed.splitlines()[-1]
    assert ranks[0].returncode == 1, f"expected rank 0 to end, too, got {ranks[0].returncode}"
    assert "ConnectionError: Another rank has ended" in last, f"expected a sentence, got {last}"
    reached = helpers.load_checkpoint(folder / "last.pt")["step"]
    assert 24 <= reached <= 30, f"expected the last checkpoint to stand, got step {reached}"

    printed, _ = torchrun(tmp_path, train_by_two, str(folder), 6, 46, restarts=1)
    lives = printed.count("Going on with the run")
    assert lives == 2, f"expected two lives, got {printed}"
    step = helpers.load_checkpoint(folder / "last.pt")["step"]
    assert step == 60, f"expected the restarted ranks to come to the end, got step {step}"


def stopped_by_two(folder="run"):
    """Rank 0's stop button ends all ranks; a loss of rank 1 that is no number ends all, too."""
    rank, _ = helpers.world()
    notebook = read_notebook()
    run, train = start_small(notebook, folder)
    log = run.log

    def pressed(*args):
        if rank == 0 and run.step == 5:
            signal.raise_signal(signal.SIGINT)
        log(*args)

    run.log = pressed
    train(10**6)
    assert run.step == 6 and run.stopped, f"rank {rank}: expected step 6, got {run.step}"

    again, train = start_small(notebook, folder)
    log = again.log

    def diverges(d_loss, *args):
        is_time = rank == 1 and again.step == 9
        log(d_loss * float("nan") if is_time else d_loss, *args)

    again.log = diverges
    try:
        train(10**6)
    except FloatingPointError as error:
        assert "d_loss is no finite number at step 10" in str(error), f"got {error}"
        helpers.from_rank_0()
    else:
        raise AssertionError(f"rank {rank}: expected an error, got none")


def test_one_rank_that_stops_or_diverges_ends_all(by_two):
    by_two(stopped_by_two)


# ---------------------------------------------------------------- data


def decode_by_two(folder="photos"):
    """Two ranks decode a folder together, and read it as one process does by itself."""
    notebook, (rank, _) = read_notebook(), helpers.world()
    faces = notebook.get_dataloader(4, 16, folder).dataset
    with helpers.single_process():
        again = notebook.get_dataloader(4, 16, folder).dataset
        shared, helpers.CACHE = helpers.CACHE, Path(f"own_{rank}")
        whole = notebook.get_dataloader(4, 16, folder).dataset
        helpers.CACHE = shared
    copies = len(list(shared.glob("decoded_*")))
    assert copies == 1, f"rank {rank}: expected one copy for both, got {copies}"
    assert again.names == faces.names == whole.names, f"expected the same files, got {faces.names}"
    assert len(faces) == 21, f"rank {rank}: expected the 21 that can be read, got {len(faces)}"
    rows = [20, 0, 11, 10, 9, 0]
    expected = whole.batch(rows)[0]
    for one in (faces, again):
        same = torch.equal(one.batch(rows)[0], expected)
        assert same, f"rank {rank}: expected the pixels that one process decodes, got others"
        assert torch.equal(one.images, whole.images), f"rank {rank}: expected all of them in order"


def test_ranks_decode_a_share_each(by_two):
    by_two(decode_by_two)


def refused_by_two():
    """What does not go with two ranks."""
    for n in 5, 10:  # an odd number; more than there are, of which no epoch has a batch
        with pytest.raises(ValueError, match=f"batch_size or domain_batch = {n} "):
            helpers.share_of(DataLoader(TensorDataset(torch.rand(9, 1)), n))
    with pytest.raises(ValueError, match="run"):
        with helpers.Run():
            pass


def test_ranks_refuse_what_does_not_work(by_two):
    by_two(refused_by_two)
