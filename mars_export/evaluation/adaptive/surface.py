"""What a white-box attacker reads: the gate and the loss of an answer's beginning, with gradients.

The model runs as it is served, in one of three arms. Steering records its decisions without
gradients, so the rules' own outputs are taken by hooks, which go when the arm is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from mars_export.evaluation.adaptive.batches import Batches
from mars_export.evaluation.adaptive.record import RANDOM
from mars_export.evaluation.generation import Loaded, hosted_rules
from mars_export.evaluation.report import STEERED
from mars_export.families.placement import input_device

__all__ = ["STEERED_ARMS", "Reading", "Surface", "in_arm", "with_answer"]

STEERED_ARMS: Final = (STEERED, RANDOM)
"""In which the model is pushed."""

_SLACK: Final = 0.05
"""How far below its origin a gate is pushed, so that rounding does not open it again."""


@dataclass(frozen=True)
class Reading:
    """Of B requests.

    Attributes:
        loss: (B,) mean cross entropy in nats of the beginning of an answer.
        margin: (B,) where the gate would be without its ReLU, 0 at the origin and 1 at harmful
            text; the largest of several layers. None with steering off or without a gate.
    """

    loss: Tensor
    margin: Tensor | None

    def shut(self) -> Tensor:
        """(B,) what is left of the gate; 0 once it is shut with a little slack, or without one."""
        return torch.relu(self._or(-1.0) + _SLACK)

    def open(self) -> Tensor:
        """(B,) what is missing until the gate is fully open; 0 without a gate."""
        return torch.relu(1 - self._or(1.0))

    def _or(self, value: float) -> Tensor:
        return torch.full_like(self.loss, value) if self.margin is None else self.margin


@contextmanager
def in_arm(loaded: Loaded, arm: str, seed: int) -> Iterator[None]:
    """Inside, the model answers as the arm does; afterwards it is as it was.

    Args:
        loaded: A steered checkpoint.
        arm: `off`, `on`, the safety prompt, with which steering is off, or `random`: the same gate
            and a push of the same length, but along a random direction in the place of the
            method's.
        seed: Of the random direction, which is drawn for each steered layer.
    """
    steering = loaded.model.steering
    before = steering.enabled
    with ExitStack() as stack:
        if arm == RANDOM:
            for place, rule in enumerate(hosted_rules(loaded.model)):
                hook = rule.register_forward_hook(_Elsewhere(seed + place))
                stack.callback(hook.remove)
        steering.enabled = arm in STEERED_ARMS
        try:
            yield
        finally:
            steering.enabled = before


class _Elsewhere:
    """Forward hook of a rule: keeps the length of each push and changes its direction."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __call__(self, _rule: Any, args: Any, out: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
        h, (pushed, decision) = args[0], out
        generator = torch.Generator().manual_seed(self._seed)
        direction = torch.randn(h.shape[-1], generator=generator).to(h)
        length = (pushed - h).norm(dim=-1, keepdim=True)
        return h + length * direction / direction.norm(), decision


class Surface:
    """Forwards of a model that keep their gradients.

    Attributes:
        loaded: The checkpoint; the arm is that of `in_arm`.
        beginning: Tokens of an answer's beginning, (n,).
        batches: Of forwards and their gradients.
    """

    def __init__(self, loaded: Loaded, beginning: Sequence[int], batch_size: int = 1) -> None:
        self.loaded, self.batches = loaded, Batches(batch_size)
        self.beginning = torch.tensor(beginning, device=input_device(loaded.model))

    def read(self, inputs: Any) -> Reading:
        """Read one batch, left-padded, without an answer in it.

        Args:
            inputs: As `Loaded.inputs` gives them, with any tensor in them replaced by one that
                requires gradients.
        """
        model, n = self.loaded.model, len(self.beginning)
        margins: list[Tensor] = []
        with ExitStack() as stack:
            for rule in hosted_rules(model):
                hook = rule.register_forward_hook(
                    lambda rule, args, out: margins.append(_margin(rule, args, out))
                )
                stack.callback(hook.remove)
            whole = with_answer(inputs, self.beginning)
            out = model(**whole, use_cache=False, logits_to_keep=n + 1)
        logits = out.logits[:, -n - 1 : -1].float().transpose(1, 2)
        targets = self.beginning.expand(len(logits), -1)
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="none").mean(1)
        return Reading(loss, self._margins(margins, loss))

    def _margins(self, margins: Sequence[Tensor], loss: Tensor) -> Tensor | None:
        """Of the last steered position of each row, where the answer begins."""
        known = [margin for margin in margins if margin.numel()]
        if not known:
            return None
        steered = self.loaded.model.steering.trace.entries[-1].steered.nonzero()[:, 0].tolist()
        last = {row: k for k, row in enumerate(steered)}
        at = torch.tensor([last[row] for row in range(len(loss))], device=loss.device)
        return torch.stack([margin.to(loss.device)[at] for margin in known]).amax(0)


def _margin(
    rule: Any, args: tuple[Tensor, Tensor], out: tuple[Tensor, dict[str, Tensor]]
) -> Tensor:
    """The gate before its ReLU, where the rule gives its coordinate (docs/method.md, A3.3)."""
    h, context = args
    gate = out[1].get("gate", h.new_empty(0))
    if gate.numel() and hasattr(rule, "coordinate"):
        origin, harmful = rule.bounds[context[..., 0]][..., :2].unbind(-1)
        gate = (rule.coordinate(h, context) - origin) / (harmful - origin)
    return gate


def with_answer(inputs: Any, tokens: Tensor) -> dict[str, Any]:
    """Model inputs with the same tokens after every row.

    Args:
        inputs: With `input_ids` (B, T); other integer tensors of that shape get zeros, and the
            attention mask ones.
        tokens: (n,).
    """
    ids = inputs["input_ids"]
    whole = dict(inputs)
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.shape == ids.shape and not value.is_floating_point():
            fill = int(name == "attention_mask")
            whole[name] = torch.cat([value, value.new_full((len(ids), len(tokens)), fill)], 1)
    whole["input_ids"] = torch.cat([ids, tokens.to(ids).expand(len(ids), -1)], 1)
    return whole
