"""The numbers of MARS, as JSON, and its options. Free of torch, so that a card renders without.

A3.n are sections of docs/method.md.
"""

from typing import Annotated, Final

from pydantic import Field, NonNegativeInt, PositiveInt

from mars_export.calibration.source import Group, Label
from mars_export.common.record import Record
from mars_export.common.vocabulary import Modality
from mars_export.methods.base import ArtefactRecord, MethodOptions, MethodRecord

__all__ = [
    "KL_LIMIT",
    "Coordinates",
    "LayerScore",
    "MarsOptions",
    "MarsRecord",
    "Quantiles",
    "mars_record",
]

KL_LIMIT: Final = 0.1
"""Largest first-token KL on harmless inputs, nats (arXiv 2406.11717; A3.5)."""


_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class MarsOptions(MethodOptions):
    """What may be fixed instead of measured."""

    layer: NonNegativeInt | None = Field(
        None, description="Expert: decoder layer to steer, from 0, instead of the chosen one."
    )
    finalists: PositiveInt = Field(
        5, description="Expert: layers with the best text scores that are tried at a time."
    )
    gain: _Positive | None = Field(
        None, description="Expert: kappa, growth of the push with the gate, instead of a tuned one."
    )
    radius: _Positive | None = Field(
        None, description="Expert: rho, longest push over R, instead of a tuned one."
    )


class _OfGroup(Record):
    """Something about the validation requests of one label and modality."""

    label: Label
    modality: Modality

    @property
    def group(self) -> Group:
        """Whose it is; its `str()` is for people."""
        return Group(self.label, self.modality)


class Coordinates(_OfGroup):
    """Re-centered coordinates of a group at the chosen layer, residual-stream units."""

    values: list[float]


class Quantiles(_OfGroup):
    """Where the middle 80 % of a group lie, between the text centroids at 0 and 1."""

    low: float
    """10 % quantile."""
    middle: float
    high: float
    """90 % quantile."""


class LayerScore(Record):
    """Text-only scores of one decoder layer (A3.5) and its causal tie-break."""

    layer: int
    consistency: float
    """Mean cosine of harmful validation states, from the harmless centroid, with the direction."""
    separability: float
    """d' of the projections of harmful and harmless validation text."""
    margin: float
    """Gap between the 5 % quantile of harmful and the 95 % quantile of harmless text, over R."""
    combined: float | None
    """Equal-weight mean of the min-max normalized scores; None for an excluded layer."""
    excluded: str | None
    """Why the layer cannot be chosen; None when it can."""
    separation: float
    """R, the distance of the two text centroids, residual-stream units."""
    shift: dict[Modality, float]
    """Modality shift along the direction over R."""
    groups: list[Quantiles] = Field(default_factory=list)
    induced: float | None = None
    """Refusal log-odds on harmless text after adding the direction; only for finalists."""
    kl: float | None = None
    """First-token KL(base || steered) on harmless text with neutral stimuli, nats; finalists."""
    lift: float | None = None
    """Refusal log-odds that the bounded push adds beside a neutral stimulus; finalists."""


class MarsRecord(MethodRecord):
    """Where and how MARS steers; coordinates are along the direction, residual-stream units."""

    layer: int
    """Chosen decoder layer, 0-based; the edit is made to its output."""
    separation: float
    """R = |mean harmful - mean harmless|."""
    harmful: float
    """p_u, coordinate of the harmful text centroid, where the gate is 1."""
    harmless: float
    """p_s, coordinate of the harmless text centroid."""
    shift: dict[Modality, float]
    """beta, subtracted from the coordinate of a request of that modality; 0 for text."""
    origin: float
    """o, re-centered coordinate at which the gate opens."""
    cap: float
    """c, edge of the harmful text data; no push goes beyond it."""
    gain: float
    """kappa: the push grows by kappa * R * gate."""
    radius: float
    """rho: no push is longer than rho * R."""
    layer_forced: bool = False
    """Whether the user named the layer."""
    layer_failures: list[str] = Field(default_factory=list)
    """Causal checks that the layer failed, each with value and threshold; only a forced layer
    can have any."""
    reached: float | None = None
    """Mean refusal log-odds of harmful text beside neutral stimuli, steered; least over the
    modalities. None without such modalities."""
    goal: float | None = None
    """What `reached` should be at least: that of harmful text alone, less a tolerance."""
    refusal_tokens: list[int]
    """First tokens of refusal openers that separate the training prompts; for the log-odds."""
    scores: list[LayerScore]
    projections: list[Coordinates] = Field(default_factory=list)
    """Validation requests at the chosen layer, for plots."""


def mars_record(artefact: ArtefactRecord) -> MarsRecord:
    """The numbers of MARS in an artefact of MARS.

    Raises:
        TypeError: if it is of another method.
    """
    if not isinstance(artefact.record, MarsRecord):
        raise TypeError(f"{artefact.method} is not MARS")
    return artefact.record
