"""Checks of generation by labels."""

import copy

import torch
from torch import nn

from assets.checks.asserts import (
    assert_close,
    assert_numbers,
    assert_shape,
)
from assets.checks.exercises import check
from assets.checks.layers import pictures, redrawn


def assert_kernels_move(networks, step):
    """A step changes all weights but biases, which a normalization may cancel."""
    before = copy.deepcopy(networks)
    assert_numbers("conditional_step", step())
    after = dict(networks.named_parameters())
    for name, weight in before.named_parameters():
        is_moved = weight.ndim < 2 or not weight.equal(after[name])
        assert is_moved, f"expected every weight to move, got no change of {name}."


def assert_follows_labels(name, network, inputs, labels):
    change = (network(inputs, labels) - network(inputs, 1 - labels)).abs().mean()
    assert change > 0.01, f"{name}: expected other outputs for other labels, got the same."


@check
def test_conditional(ConditionalGenerator, ProjectionDiscriminator, conditional_step):
    labels = (torch.rand(64, 3) < 0.3).float()
    D, G = ProjectionDiscriminator(4, 16, 3), ConditionalGenerator(10, 4, 16, labels)
    x, z = pictures(64, 16), torch.randn(64, 10)
    assert_shape("G(z, labels)", G(z, labels), 64, 3, 16, 16)
    assert_shape("D(x, labels)", D(x, labels), 64, 1)
    optimizers = [torch.optim.SGD(network.parameters(), 0.1) for network in (D, G)]
    networks = nn.ModuleDict({"D": D, "G": G})
    assert_kernels_move(networks, lambda: conditional_step(D, G, x, labels, *optimizers))
    assert_follows_labels("G", redrawn(G, 1), z, labels)
    assert_follows_labels("D", redrawn(D, 1), x, labels)
    in_parts = torch.cat([G(part) for part in z.split(7)])
    is_same = torch.allclose(G(z), in_parts, atol=1e-4)
    assert is_same, "G(z) without labels: expected the same ones for a latent in any batch."


@check
def test_label_sweep(label_sweep, in_batches, ConditionalGenerator):
    labels = torch.tensor([[1.0, 0, 0], [1, 1, 0], [1, 0, 0]])
    common = [1, 0, 0]
    expected = [common, [0, 0, 0], [1, 1, 0], [1, 0, 1]]
    got = label_sweep(labels).tolist()
    assert got == expected, f"the labels {labels.tolist()}: expected {expected}, got {got}."
    exclusive = torch.eye(3)
    got = label_sweep(exclusive)
    is_each = torch.equal(got, exclusive)
    assert is_each, f"labels that exclude each other: expected each alone, got {got.tolist()}."
    G = redrawn(ConditionalGenerator(10, 4, 16, labels), 1)
    z, labels = torch.randn(120, 10), labels.repeat(40, 1)
    faces = in_batches(G, z, labels)
    assert_shape("in_batches", faces, 120, 3, 16, 16)
    assert not faces.requires_grad, "in_batches: expected faces without their graph."
    single = in_batches(G, z[:1], labels[:1])
    apart = (single - faces[:1]).abs().mean()
    assert_close("a face, and the same in a batch of 1", apart, 0, within=0.02)


@check
def test_attribute_classifier(attribute_classifier, in_batches):
    is_light = torch.arange(60) % 2 == 0
    brightness = is_light.float() - 0.5
    faces = brightness.view(-1, 1, 1, 1) + 0.1 * torch.randn(60, 3, 16, 16)
    labels = is_light[:, None].float()
    classifier = attribute_classifier(faces[:40], labels[:40], epochs=3, batch_size=10)
    logits = in_batches(classifier, faces[40:])
    assert_shape("The classifier's logits", logits, 20, 1)
    right = ((logits[:, 0] > 0) == is_light[40:]).float().mean()
    assert right > 0.9, f"light or dark: expected nearly all right, got {right:.0%}."
    is_fixed = not any(weight.requires_grad for weight in classifier.parameters())
    assert is_fixed, "expected a frozen classifier: call requires_grad_(False)."
    is_same = torch.equal(logits, in_batches(classifier, faces[40:]))
    assert is_same, "expected the same logits again: is it in eval mode?"


@check
def test_balanced_accuracy(balanced_accuracy):
    labels = torch.tensor([[1.0, 0], [1, 0], [0, 0], [0, 1]])
    always = torch.ones(4, 2)
    half_right = torch.tensor([[1, 1], [0, 0], [0, 1], [0, 1]])
    for what, answers, expected in (
        ("all right", labels, (1, 1)),
        ("always no", 1 - always, (0.5, 0.5)),
        ("always yes", always, (0.5, 0.5)),
        ("half right", half_right, (3 / 4, 2 / 3)),
    ):
        logits = 6 * answers - 3
        assert_close(f"{what}, for {labels.tolist()}", balanced_accuracy(logits, labels), expected)
