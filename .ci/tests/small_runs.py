"""Runs for the tests: tiny networks on noise, always from the same seed, and a clock to set."""

import contextlib
import io
import types

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from assets.lib import clocks
from assets.lib.faces import DecodedFaces
from assets.lib.ranks import as_batch
from assets.lib.runs import Run

Z_SIZE = 8
LATENTS = torch.randn(4, Z_SIZE, generator=torch.Generator().manual_seed(2))
NOISE = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1


class Generator(nn.Module):
    """(N, 8) -> (N, 3, 16, 16), with batch norm as the lesson's."""

    def __init__(self, width=24):
        super().__init__()
        self.z_size = Z_SIZE
        self.layers = nn.Sequential(
            nn.Linear(Z_SIZE, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, 3 * 16 * 16),
            nn.Tanh(),
        )

    def forward(self, z):
        return self.layers(z).unflatten(1, (3, 16, 16))


class Discriminator(nn.Module):
    """(N, 3, 16, 16) -> (N, 1)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 4, 4), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(64, 1)
        )

    def forward(self, x):
        return self.layers(x)


def noise_loader(n=40, batch_size=4, flip=True):
    """A loader of n noisy 16 x 16 images, always the same ones."""
    images = torch.randint(256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(1)).byte()
    faces = DecodedFaces(images, torch.zeros(n, dtype=torch.int64), ["noise"], flip)
    return DataLoader(faces, batch_size, shuffle=True, collate_fn=as_batch)


def small_parts(notebook=None, averaged=True):
    """D, G, averaged and the two optimizers, by name; with a notebook, its networks."""
    torch.manual_seed(0)
    if notebook:
        D, G = notebook.build_network(4, 4, Z_SIZE, 16)
    else:
        D, G = Discriminator(), Generator()
    optimizers = [torch.optim.Adam(network.parameters(), 1e-3, fused=True) for network in (D, G)]
    parts = dict(D=D, G=G, d_optimizer=optimizers[0], g_optimizer=optimizers[1])
    return parts | (dict(averaged=AveragedModel(G)) if averaged else {})


def sample_four(generator):
    """The samples of a run: of the averaged generator or, without one, noise."""
    return NOISE if generator is None else generator(LATENTS)


def small_step(D, G, real, d_optimizer, g_optimizer):
    """A GAN's step -> d_loss, g_loss, detached."""
    fake = G(torch.randn(len(real), Z_SIZE))
    d_loss = F.softplus(-D(real)).mean() + F.softplus(D(fake.detach())).mean()
    d_optimizer.zero_grad()
    d_loss.backward()
    d_optimizer.step()
    g_loss = F.softplus(-D(fake)).mean()
    g_optimizer.zero_grad()
    g_loss.backward()
    g_optimizer.step()
    return d_loss.detach(), g_loss.detach()


def train_small(run, loader, n_epochs, print_every=4, step=small_step, set_rates=None):
    """The lesson's loop, in small -> the losses, one (d_loss, g_loss) per row."""
    parts = run.parts
    arguments = [parts[name] for name in ("d_optimizer", "g_optimizer")]
    with run:
        for epoch in run.epochs(n_epochs):
            for images, _ in run.watch(loader, epoch):
                if set_rates:
                    set_rates(run.progress)
                losses = step(parts["D"], parts["G"], 2 * images - 1, *arguments)
                if "averaged" in parts:
                    parts["averaged"].update_parameters(parts["G"])
                run.log(*losses, len(images), print_every)
    return run.losses


def start(folder=None, settings=None, n=40, parts=None, averaged=False, **options):
    """A run of 10 steps an epoch, and train(n_epochs), which makes a row every 4 steps.

    Averaging takes most of the time: without it there is no generator to export.
    """
    options.setdefault("sample", sample_four)
    parts = parts or small_parts(averaged=averaged)
    run = Run(folder, settings or {"seed": 0}, **options, **parts)
    return run, trainer(run, n)


def trainer(run, n=40):
    loader = noise_loader(n)
    return lambda n_epochs, **options: train_small(run, loader, n_epochs, **options)


def start_small(notebook, folder, parts=None, **options):
    """`start`, with the notebook's networks."""
    return start(folder, parts=parts or small_parts(notebook), **options)


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
    assert one.losses == other.losses, f"expected {one.losses}, got {other.losses}"


class Clock:
    """Stands for the clock of runs: a step takes `step` seconds, other work what is added."""

    def __init__(self, monkeypatch, run=None, step=1.0):
        self.now = 0.0
        stand_in = types.SimpleNamespace(perf_counter=lambda: self.now)
        monkeypatch.setattr(clocks, "time", stand_in)
        if run is not None:
            self.drive(run, step)

    def drive(self, run, step):
        """Let each step take `step` seconds, or step(number of the step)."""
        log = run.log

        def timed(*args):
            self.now += step(run.step) if callable(step) else step
            log(*args)

        run.log = timed

    def add(self, seconds):
        self.now += seconds


def drive_steps(run, n_steps, d_loss=1.2, g_loss=1.5, print_every=1):
    """Log steps whose losses are given, as numbers or as functions of the step."""
    with run:
        for step in range(n_steps):
            losses = [loss(step) if callable(loss) else loss for loss in (d_loss, g_loss)]
            run.log(*map(torch.tensor, losses), 4, print_every)


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


def contents_of(folder):
    """All files below a folder, and what is in them."""
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.*"))}
