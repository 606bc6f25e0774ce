"""The functions of sections 4 to 21, beyond what the checks under their cells ask for."""

import contextlib
import math
import os
import zipfile
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from conftest import REAL_FACES, needs_real_faces
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

import helpers
from assets.lib.attributes import read_attributes
from assets.lib.drawing.people import imagine_faces
from assets.lib.drawn import draw_faces
from assets.lib.faces import parts_of
from assets.lib.figures import to_bytes
from assets.lib.labeled import SURE
from assets.lib.network import right_when_sure

SEARCH = hypothesis.settings(
    deadline=None,
    derandomize=True,
    max_examples=50,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


def drawn(n, size=32, seed=0):
    """Drawn faces (n, 3, size, size) in [-1, 1]."""
    return draw_faces(n, size, seed)[0] / 127.5 - 1


# ---------------------------------------------------------------- 4. scale


@hypothesis.settings(SEARCH)
@given(
    values=st.lists(st.floats(0, 1, width=32), min_size=1),
    low=st.floats(-100, 100),
    width=st.floats(0.01, 100),
)
def test_scale_can_be_undone(notebook, values, low, width):
    x = torch.tensor(values, dtype=torch.float64)
    scaled = notebook.scale(x, (low, low + width))
    assert ((scaled - low) / width - x).abs().max() < 1e-6, "expected the values back"
    is_within = scaled.min() >= low - 1e-6 and scaled.max() <= low + width + 1e-6
    assert is_within, f"expected values from {low} to {low + width}, got others"
    gray = torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 1, 1)
    shown, wanted = to_bytes(notebook.scale(gray)), to_bytes(gray, (0, 1))
    apart = (shown.int() - wanted.int()).abs().max()
    assert apart <= 1, f"expected the same pixels, got a difference of {apart}"


# ---------------------------------------------------------------- 5. to 8. the networks


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
def test_the_networks_at_every_size(notebook, size):
    D, G = notebook.build_network(4, 4, 10, size)
    fake = G(torch.randn(4, 10))
    assert fake.shape == (4, 3, size, size) and fake.abs().max() <= 1, f"got {fake.shape}"
    notebook.real_loss(D(fake)).backward()
    for name, weight in [*D.named_parameters(), *G.named_parameters()]:
        is_reached = weight.grad is not None and weight.grad.isfinite().all()
        assert is_reached, f"{size} pixels: expected a finite gradient for {name}"


def test_the_same_seed_gives_the_same_networks(notebook):
    pairs = []
    for _ in range(2):
        torch.manual_seed(3)
        pairs.append(nn.ModuleList(notebook.build_network(4, 4, 10, 16)).state_dict())
    assert all(torch.equal(pairs[0][key], pairs[1][key]) for key in pairs[0])


def test_other_classes_can_be_built(notebook):
    class Narrow(notebook.Generator):
        widest = 1

    _, G = notebook.build_network(4, 4, 10, 32, G=Narrow)
    assert isinstance(G, Narrow), f"expected the class that was given, got {type(G)}"
    widths = {layer.num_features for layer in G.modules() if isinstance(layer, nn.BatchNorm2d)}
    assert widths == {4}, f"expected `widest` to bound the width, got {widths}"


# ---------------------------------------------------------------- 12. training


def plain_step(D, G, images, d_optimizer):
    """The step as it is often written: a graph for each loss, all gradients taken."""
    one, z = torch.ones(len(images), 1), torch.randn(len(images), G.z_size)
    real, fake = D(2 * images - 1), D(G(z).detach())
    d_loss = F.binary_cross_entropy_with_logits(real, 0.9 * one)
    d_loss = d_loss + F.binary_cross_entropy_with_logits(fake, 0 * one)
    d_loss.backward()
    d_gradients = [weight.grad.clone() for weight in D.parameters()]
    d_optimizer.step()
    g_loss = F.binary_cross_entropy_with_logits(D(G(z)), one)
    g_loss.backward()
    g_gradients = [weight.grad for weight in G.parameters()]
    return [d_loss.detach(), g_loss.detach()], d_gradients, g_gradients


def lesson_step(notebook, D, G, pixels, optimizers, mixed):
    """The notebook's step on decoded faces, channels last."""
    D, G = (network.to(memory_format=torch.channels_last) for network in (D, G))
    faces = helpers.DecodedFaces(pixels, torch.zeros(len(pixels), dtype=torch.int64), ["a"])
    with helpers.autocast(torch.device("cpu")) if mixed else contextlib.nullcontext():
        real = notebook.scale(faces.batch(torch.arange(len(pixels)))[0])
        losses = notebook.train_step(D, G, real, *optimizers)
    return losses, [w.grad for w in D.parameters()], [w.grad for w in G.parameters()]


@pytest.mark.parametrize(
    "mixed, loss_error, gradient_error", [(False, 1e-5, 2e-3), (True, 0.02, 0.15)]
)
def test_the_fast_path_computes_what_the_plain_one_does(
    notebook, mixed, loss_error, gradient_error
):
    if mixed and not helpers.has_fast_bfloat16(torch.device("cpu")):
        pytest.skip("this processor trains in float32")
    source = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (32, 3, 32, 32), dtype=torch.uint8, generator=source)
    results = []
    for is_fast in (False, True):
        torch.manual_seed(1)
        D, G = notebook.build_network(16, 16, 100, 32)
        D.logit.weight.data.mul_(20)  # an opinion to disagree with
        optimizers = [torch.optim.SGD(network.parameters(), 1e-4) for network in (D, G)]
        if is_fast:
            results.append(lesson_step(notebook, D, G, pixels, optimizers, mixed))
        else:
            results.append(plain_step(D, G, pixels / 255, optimizers[0]))
    for name, *pair in zip(("losses", "gradients of D", "gradients of G"), *results):
        plain, fast = (torch.cat([part.flatten() for part in parts]) for parts in pair)
        error = ((fast - plain).norm() / plain.norm()).item()
        tolerance = loss_error if name == "losses" else gradient_error
        assert error < tolerance, f"{name}: expected the plain ones, got {error:.1e} of difference"


def test_no_step_reads_from_the_device(notebook, monkeypatch):
    D, G = notebook.build_network(4, 4, 8, 16)
    optimizers = [torch.optim.SGD(network.parameters(), 0.1) for network in (D, G)]
    for name in ("item", "tolist", "cpu", "numpy", "__float__", "__int__", "__bool__"):

        def refuse(*args, name=name):
            pytest.fail(f"{name} waits for the device")

        monkeypatch.setattr(torch.Tensor, name, refuse)
    notebook.train_step(D, G, torch.zeros(4, 3, 16, 16), *optimizers)


def test_the_generators_step_leaves_no_gradient_in_the_discriminator(notebook):
    D, G = notebook.build_network(4, 4, 8, 16)
    optimizers = [torch.optim.SGD(network.parameters(), 0.0) for network in (D, G)]
    real = torch.randn(8, 3, 16, 16)
    torch.manual_seed(5)
    notebook.train_step(D, G, real, *optimizers)
    torch.manual_seed(5)
    fake = G(torch.randn(8, 8)).detach()
    d_loss = notebook.real_loss(D(real), smooth=True) + notebook.fake_loss(D(fake))
    for weight, gradient in zip(D.parameters(), torch.autograd.grad(d_loss, D.parameters())):
        is_same = torch.allclose(weight.grad, gradient, rtol=1e-3, atol=1e-6)
        assert is_same, "expected the gradients of d_loss in D, got those of g_loss, too"


def test_samples_are_made_in_batches_and_stay_the_same(notebook):
    G, sizes = notebook.Generator(10, 4, 16).eval(), []
    G.register_forward_hook(lambda network, inputs, images: sizes.append(len(images)))
    faces = notebook.sample_faces(G, 250, latent_seed=0)
    assert faces.shape == (250, 3, 16, 16) and faces.device.type == "cpu", f"got {faces.shape}"
    assert not faces.requires_grad, "expected samples without their graph"
    assert len(sizes) <= 3, f"expected at most 3 calls for 250 faces, got batches of {sizes}"
    assert torch.equal(faces, notebook.sample_faces(G, 250, latent_seed=0)), "expected them again"
    other = notebook.sample_faces(G, 250, latent_seed=1)
    assert not torch.equal(faces, other), "expected others of another seed"


def test_the_average_forgets_the_start_and_then_moves_slowly(notebook):
    layer = nn.Linear(1, 1, bias=False)
    averaged = AveragedModel(layer, multi_avg_fn=notebook.moving_average)
    values = []
    for value in (100.0, *[1.0] * 200):  # a random start, then what is learned
        layer.weight.data.fill_(value)
        averaged.update_parameters(layer)
        values.append(averaged.module.weight.item())
    assert values[50] < 1.1, f"expected the start to be forgotten, got {values[50]:.2f} after 50"
    layer.weight.data.fill_(2.0)
    averaged.n_averaged.fill_(10**6)
    averaged.update_parameters(layer)
    moved = averaged.module.weight.item() - values[-1]
    assert abs(moved - 0.0005) < 1e-4, f"expected a 2,000th of the way, got {moved:.5f}"


# ---------------------------------------------------------------- 14. scores and measures


def blurred(x):
    return F.avg_pool2d(F.pad(x, [1] * 4, "reflect"), 3, 1)


def noisy(x, size):
    return (x + size * torch.randn_like(x)).clamp(-1, 1)


def test_too_few_faces_are_refused(notebook):
    few, many = torch.randn(1, 144), torch.randn(10, 144)
    for pair in ((few, many), (many, few)):
        with pytest.raises(ValueError, match="faces"):
            notebook.frechet_distance(*pair)
        with pytest.raises(ValueError, match="faces"):
            notebook.precision_recall(*pair)


def test_a_walk_keeps_the_length(notebook):
    a, b = (10 * F.normalize(torch.randn(100), dim=0) for _ in range(2))
    lengths = [notebook.slerp(a, b, t).norm().item() for t in np.linspace(0, 1, 9)]
    assert np.allclose(lengths, 10, atol=1e-3), f"expected lengths of 10, got {lengths}"


def test_drawn_skin_is_measured_as_it_was_drawn(notebook):
    faces = drawn(1500, 64, seed=2)
    truth = torch.from_numpy(imagine_faces(1500, 2)["ita"])
    eyes = notebook.eye_row(faces)
    angles = notebook.skin_tone(faces, eyes)
    tie = torch.corrcoef(torch.stack([angles.double(), truth]))[0, 1]
    assert tie > 0.8, f"expected a correlation above 0.8 of measured and drawn, got {tie:.2f}"
    labels = torch.tensor([[0.0, 0, 0, 0], [1, 1, 1, 1]])
    classify = notebook.last_layer(torch.tensor([[0.0], [1.0]]), labels)
    features = torch.arange(1500)[:, None] % 3 / 2
    shares = notebook.audit(faces, features, eyes, classify)
    smiling, total = shares["Smiling"], sum(shares[name] for name in notebook.BANDS)
    assert abs(smiling - 0.5) < 0.2, f"expected a third to two thirds smiling, got {smiling:.2f}"
    assert abs(total - 1) < 1e-6, f"expected each face in one band, got {total:.3f} in all"


def test_an_interval_holds_what_it_says(notebook):
    counts = np.random.default_rng(0).binomial(200, 0.1, 4000)
    intervals = [notebook.interval(count / 200, 200) for count in counts]
    hits = np.mean([low < 0.1 < high for low, high in intervals])
    assert 0.93 < hits < 0.975, f"expected the true share in 95% of them, got {hits:.1%}"
    low, high = notebook.interval(0, 50)
    assert low == 0 and high > 0.03, f"none of 50: expected not to mean never, got {high}"


# ---------------------------------------------------------------- on real faces


def photographs(archive, every=1, part=None):
    """Real faces (N, 3, 64, 64) in [-1, 1] of one of helpers.PARTS, and their file names."""
    with zipfile.ZipFile(Path(REAL_FACES, archive)) as pack:
        paths = [name for name in pack.namelist() if helpers.is_image(name)]
        names = [os.path.basename(path) for path in paths]
        is_in = np.ones(len(paths), dtype=bool)
        if part is not None:
            is_in = np.asarray(parts_of(names)) == helpers.PARTS.index(part)
        chosen = np.flatnonzero(is_in)[::every]
        photos = [Image.open(pack.open(paths[i])).convert("RGB").resize((64, 64)) for i in chosen]
    images = torch.from_numpy(np.stack([np.array(photo) for photo in photos]))
    return images.permute(0, 3, 1, 2) / 127.5 - 1, [names[i] for i in chosen]


def test_fewer_large_faces_are_taken_but_as_many_as_were_asked_for(notebook):
    for size, most, expected in ((256, 8, 8), (256, 2500, 625), (128, 700, 700)):
        images = torch.zeros(1, dtype=torch.uint8).expand(700, 3, size, size)
        faces = helpers.DecodedFaces(images, torch.zeros(700, dtype=torch.int64), ["gray"])
        n = len(notebook.some_of(faces, most)[0])
        assert n == expected, f"{most} of {size} pixels: expected {expected}, got {n}"


@needs_real_faces
def test_eyes_are_found_where_they_are(notebook):
    for archive, row in (("processed-celeba-small.zip", 33), ("utkface-64.zip", 18)):
        faces, _ = photographs(archive, every=50)
        got = notebook.eye_row(faces)
        assert abs(got - row) <= 2, f"{archive}: expected the eyes near row {row}, got {got}"


@needs_real_faces
def test_the_face_network_knows_faces_it_has_not_seen(tmp_path):
    with zipfile.ZipFile(Path(REAL_FACES, "list_attr_celeba.zip")) as pack:
        names, table = read_attributes(pack.extract("list_attr_celeba.txt", tmp_path))
    faces, files = photographs("processed-celeba-small.zip", every=3, part="test")
    truth = torch.from_numpy(np.array([table[file] for file in files])).bool()
    for size in (64, 32):
        features = helpers.face_features(F.avg_pool2d(faces, 64 // size))
        logits = helpers.attribute_logits(features, names)
        is_right = (logits > 0) == truth
        right = is_right.float().mean().item()
        assert right > 0.89, f"{size} x {size}: expected 89% right, got {right:.1%}"
    for name, stated in right_when_sure().items():
        k = names.index(name)
        right = is_right[:, k][logits[:, k].abs() > SURE].float().mean().item()
        assert abs(right - stated) < 0.05, f"{name}: {stated:.1%} is stated, got {right:.1%}"


@needs_real_faces
def test_photographs_and_noise_are_far_apart(notebook):
    faces, _ = photographs("processed-celeba-small.zip", every=20)
    features = helpers.face_features(F.avg_pool2d(faces, 2))
    one, other = features[::2], features[1::2]
    noise = helpers.face_features(torch.rand(1000, 3, 32, 32) * 2 - 1)
    near, far = (notebook.frechet_distance(one, x) for x in (other, noise))
    assert math.isfinite(far) and far > 20 * near, f"expected noise far away, got {near}, {far}"
