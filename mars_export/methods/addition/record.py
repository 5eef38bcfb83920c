"""The numbers of constant addition, as JSON, and its options. Free of torch."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt

from mars_export.calibration.source import Group, Label
from mars_export.common.record import Record
from mars_export.common.vocabulary import Modality
from mars_export.methods.base import MethodOptions, MethodRecord

__all__ = ["AdditionOptions", "AdditionRecord", "Effect", "Positions", "Trial"]

Positions = Literal["all", "prompt"]
"""Where the vector is added: at every position, or at those up to the last assistant header."""


_Coefficient = (
    Annotated[float, Field(gt=0, allow_inf_nan=False)]
    | Annotated[float, Field(lt=0, allow_inf_nan=False)]
)


class AdditionOptions(MethodOptions):
    """Where, how far and at which positions to push."""

    layer: NonNegativeInt | None = Field(
        None, description="Expert: decoder layer to steer, from 0, instead of the chosen one."
    )
    coefficient: _Coefficient = Field(
        1.0, description="Length of the vector over R; below 0 it pushes away from refusal."
    )
    positions: Positions = Field(
        "all", description="Add it at every position, or at those up to the last assistant header."
    )


class Trial(Record):
    """A layer that was tried."""

    layer: int
    separability: float
    """d' of the projections of harmful and harmless validation text."""
    induced: float
    """Mean refusal log-odds of harmless validation text with the vector added, nats."""


class Effect(Record):
    """What the push does to the validation requests of one label and modality."""

    label: Label
    modality: Modality
    before: float
    """Mean refusal log-odds of the first token, nats."""
    after: float

    @property
    def group(self) -> Group:
        """Whose it is; its `str()` is for people."""
        return Group(self.label, self.modality)


class AdditionRecord(MethodRecord):
    """Which vector is added, where, and what that does."""

    layer: int
    """Decoder layer, 0-based; the vector is added to its output."""
    layer_forced: bool
    """Whether the user named the layer."""
    coefficient: float
    separation: float
    """R, distance of the harmful and harmless text centroids, residual-stream units."""
    positions: Positions
    trials: list[Trial]
    """Layers that were compared, best first; those with the best separability."""
    effects: list[Effect]
    """At the layer that is steered."""
