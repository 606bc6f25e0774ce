"""Write the tables of the documents from the rows.

    python .ci/experiments/tables.py [--check]

A table is between `<!-- table: NAME -->` and `<!-- end -->`. With --check nothing is written, and a
document that differs from the rows is an error.
"""

import argparse
import csv
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = Path(__file__).parent
DOCUMENTS = "README.md", "assets/docs/results.md", "assets/docs/performance.md"
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
SCORES = {"ffd": "FFD", "swd": "SWD", "precision": "precision", "recall": "recall"}
SCORES["ms_ssim"] = "MS-SSIM"
CELEBA = "processed_celeba_small"


def rows(name, **wanted):
    """The rows of a table that have these values."""
    with open(ROWS / f"{name}.csv", encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    return [row for row in found if all(row[key] == value for key, value in wanted.items())]


def markdown(heads, lines):
    parts = [heads, ["---"] * len(heads), *lines]
    return "".join(f"| {' | '.join(part)} |\n" for part in parts)


def number(value, name):
    """A score as the tables print it."""
    if name in ("precision", "recall"):
        return f"{value:.0%}"
    return f"{value:.3f}" if name == "ms_ssim" else f"{value:.1f}"


def spread(found, name):
    """The mean of a score over rows of several seeds; of the FFD also the range."""
    values = [float(row[name]) for row in found]
    mean = number(sum(values) / len(values), name)
    if name == "ffd" and len(values) > 1:
        mean += f" ({number(min(values), name)} to {number(max(values), name)})"
    return mean


def by_images(found):
    """Rows of a recipe, grouped by the number of images."""
    groups = {}
    for row in found:
        groups.setdefault(int(row["images"]), []).append(row)
    return groups


def recipe(name):
    """Rows of a recipe at 32 pixels, grouped by the number of images."""
    found = rows("results", data=CELEBA, recipe=name)
    found = [row for row in found if row["settings"].startswith("image_size 32,")]
    if name == "notebook":
        found += [values | {"images": n} for (_, kind, _, n), values in of_flow() if kind == "GAN"]
    return by_images(found)


LOOPS = {"baseline": "baseline", "notebook": "this notebook"}
# Images of the rows that the README shows
SHOWN = 85_888, 170_752, 50_000, 100_000, 200_000, 350_000, 2_406_144


def images():
    """FFD of the baseline and of the notebook by the number of images."""
    lines = []
    for name, words in LOOPS.items():
        for n, found in sorted(recipe(name).items()):
            if n in SHOWN:
                lines.append([words, f"{n:,}", spread(found, "ffd")])
    return markdown(["loop", "images", "FFD"], lines)


def scores():
    """All scores of the notebook and the baseline by the number of images, and of real faces."""
    lines = []
    for name, words in LOOPS.items():
        for n, found in sorted(recipe(name).items()):
            cells = [spread(found, score) for score in SCORES]
            lines.append([words, f"{n:,}", str(len(found)), *cells])
    for name, words in (("real", "real faces"), ("noise", "noise")):
        found = rows("results", data=CELEBA, recipe=name)
        lines.append([words, "", "", *[spread(found, score) for score in SCORES]])
    return markdown(["loop", "images", "seeds", *SCORES.values()], lines)


def changes():
    """The notebook's CHOICES after five minutes with one thread, best first."""
    found, shown = (
        {},
        {name: words for name, words in SCORES.items() if name in ("ffd", "swd", "recall")},
    )
    for row in rows("results", data=CELEBA, minutes="5"):
        is_one_thread = row["machine"].startswith("1 thread")
        if is_one_thread and row["recipe"] not in ("baseline", "constant", "notebook"):
            found.setdefault(row["recipe"], []).append(row)
    order = sorted(
        found, key=lambda name: sum(float(x["ffd"]) for x in found[name]) / len(found[name])
    )
    lines = []
    for name in order:
        seen = sum(int(row["images"]) for row in found[name]) / len(found[name])
        cells = [spread(found[name], score) for score in shown]
        words = f"**{name}**" if name == "the lesson" else name
        lines.append([words, f"{seen:,.0f}", *cells])
    return markdown(["change", "images", *shown.values()], lines)


CANDIDATES = {
    "notebook": "the whole run",
    "notebook, a layer at full size": "a layer at full size",
    "notebook, by attributes": "both networks know six attributes",
    "notebook, by clusters": "both networks know the cluster",
}


def candidates():
    """Changes of the whole run after 350,000 images."""
    lines = []
    for name, words in CANDIDATES.items():
        found = recipe(name).get(350_000, [])
        cells = [spread(found, score) for score in SCORES if found]
        lines += [[words, str(len(found)), *cells]] if found else []
    return markdown(["350,000 images", "seeds", *SCORES.values()], lines)


def judge():
    """Fréchet distances in the features of dlib's network, beside the FFD of the same runs."""
    found = {}
    for row in rows("judge", data=CELEBA, size="32", measure="Fréchet distance"):
        found.setdefault(row["experiment"], []).append(float(row["value"]))
    lines = []
    for name, words in (CANDIDATES | {"real": "real training faces", "noise": "noise"}).items():
        if name in found:
            lines.append([words, ", ".join(f"{value:.2f}" for value in found[name])])
    return markdown(["350,000 images", "distance in dlib's features, by seed"], lines)


def of_flow():
    """Pairs of (minutes, kind, steps, images) and {measure: value}."""
    found = {}
    for row in sorted(rows("flow"), key=lambda row: (int(row["minutes"]), row["experiment"])):
        key = row["minutes"], row["experiment"], row["subject"], row["images"]
        found.setdefault(key, {})[row["measure"]] = float(row["value"])
    return found.items()


def larger():
    """Two ways to 64 pixels."""
    grown = rows("growing", experiment="growing from celeba_32.pt", data=CELEBA)
    test = [row for row in grown if row["subject"] == "grown: at 64 pixels, test faces"]
    start = [
        row
        for row in rows("results", data=CELEBA, recipe="notebook")
        if row["settings"].startswith("image_size 64,")
    ]
    ways = {
        "grown from `celeba_32.pt`, half of the lesson's widths": {
            row["measure"]: row["value"] for row in test
        }
        | {"images": test[0]["images"]},
        "from random weights, the lesson's full widths: the notebook's whole run": start[0],
    }
    lines = []
    for words, found in ways.items():
        cells = [spread([found], score) for score in SCORES]
        lines.append([words, f"{int(found['images']):,}", *cells])
    heads = "64 × 64 pixels, CelebA, one thread, 45 minutes"
    return markdown([heads, "images", *SCORES.values()], lines)


DRAWN, NAMES = "20000_at_64_v3", ("Male", "Young", "Smiling", "Eyeglasses", "No_Beard")
ORIGINS = "White", "Black", "Asian", "Indian", "Other"


def shares(data, names, measure):
    """A cell for each label: how often a classifier finds it, real and generated."""
    found = rows("conditional", data=data, experiment=f"labels {' '.join(names)}")
    longest = max(int(row["images"]) for row in found)
    found = [row for row in found if int(row["images"]) == longest]
    value = {(row["subject"], row["measure"]): float(row["value"]) for row in found}
    kinds = "real faces", "generated"
    cells = {kind: [value[name, f"{measure}, {kind}"] for name in names] for kind in kinds}
    return [[number(x, "recall") for x in cells[kind]] for kind in kinds]


def labels():
    """Balanced accuracy of five labels, on drawn faces and on CelebA."""
    lines = []
    for data, words in ((DRAWN, "1,250 drawn faces"), (CELEBA, "2,500 faces of CelebA")):
        real, generated = shares(data, NAMES, "balanced accuracy")
        lines += [[f"{words} held out", *real], ["generated, 500 for each label", *generated]]
    return markdown(["balanced accuracy", *NAMES], lines)


def predicted():
    """Balanced accuracy of true and of predicted labels, a mean over seeds."""
    lines = []
    for experiment, words in (("labels", "true labels"), ("predicted labels", "predicted labels")):
        experiment += f" {' '.join(NAMES)}"
        found = rows("conditional", data=CELEBA, experiment=experiment, images="50000")
        cells = [f"{mean_of(found, 'FFD', ''):.1f}"]
        for name in NAMES:
            cells.append(f"{mean_of(found, 'balanced accuracy, generated', name):.0%}")
        lines.append([words, str(len({row["seed"] for row in found})), *cells])
    return markdown(["50,000 images", "seeds", "FFD", *NAMES], lines)


def mean_of(found, measure, subject):
    values = [
        row["value"] for row in found if (row["measure"], row["subject"]) == (measure, subject)
    ]
    return sum(map(float, values)) / len(values)


def origins():
    """How often a classifier predicts the right one of five labels."""
    real, generated = shares("utkface", ORIGINS, "right label")
    lines = [["1,481 real faces held out", *real], ["generated, 500 for each label", *generated]]
    return markdown(["named as labeled, or as asked for", *ORIGINS], lines)


def makeup():
    """Who looks made-up on photographs, before and after."""
    lines = []
    for n, found in sorted(
        by_images(rows("makeup", data=CELEBA, experiment="Heavy_Makeup")).items()
    ):
        value = {(row["subject"], row["measure"]): float(row["value"]) for row in found}
        steps = "A", "G_AB(A)", "G_BA(G_AB(A))", "B", "G_BA(B)"
        cells = [f"{value[step, 'classified as B']:.0%}" for step in steps]
        kept = [f"{value[step, 'identity kept']:.0%}" for step in ("G_AB(A)", "G_BA(B)")]
        lines.append([f"{n:,}", *cells, ", ".join(kept)])
    heads = ["images", "A untouched", "put on", "off again", "B untouched", "taken off"]
    return markdown([*heads, "identity kept"], lines)


def makeup_drawn():
    """The error and the leak on drawn faces, where the truth is known."""
    usual = rows("makeup", data=DRAWN, experiment="Heavy_Makeup")
    heavier = rows("makeup", data=DRAWN, experiment="Heavy_Makeup, cycle 3, identity 1")
    lines = []
    for words, kind, found in (
        ("doing nothing", "doing nothing", usual),
        ("mean recoloring", "mean recoloring", usual),
        ("CycleGAN, cycle 1, identity 0.3", "CycleGAN", usual),
        ("CycleGAN, cycle 3, identity 1", "CycleGAN", heavier),
    ):
        value = {(row["subject"], row["measure"]): float(row["value"]) for row in found}
        ways = [f"{way}, {kind}" for way in ("A to B", "B to A")]
        errors = [f"{value[way, 'L1 in the region']:.3f}" for way in ways]
        leaks = [f"{value[way, 'change outside / inside']:.0%}" for way in ways]
        lines.append([words, ", ".join(errors), ", ".join(leaks)])
    return markdown(["", "L1: on, off", "outside / inside: on, off"], lines)


ALBUMS = {
    "utkface": "100 Black women over 50 (UTKFace)",
    CELEBA: "1,000 wearers of hats (CelebA)",
}
STARTS = ("from nothing", "random weights"), ("from celeba_32.pt", "the committed weights")


def album():
    """FFD, recall and copies of albums, plain and with shifted images."""
    lines = []
    for data, words in ALBUMS.items():
        for subject, start in STARTS:
            for minutes in ("2", "20"):
                found = album_scores(data, subject, minutes)
                if found:
                    lines.append([words, f"{start}, {minutes} minutes", *found])
        real = rows("album", data=data, subject="real")
        value = {row["measure"]: float(row["value"]) for row in real}
        alone = f"{value['copies, leave one out']:.0%}"
        lines.append([words, "real faces", f"{value['FFD']:.1f}", "", f"{value['copies']:.0%}"])
        lines.append([words, "the album's own, each against the others", "", "", alone])
    heads = ["album", "start", "FFD: plain, shifted", "recall: plain, shifted"]
    return markdown([*heads, "closer: plain, shifted"], lines)


def album_scores(data, subject, minutes):
    """Three cells, each with a score of the plain and of the shifted run; None without rows."""
    both = [
        rows("album", data=data, minutes=minutes, subject=subject + x) for x in ("", ", shifted")
    ]
    values = [{row["measure"]: float(row["value"]) for row in found} for found in both]
    if not all(values):
        return None
    cells = [", ".join(f"{value['FFD']:.1f}" for value in values)]
    for name in ("recall", "copies"):
        cells.append(", ".join(f"{value[name]:.0%}" for value in values))
    return cells


def speed():
    """Images per second of the baseline and the notebook, in pairs."""
    cases = by_case(row for row in rows("speed") if " x " in row["experiment"])
    lines = []
    for case, value in cases.items():
        low, high = value["smallest ratio"], value["largest ratio"]
        speeds = [f"{value[f'{loop}, images/s']:,.0f}" for loop in ("baseline", "notebook")]
        memory = [f"{value[f'{loop}, MB']:,.0f}" for loop in ("baseline", "notebook")]
        ratio = f"{value['ratio']:.1f} ({low:.1f} to {high:.1f})"
        lines.append([case.replace(" x ", " × "), *speeds, ratio, *memory])
    heads = ["case", "baseline, images/s", "notebook, images/s", "ratio", "baseline, MB"]
    return markdown([*heads, "notebook, MB"], lines)


def by_case(found):
    """{experiment: {measure: value}}"""
    cases = {}
    for row in found:
        cases.setdefault(row["experiment"], {})[row["measure"]] = float(row["value"])
    return cases


def time():
    """The share of each kind of operation in a training step, by image size."""
    found = rows("speed", experiment="training step", measure="share of the time")
    sizes = sorted({int(row["size"]) for row in found})
    shares = {(row["subject"], int(row["size"])): float(row["value"]) for row in found}
    kinds = dict.fromkeys(row["subject"] for row in found)
    lines = [[kind, *(f"{shares[kind, size]:.0%}" for size in sizes)] for kind in kinds]
    return markdown(["", *(f"{size} × {size} pixels" for size in sizes)], lines)


TABLES = {
    "images": images,
    "scores": scores,
    "changes": changes,
    "candidates": candidates,
    "judge": judge,
    "larger": larger,
    "album": album,
    "labels": labels,
    "predicted": predicted,
    "origins": origins,
    "makeup": makeup,
    "makeup_drawn": makeup_drawn,
    "speed": speed,
    "time": time,
}


def filled(text):
    """A document with its tables made from the rows."""
    return BLOCK.sub(lambda block: block[1] + TABLES[block[2]]() + block[3], text)


def main(arguments=None):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if they differ")
    args = parser.parse_args(arguments)
    for name in DOCUMENTS:
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = filled(before)
        if args.check and after != before:
            raise SystemExit(f"{name} differs from the rows: run tables.py without --check.")
        path.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
