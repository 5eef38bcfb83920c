"""The numbers of MARS, as JSON, and its options. Free of torch, so that a card renders without.

A3.n are sections of docs/method.md.
"""

import math
from typing import Annotated, Final, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from mars_export.calibration.source import DirectionSource, Group, Label
from mars_export.common.record import Record
from mars_export.common.vocabulary import Modality
from mars_export.methods.base import ArtefactRecord, MethodOptions, MethodRecord

__all__ = [
    "KL_LIMIT",
    "OPEN_LIMIT",
    "RESERVE",
    "TIE",
    "Check",
    "Condition",
    "Coordinates",
    "HeldOut",
    "LayerRule",
    "LayerScore",
    "Margin",
    "MarsOptions",
    "MarsRecord",
    "Quantiles",
    "Shift",
    "Strength",
    "Treatment",
    "Tuned",
    "mars_record",
]

KL_LIMIT: Final = 0.1
"""Largest first-token KL on harmless inputs, nats (arXiv 2406.11717; A3.5)."""

OPEN_LIMIT: Final = 0.05
"""Largest share of harmless requests whose gate may be open (A3.3)."""

RESERVE: Final = 1 / 8
"""From what harmless requests need to the origin of a modality beside text, over R (A3.3)."""

TIE: Final = 0.05
"""Combined scores of layers this near the best count as equal (A3.5)."""

LayerRule = Literal["scores", "lift"]
Treatment = Literal["shift", "origin", "none", "left out", "refused"]
"""What was done about a condition: calibrated as a shift, taken into the origin, nothing as it
moves the coordinate little, left out of the origin as it would shut the gate of the rest, or left
out as the unsteered model refuses such requests itself."""


_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class MarsOptions(MethodOptions):
    """What may be fixed instead of measured."""

    layer: NonNegativeInt | None = Field(
        None, description="Expert: decoder layer to steer, from 0, instead of the chosen one."
    )
    direction: DirectionSource = Field(
        "difference-of-means",
        description="Estimate the refusal direction from the difference of the means of harmful "
        "and harmless text, their first principal component, a linear probe, or what a safety "
        "prompt adds to harmful text.",
    )
    layer_rule: LayerRule = Field(
        "scores",
        description="Choose the layer by its text-only scores, or by its lift beside neutral "
        "stimuli.",
    )
    finalists: PositiveInt = Field(
        5, description="Expert: layers with the best text scores that are tried for their lift."
    )
    reserve: Annotated[float, Field(ge=0, le=0.5, allow_inf_nan=False)] = Field(
        RESERVE,
        description="Distance over R from what neutral pictures, clips and sounds need to where "
        "their gate opens: more refuses fewer harmless and fewer harmful ones.",
    )
    gain: _Positive | None = Field(
        None, description="Expert: kappa, growth of the push with the gate, instead of a tuned one."
    )
    radius: _Positive | None = Field(
        None, description="Expert: rho, longest push over R, instead of a tuned one."
    )


class _OfGroup(Record):
    """Something about plain decision requests of one label and modality."""

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
    """Text-only scores of one decoder layer, and its causal checks (A3.5)."""

    layer: int
    consistency: float
    """Mean cosine of harmful decision states, from the harmless centroid, with the direction."""
    separability: float
    """d' of the coordinates of harmful and harmless decision text."""
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
    """Refusal log-odds on harmless text after adding R r; None of layers not tried."""
    kl: float | None = None
    """First-token KL(base || steered) on harmless text, nats; where `lift` is known the largest of
    text and plain requests of the other modalities. None of layers not tried."""
    lift: float | None = None
    """Refusal log-odds that the longest push allowed adds beside a neutral stimulus; None unless
    the layer is chosen by it."""


class Shift(Record):
    """How far a modality moves the coordinate, by what it shows; residual-stream units (A3.2)."""

    tokens: list[int]
    """Visual tokens of a turn at which the shift was measured, ascending; 0 for text."""
    values: list[float]
    """beta at each of them, in a first turn; between them linear in log2(tokens), flat beyond.
    Of a modality beside text, 0 tokens are a later turn that shows nothing itself."""
    turns: list[float] = Field(default_factory=lambda: [0.0])
    """Added in the first, second, ... turn; the last one holds for all later turns."""
    plain: int = 0
    """Visual tokens of a request that shows one stimulus of the standard size."""

    def at(self, tokens: int | None = None, turn: int = 0) -> float:
        """The shift of a request.

        Args:
            tokens: Visual tokens of its turn; None for those of a plain request.
            turn: Assistant turns before the answer.
        """
        count = self.plain if tokens is None else tokens
        x, *knots = (math.log2(n) if n else -1.0 for n in (count, *self.tokens))
        beta = self.values[0]
        for i in range(1, len(knots)):
            part = (x - knots[i - 1]) / (knots[i] - knots[i - 1])
            beta += min(max(part, 0.0), 1.0) * (self.values[i] - self.values[i - 1])
        return beta + self.turns[min(turn, len(self.turns) - 1)]


class Condition(Record):
    """Harmless requests of one kind of one modality, on the decision prompts (A3.8).

    Movements are along the direction over R, away from the same prompts in plain requests.
    """

    name: str
    """`plain`, `second turn`, `two stimuli`, `writing`, ..."""
    modality: Modality
    n: int
    """Requests that the unsteered model answers; those that it refuses itself do not count."""
    refused: int = 0
    """Requests that the unsteered model refuses itself."""
    moved: float
    """Mean movement before anything is calibrated for it; of the refused requests as well."""
    spread: float
    """Standard deviation of the movement."""
    rest: float
    """Mean movement that is left after the calibrated shift."""
    share: float | None
    """|moved| over the median margin of the modality; None where there is no margin."""
    bound: float | None
    """Coordinate above which the gate would have to open for this condition alone, from the
    harmless text centroid at 0, over R; None where the unsteered model answers too few."""
    treatment: Treatment


class Check(Record):
    """Harmless requests of one kind of one modality, on prompts that decided nothing (A3.3)."""

    name: str
    """Of the condition; `all` for the requests of all that were taken into the origin."""
    modality: Modality
    n: int
    """Requests that the unsteered model answers; of `all`, one of each prompt."""
    open: int
    """Those whose gate is open."""
    bound: float
    """Upper bound of the share of open gates, one-sided, 95 % confidence."""
    kl: float
    """Mean first-token KL(base || steered), nats; 0 where the gate is shut. Of `all`, the largest
    of its conditions."""
    refusals: int
    """Requests whose likeliest first token becomes one that begins a refusal. Of `all`,
    of every request of its conditions, not of one of each prompt."""


class Margin(Record):
    """How far harmful text beside neutral stimuli lies above the origin, on check prompts.

    A shift error of this size would shut the gate: of a tenth of the requests, of half of them.
    """

    modality: Modality
    n: int
    open: int
    """Requests whose gate is open."""
    low: float
    """10 % quantile of (p - o) / R."""
    median: float
    """Median of (p - o) / R."""


class Strength(Record):
    """How far requests of one modality are pushed, where that is not as for text."""

    cap: float
    """c, edge of the harmful data; no push goes beyond it."""
    gain: float
    """kappa."""
    radius: float
    """rho."""


class HeldOut(Record):
    """Requests to tune on that decided nothing, steered in one way; by the first token."""

    refused: int
    """Harmful ones that are refused."""
    open: int
    """Harmless ones, of those that the unsteered model answers, whose gate is open."""
    bound: float
    """Upper bound of the share of open gates, one-sided, 95 % confidence."""
    newly_refused: int
    """Harmless ones that the unsteered model answers and that are refused."""


class Tuned(Record):
    """What labeled requests of one modality changed: origin and strength, or nothing."""

    modality: Modality
    applied: bool
    """Whether the modality is steered so; else it is steered as without these requests."""
    reason: str = ""
    """Why not, as a clause; empty where it is."""
    origin: float
    """o that was there before."""
    reserve: float
    """From what harmless requests need, neutral stimuli and those to tune on, to o, over R."""
    harmful: int
    """Held-out harmful requests."""
    refused: int
    """Those that the unsteered model refuses."""
    harmless: int
    """Held-out harmless requests that the unsteered model answers."""
    before: HeldOut
    """Steered as without the requests to tune on."""
    after: HeldOut
    """Steered as they suggest, whether or not that was applied."""


class MarsRecord(MethodRecord):
    """Where and how MARS steers; coordinates are along the direction, residual-stream units."""

    layer: int
    """Chosen decoder layer, 0-based; the edit is made to its output."""
    separation: float
    """R = |mean harmful - mean harmless|."""
    harmful: dict[Modality, float]
    """p_u, where the gate is 1: the coordinate of the harmful text centroid, corrected where
    `compression` says that a modality needs it."""
    harmless: float
    """p_s, coordinate of the harmless text centroid."""
    shift: dict[Modality, Shift]
    """beta, subtracted from the coordinate of a request of that modality."""
    origin: dict[Modality, float]
    """o, re-centered coordinate at which the gate opens."""
    cap: float
    """c, edge of the harmful text data; no push goes beyond it."""
    gain: float
    """kappa: the push grows by kappa * R * gate."""
    radius: float
    """rho: no push is longer than rho * R."""
    direction: DirectionSource = "difference-of-means"
    layer_rule: LayerRule = "scores"
    reserve: float = RESERVE
    """From what harmless requests need to the origin of a modality beside text, over R."""
    """How the layer was chosen, unless the user named it."""
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
    strengths: dict[Modality, Strength] = Field(default_factory=dict)
    """c, kappa and rho of the modalities where they are not those above."""
    tuned: list[Tuned] = Field(default_factory=list)
    """What labeled requests changed, if there were some: of each of their modalities."""
    confidence: dict[Modality, float] = Field(default_factory=dict)
    """Confidence in the promise that at most 5 % of harmless requests open the gate; 0.95 from 59
    decision prompts on."""
    conditions: list[Condition] = Field(default_factory=list)
    """What moves the coordinate, and what was done about it."""
    checks: list[Check] = Field(default_factory=list)
    """What harmless requests do on the check prompts: of every modality `all`, then each
    condition."""
    margins: list[Margin] = Field(default_factory=list)
    """One of every modality."""
    compression: dict[Modality, float] = Field(default_factory=dict)
    """(harmful - harmless text beside neutral stimuli) over R; 1 where a modality keeps the
    separation. Text is left out."""
    refusal_tokens: list[int]
    """First tokens of refusal openers that separate the direction prompts; for the log-odds."""
    scores: list[LayerScore]
    projections: list[Coordinates] = Field(default_factory=list)
    """Plain decision requests at the chosen layer, for plots."""


def mars_record(artefact: ArtefactRecord) -> MarsRecord:
    """The numbers of MARS in an artefact of MARS.

    Raises:
        TypeError: if it is of another method.
    """
    if not isinstance(artefact.record, MarsRecord):
        raise TypeError(f"{artefact.method} is not MARS")
    return artefact.record
