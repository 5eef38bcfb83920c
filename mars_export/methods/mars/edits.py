"""The pushes that calibration tries out, as edits of one decoder layer."""

import torch

from mars_export.calibration.activations import Edit
from mars_export.methods.mars.arithmetic import Bounds, push

__all__ = ["added", "bounded", "gated"]


def added(layer: int, direction: torch.Tensor, length: float) -> Edit:
    """Add `length` times the direction, whatever the state.

    Args:
        layer: Decoder layer.
        direction: (d,) float32 unit vector.
        length: Residual-stream units.
    """

    def change(h: torch.Tensor) -> torch.Tensor:
        return (h.float() + length * direction.to(h.device)).to(h.dtype)

    return Edit(layer, change)


def gated(layer: int, direction: torch.Tensor, shift: float, bounds: Bounds) -> Edit:
    """The run-time rule, for requests of one modality.

    Args:
        layer: Decoder layer.
        direction: (d,) float32 unit vector.
        shift: beta of the modality at that layer.
        bounds: Scalars of the rule at that layer.
    """
    return Edit(layer, lambda h: push(h, direction.to(h.device), shift, bounds))


def bounded(layer: int, direction: torch.Tensor, shift: float, bounds: Bounds) -> Edit:
    """The largest push that cap and radius allow, with the gate held open.

    Args:
        layer: Decoder layer.
        direction: (d,) float32 unit vector.
        shift: beta of the modality at that layer.
        bounds: Scalars of the rule at that layer.
    """

    def change(h: torch.Tensor) -> torch.Tensor:
        r, x = direction.to(h.device), h.float()
        room = torch.relu(bounds.cap - ((x * r).sum(-1) - shift)).clamp(max=bounds.radius)
        return (x + room.unsqueeze(-1) * r).to(h.dtype)

    return Edit(layer, change)
