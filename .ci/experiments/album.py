"""Train on a few faces of one kind, from nothing and from an earlier run: rows of album.csv.

    python .ci/experiments/album.py FACES [--label Wearing_Hat | --names PATTERN] [--n 100]
        [--start CHECKPOINT] [--minutes 2 20] [--augmented] [--seed 0]

FACES: a folder, or "drawn". --label and --names (a regular expression that file names begin with)
choose the kind; n faces of it are the album, and up to 2,000 others are there to test on. As in a
lesson on so few faces nothing is held out: the best moment is the one nearest to the album itself.

"copies": the share of 1,000 fakes that are closer to a face of the album than that face's own
neighbor is. Both it and the FFD have a row for the real faces held out ("real"): the FFD from them
to the album, the share that one sees without copying. A run that was stopped goes on; what is in
the table is not made again.
"""

import argparse
import dataclasses
import re
from pathlib import Path

import numpy as np
import torch
from common import HERE, RUNS, Table, helpers, is_past, lesson, prepare, train_until
from torch.utils.data import DataLoader


def album_of(faces, label, pattern, n):
    """A loader of n faces of a kind, in [0, 1], and up to 2,000 others of it, in [-1, 1]."""
    chosen = faces.parts >= 0
    if label:
        chosen &= faces.known[label]
    if pattern:
        chosen &= torch.tensor([bool(re.match(pattern, name)) for name in faces.names])
    rows = chosen.nonzero().flatten().numpy()
    if len(rows) < n + 50:
        raise SystemExit(f"{len(rows)} such faces are too few for {n} and 50 to test on.")
    rows = torch.from_numpy(np.random.default_rng(0).permutation(rows))
    faces.rows = rows[n : n + 2000]
    others = lesson.scale(faces.batch(range(len(faces)))[0].cpu())
    faces.rows = rows[:n]
    return DataLoader(faces, 32, True, drop_last=True, collate_fn=helpers.as_batch), others


def train(folder, experiment, minutes, start, augmented):
    """The run after so many minutes, begun with the weights of `start`, if given."""
    D, G = lesson.fresh(experiment.settings)
    if start:
        helpers.begin_with(start, D, G)
    step = lesson.step_with(seen=lambda x, run: lesson.shift(x)) if augmented else None
    name = f"from {start}, augmented {augmented}"
    return train_until(helpers.StopRule(minutes), folder, experiment, D, G, step, name=name)


def measures(faces, album, others):
    """FFD to the other faces, precision, recall; copies of the album: rows (measure, value)."""
    seen, real = helpers.face_features(faces), helpers.face_features(others)
    yield "FFD", lesson.frechet_distance(seen, real)
    yield from zip(("precision", "recall"), lesson.precision_recall(real, seen[: len(real)]))
    yield "copies", lesson.nearest_training_faces(seen[:1000], album)[1]


def add_real_faces(table, row, album, others):
    """What the other faces of the kind have, unless it is in the table."""
    if table.has(**row, subject="real"):
        return
    real = helpers.face_features(others)
    copies = lesson.nearest_training_faces(real, album)[1]
    distance = lesson.frechet_distance(album, real)
    for measure, value in (("FFD", distance), ("copies", copies)):
        values = dict(measure=measure, value=value, n=len(others))
        table.add(**row, minutes=0, subject="real", **values)


def main(arguments=None):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("faces")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--label")
    kind.add_argument("--names", metavar="PATTERN")
    parser.add_argument("--n", type=int, default=100, help="faces in the album")
    parser.add_argument("--start", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 20])
    parser.add_argument("--augmented", action="store_true", help="shift what D sees")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--table", type=Path, default=HERE / "album.csv")
    args = parser.parse_args(arguments)

    experiment, table = prepare(args.faces, args.runs, seed=args.seed), Table(args.table)
    loader, others = album_of(experiment.loader.dataset, args.label, args.names, args.n)
    training = lesson.scale(loader.dataset.batch(range(args.n))[0].cpu())
    album = helpers.face_features(training)
    experiment = dataclasses.replace(experiment, loader=loader, validation_features=album)
    words = f"album of {args.n}, {args.label or args.names or 'any'}"
    row = dict(experiment=words, data=experiment.data, size=32, seed=args.seed)
    add_real_faces(table, row, album, others)
    subject = f"from {args.start.name if args.start else 'nothing'}"
    subject += ", shifted" if args.augmented else ""
    for minutes in sorted(args.minutes):
        key = row | dict(minutes=f"{minutes:g}", subject=subject)
        if table.has(**key):
            continue
        name = "_".join(re.findall(r"\w+", f"{experiment.data} {words} {subject}"))
        folder = Path(args.runs, "album", name)
        run = train(folder, experiment, minutes, args.start, args.augmented)
        if is_past(run, minutes):
            continue
        faces = lesson.sample_faces(run.best_generator(), 5000, 1000 + args.seed)
        for measure, value in measures(faces, album, others):
            table.add(**key, images=run.images, measure=measure, value=value, n=len(others))


if __name__ == "__main__":
    main()
