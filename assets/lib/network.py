"""The small network in whose features faces are compared, and colors as the eye sees them.

`.ci/experiments/train_face_network.py` trained it on CelebA's 40 attributes; its weights are in
`assets/weights/face_network.pt`.
"""

from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock

WEIGHTS = Path(__file__).parents[1] / "weights" / "face_network.pt"
RGB_TO_XYZ = (  # of sRGB, divided by the white point D65, so that white is (1, 1, 1)
    (0.4339, 0.3763, 0.1898),
    (0.2126, 0.7152, 0.0722),
    (0.0177, 0.1095, 0.8728),
)


class FaceNetwork(nn.Module):
    """Faces (N, 3, S, S) in [-1, 1] -> logits (N, 40) of CelebA's attributes, above 0 for yes.

    A residual network of 0.9 million weights (He et al., 2016). Faces of every size are first
    resized to 64 x 64. `features(faces)`, float32 (N, 144), come before the last layer.
    """

    def __init__(self, widths=(32, 64, 96, 144), n_attributes=40):
        super().__init__()
        layers = [
            nn.Conv2d(3, widths[0], 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        ]
        for narrow, wide in zip(widths, widths[1:]):
            shortcut = nn.Sequential(
                nn.AvgPool2d(2),
                nn.Conv2d(narrow, wide, 1, bias=False),
                nn.BatchNorm2d(wide),
            )
            layers.append(BasicBlock(narrow, wide, 2, shortcut))  # (N, wide, S/2, S/2)
        layers.append(BasicBlock(widths[-1], widths[-1]))
        self.layers = nn.Sequential(*layers)
        self.attributes = nn.Sequential(nn.Dropout(0.2), nn.Linear(widths[-1], n_attributes))

    def features(self, faces):
        if faces.shape[-1] != 64:
            faces = F.interpolate(faces, size=(64, 64), mode="bilinear", antialias=True)
        return self.layers(faces).float().mean((2, 3))

    def forward(self, faces):
        return self.attributes(self.features(faces)).float()


@lru_cache(1)
def stored():
    """What the file holds: the names of the attributes, the weights, and how good they are."""
    if not WEIGHTS.exists():
        raise FileNotFoundError(
            f"{WEIGHTS.name} is missing from assets/{WEIGHTS.parent.name}: put back the file that "
            "comes with this notebook."
        )
    return torch.load(WEIGHTS, weights_only=True)


@lru_cache(1)
def load_face_network():
    """The names of CelebA's attributes, and the trained FaceNetwork in eval mode, on the CPU.

    Every call returns the same network: a caller that moves it to a GPU finds it there again.
    """
    names, weights = stored()["attributes"], stored()["weights"]
    network = FaceNetwork(n_attributes=len(names))
    network.load_state_dict({name: value.float() for name, value in weights.items()})
    return names, network.eval().to(memory_format=torch.channels_last)


def right_when_sure():
    """{attribute: the share of sure answers that are right}, of faces of CelebA held out.

    Sure means a probability of 80% or more; the faces have 32 pixels.
    """
    return dict(zip(stored()["attributes"], stored()["right_when_sure"].tolist()))


def attribute_logits(features, names):
    """Features (N, 144) -> logits (N, k) of these of CelebA's attributes, on the CPU."""
    known, network = load_face_network()
    device = next(network.parameters()).device
    with torch.no_grad():
        logits = network.attributes(features.to(device)).cpu()
    return logits[:, [known.index(name) for name in names]]


def to_lab(images):
    """Images (N, 3, H, W) in [-1, 1], sRGB -> CIE L*a*b* under D65, the same shape.

    L* is between 0 and 100, a* and b* are between about -100 and 100.
    """
    rgb = (images.clamp(-1, 1) + 1) / 2
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    matrix = torch.tensor(RGB_TO_XYZ, dtype=images.dtype, device=images.device)
    xyz = torch.einsum("ij,njhw->inhw", matrix, linear)
    root = xyz.clamp(min=1e-6) ** (1 / 3)
    x, y, z = torch.where(xyz > (6 / 29) ** 3, root, xyz * 841 / 108 + 4 / 29)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)
