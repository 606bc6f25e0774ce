"""Several processes as one: gradients, shares of a batch, runs, and what ends them."""

import contextlib
import functools
import os
import re
import signal
import socket
import subprocess
import sys
import types
from pathlib import Path
from unittest import mock

import pytest
import small_runs
import torch
import torch.distributed as dist
from conftest import ROOT
from small_runs import start
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import helpers
from assets.lib import ranks
from assets.lib.checkpoints import load_checkpoint
from assets.lib.ranks import averaged_gradients
from problem_unittests import read_notebook

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
ENVIRONMENT["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])


def torchrun(place, function, *args, restarts=0, timeout=240):
    """Run a function of this module in two processes -> what they print, their errors."""
    code = f"import test_ranks\ntest_ranks.{function.__name__}(*{args!r})"
    options = ["--standalone", "--nproc-per-node", "2", f"--max-restarts={restarts}"]
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
    for function in (step_by_two, shared_by_two, stopped_by_two, counted_by_two):
        function()
        print("passed", function.__name__)


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
    """A function that tells whether two ranks came through a function of this module."""
    place = tmp_path_factory.mktemp("ranks")
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

    def penalized(*args):
        def penalties(D, real, fake):
            return notebook.penalty(D, real, fake, r1=0.5, r2=0.5)

        return notebook.step_with(penalties=penalties)(*args, run=helpers.Run())

    def ahead(D, *args):
        run = types.SimpleNamespace(step=16, recent_d_loss=-1e6)  # R1 is long
        losses = notebook.regularized_step(D, *args, run=run)
        for name, weight in D.named_parameters():
            if name.endswith("bias"):
                weight.grad = torch.ones_like(weight)  # R1 says nothing: D is piecewise linear
        return losses

    return {
        "the lesson's step": functools.partial(weights_of_gan, notebook, notebook.train_step),
        "R1 and R2": functools.partial(weights_of_gan, notebook, penalized),
        "R1, clipped": functools.partial(weights_of_gan, notebook, ahead),
        "CycleGAN": functools.partial(weights_of_cyclegan, notebook),
    }


def weights_of_gan(notebook, step, real, latents, together):
    """The weights of D and G after a step, with their gradients."""
    networks = notebook.build_network(4, 4, 8, 16)
    for network in networks:
        notebook.exchange_norm(network, None).double()
    optimizers = [torch.optim.SGD(network.parameters(), lr=10.0) for network in networks]
    averaging = averaged_gradients(networks, optimizers)
    with averaging if together else contextlib.nullcontext():
        with mock.patch.object(torch, "randn", lambda *_, **__: latents):
            step(*networks, real, *optimizers)
    return [weight for network in networks for weight in network.parameters()]


def weights_of_cyclegan(notebook, real, latents, together):
    """The weights of two generators and two discriminators after a step, with their gradients."""
    pools = [types.SimpleNamespace(exchange=lambda images: images)] * 2
    kinds = notebook.ImageToImageGenerator, notebook.PatchDiscriminator
    pairs = [nn.ModuleList([kind(4, 16), kind(4, 16)]).double() for kind in kinds]
    optimizers = [torch.optim.SGD(pair.parameters(), lr=0.1) for pair in pairs]
    averaging = averaged_gradients(pairs, optimizers)
    with averaging if together else contextlib.nullcontext():
        notebook.cyclegan_step(*pairs, pools, real, real.flip(-1), *optimizers)
    return [weight for pair in pairs for weight in pair.parameters()]


def test_two_ranks_have_the_gradients_of_one_on_the_whole_batch(by_two):
    by_two(step_by_two)


# ---------------------------------------------------------------- shares of a batch


def loader_of(n_images, batch_size):
    faces = TensorDataset(torch.arange(n_images))
    return DataLoader(faces, batch_size, shuffle=True, drop_last=True)


def shared_by_two():
    """Both ranks have their halves of a batch, and are refused one larger than the data."""
    rank, _ = helpers.world()
    with pytest.raises(ValueError, match="batch_size or domain_batch = 10 "):
        helpers.share_of(loader_of(9, 10))
    for n, expected in ((5, 2), (1, 1)):
        sizes = {len(batch) for (batch,) in helpers.share_of(loader_of(9, n))}
        assert sizes == {expected}, f"rank {rank}: expected {expected} each of {n}, got {sizes}"
    with pytest.raises(ValueError, match="needs a Run"):
        with helpers.Run():
            pass


def test_two_ranks_share_what_can_be_shared(by_two):
    by_two(shared_by_two)


# ---------------------------------------------------------------- runs


def train_by_two(folder, n_epochs, dies_at=None):
    """Train a small run, in which rank 1 dies at a step of its first life."""
    run, train = start(folder, averaged=True, score=lambda generator: 1.0)
    rank, _ = helpers.world()
    log = run.log

    def log_and_die(*args):
        log(*args)
        if run.step % 4 == 0:
            run.save()
        is_first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if rank == 1 and run.step == dies_at and is_first:
            os.kill(os.getpid(), signal.SIGKILL)

    run.log = log_and_die
    losses = train(n_epochs)
    for name, network in run.networks.items():
        for weight in network.parameters():
            same = torch.equal(weight, ranks.from_rank_0(weight))
            assert same, f"rank {rank}: expected rank 0's weights of {name}, got others"
    own = [run.step, run.images, run.seconds, run.state.other_seconds, run.scores, run.progress]
    own += [losses, run.rows, run.recent_d_loss, run.best]
    other = ranks.from_rank_0(own)
    assert own == other, f"rank {rank}: expected {other}, got {own}"
    assert (run.folder / "generator.pt2").exists(), f"rank {rank}: expected to wait for it"


def test_two_ranks_leave_one_run_that_any_number_continues(tmp_path, capsys):
    folder = tmp_path / "run"
    for n_ranks, n_epochs in ((2, 2), (1, 3), (2, 6)):
        if n_ranks == 2:
            printed, errors = torchrun(tmp_path, train_by_two, str(folder), n_epochs)
            assert not errors, f"expected both ranks to end well, got {errors}"
        else:
            start(folder, averaged=True, score=lambda generator: 1.0)[1](n_epochs)
            printed = capsys.readouterr().out
        continues = "Continuing the run" in printed
        assert continues == (n_epochs > 2), f"expected it to say if it continues, got {printed}"
        state = load_checkpoint(folder / "last.pt")
        counts = state["step"], state["images"]
        assert counts == (10 * n_epochs, 40 * n_epochs), f"expected each face once, got {counts}"
    folders = [path.name for path in tmp_path.glob("run*")]
    assert folders == ["run"], f"expected one folder, got {folders}"
    rows = small_runs.read_table(folder / "losses.csv")
    steps = [row["step"] for row in rows]
    expected = [4, 8, 12, 16, 20, 24, 28, 30, 32, *range(36, 61, 4)]  # and at the end of each run
    assert steps == expected, f"expected {expected}, got {steps}"
    names = {path.name for path in folder.rglob("*.*")}
    promised = {"generator.pt2", "training.gif", "step_0000000.png", "step_0000060.png"}
    assert promised <= names, f"expected a whole run, missing {promised - names}"


def test_ranks_that_are_left_end_too_and_a_restart_continues(tmp_path):
    folder = tmp_path / "run"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    place |= ENVIRONMENT | {"WORLD_SIZE": "2"}
    code = f"import test_ranks\ntest_ranks.train_by_two({str(folder)!r}, 10**6, 30)"
    both = [
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
    printed = both[0].communicate(timeout=240)[0]
    ended = both[1].wait(timeout=60)
    assert ended == -signal.SIGKILL, f"expected rank 1 to be killed, got {ended}"
    last = printed.splitlines()[-1]
    assert both[0].returncode == 1, f"expected rank 0 to end, too, got {both[0].returncode}"
    assert "ConnectionError: Another rank has ended" in last, f"expected a sentence, got {last}"
    reached = load_checkpoint(folder / "last.pt")["step"]
    assert 24 <= reached <= 30, f"expected the last checkpoint to stand, got step {reached}"

    printed, _ = torchrun(tmp_path, train_by_two, str(folder), 6, 46, restarts=1)
    lives = printed.count("Continuing the run")
    assert lives == 2, f"expected two lives, got {printed}"
    step = load_checkpoint(folder / "last.pt")["step"]
    assert step == 60, f"expected the restarted ranks to reach the end, got step {step}"


def stopped_by_two(folder="run"):
    """Rank 0's stop button ends all ranks; a loss of rank 1 that is no number ends all, too."""
    rank, _ = helpers.world()
    run, train = start(folder)
    log = run.log

    def pressed(*args):
        if rank == 0 and run.step == 5:
            signal.raise_signal(signal.SIGINT)
        log(*args)

    run.log = pressed
    train(10**6)
    assert run.step == 6 and run.stopped, f"rank {rank}: expected step 6, got {run.step}"

    again, train = start(folder)
    log = again.log

    def diverges(d_loss, *args):
        is_time = rank == 1 and again.step == 9
        log(d_loss * float("nan") if is_time else d_loss, *args)

    again.log = diverges
    try:
        train(10**6)
    except FloatingPointError as error:
        assert "d_loss is not finite at step 10" in str(error), f"got {error}"
        ranks.from_rank_0()
    else:
        raise AssertionError(f"rank {rank}: expected an error, got none")


def test_one_rank_that_stops_or_diverges_ends_all(by_two):
    by_two(stopped_by_two)


def counted_by_two():
    """A step exchanges gradients and one small tensor, and pickles nothing."""
    rank, _ = helpers.world()
    run, train = start()
    sent = []
    log = run.log
    steps = mock.patch.multiple(
        dist,
        broadcast=noted(sent, "broadcast", dist.broadcast),
        broadcast_object_list=noted(sent, "pickled", dist.broadcast_object_list),
        all_reduce=noted(sent, "all_reduce", dist.all_reduce),
    )

    def counted(*args):
        log(*args)
        if run.step in (1, 9):
            sent.clear()

    run.log = counted
    with steps, run:
        for epoch in run.epochs(1):
            for images, _ in run.watch(small_runs.noise_loader(80, 8), epoch):
                parts = [run.parts[name] for name in ("D", "G", "d_optimizer", "g_optimizer")]
                losses = small_runs.small_step(*parts[:2], images, *parts[2:])
                if run.step == 8:
                    found = [*sent]
                run.log(*losses, len(images), 50)
    names = [name for name, _ in found]
    assert "pickled" not in names, f"rank {rank}: expected nothing to be pickled, got {names}"
    sizes = [size for name, size in found if name == "broadcast"]
    assert len(sizes) == 7 and max(sizes) <= 8, f"rank {rank}: expected a few numbers, got {sizes}"
    averaged = names.count("all_reduce")
    assert averaged == 2 * 8, f"rank {rank}: expected the gradients of D and G, got {averaged}"


def noted(sent, name, function):
    """The function, which notes that it was called, and how many numbers it got."""

    def call(value, *args, **options):
        sent.append((name, value.numel() if torch.is_tensor(value) else None))
        return function(value, *args, **options)

    return call


def test_a_step_pickles_nothing(by_two):
    by_two(counted_by_two)
