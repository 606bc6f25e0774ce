"""The proof that the lesson's definitions do what they should.

In the notebook, `tests.test_generator(Generator)` under a definition checks it there and then.
`pytest problem_unittests.py` runs the same functions on what the notebook defines, shows that
they pass other right solutions and catch wrong ones, and then tests the helpers.
"""

import ast
import contextlib
import copy
import csv
import dis
import errno
import functools
import hashlib
import inspect
import io
import json
import math
import multiprocessing
import os
import pickle
import random
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import types
import warnings
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from PIL import Image, ImageDraw, ImageOps
from torch import nn
from torch.nn import functional as F

import helpers

NOTEBOOK = Path(__file__).with_name("dlnd_face_generation.ipynb")
DEFINED = ("get_dataloader", "scale", "Discriminator", "Generator", "weights_init_normal",
           "build_network", "real_loss", "fake_loss", "train_step", "frechet_distance", "train", "precision_recall",
           "sliced_wasserstein", "ms_ssim", "copied", "eye_row", "skin_tone", "normalisation", "checkerboard", "rate_at", "evolving",
           "follow", "losses_of", "penalty", "augment", "step_with", "truncated", "StyledLayers", "carry_over", "as_table", "orders",
           "draw_to_order", "reader", "read_logits", "agreement", "skin_band", "Unpaired", "Translator", "PatchDiscriminator", "ImagePool", "swap_step", "swap_errors",
           "same_person")
COMMITTED_GENERATOR = "celeba_32.pt2"
BAD_IMAGE_SIZES = (48, 8, 512, 0, -32)
SEARCH = hypothesis.settings(deadline=None, derandomize=True,
                             suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])


# ---------------------------------------------------------------- what the tests share

def passes(test):
    """Print `Tests Passed` after the test, turn any error into a message, keep the random state."""
    @functools.wraps(test)
    def run(*args, **kwargs):
        threads = torch.get_num_threads()
        with torch.random.fork_rng(devices=[]), helpers.alone():
            torch.default_generator.manual_seed(0)
            torch.set_num_threads(1)  # small work waits longer for threads than it takes
            try:
                test(*args, **kwargs)
            except AssertionError:
                raise
            except Exception as error:
                raise AssertionError(f"{test.__name__}: expected a result, came {type(error).__name__}: "
                                     f"{error}. The traceback above shows the line.") from error
            finally:
                torch.set_num_threads(threads)
        print("Tests Passed")
    return run


def assert_refuses(call, what, word):
    """`call` must raise a ValueError whose message names the setting or the folder."""
    expected = f"{what}: expected a ValueError that names {word}"
    try:
        call()
    except ValueError as error:
        named = re.sub(r"[\s_]+", "_", str(error).lower())
        assert word in named, f"{expected}, came a ValueError that says: {error}"
    except Exception as error:
        raise AssertionError(f"{expected}, came {type(error).__name__}: {error}") from error
    else:
        raise AssertionError(f"{expected}, came no error: check it before anything else runs.")


def assert_shape(what, tensor, shape):
    assert tuple(tensor.shape) == shape, f"{what}: expected the shape {shape}, came {tuple(tensor.shape)}."


def assert_no_globals(function):
    """Functions, classes and modules may be read from outside; settings and networks may not."""
    def names(code):
        yield from (i.argval for i in dis.get_instructions(code) if "GLOBAL" in i.opname)
        for inner in filter(inspect.iscode, code.co_consts):
            yield from names(inner)

    function = inspect.unwrap(function)
    fine = (types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type)
    read = sorted({name for name in names(function.__code__)
                   if name in function.__globals__ and not isinstance(function.__globals__[name], fine)})
    assert not read, (f"{function.__name__}: expected to find all it needs in its arguments, came a read of "
                      f"the global {', '.join(read)}. Take it as an argument (G.z_size, real.device ...).")


def pictures(n, size):
    """n different smooth colour pictures in [-1, 1]."""
    return F.interpolate(torch.rand(n, 3, 4, 4) * 2 - 1, size=size, mode="bilinear")


def assert_learns(net, x):
    """A gradient arrives at every weight, and at the input."""
    name, x = type(net).__name__, x.clone().requires_grad_()
    out = net.train()(x)
    assert out.requires_grad, f"{name}: expected an output with a gradient, came one without. Is it detached?"
    (out * torch.randn_like(out)).sum().backward()
    for key, p in [*net.named_parameters(), ("input", x)]:
        # biases are left out: in front of a normalisation their gradient is 0
        assert not p.requires_grad or p.grad is not None and (p.ndim < 2 or p.grad.any()), (
            f"{name}: expected a gradient for {key}, came none. Is the layer used in forward?")


def amplified(net, x):
    """net(x) with the output of its last layer made large and of both signs.

    Fresh networks give small numbers, among which a sigmoid, a tanh or nothing at the end look alike.
    """
    ran = []
    layers = [m for m in net.modules() if m is not net
              and (isinstance(m, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)) or [*m.parameters(recurse=False)])]
    hooks = [m.register_forward_hook(lambda m, x, y: ran.append(m)) for m in layers]
    net(x)
    [hook.remove() for hook in hooks]
    assert ran, f"{type(net).__name__}: expected layers with weights in forward, came none."

    def enlarge(m, x, y):
        y = y - y.mean(0)
        return 100 * y / y.std()

    with ran[-1].register_forward_hook(enlarge):
        return net(x)


# ---------------------------------------------------------------- data

def save_photos(folder, n):
    """A bright disc on a dark ground, its shade telling the photos apart: half wide, half tall."""
    folder.mkdir(parents=True)
    for i in range(n):
        size = (60, 40) if i % 2 else (40, 60)
        x, y, shade = size[0] / 2, size[1] / 2, 135 + 5 * i
        photo = Image.new("RGB", size, (40, 10, 20))
        ImageDraw.Draw(photo).ellipse((x - 12, y - 12, x + 12, y + 12), fill=(shade, shade, shade))
        photo.convert("L" if i == 3 else "RGB").save(folder / f"{i:03}.png")


def shades(loader):
    """Which photos came, in their order."""
    batches = [images[:, 1, images.shape[2] // 2, images.shape[3] // 2] for images, _ in loader]
    return ((torch.cat(batches) * 255 - 135) / 5).round().int().tolist()


@passes
def test_get_dataloader(get_dataloader):
    n, batch = 22, 4
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        for flat in (root / "flat", root / "classes"):
            save_photos(flat, n)
            (flat / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
            (flat / "__MACOSX").mkdir()
            (flat / "__MACOSX" / "._000.jpg").write_bytes(b"\0\5\26\7")
        for photo in sorted((root / "classes").glob("*.png")):
            target = root / "classes" / ("a" if photo.stem < "011" else "b") / photo.name
            target.parent.mkdir(exist_ok=True)
            photo.rename(target)

        for name, size in (("flat", 32), ("classes", 16), ("classes", 64)):
            loader = get_dataloader(batch_size=batch, image_size=size, data_dir=str(root / name))
            batches = list(loader)
            assert len(batches) == len(loader) and len(batches) in (n // batch, -(-n // batch)), (
                f"{n} photos in batches of {batch}: expected 5 batches, or 6 with the rest, came {len(batches)} "
                f"(len(loader) says {len(loader)}). Are all folders read, and .DS_Store and __MACOSX left out?")
            for images, labels in batches[:n // batch]:
                assert_shape("A batch of images", images, (batch, 3, size, size))
                assert_shape("Its labels", labels, (batch,))
                assert (images.dtype, labels.dtype) == (torch.float32, torch.int64), (
                    f"Expected images in float32 and labels in int64, came {images.dtype} and {labels.dtype}.")
            images, labels = (torch.cat(part) for part in zip(*batches))
            low, high = images.min().item(), images.max().item()
            assert 0 <= low <= 0.2 and 0.8 <= high <= 1, (
                f"Dark and bright photos: expected values in [0, 1], came {low:.2f} to {high:.2f}. "
                "ToTensor divides by 255, and scale() goes on to [-1, 1] later.")
            classes = len(labels.unique())
            assert name == "flat" or classes == 2, f"Photos in two folders: expected 2 labels, came {classes}."

            epochs = shades(loader), shades(loader)
            for epoch in epochs:
                assert len(set(epoch)) == len(epoch) >= n - n % batch, (
                    f"An epoch: expected each photo once, came {len(set(epoch))} different ones of {n} in {len(epoch)}.")
            assert epochs[0] != epochs[1], (
                "Two epochs: expected two orders, came the same one twice. Is it shuffle=True?")

            for image in images:
                disc = image.amax(0) > 0.35
                height, width = disc.any(1).sum().item(), disc.any(0).sum().item()
                assert abs(height - width) <= 1 + size // 32, (
                    f"A photo that is not square: expected its round disc round, came {width} wide and {height} high. "
                    "Resize(image_size) and CenterCrop(image_size) crop, Resize((image_size, image_size)) stretches.")

        def ask(batch_size=batch, image_size=32, data_dir=root / "flat"):
            return lambda: get_dataloader(batch_size, image_size, str(data_dir))

        for size in BAD_IMAGE_SIZES:
            assert_refuses(ask(image_size=size), f"image_size = {size}", "image_size")
        for size in (0, -4, n + 1):
            assert_refuses(ask(batch_size=size), f"batch_size = {size} for {n} photos", "batch_size")
        (root / "empty_folder").mkdir()
        (root / "only_text").mkdir()
        for i in range(8):
            (root / "only_text" / f"{i}.jpg").write_text("not a picture", encoding="utf-8")
        for name in ("empty_folder", "only_text", "no_such_folder"):
            assert_refuses(ask(data_dir=root / name), f"data_dir = '{name}'", name)


@passes
def test_scale(scale):
    for x in (torch.linspace(0, 1, 48).view(1, 3, 4, 4), 0.2 + 0.4 * torch.rand(2, 3, 8, 8), torch.rand(3, 5, 5)):
        before = x.clone()
        for args, (low, high) in (((), (-1, 1)), (((0, 1),), (0, 1)), (((-2, 3),), (-2, 3))):
            y = scale(x, *args)
            assert torch.equal(x, before), "Expected x as it was, came x changed in place. Compute a new tensor."
            assert_shape("scale(x)", y, tuple(x.shape))
            assert y.dtype == x.dtype, f"Expected {x.dtype}, came {y.dtype}."
            expected = before * (high - low) + low
            assert torch.allclose(y, expected, atol=1e-5), (
                f"x from {x.min():.2f} to {x.max():.2f}, feature_range ({low}, {high}): expected {expected.min():.2f} "
                f"to {expected.max():.2f}, came {y.min():.2f} to {y.max():.2f}. 0 goes to {low} and 1 to {high}, "
                "whatever the smallest and largest value of this x.")
        assert torch.allclose(scale(x, feature_range=(0, 2)), 2 * x), "Expected feature_range to work by name."


# ---------------------------------------------------------------- the two networks

@passes
def test_discriminator(Discriminator):
    for size in (16, 32, 64):
        D = Discriminator(8, image_size=size)
        for n in (2, 5):
            assert_shape(f"{n} images of {size} x {size}", D(pictures(n, size)), (n, 1))
        assert_shape("One image, in eval mode,", D.eval()(pictures(1, size)), (1, 1))
    assert_shape("Discriminator(8), for 32 x 32,", Discriminator(8)(pictures(3, 32)), (3, 1))
    count = [sum(p.numel() for p in Discriminator(d).parameters()) for d in (8, 16)]
    assert count[0] < count[1], f"conv_dim 8 and 16: expected more weights with 16, came {count[0]} and {count[1]}."

    D, x = Discriminator(8).eval(), pictures(16, 32)
    with torch.no_grad():
        out = D(x)
        assert out.std() > 1e-6 * (1 + out.abs().mean()), (
            f"16 different images: expected different logits, came {out.min():.6f} to {out.max():.6f}. "
            "Does the output depend on x?")
        out = amplified(D, x)
    assert out.min() < -1.5 and out.max() > 1.5, (
        f"A last layer with large outputs: expected raw logits of any size and both signs, came {out.min():.2f} to "
        f"{out.max():.2f}. Is there a sigmoid, a tanh or a relu at the end? The loss brings its own sigmoid.")
    assert_learns(D, pictures(4, 32))
    for size in BAD_IMAGE_SIZES:
        assert_refuses(lambda: Discriminator(8, image_size=size), f"Discriminator(8, image_size={size})", "image_size")


@passes
def test_generator(Generator):
    for size in (16, 32, 64):
        G = Generator(10, 8, image_size=size)
        assert getattr(G, "z_size", None) == 10, f"G.z_size: expected 10, came {getattr(G, 'z_size', 'nothing')}."
        for n in (2, 5):
            assert_shape(f"{n} latents, image_size {size}", G(torch.randn(n, 10)), (n, 3, size, size))
        assert_shape("One latent, in eval mode,", G.eval()(torch.randn(1, 10)), (1, 3, size, size))
    assert_shape("Generator(7, 8), for 32 x 32,", Generator(7, 8)(torch.randn(3, 7)), (3, 3, 32, 32))
    count = [sum(p.numel() for p in Generator(10, d).parameters()) for d in (8, 16)]
    assert count[0] < count[1], f"conv_dim 8 and 16: expected more weights with 16, came {count[0]} and {count[1]}."

    G, z = Generator(10, 8).eval(), torch.randn(8, 10)
    with torch.no_grad():
        apart = G(z).std(0).max().item()
        assert apart > 1e-6, f"8 different latents: expected 8 different images, came a spread of {apart:.1e}. Is z used?"
        out = amplified(G, z)
    assert -1 <= out.min() < -0.9 and 0.9 < out.max() <= 1, (
        f"A last layer with large outputs: expected images from -1 to 1, came {out.min():.2f} to {out.max():.2f}. "
        "tanh ends at -1 and 1, a sigmoid at 0 and 1.")
    assert_learns(G, torch.randn(4, 10))
    for size in BAD_IMAGE_SIZES:
        assert_refuses(lambda: Generator(10, 8, image_size=size), f"Generator(10, 8, image_size={size})", "image_size")


def assert_normal(what, w):
    mean, std, far = w.mean().item(), w.std().item(), (w.abs() > 0.04).float().mean().item()
    assert abs(std - 0.02) < 0.002 and abs(mean) < 0.002, (
        f"{what}: expected mean 0 and standard deviation 0.02, came {mean:.4f} and {std:.4f}.")
    assert 0.03 < far < 0.06, (f"{what}: expected a normal distribution, with 4.6 % of the weights beyond 2 standard "
                               f"deviations, came {far:.1%}. Is it uniform?")


@passes
def test_weights_init(weights_init_normal):
    net = nn.Sequential(nn.Conv2d(16, 64, 4), nn.BatchNorm2d(64), nn.LeakyReLU(), nn.Conv2d(64, 32, 4, bias=False),
                        nn.Sequential(nn.ConvTranspose2d(32, 32, 4), nn.Flatten(), nn.Linear(128, 128)))
    for m in net.modules():  # whatever was there before must be gone
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            [nn.init.constant_(p, 0.3) for p in m.parameters()]
    net.apply(weights_init_normal)
    for m in net.modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            assert_normal(f"Weights of {m}", m.weight.detach())
            assert m.bias is None or not m.bias.any(), f"Biases of {m}: expected 0, came {m.bias.abs().max():.3f}."
    norm = net[1]
    assert (norm.weight - 1).abs().max() < 0.2 and norm.bias.abs().max() < 0.2, (
        f"{norm}: expected weights near 1 and biases near 0, came a mean of {norm.weight.mean():.3f} and "
        f"{norm.bias.mean():.3f}. With weights near 0 it wipes out its input.")


@passes
def test_build_network(build_network):
    D, G = build_network(16, 32, 12)
    G, D = G.cpu(), D.cpu()
    assert getattr(G, "z_size", None) == 12, (
        f"build_network(16, 32, 12) gives D, G: expected a G with z_size 12, came {getattr(G, 'z_size', 'none')}.")
    images = G(torch.randn(3, 12))
    assert_shape("The discriminator's view of 3 generated images", D(images), (3, 1))
    for name, net in (("D", D), ("G", G)):
        w = [m.weight.detach().flatten() for m in net.modules()
             if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)) and "weight" in m._parameters]
        if sum(map(len, w)) > 500:  # too few say nothing; normalised weights are not ours to judge
            std = torch.cat(w).std().item()
            assert abs(std - 0.02) < 0.004, (f"{name}: expected weights drawn with standard deviation 0.02, "
                                             f"came {std:.4f}. Has {name}.apply(weights_init_normal) run?")
    sizes = [[sum(p.numel() for p in net.parameters()) for net in build_network(*dims, 12)]
             for dims in ((16, 32), (32, 32), (16, 64))]
    assert sizes[1][0] > sizes[0][0] == sizes[2][0] and sizes[2][1] > sizes[0][1] == sizes[1][1], (
        f"d_conv_dim, g_conv_dim of (16, 32), (32, 32), (16, 64): expected d_conv_dim to change D alone and "
        f"g_conv_dim G alone, came {sizes} weights.")


# ---------------------------------------------------------------- losses and training

# real_loss at -2, 0, 1 and fake_loss at 0, 1, 2, by hand: log(1 + e^x), or the square of a difference
BY_HAND = {"binary cross-entropy": (2.1269, 0.6931, 0.3133, 0.6931, 1.3133, 2.1269),
           "least squares": (9, 1, 0, 0, 1, 4),
           "half least squares": (4.5, 0.5, 0, 0, 0.5, 2)}


@passes
def test_losses(real_loss, fake_loss):
    x = torch.randn(6, 1) * 2
    for name, loss in (("real_loss", real_loss), ("fake_loss", fake_loss)):
        for n in (6, 1):
            logits = x[:n].clone().requires_grad_()
            out = loss(logits)
            assert_shape(f"{name} of {n} logits", out, ())
            out.backward()
            assert logits.grad is not None, f"{name}: expected a gradient to its input, came none. Is it detached?"
            assert torch.equal(logits.detach(), x[:n]), f"{name}: expected D_out as it was, came D_out changed in place."
        one_by_one = torch.stack([loss(v.view(1, 1)) for v in x]).mean()
        for what, out in (("(6, 1)", loss(x)), ("(6,)", loss(x[:, 0]))):
            assert torch.isclose(out, one_by_one), (f"{name} of logits of shape {what}: expected {one_by_one:.4f}, "
                                                    f"the mean over the images, came {out:.4f}.")
        far = torch.stack([loss(torch.full((2, 1), v)) for v in (-200.0, 200.0)])
        assert far.isfinite().all(), f"{name} at -200 and 200: expected finite numbers, came {far.tolist()}."
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("meta")
        assert loss(x.to(device)).device.type == device.type, (
            f"{name} of a D_out on {device}: expected a loss there, came one elsewhere. Put the labels on D_out.device.")

    def at(loss, *logits, **kwargs):
        return [loss(torch.full((4, 1), float(v)), **kwargs).item() for v in logits]

    real, fake = at(real_loss, -2, 0, 1), at(fake_loss, 0, 1, 2)
    for name, values, low in (("real_loss", real, "high"), ("fake_loss", fake, "low")):
        came = ", ".join(f"{v:.4f}" for v in values)
        assert max(values) - min(values) > 1e-6, f"{name}: expected it to depend on D_out, came {came} for three inputs."
        assert values == sorted(values, reverse=name == "real_loss"), (
            f"{name}: expected a small loss for {low} logits, came {came} for rising ones. Are the labels swapped?")
    assert any(np.allclose(real + fake, values, atol=1e-3) for values in BY_HAND.values()), (
        f"real_loss at -2, 0, 1 and fake_loss at 0, 1, 2: expected one of {BY_HAND}, "
        f"came {[round(v, 4) for v in real + fake]}.")

    (plain,), (smooth, zero, one) = at(real_loss, 10), at(real_loss, 10, 0, 1, smooth=True)
    assert smooth > plain + 1e-3, (f"A very sure logit of 10: expected smooth=True to cost more than {plain:.4f}, "
                                   f"came {smooth:.4f}. A label of about 0.9 does that.")
    assert one < zero, (f"smooth=True at 0 and 1: expected a falling loss, came {zero:.4f} and {one:.4f}. "
                        "The smoothed label of a real image stays close to 1.")


class ToyGenerator(nn.Module):
    """Pictures of one colour, which the latents change a little."""

    def __init__(self, z_size):
        super().__init__()
        self.z_size, self.seen = z_size, []
        self.weight = nn.Parameter(torch.full((z_size,), 0.2))
        self.bias = nn.Parameter(torch.full((3,), -0.55))

    def forward(self, z):
        assert z.ndim == 2 and z.shape[1] == self.z_size, (
            f"G's input: expected latents of shape (N, G.z_size) = (N, {self.z_size}), came {tuple(z.shape)}.")
        self.seen.append(z.detach().clone())
        color = torch.tanh(0.1 * (z * self.weight).sum(1, keepdim=True) + self.bias)
        return color[:, :, None, None].expand(-1, -1, 16, 16)


class ToyDiscriminator(nn.Module):
    """Takes bright pictures for real."""

    def __init__(self, bias):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.tensor([0.2])), nn.Parameter(torch.tensor([bias]))

    def forward(self, x):
        return self.weight * x.flatten(1).mean(1, keepdim=True) + self.bias


class Watch:
    """Two toy networks whose every optimizer step is measured; real images have a mean of 0.8.

    Any order and number of steps, batches and any usual loss will do: what counts is that D's steps teach D,
    that G's steps teach G, and that nothing else moves them.
    """

    def __init__(self, bias, z_size):
        self.nets = {"D": ToyDiscriminator(bias), "G": ToyGenerator(z_size)}
        self.optimizers = {k: torch.optim.SGD(net.parameters(), lr=3e-3) for k, net in self.nets.items()}
        self.probe, self.bias = torch.randn(64, z_size), bias
        self.start = self.weights = self.snapshot()
        self.gains, self.gradients, self.last = {k: torch.zeros(2) for k in "DG"}, {k: [] for k in "DG"}, None
        for key, optimizer in self.optimizers.items():
            optimizer.register_step_pre_hook(functools.partial(self.before, key))
            optimizer.register_step_post_hook(functools.partial(self.after, key))

    @property
    def arguments(self):
        return self.nets["D"], self.nets["G"], self.optimizers["D"], self.optimizers["G"]

    def snapshot(self):
        return {k: [p.detach().clone() for p in net.parameters()] for k, net in self.nets.items()}

    @torch.no_grad()
    def scores(self):
        """D's answer to a real image, and to G's."""
        D, G = self.nets.values()
        fake, _ = G(self.probe), G.seen.pop()
        return torch.stack([D(torch.full((1, 3, 16, 16), 0.8)).mean(), D(fake).mean()])

    def assert_untouched(self, when):
        for key, now in self.snapshot().items():
            assert all(map(torch.equal, now, self.weights[key])), (
                f"{key}'s weights: expected to move only in {key.lower()}_optimizer.step(), came a change {when}.")

    def before(self, key, *_):
        self.assert_untouched(f"before {key.lower()}_optimizer.step()")
        gradient = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.nets[key].parameters()]
        if self.last != key:  # steps of one network in a row belong together
            self.gradients[key].append([])
        self.gradients[key][-1].append(torch.cat([g.flatten().clone() for g in gradient]))
        self.last, self.then = key, self.scores()

    def after(self, key, *_):
        self.gains[key] += self.scores() - self.then
        self.weights = self.snapshot()

    def verify(self):
        self.assert_untouched("after the last step")
        for key, net in self.nets.items():
            came = f"came {[p.tolist() for p in net.parameters()]}"
            assert not all(map(torch.equal, net.parameters(), self.start[key])), (
                f"{key}: expected to be trained, {came} as at the start. Does {key.lower()}_optimizer.step() run, with "
                f"gradients of {key}'s loss?")
            assert all(p.isfinite().all() for p in net.parameters()), f"{key}: expected finite weights, {came}."
            assert all(p.requires_grad for p in net.parameters()), f"{key}: expected requires_grad True, came False."
        real, fake = self.gains["D"].tolist()
        assert real > fake, (f"D's steps: expected D(real) - D(fake) to grow, came a change of {real - fake:.1e}. "
                             "Are real_loss and fake_loss swapped?")
        # A D that says "real" to all has to learn what is fake, a D that is undecided also what is real
        assert fake < 0 if self.bias > 0.5 else real > 0, (
            f"D's steps: expected D(fake) to fall and D(real) to rise, came {fake:.1e} and {real:.1e}. "
            "D's loss has two halves: real_loss(D(real)) and fake_loss(D(fake)).")
        raised = self.gains["G"][1].item()
        assert raised > 0, (f"G's steps: expected D(G(z)) to rise, came a change of {raised:.1e}. G learns from "
                            "real_loss(D(fake)) alone: D's loss needs fake.detach(), and G's step fresh gradients.")
        for key, runs in self.gradients.items():
            first, *later = [torch.stack(run).mean(0) for run in runs]
            drift = max([((g - first).norm() / first.norm()).item() for g in later], default=0)
            assert drift < 0.5, (f"{key}'s gradients, while nothing much changes: expected about the same in each step, "
                                 f"came a change of {drift:.0%}. Does {key.lower()}_optimizer.zero_grad() run first?")
        z = torch.cat(self.nets["G"].seen)
        assert abs(z.std() - 1) < 0.15 and abs(z.mean()) < 0.15, (
            f"The latents: expected N(0, 1), came mean {z.mean():.2f} and standard deviation {z.std():.2f}. torch.randn?")
        assert len(z.unique(dim=0)) > len(z) / 4, "The latents: expected new ones in each step, came the same ones."


def assert_numbers(pair, what):
    assert len(pair) == 2, f"{what}: expected the pair d_loss, g_loss, came {pair}."
    for name, loss in zip(("d_loss", "g_loss"), pair):
        assert not getattr(loss, "requires_grad", False), (
            f"{what}, {name}: expected a detached number, came a tensor that keeps its graph. Use .detach().")
        assert torch.as_tensor(loss).numel() == 1 and math.isfinite(loss), f"{what}, {name}: expected one finite number, came {loss}."


@passes
def test_train_step(train_step):
    assert_no_globals(train_step)
    for bias, z_size in ((0.8, 3), (0.15, 7)):
        watch = Watch(bias, z_size)
        D, G, *optimizers = watch.arguments
        for step in range(3):
            real = 0.8 + 0.2 * torch.rand(32, 3, 16, 16) - 0.1
            losses = train_step(D, G, real, *optimizers)
            assert_numbers(losses, "train_step's result")
        watch.verify()
        # this D takes fakes for real: it is wrong, and G content
        assert bias < 0.5 or losses[0] > losses[1], (
            f"D fooled: expected d_loss above g_loss, came {losses[0]:.3f} and {losses[1]:.3f}. Is it d_loss first?")


@passes
def test_train(train):
    assert_no_globals(train)
    images = (torch.rand(48, 3, 16, 16) < 0.9).float()  # dots, on [-1, 1] with a mean of 0.8
    data = torch.utils.data.TensorDataset(images, torch.zeros(48, dtype=torch.int64))
    for n_epochs, print_every in ((1, 1), (3, 3)):
        watch, values = Watch(0.15, 5), []
        D, G, *optimizers = watch.arguments
        # G's pictures are of one colour: what has dots is real
        D.register_forward_pre_hook(lambda D, x: values.append(x[0][x[0].std((1, 2, 3)) > 0.3].detach().flatten()))
        loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
        losses = train(D, G, loader, *optimizers, n_epochs, print_every=print_every)
        expected = n_epochs * len(loader) // print_every
        assert abs(len(losses) - expected) <= 1, (
            f"{n_epochs} epochs of {len(loader)} steps, print_every={print_every}: expected {expected} pairs of losses, "
            f"came {len(losses)}.")
        [assert_numbers(pair, "train's result") for pair in losses]
        seen = torch.cat(values)
        low, high = seen.min().item(), seen.max().item()
        assert -1.5 < low < -0.5 and 0.5 < high < 1.5, (
            f"Real images on their way to D: expected -1 to 1, as G makes them, came {low:.2f} to {high:.2f}. "
            "The loader gives 0 to 1: has scale() run, and once?")
        watch.verify()


@passes
def test_frechet_distance(frechet_distance):
    torch.manual_seed(0)
    x = torch.linalg.qr(torch.randn(400, 6) - torch.randn(400, 6).mean(0))[0]
    x = torch.linalg.qr(x - x.mean(0))[0] * 399**0.5  # mean 0 and covariance 1, exactly
    stretch, shift = torch.tensor([1, 1, 2, 0.5, 3, 1.0]), torch.tensor([0.0, 2, 0, -1, 0, 0])
    turn = torch.linalg.qr(torch.randn(6, 6))[0]
    for what, a, b, expected in (("the same twice", x, x.flip(0), 0), ("moved", x, x + shift, 5),
                                 ("stretched", x, x * stretch, 5.25), ("both", x * stretch + shift, x, 10.25),
                                 ("turned", (x * stretch) @ turn, (x * stretch.flip(0)) @ turn, 12.5)):
        came = float(frechet_distance(a, b))
        assert abs(came - expected) < 0.01, f"{what}: expected a Fréchet distance of {expected}, came {came:.3f}."
    assert frechet_distance(x * math.nan, x) == math.inf, "expected inf for a network that has diverged."


@passes
def test_precision_recall(precision_recall):
    torch.manual_seed(0)
    two, far = torch.randn(600, 4) + 20 * (torch.arange(600) % 2)[:, None], torch.randn(600, 4) - 50
    dense = torch.cat([0.05 * torch.randn(300, 4), 20 + 3 * torch.randn(300, 4)])
    for what, real, fake, expected in (
            ("the same", two, two, (1, 1)), ("none of them", two, far, (0, 0)), ("one kind of two", two, two[::2], (1, 0.5)),
            ("half of them strangers", two, torch.cat([two[:300], far[:300]]), (0.5, 1)),
            ("beside a dense crowd", dense, dense[:300] + 1, (0, 0))):
        came = precision_recall(real, fake)
        assert all(abs(a - b) < 0.06 for a, b in zip(came, expected)), (
            f"{what}: expected precision and recall of {expected}, came {came[0]:.2f} and {came[1]:.2f}.")


@passes
def test_sliced_wasserstein(sliced_wasserstein):
    torch.manual_seed(0)
    images = F.interpolate(torch.rand(100, 3, 8, 8) * 2 - 1, size=32, mode="bicubic") + 0.1 * torch.randn(100, 3, 32, 32)
    same = sliced_wasserstein(images, images)
    assert len(same) == 2 and max(same) < 1e-3, f"the same 32 x 32 images: expected 0 at each of 2 levels, came {same}."
    assert max(sliced_wasserstein(images, images / 2 + 0.1)) < 20, "expected contrast and light to be normalised"
    for what, worse in (("blurred", lambda x: F.avg_pool2d(x, 3, 1, 1)), ("noisy", lambda x: x + 0.1 * torch.randn_like(x))):
        once, twice = worse(images), worse(worse(worse(images)))
        came = [sum(sliced_wasserstein(images, x)) for x in (images, once, twice)]
        assert came[0] < came[1] < came[2], f"{what}, once and thrice: expected larger and larger distances, came {came}."


@passes
def test_ms_ssim(ms_ssim):
    torch.manual_seed(0)
    images = F.interpolate(torch.rand(64, 3, 8, 8) * 2 - 1, size=32, mode="bicubic").clamp(-1, 1)
    came = [ms_ssim(torch.cat([images[:kinds].repeat(32 // kinds, 1, 1, 1)] * 2)[:, :, :size, :size])
            for kinds, size in ((32, 32), (32, 16))]
    assert all(abs(value - 1) < 1e-3 for value in came), f"each image beside itself: expected 1, came {came}."
    different, alike = ms_ssim(images), ms_ssim(images[:1] + 0.1 * torch.randn(64, 3, 32, 32))
    assert different < alike < 1, f"64 pictures and one with noise: expected the one more alike, came {different:.2f}, {alike:.2f}."


@passes
def test_copied(copied):
    torch.manual_seed(0)
    training = torch.randn(1500, 5)
    for what, faces, low, high in (("copies", training[:200] + 1e-3 * torch.randn(200, 5), 1, 1),
                                   ("others like them", torch.randn(1200, 5), 0.4, 0.6),
                                   ("strangers", torch.randn(200, 5) + 50, 0, 0)):
        index, share = copied(faces, training)
        assert low <= share <= high, f"{what}: expected between {low:.0%} and {high:.0%} nearer than neighbours, came {share:.0%}."
        assert torch.equal(index, torch.cdist(faces, training).argmin(1)), f"{what}: expected the nearest training face of each."


@passes
def test_skin_tone(skin_tone, eye_row):
    grey, tan = (0.0, 0.0, 0.0), (0.46, 0.15, -0.08)  # in L*a*b*: 53.4, 0, 0 and 63.8, 10.8, 21.2
    for size in (16, 32, 64):
        faces = torch.tensor([grey, tan])[:, :, None, None].repeat(1, 1, size, size)
        faces[:, :, size // 2:size // 2 + 2] = -1  # the eyes
        faces[:, :, :size // 8] = -1  # the hair
        faces[:, :, :, 3 * size // 8:5 * size // 8] = 1  # the nose, well lit
        assert eye_row(faces) in (size // 2, size // 2 + 1), f"expected the eyes in row {size // 2}, came {eye_row(faces)}."
        _, angle = skin_tone(faces, size // 2).tolist()
        assert abs(angle - 33.0) < 0.5, f"{size} x {size}: expected a typology angle of 33.0 degrees, came {angle:.1f}."


# ---------------------------------------------------------------- next steps

@passes
def test_normalisation(normalisation):
    x = torch.randn(6, 16, 4, 4) * (1 + torch.rand(6, 16, 1, 1)) + 3 * torch.randn(6, 16, 1, 1)
    for norm, rows in (("batch", lambda y: y.transpose(0, 1).reshape(16, -1)), ("instance", lambda y: y.reshape(6 * 16, -1)),
                       ("group", lambda y: y.reshape(6 * 8, -1)), ("layer", lambda y: y.reshape(6, -1))):
        y = nn.Sequential(*normalisation(norm, 16))(x)
        assert_shape(f'norm="{norm}"', y, x.shape)
        y = rows(y)  # a row for all that is normalised together
        worst = max(y.mean(1).abs().max().item(), (y.std(1, unbiased=False) - 1).abs().max().item())
        assert worst < 0.02, f'norm="{norm}": expected mean 0 and deviation 1 in {len(y)} groups, came {worst:.2f} beside them.'
    square = nn.Sequential(*normalisation("pixel", 16))(x).square().mean(1)
    assert (square - 1).abs().max() < 1e-3, "pixel: expected a mean square of 1 over the channels of each pixel."
    for norm in (None, "spectral"):
        assert len(normalisation(norm, 16)) == 0, f"norm={norm!r}: expected no layer for activations."
    assert_refuses(lambda: normalisation("weight", 16), 'norm="weight"', "norm")


@passes
def test_checkerboard(checkerboard):
    noise = torch.randn(800, 3, 16, 16)
    board = torch.tensor([1.0, -1.0]).repeat(8)
    for what, faces, low, high in (("white noise", noise, 0.9, 1.1),
                                   ("noise in squares of 2 x 2", noise.repeat_interleave(2, 2).repeat_interleave(2, 3), 0, 1e-6),
                                   ("noise in stripes", noise + board, 5, math.inf),
                                   ("noise on a board", noise + board * board[:, None], 5, math.inf)):
        came = checkerboard(faces)
        assert low <= came <= high, f"{what}: expected {low} to {high}, came {came:.2f}."


@passes
def test_schedules(rate_at, evolving, follow):
    for name, values in {"constant": (1, 1, 1, 1), "linear": (1, 1, 0.5, 0), "cosine": (1, 0.5, 0.146447, 0),
                         "step": (1, 0.3, 0.09, 0.09)}.items():
        for p, value in zip((0, 0.5, 0.75, 1), values):
            came = rate_at(name, p)
            assert abs(came - value) < 1e-6, f"{name} at {p:.0%} of the run: expected {value}, came {came}."
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.2)
        scheduler, run = evolving(name, optimizer), types.SimpleNamespace(progress=0.0, scores=[])
        optimizer.step()
        for run.progress, value in ((0.5, values[1]), (0.75, values[2]), (1.0, values[3]), (0.75, values[2])):  # more minutes: back
            follow(scheduler, run)
            came = optimizer.param_groups[0]["lr"]
            assert abs(came - 0.2 * value) < 1e-6, f"{name} at {run.progress:.0%}: expected a rate of {0.2 * value}, came {came}."
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.2)
    scheduler, run = evolving("plateau", optimizer), types.SimpleNamespace(progress=0.5, scores=[])
    for score, value in ((9.0, 0.2), (5.0, 0.2), (6.0, 0.2), (5.5, 0.1), (4.0, 0.1)):
        run.scores.append((0, 0, 0.0, score))
        follow(scheduler, run)
        follow(scheduler, run)  # no new score: nothing changes
        came = optimizer.param_groups[0]["lr"]
        assert came == value, f"plateau, scores {[row[-1] for row in run.scores]}: expected a rate of {value}, came {came}."
    assert_refuses(lambda: evolving("sawtooth", optimizer), 'schedule="sawtooth"', "schedule")


@passes
def test_loss_pairs(losses_of):
    d_real, d_fake = torch.tensor([[1.0], [-1.0]]), torch.tensor([[0.5], [2.0]])
    for name, d_loss, g_loss in (("cross-entropy", 2.363764, 0.300502), ("least squares", 4.125, 0.625), ("hinge", 3.25, -1.25),
                                 ("Wasserstein", 1.25, -1.25), ("relativistic", 1.761332, 0.511332)):
        for who, loss, value in zip("DG", losses_of(name), (d_loss, g_loss)):
            came = loss(d_real, d_fake).item()
            assert abs(came - value) < 1e-5, f"{name}, {who}'s loss of (1, -1) and (0.5, 2): expected {value}, came {came:.6f}."
    assert_refuses(lambda: losses_of("Hinge"), 'loss="Hinge"', "loss")


@passes
def test_penalty(penalty):
    real, fake = pictures(6, 16), pictures(6, 16)
    D = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 1))  # its slope is the length of its weights, everywhere
    length = D[1].weight.norm().item()
    for weights, value in (({"gp": 10}, 10 * (length - 1)**2), ({"r1": 3}, 1.5 * length**2), ({"r2": 3}, 1.5 * length**2), ({}, 0)):
        came = penalty(D, real, fake, **weights)
        assert abs(came - value) < 1e-3 * max(1, value), f"linear D, {weights}: expected {value:.4f}, came {came:.4f}."

    class Square(nn.Module):
        def forward(self, x):
            return x.square().sum((1, 2, 3)) / 2

    for name, images in (("r1", real), ("r2", fake)):  # the slope of |x|^2 / 2 is |x|
        value, came = images.square().sum((1, 2, 3)).mean().item() / 2, penalty(Square(), real, fake, **{name: 1}).item()
        assert abs(came - value) < 1e-3 * value, f"D(x) = |x|^2 / 2, {name}=1: expected {value:.4f}, came {came:.4f}."
    penalty(D, real, fake, gp=10, r1=1, r2=1).backward()
    assert D[1].weight.grad.any() and D[1].weight.grad.isfinite().all(), "expected a finite gradient for D's weights, came none."
    mixing = nn.Sequential(nn.Conv2d(3, 2, 4), nn.BatchNorm2d(2), nn.Flatten(), nn.LazyLinear(1))
    mixing(real)
    assert_refuses(lambda: penalty(mixing, real, fake, gp=1), "gp with batch norm", "batch")


@passes
def test_augment(augment):
    x = pictures(64, 16).requires_grad_()
    assert torch.equal(augment(x, ()), x), "no kinds: expected the images as they are."
    for kind in ("flip", "shift", "colour", "cutout"):
        y = augment(x, [kind])
        assert_shape(kind, y, x.shape)
        changed = (y - x).abs().amax((1, 2, 3)) > 1e-6
        assert changed.float().mean() > 0.3, f"{kind}: expected most images changed, came {changed.float().mean():.0%}."
        gradient, = torch.autograd.grad(y.sum(), x)
        assert gradient.isfinite().all() and gradient.any(), f"{kind}: expected a gradient that passes through, came none."
    y = augment(x, ["flip"])
    mirrored, same = ((y == z).all((1, 2, 3)) for z in (x.flip(-1), x))
    assert (mirrored | same).all() and mirrored.any() and same.any(), "flip: expected some mirrored, the others as they were."
    dots = torch.zeros(200, 3, 16, 16)
    dots[:, :, 8, 8] = 1
    _, _, rows, columns = augment(dots, ["shift"]).nonzero().T
    for places in (rows, columns):
        assert places.min() == 6 and places.max() == 10, f"shift: expected up to 2 of 16 pixels, came {places.min()} to {places.max()}."
    hole = augment(torch.ones(200, 3, 16, 16), ["cutout"]) == 0
    assert hole.sum((1, 2, 3)).max() == 3 * 8 * 8 and hole.any(-1).any(-1).all(), "cutout: expected holes half as wide as the image."
    bright = augment(torch.zeros(500, 3, 16, 16), ["colour"])
    assert bright.amin() > -0.51 and bright.amax() < 0.51 and bright.std() > 0.2, "colour: expected a brightness from -0.5 to 0.5."
    ramp = torch.linspace(-0.5, 0.5, 16).expand(500, 3, 16, 16)
    contrast = augment(ramp, ["colour"]).std((1, 2, 3)) / ramp[0].std()
    assert 0.49 < contrast.min() < 0.6 and 1.4 < contrast.max() < 1.51, "colour: expected a contrast from 0.5 to 1.5."
    red = torch.tensor([0.6, -0.3, -0.3])[:, None, None].expand(500, 3, 16, 16)
    spread = augment(red, ["colour"])[:, :, 0, 0].std(1) / red[0, :, 0, 0].std()
    assert spread.min() < 0.1 and 2 < spread.max() < 3.01, "colour: expected a saturation from 0 to 2, times the contrast."
    assert_refuses(lambda: augment(x, ["spin"]), 'kinds=["spin"]', "augmented")


@passes
def test_step_with(step_with):
    for options in ({}, {"loss": "least squares"}, {"loss": "hinge"}, {"loss": "Wasserstein", "clip": 1.0}, {"loss": "relativistic"},
                    {"label_noise": 0.1}, {"augmented": ["flip", "shift"]}, {"r1": 0.1, "r2": 0.1, "lazy": 2}):
        watch, run = Watch(0.15, 5), types.SimpleNamespace(step=0, progress=0.0)
        D, G, *optimizers = watch.arguments
        step = step_with(run, **options)
        for run.step in range(3):
            assert_numbers(step(D, G, 0.8 + 0.2 * torch.rand(32, 3, 16, 16) - 0.1, *optimizers), f"step_with({options})")
        real, fake = watch.gains["D"].tolist()
        assert real > fake, f"{options}, D's steps: expected D(real) - D(fake) to grow, came a change of {real - fake:.1e}."
        raised = watch.gains["G"][1].item()
        assert raised > 0, f"{options}, G's steps: expected D(G(z)) to rise, came a change of {raised:.1e}."
    D, G, run = ToyDiscriminator(0.15), ToyGenerator(5), types.SimpleNamespace(step=0, progress=0.0)
    optimizers = [torch.optim.SGD(net.parameters(), lr=3e-3) for net in (D, G)]
    step, moved = step_with(run, loss="Wasserstein", n_critic=3, clip=0.01), []
    for run.step in range(6):
        before = [weight.clone() for weight in G.parameters()]
        step(D, G, torch.rand(32, 3, 16, 16), *optimizers)
        moved.append(not all(map(torch.equal, before, G.parameters())))
        assert max(weight.abs().max() for weight in D.parameters()) <= 0.01, "clip=0.01: expected D's weights within it."
    assert moved == [True, False, False] * 2, f"n_critic=3: expected G to move in every third step, came {moved}."
    def moves(progress=0.0, step_number=0, **options):
        """How D's weights change in one step of given pictures, and what D was shown."""
        torch.manual_seed(0)
        D, G, shown = ToyDiscriminator(0.15), ToyGenerator(5), []
        D.register_forward_pre_hook(lambda D, x: shown.append(x[0].detach()))
        before = torch.cat([weight.detach().clone() for weight in D.parameters()])
        optimizers = [torch.optim.SGD(net.parameters(), lr=1.0) for net in (D, G)]
        step_with(types.SimpleNamespace(step=step_number, progress=progress), **options)(D, G, torch.full((64, 3, 16, 16), 0.8), *optimizers)
        return torch.cat([*D.parameters()]).detach() - before, shown[0]

    for progress, deviation in ((0.0, 0.2), (0.25, 0.1), (0.5, 0.0), (0.9, 0.0)):
        came = moves(progress, noise=0.2)[1].std().item()
        assert abs(came - deviation) < 0.01, f"noise=0.2 at {progress:.0%}: expected a deviation of {deviation}, came {came:.3f}."
    assert (moves(augmented=["cutout"])[1] == 0).any(), 'augmented=["cutout"]: expected holes in what D is shown, came none.'
    plain, flipped = moves()[0], moves(label_noise=0.49)[0]
    assert 0 < flipped[0] < 0.5 * plain[0], f"label_noise=0.49: expected D to learn next to nothing, came {flipped} for {plain}."
    once, lazy, waits = (moves(r1=0.5, **options)[0] - plain for options in ({}, {"lazy": 4}, {"lazy": 4, "step_number": 1}))
    assert once[0] < 0 and torch.allclose(lazy, 4 * once, rtol=0.01, atol=1e-7) and not waits.any(), (
        f"r1=0.5: expected D's slope pulled down, lazy=4 four times as much in every fourth step, came {once}, {lazy}, {waits}.")
    for wrong, word in (({"loss": "L3"}, "loss"), ({"n_critic": 0}, "n_critic"), ({"lazy": 0}, "lazy"), ({"clip": -1}, "clip"),
                        ({"label_noise": 7}, "label_noise"), ({"noise": -1}, "noise"), ({"loss": "Wasserstein"}, "clip")):
        assert_refuses(lambda wrong=wrong: step_with(run, **wrong), f"step_with({wrong})", word)


@passes
def test_truncated(truncated):
    for limit, deviation in ((0.5, 0.2837), (1.0, 0.5396), (4.0, 0.9995)):  # of N(0, 1) within +-limit
        z = truncated(500, limit, 3)
        assert z.abs().max() <= limit, f"limit {limit}: expected no number beyond it, came {z.abs().max():.2f}."
        assert abs(z.std() - deviation) < 0.01, f"limit {limit}: expected a deviation of {deviation}, came {z.std():.3f}."
        assert torch.equal(z, truncated(500, limit, 3)), "the same seed: expected the same latents."


@passes
def test_styled_layers(StyledLayers):
    layers, z = StyledLayers(10, [16, 8, 4]), torch.randn(3, 10)
    assert_shape("StyledLayers(10, [16, 8, 4])", layers(z), (3, 3, 32, 32))
    assert_learns(layers, z)
    layers.eval()
    images = layers(z)
    assert torch.allclose(layers(z[1:2]), images[1:2], atol=1e-5), "outside of training: expected the same face in any batch."
    w = layers.mapping(z)
    assert torch.allclose(layers.draw([w] * len(layers.layers)), images, atol=1e-5), "one style for all layers: expected forward's."
    mixed = layers.draw([w] * 2 + [w.flip(0)] * (len(layers.layers) - 2))
    assert not torch.allclose(mixed[0], images[0], atol=1e-3), "other styles for the fine layers: expected another face."
    x = torch.randn(2, 16, 8, 8)
    before = layers.layers[1](x, w[:2])
    layers.layers[1].conv.weight.data *= 7
    assert torch.allclose(layers.layers[1](x, w[:2]), before, atol=1e-4), "weights times 7: expected demodulation to undo it."
    for layer in layers.layers[:-1]:
        layer.noise_scale.data += 1
    assert torch.equal(layers(z), layers(z)), "outside of training: expected the same noise each time."
    layers.train()
    assert not torch.equal(layers(z), layers(z)), "in training: expected fresh noise each time."


@passes
def test_carry_over(carry_over, build_network):
    cap = {"cap": 16}
    for size, shared in ((32, 3), (64, 4)):
        old, new = build_network(8, 12, 10, size, cap, cap), build_network(4, 6, 10, 2 * size, cap, cap)
        run = types.SimpleNamespace(parts=dict(zip("DG", old)), folder="old")
        carry_over(run, *new)
        for name, one, other, order in zip("DG", old, new, (-1, 1)):
            weights = ([p for p in net.parameters() if p.ndim > 1][::order] for net in (one, other))
            came = sum(a.shape == b.shape and torch.equal(a, b) for a, b in zip(*weights))
            assert came == shared, f"{name} from {size} to {2 * size}: expected {shared} layers carried over, came {came}."
        z, depth = torch.randn(5, 10), 3 * shared + 1  # layers up to the last hidden one of the smaller generator
        features = [net.layers[:depth](z) for net in (old[1], new[1])]
        assert torch.allclose(*features, atol=1e-5), f"from {size}: expected the same features of the same latents."
    assert_refuses(lambda: carry_over(run, *build_network(5, 7, 10, 128)), "networks that do not fit", "no_layer")


@passes
def test_as_table(as_table):
    table = as_table({"one": [2.0, 9.0, 0.5, 0.1, 0.3, 100], "two": [1.0, 8.0, 0.9, 0.05, 0.12, 50], "three": None},
                     [0.5, 5.0, 0.9, 0.9, 0.1])
    for line in ("| one | 2.0 | 9.0 | 50% | **10%** | 0.300 | **100** |", "| two | **1.0** | **8.0** | **90%** | 5% | **0.120** | 50 |",
                 "| three | diverged |  |  |  |  |  |", "| real faces | 0.5 | 5.0 | 90% | 90% | 0.100 |  |"):
        assert line in table.splitlines(), f"expected the line {line}, came {table}"
    assert "diverged" in as_table({"one": None}, [0.5, 5.0, 0.9, 0.9, 0.1]), "all diverged: expected a table all the same."


@passes
def test_orders(orders, draw_to_order, Generator):
    usual = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 0, 0.0]])
    assert orders(usual).tolist() == [[1, 0, 0], [0, 0, 0], [1, 1, 0], [1, 0, 1]], f"labels that go together: came {orders(usual)}"
    assert orders(torch.eye(3)).tolist() == torch.eye(3).tolist(), "labels that exclude each other: expected each alone."
    G, z = Generator(10, 4, 16, n_labels=3).eval(), torch.randn(120, 10)
    labels = usual.repeat(40, 1)
    faces = draw_to_order(G, z, labels)
    assert_shape("draw_to_order", faces, (120, 3, 16, 16))
    for module in G.modules():  # fresh weights are so small that all faces are grey
        if isinstance(module, (nn.Linear, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0, 0.3)
    faces, alone, other = (draw_to_order(G, x, y) for x, y in ((z, labels), (z[:1], labels[:1]), (z[:1], 1 - labels[:1])))
    assert (alone - faces[:1]).abs().mean() < 0.02, "expected the same face in any batch."
    assert (other - faces[:1]).abs().mean() > 0.1, "other labels: expected another face of the same latent."


@passes
def test_reader(reader, read_logits):
    light = torch.arange(60) % 2 == 0
    faces = 0.1 * torch.randn(60, 3, 16, 16) + 0.5 * (2 * light.float() - 1)[:, None, None, None]
    read = reader(faces[:40], light[:40, None].float(), epochs=3, batch_size=10)
    logits = read_logits(read, faces[40:])
    assert_shape("read_logits", logits, (20, 1))
    assert ((logits[:, 0] > 0) == light[40:]).float().mean() > 0.9, f"light or dark: expected it to be told, came {logits.T}."
    assert not any(weight.requires_grad for weight in read.parameters()), "expected a reader that learns no more."
    assert torch.equal(logits, read_logits(read, faces[40:])), "expected the same answer again: is it in eval mode?"


@passes
def test_skin_band(skin_band):
    images, _ = helpers.draw_faces(120, 32, seed=5)
    faces = [helpers.DecodedFaces((images * light).to(torch.uint8), torch.zeros(120, dtype=torch.int64), ["."]) for light in (1, 0.6)]
    as_they_are, darker = map(skin_band, faces)
    assert_shape("skin_band", as_they_are, (120,))
    assert set(as_they_are.tolist()) <= set(range(6)) and len(set(as_they_are.tolist())) > 3, f"expected bands 0 to 5, came {as_they_are}."
    assert darker.float().mean() < as_they_are.float().mean() - 0.5, "less light: expected darker bands, with lower numbers."


@passes
def test_agreement(agreement):
    labels = torch.tensor([[1, 0], [1, 0], [0, 0], [0, 1.0]])
    for said, expected in (([[1, 0], [1, 0], [0, 0], [0, 1]], [1, 1]), ([[0, 0]] * 4, [0.5, 0.5]), ([[1, 1]] * 4, [0.5, 0.5]),
                           ([[1, 1], [0, 0], [0, 1], [0, 1]], [0.75, (1 + 1 / 3) / 2])):
        came = agreement(torch.tensor(said) * 6.0 - 3, labels).tolist()
        assert np.allclose(came, expected), f"{said} of {labels.tolist()}: expected {expected}, came {came}."


@passes
def test_unpaired(Unpaired):
    class Pile(list):
        def __getitems__(self, rows):
            return torch.stack([self[row] for row in rows]), None

    few, many, others = (Pile(torch.full((3, 4, 4), x + i / 100) for i in range(n)) for x, n in ((0, 3), (0.5, 20), (0.2, 20)))
    for a, b in ((few, many), (many, few), (many, others)):
        both, seen, pairs = Unpaired(a, b), [set(), set()], set()
        assert len(both) == 20, f"piles of {len(a)} and {len(b)}: expected a length of 20, came {len(both)}."
        for _ in range(20):
            images = both.__getitems__(list(range(20)))
            for pile, served in zip(seen, images):
                assert_shape("images", served, (20, 3, 4, 4))
                pile |= {round(x, 2) for x in served[:, 0, 0, 0].tolist()}
            pairs |= set(zip(*(served[:, 0, 0, 0].tolist() for served in images)))
        assert [len(pile) for pile in seen] == [len(a), len(b)], "expected every face of both piles, and no other, to be served."
        assert len(pairs) > 40, f"expected changing pairs, came {len(pairs)} different ones of piles of {len(a)} and {len(b)}."


@passes
def test_translator(Translator):
    blocks = []
    for size in (32, 64, 128):
        net, x = Translator(4, size), pictures(2, size)
        y = net(x)
        assert_shape(f"Translator(4, {size})", y, (2, 3, size, size))
        assert y.abs().max() <= 1, f"expected values in [-1, 1], came {y.abs().max():.2f}."
        assert (y - x).abs().mean() < 0.15, "a fresh translator: expected to change next to nothing."
        assert torch.allclose(net(x[:1]), y[:1], atol=1e-4), "expected each picture to be taken by itself."
        blocks.append(sum(type(layer).__name__ == "ResidualBlock" for layer in net.modules()))
    assert blocks[0] < blocks[1] < blocks[2], f"expected more residual blocks for larger images, came {blocks}."
    assert_learns(Translator(4, 32), pictures(2, 32) * 0.5)


@passes
def test_patch_discriminator(PatchDiscriminator):
    for size in (32, 64, 128):
        net, x = PatchDiscriminator(4, size).eval(), pictures(2, size)
        logits = net(x)
        assert logits.ndim == 4 and logits.shape[:2] == (2, 1) and logits.shape[-1] > 3, (
            f"at {size}: expected logits (2, 1, s, s), came {tuple(logits.shape)}.")
    x.requires_grad_()
    net = PatchDiscriminator(4, 128)
    for layer in list(net.modules()):  # it would carry news from everywhere
        if isinstance(layer, nn.InstanceNorm2d):
            layer.forward = lambda x: x
    net(x)[0, 0, 5, 5].backward()
    rows = x.grad[0].abs().sum((0, 2)).nonzero()
    extent = (rows.max() - rows.min() + 1).item()
    assert 20 <= extent <= 70, f"expected a logit to see a patch of 20 to 70 pixels, came {extent}."
    assert_learns(PatchDiscriminator(4, 32), pictures(2, 32))


@passes
def test_image_pool(ImagePool):
    pool, given = ImagePool(4), []
    for i in range(400):
        given += pool.exchange(torch.full((2, 3, 4, 4), float(i)))[:, 0, 0, 0].tolist()
    assert given[:50] == [i // 2 for i in range(50)], "the first 50: expected each back as it came."
    older = np.mean([x < i // 2 for i, x in enumerate(given[50:], 50)])
    assert 0.4 < older < 0.6, f"later: expected half of them to be older ones, came {older:.0%}."
    assert len(set(given)) > 200 and len(pool.images.flatten(1).unique(dim=0)) > 20, "expected fresh ones to be kept."
    other = ImagePool(4)
    other.load_state_dict(pool.state_dict())
    assert torch.equal(other.images, pool.images) and other.count == pool.count, "expected the pool to go with the checkpoint."


@passes
def test_swap_step(swap_step, losses_of):
    class Shift(nn.Module):
        """Adds a number: to put on is to become lighter."""
        def __init__(self, start):
            super().__init__()
            self.amount = nn.Parameter(torch.tensor(start))

        def forward(self, x):
            return x + self.amount

    class Judge(nn.Module):
        """Looks at the mean alone."""
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(1, 1)

        def forward(self, x):
            return self.line(x.mean((1, 2, 3))[:, None])

    class Straight(nn.Module):
        def exchange(self, images):
            assert not images.requires_grad, "the pool: expected images without a graph (detach)."
            return images

    a, b = -0.3 + 0.05 * torch.randn(16, 3, 4, 4), 0.3 + 0.05 * torch.randn(16, 3, 4, 4)
    for weights, t_expected in (({"cycle": 0.0, "identity": 0.0}, 0.0), ({"cycle": 10.0, "identity": 0.0}, 10 * 2 * 0.1),
                                ({"cycle": 10.0, "identity": 5.0}, 10 * 2 * 0.1 + 5 * (0.2 + 0.1))):
        translators, judges = nn.ModuleList([Shift(0.2), Shift(-0.1)]), nn.ModuleList([Judge(), Judge()])
        for judge in judges:
            nn.init.zeros_(judge.line.weight)
            nn.init.ones_(judge.line.bias)  # convinced already
        before = copy.deepcopy((translators, judges))
        optimizers = torch.optim.SGD(translators.parameters(), 0.0), torch.optim.SGD(judges.parameters(), 0.1)
        losses = swap_step(translators, judges, [Straight(), Straight()], a, b, *optimizers, **weights)
        assert not any(loss.requires_grad for loss in losses), "expected detached losses."
        assert abs(losses[1] - t_expected) < 0.02, f"{weights}: expected a translators' loss of {t_expected:.2f}, came {losses[1]:.3f}."
        assert abs(losses[0] - 1) < 0.02 or abs(losses[0] - 2) < 0.02, f"least squares: expected 1 or 2 of the judges, came {losses[0]:.3f}."
        same = [all(torch.equal(p, q) for p, q in zip(x.parameters(), y.parameters())) for x, y in zip(before, (translators, judges))]
        assert same == [True, False], "rates of 0 and 0.1: expected the translators to rest and the judges to move."
    translators, judges = nn.ModuleList([Shift(0.0), Shift(0.0)]), nn.ModuleList([Judge(), Judge()])
    optimizers = torch.optim.Adam(translators.parameters(), 0.01), torch.optim.Adam(judges.parameters(), 0.05)
    for _ in range(300):
        swap_step(translators, judges, [Straight(), Straight()], a, b, *optimizers, cycle=1.0, identity=0.0)
    amounts = [t.amount.item() for t in translators]
    assert amounts[0] > 0.2 and amounts[1] < -0.2, f"piles 0.6 apart: expected translators near 0.6 and -0.6, came {amounts}."
    for judge in judges:
        nn.init.zeros_(judge.line.weight)
        nn.init.ones_(judge.line.bias)
    loss = swap_step(translators, judges, [Straight(), Straight()], a, b, *optimizers, loss="cross-entropy", cycle=0, identity=0)[1]
    assert abs(loss - 2 * math.log(1 + math.exp(-1))) < 0.01, f"DiscoGAN's form, logits of 1: expected 0.627, came {loss:.3f}."


@passes
def test_swap_errors(swap_errors):
    before, region = pictures(4, 32) * 0.5, torch.zeros(4, 1, 32, 32)
    region[:, :, 16:] = 1
    wanted = before + 0.2 * region
    for what, came, expected in (("as wanted", wanted, (0, 1, 0)), ("nothing", before, (0.2, None, 0)),
                                 ("everywhere", before + 0.2, (0, None, 1)), ("half outside", wanted + 0.1 * (1 - region), (0, None, 0.5))):
        errors = swap_errors(before, came, wanted, region)
        for name, value, target in zip(("L1", "SSIM", "outside"), errors, expected):
            assert target is None or abs(value - target) < 0.02, f"{what}: expected {name} {target}, came {value:.3f}."
    worse = [swap_errors(before, wanted + noise * torch.randn_like(wanted), wanted, region)[1] for noise in (0.02, 0.1, 0.5)]
    assert worse[0] > worse[1] > worse[2], f"more noise: expected less SSIM, came {worse}."


@passes
def test_same_person(same_person):
    faces = helpers.draw_faces(24, 32)[0] / 127.5 - 1
    for what, after, low, high in (("unchanged", faces, 1, 1), ("a little lighter", faces + 0.03, 0.9, 1),
                                   ("someone else", faces.roll(1, 0), 0, 0), ("all the same", faces[:1].expand(24, -1, -1, -1), 0, 0.8)):
        share = same_person(faces, after)
        assert low <= share <= high, f"{what}: expected {low} to {high}, came {share:.2f}."


# ---------------------------------------------------------------- under pytest: definitions from the notebook

def read_notebook():
    """The notebook's imports, functions, classes and constants as a module; nothing else of it runs."""
    module = types.ModuleType(NOTEBOOK.stem)
    sys.modules[module.__name__] = module
    for number, cell in enumerate(json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and not source.startswith("%%"):
            tree = ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE))
            tree.body = [node for node in tree.body if is_definition(node)]
            exec(compile(tree, f"{NOTEBOOK.name}, cell {number}", "exec"), module.__dict__)
    return module


@pytest.fixture(scope="session")
def notebook():
    return read_notebook()


def is_definition(node):
    if isinstance(node, (ast.Assign, ast.AnnAssign)):  # a constant, such as 64, -1 or (0.5, 0.999)
        changes_something = any(isinstance(part, (ast.Attribute, ast.Subscript)) for part in ast.walk(node))
        reads_something = node.value is None or any(isinstance(part, (ast.Name, ast.Call)) for part in ast.walk(node.value))
        return not changes_something and not reads_something
    if isinstance(node, ast.Try):
        return all(isinstance(part, (ast.Import, ast.ImportFrom)) for part in node.body)
    return isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))


def definition(name):
    @pytest.fixture(name=name)
    def fixture(notebook):
        assert hasattr(notebook, name), f"{NOTEBOOK.name}: expected a definition of {name}, came none."
        return getattr(notebook, name)
    return fixture


globals().update({f"{name}_of_the_notebook": definition(name) for name in DEFINED})


# ---------------------------------------------------------------- the tests, tested
# Plain solutions, unlike the notebook's. Below them, each line changes one piece of their source:
# the result is still right, and must pass, or is wrong, and must be caught with the right message.

def check_size(image_size):
    if image_size not in (16, 32, 64, 128, 256):
        raise ValueError(f"image_size must be a power of two from 16 to 256, not {image_size}")


def plain_get_dataloader(batch_size, image_size, data_dir="processed_celeba_small/"):
    check_size(image_size)
    images, labels = [], []
    for path in sorted(Path(data_dir).rglob("*")):
        try:
            photo = Image.open(path).convert("RGB")
        except OSError:
            continue
        photo = ImageOps.fit(photo, (image_size, image_size))
        images.append(torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 255)
        labels.append(int(path.parent.name == "b"))
    if not images:
        raise ValueError(f"no images in {data_dir}")
    if not 0 < batch_size <= len(images):
        raise ValueError(f"batch size {batch_size} for {len(images)} images")
    data = torch.utils.data.TensorDataset(torch.stack(images), torch.tensor(labels))
    return torch.utils.data.DataLoader(data, batch_size, shuffle=True, drop_last=False)


def plain_scale(x, feature_range=(-1, 1)):
    low, high = feature_range
    return x * (high - low) + low


class PlainDiscriminator(nn.Module):
    def __init__(self, conv_dim, image_size=32):
        super().__init__()
        check_size(image_size)
        self.hidden = nn.Conv2d(3, conv_dim, 4, stride=4)
        self.norm = nn.BatchNorm2d(conv_dim)
        self.head = nn.Linear(conv_dim * (image_size // 4) ** 2, 1)

    def forward(self, x):
        x = F.leaky_relu(self.norm(self.hidden(x)), 0.2)
        return self.head(x.flatten(1))


class PlainGenerator(nn.Module):
    def __init__(self, z_size, conv_dim, image_size=32):
        super().__init__()
        check_size(image_size)
        self.z_size, self.side = z_size, image_size // 4
        self.first = nn.Linear(z_size, conv_dim * self.side ** 2)
        self.norm = nn.BatchNorm2d(conv_dim)
        self.last = nn.ConvTranspose2d(conv_dim, 3, 4, stride=4)

    def forward(self, z):
        x = self.first(z).view(len(z), -1, self.side, self.side)
        return self.last(F.relu(self.norm(x))).tanh()


def plain_weights_init(m):
    if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.normal_(m.weight, 0, 0.02)
        if m.bias is not None:
            nn.init.zeros_(m.bias)


def plain_build_network(d_conv_dim, g_conv_dim, z_size):
    D = PlainDiscriminator(d_conv_dim).apply(plain_weights_init)
    G = PlainGenerator(z_size, g_conv_dim).apply(plain_weights_init)
    return D, G


def plain_real_loss(D_out, smooth=False):
    label = 0.9 if smooth else 1.0
    return F.binary_cross_entropy_with_logits(D_out, torch.full_like(D_out, label))


def plain_fake_loss(D_out):
    label = 0.0
    return F.binary_cross_entropy_with_logits(D_out, torch.full_like(D_out, label))


def plain_train_step(D, G, real, d_optimizer, g_optimizer):
    z = torch.randn(len(real), G.z_size, device=real.device)
    fake = G(z)
    d_loss = plain_real_loss(D(real)) + plain_fake_loss(D(fake.detach()))
    d_optimizer.zero_grad()
    d_loss.backward()
    d_optimizer.step()
    g_loss = plain_real_loss(D(fake))
    g_optimizer.zero_grad()
    g_loss.backward()
    g_optimizer.step()
    return d_loss.detach(), g_loss.detach()


def plain_train(D, G, loader, d_optimizer, g_optimizer, n_epochs, print_every=50):
    losses, step = [], 0
    for epoch in range(n_epochs):
        for images, _ in loader:
            real = plain_scale(images)
            d_loss, g_loss = plain_train_step(D, G, real, d_optimizer, g_optimizer)
            step += 1
            if step % print_every == 0:
                losses.append((d_loss.item(), g_loss.item()))
    return losses


def plain_frechet_distance(a, b):
    if a.isnan().any():
        return math.inf
    values, vectors = torch.linalg.eigh(torch.cov(a.double().T))
    root, spread = vectors @ values.clamp(min=0).sqrt().diag() @ vectors.T, torch.cov(b.double().T)
    overlap = torch.linalg.eigvalsh(root @ spread @ root).clamp(min=0).sqrt().sum()
    return ((a.mean(0) - b.mean(0)).square().sum() + values.sum() + spread.trace() - 2 * overlap).item()


def plain_precision_recall(real, fake, k=3):
    shares = []
    for points, others in ((fake, real), (real, fake)):
        radius = [sorted(row)[k] for row in torch.cdist(others, others).tolist()]
        inside = [any(d <= r for d, r in zip(row, radius)) for row in torch.cdist(points, others).tolist()]
        shares.append(sum(inside) / len(inside))
    return tuple(shares)


def plain_copied(faces, training):
    own = torch.cdist(training, training).sort(1).values[:, 1]
    distances = torch.cdist(faces, training)
    index = distances.argmin(1)
    return index, (distances[range(len(faces)), index] < own[index]).double().mean().item()


PLAIN = {test_get_dataloader: [plain_get_dataloader], test_scale: [plain_scale],
         test_discriminator: [PlainDiscriminator], test_generator: [PlainGenerator],
         test_weights_init: [plain_weights_init], test_build_network: [plain_build_network],
         test_losses: [plain_real_loss, plain_fake_loss], test_train_step: [plain_train_step],
         test_train: [plain_train], test_frechet_distance: [plain_frechet_distance],
         test_precision_recall: [plain_precision_recall], test_copied: [plain_copied]}


def changed(solution, changes):
    """The solution with each `old -> new` carried out in its source."""
    source = inspect.getsource(solution)
    for old, new in (change.split(" -> ") for change in changes):
        source = source.replace(old, new)
    scope = dict(globals())
    exec(source, scope)
    return scope[solution.__name__]


def run_changed(test, changes):
    sources = "".join(map(inspect.getsource, PLAIN[test]))
    assert all(change.split(" -> ")[0] in sources for change in changes), f"nothing to change: {changes}"
    test(*(changed(solution, changes) for solution in PLAIN[test]))


BCE = "F.binary_cross_entropy_with_logits(D_out, torch.full_like(D_out, label))"
FAKE_LOSS = "plain_fake_loss(D(fake.detach()))"
KEEP_GRAPH = ("fake.detach() -> fake", "d_loss.backward() -> d_loss.backward(retain_graph=True)")

RIGHT = [(test, f"the plain solution of {test.__name__}") for test in PLAIN] + [
    (test_get_dataloader, "the last batch dropped", "drop_last=False -> drop_last=True"),
    (test_get_dataloader, "borders instead of a crop", "ImageOps.fit -> ImageOps.pad"),
    (test_scale, "out of place, another order", "x * (high - low) + low -> torch.lerp(torch.full_like(x, low), "
     "torch.full_like(x, high), x)"),
    (test_discriminator, "no normalisation", "nn.BatchNorm2d(conv_dim) -> nn.Identity()"),
    (test_discriminator, "instance normalisation", "nn.BatchNorm2d -> nn.InstanceNorm2d"),
    (test_discriminator, "spectral normalisation", "self.norm = -> nn.utils.parametrizations.spectral_norm(self.hidden); "
     "self.norm =", "** 2, 1) -> ** 2, 1); nn.utils.spectral_norm(self.head)"),
    (test_discriminator, "another depth", "nn.Conv2d(3, conv_dim, 4, stride=4) -> nn.Sequential(nn.Conv2d(3, 5, 4, 2, 1),"
     " nn.ELU(), nn.Conv2d(5, 9, 3, 1, 1), nn.ELU(), nn.Conv2d(9, conv_dim, 4, 2, 1, bias=False))"),
    (test_discriminator, "a convolution as the head", "nn.Linear(conv_dim * (image_size // 4) ** 2, 1) -> "
     "nn.Conv2d(conv_dim, 1, image_size // 4)", "self.head(x.flatten(1)) -> self.head(x).flatten(1)"),
    (test_discriminator, "the mean over patches", "nn.Linear(conv_dim * (image_size // 4) ** 2, 1) -> "
     "nn.Conv2d(conv_dim, 1, 1)", "self.head(x.flatten(1)) -> self.head(x).mean((2, 3))"),
    (test_generator, "upsampling and convolution", "nn.ConvTranspose2d(conv_dim, 3, 4, stride=4) -> nn.Sequential("
     "nn.Upsample(scale_factor=4), nn.ReflectionPad2d(1), nn.Conv2d(conv_dim, 3, 3))"),
    (test_generator, "no normalisation", "nn.BatchNorm2d(conv_dim) -> nn.Identity()"),
    (test_generator, "a sigmoid, stretched", ".tanh() -> .sigmoid() * 2 - 1"),
    (test_weights_init, "by the name of the layer", "isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)) -> "
     "any(kind in type(m).__name__ for kind in ('Conv', 'Linear'))", "nn.init.normal_(m.weight, 0, 0.02) -> "
     "m.weight.data.normal_(0, 0.02)"),
    (test_weights_init, "normalisation drawn around 1", "    if isinstance -> "
     "    if isinstance(m, nn.BatchNorm2d): nn.init.normal_(m.weight, 1, 0.02)\n    if isinstance"),
    (test_losses, "least squares", f"{BCE} -> ((D_out - label) ** 2).mean()"),
    (test_losses, "half least squares", f"{BCE} -> F.mse_loss(D_out, torch.full_like(D_out, label)) / 2"),
    (test_losses, "written out", f"{BCE} -> (F.softplus(D_out) - label * D_out).mean()"),
    (test_train_step, "two batches of fakes", "D(fake)) -> D(G(torch.randn_like(z))))"),
    (test_train_step, "the generator first", "    g_loss = plain_real_loss(D(fake))\n    g_optimizer.zero_grad()\n"
     "    g_loss.backward()\n    g_optimizer.step()\n -> ", "d_loss = -> g_loss = plain_real_loss(D(fake)); "
     "g_optimizer.zero_grad(); g_loss.backward(); g_optimizer.step()\n    d_loss ="),
    (test_train_step, "three steps of D", "g_loss = -> "
     f"for _ in range(2):\n        d_optimizer.zero_grad()\n        (plain_real_loss(D(real)) + {FAKE_LOSS})"
     ".backward()\n        d_optimizer.step()\n    g_loss ="),
    (test_train_step, "a step of D for each half", "d_loss = -> d_optimizer.zero_grad(); plain_real_loss(D(real))."
     "backward(); d_optimizer.step()\n    d_loss =", f"plain_real_loss(D(real)) + {FAKE_LOSS} -> {FAKE_LOSS}"),
    (test_train_step, "least squares", f"plain_real_loss(D(real)) + {FAKE_LOSS} -> "
     "((D(real) - 1) ** 2).mean() / 2 + (D(fake.detach()) ** 2).mean() / 2",
     "plain_real_loss(D(fake)) -> ((D(fake) - 1) ** 2).mean() / 2"),
    (test_train_step, "hinge", f"plain_real_loss(D(real)) + {FAKE_LOSS} -> "
     "F.relu(1 - D(real)).mean() + F.relu(1 + D(fake.detach())).mean()", "plain_real_loss(D(fake)) -> -D(fake).mean()"),
    (test_train_step, "smoothed labels", "D(real)) -> D(real), smooth=True)"),
    (test_train_step, "gradients of G alone", "g_loss.backward() -> "
     "for p, g in zip(G.parameters(), torch.autograd.grad(g_loss, G.parameters())):\n        p.grad = g"),
    (test_train_step, "a graph kept, fresh gradients", *KEEP_GRAPH, "D(fake)) -> D(G(z)))"),
    (test_train, "prints from the first step on", "% print_every == 0 -> % print_every == 1 % print_every"),
]

WRONG = [
    (test_get_dataloader, "not shuffled", "shuffle=True -> shuffle=False", "two orders"),
    (test_get_dataloader, "values to 255", " / 255 -> .float()", r"values in \[0, 1\], came \d+.00 to 2"),
    (test_get_dataloader, "scaled already", " / 255 -> / 127.5 - 1", r"values in \[0, 1\], came -"),
    (test_get_dataloader, "stretched", "ImageOps.fit(photo, -> photo.resize(", "round disc round"),
    (test_get_dataloader, "channels last", ".permute(2, 0, 1) -> ", "expected the shape"),
    (test_get_dataloader, "labels as floats", "torch.tensor(labels) -> torch.tensor(labels).float()", "labels in int64"),
    (test_get_dataloader, "the top folder alone", 'rglob("*") -> glob("*")', "no images|6 with the rest"),
    (test_get_dataloader, "any size goes", "check_size(image_size) -> None", "image_size = .* names image_size"),
    (test_get_dataloader, "any batch goes", "not 0 < batch_size <= len(images) -> batch_size < 1", "for 22 photos"),
    (test_get_dataloader, "an error of another kind", "raise ValueError(f\"no -> raise OSError(f\"no", "came OSError"),
    (test_get_dataloader, "a folder unnamed", "images in {data_dir} -> images", "names empty_folder"),
    (test_scale, "to 0..1", "(-1, 1) -> (0, 1)", "expected -1.00 to 1.00, came 0.00 to 1.00"),
    (test_scale, "the range ignored", "x * (high - low) + low -> x * 2 - 1", "expected 0.00 to 1.00, came -1.00"),
    (test_scale, "stretched to its own range", "return x -> x = (x - x.min()) / (x.max() - x.min())\n    return x",
     "smallest and largest"),
    (test_scale, "in place", "return x * (high - low) + low -> return x.mul_(high - low).add_(low)", "in place"),
    (test_discriminator, "the wrong shape", "self.head(x.flatten(1)) -> self.head(x.flatten(1))[:, 0]",
     r"expected the shape \(2, 1\), came \(2,\)"),
    (test_discriminator, "one logit in a batch", "self.head(x.flatten(1)) -> self.head(x.flatten(1)).mean(0, True)",
     "expected the shape"),
    (test_discriminator, "a sigmoid at the end", "return self.head(x.flatten(1)) -> "
     "return self.head(x.flatten(1)).sigmoid()", "raw logits .* came 0.00 to 1.00"),
    (test_discriminator, "a tanh at the end", "return self.head(x.flatten(1)) -> "
     "return self.head(x.flatten(1)).tanh()", "raw logits .* came -1.00 to 1.00"),
    (test_discriminator, "a relu at the end", "return self.head(x.flatten(1)) -> "
     "return self.head(x.flatten(1)).relu()", "raw logits .* came 0.00"),
    (test_discriminator, "the image ignored", "self.hidden(x) -> self.hidden(0 * x)", "different logits"),
    (test_discriminator, "a layer unused", "self.norm(self.hidden(x)) -> self.hidden(x)",
     "gradient for norm.weight, came none"),
    (test_discriminator, "detached", "x.flatten(1) -> x.flatten(1).detach()", "gradient for hidden.weight"),
    (test_discriminator, "one image size", "image_size // 4 -> 8", "expected a result, came RuntimeError"),
    (test_discriminator, "any size goes", "check_size(image_size) -> None", "names image_size, came"),
    (test_generator, "the wrong shape", "conv_dim, 3, 4 -> conv_dim, 1, 4", r"expected the shape \(2, 3, 16, 16\)"),
    (test_generator, "a sigmoid at the end", ".tanh() -> .sigmoid()", "from -1 to 1, came 0.00 to 1.00"),
    (test_generator, "nothing at the end", ".tanh() -> ", "from -1 to 1, came -[1-9]"),
    (test_generator, "z ignored", "self.first(z) -> self.first(torch.ones_like(z))", "different images"),
    (test_generator, "conv_dim ignored", "check_size(image_size) -> check_size(image_size); conv_dim = 8",
     "more weights with 16"),
    (test_generator, "z_size forgotten", "self.z_size, self.side = z_size, -> self.side =", "G.z_size: expected 10"),
    (test_generator, "any size goes", "check_size(image_size) -> None", "names image_size, came"),
    (test_weights_init, "0.2 for 0.02", "0.02 -> 0.2", r"deviation 0.02, came .* and 0\.(19|20)"),
    (test_weights_init, "uniform", "normal_(m.weight, 0, 0.02) -> uniform_(m.weight, -0.0346, 0.0346)", "uniform?"),
    (test_weights_init, "biases untouched", "nn.init.zeros_(m.bias) -> None", "expected 0, came 0.3"),
    (test_weights_init, "linear layers left out", ", nn.Linear -> ", "Weights of Linear.* expected mean 0"),
    (test_weights_init, "normalisation too", "nn.Linear -> nn.Linear, nn.BatchNorm2d", "weights near 1"),
    (test_weights_init, "a bias expected", "if m.bias is not None -> if True", "came AttributeError"),
    (test_build_network, "G before D", "return D, G -> return G, D", "gives D, G"),
    (test_build_network, "D not initialised", "(d_conv_dim).apply(plain_weights_init) -> (d_conv_dim)", "D.apply"),
    (test_build_network, "G not initialised", "g_conv_dim).apply(plain_weights_init) -> g_conv_dim)", "G.apply"),
    (test_build_network, "one conv_dim for both", "z_size, g_conv_dim -> z_size, d_conv_dim", "d_conv_dim to change D"),
    (test_losses, "the input ignored", "(D_out, torch.full_like -> (0 * D_out, torch.full_like", "to depend on D_out"),
    (test_losses, "swapped", "label = 0.0 -> label = 1.0", "Are the labels swapped"),
    (test_losses, "a sum", "label)) -> label), reduction='sum')", "the mean over the images"),
    (test_losses, "not reduced", "label)) -> label), reduction='none')", r"expected the shape \(\), came \(6, 1\)"),
    (test_losses, "a sigmoid too many", "logits(D_out, -> logits(D_out.sigmoid(),", "expected one of"),
    (test_losses, "the logarithm overflows", f"{BCE} -> -(D_out.sigmoid() if label else 1 - D_out.sigmoid()).log().mean()",
     "expected finite numbers"),
    (test_losses, "smoothing ignored", "0.9 if smooth else 1.0 -> 1.0", "smooth=True to cost more"),
    (test_losses, "smoothed to the wrong side", "0.9 if smooth -> 0.1 if smooth", "close to 1"),
    (test_losses, "detached", "return F -> D_out = D_out.detach()\n    return F", "came RuntimeError|gradient"),
    (test_losses, "labels on the CPU", "torch.full_like(D_out, label) -> torch.full(D_out.shape, label)",
     "on D_out.device|came RuntimeError|device"),
    (test_losses, "in place", "return F -> with torch.no_grad(): D_out.clamp_(-1, 1)\n    return F", "changed in place"),
    (test_train_step, "D never updated", "d_optimizer.step() -> None", r"D: expected to be trained"),
    (test_train_step, "G never updated", "g_optimizer.step() -> None", r"G: expected to be trained"),
    (test_train_step, "G cut off from its loss", "D(fake)) -> D(fake.detach()))", "G: expected to be trained"),
    (test_train_step, "G updated in D's step", *KEEP_GRAPH, "d_optimizer.step() -> d_optimizer.step(); g_optimizer.step()",
     "D(fake)) -> D(G(z)))", r"D\(G\(z\)\) to rise|about the same"),
    (test_train_step, "G moved by hand", "g_loss = -> [p.data.mul_(0.9) for p in G.parameters()]\n    g_loss =",
     r"move only in g_optimizer.step\(\)"),
    (test_train_step, "not detached", "fake.detach() -> fake", "came RuntimeError.* second time"),
    (test_train_step, "D's gradients in G's step", *KEEP_GRAPH, "g_optimizer.zero_grad() -> None",
     "d_optimizer.zero_grad() -> d_optimizer.zero_grad(); g_optimizer.zero_grad()", r"D\(G\(z\)\) to rise"),
    (test_train_step, "G's gradients in D's step", "    d_optimizer.zero_grad() -> ",
     "d_optimizer.step() -> d_optimizer.step(); d_optimizer.zero_grad()", "D's gradients"),
    (test_train_step, "D's gradients never cleared", "d_optimizer.zero_grad() -> None", "d_optimizer.zero_grad"),
    (test_train_step, "G's gradients never cleared", "g_optimizer.zero_grad() -> None", "g_optimizer.zero_grad"),
    (test_train_step, "D's labels swapped", f"plain_real_loss(D(real)) + {FAKE_LOSS} -> plain_fake_loss(D(real)) + "
     "plain_real_loss(D(fake.detach()))", r"D\(real\) - D\(fake\) to grow"),
    (test_train_step, "no fakes for D", f" + {FAKE_LOSS} -> ", r"D\(fake\) to fall|d_loss above"),
    (test_train_step, "no real images for D", f"plain_real_loss(D(real)) + {FAKE_LOSS} -> {FAKE_LOSS}", "two halves"),
    (test_train_step, "G helps D", "plain_real_loss(D(fake)) -> plain_fake_loss(D(fake))", r"D\(G\(z\)\) to rise"),
    (test_train_step, "live losses", "return d_loss.detach() -> return d_loss", "d_loss: expected a detached number"),
    (test_train_step, "losses in the other order", "return d_loss.detach(), g_loss.detach() -> "
     "return g_loss.detach(), d_loss.detach()", "d_loss above g_loss"),
    (test_train_step, "a global read", "G.z_size -> len(DEFINED)", "the global DEFINED"),
    (test_train_step, "latents of a fixed size", "G.z_size -> 10", "latents of shape"),
    (test_train_step, "uniform latents", "torch.randn( -> torch.rand(", r"expected N\(0, 1\)"),
    (test_train_step, "D left frozen", "return d_loss -> D.requires_grad_(False)\n    return d_loss", "requires_grad|came RuntimeError"),
    (test_train, "D never updated", "real, d_optimizer -> real, torch.optim.SGD(D.parameters(), 0)",
     "D: expected to be trained"),
    (test_train, "G never updated", "g_optimizer) -> torch.optim.SGD(G.parameters(), 0))",
     "G: expected to be trained"),
    (test_train, "a copy trained", "_step(D, G -> _step(D, copy.deepcopy(G)", "G: expected to be trained"),
    (test_train, "not scaled", "plain_scale(images) -> images", "expected -1 to 1, as G makes them, came 0.00"),
    (test_train, "scaled twice", "plain_scale(images) -> plain_scale(plain_scale(images))", "came -3.00"),
    (test_train, "one epoch", "range(n_epochs) -> range(1)", "expected 6 pairs"),
    (test_train, "print_every ignored", "step % print_every == 0 -> True", "expected 6 pairs"),
    (test_train, "not a number", "d_loss.item() -> float('nan')", "one finite number, came nan"),
    (test_train, "one loss", "(d_loss.item(), g_loss.item()) -> (d_loss.item(),)", "the pair d_loss, g_loss"),
    (test_train, "live losses", "d_loss.item() -> d_loss.requires_grad_()", "keeps its graph"),
    (test_train, "a global read", "range(n_epochs) -> range(n_epochs or len(DEFINED))", "the global DEFINED"),
    (test_frechet_distance, "the mean alone", " + values.sum() + spread.trace() - 2 * overlap -> ", "stretched: expected .* came 0"),
    (test_frechet_distance, "the mean ignored", "(a.mean(0) - b.mean(0)).square() -> 0 * a", "moved: expected .* of 5, came"),
    (test_frechet_distance, "not squared", "square() -> abs()", "moved: expected .* of 5, came"),
    (test_frechet_distance, "the overlap once", "2 * overlap -> overlap", "the same twice: expected .* of 0"),
    (test_frechet_distance, "no root", ".clamp(min=0).sqrt().sum() -> .sum()", "stretched"),
    (test_frechet_distance, "variances alone", "torch.linalg.eigvalsh(root @ spread @ root) -> (values * spread.diagonal())", "turned"),
    (test_precision_recall, "swapped", "(fake, real), (real, fake) -> (real, fake), (fake, real)", "one kind of two"),
    (test_precision_recall, "the face as its own neighbour", "sorted(row)[k] -> sorted(row)[0]", "half of them strangers"),
    (test_precision_recall, "one radius for all", "d <= r for -> d <= 5 for", "beside a dense crowd"),
    (test_copied, "the face as its own neighbour", ".values[:, 1] -> .values[:, 0]", "copies"),
    (test_copied, "the index of the neighbour", "distances.argmin(1) -> distances.argsort(1)[:, 1]", "copies"),
    (test_copied, "further for nearer", "index] < own -> index] > own", "copies"),
]


def named(rows):
    return {"argvalues": rows, "ids": [f"{row[0].__name__[5:]}: {row[1]}" for row in rows]}


@pytest.mark.parametrize("row", **named(RIGHT))
def test_right_solutions_pass(row, capsys):
    test, _, *changes = row
    run_changed(test, changes)
    assert capsys.readouterr().out == "Tests Passed\n"


@pytest.mark.parametrize("row", **named(WRONG))
def test_wrong_solutions_are_caught(row):
    test, _, *changes, message = row
    with pytest.raises(AssertionError, match=f"(?s){message}"):
        run_changed(test, changes)


# ---------------------------------------------------------------- helpers: getting the data

@contextlib.contextmanager
def serve(answer):
    """A local HTTP server; `answer(handler)` handles each GET. Yields its address."""
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            with contextlib.suppress(ConnectionError):
                answer(self)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/faces.zip"
        server.shutdown()


def file_answer(content, claimed=None):
    """An answer that sends `content`, or the part asked for; `claimed`: a Content-Length that lies."""
    def answer(handler):
        first = int(handler.headers.get("Range", "bytes=0-")[6:].rstrip("-"))
        handler.send_response(206 if first else 200)
        handler.send_header("Content-Length", str(claimed or len(content) - first))
        handler.end_headers()
        handler.wfile.write(content[first:])
        answer.sent.append(len(content) - first)

    answer.sent = []
    return answer


def photo_bytes(shade=200):
    buffer = io.BytesIO()
    Image.new("RGB", (20, 30), (shade, 90, 60)).save(buffer, "JPEG")
    return buffer.getvalue()


def archive(names=None, change=None, compression=zipfile.ZIP_STORED):
    """The bytes of a zip laid out as the published one, quirks included."""
    names = names or ["faces/celeba/000001.jpg", "faces/celeba/New Folder With Items/000002.jpg", "faces/.DS_Store",
                      "__MACOSX/faces/celeba/._000001.jpg", "faces/celeba/notes.txt"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as pack:
        for name in names:
            member = zipfile.ZipInfo(name)
            member.compress_type = compression
            if change:
                change(member)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a name that comes twice
                pack.writestr(member, photo_bytes())
    return buffer.getvalue()


def of_kind(kind):
    """Makes an entry of a zip a link, a device ..."""
    return lambda member: setattr(member, "external_attr", (kind | 0o777) << 16)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def empty_place(tmp_path, monkeypatch):
    """An empty working folder, in which caches and drawn faces may be left."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_archive_over_http(empty_place, capsys):
    content = archive()
    with serve(file_answer(content)) as url:
        folder = helpers.find_data("faces_here", url, sha256(content))
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    assert found == ["celeba/000001.jpg", "celeba/000002.jpg"], f"expected the two images alone, came {found}"
    assert "Data: 2 images downloaded" in capsys.readouterr().out, "expected one line that says where the data is from"
    helpers.find_data("faces_here", "http://127.0.0.1:9/gone.zip")
    assert "found in faces_here" in capsys.readouterr().out, "expected the folder to be used the next time"


def test_archive_from_a_file(empty_place):
    Path("faces.zip").write_bytes(archive())
    url = Path("faces.zip").resolve().as_uri()
    assert len(list(helpers.find_images(helpers.find_data("faces_here", url)))) == 2, "expected file:// addresses to work"


def test_download_goes_on_where_it_stopped(empty_place):
    content = archive()
    partial = Path("got.partial")
    partial.write_bytes(content[:100])
    answer = file_answer(content)
    with serve(answer) as url:
        path = helpers.download(url, "got", sha256(content))
    assert answer.sent == [len(content) - 100], f"expected only the rest to be sent, came {answer.sent}"
    assert path.read_bytes() == content and not partial.exists(), "expected the whole archive, and no partial file left"


def test_a_download_that_breaks_off_is_not_taken_for_whole(empty_place):
    content = archive()
    with serve(file_answer(content[:150], claimed=len(content))) as url:
        with pytest.raises(helpers.Unreachable, match="broke off"):
            helpers.download(url, "got", sha256(content))
    assert not Path("got.zip").exists(), "expected no archive under its final name"
    with serve(file_answer(content)) as url:
        assert helpers.download(url, "got", sha256(content)).read_bytes() == content, "expected it to be completed"


def test_a_web_page_spares_what_was_downloaded(empty_place):
    def page(handler):  # without a Content-Length, as login pages are often sent
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"<!doctype html><html>Please log in</html>")

    Path("got.partial").write_bytes(archive()[:100])
    with serve(page) as url, pytest.raises(helpers.DataError, match="web page"):
        helpers.download(url, "got", next(iter(helpers.PUBLISHED_BYTES)))
    assert Path("got.partial").read_bytes() == archive()[:100], "expected the part that is there to be kept"


def test_an_archive_that_was_fetched_is_not_fetched_again(empty_place):
    answer = file_answer(archive())
    with serve(answer) as url:
        assert helpers.download(url, "got") == helpers.download(url, "got"), "expected the same file"
    assert len(answer.sent) == 1, f"expected one download, came {len(answer.sent)}"


@pytest.mark.parametrize("content, sha, message", [
    (b"<!DOCTYPE html><html><body>Quota exceeded</body></html>", None, r"web page \(HTML\)"),
    (b"\x1f\x8b not a zip", None, "not a zip archive"),
    (archive(), "0" * 64, "wrong sha256"),
    (archive(), next(iter(helpers.PUBLISHED_BYTES)), "wrong size"),
    (archive()[:-30], None, "cannot be unpacked"),
    (archive().replace(b"JFIF", b"FIFJ", 1), None, "cannot be unpacked"),
    (archive(["faces/notes.txt"]), None, "no images"),
    (archive(["faces/../../out.jpg"]), None, "leads outside"),
    (archive(["/etc/out.jpg"]), None, "leads outside"),
    (archive(["C:/out.jpg"]), None, "leads outside"),
    (archive(["faces\\..\\out.jpg"]), None, "leads outside"),
    (archive(change=of_kind(stat.S_IFLNK)), None, "is a link or a device"),
    (archive(change=of_kind(stat.S_IFBLK)), None, "is a link or a device"),
    (archive(change=of_kind(stat.S_IFIFO)), None, "is a link or a device"),
    (archive(["faces/1.jpg"]).replace(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0"), None, "encrypted"),
    (archive(["faces/1.jpg", "faces/1.jpg/2.jpg"]), None, "cannot be unpacked"),
    (archive(compression=zipfile.ZIP_BZIP2).replace(b"BZh9", b"BZh0"), None, "cannot be unpacked"),
    (archive(compression=zipfile.ZIP_LZMA).replace(b"\x5d\0\0", b"\xff\0\0"), None, "cannot be unpacked"),
    (archive(["faces/" + 300 * "x" + ".jpg"]), None, "cannot be unpacked"),
    (archive(["faces/\xe9\u8138.jpg"]).replace("\u8138".encode(), b"\xff\xff\xff"), None, "cannot be unpacked"),
    (archive(["faces/1.jpg"]).replace(b"PK\3\4\x14\0\0\0\0\0", b"PK\3\4\x14\0\0\0\x63\0")
     .replace(b"PK\1\2\x14\3\x14\0\0\0\0\0", b"PK\1\2\x14\3\x14\0\0\0\x63\0"), None, "cannot be unpacked"),
    (b"", None, "not a zip archive"),
    (b"PK\5\6" + bytes(18), None, "no images"),
    (b"PK\3\4 and nothing more", None, "cannot be unpacked"),
], ids=["html", "gzip", "sha256", "size", "truncated", "damaged", "no images", "dot dot", "absolute", "drive", "backslash", "link",
        "device", "pipe", "encrypted", "file as folder", "damaged bzip2",
        "damaged lzma", "endless name", "name that is no text", "unknown compression", "empty", "empty zip",
        "only a signature"])
def test_wrong_archives_are_refused(empty_place, content, sha, message):
    with serve(file_answer(content)) as url:
        with pytest.raises(helpers.DataError, match=message) as caught:
            helpers.find_data("faces_here", url, sha)
    assert 'data_dir = "drawn"' in str(caught.value), f"expected the way out in the message, came: {caught.value}"
    left = [path.name for path in empty_place.iterdir() if path.name != "cache"]
    assert not left, f"expected nothing half-unpacked, came {left}"


def test_a_huge_archive_is_refused(empty_place, monkeypatch):
    Path("huge.zip").write_bytes(archive(["faces/1.jpg"]))
    monkeypatch.setattr(helpers, "MAX_UNPACKED_BYTES", 10)
    with pytest.raises(helpers.DataError, match="more than"):
        helpers.unpack("huge.zip", "faces_here")


@hypothesis.settings(SEARCH, max_examples=200)
@given(names=st.lists(st.text(st.sampled_from("ab./\\: é脸\u202e\n~$"), min_size=1, max_size=12), min_size=1, max_size=3))
def test_no_name_in_an_archive_leads_outside(empty_place, names):
    with tempfile.TemporaryDirectory(dir=".") as place:
        Path(place, "a.zip").write_bytes(archive([f"{name}.jpg" for name in names]))
        with contextlib.suppress(helpers.DataError, OSError):
            helpers.unpack(f"{place}/a.zip", f"{place}/in/here")
        outside = [path for path in Path(place).rglob("*") if path.is_file() and "here" not in path.parts and path.name != "a.zip"]
        assert not outside and os.listdir() == [Path(place).name], f"{names}: expected nothing outside, came {outside}"


def test_an_archive_stays_when_the_disk_is_full(empty_place, monkeypatch):
    Path("faces.zip").write_bytes(archive())

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(helpers.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="cannot be unpacked into faces_here: No space left"):
        helpers.find_data("faces_here", Path("faces.zip").resolve().as_uri())
    assert list(Path("cache").glob("*.zip")), "expected the archive to be kept"
    assert not Path("faces_here").exists(), "expected nothing half-unpacked"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/refused.zip", "http://no-such-host.invalid/faces.zip",
                                 "file:///no/such/file.zip", "", "dead"])
def test_no_network_means_drawn_faces_within_seconds(empty_place, capsys, url):
    def dead_link(handler):
        handler.send_error(404)

    started = time.perf_counter()
    with serve(dead_link) as dead:
        folder = helpers.find_data("faces_here", dead if url == "dead" else url, n_drawn=8)
    assert len(list(helpers.find_images(folder))) == 8 and "8 drawn faces" in capsys.readouterr().out, "expected 8 drawn faces"
    assert time.perf_counter() - started < 25, "expected the drawn faces within seconds"


def test_a_server_that_hangs_is_given_up(empty_place):
    def half(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(archive())))
        handler.end_headers()
        handler.wfile.write(archive()[:200])
        handler.wfile.flush()
        time.sleep(4)

    for answer, message in ((lambda handler: time.sleep(4), "cannot be reached"), (half, "broke off")):
        with serve(answer) as url, pytest.raises(helpers.Unreachable, match=message):
            helpers.download(url, "got", timeout=0.5)


def test_a_redirect_to_a_login_page_is_told(empty_place):
    def answer(handler):
        handler.send_response(200 if "login" in handler.path else 302)
        handler.send_header("Location", "/login")
        handler.end_headers()
        handler.wfile.write(b"<html>Please log in</html>" if "login" in handler.path else b"")

    with serve(answer) as url, pytest.raises(helpers.DataError, match="sends on to .*/login, which answers with a web page"):
        helpers.download(url, "got")


def test_a_full_disk_ends_a_download_but_keeps_its_beginning(empty_place, monkeypatch):
    def full(n):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(helpers, "progress", lambda **kwargs: contextlib.nullcontext(types.SimpleNamespace(update=full)))
    with serve(file_answer(archive())) as url, pytest.raises(OSError, match="The disk is full.*to go on from there"):
        helpers.download(url, "got")
    assert Path("got.partial").exists() and not Path("got.zip").exists(), "expected the partial file kept"


def test_folders_that_do_not_work(empty_place):
    Path("empty").mkdir()
    Path("file.txt").write_text("no folder", encoding="utf-8")
    for name, message in (("empty", "holds no images"), ("file.txt", "is not a folder")):
        with pytest.raises(helpers.DataError, match=f"{name}.*{message}"):
            helpers.find_data(name)
    with pytest.raises(helpers.DataError, match="not an address"):
        helpers.find_data("nowhere", "faces.zip")


# ---------------------------------------------------------------- helpers: drawn faces

def test_drawn_faces_are_the_same_for_the_same_seed():
    images, attributes = helpers.draw_faces(40, 32, seed=3)
    assert images.shape == (40, 3, 32, 32) and images.dtype == torch.uint8, "expected uint8 (n, 3, S, S)"
    again, _ = helpers.draw_faces(12, 32, seed=3, first=20)
    assert torch.equal(images[20:32], again), "expected face 20 to be the same face in any call"
    assert not torch.equal(images, helpers.draw_faces(40, 32, seed=4)[0]), "expected another seed to draw other faces"
    assert set(attributes) == set(helpers.DRAWN_ATTRIBUTES), "expected every attribute, named as CelebA names it"


def test_one_attribute_changes_and_the_rest_stays():
    without, _ = helpers.draw_faces(60, 64, seed=1, Heavy_Makeup=False)
    wearing, attributes = helpers.draw_faces(60, 64, seed=1, Heavy_Makeup=True)
    assert attributes["Heavy_Makeup"].all(), "expected makeup on everybody"
    changed = (without.int() - wearing.int()).abs().amax(1) > 8
    assert changed.flatten(1).any(1).all(), "expected makeup to be seen on every face"
    assert changed[:, :12].float().mean() < 0.01 and changed.float().mean() < 0.3, "expected hair and background untouched"
    with pytest.raises(ValueError, match="Smiling"):
        helpers.draw_faces(1, Smilng=True)


def test_drawn_people_differ_as_people_do():
    people = helpers.draw_faces(3000, 16, seed=5)[1]
    share = {name: values.float().mean().item() for name, values in people.items()}
    for name, low, high in (("Male", 0.4, 0.55), ("Young", 0.6, 0.85), ("Smiling", 0.4, 0.6), ("Eyeglasses", 0.05, 0.2)):
        assert low < share[name] < high, f"{name}: expected between {low:.0%} and {high:.0%}, came {share[name]:.0%}"
    makeup = people["Heavy_Makeup"].float()
    men, women = makeup[people["Male"]].mean(), makeup[~people["Male"]].mean()
    assert 0 < men < women < 1, f"makeup: expected a loose tie, came {men:.0%} of the men and {women:.0%} of the women"


def test_drawing_is_fast():
    times = []
    for _ in range(4):  # the best of four: other programs slow down some, never speed one up
        started = time.perf_counter()
        helpers.draw_faces(500, 64)
        times.append(time.perf_counter() - started)
    assert min(times) < 1.5, f"expected 20,000 faces in under 60 s, that is 500 in under 1.5, came {min(times):.2f} s"


# ---------------------------------------------------------------- helpers: decoding, pictures, settings

def test_faces_are_decoded_once(empty_place, get_dataloader, monkeypatch, capsys):
    save_photos(Path("photos"), 19)
    Path("photos/broken.jpg").write_bytes(photo_bytes()[:200])
    Path("photos/text.png").write_text("no picture", encoding="utf-8")
    first = get_dataloader(3, 32, "photos").dataset
    assert len(first) == 19 and "Left out 2 unreadable files, the first: broken.jpg, text.png" in capsys.readouterr().out, (
        "expected the readable images, and one line that names the others")
    with monkeypatch.context() as patch:
        patch.setattr(helpers, "_decode", lambda *args: pytest.fail("expected the pixels from the cache"))
        second = get_dataloader(3, 32, "photos").dataset
    assert torch.equal(first.images, second.images), "expected the same pixels from the cache"
    Path("photos/new.jpg").write_bytes(photo_bytes())
    Path("photos/text.png").unlink()
    assert len(get_dataloader(3, 32, "photos").dataset) == 20, "expected a changed folder to be decoded anew"
    assert get_dataloader(3, 16, "photos").dataset.images.shape[-1] == 16, "expected another size to be decoded anew"
    if os.name != "nt":
        Path("photos/gone.jpg").symlink_to("nowhere.jpg")
        assert len(get_dataloader(3, 32, "photos").dataset) == 20, "expected a file that is not there to be left out"
        assert "gone.jpg" in capsys.readouterr().out, "expected it to be named"
    Path("photos/text.png").write_text("no picture", encoding="utf-8")
    Path("photos/text2.png").write_text("no picture", encoding="utf-8")
    with pytest.raises(helpers.DataError, match="[34] of the 2[34] images in photos cannot be read, more than 10%"):
        get_dataloader(3, 32, "photos")


def anonymous_megabytes():
    """The memory of this process without the pages of mapped files; nan where there is no /proc to ask."""
    status = Path("/proc/self/status")
    return int(re.search(r"RssAnon:\s+(\d+)", status.read_text())[1]) / 1e3 if status.exists() else math.nan


class Shades:
    """Stands for an ImageFolder of n pictures, each of one shade."""

    root, classes, transform, most = ".", ["a"], None, 0

    def __init__(self, n):
        self.samples, self.targets = [(__file__, 0)] * n, [0] * n

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        if index % 100 == 0:
            self.most = max(self.most, anonymous_megabytes())
        return torch.full((3, 64, 64), index % 256 / 255), 0


@pytest.mark.skipif(math.isnan(anonymous_megabytes()), reason="memory is measured where there is /proc")
def test_decoded_faces_take_disk_and_not_memory(empty_place):
    before, folder = anonymous_megabytes(), Shades(20_000)
    faces = helpers.decode_once(folder, flip=True)  # 246 MB of pixels
    faces.rows = torch.arange(len(folder))  # all of them in order, none held out
    shades = torch.empty(200, 100)
    for row, (images, _) in zip(shades, torch.utils.data.DataLoader(faces, 100, collate_fn=helpers.as_batch)):
        row[:] = images[:, 0, 0, 0]
    most = max(folder.most, anonymous_megabytes())
    assert torch.equal((255 * shades.flatten()).round().long(), torch.arange(20_000) % 256), "expected them in order"
    assert most - before < 100, f"expected pixels to stay on the disk, came {most - before:.0f} MB of memory"


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def kinds_of_images():
    """File names, contents and, for those that can be read, the colour in the middle as a person would see it."""
    orange = Image.new("RGB", (40, 48), (220, 120, 40))
    seen = (220, 120, 40)
    grey = orange.convert("L")
    shade = (grey.getpixel((0, 0)),) * 3
    clear, half = orange.convert("RGBA"), orange.convert("RGBA")
    clear.putalpha(0)
    half.putalpha(128)
    palette = orange.convert("P", palette=Image.Palette.ADAPTIVE)
    deep = Image.fromarray(np.full((48, 40), 200 * 257, np.uint16))
    upside_down = Image.Exif()
    upside_down[0x0112] = 3
    jpeg, png = encoded(orange, "JPEG", quality=95), encoded(orange, "PNG")
    big = Image.new("1", (14_000, 14_000))
    yield "plain.jpg", jpeg, seen
    yield "progressive.jpg", encoded(orange, "JPEG", quality=95, progressive=True), seen
    yield "grey.jpg", encoded(grey, "JPEG"), shade
    yield "cmyk.jpg", encoded(orange.convert("CMYK"), "JPEG", quality=95), seen
    yield "turned.jpg", encoded(orange, "JPEG", quality=95, exif=upside_down), seen
    yield "damaged exif.jpg", encoded(orange, "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), seen
    yield "a png.jpg", png, seen
    yield "a jpeg.png", jpeg, seen
    yield "a webp.jpg", encoded(orange, "WEBP", lossless=True), seen
    yield "palette.png", encoded(palette, "PNG"), seen
    yield "clear palette.png", encoded(palette, "PNG", transparency=palette.getpixel((0, 0))), (255, 255, 255)
    yield "clear.png", encoded(clear, "PNG"), (255, 255, 255)
    yield "half clear.png", encoded(half, "PNG"), tuple((c + 255) // 2 for c in seen)
    yield "grey alpha.png", encoded(half.convert("LA"), "PNG"), tuple((c + 255) // 2 for c in shade)
    yield "one bit.png", encoded(Image.new("1", (40, 40), 1), "PNG"), (255, 255, 255)
    yield "sixteen bits.png", encoded(deep, "PNG"), (200, 200, 200)
    yield "sixteen bits.tif", encoded(deep, "TIFF"), (200, 200, 200)
    yield "packed.tiff", encoded(orange, "TIFF", compression="tiff_lzw"), seen
    yield "a gif.jpg", encoded(palette, "GIF"), seen
    yield "old.bmp", encoded(orange, "BMP"), seen
    yield "SHOUTED.JPG", jpeg, seen
    yield "one pixel.png", encoded(orange.crop((0, 0, 1, 1)), "PNG"), seen
    yield "Zoë's 脸 🙂.png", png, seen
    yield "empty.jpg", b"", None
    yield "text.jpg", b"no picture", None
    yield "page.jpg", b"<!doctype html><html>gone</html>", None
    yield "cut off.jpg", jpeg[:len(jpeg) // 2], None
    yield "cut off.png", png[:len(png) // 2], None
    yield "overwritten.png", png[:40] + bytes(40) + png[80:], None
    yield "archive.png", archive(), None
    yield "drawing.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EOF", None
    yield "bomb.png", encoded(big, "PNG"), None
    yield "strip.png", encoded(Image.new("1", (1, 30_000)), "PNG"), None


def test_images_are_read_as_a_person_sees_them(empty_place):
    for name, content, colour in kinds_of_images():
        Path(name).write_bytes(content)
        try:
            with helpers.refusing_bombs():
                image = helpers.load_image(name)
        except helpers.UNREADABLE as error:
            assert colour is None, f"{name}: expected it to be read, came {error!r}"
            continue
        came = image.getpixel((image.width // 2, image.height // 2))
        assert colour is not None, f"{name}: expected it to be left out, came an image of {image.size}"
        assert image.mode == "RGB" and np.abs(np.subtract(came, colour)).max() <= 3, (
            f"{name}: expected RGB {colour}, came {image.mode} {came}")


def test_a_folder_of_all_kinds_loads(empty_place, get_dataloader, capsys):
    save_photos(Path("photos"), 130)
    rows = list(kinds_of_images())
    for name, content, _ in rows:
        (Path("photos") / name).write_bytes(content)
    bad = sum(colour is None for *_, colour in rows)
    if os.name != "nt":
        for name, target in (("round.jpg", "round.jpg"), ("gone.jpg", "nowhere"), ("round", "."), ("back", "..")):
            (Path("photos") / name).symlink_to(target)
        (Path("photos") / "link.jpg").symlink_to("plain.jpg")
        bad += 2
    faces = get_dataloader(3, 16, "photos").dataset
    printed = capsys.readouterr().out
    good = 130 + len(rows) - sum(colour is None for *_, colour in rows) + (os.name != "nt")
    assert len(faces) == good, f"expected the {good} readable images, each once, came {len(faces)}"
    assert f"Left out {bad} unreadable files, the first: archive.png, bomb.png" in printed, f"came {printed}"


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_that_go_in_circles_move_no_image_to_another_class(empty_place, get_dataloader):
    for name in "ab":
        save_photos(Path("photos", name), 3)
        Path("photos", name, "back").symlink_to("..")
        Path("photos", name, "other").symlink_to(Path("..", "ba"["ab".index(name)]))
    faces = get_dataloader(2, 16, "photos").dataset
    assert faces.classes == ["a", "b"] and faces.labels.tolist() == [0] * 3 + [1] * 3, f"expected 3 each, came {faces.labels}"


@hypothesis.settings(SEARCH, max_examples=150)
@given(kind=st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM"]),
       changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_images_are_read_or_left_out(empty_place, kind, changes):
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    content = bytearray(encoded(Image.fromarray(noise), kind))
    for place, value in changes:
        content[int(place * len(content))] = value
    Path("damaged.img").write_bytes(content)
    with contextlib.suppress(*helpers.UNREADABLE), helpers.refusing_bombs():
        assert helpers.load_image("damaged.img").mode == "RGB", "expected RGB"


def test_photographs_are_turned_as_the_camera_was_held(empty_place, get_dataloader):
    Path("photos").mkdir()
    photo, turned = Image.new("RGB", (40, 60), (200, 0, 0)), Image.Exif()
    photo.paste((0, 0, 200), (0, 0, 40, 30))
    turned[0x0112] = 6  # to be seen rotated by a quarter, clockwise
    photo.save("photos/portrait.jpg", exif=turned)
    image, _ = get_dataloader(1, 16, "photos").dataset[0]
    assert image[2, 8, 14] > 0.5 and image[0, 8, 1] > 0.5, "expected the blue half on the right, came another side"


def test_flips_mirror_half_of_the_images():
    images = torch.arange(400 * 3 * 16, dtype=torch.int32).reshape(400, 3, 1, 16).remainder(256).byte()
    faces = helpers.DecodedFaces(images, torch.zeros(400, dtype=torch.int64), ["a"], flip=True)
    served, _ = faces.__getitems__(list(range(400)))
    straight = images.float() / 255
    same = (served == straight).flatten(1).all(1)
    mirrored = (served == straight.flip(-1)).flatten(1).all(1)
    assert (same ^ mirrored).all() and 120 < mirrored.sum() < 280, "expected about half of the images mirrored, none else"
    assert torch.equal(faces.images, images), "expected the stored images as they were"


@hypothesis.settings(SEARCH)
@given(values=st.lists(st.floats(0, 1, width=32), min_size=1), low=st.floats(-100, 100),
       width=st.floats(0.01, 100))
def test_scale_can_be_undone(notebook, values, low, width):
    x = torch.tensor(values, dtype=torch.float64)
    scaled = notebook.scale(x, (low, low + width))
    assert ((scaled - low) / width - x).abs().max() < 1e-6, "expected the values back"
    assert scaled.min() >= low - 1e-6 and scaled.max() <= low + width + 1e-6, "expected values within the range"
    grey = torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 1, 1)
    apart = np.abs(helpers.to_pixels(notebook.scale(grey)) - helpers.to_pixels(grey, (0, 1)).astype(int)).max()
    assert apart <= 1, f"expected the same pixels, came a difference of {apart}"


def test_pixels_are_clipped_and_never_rescaled():
    images = torch.tensor([-3.0, -1.0, 0.0, 0.5, 1.0, 2.0]).view(6, 1, 1, 1).expand(6, 3, 4, 4)
    values = helpers.to_pixels(images)[:, 0, 0, 0].tolist()
    assert values == [0, 0, 128, 191, 255, 255], f"expected -1 at 0 and 1 at 255, whatever else is there, came {values}"
    assert helpers.to_pixels(images[2:3], (0, 1)).max() == 0, "expected the value range to be honoured"
    sheet = helpers.tile(images, columns=4, gap=2)
    assert sheet.shape == (10, 22, 3) and sheet.dtype == np.uint8, f"expected 2 rows of 4, came {sheet.shape}"


def test_mixed_precision_sees_weights_change():
    layer, x = nn.Linear(8, 8), torch.randn(4, 8)
    with helpers.autocast(torch.device("cpu")):
        before = layer(x)
        with torch.no_grad():
            layer.weight.mul_(2)
        after = layer(x)
    assert not torch.equal(before, after), "expected training inside the block to be felt, came stale weights"


def plain_gradients(D, G, images, d_optimizer):
    """Losses and gradients of the step as it is usually written: a graph of its own for each, all gradients taken."""
    one, z = torch.ones(len(images), 1), torch.randn(len(images), G.z_size)
    d_loss = (F.binary_cross_entropy_with_logits(D(2 * images - 1), 0.9 * one)
              + F.binary_cross_entropy_with_logits(D(G(z).detach()), 0 * one))
    d_loss.backward()
    d_gradients = [p.grad.clone() for p in D.parameters()]
    d_optimizer.step()
    g_loss = F.binary_cross_entropy_with_logits(D(G(z)), one)
    g_loss.backward()
    return [d_loss.detach(), g_loss.detach()], d_gradients, [p.grad for p in G.parameters()]


@pytest.mark.parametrize("mixed, loss_error, gradient_error", [(False, 1e-5, 2e-3), (True, 0.02, 0.15)])
def test_the_fast_path_computes_what_the_plain_one_does(notebook, mixed, loss_error, gradient_error):
    device, results = torch.device("cpu"), []
    if mixed and not helpers.has_fast_bfloat16(device):
        pytest.skip("this processor trains in float32")
    pixels = torch.randint(256, (32, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for fast in (False, True):
        torch.manual_seed(1)
        D, G = notebook.build_network(16, 16, 100, 32)
        D.logit.weight.data.mul_(20)  # an opinion to disagree with
        d_optimizer, g_optimizer = (torch.optim.SGD(net.parameters(), 1e-4) for net in (D, G))
        if fast:
            D, G = (net.to(memory_format=torch.channels_last) for net in (D, G))
            faces = helpers.DecodedFaces(pixels, torch.zeros(32, dtype=torch.int64), ["a"])
            with helpers.autocast(device) if mixed else contextlib.nullcontext():
                real = notebook.scale(faces.__getitems__(list(range(32)))[0])
                losses = notebook.train_step(D, G, real, d_optimizer, g_optimizer)
            results.append((losses, *([p.grad for p in net.parameters()] for net in (D, G))))
        else:
            results.append(plain_gradients(D, G, pixels / 255, d_optimizer))
    for name, plain, ours in zip(("losses", "gradients of D", "gradients of G"), *results):
        plain, ours = (torch.cat([part.flatten() for part in parts]) for parts in (plain, ours))
        error, tolerance = ((ours - plain).norm() / plain.norm()).item(), loss_error if name == "losses" else gradient_error
        assert error < tolerance, f"{name}: expected the plain ones within {tolerance}, came {error:.1e}"


def test_no_step_reads_from_the_device(notebook, monkeypatch):
    D, G = notebook.build_network(4, 4, 8, 16)
    optimizers = [torch.optim.SGD(net.parameters(), 0.1) for net in (D, G)]
    for name in ("item", "tolist", "cpu", "numpy", "__float__", "__int__", "__bool__"):
        monkeypatch.setattr(torch.Tensor, name, lambda *args, name=name: pytest.fail(f"{name} waits for the device"))
    notebook.train_step(D, G, torch.zeros(4, 3, 16, 16), *optimizers)


def test_data_that_a_gpu_cannot_keep_stays_where_it_is():
    own = helpers.DecodedFaces(torch.zeros(4, 3, 16, 16).byte(), torch.zeros(4), ["a"])
    other = torch.utils.data.TensorDataset(torch.zeros(4, 3, 16, 16), torch.zeros(4))
    for device, data in (("cpu", own), ("mps", own), ("cpu", other), ("cuda", other)):
        before = data[0][0]
        helpers.keep_on(torch.device(device), data)
        after = data[0][0]
        assert after.device.type == "cpu" and torch.equal(before, after), f"{device}: expected {type(data).__name__} as it was"


@pytest.mark.parametrize("setting, value", [
    ("image_size", 48), ("image_size", 8), ("image_size", 512), ("batch_size", 0), ("batch_size", -4),
    ("batch_size", 2.5), ("z_size", 0), ("d_conv_dim", -1), ("lr", 0), ("d_lr", -0.1), ("patience", 0), ("beta1", 1), ("max_minutes", 0), ("seed", -1),
    ("swap_lr", 2), ("swap_batch", 0), ("identity_weight", -1), ("swap_dirs", "faces"), ("label_names", "Male"), ("swap_loss", "hinge")])
def test_bad_settings_are_named(setting, value):
    good = dict(image_size=32, lr=2e-4, d_lr=4e-4, beta1=0.5, max_minutes=None, patience=None, batch_size=4, z_size=10, d_conv_dim=8)
    helpers.check_settings(**good)
    with pytest.raises(ValueError, match=f"{setting} = {value!r}"):
        helpers.check_settings(**good | {setting: value})


def test_attributes_with_and_without_the_count(tmp_path):
    body = "Male Smiling\n000001.jpg -1  1\n000002.jpg  1 -1\nan old one.jpg 1 1\n"
    for text in (body, "2\n" + body, ("2\n" + body).replace("\n", "\r\n"), "\ufeff2\n" + body, body + "\n\n"):
        (tmp_path / "list.txt").write_bytes(text.encode())
        names, rows = helpers.read_attributes(tmp_path / "list.txt")
        assert names == ["Male", "Smiling"] and rows["000002.jpg"].tolist() == [True, False], f"came {names}, {rows}"


@pytest.mark.parametrize("text, message", [
    ("<!DOCTYPE html>\n<html>Quota exceeded</html>", r"web page \(HTML\)"),
    ("", "lists no images"), ("2\nMale Smiling\n", "lists no images"),
    ("Male Smiling\n000001.jpg 1\n", "'000001.jpg 1'"), ("Male Smiling\n000001.jpg 1 yes\n", "'000001.jpg 1 yes'"),
], ids=["html", "empty", "only names", "too short", "words"])
def test_what_is_no_list_of_attributes_is_told(tmp_path, text, message):
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    with pytest.raises(helpers.DataError, match=message):
        helpers.read_attributes(tmp_path / "list.txt")


def faces_named(*names, labels=None, classes=(".",)):
    numbers = torch.arange(len(names))
    images = torch.stack([numbers // 256, numbers % 256, 0 * numbers], 1).to(torch.uint8)[:, :, None, None].expand(-1, -1, 4, 4)
    return helpers.DecodedFaces(images, torch.zeros(len(names), dtype=torch.int64) if labels is None else labels, classes, names=names)


def test_labels_are_used_only_if_they_are_there_for_all(tmp_path, capsys):
    folder = tmp_path / "faces"
    folder.mkdir()
    assert helpers.known_labels(folder, faces_named("a.jpg")) == {}, "expected nothing to be known without a list"
    for place in (tmp_path, folder):  # beside the folder, or in it
        table = place / "list_attr_celeba.txt"
        table.write_text("Male Smiling\na.jpg -1 1\nno_image.jpg 1 1\nb.jpg 1 1\n", encoding="utf-8")
        known = helpers.known_labels(folder, faces_named("b.jpg", "a.jpg"))
        assert {name: has.tolist() for name, has in known.items()} == {"Male": [True, False], "Smiling": [True, True]}, f"came {known}"
        assert helpers.known_labels(folder, faces_named("a.jpg", "c.jpg")) == {}, "expected no labels without those of c.jpg"
        assert "1 of 2 images (the first: c.jpg)" in capsys.readouterr().out, "expected c.jpg to be told"
        table.unlink()


def test_labels_from_names_and_folders(tmp_path):
    known = helpers.known_labels(tmp_path, faces_named("19_0_0_2017.jpg", "20_1_3_2017.jpg.chip.jpg", "116_0_4_20.jpg"))
    assert [name for name, has in known.items() if has[1]] == ["Indian", "From_20_to_39"], f"a woman of 20 from India: came {known}"
    assert known["Male"].tolist() == [True, False, True] and known["Under_20"].tolist() == [True, False, False], f"came {known}"
    assert [has.sum().item() for name, has in known.items() if name in helpers.ORIGINS] == [1, 0, 0, 1, 1], f"came {known}"
    assert helpers.known_labels(tmp_path, faces_named("19_0_0_2017.jpg", "other.jpg")) == {}, "expected most names to be UTKFace's"
    known = helpers.known_labels(tmp_path, faces_named(*(f"30_{i % 2}_2_2017{i:04d}.jpg" for i in range(199)), "39_1_20170116174525125.jpg"))
    assert known["Asian"].sum() == 199 and not any(has[-1] for has in known.values()), "a name without origin: expected nothing of it"
    known = helpers.known_labels(tmp_path, faces_named("x.jpg", "y.jpg", labels=torch.tensor([1, 0]), classes=["cats", "dogs"]))
    assert {name: has.tolist() for name, has in known.items()} == {"cats": [False, True], "dogs": [True, False]}, f"came {known}"


def list_of(folder, **columns):
    """Write an attribute list of these columns of bools; returns the faces."""
    names = [f"{i}.jpg" for i in range(len(next(iter(columns.values()))))]
    rows = [" ".join([name, *("1" if column[i] else "-1" for column in columns.values())]) for i, name in enumerate(names)]
    (folder / "list_attr_celeba.txt").write_text("\n".join([" ".join(columns), *rows]), encoding="utf-8")
    return faces_named(*names)


def test_labels_that_teach_nothing_are_refused(tmp_path):
    half, few = [i % 2 == 0 for i in range(100)], [i < 19 for i in range(100)]
    faces = list_of(tmp_path, Smiling=half, Bald=[False] * 100, Eyeglasses=few, Male=half, Bangs=[i < 30 for i in range(100)])
    assert helpers.labels_of(tmp_path, faces, ["Male", "Smiling"]).tolist() == [[x, x] for x in map(float, half)]
    for name, message in (("Smile", "label = 'Smile' does not work: it must be one of 'Smiling', 'Male'"),
                          ("Bald", "of the 100 faces in .* 0 are with it"), ("Eyeglasses", "19 are with it, and fewer than 20")):
        with pytest.raises(ValueError, match=message):
            helpers.labels_of(tmp_path, faces, [name])
    for message, kinds in (("with Male = False, there are 50 to train on without it and 0 with it", ("Smiling", "Male")),
                           ("must be one of", ("Makeup", None))):
        with pytest.raises(ValueError, match=message):
            helpers.two_kinds(tmp_path, faces, *kinds)
    with pytest.raises(ValueError, match="smallest group has 15 of the 100 faces"):
        helpers.equal_shares(tmp_path, faces, ["Male", "Bangs"])
    with pytest.raises(helpers.DataError, match="Nothing is known about the faces"):
        helpers.labels_of(tmp_path / "elsewhere", faces_named("a.jpg"), ["Male"])


def test_two_kinds_have_the_same_value_of_another_label(tmp_path, capsys):
    faces = list_of(tmp_path, Makeup=[i % 3 == 0 for i in range(300)], Male=[i % 5 == 0 for i in range(300)])
    kinds, common = helpers.two_kinds(tmp_path, faces, "Makeup", "Male")
    rows = [[row for row in range(300) if row % 5 and (row % 3 == 0) is has] for has in (False, True)]
    assert [pile.rows.tolist() for pile in kinds["train"]] == rows and common == {"Male": False}, "expected women without and with it"
    assert len(faces.rows) == 300, "expected the faces to be left as they were"
    kinds, common = helpers.two_kinds(tmp_path, faces, "Makeup")
    assert sum(map(len, kinds["train"])) == 300 and common == {}, "nothing to be alike in: expected all"
    a, b = faces_named("0.jpg", "1.jpg", "2.jpg"), faces_named("x.jpg", "y.jpg")
    with pytest.raises(ValueError, match="overlap: 2 images are in both, the first as 0.jpg"):
        helpers.check_apart(a, b)
    b.images = b.images + 100
    helpers.check_apart(a, b)


def test_few_of_a_kind_held_out_are_replaced(tmp_path, capsys):
    names = [f"{helpers.OTHER_SEED * (i >= 1000)}{i:06d}.jpg" for i in range(1100)]
    faces = faces_named(*names)
    rare = [i % 30 == 0 for i in range(1100)]
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(["Makeup", *(f"{n} {1 if x else -1}" for n, x in zip(names, rare))]))
    kinds, _ = helpers.two_kinds(tmp_path, faces, "Makeup")
    assert "fewer than 8" in capsys.readouterr().out and len(kinds["test"][1]) == len(kinds["train"][1]) == 34, "expected a line, and others"


@pytest.mark.parametrize("balanced, groups", [("Eyeglasses", 2), (["Male", "Eyeglasses"], 4), (lambda faces: torch.arange(400) // 350, 2)],
                         ids=["a label", "two labels", "a function"])
def test_a_balanced_loader_serves_equal_shares(notebook, empty_place, balanced, groups):
    folder = empty_place / "faces"
    folder.mkdir()
    for i in range(400):
        Image.new("RGB", (16, 16), (i // 2, i % 2, 0)).save(folder / f"{i:03d}.png")
    columns = {"Male": [i % 2 for i in range(400)], "Eyeglasses": [i >= 350 for i in range(400)]}
    lines = [" ".join([f"{i:03d}.png", *("1" if column[i] else "-1" for column in columns.values())]) for i in range(400)]
    (folder / "list_attr_celeba.txt").write_text("\n".join([" ".join(columns), *lines]), encoding="utf-8")
    loader = notebook.get_dataloader(20, 16, folder, label_names=["Eyeglasses", "Male"], balanced=balanced)
    run, rows = helpers.Run(), []
    with run:
        for epoch in range(5):
            for images, labels in run.watch(loader, epoch):
                assert labels.shape == (20, 2) and labels.dtype == torch.float32, f"came {labels.shape}, {labels.dtype}"
                row = (images[:, 0, 0, 0] * 255).round() * 2 + (images[:, 1, 0, 0] * 255).round()
                assert torch.equal(labels, torch.stack([row >= 350, row % 2], 1).float()), "expected the labels to go with the images"
                rows += row.tolist()
    rows = np.array(rows)
    shares = [np.mean((rows >= 350) & (rows % 2 == k)) for k in (0, 1)] + [np.mean((rows < 350) & (rows % 2 == k)) for k in (0, 1)]
    if groups == 2:
        shares = [sum(shares[:2]), sum(shares[2:])]
    assert len(rows) == 2000 and np.allclose(shares, 1 / groups, atol=0.05), f"expected equal shares of {groups} groups, came {shares}"


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("options", [{}, {"style": True}, {"norm": "layer"}], ids=str)
def test_networks_that_are_told_labels_learn_them(notebook, size, options):
    torch.manual_seed(0)
    d_options = {"n_labels": 2, "norm": "spectral" if options else "batch", "batch_deviation": bool(options)}
    D, G = notebook.build_network(8, 8, 10, size, d_options, options | {"n_labels": 2})
    z, labels = torch.randn(4, 10), torch.eye(2).repeat(2, 1)
    G.usual = torch.eye(2).repeat(500, 1)
    logits = D(G(z, labels), labels)
    assert logits.shape == (4, 1), f"expected logits (4, 1), came {logits.shape}"
    logits.sum().backward()
    for name, weight in [*D.named_parameters(), *G.named_parameters()]:
        assert weight.grad is not None and weight.grad.isfinite().all(), f"expected a finite gradient for {name}"
    G.eval()
    assert not torch.allclose(G(z, labels), G(z, 1 - labels), atol=1e-4), "expected other faces for other labels"
    assert torch.allclose(G(z)[1:2], G(z[1:2]), atol=1e-5), "no labels given: expected the same usual ones for the same latent"
    if not options and size == 32:  # labels that say light or dark: D alone can tell which goes with what
        images = torch.cat([0.5 + 0.1 * torch.randn(16, 3, size, size), -0.5 + 0.1 * torch.randn(16, 3, size, size)])
        right, optimizer = torch.eye(2).repeat_interleave(16, 0), notebook.adam(D, 2e-3)
        for _ in range(40):
            loss = notebook.real_loss(D(images, right)) + notebook.fake_loss(D(images, 1 - right))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert (D(images, right) > D(images, 1 - right)).float().mean() > 0.95, "expected D to see what goes with what"


def test_told_networks_train_as_the_lesson_does(notebook):
    torch.manual_seed(0)
    D, G = notebook.build_network(8, 8, 10, 16, {"n_labels": 3}, {"n_labels": 3})
    optimizers = notebook.adam(D, 1e-3), notebook.adam(G, 1e-3)
    before = copy.deepcopy((D, G))
    data = torch.utils.data.TensorDataset((pictures(16, 16) + 1) / 2, torch.eye(4)[:, :3].repeat(4, 1))
    losses = notebook.train(D, G, torch.utils.data.DataLoader(data, 8), *optimizers, 2, 1, labelled=True)
    assert len(losses) == 4, f"expected 4 pairs of losses, came {len(losses)}"
    for old, new in zip(before, (D, G)):
        for (name, a), b in zip(old.named_parameters(), new.parameters()):
            assert b.ndim < 2 or not torch.equal(a, b), f"expected {name} of {type(new).__name__} to move"


@pytest.mark.parametrize("kind, names, swap", [
    ("classes", ("cats", "dogs"), ("cats", None)), ("utkface", ("Male", "White", "Asian"), ("Asian", "Male")), ("none", None, None)])
def test_faces_with_any_labels_can_be_ordered_and_swapped(notebook, empty_place, monkeypatch, capsys, kind, names, swap):
    folder = empty_place / "faces"
    for i, image in enumerate(helpers.draw_faces(120, 16)[0].permute(0, 2, 3, 1).numpy()):
        name = {"classes": f"{('cats', 'dogs')[i % 2]}/{i}.png", "utkface": f"30_{i // 2 % 2}_{2 * (i % 2)}_2017{i}.png", "none": f"{i}.png"}[kind]
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name)
    small = dict(faces_dir=folder, image_size=16, batch_size=8, n_drawn=60, d_conv_dim=4, g_conv_dim=4, z_size=8, sizes=[(16, 16)], seed=0,
                 device=torch.device("cpu"), memory_format=torch.channels_last, out_dir=str(empty_place / "run"), resume=True,
                 print_every=5, swap_batch=8, label_names=None, swap_dirs=None)
    small |= dict(zip(("swap_label", "swap_same"), swap or ("Heavy_Makeup", "Male")))
    for name, value in small.items():
        monkeypatch.setattr(notebook, name, value, raising=False)
    monkeypatch.setattr(helpers, "fingerprint", lambda *_: "")  # the source of what pytest has executed is not to be had
    for cached in (notebook.labelled_faces, notebook.faces_at):
        cached.cache_clear()
    notebook.loader = notebook.get_dataloader(8, 16, folder)
    known_folder, known = notebook.labelled_faces()
    chosen = notebook.usable(known)
    assert (known_folder == folder) == (names is not None), f"expected {'drawn' if names is None else 'these'} faces, came {known_folder}"
    assert chosen == names if names else len(chosen) > 2, f"expected {names}, came {chosen}"
    run = notebook.experiment("order", 0.01, 16, (4, 4), folder=known_folder, label_names=chosen, balanced=chosen[0], shown=False)
    read = notebook.reader(*notebook.some_of(notebook.faces_at(16, known_folder, chosen, chosen[0])[1].dataset), epochs=1)
    shares = notebook.obeyed(run.best_generator(), read, 20)
    assert shares.shape == (len(chosen),) and shares.isfinite().all(), f"expected a share for each label, came {shares}"
    piles, common = notebook.two_piles(16)
    assert [*common] == [name for name in (small["swap_same"],) if name], f"came {common}"
    swapped = notebook.swap_experiment("swap", 0.01, 16, piles)
    assert swapped.step > 0 and swapped.parts["pools"][0].count > 0, "expected a few steps"
    if kind == "none":
        a, b, region = notebook.drawn_pairs(10, 16, common)
        rows = list(notebook.swap_table(a, b, region, swapped.parts["translators"], piles["train"]))
        assert len(rows) == 6 and rows[0][4] == 0 and rows[0][2] > 0.05, f"expected three methods each way, came {rows}"
    monkeypatch.setattr(notebook, "swap_batch", 200)
    with pytest.raises(ValueError, match="swap_batch = 200 does not work"):
        notebook.swap_experiment("swap", 0.01, 16, piles)


def test_two_folders_can_be_swapped(notebook, empty_place, monkeypatch):
    for name, has in (("without", False), ("with", True)):
        (empty_place / name).mkdir()
        for i, image in enumerate(helpers.draw_faces(20, 16, Heavy_Makeup=has, Male=False)[0].permute(0, 2, 3, 1).numpy()):
            Image.fromarray(image).save(empty_place / name / f"{i}.png")
    folders = [empty_place / name for name in ("without", "with")]
    monkeypatch.setattr(notebook, "swap_dirs", folders)
    piles, common = notebook.two_piles(16)
    assert [len(pile) for pile in piles["train"]] == [20, 20] and common == {}, f"came {piles}"
    (empty_place / "with" / "again.png").write_bytes((empty_place / "without" / "7.png").read_bytes())
    with pytest.raises(ValueError, match="overlap: 1 images are in both, the first as 7.png"):
        notebook.two_piles(16)


def test_a_face_of_ones_own(tmp_path):
    picture = Image.new("RGB", (200, 100), "red")
    picture.paste("blue", (150, 0, 200, 50))
    picture.save(tmp_path / "me.png")
    face = helpers.load_face(tmp_path / "me.png", 32)
    assert face.shape == (1, 3, 32, 32) and face[0, :, 16, 16].tolist() == [1, -1, -1], f"expected the red centre, came {face[0, :, 16, 16]}"
    face = helpers.load_face(tmp_path / "me.png", 16, (150, 0, 200, 50))
    assert torch.allclose(face[0, :, 8, 8], torch.tensor([-1.0, -1, 1])), f"expected the blue box, came {face[0, :, 8, 8]}"
    for box in ((150, 0, 250, 50), (50, 0, 20, 50), (0, 50)):
        with pytest.raises(ValueError, match="does not lie in .*200 x 100 pixels"):
            helpers.load_face(tmp_path / "me.png", 16, box)
    (tmp_path / "me.txt").write_text("no picture", encoding="utf-8")
    with pytest.raises(ValueError, match="me.txt cannot be read as a picture"):
        helpers.load_face(tmp_path / "me.txt", 16)
    with pytest.raises(ValueError, match="nobody.png cannot be read as a picture .*No such file"):
        helpers.load_face(tmp_path / "nobody.png", 16)


# ---------------------------------------------------------------- helpers: runs

def start_small(notebook, folder, settings={"seed": 0}, n=40, **kwargs):
    """(run, train it for n epochs): tiny networks, always from the same seed."""
    torch.manual_seed(0)
    D, G = notebook.build_network(4, 4, 8, 16)
    d_optimizer, g_optimizer = (torch.optim.Adam(net.parameters(), 1e-3, fused=True) for net in (D, G))
    averaged = torch.optim.swa_utils.AveragedModel(G)
    images = torch.randint(256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(1)).byte()
    faces = helpers.DecodedFaces(images, torch.zeros(n, dtype=torch.int64), ["noise"], flip=True)
    loader = torch.utils.data.DataLoader(faces, 4, shuffle=True, collate_fn=helpers.as_batch)
    run = helpers.Run(folder, settings, n_faces=4, D=D, G=G, averaged=averaged,
                      d_optimizer=d_optimizer, g_optimizer=g_optimizer, **kwargs)
    return run, lambda n_epochs, step=notebook.train: step(D, G, loader, d_optimizer, g_optimizer, n_epochs, 4, averaged, run)


@pytest.fixture
def small_run(notebook, tmp_path):
    return lambda out_dir="run", *args, **kwargs: start_small(notebook, tmp_path / out_dir, *args, **kwargs)


def weights(run):
    return {f"{name}.{key}": value for name in ("D", "G", "averaged") for key, value in
            run.parts[name].state_dict().items() if torch.is_tensor(value) and "running" not in key}


def test_a_run_leaves_what_it_promises(small_run):
    run, train = small_run()
    losses = train(2)
    names = {path.name for path in run.folder.rglob("*.*")}
    promised = {"generator.pt2", "last.pt", "losses.csv", "training.gif", "epoch_0001.png", "epoch_0002.png"}
    assert promised <= names, f"expected {sorted(promised)}, missing {sorted(promised - names)}"
    rows = list(csv.DictReader(open(run.folder / "losses.csv", encoding="utf-8")))
    assert list(rows[0]) == ["step", "images", "seconds", "d_loss", "g_loss"], f"came the columns {list(rows[0])}"
    assert [(float(row["d_loss"]), float(row["g_loss"])) for row in rows] == losses, "expected the same losses in both"
    assert [int(row["images"]) for row in rows] == [16, 32, 48, 64, 80], "expected real images seen, every 4 steps of 4"
    helpers.load_checkpoint(run.folder / "last.pt")

    generator = torch.export.load(run.folder / "generator.pt2").module()
    own = helpers.settle(run.parts["averaged"], 8)
    z = torch.randn(65, 8)
    for n in (1, 2, 65):
        faces = generator(z[:n])
        assert faces.shape == (n, 3, 16, 16) and faces.dtype == torch.float32 and faces.abs().max() <= 1, (
            f"expected float32 ({n}, 3, 16, 16) in [-1, 1], came {faces.dtype} {tuple(faces.shape)}")
        assert torch.allclose(faces, own(z[:n]), atol=0.05), "expected the file to draw the averaged generator's faces"
        assert torch.allclose(faces, generator(z)[:n], atol=1e-5), "expected the same face for a latent in any batch"


def assert_same_bits(one, other):
    assert one.step == other.step, f"expected the same number of steps, came {one.step} and {other.step}"
    for key, value in weights(one).items():
        assert torch.equal(value, weights(other)[key]), f"{key}: expected the same bits as in the run left alone"


@pytest.fixture
def stop_button():
    """Ctrl-C works, even if the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("stop_at", [1, 10, 18])  # at once, at the end of an epoch, within one
def test_the_stop_button_ends_a_run_and_it_goes_on_bit_for_bit(small_run, notebook, stop_button, monkeypatch, capsys, stop_at):
    whole, train = small_run("whole")
    train(3)

    run, train = small_run("split")
    plain_step, steps = notebook.train_step, iter(range(1, 100))

    def pressed_within_a_step(*args):
        if next(steps) == stop_at:
            signal.raise_signal(signal.SIGINT)
        return plain_step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(notebook, "train_step", pressed_within_a_step)
        losses = train(3)
    assert run.step == stop_at and losses, f"expected the run to end with step {stop_at}, came {run.step} and {losses}"
    assert f"Stopped after {stop_at} steps" in capsys.readouterr().out, "expected one line that says so"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "expected Ctrl-C to be as it was"
    torch.export.load(run.folder / "generator.pt2")

    torch.manual_seed(99)
    split, train = small_run("split")
    assert split.folder == run.folder and split.step == stop_at, "expected the same run to go on"
    train(3)
    assert_same_bits(whole, split)


def test_the_stop_button_pressed_twice_goes_back_to_the_last_whole_step(small_run, notebook, stop_button, monkeypatch):
    whole, train = small_run("whole")
    train(3)
    run, train = small_run("split")
    plain_step, log = notebook.train_step, run.log

    def pressed_twice(D, *args):
        if run.step == 12:
            signal.raise_signal(signal.SIGINT)
            with torch.no_grad():
                next(D.parameters()).add_(1)  # half a step
            signal.raise_signal(signal.SIGINT)
        return plain_step(D, *args)

    run.log = lambda *args: (log(*args), run.step == 10 and run.save())
    with monkeypatch.context() as patch:
        patch.setattr(notebook, "train_step", pressed_twice)
        train(3)
    assert run.step == 10 and (run.folder / "generator.pt2").exists(), f"expected the checkpoint of step 10, came {run.step}"
    split, train = small_run("split")
    train(3)
    assert_same_bits(whole, split)


def test_every_random_state_comes_back():
    def draw():
        return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()

    with tempfile.TemporaryDirectory() as place:
        torch.save(helpers.random_state(), Path(place, "state.pt"))
        first = draw()
        helpers.restore_random_state(torch.load(Path(place, "state.pt"), weights_only=True))
    assert draw() == first, "expected the same numbers again, of PyTorch, NumPy and Python"


def train_until_killed(folder, n_epochs):
    """A training process that writes a checkpoint at each step."""
    torch.set_num_threads(1)
    run, train = start_small(read_notebook(), folder)
    log = run.log
    run.log = lambda *args: (log(*args), run.save())
    train(n_epochs)


def test_a_killed_run_leaves_a_checkpoint_and_goes_on_bit_for_bit(tmp_path):
    kinds = multiprocessing.get_all_start_methods()
    processes = multiprocessing.get_context("forkserver" if "forkserver" in kinds else "spawn")
    if "forkserver" in kinds:
        processes.set_forkserver_preload(["problem_unittests", "torchmetrics.functional.image", "torchvision.datasets"])

    def start(folder, n_epochs):
        process = processes.Process(target=train_until_killed, args=(folder, n_epochs))
        process.start()
        return process

    def step(folder):
        return helpers.newest_checkpoint(folder)[1]["step"] if helpers.has_checkpoint(folder) else -1

    chance, reached, folder = random.Random(0), [], tmp_path / "killed"
    for life in range(10):
        process = start(folder, 10**6)
        if life:  # the first may die before it has written anything
            while process.is_alive() and step(folder) <= max(reached):
                time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.5))
        assert process.is_alive(), f"expected the process to be at work when it is killed, came an end after step {step(folder)}"
        process.kill()
        process.join()
        reached.append(step(folder))
    assert not list(folder.glob("damaged*")), "expected no checkpoint to be damaged by a kill"
    assert sorted(set(reached[1:])) == reached[1:], f"expected each process to go on where the last one was killed, came {reached}"
    for path in (folder, tmp_path / "whole"):
        process = start(path, max(reached) // 10 + 5)
        process.join()
    killed, whole = (helpers.newest_checkpoint(path)[1] for path in (folder, tmp_path / "whole"))
    assert killed["step"] == whole["step"] > max(reached), f"expected the same steps, came {killed['step']}, {whole['step']}"
    for name in ("D", "G", "averaged", "d_optimizer", "g_optimizer"):
        for path, value in torch.utils._pytree.tree_flatten_with_path(whole[name])[0]:
            other = functools.reduce(lambda tree, key: tree[getattr(key, "key", getattr(key, "idx", None))], path, killed[name])
            same = torch.equal(value, other) if torch.is_tensor(value) else value == other
            assert same, f"{name}{torch.utils._pytree.keystr(path)}: expected the same bits after ten kills"


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

    for step, message in ((diverges, "g_loss is no finite number at step 13"), (breaks, "a weight of G is no finite number at step 16")):
        run, train = small_run()
        monkeypatch.setattr(notebook, "train_step", step)
        with pytest.raises(FloatingPointError, match=f"{message}.*lower lr.*checkpoint of step 10 stands"):
            train(3)
        assert good.read_bytes() == before, "expected the last good checkpoint to stand"


def test_trouble_is_told_once(small_run, capsys):
    def told(losses):
        run, _ = small_run("other", resume=False)
        with run:
            for d_loss, g_loss in losses:
                run.log(torch.tensor(d_loss), torch.tensor(g_loss), 4, 10**6, 1)
        return capsys.readouterr().out

    healthy = told([(1.2 + 0.1 * math.sin(i), 1.5 + 0.5 * math.cos(i)) for i in range(100)])
    assert "At step" not in healthy, f"expected no warning, came {healthy}"
    won = told([(0.36, 3.0)] * 100)
    assert won.count("all but won") == 1, f"expected it to be told once, came {won}"
    climbing = told([(0.8, 2 + i / 10) for i in range(100)])
    assert climbing.count("keeps climbing") == 1, f"expected it to be told once, came {climbing}"
    run, _ = small_run("alike")
    run.step = 500
    with torch.no_grad():
        run.parts["averaged"].module.layers[-1].weight.zero_()
    with run:
        [run.keep_grid("one"), run.keep_grid("two")]
    assert capsys.readouterr().out.count("all alike") == 1, "expected collapsed samples to be told once"
    run.save()
    again, _ = small_run("alike")
    with again:
        again.keep_grid("three")
    assert "all alike" not in capsys.readouterr().out, "expected it not to be told again by a run that goes on"


def test_a_damaged_checkpoint_gives_way_to_the_one_before(small_run, capsys):
    run, train = small_run()
    train(2)
    last, previous = run.folder / "last.pt", run.folder / "previous.pt"
    assert previous.exists(), "expected the checkpoint before the last to be kept"
    whole = last.read_bytes()
    for damaged in (whole[:-1000], whole[:100], b"", b"no checkpoint"):
        last.write_bytes(damaged)
        again, train = small_run()
        assert again.step == 20 and "is damaged" in capsys.readouterr().out, "expected the one before, and a line that says so"
        assert (run.folder / "damaged.pt").read_bytes() == damaged, "expected the damaged file to be kept"
        train(2)
        assert helpers.load_checkpoint(last)["step"] == 20, "expected the run to be whole again"
    last.unlink()
    assert small_run()[0].step == 20, "expected a run killed between two renames to go on"
    for path in (last, previous):
        path.write_bytes(whole[:500])
    with pytest.raises(ValueError, match="is no checkpoint of this notebook, or a damaged one"):
        small_run()
    assert last.read_bytes() == previous.read_bytes() == whole[:500], "expected both files untouched"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here to stand for a full disk")
def test_a_full_disk_is_told_and_spares_what_is_there(small_run):
    run, train = small_run()
    train(1)
    before = {path.name: path.read_bytes() for path in run.folder.glob("*.*")}
    for name in ("last.pt", "losses.csv", "generator.pt2"):
        again, train = small_run()
        (run.folder / f"{name}.new").symlink_to("/dev/full")
        with pytest.raises(OSError, match=f"{name} cannot be written: the disk is full. Make room"):
            train(again.epoch + 1)
    assert {"last.pt", "previous.pt", "generator.pt2"} <= before.keys(), "expected the files of a run"
    helpers.load_checkpoint(run.folder / "last.pt")
    assert (run.folder / "generator.pt2").read_bytes() == before["generator.pt2"], "expected the old generator to be whole"


def test_a_folder_that_cannot_be_written_is_told(small_run, tmp_path):
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with pytest.raises(OSError, match="cannot be written: .*choose another out_dir"):
        small_run("file/run")
    if hasattr(os, "geteuid") and os.geteuid():  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o555)
        with pytest.raises(OSError, match="cannot be written: Permission denied; choose another out_dir"):
            small_run("locked/run")


def test_a_second_run_is_refused_but_a_killed_one_does_not_count(small_run, tmp_path):
    (tmp_path / "run").mkdir()
    hold = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", hold, tmp_path / "run" / "run.lock"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(RuntimeError, match="Another run is at work in .*run. Wait until it ends"):
            small_run()
        other.kill()
        other.wait()
        run, train = small_run()
        train(1)
        assert run.step == 10, "expected the lock of a killed process not to count"


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
                                   RuntimeError("MPS backend out of memory"), RuntimeError("[enforce fail] can't allocate memory")])
def test_too_little_memory_names_the_settings(small_run, notebook, monkeypatch, error):
    def too_much(*args):
        raise error

    run, train = small_run(score=too_much)
    with pytest.raises(MemoryError, match="lower batch_size, d_conv_dim, g_conv_dim or image_size"):
        train(1)
    monkeypatch.setattr(notebook, "train_step", too_much)
    run, train = small_run()
    with pytest.raises(MemoryError, match="lower batch_size, d_conv_dim, g_conv_dim or image_size"):
        train(2)


def test_a_checkpoint_is_at_most_five_minutes_old(small_run, monkeypatch):
    run, train = small_run(n=4000)
    now, saved, log, save = [0.0], [], run.log, run.save
    monkeypatch.setattr(helpers, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))  # the clock of runs alone
    run.save = lambda name="last.pt": (saved.append(now[0]), save(name))
    run.log = lambda *args: (now.__setitem__(0, now[0] + 10), setattr(run, "next_grid", math.inf), log(*args))
    train(1)
    assert max(np.diff(saved)) <= 310, f"expected a checkpoint every five minutes, came {saved}"


def test_a_finished_run_makes_up_for_what_is_missing(small_run, capsys):
    run, train = small_run()
    train(1)
    for name in ("generator.pt2", "training.gif"):
        (run.folder / name).unlink()
        again, train = small_run()
        train(1)
        assert again.step == 10 and (run.folder / name).exists(), f"expected {name} to be made anew, and no step"
    before = (run.folder / "generator.pt2").stat().st_mtime_ns
    small_run()[1](1)
    assert (run.folder / "generator.pt2").stat().st_mtime_ns == before, "expected a finished run to be left as it is"
    assert "To train longer, raise max_minutes or n_epochs" in capsys.readouterr().out, "expected a line that says how to go on"


@hypothesis.settings(SEARCH, max_examples=25)
@given(changes=st.dictionaries(st.text(max_size=8), st.none() | st.booleans() | st.integers() |
                                       st.floats(allow_nan=False) | st.text(max_size=8), max_size=4),
       rows=st.lists(st.tuples(st.integers(0, 2**40), st.floats(width=32, allow_nan=False)), max_size=3))
def test_a_checkpoint_brings_back_what_was_saved(notebook, changes, rows):
    with tempfile.TemporaryDirectory() as place:
        run, _ = start_small(notebook, Path(place, "run"), changes | {"seed": 0})
        run.scores, run.step = rows, 7
        run.save()
        again, _ = start_small(notebook, Path(place, "run"), changes | {"seed": 0})
        assert again.folder == run.folder and again.scores == rows and again.step == 7, "expected settings and progress as they were"


def test_the_best_epoch_is_kept(small_run):
    values, seen = iter([3.0, 1.0, 2.0, 2.0]), []

    def score(generator):
        seen.append(copy.deepcopy(generator))
        return next(values)

    run, train = small_run(score=score)
    keep_grid = run.keep_grid
    run.keep_grid = lambda name: (setattr(run, "next_score", 0), keep_grid(name))  # score as often as there are grids
    train(3)
    rows = list(csv.DictReader(open(run.folder / "scores.csv", encoding="utf-8")))
    assert [float(row["score"]) for row in rows] == [3, 1, 2], f"expected one score per epoch in scores.csv, came {rows}"
    best = helpers.load_checkpoint(run.folder / "best.pt")
    assert best["step"] == 20, f"expected the second epoch's step, 20, in best.pt, came {best['step']}"
    z = torch.randn(5, 8)
    faces = torch.export.load(run.folder / "generator.pt2").module()(z)
    near, far = ((faces - helpers.settle(seen[k], 8)(z)).abs().mean() for k in (1, -1))
    assert near < 0.02 < far, f"expected the best generator's faces, {near:.3f} off, not the last one's, {far:.3f} off"


def test_scores_take_a_twentieth_of_the_time(small_run, monkeypatch):
    now, scored = [0.0], []

    def tick(seconds=0.25):
        now[0] += seconds
        return now[0]

    def score(generator):
        scored.append(tick(1))
        return 1.0

    run, train = small_run(score=score)
    log = run.log
    run.log = lambda *args: (setattr(run, "next_grid", 0), log(*args))  # grids at every step, scores only when they may be
    monkeypatch.setattr(helpers, "time", types.SimpleNamespace(perf_counter=tick))
    train(10)
    gaps = np.diff(scored[:-1])  # the last one is taken however soon
    assert len(gaps) > 1 and gaps.min() >= 20, f"expected 20 times as long between scores as one takes, came {gaps.round(1)} s"


def test_patience_ends_a_run(small_run):
    values = iter([3.0, 2.0] + [4.0] * 20)
    run, train = small_run(score=lambda generator: next(values), patience=3)
    train(20)
    assert 5 <= len(run.scores) <= 6 and run.epoch < 20, f"expected 3 scores after the best, came {run.scores}"
    again, train = small_run(score=lambda generator: 1.0, patience=3)
    assert again.best[-1] == 2 and again.finished, "expected a run taken up again to know its scores"


def test_other_settings_make_another_run(small_run, capsys):
    first, train = small_run(settings={"seed": 0, "lr": 0.1})
    train(1)
    second, _ = small_run(settings={"seed": 0, "lr": 0.2})
    assert second.folder.name == "run-2" and second.step == 0, f"expected run-2, new, came {second.folder.name}"
    assert "lr 0.1 -> 0.2" in capsys.readouterr().out, "expected a line that says what differs"
    third, _ = small_run(settings={"seed": 0, "lr": 0.1}, resume=False)
    assert third.folder.name == "run-2" and third.step == 0, "expected a new run with resume=False"
    assert (first.folder / "last.pt").exists(), "expected the old run untouched"
    _, train = small_run(settings={"seed": 0, "lr": 0.1}, resume=False)
    train(1)
    assert small_run(settings={"seed": 0, "lr": 0.1})[0].folder.name == "run-2", "expected the newest run to go on"
    parts = first.parts
    helpers.Run(first.folder.with_name("other"), {"seed": 0}, **parts)
    assert "trained already" in capsys.readouterr().out, "expected a new run to say that its networks are not fresh"


def test_a_checkpoint_of_an_older_notebook_is_taken_as_far_as_it_goes(small_run):
    run, train = small_run()
    train(1)
    state = helpers.load_checkpoint(run.folder / "last.pt")
    state["random_state"] = {"cpu": torch.get_rng_state(), "cuda": []}
    del state["told"]
    torch.save(state, run.folder / "last.pt")
    again, train = small_run()
    train(2)
    assert again.step == 20 and again.told == [], f"expected it to go on, came step {again.step}"


def test_best_is_written_anew_if_the_process_was_killed_before_it(small_run):
    run, train = small_run(score=lambda generator: 1.0)
    train(1)
    (run.folder / "best.pt").unlink()
    small_run(score=lambda generator: 1.0)
    assert helpers.load_checkpoint(run.folder / "best.pt")["step"] == 10, "expected best.pt to be made of last.pt"


def test_other_code_has_another_fingerprint(notebook):
    one, same, other = (helpers.fingerprint(f) for f in (photo_bytes, photo_bytes, archive))
    assert one == same != other, f"expected a name that belongs to the code, came {one}, {same} and {other}"


def test_a_run_shorter_than_a_print_still_has_losses(small_run):
    run, train = small_run(n=12)
    losses = train(1)  # 3 steps, and a print after every 4
    assert len(losses) == 1 and len((run.folder / "losses.csv").read_text(encoding="utf-8").splitlines()) == 2, (
        f"expected one row for what there is, came {losses}")


def test_max_minutes_bounds_the_run(small_run):
    run, train = small_run(max_minutes=3 / 60)
    started = time.perf_counter()
    train(10**6)
    seconds = time.perf_counter() - started
    assert 3 <= run.seconds < 6 and seconds < 10, f"expected 3 s of training, came {run.seconds:.1f} ({seconds:.1f} in all)"
    again, train = small_run(max_minutes=3 / 60)
    train(10**6)
    assert again.step == run.step, "expected a finished run to be loaded, not trained further"


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_foreign_checkpoint_is_refused(small_run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.pt").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="last.pt is no checkpoint"):
        small_run()
    assert (tmp_path / "run" / "last.pt").read_bytes() == b"no checkpoint", "expected the file untouched"
    torch.save({"weights": torch.zeros(3)}, tmp_path / "run" / "last.pt")
    with pytest.raises(ValueError, match="last.pt is no checkpoint"):
        small_run()
    torch.save({"settings": {}, "averaged": {}, "step": Trap(tmp_path / "sprung")}, tmp_path / "run" / "last.pt")
    with pytest.raises(ValueError, match="last.pt is no checkpoint"):
        small_run()
    assert not (tmp_path / "sprung").exists(), "expected nothing in a checkpoint to be executed"


# ---------------------------------------------------------------- helpers: several ranks

def torchrun(place, function, *args, ranks=2, restarts=0, timeout=150, command=(), **environment):
    """Run a function of this module, or a command, in so many processes under torchrun; returns the finished process."""
    code = f"import problem_unittests\nproblem_unittests.{function and function.__name__}(*{args!r})"
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), f"--max-restarts={restarts}",
         "--no-python", *(command or (sys.executable, "-c", code))],
        cwd=place, timeout=timeout, capture_output=True, text=True, encoding="utf-8", errors="replace",
        env=os.environ | {"PYTHONPATH": str(NOTEBOOK.parent), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"} | environment)


def assert_ran(process):
    errors = [line for line in process.stderr.splitlines() if re.match(r"(\[rank\d\]: ?)?\w*(Error|Interrupt)\b", line)]
    assert process.returncode == 0, f"expected torchrun to end well, came {process.returncode}: {errors or process.stderr[-2000:]}"


def step_by_two():
    """One step of two ranks, and of one process on the whole batch: their gradients, and the rows that each saw."""
    rank, ranks = helpers.world()
    notebook = read_notebook()
    torch.manual_seed(0)
    faces = torch.utils.data.TensorDataset(torch.rand(24, 3, 16, 16, dtype=torch.double) * 2 - 1, torch.arange(24))
    loader = torch.utils.data.DataLoader(faces, 8, shuffle=True, drop_last=True)
    whole = list(torch.utils.data.DataLoader(faces, 8, sampler=list(order_of(loader)), drop_last=True))
    order_of(loader)
    mine = list(helpers.share_of(loader))
    assert ranks == 2 and len(mine) == len(whole) == 3, f"expected each rank to have three batches, came {len(mine)}"
    for (_, rows), (_, all_rows) in zip(mine, whole):
        assert set(rows.tolist()) == set(all_rows.tolist()[rank::2]), f"rank {rank}: expected a half of {all_rows}, came {rows}"

    half = [torch.randn(4, 8, dtype=torch.double, generator=torch.Generator().manual_seed(k)) for k in range(2)]
    own_rows = torch.cat([torch.arange(8)[k::2] for k in range(2)])
    halves, wholes = (whole[0][0][rank::2], half[rank]), (whole[0][0][own_rows], torch.cat(half))

    def adversaries(step, real, latents):
        D, G = (net.double() for net in notebook.build_network(4, 4, 8, 16, {"norm": None}, {"norm": None}))
        with together([D, G], real), mock.patch.object(torch, "randn", lambda *_, **__: latents):
            step(D, G, real, *(torch.optim.SGD(net.parameters(), lr=10.0) for net in (D, G)))
        return [D, G]

    def translators(real, _):
        nets = [nn.ModuleList([kind(4, image_size=16), kind(4, image_size=16)]).double()
                for kind in (notebook.Translator, notebook.PatchDiscriminator)]
        pools = [types.SimpleNamespace(exchange=lambda images: images)] * 2
        with together([*nets[0], *nets[1]], real):
            notebook.swap_step(*nets, pools, real, real.flip(-1), *(torch.optim.SGD(net.parameters(), lr=0.1) for net in nets))
        return nets

    def together(networks, real):
        return helpers.trained_together(*networks) if len(real) == 4 else contextlib.nullcontext()

    for what, take in {"the lesson's step": functools.partial(adversaries, notebook.train_step),
                       "R1 and R2": functools.partial(adversaries, notebook.step_with(helpers.Run(), r1=0.5, r2=0.5)),
                       "makeup": translators}.items():
        gradients = []
        for real, latents in (halves, wholes):
            torch.manual_seed(0)
            gradients.append([p.grad for net in take(real, latents) for p in net.parameters()])
        for two, one in zip(*gradients, strict=True):
            assert one.abs().max() > 0, f"{what}: expected gradients"
            assert torch.allclose(two, one, rtol=1e-6, atol=1e-12), f"{what}: expected the whole batch's gradients, came {two - one} more"


def order_of(loader):
    """The order in which a loader's sampler deals out its rows, always the same."""
    loader.sampler.generator = torch.Generator().manual_seed(5)
    return loader.sampler


def test_two_ranks_have_the_gradients_of_one_on_the_whole_batch(tmp_path):
    assert_ran(torchrun(tmp_path, step_by_two))


def train_by_two(folder, n_epochs, dies_at=None):
    """Train a small run, in which rank 1 dies at a step of its first life; print what rank 0 has by then."""
    notebook = read_notebook()
    run, train = start_small(notebook, folder, score=lambda averaged: 1.0)
    schedules = [notebook.evolving(kind, run.parts[name]) for kind, name in (("linear", "d_optimizer"), ("plateau", "g_optimizer"))]
    rank, _ = helpers.world()
    log = run.log

    def log_and_die(*args):
        log(*args)
        if rank == 0 and run.step % 4 == 0:
            run.save()
        if rank == 1 and run.step == dies_at and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            os.kill(os.getpid(), signal.SIGKILL)

    run.log = log_and_die
    losses = train(n_epochs, functools.partial(notebook.train, schedules=schedules))
    for name in ("D", "G", "averaged"):
        for mine in run.parts[name].parameters():
            assert torch.equal(mine, helpers.from_rank_0(mine)), f"rank {rank}: expected rank 0's weights of {name}"
    print(json.dumps({"step": run.step, "images": run.images, "rows": len(losses), "seconds": run.seconds}))


def test_two_ranks_leave_one_run_that_any_number_goes_on_with(tmp_path, notebook, capsys):
    folder = tmp_path / "run"
    for ranks, n_epochs in ((2, 2), (1, 3), (2, 4)):
        if ranks == 2:
            process = torchrun(tmp_path, train_by_two, str(folder), n_epochs)
            assert_ran(process)
        else:
            start_small(notebook, folder, score=lambda averaged: 1.0)[1](n_epochs)
        printed = process.stdout if ranks == 2 else capsys.readouterr().out
        assert ("Going on with the run" in printed) == (n_epochs > 2), f"expected it to say that it goes on, came {printed}"
        state = helpers.load_checkpoint(folder / "last.pt")
        assert (state["step"], state["images"]) == (10 * n_epochs, 40 * n_epochs), f"expected every face once an epoch, came {state['step']}"
    assert len(list(tmp_path.glob("run*"))) == 1, f"expected one folder, came {list(tmp_path.glob('run*'))}"
    rows = list(csv.DictReader(open(folder / "losses.csv", encoding="utf-8")))
    steps = [4, 8, 12, 16, 20, 24, 28, 30, 32, 36, 40]  # every 4, and at the end of each of the three runs
    assert [int(row["step"]) for row in rows] == steps, f"expected {steps}, came {rows}"
    names = {path.name for path in folder.rglob("*.*")}
    assert {"generator.pt2", "training.gif", "epoch_0001.png", "epoch_0004.png"} <= names, f"expected a whole run, came {names}"


def test_ranks_that_are_left_end_too_and_a_restart_goes_on(tmp_path):
    folder, began = tmp_path / "run", time.monotonic()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    code = f"import problem_unittests\nproblem_unittests.train_by_two({str(folder)!r}, 10**6, 30)"
    ranks = [subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env=os.environ | where | {"PYTHONPATH": str(NOTEBOOK.parent), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg",
                                                        "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)]
    printed = ranks[0].communicate(timeout=120)[0]
    assert ranks[1].wait(timeout=60) == -signal.SIGKILL, "expected rank 1 to be killed"
    assert ranks[0].returncode == 1 and "ConnectionError: Another rank has ended" in printed.splitlines()[-1], (
        f"expected one sentence at the end, came {printed[-500:]}")
    assert time.monotonic() - began < 90, "expected the one that was left to end within a minute of the other's death"
    reached = helpers.load_checkpoint(folder / "last.pt")["step"]
    assert 24 <= reached <= 30, f"expected the last checkpoint to stand, came step {reached}"

    process = torchrun(tmp_path, train_by_two, str(folder), 6, 46, restarts=1)
    assert_ran(process)
    assert process.stdout.count("Going on with the run") == 2, f"expected two lives, came {process.stdout}"
    assert helpers.load_checkpoint(folder / "last.pt")["step"] == 60, "expected the restarted ranks to come to the end"


def decode_by_two(folder):
    """Two ranks decode a folder together, and read it as one does alone."""
    notebook, (rank, _) = read_notebook(), helpers.world()
    loader = notebook.get_dataloader(4, 16, folder)
    faces = loader.dataset
    shards = sorted(path.name for path in next(helpers.CACHE.glob("decoded_*")).iterdir())
    assert shards == ["images_0000.npy", "images_0001.npy", "kept_0000.npy", "kept_0001.npy", "source.txt"], f"came {shards}"
    with helpers.alone():
        again = notebook.get_dataloader(4, 16, folder).dataset
        own, helpers.CACHE = helpers.CACHE, Path(f"own_{rank}")
        whole = notebook.get_dataloader(4, 16, folder).dataset
        helpers.CACHE = own
    assert again.names == faces.names == whole.names and len(faces) == 21, f"expected the 21 readable ones, came {faces.names}"
    rows = torch.tensor([20, 0, 11, 10, 9, 0])
    for one in (faces, again):
        assert torch.equal(one.__getitems__(rows.tolist())[0], whole.__getitems__(rows.tolist())[0]), "expected the same pixels"
        assert torch.equal(torch.stack(list(one.images)), whole.images), "expected all of them in order"
    assert torch.equal(faces.images.to("cpu"), whole.images), "expected them as one tensor"


def test_ranks_decode_a_shard_each(tmp_path):
    save_photos(tmp_path / "photos", 22)
    (tmp_path / "photos" / "017.png").write_bytes(b"no picture")
    assert_ran(torchrun(tmp_path, decode_by_two, "photos"))


def refused_by_two():
    """What does not go with two ranks."""
    faces = torch.utils.data.TensorDataset(torch.rand(9, 1))
    assert_refuses(lambda: helpers.share_of(torch.utils.data.DataLoader(faces, 5)), "batches of 5 for two ranks", "batch_size")
    assert_refuses(lambda: helpers.trained_together().__enter__(), "a run without networks", "run")
    run, train = start_small(read_notebook(), "run")
    if helpers.world()[0] == 0:
        run._check_finite = lambda: (_ for _ in ()).throw(FloatingPointError("Training has diverged: a test."))
    try:
        train(100)
    except FloatingPointError:
        helpers.from_rank_0()
    else:
        raise AssertionError("expected all ranks to be told that rank 0's training has diverged")


def test_ranks_are_told_of_what_does_not_work(tmp_path):
    assert_ran(torchrun(tmp_path, refused_by_two))


# ---------------------------------------------------------------- helpers: a generator to take home

def test_a_generator_is_taken_home(small_run, tmp_path):
    run, train = small_run()
    train(1)
    generator = helpers.load_generator(run.folder / "generator.pt2")
    assert generator.z_size == 8, f"expected its z_size, 8, came {generator.z_size}"
    with zipfile.ZipFile(run.folder / "generator.pt2") as pack:
        assert not any(b"site-packages" in pack.read(name) for name in pack.namelist()), "expected no path of this machine in it"
    sheet, = helpers.write_faces(generator, tmp_path / "new" / "sheet.png", n=10, columns=5)
    assert Image.open(sheet).size == (5 * 18 - 2, 2 * 18 - 2), f"expected five 16 x 16 faces in each of two rows, came {Image.open(sheet).size}"
    files = helpers.write_faces(generator, tmp_path / "faces", n=103)
    assert [path.name for path in files] == [f"face_{i:04d}.png" for i in range(1, 104)], f"came {files}"
    faces = np.stack([np.array(Image.open(path)) for path in files])
    assert faces.shape == (103, 16, 16, 3) and len(np.unique(faces, axis=0)) == 103, f"expected 103 different faces, came {faces.shape}"
    again = helpers.write_faces(generator, tmp_path / "again", n=3)
    assert np.abs(np.array(Image.open(again[2])).astype(int) - faces[2]).max() <= 1, "expected the same faces from the same seed"
    seed = helpers.write_faces(generator, tmp_path / "seed", n=3, seed=1)
    assert not np.array_equal(np.array(Image.open(seed[0])), faces[0]), "expected other faces from another seed"
    near = np.stack([np.array(Image.open(path)) for path in helpers.write_faces(generator, tmp_path / "near", n=103, truncation=0.1)])
    assert 0 < near.std(0).mean() < 0.5 * faces.std(0).mean(), "expected truncated latents to give faces that differ less"
    assert_refuses(lambda: helpers.write_faces(generator, tmp_path, truncation=0), "truncation = 0", "truncation")
    assert_refuses(lambda: helpers.write_faces(generator, tmp_path, n=0), "n = 0", "n")
    (tmp_path / "text.pt2").write_text("no generator")
    assert_refuses(lambda: helpers.load_generator(tmp_path / "text.pt2"), "a file that is no generator", "text.pt2")
    with pytest.raises(FileNotFoundError, match="generator.pt2"):
        helpers.load_generator(tmp_path / "none.pt2")


@pytest.fixture
def committed():
    """The file of the generator in assets, if this PyTorch can read it."""
    path = NOTEBOOK.with_name("assets") / COMMITTED_GENERATOR
    try:
        helpers.load_generator(path)
    except ValueError as error:
        if "sha256" in str(error) or torch.torch_version.TorchVersion(torch.__version__) >= "2.15":
            raise
        pytest.skip(str(error))
    return path


def test_the_readme_draws_faces_with_pytorch_alone(committed, tmp_path):
    readme = NOTEBOOK.with_name("README.md").read_text(encoding="utf-8")
    snippet, = [code for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "torch.export.load" in code]
    assert snippet.count("\n") <= 6 and "helpers" not in snippet, f"expected five lines without this project, came {snippet}"
    snippet = re.sub(r'load\(".*?"\)', f"load({str(committed)!r})", snippet)
    subprocess.run([sys.executable, "-I", "-c", snippet], cwd=tmp_path, check=True, timeout=120)
    sheet = np.array(Image.open(tmp_path / "faces.png"))
    assert sheet.shape == (8 * 34 + 2, 8 * 34 + 2, 3) and sheet.std() > 40, f"expected a sheet of 64 faces, came {sheet.shape}"


def test_onnx_draws_the_same_faces(small_run, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnxscript, with which ONNX files are written, is not installed")
    from onnx.reference import ReferenceEvaluator
    run, train = small_run()
    train(1)
    helpers.export_onnx(run.folder / "generator.pt2", tmp_path / "generator.onnx")
    assert [path.name for path in tmp_path.glob("*onnx*")] == ["generator.onnx"], "expected a single file"
    session, generator = ReferenceEvaluator(onnx.load(tmp_path / "generator.onnx")), helpers.load_generator(run.folder / "generator.pt2")
    for n in (1, 3):
        z = torch.randn(n, 8)
        faces = torch.from_numpy(session.run(["faces"], {"z": z.numpy()})[0])
        assert torch.allclose(faces, generator(z), atol=1e-4), f"expected the same {n} faces, came {(faces - generator(z)).abs().max()} off"


def test_onnx_without_its_package_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModuleNotFoundError, match="pip install onnxscript"):
        helpers.export_onnx(tmp_path / "generator.pt2", tmp_path / "generator.onnx")


def test_another_file_in_place_of_the_committed_generator_is_refused(committed, tmp_path):
    assert committed.stat().st_size < 10e6, "expected at most 10 MB"
    content = bytearray(committed.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / COMMITTED_GENERATOR).write_bytes(content)
    assert_refuses(lambda: helpers.load_generator(tmp_path / COMMITTED_GENERATOR), "a generator with a bit turned", COMMITTED_GENERATOR)


# ---------------------------------------------------------------- next steps: every option

D_OPTIONS = [{"norm": norm} for norm in ("batch", "instance", "group", "layer", "pixel", "spectral", None)] + [
    {"padding": "reflect"}, {"padding": "replicate"}, {"batch_deviation": True}, {"dropout": 0.3}]
G_OPTIONS = [{"norm": norm} for norm in ("batch", "instance", "group", "layer", "pixel", None)] + [
    {"upsample": "nearest"}, {"upsample": "pixelshuffle"}, {"upsample": "nearest", "padding": "reflect"},
    {"upsample": "pixelshuffle", "padding": "replicate"}, {"style": True}]


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
def test_every_option_gives_networks_that_learn_at_every_size(notebook, size):
    for d_options, g_options in [*((options, {}) for options in D_OPTIONS), *(({}, options) for options in G_OPTIONS)]:
        D, G = notebook.build_network(4, 4, 10, size, d_options, g_options)
        what, z = f"D {d_options}, G {g_options} at {size}", torch.randn(4, 10)
        fake = G(z)
        assert fake.shape == (4, 3, size, size) and fake.abs().max() <= 1, f"{what}: expected images in [-1, 1], came {fake.shape}"
        logits = D(fake)
        assert logits.shape == (4, 1), f"{what}: expected logits (4, 1), came {logits.shape}"
        notebook.real_loss(logits).backward()
        for name, weight in [*D.named_parameters(), *G.named_parameters()]:
            assert weight.grad is not None and weight.grad.isfinite().all(), f"{what}: expected a finite gradient for {name}"


@pytest.mark.parametrize("d_options, g_options", [*((options, {}) for options in D_OPTIONS), *(({}, options) for options in G_OPTIONS)],
                         ids=str)
def test_a_few_steps_with_every_option_teach_the_discriminator(notebook, d_options, g_options):
    torch.manual_seed(0)
    D, G = notebook.build_network(8, 8, 10, 16, d_options, g_options)
    optimizers = notebook.adam(D, 2e-3), notebook.adam(G, 1e-4)
    losses = [notebook.train_step(D, G, pictures(32, 16), *optimizers)[0].item() for _ in range(30)]
    assert losses[-1] < min(losses[0], 1.3), f"expected a d_loss that falls from {losses[0]:.2f}, came {losses[-1]:.2f}"


@pytest.mark.parametrize("build, message", [
    (lambda nb: nb.Generator(10, 8, padding="reflect"), "padding = 'reflect' does not go with upsample"),
    (lambda nb: nb.Generator(10, 8, norm="spectral"), "for the discriminator"),
    (lambda nb: nb.Generator(10, 8, upsample="bicubic"), "upsample = 'bicubic' does not work: it must be one of"),
    (lambda nb: nb.Discriminator(8, norm="batchnorm"), "norm = 'batchnorm' does not work: it must be one of 'batch'"),
    (lambda nb: nb.Discriminator(8, padding="circular"), "padding = 'circular' does not work"),
    (lambda nb: nb.optimizer("Adagrad", nn.Linear(1, 1), 0.1), "optimizer = 'Adagrad' does not work: it must be one of 'Adam"),
])
def test_what_does_not_go_together_is_refused(notebook, build, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build(notebook)


def test_spectral_norm_keeps_the_largest_singular_value_near_1(notebook):
    D, _ = notebook.build_network(16, 8, 10, 32, {"norm": "spectral"})
    optimizer = notebook.adam(D, 1e-3)
    for _ in range(50):
        optimizer.zero_grad()
        notebook.real_loss(D(pictures(8, 32))).backward()
        optimizer.step()
    for name, layer in D.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            largest = torch.linalg.svdvals(layer.weight.flatten(1))[0].item()
            assert abs(largest - 1) < 0.1, f"{name}: expected a largest singular value of 1, came {largest:.3f}"


def test_pixelshuffle_starts_as_nearest_does(notebook):
    layers = nn.Sequential(*notebook.doubled(6, 3, "pixelshuffle")).apply(notebook.weights_init_normal)
    grown = layers(torch.randn(2, 6, 8, 8))
    squares = grown.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    assert grown.std() > 0.05 and (squares - squares[..., :1]).abs().max() < 1e-6, "expected 2 x 2 pixels alike (ICNR)"


def test_the_batch_deviation_tells_a_varied_batch_from_one_that_repeats(notebook):
    D, _ = notebook.build_network(8, 8, 10, 16, {"batch_deviation": True, "norm": "layer"})
    D.logit.weight.data.zero_()[0, -1] = 1  # nothing but the last feature counts
    varied, same = D(pictures(16, 16)), D(pictures(1, 16).repeat(16, 1, 1, 1))
    assert varied.min() > 100 * same.abs().max(), f"expected about 0 for one image 16 times, came {same[0].item():.4f}"


@pytest.mark.parametrize("name, rate", [("Adam", 1e-3), ("AdamW", 1e-3), ("RMSprop", 2.5e-4), ("SGD", 1e-2)])
def test_optimizers_by_name(notebook, name, rate):
    optimizer = notebook.optimizer(name, nn.Linear(2, 1), 1e-3)
    assert type(optimizer).__name__ == name and optimizer.param_groups[0]["lr"] == pytest.approx(rate)


@pytest.mark.parametrize("schedule", ["linear", "plateau"])
def test_a_run_with_a_schedule_goes_on_where_it_was(notebook, tmp_path, schedule):
    def run_for(n_epochs):
        torch.manual_seed(0)
        D, G = notebook.build_network(8, 8, 10, 16)
        optimizers, rates = (notebook.adam(D, 1e-3), notebook.adam(G, 1e-3)), []
        schedulers = [notebook.evolving(schedule, optimizer) for optimizer in optimizers]
        scores = iter(range(100))
        run = helpers.Run(tmp_path, {"seed": 0}, score=lambda generator: next(scores), D=D, G=G, d_optimizer=optimizers[0],
                          g_optimizer=optimizers[1], d_schedule=schedulers[0], g_schedule=schedulers[1],
                          averaged=torch.optim.swa_utils.AveragedModel(G))
        assert schedulers[0].last_epoch == (0 if run.step == 0 else 100 if schedule == "linear" else len(run.scores) - 1)
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(pictures(32, 16), torch.zeros(32)), 4, shuffle=True)
        optimizers[1].register_step_post_hook(lambda *_: rates.append(optimizers[1].param_groups[0]["lr"]))
        notebook.train(D, G, loader, *optimizers, n_epochs, 4, run.parts["averaged"], run, schedules=schedulers)
        return rates

    first, more = run_for(2), run_for(8)
    if schedule == "linear":
        assert first == pytest.approx([1e-3 * min(1, 2 - int(100 * step / 16) / 50) for step in range(16)])
        assert more[1:] == pytest.approx([1e-3 * min(1, 2 - int(100 * step / 64) / 50) for step in range(17, 64)]), (
            f"given more time, expected the rates that belong there, came {more}")


def test_a_swap_goes_on_where_it_was_bit_for_bit(notebook, tmp_path):
    def swapped(folder, n_epochs):
        torch.manual_seed(0)
        piles = [faces_named(*(f"{name}{i}.jpg" for i in range(n))) for name, n in (("a", 12), ("b", 8))]
        for pile in piles:
            pile.images = torch.randint(256, (len(pile), 3, 16, 16), dtype=torch.uint8)
        translators, judges, pools = (nn.ModuleList([make(), make()]) for make in (
            lambda: notebook.Translator(4, 16), lambda: notebook.PatchDiscriminator(4, 16), lambda: notebook.ImagePool(16, 5)))
        optimizers = notebook.adam(translators, 1e-3), notebook.adam(judges, 1e-3)
        faces = torch.rand(8, 3, 16, 16)
        run = helpers.Run(folder, {"seed": 0}, won=None, sheet=lambda: notebook.there_and_back(translators, faces, faces),
                          translators=translators, judges=judges, pools=pools, t_optimizer=optimizers[0], j_optimizer=optimizers[1])
        loader = torch.utils.data.DataLoader(notebook.Unpaired(*piles), 4, shuffle=True, collate_fn=helpers.as_batch)
        notebook.train_swap(translators, judges, pools, loader, *optimizers, n_epochs, 2, run, cycle=3.0, identity=1.0)
        return {name: part.state_dict() for name, part in run.parts.items() if isinstance(part, nn.Module)}, run

    straight, run = swapped(tmp_path / "straight", 4)
    swapped(tmp_path / "split", 2)
    split, other = swapped(tmp_path / "split", 4)
    assert other.step == run.step == 12 and len(other.rows) == 6, f"expected 12 steps, came {other.step}"
    assert run.parts["pools"][0].count == 5, "expected a full pool"
    for name, state in straight.items():
        for key, value in state.items():
            assert torch.equal(value, split[name][key]), f"expected {key} of {name} as without a stop"
    sheet = Image.open(sorted((tmp_path / "split" / "samples").glob("*.png"))[-1])
    assert sheet.size == (8 * 18 - 2, 6 * 18 - 2), f"expected six rows of eight faces, came {sheet.size}"


# ---------------------------------------------------------------- the whole notebook

def run_notebook(place, monkeypatch, path=str(NOTEBOOK.parent), **settings):
    """Run the notebook in small in the folder `place`, its modules in `path`; returns everything that it printed."""
    import papermill  # here, because a notebook opened in Colab lacks it
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    small = dict(n_drawn=300, image_size=16, batch_size=32, d_conv_dim=8, g_conv_dim=8, max_minutes=0.1, print_every=5,
                 section_minutes=0.01, row_minutes=0.002, next_steps=False)
    executed = papermill.execute_notebook(NOTEBOOK, place / "executed.ipynb", small | settings, cwd=place, progress_bar=False)
    return "".join("".join(output.get("text", "")) for cell in executed.cells for output in cell.get("outputs", []))


def test_notebook_offline(tmp_path, monkeypatch):
    printed = run_notebook(tmp_path, monkeypatch, data_url="http://127.0.0.1:9/refused.zip", next_steps=True)
    assert "300 drawn faces" in printed and "cannot be reached" in printed, "expected drawn faces, and the reason"
    assert printed.count("Tests Passed") == len(DEFINED) - 6, f"expected every check to pass, came {printed.count('Tests Passed')}"
    run = tmp_path / "runs" / "lesson"
    executed = (tmp_path / "executed.ipynb").read_text(encoding="utf-8")
    assert executed.count("data:image/gif;base64") == 1, "expected the film of the training to be shown"
    steps = (run / "losses.csv").read_text(encoding="utf-8")
    printed = run_notebook(tmp_path, monkeypatch, data_url="http://127.0.0.1:9/refused.zip")
    assert "Going on with the run" in printed and (run / "losses.csv").read_text(encoding="utf-8") == steps, (
        "expected a finished run to be loaded, and the cells after it to run")
    for name in ("generator.pt2", "last.pt", "losses.csv", "training.gif"):
        assert (run / name).stat().st_size > 100, f"expected {name} in the run's folder"


def test_notebook_in_two_ranks(tmp_path):
    settings = dict(data_dir="drawn", n_drawn=1000, max_minutes=0.3, next_steps=False)
    given = [str(word) for name, value in settings.items() for word in ("-p", name, value)]
    assert_ran(torchrun(tmp_path, None, command=("papermill", str(NOTEBOOK), "-", "--no-progress-bar", *given), timeout=400))
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["lesson"], "expected one run"
    run = tmp_path / "runs" / "lesson"
    rows = list(csv.DictReader(open(run / "losses.csv", encoding="utf-8")))
    assert all(int(row["images"]) == 32 * int(row["step"]) for row in rows), f"expected batches of 32 for both, came {rows}"
    last = min(float(row["score"]) for row in csv.DictReader(open(run / "scores.csv", encoding="utf-8")))
    assert last < 100, f"expected samples that begin to be faces (noise: 180, untrained: 125), came an FFD of {last:.0f}"
    faces = helpers.load_generator(run / "generator.pt2")(torch.randn(16, 100))
    assert faces.shape == (16, 3, 32, 32) and faces.std(0).mean() > 0.1, f"expected different faces, came {faces.std(0).mean()}"


def test_parts_do_not_overlap_and_do_not_move():
    celeba = [f"{i:06d}.jpg" for i in range(1, 202_600, 13)]
    parts = helpers.parts_of(celeba)
    assert (parts[np.array([int(name[:6]) for name in celeba]) <= 162_770] == 0).all(), "expected no training image held out"
    assert [int((parts == k).sum()) for k in (1, 2)] == [974, 974], f"expected an eighth, came {np.bincount(parts)}"
    few = [f"{i:06d}.jpg" for i in range(1, 1601)] + ["162771.jpg"]
    assert (helpers.parts_of(few) > 0).sum() == 200, "expected an eighth where hardly one has CelebA's high numbers"
    drawn = [f"{i:06d}.jpg" for i in range(1000)] + [f"{helpers.OTHER_SEED}{i:06d}.jpg" for i in range(125)]
    held = helpers.parts_of(drawn).nonzero()[0]
    assert held.tolist() == [*range(1000, 1125)], "expected the drawn faces of the other seed to be held out, and no others"
    other = [f"photo{i}.png" for i in range(1200)]
    parts = dict(zip(other, helpers.parts_of(other)))
    assert sum(part > 0 for part in parts.values()) == 150, "expected an eighth of any folder to be held out"
    assert parts == dict(zip(other[::-1], helpers.parts_of(other[::-1]))), "expected names to decide, came the order"
    assert not helpers.parts_of(other[:999]).any(), "expected a small folder to be trained on whole"


def test_worse_faces_have_worse_scores(notebook):
    torch.manual_seed(0)
    scale = lambda seed: helpers.draw_faces(1000, 32, seed)[0] / 127.5 - 1  # noqa: E731
    real, faces = scale(0), scale(1)
    features = helpers.face_features(real)
    blur = lambda x: F.avg_pool2d(F.pad(x, [1] * 4, "reflect"), 3, 1)  # noqa: E731
    noise = lambda x, size: (x + size * torch.randn_like(x)).clamp(-1, 1)  # noqa: E731
    for what, row in {"blur": [faces, blur(faces), blur(blur(blur(faces)))],
                      "noise": [faces, noise(faces, 0.1), noise(faces, 0.4)],
                      "fewer of them": [faces, faces[:25].repeat(40, 1, 1, 1), faces[:5].repeat(200, 1, 1, 1)]}.items():
        seen = [helpers.face_features(x) for x in row]
        scores = {"FFD": [notebook.frechet_distance(features, x) for x in seen],
                  "SWD": [sum(notebook.sliced_wasserstein(real, x)) for x in row]}
        if what == "fewer of them":
            scores |= {"recall": [-notebook.precision_recall(features, x)[1] for x in seen],
                       "MS-SSIM": [notebook.ms_ssim(x[torch.randperm(1000)]) for x in row]}
        else:
            scores["precision"] = [-notebook.precision_recall(features, x)[0] for x in seen]
        for name, values in scores.items():
            assert values == sorted(values) and values[0] < values[2], f"{what}, {name}: expected worse and worse, came {values}"


def test_drawn_skin_is_measured_as_it_was_drawn(notebook):
    faces, truth = helpers.draw_faces(1500, 64, seed=2)[0] / 127.5 - 1, torch.from_numpy(helpers.imagine_faces(1500, 2)["ita"])
    angles = notebook.skin_tone(faces, notebook.eye_row(faces))
    tie = torch.corrcoef(torch.stack([angles.double(), truth]))[0, 1]
    assert tie > 0.8, f"expected the angle that is measured to follow the one that was drawn, came a correlation of {tie:.2f}"
    read = notebook.last_layer(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0, 0, 0, 0], [1, 1, 1, 1]]))
    shares = notebook.audit(faces, torch.arange(1500)[:, None] % 3 / 2, notebook.eye_row(faces), read)
    assert abs(shares["Smiling"] - 0.5) < 0.2, f"expected a third to two thirds to be read as smiling, came {shares}"
    assert set(notebook.BANDS) < set(shares) and abs(sum(shares[name] for name in notebook.BANDS) - 1) < 1e-6, (
        f"expected everybody in one band, came {shares}")


def test_colours_in_lab():
    pixels = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, -1, 1], [-1, -1, -1]])[:, :, None, None]
    expected = torch.tensor([[100, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86], [0, 0, 0]])
    came = helpers.to_lab(pixels).flatten(1)
    assert (came - expected).abs().max() < 0.1, f"white, red, blue, black: expected {expected.tolist()}, came {came.tolist()}"


def test_an_interval_holds_what_it_says(notebook):
    counts = np.random.default_rng(0).binomial(200, 0.1, 4000)
    hits = np.mean([low < 0.1 < high for low, high in (notebook.interval(count / 200, 200) for count in counts)])
    assert 0.93 < hits < 0.975, f"expected the true share in 95 % of the intervals, came {hits:.1%}"
    assert notebook.interval(0, 50)[0] == 0 and notebook.interval(0, 50)[1] > 0.03, "expected zero of 50 not to mean never"


def test_without_inception_weights_one_line_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    faces = torch.zeros(4, 3, 16, 16)
    for url, words in (("http://127.0.0.1:9/weights-6726825d.pth", "cannot be reached"), (NOTEBOOK.as_uri(), "another file")):
        monkeypatch.setattr(helpers, "INCEPTION", url)
        assert helpers.inception_scores(faces, faces) == {}, "expected no scores"
        printed = capsys.readouterr().out
        assert words in printed and printed.count("\n") == 1, f"expected one line that says why, came {printed}"


def test_fid_is_the_frechet_distance_of_inception_features(notebook, tmp_path, monkeypatch):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    torch.manual_seed(0)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path = Path(tmp_path, "checkpoints", helpers.INCEPTION.rpartition("/")[2])
    path.parent.mkdir()
    with monkeypatch.context() as patch:  # weights that need no network: random ones
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        inception = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).eval()
    for layer in inception.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    torch.save(inception.state_dict(), path)
    faces = helpers.draw_faces(16, 64)[0]
    blurred = F.avg_pool2d(faces.float(), 3, 1, 1).round().byte()
    scores = helpers.inception_scores(faces / 127.5 - 1, blurred / 127.5 - 1)
    with torch.no_grad():
        features = [inception(images)[0] for images in (faces, blurred)]
    expected = notebook.frechet_distance(*features)
    assert expected > 0.1 and abs(scores["FID"] - expected) < 0.05 * expected, f"expected a FID of {expected:.4g}, came {scores['FID']:.4g}"
    torch.save({"weights": Path}, path)  # more than weights
    with pytest.raises(pickle.UnpicklingError):
        helpers.inception_scores(faces, blurred)


REAL_FACES = os.environ.get("REAL_FACES")
needs_real_faces = pytest.mark.skipif(not REAL_FACES, reason="REAL_FACES does not name the folder of real faces")


@needs_real_faces
def test_notebook_on_the_real_archive_over_http(tmp_path, monkeypatch):
    content = Path(REAL_FACES, "processed-celeba-small.zip").read_bytes()
    with serve(file_answer(content)) as url:
        printed = run_notebook(tmp_path, monkeypatch, data_url=url, data_sha256=sha256(content))
    assert "40,045 images downloaded" in printed, "expected the archive's 40,045 images"
    assert printed.count("Tests Passed") == len(DEFINED) - 6, f"expected every check to pass, came {printed.count('Tests Passed')}"
    assert len(list((tmp_path / "processed_celeba_small" / "celeba").iterdir())) == 40_045, "expected one flat folder"


def held_out_faces(most, part):
    """Real faces (n, 3, 64, 64), uint8, of one of helpers.PARTS, and their file names."""
    with zipfile.ZipFile(Path(REAL_FACES, "processed-celeba-small.zip")) as pack:
        paths = [name for name in pack.namelist() if helpers.is_image(name)]
        chosen = helpers.parts_of([os.path.basename(path) for path in paths]) == helpers.PARTS.index(part)
        paths = [path for path, is_chosen in zip(paths, chosen) if is_chosen][:most]
        return np.stack([np.array(Image.open(pack.open(path))) for path in paths]), [os.path.basename(path) for path in paths]


@needs_real_faces
def test_the_committed_generator_scores_as_the_table_says(notebook, committed):
    readme = NOTEBOOK.with_name("README.md").read_text(encoding="utf-8")
    stated = float(re.search(r"^\| \[`assets/" + COMMITTED_GENERATOR + r"`\].*?FFD ([\d.]+)", readme, re.MULTILINE)[1])
    photos, _ = held_out_faces(2500, "test")
    real = np.stack([np.array(Image.fromarray(photo).resize((32, 32), Image.BILINEAR)) for photo in photos])
    real = torch.from_numpy(real).permute(0, 3, 1, 2) / 127.5 - 1
    generator = helpers.load_generator(committed)
    with torch.no_grad():
        faces = torch.cat([generator(z) for z in torch.randn(5000, 100, generator=torch.Generator().manual_seed(1000)).split(250)])
    came = notebook.frechet_distance(helpers.face_features(faces), helpers.face_features(real))
    assert abs(came - stated) < 0.3, f"expected the FFD of the table, {stated}, came {came:.2f}"


@needs_real_faces
def test_the_face_network_knows_faces_it_has_not_seen(tmp_path):
    with zipfile.ZipFile(Path(REAL_FACES, "list_attr_celeba.zip")) as pack:
        names, table = helpers.read_attributes(pack.extract("list_attr_celeba.txt", tmp_path))
    photos, files = held_out_faces(1000, "test")
    faces = torch.from_numpy(photos).permute(0, 3, 1, 2) / 127.5 - 1
    truth = torch.from_numpy(np.array([table[file] for file in files]))
    for size in (64, 32):
        said = helpers.attribute_logits(helpers.face_features(F.avg_pool2d(faces, 64 // size)), names) > 0
        right = (said == truth).float().mean().item()
        assert right > 0.89, f"{size} x {size}: expected 89 % of the attributes right, came {right:.1%}"


@needs_real_faces
def test_eyes_are_found_where_they_are(notebook):
    for archive, row in (("processed-celeba-small.zip", 33), ("utkface-64.zip", 18)):
        with zipfile.ZipFile(Path(REAL_FACES, archive)) as pack:
            paths = [name for name in pack.namelist() if helpers.is_image(name)][::50]
            faces = np.stack([np.array(Image.open(pack.open(path)).convert("RGB").resize((64, 64))) for path in paths])
        came = notebook.eye_row(torch.from_numpy(faces).permute(0, 3, 1, 2) / 127.5 - 1)
        assert abs(came - row) <= 2, f"{archive}: expected the eyes near row {row} of 64, came {came}"


def test_five_thousand_samples_are_scored_quickly(notebook):
    generator = notebook.Generator(100, notebook.g_conv_dim).eval()
    reference, best = helpers.face_features(torch.rand(2500, 3, 32, 32) * 2 - 1), math.inf
    for _ in range(2):
        started = time.perf_counter()
        notebook.frechet_distance(helpers.face_features(notebook.draw(generator, 5000, 0)), reference)
        best = min(best, time.perf_counter() - started)
    assert best < 15, f"expected 5,000 samples of 32 x 32 pixels to be scored in 15 s, came {best:.1f} s"


@needs_real_faces
def test_notebook_on_a_plain_folder(tmp_path, monkeypatch):
    with zipfile.ZipFile(Path(REAL_FACES, "utkface-64.zip")) as pack:
        for name in pack.namelist()[::50]:
            pack.extract(name, tmp_path)
    (tmp_path / "utkface" / "broken.jpg").write_bytes(photo_bytes()[:200])
    printed = run_notebook(tmp_path, monkeypatch, data_dir=str(tmp_path / "utkface"), print_every=10_000)
    assert "images found in" in printed and printed.count("Tests Passed") == len(DEFINED) - 6, "expected a run on the folder as it is"
    assert "Left out 1 unreadable files, the first: broken.jpg" in printed, "expected the broken file to be named"


def test_notebook_says_what_is_wrong_before_it_trains(tmp_path, monkeypatch):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.jpg").write_text("no picture", encoding="utf-8")
    for settings, message in ((dict(image_size=48), "image_size = 48"), (dict(data_dir="texts"), "can be read"),
                              (dict(data_dir="drawn", batch_size=301), "batch_size = 301")):
        with pytest.raises(Exception, match=message):
            run_notebook(tmp_path, monkeypatch, **settings)
        assert not (tmp_path / "runs").exists(), f"{message}: expected the error before any training"


def test_notebook_alone_says_what_to_fetch(tmp_path, monkeypatch):
    (tmp_path / NOTEBOOK.name).write_bytes(NOTEBOOK.read_bytes())
    with pytest.raises(Exception, match="helpers.py is missing: put helpers.py and problem_unittests.py"):
        run_notebook(tmp_path, monkeypatch, path="")


def test_committed_notebook_is_one_clean_run():
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in cells]
    assert counts == list(range(1, len(cells) + 1)), f"expected a run from top to bottom, came {counts}"
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"], "expected no errors"
    warned = [output["text"] for output in outputs if output.get("name") == "stderr"]
    assert not warned, f"expected nothing on stderr, came {warned}"
    assert NOTEBOOK.stat().st_size < 5_000_000, f"expected less than 5 MB, came {NOTEBOOK.stat().st_size:,} bytes"
