"""The rule of MARS (arXiv 2606.31876): a gated, bounded push along a refusal direction.

Coordinates are lengths along that direction. A3.n: docs/method.md in the mars-export repository.
"""

from typing import Any

import torch
from torch import Tensor, nn


def between(visual: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Interpolate values (..., K) at knots (..., K) linearly in log2(visual), -1 where it is 0."""
    x, at = (torch.where(n > 0, n.clamp(min=1).float().log2(), -1.0) for n in (visual, knots))
    part = (x.unsqueeze(-1) - at[..., :-1]) / at.diff().clamp(min=1e-6)
    return values[..., 0] + (part.clamp(0, 1) * values.diff()).sum(-1)


class Rule(nn.Module):
    """Adds strength * r to h (A3.6). Calibration runs this class, and a checkpoint carries it.

    Buffers, float32, rows as `rules["modalities"]`: `direction` (d,), unit r; `shift` (M, K), beta
    at `knots` (M, K) visual tokens of a turn, ascending; `turn` (M, T), what a turn adds, the last
    for later ones; `bounds` (M, 5): origin o, p_u where the gate is 1, cap c, kappa * R, rho * R.
    """

    TENSORS = ("direction", "knots", "shift", "turn", "bounds")
    direction: Tensor
    knots: Tensor
    shift: Tensor
    turn: Tensor
    bounds: Tensor

    def __init__(self, hidden_size: int, rules: dict[str, Any]) -> None:
        super().__init__()
        rows, knots, turns = len(rules["modalities"]), rules.get("knots", 2), rules.get("turns", 1)
        sizes = ((hidden_size,), (rows, knots), (rows, knots), (rows, turns), (rows, 5))
        for name, size in zip(self.TENSORS, sizes, strict=True):
            self.register_buffer(name, torch.zeros(size, dtype=torch.float32))

    def beta(self, context: Tensor) -> Tensor:
        """Return the shift (...) of contexts (..., 3) (A3.2)."""
        modality, visual, turn = context.unbind(-1)
        shown = between(visual, self.knots[modality], self.shift[modality])
        return shown + self.turn[modality, turn.clamp(max=self.turn.shape[1] - 1)]

    def covered(self, context: Tensor) -> Tensor:
        """Return 1 (...) where visual tokens, or twice as many, and turn were measured, else 0."""
        knots, visual = self.knots[context[..., 0]], context[..., 1].unsqueeze(-1)
        few = ((knots <= 2 * visual) & ((knots > 0) == (visual > 0))).any(-1)
        later = (context[..., 2] == 0) | (self.turn.shape[1] > 1)
        return (few & (visual <= knots).any(-1) & later).float()

    def coordinate(self, h: Tensor, context: Tensor) -> Tensor:
        """Return p = <h, r> - beta (A3.2), shape (...), for h (..., d) and context (..., 3)."""
        return (h * self.direction).sum(-1) - self.beta(context)

    def gate(self, p: Tensor, modality: Tensor) -> Tensor:
        """Return ReLU((p - o) / (p_u - o)) (A3.3): 0 if harmless, 1 at harmful text."""
        origin, harmful = self.bounds[modality][..., :2].unbind(-1)
        return torch.relu((p - origin) / (harmful - origin))

    def limit(self, p: Tensor, modality: Tensor) -> Tensor:
        """Return min(ReLU(c - p), rho * R) (A3.4): the longest push that both allow."""
        cap, radius = self.bounds[modality][..., 2::2].unbind(-1)
        return torch.minimum(torch.relu(cap - p), radius)

    def strength(self, p: Tensor, modality: Tensor) -> Tensor:
        """Return min(kappa * R * gate, limit) (A3.4): the length of the push, never negative."""
        slope = self.bounds[modality][..., 3]
        return torch.minimum(slope * self.gate(p, modality), self.limit(p, modality))

    def push(self, h: Tensor, strength: Tensor) -> Tensor:
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
            f"the direction has length {length:.3g} instead of 1": not abs(length - 1) <= 1e-3,
            "the harmful centroid is not above the gate's origin": not (harmful > origin).all(),
            "the cap is not above the gate's origin": not (cap > origin).all(),
            "the slope is not above 0": not (slope > 0).all(),
            "the radius is not above 0": not (radius > 0).all(),
        }
        return next((reason for reason, fails in failures.items() if fails), None)

    def forward(self, h: Tensor, context: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Steer h (..., d) float32; what is decided is (...), `calibrated` 1 where it is covered.

        context: (..., 3) long: index of the modality, visual tokens of the turn, answers before.
        """
        p, modality = self.coordinate(h, context), context[..., 0]
        decision = {"gate": self.gate(p, modality), "strength": self.strength(p, modality)}
        return self.push(h, decision["strength"]), decision | {"calibrated": self.covered(context)}
