"""Whom does a generator show, and whom its training data? The notebook's audit as a table.

    python .ci/experiments/audit.py FACES GENERATOR [--labels LIST] [--n 5000]

FACES: the folder of photographs that it was trained on; GENERATOR: its generator.pt2, or weights
(.pt); LIST: CelebA's list_attr_celeba.txt. UTKFace's labels stand in the file names,
<age>_<gender>_<race>_...
Where there are labels, the face network is compared with them. The last line says how many of the
generated faces are closer to one of 20,000 training faces than that one's own nearest neighbour
is, and how many of the faces held out.
"""

import argparse
import functools
import re
from pathlib import Path

import numpy as np
import torch
from common import helpers, lesson, load_generator, prepare

from assets import face_files
from assets.face_network import attribute_logits

RACES = ("White", "Black", "Asian", "Indian", "other")  # UTKFace's names for 0, 1, 2, 3, 4
AGES = ((0, 20), (20, 40), (40, 60), (60, 120))
classify = functools.partial(attribute_logits, names=lesson.ATTRIBUTES)


def random_rows(dataset, most):
    return torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:most]


def labels_from_list(path, files):
    """{attribute: bools} of these files, from CelebA's list."""
    known, values = face_files.read_attributes(path)
    has = {name: known.index(name) for name in lesson.ATTRIBUTES}
    rows = [values[file] for file in files]
    return {name: torch.tensor([bool(row[k]) for row in rows]) for name, k in has.items()}


def people_of(files):
    """Age, gender and race by UTKFace's file names, (n, 3); None if these are no such names."""
    found = [re.match(r"(\d+)_([01])_([0-4])_", file) for file in files]
    if sum(map(bool, found)) < 0.9 * len(files):
        return None
    return np.array([[int(x) for x in one.groups()] if one else [-1] * 3 for one in found])


def print_people(people, tones, young):
    """What the typology angle and the face network say of those whom UTKFace labels."""
    age, _, race = people.T
    n = (age >= 0).sum()
    for k, name in enumerate(RACES):
        low, middle, high = np.quantile(tones[race == k], (0.25, 0.5, 0.75))
        print(
            f"labelled {name}: {(race == k).sum() / n:.0%}, typology angle {middle:.0f} degrees ",
            end="",
        )
        print(f"in the median, half of them from {low:.0f} to {high:.0f}")
    for low, high in AGES:
        members = (age >= low) & (age < high)
        print(f"{low} to {high - 1} years: {members.sum() / n:.0%}, ", end="")
        print(f"called young: {young[members].mean():.0%}")


def print_table(training, generated, truth, n):
    print(f"\n| {n:,} each | labels | training | generated | |\n|" + " --- |" * 5)
    for name, share in training.items():
        (low, high), (least, most) = (lesson.interval(x, n) for x in (share, generated[name]))
        note = "more" if least > high else "fewer" if most < low else ""
        label = f"{truth[name].float().mean():.0%}" if name in truth else ""
        before = f"{share:.0%} ({low:.0%} to {high:.0%})"
        after = f"{generated[name]:.0%} ({least:.0%} to {most:.0%})"
        print(f"| {name} | {label} | {before} | {after} | {note} |")


def print_copies(dataset, generated):
    rows = random_rows(dataset, 20_000)
    batches = (lesson.scale(dataset.batch(part)[0].cpu()) for part in rows.split(1000))
    seen = torch.cat([helpers.face_features(batch) for batch in batches])
    held_out = lesson.real_faces("test")
    shares = []
    for faces in (generated[: len(held_out)], held_out):
        shares.append(lesson.nearest_training_faces(helpers.face_features(faces), seen)[1])
    print("\ncloser to a training face than its own nearest neighbour: ", end="")
    print(f"{shares[0]:.1%} of the generated faces, {shares[1]:.1%} of those held out")


def main(arguments=None):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("faces", type=Path)
    parser.add_argument("generator", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--size", type=int, default=32, help="pixels")
    args = parser.parse_args(arguments)

    prepare(args.faces, args.size)
    dataset = lesson.loader.dataset
    rows = random_rows(dataset, args.n)
    training = lesson.scale(dataset.batch(rows)[0].cpu())
    files = [dataset.names[row] for row in dataset.rows[rows]]
    generator = load_generator(args.generator)
    generator.z_size = lesson.z_size
    generated = lesson.sample_faces(generator, len(training), 1)

    eyes, features = lesson.eye_row(training), helpers.face_features(training)
    says = dict(zip(lesson.ATTRIBUTES, (classify(features) > 0).T))
    truth = labels_from_list(args.labels, files) if args.labels else {}
    people = people_of(files)
    if people is not None:
        truth = {"Male": torch.from_numpy(people[:, 1] == 0)}
        print_people(people, lesson.skin_tone(training, eyes).numpy(), says["Young"].numpy())
    for name, labels in truth.items():
        agree = (says[name] == labels).float().mean()
        print(f"{name}: the face network agrees with {agree:.0%} of the labels")
    audits = [lesson.audit(training, features, eyes, classify)]
    audits.append(lesson.audit(generated, helpers.face_features(generated), eyes, classify))
    print_table(*audits, truth, len(training))
    print_copies(dataset, generated)


if __name__ == "__main__":
    main()
