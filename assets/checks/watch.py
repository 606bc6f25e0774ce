"""Two toy networks whose training is watched, step by step."""

import functools
import itertools

import torch
from torch import nn


class ToyGenerator(nn.Module):
    """Pictures of one color, which the latents change a little."""

    def __init__(self, z_size):
        super().__init__()
        self.z_size, self.seen = z_size, []
        self.weight = nn.Parameter(torch.full((z_size,), 0.2))
        self.bias = nn.Parameter(torch.full((3,), -0.55))

    def forward(self, z):
        n, got = self.z_size, tuple(z.shape)
        assert got[1:] == (n,), f"G's latents: expected the shape (N, G.z_size = {n}), got {got}."
        on_device = z.device == self.weight.device
        assert on_device, "G's latents: expected them on the images' device: device=real.device."
        kind, wanted = z.dtype, self.weight.dtype
        assert kind == wanted, f"G's latents: expected {wanted}, got {kind}. NumPy's have 64 bits."
        self.seen.append(z.detach().clone())
        return self.images(z)

    def images(self, z):
        color = torch.tanh(0.1 * (z * self.weight).sum(1, keepdim=True) + self.bias)
        return color[:, :, None, None].expand(-1, -1, 16, 16)


class ToyDiscriminator(nn.Module):
    """Takes bright pictures for real."""

    def __init__(self, bias, weight=0.2):
        super().__init__()
        self.seen = []  # images, logits, and whether the images carry a graph
        self.was_in_eval_mode = False
        self.weight = nn.Parameter(torch.tensor([weight]))
        self.bias = nn.Parameter(torch.tensor([bias]))

    def forward(self, x):
        logits = self.logits(x)
        self.was_in_eval_mode |= not self.training
        self.seen.append((x.detach(), logits.detach(), x.requires_grad))
        return logits

    def logits(self, x):
        return self.weight * x.flatten(1).mean(1, keepdim=True) + self.bias


class Watch:
    """Two toy networks whose every optimizer step is measured; real images have a mean of 0.8.

    Any order and number of steps and any of the known losses will do: what counts is that D's
    steps teach D, that G's steps teach G, and that nothing else moves them.
    """

    def __init__(self, bias=0.15, z_size=5, weight=0.2):
        self.networks = {"D": ToyDiscriminator(bias, weight), "G": ToyGenerator(z_size)}
        self.optimizers, self.log = {}, []
        for key, network in self.networks.items():
            optimizer = torch.optim.SGD(network.parameters(), lr=3e-3)
            optimizer.register_step_pre_hook(functools.partial(self.before, key))
            optimizer.register_step_post_hook(functools.partial(self.after, key))
            self.optimizers[key] = optimizer
        self.latents, self.bias = torch.randn(64, z_size), bias
        self.start = self.weights = self.snapshot()

    def step(self, train_step, *args, n=32):
        """One step on n real images -> what it returns."""
        self.real = 0.7 + 0.2 * torch.rand(n, 3, 16, 16)
        before = self.real.clone()
        networks, optimizers = self.networks.values(), self.optimizers.values()
        result = train_step(*networks, self.real, *optimizers, *args)
        is_same = self.real.equal(before)
        assert is_same, "Expected `real` unchanged, got it changed in place. The loop scales it."
        return result

    def snapshot(self):
        weights = {key: network.parameters() for key, network in self.networks.items()}
        return {key: torch.cat([*values]).detach().clone() for key, values in weights.items()}

    @torch.no_grad()
    def logits(self):
        """D's logits for a real image and for generated ones."""
        D, G = self.networks.values()
        real = torch.full((1, 3, 16, 16), 0.8)
        return torch.stack([D.logits(real).mean(), D.logits(G.images(self.latents)).mean()])

    def before(self, key, *_):
        self.assert_untouched(f"before {key.lower()}_optimizer.step()")
        self.logits_before = self.logits()

    def after(self, key, *_):
        weights = [*self.networks[key].parameters()]
        gradient = torch.cat([torch.zeros_like(w) if w.grad is None else w.grad for w in weights])
        self.log.append((key, gradient, self.logits() - self.logits_before))
        self.weights = self.snapshot()

    def assert_untouched(self, when):
        for key, weights in self.snapshot().items():
            step, is_same = f"{key.lower()}_optimizer.step()", weights.equal(self.weights[key])
            assert is_same, f"{key}: expected to move only in {step}, got a change {when}."

    def assert_trained(self):
        """Both have moved, each in its own direction -> how much D's steps raise its logits."""
        self.assert_untouched("after the last step")
        for key, weights in self.snapshot().items():
            name, is_same = key.lower(), weights.equal(self.start[key])
            assert not is_same, (
                f"{key} was not trained: expected new weights, got those of the start. Does "
                f"{name}_optimizer.step() run, right after {name}_loss.backward(), with zero_grad "
                "before both? Is anything detached?"
            )
            assert weights.isfinite().all(), f"{key}: expected finite weights, got NaN or inf."
            network = self.networks[key]
            is_free = all(weight.requires_grad for weight in network.parameters())
            assert is_free, f"{key}: expected requires_grad True as before, got False."
            assert network.training, f"{key}: expected training mode as before, got eval mode."
        (real, fake), (_, raised) = (
            sum(gain for which, _, gain in self.log if which == key).tolist() for key in "DG"
        )
        assert real > fake, (
            f"D's steps: expected D(real) - D(fake) to grow, got a change of {real - fake:.1e}. "
            "Are real_loss and fake_loss swapped?"
        )
        assert raised > 0, (
            f"G's steps: expected D(G(z)) to rise, got a change of {raised:.1e}. G learns from "
            "real_loss(D(fake)) only: D's loss needs fake.detach(), G's step fresh gradients."
        )
        return real, fake

    def verify(self):
        real, fake = self.assert_trained()
        # a D that says "real" to all must learn what is fake, an undecided one also what is real
        assert fake < 0 if self.bias > 0.5 else real > 0, (
            f"D's steps: expected D(fake) to fall and D(real) to rise, got {fake:.1e} and "
            f"{real:.1e}. D's loss has two halves: real_loss(D(real)) and fake_loss(D(fake))."
        )
        self.assert_fresh_gradients()

    def assert_fresh_gradients(self):
        runs = {"D": [], "G": []}  # steps of one network in a row belong together
        for key, steps in itertools.groupby(self.log, lambda row: row[0]):
            runs[key].append(torch.stack([gradient for _, gradient, _ in steps]).mean(0))
        for key, (first, *later) in runs.items():
            assert first.any(), f"{key}'s gradients: expected some in its first step, got none."
            change = max([((g - first).norm() / first.norm()).item() for g in later], default=0)
            assert change < 0.5, (
                f"{key}'s gradients, while nothing much changes: expected about the same each "
                f"time, got {change:.0%} more. Does {key.lower()}_optimizer.zero_grad() run first?"
            )
