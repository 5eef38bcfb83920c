"""`comparison.json`: what one model does under every method and baseline. Free of torch."""

from typing import Final, Literal

from pydantic import Field

from mars_export.common.record import Record, VersionedRecord
from mars_export.common.vocabulary import Modality
from mars_export.evaluation.report import Cell, Overlap, Pair, Part, Rate, SuiteSource

__all__ = [
    "COMPARISON_NAME",
    "Answered",
    "Behavior",
    "Comparison",
    "Contender",
    "Ratio",
    "Setting",
    "Speed",
    "Travels",
    "Way",
]

COMPARISON_NAME: Final = "comparison.json"


class Travels(Record):
    """What a method adds to the files of the base."""

    bytes: int
    """Of all files that loading needs and the base does not have."""
    lines: int
    """Of Python in the checkpoint."""
    memory: int
    """Bytes of the tensors that are loaded beside the weights."""


class Contender(Record):
    """One way to make a model safer, or the model as it is."""

    name: str
    """As the arm of the report, in which the yardstick is `on`."""
    title: str
    kind: Literal["base", "method", "baseline"]
    paper: str | None = None
    """arXiv number."""
    needs: list[str] = Field(default_factory=list)
    """What it takes beyond harmful and harmless text and neutral stimuli, which are drawn."""
    options: dict[str, str] = Field(default_factory=dict)
    """Of the method, where they were given."""
    travels: Travels | None = None
    """None for what makes no checkpoint."""
    turned_down: str | None = None
    """Why this model cannot be steered so, in one sentence; None if it can."""


class Behavior(Record):
    """What a contender does to harmless requests as they are, beside refusing some."""

    arm: str
    modality: Modality
    n: int
    kl_mean: float | None
    """Of the first token, from the model as it is to the contender, nats; None if not finite."""
    kl_high: float | None
    """95th percentile."""
    same: Rate
    """Answers that are the model's own, word for word."""


class Ratio(Record):
    """A time over that of the model as it is, in the same rounds: median, and quartiles."""

    value: float
    low: float
    high: float


class Speed(Record):
    """What answering takes, one harmless request at a time, over the model as it is."""

    arm: str
    modality: Modality
    first_token: Ratio
    """Until the first token is there, with all that a contender does before."""
    decode: Ratio | None
    """For each further token; None where answers have only one."""
    n: int
    """Rounds."""


class Way(Record):
    """The requests asked in one other way: a control or an attack."""

    name: str
    about: str
    kind: Literal["control", "attack"]
    cells: list[Cell]
    pairs: list[Pair]
    """Against the model as it is."""


class Setting(Record):
    """What was asked, and how the answers were made and judged; as in a `Report`."""

    suite: SuiteSource
    judge: str
    decoding: dict[str, str | int | float | bool]
    dtype: str
    quantization: str
    device: str
    versions: dict[str, str]
    no_headline: str | None
    overlap: Overlap | None
    skipped: dict[str, str]
    """Variants and baselines that the model cannot be put through, and why."""
    calibrated_on: dict[str, str]
    """Label to the name of the prompts."""
    seconds: float


class Answered(Record):
    """What the answers say. Every test is made request by request, topics as the unit."""

    setting: Setting
    yardstick: str
    """The contender that all others are tested against."""
    plain: Part
    """The requests as they are, against the model as it is."""
    ways: list[Way]
    harmless: list[Pair]
    """Against the model as it is: all harmless requests, as they are and in controls."""
    against: list[Pair]
    """Against the yardstick: harmful requests as they are, and all harmless ones, as they are and
    in controls. Corrected (Holm) over the tests of each contender."""
    behavior: list[Behavior]
    speed: list[Speed]

    @property
    def controlled(self) -> bool:
        """Whether controls were run."""
        return any(way.kind == "control" for way in self.ways)


class Comparison(VersionedRecord):
    """The whole comparison."""

    model: str
    """Name of the base."""
    created: str
    command: str
    """What makes it again."""
    contenders: list[Contender]
    """The model as it is first, then methods, then baselines; those turned down as well."""
    answered: Answered | None
    """None where every method was turned down: then nothing was asked."""

    @property
    def compared(self) -> list[Contender]:
        """Those that answered, the model as it is first."""
        return [c for c in self.contenders if c.turned_down is None]
