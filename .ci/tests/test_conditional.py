"""Conditional generation: labels given to networks, orders for faces, balanced batches."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from data_inputs import write_list
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

import helpers
from assets.lib import labeled
from assets.lib.drawn import draw_faces
from assets.lib.faces import WELL_KNOWN
from assets.lib.files import say_once


def networks(notebook, labels, size=16, z_size=8):
    """A discriminator and a generator for labels (n, k), initialized from the same seed."""
    torch.manual_seed(0)
    D = notebook.ProjectionDiscriminator(4, size, labels.shape[1])
    G = notebook.ConditionalGenerator(z_size, 4, size, labels)
    return D.apply(notebook.weights_init_normal), G.apply(notebook.weights_init_normal)


class NoReading(TorchDispatchMode):
    """Fails where the processor would have to wait for a number from the device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__
        reads = ("_local_scalar_dense", "nonzero", "masked_select", "equal")
        assert not name.startswith(reads), f"expected no read from the device, got {name}"
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("size", [16, 64])
def test_labels_change_faces_and_every_weight_learns(notebook, size):
    labels = torch.eye(2).repeat(8, 1)
    D, G = networks(notebook, labels, size)
    z, y = torch.randn(4, 8), labels[:4]
    logits = D(G(z, y), y)
    assert logits.shape == (4, 1), f"expected logits (4, 1), got {logits.shape}"
    logits.sum().backward()
    for name, weight in [*D.named_parameters(), *G.named_parameters()]:
        is_finite = weight.grad is not None and weight.grad.isfinite().all()
        assert is_finite, f"expected a finite gradient for {name}, got {weight.grad}"
    G.eval()
    assert not torch.allclose(G(z, y), G(z, 1 - y), atol=1e-5), "expected other faces, got the same"


def test_the_discriminator_learns_what_goes_with_which_label(notebook):
    images = torch.tensor([0.5, -0.5]).repeat_interleave(16)[:, None, None, None]
    images = images + 0.1 * torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    right = torch.eye(2).repeat_interleave(16, 0)  # light, dark: no image alone is wrong
    D, _ = networks(notebook, right)
    optimizer = notebook.adam(D, 2e-3, 0.3)
    for _ in range(40):
        loss = notebook.real_loss(D(images, right)) + notebook.fake_loss(D(images, 1 - right))
        notebook.update(D, optimizer, loss)
    share = (D(images, right) > D(images, 1 - right)).float().mean()
    assert share > 0.95, f"expected D to see which label fits, got {share:.0%}"


def test_without_labels_a_generator_takes_them_as_the_data_has_them(notebook):
    labels = (torch.arange(500)[:, None] % torch.tensor([2, 10]) == 0).float()  # a half, a tenth
    _, G = networks(notebook, labels, z_size=1)
    given = []
    G.layers.register_forward_pre_hook(lambda layers, inputs: given.append(inputs[0][:, 1:]))
    z = torch.randn(5000, 1, generator=torch.Generator().manual_seed(0))
    G.eval()(z)
    G(z[:3])
    shares = (given[0] > 0).float().mean(0)
    assert torch.allclose(shares, torch.tensor([0.5, 0.1]), atol=0.05), f"got shares of {shares}"
    assert torch.equal(given[1], given[0][:3]), "expected the same labels for the same latents"


@pytest.mark.parametrize("z_size", [1, 8])
def test_an_exported_generator_runs_on_any_device_and_batch(notebook, tmp_path, z_size):
    _, G = networks(notebook, torch.eye(3).repeat(4, 1), z_size=z_size)
    G.eval()
    helpers.export_generator(G, tmp_path / "generator.pt2")
    program = torch.export.load(tmp_path / "generator.pt2")
    checks = [node for node in program.graph.nodes if "_assert_tensor_metadata" in str(node.target)]
    assert not checks, f"expected no check of the device, got {checks[0].format_node()}"
    for n in (1, 7):
        z = torch.randn(n, z_size)
        same = torch.allclose(program.module()(z), G(z), atol=1e-5)
        assert same, f"{n} latents: expected the generator's own faces, got others"


def labeled_loader(n=32):
    """A loader of n noisy 16 x 16 images, of which every second has the first of three labels."""
    images = torch.randint(256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(1)).byte()
    faces = helpers.DecodedFaces(images, torch.zeros(n, dtype=torch.int64), ["noise"])
    faces.labels = torch.eye(4)[:, :3].repeat(n // 4, 1)
    return DataLoader(faces, 8, shuffle=True, collate_fn=helpers.as_batch)


def settings_of(notebook, folder, **changes):
    """Settings of small networks on small images, whose runs are kept below `folder`."""
    small = dict(image_size=16, d_conv_dim=4, g_conv_dim=4, z_size=8, batch_size=8)
    return notebook.settings.but(**small | changes, out_dir=str(folder))


def train_small(notebook, folder, images):
    """Train on so many images, 4 steps an epoch -> the run."""
    loader = labeled_loader()
    settings = settings_of(notebook, folder, experiment_images=images // 12)
    D, G = networks(notebook, loader.dataset.labels)
    return notebook.train_conditional(settings, loader, D, G, ["noise"])


def test_conditional_training_continues_bit_for_bit(notebook, tmp_path):
    straight = train_small(notebook, tmp_path / "straight", 120)
    train_small(notebook, tmp_path / "split", 48)
    split = train_small(notebook, tmp_path / "split", 120)
    assert split.step == straight.step == 15, f"expected 15 steps, got {split.step}"
    untrained = networks(notebook, labeled_loader().dataset.labels)
    for name, before in zip("DG", untrained):
        others, start = split.parts[name].state_dict(), dict(before.named_parameters())
        for key, weight in straight.parts[name].named_parameters():
            assert torch.equal(weight, others[key]), f"expected {key} of {name} as without a stop"
            assert weight.ndim < 2 or not torch.equal(weight, start[key]), f"{key} has not moved"


def test_no_conditional_step_reads_from_the_device(notebook):
    labels = torch.eye(2).repeat(4, 1)
    D, G = networks(notebook, labels)
    optimizers = notebook.adam(D, 1e-3, 0.3), notebook.adam(G, 1e-3, 0.3)
    real = torch.rand(8, 3, 16, 16)
    notebook.conditional_step(D, G, real, labels, *optimizers)
    with NoReading():
        notebook.conditional_step(D, G, real, labels, *optimizers)


def save_faces(folder, name_of, n=120):
    """Write n drawn faces of 16 x 16 pixels under the names that `name_of(i)` gives."""
    for i, face in enumerate(draw_faces(n, 16)[0].permute(0, 2, 3, 1).numpy()):
        path = folder / name_of(i)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(face).save(path)


NAMES = {  # a folder's layout -> the name of face number i
    "classes": lambda i: f"{('cats', 'dogs')[i % 2]}/{i}.png",
    "utkface": lambda i: f"30_{i // 2 % 2}_{2 * (i % 2)}_2017010{i:03d}.png",
    "none": lambda i: f"{i}.png",
}


@pytest.mark.parametrize(
    "layout, names, logit",
    [
        pytest.param("classes", ("cats", "dogs"), None, id="classes"),
        pytest.param("utkface", ("Male", "White", "Asian"), None, id="utkface"),
        pytest.param("none", tuple(sorted(WELL_KNOWN)), 2.0, id="predicted"),
        pytest.param("none", None, 1.0, id="not sure"),
    ],
)
def test_faces_with_any_labels_can_be_generated_by_label(
    notebook, empty_place, monkeypatch, capsys, layout, names, logit
):
    def every_second(features, attributes):
        signs = 1 - 2.0 * (torch.arange(len(features)) % 2)
        return logit * signs[:, None].expand(-1, len(attributes))

    say_once.cache_clear()
    monkeypatch.setattr(labeled, "attribute_logits", every_second)
    folder = empty_place / "faces"
    save_faces(folder, NAMES[layout])
    settings = settings_of(notebook, empty_place / "run", n_drawn=60, experiment_images=2)
    settings = settings.but(data_dir=str(folder), batch_size=8, image_size=16)
    faces = notebook.get_dataloader(8, 16, folder).dataset
    loader, labels = notebook.labeled_loader(settings, faces)
    printed = capsys.readouterr().out
    assert ("the face network predicts" in printed) == (layout == "none"), f"printed {printed}"
    assert ("uses drawn faces" in printed) == (names is None), f"printed {printed}"
    if names:
        assert sorted(labels) == [*sorted(names)], f"expected {names} of {folder}, got {labels}"
    D = partial(notebook.ProjectionDiscriminator, n_labels=len(labels))
    G = partial(notebook.ConditionalGenerator, labels=loader.dataset.labels)
    run = notebook.train_conditional(settings, loader, *notebook.fresh(settings, D=D, G=G), labels)
    assert run.images == 24 and list(run.folder.glob("samples/*.png")), f"got {run.images} images"
    exported = torch.export.load(run.folder / "generator.pt2").module()
    assert exported(torch.randn(3, 8)).shape == (3, 3, 16, 16), "expected faces of latents alone"
    generator = run.best_generator()
    sweep = notebook.label_sweep(generator.labels)
    assert len(sweep) == len(labels) + (layout != "classes"), f"got {len(sweep)} rows of labels"
    faces = notebook.in_batches(generator, torch.randn(len(sweep), 8), sweep)
    assert faces.shape == (len(sweep), 3, 16, 16), f"got {faces.shape}"


def test_well_known_labels_come_first(tmp_path):
    half = [i % 2 == 0 for i in range(100)]
    faces = write_list(tmp_path, dict.fromkeys(["Bangs", "Hat", "Smiling", "Male"], half))
    labels = faces.usable_labels()
    assert labels == ["Smiling", "Male", "Bangs", "Hat"], f"got {labels}"


GROUPS = {  # how to make groups of 400 rows, and the shares that are expected
    "a label": (lambda rows: (rows >= 350).long(), 2),
    "two labels": (lambda rows: 2 * (rows >= 350).long() + rows % 2, 4),
    "numbers with a gap": (lambda rows: 3 * (rows // 350), 2),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_a_balanced_loader_serves_equal_shares(notebook, kind):
    groups_of, n_groups = GROUPS[kind]
    rows = torch.arange(400)
    colors = torch.stack([rows // 256, rows % 256, 0 * rows], 1).to(torch.uint8)
    faces = helpers.DecodedFaces(colors[:, :, None, None].expand(-1, -1, 16, 16), rows, ["."])
    loader = DataLoader(faces, 20, shuffle=True, collate_fn=helpers.as_batch)
    balanced, run, served = notebook.balanced_loader(loader, groups_of(rows)), helpers.Run(), []
    with run:
        for epoch in range(5):
            for images, labels in run.watch(balanced, epoch):
                pixels = (images[:, :2, 0, 0] * 255).round()
                is_same = torch.equal(labels, (pixels[:, 0] * 256 + pixels[:, 1]).long())
                assert is_same, "expected the labels to stay with their images"
                served += labels.tolist()
    shares = np.unique(groups_of(torch.tensor(served)), return_counts=True)[1] / len(served)
    assert len(served) == 2000 and np.allclose(shares, 1 / n_groups, atol=0.05), f"got {shares}"


def test_groups_that_would_be_memorized_are_refused(notebook):
    loader = DataLoader(range(100), 10)
    with pytest.raises(ValueError, match=r"groups have \[81, 19\] faces.* at least 20"):
        notebook.balanced_loader(loader, (torch.arange(100) >= 81).long())


def test_the_classifier_leaves_the_face_network_as_it_is(notebook):
    _, network = helpers.load_face_network()
    before = copy.deepcopy(network.state_dict())
    faces, labels = torch.rand(20, 3, 16, 16), torch.eye(2).repeat(10, 1)
    classifier = notebook.attribute_classifier(faces, labels, epochs=1, batch_size=10)
    moved = [key for key, value in network.state_dict().items() if not value.equal(before[key])]
    assert not moved and not network.training, f"expected the same network, got another {moved}"
    assert not any(isinstance(m, nn.Module) and m.training for m in classifier.modules())
