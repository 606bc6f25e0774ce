"""Time the notebook's training against the loop as it is usually taught, in alternating pairs.

    python .ci/benchmark.py [--data FOLDER] [--sizes 32 64 128] [--batch 128] [--seconds 4] [--pairs 5] [--only WORDS]
    python .ci/benchmark.py --ranks 2 [--data FOLDER] [--seconds 4] [--pairs 5]

The usual loop: ImageFolder with Resize and ToTensor, float32, a fresh batch of fakes for each update, gradients for all
that took part in it (the discriminator's update differentiates the generator, too), labels built per step, .item()
every step. The first row compares the notebook with all its settings to the usual loop on four layers
from 64 channels and batches of 128. In the others both loops train the networks of the notebook, on 16 batches held in
memory ("step alone") or from the files ("with data"). The notebook's loop is timed without its sample sheets and
checkpoints. Peak memory is what each loop takes in a process of its own in up to 20 steps: without the pages of mapped
files on the CPU (on Linux; elsewhere it is not known), PyTorch's own on a GPU.

With --ranks, the notebook's loop is timed in one process and in so many that train together under torchrun, in alternating
pairs: on a GPU each, or with the processor's cores shared out among them.
"""

import argparse
import contextlib
import itertools
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torchvision import datasets, transforms

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import helpers  # noqa: E402
import problem_unittests  # noqa: E402

lesson = problem_unittests.read_notebook()


class Case(NamedTuple):
    """One row of the table. `data`: a folder of images."""

    device: str
    size: int
    batch: int
    bfloat16: bool
    data: str
    step_alone: bool = False
    as_committed: bool = False

    def __str__(self):
        if self.as_committed:
            return f"{self.size} x {self.size}, with the default settings"
        return (f"{self.size} x {self.size}, batch {self.batch}, {'bfloat16' if self.bfloat16 else 'float32'}, "
                f"{'step alone' if self.step_alone else 'with data'}")


def usual_networks(size, z_size=100, width=64):
    """Four strided layers each, from 64 channels, and linear layers: a discriminator and a generator."""
    widths, small = [width * 2**i for i in range(4)], size // 16
    d_layers, g_layers = [], []
    for i, (inner, outer) in enumerate(zip([3, *widths], widths)):
        d_layers += [nn.Conv2d(inner, outer, 4, 2, 1, bias=i == 0), nn.BatchNorm2d(outer) if i else nn.Identity(),
                     nn.LeakyReLU(0.2)]
        last = i == 0
        g_layers = [nn.ConvTranspose2d(outer, inner, 4, 2, 1, bias=last),
                    nn.Tanh() if last else nn.Sequential(nn.BatchNorm2d(inner), nn.ReLU())] + g_layers
    D = nn.Sequential(*d_layers, nn.Flatten(), nn.Linear(widths[-1] * small**2, 1))
    G = nn.Sequential(nn.Linear(z_size, widths[-1] * small**2), nn.Unflatten(1, (widths[-1], small, small)), *g_layers)
    G.z_size = z_size
    return D.apply(lesson.weights_init_normal), G.apply(lesson.weights_init_normal)


def notebook_networks(size):
    return lesson.build_network(lesson.d_conv_dim, lesson.g_conv_dim, lesson.z_size, size)


def batches(case, loader, most=16):
    """Batches for ever: from the loader, or always the same few, on the device."""
    if case.step_alone:
        yield from itertools.cycle([images.to(case.device) for images, _ in itertools.islice(loader, most)])
    while True:
        yield from (images for images, _ in loader)


def usual_step(D, G, real, d_optimizer, g_optimizer):
    """One update of each network on real images in [-1, 1], as it is usually taught -> d_loss, g_loss."""
    loss, n, device = F.binary_cross_entropy_with_logits, len(real), real.device
    d_optimizer.zero_grad()
    d_loss = (loss(D(real).squeeze(), 0.9 * torch.ones(n, device=device))
              + loss(D(G(torch.randn(n, G.z_size, device=device))).squeeze(), torch.zeros(n, device=device)))
    d_loss.backward()
    d_optimizer.step()
    g_optimizer.zero_grad()
    g_loss = loss(D(G(torch.randn(n, G.z_size, device=device))).squeeze(), torch.ones(n, device=device))
    g_loss.backward()
    g_optimizer.step()
    return d_loss.item(), g_loss.item()


def usual_loader(batch_size, image_size, data_dir, is_valid_file=helpers.is_image):
    """Batches of a folder's images, each decoded whenever it is needed."""
    transform = transforms.Compose([transforms.Resize((image_size, image_size)), transforms.ToTensor()])
    dataset = datasets.ImageFolder(data_dir, transform, is_valid_file=is_valid_file)
    return torch.utils.data.DataLoader(dataset, batch_size, shuffle=True, drop_last=True)


def usual_loop(case):
    """Train for ever as it is usually taught; yields the number of real images after each step."""
    device = torch.device(case.device)
    D, G = (net.to(device) for net in (usual_networks if case.as_committed else notebook_networks)(case.size))
    optimizers = [torch.optim.Adam(net.parameters(), 2e-4, betas=(0.5, 0.999)) for net in (D, G)]
    for images in batches(case, usual_loader(case.batch, case.size, case.data)):
        usual_step(D, G, images.to(device) * 2 - 1, *optimizers)
        yield len(images)


def notebook_loop(case):
    """Train for ever as the notebook's `train` does."""
    device = torch.device(case.device)
    D, G = (net.to(device, memory_format=torch.channels_last) for net in notebook_networks(case.size))
    d_optimizer, g_optimizer = (torch.optim.Adam(net.parameters(), rate, betas=(lesson.beta1, 0.999), fused=True)
                                for net, rate in ((D, lesson.d_lr), (G, lesson.lr)))
    averaged = torch.optim.swa_utils.AveragedModel(G)
    loader = lesson.get_dataloader(lesson.batch_size if case.as_committed else case.batch, case.size, case.data, flip=True)
    helpers.keep_on(device, loader.dataset)
    for images in batches(case, loader):
        precision = helpers.autocast(device) if case.bfloat16 else contextlib.nullcontext()
        with precision, torch.backends.cudnn.flags(enabled=True, benchmark=True):
            lesson.train_step(D, G, lesson.scale(images.to(device)), d_optimizer, g_optimizer)
        lesson.moving_average(averaged, G)
        yield len(images)


LOOPS = usual_loop, notebook_loop


def wait_for(device):
    if device == "cuda":
        torch.cuda.synchronize()


def images_per_second(loop, seconds, device):
    wait_for(device)
    started, images = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        images += next(loop)
    wait_for(device)
    return images / (time.perf_counter() - started)


def first_steps(case, loop, cache, most=20):
    """Seconds until the first step is done, and the most memory that up to `most` steps took, in megabytes."""
    helpers.CACHE, peaks, done = Path(cache), [], threading.Event()

    def watch():
        while not done.wait(0.01):
            peaks.append(problem_unittests.anonymous_megabytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started, steps = time.perf_counter(), loop(case)
    next(steps)
    wait_for(case.device)
    seconds = time.perf_counter() - started
    for _ in itertools.islice(steps, most - 1):
        if time.perf_counter() - started > seconds + 10:
            break
    done.set()
    watcher.join()
    return seconds, torch.cuda.max_memory_allocated() / 1e6 if case.device == "cuda" else max(peaks)


def in_own_process(function, *args):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


def compare(case, seconds, pairs, cache):
    """Print one row: medians of alternating pairs, and the ratio's median, smallest and largest."""
    memory = [in_own_process(first_steps, case, loop, cache)[1] for loop in LOOPS]
    usual, ours = (loop(case) for loop in LOOPS)
    for loop in (usual, ours):
        images_per_second(loop, seconds / 4, case.device)  # warm up
    speeds = [[images_per_second(loop, seconds, case.device) for loop in (usual, ours)] for _ in range(pairs)]
    ratios = [our / usual for usual, our in speeds]
    usual, our = (statistics.median(column) for column in zip(*speeds))
    print(f"| {case} | {case.device} | {usual:,.0f} | {our:,.0f} | {statistics.median(ratios):.2f} "
          f"({min(ratios):.2f} to {max(ratios):.2f}) | {memory[0]:,.0f} | {memory[1]:,.0f} |", flush=True)


def train_as_rank(batch, seconds, data):
    """What each rank runs: the notebook's training with batches of so many images for all ranks together; images/s from rank 0."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    helpers.world()  # which GPU
    D, G = (net.to(device, memory_format=torch.channels_last) for net in notebook_networks(32))
    optimizers = [torch.optim.Adam(net.parameters(), rate, betas=(lesson.beta1, 0.999), fused=True)
                  for net, rate in ((D, lesson.d_lr), (G, lesson.lr))]
    loader = lesson.get_dataloader(batch, 32, data, flip=True)
    helpers.keep_on(device, loader.dataset)
    averaged = torch.optim.swa_utils.AveragedModel(G)
    for minutes in (1 / 60, seconds / 60):  # the first to warm up
        run = helpers.Run(max_minutes=minutes, D=D, G=G)
        lesson.train(D, G, loader, *optimizers, 10**6, 10**6, averaged, run)
        wait_for(device.type)
    print(f"images/s: {run.images / run.seconds}")


def scaling(ranks, batch, seconds, pairs, data):
    """Print one row: one rank against several."""
    def speed(n):
        threads = {} if torch.cuda.is_available() else {"OMP_NUM_THREADS": str(max(1, os.cpu_count() // n))}
        code = f"import benchmark; benchmark.train_as_rank({batch}, {seconds}, {data!r})"
        run = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}", "--no-python",
                              sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True,
                             env=os.environ | threads | {"PYTHONPATH": str(ROOT / ".ci")})
        return float(run.stdout.rpartition("images/s:")[2])

    speeds = [(speed(1), speed(ranks)) for _ in range(pairs)]
    one, many = (statistics.median(column) for column in zip(*speeds))
    ratios = [many / one for one, many in speeds]
    print(f"| {batch} | {one:,.0f} | {many:,.0f} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder of face photographs; without it drawn faces are taken")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement, one step at least")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", default="", help="only cases in whose name these words stand")
    parser.add_argument("--ranks", type=int, help="time so many processes that train together against one, and nothing else")
    args = parser.parse_args()
    data = str(args.data or helpers.find_data("drawn"))
    if args.ranks:
        print(f"| batch of all ranks | one rank, images/s | {args.ranks} ranks, images/s | ratio, median (min to max) |\n"
              "| --- | --- | --- | --- |", flush=True)
        for batch in (lesson.batch_size, args.batch, 4 * args.batch):
            scaling(args.ranks, batch, args.seconds, args.pairs, data)
        return

    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
            helpers.CACHE = Path(cache)
            fast = [False] + [True] * helpers.has_fast_bfloat16(torch.device(device))
            committed = Case(device, 32, 128, fast[-1], data, as_committed=True)
            (first, memory), (next_time, _) = (in_own_process(first_steps, committed, notebook_loop, cache) for _ in range(2))
            print(f"On {device}, from building the loader to the first training step, {committed.size} x {committed.size}: "
                  f"{first:.1f} s and {memory:,.0f} MB the first time, {next_time:.1f} s the next.\n\n"
                  "| case | device | usual loop, images/s | notebook, images/s | ratio, median (min to max) "
                  "| usual, peak MB | notebook, peak MB |\n| --- | --- | --- | --- | --- | --- | --- |", flush=True)
            cases = [Case(device, size, args.batch, bfloat16, data, step_alone)
                     for size, bfloat16, step_alone in itertools.product(args.sizes, fast, (True, False))]
            for case in [committed, *cases]:
                if args.only in str(case):
                    compare(case, args.seconds, args.pairs, cache)


if __name__ == "__main__":
    main()
