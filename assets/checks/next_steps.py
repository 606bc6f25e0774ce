"""Checks of the next steps: other layers, losses, steps and generators."""

import itertools
import math
import types

import torch
from torch import nn

from assets.checks.asserts import (
    assert_between,
    assert_close,
    assert_numbers,
    assert_refuses,
    assert_shape,
)
from assets.checks.exercises import check
from assets.checks.layers import assert_learns, pictures
from assets.checks.watch import Watch


@check
def test_exchange_norm(exchange_norm, norm_layer):
    spread = 1 + torch.rand(6, 16, 1, 1)
    mean = 3 * torch.randn(6, 16, 1, 1)
    x = mean + spread * torch.randn(6, 16, 4, 4)
    for norm, n_groups in {"batch": 16, "instance": 6 * 16, "group": 6 * 8, "layer": 6}.items():
        y = norm_layer(norm, 16)(x).detach()
        assert_shape(f'norm="{norm}"', y, *x.shape)
        if norm == "batch":
            y = y.transpose(0, 1)
        groups = y.reshape(n_groups, -1)
        what = f'norm="{norm}" in {n_groups} groups'
        assert_close(f"{what}, largest mean", groups.mean(1).abs().max(), 0, within=0.02)
        deviations = groups.std(1, unbiased=False)
        assert_close(f"{what}, deviations", deviations.aminmax(), (1, 1), within=0.02)
    squares = norm_layer("pixel", 16)(x).square().mean(1)
    assert_close("pixel: the mean square of each pixel", squares.aminmax(), (1, 1), within=1e-3)
    assert torch.equal(norm_layer(None, 16)(x), x), "norm=None: expected x unchanged."
    assert_refuses(lambda: norm_layer("weight", 16), 'norm="weight"', "norm")
    for norm in ("batch", "instance", "group", "layer", "pixel", None):
        hidden = [nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        network = exchange_norm(nn.Sequential(*hidden, nn.Conv2d(16, 4, 3)), norm)
        n = sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())
        assert n == (norm == "batch"), f"norm={norm!r}: got {n} batch normalizations."
        assert_learns(network, pictures(4, 8))


@check
def test_upsampling(NearestGenerator, PixelShuffleGenerator, icnr):
    z = torch.randn(4, 10)
    for Generator in (NearestGenerator, PixelShuffleGenerator):
        G, name = Generator(10, 4), Generator.__name__
        assert_shape(name, G(z), 4, 3, 32, 32)
        assert_learns(G, z)
        found = any(isinstance(layer, nn.ConvTranspose2d) for layer in G.modules())
        assert not found, f"{name}: expected no transposed convolution, got one."
        assert_shape(f"{name}(10, 4, 64)", Generator(10, 4, 64)(z), 4, 3, 64, 64)
    G = icnr(PixelShuffleGenerator(10, 4)).eval()
    convs = [layer for layer in G.modules() if isinstance(layer, nn.Conv2d)]
    for conv in convs:
        first, *others = conv.weight.unflatten(0, (-1, 4)).unbind(1)
        is_alike = all(torch.equal(first, other) for other in others)
        assert is_alike, f"After icnr, expected four equal sets of weights, got others in {conv}."
    convs[-1].bias.data.zero_()
    squares = G(z).detach().unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    apart = (squares - squares[..., :1]).abs().max()
    assert_close("After icnr, the pixels of each 2 x 2 square apart", apart, 0)


@check
def test_at_full_size(at_full_size, build_network):
    sizes = types.SimpleNamespace(d_conv_dim=6, g_conv_dim=7)
    for image_size in (16, 32, 64):
        networks = build_network(6, 7, 10, image_size)
        networks = at_full_size(sizes, *networks)
        D, G = networks["D"].cpu(), networks["G"].cpu()
        x, z = pictures(4, image_size), torch.randn(4, 10)
        for what, network, inputs, shape in (("D", D, x, (4, 1)), ("G", G, z, x.shape)):
            convs = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
            n_zero = sum(not conv.weight.any() for conv in convs)
            message = f"{what}: expected one convolution that is 0 at first, got {n_zero}."
            assert n_zero == 1, message
            assert_shape(f"{what} at {image_size} pixels", network(inputs), *shape)
            assert_learns(network, inputs)


@check
def test_checkerboard(checkerboard):
    noise = torch.randn(800, 3, 16, 16)
    stripes = torch.tensor([1.0, -1.0]).repeat(8)
    squares = noise.repeat_interleave(2, 2).repeat_interleave(2, 3)
    for what, faces, low, high in (
        ("white noise", noise, 0.9, 1.1),
        ("2 x 2 squares", squares, 0, 1e-6),
        ("noise in stripes", noise + stripes, 5, math.inf),
        ("noise on a board", noise + stripes * stripes[:, None], 5, math.inf),
    ):
        assert_between(what, checkerboard(faces), low, high)


@check
def test_loss_pairs(losses_of):
    d_real = torch.tensor([[1.0], [-1.0]])
    d_fake = torch.tensor([[0.5], [2.0]])
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
    D = nn.Sequential(nn.Flatten(), linear)
    length = linear.weight.norm().item()  # of the gradient, everywhere
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


def lighter(x, run):
    return x + 0.1


def small_weight(D, real, fake):
    return 0.1 * D.weight.square().sum()


@check
def test_step_with(step_with):
    run = types.SimpleNamespace(step=0, progress=0.0)
    for options in (
        {},
        {"loss": "least squares"},
        {"loss": "hinge"},
        {"loss": "Wasserstein"},
        {"loss": "relativistic"},
        {"seen": lighter},
        {"penalties": small_weight, "interval": 2},
    ):
        watch = Watch()
        for run.step in range(3):
            assert_numbers(f"step_with({options})", watch.step(step_with(**options), run))
        watch.assert_trained()
    assert_refuses(lambda: step_with(loss="L3"), 'loss="L3"', "loss")
    assert_refuses(lambda: step_with(n_critic=0), "n_critic=0", "n_critic")
    assert_refuses(lambda: step_with(interval=0), "interval=0", "interval")
    assert_critic_steps(step_with(loss="Wasserstein", n_critic=3), run)


def assert_critic_steps(step, run):
    """G moves in every third step only."""
    watch, moved = Watch(), []
    for run.step in range(6):
        before = watch.weights["G"]
        watch.step(step, run)
        if not before.equal(watch.weights["G"]):
            moved.append(run.step)
    assert moved == [0, 3], f"n_critic=3: expected G to move in steps 0 and 3, got {moved}."


@check
def test_truncated(truncated):
    by_hand = {0.5: 0.2837, 1.0: 0.5396, 4.0: 0.9995}  # deviations of what is left of N(0, 1)
    for limit, deviation in by_hand.items():
        z = truncated(2_000, 10, limit, 3)
        assert_shape(f"limit {limit}", z, 2_000, 10)
        most = z.abs().max()
        assert most <= limit, f"limit {limit}: expected no number beyond it, got {most:.2f}."
        assert_close(f"limit {limit}, standard deviation", z.std(), deviation, within=0.01)
        is_same = torch.equal(z, truncated(2_000, 10, limit, 3))
        assert is_same, "the same seed: expected the same ones."


@check
def test_style_generator(StyleGenerator):
    G, z = StyleGenerator(10, 4), torch.randn(3, 10)
    assert_shape("StyleGenerator(10, 4)", G(z), 3, 3, 32, 32)
    assert_learns(G, z)
    for layer in G.layers[:-1]:
        layer.noise_scale.data += 1
    assert not torch.equal(G(z), G(z)), "in training: expected fresh noise each time."
    images = G.eval()(z)
    assert torch.equal(G(z), images), "eval mode: expected the same noise each time."
    assert torch.allclose(G(z[1:2]), images[1:2], atol=1e-5), "expected the same face in any batch."
    styles = [G.mapping(z)] * len(G.layers)
    is_same = torch.allclose(G.synthesis(styles), images, atol=1e-5)
    assert is_same, "one style for all layers: expected the images of forward."


def kernels_of(network):
    return [weight for weight in network.parameters() if weight.ndim > 1]


@check
def test_carry_over(carry_over, build_network):
    old = build_network(8, 12, 10, 32)
    new = build_network(4, 6, 10, 64)
    for name, a, b, order in zip("DG", old, new, (-1, 1)):
        carry_over(a, b, order)
        pairs = [*zip(kernels_of(a)[::order], kernels_of(b)[::order])]
        fitting = itertools.takewhile(lambda pq: pq[0].shape == pq[1].shape, pairs)
        n_expected = len([*fitting])
        n = sum(p.equal(q) for p, q in pairs)
        assert n == n_expected > 1, (
            f"{name} from 32 to 64 pixels: expected {n_expected} layers carried over, got {n}."
        )
    z, (_, G), (_, larger_G) = torch.randn(5, 10), old, new
    n_hidden = len(G.layers) - len(G.upsample(1, 1))
    hidden, larger_hidden = G.eval().layers[:n_hidden], larger_G.eval().layers[:n_hidden]
    is_same = torch.allclose(hidden(z), larger_hidden(z), atol=1e-5)
    assert is_same, "expected the same features of the same latents."
    odd = build_network(5, 7, 10, 64)[1]
    assert_refuses(lambda: carry_over(G, odd), "networks that do not fit", "no_layer")


class Knows(nn.Module):
    """A network that expects the same face in every mixture."""

    def __init__(self, face):
        super().__init__()
        self.face = face

    def forward(self, x, t):
        assert t.shape == (len(x),), f"expected a time for each of {len(x)} mixtures, got {t.shape}"
        return self.face.expand(len(x), -1, -1, -1)


@check
def test_flow(Flow, flow_loss):
    flow, z = Flow(16, n_steps=3), torch.randn(5, 3 * 16**2)
    flow_loss(flow, pictures(4, 16)).backward()
    for name, weight in flow.named_parameters():
        assert weight.grad is not None, f"flow_loss: expected a gradient for {name}, got none."
    assert_shape("Flow(16)", flow(z), 5, 3, 16, 16)
    (face,) = pictures(1, 16)
    flow.expected_face = Knows(face)
    for flow.n_steps in (1, 2, 7):
        is_there = torch.allclose(flow(z), face.expand(5, -1, -1, -1), atol=1e-5)
        assert is_there, f"{flow.n_steps} steps to an expected face: expected that face."
    mixtures = [mixture for mixture, _ in flow.path(z)]
    noise = z.view(5, 3, 16, 16)
    for k, mixture in enumerate(mixtures):
        expected = noise + k / 7 * (face - noise)
        assert_close(f"step {k} of 7: from the straight line", (mixture - expected).abs().max(), 0)
    t = torch.full((5,), 0.5)
    error = (flow.velocity((noise + face) / 2, t) - (face - noise)).abs().max()
    assert_close("velocity: from face - noise", error, 0)
    loss = flow_loss(flow, face.expand(5, -1, -1, -1))
    assert_close("the loss of a network that expects the right face", loss, 0, within=0.01)
    flow.expected_face = Knows(face + 1)
    is_larger = flow_loss(flow, face.expand(5, -1, -1, -1)) > 1
    assert is_larger, "expected faces that are off by 1: expected a loss above 1."
