"""Train generators by label, or on equal shares of faces with and without one: conditional.csv.

    python .ci/experiments/conditional.py FACES [--labels NAME ...] [--minutes 10] [--seed 0]
    python .ci/experiments/conditional.py FACES --balanced NAME [--minutes 5]

FACES: a folder of faces with labels, or "drawn". The first form trains a
conditional GAN; a classifier that was trained on faces held out says how often its faces have the
labels that were asked for. The second trains without labels, on equal shares and on the data as it
is, and counts what the classifier sees. What is in the table is not made again; a run that was
stopped goes on. A conditional run leaves labels.png, some latents with each set of labels.
"""

import argparse
import functools
from pathlib import Path

import torch
from common import HERE, RUNS, Table, bounded_by, helpers, lesson, machine, prepare
from PIL import Image

LABELS = ("Male", "Young", "Smiling", "Eyeglasses", "No_Beard")
SAMPLES = 5000  # whose labels are counted; a tenth of them for each of labels that exclude others


def labelled_loader(names):
    """The lesson's loader, with these labels (B, k) in its batches."""
    loader, known = lesson.loader, lesson.loader.dataset.known
    loader.dataset.labels = torch.stack([known[name] for name in names], 1).float()
    return loader


def classifier_of(faces):
    """An attribute classifier, its logits for faces that are held out, and their labels."""
    torch.manual_seed(0)
    classifier = lesson.attribute_classifier(*lesson.some_of(faces.part("validation")))
    held_out, truth = lesson.some_of(faces.part("test"))
    return classifier, lesson.in_batches(classifier, held_out), truth


def latents(n, seed):
    return torch.randn(n, lesson.z_size, generator=torch.Generator().manual_seed(seed))


def save_labels(generator, sweep, path):
    """Twelve latents from left to right, a set of labels in each row."""
    rows = [lesson.in_batches(generator, latents(12, 0), row.expand(12, -1)) for row in sweep]
    Image.fromarray(helpers.image_grid(torch.cat(rows), 12)).save(path)


def right_labels(generator, classifier, logits, truth, names):
    """Of labels that exclude each other: how often the classifier names the right one."""
    for k, name in enumerate(names):
        asked = torch.eye(len(names))[k].expand(SAMPLES // 10, -1)
        faces = lesson.in_batches(generator, latents(len(asked), k), asked)
        named = lesson.in_batches(classifier, faces).argmax(1)
        real = logits[truth[:, k] == 1].argmax(1)
        for kind, values in (("real faces", real), ("generated", named)):
            yield name, f"right label, {kind}", (values == k).float().mean().item(), len(values)


def by_labels(names, minutes):
    """Train with labels -> the run, and rows (subject, measure, value, n)."""
    loader = labelled_loader(names)
    labels = loader.dataset.labels[loader.dataset.rows]  # (n, k)
    D_kind = functools.partial(lesson.ProjectionDiscriminator, n_labels=len(names))
    D, G = lesson.fresh(D=D_kind, G=functools.partial(lesson.ConditionalGenerator, labels=labels))
    options = dict(n_images=None, faces=loader, loop=lesson.train_conditional)
    with bounded_by(minutes):
        run = lesson.experiment("conditional", D, G, **options)
    classifier, logits, truth = classifier_of(loader.dataset)
    generator = run.best_generator()
    kept = generator.labels.cpu()  # (1000, k), as the data has them
    faces = lesson.in_batches(generator, latents(len(kept), 1), kept)
    generated = lesson.balanced_accuracy(lesson.in_batches(classifier, faces), kept)
    rows = [("", "FFD", lesson.score(generator), 2000)]
    for name, real, made in zip(names, lesson.balanced_accuracy(logits, truth), generated):
        rows.append((name, "balanced accuracy, real faces", real.item(), len(truth)))
        rows.append((name, "balanced accuracy, generated", made.item(), len(kept)))
    sweep = lesson.label_sweep(kept)
    if len(sweep) == len(names):
        rows += right_labels(generator, classifier, logits, truth, names)
    save_labels(generator, sweep, run.folder / "labels.png")
    return run, rows


def balanced_by(name, minutes):
    """Train on the data as it is, and on equal shares -> the last run, and rows."""
    loader = labelled_loader((name,))
    classifier, logits, truth = classifier_of(loader.dataset)
    labels = loader.dataset.labels[loader.dataset.rows]  # (n, 1)
    rows = [(name, "share, labels", labels.mean().item(), len(labels))]
    rows += [(name, "share, real faces", (logits > 0).float().mean().item(), len(logits))]
    equal = lesson.balanced_loader(loader, labels[:, 0].long())
    for words, faces in (("generated", loader), ("generated from equal shares", equal)):
        with bounded_by(minutes):
            run = lesson.experiment(f"{name} {words}", *lesson.fresh(), n_images=None, faces=faces)
        samples = lesson.sample_faces(run.best_generator(), SAMPLES, 1)
        share = (lesson.in_batches(classifier, samples) > 0).float().mean().item()
        rows.append((name, f"share, {words}", share, len(samples)))
    return run, rows


def main(arguments=None):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("faces")
    parser.add_argument("--labels", nargs="+", default=LABELS)
    parser.add_argument("--balanced")
    parser.add_argument("--size", type=int, default=32, help="pixels")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--table", type=Path, default=HERE / "conditional.csv")
    args = parser.parse_args(arguments)

    data, table = prepare(args.faces, args.size, args.seed, args.runs), Table(args.table)
    kind = f"labels {' '.join(args.labels)}"
    if args.balanced:
        kind = f"equal shares of {args.balanced}"
    row = dict(experiment=kind, data=data, size=args.size, minutes=f"{args.minutes:.1f}")
    row["seed"] = args.seed
    if table.has(**row):
        return
    name = f"{data} {kind} {args.minutes:g} minutes".replace(" ", "_")
    lesson.out_dir = str(Path(lesson.out_dir).with_name(name))
    if args.balanced:
        run, found = balanced_by(args.balanced, args.minutes)
    else:
        run, found = by_labels(tuple(args.labels), args.minutes)
    for subject, measure, value, n in found:
        table.add(
            **row, images=run.images, subject=subject, measure=measure,
            value=value, n=n, machine=machine(),
        )  # fmt: skip


if __name__ == "__main__":
    main()
