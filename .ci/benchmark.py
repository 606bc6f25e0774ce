"""Time the notebook's training against the loop as it is usually taught, in alternating pairs.

    python .ci/benchmark.py [--data FOLDER] [--sizes 32 64] [--batch 128] [--seconds 8] [--pairs 5]

The usual loop: ImageFolder with Resize and ToTensor, float32, a fresh batch of fakes for each update, labels built per
step, .item() every step. "Same networks" puts both loops on the notebook's networks; "recipe" compares the notebook as
it is committed, batch size and all, with the usual loop on four layers from 64 channels.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torchvision import datasets, transforms

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import helpers  # noqa: E402
import problem_unittests  # noqa: E402

lesson = problem_unittests.read_notebook()


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


def usual_loader(data, size, batch):
    transform = transforms.Compose([transforms.Resize((size, size)), transforms.ToTensor()])
    dataset = datasets.ImageFolder(data, transform, is_valid_file=helpers.is_image)
    return torch.utils.data.DataLoader(dataset, batch, shuffle=True, drop_last=True)


def adam(net):
    return torch.optim.Adam(net.parameters(), 2e-4, betas=(0.5, 0.999))


def usual_loop(D, G, loader, device):
    """Train for ever; yields the number of real images after each step."""
    D, G, loss = D.to(device), G.to(device), nn.BCEWithLogitsLoss()
    d_optimizer, g_optimizer = adam(D), adam(G)
    while True:
        for images, _ in loader:
            real, n = images.to(device) * 2 - 1, len(images)
            d_optimizer.zero_grad()
            d_loss = (loss(D(real).squeeze(), 0.9 * torch.ones(n, device=device))
                      + loss(D(G(torch.randn(n, G.z_size, device=device))).squeeze(), torch.zeros(n, device=device)))
            d_loss.backward()
            d_optimizer.step()
            g_optimizer.zero_grad()
            g_loss = loss(D(G(torch.randn(n, G.z_size, device=device))).squeeze(), torch.ones(n, device=device))
            g_loss.backward()
            g_optimizer.step()
            d_loss.item(), g_loss.item()
            yield n


def our_loop(D, G, loader, device):
    """What the notebook's `train` does in each step, without the progress bar."""
    D, G = (net.to(device, memory_format=torch.channels_last) for net in (D, G))
    d_optimizer, g_optimizer = adam(D), adam(G)
    averaged = torch.optim.swa_utils.AveragedModel(G, multi_avg_fn=lesson.moving_average)
    while True:
        for images, _ in loader:
            with helpers.autocast(device):
                lesson.train_step(D, G, lesson.scale(images.to(device)), d_optimizer, g_optimizer)
            averaged.update_parameters(G)
            yield len(images)


def images_per_second(loop, seconds, device):
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    started, images = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        images += next(loop)
    wait()
    return images / (time.perf_counter() - started)


def compare(name, usual, ours, args, device):
    """Print one row: medians of alternating pairs, and the ratio's median, smallest and largest."""
    for loop in (usual, ours):
        images_per_second(loop, 2, device)  # warm up
    pairs = [[images_per_second(loop, args.seconds, device) for loop in (usual, ours)] for _ in range(args.pairs)]
    ratios = [our / usual for usual, our in pairs]
    usual, our = (statistics.median(column) for column in zip(*pairs))
    print(f"| {name} | {device.type} | {usual:,.0f} | {our:,.0f} | {statistics.median(ratios):.2f} "
          f"({min(ratios):.2f} to {max(ratios):.2f}) |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder of face photographs; without it drawn faces are taken")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement")
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    data = args.data or helpers.find_data("drawn")
    print("| case | device | usual loop, images/s | notebook, images/s | ratio, median (min to max) |\n"
          "| --- | --- | --- | --- | --- |")
    for device in map(torch.device, ["cpu"] + ["cuda"] * torch.cuda.is_available()):
        for size in args.sizes:
            networks = lambda: lesson.build_network(64, 64, 100, size)  # noqa: E731
            case = f"{size} x {size}, same networks, batch {args.batch}"
            compare(case, usual_loop(*networks(), usual_loader(data, size, args.batch), device),
                    our_loop(*networks(), lesson.get_dataloader(args.batch, size, data, flip=True), device), args, device)
        compare("32 x 32, recipe", usual_loop(*usual_networks(32), usual_loader(data, 32, 128), device),
                our_loop(*lesson.build_network(64, 64, 100, 32), lesson.get_dataloader(64, 32, data, flip=True), device),
                args, device)
