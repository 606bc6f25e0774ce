"""generator.pt2: what a run leaves for others, in a file that needs PyTorch alone."""

import copy
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import small_runs
import torch
from small_runs import start_small

import helpers
from assets.lib.export import load_generator


def exported(generator, path):
    helpers.export_generator(generator, path)
    return torch.export.load(path).module()


def test_a_run_leaves_its_averaged_generator(notebook, tmp_path):
    run, train = start_small(notebook, tmp_path / "run")
    train(2)
    generator = torch.export.load(run.folder / "generator.pt2").module()
    averaged = run.parts["averaged"].module
    own = helpers.recalibrate_batch_norm(averaged, small_runs.Z_SIZE)
    z = torch.randn(65, small_runs.Z_SIZE)
    for n in (1, 2, 65):
        faces = generator(z[:n])
        got = f"{faces.dtype} {tuple(faces.shape)}, up to {faces.abs().max():.2f}"
        is_right = faces.shape == (n, 3, 16, 16) and faces.dtype == torch.float32
        assert is_right and faces.abs().max() <= 1, f"expected float32 in [-1, 1], got {got}"
        off = (faces - own(z[:n])).abs().max()
        assert off < 0.05, f"expected the averaged generator's faces, got {off:.3f} off"
        off = (faces - generator(z)[:n]).abs().max()
        assert off < 1e-5, f"expected the same face in any batch, got {off} off"


@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize("z_size", [1, 12])
def test_any_size_and_any_latent_can_be_exported(notebook, tmp_path, size, z_size):
    torch.manual_seed(0)
    generator = notebook.Generator(z_size, 4, size).to(memory_format=torch.channels_last)
    mode = generator.training
    program = exported(generator, tmp_path / "generator.pt2")
    assert generator.training == mode, "expected the generator itself to stay as it is"
    z = torch.randn(3, z_size)
    off = (program(z) - generator.eval()(z)).abs().max()
    assert off < 1e-5, f"expected the same faces, got {off} off"
    faces = exported(generator.double(), tmp_path / "generator.pt2")(z)
    assert faces.dtype == torch.float32, f"expected float32, got {faces.dtype}"


def test_an_exported_generator_holds_no_path_and_no_device(notebook, tmp_path):
    path = tmp_path / "generator.pt2"
    labels = torch.randint(2, (64, 3)).float()
    for generator in (
        notebook.Generator(12, 4, 16),
        notebook.ConditionalGenerator(12, 4, 16, labels),
    ):
        helpers.export_generator(generator, path)
        with zipfile.ZipFile(path) as pack:
            content = b"".join(pack.read(name) for name in pack.namelist())
        for word in (b"site-packages", str(Path.home()).encode() + b"/", str(tmp_path).encode()):
            assert word not in content, f"expected no path of this machine, got {word}"
        targets = [str(node.target) for node in torch.export.load(path).graph.nodes]
        checks = [target for target in targets if "_assert_tensor_metadata" in target]
        assert not checks, f"expected no check of the device, got {checks}"
        generator.eval()
        z = torch.randn(4, 12)
        off = (torch.export.load(path).module()(z) - generator(z)).abs().max()
        assert off < 1e-5, f"expected the same faces, got {off} off"


USES = {
    "numpy": lambda G, z: G(z).numpy(),
    "asarray": lambda G, z: np.asarray(G(z)),
    "tolist": lambda G, z: np.array(G(z).tolist()),
    "one latent": lambda G, z: torch.cat([G(one[None]) for one in z]),
    "a loop that keeps all": lambda G, z: torch.stack([G(z)[i] for i in range(len(z))]),
    "no_grad": torch.no_grad()(lambda G, z: G(z)),
    "inference_mode": torch.inference_mode()(lambda G, z: G(z)),
    "deepcopy": lambda G, z: copy.deepcopy(G)(z),
    "to": lambda G, z: G.to("cpu")(z),
    "float": lambda G, z: G.float()(z),
    "requires_grad_": lambda G, z: G.requires_grad_(False)(z),
    "state_dict": lambda G, z: (G.load_state_dict(G.state_dict()), G(z))[1],
}


@pytest.fixture(scope="module")
def small(notebook, tmp_path_factory):
    """The path of an exported generator, and it itself in eval mode."""
    torch.manual_seed(0)
    generator = notebook.Generator(8, 4, 16)
    path = tmp_path_factory.mktemp("small") / "generator.pt2"
    helpers.export_generator(generator, path)
    return path, generator.eval()


@pytest.mark.parametrize("use", USES)
def test_a_loaded_generator_is_used_like_any_network(small, use):
    path, generator = small
    z = torch.randn(3, 8)
    faces = torch.as_tensor(USES[use](torch.export.load(path).module(), z))
    assert not faces.requires_grad, "expected no graph, which takes memory"
    off = (faces - generator(z)).abs().max()
    assert off < 1e-5, f"expected the same faces, got {off} off"


def test_latents_can_be_optimized_through_a_loaded_generator(small):
    z = torch.randn(2, 8, requires_grad=True)
    torch.export.load(small[0]).module()(z).mean().backward()
    assert z.grad.abs().max() > 0, "expected a gradient of the latents"


def test_the_projects_own_loader_takes_eval_and_train(small):
    path, generator = small
    z = torch.randn(3, 8)
    loaded = load_generator(path)
    for network in (loaded.eval(), loaded.train(), loaded.train(False)):
        assert torch.allclose(network(z), generator(z), atol=1e-5), "expected eval mode"


def test_a_file_that_this_pytorch_cannot_read_names_the_version(small, tmp_path, monkeypatch):
    def fail(path):
        raise KeyError("an operation of another version")

    with monkeypatch.context() as patch:
        patch.setattr(torch.export, "load", fail)
        version = re.escape(torch.__version__)
        with pytest.raises(ValueError, match=f"cannot read .*, written by PyTorch {version}. Run"):
            load_generator(small[0])
    for content in (b"", b"no program", small[0].read_bytes()[:5000]):
        (tmp_path / "generator.pt2").write_bytes(content)
        with pytest.raises(ValueError, match="cannot read .*generator.pt2, a damaged program"):
            load_generator(tmp_path / "generator.pt2")
    with pytest.raises(FileNotFoundError):
        load_generator(tmp_path / "nowhere.pt2")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full to stand for a full disk")
def test_a_full_disk_leaves_the_old_generator(notebook, tmp_path):
    path = tmp_path / "generator.pt2"
    helpers.export_generator(notebook.Generator(8, 4, 16), path)
    before = path.read_bytes()
    (tmp_path / "generator.pt2.new").symlink_to("/dev/full")
    with pytest.raises(OSError, match="generator.pt2 cannot be written.*Make room on the disk"):
        helpers.export_generator(notebook.Generator(8, 4, 16), path)
    assert path.read_bytes() == before, "expected the old file to be whole"


def test_pytorch_alone_reads_it(notebook, tmp_path):
    helpers.export_generator(notebook.Generator(8, 4, 16), tmp_path / "generator.pt2")
    code = "import torch; generator = torch.export.load('generator.pt2').module()\n"
    code += "print(tuple(generator(torch.randn(5, 8)).shape))"
    command = [sys.executable, "-I", "-c", code]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert process.stdout.strip() == "(5, 3, 16, 16)", f"expected 5 faces, got {process.stderr}"
