"""Train a GAN and a flow for equal CPU time, and add the scores of their faces to flow.csv.

    python .ci/experiments/flow.py FACES [--only GAN flow] [--minutes 2 10 60] [--seed 0]
        [--picture flow.png]

FACES: a folder of face photographs, or "drawn". The GAN is the notebook's whole run. The flow is
that of its section "Why a GAN?". The learning rates of both fall toward the end. Minutes are CPU
time on one thread, so other programs do not matter. The flow is scored with several numbers of
steps from noise to faces. Rows already in the table are skipped, and a stopped run resumes.
--picture writes a row of eight faces for each run.
"""

import time
from pathlib import Path
from unittest import mock

import results
import torch
from common import Table, helpers, lesson, parser_of, prepare, train_until
from PIL import Image

from assets.lib.clocks import Clock
from assets.lib.figures import image_grid

KINDS = "GAN", "flow"
N_STEPS = 1, 3, 6, 12  # of a flow, from noise to faces
N_TIMED = 64  # faces


def train(kind, experiment, minutes, folder):
    """Train a GAN or a flow for this many minutes of CPU time -> the Run."""
    settings, stop = experiment.settings.but(out_dir=str(folder)), helpers.StopRule(minutes)
    with mock.patch.object(Clock, "now", staticmethod(time.process_time)):
        if kind == "flow":
            return lesson.train_flow(settings, experiment.loader, stop)
        settings, parts, options = results.build("notebook", settings)
        return train_until(stop, folder, experiment, parts, **options)


def milliseconds(generator, n_times=5):
    """The CPU time of a generated face: a median."""
    seconds = []
    for seed in range(n_times + 1):
        start = time.process_time()
        lesson.sample_faces(generator, N_TIMED, seed)
        seconds.append(time.process_time() - start)
    return 1000 * sorted(seconds[1:])[n_times // 2] / N_TIMED  # the first call is slower


def measures(generator, experiment, test):
    """What the table has of a generator: (measure, value)."""
    faces = lesson.sample_faces(generator, 2 * len(test), 1000 + experiment.settings.seed)
    yield from results.scores(faces, test, experiment.validation_features).items()
    yield "ms a face", milliseconds(generator)


def versions(generator):
    """The generator as it is, or with each number of steps: (name, generator)."""
    if not hasattr(generator, "n_steps"):
        yield "", generator
        return
    for generator.n_steps in N_STEPS:
        yield f"{generator.n_steps} steps", generator


def scored(run, experiment, test):
    """All rows of a run: (subject, measure, value)."""
    for subject, generator in versions(run.best_generator()):
        for measure, value in measures(generator, experiment, test):
            yield subject, measure, value


def main(arguments=None):
    parser = parser_of(__doc__, "flow.csv")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 10, 60])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=32, help="pixels")
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args(arguments)

    torch.set_num_threads(1)
    experiment = prepare(args.faces, args.runs, image_size=args.size, seed=args.seed)
    row, table = dict(data=experiment.data, size=args.size, seed=args.seed), Table(args.table)
    test, faces = experiment.real("test"), []
    for kind in args.only:
        for minutes in sorted(args.minutes):
            asked = dict(**row, experiment=kind, minutes=f"{minutes:g}")
            if table.has(**asked) and not args.picture:
                continue
            name = f"{kind}_{experiment.data}_{args.size}_{minutes:g}_minutes_{args.seed}"
            run = train(kind, experiment, minutes, Path(args.runs, "flow", name))
            faces.append(lesson.sample_faces(run.best_generator(), 8, args.seed))
            if table.has(**asked):
                continue
            counts = dict(images=run.images, n=len(test))
            for subject, measure, value in [*scored(run, experiment, test)]:  # all or none
                table.add(**asked, **counts, subject=subject, measure=measure, value=value)
    if args.picture:
        Image.fromarray(image_grid(torch.cat(faces), 8)).save(args.picture, optimize=True)


if __name__ == "__main__":
    main()
