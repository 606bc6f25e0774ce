"""The losses of a run's last steps: their means, and what they warn of."""

import numpy as np
import torch

from assets.lib.ranks import mean_of_ranks

D_WINS = "d_loss is near its minimum: the discriminator has almost won. Lower d_lr or d_conv_dim."
G_CLIMBS = "g_loss keeps climbing: the discriminator is too far ahead. Lower d_lr."
ALL_ALIKE = (
    "the samples all look alike: the generator has collapsed. Lower lr, or return to best.pt."
)
WATCHED_ROWS = 40


class RecentLosses:
    """The losses (d_loss, g_loss) of the last steps, on their device until they are needed."""

    def __init__(self, losses=()):
        self.losses = list(losses)  # of tensors (2,)
        self.n_checked = len(self.losses)

    def add(self, d_loss, g_loss):
        pair = [torch.as_tensor(loss, dtype=torch.float32) for loss in (d_loss, g_loss)]
        self.losses.append(torch.stack(pair).detach())

    def check(self, networks, step, advice):
        """Average the new ones over the ranks; see check_finite."""
        new = self.losses[self.n_checked :]
        if new:
            new = list(mean_of_ranks(torch.stack(new)))
            self.losses[self.n_checked :] = new
            self.n_checked = len(self.losses)
        check_finite(networks, new, step, advice)

    def means(self, n_steps):
        """The mean losses of the last steps, read from the device: [d_loss, g_loss]."""
        return self._stacked(n_steps).mean(0).tolist()

    def keep(self, n_steps):
        """Forget all but the last steps, all of them checked."""
        del self.losses[: len(self.losses) - n_steps]
        self.n_checked = len(self.losses)

    def as_tensor(self):
        """Float32 (N, 2) on the CPU, for a checkpoint."""
        return self._stacked(len(self.losses)).cpu() if self.losses else torch.zeros(0, 2)

    def _stacked(self, n_steps):
        device = self.losses[-1].device  # those of a checkpoint are on the CPU
        return torch.stack([pair.to(device) for pair in self.losses[-n_steps:]])


def check_finite(networks, losses, step, advice):
    """Raise a FloatingPointError unless the losses of the last steps and all weights are finite.

    `losses`: tensors (2,), the last one of `step`; `advice`: how the message ends.
    """
    checks = []
    for i, (d_loss, g_loss) in enumerate(losses, step - len(losses) + 1):
        checks += [("d_loss", i, d_loss), ("g_loss", i, g_loss)]
    for name, network in networks.items():
        checks += [(f"a weight of {name}", step, weight) for weight in network.parameters()]
    if not checks:
        return
    device = checks[-1][2].device  # losses that were plain numbers are on the CPU
    finite = torch.stack([x.isfinite().all().to(device) for *_, x in checks]).tolist()  # read once
    if not all(finite):
        what, step, _ = checks[finite.index(False)]
        raise FloatingPointError(
            f"Training has diverged: {what} is not finite at step {step:,}. Lower lr or d_lr, or "
            "use another loss, and rerun the notebook from the cell that builds the networks. "
            f"{advice}"
        )


def training_warnings(rows):
    """What the last 40 rows (step, images, seconds, d_loss, g_loss) warn of, in sentences."""
    if len(rows) < WATCHED_ROWS:
        return []
    d_losses, g_losses = np.array(rows[-WATCHED_ROWS:])[:, 3:].T
    quarters = g_losses.reshape(4, -1).mean(1)
    recent_d, recent_g = d_losses[20:], g_losses[20:]
    found = []
    # With a smoothed label d_loss stays above 0.325; other losses have other ranges
    if 0.32 < recent_d.min() and recent_d.max() < 0.45 and recent_g.min() > 2:
        found.append(D_WINS)
    if quarters[-1] > max(5, 2 * quarters[0]) and (np.diff(quarters) > 0).all():
        found.append(G_CLIMBS)
    return found
