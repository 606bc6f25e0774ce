"""Write the committed generator, celeba_32.pt and .onnx in assets/weights, from a checkpoint.

    python .ci/experiments/committed.py RUN/best.pt

The first file is a checkpoint to begin with (start_from): the discriminator, and the averaged
generator with batch statistics taken anew. The second holds the generator as data for onnxruntime:
"z" float32 (N, 100), standard normal -> "faces" (N, 3, 32, 32) in [-1, 1]. Prints both checksums
for the model card. Needs onnx and onnxscript.
"""

import argparse
import hashlib
from pathlib import Path

import onnx
import torch
from common import ROOT, helpers, load_generator

from assets.lib.checkpoints import SIZES, load_checkpoint


def to_onnx(generator, path):
    """Export for batches of any size, without the exporter's notes on where the code lay."""
    program = torch.onnx.export(
        generator,
        (torch.randn(2, generator.z_size),),
        dynamo=True,
        input_names=["z"],
        output_names=["faces"],
        dynamic_shapes={"z": {0: torch.export.Dim("N")}},
    )
    model = program.model_proto
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
    onnx.checker.check_model(model)
    onnx.save(model, path)


def main(arguments=None):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--folder", type=Path, default=ROOT / "assets" / "weights")
    args = parser.parse_args(arguments)

    G = load_generator(args.checkpoint)
    helpers.recalibrate_batch_norm(G, G.z_size)
    state = load_checkpoint(args.checkpoint)
    kept = {
        "settings": {name: state["settings"][name] for name in SIZES},
        "step": state["step"],
        "random_state": None,
        "D": state["D"],
        "G": G.state_dict(),
    }
    files = args.folder / "celeba_32.onnx", args.folder / "celeba_32.pt"
    to_onnx(G, files[0])
    torch.save(kept, files[1])
    for file in files:
        print(file.name, file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
