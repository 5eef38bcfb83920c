"""The rule of constant addition (arXiv 2308.10248, 2312.06681, 2406.11717): h + a R r."""

from typing import Any

import torch
from torch import nn


class Rule(nn.Module):
    """Adds one vector. Calibration runs this class, and a checkpoint carries it.

    Buffer, float32: `push` (d,), the refusal direction r with the length a R.
    """

    TENSORS = ("push",)
    push: torch.Tensor

    def __init__(self, hidden_size: int, _rules: dict[str, Any]) -> None:
        super().__init__()
        self.register_buffer("push", torch.zeros(hidden_size, dtype=torch.float32))

    def problem(self) -> str | None:
        """Why no request can ever be pushed, as one clause; None if all are."""
        length = float(self.push.norm())
        return None if 0 < length < float("inf") else f"the push has length {length:.3g}"

    def forward(
        self, h: torch.Tensor, context: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Steer residual streams.

        Args:
            h: (..., d) float32.
            context: (..., 3) long, what a request has shown; every one is pushed alike.

        Returns:
            The new h, and `strength` (...), the length of the push.
        """
        return h + self.push, {"strength": self.push.norm().expand(context.shape[:-1])}
