"""The rule of RAS (arXiv 2510.13698): how risky a request reads, and a mix toward refusal.

R.n: docs/method.md in the mars-export repository.
"""

from typing import Any

import torch
from torch import Tensor, nn


class AnswerRule(nn.Module):
    """h <- (1 - r) h + r mu_n on the first N tokens of an answer (R.4).

    Buffers, float32: `prototypes` (N, d), the mean states mu_n at the input of the language head
    with which refusals begin; `curve` (2,), x0 and k of the risk r = sigmoid(k (S - x0)).
    """

    TENSORS = ("prototypes", "curve")
    prototypes: Tensor
    curve: Tensor

    def __init__(self, hidden_size: int, rules: dict[str, Any]) -> None:
        super().__init__()
        self.discount = float(rules.get("discount", 0.3))
        steps = int(rules.get("steps", 3))
        self.register_buffer("prototypes", torch.zeros(steps, hidden_size, dtype=torch.float32))
        self.register_buffer("curve", torch.zeros(2, dtype=torch.float32))

    def problem(self) -> str | None:
        """Why no answer can ever be changed, as one clause; None if some can."""
        finite = bool(self.prototypes.isfinite().all() & self.curve.isfinite().all())
        if not finite or not bool(self.prototypes.any(-1).all()):
            return "a prototype is 0 or not finite"
        return None if float(self.curve[1]) > 0 else "the risk does not rise with the similarity"

    def similarity(self, head: Any, states: Tensor, alive: Tensor) -> Tensor:
        """Return S (B,) of states (B, n, d), as they enter `head`, with which answers begin (R.2).

        alive (B, n): 0 behind the end of an answer.
        """
        steps = torch.arange(len(self.prototypes), device=states.device)
        weights = self.discount**steps
        refusal = head(self.prototypes.to(states.device, states.dtype)).float().softmax(-1)
        answer = head(states).float().softmax(-1)
        p = (weights.unsqueeze(-1) * refusal).sum(0)
        q = ((weights[: states.shape[1]] * alive).unsqueeze(-1) * answer).sum(1)
        return torch.cosine_similarity(p, q, dim=-1)

    def risk(self, similarity: Tensor) -> Tensor:
        """Return r of S, both of any shape (R.3)."""
        middle, slope = self.curve.to(similarity.device)
        return torch.sigmoid(slope * (similarity - middle))

    def forward(self, h: Tensor, risk: Tensor, step: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mix states h (..., d) float32, risk (...) and step (...) long, below N.

        Returns:
            The new h, and (...) the risk as `gate` and the length of the change as `strength`.
        """
        push = risk.unsqueeze(-1) * (self.prototypes.to(h.device)[step] - h)
        return h + push, {"gate": risk, "strength": push.norm(dim=-1)}
