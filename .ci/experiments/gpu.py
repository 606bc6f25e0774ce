"""What to run on the day that a GPU is there: nine minutes, a row of gpu.csv as each part ends.

    python .ci/experiments/gpu.py FACES [--only PART ...] [--seconds 1] [--minutes 1 2 3]

FACES: a folder of face photographs, or "drawn". The parts that matter most come first:

notebook    every code cell in small, as a script, on drawn faces
checkpoint  a run of 20 steps here, and 20 more on the processor. Where its folder, `--runs`, is
            taken to another machine, with another `--table`, 20 and 20 more are made there.
speed       images/s of the training step: the baseline, the lesson's, with TF32 in place of
            bfloat16, and, where there is CUDA, as one captured graph
faces       FACES at 32 pixels for a minute, at 64 for two and at 128 for three, scored

Nothing begins that would not end within the limit, in minutes. Rows that are there are not measured
again, so the next call continues. Without a GPU all parts but the graph run on the processor, which
is how they are tested.
"""

import contextlib
import functools
import json
import os
import tempfile
import time

import matplotlib

matplotlib.use("Agg")
import baseline
import matplotlib.pyplot as plt
import torch
from benchmark import images_per_second, notebook_networks
from common import (
    ROOT,
    RUNS,
    Table,
    device,
    helpers,
    lesson,
    optimizers_of,
    parser_of,
    parts_of,
    prepare,
    samples_of,
    train,
    train_until,
)
from results import scores

SMALL = {
    "data_dir": "drawn",
    "n_drawn": 1000,
    "max_minutes": 0.2,
    "experiment_images": 320,
    "d_conv_dim": 16,
    "g_conv_dim": 16,
}
BATCHES = 32, 128, 512
STEPS = 20  # of each half of the part `checkpoint`


def run_cells(settings, namespace):
    """Run every code cell with these settings in place of the notebook's; yields each source."""
    text = (ROOT / "dlnd_face_generation.ipynb").read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    for cell in cells:
        source = "".join(cell["source"])
        exec(compile(source, f"cell {cell['execution_count']}", "exec"), namespace)
        if "parameters" in cell["metadata"].get("tags", []):
            namespace.update(settings)
        yield source


def run_notebook(table, args):
    """Every code cell, in small: how long it took, with the checks."""
    home, began = os.getcwd(), time.perf_counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        try:
            for _ in run_cells(SMALL, {"__name__": "__main__"}):
                plt.close("all")
        finally:
            os.chdir(home)
    value = time.perf_counter() - began
    table.add(subject="every cell, in small", measure="seconds", value=value)


def run_checkpoint(table, args):
    """A run that continues, on the processor, from the checkpoint that it left on the device."""
    experiment = prepare("drawn", args.runs)
    folder, settings = args.runs / "checkpoint", experiment.settings
    for place in (device(), torch.device("cpu")):
        networks = [network.to(place) for network in lesson.fresh(settings)]
        run = helpers.Run(folder, {}, **parts_of(settings, *networks))
        more = STEPS * settings.batch_size
        run = run.extended(helpers.StopRule(images=run.resume().images + more))
        train(run, experiment.loader)
    table.add(subject="20 here, then on the processor", measure="steps", value=run.step)


# ---------------------------------------------------------------- speed


def steps_of_the_baseline(D, G, real):
    settings = lesson.settings.but(**baseline.SETTINGS)
    optimizers = optimizers_of(settings, D, G, baseline.adam)
    while True:
        baseline.step(D, G, real, *optimizers)
        yield len(real)


def steps_of_the_lesson(D, G, real):
    D, G, averaged, *optimizers = parts_of(lesson.settings, D, G).values()
    while True:
        lesson.train_step(D, G, real, *optimizers)
        averaged.update_parameters(G)
        yield len(real)


def steps_of_a_graph(D, G, real):
    """The lesson's step as one CUDA graph, replayed on a batch that stays in its place."""
    D, G, averaged, *optimizers = parts_of(lesson.settings, D, G).values()
    for optimizer in optimizers:
        optimizer.param_groups[0]["capturable"] = True
    batch, side = real.clone(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # as PyTorch asks for, before it captures
        for _ in range(3):
            lesson.train_step(D, G, batch, *optimizers)
    torch.cuda.current_stream().wait_stream(side)
    for optimizer in optimizers:
        optimizer.zero_grad()  # so that the gradients are the graph's own
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        losses = lesson.train_step(D, G, batch, *optimizers)
    while True:
        batch.copy_(real)
        graph.replay()
        for loss in losses:
            loss.clone()  # as a loop must: the next replay writes over them
        averaged.update_parameters(G)
        yield len(real)


@contextlib.contextmanager
def tf32():
    """Products of float32 matrices with ten bits of precision, and no autocast."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def ways():
    """{words: (steps, the context they run in)}; each on networks of its own."""
    autocast = functools.partial(helpers.autocast, device())
    found = {
        "baseline": (steps_of_the_baseline, contextlib.nullcontext),
        "the lesson": (steps_of_the_lesson, autocast),
        "the lesson, TF32": (steps_of_the_lesson, tf32),
    }
    if device().type == "cuda":
        found["the lesson, one graph"] = steps_of_a_graph, autocast
        found["the lesson, one graph, TF32"] = steps_of_a_graph, tf32
    return found


def run_speed(table, args):
    """Images/s at each size and batch, by each of `ways`; a way that fails has its error there."""
    for size in args.sizes:
        for batch in args.batches:
            real = 2 * torch.rand(batch, 3, size, size, device=device()) - 1
            real = real.contiguous(memory_format=torch.channels_last)
            for words, (steps, context) in ways().items():
                row = dict(size=size, subject=f"{words}, batch {batch}")
                if table.has(experiment="speed", **row) or not args.has_time_for(args.seconds / 30):
                    continue
                try:
                    with context():
                        loop = steps(*notebook_networks(size), real)
                        images_per_second(loop, args.seconds / 4)  # to warm up
                        value = images_per_second(loop, args.seconds)
                except RuntimeError as error:  # too little memory, or nothing that can be captured
                    value = str(error).splitlines()[0][:80]
                table.add(**row, measure="images/s", value=value)


# ---------------------------------------------------------------- faces


def run_faces(table, args):
    """FACES at each size for so many minutes, with scores on the test faces."""
    for size, minutes in zip(args.sizes, args.minutes):
        row = dict(size=size, minutes=f"{minutes:g}")
        if table.has(experiment="faces", **row) or not args.has_time_for(minutes + 0.5):
            continue
        experiment = prepare(args.faces, args.runs, image_size=size)
        settings, row["data"] = experiment.settings, experiment.data
        parts, stop = parts_of(settings, *lesson.fresh(settings)), helpers.StopRule(minutes)
        folder, whole = (
            args.runs / f"faces_{size}",
            dict(step=lesson.regularized_step, schedule="linear"),
        )
        run = train_until(stop, folder, experiment, parts, **whole)
        test = experiment.real("test")
        faces = samples_of(run, experiment, 2 * len(test))
        found = scores(faces, test, experiment.validation_features)
        for measure, value in found.items():
            words = f"batches of {settings.batch_size}"
            table.add(**row, subject=words, measure=measure, value=value, images=run.images)


class Part(Table):
    """The rows of one part."""

    def __init__(self, path, name):
        super().__init__(path)
        self.name = name

    def add(self, **values):
        super().add(experiment=self.name, **values)


PARTS = {
    "notebook": run_notebook,
    "checkpoint": run_checkpoint,
    "speed": run_speed,
    "faces": run_faces,
}


def main(arguments=None):
    parser = parser_of(__doc__, "gpu.csv")
    parser.set_defaults(runs=RUNS / "gpu")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS], metavar="PART")
    parser.add_argument("--seconds", type=float, default=1, help="of each measurement of speed")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 2, 3])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128], help="pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--limit", type=float, default=9, help="minutes of all parts together")
    args = parser.parse_args(arguments)

    args.runs, args.table = args.runs.absolute(), args.table.absolute()
    end = time.perf_counter() + 60 * args.limit
    args.has_time_for = lambda minutes: time.perf_counter() + 60 * minutes < end
    for name in PARTS:
        table = Part(args.table, name)
        is_whole = name in ("notebook", "checkpoint") and table.has(experiment=name)
        if name in args.only and not is_whole:
            PARTS[name](table, args)


if __name__ == "__main__":
    main()
