"""Train the network whose features the scores compare: assets/weights/face_network.pt.

    python .ci/experiments/train_face_network.py FACES ATTRIBUTES [--epochs 10]
    python .ci/experiments/train_face_network.py FACES ATTRIBUTES --epochs 0

FACES: a folder of CelebA's faces at 64 x 64 pixels; ATTRIBUTES: its list_attr_celeba.txt. Every
second batch is reduced to 32 x 32, so that one network scores every size. The lesson's held-out
faces are held out here, too, and the accuracy is measured on them. With 0 epochs the weights in the
file are kept and only measured.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import device, helpers, lesson

from assets.lib.attributes import read_attributes
from assets.lib.labeled import SURE
from assets.lib.network import WEIGHTS, FaceNetwork

BATCH = 128


def uniform(low, high, n, *shape):
    return (low + (high - low) * torch.rand(n, *shape)).to(device())


def varied(images):
    """Images mirrored, rotated, shifted, zoomed and relit at random."""
    n = len(images)
    angle, zoom = uniform(-0.125, 0.125, n), uniform(0.9, 1.1, n)
    mirror = uniform(-1, 1, n).sign()
    sine, cosine = zoom * angle.sin(), zoom * angle.cos()
    across = [mirror * cosine, -sine, uniform(-0.08, 0.08, n)]
    down = [mirror * sine, cosine, uniform(-0.08, 0.08, n)]
    transform = torch.stack(across + down, 1).view(n, 2, 3)
    grid = F.affine_grid(transform, images.shape, align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    contrast, light = uniform(0.85, 1.15, n, 1, 1, 1), uniform(-0.1, 0.1, n, 1, 1, 1)
    return images * contrast + light


def accuracy(network, images, labels, size):
    """Accuracy over all attributes at this size, averaged over each face and its mirror image."""
    right = 0
    network.eval()
    with torch.no_grad(), helpers.autocast(device()):
        for x, y in zip(images.split(250), labels.split(250)):
            x = F.avg_pool2d(lesson.scale(x.to(device())), 64 // size)
            logits = network(x) + network(x.flip(-1))
            right += ((logits > 0).cpu() == y.bool()).sum().item()
    network.train()
    return right / labels.numel()


def right_when_sure(network, images, labels):
    """The accuracy of the sure predictions of each attribute, at 32 pixels: (40,)."""
    logits = lesson.in_batches(network.eval(), F.avg_pool2d(lesson.scale(images), 2))
    sure, right = logits.abs() > SURE, (logits > 0) == labels.bool()
    return (sure & right).sum(0) / sure.sum(0)


def train(network, images, labels, held_out, epochs, peak=4e-3):
    """Print the accuracy on the held-out images and labels after each epoch."""
    steps = len(images) // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), peak, weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak, total_steps=epochs * steps, pct_start=0.15
    )
    started = time.perf_counter()
    for epoch in range(epochs):
        for step, rows in enumerate(torch.randperm(len(images)).split(BATCH)[:steps]):
            x, y = images[rows].to(device()), labels[rows].to(device())
            x = varied(lesson.scale(x))
            if step % 2:
                x = F.avg_pool2d(x, 2)
            with helpers.autocast(device()):
                loss = F.binary_cross_entropy_with_logits(network(x).float(), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        right = [f"{accuracy(network, *held_out, size):.2%} at {size}" for size in (64, 32)]
        print(f"epoch {epoch + 1}: right {', '.join(right)} pixels; ", end="")
        print(f"{time.perf_counter() - started:.0f} s", flush=True)


def read(faces, attributes):
    """The names of the attributes; images in [0, 1] and labels to train on, and held out."""
    names, table = read_attributes(attributes)
    dataset = lesson.get_dataloader(1, 64, faces).dataset
    pairs = []
    for name in helpers.PARTS:
        part = dataset.part(name)
        images = part.batch(range(len(part)))[0]
        labels = np.array([table[Path(part.names[row]).name] for row in part.rows])
        pairs.append((images, torch.tensor(labels).float()))
    held_out = [torch.cat(column) for column in zip(*pairs[1:])]
    return names, pairs[0], held_out


def save(network, names, right, path):
    """Write the network's weights in half precision, and its accuracy when it is sure."""
    state = network.cpu().state_dict()
    halved = {name: x.half() if x.is_floating_point() else x for name, x in state.items()}
    content = {"attributes": names, "weights": halved, "right_when_sure": right}
    torch.save(content, path)


def main(arguments=None):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("faces")
    parser.add_argument("attributes", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    args = parser.parse_args(arguments)

    torch.manual_seed(0)
    names, training, held_out = read(args.faces, args.attributes)
    network = FaceNetwork(n_attributes=len(names)).to(device(), memory_format=torch.channels_last)
    if args.epochs:
        train(network, *training, held_out, args.epochs)
    else:
        weights = torch.load(args.weights, weights_only=True)["weights"]
        network.load_state_dict({name: value.float() for name, value in weights.items()})
    save(network, names, right_when_sure(network, *held_out), args.weights)
    shares = held_out[1].mean(0)
    guess = torch.maximum(shares, 1 - shares).mean()
    print(f"{args.weights}: {args.weights.stat().st_size:,} bytes. ", end="")
    print(f"Always predicting the more frequent value is right {guess:.2%} of the time.")


if __name__ == "__main__":
    main()
