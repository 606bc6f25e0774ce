"""The CycleGAN: domains of faces, the pool, the step, a run that goes on, what is reported."""

import pytest
import torch
from PIL import Image
from test_conditional import NoReading, save_faces
from torch import nn

import helpers
from assets.lib.drawn import draw_faces

SETTINGS = dict(image_size=16, n_drawn=120, domain_batch=4, domain_dirs=None)
SETTINGS |= dict(domain_label="Heavy_Makeup", domain_same="Male", memory_format=torch.channels_last)


@pytest.fixture
def small(notebook, monkeypatch, empty_place):
    """The notebook with small settings, on drawn faces; `choose(**settings)` changes some."""

    def set_settings(**settings):
        for name, value in settings.items():
            monkeypatch.setattr(notebook, name, value, raising=False)

    folder = helpers.find_data("drawn", n_drawn=120, image_size=16)
    loader = notebook.get_dataloader(8, 16, folder)
    set_settings(**SETTINGS, faces_dir=folder, loader=loader)
    set_settings(out_dir=str(empty_place / "run"), device=torch.device("cpu"))
    monkeypatch.setattr(notebook, "choose", set_settings, raising=False)
    return notebook


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


def labelled_faces(notebook, folder, n=120, **columns):
    """Make a folder of n faces with these labels the notebook's own; a column: row -> bool."""
    save_faces(folder, lambda i: f"{i:03d}.png", n)
    values = {name: [has(row) for row in range(n)] for name, has in columns.items()}
    list_of(folder, [f"{i:03d}.png" for i in range(n)], **values)
    loader = notebook.get_dataloader(8, 16, folder)
    notebook.choose(faces_dir=folder, loader=loader)


@pytest.mark.parametrize(
    "columns, value",
    [  # makeup only on those who are not Male; beards only on those who are
        (dict(Makeup=lambda i: i % 6 == 0, Male=lambda i: i % 2 == 1), False),
        (dict(Makeup=lambda i: i % 2 == 0 or i % 4 == 1, Male=lambda i: i % 2 == 1), True),
    ],
)
def test_domains_have_the_same_value_of_another_label(small, empty_place, columns, value):
    labelled_faces(small, empty_place / "faces", **columns)
    small.choose(domain_label="Makeup")
    A, B, common = small.domains(16)
    assert common == {"Male": value}, f"expected Male to be {value}, got {common}"
    same = [row for row in range(120) if columns["Male"](row) is value]
    for domain, has in ((A, False), (B, True)):
        expected = [row for row in same if columns["Makeup"](row) is has]
        assert domain.rows.tolist() == expected, f"expected rows {expected}, got {domain.rows}"
        assert domain.flip and not domain.part("test").flip, "expected training faces mirrored"
    small.choose(domain_same=None)
    A, B, common = small.domains(16)
    assert len(A) + len(B) == 120 and common == {}, f"expected all faces, got {len(A)}, {len(B)}"


def test_held_out_faces_keep_to_their_domain(small, empty_place):
    save_faces(empty_place / "faces", lambda i: f"{i:04d}.png", 1200)
    has = {f"{i:04d}.png": i % 3 == 0 for i in range(1200)}
    list_of(empty_place / "faces", has, Makeup=has.values())
    loader = small.get_dataloader(8, 16, empty_place / "faces")
    small.choose(faces_dir=empty_place / "faces", loader=loader)
    small.choose(domain_label="Makeup", domain_same=None)
    A, B, _ = small.domains(16)
    for domain, expected in ((A, False), (B, True)):
        for part in helpers.PARTS:
            got = {has[domain.names[row]] for row in domain.part(part).rows}
            assert got == {expected}, f"{part}: expected only {expected}, got {got}"
    parts = [set(A.part(part).rows.tolist()) for part in helpers.PARTS]
    assert not set.intersection(*parts), "expected no face in two parts"


def test_a_label_needs_no_other_that_is_the_same(small, empty_place):
    labelled_faces(small, empty_place / "faces", Male=lambda i: i % 2)
    small.choose(domain_label="Male")  # domain_same is Male, too
    A, B, common = small.domains(16)
    assert (len(A), len(B), common) == (60, 60, {}), f"got {len(A)}, {len(B)} and {common}"


MAKEUP = {"unknown": None, "on few": lambda i: i < 7, "on all women": lambda i: i % 2}


@pytest.mark.parametrize("on", MAKEUP)
def test_without_the_default_makeup_faces_are_drawn(small, empty_place, capsys, on):
    columns = {"Heavy_Makeup": MAKEUP[on]} if MAKEUP[on] else {}
    labelled_faces(small, empty_place / "faces", Male=lambda i: i % 2 == 0, **columns)
    A, B, common = small.domains(16)
    assert common == {"Male": False}, f"expected drawn women, got {common}"
    assert [X.root.parts[0] for X in (A, B)] == 2 * ["drawn_faces"], f"got {A.root}"
    assert "this part uses drawn faces" in capsys.readouterr().out


def test_faces_of_one_sex_make_domains(small, empty_place):
    labelled_faces(small, empty_place / "faces", Beard=lambda i: i % 3 == 0, Male=lambda i: True)
    small.choose(domain_label="Beard")
    A, B, common = small.domains(16)
    assert (len(A), len(B), common) == (80, 40, {"Male": True}), f"got {len(A)}, {len(B)}, {common}"


def test_a_label_that_stands_alone_makes_domains(small, empty_place):
    labelled_faces(small, empty_place / "faces", Makeup=lambda i: i % 3 == 0)
    small.choose(domain_label="Makeup")  # domain_same is Male, which nothing is known about
    A, B, common = small.domains(16)
    assert (len(A), len(B), common) == (80, 40, {}), f"got {len(A)}, {len(B)} and {common}"


def test_two_folders_are_two_domains(small, empty_place):
    folders = [empty_place / "without", empty_place / "with"]
    for folder, has in zip(folders, (False, True)):
        folder.mkdir()
        faces, _ = draw_faces(20, 16, Heavy_Makeup=has, Male=False)
        for i, face in enumerate(faces.permute(0, 2, 3, 1).numpy()):
            Image.fromarray(face).save(folder / f"{i}.png")
    small.choose(domain_dirs=[str(folder) for folder in folders])
    A, B, common = small.domains(16)
    assert (len(A), len(B), common) == (20, 20, {}), f"got {len(A)}, {len(B)}, {common}"
    (folders[1] / "again.png").write_bytes((folders[0] / "7.png").read_bytes())
    with pytest.raises(ValueError, match="some images are in both folders"):
        small.domains(16)


def test_drawn_people_differ_only_in_makeup(small):
    a, b, region = small.drawn_pairs(10, 32, {"Male": False})
    assert a.shape == b.shape == (10, 3, 32, 32) and region.shape == (10, 1, 32, 32)
    share = region.float().mean()
    assert 0.02 < share < 0.25, f"expected makeup on a part of the face, got {share:.0%}"
    error, leak = small.makeup_errors(a, a, b, region)
    assert error > 0.05 and leak == 0, f"no change: expected an error alone, got {error}, {leak}"
    error, leak = small.makeup_errors(a, b, b, region)
    assert error == 0 and leak < 0.05, f"the truth: expected no error, got {error}, {leak}"


def test_a_small_cyclegan_runs_and_reports(small):
    A, B, common = small.domains(16)
    assert common == {"Male": False}, f"expected women, got {common}"
    run = small.train_cyclegan(A, B, 16, 12)
    assert run.images == 12 and run.parts["pools"][0].filled.any(), f"got {run.images} images"
    G_AB, G_BA = run.parts["generators"]
    faces = small.some_of(A.part("test"), 4)[0]
    rows = small.cycle_samples(G_AB, G_BA, faces)
    assert torch.equal(rows[:4], faces) and rows.shape == (16, 3, 16, 16), f"got {rows.shape}"
    change = 4 * (rows[4:8] - rows[:4]).abs() - 1
    assert torch.allclose(rows[12:], change), "last row: expected |after - before|"
    assert small.identity_kept(faces, faces) == 1
    again = small.train_cyclegan(A, B, 16, 12)
    assert again.folder == run.folder and again.step == run.step, "expected the same run, ended"
    small.choose(cycle_weight=7.0)
    other = small.train_cyclegan(A, B, 16, 4)
    assert other.folder != run.folder, "another weight: expected another folder"


@pytest.mark.parametrize("n", [3, 5])
def test_domains_smaller_than_a_batch_still_train(small, n):
    run = small.train_cyclegan(noisy_faces(n, 1), noisy_faces(4, 2), 16, 10)
    assert run.images >= 10, f"expected 10 images, got {run.images}"


def train(notebook, folder, n_images):
    """Train on noise, 3 steps an epoch, with the learning rate of the settings -> the run."""
    notebook.choose(out_dir=str(folder), domain_loss="cross-entropy", identity_weight=0.0)
    return notebook.train_cyclegan(noisy_faces(12, 1), noisy_faces(8, 2), 16, n_images)


def test_a_cyclegan_goes_on_bit_for_bit_pools_included(
    small, empty_place, monkeypatch, stop_button
):
    straight = train(small, empty_place / "straight", 80)
    step, steps = small.cyclegan_step, iter(range(1, 21))

    def pressed_within_a_step(*given, **options):
        if next(steps) == 14:  # in the middle of an epoch, when the rates fall
            stop_button()
        return step(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(small, "cyclegan_step", pressed_within_a_step)
        stopped = train(small, empty_place / "split", 80)
    assert stopped.step == 14, f"expected a stop after step 14, got {stopped.step}"
    split = train(small, empty_place / "split", 80)
    assert split.step == straight.step == 20, f"expected 20 steps, got {split.step}"
    rates = [group["lr"] for key in ("g_optimizer", "d_optimizer")
             for group in split.parts[key].param_groups]  # fmt: skip
    assert rates == [0, 0], f"the end: expected rates that fell to 0, got {rates}"
    more = train(small, empty_place / "split", 100)
    assert more.step == 25, f"a higher limit: expected the run to go on to step 25, got {more.step}"
    assert split.parts["pools"][0].filled.sum() > 30, "expected a pool that fills"
    for name in ("generators", "discriminators", "pools"):
        others = split.parts[name].state_dict()
        for key, value in straight.parts[name].state_dict().items():
            assert torch.equal(value, others[key]), f"expected {key} of {name} as without a stop"
    grid = Image.open(sorted((split.folder / "samples").glob("*.png"))[-1])
    assert grid.size == (8 * 18 - 2, 4 * 18 - 2), f"expected four rows of eight, got {grid.size}"


def test_no_cyclegan_step_reads_from_the_device(small):
    networks = small.cyclegan_networks(16)
    optimizers = [small.adam(pair, 1e-3, beta1=0.5) for pair in networks[:2]]
    a, b = torch.rand(2, 4, 3, 16, 16)
    small.cyclegan_step(*networks, a, b, *optimizers)
    with NoReading():
        small.cyclegan_step(*networks, a, b, *optimizers)


def test_a_pool_holds_a_batch_larger_than_fifty(small):
    small.choose(domain_batch=60)
    _, _, pools = small.cyclegan_networks(16)
    images = torch.rand(60, 3, 16, 16)
    assert torch.equal(pools[0].exchange(images), images), "the first batch: expected it back"
    back = pools[0].exchange(1 + images)
    older = (back.mean((1, 2, 3)) < 1).float().mean()
    assert 0.2 < older < 0.8, f"the second batch: expected half to be older, got {older:.0%}"


@pytest.mark.parametrize("size", [16, 64])
def test_generators_start_near_the_identity(small, size):
    generators, discriminators, _ = small.cyclegan_networks(size)
    x = torch.rand(2, 3, size, size) * 2 - 1
    for G in generators:
        change = (G(x) - x).abs().mean()
        assert change < 0.2, f"expected next to no change at first, got {change:.2f}"
    for layer in generators.modules():
        is_norm = isinstance(layer, nn.BatchNorm2d)
        assert not is_norm, "expected every image on its own, got batch normalisation"
    for D in discriminators:
        bad = [layer for layer in D if isinstance(layer, (nn.BatchNorm2d, nn.InstanceNorm2d))]
        assert not bad, f"expected no normalisation of activations, got {bad}"
        weights = [layer.weight.flatten(1) for layer in D.train() if hasattr(layer, "weight")]
        largest = [torch.linalg.matrix_norm(weight, 2).item() for weight in weights]
        assert largest == pytest.approx([1] * len(weights), rel=0.2), f"expected 1, got {largest}"


def test_skin_tone_is_measured_on_the_cheeks_of_drawn_women(small, monkeypatch):
    rows, eye_row = [], small.eye_row
    monkeypatch.setattr(small, "eye_row", lambda faces: rows.append(eye_row(faces)) or rows[-1])
    small.tone_weights(*(drawn_women(made_up) for made_up in (False, True)))
    assert abs(rows[0] - 13) <= 1, f"expected the eyes near row 13 of 32, got {rows[0]}"


def test_skin_tones_come_as_often_from_both_domains(small):
    A, B = noisy_faces(40, 1), noisy_faces(90, 2)
    for faces, n_light in ((A, 10), (B, 70)):
        faces.images[:n_light] = faces.images[:n_light] // 8 + 220
        faces.images[n_light:] = faces.images[n_light:] // 8 + 20
    weights = small.tone_weights(A, B)
    assert weights.shape == (90,), f"expected a weight for each face of B, got {weights.shape}"
    share = (weights[:70].sum() / weights.sum()).item()
    assert abs(share - 0.25) < 0.05, f"expected 25 % light ones, as in A, got {share:.0%}"
    B.images[1:70] = B.images[70:71]  # one light face left
    weights = small.tone_weights(A, B)
    assert weights[0] == 5, f"a single light face: expected 5, the most, got {weights[0]:.1f}"
