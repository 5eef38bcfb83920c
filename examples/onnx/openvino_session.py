"""Runs the graphs of a steered model in OpenVINO instead of onnxruntime.

    model = SteeredOnnx("steered-onnx", session=OpenVinoSession)

It needs `pip install openvino`; tested with 2026.4.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import openvino


class OpenVinoSession:
    """One graph, with what the runner uses of an `onnxruntime.InferenceSession`."""

    def __init__(self, path: str, device: str = "CPU") -> None:
        """Compile a graph in float32: in bfloat16, the default of some CPUs, gates would move."""
        hint = {"INFERENCE_PRECISION_HINT": "f32"}
        self.model = openvino.Core().compile_model(path, device, hint)

    def get_inputs(self) -> list[SimpleNamespace]:
        """Name and shape of each input; None for a length that may vary."""
        return [self._port(port) for port in self.model.inputs]

    def get_outputs(self) -> list[SimpleNamespace]:
        """Name and shape of each output."""
        return [self._port(port) for port in self.model.outputs]

    def run(self, names: None, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:  # noqa: ARG002
        """All outputs, in their order; `names` is None, as in all calls of the runner."""
        # An input that nothing reads is no longer there.
        taken = {name for port in self.model.inputs for name in port.names}
        found = self.model({name: value for name, value in feed.items() if name in taken})
        return [np.array(found[port]) for port in self.model.outputs]

    def _port(self, port: Any) -> SimpleNamespace:
        lengths = [None if part.is_dynamic else part.get_length() for part in port.partial_shape]
        return SimpleNamespace(name=port.any_name, shape=lengths)
