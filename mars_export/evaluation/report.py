"""`evaluation/report.json`: what was measured on a steered directory. Free of torch."""

from typing import Final

from pydantic import BaseModel, ConfigDict

from mars_export.vocabulary import Arm, Modality, Verdict

__all__ = ["Cell", "Pair", "Report", "SampleResult", "SelfCheck", "SuiteSource"]

REPORT_NAME: Final = "evaluation/report.json"
SAMPLES_NAME: Final = "evaluation/samples.jsonl"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rate(_Record):
    """x of n with its Wilson 95 % interval (proportions, 0 to 1)."""

    count: int
    n: int
    rate: float
    low: float
    high: float


class SampleResult(_Record):
    """One line of `samples.jsonl`: one request, one arm."""

    id: str
    modality: Modality
    harmful: bool
    arm: Arm
    verdict: Verdict
    response: str
    position: int | None
    """Steered position (0-based in the padded-free prompt); None when steering is off."""
    seen_as: Modality | None
    """Modality whose shift the checkpoint used; None when steering is off."""
    gate: float | None
    strength: float | None


class Cell(_Record):
    """All requests of one modality and label, in one arm."""

    modality: Modality
    harmful: bool
    arm: Arm
    refused: Rate
    """Refusals and rebuttals together. Refusal style, not harm."""
    degenerate: Rate
    unknown: Rate
    verdicts: dict[Verdict, int]


class Pair(_Record):
    """Off against on over the same requests of one modality and label."""

    modality: Modality
    harmful: bool
    n: int
    newly_refused: int
    """Answered off, refused on."""
    newly_answered: int
    """Refused off, answered on."""
    difference: float
    """Refusal rate on minus off."""
    low: float
    high: float
    """95 % interval of the difference (Newcombe's paired score interval, method 10)."""
    p_value: float
    """Exact two-sided McNemar."""


class SelfCheck(_Record):
    """Whether the loaded checkpoint steers as calibrated and only where it should."""

    active: bool
    detail: str
    """One sentence: what was compared and how near it came, or what failed."""


class SuiteSource(_Record):
    """The requests that were run."""

    name: str
    sha256: str
    samples: int


class Report(_Record):
    """The whole evaluation. Without an active self-check it holds no `on` numbers."""

    schema_version: int = 1
    run: str = ""
    """Identity of all that the numbers depend on: weights, suite, judge, decoding, versions."""
    steering_sha256: str = ""
    """That of the manifest of the directory that was measured."""
    samples_sha256: str = ""
    """Digest of `samples.jsonl`."""
    created: str
    self_check: SelfCheck
    suite: SuiteSource
    judge: str
    """Name and version of the judge."""
    decoding: dict[str, str | int | float | bool]
    """`do_sample`, `max_new_tokens`, `batch_size`, ..."""
    dtype: str
    device: str
    versions: dict[str, str]
    cells: list[Cell]
    pairs: list[Pair]
    regressions: list[str]
    """Ids of harmful requests that were refused off and answered on."""
    newly_refused: list[str]
    """Ids of harmless requests that were answered off and refused on."""
    gates: dict[str, list[float]]
    """Gate values with steering on, keyed `harmful image`, `harmless text`, ...; for plots."""
    seconds: float
