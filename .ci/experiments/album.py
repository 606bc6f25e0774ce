"""Train on a few faces of one kind, from random or from trained weights: rows of album.csv.

    python .ci/experiments/album.py FACES [--label Wearing_Hat | --names PATTERN] [--n 100]
        [--start CHECKPOINT] [--images 100000 1000000] [--augmented] [--seed 0]

FACES: a folder, or "drawn". --label or --names (a regular expression for the start of file names)
selects the kind of face. n of these faces are the album, and up to 2,000 others are the test set.
As in the lesson with so few faces, the best checkpoint is the one nearest to the album itself.

"copies" is the share of 1,000 fakes that are closer to a face of the album than that face's nearest
neighbor is. The rows "real" have the same share, and the FFD to the album, for the test faces.
"copies, leave one out" is the share for each face of the album against the others. Rows already in
the table are skipped, and a stopped run resumes.
"""

import dataclasses
import re
from pathlib import Path

import numpy as np
import torch
from common import (
    Table,
    helpers,
    is_past,
    lesson,
    parser_of,
    parts_of,
    prepare,
    samples_of,
    train_until,
)
from torch.utils.data import DataLoader

N_GENERATED = 5000


def album_of(faces, label, pattern, n):
    """A loader of n faces of one kind, in [0, 1], and up to 2,000 others of it, in [-1, 1]."""
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
    loader = DataLoader(faces, 32, shuffle=True, drop_last=True, collate_fn=helpers.as_batch)
    return loader, others


def train(folder, experiment, images, start, augmented):
    """Train on this many images, starting from the weights in `start` if given -> the Run."""
    D, G = lesson.fresh(experiment.settings)
    if start:
        helpers.begin_with(start, D, G)
    parts = parts_of(experiment.settings, D, G)
    step = lesson.step_with(seen=lambda x, run: lesson.shift(x)) if augmented else None
    name = f"from {start}, augmented {augmented}"
    return train_until(helpers.StopRule(images=images), folder, experiment, parts, name, step=step)


def measures(faces, album, others):
    """FFD to the other faces, precision, recall; copies of the album: rows (measure, value)."""
    seen, real = helpers.face_features(faces), helpers.face_features(others)
    yield "FFD", lesson.frechet_distance(seen, real)
    yield from zip(("precision", "recall"), lesson.precision_recall(real, seen[: len(real)]))
    yield "copies", lesson.nearest_training_faces(seen[:1000], album)[1]


def add_real_faces(table, row, album, others):
    """Add the rows of the test faces, unless they are in the table."""
    if table.has(**row, subject="real"):
        return
    real = helpers.face_features(others)
    copies = lesson.nearest_training_faces(real, album)[1]
    distance = lesson.frechet_distance(album, real)
    alone = "copies, leave one out", lesson.leave_one_out(album)
    for measure, value in (("FFD", distance), ("copies", copies), alone):
        table.add(**row, subject="real", measure=measure, value=value, n=len(others))


def add_run(table, row, experiment, others, args):
    """Rows for one run, unless they are in the table."""
    if table.has(**row):
        return
    words = [experiment.data, row["experiment"], row["subject"]]
    folder = Path(args.runs, "album", "_".join(re.findall(r"\w+", " ".join(words))))
    run = train(folder, experiment, row["images"], args.start, args.augmented)
    if is_past(run, images=row["images"]):
        return
    faces = samples_of(run, experiment, N_GENERATED)
    for measure, value in measures(faces, experiment.validation_features, others):
        table.add(**row, measure=measure, value=value, n=len(others))


def main(arguments=None):
    parser = parser_of(__doc__, "album.csv")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--label")
    kind.add_argument("--names", metavar="PATTERN")
    parser.add_argument("--n", type=int, default=100, help="faces in the album")
    parser.add_argument("--start", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--images", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--augmented", action="store_true", help="shift what D sees")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)

    experiment, table = prepare(args.faces, args.runs, seed=args.seed), Table(args.table)
    loader, others = album_of(experiment.loader.dataset, args.label, args.names, args.n)
    album = helpers.face_features(lesson.scale(loader.dataset.batch(range(args.n))[0].cpu()))
    experiment = dataclasses.replace(experiment, loader=loader, validation_features=album)
    words = f"album of {args.n}, {args.label or args.names or 'any'}"
    row = dict(experiment=words, data=experiment.data, size=32, seed=args.seed)
    add_real_faces(table, row, album, others)
    subject = f"from {args.start.name if args.start else 'nothing'}"
    subject += ", shifted" if args.augmented else ""
    for images in sorted(args.images):
        add_run(table, row | dict(subject=subject, images=images), experiment, others, args)


if __name__ == "__main__":
    main()
