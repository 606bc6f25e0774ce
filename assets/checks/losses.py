"""Checks of the losses and the optimizer."""

import functools
import math

import torch
from torch import nn
from torch.nn import functional as F

from assets.checks.asserts import (
    as_text,
    assert_close,
    assert_shape,
    assert_stays_on_device,
    is_close,
)
from assets.checks.exercises import check_exercise


def cross_entropy(logits, label):
    """Binary cross-entropy, by hand."""
    logits = torch.as_tensor(logits, dtype=torch.float)
    return (F.softplus(logits) - label * logits).mean()


def assert_scalar_loss(name, loss):
    """The mean over the images, finite, with a gradient, on the device of its input."""
    x = torch.randn(6, 1) * 2
    for n in (6, 1):
        logits = x[:n].clone().requires_grad_()
        out = loss(logits)
        assert_shape(f"{name} of {n} logits", out, hint="Take the mean over the batch.")
        assert out.dtype == x.dtype, (
            f"{name}: expected float32, got {out.dtype}. torch.ones_like(D_out) has D_out's type."
        )
        no_gradient = f"{name}: expected a gradient to its input, got a detached loss."
        assert out.requires_grad, no_gradient
        assert logits.grad is None, f"{name}: expected no backward() in it. train_step calls it."
        out.backward()
        assert logits.grad is not None, no_gradient
        assert logits.equal(x[:n]), f"{name}: expected D_out unchanged, got it changed in place."
    one_by_one = torch.stack([loss(logit.view(1, 1)) for logit in x]).mean()
    assert_close(f"{name} of 6 logits, the mean over the images", loss(x), one_by_one)
    assert_depends_on_logits(name, at(loss, (-2, 3)))
    for shape in ((6,), (2, 1, 3, 1)):  # a curve, and logits of patches
        assert_close(what_of(name, shape), of_shape(name, loss, x.view(shape)), one_by_one)
    assert_close(f"{name} of one logit of shape (1,)", loss(x[0]), loss(x[:1]))
    far = loss(200 * x)
    assert far.isfinite(), f"{name} of very large logits: expected a finite number, got {far}."
    hint = "Put the labels on D_out.device, as torch.ones_like(D_out) does."
    assert_stays_on_device(f"{name} of a D_out on another device", loss, x, hint)


def what_of(name, shape):
    return f"{name} of logits of shape {shape}"


def of_shape(name, loss, logits):
    try:
        return loss(logits)
    except Exception as error:
        raise AssertionError(
            f"{what_of(name, tuple(logits.shape))}: expected a loss, got {error}. Take logits of "
            "any shape as they are, with torch.ones_like(D_out)."
        ) from error


def at(loss, logits, **kwargs):
    return [loss(torch.full((4, 1), float(logit)), **kwargs).item() for logit in logits]


SWAPPED = {  # of a logit and its label, by what to say
    "This is the loss for the other label: are real (1) and fake (0) swapped?": (
        lambda logit, label: cross_entropy(logit, 1 - label)
    ),
    "This is minus the loss for the other label. Take this label, without a minus.": (
        lambda logit, label: -cross_entropy(logit, 1 - label)
    ),
}
OTHER_LOSSES = {
    "This is least squares; the lesson takes cross-entropy and compares others later.": (
        lambda logit, label: (logit - label) ** 2
    ),
    "This is half of least squares; the lesson takes cross-entropy.": (
        lambda logit, label: (logit - label) ** 2 / 2
    ),
    "There is an extra sigmoid: these are logits already.": (
        lambda logit, label: cross_entropy(1 / (1 + math.exp(-logit)), label)
    ),
    "The logits come first, then the labels.": (lambda logit, label: cross_entropy(label, logit)),
}


def assert_cross_entropy(what, got, logits, label, hint=""):
    """The loss at these logits, with a sentence for what else it may be."""
    others = (SWAPPED if label in (0, 1) else {}) | OTHER_LOSSES
    for other, loss in others.items():
        if is_close(got, [loss(logit, label) for logit in logits], within=1e-3):
            hint = other
    expected = [cross_entropy(logit, label) for logit in logits]
    assert_close(f"{what} at logits of {as_text(logits)}", got, expected, 1e-3, hint)


def assert_depends_on_logits(name, losses):
    is_right = max(losses) > min(losses) + 1e-6
    assert is_right, (
        f"{name}: expected it to depend on D_out, got {losses[0]:.2f} for all. Is it "
        "F.binary_cross_entropy_with_logits(logits, labels), in this order?"
    )


def assert_gradient(name, loss, label):
    """Also at large logits, where a sigmoid of float32 is 0 or 1 and has no gradient."""
    logits = torch.tensor([-200.0, -20.0, 0.0, 20.0, 200.0])[:, None].requires_grad_()
    loss(logits).backward()
    expected = (logits.detach().sigmoid() - label) / len(logits)
    what = f"{name}, its gradient at logits of {as_text(logits.detach())}"
    hint = "Is there a sigmoid, a log or a clamp? Take F.binary_cross_entropy_with_logits."
    assert_close(what, logits.grad, expected, hint=hint)


@check_exercise
def test_real_loss(real_loss):
    logits = (-2, 0, 1, 10)
    assert_scalar_loss("real_loss", real_loss)
    plain, smooth = at(real_loss, logits), at(real_loss, logits, smooth=True)
    assert_cross_entropy("real_loss", plain, logits, 1.0)
    assert_gradient("real_loss", real_loss, 1.0)
    hint = "With smooth=True the label is 0.9, and 1 without."
    hint += " Is smooth used?" if is_close(plain, smooth) else ""
    assert_cross_entropy("real_loss with smooth=True", smooth, logits, 0.9, hint)
    smoothed = functools.partial(real_loss, smooth=True)
    assert_scalar_loss("real_loss with smooth=True", smoothed)
    assert_gradient("real_loss with smooth=True", smoothed, 0.9)


@check_exercise
def test_fake_loss(fake_loss):
    logits = (-10, 0, 1, 2)
    assert_scalar_loss("fake_loss", fake_loss)
    hint = "The label of a fake is 0: only real labels are smoothed."
    assert_cross_entropy("fake_loss", at(fake_loss, logits), logits, 0.0, hint)
    assert_gradient("fake_loss", fake_loss, 0.0)


# what may be chosen without changing the updates
FREE_OPTIONS = {"lr", "betas", "foreach", "fused", "capturable", "differentiable"}


@check_exercise
def test_adam(adam):
    network = nn.Linear(3, 2)
    optimizer = adam(network, 0.01, beta1=0.4)
    is_adam, kind = isinstance(optimizer, torch.optim.Adam), type(optimizer).__name__
    assert is_adam, f"Expected torch.optim.Adam, got {kind}. Does adam return it?"
    plain, got = torch.optim.Adam(network.parameters()).defaults, optimizer.defaults
    is_plain = kind != "AdamW" and not got.get("decoupled_weight_decay")
    assert is_plain, "Expected torch.optim.Adam, got AdamW, which makes the weights smaller."
    assert not got["maximize"], "Expected Adam to minimize the loss, got maximize=True."
    group = optimizer.param_groups[0]
    is_whole = [*map(id, group["params"])] == [*map(id, network.parameters())]
    assert is_whole, "Expected Adam over network.parameters(), got other weights."
    assert_close("The learning rate", group["lr"], 0.01, hint="Is the argument used?")
    assert_close("betas", group["betas"], (0.4, 0.999), hint="Is it betas=(beta1, 0.999)?")
    others = {
        key: got.get(key) for key in plain.keys() - FREE_OPTIONS if got.get(key) != plain[key]
    }
    return [
        f"Adam with {key}={value!r}. The text leaves that out." for key, value in others.items()
    ]
