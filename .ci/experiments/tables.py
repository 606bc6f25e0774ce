"""Write the tables of the documents from the rows: between `<!-- table: NAME -->` and `<!-- end -->`.

    python .ci/experiments/tables.py [--check]

With --check nothing is written; it fails if a document differs from the rows.
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
    """A score as people read it."""
    if name in ("precision", "recall"):
        return f"{value:.0%}".replace("%", " %")
    return f"{value:.3f}" if name == "ms_ssim" else f"{value:.1f}"


def spread(found, name):
    """The mean of a score over rows of several seeds; of the FFD also the range."""
    values = [float(row[name]) for row in found]
    mean = number(sum(values) / len(values), name)
    if name == "ffd" and len(values) > 1:
        mean += f" ({number(min(values), name)} to {number(max(values), name)})"
    return mean


def by_images(found):
    """Rows of a recipe, grouped by the images they were given."""
    groups = {}
    for row in found:
        groups.setdefault(int(row["images"]), []).append(row)
    return groups


def recipe(name):
    """Rows of a recipe at 32 pixels that were bounded by images, by that number."""
    found = rows("results", data=CELEBA, recipe=name, minutes="")
    return by_images([row for row in found if row["settings"].startswith("image_size 32,")])


def images():
    """FFD of the notebook and the baseline after as many images."""
    ours, baseline = recipe("notebook"), recipe("baseline")
    lines = []
    for n in sorted({*ours, *baseline}):
        cells = [spread(x[n], "ffd") if n in x else "" for x in (baseline, ours)]
        lines.append([f"{n:,}", *cells])
    return markdown(["images", "FFD, baseline", "FFD, this notebook"], lines)


TABLES = {"images": images}


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
