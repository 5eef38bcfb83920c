"""The steering tensors as the checkpoint holds them."""

from typing import Any, Final

import torch

from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import MODALITIES
from mars_export.methods.mars.record import CalibrationRecord
from mars_export.runtime.steering import Steering, SteeringSwitch

__all__ = ["STEERING_TENSORS", "TENSORS_NAME", "steering_digest", "steering_tensors"]

TENSORS_NAME: Final = "steering.safetensors"
STEERING_TENSORS: Final = ("direction", "shift", "bounds")
"""Their short names, the buffers of `Steering`."""


def steering_tensors(record: CalibrationRecord, direction: torch.Tensor) -> dict[str, torch.Tensor]:
    """Tensors of the runtime's `Steering` module, float32.

    Args:
        record: Calibration; its coordinates are in residual-stream units.
        direction: (d,) refusal direction of the chosen layer, any length; stored as a unit vector.

    Returns:
        `direction` (d,); `shift` (3,) in the order of `MODALITIES`, 0 for modalities that the
        model has not; `bounds` (5,): origin o, harmful centroid p_u, cap c, slope kappa * R,
        radius rho * R (method A3.6).

    Raises:
        ExportError: if a number is not finite or the direction is zero.
    """
    unit = direction.double() / direction.double().norm()
    bounds = [
        record.origin,
        record.harmful,
        record.cap,
        record.gain * record.separation,
        record.radius * record.separation,
    ]
    tensors = {
        "direction": unit.float().contiguous(),
        "shift": torch.tensor([record.shift.get(m, 0.0) for m in MODALITIES], dtype=torch.float32),
        "bounds": torch.tensor(bounds, dtype=torch.float32),
    }
    if not all(t.isfinite().all() for t in tensors.values()):
        raise ExportError("the calibration's numbers are not finite; calibrate again")
    return tensors


def steering_digest(tensors: dict[str, torch.Tensor], rules: dict[str, Any]) -> str:
    """SHA-256 of tensors and `config.steering`, by the very code that checks it at load."""
    steering = Steering(tensors["direction"].numel(), SteeringSwitch())
    steering.load_state_dict(tensors)
    return steering.digest(rules)
