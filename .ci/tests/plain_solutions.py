"""Plain solutions, unlike the notebook's, and variants of them that are made by changing pieces."""

import inspect
import itertools
import linecache
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn
from torch.nn import functional as F

import problem_unittests as checks


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


class Block(nn.Module):
    """Layers that are in no nn.Sequential."""

    def __init__(self, *layers):
        super().__init__()
        self.parts = nn.ModuleList(layers)

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return x


class Discriminator(nn.Module):
    def __init__(self, conv_dim, image_size=32):
        super().__init__()
        check_size(image_size)
        layers = [nn.Conv2d(3, conv_dim, 4, 2, 1), nn.LeakyReLU(0.2)]
        size, n = image_size // 2, conv_dim
        while size > 4:
            m = min(2 * n, 8 * conv_dim)
            layers += [nn.Conv2d(n, m, 4, 2, 1, bias=False), nn.BatchNorm2d(m), nn.LeakyReLU(0.2)]
            size, n = size // 2, m
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.logit = nn.Linear(n * 4 * 4, 1)

    def forward(self, x):
        return self.logit(self.features(x)).float()


class Generator(nn.Module):
    def __init__(self, z_size, conv_dim, image_size=32):
        super().__init__()
        check_size(image_size)
        self.z_size = z_size
        size, n = 8, min(image_size // 8, 8) * conv_dim
        layers = [nn.Linear(z_size, n * 16, bias=False), nn.Unflatten(1, (n, 4, 4))]
        layers += [nn.BatchNorm2d(n), nn.ReLU()]
        while size < image_size:
            size, m = 2 * size, min(n, conv_dim * image_size // size // 2)
            layers += [*self.upsample(n, m), nn.BatchNorm2d(m), nn.ReLU()]
            n = m
        layers += self.upsample(conv_dim, 3, bias=True)
        self.layers = nn.Sequential(*layers)

    def upsample(self, in_channels, out_channels, bias=False):
        return [nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=bias)]

    def forward(self, z):
        return self.layers(z).tanh()


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


def adam(network, rate, beta1):
    return torch.optim.Adam(network.parameters(), lr=rate, betas=(beta1, 0.999))


def train_step(D, G, real, d_optimizer, g_optimizer):
    z = torch.randn(len(real), G.z_size, device=real.device)
    fake = G(z)
    d_loss = real_loss(D(real), smooth=True) + fake_loss(D(fake.detach()))
    d_optimizer.zero_grad()
    d_loss.backward()
    d_optimizer.step()
    g_loss = real_loss(D(fake))
    g_optimizer.zero_grad()
    g_loss.backward(inputs=list(G.parameters()))
    g_optimizer.step()
    return d_loss.detach(), g_loss.detach()


def train(D, G, loader, d_optimizer, g_optimizer, n_epochs, print_every=50, run=None, step=None):
    losses, n_steps = [], 0
    for _ in range(n_epochs):
        for images, _ in loader:
            real = scale(images)
            d_loss, g_loss = train_step(D, G, real, d_optimizer, g_optimizer)
            n_steps += 1
            if n_steps % print_every == 0:
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


def leave_one_out(faces):
    distances, n_close = torch.cdist(faces, faces).tolist(), 0
    for i in range(len(faces)):
        distance, j = min((distances[i][k], k) for k in range(len(faces)) if k != i)
        own = min(distances[j][k] for k in range(len(faces)) if k not in (i, j))
        n_close += distance < own
    return n_close / len(faces)


SOLUTIONS = {
    checks.test_get_dataloader: get_dataloader,
    checks.test_scale: scale,
    checks.test_discriminator: Discriminator,
    checks.test_generator: Generator,
    checks.test_weights_init: weights_init_normal,
    checks.test_build_network: build_network,
    checks.test_real_loss: real_loss,
    checks.test_fake_loss: fake_loss,
    checks.test_adam: adam,
    checks.test_train_step: train_step,
    checks.test_train: train,
    checks.test_frechet_distance: frechet_distance,
    checks.test_precision_recall: precision_recall,
    checks.test_nearest_training_faces: nearest_training_faces,
    checks.test_leave_one_out: leave_one_out,
}
NUMBERS = itertools.count()  # a name for each variant


def changed(check, changes):
    """The solution of a check with each `old: new` carried out in its source."""
    solution = SOLUTIONS[check]
    source = inspect.getsource(solution)
    for old, new in changes.items():
        assert old in source, f"expected it in {solution.__name__}, got nothing to change: {old}"
        source = source.replace(old, new)
    file = f"<{solution.__name__}, variant {next(NUMBERS)}>"
    linecache.cache[file] = len(source), None, source.splitlines(True), file
    scope = dict(globals())
    exec(compile(source, file, "exec"), scope)
    return scope[solution.__name__]


def table(rows_of_check):
    """Parameters for pytest: a check and one of its rows each."""
    rows = [(check, *row) for check, rows in rows_of_check.items() for row in rows]
    return {"argvalues": rows, "ids": [f"{row[0].__name__[5:]}: {row[1]}" for row in rows]}
