"""Features of faces; FID, KID and FD-DINOv2; batch-norm statistics; the table of a network."""

import copy
import http.client
from pathlib import Path

import torch
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.swa_utils import update_bn
from torch.utils.data import Subset

from assets.lib.devices import autocast, explain_too_little_memory, has_gpu
from assets.lib.figures import to_bytes
from assets.lib.network import load_face_network
from assets.lib.ranks import rank_0_first


def summary(network, *input_shape):
    """Print a network's layers, output shapes and parameters, for an input (2, *input_shape)."""
    network = copy.deepcopy(network).eval()  # in training mode its running statistics would change
    names = {layer: name for name, layer in network.named_modules() if not list(layer.children())}

    def show(layer, inputs, output):
        if layer in names:
            name = f"{names[layer]} {type(layer).__name__}"
            count = sum(p.numel() for p in layer.parameters())
            print(f"  {name:32} {str(tuple(output.shape[1:])):18} {count:>10,}")

    print(f"{type(network).__name__}: input {input_shape}")
    print(f"  {'layer':32} {'output':18} {'parameters':>10}")
    with torch.no_grad(), register_module_forward_hook(show):
        network(torch.zeros(2, *input_shape, device=next(network.parameters()).device))
    print(f"  {'parameters':51} {sum(p.numel() for p in network.parameters()):>10,}\n")


def recalibrate_batch_norm(generator, z_size, batches=100, batch_size=32, seed=0):
    """Give a generator batch-norm statistics that fit its weights, from latents of a fixed seed.

    Averaged weights produce different activations from those that training took statistics of. The
    batches are as small as in training, where each is normalized by itself.
    Returns the generator in eval mode: from then on a latent gives the same face in any batch.
    """
    device, source = next(generator.parameters()).device, torch.Generator().manual_seed(seed)
    latents = (torch.randn(batch_size, z_size, generator=source) for _ in range(batches))
    with autocast(device):
        update_bn((z.to(device) for z in latents), generator)
    return generator.eval()


WEIGHTS = {  # by what needs them: the address, and the first digits of the sha256
    "FID and KID": (
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth",
        "6726825d",
    ),
    "FD-DINOv2": (
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
        "b938bf1b",
    ),
}
MISSING = OSError, RuntimeError, http.client.HTTPException


@explain_too_little_memory()
def face_features(faces, batch_size=250):
    """Faces (N, 3, S, S) in [-1, 1] -> features of the face network, float32 (N, 144), CPU."""
    device, features = torch.device("cuda" if has_gpu() else "cpu"), []
    network = load_face_network()[1].to(device)
    with torch.no_grad(), autocast(device):
        for batch in faces.split(batch_size):
            batch = batch.to(device, memory_format=torch.channels_last)
            features.append(network.features(batch).cpu())
    return torch.cat(features)


@explain_too_little_memory()
def inception_scores(real, fake):
    """{"FID": ..., "KID": ..., "FD-DINOv2": ...} of images (N, 3, S, S) in [-1, 1].

    FID: Heusel et al., 2017; KID: Bińkowski et al., 2018; the Fréchet distance in features of
    DINOv2, whose code is downloaded, too: Stein et al., 2023. A line says which cannot be measured.
    """
    from torch_fidelity import calculate_metrics  # here, because that takes seconds

    inputs = {f"input{i}": Subset(to_bytes(x), range(len(x))) for i, x in ((1, real), (2, fake))}
    options = inputs | {"cuda": has_gpu(), "verbose": False, "save_cpu_ram": True, "fid": True}
    scores = {}
    if path := fetch_weights("FID and KID"):
        size = min(1000, len(real), len(fake))
        kid = {"kid": True, "kid_subset_size": size, "feature_extractor_weights_path": str(path)}
        found = calculate_metrics(**options, **kid)
        scores["FID"] = found["frechet_inception_distance"]
        scores["KID"] = found["kernel_inception_distance_mean"]
    if fetch_weights("FD-DINOv2") and fetch_dinov2():
        found = calculate_metrics(**options, feature_extractor="dinov2-vit-s-14")
        scores["FD-DINOv2"] = found["frechet_inception_distance"]
    return scores


def fetch_weights(scores):
    """The path of the weights that these scores need, downloaded unless they are there.

    None, after a printed line, if they cannot be downloaded. UnpicklingError if they hold more
    than weights.
    """
    url, sha256 = WEIGHTS[scores]
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    try:
        with rank_0_first():
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(url, str(path), sha256, progress=False)
    except MISSING as error:
        print(f"No {scores} without {url} ({error}). Put the file into {path.parent} to get them.")
        return None
    torch.load(path, weights_only=True)  # refuses all else, as torch-fidelity does not
    return path


def fetch_dinov2():
    """Whether torch-fidelity has DINOv2, whose code it downloads; if not, a line says so."""
    try:
        from torch_fidelity import FeatureExtractorDinoV2

        with rank_0_first():
            FeatureExtractorDinoV2("dinov2-vit-s-14", ["dinov2"])
        return True
    except ImportError:
        print("No FD-DINOv2 without torch-fidelity 0.4: pip install -U torch-fidelity.")
    except MISSING as error:
        print(f"No FD-DINOv2 without https://github.com/facebookresearch/dinov2 ({error}).")
    return False
