"""Checks of makeup on and off: a CycleGAN, and how far it changes what it should."""

import types

import numpy as np
import torch
from torch import nn

from assets.checks.asserts import (
    assert_between,
    assert_close,
    assert_numbers,
    assert_rising,
    assert_shape,
)
from assets.checks.exercises import check
from assets.checks.layers import assert_learns, n_weights, pictures
from assets.lib.drawn import draw_faces


@check
def test_image_to_image(ImageToImageGenerator):
    weights = []
    for size in (32, 64, 128):
        G, x = ImageToImageGenerator(4, size).eval(), pictures(2, size)
        y = G(x)
        assert_shape(f"ImageToImageGenerator(4, {size})", y, 2, 3, size, size)
        assert y.abs().max() <= 1, f"expected values in [-1, 1], got {y.abs().max():.2f}."
        assert (y - x).abs().mean() < 0.15, "fresh weights: expected next to no change."
        mixes = any(isinstance(layer, nn.BatchNorm2d) for layer in G.modules())
        is_same = torch.allclose(G(x[:1]), y[:1], atol=1e-4)
        assert is_same and not mixes, "expected each image on its own, without batch norm."
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
        images = torch.full((2, 3, 4, 4), float(i))
        given.append(pool.exchange(images)[:, 0, 0, 0].tolist())
    assert given[0] == [1, 1], f"the first batch: expected it back as it is, got {given[0]}."
    assert 0 not in sum(given, []), "expected nothing back that was not put in."
    older = [number < i for i, numbers in enumerate(given, 1) for number in numbers]
    assert_between("later, the share of older ones", np.mean(older[400:]), 0.4, 0.6)
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


def critic():
    """A discriminator of the mean color only, convinced by everything."""
    network = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3, 1))
    nn.init.zeros_(network[2].weight)
    nn.init.ones_(network[2].bias)
    return network


class CycleGame:
    """Domains a and b, 0.5 apart; generators that shift by these amounts, and two critics."""

    def __init__(self, amounts, g_rate, d_rate):
        self.a = pictures(16, 8) / 4 - 0.25
        self.b = pictures(16, 8) / 4 + 0.25
        self.G = nn.ModuleList(map(Shift, amounts))
        self.D = nn.ModuleList([critic(), critic()])
        self.g_optimizer = torch.optim.Adam(self.G.parameters(), g_rate)
        self.d_optimizer = torch.optim.Adam(self.D.parameters(), d_rate)

    def play(self, cyclegan_step, n=1, **weights):
        pools = [types.SimpleNamespace(exchange=keep)] * 2
        given = self.G, self.D, pools, self.a, self.b, self.g_optimizer, self.d_optimizer
        return [cyclegan_step(*given, **weights) for _ in range(n)][-1]


@check
def test_cyclegan_step(cyclegan_step):
    for cycle, identity, expected in ((0, 0, 0), (10, 0, 2.5), (10, 5, 4.375)):
        what = f"cycle={cycle}, identity={identity}"
        game = CycleGame((0.25, -0.125), 0.0, 0.0)
        losses = game.play(cyclegan_step, cycle=cycle, identity=identity)
        assert_numbers("cyclegan_step", losses)
        assert_close(f"{what}, the generators' loss", losses[1], expected, within=0.01)
        assert_close(f"{what}, the discriminators' loss", losses[0], 2, within=0.01)

    game = CycleGame((0.5, -0.5), 0.0, 0.1)  # fakes as good as real ones of the domain
    game.play(cyclegan_step, 100)
    apart = [D(game.b).mean().item() - D(game.a).mean().item() for D in game.D]
    hint = "Are half of D_A's fakes from b?"
    assert_close("perfect fakes, logits of b less those of a", apart, (-0.67, 0.67), 0.1, hint)

    game = CycleGame((0.0, 0.0), 0.02, 0.1)
    game.play(cyclegan_step, 100, cycle=1.0, identity=0.0)
    amounts = [G.amount.item() for G in game.G]
    hint = "Do both optimizers step?"
    assert_close("domains 0.5 apart, shifts", amounts, (0.5, -0.5), within=0.3, hint=hint)


@check
def test_makeup_errors(makeup_errors):
    before = pictures(4, 32) * 0.5
    region = torch.zeros(4, 1, 32, 32, dtype=torch.bool)
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
        assert_between(f"{what}, share", identity_kept(faces, after), low, high)
