"""The CycleGAN: domains of faces, the pool, the step, a run that goes on, what is reported."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from test_conditional import NoReading, save_faces
from torch import nn

import helpers
from assets.lib.drawn import draw_faces

SMALL = dict(image_size=16, n_drawn=120, domain_batch=4, batch_size=8, d_conv_dim=4, g_conv_dim=4)


@pytest.fixture
def settings(notebook, empty_place):
    """Small settings, on drawn faces."""
    folder = helpers.find_data("drawn", n_drawn=120, image_size=16)
    return notebook.settings.but(**SMALL, data_dir=str(folder), out_dir=str(empty_place / "run"))


def noisy_faces(n, seed):
    """DecodedFaces of n noisy 16 x 16 images."""
    source = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (n, 3, 16, 16), generator=source).byte()
    return helpers.DecodedFaces(images, torch.zeros(n, dtype=torch.int64), ["noise"])


def drawn_women(made_up):
    """DecodedFaces of 200 drawn women of 32 x 32 pixels, with makeup or without."""
    images, _ = draw_faces(200, 32, Male=False, Heavy_Makeup=made_up)
    return helpers.DecodedFaces(images, torch.zeros(200, dtype=torch.int64), ["drawn"])


def list_of(folder, names, **columns):
    """Write a list of attributes with these columns of bools for the files of these names."""
    lines = [" ".join(columns)]
    for name, *values in zip(names, *columns.values()):
        lines.append(" ".join([name, *("1" if value else "-1" for value in values)]))
    (folder / "list_attr_celeba.txt").write_text("\n".join(lines), encoding="utf-8")


def labeled_faces(settings, folder, n=120, digits=3, **columns):
    """Settings for a folder of n faces with these labels; a column: row -> bool."""
    names = [f"{i:0{digits}d}.png" for i in range(n)]
    save_faces(folder, names.__getitem__, n)
    values = {name: [has(row) for row in range(n)] for name, has in columns.items()}
    if columns:
        list_of(folder, names, **values)
    return settings.but(data_dir=str(folder))


def is_odd(row):
    return row % 2 == 1


@pytest.mark.parametrize(
    "columns, value",
    [  # makeup only on those who are not Male; beards only on those who are
        (dict(Makeup=lambda i: i % 6 == 0, Male=is_odd), False),
        (dict(Makeup=lambda i: i % 2 == 0 or i % 4 == 1, Male=is_odd), True),
    ],
)
def test_domains_have_the_same_value_of_another_label(
    notebook, settings, empty_place, columns, value
):
    settings = labeled_faces(settings, empty_place / "faces", **columns)
    A, B, common = notebook.domains(settings.but(domain_label="Makeup"))
    assert common == {"Male": value}, f"expected Male to be {value}, got {common}"
    same = [row for row in range(120) if columns["Male"](row) is value]
    for domain, has in ((A, False), (B, True)):
        expected = [row for row in same if columns["Makeup"](row) is has]
        assert domain.rows.tolist() == expected, f"expected rows {expected}, got {domain.rows}"
        assert domain.flip and not domain.part("test").flip, "expected training faces mirrored"
    A, B, common = notebook.domains(settings.but(domain_label="Makeup", domain_same=None))
    assert len(A) + len(B) == 120 and common == {}, f"expected all faces, got {len(A)}, {len(B)}"


def test_held_out_faces_keep_to_their_domain(notebook, settings, empty_place):
    settings = labeled_faces(
        settings, empty_place / "faces", 1200, digits=4, Makeup=lambda i: i % 3 == 0
    )
    A, B, _ = notebook.domains(settings.but(domain_label="Makeup", domain_same=None))
    for domain, expected in ((A, False), (B, True)):
        for part in helpers.PARTS:
            got = {row % 3 == 0 for row in domain.part(part).rows.tolist()}
            assert got == {expected}, f"{part}: expected only {expected}, got {got}"
    parts = [set(A.part(part).rows.tolist()) for part in helpers.PARTS]
    assert not set.intersection(*parts), "expected no face in two parts"


@pytest.mark.parametrize(
    "label, columns, expected",
    [
        ("Male", dict(Male=is_odd), (60, 60, {})),  # domain_same is Male, too
        ("Beard", dict(Beard=lambda i: i % 3 == 0, Male=lambda i: True), (80, 40, {"Male": True})),
        ("Makeup", dict(Makeup=lambda i: i % 3 == 0), (80, 40, {})),  # nothing known of Male
    ],
)
def test_a_label_alone_makes_domains(notebook, settings, empty_place, label, columns, expected):
    settings = labeled_faces(settings, empty_place / "faces", **columns)
    A, B, common = notebook.domains(settings.but(domain_label=label))
    got = len(A), len(B), common
    assert got == expected, f"expected {expected}, got {got}"


MAKEUP = {"unknown": None, "on few": lambda i: i < 7, "on all women": is_odd}


@pytest.mark.parametrize("on", MAKEUP)
def test_without_the_default_makeup_faces_are_drawn(notebook, settings, empty_place, capsys, on):
    columns = {"Heavy_Makeup": MAKEUP[on]} if MAKEUP[on] else {}
    settings = labeled_faces(settings, empty_place / "faces", Male=lambda i: i % 2 == 0, **columns)
    A, B, common = notebook.domains(settings)
    assert common == {"Male": False}, f"expected drawn women, got {common}"
    roots = {Path(X.root).parts[0] for X in (A, B)}
    assert roots == {"drawn_faces"}, f"expected drawn faces, got {roots}"
    assert "this part uses drawn faces" in capsys.readouterr().out


def test_two_folders_are_two_domains(notebook, settings, empty_place):
    folders = [empty_place / "without", empty_place / "with"]
    for folder, has in zip(folders, (False, True)):
        folder.mkdir()
        faces, _ = draw_faces(20, 16, Heavy_Makeup=has, Male=False)
        for i, face in enumerate(faces.permute(0, 2, 3, 1).numpy()):
            Image.fromarray(face).save(folder / f"{i}.png")
    A, B, common = notebook.domains(settings.but(domain_dirs=[str(folder) for folder in folders]))
    assert (len(A), len(B), common) == (20, 20, {}), f"got {len(A)}, {len(B)}, {common}"


def test_drawn_people_differ_only_in_makeup(notebook):
    a, b, region = notebook.drawn_pairs(10, 32, "Heavy_Makeup", {"Male": False})
    assert a.shape == b.shape == (10, 3, 32, 32) and region.shape == (10, 1, 32, 32)
    share = region.float().mean()
    assert 0.02 < share < 0.25, f"expected makeup on a part of the face, got {share:.0%}"
    error, leak = notebook.makeup_errors(a, a, b, region)
    assert error > 0.05 and leak == 0, f"no change: expected an error alone, got {error}, {leak}"
    error, leak = notebook.makeup_errors(a, b, b, region)
    assert error == 0 and leak < 0.05, f"the truth: expected no error, got {error}, {leak}"


def test_a_small_cyclegan_runs_and_reports(notebook, settings):
    settings = settings.but(experiment_images=4)
    A, B, common = notebook.domains(settings)
    assert common == {"Male": False}, f"expected women, got {common}"
    run = notebook.train_cyclegan(A, B, settings)
    assert run.images == 12 and run.parts["pools"][0].filled.any(), f"got {run.images} images"
    G_AB, G_BA = run.parts["generators"]
    faces = notebook.some_of(A.part("test"), 4)[0]
    rows = notebook.cycle_samples(G_AB, G_BA, faces)
    assert torch.equal(rows[:4], faces) and rows.shape == (16, 3, 16, 16), f"got {rows.shape}"
    change = 4 * (rows[4:8] - rows[:4]).abs() - 1
    assert torch.allclose(rows[12:], change), "last row: expected |after - before|"
    assert notebook.identity_kept(faces, faces) == 1
    again = notebook.train_cyclegan(A, B, settings)
    assert again.folder == run.folder and again.step == run.step, "expected the same run, ended"
    other = notebook.train_cyclegan(A, B, settings.but(cycle_weight=7.0))
    assert other.folder != run.folder, "another weight: expected another folder"


@pytest.mark.parametrize("n", [3, 5])
def test_domains_smaller_than_a_batch_still_train(notebook, settings, n):
    settings = settings.but(experiment_images=4)
    run = notebook.train_cyclegan(noisy_faces(n, 1), noisy_faces(4, 2), settings)
    assert run.images >= 12, f"expected 12 images, got {run.images}"


def train(notebook, settings, folder, n_images):
    """Train on noise, 3 steps an epoch -> the run."""
    changes = dict(domain_loss="cross-entropy", identity_weight=0.0, out_dir=str(folder))
    settings = settings.but(experiment_images=n_images // 3, **changes)
    return notebook.train_cyclegan(noisy_faces(12, 1), noisy_faces(8, 2), settings)


def test_a_cyclegan_continues_bit_for_bit_pools_included(
    notebook, settings, empty_place, monkeypatch, stop_button
):
    straight = train(notebook, settings, empty_place / "straight", 84)
    step, steps = notebook.cyclegan_step, iter(range(1, 22))

    def pressed_within_a_step(*given, **options):
        if next(steps) == 14:  # in the middle of an epoch, when the rates fall
            stop_button()
        return step(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(notebook, "cyclegan_step", pressed_within_a_step)
        stopped = train(notebook, settings, empty_place / "split", 84)
    assert stopped.step == 14, f"expected a stop after step 14, got {stopped.step}"
    split = train(notebook, settings, empty_place / "split", 84)
    assert split.step == straight.step == 21, f"expected 21 steps, got {split.step}"
    optimizers = split.parts["g_optimizer"], split.parts["d_optimizer"]
    rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    assert rates == [0, 0], f"the end: expected rates that fell to 0, got {rates}"
    more = train(notebook, settings, empty_place / "split", 96)
    assert more.step == 24, f"a higher limit: expected the run to continue, got {more.step}"
    assert split.parts["pools"][0].filled.sum() > 30, "expected a pool that fills"
    for name in ("generators", "discriminators", "pools"):
        others = split.parts[name].state_dict()
        for key, value in straight.parts[name].state_dict().items():
            assert torch.equal(value, others[key]), f"expected {key} of {name} as without a stop"
    grid = Image.open(sorted((split.folder / "samples").glob("*.png"))[-1])
    assert grid.size == (8 * 18 - 2, 4 * 18 - 2), f"expected four rows of eight, got {grid.size}"


def test_no_cyclegan_step_reads_from_the_device(notebook, settings):
    networks = notebook.cyclegan_networks(settings)
    optimizers = [notebook.adam(pair, 1e-3, beta1=0.5) for pair in networks[:2]]
    a, b = torch.rand(2, 4, 3, 16, 16)
    notebook.cyclegan_step(*networks, a, b, *optimizers)
    with NoReading():
        notebook.cyclegan_step(*networks, a, b, *optimizers)


def test_a_pool_holds_a_batch_larger_than_fifty(notebook, settings):
    _, _, pools = notebook.cyclegan_networks(settings.but(domain_batch=60))
    images = torch.rand(60, 3, 16, 16)
    assert torch.equal(pools[0].exchange(images), images), "the first batch: expected it back"
    back = pools[0].exchange(1 + images)
    older = (back.mean((1, 2, 3)) < 1).float().mean()
    assert 0.2 < older < 0.8, f"the second batch: expected half to be older, got {older:.0%}"


@pytest.mark.parametrize("size", [16, 64])
def test_generators_start_near_the_identity(notebook, settings, size):
    generators, discriminators, _ = notebook.cyclegan_networks(settings.but(image_size=size))
    x = torch.rand(2, 3, size, size) * 2 - 1
    for G in generators:
        change = (G(x) - x).abs().mean()
        assert change < 0.2, f"expected next to no change at first, got {change:.2f}"
    for layer in generators.modules():
        is_norm = isinstance(layer, nn.BatchNorm2d)
        assert not is_norm, "expected every image on its own, got batch normalization"
    for D in discriminators:
        bad = [layer for layer in D if isinstance(layer, (nn.BatchNorm2d, nn.InstanceNorm2d))]
        assert not bad, f"expected no normalization of activations, got {bad}"
        weights = [layer.weight.flatten(1) for layer in D.train() if hasattr(layer, "weight")]
        largest = [torch.linalg.matrix_norm(weight, 2).item() for weight in weights]
        assert largest == pytest.approx([1] * len(weights), rel=0.2), f"expected 1, got {largest}"


def test_skin_tone_is_measured_on_the_cheeks_of_drawn_women(notebook, monkeypatch):
    rows, eye_row = [], notebook.eye_row
    monkeypatch.setattr(notebook, "eye_row", lambda faces: rows.append(eye_row(faces)) or rows[-1])
    notebook.tone_weights(*(drawn_women(made_up) for made_up in (False, True)))
    assert abs(rows[0] - 13) <= 1, f"expected the eyes near row 13 of 32, got {rows[0]}"


def test_skin_tones_come_as_often_from_both_domains(notebook):
    A, B = noisy_faces(40, 1), noisy_faces(90, 2)
    for faces, n_light in ((A, 10), (B, 70)):
        faces.images[:n_light] = faces.images[:n_light] // 8 + 220
        faces.images[n_light:] = faces.images[n_light:] // 8 + 20
    weights = notebook.tone_weights(A, B)
    assert weights.shape == (90,), f"expected a weight for each face of B, got {weights.shape}"
    share = (weights[:70].sum() / weights.sum()).item()
    assert abs(share - 0.25) < 0.05, f"expected 25% light ones, as in A, got {share:.0%}"
    B.images[1:70] = B.images[70:71]  # one light face left
    weights = notebook.tone_weights(A, B)
    assert weights[0] == 5, f"a single light face: expected 5, the most, got {weights[0]:.1f}"
