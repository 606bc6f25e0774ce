"""The training loop as it is commonly taught, as a baseline for the notebook's.

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
from assets.lib.folders import find_images

SETTINGS = {
    "batch_size": 128,
    "d_conv_dim": 64,
    "g_conv_dim": 64,
    "lr": 0.0002,
    "d_lr": 0.0002,
    "beta1": 0.5,
}
N_LAYERS = 4


def networks(settings):
    """A discriminator and a generator, with the same initialization as the notebook's."""
    D = discriminator(settings.d_conv_dim, settings.image_size)
    G = generator(settings.z_size, settings.g_conv_dim, settings.image_size)
    return D.apply(lesson.weights_init_normal), G.apply(lesson.weights_init_normal)


def discriminator(conv_dim, image_size):
    """Images (N, 3, S, S) -> logits (N, 1)."""
    narrow, layers = 3, []
    for i in range(N_LAYERS):
        wide = conv_dim * 2**i
        layers.append(nn.Conv2d(narrow, wide, 4, 2, 1, bias=i == 0))
        if i > 0:
            layers.append(nn.BatchNorm2d(wide))
        layers.append(nn.LeakyReLU(0.2))
        narrow = wide
    n_features = narrow * (image_size // 2**N_LAYERS) ** 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(n_features, 1))


def generator(z_size, conv_dim, image_size):
    """Latents (N, z_size) -> images (N, 3, S, S) in [-1, 1]."""
    wide, size = conv_dim * 2 ** (N_LAYERS - 1), image_size // 2**N_LAYERS
    layers = [nn.Linear(z_size, wide * size**2), nn.Unflatten(1, (wide, size, size))]
    for i in reversed(range(N_LAYERS - 1)):
        narrow = conv_dim * 2**i
        layers.append(nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=False))
        layers += [nn.BatchNorm2d(narrow), nn.ReLU()]
        wide = narrow
    G = nn.Sequential(*layers, nn.ConvTranspose2d(wide, 3, 4, 2, 1), nn.Tanh())
    G.z_size = z_size
    return G


def adam(network, rate, beta1):
    return torch.optim.Adam(network.parameters(), rate, betas=(beta1, 0.999))


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


def loader(batch_size, image_size, folder):
    """Batches of the lesson's training faces, decoded again each time they are needed."""
    paths = [str(path) for path in find_images(folder)]
    parts = parts_of([Path(path).name for path in paths])
    chosen = {path for path, part in zip(paths, parts) if part == 0}
    transform = transforms.Compose(
        [transforms.Resize((image_size, image_size)), transforms.ToTensor()]
    )
    dataset = datasets.ImageFolder(folder, transform, is_valid_file=chosen.__contains__)
    return DataLoader(dataset, batch_size, shuffle=True, drop_last=True)
