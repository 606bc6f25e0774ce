"""Write assets/celeba_32.pt and celeba_32.onnx, the committed generator, from a run's generator.

    python .ci/experiments/committed.py RUN/generator.pt2 FACES [--steps 2000]

FACES: the folder that it was trained on. The first file is a checkpoint to begin with (start_from).
Its discriminator is a new one, trained for so many steps against the finished generator, with R1:
that of the run was not kept. The second file holds the generator as data for onnxruntime: "z"
float32 (N, 100), standard normal -> "faces" (N, 3, 32, 32) in [-1, 1]. Prints both checksums for
the model card. Needs onnx and onnxscript.
"""

import argparse
import copy
import hashlib
import itertools
from pathlib import Path

import onnx
import torch
from common import ROOT, RUNS, lesson, prepare

from assets import run_files


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


def generator_of(path):
    """The lesson's Generator(100, 48) with the weights of an exported one."""
    weights = torch.export.load(path).state_dict
    generator = lesson.Generator(100, 48).eval()
    layers = {name: x for name, x in weights.items() if name.startswith("layers.")}
    generator.load_state_dict(layers)
    return generator


def discriminator_for(generator, n_steps):
    """A discriminator trained on the lesson's faces and on a generator that stays as it is."""
    D, _ = lesson.fresh()
    optimizer, G = lesson.adam(D, lesson.d_lr), copy.deepcopy(generator).train()
    batches = itertools.chain.from_iterable(itertools.repeat(lesson.loader))
    for step, (images, _) in enumerate(itertools.islice(batches, n_steps)):
        real = lesson.scale(images)
        with torch.no_grad():
            fake = G(torch.randn(len(real), G.z_size))
        loss = lesson.real_loss(D(real), smooth=True) + lesson.fake_loss(D(fake))
        extra = 16 * lesson.penalty(D, real, fake, r1=0.1) if step % 16 == 0 else 0
        lesson.update(D, optimizer, loss + extra)
        if step % 100 == 99:
            print(f"step {step + 1:,}: d_loss {loss:.2f}")
    return D


def main(arguments=None):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("generator", type=Path)
    parser.add_argument("faces")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--folder", type=Path, default=ROOT / "assets")
    args = parser.parse_args(arguments)
    prepare(args.faces, 32, runs=RUNS)
    generator = generator_of(args.generator)
    to_onnx(generator, args.folder / "celeba_32.onnx")
    D = discriminator_for(generator, args.steps)
    settings = {name: getattr(lesson, name) for name in run_files.SIZES}
    state = dict(settings=settings, step=args.steps, random_state=None, D=D.state_dict())
    torch.save(state | {"G": generator.state_dict()}, args.folder / "celeba_32.pt")
    for file in (args.folder / "celeba_32.onnx", args.folder / "celeba_32.pt"):
        print(file.name, file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
