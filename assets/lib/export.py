"""A trained generator as a file that needs neither this notebook nor its classes."""

import copy
import re
import zipfile

import torch

from assets.lib.files import write_file


def export_generator(generator, path):
    """Write a generator, (N, z_size) -> float32 (N, 3, S, S) for any N, with torch.export.

    The program is in eval mode, and its faces carry no graph. `.eval()` and `.train()` of what
    `torch.export.load(path).module()` returns raise a NotImplementedError, whatever was exported.
    """
    generator = copy.deepcopy(generator).to("cpu", torch.float32).eval().requires_grad_(False)
    generator.to(memory_format=torch.contiguous_format)
    example = torch.zeros(2, generator.z_size)  # a batch of 1 would be taken for a constant
    shapes = ({0: torch.export.Dim("N", min=1)},)
    program = torch.export.export(generator, (example,), dynamic_shapes=shapes)
    for node in list(program.graph.nodes):
        node.meta.pop("stack_trace", None)  # with the paths of this machine
        if "_assert_tensor_metadata" in str(node.target):  # a check for the CPU
            program.graph.erase_node(node)
    write_file(path, lambda file: torch.export.save(program, file))


def load_generator(path):
    """The network in a generator.pt2, in eval mode: (N, z_size) -> float32 (N, 3, S, S) in [-1, 1].

    Unlike what torch.export.load gives, it takes `.eval()` and `.train()`, which change nothing.
    ValueError if this version of PyTorch cannot read the file.
    """
    try:
        generator = torch.export.load(path).module()
    except FileNotFoundError:
        raise
    except Exception as error:  # of any kind, from another version or a damaged file
        raise ValueError(
            f"PyTorch {torch.__version__} cannot read {path}, {origin(path)}. Run the notebook "
            "with this version to write the file anew."
        ) from error
    generator.eval = lambda: generator
    generator.train = lambda mode=True: generator
    return generator


def origin(path):
    """Which version of PyTorch wrote a program, in words."""
    try:
        with zipfile.ZipFile(path) as pack:
            texts = [pack.read(name) for name in pack.namelist() if name.endswith(".json")]
    except (OSError, zipfile.BadZipFile):
        return "a damaged program"
    found = re.search(rb'"torch_version": "([^"]+)"', b"".join(texts))
    return f"written by PyTorch {found[1].decode()}" if found else "written by another version"
