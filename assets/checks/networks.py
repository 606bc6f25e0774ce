"""Checks of the networks: discriminator, generator, first weights, both together."""

import copy
import functools
import itertools

import torch
from torch import nn

from assets.checks.asserts import as_text, assert_close, assert_shape, assert_two, is_close
from assets.checks.exercises import check, check_exercise
from assets.checks.layers import (
    LATER,
    WEIGHTED,
    assert_class,
    assert_fits_any_size,
    assert_learns,
    assert_norms_can_be_exchanged,
    assert_norms_normalize,
    assert_not_linear,
    assert_part,
    assert_portable,
    assert_same_outputs,
    n_weights,
    norms_after_layers,
    notes_on_layers,
    pictures,
    redrawn,
)


def assert_halvings(Discriminator):
    """self.features and self.logit, at each size."""
    for size in (16, 32, 64):
        what = f"Discriminator(8, {size})"
        D = Discriminator(8, size)
        features, logit = getattr(D, "features", None), getattr(D, "logit", None)
        wanted = "an nn.Sequential of the halvings that ends in nn.Flatten()"
        assert_part(f"{what}.features", features, nn.Sequential, wanted)
        assert_part(f"The last layer of {what}.features", features[-1], nn.Flatten, "nn.Flatten()")
        maps = features[:-1]
        hint = (
            "Halve until 4 x 4 is left, for any image_size (log2(image_size) - 2 times), and "
            "double the channels each time."
        )
        what_maps = f"The feature maps of {what} before nn.Flatten"
        assert_shape(what_maps, maps(pictures(2, size)), 2, size, 4, 4, hint=hint)
        hint = "Convolve only, with no layer of a fixed size: later sections take larger images."
        what_maps = f"The feature maps of {what} for an image twice as large"
        assert_shape(what_maps, maps(pictures(2, 2 * size)), 2, size, 8, 8, hint=hint)
        assert_part(f"{what}.logit", logit, nn.Linear, "an nn.Linear to one logit")
        sizes = logit.in_features, logit.out_features
        assert sizes == (16 * size, 1), (
            f"{what}.logit: expected nn.Linear({16 * size}, 1), got nn.Linear{sizes}."
        )


def assert_raw_logits(D, x):
    low, high = D(x).min().item(), D(x).max().item()
    assert high - low > 1e-6 * (1 + abs(low)), (
        f"16 different images: expected different logits, got {low:.6f} to {high:.6f}. Is x used?"
    )
    large = copy.deepcopy(D)
    out = torch.cat([redrawn(large, 10)(x) for _ in range(10)])
    assert out.min() < -1.5 and out.max() > 1.5, (
        "Large weights: expected raw logits of any size and both signs, got "
        f"{out.min():.2f} to {out.max():.2f}. Is there a sigmoid, a tanh or a relu at the end? "
        "The loss brings its own sigmoid."
    )


def notes_on_discriminator(Discriminator):
    D = Discriminator(8)
    norms, convs = norms_after_layers(D), [x for x in D.modules() if isinstance(x, nn.Conv2d)]
    normed = {before for before, _ in norms}
    if not norms:
        yield "no batch normalization. The text has it after each convolution but the first."
    elif convs[0] in normed:
        yield "batch normalization after the first convolution. The text has none there."
    elif normed != set(convs[1:]):
        yield "fewer batch normalizations than in the text: one after each convolution but one."
    yield from notes_on_layers(nn.Sequential(D.features, D.logit), nn.LeakyReLU, norms)
    for height, width in sorted({conv.kernel_size for conv in convs} - {(4, 4)}):
        yield f"a kernel of {height} x {width}. The text has 4 x 4."
    slopes = {x.negative_slope for x in D.modules() if isinstance(x, nn.LeakyReLU)} - {0.2}
    if slopes:
        yield f"LeakyReLU with a slope of {slopes.pop()}. The text has 0.2."
    if any(type(x).__module__ == nn.MaxPool2d.__module__ for x in D.modules()):
        yield "pooling halves the image. The text has a stride of 2, whose weights are learned."
    if Discriminator(8, 128).logit.in_features > 64 * 16:
        yield "no cap on the channels. The text stops at eight times conv_dim."
    with torch.autocast("cpu", torch.bfloat16):
        if D(pictures(2, 32)).dtype != torch.float32:
            yield "logits in 16 bits where the device uses them. The text ends in .float()."


@check_exercise
def test_discriminator(Discriminator):
    assert_class("Discriminator", Discriminator)
    assert_halvings(Discriminator)
    assert_norms_normalize("D.features", Discriminator(8))
    assert_fits_any_size(Discriminator, pictures, lambda n, size: (n, 1))
    D, x = Discriminator(8).eval(), pictures(16, 32)
    assert_shape("Discriminator(8), for 32 x 32", D(x), 16, 1)
    assert_not_linear(D, x.split(8))
    assert_raw_logits(D, x)
    assert_learns(D, x)
    hint = "No layer follows self.logit, and flattening is part of self.features."
    parts = nn.Sequential(D.features, D.logit)
    what = "D(x): expected self.logit(self.features(x))"
    assert_same_outputs(what, D, parts, x, hint)
    large = redrawn(copy.deepcopy(D), 10)  # a clamp shows at large logits only
    parts, hint = nn.Sequential(large.features, large.logit), f"{hint} A clamp has no gradient."
    assert_same_outputs(f"Large weights, {what}", large, parts, x, hint)
    assert_portable("D", D, x)
    assert_norms_can_be_exchanged("D.features", D)
    x = x.requires_grad_()  # a penalty on this gradient comes in a later section
    torch.autograd.grad(D(x).sum(), x, create_graph=True)[0].square().sum().backward()
    return [*notes_on_discriminator(Discriminator)]


# ---------------------------------------------------------------- the generator


def assert_upsample(G):
    """A list with one doubling, and nothing else."""
    signature = "upsample(in_channels, out_channels, bias=False)"
    found = callable(getattr(G, "upsample", None))
    assert found, f"G.upsample: expected a method {signature}, got none. {LATER}"
    layers, with_bias = G.upsample(4, 2), G.upsample(4, 2, bias=True)
    kind = type(layers).__name__
    is_list = isinstance(layers, (list, tuple))
    assert is_list, f"G.upsample: expected a list of layers, got {kind}. Put it into [ ]."
    double, x = nn.Sequential(*layers), torch.randn(2, 2, 4, 5, 5)
    assert_shape("Maps of 5 x 5 after G.upsample(4, 2)", double(x[0]), 2, 2, 10, 10)
    zero = double(0 * x[0])
    is_linear = torch.allclose(double(x[0]) + double(x[1]), double(x.sum(0)) + zero, atol=1e-4)
    assert is_linear, (
        "G.upsample: expected the layers of one doubling, got a normalization or an activation as "
        "well. Put these after it in __init__: a subclass replaces upsample, and would lose them."
    )
    assert not zero.any(), "G.upsample(4, 2): expected no bias, got one. Pass bias on to the layer."
    has_bias = nn.Sequential(*with_bias)(0 * x[0]).any()
    assert has_bias, "G.upsample(4, 2, bias=True): expected a bias, got none. Pass bias on."


def other_doubling(Generator):
    """A subclass that doubles in another way, as in a later section, and its calls and layers."""
    calls, layers = [], []

    class OtherDoubling(Generator):
        def upsample(self, in_channels, out_channels, bias=False):
            conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)
            calls.append((in_channels, out_channels, bool(bias)))
            layers.append(conv)
            return [nn.Upsample(scale_factor=2), conv]

    return OtherDoubling, calls, layers


def assert_doublings(Generator, size):
    """self.layers: linear, unflatten, then nothing but doublings that upsample makes."""
    what = f"Generator(10, 8, {size})"
    layers = getattr(Generator(10, 8, size), "layers", None)
    wanted = "an nn.Sequential of all layers before the tanh"
    assert_part(f"{what}.layers", layers, nn.Sequential, wanted)
    assert_part(f"{what}.layers[0]", layers[0], nn.Linear, "nn.Linear")
    assert_part(f"{what}.layers[1]", layers[1], nn.Unflatten, "nn.Unflatten(1, (channels, 4, 4))")
    maps = layers[:2](torch.randn(2, 10))
    hint = "The channels halve at each doubling, down to conv_dim before the last."
    assert_shape(f"{what} after nn.Unflatten", maps, 2, size, 4, 4, hint=hint)

    kind, calls, convs = other_doubling(Generator)
    G = kind(10, 8, size)
    widths = [8 * 2**i for i in range(9) if 8 * 2**i <= size][::-1]
    expected, got = [*itertools.pairwise([*widths, 3])], [call[:2] for call in calls]
    assert got == expected, (
        f"{what}: expected self.upsample for each doubling, of channels {expected}, got {got}."
    )
    assert calls[-1][2], f"{what}: expected self.upsample({widths[-1]}, 3, bias=True) as the last."
    last = [*G.layers.modules()][-1]
    assert last is convs[-1], (
        f"{what}.layers: expected the last doubling at the end, got {type(last).__name__} after "
        "it. The tanh comes in forward, and no normalization before it."
    )
    try:
        G(torch.randn(2, 10))
    except RuntimeError as error:
        raise AssertionError(
            f"A subclass of {what} whose upsample has two layers fails: {error}. Take all layers "
            "of the list: *self.upsample(...)."
        ) from error
    norms = [layer.num_features for layer in layers.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert {*widths} <= {*norms}, (
        f"{what}.layers: expected nn.BatchNorm2d after the linear layer and after each doubling "
        f"but the last, for {widths} channels, got {norms}. {LATER}"
    )


def notes_on_generator(Generator):
    G = Generator(10, 8)
    norms = norms_after_layers(G.layers)
    yield from notes_on_layers(G.layers, nn.ReLU, norms)
    first, *others = G.upsample(8, 8)
    is_as_usual = isinstance(first, nn.ConvTranspose2d) and first.kernel_size == (4, 4)
    if others or not is_as_usual:
        yield "a doubling of your own. The text has a transposed convolution with a 4 x 4 kernel."
    if Generator(10, 8, 128).layers[0].out_features > 64 * 16:
        yield "no cap on the channels. The text stops at eight times conv_dim."


@check_exercise
def test_generator(Generator):
    assert_class("Generator", Generator)
    G, z = Generator(10, 8).eval(), torch.randn(8, 10)
    z_size = getattr(G, "z_size", None)
    is_kept = isinstance(z_size, int) and z_size == 10
    assert is_kept, f"G.z_size: expected 10, got {z_size!r}. Keep z_size as self.z_size."
    assert_part("G.layers", getattr(G, "layers", None), nn.Sequential, "an nn.Sequential")
    build, shape = functools.partial(Generator, 10), lambda n, size: (n, 3, size, size)
    assert_upsample(G)
    for size in (16, 32, 64):
        assert_doublings(Generator, size)
    assert_norms_normalize("G.layers", Generator(10, 8))
    assert_fits_any_size(build, lambda n, size: torch.randn(n, 10), shape)
    assert_shape("Generator(7, 8), for 32 x 32", Generator(7, 8)(torch.randn(3, 7)), 3, 3, 32, 32)
    spread = G(z).std(0).max().item()
    assert spread > 1e-6, f"8 latents: expected different images, got {spread}. Is z used?"
    assert_not_linear(G.layers, z.split(4))
    out = torch.cat([redrawn(copy.deepcopy(G), 10)(z) for _ in range(10)])
    assert -1 <= out.min() < -0.9 and 0.9 < out.max() <= 1, (
        f"Large weights: expected images from -1 to 1, got {out.min():.2f} to {out.max():.2f}. "
        "Is there a tanh at the end? Its range is -1 to 1; that of a sigmoid is 0 to 1."
    )
    assert_learns(G, z)
    tanh, hint = nn.Sequential(G.layers, nn.Tanh()), "A clamp has no gradient beyond -1 and 1."
    assert_same_outputs("G(z): expected torch.tanh(self.layers(z))", G, tanh, z, hint)
    assert_portable("G", G, z)
    assert_norms_can_be_exchanged("G.layers", G)
    G.z_size = 3  # a later section appends labels to the latent
    assert_shape("G(z) for a changed G.z_size", G(z), 8, 3, 32, 32, hint="Take sizes from z.")
    return [*notes_on_generator(Generator)]


# ---------------------------------------------------------------- first weights


def assert_drawn_normally(layer):
    weights, what = layer.weight.detach(), f"Weights of {layer}"
    numbers = weights.mean(), weights.std()
    is_as_before = is_close(weights.min(), 0.3) and is_close(weights.max(), 0.3)
    hint = "They are as before. nn.Conv2d, nn.ConvTranspose2d and nn.Linear are three classes."
    what_of_them = f"{what}, mean and standard deviation"
    assert_close(what_of_them, numbers, (0, 0.02), 0.002, hint if is_as_before else "")
    far = (weights.abs() > 0.04).float().mean().item()
    assert 0.03 < far < 0.06, (
        f"{what}: expected a normal distribution, with 4.6% of the weights beyond two "
        f"standard deviations, got {far:.1%}. Is it uniform?"
    )
    kind = layer.weight.dtype
    assert kind == torch.float32, f"{what}: expected float32, got {kind}. NumPy's have 64 bits."


@check_exercise
def test_weights_init(weights_init_normal):
    norm, bare = nn.BatchNorm2d(64), nn.Conv2d(64, 32, 4, bias=False)
    inner = nn.Sequential(nn.ConvTranspose2d(32, 32, 4), nn.Flatten(), nn.Linear(128, 128))
    network = nn.Sequential(nn.Conv2d(16, 64, 4), norm, nn.LeakyReLU(), bare, inner)
    layers = [layer for layer in network.modules() if isinstance(layer, WEIGHTED)]
    for weight in [weight for layer in layers for weight in layer.parameters()]:
        nn.init.constant_(weight, 0.3)  # whatever was there before must be gone
    biased = [layer for layer in layers if layer.bias is not None]
    network.apply(weights_init_normal)
    for layer in layers:
        assert_drawn_normally(layer)
    for layer in biased:
        got = "none" if layer.bias is None else as_text([layer.bias.detach().abs().max()])
        assert got == "0", f"Biases of {layer}: expected 0, got {got}."
    first, *others = (layer.weight.detach().flatten()[:9] for layer in layers)
    assert not any(first.equal(other) for other in others), (
        "Two layers: expected different weights, got the same. Is there a seed? The seed is set "
        "once, before the networks are built."
    )
    scale_and_shift = norm.weight.mean().item(), norm.bias.mean().item()
    assert_close(f"{norm}, scale and shift", scale_and_shift, (1, 0), within=0.2)
    spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))  # as in a later section
    nn.Sequential(spectral, nn.InstanceNorm2d(3)).apply(weights_init_normal)
    if norm.weight.std() > 0 or norm.bias.std() > 0:
        return ["batch normalization starts with random numbers. The text keeps 1 and 0."]


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
