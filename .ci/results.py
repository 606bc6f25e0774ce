"""Train by several recipes, score the faces, and add a row to .ci/results.csv for each run that is finished.

    python .ci/results.py FACES [--only NAME ...] [--seeds 0 ...] [--minutes 2 5 10 20] [--size 32]

FACES: a folder of face photographs. A recipe is what differs from the notebook: settings, functions, or what its
experiments change (CHANGES in its last table). "usual" is the loop as it is usually taught (benchmark.py), with four
layers from 64 channels; it, too, gets its best epoch and batch norm statistics taken anew. A run that was stopped goes
on where it was; one that is in the table is not made again. The minutes are those of one run per recipe and seed, with
its sample sheets, scores and checkpoints.

`ffd_validation` is the Fréchet face distance to the half of the held-out faces that chooses the best epoch and the recipe;
the other scores are taken on the other half, with as many generated faces (`faces` of each, twice as many for the FFD).
"""

import argparse
import csv
import itertools
import platform
import re
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

import benchmark
from benchmark import ROOT, helpers, lesson

TABLE = ROOT / ".ci" / "results.csv"
COLUMNS = ("data", "recipe", "seed", "minutes", "images", "images_per_second", "d_loss", "g_loss", "ffd_validation", "ffd", "swd",
           "precision", "recall", "ms_ssim", "faces", "settings", "machine")
SETTINGS = "image_size", "batch_size", "z_size", "d_conv_dim", "g_conv_dim", "lr", "d_lr", "beta1"


def usual_loader(batch_size, image_size, data_dir, flip):
    """Of the faces that the lesson trains on, not mirrored."""
    names = [Path(path).name for path, _ in lesson.FaceFolder(data_dir).samples]
    seen = {name for name, part in zip(names, helpers.parts_of(names)) if part == 0}
    return benchmark.usual_loader(batch_size, image_size, data_dir, lambda path: Path(path).name in seen)


def usual_step(D, G, real, d_optimizer, g_optimizer):
    """In float32."""
    with torch.autocast(real.device.type, enabled=False):
        return benchmark.usual_step(D, G, real, d_optimizer, g_optimizer)


def usual_networks(d_conv_dim, g_conv_dim, z_size, image_size, *_):
    return benchmark.usual_networks(image_size, z_size)


def no_average(averaged, G):
    averaged.module.load_state_dict(G.state_dict())


def decay(most):
    """moving_average with another limit."""
    @torch.no_grad()
    def moving_average(averaged, G):
        n = int(averaged.n_averaged)
        for average, weight in zip(averaged.parameters(), G.parameters()):
            average.lerp_(weight, 1 - min(most, (1 + n) / (10 + n)))
        averaged.n_averaged += 1
    return moving_average


def not_smoothed(D_out, smooth=False):
    """real_loss, never smoothed."""
    return lesson.F.softplus(-D_out).mean()


def not_mirrored(batch_size, image_size, data_dir, flip):
    return plain_loader(batch_size, image_size, data_dir)


def spectral(in_channels, out_channels, norm, padding):
    """conv with spectral instead of batch normalisation (Miyato et al., 2018)."""
    layer, *rest = plain_conv(in_channels, out_channels, None, padding)
    return [torch.nn.utils.parametrizations.spectral_norm(layer), *rest]


plain_loader, plain_conv = lesson.get_dataloader, lesson.conv
BASE = {"batch_size": 32, "d_conv_dim": 32, "g_conv_dim": 64, "lr": 0.0004, "d_lr": 0.0004, "beta1": 0.5}
RECIPES = {
    "usual": {"batch_size": 128, "lr": 0.0002, "d_lr": 0.0002, "beta1": 0.5, "get_dataloader": usual_loader,
              "build_network": usual_networks, "train_step": usual_step, "moving_average": no_average},
    "notebook": {},
    **{name: BASE | changes for name, changes in {
        "base": {},
        "batch 16": {"batch_size": 16},
        "batch 64": {"batch_size": 64},
        "batch 64, lr 0.0002": {"batch_size": 64, "lr": 0.0002, "d_lr": 0.0002},
        "batch 64, lr 0.0008": {"batch_size": 64, "lr": 0.0008, "d_lr": 0.0008},
        "batch 64, lr of D 0.0008": {"batch_size": 64, "d_lr": 0.0008},
        "batch 64, D from 64": {"batch_size": 64, "d_conv_dim": 64},
        "lr 0.0002": {"lr": 0.0002, "d_lr": 0.0002},
        "lr 0.0008": {"lr": 0.0008, "d_lr": 0.0008},
        "lr of D 0.0002": {"d_lr": 0.0002},
        "lr of D 0.0008": {"d_lr": 0.0008},
        "lr of D 0.0016": {"d_lr": 0.0016},
        "lr of D 0.0008, D from 48": {"d_lr": 0.0008, "d_conv_dim": 48},
        "lr of D 0.0008, D and G from 48": {"d_lr": 0.0008, "d_conv_dim": 48, "g_conv_dim": 48},
        "lr of D 0.0008, beta2 0.99": {"d_lr": 0.0008, "beta2": 0.99},
        "lr of D 0.0008, G from 48": {"d_lr": 0.0008, "g_conv_dim": 48},
        "lr of D 0.0008, G from 48, beta1 0.3": {"d_lr": 0.0008, "g_conv_dim": 48, "beta1": 0.3},
        "lr of D 0.0008, G from 48, beta1 0.1": {"d_lr": 0.0008, "g_conv_dim": 48, "beta1": 0.1},
        "lr of D 0.0008, G from 48, beta1 0": {"d_lr": 0.0008, "g_conv_dim": 48, "beta1": 0.0},
        "lr 0.0006, of D 0.0012, G from 48, beta1 0.1": {"lr": 0.0006, "d_lr": 0.0012, "g_conv_dim": 48, "beta1": 0.1},
        "lr 0.0008, G from 48, beta1 0.3": {"lr": 0.0008, "d_lr": 0.0008, "g_conv_dim": 48, "beta1": 0.3},
        "lr 0.0008, G from 48, beta1 0": {"lr": 0.0008, "d_lr": 0.0008, "g_conv_dim": 48, "beta1": 0.0},
        "lr 0.0008, of D 0.0016, G from 48, beta1 0.3": {"lr": 0.0008, "d_lr": 0.0016, "g_conv_dim": 48, "beta1": 0.3},
        "lr 0.0012, G from 48, beta1 0.3": {"lr": 0.0012, "d_lr": 0.0012, "g_conv_dim": 48, "beta1": 0.3},
        "beta1 0": {"beta1": 0.0},
        "beta1 0.3": {"beta1": 0.3},
        "beta2 0.99": {"beta2": 0.99},
        "D from 48": {"d_conv_dim": 48},
        "G from 48": {"g_conv_dim": 48},
        "G from 96": {"g_conv_dim": 96},
        "not smoothed": {"real_loss": not_smoothed},
        "dropout 0.3": {"d_options": {"dropout": 0.3}},
        "no flips": {"get_dataloader": not_mirrored},
        "average over 1,000": {"moving_average": decay(0.999)},
        "average over 5,000": {"moving_average": decay(0.9998)},
        "D without batch norm": {"d_options": {"norm": None}},
        "D with spectral norm": {"conv": spectral},
        "D that sees how varied a batch is": {"d_options": {"batch_deviation": True}},
    }.items()},
    **lesson.CHANGES,
    "R1, linear decay": {"step": {"r1": 0.1, "lazy": 16}, "schedule": "linear"},  # for an hour: what holds the discriminator back
    # How it goes wrong, for the gallery
    "collapsed": {"lr": 0.02, "beta1": 0.9},
    "the discriminator wins": {"lr": 0.0001, "d_lr": 0.004, "d_conv_dim": 64, "real_loss": not_smoothed},
}
EXPERIMENT = "d_options", "g_options", "step", "schedule", "d_optimizer"  # and rates, which are settings here


def machine():
    """What it ran on, in words."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}"
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", info.read_text()) if info.exists() else None
    return (f"{torch.get_num_threads()} threads of {found[1] if found else platform.processor()}, PyTorch {torch.__version__}"
            + ", bfloat16" * helpers.has_fast_bfloat16(torch.device("cpu")))


def resolved(recipe):
    """The settings of a recipe, and the functions that it changes."""
    rates = dict(zip(("lr", "d_lr"), RECIPES[recipe].get("rates", ())))
    settings = {name: (RECIPES[recipe] | rates).get(name, getattr(lesson, name)) for name in SETTINGS}
    known = *SETTINGS, *EXPERIMENT, "beta2", "rates"
    return settings, {name: value for name, value in RECIPES[recipe].items() if name not in known}


def trained(recipe, seed, minutes, faces, folder):
    """The run of this recipe, continued until it has had so many minutes."""
    settings, functions = resolved(recipe)
    d_options, g_options, step, schedule, d_optimizer = (RECIPES[recipe].get(name) for name in EXPERIMENT)
    usual, device = recipe == "usual", torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with patch.dict(vars(lesson), functions):
        torch.manual_seed(seed)
        networks = lesson.build_network(settings["d_conv_dim"], settings["g_conv_dim"], settings["z_size"], settings["image_size"],
                                        d_options, g_options)
        D, G = (net.to(device, memory_format=torch.contiguous_format if usual else torch.channels_last) for net in networks)
        betas = settings["beta1"], RECIPES[recipe].get("beta2", 0.999)
        optimizers = [lesson.optimizer(d_optimizer, net, settings[rate]) if d_optimizer and net is D
                      else torch.optim.Adam(net.parameters(), settings[rate], betas, fused=not usual)
                      for net, rate in ((D, "d_lr"), (G, "lr"))]
        schedules = [lesson.evolving(schedule, one) for one in optimizers] if schedule else []
        loader = lesson.get_dataloader(settings["batch_size"], settings["image_size"], faces, flip=True)
        averaged = torch.optim.swa_utils.AveragedModel(G)
        run = helpers.Run(folder, settings | {"seed": seed}, minutes, score=lesson.score, won=None if step else 0.45, D=D, G=G,
                          averaged=averaged, d_optimizer=optimizers[0], g_optimizer=optimizers[1],
                          **{f"schedule_{i}": scheduler for i, scheduler in enumerate(schedules)})
        step = lesson.step_with(run, **step) if step else None
        lesson.train(D, G, loader, *optimizers, 10**6, 50, averaged, run, step, schedules)
    return run


def print_table(data):
    """All rows of a data set in Markdown; of several seeds the mean, smallest and largest."""
    with open(TABLE, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["data"] == data]
    print("| recipe | minutes | seeds | images/s | FFD, validation | FFD | SWD | precision | recall | MS-SSIM |" + "\n|" + " --- |" * 10)
    key = lambda row: (row["recipe"], row["settings"], float(row["minutes"]))  # noqa: E731
    for (recipe, _, minutes), group in itertools.groupby(sorted(rows, key=key), key):
        group, cells = list(group), []
        for name in ("images_per_second", "ffd_validation", "ffd", "swd", "precision", "recall", "ms_ssim"):
            values = [float(row[name]) for row in group if row[name]]
            spread = f" ({min(values):.4g} to {max(values):.4g})" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.4g}{spread}" if values else "")
        if any(row["d_loss"] == "diverged" for row in group):
            cells[2] += " diverged"
        print(f"| {recipe} | {minutes:g} | {len(group)} | {' | '.join(cells)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--only", nargs="+", default=list(RECIPES), help="names of recipes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 5, 10, 20])
    parser.add_argument("--size", type=int, default=lesson.image_size, help="pixels")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "results", help="where the runs are kept")
    args = parser.parse_args()

    lesson.image_size = args.size
    lesson.loader = lesson.get_dataloader(1, lesson.image_size, args.faces)
    test, n = lesson.real_faces("test"), len(lesson.real_faces("test"))
    lesson.reference, real = (helpers.face_features(faces) for faces in (lesson.real_faces("validation"), test))

    def scores(faces):
        """For twice as many faces as there are real ones to test on."""
        seen = helpers.face_features(faces)
        return [lesson.frechet_distance(seen, lesson.reference), lesson.frechet_distance(seen, real),
                np.mean(lesson.sliced_wasserstein(test, faces[:n])), *lesson.precision_recall(real, seen[:n]),
                lesson.ms_ssim(faces[:n])]

    def add(recipe, seed, minutes, settings, *numbers):
        with open(TABLE, "a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow([args.faces.name, recipe, seed, f"{minutes:g}", *(
                f"{x:.4g}" if isinstance(x, float) else x for x in numbers), n, settings, machine()])

    if not TABLE.exists():
        TABLE.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    with open(TABLE, encoding="utf-8", newline="") as file:
        done = {tuple(row[name] for name in ("data", "recipe", "seed", "minutes", "settings")) for row in csv.DictReader(file)}
    training = lesson.real_faces("train", 2 * n)
    for name, faces in (("real", training), ("noise", lesson.noise_like(training))):
        if (args.faces.name, name, "", "0", "") not in done:
            add(name, "", 0, "", *[""] * 4, *scores(faces))
    for recipe in args.only:
        settings = ", ".join(f"{name} {value}" for name, value in resolved(recipe)[0].items())
        for seed in args.seeds:
            for minutes in sorted(args.minutes):
                if (args.faces.name, recipe, str(seed), f"{minutes:g}", settings) in done:
                    continue
                evolves = "schedule" in RECIPES[recipe] or "noise" in RECIPES[recipe].get("step", {})
                name = f"{recipe}, seed {seed}" + f", {minutes:g} minutes" * evolves  # another run for another length
                folder = args.runs / args.faces.name / re.sub(r"[ :;]+", "_", name)
                try:
                    run = trained(recipe, seed, minutes, args.faces, folder)
                except FloatingPointError as error:
                    print(error)
                    add(recipe, seed, minutes, settings, "", "", "diverged", *[""] * 7)
                    break
                if run.seconds > 60 * (minutes + 1):
                    print(f"{run.folder} has had {run.seconds / 60:.0f} minutes already: no row for {minutes:g}.")
                    continue
                generator = torch.export.load(run.folder / "generator.pt2").module()
                faces = lesson.draw(generator, 2 * n, 1000 + seed)  # of other latents than those that chose the epoch
                add(recipe, seed, minutes, settings, run.images, run.images / run.seconds, *np.mean(run.losses[-20:], 0).tolist(),
                    *scores(faces))
    print_table(args.faces.name)


if __name__ == "__main__":
    main()
