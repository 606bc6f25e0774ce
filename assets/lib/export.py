"""A trained generator as a file that needs neither this notebook nor its classes."""

import copy

import torch

from assets.lib.files import write_file


def export_generator(generator, path):
    """Write a generator, (N, z_size) -> float32 (N, 3, S, S) for any N, with torch.export."""
    generator = copy.deepcopy(generator).to("cpu", torch.float32).eval()
    generator.to(memory_format=torch.contiguous_format)
    example = torch.zeros(2, generator.z_size)  # a batch of 1 would be taken for a constant
    shapes = ({0: torch.export.Dim("N", min=1)},)
    program = torch.export.export(generator, (example,), dynamic_shapes=shapes)
    for node in list(program.graph.nodes):
        node.meta.pop("stack_trace", None)  # with the paths of this machine
        if "_assert_tensor_metadata" in str(node.target):  # a check for the CPU
            program.graph.erase_node(node)
    write_file(path, lambda file: torch.export.save(program, file))
