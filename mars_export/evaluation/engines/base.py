"""What every engine offers. Free of torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from mars_export.evaluation.overhead import Cost
from mars_export.evaluation.report import EngineSource, SelfCheck, Unknown
from mars_export.families.placement import Device
from mars_export.inputs.requests import Request
from mars_export.methods.base import Decision

if TYPE_CHECKING:
    from mars_export.evaluation.arms import Arm
    from mars_export.evaluation.options import EvaluationOptions
    from mars_export.evaluation.ready import Ready
    from mars_export.inputs.prompts import PromptSets

__all__ = ["Answer", "Answered", "Asked", "Engine"]


class Asked(NamedTuple):
    """A batch of requests of one modality, with their media opened."""

    requests: Sequence[Request]
    max_new_tokens: int
    seed: int | None = None
    """Of answers that are sampled; None for greedy ones."""


class Answer(NamedTuple):
    """The answer to one request in one arm, and what is known of how it came about."""

    text: str
    """Without special tokens."""
    cut: bool
    """Whether it reached the token limit without an end token."""
    decision: Decision | Unknown | None
    """What the method did; None where it did nothing."""
    log_odds: float | None = None
    """Refusal log-odds of the first token, nats."""
    push: float | None = None
    """Length of the change where the answer begins over that of the residual stream there."""
    kl: float | None = None
    """KL(reference || arm) of the first token, nats."""


class Answered(NamedTuple):
    """What became of a batch."""

    answers: Mapping[str, Sequence[Answer]]
    """By arm, in the order of the requests."""
    costs: Mapping[str, Cost]
    """By arm; empty where arms cannot be compared."""


class Engine(ABC):
    """Answers the requests of one evaluation in all of its arms.

    `require` comes first, then `open`, then the rest.
    """

    no_doses: ClassVar[str] = ""
    """Why it cannot scale the steering, as one clause; empty if it can."""

    @property
    def split(self) -> bool:
        """Whether each of several processes holds a part of its model, so that all ask the same."""
        return False

    @property
    @abstractmethod
    def identity(self) -> list[str]:
        """What tells its answers from those of others, beside the versions of packages."""

    @property
    @abstractmethod
    def source(self) -> EngineSource:
        """The engine as a report names it."""

    @property
    @abstractmethod
    def processor(self) -> Any:
        """Of the checkpoint that is evaluated: it says what the chat template can write."""

    @property
    @abstractmethod
    def dtype(self) -> str:
        """What the model computes in; `unknown` where that is not told."""

    @abstractmethod
    def device(self, device: str) -> str:
        """Where the model runs, as a report prints it.

        Args:
            device: Of this process.
        """

    @abstractmethod
    def require(self, arms: Sequence[Arm]) -> None:
        """Refuse arms that it cannot answer in, before anything is loaded.

        Raises:
            ExportError: There is one.
        """

    @abstractmethod
    def open(self, arms: Sequence[Arm], options: EvaluationOptions, device: Device) -> None:
        """Load what answers, or find it.

        Args:
            arms: The reference first.
            options: Of the evaluation.
            device: Where a model of this process runs.

        Raises:
            ExportError: It does not load, or is not there.
        """

    @abstractmethod
    def self_check(self, arm: Arm) -> SelfCheck:
        """Whether a steered arm steers as calibrated and the reference does not."""

    @abstractmethod
    def problem(self, request: Request) -> str:
        """Why a request that the template can write cannot be asked; empty if it can.

        Raises:
            ExportError: That cannot be found out.
        """

    @abstractmethod
    def fit(self, arms: Sequence[Arm], prompts: PromptSets | None, batch_size: int) -> Ready:
        """Fit the baselines among the arms; see `ready.fit`."""

    @abstractmethod
    def answers(self, arms: Sequence[Arm], asked: Asked) -> Answered:
        """Answer a batch in these arms, in this order."""
