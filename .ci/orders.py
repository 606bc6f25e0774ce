"""Measure what the last two parts of the notebook reach, given time: a row per figure in .ci/orders.csv.

    python .ci/orders.py FACES [--labels NAME ...] [--size 32] [--minutes 10] [--seed 0]
    python .ci/orders.py FACES --balanced NAME
    python .ci/orders.py FACES --swap NAME [--same NAME] --size 64 --minutes 60
    python .ci/orders.py FACES --grow --size 128 --minutes 20

FACES: a folder of faces with labels (see helpers.known_labels), or "drawn". The first form trains a generator that draws by
labels, and has its faces read by a classifier that learnt from faces held out; the second one without labels, on equal shares of
faces with one and without it, and counts its samples; the third a CycleGAN; the last grows networks from 32 pixels to
the size, and trains them at that size from the start. Runs are kept in --runs, with a picture of
what the generator drew; one that was stopped goes on where it was, and one that is in the table is not made again.
"""

import argparse
import csv
from pathlib import Path

import torch
from PIL import Image

from results import ROOT, helpers, lesson, machine

TABLE = ROOT / ".ci" / "orders.csv"
COLUMNS = "what", "data", "size", "minutes", "seed", "images", "of", "figure", "value", "faces", "machine"


def prepare(data, size, seed, runs):
    """Give the notebook's functions the globals that they find there."""
    helpers.fingerprint = lambda *_: ""  # definitions outside of a file have no source to be told by
    lesson.faces_dir = helpers.find_data(data, image_size=size)
    lesson.image_size, lesson.seed, lesson.resume = size, seed, True
    lesson.out_dir = str(Path(runs, f"{Path(lesson.faces_dir).name}_{seed}"))
    lesson.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lesson.memory_format = torch.channels_last
    lesson.loader = lesson.get_dataloader(lesson.batch_size, size, lesson.faces_dir, flip=True)


def reader_of(faces):
    """A reader of these faces' labels, what it says of others that are held out, and their labels."""
    torch.manual_seed(0)
    read = lesson.reader(*lesson.some_of(faces.part("validation")))
    unseen, truth = lesson.some_of(faces.part("test"))
    return read, lesson.read_logits(read, unseen), truth


def to_order(names, minutes):
    """Train by labels -> the run, and rows (label, figure, value, faces)."""
    folder, names = lesson.faces_dir, tuple(names)
    run = lesson.experiment(f"{' '.join(names)} for {minutes:g} minutes", minutes, lesson.image_size, folder=folder, label_names=names)
    read, said, truth = reader_of(lesson.faces_at(lesson.image_size, folder, names)[1].dataset)
    generator = run.best_generator()
    wanted = lesson.orders(generator.usual.cpu())
    found = [("", "FFD", run.best[-1], 2000)]
    found += [(name, "agreement, real faces", value, len(truth)) for name, value in zip(names, lesson.agreement(said, truth).tolist())]
    found += [(name, "agreement, to order", value, 500) for name, value in zip(names, lesson.obeyed(generator, read).tolist())]
    if len(wanted) == len(names):  # they exclude each other: which of them does the reader name?
        for k, name in enumerate(names):
            z = torch.randn(500, lesson.z_size, generator=torch.Generator().manual_seed(k))
            drawn = lesson.read_logits(read, lesson.draw_to_order(generator, z, wanted[k].expand(500, -1)))
            rows = truth[:, k] == 1
            found.append((name, "named, real faces", (said[rows].argmax(1) == k).float().mean().item(), int(rows.sum())))
            found.append((name, "named, to order", (drawn.argmax(1) == k).float().mean().item(), 500))
    z = torch.randn(12, lesson.z_size, generator=torch.Generator().manual_seed(0))
    drawn = [lesson.draw_to_order(generator, z, row.expand(12, -1)) for row in wanted]
    Image.fromarray(helpers.tile(torch.cat(drawn), 12)).save(run.folder / "orders.png")
    return run, found


def in_equal_shares(name, minutes):
    """Train on equal shares, and on the data as it is -> the run, and rows."""
    folder = lesson.faces_dir
    faces = lesson.faces_at(lesson.image_size, folder, (name,))[1].dataset
    read, said, _ = reader_of(faces)
    found = [(name, "share of the labels", faces.labels[faces.rows].mean().item(), len(faces)),
             (name, "share of real faces", (said > 0).float().mean().item(), len(said))]
    for what, balanced in (("as they are", None), ("equal shares", name)):
        run = lesson.experiment(f"{name}, {what}, for {minutes:g} minutes", minutes, lesson.image_size, folder=folder, balanced=balanced)
        drawn = lesson.read_logits(read, lesson.draw(run.best_generator(), 5000, latent_seed=1))
        found.append((name, f"share of the samples, {what}", (drawn > 0).float().mean().item(), 5000))
    return run, found


def growing(minutes):
    """Train for a quarter of the time at a quarter of the size, a quarter at half of it and the rest at all of it; and all of the
    time at all of it, with the same networks in the end, of half of the lesson's widths -> the last run, and rows."""
    folder, size, cap = lesson.faces_dir, lesson.image_size, {"cap": 16}
    options = {"folder": folder, "d_options": cap, "g_options": cap}
    grown, seconds, found = None, 0.0, []
    for pixels, share in ((size // 4, 0.25), (size // 2, 0.25), (size, 0.5)):
        widths = [size * width // pixels // 2 for width in (lesson.d_conv_dim, lesson.g_conv_dim)]
        grown = lesson.experiment(f"grown to {pixels}", minutes * share, pixels, widths, start=grown, **options)
        found += [(f"grown: at {pixels} pixels after {seconds + row[2]:.0f} s", "FFD", row[-1], 2000) for row in grown.scores]
        seconds += grown.seconds
    run = lesson.experiment(f"{size} from the start", minutes, size, widths, **options)
    return run, found + [(f"from the start: after {row[2]:.0f} s", "FFD", row[-1], 2000) for row in run.scores]


def swapped(name, same, minutes):
    """Train a CycleGAN -> the run, and rows: the truth where it is known, and what a reader and the face network say."""
    lesson.swap_label, lesson.swap_same = name, same
    size = lesson.image_size
    piles, common = lesson.two_piles(size)
    run = lesson.swap_experiment(f"{name} for {minutes:g} minutes", minutes, size, piles)
    put_on, take_off = translators = run.parts["translators"].eval()
    found = [(word, "faces to train on", len(pile), len(pile)) for word, pile in zip(("without", "with"), piles["train"])]
    if Path(lesson.faces_dir).parts[0] == "drawn_faces":
        a, b, region = lesson.drawn_pairs(500, size, common)
        for direction, method, *errors in lesson.swap_table(a, b, region, translators, piles["train"]):
            found += [(f"{direction}, {method}", figure, value, 500)
                      for figure, value in zip(("L1 in the region", "SSIM in the region", "change outside / inside"), errors)]
    torch.manual_seed(0)
    without, with_it = (lesson.some_of(pile)[0] for pile in piles["validation"])
    looks = lesson.reader(torch.cat([without, with_it]), torch.cat([torch.zeros(len(without), 1), torch.ones(len(with_it), 1)]))
    without, with_it = (lesson.some_of(pile)[0] for pile in piles["test"])
    on, off = lesson.translated(put_on, without), lesson.translated(take_off, with_it)
    for what, faces in (("without", without), ("put on", on), ("put on and off", lesson.translated(take_off, on)), ("with", with_it),
                        ("taken off", off)):
        found.append((what, "look as if with", (lesson.read_logits(looks, faces) > 0).float().mean().item(), len(faces)))
    for what, before, after in (("put on", without, on), ("taken off", with_it, off)):
        found.append((what, "nearer to themselves", lesson.same_person(before, after), len(before)))
    return run, found


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("faces")
    options.add_argument("--labels", nargs="+", default=["Male", "Young", "Smiling", "Eyeglasses", "No_Beard"])
    options.add_argument("--balanced")
    options.add_argument("--swap")
    options.add_argument("--same", default="Male")
    options.add_argument("--grow", action="store_true")
    options.add_argument("--size", type=int, default=32)
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--runs", default=ROOT / "runs" / "orders")
    chosen = options.parse_args()
    what = ("growing" if chosen.grow else f"swap {chosen.swap}" if chosen.swap else f"equal shares of {chosen.balanced}" if chosen.balanced
            else f"labels {' '.join(chosen.labels)}")
    prepare(chosen.faces, chosen.size, chosen.seed, chosen.runs)
    common = what, Path(lesson.faces_dir).name, chosen.size, chosen.minutes, chosen.seed
    if not TABLE.exists():
        TABLE.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    if list(map(str, common)) in [row[:len(common)] for row in csv.reader(TABLE.open(encoding="utf-8"))]:
        raise SystemExit("This is in the table already.")
    run, found = (growing(chosen.minutes) if chosen.grow
                  else swapped(chosen.swap, chosen.same or None, chosen.minutes) if chosen.swap
                  else in_equal_shares(chosen.balanced, chosen.minutes) if chosen.balanced
                  else to_order(chosen.labels, chosen.minutes))
    with open(TABLE, "a", newline="", encoding="utf-8") as file:
        for of, figure, value, faces in found:
            csv.writer(file, lineterminator="\n").writerow([*common, run.images, of, figure, f"{value:.4g}", faces, machine()])
            print(f"{of:32} {figure:28} {value:.4g}")


if __name__ == "__main__":
    main()
