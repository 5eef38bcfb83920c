"""The numbers of RAI, as JSON, and its options. Free of torch."""

from typing import Annotated, Final

from pydantic import Field

from mars_export.common.record import Record
from mars_export.common.vocabulary import Modality
from mars_export.methods.base import ArtefactRecord, MethodOptions, MethodRecord

__all__ = [
    "SHARE",
    "SHARES",
    "WORDS",
    "Kind",
    "Point",
    "Prototype",
    "RaiOptions",
    "RaiRecord",
    "Visual",
    "rai_record",
]

WORDS: Final[dict[str, tuple[str, str]]] = {
    "illegal activity": ("weapon", "drugs"),
    "malware": ("malware", "hacking"),
    "pornography": ("pornography", "nude"),
    "hate": ("hatred", "racism"),
    "physical harm": ("murder", "suicide"),
    "fraud": ("fraud", "scam"),
}
"""Two words of each of the six categories of the paper; which words it takes is not known here."""

SHARE: Final = 1e-3
"""0.01 to 1 % of visual tokens are said to change in the paper; this is the middle."""

SHARES: Final = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Of the curve."""


class RaiOptions(MethodOptions):
    """How many visual tokens are pushed, and how far."""

    rai_share: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = Field(
        SHARE, description="Share of the visual tokens of neutral stimuli that RAI pushes."
    )
    rai_gain: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        1.0, description="Factor on the push of RAI; 1 is that of its paper."
    )


class Prototype(Record):
    """A word and its place in the token embeddings."""

    category: str
    word: str
    tokens: list[int]
    """Of the word after a blank; the prototype is the mean of their embeddings."""
    norm: float
    """Of that mean; what ships has length 1."""


class Point(Record):
    """A threshold, and what lies above it of stimuli that it was not chosen on."""

    share: float
    """Of the tokens that it was chosen on, how many were to lie above it."""
    threshold: float
    tokens: float
    """Share of visual tokens above it."""
    stimuli: float
    """Share of stimuli with at least one."""


class Kind(Record):
    """Neutral stimuli of one kind at the threshold that ships; it was not chosen on them."""

    kind: str
    stimuli: int
    tokens: int
    touched_tokens: int
    touched_stimuli: int
    """With at least one token above the threshold."""


class Visual(Record):
    """One modality."""

    threshold: float
    """Cosine above which a visual token is pushed."""
    tokens: int
    """Visual tokens that it was chosen on."""
    curve: list[Point]
    kinds: list[Kind]
    length: float
    """Median length of a visual token."""
    push: float | None
    """Median length of a push over that of its token; None where no token was pushed."""


class RaiRecord(MethodRecord):
    """Which visual tokens are pushed to which words, and how far."""

    prototypes: list[Prototype]
    share: float
    gain: float
    visual: dict[Modality, Visual]


def rai_record(artefact: ArtefactRecord) -> RaiRecord:
    """The record of an artefact of RAI."""
    assert isinstance(artefact.record, RaiRecord)
    return artefact.record
