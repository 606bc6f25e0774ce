"""Score runs in the features of an independent network, dlib's: rows of judge.csv.

    pip install dlib face_recognition_models
    python .ci/experiments/judge.py FACES [CHECKPOINT ...] [--n 1000]

FACES: the folder that the checkpoints were trained on, or "drawn". CHECKPOINT: a run's best.pt; by
default those of all whole runs of 350,000 images that results.py has trained. dlib's network
(King, 2017) was trained to tell people apart, on three million photographs and without attributes,
and nothing in this project was chosen by it. It turns each face, enlarged to 150 x 150 pixels, into
128 features. The rows have the Fréchet distance, precision and recall of generated faces against
test faces. Training faces ("real") and noise have rows for comparison. Installing dlib compiles it,
which takes ten minutes.
"""

import importlib.util
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import Table, helpers, lesson, load_generator, parser_of, prepare

from assets.lib.checkpoints import load_checkpoint

WEIGHTS = "models/dlib_face_recognition_resnet_model_v1.dat"
WHOLE_RUNS = "results/*/notebook_{kind}_*_350000_images/best.pt"  # of networks like the lesson's
SIZE = 150  # pixels of the faces that dlib's network was trained on


def load_judge():
    """dlib's network: uint8 images (150, 150, 3) -> 128 numbers for each."""
    import dlib

    folder = importlib.util.find_spec("face_recognition_models").submodule_search_locations[0]
    return dlib.face_recognition_model_v1(str(Path(folder, WEIGHTS)))


def features_of(faces, judge):
    """Features (n, 128) of faces (n, 3, S, S) in [-1, 1]."""
    found = []
    for batch in faces.split(100):
        large = F.interpolate(batch, (SIZE, SIZE), mode="bilinear")
        pixels = ((large.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
        found += [
            np.array(x) for x in judge.compute_face_descriptor([*pixels.contiguous().numpy()])
        ]
    return 10 * torch.tensor(np.stack(found), dtype=torch.float32)  # so that distances are near 1


def about(checkpoint):
    """What identifies a checkpoint's run in the rows."""
    state = load_checkpoint(checkpoint)
    settings = state["settings"]
    name, seed = settings.get("name", checkpoint.name), settings.get("seed", "")
    return dict(experiment=name, seed=seed, images=state.get("images", ""))


def generated(checkpoint, n):
    """n faces of a checkpoint's averaged generator."""
    generator = load_generator(checkpoint)
    helpers.recalibrate_batch_norm(generator, generator.z_size)
    return lesson.sample_faces(generator, n, 1000)


def main(arguments=None):
    parser = parser_of(__doc__, "judge.csv")
    parser.add_argument("checkpoints", nargs="*", type=Path)
    parser.add_argument("--n", type=int, default=1000, help="generated faces, and test faces")
    args = parser.parse_args(arguments)

    patterns = [WHOLE_RUNS.format(kind=kind) for kind in ("seed", "by")]
    found = [path for pattern in patterns for path in sorted(args.runs.glob(pattern))]
    paths = args.checkpoints or found
    if not paths:
        raise ValueError(f"No {patterns[0]} in {args.runs}: train them with results.py.")
    size = load_checkpoint(paths[0])["settings"]["image_size"]
    experiment = prepare(args.faces, args.runs, image_size=size)
    table, judge = Table(args.table), load_judge()
    test = features_of(experiment.real("test", args.n), judge)
    noise = torch.rand(len(test), 3, size, size, generator=torch.Generator().manual_seed(0))
    judged = [(dict(experiment="real"), lambda: experiment.real("train", len(test)))]
    judged += [(dict(experiment="noise"), lambda: 2 * noise - 1)]
    judged += [(about(path), partial(generated, path, len(test))) for path in paths]
    for row, faces in judged:
        row = dict(data=experiment.data, size=size) | row
        if table.has(**row):
            continue
        found = features_of(faces(), judge)
        precision, recall = lesson.precision_recall(test, found)
        distance = lesson.frechet_distance(found, test)
        values = {"Fréchet distance": distance, "precision": precision, "recall": recall}
        for measure, value in values.items():
            table.add(**row, measure=measure, value=value, n=len(test))


if __name__ == "__main__":
    main()
