"""Whom does a generator show, and whom its training data? The notebook's audit as a table, with the labels where there are any.

    python .ci/audit.py FACES GENERATOR [--labels LIST]

FACES: a folder of photographs, which it was trained on; GENERATOR: its generator.pt2; LIST: CelebA's list_attr_celeba.txt.
Of UTKFace the labels stand in the file names, <age>_<gender>_<race>_...: there the face network is compared with them.
The last line says how many of the generated faces are nearer to one of 20,000 training faces than that one's own nearest
neighbour is, and how many of the faces held out.
"""

import argparse
import re
from pathlib import Path

import numpy as np
import torch

from benchmark import helpers, lesson

RACES = "White", "Black", "Asian", "Indian", "other"  # the names that UTKFace gives to 0, 1, 2, 3, 4


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("generator", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--most", type=int, default=5000)
    args = parser.parse_args()

    lesson.loader = lesson.get_dataloader(1, lesson.image_size, args.faces)
    dataset = lesson.loader.dataset
    rows = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:args.most]
    all_names = dataset.names
    training, names = lesson.scale(dataset.__getitems__(rows)[0]), [all_names[row] for row in rows]
    generated = lesson.draw(helpers.load_generator(args.generator), len(training), 1)
    features, eyes, truth = helpers.face_features(training), lesson.eye_row(training), {}
    read = lambda features: helpers.attribute_logits(features, lesson.ATTRIBUTES)  # noqa: E731
    said = dict(zip(lesson.ATTRIBUTES, (read(features) > 0).T))

    if args.labels:
        known, values = helpers.read_attributes(args.labels)
        truth = {name: torch.tensor([bool(values[file][known.index(name)]) for file in names]) for name in lesson.ATTRIBUTES}
    people = [re.match(r"(\d+)_([01])_([0-4])_", name) for name in names]
    if sum(map(bool, people)) > 0.9 * len(names):
        is_named = np.array([bool(person) for person in people])
        age, gender, race = (np.array([int(person[k]) if person else -1 for person in people]) for k in (1, 2, 3))
        truth = {"Male": torch.from_numpy(gender == 0)}
        tones, young = lesson.skin_tone(training, eyes).numpy(), said["Young"].numpy()
        for k, name in enumerate(RACES):
            of_it = tones[race == k]
            print(f"labelled {name}: {(race == k).sum() / is_named.sum():.0%}, typology angle {np.median(of_it):.0f} degrees in the "
                  f"median, half of them from {np.quantile(of_it, 0.25):.0f} to {np.quantile(of_it, 0.75):.0f}")
        for low, high in ((0, 20), (20, 40), (40, 60), (60, 120)):
            members = (age >= low) & (age < high)
            print(f"{low} to {high - 1} years: {members.sum() / is_named.sum():.0%}, of whom the face network calls "
                  f"{young[members].mean():.0%} young")
    for name, labels in truth.items():
        print(f"{name}: the face network agrees with {(said[name] == labels).float().mean():.0%} of the labels")

    print(f"\n| {len(training):,} each | labels | training | generated | |\n| --- | --- | --- | --- | --- |")
    audits = [lesson.audit(faces, seen, eyes, read)
              for faces, seen in ((training, features), (generated, helpers.face_features(generated)))]
    for name, before, after in ((name, *(shares[name] for shares in audits)) for name in audits[0]):
        (low, high), (least, most) = (lesson.interval(share, len(training)) for share in (before, after))
        label = f"{truth[name].float().mean():.0%}" if name in truth else ""
        print(f"| {name} | {label} | {before:.0%} ({low:.0%} to {high:.0%}) | {after:.0%} ({least:.0%} to {most:.0%}) "
              f"| {'more' if least > high else 'fewer' if most < low else ''} |")

    rows = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:20_000]
    seen = torch.cat([helpers.face_features(lesson.scale(dataset.__getitems__(part)[0])) for part in rows.split(1000)])
    held_out = helpers.face_features(lesson.real_faces("test"))
    ours, theirs = (lesson.copied(features, seen)[1] for features in (helpers.face_features(generated[:len(held_out)]), held_out))
    print(f"\nnearer than a training face's own neighbour: {ours:.1%} of those generated, {theirs:.1%} of those held out")


if __name__ == "__main__":
    main()
