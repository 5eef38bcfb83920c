"""The rule of MARS with the gate of ASTRA (arXiv 2411.16721): a cosine from a neutral center."""

from typing import Any

import torch
from torch import Tensor, nn


def between(visual: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Interpolate values (..., K) at knots (..., K) linearly in log2(visual), -1 where it is 0."""
    x, at = (torch.where(n > 0, n.clamp(min=1).float().log2(), -1.0) for n in (visual, knots))
    part = (x.unsqueeze(-1) - at[..., :-1]) / at.diff().clamp(min=1e-6)
    return values[..., 0] + (part.clamp(0, 1) * values.diff()).sum(-1)


class Rule(nn.Module):
    """Adds strength * r to h. Calibration runs this class, and a checkpoint carries it.

    Buffers, float32: those of MARS, of whose `bounds` (M, 5) the last three are used: cap c,
    kappa * R, rho * R; and `center` (d,), the mean of harmless text. That of a modality is
    center + beta r.
    """

    TENSORS = ("direction", "knots", "shift", "turn", "bounds", "center")
    direction: Tensor
    knots: Tensor
    shift: Tensor
    turn: Tensor
    bounds: Tensor
    center: Tensor

    def __init__(self, hidden_size: int, rules: dict[str, Any]) -> None:
        super().__init__()
        rows, knots, turns = len(rules["modalities"]), rules.get("knots", 2), rules.get("turns", 1)
        sizes: tuple[tuple[int, ...], ...] = (
            (hidden_size,), (rows, knots), (rows, knots), (rows, turns), (rows, 5), (hidden_size,),
        )  # fmt: skip
        for name, size in zip(self.TENSORS, sizes, strict=True):
            self.register_buffer(name, torch.zeros(size, dtype=torch.float32))

    def beta(self, context: Tensor) -> Tensor:
        """Return the shift (...) of contexts (..., 3)."""
        modality, visual, turn = context.unbind(-1)
        shown = between(visual, self.knots[modality], self.shift[modality])
        return shown + self.turn[modality, turn.clamp(max=self.turn.shape[1] - 1)]

    def covered(self, context: Tensor) -> Tensor:
        """Return 1 (...) where visual tokens, or twice as many, and turn were measured, else 0."""
        knots, visual = self.knots[context[..., 0]], context[..., 1].unsqueeze(-1)
        few = ((knots <= 2 * visual) & ((knots > 0) == (visual > 0))).any(-1)
        later = (context[..., 2] == 0) | (self.turn.shape[1] > 1)
        return (few & (visual <= knots).any(-1) & later).float()

    def problem(self) -> str | None:
        """Why harmful requests of some modality can never be pushed, as one clause; else None."""
        cap, slope, radius = self.bounds[:, 2:].unbind(-1)
        length = float(self.direction.norm())
        failures = {
            "a bound is not finite": not self.bounds.isfinite().all(),
            "a shift is not finite": not (self.shift.sum() + self.turn.sum()).isfinite(),
            "the center is not finite": not self.center.isfinite().all(),
            "the knots do not ascend": not bool((self.knots.diff(dim=-1) >= 0).all()),
            f"the direction has length {length:.3g} instead of 1": not abs(length - 1) <= 1e-3,
            "the cap is not above the center": not (cap > self.center @ self.direction).all(),
            "the slope is not above 0": not (slope > 0).all(),
            "the radius is not above 0": not (radius > 0).all(),
        }
        return next((reason for reason, fails in failures.items() if fails), None)

    def forward(self, h: Tensor, context: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Steer h (..., d) float32; what is decided is (...), `calibrated` 1 where it is covered.

        context: (..., 3) long: index of the modality, visual tokens of the turn, answers before.
        """
        rest = h - self.center - self.beta(context).unsqueeze(-1) * self.direction
        along = (rest * self.direction).sum(-1)
        gate = torch.relu(along / rest.norm(dim=-1).clamp(min=1e-6))
        cap, slope, radius = self.bounds[context[..., 0]][..., 2:].unbind(-1)
        left = torch.relu(cap - self.center @ self.direction - along)
        strength = torch.minimum(slope * gate, torch.minimum(left, radius))
        after = h + strength.unsqueeze(-1) * self.direction
        return after, {"gate": gate, "strength": strength, "calibrated": self.covered(context)}
