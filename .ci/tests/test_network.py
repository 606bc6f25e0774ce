"""The face network's weights, and colors as the eye sees them."""

import pytest
import torch

from assets.lib import network
from assets.lib.network import load_face_network, to_lab


def test_colors_in_lab():
    pixels = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, -1, 1], [-1, -1, -1]])
    white, red, blue, black = [100, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86], [0, 0, 0]
    lab = to_lab(pixels[:, :, None, None]).flatten(1)
    error = (lab - torch.tensor([white, red, blue, black])).abs().max()
    assert error < 0.1, f"white, red, blue, black: expected textbook values, got {lab.tolist()}"


def test_missing_weights_are_named_with_where_they_belong(tmp_path, monkeypatch):
    monkeypatch.setattr(network, "WEIGHTS", tmp_path / "weights" / "face_network.pt")
    with pytest.raises(FileNotFoundError, match="face_network.pt is missing from assets/weights"):
        load_face_network.__wrapped__()
