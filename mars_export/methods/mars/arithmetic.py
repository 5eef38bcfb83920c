"""MARS (arXiv 2606.31876): gated, bounded steering along a text refusal direction; pure functions.

Coordinates are lengths along the unit refusal direction r, residual-stream units:
p = <h, r> - beta, where beta is the shift of the request's modality.
"""

from dataclasses import dataclass

import torch

from mars_export.methods.mars.record import CalibrationRecord

__all__ = ["Bounds", "gate", "push", "strength"]


@dataclass(frozen=True)
class Bounds:
    """Scalars of the run-time rule, residual-stream units.

    Attributes:
        origin: o, coordinate at which the gate opens.
        harmful: p_u, coordinate of the harmful text centroid, where the gate is 1.
        cap: c, edge of the harmful text data; no push goes beyond it.
        slope: kappa * R, growth of the push with the gate.
        radius: rho * R, length of the longest push.
    """

    origin: float
    harmful: float
    cap: float
    slope: float
    radius: float

    @classmethod
    def of(cls, record: CalibrationRecord) -> "Bounds":
        """The bounds that a calibration decided on."""
        return cls(
            record.origin,
            record.harmful,
            record.cap,
            record.gain * record.separation,
            record.radius * record.separation,
        )


def gate(p: torch.Tensor, bounds: Bounds) -> torch.Tensor:
    """ReLU(z) with z = (p - o) / (p_u - o).

    Args:
        p: Re-centered coordinates, any shape, floating point.
        bounds: Scalars with `harmful` > `origin`.

    Returns:
        Same shape and dtype: 0 on the harmless side of the origin, 1 at the harmful text centroid.
    """
    return torch.relu((p - bounds.origin) / (bounds.harmful - bounds.origin))


def strength(p: torch.Tensor, bounds: Bounds) -> torch.Tensor:
    """Length of the push, min(kappa R ReLU(z), ReLU(c - p), rho R).

    Args:
        p: Re-centered coordinates, any shape, floating point.
        bounds: Scalars of the rule.

    Returns:
        Same shape and dtype, residual-stream units, never negative.
    """
    grown = bounds.slope * gate(p, bounds)
    return torch.minimum(grown, torch.relu(bounds.cap - p)).clamp(max=bounds.radius)


def push(
    h: torch.Tensor, direction: torch.Tensor, shift: float | torch.Tensor, bounds: Bounds
) -> torch.Tensor:
    """Steer: h + strength * r, computed in float32 and returned in the dtype of h.

    Args:
        h: (..., d) residual stream at the steered position.
        direction: (d,) unit refusal direction, float32.
        shift: beta of the modality, a scalar or (...,) one per row.
        bounds: Scalars of the rule.

    Returns:
        (..., d), dtype of `h`; the component orthogonal to `direction` is unchanged.
    """
    x = h.float()
    p = (x * direction).sum(-1) - shift
    return (x + strength(p, bounds).unsqueeze(-1) * direction).to(h.dtype)
