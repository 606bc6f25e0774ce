"""The losses of a run's last steps: means, divergence, and what they warn of."""

import math

import pytest
import torch
from torch import nn

from assets.lib.losses import RecentLosses, check_finite, training_warnings


def losses_of(*pairs):
    recent = RecentLosses()
    for pair in pairs:
        recent.add(*pair)
    return recent


def test_means_are_of_the_last_steps():
    recent = losses_of((1.0, 10.0), (torch.tensor(2.0), torch.tensor(20.0)), (3, 30))
    assert recent.means(2) == [2.5, 25.0], f"expected the last two, got {recent.means(2)}"
    assert recent.means(9) == [2.0, 20.0], f"expected all there are, got {recent.means(9)}"
    recent.keep(1)
    assert recent.means(9) == [3.0, 30.0], f"expected the last alone, got {recent.means(9)}"
    recent.keep(0)
    assert not recent.losses, f"expected none, got {recent.losses}"


def test_losses_come_back_from_a_checkpoint_bit_for_bit():
    values = torch.rand(7, 2)
    recent = losses_of(*values)
    again = RecentLosses(recent.as_tensor())
    for one in (recent, again):
        one.add(0.1, 0.2)
    assert again.means(8) == recent.means(8), "expected the same means"
    assert RecentLosses(losses_of().as_tensor()).losses == [], "expected none of none"


def test_each_loss_is_checked_once(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "assets.lib.losses.check_finite", lambda networks, new, *_: seen.append(len(new))
    )
    recent = losses_of((1.0, 1.0), (1.0, 1.0))
    recent.check({}, 2, "")
    recent.add(1.0, 1.0)
    recent.check({}, 3, "")
    recent.keep(2)
    recent.check({}, 3, "")
    assert seen == [2, 1, 0], f"expected each once, got {seen}"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["d_loss", "g_loss"])
def test_a_loss_that_is_not_finite_is_named_with_its_step(name, bad):
    pairs = [[1.0, 1.0] for _ in range(5)]
    pairs[3][name == "g_loss"] = bad
    recent = losses_of(*pairs)
    expected = f"{name} is not finite at step 1,004. Lower lr .*The checkpoint of step 9 stands"
    with pytest.raises(FloatingPointError, match=expected):
        recent.check({"D": nn.Linear(1, 1)}, 1005, "The checkpoint of step 9 stands.")


def test_a_weight_that_is_not_finite_is_named():
    network = nn.Linear(2, 2)
    network.weight.data[0, 0] = math.nan
    with pytest.raises(FloatingPointError, match="a weight of G is not finite at step 7"):
        check_finite({"D": nn.Linear(1, 1), "G": network}, [torch.ones(2)], 7, "")
    check_finite({"D": nn.Linear(1, 1)}, [], 7, "")
    check_finite({}, [], 7, "")


def test_the_check_reads_the_device_once(monkeypatch):
    reads = []
    for name in ("tolist", "item", "__bool__"):
        plain = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda self, plain=plain: (reads.append(1), plain(self))[1]
        )
    check_finite({"D": nn.Linear(1, 1), "G": nn.Linear(1, 1)}, [torch.ones(2)] * 50, 50, "")
    assert len(reads) == 1, f"expected one read for 50 losses and all weights, got {len(reads)}"


# ---------------------------------------------------------------- warnings


def rows_of(losses):
    return [(50 * i, 1600 * i, float(i), *pair) for i, pair in enumerate(losses)]


WINS = [(0.36 + 0.02 * math.sin(i), 3.0) for i in range(60)]


@pytest.mark.parametrize(
    "losses, words",
    [
        pytest.param([(1.2 + 0.1 * math.sin(i), 1.5) for i in range(100)], "", id="healthy"),
        pytest.param(WINS, "almost won", id="D wins"),
        pytest.param(WINS[:39], "", id="too few rows to tell"),
        pytest.param([(0.8, 2 + i / 10) for i in range(40)], "keeps climbing", id="G climbs"),
        pytest.param([(0.4 + 0.02 * math.sin(i), 0.6) for i in range(60)], "", id="least squares"),
        pytest.param([(-3.0, 4.0 + math.cos(i)) for i in range(60)], "", id="Wasserstein"),
        pytest.param([], "", id="no rows"),
    ],
)
def test_what_the_losses_warn_of(losses, words):
    found = training_warnings(rows_of(losses))
    assert len(found) == bool(words), f"expected {words or 'nothing'}, got {found}"
    assert words in " ".join(found), f"expected {words}, got {found}"
