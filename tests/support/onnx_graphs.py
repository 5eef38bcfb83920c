"""Graphs of tiny checkpoints, which have no processor, and the runner on them."""

import json

import numpy as np

from mars_export.integrations.onnx.graphs import about, write_components
from mars_export.integrations.onnx.record import ONNX_RECORD_NAME
from mars_export.integrations.onnx.routes import route_of
from mars_export.integrations.onnx.runner import SteeredOnnx


def graphs_of(pair, folder):
    """The graphs of a steered model, without checks."""
    route = route_of(pair.family)
    write_components(pair.model, route, folder, lambda done, total: None)
    names = [path.stem for path in sorted(folder.glob("*.onnx"))]
    told = {"components": names, "model": about(pair.model, route).model_dump()}
    (folder / ONNX_RECORD_NAME).write_text(json.dumps(told))
    return SteeredOnnx(folder)


def arrays(batch):
    return {name: tensor.numpy() for name, tensor in batch.items()}


def places(step):
    """(row, column) of what a call of the decoder steered."""
    return [tuple(map(int, place)) for place in np.argwhere(step.steered)]
