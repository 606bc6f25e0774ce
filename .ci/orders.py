"""Measure what the last two parts of the notebook reach, given time: a row per figure in .ci/orders.csv.

    python .ci/orders.py FACES [--labels NAME ...] [--balanced NAME] [--size 32] [--minutes 10]
    python .ci/orders.py FACES --swap NAME [--same NAME] [--size 64] [--minutes 60]

FACES: a folder of faces with labels (see helpers.known_labels), or "drawn". The first form trains a generator that draws by
labels and has its faces read by a classifier that learnt from faces held out; with `--balanced` one is trained without labels, on
equal shares of that one, and the share of it in the samples is measured. The second trains a CycleGAN. Runs are kept in --runs,
with pictures; one that was stopped goes on where it was, and one that is finished is not trained again.
"""

import argparse
import csv
from pathlib import Path

import torch
from PIL import Image

from results import ROOT, helpers, lesson, machine

TABLE = ROOT / ".ci" / "orders.csv"
COLUMNS = "what", "data", "size", "minutes", "images", "of", "figure", "value", "machine"


def prepare(data, size, runs):
    """Give the notebook's functions the globals that they find there."""
    helpers.fingerprint = lambda *_: ""  # definitions outside of a file have no source to be told by
    lesson.faces_dir = helpers.find_data(data)
    lesson.image_size, lesson.resume, lesson.next_steps = size, True, True
    lesson.out_dir = str(Path(runs, Path(lesson.faces_dir).name))
    lesson.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lesson.memory_format = torch.channels_last
    lesson.loader = lesson.get_dataloader(lesson.batch_size, size, lesson.faces_dir, flip=True)


def keep(picture, rows, columns, name):
    sheet = Image.fromarray(helpers.tile(rows, columns))
    sheet.save(Path(f"{lesson.out_dir}_next", f"{picture}, {name}.png"))


def to_order(names, minutes):
    """Train by labels -> the run, and (label, figure, value) rows."""
    folder, names = lesson.faces_dir, tuple(names)
    run = lesson.experiment(f"{' '.join(names)} for {minutes:g} minutes", minutes, lesson.image_size, folder=folder, labels=names)
    faces = lesson.faces_at(lesson.image_size, folder, names)[1].dataset
    torch.manual_seed(0)
    read = lesson.reader(*lesson.with_labels(faces.part("validation")))
    real, truth = lesson.with_labels(faces.part("test"))
    generator = run.best_generator()
    found = [("", "FFD", run.best[-1])]
    for what, agreed in (("real faces", lesson.agreement(lesson.reads(read, real), truth)), ("to order", lesson.obeyed(generator, read))):
        found += [(name, f"agreement, {what}", value) for name, value in zip(names, agreed.tolist())]
    wanted = lesson.orders(generator.usual.cpu())
    if (generator.usual.sum(1) == 1).all():  # labels that exclude each other: which of them does the reader prefer?
        logits = read(real)
        found += [(name, "named first, real faces", (logits[truth[:, k] == 1].argmax(1) == k).float().mean().item())
                  for k, name in enumerate(names)]
        for k, name in enumerate(names):
            z = torch.randn(500, lesson.z_size, generator=torch.Generator().manual_seed(k))
            logits = read(lesson.draw_to_order(generator, z, wanted[k].expand(500, -1)))
            found.append((name, "named first, to order", (logits.argmax(1) == k).float().mean().item()))
    z = torch.randn(12, lesson.z_size, generator=torch.Generator().manual_seed(0))
    rows = [lesson.draw_to_order(generator, z, row.expand(12, -1)) for row in wanted]
    keep("orders", torch.cat(rows), 12, " ".join(names))
    return run, found


def in_equal_shares(name, minutes):
    folder = lesson.faces_dir
    run = lesson.experiment(f"equal shares of {name} for {minutes:g} minutes", minutes, lesson.image_size, folder=folder, balanced=name)
    faces = lesson.faces_at(lesson.image_size, folder, (name,))[1].dataset
    torch.manual_seed(0)
    read = lesson.reader(*lesson.with_labels(faces.part("validation")))
    drawn = lesson.draw(run.best_generator(), 2000, latent_seed=1)
    return run, [("", "FFD", run.best[-1]), (name, "share of the data", faces.labels[faces.rows].mean().item()),
                 (name, "share of the samples", lesson.reads(read, drawn).float().mean().item())]


def swapped(name, same, minutes):
    """Train a CycleGAN -> the run, and rows: the truth where it is known, else what a reader and the face network say."""
    lesson.swap_label, lesson.swap_same = name, same
    size = lesson.image_size
    piles = lesson.piles = lesson.two_piles(size)
    run = lesson.swap_experiment(f"{name} for {minutes:g} minutes", minutes, size)
    lesson.put_on, lesson.take_off = put_on, take_off = run.parts["translators"].eval()
    found = [(f"{len(pile)} faces", word, "") for word, pile in zip(("without", "with"), piles["train"])]
    if Path(lesson.faces_dir).parts[0] == "drawn_faces":
        a, b, region = lesson.drawn_pairs(500, size)
        for direction, method, *errors in lesson.swap_table(a, b, region):
            found += [(f"{direction}, {method}", figure, value)
                      for figure, value in zip(("L1 in the region", "SSIM in the region", "change outside / inside"), errors)]
    held = {part: [lesson.real_faces_of(pile) for pile in two] for part, two in piles.items() if part != "train"}
    labels = [torch.cat([torch.zeros(len(a), 1), torch.ones(len(b), 1)]) for a, b in held.values()]
    torch.manual_seed(0)
    looks = lesson.reader(torch.cat(held["validation"]), labels[0])
    without, with_it = held["test"]
    there = lesson.translated(put_on, without)
    for what, faces in (("without", without), ("with", with_it), ("put on", there), ("put on and off", lesson.translated(take_off, there)),
                        ("taken off", lesson.translated(take_off, with_it))):
        found.append((f"{what}, {len(faces)} faces", "look as if with", lesson.reads(looks, faces).float().mean().item()))
    found.append(("put on", "same person", lesson.same_person(without, there)))
    found.append(("taken off", "same person", lesson.same_person(with_it, lesson.translated(take_off, with_it))))
    return run, found


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("faces")
    options.add_argument("--labels", nargs="+", default=["Male", "Young", "Smiling", "Eyeglasses", "No_Beard"])
    options.add_argument("--balanced")
    options.add_argument("--swap")
    options.add_argument("--same", default="Male")
    options.add_argument("--size", type=int, default=32)
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--runs", default=ROOT / "runs" / "orders")
    chosen = options.parse_args()
    prepare(chosen.faces, chosen.size, chosen.runs)
    if chosen.swap:
        what, (run, found) = f"swap {chosen.swap}", swapped(chosen.swap, chosen.same or None, chosen.minutes)
    elif chosen.balanced:
        what, (run, found) = f"equal shares of {chosen.balanced}", in_equal_shares(chosen.balanced, chosen.minutes)
    else:
        what, (run, found) = f"labels {' '.join(chosen.labels)}", to_order(chosen.labels, chosen.minutes)
    common = what, Path(lesson.faces_dir).name, chosen.size, round(run.seconds / 60, 1), run.images
    new = not TABLE.exists()
    with open(TABLE, "a", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        if new:
            table.writerow(COLUMNS)
        for of, figure, value in found:
            value = f"{value:.4g}" if isinstance(value, float) else value
            table.writerow([*common, of, figure, value, machine()])
            print(f"{of:32} {figure:28} {value}")


if __name__ == "__main__":
    main()
