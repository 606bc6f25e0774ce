"""Where the time of a training step goes: rows of speed.csv.

    python .ci/experiments/where_time_goes.py FACES [--sizes 32 64] [--steps 100]

FACES: a folder of face photographs, or "drawn". PyTorch's profiler measures the lesson's training
loop, loading included, with default settings. The rows have the share of each kind of operation,
and the speed in GFLOP/s of all matrix products and convolutions. For comparison, the speed of
multiplying two 2,048 x 2,048 matrices is measured as well. Rows already in the table for this
machine are skipped. Close other programs first.
"""

import re
import time

import torch
from common import (
    Table,
    device,
    helpers,
    lesson,
    machine,
    parser_of,
    parts_of,
    prepare,
    train,
)
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

KINDS = {  # by the names of PyTorch's operations, in lower case; the first that matches
    "convolutions, backward": r"convolution_?backward",
    "convolutions, forward": r"convolution|conv2d|conv_",
    "linear layers": r"mm\b|linear",
    "normalization": r"batch_?norm",
    "activations and losses": r"relu|tanh|sigmoid|softplus|cross_?entropy",
    "Adam": r"adam",
    "averaged weights": r"lerp",
    "copies": r"copy|_to\b|clone|cat\b|contiguous|index|stack|fill|zero",
}
OTHER = "other operations"
PYTHON = "Python and loading"


def kind_of(operation):
    operation = operation.lower()
    found = (kind for kind, names in KINDS.items() if re.search(names, operation))
    return next(found, OTHER)


def trained(experiment, steps):
    """Train new networks for this many steps -> the Run."""
    settings = experiment.settings
    parts = parts_of(settings, *lesson.fresh(settings))
    run = helpers.Run(stop=helpers.StopRule(images=steps * settings.batch_size), **parts)
    train(run, experiment.loader)
    return run


def shares(experiment, steps):
    """The share of each kind of operation in the time of training."""
    trained(experiment, 10)  # warm up
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        started = time.perf_counter()
        trained(experiment, steps)
        seconds = time.perf_counter() - started
    spent = dict.fromkeys([*KINDS, OTHER], 0.0)
    for event in profiled.key_averages():
        spent[kind_of(event.key)] += event.self_cpu_time_total / 1e6
    spent[PYTHON] = max(0.0, seconds - sum(spent.values()))
    return {kind: value / seconds for kind, value in spent.items()}


def products(experiment):
    """Billions of floating-point operations per image in a step's products."""
    with FlopCounterMode(display=False) as counter:
        run = trained(experiment, 1)
    return counter.get_total_flops() / run.images / 1e9


def gigaflops_of_matrices(n=2048, times=10):
    """GFLOP/s of a matrix product, in the precision that training uses."""
    a, b = torch.randn(2, n, n, device=device())
    with helpers.autocast(device()):
        a @ b
        started = time.perf_counter()
        for _ in range(times):
            a @ b
    return times * 2 * n**3 / (time.perf_counter() - started) / 1e9


def measure(experiment, steps):
    """Yield (subject, measure, value)."""
    per_second, per_image = trained(experiment, steps).images_per_second, products(experiment)
    yield "training", "images/s", per_second
    yield "training", "GFLOP/image", per_image
    yield "training", "GFLOP/s", per_image * per_second
    yield "a product of matrices", "GFLOP/s", gigaflops_of_matrices()
    for kind, share in shares(experiment, steps).items():
        yield kind, "share of the time", share


def main(arguments=None):
    parser = parser_of(__doc__, "speed.csv")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args(arguments)
    table = Table(args.table)
    for size in args.sizes:
        experiment = prepare(args.faces, args.runs, image_size=size)
        row = dict(experiment="training step", data=experiment.data, size=size, machine=machine())
        if not table.has(**row):
            for subject, what, value in measure(experiment, args.steps):
                table.add(**row, subject=subject, measure=what, value=value, n=args.steps)


if __name__ == "__main__":
    main()
