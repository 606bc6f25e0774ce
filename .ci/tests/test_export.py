"""generator.pt2: what a run leaves for others, in a file that needs PyTorch alone."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import small_runs
import torch
from small_runs import start_small

import helpers


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
