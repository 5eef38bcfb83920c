"""Two models go the same way: ours, and the base with hooks at places that the test knows."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from support.behavior import Pair
from support.conversations import Batch
from support.oracle import Oracle, Where, same_told, told

Call = Callable[..., Any]
"""Takes a model and what only the steered one is told."""


def forget(*models: Any) -> None:
    """Put away the rotary offsets that the Qwen models keep of the request before."""
    for model in models:
        if hasattr(model.base_model, "rope_deltas"):
            model.base_model.rope_deltas = None


class RefusedError(Exception):
    """The base itself does not go this way."""


@dataclass(frozen=True)
class Step:
    """What came out of a call, and what was steered in it; `whole` if nothing was cached before."""

    name: str
    out: torch.Tensor
    steered: list[list[tuple[int, str, float]]]
    whole: bool = True


@dataclass
class Side:
    """One of the two; subclasses run a call."""

    pair: Pair
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        forget(self.pair.base, self.pair.model)

    def _run(self, call: Call, batch: Batch, where: Where, stated: Any) -> Any:
        raise TypeError

    def off(self, call: Call) -> None:
        raise TypeError

    def forward(
        self, batch: Batch, inputs: dict, where: Where, stated: Any = None, start: int = 0
    ) -> Any:
        """Columns of a batch from `start` on, in one forward; padding is not compared."""
        out, steered = self._run(lambda m, **more: m(**inputs, **more), batch, where, stated)
        logits, mask = out.logits, inputs.get("attention_mask")
        if isinstance(mask, torch.Tensor) and mask.dim() == 2:
            logits = logits[mask[:, start:].bool()]
        self.steps.append(Step("forward", logits, steered, start == 0))
        return out

    def generate(self, batch: Batch, where: Where, stated: Any = None, **inputs: Any) -> Any:
        """One generate()."""

        def call(model: Any, **more: Any) -> Any:
            torch.manual_seed(1)
            return model.generate(**inputs, **more)

        out, steered = self._run(call, batch, where, stated)
        self.steps.append(Step("generate", out.sequences, steered))
        return out


class Native(Side):
    """The base with the hooks."""

    def _run(self, call: Call, batch: Batch, where: Where, stated: Any) -> Any:
        model, record, direction = self.pair.base, self.pair.record, self.pair.direction
        with Oracle(model, record, direction, where, len(batch.padding)) as oracle:
            try:
                out = call(model)
            except Exception as error:
                raise RefusedError(repr(error)) from error
        return out, oracle.told(batch.padding)

    def off(self, call: Call) -> None:
        self.steps.append(Step("off", call(self.pair.base), []))


class Steered(Side):
    """The steered model, which is told nothing but what a user states."""

    scope: Callable[[], Any] = nullcontext

    def _run(self, call: Call, batch: Batch, where: Where, stated: Any) -> Any:
        out = call(self.pair.model, **({} if stated is None else {"steering_positions": stated}))
        return out, told(self.pair.model)

    def off(self, call: Call) -> None:
        with self.pair.model.steering.off():
            out = call(self.pair.model)
            self.steps.append(Step("off", out, told(self.pair.model)))


def check_same(got: Side, want: Side) -> None:
    """Equal tokens, logits that differ by rounding, and the same places steered as far."""
    assert [step.name for step in got.steps] == [step.name for step in want.steps]
    for ours, theirs in zip(got.steps, want.steps, strict=True):
        if ours.out.is_floating_point() and ours.name != "off":
            torch.testing.assert_close(ours.out, theirs.out, rtol=1e-3, atol=1e-3)
        else:
            assert ours.out.equal(theirs.out)
        steered = ours.steered
        if not ours.whole:  # of a loop by hand, what came before is recorded too
            steered = [
                row[len(row) - len(new) :] for row, new in zip(steered, theirs.steered, strict=True)
            ]
        assert same_told(steered, theirs.steered)
