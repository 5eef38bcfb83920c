"""What one turn of the page holds. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mars_export.common.vocabulary import Modality
from mars_export.evaluation.report import REFERENCE
from mars_export.inputs.requests import Media, Turn

__all__ = ["Exchange", "Reading", "history_of"]


@dataclass(frozen=True)
class Reading:
    """What steering did where an answer begins.

    Attributes:
        modality: Whose calibration was used.
        gate: 0 is shut; None where the method has none.
        push: Length of the change over that of the residual stream.
        place: Between harmless text at 0 and harmful text at 1; None where the method has none.
        margin: How far beyond the place at which the gate opens; None likewise.
        calibrated: Whether the calibration covers such a request; None where it does not say.
    """

    modality: Modality
    gate: float | None = None
    push: float | None = None
    place: float | None = None
    margin: float | None = None
    calibrated: bool | None = None


@dataclass(frozen=True)
class Exchange:
    """A question and what came of it so far.

    Attributes:
        prompt: What the user wrote.
        media: What was shown before it, in order.
        off: Answer with steering off.
        on: Answer with steering on.
        cut: The arms, `off` or `on`, whose answer reached the longest that is generated.
        reading: None until the answer with steering on begins, or where nothing was steered.
        without: The reading without each of `media`, in order; shorter while they are measured.
        done: Whether nothing is left to do.
    """

    prompt: str
    media: tuple[Media, ...] = ()
    off: str = ""
    on: str = ""
    cut: frozenset[str] = frozenset()
    reading: Reading | None = None
    without: tuple[Reading | None, ...] = field(default=())
    done: bool = False

    def answered(self, arm: str, text: str) -> Exchange:
        """With the answer of one arm, as far as it is known."""
        return replace(self, off=text) if arm == REFERENCE else replace(self, on=text)

    def turn(self, arm: str) -> Turn:
        """As an earlier turn of the conversation that one arm has."""
        return Turn(self.prompt, self.off if arm == REFERENCE else self.on, self.media)


def history_of(exchanges: tuple[Exchange, ...], arm: str) -> tuple[Turn, ...]:
    """The earlier turns of one arm, each with the answer that it gave itself."""
    return tuple(exchange.turn(arm) for exchange in exchanges)
