"""Scores: features of the face network, of Inception and of DINOv2."""

import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from torch import nn

import helpers
from assets.lib import scores
from assets.lib.drawn import draw_faces
from assets.lib.network import load_face_network


def drawn(n, size, seed=0):
    """Drawn faces (n, 3, S, S) in [-1, 1]."""
    return draw_faces(n, size, seed)[0] / 127.5 - 1


def blurred(faces):
    return F.avg_pool2d(F.pad(faces, [1] * 4, "reflect"), 3, 1)


def noisy(faces, deviation):
    return (faces + deviation * torch.randn_like(faces)).clamp(-1, 1)


# ---------------------------------------------------------------- features of faces


def test_features_do_not_depend_on_the_batch(monkeypatch):
    faces = drawn(7, 32)
    network, calls = load_face_network()[1], []
    features = network.features
    monkeypatch.setattr(network, "features", lambda x: (calls.append(len(x)), features(x))[1])
    whole, parts = helpers.face_features(faces), helpers.face_features(faces, batch_size=3)
    assert calls == [7, 3, 3, 1], f"expected batches of 3, got {calls}"
    assert whole.shape == (7, 144) and whole.dtype == torch.float32, f"got {whole.shape}"
    assert whole.device.type == "cpu" and not whole.requires_grad, f"got {whole.device}"
    off = (whole - parts).abs().max()
    assert off < 0.05, f"expected the same features in any batch, got {off} off"


def test_features_are_computed_on_a_gpu_that_can_be_used(monkeypatch):
    places = []
    network = load_face_network()[1]
    monkeypatch.setattr(network, "to", lambda place: (places.append(str(place)), network)[1])
    monkeypatch.setattr(scores, "autocast", lambda place: torch.no_grad())
    plain = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda self, place, **how: plain(self, "cpu", **how))
    for has_gpu in (True, False):
        monkeypatch.setattr(scores, "has_gpu", lambda has_gpu=has_gpu: has_gpu)
        helpers.face_features(torch.zeros(2, 3, 16, 16))
    assert places == ["cuda", "cpu"], f"expected the GPU, then the CPU, got {places}"


def test_worse_faces_have_worse_scores(notebook):
    torch.manual_seed(0)
    real, faces = drawn(300, 32, seed=0), drawn(300, 32, seed=1)
    features = helpers.face_features(real)
    for what, row in {
        "blur": [faces, blurred(faces), blurred(blurred(blurred(faces)))],
        "noise": [faces, noisy(faces, 0.1), noisy(faces, 0.4)],
        "fewer": [faces, faces[:10].repeat(30, 1, 1, 1), faces[:2].repeat(150, 1, 1, 1)],
    }.items():
        seen = [helpers.face_features(x) for x in row]
        scores = {
            "FFD": [notebook.frechet_distance(features, x) for x in seen],
            "SWD": [sum(notebook.sliced_wasserstein(real, x)) for x in row],
        }
        if what == "fewer":
            recalls = [notebook.precision_recall(features, x)[1] for x in seen]
            scores["MS-SSIM"] = [notebook.ms_ssim(x[torch.randperm(300)]) for x in row]
            scores["missing recall"] = [1 - recall for recall in recalls]
        else:
            precisions = [notebook.precision_recall(features, x)[0] for x in seen]
            scores["missing precision"] = [1 - precision for precision in precisions]
        for name, values in scores.items():
            is_worse = values[0] < min(values[1:]) and (name != "FFD" or values[1] < values[2])
            assert is_worse, f"{what}, {name}: expected ever higher values, got {values}"


# ---------------------------------------------------------------- Inception and DINOv2

BOTH = "FID and KID", "FD-DINOv2"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty folder in place of PyTorch's own for weights."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path / "checkpoints"


def put_weights(monkeypatch, url, sha256="0"):
    for name in BOTH:
        monkeypatch.setitem(scores.WEIGHTS, name, (url, sha256))


@pytest.mark.parametrize(
    "url, words",
    [
        ("http://127.0.0.1:9/weights.pth", "refused"),
        ((ROOT / "nowhere.pth").as_uri(), "No such file"),
        ((ROOT / ".ruff.toml").as_uri(), "invalid hash"),
    ],
)
def test_a_line_names_each_score_whose_weights_are_missing(hub, monkeypatch, capsys, url, words):
    put_weights(monkeypatch, url)
    faces = torch.zeros(4, 3, 16, 16)
    found, printed = helpers.inception_scores(faces, faces), capsys.readouterr().out
    assert found == {}, f"expected no scores, got {found}"
    for name, line in zip(BOTH, printed.splitlines(), strict=True):
        is_said = line.startswith(f"No {name} without {url}") and words in line and str(hub) in line
        assert is_said, f"expected a line that says why, got {line}"
    assert not list(hub.iterdir()), f"expected nothing to be left, got {list(hub.iterdir())}"


@pytest.fixture
def inception(hub, monkeypatch):
    """Inception with random weights, which need no network, in place of the published ones."""
    module = "torch_fidelity.feature_extractor_inceptionv3"
    inception_v3 = pytest.importorskip(module).FeatureExtractorInceptionV3
    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(inception_v3, "load_state_dict", lambda self, state: None)
        network = inception_v3("inception-v3-compat", ["2048"]).eval()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    hub.mkdir()
    torch.save(network.state_dict(), hub / "weights.pth")
    put_weights(monkeypatch, "http://127.0.0.1:9/weights.pth")
    return network


class TinyDino(nn.Module):
    """Stands for DINOv2: images (N, 3, 224, 224) -> features (N, 3)."""

    def forward(self, x):
        return x.mean((2, 3)) + x[:, :, 0, 0]


def test_frechet_distances_are_those_of_the_features(notebook, inception, monkeypatch):
    torch.manual_seed(0)
    faces = draw_faces(8, 64)[0]
    others = F.avg_pool2d(faces.float(), 3, 1, 1).round().byte()
    monkeypatch.setattr(torch.hub, "load", lambda *args, **kwargs: TinyDino())
    dino = pytest.importorskip("torch_fidelity").FeatureExtractorDinoV2(
        "dinov2-vit-s-14", ["dinov2"]
    )
    found = helpers.inception_scores(faces / 127.5 - 1, others / 127.5 - 1)
    for name, network in {"FID": inception, "FD-DINOv2": dino}.items():
        with torch.no_grad():
            features = [network(images)[0] for images in (faces, others)]
        expected, got = notebook.frechet_distance(*features), found[name]
        is_near = expected > 1e-3 and abs(got - expected) < 0.05 * expected
        assert is_near, f"expected {name} to be {expected:.4g}, got {got:.4g}"
    assert list(found) == ["FID", "KID", "FD-DINOv2"], f"expected all three, got {found}"


def test_weights_that_hold_more_are_not_loaded(inception, hub):
    torch.save({"weights": Path}, hub / "weights.pth")
    faces = torch.zeros(4, 3, 16, 16)
    with pytest.raises(pickle.UnpicklingError):
        helpers.inception_scores(faces, faces)


@pytest.mark.parametrize(
    "error, words",
    [
        (URLError("no network"), "without https://github.com/facebookresearch/dinov2 (<urlopen"),
        (RuntimeError("no attribute"), "without https://github.com/facebookresearch/dinov2 (no"),
        (ImportError("no name"), "without torch-fidelity 0.4: pip install -U torch-fidelity"),
    ],
)
def test_without_dinov2s_code_a_line_says_so(monkeypatch, capsys, error, words):
    def fail(*args, **kwargs):
        raise error

    pytest.importorskip("torch_fidelity")
    monkeypatch.setattr(torch.hub, "load", fail)
    assert not scores.fetch_dinov2()
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and f"No FD-DINOv2 {words}" in printed, f"got {printed}"
