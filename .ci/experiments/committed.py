"""Write a committed generator, celeba_SIZE.pt and .onnx in assets/weights, from a checkpoint.

    python .ci/experiments/committed.py RUN/best.pt

The first file is a checkpoint to begin with (start_from): the discriminator, and the averaged
generator with batch statistics taken anew. The second holds the generator as data for onnxruntime:
"z" float32 (N, 100), standard normal -> "faces" (N, 3, SIZE, SIZE) in [-1, 1]. If the run was
conditioned on attributes, the ONNX file also has an input "labels", float32 (N, k): 1, 0, or nan
for a label to draw as often as in the data. The checkpoint then holds networks without labels.
Prints both checksums for the model card. Needs onnx and onnxscript.
"""

import argparse
import hashlib
from pathlib import Path

import onnx
import torch
from common import ROOT, helpers, load_networks
from conditioning import ATTRIBUTES
from torch import nn

from assets.lib.checkpoints import SIZES, load_checkpoint


class WithDrawnLabels(nn.Module):
    """A conditional generator that draws the labels that are nan, as in the training data."""

    def __init__(self, generator):
        super().__init__()
        self.generator, self.z_size = generator, generator.z_size

    def forward(self, z, labels):
        G = self.generator
        rows = (z[:, :1] > G.edges).sum(1)  # equally likely, and the same for the same latent
        return G(z, torch.where(labels.isnan(), G.labels[rows], labels))


def to_onnx(generator, path, n_labels=0):
    """Export for batches of any size, without the exporter's notes on where the code lay."""
    inputs = {"z": torch.randn(2, generator.z_size)}
    if n_labels:
        inputs["labels"], generator = torch.rand(2, n_labels), WithDrawnLabels(generator).eval()
    program = torch.onnx.export(
        generator,
        (*inputs.values(),),
        dynamo=True,
        input_names=[*inputs],
        output_names=["faces"],
        dynamic_shapes={name: {0: torch.export.Dim("N")} for name in inputs},
    )
    model = program.model_proto
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
    if n_labels:
        onnx.helper.set_model_props(model, {"labels": ", ".join(ATTRIBUTES[:n_labels])})
    onnx.checker.check_model(model)
    onnx.save(model, path)


def without_labels(weights, z_size):
    """The weights of a plain G and D, from those of conditional ones.

    A label of one half, between no and yes, is 0 where it enters G: there its weights play no part.
    """
    first = "layers.0.weight"
    G = {name: weight for name, weight in weights["G"].items() if name not in ("labels", "edges")}
    D = {name: weight for name, weight in weights["D"].items() if name != "embedding.weight"}
    return {"G": G | {first: G[first][:, :z_size].clone()}, "D": D}


def main(arguments=None):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--folder", type=Path, default=ROOT / "assets" / "weights")
    args = parser.parse_args(arguments)

    _, G = load_networks(args.checkpoint)
    helpers.recalibrate_batch_norm(G, G.z_size)
    state = load_checkpoint(args.checkpoint)
    sizes = {name: state["settings"][name] for name in SIZES}
    weights = {"D": state["D"], "G": G.state_dict()}
    n_labels = weights["G"]["labels"].shape[1] if "labels" in weights["G"] else 0
    name = f"celeba_{sizes['image_size']}"
    files = args.folder / f"{name}.onnx", args.folder / f"{name}.pt"
    to_onnx(G, files[0], n_labels)
    if n_labels:
        weights = without_labels(weights, sizes["z_size"])
    kept = {"settings": sizes, "step": state["step"], "random_state": None}
    torch.save(kept | weights, files[1])
    for file in files:
        print(file.name, file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
