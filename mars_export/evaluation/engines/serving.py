"""What engines have in common that serve the checkpoint instead of holding it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mars_export.common.errors import ExportError
from mars_export.evaluation.arms import Arm
from mars_export.evaluation.engines.base import Asked, Engine
from mars_export.evaluation.engines.evidence import Evidence, judged
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.ready import Ready
from mars_export.evaluation.report import REFERENCE, STEERED, SelfCheck
from mars_export.families.placement import Device
from mars_export.inputs.prompts import PromptSets

__all__ = ["ServingEngine"]


class ServingEngine(Engine):
    """Answers with steering off and on, and where only the request is changed."""

    name: ClassVar[str]

    def __init__(self, evidence: Evidence) -> None:
        """Take the recorded answers that it has to repeat."""
        self._evidence = evidence
        self._arms: tuple[Arm, ...] = ()
        self._processor: Any = None

    @property
    def processor(self) -> Any:
        """As the checkpoint has it; the server has its own."""
        return self._processor

    def require(self, arms: Sequence[Arm]) -> None:
        """Baselines and other directories are left to Transformers."""
        for arm in arms:
            if arm.baseline is not None or arm.directory != arms[0].directory:
                raise ExportError(
                    f"--arm {arm.name}: --engine {self.name} answers with steering off and on, and "
                    "changed requests, alone; leave this arm out, or take --engine transformers"
                )

    def open(self, arms: Sequence[Arm], options: EvaluationOptions, device: Device) -> None:  # noqa: ARG002
        """Load the processor alone."""
        from mars_export.evaluation.generation import load_processor

        self._arms = tuple(arms)
        self._processor = load_processor(arms[0].directory)

    def self_check(self, arm: Arm) -> SelfCheck:
        """Have the recorded requests answered again with steering off and on."""
        requests = [witness.request for witness in self._evidence.witnesses]
        arms = [one for one in self._arms if one.name == REFERENCE] + [arm]
        said = {one.name: self._again(one, requests) for one in arms}
        assert set(said) == {REFERENCE, STEERED}
        return judged(self._evidence, said)

    def _again(self, arm: Arm, requests: Sequence[Any]) -> list[str]:
        asked = Asked(requests, self._evidence.max_new_tokens)
        return [answer.text for answer in self.answers([arm], asked).answers[arm.name]]

    def fit(self, arms: Sequence[Arm], prompts: PromptSets | None, batch_size: int) -> Ready:  # noqa: ARG002
        """There is nothing to fit."""
        return Ready(tuple(arms), {})
