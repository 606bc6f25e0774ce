"""What the experiments share: the lesson's definitions, tables of rows, runs bounded by minutes."""

import csv
import functools
import math
import platform
import re
import sys
from pathlib import Path
from unittest import mock

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
import helpers  # noqa: E402
import problem_unittests  # noqa: E402

lesson = problem_unittests.read_notebook()
lesson.batch_size = helpers.default_batch_size(n_images=10**6)
HERE = Path(__file__).parent
RUNS = ROOT / "runs"
MEASURES = (
    *("experiment", "data", "size", "minutes", "seed", "images"),
    *("subject", "measure", "value", "n", "machine"),
)


class Table:
    """A CSV file with these columns; each row is written as it is ready."""

    def __init__(self, path, columns=MEASURES):
        self.path, self.columns = Path(path), columns

    def rows(self):
        if not self.path.exists():
            return []
        with open(self.path, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def has(self, **values):
        """Whether there is a row with these values."""
        wanted = {name: text(value) for name, value in values.items()}
        return any(wanted.items() <= row.items() for row in self.rows())

    def add(self, **values):
        unknown = values.keys() - set(self.columns)
        if unknown:
            raise ValueError(f"{self.path.name} has no column {', '.join(unknown)}.")
        is_new = not self.path.exists()
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if is_new:
                writer.writerow(self.columns)
            writer.writerow([text(values.get(name, "")) for name in self.columns])


def load_generator(path):
    """A generator in eval mode: of a checkpoint of the lesson (.pt), or an exported one (.pt2)."""
    if Path(path).suffix == ".pt2":
        return torch.export.load(path).module()
    D, G = lesson.build_network(32, 48, 100)
    helpers.begin_with(path, D, G)
    return G.eval()


def text(value):
    """As the tables have it: floats with four digits, whole ones without a point."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def device():
    return torch.device("cuda" if helpers.has_gpu() else "cpu")


def machine():
    """What it runs on, in words."""
    version = f"PyTorch {torch.__version__}"
    if helpers.has_gpu():
        return f"{torch.cuda.get_device_name()}, {version}"
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", info.read_text()) if info.exists() else None
    processor = found[1] if found else platform.processor()
    suffix = ", bfloat16" if helpers.has_fast_bfloat16(device()) else ""
    return f"{torch.get_num_threads()} threads of {processor}, {version}{suffix}"


def prepare(faces, size, seed=0, runs=RUNS):
    """Give the lesson's functions the globals that its cells would have made.

    `faces`: a folder, or "drawn"; `runs`: where what is trained is kept.
    """
    folder = helpers.find_data(str(faces), n_drawn=lesson.n_drawn, image_size=size)
    lesson.faces_dir, lesson.image_size, lesson.seed = folder, size, seed
    lesson.batch_size = min(lesson.batch_size, helpers.default_batch_size(10**6, size))
    lesson.out_dir, lesson.resume = str(Path(runs, f"{Path(folder).name}_{seed}")), True
    lesson.device, lesson.memory_format = device(), torch.channels_last
    lesson.loader = lesson.get_dataloader(lesson.batch_size, size, folder, flip=True)
    helpers.keep_on(lesson.device, lesson.loader.dataset)
    lesson.validation_features = helpers.face_features(lesson.real_faces("validation"))
    lesson.sizes = [(size, size)]
    return Path(folder).name


def bounded_by(minutes):
    """A context in which the lesson's experiments end after so many minutes, not images."""
    stop = helpers.StopRule(minutes)
    return mock.patch.object(helpers, "StopRule", lambda images: stop)


def is_past(run, minutes=math.inf, images=math.inf):
    """Whether an earlier call took the run further than this limit: then it gives no row."""
    past = run.seconds > 60 * (minutes + 1) or run.images > images + 1000
    if past:
        print(
            f"{run.folder} has had {run.seconds / 60:.0f} minutes, {run.images:,} images: no row."
        )
    return past


def train_for(limit, folder, settings, loader, D, G, step=None, optimizers=None, schedule=None):
    """Train D and G, or go on, up to a limit of StopRule, {"minutes": 5} say -> the Run.

    Without `step` and `schedule`: the plain step, at constant rates.
    """
    optimizers = optimizers or (lesson.adam(D, lesson.d_lr), lesson.adam(G, lesson.lr))
    parts = dict(D=D, G=G, d_optimizer=optimizers[0], g_optimizer=optimizers[1])
    parts["averaged"] = lesson.AveragedModel(G, multi_avg_fn=lesson.moving_average)
    sample = functools.partial(lesson.sample_faces, n=32, latent_seed=lesson.seed)
    stop = helpers.StopRule(**limit)
    run = helpers.Run(folder, settings, stop, score=lesson.score, sample=sample, **parts)
    step = step and functools.partial(step, run=run)
    averaged = parts["averaged"]
    lesson.train(D, G, loader, *optimizers, 10**6, 50, averaged, run, step, schedule)
    return run
