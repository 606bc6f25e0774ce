"""Train by several recipes, score the faces, and add a row to results.csv as each run ends.

    python .ci/experiments/results.py FACES [--only NAME ...] [--images 50000 ...] [--seeds 0 ...]
        [--minutes 5 ...] [--size 32] [--set lr=0.0004 ...]

FACES: a folder of face photographs, or "drawn". Recipes: "notebook" (the lesson's whole run), its
variants, "baseline" (baseline.py), "constant" (the plain step at constant rates), the notebook's
CHOICES (which change one thing in it), two runs that go wrong, and one of an hour. --set changes
settings. Rows already in the table are skipped, and a stopped run resumes. --images compares
recipes independently of the machine's speed; --minutes compares what they reach in the same time.

`ffd_validation` is the Fréchet face distance to the validation faces, which choose the best
checkpoint and the recipe. The other scores use test faces (`faces` of them) and the same number of
generated faces, or twice as many for the FFD, from latents that no score was computed with.
"""

import ast
import dataclasses
import functools
import re
from argparse import ArgumentTypeError
from pathlib import Path

import baseline
import conditioning
import numpy as np
import torch
from common import (
    Table,
    device,
    helpers,
    is_past,
    lesson,
    parser_of,
    parts_of,
    prepare,
    samples_of,
    train_until,
)

SETTINGS = "image_size batch_size z_size d_conv_dim g_conv_dim lr d_lr beta1".split()
SCORES = "ffd_validation ffd swd precision recall ms_ssim".split()
OF_RUNS = "data recipe seed minutes images images_per_second d_loss g_loss".split()
COLUMNS = *OF_RUNS, *SCORES, "faces", "settings", "machine", "commit"


def constant(settings, D, G):
    return {}


def whole_run(settings, D, G):
    return {"step": lesson.regularized_step, "schedule": "linear"}


def whole_run_nearest(settings, D, G):
    return whole_run(settings, D, G) | lesson.CHOICES["G: nearest"](settings, D, G)


def whole_run_at_full_size(settings, D, G):
    return whole_run(settings, D, G) | lesson.at_full_size(settings, D, G)


def for_an_hour(settings, D, G):
    penalties = functools.partial(lesson.penalty, r1=0.1)
    return {"step": lesson.step_with(penalties=penalties, interval=16), "schedule": "linear"}


def unsmoothed_step(D, G, real, d_optimizer, g_optimizer, run):
    """The lesson's step with 1 for the label of real faces."""
    fake = G(torch.randn(len(real), G.z_size, device=real.device))
    d_loss = lesson.real_loss(D(real)) + lesson.fake_loss(D(fake.detach()))
    d_loss = lesson.update(D, d_optimizer, d_loss)
    return d_loss, lesson.update(G, g_optimizer, lesson.real_loss(D(fake)))


def without_smoothing(settings, D, G):
    return {"step": unsmoothed_step}


CHANGES = {
    **lesson.CHOICES,
    "D: group norm": lambda s, D, G: {"D": lesson.exchange_norm(D, "group")},
    "D: pixel norm": lambda s, D, G: {"D": lesson.exchange_norm(D, "pixel")},
    "notebook": whole_run,
    "notebook, G: nearest": whole_run_nearest,
    "notebook, a layer at full size": whole_run_at_full_size,
    **conditioning.RECIPES,
    "constant": constant,
    "R1, linear decay": for_an_hour,
    "collapsed": constant,
    "the discriminator wins": without_smoothing,
}
CHANGED_SETTINGS = {
    "baseline": baseline.SETTINGS,
    "collapsed": {"lr": 0.02, "beta1": 0.9},
    "the discriminator wins": {"lr": 0.0001, "d_lr": 0.004, "d_conv_dim": 64},
}


def build(recipe, settings, faces=None):
    """Build a recipe -> settings, parts, and other arguments of common.train_until.

    `faces`: the DecodedFaces to train on, for recipes that give them labels.
    """
    torch.manual_seed(settings.seed)
    if recipe == "baseline":
        networks = [network.to(device()) for network in baseline.networks(settings)]
        parts = parts_of(settings, *networks, newest_weights, baseline.adam)
        loader = baseline.loader(settings.batch_size, settings.image_size, settings.data_dir)
        return settings, parts, {"step": baseline.step, "loader": loader}
    D, G = lesson.fresh(settings)
    change = CHANGES[recipe]
    if recipe in conditioning.RECIPES:
        change = functools.partial(change, faces=faces)
    built = dict(settings=settings, D=D, G=G) | change(settings, D, G)
    settings, D, G = (built.pop(name) for name in ("settings", "D", "G"))
    return settings, parts_of(settings, D, G), built


def newest_weights(averages, weights, n):
    """In place of moving_average: no average."""
    for average, weight in zip(averages, weights):
        average.copy_(weight)


def scores(faces, test, validation_features):
    """The table's scores of faces, twice as many as test faces."""
    seen = helpers.face_features(faces)
    both = validation_features, helpers.face_features(test)
    distances = [lesson.frechet_distance(seen, features) for features in both]
    _, *others = lesson.all_scores(faces[: len(test)], test)
    return dict(zip(SCORES, distances + others))


def add_references(table, experiment, test):
    """Rows for real faces and for noise."""
    training = experiment.real("train", 2 * len(test))
    noise = 2 * torch.rand(training.shape, generator=torch.Generator().manual_seed(0)) - 1
    for name, faces in (("real", training), ("noise", noise)):
        if not table.has(data=experiment.data, recipe=name):
            row = dict(data=experiment.data, recipe=name, minutes=0, faces=len(test))
            table.add(**row, **scores(faces, test, experiment.validation_features))


def add_run(table, row, run, experiment, test):
    faces = samples_of(run, experiment, 2 * len(test))
    d_loss, g_loss = np.mean(run.losses[-20:], 0).tolist()
    seen = dict(images=run.images, images_per_second=run.images_per_second)
    found = scores(faces, test, experiment.validation_features)
    table.add(**seen | row, d_loss=d_loss, g_loss=g_loss, **found)


def measure(table, recipe, experiment, limit, runs):
    """Train until a limit, such as {"images": 50_000}, and add a row unless it is in the table."""
    settings, parts, options = build(recipe, experiment.settings, experiment.loader.dataset)
    words = ", ".join(f"{name} {getattr(settings, name)}" for name in SETTINGS)  # what really runs
    seed, data = settings.seed, experiment.data
    row = dict(data=data, recipe=recipe, seed=seed, minutes="", settings=words) | limit
    if table.has(**row):
        return
    changed = dataclasses.replace(experiment, settings=settings)
    folder = Path(runs, "results", data, folder_name(recipe, seed, limit, options))
    stop = helpers.StopRule(**limit)
    try:
        run = train_until(stop, folder, changed, parts, name=recipe, **options)
    except FloatingPointError as error:
        print(error)
        table.add(**row, d_loss="diverged")
        return
    if not is_past(run, **limit):
        test = experiment.real("test")
        add_run(table, row | dict(faces=len(test)), run, experiment, test)


def folder_name(recipe, seed, limit, options):
    """The name of a run's folder, with the limit if the learning rates depend on it."""
    words = f"{recipe}, seed {seed}"
    if options.get("schedule", "constant") != "constant":
        ((unit, most),) = limit.items()
        words += f", {most:.15g} {unit}"
    return "_".join(re.findall(r"[\w.]+", words))


def setting(words):
    """("lr", 0.0004) of "lr=0.0004"."""
    name, _, value = words.partition("=")
    if name not in SETTINGS:
        raise ArgumentTypeError(f"{name} is not one of {', '.join(SETTINGS)}")
    return name, ast.literal_eval(value)


def main(arguments=None):
    recipes = ["baseline", *CHANGES]
    parser = parser_of(__doc__, "results.csv")
    parser.add_argument("--only", nargs="+", choices=recipes, default=recipes, metavar="NAME")
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument("--images", type=int, nargs="+", default=[50_000, 100_000, 200_000])
    limit.add_argument("--minutes", type=float, nargs="+", help="in place of images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--size", type=int, default=32, help="pixels")
    parser.add_argument("--set", type=setting, nargs="+", default=[], metavar="NAME=VALUE")
    args = parser.parse_args(arguments)

    unit, most = ("minutes", args.minutes) if args.minutes else ("images", args.images)
    limits = [{unit: value} for value in sorted(most)]
    table, changes = Table(args.table, COLUMNS), dict(args.set) | {"image_size": args.size}
    for recipe in args.only:
        for seed in args.seeds:
            settings = CHANGED_SETTINGS.get(recipe, {}) | changes | {"seed": seed}
            experiment = prepare(args.faces, args.runs, **settings)
            add_references(table, experiment, experiment.real("test"))
            for limit in limits:
                measure(table, recipe, experiment, limit, args.runs)


if __name__ == "__main__":
    main()
