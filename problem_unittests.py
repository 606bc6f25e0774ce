"""The checks under the notebook's cells.

In the notebook, `tests.test_scale(scale)` below a definition checks it there and then.
`pytest problem_unittests.py` runs the same checks on what the notebook defines.
"""

import ast
import copy
import dis
import functools
import inspect
import itertools
import json
import linecache
import math
import re
import sys
import tempfile
import traceback
import types
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn
from torch.nn import functional as F

import helpers
from assets.lib.drawn import draw_faces

LESSON = "dlnd_face_generation"
BAD_IMAGE_SIZES = (48, 8, 512, 0, -32)


# ---------------------------------------------------------------- exercises

EXERCISES = {}  # by name: what stands under @exercise, an empty stub or the learner's own code


def exercise(definition):
    """Marks a function or class that the learner may write."""
    EXERCISES[definition.__name__] = definition
    return definition


def solution(definition):
    """The learner's own definition of this name if there is one, otherwise the solution."""
    own = EXERCISES.get(definition.__name__)
    if own is None or unwritten(own):
        return definition
    print(f"Using your own {definition.__name__}.")
    return own


class Stub(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self):
        """Nothing yet."""


def instructions(function):
    return [(op.opname, op.argval) for op in dis.get_instructions(function) if op.opname != "NOP"]


def unwritten(definition):
    """Whether a function, or __init__ and forward of a class, hold no code yet."""
    nothing = [instructions(Stub.__init__), instructions(Stub.forward)]
    parts = [inspect.unwrap(definition)]
    if inspect.isclass(definition):
        parts = {definition.__init__, getattr(definition, "forward", None)}
        parts -= {nn.Module.__init__, nn.Module.forward}
    return all(inspect.isfunction(part) and instructions(part) in nothing for part in parts)


# ---------------------------------------------------------------- what the checks share

HINTS = {
    "second time": "Does D's own step see fake.detach()?",
    "does not require grad": "Is something detached that should not be?",
    "Module.__init__.. call|_backward_hooks": "__init__ begins with super().__init__().",
    "shapes cannot be multiplied": "Does the linear layer fit? Is there an nn.Flatten, padding=1?",
    "between 0 and 1": "These are logits: use F.binary_cross_entropy_with_logits.",
}


def check(test):
    """Print `Tests Passed` after a test, put any error into a sentence, keep the random state."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        given = inspect.signature(test).bind(*args, **kwargs).arguments
        stubs = [definition for definition in given.values() if unwritten(definition)]
        for stub in stubs:
            name = stub.__name__
            assert EXERCISES.get(name) is stub, f"{name} is not written yet: its body is empty."
            print(f"{name} is not written yet: the solution below is used.")
        if not stubs:
            problem = problem_of(test, given)
            assert not problem, problem
            print("Tests Passed")

    return run


def problem_of(test, given):
    """Run a test with the same random numbers each time, in one process and one thread."""
    threads = torch.get_num_threads()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices), helpers.single_process():
        torch.default_generator.manual_seed(0)
        torch.set_num_threads(1)  # small work waits longer for threads than it takes
        try:
            test(**given)
        except AssertionError as error:
            return str(error)
        except Exception as error:
            return explained(error, given.values())
        finally:
            torch.set_num_threads(threads)


def explained(error, definitions):
    """What went wrong, in a sentence, with the learner's line in which it did."""
    names = " and ".join(definition.__name__ for definition in definitions)
    modules = {definition.__module__ for definition in definitions}
    frames = traceback.walk_tb(error.__traceback__)
    own = [(f.f_code.co_filename, n) for f, n in frames if f.f_globals["__name__"] in modules]
    if not own and "NoneType" in str(error):
        return f"{names} returned None: is there a `return`?"
    text = f"{names}: expected a result, got {type(error).__name__}: {error}."
    if own and (line := linecache.getline(*own[-1]).strip()):
        text += f" It happened in this line: `{line}`."
    return " ".join([text, *(hint for sign, hint in HINTS.items() if re.search(sign, str(error)))])


def assert_refuses(call, what, word):
    """`call` must raise a ValueError whose message names the setting or the folder."""
    expected = f"{what}: expected a ValueError that names {word}"
    try:
        call()
    except ValueError as error:
        named = re.sub(r"[\s_]+", "_", str(error).lower())
        assert word in named, f"{expected}, got a ValueError that says: {error}"
    except Exception as error:
        raise AssertionError(f"{expected}, got {type(error).__name__}: {error}") from error
    else:
        raise AssertionError(f"{expected}, got no error: check it before anything else runs.")


def assert_shape(what, tensor, *shape):
    assert tensor is not None, f"{what}: expected a tensor, got None. Is there a `return`?"
    got = tuple(tensor.shape)
    assert got == shape, f"{what}: expected the shape {shape}, got {got}."


def assert_two(what, result):
    assert result is not None, f"{what}: expected two values, got None. Is there a `return`?"
    got = len(result) if isinstance(result, (tuple, list)) else f"one {type(result).__name__}"
    assert got == 2, f"{what}: expected two values, got {got}."


def assert_close(what, got, expected, within=1e-4, hint=""):
    """One number, or several."""
    got, expected = ([float(number) for number in np.ravel(x)] for x in (got, expected))
    texts = [", ".join(f"{round(x, 4):g}" for x in numbers) for numbers in (expected, got)]
    is_close = len(got) == len(expected) and np.allclose(got, expected, rtol=0, atol=within)
    assert is_close, f"{what}: expected {texts[0]}, got {texts[1]}. {hint}"


def assert_rising(what, values):
    text = ", ".join(f"{value:.3g}" for value in values)
    is_rising = all(a < b for a, b in zip(values, values[1:]))
    assert is_rising, f"{what}: expected larger and larger numbers, got {text}."


def names_of_globals(code):
    inner = filter(inspect.iscode, code.co_consts)
    names = {op.argval for op in dis.get_instructions(code) if "GLOBAL" in op.opname}
    return names.union(*map(names_of_globals, inner))


def assert_no_globals(function):
    """Functions, classes and modules may be read from outside; settings and networks may not."""
    function = inspect.unwrap(function)
    fine = (types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type)
    outside = {k for k, v in function.__globals__.items() if not isinstance(v, fine)}
    read = ", ".join(sorted(names_of_globals(function.__code__) & outside))
    assert not read, (
        f"{function.__name__}: expected all it needs among its arguments, got a read of the global "
        f"{read}. Take it from an argument (G.z_size, real.device ...)."
    )


def pictures(n, size):
    """n different smooth colour pictures in [-1, 1]."""
    return F.interpolate(torch.rand(n, 3, 4, 4) * 2 - 1, size=size, mode="bilinear")


def n_weights(network):
    return sum(weight.numel() for weight in network.parameters())


def assert_fits_any_size(build, inputs, shape):
    """build(conv_dim, size) makes networks that turn inputs(n, size) into shape(n, size)."""
    for size in (16, 32, 64):
        network = build(8, size)
        for n in (2, 5):
            what = f"A batch of {n} at image_size {size}"
            assert_shape(what, network(inputs(n, size)), *shape(n, size))
        assert_shape("A batch of 1 in eval mode", network.eval()(inputs(1, size)), *shape(1, size))
    for size in BAD_IMAGE_SIZES:
        assert_refuses(lambda size=size: build(8, size), f"image_size = {size}", "image_size")
    first, second, x = build(8, 32).eval(), build(8, 32).eval(), inputs(16, 32)
    second.load_state_dict(first.state_dict())
    assert first(x).allclose(second(x), atol=1e-5), "Is a layer in a list? Use nn.Sequential."
    outputs = [first(part) for part in (x[:8], x[8:], (x[:8] + x[8:]) / 2)]
    a, b, middle = (y.clamp(-0.99, 0.99).atanh() if y.ndim == 4 else y for y in outputs)
    is_linear = (middle - (a + b) / 2).abs().max() < 1e-3 * (a - b).abs().max()
    assert not is_linear, "Expected an activation after each hidden layer, got a linear network."
    narrow, wide = n_weights(build(8, 32)), n_weights(build(16, 32))
    assert narrow < wide, f"conv_dim 8, 16: expected more weights with 16, got {narrow}, {wide}."


def assert_learns(network, x):
    """A gradient arrives at every weight, and at the input."""
    x = x.clone().requires_grad_()
    out = network.train()(x)
    name = type(network).__name__
    assert out.requires_grad, f"{name}: expected an output with a gradient, got a detached one."
    (out * torch.randn_like(out)).sum().backward()
    for key, weight in [*network.named_parameters(), ("input", x)]:
        # a bias in front of a normalisation has a gradient of 0
        is_reached = weight.grad is not None and (weight.ndim < 2 or weight.grad.any())
        assert is_reached or not weight.requires_grad, (
            f"{name}: expected a gradient for {key}, got none. Is the layer used in forward?"
        )


def redrawn(network, deviation):
    """The network in eval mode, with new weights: small ones hide what stands at the end."""
    for weight in network.parameters():
        nn.init.normal_(weight, 0, deviation)
    return network.eval()


# ---------------------------------------------------------------- 3. and 4. the data

N_PHOTOS, BATCH = 22, 4


def save_photos(root, folders):
    """A bright disc on a dark ground, its shade telling the photos apart: half wide, half tall."""
    for i in range(N_PHOTOS):
        width, height = (60, 40) if i % 2 else (40, 60)
        x, y, shade = width / 2, height / 2, 135 + 5 * i
        photo = Image.new("RGB", (width, height), (40, 10, 20))
        ImageDraw.Draw(photo).ellipse((x - 12, y - 12, x + 12, y + 12), fill=(shade,) * 3)
        folder = root / folders[i * len(folders) // N_PHOTOS]
        folder.mkdir(parents=True, exist_ok=True)
        photo.convert("L" if i == 3 else "RGB").save(folder / f"{i:03}.png")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "._000.jpg").write_bytes(b"\0\5\26\7")


def assert_images(images, labels, n_classes):
    kinds = images.dtype, labels.dtype
    assert kinds == (torch.float32, torch.int64), f"Expected float32 and int64, got {kinds}."
    low, high = images.min().item(), images.max().item()
    assert 0 <= low <= 0.2 and 0.8 <= high <= 1, (
        f"Dark and bright photos: expected values in [0, 1], got {low:.2f} to {high:.2f}. "
        "ToTensor divides by 255, and scale() goes on to [-1, 1] later."
    )
    n = len(labels.unique())
    assert n == n_classes, f"{n_classes} folders of photos: expected as many labels, got {n}."
    discs = images.amax(1) > 0.35  # (N, S, S)
    heights, widths = discs.any(2).sum(1), discs.any(1).sum(1)
    apart = (heights - widths).abs().max().item()
    assert apart <= 1 + images.shape[-1] // 32, (
        f"Photos that are not square: expected round discs, got some {apart} pixels off. "
        "Resize(image_size) and CenterCrop(image_size) crop; Resize((S, S)) stretches."
    )


def assert_serves(loader, size, n_classes):
    batches, served = list(loader), []
    assert len(batches) == len(loader) and len(batches) in (5, 6), (
        f"{N_PHOTOS} photos in batches of {BATCH}: expected 5 batches, or 6 with the rest, got "
        f"{len(batches)} and a len(loader) of {len(loader)}. Are all folders read, and .DS_Store "
        "and __MACOSX left out?"
    )
    for images, labels in batches[:5]:
        assert_shape("A batch of images", images, BATCH, 3, size, size)
        assert_shape("Its labels", labels, BATCH)
    for epoch in (batches, list(loader)):
        images, labels = (torch.cat(part) for part in zip(*epoch))
        assert_images(images, labels, n_classes)
        shades = images[:, 1, size // 2, size // 2].mul(51).round().tolist()
        served.append(shades)
        n, most = len(set(shades)), len(images)
        is_whole = n == most >= N_PHOTOS - N_PHOTOS % BATCH
        assert is_whole, f"An epoch: expected each photo once, got {n} different ones in {most}."
    assert served[0] != served[1], "Two epochs: expected another order. Is it shuffle=True?"


@check
def test_get_dataloader(get_dataloader):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        save_photos(root, ["flat"])
        save_photos(root, ["classes/a", "classes/b"])
        (root / "empty_folder").mkdir()
        (root / "only_text").mkdir()
        (root / "only_text" / "text.jpg").write_text("not a picture", encoding="utf-8")

        def serve(name="flat", batch_size=BATCH, size=32):
            return get_dataloader(batch_size, size, data_dir=str(root / name))

        for name, size, n_classes in (("flat", 32, 1), ("classes", 16, 2), ("classes", 64, 2)):
            assert_serves(serve(name, size=size), size, n_classes)
        for size in BAD_IMAGE_SIZES:
            assert_refuses(lambda x=size: serve(size=x), f"image_size = {size}", "image_size")
        for n in (0, -4, N_PHOTOS + 1):
            what = f"batch_size = {n} for {N_PHOTOS} photos"
            assert_refuses(lambda x=n: serve("flat", x), what, "batch_size")
        for name in ("empty_folder", "only_text", "no_such_folder"):
            assert_refuses(lambda x=name: serve(x, 1), f"data_dir = '{name}'", name)


@check
def test_scale(scale):
    all_values, some = torch.linspace(0, 1, 48).view(1, 3, 4, 4), 0.2 + 0.4 * torch.rand(3, 5, 5)
    for x in (all_values, some):
        before = x.clone()
        for args, (low, high) in (((), (-1, 1)), (((0, 1),), (0, 1)), (((-2, 3),), (-2, 3))):
            y = scale(x, *args)
            assert torch.equal(x, before), "Expected x unchanged, got it changed in place."
            assert_shape("scale(x)", y, *x.shape)
            assert y.dtype == x.dtype, f"scale(x): expected {x.dtype}, got {y.dtype}."
            expected = before * (high - low) + low
            assert torch.allclose(y, expected, atol=1e-5), (
                f"x from {x.min():.2f} to {x.max():.2f}, feature_range ({low}, {high}): expected "
                f"{expected.min():.2f} to {expected.max():.2f}, got {y.min():.2f} to {y.max():.2f}."
                f" 0 goes to {low} and 1 to {high}, whatever the smallest and largest value of x."
            )
    by_name = scale(some, feature_range=(0, 2))
    assert torch.allclose(by_name, 2 * some), "Expected feature_range to work by name."


# ---------------------------------------------------------------- 5. to 8. the networks


@check
def test_discriminator(Discriminator):
    assert_fits_any_size(Discriminator, pictures, lambda n, size: (n, 1))
    D, x = Discriminator(8).eval(), pictures(16, 32)
    assert_shape("Discriminator(8), for 32 x 32", D(x), 16, 1)
    low, high = D(x).min().item(), D(x).max().item()
    assert high - low > 1e-6 * (1 + abs(low)), (
        f"16 different images: expected different logits, got {low:.6f} to {high:.6f}. Is x used?"
    )
    out = torch.cat([redrawn(D, 10)(x) for _ in range(10)])
    assert out.min() < -1.5 and out.max() > 1.5, (
        "Large weights: expected raw logits of any size and both signs, got "
        f"{out.min():.2f} to {out.max():.2f}. Is there a sigmoid, a tanh or a relu at the end? "
        "The loss brings its own sigmoid."
    )
    assert_learns(D, x)


@check
def test_generator(Generator):
    G, z = Generator(10, 8).eval(), torch.randn(8, 10)
    assert getattr(G, "z_size", 0) == 10, "G.z_size: expected 10. Keep it as self.z_size."
    build, shape = functools.partial(Generator, 10), lambda n, size: (n, 3, size, size)
    assert_fits_any_size(build, lambda n, size: torch.randn(n, 10), shape)
    assert_shape("Generator(7, 8), for 32 x 32", Generator(7, 8)(torch.randn(3, 7)), 3, 3, 32, 32)
    spread = G(z).std(0).max().item()
    assert spread > 1e-6, f"8 latents: expected different images, got {spread}. Is z used?"
    out = torch.cat([redrawn(G, 10)(z) for _ in range(10)])
    assert -1 <= out.min() < -0.9 and 0.9 < out.max() <= 1, (
        f"Large weights: expected images from -1 to 1, got {out.min():.2f} to {out.max():.2f}. "
        "Is there a tanh at the end? It ends at -1 and 1, a sigmoid at 0 and 1."
    )
    assert_learns(Generator(10, 8), z)


WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@check
def test_weights_init(weights_init_normal):
    norm, bare = nn.BatchNorm2d(64), nn.Conv2d(64, 32, 4, bias=False)
    inner = nn.Sequential(nn.ConvTranspose2d(32, 32, 4), nn.Flatten(), nn.Linear(128, 128))
    network = nn.Sequential(nn.Conv2d(16, 64, 4), norm, nn.LeakyReLU(), bare, inner)
    layers = [layer for layer in network.modules() if isinstance(layer, WEIGHTED)]
    for weight in [weight for layer in layers for weight in layer.parameters()]:
        nn.init.constant_(weight, 0.3)  # whatever was there before must be gone
    network.apply(weights_init_normal)
    for layer in layers:
        weights, what = layer.weight.detach(), f"Weights of {layer}"
        numbers = weights.mean(), weights.std()
        assert_close(f"{what}, mean and standard deviation", numbers, (0, 0.02), within=0.002)
        far = (weights.abs() > 0.04).float().mean().item()
        assert 0.03 < far < 0.06, (
            f"{what}: expected a normal distribution, with 4.6 % of the weights beyond two "
            f"standard deviations, got {far:.1%}. Is it uniform?"
        )
        if layer.bias is not None:
            assert_close(f"Biases of {layer}", layer.bias.detach().abs().max(), 0)
    scale_and_shift = norm.weight.mean().item(), norm.bias.mean().item()
    assert_close(f"{norm}, scale and shift", scale_and_shift, (1, 0), within=0.2)


@check
def test_build_network(build_network):
    result = build_network(16, 32, 12)
    assert_two("build_network(16, 32, 12)", result)
    D, G = (network.cpu() for network in result)
    z_size = getattr(G, "z_size", "none")
    assert z_size == 12, f"build_network gives D, G: expected a G with z_size 12, got {z_size}."
    assert_shape("D's output for 3 generated images", D(G(torch.randn(3, 12))), 3, 1)
    for name, network in (("D", D), ("G", G)):
        layers = [layer for layer in network.modules() if isinstance(layer, WEIGHTED)]
        weights = [m.weight.detach().flatten() for m in layers if "weight" in m._parameters]
        if sum(map(len, weights)) > 500:  # fewer say nothing
            what, hint = f"{name}'s weights, deviation", f"{name}.apply(weights_init_normal)?"
            assert_close(what, torch.cat(weights).std(), 0.02, within=0.004, hint=hint)
    before = [n_weights(network) for network in result]
    for key, widths, wanted in (("d", (32, 32), [True, False]), ("g", (16, 64), [False, True])):
        after = [n_weights(network) for network in build_network(*widths, 12)]
        assert [a > b for a, b in zip(after, before)] == wanted, (
            f"Twice the {key}_conv_dim: expected more weights in {key.upper()} only, got "
            f"{after[0]} and {after[1]} in D and G instead of {before[0]} and {before[1]}."
        )


# ---------------------------------------------------------------- 10. to 12. losses and training

# real_loss at -2, 0, 1, fake_loss at 0, 1, 2 by hand: log(1 + e^x), squared differences, half of it
CROSS_ENTROPY = (2.1269, 0.6931, 0.3133, 0.6931, 1.3133, 2.1269)
BY_HAND = (CROSS_ENTROPY, (9, 1, 0, 0, 1, 4), (4.5, 0.5, 0, 0, 0.5, 2))


def assert_scalar_loss(name, loss):
    """The mean over the images, finite, with a gradient, on the device of its input."""
    x = torch.randn(6, 1) * 2
    for n in (6, 1):
        logits = x[:n].clone().requires_grad_()
        out = loss(logits)
        assert_shape(f"{name} of {n} logits", out)
        assert out.requires_grad, f"{name}: expected a gradient to its input, got a detached loss."
        out.backward()
        assert logits.equal(x[:n]), f"{name}: expected D_out unchanged, got it changed in place."
    one_by_one = torch.stack([loss(logit.view(1, 1)) for logit in x]).mean()
    assert_close(f"{name} of 6 logits, the mean over the images", loss(x), one_by_one)
    assert_close(f"{name} of logits of shape (6,)", loss(x[:, 0]), one_by_one)
    far = loss(200 * x)
    assert far.isfinite(), f"{name} of very large logits: expected a finite number, got {far}."
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "meta"
    on = loss(x.to(device)).device
    hint = "Put the labels on D_out.device."
    assert on == x.to(device).device, f"{name} of a D_out on {device}: got {on}. {hint}"


@check
def test_losses(real_loss, fake_loss):
    def at(loss, *logits, **kwargs):
        return [loss(torch.full((4, 1), float(logit)), **kwargs).item() for logit in logits]

    assert_scalar_loss("real_loss", real_loss)
    assert_scalar_loss("fake_loss", fake_loss)
    real, fake = at(real_loss, -2, 0, 1), at(fake_loss, 0, 1, 2)
    for name, rising in (("real_loss", real[::-1]), ("fake_loss", fake)):
        is_right = max(rising) > min(rising) + 1e-6
        assert is_right, f"{name}: expected it to depend on D_out, got {rising[0]:.2f} for all."
        way, is_right = "fall" if name == "real_loss" else "rise", rising == sorted(rising)
        assert is_right, f"{name}: expected it to {way} with the logit. Are the labels swapped?"
    text = ", ".join(f"{value:.2f}" for value in real + fake)
    assert any(np.allclose(real + fake, values, atol=1e-3) for values in BY_HAND), (
        "real_loss at -2, 0, 1 and fake_loss at 0, 1, 2: expected 2.13, 0.69, 0.31, 0.69, 1.31, "
        f"2.13 or least squares, got {text}. Labels 1 and 0? A sigmoid too many?"
    )

    (plain,), (smooth, zero, one) = at(real_loss, 10), at(real_loss, 10, 0, 1, smooth=True)
    assert smooth > plain + 1e-3, (
        f"A very sure logit of 10: expected smooth=True to cost more than {plain:.4f}, got "
        f"{smooth:.4f}. Is smooth used, with a label of about 0.9?"
    )
    assert one < zero, (
        f"smooth=True at 0 and 1: expected a falling loss, got {zero:.2f} and {one:.2f}. "
        "The smoothed label of a real image stays close to 1."
    )


@check
def test_adam(adam):
    network = nn.Linear(3, 2)
    optimizer = adam(network, 0.01, beta1=0.4)
    is_adam, kind = isinstance(optimizer, torch.optim.Adam), type(optimizer).__name__
    assert is_adam, f"Expected torch.optim.Adam, got {kind}. Does adam return it?"
    group = optimizer.param_groups[0]
    is_whole = [*map(id, group["params"])] == [*map(id, network.parameters())]
    assert is_whole, "Expected Adam over network.parameters(), got other weights."
    assert_close("The learning rate", group["lr"], 0.01, hint="Is the argument used?")
    assert_close("betas", group["betas"], (0.4, 0.999), hint="Is it betas=(beta1, 0.999)?")


class ToyGenerator(nn.Module):
    """Pictures of one colour, which the latents change a little."""

    def __init__(self, z_size):
        super().__init__()
        self.z_size, self.seen = z_size, []
        self.weight = nn.Parameter(torch.full((z_size,), 0.2))
        self.bias = nn.Parameter(torch.full((3,), -0.55))

    def forward(self, z):
        n, got = self.z_size, tuple(z.shape)
        assert got[1:] == (n,), f"G's latents: expected the shape (N, G.z_size = {n}), got {got}."
        self.seen.append(z.detach().clone())
        colour = torch.tanh(0.1 * (z * self.weight).sum(1, keepdim=True) + self.bias)
        return colour[:, :, None, None].expand(-1, -1, 16, 16)


class ToyDiscriminator(nn.Module):
    """Takes bright pictures for real."""

    def __init__(self, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.2]))
        self.bias = nn.Parameter(torch.tensor([bias]))

    def forward(self, x):
        return self.weight * x.flatten(1).mean(1, keepdim=True) + self.bias


class Watch:
    """Two toy networks whose every optimizer step is measured; real images have a mean of 0.8.

    Any order and number of steps and any of the known losses will do: what counts is that D's
    steps teach D, that G's steps teach G, and that nothing else moves them.
    """

    def __init__(self, bias=0.15, z_size=5):
        self.networks = {"D": ToyDiscriminator(bias), "G": ToyGenerator(z_size)}
        self.optimizers, self.log = {}, []
        for key, network in self.networks.items():
            optimizer = torch.optim.SGD(network.parameters(), lr=3e-3)
            optimizer.register_step_pre_hook(functools.partial(self.before, key))
            optimizer.register_step_post_hook(functools.partial(self.after, key))
            self.optimizers[key] = optimizer
        self.latents, self.bias = torch.randn(64, z_size), bias
        self.start = self.weights = self.snapshot()

    def step(self, train_step, *args):
        """One step on real images -> what it returns."""
        real = 0.7 + 0.2 * torch.rand(32, 3, 16, 16)
        return train_step(*self.networks.values(), real, *self.optimizers.values(), *args)

    def snapshot(self):
        weights = {key: network.parameters() for key, network in self.networks.items()}
        return {key: torch.cat([*values]).detach().clone() for key, values in weights.items()}

    @torch.no_grad()
    def logits(self):
        """D's answer to a real image, and to generated ones."""
        D, G = self.networks.values()
        fake = G(self.latents)
        G.seen.pop()
        return torch.stack([D(torch.full((1, 3, 16, 16), 0.8)).mean(), D(fake).mean()])

    def before(self, key, *_):
        self.assert_untouched(f"before {key.lower()}_optimizer.step()")
        self.logits_before = self.logits()

    def after(self, key, *_):
        weights = [*self.networks[key].parameters()]
        gradient = torch.cat([torch.zeros_like(w) if w.grad is None else w.grad for w in weights])
        self.log.append((key, gradient, self.logits() - self.logits_before))
        self.weights = self.snapshot()

    def assert_untouched(self, when):
        for key, weights in self.snapshot().items():
            step, is_same = f"{key.lower()}_optimizer.step()", weights.equal(self.weights[key])
            assert is_same, f"{key}: expected to move only in {step}, got a change {when}."

    def assert_trained(self):
        self.assert_untouched("after the last step")
        for key, weights in self.snapshot().items():
            name, is_same = key.lower(), weights.equal(self.start[key])
            assert not is_same, (
                f"{key} was not trained: expected new weights, got those of the start. Does "
                f"{name}_optimizer.step() run, after {name}_loss.backward()? Is anything detached?"
            )
            assert weights.isfinite().all(), f"{key}: expected finite weights, got NaN or inf."
            is_free = all(weight.requires_grad for weight in self.networks[key].parameters())
            assert is_free, f"{key}: expected requires_grad True as before, got False."
        (real, fake), (_, raised) = (
            sum(gain for which, _, gain in self.log if which == key).tolist() for key in "DG"
        )
        assert real > fake, (
            f"D's steps: expected D(real) - D(fake) to grow, got a change of {real - fake:.1e}. "
            "Are real_loss and fake_loss swapped?"
        )
        assert raised > 0, (
            f"G's steps: expected D(G(z)) to rise, got a change of {raised:.1e}. G learns from "
            "real_loss(D(fake)) only: D's loss needs fake.detach(), G's step fresh gradients."
        )
        return real, fake

    def verify(self):
        real, fake = self.assert_trained()
        # a D that says "real" to all must learn what is fake, an undecided one also what is real
        assert fake < 0 if self.bias > 0.5 else real > 0, (
            f"D's steps: expected D(fake) to fall and D(real) to rise, got {fake:.1e} and "
            f"{real:.1e}. D's loss has two halves: real_loss(D(real)) and fake_loss(D(fake))."
        )
        runs = {"D": [], "G": []}  # steps of one network in a row belong together
        for key, steps in itertools.groupby(self.log, lambda row: row[0]):
            runs[key].append(torch.stack([gradient for _, gradient, _ in steps]).mean(0))
        for key, (first, *later) in runs.items():
            change = max([((g - first).norm() / first.norm()).item() for g in later], default=0)
            assert change < 0.5, (
                f"{key}'s gradients, while nothing much changes: expected about the same each "
                f"time, got {change:.0%} more. Does {key.lower()}_optimizer.zero_grad() run first?"
            )
        z = torch.cat(self.networks["G"].seen)
        what, hint = "The latents, mean and standard deviation", "torch.randn?"
        assert_close(what, (z.mean(), z.std()), (0, 1), within=0.15, hint=hint)
        assert len(z.unique(dim=0)) > len(z) / 4, "The latents: expected new ones in each step."


def assert_numbers(what, pair):
    """d_loss and g_loss, finite and detached."""
    assert_two(f"{what}, d_loss and g_loss", pair)
    for name, loss in zip(("d_loss", "g_loss"), pair):
        assert not getattr(loss, "requires_grad", False), (
            f"{what}, {name}: expected a detached number, got a tensor with its graph: .detach()"
        )
        is_number = torch.as_tensor(loss).numel() == 1 and math.isfinite(loss)
        assert is_number, f"{what}, {name}: expected one finite number, got {loss}."


@check
def test_train_step(train_step):
    assert_no_globals(train_step)
    for bias, z_size in ((0.8, 3), (0.15, 7)):
        watch = Watch(bias, z_size)
        for _ in range(3):
            losses = watch.step(train_step)
            assert_numbers("train_step's result", losses)
        watch.verify()
        # this D takes fakes for real: it is wrong, and G content
        assert bias < 0.5 or losses[0] > losses[1], (
            f"D fooled: expected d_loss above g_loss, got {losses[0]:.3f} and {losses[1]:.3f}. "
            "Is it d_loss first?"
        )


@check
def test_train(train):
    assert_no_globals(train)
    images = (torch.rand(48, 3, 16, 16) < 0.9).float()  # dots, on [-1, 1] with a mean of 0.8
    data = torch.utils.data.TensorDataset(images, torch.zeros(48, dtype=torch.int64))
    loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
    seen = []

    def keep_real(D, inputs):
        """What has dots is real: G's pictures are of one colour."""
        x = inputs[0].detach()
        seen.append(x[x.std((1, 2, 3)) > 0.3].flatten())

    for n_epochs, print_every in ((1, 1), (3, 3)):
        watch = Watch()
        D, G = watch.networks.values()
        D.register_forward_pre_hook(keep_real)
        optimizers = watch.optimizers.values()
        losses = train(D, G, loader, *optimizers, n_epochs, print_every=print_every)
        what = f"{n_epochs} epochs of {len(loader)} steps, print_every={print_every}"
        n = n_epochs * len(loader) // print_every
        assert abs(len(losses) - n) <= 1, f"{what}: expected {n} pairs, got {len(losses)}."
        for pair in losses:
            assert_numbers("train's result", pair)
        low, high = torch.cat(seen).min().item(), torch.cat(seen).max().item()
        assert -1.5 < low < -0.5 and 0.5 < high < 1.5, (
            "Real images on their way to D: expected -1 to 1, as G makes them, got "
            f"{low:.2f} to {high:.2f}. The loader gives 0 to 1: has scale() run, and once?"
        )
        watch.verify()


# ---------------------------------------------------------------- 14. scores and measures


@check
def test_frechet_distance(frechet_distance):
    x = torch.randn(400, 6)
    x = torch.linalg.qr(x - x.mean(0))[0] * 399**0.5  # mean 0 and covariance 1, exactly
    stretch, shift = torch.tensor([1, 1, 2, 0.5, 3, 1.0]), torch.tensor([0.0, 2, 0, -1, 0, 0])
    turn = torch.linalg.qr(torch.randn(6, 6))[0]
    for what, a, b, expected in (
        ("the same twice", x, x.flip(0), 0),
        ("moved", x, x + shift, 5),
        ("stretched", x, x * stretch, 5.25),
        ("turned", (x * stretch) @ turn, (x * stretch.flip(0)) @ turn, 12.5),
    ):
        distance = float(frechet_distance(a, b))
        assert_close(f"{what}, Fréchet distance", distance, expected, within=0.01)
    diverged = frechet_distance(x * math.nan, x)
    assert diverged == math.inf, f"NaN, of a network that diverged: expected inf, got {diverged}."


@check
def test_precision_recall(precision_recall):
    two = torch.randn(600, 4) + 20 * (torch.arange(600) % 2)[:, None]
    far = torch.randn(600, 4) - 50
    dense = torch.cat([0.05 * torch.randn(300, 4), 20 + 3 * torch.randn(300, 4)])
    for what, real, fake, expected in (
        ("the same", two, two, (1, 1)),
        ("none of them", two, far, (0, 0)),
        ("one kind of two", two, two[::2], (1, 0.5)),
        ("half of them strangers", two, torch.cat([two[:300], far[:300]]), (0.5, 1)),
        ("next to a dense crowd", dense, dense[:300] + 1, (0, 0)),
    ):
        result = precision_recall(real, fake)
        assert_two("precision_recall", result)
        assert_close(f"{what}, precision and recall", result, expected, within=0.06)


@check
def test_sliced_wasserstein(sliced_wasserstein):
    images = pictures(50, 32) + 0.1 * torch.randn(50, 3, 32, 32)
    blurred = F.avg_pool2d(images, 3, 1, 1)
    same = sliced_wasserstein(images, images)
    assert_close("32 x 32 images and themselves, at 2 levels", same, (0, 0), within=1e-3)
    paler = sliced_wasserstein(images, images / 2 + 0.1)
    more = F.avg_pool2d(blurred, 3, 1, 1)
    rows = [sum(paler), *(sum(sliced_wasserstein(images, x)) for x in (blurred, more))]
    assert_rising("paler, blurred and twice blurred images", rows)


@check
def test_ms_ssim(ms_ssim):
    images = pictures(64, 32)
    for size in (32, 16):
        pairs = torch.cat([images[:32], images[:32]])[:, :, :size, :size]
        assert_close(f"each {size} x {size} image next to itself", ms_ssim(pairs), 1, within=1e-3)
    alike = images[:1] + 0.1 * torch.randn(64, 3, 32, 32)
    assert_rising("64 pictures, one with noise, and 1", [ms_ssim(images), ms_ssim(alike), 1])


@check
def test_nearest_training_faces(nearest_training_faces):
    training = torch.randn(1500, 5)
    for what, faces, low, high in (
        ("copies", training[:200] + 1e-3 * torch.randn(200, 5), 1, 1),
        ("others like them", torch.randn(1200, 5), 0.4, 0.6),
        ("strangers", torch.randn(200, 5) + 50, 0, 0),
    ):
        result = nearest_training_faces(faces, training)
        assert_two("nearest_training_faces", result)
        index, share = result
        wanted = f"{low:.0%} to {high:.0%} nearer than the training face's own neighbour"
        assert low <= share <= high, f"{what}: expected {wanted}, got {share:.0%}."
        is_nearest = torch.equal(index, torch.cdist(faces, training).argmin(1))
        assert is_nearest, f"{what}: expected the nearest training face of each, got others."


@check
def test_skin_tone(skin_tone, eye_row):
    grey, tan = (0.0, 0.0, 0.0), (0.46, 0.15, -0.08)  # L*a*b*: 53.4, 0, 0 and 63.8, 10.8, 21.2
    for size in (16, 32, 64):
        faces = torch.tensor([grey, tan])[:, :, None, None].repeat(1, 1, size, size)
        faces[:, :, size // 2 : size // 2 + 2] = -1  # the eyes
        faces[:, :, : size // 8] = -1  # the hair
        faces[:, :, :, 3 * size // 8 : 5 * size // 8] = 1  # the nose, well lit
        row = eye_row(faces)
        assert row in (size // 2, size // 2 + 1), f"The eyes: expected row {size // 2}, got {row}."
        angle = skin_tone(faces, size // 2)[1]
        assert_close(f"{size} x {size}, the typology angle in degrees", angle, 33.0, within=0.5)


# ---------------------------------------------------------------- next steps


@check
def test_exchange_norm(exchange_norm, norm_layer):
    x = torch.randn(6, 16, 4, 4) * (1 + torch.rand(6, 16, 1, 1)) + 3 * torch.randn(6, 16, 1, 1)
    for norm, n_rows in (("batch", 16), ("instance", 6 * 16), ("group", 6 * 8), ("layer", 6)):
        y = norm_layer(norm, 16)(x)
        assert_shape(f'norm="{norm}"', y, *x.shape)
        rows = (y.transpose(0, 1) if norm == "batch" else y).reshape(n_rows, -1)
        worst = rows.mean(1).abs().max(), (rows.std(1, unbiased=False) - 1).abs().max()
        what = f'norm="{norm}": mean, and deviation less 1, in {n_rows} groups'
        assert_close(what, torch.stack(worst).detach(), (0, 0), within=0.02)
    squares = norm_layer("pixel", 16)(x).square().mean(1)
    assert_close("pixel: the mean square of each pixel", squares.aminmax(), (1, 1), within=1e-3)
    assert torch.equal(norm_layer(None, 16)(x), x), "norm=None: expected x unchanged."
    assert_refuses(lambda: norm_layer("weight", 16), 'norm="weight"', "norm")
    for norm in ("batch", "instance", "group", "layer", "pixel", None):
        layers = nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 3)
        network = exchange_norm(nn.Sequential(*layers), norm)
        n = sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())
        assert n == (norm == "batch"), f"norm={norm!r}: got {n} batch normalisations."
        assert_learns(network, pictures(4, 8))


@check
def test_upsampling(NearestGenerator, PixelShuffleGenerator, icnr):
    z = torch.randn(4, 10)
    for Generator in (NearestGenerator, PixelShuffleGenerator):
        G, name = Generator(10, 4), Generator.__name__
        assert_shape(name, G(z), 4, 3, 32, 32)
        assert_learns(G, z)
        found = any(isinstance(layer, nn.ConvTranspose2d) for layer in G.modules())
        assert not found, f"{name}: expected no transpose convolution, got one."
        assert_shape(f"{name}(10, 4, 64)", Generator(10, 4, 64)(z), 4, 3, 64, 64)
    G = icnr(PixelShuffleGenerator(10, 4))
    G.layers[-2].bias.data.zero_()
    squares = G(z).detach().unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    apart = (squares - squares[..., :1]).abs().max()
    assert_close("After icnr, the pixels of each 2 x 2 square apart", apart, 0)


@check
def test_checkerboard(checkerboard):
    noise, board = torch.randn(800, 3, 16, 16), torch.tensor([1.0, -1.0]).repeat(8)
    for what, faces, low, high in (
        ("white noise", noise, 0.9, 1.1),
        ("2 x 2 squares", noise.repeat_interleave(2, 2).repeat_interleave(2, 3), 0, 1e-6),
        ("noise in stripes", noise + board, 5, math.inf),
        ("noise on a board", noise + board * board[:, None], 5, math.inf),
    ):
        got = checkerboard(faces)
        assert low <= got <= high, f"{what}: expected {low} to {high}, got {got:.2f}."


@check
def test_schedules(rate_at, set_rates):
    places = (0, 0.5, 0.75, 1)
    for name, rates in {
        "constant": (1, 1, 1, 1),
        "linear": (1, 1, 0.5, 0),
        "cosine": (1, 0.5, 0.146447, 0),
    }.items():
        assert_close(f"{name} at {places}", [rate_at(name, p) for p in places], rates)
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.2)
        for p, rate in zip((*places, 0.75), (*rates, rates[2])):  # at last back: more minutes
            set_rates([optimizer], name, p)
            got = optimizer.param_groups[0]["lr"]
            assert_close(f"{name} at {p:.0%} of the run", got, 0.2 * rate)
    refused = lambda: set_rates([optimizer], "sawtooth", 0.5)  # noqa: E731
    assert_refuses(refused, 'schedule="sawtooth"', "schedule")


@check
def test_loss_pairs(losses_of):
    d_real, d_fake = torch.tensor([[1.0], [-1.0]]), torch.tensor([[0.5], [2.0]])
    for name, expected in {
        "cross-entropy": (2.363764, 0.300502),
        "least squares": (4.125, 0.625),
        "hinge": (3.25, -1.25),
        "Wasserstein": (1.25, -1.25),
        "relativistic": (1.761332, 0.511332),
    }.items():
        got = [loss(d_real, d_fake) for loss in losses_of(name)]
        assert_close(f"{name}, losses of (1, -1) and (0.5, 2)", got, expected, within=1e-5)
    assert_refuses(lambda: losses_of("Hinge"), 'loss="Hinge"', "loss")


@check
def test_penalty(penalty):
    real, fake = pictures(6, 16), pictures(6, 16)
    linear = nn.Linear(3 * 16 * 16, 1)
    D, length = nn.Sequential(nn.Flatten(), linear), linear.weight.norm().item()  # everywhere
    for weights, expected in (
        ({"gp": 10}, 10 * (length - 1) ** 2),
        ({"r1": 3, "r2": 1}, 2 * length**2),
        ({}, 0),
    ):
        got = penalty(D, real, fake, **weights).item()
        assert_close(f"linear D, {weights}", got, expected, within=1e-3 * max(1, expected))
    penalty(D, real, fake, gp=10, r1=1, r2=1).backward()
    gradient = linear.weight.grad
    is_right = gradient is not None and gradient.any() and gradient.isfinite().all()
    assert is_right, "expected a finite gradient for D's weights, got none."
    mixing = nn.Sequential(nn.Conv2d(3, 1, 16), nn.BatchNorm2d(1), nn.Flatten())
    assert_refuses(lambda: penalty(mixing, real, fake, gp=1), "gp with batch norm", "batch")


@check
def test_augment(shift):
    x = pictures(64, 16).requires_grad_()
    y = shift(x)
    assert_shape("shift(x)", y, *x.shape)
    share = ((y - x).abs().amax((1, 2, 3)) > 1e-6).float().mean()
    assert share > 0.8, f"shift: expected nearly all images moved, got {share:.0%}."
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.any(), "shift: expected a gradient that passes through, got none."
    dots = torch.zeros(200, 3, 16, 16)
    dots[:, :, 8, 8] = 1
    _, _, *places = shift(dots).nonzero().T
    assert_close("pixel 8 of 16, moved: ends", torch.cat(places).aminmax(), (6, 10))


@check
def test_step_with(step_with):
    run = types.SimpleNamespace(step=0, progress=0.0)
    for options in (
        {},
        *({"loss": loss} for loss in ("least squares", "hinge", "Wasserstein", "relativistic")),
        {"seen": lambda x, run: x + 0.1},
        {"penalties": lambda D, real, fake: 0.1 * D.weight.square().sum(), "interval": 2},
    ):
        watch = Watch()
        for run.step in range(3):
            assert_numbers(f"step_with({options})", watch.step(step_with(**options), run))
        watch.assert_trained()

    watch, moved = Watch(), []
    step = step_with(loss="Wasserstein", n_critic=3)
    for run.step in range(6):
        before = watch.weights["G"]
        watch.step(step, run)
        moved += [] if before.equal(watch.weights["G"]) else [run.step]
    assert moved == [0, 3], f"n_critic=3: expected G to move in steps 0 and 3, got {moved}."
    for name, wrong in (("loss", "L3"), ("n_critic", 0), ("interval", 0)):
        assert_refuses(lambda n=name, w=wrong: step_with(**{n: w}), f"{name}={wrong!r}", name)


@check
def test_truncated(truncated):
    for limit, deviation in ((0.5, 0.2837), (1.0, 0.5396), (4.0, 0.9995)):  # by hand, of N(0, 1)
        z = truncated(20_000, limit, 3)
        most = z.abs().max()
        assert most <= limit, f"limit {limit}: expected no number beyond it, got {most:.2f}."
        assert_close(f"limit {limit}, standard deviation", z.std(), deviation, within=0.01)
        assert torch.equal(z, truncated(20_000, limit, 3)), "the same seed: expected the same ones."


@check
def test_style_generator(StyleGenerator):
    G, z = StyleGenerator(10, 4), torch.randn(3, 10)
    assert_shape("StyleGenerator(10, 4)", G(z), 3, 3, 32, 32)
    assert_learns(G, z)
    for layer in G.layers[:-1]:
        layer.noise_scale.data += 1
    assert not torch.equal(G(z), G(z)), "in training: expected fresh noise each time."
    images, w, n = G.eval()(z), G.mapping(z), len(G.layers)
    assert torch.equal(G(z), images), "eval mode: expected the same noise each time."
    assert torch.allclose(G(z[1:2]), images[1:2], atol=1e-5), "expected the same face in any batch."
    is_same = torch.allclose(G.synthesis([w] * n), images, atol=1e-5)
    assert is_same, "one style for all layers: expected the images of forward."


@check
def test_carry_over(carry_over, build_network):
    old, new = build_network(8, 12, 10, 32), build_network(4, 6, 10, 64)
    for name, a, b, order in zip("DG", old, new, (-1, 1)):
        carry_over(a, b, order)
        pairs = zip(*([p for p in net.parameters() if p.ndim > 1][::order] for net in (a, b)))
        n = sum(p.shape == q.shape and torch.equal(p, q) for p, q in pairs)
        assert n == 3, f"{name} from 32 to 64 pixels: expected 3 layers carried over, got {n}."
    z = torch.randn(5, 10)
    features = [network.layers[:10](z) for network in (old[1], new[1])]  # the last hidden layer's
    assert torch.allclose(*features, atol=1e-5), "expected the same features of the same latents."
    odd = build_network(5, 7, 10, 64)[1]
    assert_refuses(lambda: carry_over(old[1], odd), "networks that do not fit", "no_layer")


# ---------------------------------------------------------------- labels and makeup


@check
def test_conditional(ConditionalGenerator, ProjectionDiscriminator, conditional_step):
    labels = (torch.rand(64, 3) < 0.3).float()
    G, D = ConditionalGenerator(10, 4, 16, labels), ProjectionDiscriminator(4, 16, 3)
    x, z, y = pictures(64, 16), torch.randn(64, 10), labels
    assert_shape("G(z, labels)", G(z, y), 64, 3, 16, 16)
    assert_shape("D(x, labels)", D(x, y), 64, 1)
    before = copy.deepcopy(nn.ModuleDict({"D": D, "G": G}))
    optimizers = [torch.optim.SGD(network.parameters(), 0.1) for network in (D, G)]
    assert_numbers("conditional_step", conditional_step(D, G, x, y, *optimizers))
    after = dict(nn.ModuleDict({"D": D, "G": G}).named_parameters())
    still = [key for key, weight in before.named_parameters() if weight.equal(after[key])]
    assert not still, f"expected every weight to move, got no change of {still[0]}."
    for name, network, inputs in (("G", redrawn(G, 1), z), ("D", redrawn(D, 1), x)):
        change = (network(inputs, y) - network(inputs, 1 - y)).abs().mean()
        assert change > 0.01, f"{name}: expected other outputs for other labels, got the same."
    is_same = torch.allclose(G(z), torch.cat([G(part) for part in z.split(7)]), atol=1e-4)
    assert is_same, "G(z) without labels: expected the same ones for a latent in any batch."


@check
def test_label_sweep(label_sweep, in_batches, ConditionalGenerator):
    labels = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 0, 0.0]])
    for given, expected in (
        (labels, [[1, 0, 0], [0, 0, 0], [1, 1, 0], [1, 0, 1]]),
        (torch.eye(3), [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),  # labels that exclude each other
    ):
        got = label_sweep(given).tolist()
        assert got == expected, f"the labels {given.tolist()}: expected {expected}, got {got}."
    G = redrawn(ConditionalGenerator(10, 4, 16, labels), 1)
    z, labels = torch.randn(120, 10), labels.repeat(40, 1)
    faces, single = in_batches(G, z, labels), in_batches(G, z[:1], labels[:1])
    assert_shape("in_batches", faces, 120, 3, 16, 16)
    assert not faces.requires_grad, "in_batches: expected faces without their graph."
    assert_close("a face, and the same in a batch of 1", (single - faces[:1]).abs().mean(), 0, 0.02)


@check
def test_attribute_classifier(attribute_classifier, in_batches):
    is_light = torch.arange(60) % 2 == 0
    faces = 0.1 * torch.randn(60, 3, 16, 16) + (is_light.float() - 0.5)[:, None, None, None]
    labels = is_light[:, None].float()
    classifier = attribute_classifier(faces[:40], labels[:40], epochs=3, batch_size=10)
    logits = in_batches(classifier, faces[40:])
    assert_shape("The classifier's logits", logits, 20, 1)
    right = ((logits[:, 0] > 0) == is_light[40:]).float().mean()
    assert right > 0.9, f"light or dark: expected nearly all right, got {right:.0%}."
    is_fixed = not any(weight.requires_grad for weight in classifier.parameters())
    assert is_fixed, "expected a classifier that learns no more: requires_grad_(False)."
    is_same = torch.equal(logits, in_batches(classifier, faces[40:]))
    assert is_same, "expected the same logits again: is it in eval mode?"


@check
def test_balanced_accuracy(balanced_accuracy):
    labels = torch.tensor([[1, 0], [1, 0], [0, 0], [0, 1.0]])
    for answers, expected in (
        ([[1, 0], [1, 0], [0, 0], [0, 1]], (1, 1)),
        ([[0, 0]] * 4, (0.5, 0.5)),
        ([[1, 1]] * 4, (0.5, 0.5)),
        ([[1, 1], [0, 0], [0, 1], [0, 1]], (0.75, (1 + 1 / 3) / 2)),
    ):
        got = balanced_accuracy(torch.tensor(answers) * 6.0 - 3, labels)
        assert_close(f"{answers} for {labels.tolist()}", got, expected)


@check
def test_image_to_image(ImageToImageGenerator):
    weights = []
    for size in (32, 64, 128):
        G, x = ImageToImageGenerator(4, size), pictures(2, size)
        y = G(x)
        assert_shape(f"ImageToImageGenerator(4, {size})", y, 2, 3, size, size)
        assert y.abs().max() <= 1, f"expected values in [-1, 1], got {y.abs().max():.2f}."
        assert (y - x).abs().mean() < 0.15, "fresh weights: expected next to no change."
        assert torch.allclose(G(x[:1]), y[:1], atol=1e-4), "expected each image on its own."
        weights.append(n_weights(G))
    assert_rising("more blocks for 32, 64 and 128 pixels, weights", weights)
    assert_learns(ImageToImageGenerator(4, 32), pictures(2, 32) * 0.5)


@check
def test_patch_discriminator(PatchDiscriminator):
    for size in (32, 64, 128):
        shape = tuple(PatchDiscriminator(4, size)(pictures(2, size)).shape)
        is_right = len(shape) == 4 and shape[:2] == (2, 1) and shape[-1] > 3
        assert is_right, f"at {size}: expected logits (2, 1, s, s), got {shape}."
    assert_learns(PatchDiscriminator(4, 32), pictures(2, 32))


@check
def test_image_pool(ImagePool):
    pool, given = ImagePool(4), []
    for i in range(1, 401):
        given += pool.exchange(torch.full((2, 3, 4, 4), float(i)))[:, 0, 0, 0].tolist()
    assert given[:2] == [1, 1], f"the first batch: expected it back as it is, got {given[:2]}."
    assert 0 not in given, "expected nothing back that was not put in."
    older = np.mean([x < 1 + i // 2 for i, x in enumerate(given)][400:])
    assert 0.4 < older < 0.6, f"later: expected half of them to be older ones, got {older:.0%}."
    other = ImagePool(4)
    other.load_state_dict(pool.state_dict())
    is_same = torch.equal(other.images, pool.images)
    assert is_same, "expected the images to go with the checkpoint: register_buffer."


class Shift(nn.Module):
    """Adds a number: from domain A to B is to become lighter."""

    def __init__(self, amount):
        super().__init__()
        self.amount = nn.Parameter(torch.tensor(amount))

    def forward(self, x):
        return x + self.amount


def keep(images):
    """A pool that gives each image back."""
    assert not images.requires_grad, "the pools: expected images without a graph (detach)."
    return images


@check
def test_cyclegan_step(cyclegan_step):
    a, b = pictures(16, 8) / 4 - 0.25, pictures(16, 8) / 4 + 0.25
    pools = [types.SimpleNamespace(exchange=keep)] * 2

    def start(amounts, *rates):
        G, D = nn.ModuleList(map(Shift, amounts)), nn.ModuleList()
        for _ in range(2):  # of the mean colour only, convinced by everything
            D.append(nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3, 1)))
            nn.init.zeros_(D[-1][2].weight)
            nn.init.ones_(D[-1][2].bias)
        optimizers = [torch.optim.Adam(net.parameters(), rate) for net, rate in zip((G, D), rates)]
        return G, D, pools, a, b, *optimizers

    for cycle, identity, expected in ((0, 0, 0), (10, 0, 2.5), (10, 5, 4.375)):
        given = start((0.25, -0.125), 0.0, 0.0)
        losses = cyclegan_step(*given, cycle=cycle, identity=identity)
        assert_numbers("cyclegan_step", losses)
        what = f"cycle={cycle}, identity={identity}"
        assert_close(f"{what}, the generators' loss", losses[1], expected, within=0.01)
        assert_close(f"{what}, the discriminators' loss", losses[0], 2, within=0.01)
    given = start((0.5, -0.5), 0.0, 0.1)  # fakes as good as real ones of the domain
    for _ in range(100):
        cyclegan_step(*given)
    apart, hint = [(D(b) - D(a)).mean().item() for D in given[1]], "Are half of D_A's fakes from b?"
    assert_close("perfect fakes, logits of b less those of a", apart, (-0.67, 0.67), 0.1, hint)
    given = start((0.0, 0.0), 0.02, 0.1)
    for _ in range(100):
        cyclegan_step(*given, cycle=1.0, identity=0.0)
    amounts, hint = [G.amount.item() for G in given[0]], "Do both optimizers step?"
    assert_close("domains 0.5 apart, shifts", amounts, (0.5, -0.5), within=0.3, hint=hint)


@check
def test_makeup_errors(makeup_errors):
    before, region = pictures(4, 32) * 0.5, torch.zeros(4, 1, 32, 32, dtype=torch.bool)
    region[:, :, 16:] = True
    wanted = before + 0.2 * region
    for what, after, expected in (
        ("as wanted", wanted, (0, 0)),
        ("no change", before, (0.2, 0)),
        ("everywhere", before + 0.2, (0, 1)),
        ("half as much outside", wanted + 0.1 * ~region, (0, 0.5)),
    ):
        errors = makeup_errors(before, after, wanted, region)
        assert_close(f"{what}, error and leak", errors, expected, within=0.01)


@check
def test_identity_kept(identity_kept):
    faces = draw_faces(24, 32)[0] / 127.5 - 1
    for what, after, low, high in (
        ("unchanged", faces, 1, 1),
        ("a little lighter", faces + 0.03, 0.9, 1),
        ("someone else", faces.roll(1, 0), 0, 0),
        ("all the same", faces[:1].expand(24, -1, -1, -1), 0, 0.8),
    ):
        share = identity_kept(faces, after)
        assert low <= share <= high, f"{what}: expected {low} to {high}, got {share:.2f}."


# ---------------------------------------------------------------- under pytest


@functools.cache
def read_notebook():
    """The notebook's imports, functions, classes and constants as a module; nothing else runs."""
    module = sys.modules[LESSON] = types.ModuleType(LESSON)
    module.device = torch.device("cpu")
    path = Path(__file__).with_name(f"{LESSON}.ipynb")
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and not source.startswith("%%"):
            tree = ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE))
            tree.body = [node for node in tree.body if is_definition(node)]
            exec(compile(tree, f"{path.name}, cell {number}", "exec"), module.__dict__)
    return module


def is_definition(node):
    """An import, a function, a class, or a constant such as 64, (0.5, 0.999), {"a": lambda: 1}."""
    if isinstance(node, ast.Try):
        return all(map(is_definition, node.body))
    if isinstance(node, ast.Assign):
        values = node.value.values if isinstance(node.value, ast.Dict) else [node.value]
        is_name = isinstance(node.targets[0], ast.Name)
        parts = [part for x in values if not isinstance(x, ast.Lambda) for part in ast.walk(x)]
        return is_name and not any(isinstance(part, (ast.Name, ast.Call)) for part in parts)
    return isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))


if "pytest" in sys.modules:  # every argument of a check is a fixture
    import pytest

    def fixture_of(name):
        return pytest.fixture(name=name)(lambda: getattr(read_notebook(), name))

    checks = [value for name, value in globals().items() if name.startswith("test_")]
    for name in {name for test in checks for name in inspect.signature(test).parameters}:
        globals()[f"{name}_of_the_notebook"] = fixture_of(name)
