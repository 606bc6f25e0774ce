"""Scores: the face network's features, and what Inception's say."""

import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from torch import nn

import helpers
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
    monkeypatch.setattr(helpers, "autocast", lambda place: torch.no_grad())
    plain = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda self, place, **how: plain(self, "cpu", **how))
    for has_gpu in (True, False):
        monkeypatch.setattr(helpers, "has_gpu", lambda has_gpu=has_gpu: has_gpu)
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


# ---------------------------------------------------------------- Inception


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty folder in place of PyTorch's own for weights."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path / "checkpoints"


def test_without_inception_weights_one_line_says_so(hub, monkeypatch, capsys):
    faces = torch.zeros(4, 3, 16, 16)
    other_file = (ROOT / ".ruff.toml").as_uri()
    for url, words in (
        ("http://127.0.0.1:9/weights-6726825d.pth", "refused"),
        (f"{other_file}?weights-6726825d.pth", "Inception's weights"),
    ):
        monkeypatch.setattr(helpers, "INCEPTION", url)
        scores = helpers.inception_scores(faces, faces)
        printed = capsys.readouterr().out
        assert scores == {}, f"expected no scores, got {scores}"
        one_line = printed.count("\n") == 1 and words in printed and str(hub) in printed
        assert one_line, f"expected one line that says why, got {printed}"


def test_weights_that_are_another_file_are_not_kept(hub, monkeypatch, capsys):
    source = hub.parent / "weights-6726825d.pth"
    source.write_bytes(b"another file")
    monkeypatch.setattr(helpers, "INCEPTION", source.as_uri())
    scores = helpers.inception_scores(torch.zeros(4, 3, 16, 16), torch.zeros(4, 3, 16, 16))
    printed = capsys.readouterr().out
    assert scores == {} and "invalid hash" in printed, f"expected its sha256, got {printed}"
    assert not list(hub.iterdir()), f"expected nothing to be left, got {list(hub.iterdir())}"


def test_fid_is_the_frechet_distance_of_inception_features(notebook, hub, monkeypatch):
    module = "torch_fidelity.feature_extractor_inceptionv3"
    inception_v3 = pytest.importorskip(module).FeatureExtractorInceptionV3
    torch.manual_seed(0)
    path = hub / Path(helpers.INCEPTION).name
    hub.mkdir()
    with monkeypatch.context() as patch:  # random weights, which need no network
        patch.setattr(f"{module}.load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(inception_v3, "load_state_dict", lambda self, state: None)
        inception = inception_v3("inception-v3-compat", ["2048"]).eval()
    for layer in inception.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    torch.save(inception.state_dict(), path)
    faces = draw_faces(8, 64)[0]
    others = F.avg_pool2d(faces.float(), 3, 1, 1).round().byte()
    scores = helpers.inception_scores(faces / 127.5 - 1, others / 127.5 - 1)
    with torch.no_grad():
        features = [inception(images)[0] for images in (faces, others)]
    expected, got = notebook.frechet_distance(*features), scores["FID"]
    is_near = expected > 0.1 and abs(got - expected) < 0.05 * expected
    assert is_near, f"expected a FID of {expected:.4g}, got {got:.4g}"
    assert set(scores) == {"FID", "KID"}, f"expected both, got {scores}"
    torch.save({"weights": Path}, path)  # more than weights
    with pytest.raises(pickle.UnpicklingError):
        helpers.inception_scores(faces / 127.5 - 1, others / 127.5 - 1)
