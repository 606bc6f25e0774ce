"""Train at a large size from the start, and by growing from 32 pixels: rows of growing.csv.

    python .ci/experiments/growing.py FACES [--size 128] [--images 300000] [--seed 0] [--grown-only]
        [--start CHECKPOINT]

FACES: a folder of faces, or "drawn". Growing uses half of the images at smaller sizes, starting at
32 pixels, and the other half at the full size. There the learning rates fall; without growing they
fall in the second half of the run. --start grows a checkpoint of half the size, and all images are
used at the full size. The generator's layers are carried over. The discriminator starts from random
weights at each size, because one from a long run could not tell real from fake. Both ways use the
step of the lesson's whole run and end with the same networks, half as wide as the lesson's. Each
stage adds rows for its seconds and its scores, and the last one for its scores on test faces. A
stopped run resumes.
"""

import re
from pathlib import Path

from common import (
    Table,
    helpers,
    lesson,
    load,
    parser_of,
    parts_of,
    prepare,
    samples_of,
    train_until,
)
from results import scores


def settings_at(settings, smaller):
    """Settings for 1 / smaller of the size, with twice the width at half the size."""
    return settings.but(
        image_size=settings.image_size // smaller,
        d_conv_dim=smaller * settings.d_conv_dim // 2,
        g_conv_dim=smaller * settings.g_conv_dim // 2,
    )


def networks(settings):
    """D and G up to 16 times as wide as their conv_dim, so that the small ones are wide enough."""
    kinds = dict(D=lesson.Discriminator, G=lesson.Generator)
    wide = {name: type(name, (kind,), {"widest": 16}) for name, kind in kinds.items()}
    return lesson.fresh(settings, **wide)


def train(name, images, settings, D, G, schedule="linear"):
    """A run with these settings -> the Experiment and the Run."""
    experiment, name = load(settings), re.sub(r"[^\w.]+", "_", f"{name}_{images}")
    folder, stop = Path(f"{settings.out_dir}_growing", name), helpers.StopRule(images=images)
    parts, step = parts_of(settings, D, G), lesson.regularized_step
    return experiment, train_until(
        stop, folder, experiment, parts, name, step=step, schedule=schedule
    )


def grow(settings, images, start=None):
    """The stages, each with the weights of the stage before; the first may begin with a file."""
    size, stages, old = settings.image_size, [], None
    plan = [(4, 0.25), (2, 0.25), (1, 0.5)] if size >= 128 else [(2, 0.5), (1, 0.5)]
    if start:
        plan, (D, old) = [(1, 1)], networks(settings_at(settings, 2))
        helpers.begin_with(start, D, old)
    for smaller, share in plan:  # the size divided by so much, for such a share of the images
        stage = settings_at(settings, smaller)
        D, G = networks(stage)
        if old:
            lesson.carry_over(old, G)
        name = f"grown_to_{stage.image_size}_of_{size}" + (f"_from_{start.name}" if start else "")
        schedule = "linear" if smaller == 1 else "constant"
        stages.append(train(name, round(images * share), stage, D, G, schedule))
        old = G
    return stages


def from_the_start(settings, images):
    settings = settings_at(settings, 1)
    return [train("from_the_start", images, settings, *networks(settings))]


def measures(stages):
    """Rows (subject, measure, value, n): those of each stage, and the scores on test faces."""
    images = 0
    for experiment, run in stages:
        size = experiment.settings.image_size
        yield f"at {size} pixels", "seconds of training", run.seconds, ""
        for score in run.scores:
            subject = f"at {size} pixels after {images + score[1]:,} images"
            yield subject, "FFD", score[-1], len(experiment.validation_features)
        images += run.images
    test = experiment.real("test")
    faces = samples_of(run, experiment, 2 * len(test))
    for measure, value in scores(faces, test, experiment.validation_features).items():
        yield f"at {size} pixels, test faces", measure, value, len(test)


def main(arguments=None):
    parser = parser_of(__doc__, "growing.csv")
    parser.add_argument("--size", type=int, default=128, choices=(64, 128), help="pixels")
    parser.add_argument("--images", type=int, default=300_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grown-only", action="store_true", help="not also from the start")
    parser.add_argument("--start", type=Path, metavar="CHECKPOINT")
    args = parser.parse_args(arguments)

    experiment = prepare(args.faces, args.runs, image_size=args.size, seed=args.seed)
    settings, table = experiment.settings, Table(args.table)
    words = "growing" + (f" from {args.start.name}" if args.start else "")
    row = dict(experiment=words, data=experiment.data, size=args.size)
    row |= dict(images=args.images, seed=args.seed)
    ways = {"grown": lambda: grow(settings, args.images, args.start)}
    if not args.grown_only:
        ways["from the start"] = lambda: from_the_start(settings, args.images)
    for way, train_stages in ways.items():
        if table.has(**row, subject=f"{way}: at {args.size} pixels, test faces"):
            continue
        for subject, measure, value, n in measures(train_stages()):
            table.add(**row, subject=f"{way}: {subject}", measure=measure, value=value, n=n)


if __name__ == "__main__":
    main()
