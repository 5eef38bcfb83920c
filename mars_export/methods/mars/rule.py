"""The rule of MARS (arXiv 2606.31876): a gated, bounded push along a refusal direction.

Coordinates are lengths along the unit refusal direction r, in units of the residual stream.
A3.n are sections of docs/method.md in the repository of mars-export.
"""

from typing import Any

import torch
from torch import nn

_UNIT = 1e-3  # how far rounding takes the length of a unit direction from 1, with room to spare


class Rule(nn.Module):
    """Adds strength * r to h (A3.6). Calibration runs this class, and a checkpoint carries it.

    Buffers, float32: `direction` (d,), the unit refusal direction r; `shift` (M,), beta of each
    modality in the order of `rules["modalities"]`; `bounds` (5,), the coordinates origin o, harmful
    centroid p_u and cap c, then the slope kappa * R and the radius rho * R.
    """

    TENSORS = ("direction", "shift", "bounds")
    direction: torch.Tensor
    shift: torch.Tensor
    bounds: torch.Tensor

    def __init__(self, hidden_size: int, rules: dict[str, Any]) -> None:
        super().__init__()
        sizes = (hidden_size, len(rules["modalities"]), 5)
        for name, size in zip(self.TENSORS, sizes, strict=True):
            self.register_buffer(name, torch.zeros(size, dtype=torch.float32))

    def coordinate(self, h: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Return p = <h, r> - beta (A3.2), shape (...), for h (..., d) and context (..., 3)."""
        return (h * self.direction).sum(-1) - self.shift[context[..., 0]]

    def gate(self, p: torch.Tensor) -> torch.Tensor:
        """Return ReLU((p - o) / (p_u - o)) (A3.3): 0 if harmless, 1 at the harmful centroid."""
        origin, harmful = self.bounds[:2].unbind()
        return torch.relu((p - origin) / (harmful - origin))

    def limit(self, p: torch.Tensor) -> torch.Tensor:
        """Return min(ReLU(c - p), rho * R) (A3.4): the longest push that both allow."""
        cap, radius = self.bounds[2], self.bounds[4]
        return torch.minimum(torch.relu(cap - p), radius)

    def strength(self, p: torch.Tensor) -> torch.Tensor:
        """Return min(kappa * R * gate, limit) (A3.4): the length of the push, never negative."""
        return torch.minimum(self.bounds[3] * self.gate(p), self.limit(p))

    def push(self, h: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
        """Move h (..., d) by strength (...) along r; what is orthogonal to r stays."""
        return h + strength.unsqueeze(-1) * self.direction

    def problem(self) -> str | None:
        """Why no harmful request can ever be pushed, as one clause; None if some can."""
        origin, harmful, cap, slope, radius = self.bounds.tolist()
        length = float(self.direction.norm())
        failures = {
            "a bound is not finite": not self.bounds.isfinite().all(),
            "a shift is not finite": not self.shift.isfinite().all(),
            f"the direction has length {length:.3g} instead of 1": not abs(length - 1) <= _UNIT,
            "the harmful centroid is not above the gate's origin": not harmful > origin,
            "the cap is not above the gate's origin": not cap > origin,
            "the slope is not above 0": not slope > 0,
            "the radius is not above 0": not radius > 0,
        }
        return next((reason for reason, fails in failures.items() if fails), None)

    def forward(
        self, h: torch.Tensor, context: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Steer residual streams.

        Args:
            h: (..., d) float32.
            context: (..., 3) long: index into `rules["modalities"]`, visual tokens shown, and
                answers begun before.

        Returns:
            The new h; `gate` and `strength` (...) of each; and `calibrated` (...), 1 where the
            calibration covers such a request.
        """
        p = self.coordinate(h, context)
        strength = self.strength(p)
        decision = {"gate": self.gate(p), "strength": strength, "calibrated": torch.ones_like(p)}
        return self.push(h, strength), decision
