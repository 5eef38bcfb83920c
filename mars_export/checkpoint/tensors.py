"""The steering tensors as the checkpoint holds them."""

from typing import Any, Final

import torch

from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import MODALITIES
from mars_export.methods.base import Artefact
from mars_export.runtime.steering import Steering, SteeringSwitch

__all__ = ["STEERING_TENSORS", "TENSORS_NAME", "steering_digest", "steering_tensors"]

TENSORS_NAME: Final = "steering.safetensors"
STEERING_TENSORS: Final = ("direction", "shift", "bounds")
"""Their short names, the buffers of `Steering`."""


def steering_tensors(artefact: Artefact) -> dict[str, torch.Tensor]:
    """The artefact's tensors that ship, float32; `shift` (3,) in the order of `MODALITIES`.

    Raises:
        ExportError: if one is absent.
    """
    absent = [name for name in STEERING_TENSORS if name not in artefact.tensors]
    if absent:
        raise ExportError(f"the calibration has no tensor {absent[0]}; calibrate again")
    tensors = {name: artefact.tensors[name].contiguous() for name in STEERING_TENSORS}
    shift = torch.zeros(len(MODALITIES))
    for modality, value in zip(artefact.record.source.modalities, tensors["shift"], strict=True):
        shift[MODALITIES.index(modality)] = value
    return {**tensors, "shift": shift}


def steering_digest(tensors: dict[str, torch.Tensor], rules: dict[str, Any]) -> str:
    """SHA-256 of tensors and `config.steering`, by the very code that checks it at load."""
    steering = Steering(tensors["direction"].numel(), SteeringSwitch())
    steering.load_state_dict(tensors)
    return steering.digest(rules)
