"""The rule of MARS (arXiv 2606.31876): a gated, bounded push along a refusal direction.

Coordinates are lengths along that direction. A3.n: docs/method.md in the mars-export repository.
"""

from typing import Any

import torch
from torch import nn

_UNIT = 1e-3  # how far rounding takes a number of about 1, with room to spare


class Rule(nn.Module):
    """Adds strength * r to h (A3.6). Calibration runs this class, and a checkpoint carries it.

    Buffers, float32, rows in the order of `rules["modalities"]`: `direction` (d,), the unit refusal
    direction r; `knots` (M, K), ascending, log2 of the visual tokens at which `shift` (M, K), beta
    of a first turn, was measured; `turn` (M, T), what each turn adds, the last for later ones;
    `bounds` (M, 5): origin o, p_u where the gate is 1, cap c, slope kappa * R, radius rho * R.
    """

    TENSORS = ("direction", "knots", "shift", "turn", "bounds")
    direction: torch.Tensor
    knots: torch.Tensor
    shift: torch.Tensor
    turn: torch.Tensor
    bounds: torch.Tensor

    def __init__(self, hidden_size: int, rules: dict[str, Any]) -> None:
        super().__init__()
        rows, knots, turns = len(rules["modalities"]), rules.get("knots", 2), rules.get("turns", 1)
        sizes = ((hidden_size,), (rows, knots), (rows, knots), (rows, turns), (rows, 5))
        for name, size in zip(self.TENSORS, sizes, strict=True):
            self.register_buffer(name, torch.zeros(size, dtype=torch.float32))

    def beta(self, context: torch.Tensor) -> torch.Tensor:
        """Return the shift (...) of contexts (..., 3): linear in log2(visual tokens) (A3.2)."""
        modality, visual, turn = context.unbind(-1)
        knots, shift = self.knots[modality], self.shift[modality]
        x = visual.clamp(min=1).float().log2().unsqueeze(-1)
        part = (x - knots[..., :-1]) / knots.diff().clamp(min=_UNIT)
        first = shift[..., 0] + (part.clamp(0, 1) * shift.diff()).sum(-1)
        return first + self.turn[modality, turn.clamp(max=self.turn.shape[1] - 1)]

    def covered(self, context: torch.Tensor) -> torch.Tensor:
        """Return 1 (...) where visual tokens, or twice as many, and turn were measured, else 0."""
        knots, x = self.knots[context[..., 0]], context[..., 1].clamp(min=1).float().log2()
        turn = (context[..., 2] == 0) | (self.turn.shape[1] > 1)
        return ((knots[..., 0] <= x + 1) & (x <= knots[..., -1] + _UNIT) & turn).float()

    def coordinate(self, h: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Return p = <h, r> - beta (A3.2), shape (...), for h (..., d) and context (..., 3)."""
        return (h * self.direction).sum(-1) - self.beta(context)

    def gate(self, p: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        """Return ReLU((p - o) / (p_u - o)) (A3.3): 0 if harmless, 1 at harmful text."""
        origin, harmful = self.bounds[modality][..., :2].unbind(-1)
        return torch.relu((p - origin) / (harmful - origin))

    def limit(self, p: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        """Return min(ReLU(c - p), rho * R) (A3.4): the longest push that both allow."""
        cap, radius = self.bounds[modality][..., 2::2].unbind(-1)
        return torch.minimum(torch.relu(cap - p), radius)

    def strength(self, p: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        """Return min(kappa * R * gate, limit) (A3.4): the length of the push, never negative."""
        slope = self.bounds[modality][..., 3]
        return torch.minimum(slope * self.gate(p, modality), self.limit(p, modality))

    def push(self, h: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
        """Move h (..., d) by strength (...) along r; what is orthogonal to r stays."""
        return h + strength.unsqueeze(-1) * self.direction

    def problem(self) -> str | None:
        """Why harmful requests of some modality can never be pushed, as one clause; else None."""
        origin, harmful, cap, slope, radius = self.bounds.unbind(-1)
        length = float(self.direction.norm())
        failures = {
            "a bound is not finite": not self.bounds.isfinite().all(),
            "a shift is not finite": not (self.shift.sum() + self.turn.sum()).isfinite(),
            "the knots do not ascend": not bool((self.knots.diff(dim=-1) >= 0).all()),
            f"the direction has length {length:.3g} instead of 1": not abs(length - 1) <= _UNIT,
            "the harmful centroid is not above the gate's origin": not (harmful > origin).all(),
            "the cap is not above the gate's origin": not (cap > origin).all(),
            "the slope is not above 0": not (slope > 0).all(),
            "the radius is not above 0": not (radius > 0).all(),
        }
        return next((reason for reason, fails in failures.items() if fails), None)

    def forward(
        self, h: torch.Tensor, context: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Steer h (..., d) float32; what is decided is (...), `calibrated` 1 where it is covered.

        context: (..., 3) long: index of the modality, visual tokens shown, answers begun before.
        """
        p, modality = self.coordinate(h, context), context[..., 0]
        decision = {"gate": self.gate(p, modality), "strength": self.strength(p, modality)}
        return self.push(h, decision["strength"]), decision | {"calibrated": self.covered(context)}
