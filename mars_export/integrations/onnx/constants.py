"""Are the steering tensors of the checkpoint in a graph, bit for bit?"""

from pathlib import Path
from typing import Any

import numpy as np

from mars_export.common.errors import ExportError

__all__ = ["require_constants"]


def require_constants(path: Path, tensors: dict[str, Any]) -> None:
    """Check the graph's own constants; how they act, the comparison with PyTorch shows.

    Args:
        path: The decoder graph.
        tensors: `direction`, `shift` and `bounds` of the checkpoint, float32.

    Raises:
        ExportError: if one is not there, or with another value.
    """
    import onnx
    from onnx.numpy_helper import to_array

    # The weights may be large and lie in a file of their own: only vectors are read.
    initializers = onnx.load(str(path), load_external_data=False).graph.initializer
    small = [i for i in initializers if len(i.dims) <= 1 and i.data_type == onnx.TensorProto.FLOAT]
    there = {to_array(i, base_dir=str(path.parent)).tobytes() for i in small}
    for name, wanted in _parts(tensors).items():
        if wanted.tobytes() not in there:
            raise ExportError(
                f"{path.name}: the steering's {name} is not in the graph as it is in the "
                "checkpoint; nothing is written"
            )


def _parts(tensors: dict[str, Any]) -> dict[str, np.ndarray]:
    """The constants as the exporter folds them: `bounds` apart, and the gate's width."""
    bounds = tensors["bounds"].numpy()
    origin, harmful, cap, slope, radius = bounds
    scalars = {"cap": cap, "slope": slope, "radius": radius}
    scalars |= {"origin": origin, "width of the gate": harmful - origin}
    arrays = {name: tensors[name].numpy() for name in ("direction", "shift")}
    return arrays | {name: np.asarray(value, np.float32) for name, value in scalars.items()}
