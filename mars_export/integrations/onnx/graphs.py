"""Writes one module as an ONNX graph."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from mars_export.common.quiet import without_advice

__all__ = ["write_graph"]


def write_graph(
    module: nn.Module,
    example: dict[str, Any],
    dynamic: dict[str, Any],
    names: dict[str, str],
    axes: dict[str, tuple[str, ...]],
    path: Path,
) -> None:
    """Export a module, through the exporter of Transformers.

    Args:
        module: Takes the example as keywords and gives a dictionary of tensors.
        example: Sizes must be at least 2 and differ where they are not equal by nature.
        dynamic: Of every tensor the axes that vary, as `torch.export` takes them.
        names: Leaf of the example or output, as the exporter numbers them, to the name in the
            graph; those that are not there keep theirs.
        axes: Name in the graph to names of its leading axes, for people; "" keeps a number.
        path: File to write; its weights go beside it.
    """
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    with without_advice(), torch.no_grad():
        exporter = OnnxExporter()
        program, _ = exporter.export_program(module, example, OnnxConfig(dynamic_shapes=dynamic))
    for value in (*program.graph.inputs, *program.graph.outputs):
        value.name = names.get(value.name, value.name)
        for number, axis in enumerate(axes.get(value.name, ())):
            if axis:
                value.shape[number] = axis
    exporter.save_program(program, path)
