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
import functools
import re
from pathlib import Path
from unittest import mock

import baseline
import numpy as np
import torch
from common import HERE, RUNS, Table, device, helpers, is_past, lesson, machine, prepare, train_for

SETTINGS = ("image_size", "batch_size", "z_size", "d_conv_dim", "g_conv_dim", "lr", "d_lr", "beta1")
COLUMNS = (
    *("data", "recipe", "seed", "minutes", "images", "images_per_second", "d_loss", "g_loss"),
    *("ffd_validation", "ffd", "swd", "precision", "recall", "ms_ssim", "faces", "settings"),
    "machine",
)
SCORES = COLUMNS[8:14]


def constant(D, G):
    return {}


def whole_run(D, G):
    return {"step": lesson.regularised_step, "schedule": "linear"}


def for_an_hour(D, G):
    penalties = functools.partial(lesson.penalty, r1=0.1)
    return {"step": lesson.step_with(penalties=penalties, interval=16), "schedule": "linear"}


def unsmoothed_step(*networks, run):
    """The lesson's step without the smoothed label."""
    real_loss = lesson.real_loss
    with mock.patch.object(lesson, "real_loss", lambda D_out, smooth=False: real_loss(D_out)):
        return lesson.train_step(*networks)


def without_smoothing(D, G):
    return {"step": unsmoothed_step}


CHANGES = {
    **lesson.CHOICES,
    "D: group norm": lambda D, G: {"D": lesson.exchange_norm(D, "group")},
    "D: pixel norm": lambda D, G: {"D": lesson.exchange_norm(D, "pixel")},
    "notebook": whole_run,
    "notebook, G: nearest": lambda D, G: whole_run(D, G) | lesson.CHOICES["G: nearest"](D, G),
    "constant": constant,
    "R1, linear decay": for_an_hour,
    "collapsed": constant,
    "the discriminator wins": without_smoothing,
}
CHANGED_SETTINGS = {
    "baseline": baseline.SETTINGS,
    "equal rates": {"d_lr": 0.0008},
    "collapsed": {"lr": 0.02, "beta1": 0.9},
    "the discriminator wins": {"lr": 0.0001, "d_lr": 0.004, "d_conv_dim": 64},
}
IN_THE_TABLE = {"baseline": "usual"}  # as an earlier version of this script called it


def settings_of(recipe, size, changes):
    """A recipe's settings: the lesson's, but for its own and those of --set."""
    settings = {name: getattr(lesson, name) for name in SETTINGS}
    return settings | CHANGED_SETTINGS.get(recipe, {}) | changes | {"image_size": size}


def build(recipe, settings):
    """Networks, and what else differs: keyword arguments of common.train_for."""
    torch.manual_seed(lesson.seed)
    if recipe == "baseline":
        D, G = (net.to(device()) for net in baseline.networks(settings["image_size"]))
        optimizers = baseline.adam(D), baseline.adam(G)
        loader = baseline.loader(settings["image_size"], lesson.faces_dir)
        return dict(D=D, G=G, optimizers=optimizers, step=baseline.step, loader=loader)
    widths = settings["d_conv_dim"], settings["g_conv_dim"]
    D, G = lesson.fresh(settings["image_size"], widths)
    parts = {"D": D, "G": G} | CHANGES[recipe](D, G)
    d_optimizer = parts.pop("d_optimizer", None)
    d_optimizer = d_optimizer or lesson.adam(parts["D"], settings["d_lr"], settings["beta1"])
    g_optimizer = lesson.adam(parts["G"], settings["lr"], settings["beta1"])
    parts["optimizers"] = d_optimizer, g_optimizer
    size, faces = settings["image_size"], lesson.faces_dir
    loader = lesson.get_dataloader(settings["batch_size"], size, faces, flip=True)
    helpers.keep_on(device(), loader.dataset)
    return parts | {"loader": loader}


def newest_weights(averages, weights, n):
    """In place of moving_average: no average."""
    for average, weight in zip(averages, weights):
        average.copy_(weight)


def train(recipe, seed, limit, settings, folder):
    """The run of this recipe, continued up to the limit, {"minutes": 5} say."""
    lesson.seed = seed
    changed = {"moving_average": newest_weights} if recipe == "baseline" else {}
    with mock.patch.multiple(lesson, **settings, **changed):
        return train_for(limit, folder, settings | {"seed": seed}, **build(recipe, settings))


def scores(faces, test):
    """What the table has of faces, twice as many as those to test on."""
    n = len(test)
    seen, real = helpers.face_features(faces), helpers.face_features(test)
    values = [lesson.frechet_distance(seen, lesson.validation_features)]
    values += [lesson.frechet_distance(seen, real)]
    values += [float(np.mean(lesson.sliced_wasserstein(test, faces[:n])))]
    values += [*lesson.precision_recall(real, seen[:n]), lesson.ms_ssim(faces[:n])]
    return dict(zip(SCORES, values))


def add_references(table, data, test):
    """Rows for real faces and for noise."""
    training = lesson.real_faces("train", 2 * len(test))
    noise = 2 * torch.rand(training.shape, generator=torch.Generator().manual_seed(0)) - 1
    for name, faces in (("real", training), ("noise", noise)):
        if not table.has(data=data, recipe=name):
            row = dict(data=data, recipe=name, minutes=0, faces=len(test), machine=machine())
            table.add(**row, **scores(faces, test))


def add_run(table, row, run, test):
    generator = run.best_generator()
    faces = lesson.sample_faces(generator, 2 * len(test), 1000 + lesson.seed)
    d_loss, g_loss = np.mean(run.losses[-20:], 0).tolist()
    seen = dict(images=run.images, images_per_second=run.images / run.seconds)
    table.add(**seen | row, d_loss=d_loss, g_loss=g_loss, **scores(faces, test))


def measure(table, data, recipe, seed, limit, settings, test, runs):
    """Train and add a row, unless it is there."""
    words = ", ".join(f"{name} {value}" for name, value in settings.items())
    row = dict(data=data, seed=seed, minutes="", settings=words) | limit
    row["recipe"] = IN_THE_TABLE.get(recipe, recipe)
    if table.has(**row):
        return
    row |= dict(faces=len(test), machine=machine())
    evolves = "decay" in recipe or "rate" in recipe or recipe.startswith("notebook")
    [(unit, most)] = limit.items()
    name = f"{recipe}, seed {seed}" + (f", {most:.15g} {unit}" if evolves else "")
    folder = Path(runs, "results", data, "_".join(re.findall(r"[\w.]+", name)))
    try:
        run = train(recipe, seed, limit, settings, folder)
    except FloatingPointError as error:
        print(error)
        table.add(**row, d_loss="diverged")
        return
    if not is_past(run, **limit):
        add_run(table, row, run, test)


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

    data = prepare(args.faces, args.size, runs=args.runs)
    table, test = Table(args.table, COLUMNS), lesson.real_faces("test")
    add_references(table, data, test)
    unit, most = ("images", args.images) if args.images else ("minutes", args.minutes)
    limits = [{unit: value} for value in sorted(most)]
    for recipe in args.only:
        settings = settings_of(recipe, args.size, dict(args.set))
        for seed in args.seeds:
            for limit in limits:
                measure(table, data, recipe, seed, limit, settings, test, args.runs)
    print_table(table, data)


if __name__ == "__main__":
    main()
