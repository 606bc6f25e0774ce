"""Train at a large size from the start, and grow there from 32 pixels: rows of growing.csv.

    python .ci/experiments/growing.py FACES [--size 128] [--minutes 20] [--seed 0] [--grown-only]
        [--start CHECKPOINT]

FACES: a folder of faces, or "drawn". Growing trains for half of the time at the smaller sizes, from
32 pixels on, and for the other half at the full one, where alone the rates fall; from the start
they fall in the second half. With --start, what grows is a checkpoint of half of the size, and all
of the time is for the full one. The generator's layers are carried over, and the discriminator
begins anew at each size: that of a long run would only guess. Each has the step of the lesson's
whole run and ends with the same networks, of half of the lesson's widths. Runs that were stopped go
on; a row for each score, and for those of the end on test faces.
"""

import argparse
import re
from pathlib import Path

from common import HERE, RUNS, Table, device, helpers, lesson, machine, prepare, train_for
from results import scores


def networks(size, smaller):
    """Networks for size / smaller pixels, wide enough to grow: half as wide at twice the size."""
    widths = [smaller * width // 2 for width in (lesson.d_conv_dim, lesson.g_conv_dim)]
    lesson.Discriminator.widest, lesson.Generator.widest = 16, 16  # small ones end as wide
    return lesson.fresh(size // smaller, widths)


def train(name, minutes, size, D, G, schedule="linear"):
    """A run at this size."""
    prepare_size(size)
    settings = {"name": name, "size": size, "minutes": minutes, "seed": lesson.seed}
    folder = Path(f"{lesson.out_dir}_growing", name)
    limit, step = {"minutes": minutes}, lesson.regularised_step
    return train_for(limit, folder, settings, lesson.loader, D, G, step, schedule=schedule)


def prepare_size(size):
    """The loader and the features of the validation faces, at this size."""
    if lesson.image_size == size:
        return
    lesson.image_size = size
    lesson.loader = lesson.get_dataloader(lesson.batch_size, size, lesson.faces_dir, flip=True)
    helpers.keep_on(device(), lesson.loader.dataset)
    lesson.validation_features = helpers.face_features(lesson.real_faces("validation"))


def grow(size, minutes, start=None):
    """The runs of the stages, each from the weights of the one before, the first from a file."""
    stages = [(4, 0.25), (2, 0.25), (1, 0.5)] if size >= 128 else [(2, 0.5), (1, 0.5)]
    runs, old = [], None
    if start:
        stages, (D, old) = [(1, 1)], networks(size, 2)
        helpers.begin_with(start, D, old)
    for smaller, share in stages:  # the size divided by so much, for such a share of the time
        D, G = networks(size, smaller)
        if old:
            lesson.carry_over(old, G)
        name = f"grown_to_{size // smaller}_of_{size}" + (f"_from_{start}" if start else "")
        name = re.sub(r"[^\w.]+", "_", name)
        schedule = "linear" if smaller == 1 else None
        runs.append(train(name, minutes * share, size // smaller, D, G, schedule))
        old = G
    return runs


def measures(stages):
    """Rows for the scores on the way, and for the end on test faces of its size."""
    seconds, test = 0.0, lesson.real_faces("test")
    for run in stages:
        for score in run.scores:
            words = f"at {run.settings['size']} pixels after {seconds + score[2]:.0f} s"
            yield words, "FFD", score[-1], 2000
        seconds += run.seconds
    faces = lesson.sample_faces(run.best_generator(), 2 * len(test), 1000 + lesson.seed)
    for measure, value in scores(faces, test).items():
        yield f"at {run.settings['size']} pixels, test faces", measure, value, len(test)


def main(arguments=None):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("faces")
    parser.add_argument("--size", type=int, default=128, choices=(64, 128), help="pixels")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grown-only", action="store_true", help="not also from the start")
    parser.add_argument("--start", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--table", type=Path, default=HERE / "growing.csv")
    args = parser.parse_args(arguments)

    data, table = prepare(args.faces, args.size, args.seed, args.runs), Table(args.table)
    words = "growing" + (f" from {args.start.as_posix()}" if args.start else "")
    row = dict(experiment=words, data=data, size=args.size)
    row |= dict(minutes=f"{args.minutes:.1f}", seed=args.seed)
    ways = {"grown": lambda: grow(args.size, args.minutes, args.start)}
    if not args.grown_only:
        whole = networks(args.size, 1)
        ways["from the start"] = lambda: [train("from_the_start", args.minutes, args.size, *whole)]
    for way, train_stages in ways.items():
        if table.has(**row, subject=f"{way}: at {args.size} pixels, test faces"):
            continue
        stages = train_stages()
        for subject, measure, value, n in measures(stages):
            values = dict(subject=f"{way}: {subject}", measure=measure, value=value, n=n)
            table.add(**row, **values, images=stages[-1].images, machine=machine())


if __name__ == "__main__":
    main()
