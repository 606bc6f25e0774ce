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

from common import HERE, RUNS, Table, helpers, lesson, load, prepare, train_until
from results import scores


def settings_at(settings, smaller):
    """Settings for 1 / smaller of the size, as wide as fits growing: half as wide at twice it."""
    return settings.but(
        image_size=settings.image_size // smaller,
        d_conv_dim=smaller * settings.d_conv_dim // 2,
        g_conv_dim=smaller * settings.g_conv_dim // 2,
    )


def networks(settings):
    """D and G that may be 16 times as wide as their conv_dim, so that small ones end as wide."""
    kinds = dict(D=lesson.Discriminator, G=lesson.Generator)
    wide = {name: type(name, (kind,), {"widest": 16}) for name, kind in kinds.items()}
    return lesson.fresh(settings, **wide)


def train(name, minutes, settings, D, G, schedule="linear"):
    """A run with these settings -> the Experiment and the Run."""
    experiment = load(settings)
    folder, stop = Path(f"{settings.out_dir}_growing", name), helpers.StopRule(minutes)
    options = dict(step=lesson.regularized_step, schedule=schedule, name=name)
    return experiment, train_until(stop, folder, experiment, D, G, **options)


def grow(settings, minutes, start=None):
    """The stages, each from the weights of the one before, the first from a file."""
    size, found, old = settings.image_size, [], None
    stages = [(4, 0.25), (2, 0.25), (1, 0.5)] if size >= 128 else [(2, 0.5), (1, 0.5)]
    if start:
        stages, (D, old) = [(1, 1)], networks(settings_at(settings, 2))
        helpers.begin_with(start, D, old)
    for smaller, share in stages:  # the size divided by so much, for such a share of the time
        stage = settings_at(settings, smaller)
        D, G = networks(stage)
        if old:
            lesson.carry_over(old, G)
        name = f"grown_to_{stage.image_size}_of_{size}" + (f"_from_{start}" if start else "")
        name = re.sub(r"[^\w.]+", "_", name)
        schedule = "linear" if smaller == 1 else "constant"
        found.append(train(name, minutes * share, stage, D, G, schedule))
        old = G
    return found


def from_the_start(settings, minutes):
    settings = settings_at(settings, 1)
    return [train("from_the_start", minutes, settings, *networks(settings))]


def measures(stages):
    """Rows for the scores on the way, and for the end on test faces of its size."""
    seconds = 0.0
    for experiment, run in stages:
        size = experiment.settings.image_size
        for score in run.scores:
            yield f"at {size} pixels after {seconds + score[2]:.0f} s", "FFD", score[-1], 2000
        seconds += run.seconds
    test = experiment.real("test")
    latent_seed = 1000 + experiment.settings.seed
    faces = lesson.sample_faces(run.best_generator(), 2 * len(test), latent_seed)
    for measure, value in scores(faces, test, experiment.validation_features).items():
        yield f"at {size} pixels, test faces", measure, value, len(test)


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

    changes = dict(image_size=args.size, seed=args.seed)
    experiment, table = prepare(args.faces, args.runs, **changes), Table(args.table)
    words = "growing" + (f" from {args.start.as_posix()}" if args.start else "")
    row = dict(experiment=words, data=experiment.data, size=args.size)
    row |= dict(minutes=f"{args.minutes:.1f}", seed=args.seed)
    ways = {"grown": lambda: grow(experiment.settings, args.minutes, args.start)}
    if not args.grown_only:
        ways["from the start"] = lambda: from_the_start(experiment.settings, args.minutes)
    for way, train_stages in ways.items():
        if table.has(**row, subject=f"{way}: at {args.size} pixels, test faces"):
            continue
        stages = train_stages()
        _, last = stages[-1]
        for subject, measure, value, n in measures(stages):
            values = dict(subject=f"{way}: {subject}", measure=measure, value=value, n=n)
            table.add(**row, **values, images=last.images)


if __name__ == "__main__":
    main()
