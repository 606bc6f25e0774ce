"""Train the small face network in whose features the scores compare faces, and write assets/face_network.pt.

    python .ci/face_network.py FACES ATTRIBUTES [--epochs 10]

FACES: a folder of CelebA's faces at 64 x 64 pixels; ATTRIBUTES: its list_attr_celeba.txt. Every second batch is seen
reduced to 32 x 32 pixels, so that one network scores every size. The faces that the lesson holds out are held out here,
too; on them the accuracy is printed.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import helpers  # noqa: E402
import problem_unittests  # noqa: E402

lesson = problem_unittests.read_notebook()
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BATCH = 128


def varied(images):
    """Images mirrored, turned, moved, zoomed and relit by random amounts, as photographs differ."""
    n = len(images)
    between = lambda low, high, *shape: low + (high - low) * torch.rand(n, *shape)  # noqa: E731
    angle, zoom, mirror = between(-0.125, 0.125), between(0.9, 1.1), between(-1, 1).sign()
    rows = torch.stack([mirror * zoom * angle.cos(), -zoom * angle.sin(), between(-0.08, 0.08),
                        mirror * zoom * angle.sin(), zoom * angle.cos(), between(-0.08, 0.08)], 1)
    grid = F.affine_grid(rows.view(n, 2, 3), images.shape, align_corners=False).to(images.device)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    contrast, light = between(0.85, 1.15, 1, 1, 1), between(-0.1, 0.1, 1, 1, 1)
    return images * contrast.to(images.device) + light.to(images.device)


def accuracy(network, images, labels, size):
    """Share of right answers over all attributes, on images reduced to `size`; each seen straight and mirrored."""
    right = 0
    network.eval()
    with torch.no_grad(), helpers.autocast(device):
        for x, y in zip(images.split(250), labels.split(250)):
            x = F.avg_pool2d(lesson.scale(x.to(device) / 255), 64 // size)
            right += ((network(x) + network(x.flip(-1)) > 0).cpu() == y.bool()).sum().item()
    network.train()
    return right / labels.numel()


def train(network, images, labels, held_images, held_labels, epochs, peak=4e-3):
    steps = len(images) // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), peak, weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=epochs * steps, pct_start=0.15)
    started = time.perf_counter()
    for epoch in range(epochs):
        losses = torch.zeros(steps)
        for step, rows in enumerate(torch.randperm(len(images)).split(BATCH)[:steps]):
            x = varied(lesson.scale(images[rows].to(device) / 255))
            x = F.avg_pool2d(x, 2) if step % 2 else x
            with helpers.autocast(device):
                loss = F.binary_cross_entropy_with_logits(network(x).float(), labels[rows].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses[step] = loss.detach()
        right = {size: accuracy(network, held_images, held_labels, size) for size in (64, 32)}
        print(f"epoch {epoch + 1}: loss {losses.mean():.4f}, right on {len(held_images):,} held-out faces: "
              f"{right[64]:.2%} at 64 x 64, {right[32]:.2%} at 32 x 32; "
              f"{time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces")
    parser.add_argument("attributes")
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args()

    torch.manual_seed(0)
    names, table = helpers.read_attributes(args.attributes)
    data = []
    every = lesson.get_dataloader(BATCH, 64, args.faces).dataset
    for faces in map(every.part, helpers.PARTS):
        data.append((faces.images[faces.rows], torch.tensor(np.array([table[name] for name in faces.names])).float()))
    held_out = [torch.cat(pair) for pair in zip(*data[1:])]
    network = helpers.FaceNetwork(n_attributes=len(names)).to(device, memory_format=torch.channels_last)
    train(network, *data[0], *held_out, args.epochs)

    weights = {name: value.half() if value.is_floating_point() else value for name, value in network.cpu().state_dict().items()}
    network.load_state_dict({name: value.float() for name, value in weights.items()})
    network.to(device)
    guess = torch.stack([held_out[1].mean(0), 1 - held_out[1].mean(0)]).max(0).values.mean().item()
    print(f"As stored: {accuracy(network, *held_out, 64):.2%} at 64 x 64, {accuracy(network, *held_out, 32):.2%} at 32 x 32; "
          f"always saying what is more frequent: {guess:.2%}")
    path = ROOT / "assets" / "face_network.pt"
    torch.save({"attributes": names, "weights": weights}, path)
    print(f"{path.name}: {path.stat().st_size:,} bytes")
