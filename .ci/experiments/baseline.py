"""The loop as it is commonly taught, which the notebook's is compared with.

Four layers each from 64 channels, Adam at 0.0002, batches of 128, `ImageFolder` with Resize and
ToTensor, float32, a fresh batch of fakes for each update, gradients for all that took part in it,
labels built in every step, `.item()` in every step, and no averaged weights.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from common import lesson
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from assets.lib.faces import parts_of
from assets.lib.pictures import find_images

SETTINGS = {"batch_size": 128, "lr": 0.0002, "d_lr": 0.0002, "beta1": 0.5}


def networks(size, z_size=100, width=64):
    """A discriminator and a generator for faces of size x size, initialized as the notebook's."""
    widths = [3, *(width * 2**i for i in range(4))]
    small = size // 16
    down, up = [], []
    for narrow, wide in zip(widths, widths[1:]):
        is_first = narrow == 3
        down.append(nn.Conv2d(narrow, wide, 4, 2, 1, bias=is_first))
        down += [] if is_first else [nn.BatchNorm2d(wide)]
        down.append(nn.LeakyReLU(0.2))
    for narrow, wide in reversed([*zip(widths, widths[1:])]):
        is_last = narrow == 3
        up.append(nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=is_last))
        up += [nn.Tanh()] if is_last else [nn.BatchNorm2d(narrow), nn.ReLU()]
    features = widths[-1] * small**2
    D = nn.Sequential(*down, nn.Flatten(), nn.Linear(features, 1))
    start = nn.Linear(z_size, features), nn.Unflatten(1, (widths[-1], small, small))
    G = nn.Sequential(*start, *up)
    G.z_size = z_size
    return D.apply(lesson.weights_init_normal), G.apply(lesson.weights_init_normal)


def adam(network):
    return torch.optim.Adam(network.parameters(), SETTINGS["lr"], betas=(SETTINGS["beta1"], 0.999))


def step(D, G, real, d_optimizer, g_optimizer, run=None):
    """One update of each network on real images in [-1, 1] -> d_loss, g_loss, as numbers."""
    bce, n, device = F.binary_cross_entropy_with_logits, len(real), real.device
    with torch.autocast(device.type, enabled=False):
        d_optimizer.zero_grad()
        real_loss = bce(D(real).squeeze(1), 0.9 * torch.ones(n, device=device))
        fake = G(torch.randn(n, G.z_size, device=device))
        d_loss = real_loss + bce(D(fake).squeeze(1), torch.zeros(n, device=device))
        d_loss.backward()
        d_optimizer.step()
        g_optimizer.zero_grad()
        fake = G(torch.randn(n, G.z_size, device=device))
        g_loss = bce(D(fake).squeeze(1), torch.ones(n, device=device))
        g_loss.backward()
        g_optimizer.step()
    return d_loss.item(), g_loss.item()


def loader(image_size, folder, batch_size=SETTINGS["batch_size"]):
    """Batches of the faces that the lesson trains on, each decoded whenever it is needed."""
    paths = [str(path) for path in find_images(folder)]
    parts = parts_of([Path(path).name for path in paths])
    chosen = {path for path, part in zip(paths, parts) if part == 0}
    size = image_size, image_size
    transform = transforms.Compose([transforms.Resize(size), transforms.ToTensor()])
    dataset = datasets.ImageFolder(folder, transform, is_valid_file=chosen.__contains__)
    return DataLoader(dataset, batch_size, shuffle=True, drop_last=True)
