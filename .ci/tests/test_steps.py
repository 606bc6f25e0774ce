"""Steps, penalties and networks of the next steps, beyond what the checks under their cells ask."""

import math
import types

import pytest
import torch
from torch import nn

import problem_unittests as checks


def moved(notebook, number=0, **options):
    """How D's weights move in one step of the same start, seen by step number `number`."""
    torch.manual_seed(0)
    watch = checks.Watch()
    run = types.SimpleNamespace(step=number, progress=0.0)
    watch.step(notebook.step_with(**options), run)
    return watch.weights["D"] - watch.start["D"]


def test_d_sees_what_seen_gives(notebook):
    plain = moved(notebook)
    blind = moved(notebook, seen=lambda x, run: 0 * x)
    assert plain[0] > 0, f"expected D's weight to grow, got {plain[0]:.1e}"
    assert blind[0] == 0, f"black images: expected no change of D's weight, got {blind[0]:.1e}"


def test_penalties_are_due_at_intervals_and_stronger(notebook):
    def penalties(D, real, fake):
        return 0.1 * D.weight.square().sum()

    plain = moved(notebook)
    once = moved(notebook, penalties=penalties) - plain
    due = moved(notebook, penalties=penalties, interval=4) - plain
    waits = moved(notebook, 1, penalties=penalties, interval=4) - plain
    assert once[0] < 0, f"expected D's weight pulled down, got {once[0]:.1e}"
    assert torch.allclose(due, 4 * once, rtol=0.01, atol=1e-7), f"got {due} for 4 times {once}"
    assert not waits.any(), f"step 1 of interval=4: expected no penalty, got {waits}"


def after_a_step(notebook, step, d_loss):
    """D's weights after regularized_step as step number `step`; d_loss: its recent mean."""
    torch.manual_seed(0)
    watch = checks.Watch()
    run = types.SimpleNamespace(step=step, recent_d_loss=d_loss)
    watch.step(notebook.regularized_step, run)
    return watch.weights["D"]


def test_r1_is_added_when_d_is_ahead_and_grows_with_its_lead(notebook):
    torch.manual_seed(0)
    watch = checks.Watch()
    watch.step(notebook.train_step)
    plain = watch.weights["D"]
    for what, step, d_loss in (
        ("a new run", 0, None),
        ("D far ahead, in another step", 1, 0.5),
        ("D level", 16, 1.3),
    ):
        got = after_a_step(notebook, step, d_loss)
        assert torch.equal(got, plain), f"{what}: expected train_step, got another step"
    pulls = [after_a_step(notebook, 16, d_loss) - plain for d_loss in (1.2, 1.1, 0.9)]
    slope = plain[0].sign()  # the toy's logit has one slope, its first weight
    first, second, third = (-(pull[0] * slope).item() for pull in pulls)
    assert first > 0, f"expected a smaller gradient of D with R1, got {-first:.1e} more"
    ratios = second / first, third / first
    assert ratios == pytest.approx((2, 4), rel=0.01), f"expected 2 and 4 times, got {ratios}"


def test_r1_needs_no_gradients_left_by_train_step(notebook, monkeypatch):
    step = notebook.train_step

    def tidy_step(D, G, real, d_optimizer, g_optimizer):
        losses = step(D, G, real, d_optimizer, g_optimizer)
        D.zero_grad()
        return losses

    plain = after_a_step(notebook, 1, 0.5)
    monkeypatch.setattr(notebook, "train_step", tidy_step)
    pull = after_a_step(notebook, 16, 0.5) - plain
    assert pull.any(), "expected R1's pull, got none"


def test_r1_moves_a_steep_d_no_further_than_4_plain_steps_do(notebook):
    torch.manual_seed(0)
    watch = checks.Watch()
    watch.networks["D"].weight.data.fill_(1000.0)
    watch.start = watch.weights = watch.snapshot()
    run = types.SimpleNamespace(step=16, recent_d_loss=0.1)
    watch.step(notebook.regularized_step, run)
    first, *_, last = [gradient.norm() for key, gradient, _ in watch.log if key == "D"]
    ratio = (last / first).item()
    assert ratio == pytest.approx(4, rel=0.01), f"expected 4 times, got {ratio:.2f}"


class HalfSquare(nn.Module):
    """|x|^2 / 2, whose gradient at x has the length |x|."""

    def forward(self, x):
        return x.square().sum((1, 2, 3)) / 2


@pytest.mark.parametrize("name", ["r1", "r2"])
def test_r1_looks_at_real_images_and_r2_at_fakes(notebook, name):
    real, fake = checks.pictures(6, 16), 2 * checks.pictures(6, 16)
    images = {"r1": real, "r2": fake}[name]
    expected = images.square().sum((1, 2, 3)).mean().item() / 2
    got = notebook.penalty(HalfSquare(), real, fake, **{name: 1}).item()
    assert abs(got - expected) < 1e-3 * expected, f"expected {expected:.1f}, got {got:.1f}"


def test_styles_rule_their_layers(notebook):
    torch.manual_seed(0)
    G = notebook.StyleGenerator(10, 4).eval()
    w, n = G.mapping(torch.randn(3, 10)), len(G.layers)
    images = G.synthesis([w] * n)
    mixed = G.synthesis([w] * 2 + [w.flip(0)] * (n - 2))
    change = (mixed[0] - images[0]).abs().max()
    assert change > 1e-3, "other styles for the fine layers: expected another face"
    layer = G.layers[1]
    x = torch.randn(3, layer.conv.in_channels, 8, 8)
    before = layer(x, w)
    layer.conv.weight.data *= 7
    change = (layer(x, w) - before).abs().max()
    assert change < 1e-4, f"weights times 7: expected demodulation to undo it, got {change:.1e}"


@pytest.mark.parametrize("size, extent", [(32, 22), (64, 46), (128, 46)])
def test_a_logit_sees_a_patch(notebook, size, extent):
    D, x = notebook.PatchDiscriminator(4, size), checks.pictures(1, size).requires_grad_()
    for layer in list(D.modules()):  # it would carry news from everywhere
        if isinstance(layer, nn.InstanceNorm2d):
            layer.forward = lambda x: x
    logits = D(x)
    middle = logits.shape[-1] // 2
    logits[0, 0, middle, middle].backward()
    rows = x.grad[0].abs().sum((0, 2)).nonzero()
    got = (rows.max() - rows.min() + 1).item()
    assert got == extent, f"{size} pixels: expected a patch of {extent}, got {got}"


def test_the_pool_keeps_new_images(notebook):
    torch.manual_seed(0)
    pool, given = notebook.ImagePool(4), []
    for i in range(1, 401):
        given += pool.exchange(torch.full((2, 3, 4, 4), float(i)))[:, 0, 0, 0].tolist()
    kept = pool.images[:, 0, 0, 0].unique()
    assert len(kept) > 20 and kept.max() > 350, f"expected new ones among those kept, got {kept}"
    assert len(set(given)) > 200, f"expected changing ones, got {len(set(given))} different ones"


class Constant(nn.Module):
    """The same logit for any image."""

    def __init__(self, logit):
        super().__init__()
        self.logit = nn.Parameter(torch.tensor([logit]))

    def forward(self, x):
        return self.logit.expand(len(x), 1)


def test_discogan_is_the_step_with_cross_entropy(notebook):
    a, b = checks.pictures(2, 8), checks.pictures(2, 8)
    G = nn.ModuleList([checks.Shift(0.0), checks.Shift(0.0)])
    D = nn.ModuleList([Constant(1.0), Constant(1.0)])
    pools = [types.SimpleNamespace(exchange=lambda images: images)] * 2
    optimizers = [torch.optim.SGD(network.parameters(), 0.0) for network in (G, D)]
    options = {"loss": "cross-entropy", "cycle": 0, "identity": 0}
    _, g_loss = notebook.cyclegan_step(G, D, pools, a, b, *optimizers, **options)
    expected = 2 * math.log(1 + math.exp(-1))
    assert abs(g_loss - expected) < 1e-3, f"logits of 1: expected {expected:.3f}, got {g_loss:.3f}"
