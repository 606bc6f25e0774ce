"""Features of faces, FID and KID, and what scoring a generator needs."""

import copy
import http.client
from pathlib import Path

import torch
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.swa_utils import update_bn
from torch.utils.data import Subset

from assets.lib.devices import autocast, has_gpu
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

    Averaged weights make other activations than those whose statistics training has collected. The
    batches are as small as in training, where each is normalised by itself.
    Returns the generator in eval mode: from then on a latent gives the same face in any batch.
    """
    device, source = next(generator.parameters()).device, torch.Generator().manual_seed(seed)
    latents = (torch.randn(batch_size, z_size, generator=source) for _ in range(batches))
    with autocast(device):
        update_bn((z.to(device) for z in latents), generator)
    return generator.eval()


INCEPTION = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"  # ends in the first digits of the sha256
)


def face_features(faces, batch_size=250):
    """Faces (N, 3, S, S) in [-1, 1] -> features of the face network, float32 (N, 144), CPU."""
    device, features = torch.device("cuda" if has_gpu() else "cpu"), []
    network = load_face_network()[1].to(device)
    with torch.no_grad(), autocast(device):
        for batch in faces.split(batch_size):
            batch = batch.to(device, memory_format=torch.channels_last)
            features.append(network.features(batch).cpu())
    return torch.cat(features)


def inception_scores(real, fake):
    """{"FID": ..., "KID": ...} of images (N, 3, S, S) in [-1, 1]; without weights {} and a line.

    FID: Heusel et al., 2017; KID: Bińkowski et al., 2018.
    """
    from torch_fidelity import calculate_metrics  # here, because that takes seconds

    path = Path(torch.hub.get_dir(), "checkpoints", INCEPTION.rpartition("/")[2])
    try:
        with rank_0_first():
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(INCEPTION, str(path), path.stem[-8:], progress=False)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        print(f"No FID and KID without Inception's weights, {INCEPTION} ({error}).", end=" ")
        print(f"Put the file into {path.parent} to have them.")
        return {}
    torch.load(path, weights_only=True)  # refuses all but weights, as the library below does not
    inputs = {f"input{i}": Subset(to_bytes(x), range(len(x))) for i, x in ((1, real), (2, fake))}
    options = dict(fid=True, kid=True, kid_subset_size=min(1000, len(real), len(fake)))
    options |= dict(feature_extractor_weights_path=str(path), cuda=has_gpu(), verbose=False)
    scores = calculate_metrics(**inputs, **options, save_cpu_ram=True)  # without workers
    names = {"FID": "frechet_inception_distance", "KID": "kernel_inception_distance_mean"}
    return {name: scores[key] for name, key in names.items()}
