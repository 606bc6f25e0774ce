"""The face network's weights, and colors as the eye sees them."""

import pytest
import torch

from assets.lib import network
from assets.lib.network import load_face_network, to_lab


@pytest.mark.parametrize(
    "pixel, textbook",
    [
        pytest.param((1, 1, 1), (100, 0, 0), id="white"),
        pytest.param((1, -1, -1), (53.24, 80.09, 67.20), id="red"),
        pytest.param((-1, -1, 1), (32.30, 79.19, -107.86), id="blue"),
        pytest.param((-1, -1, -1), (0, 0, 0), id="black"),
    ],
)
def test_colors_in_lab(pixel, textbook):
    image = torch.tensor(pixel, dtype=torch.float).view(1, 3, 1, 1)
    lab = to_lab(image).flatten()
    error = (lab - torch.tensor(textbook)).abs().max()
    assert error < 0.1, f"expected {textbook}, got {lab.tolist()}"


def test_missing_weights_are_named_with_where_they_belong(tmp_path, monkeypatch):
    monkeypatch.setattr(network, "WEIGHTS", tmp_path / "weights" / "face_network.pt")
    monkeypatch.setattr(network, "stored", network.stored.__wrapped__)
    with pytest.raises(FileNotFoundError, match="face_network.pt is missing from assets/weights"):
        load_face_network.__wrapped__()


def test_sure_answers_are_right_more_often_than_not():
    right = network.right_when_sure()
    assert {*right} == {*load_face_network()[0]}, "expected a share for each attribute"
    assert all(0.5 < share <= 1 for share in right.values()), f"got {right}"
