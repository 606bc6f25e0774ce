"""The next steps: every option by itself, every choice of the last section, and experiments."""

import csv
import json
import types

import pytest
import torch
from conftest import ROOT
from small_runs import noise_loader
from torch import nn
from torch.optim.swa_utils import AveragedModel

import helpers
from problem_unittests import pictures

NORMS = "batch", "instance", "group", "layer", "pixel", None
OPTIONS = [
    *(f"D: {norm}" for norm in NORMS),
    *(f"G: {norm}" for norm in NORMS),
    *("D: spectral", "D: reflect", "D: replicate", "D: batch deviation"),
    *("G: nearest", "G: nearest, reflect", "G: shuffle", "G: shuffle, replicate", "G: styles"),
    "at full size",
]


def build(notebook, option, size, width=4):
    """Small networks, with weights of their own for each call, of which one has this option."""
    classes = {
        "D: batch deviation": {"D": notebook.MinibatchStdDiscriminator},
        "G: nearest": {"G": notebook.NearestGenerator},
        "G: shuffle": {"G": notebook.PixelShuffleGenerator},
        "G: styles": {"G": notebook.StyleGenerator},
    }
    kind, _, mode = option.partition(", ")
    D, G = notebook.build_network(width, width, 10, size, **classes.get(kind, {}))
    name = option[3:]
    if name in map(str, NORMS):
        norm = {str(norm): norm for norm in NORMS}[name]
        notebook.exchange_norm(D if option[0] == "D" else G, norm)
    if option == "D: spectral":
        notebook.spectral_norm_everywhere(D)
    if kind == "at full size":
        notebook.at_full_size(notebook.settings.but(d_conv_dim=width, g_conv_dim=width), D, G)
        D, G = D.cpu(), G.cpu()
    if kind == "G: shuffle":
        notebook.icnr(G)
    if mode or name in ("reflect", "replicate"):
        notebook.pad_with(G if mode else D, mode or name)
    return D, G


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
def test_every_option_gives_networks_that_learn_at_every_size(notebook, size):
    for option in OPTIONS:
        D, G = build(notebook, option, size)
        fake, what = G(torch.randn(4, 10)), f"{option} at {size} pixels"
        assert fake.shape == (4, 3, size, size), f"{what}: expected images, got {fake.shape}"
        assert fake.abs().max() <= 1, f"{what}: expected values in [-1, 1], got others"
        logits = D(fake)
        assert logits.shape == (4, 1), f"{what}: expected logits (4, 1), got {logits.shape}"
        notebook.real_loss(logits).backward()
        for name, weight in [*D.named_parameters(), *G.named_parameters()]:
            is_finite = weight.grad is not None and weight.grad.isfinite().all()
            assert is_finite, f"{what}: expected a finite gradient for {name}, got {weight.grad}"


@pytest.mark.parametrize("option", OPTIONS)
def test_a_few_steps_with_every_option_teach_the_discriminator(notebook, option):
    torch.manual_seed(0)
    D, G = build(notebook, option, 16, width=8)
    optimizers = notebook.adam(D, 2e-3, 0.3), notebook.adam(G, 1e-4, 0.3)
    steps = (notebook.train_step(D, G, pictures(32, 16), *optimizers) for _ in range(30))
    losses = [d_loss.item() for d_loss, _ in steps]
    is_lower = losses[-1] < min(losses[0], 1.3)
    assert is_lower, f"expected a d_loss below {losses[0]:.2f} and 1.3, got {losses[-1]:.2f}"


@pytest.mark.parametrize("norm", NORMS)
def test_exchanging_the_norm_keeps_all_other_weights(notebook, norm):
    for network in notebook.build_network(4, 4, 10, 32):
        before = {name: weight.clone() for name, weight in network.named_parameters()}
        is_norm = {
            f"{name}.{kind}"
            for name, layer in network.named_modules()
            for kind in ("weight", "bias")
            if isinstance(layer, nn.BatchNorm2d)
        }
        assert notebook.exchange_norm(network, norm) is network, "expected the same network"
        after = dict(network.named_parameters())
        for name in before.keys() - is_norm:
            assert torch.equal(before[name], after[name]), f"{name}: expected no change"
        added = [weight for name, weight in after.items() if name not in before]
        n = 0 if norm in ("batch", "instance") else len(is_norm) // 2
        assert len(added) == n, f"norm={norm!r}: expected {n} new biases, got {len(added)}"
        assert not any(bias.any() for bias in added), "expected biases of 0"


def test_spectral_norm_keeps_the_largest_singular_value_near_1(notebook):
    D = notebook.spectral_norm_everywhere(notebook.build_network(16, 8, 10, 32)[0])
    optimizer = notebook.adam(D, 1e-3, 0.3)
    for _ in range(50):
        optimizer.zero_grad()
        notebook.real_loss(D(pictures(8, 32))).backward()
        optimizer.step()
    for name, layer in D.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            largest = torch.linalg.svdvals(layer.weight.flatten(1))[0].item()
            assert abs(largest - 1) < 0.1, f"{name}: expected about 1, got {largest:.3f}"


def test_padding_changes_the_border_alone(notebook):
    D = notebook.build_network(8, 8, 10, 32)[0].eval()
    x, first = pictures(4, 32), D.features[0]
    outputs = {}
    for mode in ("zeros", "reflect", "replicate"):
        notebook.pad_with(D, mode)
        outputs[mode] = first(x).detach()
    for mode in ("reflect", "replicate"):
        apart = (outputs[mode] - outputs["zeros"]).abs().amax((0, 1))
        assert not apart[1:-1, 1:-1].any(), f"{mode}: expected the middle unchanged"
        assert apart[0].min() > 0, f"{mode}: expected another border, got the same"


def test_the_batch_deviation_sees_whether_a_batch_repeats_itself(notebook):
    D = notebook.build_network(8, 8, 10, 16, D=notebook.MinibatchStdDiscriminator)[0]
    notebook.exchange_norm(D, "layer")
    D.logit.weight.data.zero_()[0, -1] = 1  # nothing but the last feature counts
    varied, same = D(pictures(16, 16)), D(pictures(1, 16).repeat(16, 1, 1, 1))
    is_larger = varied.min() > 100 * same.abs().max()
    assert is_larger, f"expected about 0 for one image 16 times, got {same[0].item():.4f}"


@pytest.mark.parametrize("size, width", [(32, 8), (64, 4)])
def test_layers_are_carried_over_from_any_size(notebook, size, width):
    class WideDiscriminator(notebook.Discriminator):
        widest = 16

    class WideGenerator(notebook.Generator):
        widest = 16

    wide = {"D": WideDiscriminator, "G": WideGenerator}
    old = notebook.build_network(2 * width, 2 * width, 10, size, **wide)
    new = notebook.build_network(width, width, 10, 2 * size, **wide)
    depth = {32: 3, 64: 4}[size]
    copied = notebook.carry_over(old[0], new[0], -1), notebook.carry_over(old[1], new[1])
    expected = 2 * depth - 1, 2 * depth  # with the batch normalizations; D has none in front
    assert copied == expected, f"expected {expected} layers, got {copied}"


# ---------------------------------------------------------------- what does not go together


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda nb: nb.norm_layer("batchnorm", 8), "norm = 'batchnorm' .* one of 'batch'"),
        (lambda nb: nb.pad_with(nb.Discriminator(8), "circular"), "padding = 'circular'"),
        (lambda nb: nb.pad_with(nb.Generator(4, 4), "reflect")(torch.randn(2, 4)), "zeros"),
        (lambda nb: nb.rate_at("sawtooth", 0.5), "schedule = 'sawtooth'"),
        (lambda nb: nb.step_with("hinges"), "loss = 'hinges' .* one of 'hinge'"),
        (lambda nb: nb.step_with(n_critic=0), "n_critic = 0"),
    ],
)
def test_what_does_not_go_together_is_refused(notebook, call, message):
    with pytest.raises(ValueError, match=message):
        call(notebook)


# ---------------------------------------------------------------- choices and experiments


@pytest.fixture
def settings(notebook, empty_place):
    """Settings of small networks, whose runs are kept in an empty folder."""
    small = dict(image_size=16, d_conv_dim=4, g_conv_dim=4, z_size=8, batch_size=4)
    return notebook.settings.but(**small, out_dir="runs/lesson", experiment_images=40)


def experiment(notebook, name, settings, loader=None, **options):
    loader = loader or noise_loader(40)
    return notebook.experiment(name, settings, loader, *notebook.fresh(settings), **options)


def test_every_choice_makes_steps(notebook, settings):
    run = types.SimpleNamespace(step=0, progress=0.0)
    for name, choice in notebook.CHOICES.items():
        D, G = notebook.fresh(settings)
        row = dict(settings=settings, D=D, G=G) | choice(settings, D, G)
        D, G, step = row["D"], row["G"], row.get("step")
        optimizers = [notebook.adam(network, 1e-3, 0.3) for network in (D, G)]
        before = [weight.clone() for weight in [*D.parameters(), *G.parameters()]]
        given = (D, G, pictures(8, 16), *optimizers)
        losses = step(*given, run) if step else notebook.train_step(*given)
        assert all(loss.isfinite() for loss in losses), f"{name}: expected losses, got {losses}"
        moved = [not w.equal(old) for w, old in zip([*D.parameters(), *G.parameters()], before)]
        is_trained = sum(moved) > 0.9 * len(moved)  # StyleGenerator's last strength starts at rest
        assert is_trained, f"{name}: expected weights that move, got {sum(moved)} of {len(moved)}"


def test_every_choice_has_a_row(notebook):
    table = ROOT / ".ci" / "experiments" / "results.csv"
    with table.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["minutes"] == "5"]
    measured = {row["recipe"] for row in rows if row["machine"].startswith("1 thread")}
    missing = notebook.CHOICES.keys() - measured
    assert not missing, f"expected a row for every choice, got none for {missing}"


def test_equal_rates_are_the_settings_that_run(notebook, settings):
    row = notebook.CHOICES["equal rates"](settings, None, None)
    run = experiment(notebook, "equal", row["settings"])
    rates = [run.parts[name].param_groups[0]["lr"] for name in ("d_optimizer", "g_optimizer")]
    assert rates == [settings.lr] * 2, f"expected equal rates, got {rates}"
    written = json.loads((run.folder / "settings.json").read_text(encoding="utf-8"))
    assert written["d_lr"] == settings.lr, f"expected what ran in the file, got {written}"


def test_an_experiment_sees_so_many_images_and_continues_with_more(notebook, settings):
    score = dict(score=lambda generator: 1.0)
    first = experiment(notebook, "one: two", settings, **score)
    assert first.images == 40 and first.scores, f"expected 40 images, a score, got {first.images}"
    assert first.folder.name == "one two", f"expected a folder for any disk, got {first.folder}"
    more = experiment(notebook, "one: two", settings.but(experiment_images=60), **score)
    assert (more.step, more.folder) == (15, first.folder), f"expected 15 steps, got {more.step}"
    other = experiment(notebook, "other", settings, step=notebook.step_with("hinge"))
    assert other.folder != first.folder, "expected a folder for each experiment, got the same"
    assert not other.scores, "expected no score that nobody asked for"
    n = len(list(other.folder.glob("samples/*.png")))
    assert n > 1, f"expected sample grids, got {n}"


def test_an_experiment_belongs_to_its_faces_and_settings(notebook, settings, tmp_path):
    settings = settings.but(out_dir=f"{tmp_path}/lesson/", experiment_images=20)
    loaders = [noise_loader(n) for n in (20, 20, 20, 40)]
    loaders[1].dataset.root = "elsewhere"
    loaders[3].dataset.root = "elsewhere"
    folders = [experiment(notebook, "own", settings, loader).folder for loader in loaders]
    names = [folder.relative_to(tmp_path).as_posix() for folder in folders]
    assert names[:2] == ["lesson_next/own", "lesson_next/own-2"], f"got {names}"
    assert names[2:] == ["lesson_next/own", "lesson_next/own-3"], f"got {names}"
    for changes in (dict(lr=0.01), dict(seed=3), dict(beta1=0.5), dict(d_conv_dim=8)):
        other = experiment(notebook, "own", settings.but(**changes), loaders[0]).folder
        assert other not in folders, f"{changes}: expected another run, got {other}"
        folders.append(other)


def test_a_run_with_a_schedule_continues_where_it_was(notebook, tmp_path):
    def rates_of(n_images):
        torch.manual_seed(0)
        D, G = notebook.build_network(4, 4, 8, 16)
        optimizers = notebook.adam(D, 1e-3, 0.3), notebook.adam(G, 1e-3, 0.3)
        averaged, rates = AveragedModel(G), []
        parts = dict(D=D, G=G, averaged=averaged)
        parts |= {"d_optimizer": optimizers[0], "g_optimizer": optimizers[1]}
        run = helpers.Run(tmp_path, {"seed": 0}, helpers.StopRule(images=n_images), **parts)
        note = lambda *_: rates.append(optimizers[1].param_groups[0]["lr"])  # noqa: E731
        optimizers[1].register_step_post_hook(note)
        step = notebook.averaged_step(notebook.train_step, averaged, run, "linear")
        notebook.train(D, G, noise_loader(40), *optimizers, 100, 4, run, step)
        return rates

    def expected(steps, n_steps):
        return [1e-3 * min(1, 2 - 2 * step / n_steps) for step in steps]

    first, more = rates_of(80), rates_of(320)  # 20 steps, then 60 more
    assert first == pytest.approx(expected(range(20), 20)), f"expected linear decay, got {first}"
    there = expected(range(20, 80), 80)
    assert more == pytest.approx(there), f"with more images: expected {there}, got {more}"
