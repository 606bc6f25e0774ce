"""Shared by the experiments: the lesson's definitions, tables of rows, and bounded runs."""

import argparse
import csv
import functools
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
import helpers  # noqa: E402
import problem_unittests  # noqa: E402
from assets.lib.checkpoints import load_checkpoint, weights_of  # noqa: E402
from assets.lib.export import load_generator as load_exported  # noqa: E402

lesson = problem_unittests.read_notebook()
HERE = Path(__file__).parent
RUNS = ROOT / "runs"
N_SCORED = 2000  # generated faces in each score of a run
MEASURES = (
    *("experiment", "data", "size", "minutes", "seed", "images"),
    *("subject", "measure", "value", "n", "machine", "commit"),
)


def parser_of(description, table):
    """The arguments that all scripts have; `table`: the file name of their rows."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=layout)
    parser.add_argument("faces", help='a folder of faces, or "drawn"')
    parser.add_argument("--runs", type=Path, default=RUNS, help="where the runs are kept")
    parser.add_argument("--table", type=Path, default=HERE / table)
    return parser


class Table:
    """A CSV file with these columns; each row is written as soon as it is ready."""

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
            values = {"machine": machine(), "commit": commit()} | values
            writer.writerow([text(values.get(name, "")) for name in self.columns])
        print(", ".join(f"{name} {text(value)}" for name, value in values.items()), flush=True)


def load_generator(path):
    """A generator in eval mode: from a checkpoint (.pt), or an exported one (.pt2 or .onnx)."""
    kinds = {".pt2": load_exported, ".onnx": OnnxGenerator}
    load = kinds.get(Path(path).suffix, lambda path: load_networks(path)[1])
    return load(path)


class OnnxGenerator(nn.Module):
    """A generator that committed.py wrote, run by onnxruntime: latents, and labels if it has any.

    `names`: of its labels.
    """

    def __init__(self, path):
        import onnxruntime  # optional

        super().__init__()
        self.on_cpu = nn.Parameter(torch.empty(0))  # tells where it runs
        self.session = onnxruntime.InferenceSession(path)
        self.z_size = self.session.get_inputs()[0].shape[1]
        words = self.session.get_modelmeta().custom_metadata_map.get("labels", "")
        self.names = words.split(", ") if words else []

    def forward(self, z, labels=None):
        given = {"z": z.numpy()}
        if self.names:
            drawn = torch.full((len(z), len(self.names)), torch.nan)
            given["labels"] = (drawn if labels is None else labels).numpy()
        return torch.from_numpy(self.session.run(None, given)[0])


def load_networks(path):
    """D and the averaged G of a checkpoint, with labels if they were trained with labels."""
    state = load_checkpoint(path)
    sizes, labels, kinds = state["settings"], weights_of(state).get("labels"), {}
    if labels is not None:
        kinds["D"] = functools.partial(lesson.ProjectionDiscriminator, n_labels=labels.shape[1])
        kinds["G"] = functools.partial(lesson.ConditionalGenerator, labels=labels)
    widths = sizes["d_conv_dim"], sizes["g_conv_dim"]
    networks = lesson.build_network(*widths, sizes["z_size"], sizes["image_size"], **kinds)
    helpers.begin_with(path, *networks)
    return [network.eval() for network in networks]


def text(value):
    """A value as the tables print it: floats have four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def device():
    return torch.device("cuda" if helpers.has_gpu() else "cpu")


def machine():
    """The processor or GPU, and the PyTorch version."""
    version = f"PyTorch {torch.__version__}"
    if helpers.has_gpu():
        return f"{torch.cuda.get_device_name()}, {version}"
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", info.read_text()) if info.exists() else None
    processor = found[1] if found else platform.processor()
    suffix = ", bfloat16" if helpers.has_fast_bfloat16(device()) else ""
    return f"{torch.get_num_threads()} threads of {processor}, {version}{suffix}"


@functools.lru_cache(1)
def commit():
    """The commit of the code, with a + if the code has changed since."""
    git = ["git", "-C", str(ROOT)]
    try:
        found = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "*.py", "*.ipynb"])
    except OSError:  # no git
        return ""
    return found.stdout.decode().strip() + ("+" if changed.returncode else "")


@dataclass
class Experiment:
    """What the lesson makes before training: settings, a loader, features of validation faces."""

    settings: helpers.Settings
    loader: DataLoader
    validation_features: torch.Tensor

    @property
    def data(self):
        """The name of the folder of faces."""
        return Path(self.settings.data_dir).name

    def real(self, part, most=2500):
        """Faces (n, 3, S, S) in [-1, 1] of "train", "validation" or "test"."""
        return lesson.real_faces(self.loader.dataset, part, most)

    def score(self, generator):
        return lesson.score(generator, self.validation_features, n=N_SCORED)


def prepare(faces, runs=RUNS, **changes):
    """An Experiment on `faces`, a folder or "drawn"; `changes`: settings that differ."""
    settings = lesson.settings.but(**changes)
    size = settings.image_size
    folder = helpers.find_data(str(faces), n_drawn=settings.n_drawn, image_size=size)
    batch_size = settings.batch_size or helpers.default_batch_size(10**6, size)
    out_dir = Path(runs, f"{Path(folder).name}_{settings.seed}")
    settings = settings.but(data_dir=str(folder), batch_size=batch_size, out_dir=str(out_dir))
    return load(settings)


def load(settings):
    """An Experiment with exactly these settings."""
    loader = lesson.get_dataloader(
        settings.batch_size, settings.image_size, settings.data_dir, flip=True
    )
    helpers.keep_on(device(), loader.dataset)
    faces = lesson.real_faces(loader.dataset, "validation")
    return Experiment(settings, loader, helpers.face_features(faces))


def optimizers_of(settings, D, G, adam=lesson.adam):
    rates = (D, settings.d_lr), (G, settings.lr)
    return [adam(network, rate, settings.beta1) for network, rate in rates]


def parts_of(settings, D, G, average=lesson.moving_average, adam=lesson.adam):
    """What a run trains, by name: networks, averaged weights, optimizers."""
    d_optimizer, g_optimizer = optimizers_of(settings, D, G, adam)
    averaged = lesson.AveragedModel(G, multi_avg_fn=average)
    return dict(D=D, G=G, averaged=averaged, d_optimizer=d_optimizer, g_optimizer=g_optimizer)


def train(run, loader, step=None, schedule="constant"):
    """Train the parts of a run until its StopRule is reached; `step` also takes the run."""
    parts = run.parts
    networks, optimizers = [parts["D"], parts["G"]], [parts["d_optimizer"], parts["g_optimizer"]]
    plain = functools.partial(step, run=run) if step else lesson.train_step
    whole = lesson.averaged_step(plain, parts["averaged"], run, schedule)
    lesson.train(*networks, loader, *optimizers, 10**6, 50, run, whole)


def train_until(stop, folder, experiment, parts, name="", loader=None, loop=train, **how):
    """Train `parts` (see parts_of), or continue, until a StopRule is reached -> the Run.

    `name`: the run's name; `loader`: another loader of the same faces; `loop`: replaces `train`;
    `how`: its arguments, the step (which also takes the run) and the schedule.
    """
    settings = experiment.settings
    run = helpers.Run(
        folder,
        helpers.identity(settings, experiment.loader, name=name),
        stop,
        score=experiment.score,
        sample=functools.partial(lesson.sample_faces, n=32, latent_seed=settings.seed),
        **parts,
    )
    loop(run, loader or experiment.loader, **how)
    return run


def samples_of(run, experiment, n):
    """n faces of a run's best generator, from latents that no score was computed with."""
    return lesson.sample_faces(run.best_generator(), n, 1000 + experiment.settings.seed)


def is_past(run, minutes=None, images=None):
    """Whether an earlier call trained the run beyond this limit, so that it gives no row."""
    past_minutes = minutes and run.seconds > 60 * (minutes + 1)
    past_images = images and run.images > images + 1000
    if past_minutes or past_images:
        reached = f"{run.seconds / 60:.0f} minutes and {run.images:,} images"
        print(f"{run.folder} has reached {reached}: no row.")
    return bool(past_minutes or past_images)
