"""Train the CycleGAN that adds and removes a label, and measure it: rows of makeup.csv.

    python .ci/experiments/makeup.py FACES [--label Heavy_Makeup] [--same Male] [--size 32]
        [--cycle 1] [--identity 0.3] [--images 40000] [--seed 0]

FACES: a folder of faces with these labels, or "drawn". Domain A has the faces without the label and
domain B those with it, all with the same value of --same. On drawn faces the result is compared to
the truth: the same people drawn the other way. On all faces, a classifier trained on held-out faces
counts which it takes for B, and the change outside of the makeup is measured by skin tone. Rows
already in the table are skipped, and a stopped run resumes.
"""

import math
from pathlib import Path

import torch
from common import Table, lesson, parser_of, prepare

N_PEOPLE = 500  # drawn both ways, to compare with
MEASURES = "L1 in the region", "change outside / inside"


def compare_with_truth(G_AB, G_BA, A, B, common, settings):
    """Rows for people drawn both ways: the CycleGAN and two simple baselines."""
    size, label = settings.image_size, settings.domain_label
    a, b, region = lesson.drawn_pairs(N_PEOPLE, size, label, common)
    shift = lesson.some_of(B)[0].mean(0) - lesson.some_of(A)[0].mean(0)
    ways = ("A to B", a, b, G_AB, shift), ("B to A", b, a, G_BA, -shift)
    for way, before, wanted, generator, change in ways:
        methods = {
            "doing nothing": before,
            "mean recoloring": (before + change).clamp(-1, 1),
            "CycleGAN": lesson.in_batches(generator, before),
        }
        for method, after in methods.items():
            errors = lesson.makeup_errors(before, after, wanted, region)
            for measure, value in zip(MEASURES, errors):
                yield f"{way}, {method}", measure, value, N_PEOPLE


def makeup_region(size, eyes):
    """Eyes, cheeks and lips of faces aligned as in CelebA, with the eyes in this row: (S, S)."""
    places = torch.arange(size) / size
    down, across = torch.meshgrid(places, places, indexing="ij")
    down, across = down - eyes / size, (across - 0.5).abs()
    eye = (down.abs() < 0.09) & (across < 0.32)
    beside_nose = (0.12 < across) & (across < 0.3)
    cheek = (0.09 < down) & (down < 0.32) & beside_nose
    lips = (0.34 < down) & (across < 0.17)
    return eye | cheek | lips


def change_by_band(subject, before, after, eyes):
    """Rows for each skin-tone band of 20 faces or more: the mean change of a pixel in [-1, 1]."""
    number, region = lesson.bands(before, eyes), makeup_region(before.shape[-1], eyes)
    change = (after - before).abs().mean(1)  # (N, S, S)
    for k, band in enumerate(lesson.BANDS):
        chosen = change[number == k]
        if len(chosen) < 20:
            continue
        for where, mask in (("inside", region), ("outside", ~region)):
            value = chosen[:, mask].mean().item()
            yield f"{subject}, {band}", f"change {where}", value, len(chosen)


def domain_classifier(A, B):
    """A classifier of the two domains, trained on their validation faces."""
    a, b = (lesson.some_of(domain.part("validation"))[0] for domain in (A, B))
    labels = torch.cat([torch.zeros(len(a), 1), torch.ones(len(b), 1)])
    return lesson.attribute_classifier(torch.cat([a, b]), labels)


def ask_classifier(G_AB, G_BA, A, B):
    """Rows for test faces: the share classified as B, and the share that keeps its identity."""
    classifier = domain_classifier(A, B)
    a, b = (lesson.some_of(domain.part("test"))[0] for domain in (A, B))
    fake_b, fake_a = lesson.in_batches(G_AB, a), lesson.in_batches(G_BA, b)
    sets = {
        "A": a,
        "G_AB(A)": fake_b,
        "G_BA(G_AB(A))": lesson.in_batches(G_BA, fake_b),
        "B": b,
        "G_BA(B)": fake_a,
    }
    for name, faces in sets.items():
        share = (lesson.in_batches(classifier, faces) > 0).float().mean().item()
        yield name, "classified as B", share, len(faces)
    eyes = lesson.eye_row(torch.cat([a, b]))
    for name, before, after in (("G_AB(A)", a, fake_b), ("G_BA(B)", b, fake_a)):
        yield name, "identity kept", lesson.identity_kept(before, after), len(before)
        yield from change_by_band(name, before, after, eyes)


def train(settings, images):
    """Train the CycleGAN, and measure it -> rows (subject, measure, value, n)."""
    A, B, common = lesson.domains(settings)
    bounded = settings.but(experiment_images=math.ceil(images / 3))  # the lesson's section: 3 x
    run = lesson.train_cyclegan(A, B, bounded)
    G_AB, G_BA = run.parts["generators"].eval()
    yield "A", "faces to train on", len(A), len(A)
    yield "B", "faces to train on", len(B), len(B)
    if "drawn_faces" in Path(A.root).parts:
        yield from compare_with_truth(G_AB, G_BA, A, B, common, settings)
    yield from ask_classifier(G_AB, G_BA, A, B)


def words_of(args):
    """The name of an experiment: what it was called with."""
    words, usual = args.label, lesson.settings
    if (args.cycle, args.identity) != (usual.cycle_weight, usual.identity_weight):
        words += f", cycle {args.cycle:g}, identity {args.identity:g}"
    if args.same != usual.domain_same:
        words += f", same {args.same or 'any'}"
    return words


def main(arguments=None):
    parser, usual = parser_of(__doc__, "makeup.csv"), lesson.settings
    parser.add_argument("--label", default=usual.domain_label)
    parser.add_argument("--same", default=usual.domain_same, help="an empty text: among all")
    parser.add_argument("--size", type=int, default=32, help="pixels")
    parser.add_argument("--cycle", type=float, default=usual.cycle_weight, help="its weight")
    parser.add_argument("--identity", type=float, default=usual.identity_weight, help="its weight")
    parser.add_argument("--images", type=int, default=40_000, help="to train on")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)

    changes = dict(
        image_size=args.size,
        seed=args.seed,
        domain_label=args.label,
        domain_same=args.same or None,
        cycle_weight=args.cycle,
        identity_weight=args.identity,
    )
    experiment, table = prepare(args.faces, args.runs, **changes), Table(args.table)
    row = dict(experiment=words_of(args), data=experiment.data, size=args.size)
    row |= dict(images=args.images, seed=args.seed)
    if table.has(**row):
        return
    settings = experiment.settings
    out_dir = f"{settings.out_dir}_{args.label}_{args.size}_{args.images}"
    rows = [*train(settings.but(out_dir=out_dir), args.images)]  # all of them, or none
    for subject, measure, value, n in rows:
        table.add(**row, subject=subject, measure=measure, value=value, n=n)


if __name__ == "__main__":
    main()
