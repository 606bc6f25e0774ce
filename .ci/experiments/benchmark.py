"""Time the notebook's training against the baseline (baseline.py), in alternating pairs: speed.csv.

    python .ci/experiments/benchmark.py FACES [--sizes 32 64] [--seconds 4] [--pairs 5]
    python .ci/experiments/benchmark.py FACES --ranks 2 [--seconds 4] [--pairs 5]

FACES: a folder of face photographs, or "drawn". The first case compares the notebook's default
settings with the baseline in batches of 128. In the other cases both loops train the same networks,
on 16 batches held in memory ("step only") or read from files ("with data"). The notebook's loop is
timed with the plain step: without R1, sample grids and checkpoints. Memory is measured over up to
20 steps in a separate process, without the pages of mapped files (on Linux only); on a GPU it is
what PyTorch allocates. Cases already in the table for this machine are skipped. Close other
programs first.

With --ranks, the notebook's training is timed in one process and in that many under torchrun. Each
rank has its own GPU, or its share of the CPU's cores.
"""

import contextlib
import itertools
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import baseline
import torch
from common import (
    Table,
    device,
    helpers,
    lesson,
    machine,
    optimizers_of,
    parser_of,
    parts_of,
    prepare,
    train,
)

from assets.lib import decoding

MOST_STEPS = 20  # while memory is watched


@dataclass
class Case:
    """One row of the table; `data`: a folder of images."""

    size: int
    batch: int
    bfloat16: bool
    data: str
    step_only: bool = False
    default: bool = False

    def __str__(self):
        if self.default:
            return f"{self.size} x {self.size}, with the default settings"
        kind = "bfloat16" if self.bfloat16 else "float32"
        what = "step only" if self.step_only else "with data"
        return f"{self.size} x {self.size}, batch {self.batch}, {kind}, {what}"


def networks_at(size, **changes):
    """D and G with the lesson's settings, except for these, on the device."""
    return lesson.fresh(lesson.settings.but(image_size=size, **changes))


def notebook_networks(size):
    return networks_at(size, g_conv_dim=64)


def batches(case, loader, most=16):
    """Endless batches: from the loader, or the same few again and again, on the device."""
    if case.step_only:
        few = [images.to(device()) for images, _ in itertools.islice(loader, most)]
        yield from itertools.cycle(few)
    while True:
        yield from (images for images, _ in loader)


def baseline_loop(case):
    """Train endlessly as the baseline does; yields the number of real images after each step."""
    settings = lesson.settings.but(image_size=case.size, **baseline.SETTINGS)
    D, G = baseline.networks(settings) if case.default else notebook_networks(case.size)
    D, G = D.to(device()), G.to(device())
    optimizers = optimizers_of(settings, D, G, baseline.adam)
    for images in batches(case, baseline.loader(case.batch, case.size, case.data)):
        baseline.step(D, G, images.to(device()) * 2 - 1, *optimizers)
        yield len(images)


def notebook_loop(case):
    """Train endlessly as the notebook's `train` does."""
    networks = networks_at(case.size) if case.default else notebook_networks(case.size)
    D, G, averaged, *optimizers = parts_of(lesson.settings, *networks).values()
    batch = helpers.default_batch_size(10**6) if case.default else case.batch
    loader = lesson.get_dataloader(batch, case.size, case.data, flip=True)
    helpers.keep_on(device(), loader.dataset)
    for images in batches(case, loader):
        bfloat16 = helpers.autocast(device()) if case.bfloat16 else contextlib.nullcontext()
        with bfloat16:
            lesson.train_step(D, G, lesson.scale(images.to(device())), *optimizers)
        averaged.update_parameters(G)
        yield len(images)


LOOPS = baseline_loop, notebook_loop


def wait():
    if helpers.has_gpu():
        torch.cuda.synchronize()


def images_per_second(loop, seconds):
    wait()
    started, images = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        images += next(loop)
    wait()
    return images / (time.perf_counter() - started)


def megabytes():
    """The memory of this process without the pages of mapped files; 0 if unknown."""
    if helpers.has_gpu():
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    found = re.search(r"RssAnon:\s+(\d+)", status.read_text()) if status.exists() else None
    return int(found[1]) / 1e3 if found else 0.0


def use_cache(folder):
    """Keep decoded faces in this folder."""
    decoding.CACHE = Path(folder)


def first_steps(case, loop, cache):
    """Seconds until the first step is done, and the peak memory of the first steps."""
    use_cache(cache)
    peaks, done = [megabytes()], threading.Event()

    def watch():
        while not done.wait(0.01):
            peaks.append(megabytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started, steps = time.perf_counter(), loop(case)
    next(steps)
    wait()
    seconds = time.perf_counter() - started
    for _ in itertools.islice(steps, MOST_STEPS - 1):
        if time.perf_counter() - started > seconds + 10:
            break
    done.set()
    watcher.join()
    return seconds, max(peaks)


def in_own_process(function, *args):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


def ratios_of(pairs):
    """The median, smallest and largest ratio."""
    ratios = [ours / theirs for theirs, ours in pairs]
    return statistics.median(ratios), min(ratios), max(ratios)


def compare(case, seconds, n_pairs, cache):
    """Median speeds over alternating pairs; median, smallest and largest ratio; and memory."""
    memory = [in_own_process(first_steps, case, loop, cache)[1] for loop in LOOPS]
    loops = [loop(case) for loop in LOOPS]
    for loop in loops:
        images_per_second(loop, seconds / 4)  # warm up
    pairs = [[images_per_second(loop, seconds) for loop in loops] for _ in range(n_pairs)]
    theirs, ours = (statistics.median(column) for column in zip(*pairs))
    ratios = ratios_of(pairs)
    found = {"baseline, images/s": theirs, "notebook, images/s": ours}
    found |= dict(zip(("ratio", "smallest ratio", "largest ratio"), ratios))
    return found | dict(zip(("baseline, MB", "notebook, MB"), memory))


def train_as_rank(batch, seconds, data):
    """The notebook's training, run by each rank; prints images/s."""
    torch.manual_seed(0)
    helpers.world()  # which GPU
    parts = parts_of(lesson.settings, *networks_at(32))
    loader = lesson.get_dataloader(batch, 32, data, flip=True)
    for limit in (seconds / 4, seconds):  # the first to warm up
        run = helpers.Run(stop=helpers.StopRule(limit / 60), **parts)
        train(run, loader)
        wait()
    print(f"images/s: {run.images_per_second}")


def speed_of(ranks, batch, seconds, data):
    """Images/s of this many processes under torchrun."""
    environment = {"PYTHONPATH": str(Path(__file__).parent)}
    if not helpers.has_gpu():
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // ranks))
    code = f"import benchmark; benchmark.train_as_rank({batch}, {seconds}, {data!r})"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, f"--nproc-per-node={ranks}", "--no-python", sys.executable, "-c", code]
    environment = os.environ | environment
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return float(done.stdout.rpartition("images/s:")[2])


def compare_ranks(ranks, batches, seconds, n_pairs, data):
    heads = ["batch of all ranks", "one rank, images/s", f"{ranks} ranks, images/s", "ratio"]
    print("|", " | ".join(heads), "|\n|" + " --- |" * len(heads), flush=True)
    for batch in batches:
        both = (1, ranks)
        pairs = [[speed_of(n, batch, seconds, data) for n in both] for _ in range(n_pairs)]
        one, many = (statistics.median(column) for column in zip(*pairs))
        ratio, low, high = ratios_of(pairs)
        cells = f"{batch} | {one:,.0f} | {many:,.0f} | {ratio:.2f} ({low:.2f} to {high:.2f})"
        print(f"| {cells} |", flush=True)


def first_step(case, cache):
    """Seconds until the first training step, with and without decoding, and its memory."""
    (first, memory), (again, _) = (
        in_own_process(first_steps, case, notebook_loop, cache) for _ in range(2)
    )
    return {"seconds, the first time": first, "seconds, the next": again, "MB": memory}


def compare_loops(args, data):
    precisions = [False, True] if helpers.has_fast_bfloat16(device()) else [False]
    default = Case(32, baseline.SETTINGS["batch_size"], precisions[-1], data, default=True)
    kinds = itertools.product(args.sizes, precisions, (True, False))
    cases = [Case(size, args.batch, bfloat16, data, only) for size, bfloat16, only in kinds]
    table, common = Table(args.table), dict(data=Path(data).name, machine=machine())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        use_cache(cache)
        measurements = {"first step": (32, partial(first_step, default, cache))}
        for case in [default, *cases]:
            compared = partial(compare, case, args.seconds, args.pairs, cache)
            measurements[str(case)] = case.size, compared
        for name, (size, measure) in measurements.items():
            row = dict(experiment=name, size=size) | common
            if any(words in name for words in args.only) and not table.has(**row):
                for what, value in measure().items():
                    table.add(**row, measure=what, value=value, n=args.pairs)


def main(arguments=None):
    parser = parser_of(__doc__, "speed.csv")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[""], help="words in the names of cases")
    parser.add_argument(
        "--ranks", type=int, help="time so many processes against one, nothing else"
    )
    args = parser.parse_args(arguments)
    data = prepare(args.faces, args.runs).settings.data_dir
    if args.ranks:
        sizes = helpers.default_batch_size(10**6), args.batch, 4 * args.batch
        compare_ranks(args.ranks, sizes, args.seconds, args.pairs, data)
    else:
        compare_loops(args, data)


if __name__ == "__main__":
    main()
