"""Train by several recipes, score the faces, and add a row to results.csv as each run is finished.

    python .ci/experiments/results.py FACES [--only NAME ...] [--minutes 2 5 10 20] [--seeds 0 ...]
        [--images 384000 ...] [--size 32] [--set lr=0.0004 ...]

FACES: a folder of face photographs, or "drawn". A recipe is "notebook" (the whole run of section
14), the baseline (baseline.py), or what differs from the plain step at constant rates: the
notebook's CHOICES, "constant" (nothing differs), two for the gallery of what goes wrong, one for an
hour; --set changes settings of any of them. A run that was stopped goes on where it was; one that
is in the table is not made again. --images, in place of minutes, compares recipes whatever the
speed of the machine.

`ffd_validation` is the Fréchet face distance to the held-out faces that choose the best moment of
the run and the recipe. The other scores are taken on other held-out faces (`faces` of them), with
as many generated ones, twice as many for the FFD, of latents that chose nothing.
"""

import argparse
import ast
import dataclasses
import functools
import re
from pathlib import Path

import baseline
import numpy as np
import torch
from common import (
    HERE,
    RUNS,
    Table,
    device,
    helpers,
    is_past,
    lesson,
    prepare,
    train_until,
)

SETTINGS = ("image_size", "batch_size", "z_size", "d_conv_dim", "g_conv_dim", "lr", "d_lr", "beta1")
COLUMNS = (
    *("data", "recipe", "seed", "minutes", "images", "images_per_second", "d_loss", "g_loss"),
    *("ffd_validation", "ffd", "swd", "precision", "recall", "ms_ssim", "faces", "settings"),
    *("machine", "commit"),
)
SCORES = COLUMNS[8:14]


def constant(settings, D, G):
    return {}


def whole_run(settings, D, G):
    return {"step": lesson.regularized_step, "schedule": "linear"}


def whole_run_nearest(settings, D, G):
    return whole_run(settings, D, G) | lesson.CHOICES["G: nearest"](settings, D, G)


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


def build(recipe, experiment):
    """What the recipe trains: settings, D, G, and other arguments of common.train_until."""
    settings = experiment.settings
    torch.manual_seed(settings.seed)
    if recipe == "baseline":
        D, G = (net.to(device()) for net in baseline.networks(settings.image_size))
        optimizers = baseline.adam(D), baseline.adam(G)
        options = dict(optimizers=optimizers, step=baseline.step, average=newest_weights)
        return dict(settings=settings, D=D, G=G) | options
    D, G = lesson.fresh(settings)
    return dict(settings=settings, D=D, G=G) | CHANGES[recipe](settings, D, G)


def newest_weights(averages, weights, n):
    """In place of moving_average: no average."""
    for average, weight in zip(averages, weights):
        average.copy_(weight)


def train(recipe, experiment, parts, stop, folder):
    """The run of a recipe whose parts `build` made, continued up to the StopRule."""
    settings = parts.pop("settings")
    loader = experiment.loader
    if recipe == "baseline":
        loader = baseline.loader(settings.image_size, settings.data_dir)
    changed = dataclasses.replace(experiment, settings=settings, loader=loader)
    return train_until(stop, folder, changed, name=recipe, **parts)


def scores(faces, test, validation_features):
    """What the table has of faces, twice as many as those to test on."""
    n = len(test)
    seen, real = helpers.face_features(faces), helpers.face_features(test)
    values = [lesson.frechet_distance(seen, validation_features)]
    values += [lesson.frechet_distance(seen, real)]
    values += [float(np.mean(lesson.sliced_wasserstein(test, faces[:n])))]
    values += [*lesson.precision_recall(real, seen[:n]), lesson.ms_ssim(faces[:n])]
    return dict(zip(SCORES, values))


def add_references(table, experiment, test):
    """Rows for real faces and for noise."""
    training = experiment.real("train", 2 * len(test))
    noise = 2 * torch.rand(training.shape, generator=torch.Generator().manual_seed(0)) - 1
    for name, faces in (("real", training), ("noise", noise)):
        if not table.has(data=experiment.data, recipe=name):
            row = dict(data=experiment.data, recipe=name, minutes=0, faces=len(test))
            table.add(**row, **scores(faces, test, experiment.validation_features))


def add_run(table, row, run, experiment, test):
    generator = run.best_generator()
    faces = lesson.sample_faces(generator, 2 * len(test), 1000 + experiment.settings.seed)
    d_loss, g_loss = np.mean(run.losses[-20:], 0).tolist()
    seen = dict(images=run.images, images_per_second=run.images_per_second)
    found = scores(faces, test, experiment.validation_features)
    table.add(**seen | row, d_loss=d_loss, g_loss=g_loss, **found)


def measure(table, recipe, experiment, limit, test, runs):
    """Train until a limit, {"images": 50_000} say, and add a row, unless it is there."""
    parts, data = build(recipe, experiment), experiment.data
    settings = parts["settings"]  # what really runs
    words = ", ".join(f"{name} {getattr(settings, name)}" for name in SETTINGS)
    row = dict(data=data, recipe=recipe, seed=settings.seed, minutes="", settings=words) | limit
    if table.has(**row):
        return
    row["faces"] = len(test)
    evolves = "decay" in recipe or "rate" in recipe or recipe.startswith("notebook")
    [(unit, most)] = limit.items()
    name = f"{recipe}, seed {settings.seed}" + (f", {most:.15g} {unit}" if evolves else "")
    folder = Path(runs, "results", data, "_".join(re.findall(r"[\w.]+", name)))
    try:
        run = train(recipe, experiment, parts, helpers.StopRule(**limit), folder)
    except FloatingPointError as error:
        print(error)
        table.add(**row, d_loss="diverged")
        return
    if not is_past(run, **limit):
        add_run(table, row, run, experiment, test)


def print_table(table, data):
    """All rows of a data set in Markdown; of several seeds the mean, smallest and largest."""
    groups = {}
    for row in table.rows():
        if row["data"] == data:
            groups.setdefault((row["recipe"], row["settings"], row["minutes"]), []).append(row)
    names = ("images_per_second", *SCORES)
    print("| recipe | minutes | seeds |", " | ".join(names), "|")
    print("|" + " --- |" * (3 + len(names)))
    for (recipe, _, minutes), rows in sorted(groups.items()):
        cells = [spread([row[name] for row in rows]) for name in names]
        print(f"| {recipe} | {minutes} | {len(rows)} |", " | ".join(cells), "|")


def spread(values):
    values = [float(value) for value in values if value]
    if not values:
        return ""
    ends = f" ({min(values):.4g} to {max(values):.4g})" if len(values) > 1 else ""
    return f"{np.mean(values):.4g}{ends}"


def setting(words):
    """("lr", 0.0004) of "lr=0.0004"."""
    name, _, value = words.partition("=")
    if name not in SETTINGS:
        raise argparse.ArgumentTypeError(f"{name}: one of {', '.join(SETTINGS)} was expected")
    return name, ast.literal_eval(value)


def main(arguments=None):
    recipes = ["baseline", *CHANGES]
    summary = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=summary)
    parser.add_argument("faces")
    parser.add_argument("--only", nargs="+", choices=recipes, default=recipes, metavar="NAME")
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 5, 10, 20])
    parser.add_argument("--images", type=int, nargs="+", help="in place of minutes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--size", type=int, default=32, help="pixels")
    parser.add_argument("--set", type=setting, nargs="+", default=[], metavar="NAME=VALUE")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where the runs are kept")
    parser.add_argument("--table", type=Path, default=HERE / "results.csv")
    args = parser.parse_args(arguments)

    unit, most = ("images", args.images) if args.images else ("minutes", args.minutes)
    limits = [{unit: value} for value in sorted(most)]
    table, changes = Table(args.table, COLUMNS), dict(args.set) | {"image_size": args.size}
    for recipe in args.only:
        for seed in args.seeds:
            settings = CHANGED_SETTINGS.get(recipe, {}) | changes | {"seed": seed}
            experiment = prepare(args.faces, args.runs, **settings)
            test = experiment.real("test")
            add_references(table, experiment, test)
            for limit in limits:
                measure(table, recipe, experiment, limit, test, args.runs)
    print_table(table, experiment.data)


if __name__ == "__main__":
    main()
