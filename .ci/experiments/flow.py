"""Train a GAN and a flow for equal CPU time, and add the scores of their faces to flow.csv.

    python .ci/experiments/flow.py FACES [--only GAN flow] [--minutes 2 10 60] [--seed 0]

FACES: a folder of face photographs, or "drawn". The GAN is the notebook's whole run, the flow that
of its section "Why a GAN?"; the learning rates of both fall towards the end. First the images per
second of CPU time of both are measured in turns, with one thread. A run of n minutes sees as many
images as its kind takes in n minutes. The flow is scored with several numbers of steps. What is in
the table is not made again; a run that was stopped continues.
"""

import tempfile
import time
from pathlib import Path

import results
import torch
from common import Table, helpers, lesson, parser_of, prepare, train_until

KINDS = "GAN", "flow"
N_STEPS = 1, 2, 3, 6, 12  # of a flow, from noise to faces
SPEED = "images per second"
N_TIMED = 64  # batches trained on, and faces generated, in one measurement of speed


def train(kind, experiment, images, folder):
    """Train a GAN or a flow on so many images -> the Run."""
    settings = experiment.settings.but(out_dir=str(folder))
    if kind == "flow":
        return lesson.train_flow(settings, experiment.loader, images)
    settings, parts, options = results.build("notebook", settings)
    return train_until(helpers.StopRule(images=images), folder, experiment, parts, **options)


def cpu_seconds(call, *arguments):
    start = time.process_time()
    call(*arguments)
    return time.process_time() - start


def median(numbers):
    return sorted(numbers)[len(numbers) // 2]


def images_per_second(experiment, n_times=5):
    """Images that training sees per second of CPU time: {"GAN": ..., "flow": ...}."""
    seconds = {kind: [] for kind in KINDS}
    images = N_TIMED * experiment.settings.batch_size
    for _ in range(n_times):
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as folder:
                seconds[kind].append(cpu_seconds(train, kind, experiment, images, Path(folder)))
    return {kind: images / median(taken) for kind, taken in seconds.items()}


def milliseconds(generator, n_times=5):
    """CPU time for a generated face."""
    taken = [
        cpu_seconds(lesson.sample_faces, generator, N_TIMED, seed) for seed in range(1 + n_times)
    ]
    return 1000 * median(taken[1:]) / N_TIMED  # the first call is slower


def measures(generator, experiment, test):
    """What the table has of a generator: (measure, value)."""
    faces = lesson.sample_faces(generator, 2 * len(test), 1000 + experiment.settings.seed)
    yield from results.scores(faces, test, experiment.validation_features).items()
    yield "milliseconds a face", milliseconds(generator)


def versions(generator):
    """The generator as it is, or with each number of steps: (name, generator)."""
    if not hasattr(generator, "n_steps"):
        yield "", generator
        return
    for generator.n_steps in N_STEPS:
        yield f"{generator.n_steps} steps", generator


def speeds(table, experiment, row):
    """Images per second of CPU time of each kind: those in the table, else measured now."""
    found = {
        other["experiment"]: float(other["value"])
        for other in table.rows()
        if (other["data"], other["measure"]) == (experiment.data, SPEED)
    }
    if not found:
        found = images_per_second(experiment)
        for kind, value in found.items():
            table.add(**row, experiment=kind, measure=SPEED, value=value, n=N_TIMED)
    return found


def main(arguments=None):
    parser = parser_of(__doc__, "flow.csv")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 10, 60])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=32, help="pixels")
    args = parser.parse_args(arguments)

    torch.set_num_threads(1)
    experiment = prepare(args.faces, args.runs, image_size=args.size, seed=args.seed)
    row, table = dict(data=experiment.data, size=args.size, seed=args.seed), Table(args.table)
    test, per_second = experiment.real("test"), speeds(table, experiment, row)
    for minutes in sorted(args.minutes):
        for kind in args.only:
            asked = dict(**row, experiment=kind, minutes=f"{minutes:g}")
            if table.has(**asked):
                continue
            images = int(60 * minutes * per_second[kind])
            name = f"{kind}_{experiment.data}_{args.size}_{minutes:g}_minutes_{args.seed}"
            run = train(kind, experiment, images, Path(args.runs, "flow", name))
            found = [
                (subject, *pair)
                for subject, generator in versions(run.best_generator())
                for pair in measures(generator, experiment, test)
            ]  # all before the first is written: the table has a run's rows or none
            for subject, measure, value in found:
                counts = dict(images=run.images, n=len(test))
                table.add(**asked, **counts, subject=subject, measure=measure, value=value)


if __name__ == "__main__":
    main()
