"""A guard in front: a safety classifier reads the words of a request, and may refuse for the model.

It is Qwen3Guard-Gen, or another checkpoint of its kind. Whatever it does not call safe is answered
with a fixed refusal. It does not see pictures, and reads the last turn alone. The model answers the
whole batch, so that what passes the guard is answered as without it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Final

from mars_export.evaluation.baselines.base import Batch, Fitted
from mars_export.evaluation.baselines.hooks import said_of_batch, with_costs
from mars_export.evaluation.baselines.study import Study
from mars_export.evaluation.generation import Answers, Loaded, clock
from mars_export.evaluation.judges.local import LocalJudge
from mars_export.families.placement import input_device
from mars_export.methods.base import ArtefactRecord

__all__ = ["Fit", "of_model"]

_KIND: Final = "qwen3guard"
_REFUSAL: Final = "I'm sorry, but I can't help with that."


@dataclass(frozen=True)
class Fit(Fitted):
    """The guard, loaded."""

    fits_text: ClassVar = False
    model: ClassVar[str | None] = None
    guard: LocalJudge

    @property
    def detail(self) -> str:
        """Which one."""
        return self.guard.name

    @classmethod
    def _named(cls, device: str) -> LocalJudge:
        return LocalJudge(_KIND, cls.model, device, asked_as="--arm guard")

    @classmethod
    def require(cls, record: ArtefactRecord) -> None:  # noqa: ARG003
        """Refuse where the guard is not at hand."""
        _ = cls._named("cpu").name

    @classmethod
    def source(cls) -> str:
        """Kind, model, and its commit or digest."""
        return cls._named("cpu").name

    @classmethod
    def fit(cls, study: Study) -> Fit:
        """Load the guard on the model's device.

        Raises:
            ExportError: It does not load.
        """
        guard = cls._named(str(input_device(study.loaded.model)))
        guard.load()
        return cls(guard)

    def answer(self, loaded: Loaded, batch: Batch) -> Answers:
        """Ask the guard, then the model."""
        answers = loaded.answer(batch.inputs, batch.max_new_tokens, steered=False, seed=batch.seed)
        stop = clock(input_device(loaded.model))
        safe = [self.guard.is_safe(request.prompt) for request in batch.requests]
        cost = stop(len(safe))
        logits = answers.logits.clone()
        logits[[row for row, passed in enumerate(safe) if not passed]] = float("nan")
        blocked = replace(
            answers,
            texts=[t if ok else _REFUSAL for t, ok in zip(answers.texts, safe, strict=True)],
            cut=[cut and ok for cut, ok in zip(answers.cut, safe, strict=True)],
            logits=logits,
            steered=said_of_batch(batch, [not ok for ok in safe]),
        )
        return with_costs(blocked, [cost])


def of_model(name: str) -> type[Fit]:
    """The same of another checkpoint: a Hub repository or a directory."""
    return type("Fit", (Fit,), {"model": name})
