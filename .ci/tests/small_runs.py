"""Runs for the tests: tiny networks on noise, always from the same seed, and a clock to set."""

import contextlib
import copy
import io
import types

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

import helpers

Z_SIZE = 8
LATENTS = torch.randn(4, Z_SIZE, generator=torch.Generator().manual_seed(2))


def noise_loader(n=40, batch_size=4, flip=True):
    """A loader of n noisy 16 x 16 images, always the same ones."""
    images = torch.randint(256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(1)).byte()
    faces = helpers.DecodedFaces(images, torch.zeros(n, dtype=torch.int64), ["noise"], flip)
    return DataLoader(faces, batch_size, shuffle=True, collate_fn=helpers.as_batch)


def small_parts(notebook):
    """D, G, averaged and the two optimizers, by name."""
    torch.manual_seed(0)
    D, G = notebook.build_network(4, 4, Z_SIZE, 16)
    optimizers = [torch.optim.Adam(network.parameters(), 1e-3, fused=True) for network in (D, G)]
    averaged = AveragedModel(G)
    return dict(D=D, G=G, averaged=averaged, d_optimizer=optimizers[0], g_optimizer=optimizers[1])


def sample_four(generator):
    return generator(LATENTS)


def start_small(notebook, folder, settings=None, n=40, parts=None, **kwargs):
    """A run of 10 steps an epoch, and train(n_epochs), which prints every 4 steps."""
    parts = parts or small_parts(notebook)
    kwargs.setdefault("sample", sample_four)
    run = helpers.Run(folder, settings or {"seed": 0}, **kwargs, **parts)
    loader = noise_loader(n)

    def train(n_epochs, train=None, **more):
        train = train or notebook.train
        networks = parts["D"], parts["G"], loader, parts["d_optimizer"], parts["g_optimizer"]
        return train(*networks, n_epochs, 4, parts.get("averaged"), run, **more)

    return run, train


def weights_of(run):
    """The weights of a run's networks, without batch-norm statistics, by name."""
    weights = {}
    for name, network in run.networks.items():
        for key, value in network.named_parameters():
            weights[f"{name}.{key}"] = value.detach()
    return weights


def assert_same_bits(one, other):
    assert one.step == other.step, f"expected {one.step} steps, got {other.step}"
    others = weights_of(other)
    for key, value in weights_of(one).items():
        assert torch.equal(value, others[key]), f"{key}: expected the same bits, got others"
    assert one.losses[-1] == other.losses[-1], f"expected {one.losses[-1]}, got {other.losses[-1]}"


class Clock:
    """Stands for `helpers.time`: every step of a run takes `step` seconds, a look what it adds."""

    def __init__(self, monkeypatch, run=None, step=1.0):
        self.now = 0.0
        monkeypatch.setattr(helpers, "time", types.SimpleNamespace(perf_counter=lambda: self.now))
        if run is not None:
            self.drive(run, step)

    def drive(self, run, step):
        log = run.log

        def timed(*args):
            self.now += step
            log(*args)

        run.log = timed

    def add(self, seconds):
        self.now += seconds


def drive_steps(run, n_steps, d_loss=1.2, g_loss=1.5, n_in_all=10**6, print_every=1):
    """Log steps whose losses are given, as numbers or as functions of the step."""
    with run:
        for step in range(n_steps):
            losses = [loss(step) if callable(loss) else loss for loss in (d_loss, g_loss)]
            run.log(*map(torch.tensor, losses), 4, n_in_all, print_every)


def printed_by(action, *args, **kwargs):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        action(*args, **kwargs)
    return out.getvalue()


def read_table(path):
    """A .csv of a run as a list of dicts of numbers."""
    lines = path.read_text(encoding="utf-8").splitlines()
    names = lines[0].split(",")
    return [dict(zip(names, map(float, line.split(",")))) for line in lines[1:]]


def as_numpy(state):
    """The same with numpy's numbers in place of Python's."""
    if type(state) is dict:
        return {key: as_numpy(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(map(as_numpy, state))
    return np.float64(state) if isinstance(state, float) else copy.copy(state)
