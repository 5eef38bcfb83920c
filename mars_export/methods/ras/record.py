"""The numbers of RAS, as JSON, and its options. Free of torch."""

from pydantic import Field, PositiveInt

from mars_export.calibration.source import Group, Label
from mars_export.common.record import Record
from mars_export.common.vocabulary import Modality
from mars_export.methods.base import MethodOptions, MethodRecord

__all__ = ["RasOptions", "RasRecord", "Reading"]


class RasOptions(MethodOptions):
    """How the request is read again."""

    caption_tokens: PositiveInt = Field(
        40, description="Most tokens in which the model says what a picture or clip shows."
    )


class Reading(Record):
    """How requests of one label and modality are read."""

    label: Label
    modality: Modality
    part: str
    """`decision`: the risk curve is made from them; `check`: they are held out."""
    requests: int
    similarity: float
    """Mean S."""
    risk: float
    """Mean r."""
    risky: float
    """Share with r above one half."""

    @property
    def group(self) -> Group:
        """Whose it is; its `str()` is for people."""
        return Group(self.label, self.modality)


class RasRecord(MethodRecord):
    """Prototypes, risk curve, and how well the risk tells the labels apart."""

    steps: int
    """N, tokens of the answer that are steered."""
    discount: float
    """Weight of each token in S, over that of the one before."""
    caption_tokens: int
    refusals: int
    """Refused requests that the prototypes are means of."""
    middle: float
    """x0: S where the risk is one half."""
    slope: float
    """k."""
    auroc: float
    """Of S on held-out text: how often a harmful request has more than a harmless one."""
    readings: list[Reading]
