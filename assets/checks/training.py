"""Checks of training: a step and the loop, on two toy networks that are watched."""

import copy
import itertools

import torch
from torch import nn
from torch.nn import functional as F

from assets.checks.asserts import (
    as_text,
    assert_close,
    assert_no_globals,
    assert_numbers,
    assert_shape,
    is_close,
)
from assets.checks.exercises import check, check_exercise
from assets.checks.losses import cross_entropy
from assets.checks.watch import ToyDiscriminator, ToyGenerator, Watch


def assert_latents(seen, n_images):
    """All latents of some steps on n_images in all are from N(0, 1), and new in each step."""
    z = torch.cat(seen)
    what, hint = "The latents, mean and standard deviation", "torch.randn?"
    assert_close(what, (z.mean(), z.std()), (0, 1), within=0.15, hint=hint)
    n_different = len(z.unique(dim=0))
    assert n_different >= n_images, (
        f"{n_images} real images: expected as many latents, new ones in each step, got "
        f"{n_different} different ones. Is it torch.randn(len(real), ...), without a seed?"
    )


class Seen:
    """Images that D has seen, as their brightness, and its logits for them: each (N, 1)."""

    def __init__(self, images, logits):
        self.brightness, self.logits = images.flatten(1).mean(1, keepdim=True), logits

    def loss(self, label):
        return cross_entropy(self.logits, label)

    def gradient(self, label):
        """The gradient of the loss for D's weight and bias."""
        error = self.logits.sigmoid() - label
        return torch.stack([(error * self.brightness).mean(), error.mean()])


def split_seen(seen, real):
    """What D has seen of the real images, and of fakes with and without the graph of G."""
    on_real, attached, detached = [], [], []
    for images, logits, has_graph in seen:
        for x, y in zip(images.split(len(real)), logits.split(len(real))):
            if x.equal(real):
                on_real.append(Seen(x, y))
            elif x.std((2, 3)).max() < 1e-6:
                (attached if has_graph else detached).append(Seen(x, y))
            else:
                low, high = x.min(), x.max()
                raise AssertionError(
                    f"D: expected `real` as it is, in [-1, 1], got images from {low:.2f} to "
                    f"{high:.2f}. train_step needs no scale(): the loop has scaled already. Nor "
                    "does it add noise."
                )
    return on_real, attached, detached


def assert_losses(watch, losses, steps):
    """d_loss and g_loss of the last step are the lesson's, and D's gradients those of d_loss."""
    on_real, attached, detached = split_seen(watch.networks["D"].seen, watch.real)
    assert on_real, "D: expected to see the real images, got fakes only. d_loss has two halves."
    assert detached, "D's own step: expected fake.detach(), got fakes with the graph of G."
    pairs = [*itertools.product(on_real, detached)]
    both = [real.loss(0.9) + fake.loss(0) for real, fake in pairs]
    d_losses = {
        "": both,
        "Is it smooth=True for the real faces?": [r.loss(1) + f.loss(0) for r, f in pairs],
        "It is the sum of both halves, not their mean.": [loss / 2 for loss in both],
        "Only real labels are smoothed.": [r.loss(0.9) + f.loss(0.1) for r, f in pairs],
    }
    d_text = "real_loss(D(real), smooth=True) + fake_loss(D(fake.detach()))"
    assert_loss("d_loss", losses[0], d_text, d_losses)
    g_losses = {
        "": [fake.loss(1) for fake in attached],
        "G's loss is not smoothed.": [fake.loss(0.9) for fake in attached],
        "-fake_loss is flat where D is sure: minimize real_loss(D(fake)).": [
            -fake.loss(0) for fake in attached
        ],
    }
    assert_loss("g_loss", losses[1], "real_loss(D(fake))", g_losses)
    halves = [real.gradient(0.9) for real in on_real] + [fake.gradient(0) for fake in detached]
    sums = [real.gradient(0.9) + fake.gradient(0) for real, fake in pairs]
    for gradient in [gradient for key, gradient, _ in steps if key == "D"]:
        assert any(are_parallel(gradient, expected) for expected in halves + sums), (
            "D's gradient in d_optimizer.step(): expected that of d_loss, got more. g_loss reaches "
            "D as well: call g_loss.backward() after d_optimizer.step(), and zero_grad() first."
        )


def are_parallel(a, b):
    return F.cosine_similarity(a, b, dim=0) > 0.9999


def assert_loss(name, got, text, values):
    """One of the first values; the other keys are hints on what else it may be."""
    found = [hint for hint, xs in values.items() if any(is_close(got, x) for x in xs)]
    if "" not in found:
        expected = as_text(values[""][:1])
        raise AssertionError(
            f"{name}: expected {text} = {expected}, got {as_text(got)}. {' '.join(found)}"
        )


def assert_step_on_points(train_step):
    """Real data of another shape: points in two dimensions."""
    D, G = nn.Linear(2, 1), nn.Linear(3, 2)
    G.z_size = 3
    optimizers = [torch.optim.SGD(network.parameters(), 0.1) for network in (D, G)]
    try:
        train_step(D, G, torch.randn(8, 2), *optimizers)
    except Exception as error:
        raise AssertionError(
            f"Real points of shape (8, 2): expected a step as on images, got {error}. Take no more "
            "than len(real) and real.device from real."
        ) from error
    try:
        copy.deepcopy((D, G))  # a later section keeps copies
    except RuntimeError as error:
        raise AssertionError(
            f"A copy of D and G after the step: {error}. Keep no images in D or G."
        ) from error


def assert_step_on_device(train_step):
    """Latents are made where the images are."""
    D, G = ToyDiscriminator(0.15).to("meta"), ToyGenerator(3).to("meta")
    optimizers = [torch.optim.SGD(network.parameters(), 0.1) for network in (D, G)]
    try:
        train_step(D, G, torch.zeros(4, 3, 16, 16, device="meta"), *optimizers)
    except AssertionError:
        raise
    except Exception:
        pass  # "meta" has no numbers, so a loss cannot be printed there, which is fine


def assert_left_as_needed(watch):
    """What the rest of the lesson finds after a step: modes, rates, and D's gradients."""
    assert not watch.networks["D"].was_in_eval_mode, (
        "D: expected training mode throughout, got eval mode. In eval mode it judges by other "
        "means and deviations than in its own step, and G learns to deceive only these."
    )
    for key, optimizer in watch.optimizers.items():
        rate = optimizer.param_groups[0]["lr"]
        expected = optimizer.defaults["lr"]
        assert rate == expected, f"{key}'s rate: expected {expected} as before, got {rate}."
    gradients = d_gradients(watch)
    assert not gradients or any(gradient.any() for gradient in gradients), (
        "After the step: expected D's gradients to be there still, got 0. Section 18 limits a "
        "penalty by their length. Call zero_grad before each backward, not after the step."
    )


def d_gradients(watch):
    weights = watch.networks["D"].parameters()
    return [weight.grad for weight in weights if weight.grad is not None]


def notes_on_step(watch, n_steps):
    D, G = watch.networks.values()
    n_d, n_g = ([name for name, *_ in watch.log].count(key) for key in "DG")
    if n_d != n_g:
        yield f"{n_d} steps of D for {n_g} of G. The text has one of each in turn."
    if not d_gradients(watch):
        yield (
            "D has no gradients after the step. Section 18 limits a penalty by their length, and "
            "without them it has no limit. Clear them before D's own backward only."
        )
    elif not any(
        torch.cat(d_gradients(watch)).allclose(x) for key, x, _ in watch.log if key == "D"
    ):
        yield (
            "G's backward changes D's gradients, by whose length section 18 limits a penalty. "
            "The text has g_loss.backward(inputs=list(G.parameters()))."
        )
    if any(len(images) > len(watch.real) for images, *_ in D.seen):
        yield (
            "D sees real faces and fakes in one batch, so batch normalization mixes the two. The "
            "text has two calls."
        )
    if len(G.seen) > n_steps:
        yield "new fakes for G's step. The text has one batch of fakes for both networks."


def assert_both_move(train_step):
    """A D that is far ahead learns as well."""
    watch = Watch(bias=0.0, weight=5.0)
    watch.step(train_step)
    moved = {key for key, *_ in watch.log}
    assert len(moved) == 2, (
        f"A D that is far ahead: expected a step of both, got one of {', '.join(moved) or 'none'}. "
        "Each call of train_step trains both networks."
    )


@check_exercise
def test_train_step(train_step):
    assert_no_globals(train_step)
    for bias, z_size in ((0.8, 3), (0.15, 7)):
        watch = Watch(bias, z_size)
        for n in (32, 32, 20):
            watch.networks["D"].seen.clear()
            n_before = len(watch.log)
            losses = watch.step(train_step, n=n)
            assert_numbers("train_step's result", losses)
            got = len(watch.networks["G"].seen[-1])
            assert got == n, f"{n} real images: expected {n} latents, len(real), got {got}."
        watch.verify()
        assert_left_as_needed(watch)
        assert_latents(watch.networks["G"].seen, 32 + 32 + 20)
        # this D takes fakes for real: it is wrong, and G content
        assert bias < 0.5 or losses[0] > losses[1], (
            f"D fooled: expected d_loss above g_loss, got {losses[0]:.3f} and {losses[1]:.3f}. "
            "Is it d_loss first?"
        )
        assert_losses(watch, losses, watch.log[n_before:])
    for name, loss in zip(("d_loss", "g_loss"), losses):
        hint = "Return it detached: .item() waits for the device in each step."
        assert isinstance(loss, torch.Tensor), f"{name}: expected a tensor, got a number. {hint}"
        assert_shape(name, loss)
    assert_step_on_device(train_step)
    assert_step_on_points(train_step)
    assert_both_move(train_step)
    return [*notes_on_step(watch, 3)]


@check
def test_train(train):
    assert_no_globals(train)
    images = (torch.rand(48, 3, 16, 16) < 0.9).float()  # dots, on [-1, 1] with a mean of 0.8
    data = torch.utils.data.TensorDataset(images, torch.zeros(48, dtype=torch.int64))
    loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
    for n_epochs, print_every in ((1, 1), (3, 3)):
        watch = Watch()
        optimizers = watch.optimizers.values()
        losses = train(*watch.networks.values(), loader, *optimizers, n_epochs, print_every)
        what = f"{n_epochs} epochs of {len(loader)} steps, print_every={print_every}"
        n = n_epochs * len(loader) // print_every
        assert abs(len(losses) - n) <= 1, f"{what}: expected {n} pairs, got {len(losses)}."
        for pair in losses:
            assert_numbers("train's result", pair)
        # what has dots is real: G's pictures are of one color
        seen = [x[x.std((1, 2, 3)) > 0.3].flatten() for x, *_ in watch.networks["D"].seen]
        low, high = torch.cat(seen).min().item(), torch.cat(seen).max().item()
        assert -1.5 < low < -0.5 and 0.5 < high < 1.5, (
            "Real images on their way to D: expected -1 to 1, as G makes them, got "
            f"{low:.2f} to {high:.2f}. The loader gives 0 to 1: has scale() run, and once?"
        )
        watch.verify()
        assert_latents(watch.networks["G"].seen, n_epochs * len(images))
