"""The rule of RAI (arXiv 2602.03402): visual tokens near unsafe words are pushed to them."""

from typing import Any

import torch
from torch import nn

NEVER = 2.0  # more than any cosine


class VisualRule(nn.Module):
    """h + g sum_k s_k u_k over the words k whose cosine s_k with h is above t.

    Calibration runs this class, and a checkpoint carries it. Buffers, float32: `prototypes` (K, d),
    the unit vectors u of the words; `thresholds` (M,), t of each modality, NEVER for text; `gain`.
    """

    TENSORS = ("prototypes", "thresholds", "gain")
    prototypes: torch.Tensor
    thresholds: torch.Tensor
    gain: torch.Tensor

    def __init__(self, hidden_size: int, rules: dict[str, Any]) -> None:
        super().__init__()
        shapes = [(rules["words"], hidden_size), (len(rules["modalities"]),), ()]
        for name, shape in zip(self.TENSORS, shapes, strict=True):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float32))

    def problem(self) -> str | None:
        """Why no visual token can ever be pushed, as one clause; None if some can."""
        length, lowest, gain = self.prototypes.norm(dim=-1), self.thresholds.min(), self.gain
        if not bool(((length - 1).abs() < 1e-3).all()):
            return "a prototype is not of length 1"
        if not -1 < float(lowest) < 1:
            return f"the lowest threshold of the cosine is {float(lowest):.3g}"
        return None if 0 < float(gain) < float("inf") else f"the gain is {float(gain):.3g}"

    def cosines(self, h: torch.Tensor) -> torch.Tensor:
        """(..., K) cosine of states h (..., d) with each word."""
        return nn.functional.normalize(h, dim=-1) @ self.prototypes.T

    def forward(
        self, h: torch.Tensor, context: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Push visual tokens.

        Args:
            h: (..., d) float32, what the text decoder takes in.
            context: (..., 3) long, what a request has shown; its first number is the modality.

        Returns:
            The new h, and what was decided, (...): `gate`, the largest cosine where it is above the
            threshold and 0 elsewhere, and `strength`, the length of the push.
        """
        cosine, threshold = self.cosines(h), self.thresholds[context[..., 0]].unsqueeze(-1)
        near = cosine * (cosine > threshold)
        push = self.gain * near @ self.prototypes
        best = cosine.amax(-1)
        gate = best * (best > threshold.squeeze(-1))
        return h + push, {"gate": gate, "strength": push.norm(dim=-1)}
