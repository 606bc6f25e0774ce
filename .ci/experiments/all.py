"""Run every experiment behind the tables of the documents, the most important first.

    python .ci/experiments/all.py FACES [--list]
    python .ci/experiments/all.py --quick

FACES: the folder that holds processed_celeba_small, celeba_128, utkface and list_attr_celeba.txt.
Experiments whose folder is missing are skipped. Each experiment calls a script, which adds rows to
its own table. Rows already in a table are skipped, and a stopped run resumes, so you can stop this
script at any time and call it again. Before each experiment it prints how long the rest will take,
estimated from the experiments of this call. --list only prints the calls. --quick runs a small
version of each script on drawn faces, with tables of its own, in the folder quick.
"""

import argparse
import importlib
import itertools
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import conditioning
from common import HERE, ROOT, RUNS, lesson

SEEDS = 0, 1, 2
CELEBA, LARGE, UTKFACE = "processed_celeba_small", "celeba_128", "utkface"
OLDER_WOMEN = r"(5[1-9]|[6-9]\d|1\d\d)_1_1_"
COMMITTED = ROOT / "assets" / "weights" / "celeba_32.pt"


@dataclass
class Experiment:
    """A call of a script; `cost`: its time, in training images of the notebook at 32 pixels."""

    script: str
    faces: str
    arguments: tuple
    cost: int

    def __str__(self):
        return " ".join([f"{self.script}.py {self.faces}", *map(str, self.arguments)])


def recipe(name, images, seed, cost=1.0, size=32):
    arguments = "--only", name, "--images", images, "--seeds", seed, "--size", size
    return Experiment("results", CELEBA, arguments, int(cost * images))


def by_images():
    """The notebook, its variants and the baseline by the number of images."""
    for images, seed in itertools.product((50_000, 100_000, 200_000, 350_000), SEEDS):
        yield recipe("notebook", images, seed)
    for seed in SEEDS:
        yield recipe("notebook, a layer at full size", 350_000, seed, cost=1.6)
    for images, seed in itertools.product((50_000, 100_000, 200_000), SEEDS):
        yield recipe("baseline", images, seed, cost=5)
    for images, seed in itertools.product((400_000, 800_000), SEEDS):
        yield recipe("notebook", images, seed)
    for images in (1_600_000, 5_000_000):
        yield recipe("notebook", images, 0)
    for seed, name in itertools.product(SEEDS, conditioning.RECIPES):
        yield recipe(name, 350_000, seed, cost=1.2)


def changes():
    """One change of the plain step at a time, for five minutes."""
    for seed, name in itertools.product(SEEDS, (*lesson.CHOICES, "D: group norm", "D: pixel norm")):
        arguments = "--only", name, "--minutes", 5, "--seeds", seed
        yield Experiment("results", CELEBA, arguments, 200_000)


def other_sections():
    """Speed, then every other table of the documents."""
    yield Experiment("benchmark", CELEBA, (), 200_000)
    yield Experiment("where_time_goes", CELEBA, (), 20_000)
    yield Experiment("flow", CELEBA, (), 4_000_000)
    yield recipe("notebook", 555_328, 0, cost=4, size=64)
    grown = "--size", 64, "--images", 1_228_928, "--grown-only", "--start", COMMITTED
    yield Experiment("growing", CELEBA, grown, 3_000_000)
    yield Experiment("growing", LARGE, ("--images", 680_832, "--grown-only"), 6_000_000)
    labels = "White", "Black", "Asian", "Indian", "Other"
    for faces, arguments in (
        ("drawn", ()),
        (CELEBA, ()),
        (UTKFACE, ("--labels", *labels)),
        ("drawn", ("--balanced", "Eyeglasses")),
        (CELEBA, ("--balanced", "Male")),
    ):
        yield Experiment("conditional", faces, arguments, 500_000)
    for seed, kind in itertools.product(SEEDS, ((), ("--predicted",))):
        arguments = *kind, "--images", 50_000, "--seed", seed
        yield Experiment("conditional", CELEBA, arguments, 70_000)
    for images in (16_510, 145_964):
        arguments = "--size", 64, "--images", images
        yield Experiment("makeup", CELEBA, arguments, 30 * images)
    for weights in ((), ("--cycle", 3, "--identity", 1)):
        yield Experiment("makeup", "drawn", weights, 400_000)
    yield from albums()
    yield Experiment("rejection", CELEBA, (COMMITTED,), 60_000)
    yield Experiment("judge", CELEBA, (), 400_000)  # needs dlib
    for name in ("collapsed", "the discriminator wins"):
        yield recipe(name, 80_000, 0)


def albums():
    kinds = {UTKFACE: ("--names", OLDER_WOMEN, "--n", 100), "drawn": ("--n", 300)}
    kinds[CELEBA] = "--label", "Wearing_Hat", "--n", 1000
    for faces, kind in kinds.items():
        for start, shift in itertools.product((False, True), repeat=2):
            arguments = [*kind, *("--start", COMMITTED) * start, *["--augmented"] * shift]
            yield Experiment("album", faces, tuple(arguments), 1_100_000)


def everything():
    return [*by_images(), *changes(), *other_sections()]


def in_small(images=160):
    """A small version of each script, on drawn faces."""
    limit = "--images", images
    variants = "notebook, a layer at full size", *conditioning.RECIPES
    for name in ("baseline", "notebook", *variants):
        yield Experiment("results", "drawn", ("--only", name, *limit), images)
    few = "--sizes", 32, "--seconds", 0.02, "--pairs", 1, "--only", "default"
    yield Experiment("benchmark", "drawn", few, images)
    yield Experiment("where_time_goes", "drawn", ("--sizes", 32, "--steps", 2), images)
    yield Experiment("flow", "drawn", ("--minutes", 0.01), images)
    yield Experiment("growing", "drawn", ("--size", 64, "--grown-only", *limit), images)
    for script in ("conditional", "makeup"):
        yield Experiment(script, "drawn", limit, images)
    yield Experiment("album", "drawn", ("--label", "Smiling", "--n", 60, *limit), images)


def run_all(experiments, folder, runs, tables):
    """Run them, and print before each how long the rest will take -> those that failed."""
    cost_left = sum(experiment.cost for experiment in experiments)
    seconds, cost_done, failed = 0.0, 0, []
    for number, experiment in enumerate(experiments, 1):
        hours = f"{seconds / cost_done * cost_left / 3600:.1f} hours left" if cost_done else ""
        print(f"\n[{number} of {len(experiments)}] {experiment}", hours, sep="\n", flush=True)
        cost_left -= experiment.cost
        faces = experiment.faces if experiment.faces == "drawn" else folder / experiment.faces
        if faces != "drawn" and not faces.is_dir():
            print(f"{faces} is missing: skipped.")
            continue
        table = tables / TABLES.get(experiment.script, f"{experiment.script}.csv")
        before, started = size_of(table), time.perf_counter()
        arguments = [faces, *experiment.arguments, "--runs", runs, "--table", table]
        try:
            importlib.import_module(experiment.script).main([str(x) for x in arguments])
        except Exception:  # the others do not depend on it
            traceback.print_exc()
            failed.append(experiment)
        if size_of(table) > before:
            seconds, cost_done = (
                seconds + time.perf_counter() - started,
                cost_done + experiment.cost,
            )
    return failed


TABLES = {"benchmark": "speed.csv", "where_time_goes": "speed.csv"}


def size_of(table):
    return table.stat().st_size if table.exists() else 0


def main(arguments=None):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("faces", type=Path, nargs="?", help="the folder that holds the others")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where the runs are kept")
    parser.add_argument("--list", action="store_true", help="list the calls and stop")
    parser.add_argument("--quick", action="store_true", help="each script in small")
    args = parser.parse_args(arguments)
    if not (args.faces or args.quick):
        parser.error("FACES is missing: name the folder that holds processed_celeba_small.")
    experiments = [*in_small()] if args.quick else everything()
    if args.list:
        print(*experiments, sep="\n")
        return
    tables, runs = (Path("quick"), Path("quick")) if args.quick else (HERE, args.runs)
    tables.mkdir(exist_ok=True)
    failed = run_all(experiments, args.faces, runs, tables)
    if failed:
        raise SystemExit("\n".join(["These failed:", *map(str, failed)]))


if __name__ == "__main__":
    main()
