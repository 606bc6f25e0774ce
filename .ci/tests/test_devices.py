"""Every code cell on a GPU that is not there: nothing mixes devices, no training step waits.

See `pretended.py` for what this cannot show. Half precision runs as float32 here, but for one test.
"""

import contextlib
import functools
import importlib
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import ROOT
from pretended import pretended
from small_runs import noise_loader, small_parts, start_small

import helpers
import problem_unittests
from assets.lib.devices import random_state, restore_random_state
from assets.lib.losses import check_finite
from assets.lib.runs import Run

EXPERIMENTS = ROOT / ".ci" / "experiments"
SMALL = {
    "data_dir": "drawn",
    "n_drawn": 320,
    "image_size": 16,
    "batch_size": 16,
    "d_conv_dim": 4,
    "g_conv_dim": 4,
    "max_minutes": 0.02,
    "print_every": 5,
    "experiment_images": 32,
    "next_steps": True,
}
KINDS = "cuda", "mps"


def faster(monkeypatch):
    """Leave out checks, all exports but the lesson's, and the features of most faces."""
    export, features = helpers.export_generator, helpers.face_features

    def features_of_few(faces):  # and then the same ones again
        found = features(faces[:50])
        return found[torch.arange(len(faces)) % len(found)]

    def export_of_the_lesson(generator, path):
        if path.parts[-2] == "lesson":
            export(generator, path)

    monkeypatch.setattr("assets.lib.run_files.export_generator", export_of_the_lesson)
    monkeypatch.setattr(helpers, "face_features", features_of_few)
    recalibrate = functools.partial(helpers.recalibrate_batch_norm, batches=2)
    monkeypatch.setattr("assets.lib.stored_runs.recalibrate_batch_norm", recalibrate)
    for name in problem_unittests.CHECKS:
        monkeypatch.setattr(problem_unittests, name, lambda *args: None)


def short_game(play):
    """The two-dimensional game, which no GPU plays: 20 steps, then the last moment again."""

    def short(n_steps, *args, **options):
        moments = play(20, *args, **options)
        return moments + moments[-1:] * (1 + n_steps // 5 - len(moments))

    return short


SHORTER = {  # functions of the cells that take many steps
    "play": short_game,
    "attribute_classifier": lambda train: functools.partial(train, epochs=1),
    "find_latents": lambda find: functools.partial(find, n_steps=2),
}


def run_notebook(namespace, monkeypatch):
    """Run every code cell, with SMALL in place of the settings."""
    faster(monkeypatch)
    monkeypatch.syspath_prepend(EXPERIMENTS)
    for source in importlib.import_module("gpu").run_cells(SMALL, namespace):
        for name, shorter in SHORTER.items():
            if f"def {name}(" in source:
                namespace[name] = shorter(namespace[name])
        plt.close("all")


def logging_waits(gpu, steps):
    """Run.watch and Run.log that add to `steps`, for each step, (its run's folder, waits).

    A step is from when its batch is asked for until it is logged.
    """
    watch, log = Run.watch, Run.log

    def watch_waits(self, *args):
        batches = watch(self, *args)
        while True:
            self.waited = len(gpu.waits)
            batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def log_waits(self, *args, **options):
        log(self, *args, **options)
        steps.append((self.folder, gpu.waits[self.waited :]))

    return dict(watch=watch_waits, log=log_waits)


def without_waits(gpu, method):
    """A method of Run that reads from the GPU on purpose: its waits are no step's."""

    def read(*args, **options):
        before = len(gpu.waits)
        method(*args, **options)
        del gpu.waits[before:]

    return read


@contextlib.contextmanager
def noting_steps(gpu):
    """Within it, what each training step waited for is noted: yields a list of (folder, waits).

    Without rows of losses, and looks: grids, scores, checkpoints.
    """
    steps = []
    methods = logging_waits(gpu, steps)
    for name in ("add_losses", "look"):
        methods[name] = without_waits(gpu, getattr(Run, name))
    with mock.patch.multiple(Run, **methods):
        yield steps


def assert_no_step_waited(steps, kind):
    # Batches are copied to an Apple GPU, which shares the memory
    allowed = {f"to {kind}:0", f"to {kind}"} if kind == "mps" else set()
    waited = {(str(run), *wait) for run, waits in steps for wait in waits if wait[0] not in allowed}
    assert not waited, f"expected no step to wait for the GPU, got {sorted(waited)[:10]}"


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of tensors in this mode
def test_every_cell_and_no_step_waits(empty_place, monkeypatch):
    namespace = {"__name__": "__main__"}
    with pretended("cuda") as gpu, noting_steps(gpu) as steps:
        run_notebook(namespace, monkeypatch)
        placed = next(namespace["G"].parameters()).device.type
    assert placed == "cuda", f"expected the generator on the GPU, got {placed}"
    runs = {folder for folder, _ in steps}
    assert len(runs) > 12, f"expected the lesson's run and all experiments, got {len(runs)}"
    assert_no_step_waited(steps, "cuda")


@pytest.fixture
def small_settings(notebook, empty_place):
    """The lesson's settings for a few drawn faces of 16 pixels in an empty folder."""
    folder = helpers.find_data("drawn", n_drawn=320, image_size=16)
    return notebook.settings.but(**SMALL | {"data_dir": str(folder)})


def test_each_loop_on_an_apple_gpu_and_no_step_waits(notebook, small_settings, monkeypatch):
    faster(monkeypatch)
    settings = small_settings
    with pretended("mps") as gpu, noting_steps(gpu) as steps:
        loader = notebook.get_dataloader(16, 16, settings.data_dir, flip=True)
        reference = helpers.face_features(notebook.real_faces(loader.dataset, "validation"))
        score = functools.partial(notebook.score, reference=reference, n=100)
        step, networks = notebook.regularized_step, notebook.fresh(settings)
        run = notebook.experiment("whole", settings, loader, *networks, step, "linear", score)
        train_by_labels(notebook, settings, loader)
        A, B, _ = notebook.domains(settings.but(domain_same=None))
        notebook.train_cyclegan(A, B, settings)
        placed = next(run.best_generator().parameters()).device.type
    assert placed == "mps", f"expected the generator on the GPU, got {placed}"
    runs = {folder.name for folder, _ in steps}
    assert runs == {"whole", "labels", "makeup"}, f"expected three runs, got {runs}"
    assert_no_step_waited(steps, "mps")


def train_by_labels(notebook, settings, loader):
    faces = loader.dataset
    faces.labels = torch.stack([faces.known[name] for name in ("Male", "Smiling")], 1).float()
    D_kind = functools.partial(notebook.ProjectionDiscriminator, n_labels=2)
    G_kind = functools.partial(notebook.ConditionalGenerator, labels=faces.labels[faces.rows])
    networks = notebook.fresh(settings, D=D_kind, G=G_kind)
    notebook.train_conditional(settings.but(experiment_images=4), loader, *networks, [])


# ---------------------------------------------------------------- parts of it


@pytest.fixture(params=KINDS)
def gpu(request):
    with pretended(request.param) as gpu:
        yield gpu


def test_half_precision_only_where_the_hardware_has_it():
    for kind, has_it, wanted in (("cuda", True, True), ("cuda", False, False), ("mps", 0, False)):
        with pretended(kind, bfloat16=has_it) as gpu, helpers.autocast(gpu.device):
            product = torch.ones(2, 2, device=gpu.device) @ torch.ones(2, 2, device=gpu.device)
        is_half = product.dtype == torch.bfloat16
        assert is_half == wanted, f"{kind}, bfloat16 {has_it}: got {product.dtype}"


def small_run(notebook, folder, device, n_epochs):
    """A run of 10 steps an epoch, with its networks and images on this device."""
    parts = small_parts(notebook)
    for network in ("D", "G", "averaged"):
        parts[network].to(device)
    run, _ = start_small(notebook, folder, parts=parts, sample=sample_two)
    loader = noise_loader()
    helpers.keep_on(device, loader.dataset)
    step = notebook.averaged_step(notebook.train_step, parts["averaged"], run, "constant")
    networks = parts["D"], parts["G"], loader, parts["d_optimizer"], parts["g_optimizer"]
    notebook.train(*networks, n_epochs, 4, run, step)
    return run


def sample_two(generator):
    device = next(generator.parameters()).device
    return generator(torch.zeros(2, generator.z_size, device=device)).cpu()


def places(run):
    """On which devices the run's weights and its optimizers' averages are."""
    states = [state for one in run.optimizers.values() for state in one.state.values()]
    averages = [tensor for state in states for tensor in state.values()]
    weights = [weight for network in run.networks.values() for weight in network.parameters()]
    return {tensor.device.type for tensor in weights + averages}


def test_a_checkpoint_continues_on_the_other_kind_of_device(gpu, notebook, tmp_path, monkeypatch):
    faster(monkeypatch)
    processor, other = torch.device("cpu"), gpu.device
    for first, second in ((processor, other), (other, processor)):
        folder = tmp_path / first.type
        small_run(notebook, folder, first, 1)
        after = small_run(notebook, folder, second, 2)
        assert after.step == 20, f"{first} to {second}: expected 20 steps, got {after.step}"
        found = places(after)
        assert found == {second.type}, f"expected all of the run on {second}, got {found}"
        state = helpers.load_checkpoint(folder / "last.pt")
        assert state["step"] == 20, f"expected a checkpoint of step 20, got {state['step']}"


def test_a_step_may_return_plain_numbers(gpu):
    network = torch.nn.Linear(2, 2).to(gpu.device)
    check_finite({"D": network}, [torch.tensor([0.5, 0.7])], 1, "")
    with pytest.raises(FloatingPointError, match="g_loss is not finite at step 1"):
        check_finite({"D": network}, [torch.tensor([0.5, torch.inf])], 1, "")


def test_the_random_state_has_the_gpus_part(gpu):
    state = random_state()
    part = state[gpu.device.type]
    assert part is not None and len(part), f"expected the random state of {gpu.device}, got {part}"
    restore_random_state(state)


# ---------------------------------------------------------------- the pretended GPU itself


def test_it_refuses_what_a_gpu_refuses(gpu):
    here, there = torch.ones(3), torch.ones(3, device=gpu.device)
    refused = {
        "a sum of two devices": lambda: here + there,
        "a list of two devices": lambda: torch.cat([there, here]),
        "an index on the GPU": lambda: here[torch.zeros(1, dtype=torch.int64, device=gpu.device)],
        "numpy": there.numpy,
        "an array": lambda: np.asarray(there),
        "the processor's generator": lambda: torch.randn(
            2, device=gpu.device, generator=torch.Generator()
        ),
    }
    if gpu.device.type == "mps":
        refused["float64"] = there.double
    for name, action in refused.items():
        with pytest.raises((RuntimeError, TypeError)):
            action()
            pytest.fail(f"expected {name} to be refused")
    for result in (there * here[0], there + 1, there[1:], there.clone(), torch.zeros_like(there)):
        assert result.device == gpu.device, f"expected a result on {gpu.device}"
    assert here.device.type == "cpu" and there.cpu().device.type == "cpu"


def test_it_notes_where_the_processor_waits(gpu):
    there = torch.ones(3, device=gpu.device)
    waiting = {
        "item": lambda: there.sum().item(),
        "a condition": lambda: bool(there[0] > 0),
        "text": lambda: f"{there[0]:.1f}",
        "a copy here": there.cpu,
        "a copy there": lambda: torch.ones(3).to(gpu.device),
        "a mask": lambda: there[there > 0],
        "an index of the processor's": lambda: there[torch.tensor([1])],
    }
    for name, action in waiting.items():
        before = len(gpu.waits)
        action()
        assert len(gpu.waits) > before, f"expected {name} to be noted"
    before = len(gpu.waits)
    torch.ones(3).to(gpu.device, non_blocking=True)
    torch.where(there > 0, there, 0).mean()
    there[torch.zeros(1, dtype=torch.int64, device=gpu.device)] = 2
    assert len(gpu.waits) == before, f"expected no more waits, got {gpu.waits[before:]}"


def test_a_gpu_takes_larger_batches_and_says_so(gpu, capsys):
    assert helpers.default_batch_size(20_000) == 128, "expected 128 images in a step on a GPU"
    assert "batch_size" in capsys.readouterr().out, "expected how to change it"
    assert helpers.default_batch_size(500) == 32, "expected 32 where there are few images"
    assert helpers.default_batch_size(20_000, 128) == 32, "expected 32 where images are large"


def test_a_gpu_with_fast_bfloat16_takes_256_small_faces(capsys):
    with pretended("cuda", bfloat16=True):
        found = [helpers.default_batch_size(20_000, size) for size in (32, 64, 128)]
    assert found == [256, 128, 32], f"expected fewer of larger faces, got {found}"
    assert "takes 256 images" in capsys.readouterr().out, "expected a line that says so"


def test_the_processor_takes_32_images_and_says_nothing(capsys):
    assert helpers.default_batch_size(20_000) == 32, "expected 32 images in a step"
    assert not capsys.readouterr().out, "expected nothing to be said"


@pytest.mark.parametrize("gpu", ["cuda"], indirect=True)
def test_the_command_for_a_gpu_replays_a_captured_step(gpu, notebook, monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    script, graph = importlib.import_module("gpu"), mock.MagicMock()
    nothing = contextlib.nullcontext
    changes = dict(CUDAGraph=lambda: graph, graph=nothing, stream=nothing, Stream=mock.MagicMock)
    monkeypatch.setattr(torch.cuda, "current_stream", mock.MagicMock())
    for name, value in changes.items():
        monkeypatch.setattr(torch.cuda, name, value)
    D, G = (network.to(gpu.device) for network in notebook.build_network(4, 4, 8, 16))
    steps = script.steps_of_a_graph(D, G, torch.zeros(4, 3, 16, 16, device=gpu.device))
    assert [next(steps), next(steps)] == [4, 4] and graph.replay.call_count == 2
