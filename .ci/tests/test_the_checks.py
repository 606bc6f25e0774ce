"""The proof of the checks: right solutions pass, wrong ones are caught with the right message.

The solutions below are plain ones, unlike the notebook's. Each row of RIGHT and WRONG changes
pieces of their source: the result is still right, or wrong in one way.
"""

import copy
import inspect
import itertools
import linecache
import math
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image, ImageOps
from torch import nn
from torch.nn import functional as F

import problem_unittests as checks

# ---------------------------------------------------------------- plain solutions


def check_size(image_size):
    if image_size not in (16, 32, 64, 128, 256):
        raise ValueError(f"image_size must be a power of two from 16 to 256, not {image_size}")


def get_dataloader(batch_size, image_size, data_dir="processed_celeba_small/"):
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


def scale(x, feature_range=(-1, 1)):
    low, high = feature_range
    return x * (high - low) + low


class Discriminator(nn.Module):
    def __init__(self, conv_dim, image_size=32):
        super().__init__()
        check_size(image_size)
        self.hidden = nn.Conv2d(3, conv_dim, 4, stride=4)
        self.norm = nn.BatchNorm2d(conv_dim)
        self.head = nn.Linear(conv_dim * (image_size // 4) ** 2, 1)

    def forward(self, x):
        x = F.leaky_relu(self.norm(self.hidden(x)), 0.2)
        return self.head(x.flatten(1))


class Generator(nn.Module):
    def __init__(self, z_size, conv_dim, image_size=32):
        super().__init__()
        check_size(image_size)
        self.z_size, self.side = z_size, image_size // 4
        self.first = nn.Linear(z_size, conv_dim * self.side**2)
        self.norm = nn.BatchNorm2d(conv_dim)
        self.last = nn.ConvTranspose2d(conv_dim, 3, 4, stride=4)

    def forward(self, z):
        x = self.first(z).view(len(z), -1, self.side, self.side)
        return self.last(F.relu(self.norm(x))).tanh()


def weights_init_normal(m):
    if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.normal_(m.weight, 0, 0.02)
        if m.bias is not None:
            nn.init.zeros_(m.bias)


def build_network(d_conv_dim, g_conv_dim, z_size):
    D = Discriminator(d_conv_dim).apply(weights_init_normal)
    G = Generator(z_size, g_conv_dim).apply(weights_init_normal)
    return D, G


def real_loss(D_out, smooth=False):
    label = 0.9 if smooth else 1.0
    return F.binary_cross_entropy_with_logits(D_out, torch.full_like(D_out, label))


def fake_loss(D_out):
    label = 0.0
    return F.binary_cross_entropy_with_logits(D_out, torch.full_like(D_out, label))


def adam(network, rate, beta1=0.5):
    return torch.optim.Adam(network.parameters(), lr=rate, betas=(beta1, 0.999))


def train_step(D, G, real, d_optimizer, g_optimizer):
    z = torch.randn(len(real), G.z_size, device=real.device)
    fake = G(z)
    d_loss = real_loss(D(real)) + fake_loss(D(fake.detach()))
    d_optimizer.zero_grad()
    d_loss.backward()
    d_optimizer.step()
    g_loss = real_loss(D(fake))
    g_optimizer.zero_grad()
    g_loss.backward()
    g_optimizer.step()
    return d_loss.detach(), g_loss.detach()


def train(D, G, loader, d_optimizer, g_optimizer, n_epochs, print_every=50):
    losses, step = [], 0
    for _ in range(n_epochs):
        for images, _ in loader:
            real = scale(images)
            d_loss, g_loss = train_step(D, G, real, d_optimizer, g_optimizer)
            step += 1
            if step % print_every == 0:
                losses.append((d_loss.item(), g_loss.item()))
    return losses


def frechet_distance(a, b):
    if a.isnan().any():
        return math.inf
    values, vectors = torch.linalg.eigh(torch.cov(a.double().T))
    root = vectors @ values.clamp(min=0).sqrt().diag() @ vectors.T
    spread = torch.cov(b.double().T)
    overlap = torch.linalg.eigvalsh(root @ spread @ root).clamp(min=0).sqrt().sum()
    shift = (a.mean(0) - b.mean(0)).square().sum()
    return (shift + values.sum() + spread.trace() - 2 * overlap).item()


def precision_recall(real, fake, k=3):
    shares = []
    for points, others in ((fake, real), (real, fake)):
        radius = [sorted(row)[k] for row in torch.cdist(others, others).tolist()]
        distances = torch.cdist(points, others).tolist()
        inside = [any(d <= r for d, r in zip(row, radius)) for row in distances]
        shares.append(sum(inside) / len(inside))
    return tuple(shares)


def nearest_training_faces(faces, training):
    own = torch.cdist(training, training).sort(1).values[:, 1]
    distances = torch.cdist(faces, training)
    index = distances.argmin(1)
    nearest = distances[range(len(faces)), index]
    return index, (nearest < own[index]).double().mean().item()


SOLUTIONS = {
    checks.test_get_dataloader: [get_dataloader],
    checks.test_scale: [scale],
    checks.test_discriminator: [Discriminator],
    checks.test_generator: [Generator],
    checks.test_weights_init: [weights_init_normal],
    checks.test_build_network: [build_network],
    checks.test_losses: [real_loss, fake_loss],
    checks.test_adam: [adam],
    checks.test_train_step: [train_step],
    checks.test_train: [train],
    checks.test_frechet_distance: [frechet_distance],
    checks.test_precision_recall: [precision_recall],
    checks.test_nearest_training_faces: [nearest_training_faces],
}


def changed(solution, changes):
    """The solution with each `old: new` carried out in its source."""
    source = inspect.getsource(solution)
    for old, new in changes.items():
        source = source.replace(old, new)
    file = f"<{solution.__name__}, changed>"
    linecache.cache[file] = len(source), None, source.splitlines(True), file
    scope = dict(globals())
    exec(compile(source, file, "exec"), scope)
    return scope[solution.__name__]


def run_changed(check, changes):
    sources = "".join(map(inspect.getsource, SOLUTIONS[check]))
    missing = [old for old in changes if old not in sources]
    assert not missing, f"expected it in the solution, got nothing to change: {missing}"
    check(*(changed(solution, changes) for solution in SOLUTIONS[check]))


def table(rows_of_check):
    """Parameters for pytest: a check and one of its rows each."""
    rows = [(check, *row) for check, rows in rows_of_check.items() for row in rows]
    return {"argvalues": rows, "ids": [f"{row[0].__name__[5:]}: {row[1]}" for row in rows]}


# ---------------------------------------------------------------- right solutions

BCE = "F.binary_cross_entropy_with_logits(D_out, torch.full_like(D_out, label))"
D_LOSS = "real_loss(D(real)) + fake_loss(D(fake.detach()))"
D_STEP = """    d_optimizer.zero_grad()
    d_loss.backward()
    d_optimizer.step()
"""
G_STEP = """    g_loss = real_loss(D(fake))
    g_optimizer.zero_grad()
    g_loss.backward()
    g_optimizer.step()
"""
KEPT_GRAPH = {
    "fake.detach()": "fake",
    "d_loss.backward()": "d_loss.backward(retain_graph=True)",
}
HEAD = "nn.Linear(conv_dim * (image_size // 4) ** 2, 1)"
DEEP = """nn.Sequential(nn.Conv2d(3, 5, 4, 2, 1), nn.ELU(), nn.Conv2d(5, 9, 3, 1, 1), nn.ELU(),
            nn.Conv2d(9, conv_dim, 4, 2, 1, bias=False))"""
SPECTRAL = "nn.utils.parametrizations.spectral_norm(self.hidden)"
UPSAMPLED = """nn.Sequential(nn.Upsample(scale_factor=4), nn.ReflectionPad2d(1),
            nn.Conv2d(conv_dim, 3, 3))"""
EXTRA_D_STEP = """for _ in range(2):
        d_optimizer.zero_grad()
        (real_loss(D(real)) + fake_loss(D(fake.detach()))).backward()
        d_optimizer.step()
    g_loss ="""
OWN_GRADIENTS = """for p, g in zip(G.parameters(), torch.autograd.grad(g_loss, G.parameters())):
        p.grad = g"""

RIGHT = {check: [("as it is", {})] for check in SOLUTIONS}
RIGHT[checks.test_get_dataloader] += [
    ("the last batch dropped", {"drop_last=False": "drop_last=True"}),
    ("borders instead of a crop", {"ImageOps.fit": "ImageOps.pad"}),
]
RIGHT[checks.test_scale] += [
    (
        "interpolated",
        {"x * (high - low) + low": "torch.full_like(x, low).lerp(torch.full_like(x, high), x)"},
    ),
]
RIGHT[checks.test_discriminator] += [
    ("no normalisation", {"nn.BatchNorm2d(conv_dim)": "nn.Identity()"}),
    ("instance normalisation", {"nn.BatchNorm2d": "nn.InstanceNorm2d"}),
    (
        "spectral normalisation, new and old",
        {"self.norm =": f"{SPECTRAL}; self.norm =", HEAD: f"nn.utils.spectral_norm({HEAD})"},
    ),
    ("another depth", {"nn.Conv2d(3, conv_dim, 4, stride=4)": DEEP}),
    (
        "a convolution as the head",
        {
            HEAD: "nn.Conv2d(conv_dim, 1, image_size // 4)",
            "self.head(x.flatten(1))": "self.head(x).flatten(1)",
        },
    ),
    (
        "the mean over patches",
        {
            HEAD: "nn.Conv2d(conv_dim, 1, 1)",
            "self.head(x.flatten(1))": "self.head(x).mean((2, 3))",
        },
    ),
]
RIGHT[checks.test_generator] += [
    ("upsampling and convolution", {"nn.ConvTranspose2d(conv_dim, 3, 4, stride=4)": UPSAMPLED}),
    ("no normalisation", {"nn.BatchNorm2d(conv_dim)": "nn.Identity()"}),
    ("a sigmoid, stretched", {".tanh()": ".sigmoid() * 2 - 1"}),
]
RIGHT[checks.test_weights_init] += [
    (
        "by the name of the layer",
        {
            "isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))": (
                "any(kind in type(m).__name__ for kind in ('Conv', 'Linear'))"
            ),
            "nn.init.normal_(m.weight, 0, 0.02)": "m.weight.data.normal_(0, 0.02)",
        },
    ),
    (
        "normalisation drawn around 1",
        {
            "    if isinstance": (
                "    if isinstance(m, nn.BatchNorm2d): nn.init.normal_(m.weight, 1, 0.02)\n"
                "    if isinstance"
            )
        },
    ),
]
RIGHT[checks.test_losses] += [
    ("least squares", {BCE: "((D_out - label) ** 2).mean()"}),
    ("half least squares", {BCE: "F.mse_loss(D_out, torch.full_like(D_out, label)) / 2"}),
    ("written out", {BCE: "(F.softplus(D_out) - label * D_out).mean()"}),
    (
        "the loss as a module",
        {"F.binary_cross_entropy_with_logits(": "nn.BCEWithLogitsLoss()("},
    ),
]
RIGHT[checks.test_adam] += [
    ("fused", {"lr=rate": "rate, fused=True"}),
    ("AdamW", {"Adam(": "AdamW("}),
]
RIGHT[checks.test_train_step] += [
    ("two batches of fakes", {"real_loss(D(fake))": "real_loss(D(G(torch.randn_like(z))))"}),
    ("the generator first", {G_STEP: "", "    d_loss =": f"{G_STEP}    d_loss ="}),
    ("three steps of D", {"g_loss =": EXTRA_D_STEP}),
    (
        "a step of D for each half",
        {
            "    d_loss =": f"    d_loss = real_loss(D(real))\n{D_STEP}    d_loss =",
            D_LOSS: "fake_loss(D(fake.detach()))",
        },
    ),
    (
        "least squares",
        {
            D_LOSS: "((D(real) - 1) ** 2).mean() / 2 + (D(fake.detach()) ** 2).mean() / 2",
            "real_loss(D(fake))": "((D(fake) - 1) ** 2).mean() / 2",
        },
    ),
    (
        "hinge",
        {
            D_LOSS: "F.relu(1 - D(real)).mean() + F.relu(1 + D(fake.detach())).mean()",
            "real_loss(D(fake))": "-D(fake).mean()",
        },
    ),
    ("smoothed labels", {"D(real))": "D(real), smooth=True)"}),
    ("gradients of G only", {"g_loss.backward()": OWN_GRADIENTS}),
    ("a graph kept, fresh gradients", {**KEPT_GRAPH, "real_loss(D(fake))": "real_loss(D(G(z)))"}),
]
RIGHT[checks.test_train] += [
    ("prints from the first step on", {"% print_every == 0": "% print_every == 1 % print_every"}),
]


@pytest.mark.parametrize("check, what, changes", **table(RIGHT))
def test_right_solutions_pass(check, what, changes, capsys):
    run_changed(check, changes)
    assert capsys.readouterr().out == "Tests Passed\n", "expected nothing else to be printed"


class FunctionalDiscriminator(nn.Module):
    """Weights of its own, and layers as function calls."""

    def __init__(self, conv_dim, image_size=32):
        super().__init__()
        check_size(image_size)
        self.kernel = nn.Parameter(0.1 * torch.randn(conv_dim, 3, 4, 4))
        self.bias = nn.Parameter(torch.zeros(conv_dim))
        self.weight = nn.Parameter(0.1 * torch.randn(1, conv_dim * (image_size // 4) ** 2))

    def forward(self, x):
        x = F.leaky_relu(F.conv2d(x, self.kernel, self.bias, stride=4), 0.2)
        return F.linear(x.flatten(1), self.weight)


def sequential_discriminator(conv_dim, image_size=32):
    """A function that builds the network."""
    check_size(image_size)
    head = nn.Linear(conv_dim * (image_size // 4) ** 2, 1)
    return nn.Sequential(nn.Conv2d(3, conv_dim, 4, 4), nn.LeakyReLU(0.2), nn.Flatten(), head)


class LinearGenerator(nn.Sequential):
    """No convolution at all."""

    def __init__(self, z_size, conv_dim, image_size=32):
        check_size(image_size)
        pixels = (3, image_size, image_size)
        hidden, last = nn.Linear(z_size, conv_dim), nn.Linear(conv_dim, math.prod(pixels))
        super().__init__(hidden, nn.ReLU(), last, nn.Tanh(), nn.Unflatten(1, pixels))
        self.z_size = z_size


def test_networks_of_other_styles_pass(capsys):
    checks.test_discriminator(FunctionalDiscriminator)
    checks.test_discriminator(sequential_discriminator)
    checks.test_generator(LinearGenerator)
    assert capsys.readouterr().out == 3 * "Tests Passed\n"


# ---------------------------------------------------------------- wrong solutions

WRONG = {
    checks.test_get_dataloader: [
        ("not shuffled", {"shuffle=True": "shuffle=False"}, "another order"),
        ("values to 255", {" / 255": ".float()"}, r"values in \[0, 1\], got \d+.00 to 2"),
        ("scaled already", {" / 255": " / 127.5 - 1"}, r"values in \[0, 1\], got -"),
        ("stretched", {"ImageOps.fit(photo,": "photo.resize("}, "expected round discs"),
        ("channels last", {".permute(2, 0, 1)": ""}, "expected the shape"),
        ("float labels", {"torch.tensor(labels)": "torch.tensor(labels).float()"}, "and int64"),
        ("one folder only", {'rglob("*")': 'glob("*")'}, "no images|6 with the rest"),
        ("one class", {'int(path.parent.name == "b")': "0"}, "2 folders .* as many labels, got 1"),
        ("any size", {"check_size(image_size)": "None"}, "image_size = .* names image_size"),
        ("any batch", {"not 0 < batch_size <= len(images)": "batch_size < 1"}, "for 22 photos"),
        ("another kind of error", {'raise ValueError(f"no': 'raise OSError(f"no'}, "got OSError"),
        ("a folder unnamed", {"images in {data_dir}": "images"}, "names empty_folder"),
        ("no return", {"return torch": "torch"}, "get_dataloader returned None"),
    ],
    checks.test_scale: [
        ("to 0..1", {"(-1, 1)": "(0, 1)"}, "expected -1.00 to 1.00, got 0.00 to 1.00"),
        (
            "the range ignored",
            {"x * (high - low) + low": "x * 2 - 1"},
            "expected 0.00 to 1.00, got -1.00",
        ),
        (
            "stretched to its own range",
            {"return x": "x = (x - x.min()) / (x.max() - x.min())\n    return x"},
            "smallest and largest",
        ),
        (
            "in place",
            {"x * (high - low) + low": "x.mul_(high - low).add_(low)"},
            "changed in place",
        ),
        ("no return", {"return x": "x = x"}, r"scale\(x\).* got None. Is there a `return`?"),
    ],
    checks.test_discriminator: [
        ("no activation", {"F.leaky_relu": "", ", 0.2)": ")"}, "got a linear network"),
        (
            "a layer in a list",
            {
                "self.hidden = nn.Conv2d(3, conv_dim, 4, stride=4)": "self.all = "
                "[nn.Conv2d(3, conv_dim, 4, stride=4)]",
                "self.hidden(x)": "self.all[0](x)",
            },
            "Is a layer in a list",
        ),
        (
            "the wrong shape",
            {"self.head(x.flatten(1))": "self.head(x.flatten(1))[:, 0]"},
            r"expected the shape \(2, 1\), got \(2,\)",
        ),
        (
            "one logit in a batch",
            {"self.head(x.flatten(1))": "self.head(x.flatten(1)).mean(0, True)"},
            "expected the shape",
        ),
        (
            "a sigmoid at the end",
            {"self.head(x.flatten(1))": "self.head(x.flatten(1)).sigmoid()"},
            "raw logits .* got 0.00 to 1.00. Is there a sigmoid",
        ),
        (
            "a tanh at the end",
            {"self.head(x.flatten(1))": "self.head(x.flatten(1)).tanh()"},
            "raw logits .* got -1.00 to 1.00",
        ),
        (
            "a relu at the end",
            {"self.head(x.flatten(1))": "self.head(x.flatten(1)).relu()"},
            "raw logits .* got 0.00|different logits, got 0.00",
        ),
        ("the image ignored", {"self.hidden(x)": "self.hidden(0 * x)"}, "different logits"),
        (
            "a layer unused",
            {"self.norm(self.hidden(x))": "self.hidden(x)"},
            "gradient for norm.weight, got none. Is the layer used",
        ),
        ("detached", {"x.flatten(1)": "x.flatten(1).detach()"}, "gradient for hidden.weight"),
        (
            "one image size",
            {"image_size // 4": "8"},
            r"RuntimeError: .* in this line: `return self.head\(x.flatten\(1\)\)`. Does the",
        ),
        ("any size", {"check_size(image_size)": "None"}, "names image_size, got"),
        ("no return", {"return self": "self"}, "got None. Is there a `return`?"),
        ("no super", {"super().__init__()": "pass"}, r"begins with super\(\).__init__\(\)"),
    ],
    checks.test_generator: [
        ("no activation", {"F.relu(self.norm(x))": "self.norm(x)"}, "got a linear network"),
        ("one colour", {"conv_dim, 3, 4": "conv_dim, 1, 4"}, r"the shape \(2, 3, 16, 16\)"),
        ("a sigmoid at the end", {".tanh()": ".sigmoid()"}, "from -1 to 1, got 0.00 to 1.00"),
        ("nothing at the end", {".tanh()": ""}, "from -1 to 1, got -[1-9]"),
        ("z ignored", {"self.first(z)": "self.first(torch.ones_like(z))"}, "different images"),
        (
            "conv_dim ignored",
            {"check_size(image_size)": "check_size(image_size); conv_dim = 8"},
            "more weights with 16",
        ),
        (
            "z_size forgotten",
            {"self.z_size, self.side = z_size,": "self.side ="},
            "G.z_size: expected 10",
        ),
        ("any size", {"check_size(image_size)": "None"}, "names image_size, got"),
        ("no return", {"return self": "self"}, "got None. Is there a `return`?"),
    ],
    checks.test_weights_init: [
        ("0.2 for 0.02", {"0.02": "0.2"}, r"expected 0, 0.02, got .*, 0\.(19|20)"),
        (
            "uniform",
            {"normal_(m.weight, 0, 0.02)": "uniform_(m.weight, -0.0346, 0.0346)"},
            "uniform?",
        ),
        ("biases untouched", {"nn.init.zeros_(m.bias)": "None"}, "Biases .* expected 0, got 0.3"),
        ("linear layers left out", {", nn.Linear": ""}, "Weights of Linear.* expected 0, 0.02"),
        ("normalisation too", {"nn.Linear": "nn.Linear, nn.BatchNorm2d"}, "scale and shift"),
        ("a bias expected", {"if m.bias is not None": "if True"}, "got AttributeError"),
    ],
    checks.test_build_network: [
        ("G before D", {"return D, G": "return G, D"}, "gives D, G"),
        (
            "D not initialised",
            {"(d_conv_dim).apply(weights_init_normal)": "(d_conv_dim)"},
            r"D.apply\(weights",
        ),
        (
            "G not initialised",
            {"g_conv_dim).apply(weights_init_normal)": "g_conv_dim)"},
            r"G.apply\(weights",
        ),
        (
            "one conv_dim for both",
            {"z_size, g_conv_dim": "z_size, d_conv_dim"},
            "more weights in D",
        ),
        ("one network", {"return D, G": "return G"}, "expected two values, got one Generator"),
        ("three values", {"return D, G": "return D, G, 12"}, "expected two values, got 3"),
        ("no return", {"return D, G": "D, G"}, "got None. Is there a `return`?"),
    ],
    checks.test_losses: [
        ("the input ignored", {"(D_out, torch": "(0 * D_out, torch"}, "to depend on D_out"),
        ("swapped", {"label = 0.0": "label = 1.0"}, "Are the labels swapped"),
        ("a sum", {"label))": "label), reduction='sum')"}, "the mean over the images"),
        (
            "not reduced",
            {"label))": "label), reduction='none')"},
            r"expected the shape \(\), got \(6, 1\)",
        ),
        ("a sigmoid too many", {"logits(D_out,": "logits(D_out.sigmoid(),"}, "sigmoid too many"),
        (
            "the logarithm overflows",
            {BCE: "-(D_out.sigmoid() if label else 1 - D_out.sigmoid()).log().mean()"},
            "expected a finite number",
        ),
        ("smoothing ignored", {"0.9 if smooth else 1.0": "1.0"}, "smooth=True to cost more"),
        ("smoothed to the wrong side", {"0.9 if smooth": "0.1 if smooth"}, "close to 1"),
        ("detached", {"return F": "D_out = D_out.detach()\n    return F"}, "got a detached loss"),
        (
            "labels on the CPU",
            {"torch.full_like(D_out, label)": "torch.full(D_out.shape, label)"},
            "on D_out.device|RuntimeError|device",
        ),
        (
            "in place",
            {"return F": "with torch.no_grad(): D_out.clamp_(-1, 1)\n    return F"},
            "changed in place",
        ),
        ("no return", {"return F": "F"}, "real_loss of 6 logits.* Is there a `return`?"),
    ],
    checks.test_adam: [
        ("gradient descent", {"Adam(": "SGD(", ", betas=(beta1, 0.999)": ""}, "got SGD"),
        ("a rate of its own", {"lr=rate": "lr=0.001"}, "learning rate: expected 0.01, got 0.001"),
        ("Adam's momentum", {", betas=(beta1, 0.999)": ""}, "betas: expected 0.4, 0.999, got 0.9"),
        ("a momentum of its own", {"betas=(beta1": "betas=(0.1"}, "expected 0.4, 0.999, got 0.1"),
        ("another beta2", {"0.999": "0.5"}, "expected 0.4, 0.999, got 0.4, 0.5"),
        ("the bias left out", {"network.parameters()": "[network.weight]"}, "other weights"),
        ("no return", {"return ": ""}, "got NoneType"),
    ],
    checks.test_train_step: [
        (
            "D never updated",
            {"d_optimizer.step()": "None"},
            r"D was not trained: .* Does d_optimizer.step\(\) run, after d_loss.backward\(\)\?",
        ),
        (
            "G never updated",
            {"g_optimizer.step()": "None"},
            r"G was not trained: .* Does g_optimizer.step\(\) run, after g_loss.backward\(\)\?",
        ),
        ("G cut off", {"real_loss(D(fake))": "real_loss(D(fake.detach()))"}, "G was not trained"),
        (
            "G updated in D's step",
            {
                **KEPT_GRAPH,
                "d_optimizer.step()": "d_optimizer.step(); g_optimizer.step()",
                "real_loss(D(fake))": "real_loss(D(G(z)))",
            },
            r"D\(G\(z\)\) to rise|about the same",
        ),
        (
            "G moved by hand",
            {"g_loss =": "[p.data.mul_(0.9) for p in G.parameters()]\n    g_loss ="},
            r"G: expected to move only in g_optimizer.step\(\)",
        ),
        ("not detached", {"fake.detach()": "fake"}, r"second time.* see fake.detach\(\)\?"),
        (
            "D's gradients in G's step",
            {
                **KEPT_GRAPH,
                "g_optimizer.zero_grad()": "None",
                "d_optimizer.zero_grad()": "d_optimizer.zero_grad(); g_optimizer.zero_grad()",
            },
            r"D\(G\(z\)\) to rise",
        ),
        (
            "G's gradients in D's step",
            {
                "    d_optimizer.zero_grad()\n": "",
                "d_optimizer.step()": "d_optimizer.step(); d_optimizer.zero_grad()",
            },
            "D's gradients",
        ),
        (
            "D's gradients never cleared",
            {"d_optimizer.zero_grad()": "None"},
            r"D's gradients.* Does d_optimizer.zero_grad\(\) run first",
        ),
        (
            "G's gradients never cleared",
            {"g_optimizer.zero_grad()": "None"},
            r"G's gradients.* Does g_optimizer.zero_grad\(\) run first",
        ),
        (
            "D's labels swapped",
            {D_LOSS: "fake_loss(D(real)) + real_loss(D(fake.detach()))"},
            r"D\(real\) - D\(fake\) to grow",
        ),
        (
            "no fakes for D",
            {" + fake_loss(D(fake.detach()))": ""},
            r"D\(fake\) to fall|d_loss above",
        ),
        ("no real images for D", {D_LOSS: "fake_loss(D(fake.detach()))"}, "two halves"),
        ("G helps D", {"real_loss(D(fake))": "fake_loss(D(fake))"}, r"D\(G\(z\)\) to rise"),
        ("live losses", {"return d_loss.detach()": "return d_loss"}, "expected a detached number"),
        (
            "losses in the other order",
            {"return d_loss.detach(), g_loss.detach()": "return g_loss.detach(), d_loss.detach()"},
            "d_loss above g_loss",
        ),
        ("a global read", {"G.z_size": "len(SOLUTIONS)"}, "the global SOLUTIONS"),
        ("latents of a fixed size", {"G.z_size": "10"}, "G.s latents: expected the shape"),
        ("uniform latents", {"torch.randn(": "torch.rand("}, "latents, mean .* torch.randn"),
        (
            "the same latents",
            {"torch.randn(len(real)": "torch.ones(len(real), 1) * torch.randn(1"},
            "new ones in each step|latents, mean",
        ),
        (
            "D left frozen",
            {"return d_loss": "D.requires_grad_(False)\n    return d_loss"},
            "requires_grad|RuntimeError",
        ),
        ("one loss", {", g_loss.detach()": ""}, "expected two values, got one Tensor"),
        ("no return", {"return d_loss.detach(), g_loss.detach()": ""}, "Is there a `return`?"),
    ],
    checks.test_train: [
        (
            "D never updated",
            {"real, d_optimizer": "real, torch.optim.SGD(D.parameters(), 0)"},
            "D was not trained",
        ),
        (
            "G never updated",
            {"g_optimizer)\n": "torch.optim.SGD(G.parameters(), 0))\n"},
            "G was not trained",
        ),
        ("a copy trained", {"_step(D, G": "_step(D, copy.deepcopy(G)"}, "G was not trained"),
        ("not scaled", {"scale(images)": "images"}, "expected -1 to 1, .* got 0.00"),
        ("scaled twice", {"scale(images)": "scale(scale(images))"}, "got -3.00"),
        ("one epoch", {"range(n_epochs)": "range(1)"}, "expected 6 pairs"),
        ("print_every ignored", {"step % print_every == 0": "True"}, "expected 6 pairs"),
        ("not a number", {"d_loss.item()": "float('nan')"}, "one finite number, got nan"),
        ("one loss", {"(d_loss.item(), g_loss.item())": "(d_loss.item(),)"}, "two values, got 1"),
        ("live losses", {"d_loss.item()": "d_loss.requires_grad_()"}, "with its graph"),
        ("a global read", {"range(n_epochs)": "range(n_epochs or len(RIGHT))"}, "global RIGHT"),
        ("no return", {"return losses": ""}, "returned None|Is there a `return`?"),
    ],
    checks.test_frechet_distance: [
        (
            "only the mean",
            {" + values.sum() + spread.trace() - 2 * overlap": ""},
            "stretched, Fréchet distance: expected 5.25, got 0",
        ),
        ("the mean ignored", {"(shift +": "(0 * shift +"}, "moved, .* expected 5, got 0"),
        ("not squared", {"square()": "abs()"}, "moved, .* expected 5, got 3"),
        ("the overlap once", {"2 * overlap": "overlap"}, "the same twice, .* expected 0"),
        ("no root", {".clamp(min=0).sqrt().sum()": ".sum()"}, "stretched"),
        (
            "only the variances",
            {"torch.linalg.eigvalsh(root @ spread @ root)": "(values * spread.diagonal())"},
            "turned",
        ),
    ],
    checks.test_precision_recall: [
        (
            "swapped",
            {"(fake, real), (real, fake)": "(real, fake), (fake, real)"},
            "one kind of two",
        ),
        ("itself a neighbour", {"sorted(row)[k]": "sorted(row)[0]"}, "half of them strangers"),
        ("one radius for all", {"d <= r for": "d <= 5 for"}, "next to a dense crowd"),
    ],
    checks.test_nearest_training_faces: [
        ("itself a neighbour", {".values[:, 1]": ".values[:, 0]"}, "copies"),
        ("the second nearest", {"distances.argmin(1)": "distances.argsort(1)[:, 1]"}, "copies"),
        ("further for nearer", {"nearest < own": "nearest > own"}, "copies"),
    ],
}


@pytest.mark.parametrize("check, what, changes, message", **table(WRONG))
def test_wrong_solutions_are_caught(check, what, changes, message):
    with pytest.raises(AssertionError, match=f"(?s){message}") as caught:
        run_changed(check, changes)
    text = str(caught.value).partition("\nassert ")[0]
    assert len(text) < 500, f"expected a sentence or two, got {text}"


# ---------------------------------------------------------------- exercises


def with_docstring(x):
    """Nothing yet."""


def with_pass(x):
    # your code
    pass


def with_dots(x): ...


class EmptyNetwork(nn.Module):
    """Nothing yet."""


class NetworkOfStubs(nn.Module):
    widest = 8

    def __init__(self, conv_dim):
        """Build the layers."""
        super().__init__()
        # your code

    def upsample(self, x):
        return x

    def forward(self, x): ...


class NetworkWithLayers(nn.Module):
    def __init__(self, conv_dim=8):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x):
        """Nothing yet."""


class OtherWidth(Discriminator):
    widest = 4


def the_same(x):
    return x


STUBS = [with_docstring, with_pass, with_dots, EmptyNetwork, NetworkOfStubs]
WRITTEN = [the_same, scale, Discriminator, NetworkWithLayers, OtherWidth, lambda x: x]


@pytest.mark.parametrize("definition", STUBS + WRITTEN, ids=lambda item: item.__name__)
def test_empty_stubs_are_recognised(definition):
    found = checks.unwritten(definition)
    assert found == (definition in STUBS), f"{definition}: expected {not found}, got {found}"


@pytest.fixture
def exercises(monkeypatch):
    monkeypatch.setattr(checks, "EXERCISES", {})


LEARNT = [checks.test_scale, checks.test_discriminator, checks.test_generator, checks.test_losses]
LEARNT += [checks.test_weights_init, checks.test_adam, checks.test_train_step]


@pytest.mark.parametrize("check", LEARNT, ids=lambda check: check.__name__)
@pytest.mark.parametrize("is_exercise", [True, False], ids=["exercise", "no exercise"])
def test_a_stub_gives_a_sentence(exercises, capsys, check, is_exercise):
    stubs = []
    for definition in SOLUTIONS[check]:
        stub = copy.copy(NetworkOfStubs) if inspect.isclass(definition) else (lambda *args: None)
        stub = type(stub)(stub.__name__, (nn.Module,), {}) if inspect.isclass(stub) else stub
        stub.__name__ = definition.__name__
        stubs.append(checks.exercise(stub) if is_exercise else stub)
    names = [stub.__name__ for stub in stubs]
    if is_exercise:
        check(*stubs)
        said = "".join(
            f"{name} is not written yet: the solution below is used.\n" for name in names
        )
        assert capsys.readouterr().out == said, "expected a sentence for each stub, and no more"
    else:
        with pytest.raises(AssertionError, match=f"{names[0]} is not written yet"):
            check(*stubs)


def test_the_solution_gives_way_to_the_learners_own(exercises, capsys):
    def named(name, function):
        function.__name__ = name
        return function

    own = checks.exercise(named("scale", lambda x, feature_range=(-1, 1): x))
    stub = checks.exercise(named("adam", lambda network: None))
    assert checks.solution(scale) is own, "expected the learner's own scale"
    assert checks.solution(adam) is not stub, "expected the solution in place of a stub"
    assert checks.solution(real_loss) is real_loss, "expected the solution where nothing is asked"
    assert capsys.readouterr().out == "Using your own scale.\n"
    with pytest.raises(AssertionError, match="expected -1.00 to 1.00"):
        checks.test_scale(own)  # what is written is checked


def test_a_check_of_two_where_one_is_written(exercises, capsys):
    def fake_loss(D_out):
        """Nothing yet."""

    checks.test_losses(checks.exercise(real_loss), checks.exercise(fake_loss))
    said = "fake_loss is not written yet: the solution below is used.\n"
    assert capsys.readouterr().out == said


# ---------------------------------------------------------------- what a check leaves behind


def test_a_check_changes_no_random_state_and_no_threads():
    torch.manual_seed(7)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    states = np.random.get_state()[1].copy(), random.getstate()
    checks.test_train_step(train_step)
    with pytest.raises(AssertionError):
        checks.test_scale(changed(scale, {"(-1, 1)": "(0, 1)"}))
    assert torch.equal(torch.get_rng_state(), before), "expected torch's random state as before"
    assert torch.get_num_threads() == threads, "expected as many threads as before"
    assert (np.random.get_state()[1] == states[0]).all() and random.getstate() == states[1]


def test_a_check_says_the_same_each_time():
    messages = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        with pytest.raises(AssertionError) as caught:
            run_changed(checks.test_train_step, {"torch.randn(": "torch.rand("})
        messages.append(str(caught.value))
    assert messages[0] == messages[1], f"expected the same numbers, got {messages}"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
def test_a_check_leaves_the_random_state_of_the_gpu():
    torch.cuda.manual_seed(7)
    before = torch.cuda.get_rng_state()
    checks.test_losses(real_loss, fake_loss)
    assert torch.equal(torch.cuda.get_rng_state(), before), "expected CUDA's random state as before"


def test_the_notebook_imports_no_test_tools():
    code = "import sys, problem_unittests; print(*{'pytest', 'hypothesis'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and not run.stdout.strip(), f"got {run.stdout}{run.stderr[-500:]}"


def test_each_check_is_under_a_cell_of_the_notebook():
    source = (ROOT / f"{checks.LESSON}.ipynb").read_text(encoding="utf-8")
    names = [name for name in vars(checks) if name.startswith("test_")]
    missing = [name for name in names if f"tests.{name}(" not in source]
    assert not missing, f"expected every check in the notebook, got none of {missing}"
    kinds = itertools.chain(RIGHT, WRONG)
    assert {*kinds} <= {getattr(checks, name) for name in names}
