"""What the checks of networks share: assertions on their layers, gradients and outputs."""

import copy
import inspect
import itertools

import torch
from torch import nn
from torch.nn import functional as F

from assets.checks.asserts import assert_refuses, assert_shape, at_most

BAD_IMAGE_SIZES = (48, 8, 512, 0, -32)


def pictures(n, size):
    """n different smooth color pictures in [-1, 1]."""
    return F.interpolate(torch.rand(n, 3, 4, 4) * 2 - 1, size=size, mode="bilinear")


def n_weights(network):
    return sum(weight.numel() for weight in network.parameters())


def assert_learns(network, x):
    """A gradient reaches every weight and the input."""
    x = x.clone().requires_grad_()
    out = network.train()(x)
    name = type(network).__name__
    assert out.requires_grad, f"{name}: expected an output with a gradient, got a detached one."
    (out * torch.randn_like(out)).sum().backward()
    for key, weight in [*network.named_parameters(), ("input", x)]:
        assert weight.requires_grad, f"{name}: expected {key} to learn, got requires_grad False."
        # a bias in front of a normalization has a gradient of 0
        is_reached = weight.grad is not None and (weight.ndim < 2 or weight.grad.any())
        assert is_reached, (
            f"{name}: expected a gradient for {key}, got none. Is the layer used in forward?"
        )


def redrawn(network, deviation):
    """The network in eval mode, with new weights: small ones hide what comes last."""
    for weight in network.parameters():
        nn.init.normal_(weight, 0, deviation)
    return network.eval()


WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
LATER = "Later sections build on it."


def assert_part(what, part, kind, wanted):
    got = "none" if part is None else type(part).__name__
    assert isinstance(part, kind), f"{what}: expected {wanted}, got {got}. {LATER}"


def assert_class(name, definition):
    is_network = inspect.isclass(definition) and issubclass(definition, nn.Module)
    assert is_network, f"{name}: expected a class that derives from nn.Module. {LATER}"
    has_forward = definition.forward is not nn.Module.forward
    assert has_forward, f"{name}: expected a method forward, got none."


def assert_fits_any_size(build, inputs, shape):
    """build(conv_dim, size) makes networks that turn inputs(n, size) into shape(n, size)."""
    for size in (16, 32, 64):
        network = build(8, size)
        lazy = any(map(nn.parameter.is_lazy, network.parameters()))
        assert not lazy, "Expected layers with all sizes given, got lazy ones: no weights to draw."
        for n in (2, 5):
            what = f"A batch of {n} at image_size {size}"
            assert_shape(what, network(inputs(n, size)), *shape(n, size))
        assert_shape("A batch of 1 in eval mode", network.eval()(inputs(1, size)), *shape(1, size))
    with at_most(seconds=5):
        for size in BAD_IMAGE_SIZES:
            assert_refuses(lambda size=size: build(8, size), f"image_size = {size}", "image_size")
    first, second, x = build(8, 32).eval(), build(8, 32).eval(), inputs(16, 32)
    before, out = x.clone(), first(x)
    assert x.equal(before), "Expected the input of forward unchanged, got it changed in place."
    assert out.allclose(first(x), atol=1e-5), (
        "In eval mode: expected the same output each time, got another. Is there noise, or "
        "F.dropout without training=self.training?"
    )
    assert out.dtype == torch.float32, f"Expected 32-bit floats, got {out.dtype}: .float()."
    second.load_state_dict(first.state_dict())
    assert first(x).allclose(second(x), atol=1e-5), "Is a layer in a list? Use nn.Sequential."
    narrow, wide = n_weights(build(8, 32)), n_weights(build(16, 32))
    assert narrow < wide, f"conv_dim 8, 16: expected more weights with 16, got {narrow}, {wide}."


def assert_not_linear(network, inputs):
    """A mean of inputs does not give the mean of the outputs."""
    middle = (inputs[0] + inputs[1]) / 2
    a, b, c = (network(x).detach() for x in (*inputs, middle))
    is_linear = (c - (a + b) / 2).abs().max() < 1e-3 * (a - b).abs().max()
    assert not is_linear, "Expected an activation after each hidden layer, got a linear network."


def assert_same_outputs(what, network, parts, x, hint):
    """Two functions agree in training mode, where a normalization shows."""
    outputs = []
    for function in (network.train(), parts):
        torch.manual_seed(0)  # for dropout
        outputs.append(function(x).detach())
    apart = (outputs[0] - outputs[1]).abs().max()
    assert apart <= 0.05 * outputs[1].abs().max(), f"{what}, got something else. {hint}"


def assert_portable(name, network, x):
    """It can be copied, runs on any device and takes images stored either way."""
    network.train()(x)
    copies = [copy.deepcopy(network) for _ in range(2)]
    try:  # "meta" is a device without numbers
        copies[0].to("meta")(x.to("meta"))
    except Exception as error:
        raise AssertionError(
            f"{name} on another device: expected forward to work, got {type(error).__name__}. "
            "Make new tensors on the input's device, and read no values (.item(), `if x > 0`)."
        ) from error
    memory_format = torch.channels_last
    x = x.contiguous(memory_format=memory_format) if x.ndim == 4 else x
    copies[1].to(memory_format=memory_format)(x)


def norms_after_layers(network):
    """Each BatchNorm2d that comes after a layer in an nn.Sequential, with that layer."""
    pairs = []
    for part in [part for part in network.modules() if isinstance(part, nn.Sequential)]:
        weighted = [layer for layer in part if getattr(layer, "weight", None) is not None]
        for before, layer in itertools.pairwise(weighted):
            if isinstance(layer, nn.BatchNorm2d) and isinstance(before, WEIGHTED):
                pairs.append((before, layer))
    return pairs


def assert_norms_normalize(name, network):
    """Each BatchNorm2d brings channels to a deviation of 1, and keeps averages for eval mode."""
    for norm in [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]:
        what = f"{name}: expected nn.BatchNorm2d({norm.num_features})"
        assert norm.eps <= 1e-3, (
            f"{what}, got eps={norm.eps:g}, which is larger than the numbers that it normalizes. "
            "The second argument is eps, not momentum."
        )
        has_averages = norm.track_running_stats and 0 < (norm.momentum or 0) <= 1
        assert norm.affine and has_averages, (
            f"{what}, got {norm}. After eval() it needs running averages, and it learns a scale "
            "and a shift: leave affine, momentum and track_running_stats as they are."
        )


def assert_norms_can_be_exchanged(name, network):
    found = {layer for _, layer in norms_after_layers(network)}
    lost = [x for x in network.modules() if isinstance(x, nn.BatchNorm2d) and x not in found]
    assert not lost, (
        f"{name}: expected each nn.BatchNorm2d right after its layer, in the same nn.Sequential, "
        f"got {len(lost)} elsewhere. Later sections exchange them there."
    )


# layers that leave a network linear
LINEAR = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Upsample, nn.PixelShuffle, nn.AvgPool2d)
LINEAR += (nn.Dropout, nn.Dropout2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm)
LINEAR += (nn.ReflectionPad2d, nn.ReplicationPad2d, nn.ZeroPad2d)


def in_order(network):
    """The layers of nested nn.Sequentials, one after the other."""
    if not isinstance(network, nn.Sequential):
        return [network]
    return [layer for part in network for layer in in_order(part)]


def without_activation(layers):
    """The first layer with weights that another one follows with no activation between, or None."""
    before = None
    for layer in layers:
        if isinstance(layer, WEIGHTED):
            if before is not None:
                return before
            before = layer
        elif not isinstance(layer, LINEAR):
            before = None


def notes_on_layers(network, activation, norms):
    """Notes on where the layers differ from the text."""
    bare = without_activation(in_order(network))
    if bare is not None:
        yield f"no activation after {bare}. The text has {activation.__name__} after each layer."
    layers = [*network.modules()]
    others = {
        type(layer).__name__
        for layer in layers
        if type(layer).__module__ == nn.ReLU.__module__ and not isinstance(layer, activation)
    }
    if others:
        yield f"{', '.join(sorted(others))} where the text has {activation.__name__}."
    normed = {norm for _, norm in norms}
    for previous, layer in itertools.pairwise(in_order(network)):
        if layer in normed and type(previous).__module__ == nn.ReLU.__module__:
            yield "batch normalization after the activation. The text has it before."
            break
    if any(before.bias is not None for before, _ in norms):
        yield "a bias before batch normalization, which subtracts it again: bias=False saves it."
