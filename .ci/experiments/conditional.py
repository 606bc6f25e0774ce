"""Train generators by label, or on equal shares of faces with and without one: conditional.csv.

    python .ci/experiments/conditional.py FACES [--labels NAME ...] [--images 350000] [--seed 0]
    python .ci/experiments/conditional.py FACES --balanced NAME [--images 175000]

FACES: a folder of faces with labels, or "drawn". The first form trains a
conditional GAN; a classifier that was trained on faces held out says how often its faces have the
labels that were asked for. The second trains without labels, on equal shares and on the data as it
is, and counts what the classifier sees. What is in the table is not made again; a run that was
stopped goes on. A conditional run leaves labels.png, some latents with each set of labels.
"""

import argparse
import dataclasses
import functools
import math
from pathlib import Path

import torch
from common import HERE, RUNS, Table, helpers, lesson, prepare
from PIL import Image

LABELS = ("Male", "Young", "Smiling", "Eyeglasses", "No_Beard")
SAMPLES = 5000  # whose labels are counted; a tenth of them for each of labels that exclude others


def label_faces(faces, names):
    """Let DecodedFaces serve these labels (B, k) in their batches -> those of the training faces."""
    faces.labels = torch.stack([faces.known[name] for name in names], 1).float()
    return faces.labels[faces.rows]


def classifier_of(faces):
    """An attribute classifier, its logits for faces that are held out, and their labels."""
    classifier = lesson.attribute_classifier(*lesson.some_of(faces.part("validation")))
    held_out, truth = lesson.some_of(faces.part("test"))
    return classifier, lesson.in_batches(classifier, held_out), truth


def latents(n, z_size, seed):
    return torch.randn(n, z_size, generator=torch.Generator().manual_seed(seed))


def save_labels(generator, sweep, path):
    """Twelve latents from left to right, a set of labels in each row."""
    z = latents(12, generator.z_size, 0)
    rows = [lesson.in_batches(generator, z, row.expand(12, -1)) for row in sweep]
    Image.fromarray(helpers.image_grid(torch.cat(rows), 12)).save(path)


def right_labels(generator, classifier, logits, truth, names):
    """Of labels that exclude each other: how often the classifier names the right one."""
    for k, name in enumerate(names):
        asked = torch.eye(len(names))[k].expand(SAMPLES // 10, -1)
        faces = lesson.in_batches(generator, latents(len(asked), generator.z_size, k), asked)
        named = lesson.in_batches(classifier, faces).argmax(1)
        real = logits[truth[:, k] == 1].argmax(1)
        for kind, values in (("real faces", real), ("generated", named)):
            yield name, f"right label, {kind}", (values == k).float().mean().item(), len(values)


def by_labels(experiment, names, images):
    """Train with labels -> the run, and rows (subject, measure, value, n)."""
    faces, settings = experiment.loader.dataset, experiment.settings
    labels = label_faces(faces, names)  # (n, k)
    D_kind = functools.partial(lesson.ProjectionDiscriminator, n_labels=len(names))
    G_kind = functools.partial(lesson.ConditionalGenerator, labels=labels)
    D, G = lesson.fresh(settings, D=D_kind, G=G_kind)
    bounded = settings.but(experiment_images=math.ceil(images / 12))  # the lesson's section: 12 x
    run = lesson.train_conditional(bounded, experiment.loader, D, G, [*names])
    classifier, logits, truth = classifier_of(faces)
    generator = run.best_generator()
    kept = generator.labels.cpu()  # (1000, k), as the data has them
    made = lesson.in_batches(generator, latents(len(kept), settings.z_size, 1), kept)
    generated = lesson.balanced_accuracy(lesson.in_batches(classifier, made), kept)
    rows = [("", "FFD", experiment.score(generator), 2000)]
    for name, real, made in zip(names, lesson.balanced_accuracy(logits, truth), generated):
        rows.append((name, "balanced accuracy, real faces", real.item(), len(truth)))
        rows.append((name, "balanced accuracy, generated", made.item(), len(kept)))
    sweep = lesson.label_sweep(kept)
    if len(sweep) == len(names):
        rows += right_labels(generator, classifier, logits, truth, names)
    save_labels(generator, sweep, run.folder / "labels.png")
    return run, rows


def balanced_by(experiment, name, images):
    """Train on the data as it is, and on equal shares -> the last run, and rows."""
    faces, settings = experiment.loader.dataset, experiment.settings
    labels = label_faces(faces, (name,))  # (n, 1)
    classifier, logits, truth = classifier_of(faces)
    rows = [(name, "share, labels", labels.mean().item(), len(labels))]
    rows += [(name, "share, real faces", (logits > 0).float().mean().item(), len(logits))]
    equal = lesson.balanced_loader(experiment.loader, labels[:, 0].long())
    bounded = settings.but(experiment_images=images)
    ways = ("generated", experiment.loader), ("generated from equal shares", equal)
    for words, loader in ways:
        networks = lesson.fresh(settings)
        run = lesson.experiment(f"{name} {words}", bounded, loader, *networks)
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
    parser.add_argument("--images", type=int, default=350_000, help="to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--table", type=Path, default=HERE / "conditional.csv")
    args = parser.parse_args(arguments)

    changes = dict(image_size=args.size, seed=args.seed)
    experiment, table = prepare(args.faces, args.runs, **changes), Table(args.table)
    words = f"labels {' '.join(args.labels)}"
    if args.balanced:
        words = f"equal shares of {args.balanced}"
    row = dict(experiment=words, data=experiment.data, size=args.size, seed=args.seed)
    row["images"] = args.images
    if table.has(**row):
        return
    name = f"{experiment.data} {words} {args.images}".replace(" ", "_")
    out_dir = Path(experiment.settings.out_dir).with_name(name)
    settings = experiment.settings.but(out_dir=str(out_dir))
    experiment = dataclasses.replace(experiment, settings=settings)
    if args.balanced:
        run, found = balanced_by(experiment, args.balanced, args.images)
    else:
        run, found = by_labels(experiment, tuple(args.labels), args.images)
    for subject, measure, value, n in found:
        table.add(**row, subject=subject, measure=measure, value=value, n=n)


if __name__ == "__main__":
    main()
