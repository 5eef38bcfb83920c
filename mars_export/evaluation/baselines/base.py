"""What a baseline is: a way to answer with the weights of the base that no checkpoint holds.

Free of torch, so that commands start without it; what does the work is in a file of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from mars_export.evaluation.baselines.study import Study
    from mars_export.evaluation.generation import Answers, Loaded
    from mars_export.inputs.requests import Request
    from mars_export.methods.base import ArtefactRecord

__all__ = ["Baseline", "Batch", "Fitted"]


@dataclass(frozen=True)
class Batch:
    """Requests of one modality that are answered together.

    Attributes:
        requests: With their media opened.
        inputs: The same as `Loaded.inputs` gives them; not to be changed.
        max_new_tokens: Longest answer, in tokens.
        seed: Of answers that are sampled; None for greedy ones.
    """

    requests: Sequence[Request]
    inputs: Any
    max_new_tokens: int
    seed: int | None = None


class Fitted(ABC):
    """A baseline fitted to one model. Its file calls the class `Fit`."""

    fits_text: ClassVar[bool] = True
    """Whether the fit needs the prompts that the directory was calibrated on."""

    @classmethod
    def require(cls, record: ArtefactRecord) -> None:  # noqa: ARG003
        """Refuse what can be known before anything is loaded.

        Raises:
            ExportError: The baseline cannot be run beside this checkpoint, or here.
        """
        return

    @classmethod
    def source(cls) -> str:
        """What the answers depend on beside the checkpoint, as another model; empty for nothing."""
        return ""

    @property
    @abstractmethod
    def detail(self) -> str:
        """What was decided, as one clause; empty for nothing."""

    @classmethod
    @abstractmethod
    def fit(cls, study: Study) -> Fitted:
        """Measure the model, whose steering is off. The same model gives the same fit."""

    @abstractmethod
    def answer(self, loaded: Loaded, batch: Batch) -> Answers:
        """Answer; the cost is that of every pass it takes."""


@dataclass(frozen=True)
class Baseline:
    """A baseline; the literal list of them is `BASELINES`.

    Attributes:
        name: Of its arm.
        title: For people.
        paper: arXiv number; empty for none.
        needs: What it needs beyond harmful and harmless text, as nouns.
        takes_model: Whether another model may be named, as NAME:MODEL.
        model: The other model; empty for its own.
    """

    name: str
    title: str
    paper: str = ""
    needs: tuple[str, ...] = ()
    takes_model: bool = False
    model: str = ""

    @property
    def fit_class(self) -> type[Fitted]:
        """What fits it to a model. Imports torch."""
        file = self.name.replace("-", "_")
        module = import_module(f"{__package__}.{file}")
        fit: type[Fitted] = module.of_model(self.model) if self.model else module.Fit
        return fit
