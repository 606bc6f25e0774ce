"""Train generators with labels, or on faces balanced by a label: rows of conditional.csv.

    python .ci/experiments/conditional.py FACES [--labels NAME ...] [--predicted] [--images 350000]
        [--seed 0]
    python .ci/experiments/conditional.py FACES --generator celeba_64.onnx --size 64
    python .ci/experiments/conditional.py FACES --balanced NAME [--images 175000]

FACES: a folder of faces with labels, or "drawn". The first form trains a conditional GAN. A
classifier trained on held-out faces measures how often the generated faces have the labels that
were asked for. With --predicted the GAN trains on labels that the face network predicts, and only
on faces where it is sure; the classifier still learns the true labels. The second form measures a
generator that committed.py wrote. The third trains without labels, on balanced faces and on the
data as it is, and counts what the classifier predicts. Rows already in the table are skipped, and a
stopped run resumes. A conditional run writes labels.png: a few latents with each set of labels.
"""

import copy
import dataclasses
import functools
import math
from pathlib import Path

import torch
from common import Table, helpers, lesson, load_generator, parser_of, prepare
from PIL import Image
from torch.utils.data import DataLoader

from assets.lib.figures import image_grid

LABELS = "Male", "Young", "Smiling", "Eyeglasses", "No_Beard"
N_SAMPLES = 5000  # whose labels are counted; a tenth of them for each of labels that exclude others


def label_faces(faces, names):
    """Make DecodedFaces serve these labels in batches -> those of the training faces, (n, k)."""
    faces.labels = torch.stack([faces.known[name] for name in names], 1).float()
    return faces.labels[faces.rows]


def predicted_loader(loader, names):
    """A loader of the faces that the face network is sure of, with the labels that it predicts."""
    faces = copy.copy(loader.dataset)
    faces.known = {}
    faces, usable = helpers.choose_labels(helpers.with_labels(faces), names)
    if usable != [*names]:
        raise ValueError(f"The face network is sure of too few faces for {', '.join(names)}.")
    options = dict(shuffle=True, drop_last=True, collate_fn=helpers.as_batch)
    return DataLoader(faces, loader.batch_size, **options)


def classifier_of(faces):
    """An attribute classifier, its logits for test faces, and their labels."""
    classifier = lesson.attribute_classifier(*lesson.some_of(faces.part("validation")))
    held_out, truth = lesson.some_of(faces.part("test"))
    return classifier, lesson.in_batches(classifier, held_out), truth


def latents(n, z_size, seed):
    return torch.randn(n, z_size, generator=torch.Generator().manual_seed(seed))


def share_above_0(logits):
    return (logits > 0).float().mean().item()


# ---------------------------------------------------------------- a conditional generator


def train_by_labels(experiment, names, images, predicted=False):
    """Train a conditional GAN on these labels -> the Run."""
    settings, loader = experiment.settings, experiment.loader
    if predicted:
        loader = predicted_loader(loader, names)
    labels = label_faces(loader.dataset, names)  # (n, k)
    D_kind = functools.partial(lesson.ProjectionDiscriminator, n_labels=len(names))
    G_kind = functools.partial(lesson.ConditionalGenerator, labels=labels)
    D, G = lesson.fresh(settings, D=D_kind, G=G_kind)
    bounded = settings.but(experiment_images=math.ceil(images / 12))  # the lesson's section: 12 x
    return lesson.train_conditional(bounded, loader, D, G, [*names])


def right_labels(generator, classified, names):
    """For mutually exclusive labels: how often the classifier predicts the right one."""
    classifier, logits, truth = classified
    for k, name in enumerate(names):
        asked = torch.eye(len(names))[k].expand(N_SAMPLES // 10, -1)
        z = latents(N_SAMPLES // 10, generator.z_size, k)
        faces = lesson.in_batches(generator, z, asked)
        named = {
            "real faces": logits[truth[:, k] == 1].argmax(1),
            "generated": lesson.in_batches(classifier, faces).argmax(1),
        }
        for kind, found in named.items():
            share = (found == k).float().mean().item()
            yield name, f"right label, {kind}", share, len(found)


def balanced_accuracies(generator, classified, names, asked):
    """How often the classifier finds the labels of real faces, and those asked for, (n, k)."""
    classifier, logits, truth = classified
    faces = lesson.in_batches(generator, latents(len(asked), generator.z_size, 1), asked)
    real = lesson.balanced_accuracy(logits, truth)
    generated = lesson.balanced_accuracy(lesson.in_batches(classifier, faces), asked)
    for k, name in enumerate(names):
        yield name, "balanced accuracy, real faces", real[k].item(), len(truth)
        yield name, "balanced accuracy, generated", generated[k].item(), len(asked)


def save_labels(generator, sweep, path):
    """Save a picture of twelve latents (columns) with each set of labels (rows)."""
    z = latents(12, generator.z_size, 0)
    rows = [lesson.in_batches(generator, z, row.expand(12, -1)) for row in sweep]
    Image.fromarray(image_grid(torch.cat(rows), 12)).save(path)


def by_labels(experiment, names, images, predicted):
    """Train with labels -> rows (subject, measure, value, n)."""
    label_faces(experiment.loader.dataset, names)
    classified = classifier_of(experiment.loader.dataset)  # by the true labels
    run = train_by_labels(experiment, names, images, predicted)
    generator = run.best_generator()
    yield "", "FFD", experiment.score(generator), len(experiment.validation_features)
    asked = generator.labels.cpu()  # (1000, k), as the data has them
    yield from balanced_accuracies(generator, classified, names, asked)
    sweep = lesson.label_sweep(generator.labels.cpu())
    if len(sweep) == len(names):
        yield from right_labels(generator, classified, names)
    save_labels(generator, sweep, run.folder / "labels.png")


def of_generator(experiment, generator):
    """How well an exported generator follows its labels -> rows (subject, measure, value, n)."""
    faces = experiment.loader.dataset
    rows = label_faces(faces, generator.names)  # (n, k)
    asked = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))[:1000]]
    yield from balanced_accuracies(generator, classifier_of(faces), generator.names, asked)


# ---------------------------------------------------------------- equal shares


def balanced_by(experiment, name, images):
    """Train on the data as it is, and balanced -> rows (subject, measure, value, n)."""
    loader = experiment.loader
    labels = label_faces(loader.dataset, [name])  # (n, 1)
    classifier, logits, _ = classifier_of(loader.dataset)
    yield name, "share, labels", labels.mean().item(), len(labels)
    yield name, "share, real faces", share_above_0(logits), len(logits)
    settings = experiment.settings.but(experiment_images=images)
    equal = lesson.balanced_loader(loader, labels[:, 0].long())
    for words, served in (("generated", loader), ("generated from equal shares", equal)):
        run = lesson.experiment(f"{name} {words}", settings, served, *lesson.fresh(settings))
        samples = lesson.sample_faces(run.best_generator(), N_SAMPLES, 1)
        share = share_above_0(lesson.in_batches(classifier, samples))
        yield name, f"share, {words}", share, len(samples)


def main(arguments=None):
    parser = parser_of(__doc__, "conditional.csv")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--labels", nargs="+", default=LABELS)
    kind.add_argument("--generator", type=Path, help="celeba_64.onnx in assets/weights")
    kind.add_argument("--balanced", metavar="NAME")
    parser.add_argument("--predicted", action="store_true", help="by the face network")
    parser.add_argument("--size", type=int, default=32, help="pixels")
    parser.add_argument("--images", type=int, default=350_000, help="to train on")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)

    experiment = prepare(args.faces, args.runs, image_size=args.size, seed=args.seed)
    words, table = f"labels {' '.join(args.labels)}", Table(args.table)
    row = dict(data=experiment.data, size=args.size, seed=args.seed, images=args.images)
    if args.balanced:
        words = f"equal shares of {args.balanced}"
    elif args.predicted:
        words = f"predicted {words}"
    elif args.generator:
        words, row["images"] = f"labels of {args.generator.name}", ""
    row["experiment"] = words
    if table.has(**row):
        return
    name = f"{experiment.data} {words} {args.images} {args.seed}".replace(" ", "_")
    out_dir = Path(experiment.settings.out_dir).with_name(name)
    settings = experiment.settings.but(out_dir=str(out_dir))
    experiment = dataclasses.replace(experiment, settings=settings)
    if args.balanced:
        found = balanced_by(experiment, args.balanced, args.images)
    elif args.generator:
        found = of_generator(experiment, load_generator(args.generator))
    else:
        found = by_labels(experiment, args.labels, args.images, args.predicted)
    rows = [*found]  # so that the table has all of them or none
    for subject, measure, value, n in rows:
        table.add(**row, subject=subject, measure=measure, value=value, n=n)


if __name__ == "__main__":
    main()
