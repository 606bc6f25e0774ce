"""Score after equal numbers of steps, for larger batches and rates: a row each in equal_steps.csv.

    python .ci/experiments/equal_steps.py FACES [--steps 1000 3000 10000] [--seeds 0]

On a GPU a step costs about as much for 128 images as for 32. So there the score per step counts,
and that is the same on a processor. The step is the plain one; `rate` multiplies both learning
rates, which stay constant. A run that was stopped goes on from its checkpoint; rows that are in the
table are not measured again.
"""

import argparse
from pathlib import Path

import numpy as np
from common import HERE, RUNS, Table, helpers, is_past, lesson, machine, prepare, train_for

COLUMNS = (
    *("data", "batch", "rate", "seed", "steps", "images"),
    *("d_loss", "g_loss", "ffd_validation", "ffd", "machine"),
)
CASES = (32, 1.0), (64, 1.0), (128, 1.0), (256, 1.0), (64, 2**0.5), (128, 2.0), (256, 8**0.5)


def train(batch, rate, seed, steps, folder):
    """The run after so many steps, and its averaged generator, recalibrated."""
    lesson.seed = seed
    D, G = lesson.fresh()
    optimizers = lesson.adam(D, rate * lesson.d_lr), lesson.adam(G, rate * lesson.lr)
    loader = lesson.get_dataloader(batch, lesson.image_size, lesson.faces_dir, flip=True)
    settings, limit = dict(batch=batch, rate=rate, seed=seed), {"images": steps * batch}
    run = train_for(limit, folder, settings, loader, D, G, optimizers=optimizers)
    return run, helpers.recalibrate_batch_norm(run.parts["averaged"].module, lesson.z_size)


def main(arguments=None):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("faces")
    parser.add_argument("--steps", type=int, nargs="+", default=[1000, 3000, 10_000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, default=RUNS, help="where the runs are kept")
    parser.add_argument("--table", type=Path, default=HERE / "equal_steps.csv")
    args = parser.parse_args(arguments)

    data, table = prepare(args.faces, 32, runs=args.runs), Table(args.table, COLUMNS)
    test = helpers.face_features(lesson.real_faces("test"))
    for steps in sorted(args.steps):
        for seed in args.seeds:
            for batch, rate in CASES:
                row = dict(data=data, batch=batch, rate=f"{rate:.3g}", seed=seed, steps=steps)
                if table.has(**row):
                    continue
                folder = args.runs / "equal_steps" / data / f"{batch}_{rate:.3g}_{seed}"
                run, generator = train(batch, rate, seed, steps, folder)
                if is_past(run, images=steps * batch):
                    continue
                seen = helpers.face_features(lesson.sample_faces(generator, 5000, 1000 + seed))
                targets = lesson.validation_features, test
                scores = [lesson.frechet_distance(seen, target) for target in targets]
                row |= dict(zip(("d_loss", "g_loss"), np.mean(run.losses[-20:], 0).tolist()))
                row |= dict(images=run.images, ffd_validation=scores[0], ffd=scores[1])
                table.add(**row, machine=machine())


if __name__ == "__main__":
    main()
