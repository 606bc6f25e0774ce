"""Write the committed generator, assets/celeba_32.pt and celeba_32.onnx, from a run's generator.

    python .ci/experiments/committed.py RUN/generator.pt2

The first file holds the weights of the lesson's `Generator(100, 48)`; the second the same network
as data for onnxruntime: "z" float32 (N, 100), standard normal -> "faces" (N, 3, 32, 32) in [-1, 1].
Prints both checksums for the model card. Needs onnx and onnxscript.
"""

import argparse
import hashlib
from pathlib import Path

import onnx
import torch
from common import ROOT, load_generator


def to_onnx(generator, path):
    """Export for batches of any size, without the exporter's notes on where the code lay."""
    names = {"input_names": ["z"], "output_names": ["faces"]}
    sizes = {"dynamic_shapes": {"z": {0: torch.export.Dim("N")}}}
    z = torch.randn(2, generator.z_size)
    program = torch.onnx.export(generator, (z,), dynamo=True, **names, **sizes)
    model = program.model_proto
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
    onnx.checker.check_model(model)
    onnx.save(model, path)


def main(arguments=None):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("generator", type=Path)
    parser.add_argument("--folder", type=Path, default=ROOT / "assets")
    args = parser.parse_args(arguments)
    weights = torch.export.load(args.generator).state_dict
    weights = {name: x for name, x in weights.items() if name.startswith("layers.")}
    files = args.folder / "celeba_32.pt", args.folder / "celeba_32.onnx"
    torch.save({"generator": weights}, files[0])
    to_onnx(load_generator(files[0]), files[1])
    for file in files:
        print(file.name, file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
