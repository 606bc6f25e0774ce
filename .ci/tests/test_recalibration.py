"""Recalibrated batch norm, and the summary of a network."""

import copy

import torch
from torch import nn

from assets.lib.scores import recalibrate_batch_norm, summary


def test_summary_changes_nothing(notebook, capsys):
    D, G = notebook.build_network(4, 4, 8, 16)
    G.layers[0].eval()
    state = torch.get_rng_state()
    before = copy.deepcopy([D.state_dict(), G.state_dict()])
    summary(D, 3, 16, 16)
    summary(G, 8)
    after = [D.state_dict(), G.state_dict()]
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert D.training and not G.layers[0].training, "expected the modes as they were"
    assert torch.equal(state, torch.get_rng_state()), "expected no random number to be used"
    printed = capsys.readouterr().out
    count = sum(weight.numel() for weight in D.parameters())
    for word in ("logit Linear", f"{count:,}"):
        assert word in printed, f"expected {word}, got {printed}"


def test_recalibrated_statistics_are_those_of_100_small_batches(notebook):
    _, G = notebook.build_network(4, 8, 8, 16)
    first = next(layer for layer in G.modules() if isinstance(layer, nn.BatchNorm2d))
    outputs = []
    hook = first.register_forward_pre_hook(lambda _, inputs: outputs.append(inputs[0].detach()))
    returned = recalibrate_batch_norm(G, z_size=8)
    hook.remove()
    assert returned is G and not G.training, "expected the generator itself, in eval mode"
    sizes = [len(x) for x in outputs]
    assert sizes == [32] * 100, f"expected 100 batches of 32, got {sizes}"
    means = torch.stack([x.float().mean((0, 2, 3)) for x in outputs]).mean(0)
    assert torch.allclose(first.running_mean, means, atol=1e-4), f"expected {means}"
    z = torch.randn(9, 8)
    off = (G(z)[:1] - G(z[:1])).abs().max()
    assert off < 1e-5, f"expected the same face for a latent in any batch, got {off}"
