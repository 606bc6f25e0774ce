"""Who appears in generated faces, and who in the data? The notebook's audit, on more faces.

    python .ci/experiments/audit.py FACES GENERATOR [--n 5000]

FACES: the folder of photographs that the generator was trained on; GENERATOR: a .pt2, .onnx or .pt
file. If the faces have labels (CelebA's list, UTKFace's file names), the face network's predictions
are compared with them. The last line has the share of generated faces that are closer to one of
20,000 training faces than that face's nearest neighbor is, and the same share of held-out faces.
"""

import argparse
import functools
from pathlib import Path

import numpy as np
import torch
from common import helpers, lesson, load_generator, prepare

from assets.lib.labels import AGES, ORIGINS

MOST_SEEN = 20_000  # training faces that are compared with
classify = functools.partial(helpers.attribute_logits, names=lesson.ATTRIBUTES)


def random_rows(dataset, most):
    return torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:most]


def print_agreement(known, predicted):
    """Print how often the face network agrees with the known labels."""
    for name in known.keys() & predicted.keys():
        agree = (predicted[name] == known[name]).float().mean()
        print(f"{name}: {known[name].float().mean():.0%} by the labels, ", end="")
        print(f"with which the face network agrees for {agree:.0%} of the faces")


def print_people(known, tones, young):
    """Print the typology angle and predicted attributes of each group that UTKFace labels."""
    for name in ORIGINS:
        low, middle, high = np.quantile(tones[known[name]], (0.25, 0.5, 0.75))
        print(f"labeled {name}: {known[name].float().mean():.0%}, typology angle ", end="")
        print(f"{middle:.0f} degrees in the median, half of them from {low:.0f} to {high:.0f}")
    for name in AGES:
        share, called = known[name].float().mean(), young[known[name]].float().mean()
        print(f"{name}: {share:.0%}, called young: {called:.0%}")


def print_copies(dataset, held_out, generated):
    """Print the share of faces that are closer to a training face than its nearest neighbor is."""
    rows = random_rows(dataset, MOST_SEEN)
    batches = (lesson.scale(dataset.batch(part)[0].cpu()) for part in rows.split(1000))
    seen = torch.cat([helpers.face_features(batch) for batch in batches])
    shares = []
    for faces in (generated[: len(held_out)], held_out):
        shares.append(lesson.nearest_training_faces(helpers.face_features(faces), seen)[1])
    print("closer to a training face than its own nearest neighbor: ", end="")
    print(f"{shares[0]:.1%} of the generated faces, {shares[1]:.1%} of the held-out ones")


def main(arguments=None):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("faces", type=Path)
    parser.add_argument("generator", type=Path)
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--size", type=int, default=32, help="pixels")
    args = parser.parse_args(arguments)

    experiment = prepare(args.faces, image_size=args.size)
    dataset = experiment.loader.dataset
    rows = random_rows(dataset, args.n)
    training = lesson.scale(dataset.batch(rows)[0].cpu())
    generator = load_generator(args.generator)
    generator.z_size = experiment.settings.z_size
    generated = lesson.sample_faces(generator, len(training), 1)
    features = [helpers.face_features(faces) for faces in (training, generated)]
    eyes = lesson.eye_row(training)

    known = {name: has[dataset.rows[rows]] for name, has in dataset.known.items()}
    predicted = dict(zip(lesson.ATTRIBUTES, (classify(features[0]) > 0).T))
    print_agreement(known, predicted)
    if {*ORIGINS, *AGES} <= known.keys():
        print_people(known, lesson.skin_tone(training, eyes), predicted["Young"])
    pairs = zip((training, generated), features)
    lesson.compare(*(lesson.audit(*pair, eyes, classify) for pair in pairs), len(training))
    print_copies(dataset, experiment.real("test"), generated)


if __name__ == "__main__":
    main()
