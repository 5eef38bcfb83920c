"""`evaluation/report.json`: what was measured on a steered directory. Free of torch."""

from collections.abc import Iterable
from typing import Any, Final, Literal

from pydantic import Field

from mars_export.common.record import Record, VersionedRecord
from mars_export.common.vocabulary import Harm, Modality, Verdict
from mars_export.evaluation.tables import (
    LEVEL,
    MARGIN,
    BrokenPair,
    CategoryResult,
    Cell,
    Corrected,
    CutPair,
    HarmFinding,
    HarmPair,
    KindTest,
    LeakedKind,
    MacroMean,
    Outcome,
    Pair,
    PairedTest,
    Part,
    PooledTest,
    Rate,
    SuiteResult,
    SuiteSource,
    Unleaked,
    VariantResult,
)
from mars_export.methods.base import Decision

__all__ = [
    "LEVEL",
    "MARGIN",
    "REFERENCE",
    "STEERED",
    "Agreement",
    "ArmSource",
    "Beginning",
    "BrokenPair",
    "CategoryResult",
    "Cell",
    "Corrected",
    "CutPair",
    "Dose",
    "DosePoint",
    "EngineSource",
    "Failure",
    "FirstToken",
    "HarmFinding",
    "HarmPair",
    "JudgeError",
    "KindTest",
    "LeakedKind",
    "MacroMean",
    "Outcome",
    "Overhead",
    "Overlap",
    "Pair",
    "PairedTest",
    "Part",
    "PooledTest",
    "Protocol",
    "Push",
    "Rate",
    "Report",
    "SampleResult",
    "SelfCheck",
    "SuiteResult",
    "SuiteSource",
    "Unknown",
    "Unleaked",
    "VariantResult",
    "label",
    "undecided",
]

REFERENCE: Final = "off"
"""Arm that all others are compared with: the weights of the checkpoint, steering off."""
STEERED: Final = "on"
"""Arm of the checkpoint itself: the same weights, steering on."""
UNKNOWN_LIMIT: Final = 0.01
"""Largest share of undecided responses with which a headline number may stand."""


class JudgeError(Record):
    """How often a judge is right, measured on responses that people labeled.

    The clusters of both rates are the models that wrote the responses, and the intervals are for
    the responses of one more model (`corrections.rate_elsewhere`).
    """

    sensitivity: Rate
    """Refusals that it calls refused."""
    specificity: Rate
    """Answers that it does not call refused."""
    source: str
    """The labeled responses, and how they were kept apart from the making of the judge."""


class Agreement(Record):
    """How far a second judge agrees about the same answers."""

    judge: str
    """Name and version of the second judge."""
    kappa: float
    """Cohen's, of what is a refusal."""
    n: int
    """Answers that both judged."""
    refused: int
    """By the judge of the report."""
    refused_second: int
    refused_both: int


class Overlap(Record):
    """Evaluation requests that the calibration has seen, or nearly."""

    n: int
    """Requests with harmful or harmless text that can be compared, each text once."""
    exact: int
    """Same words in any order, letter case and punctuation aside."""
    near: int
    """Token Jaccard similarity to a calibration prompt of at least `threshold`; includes exact."""
    threshold: float


class ArmSource(Record):
    """One way in which every request is answered."""

    name: str
    title: str
    """For people, for example `steering off`."""
    steered: bool
    """Whether a checkpoint's steering is on."""
    steering_sha256: str
    """Of the steering tensors of the checkpoint that answers."""
    detail: str = ""
    """What a baseline was fitted to, as one clause; empty for other arms."""


Unknown = Literal["unknown"]
"""In place of a decision, where the engine does not tell what steering did."""


class EngineSource(Record):
    """What the answers come from, and what it was seen to do."""

    name: str = "transformers"
    served: dict[str, str] = Field(default_factory=dict)
    """By arm, the model and the server that answered; empty where the model was in the process."""
    version: str | None = None
    """Of the server; None where it does not say, or the version is among `Report.versions`."""
    checked: list[str] = Field(default_factory=list)
    """What was seen of the steering before anything was measured, one clause each."""
    unchecked: list[str] = Field(default_factory=list)
    """What could not be seen, one clause each."""


class SampleResult(Record):
    """One line of `samples.jsonl`: one request, one arm."""

    id: str
    modality: Modality
    harmful: bool
    arm: str
    verdict: Verdict
    harm: Harm | None = None
    """Whether the response does harm; None when the judge does not say."""
    judge_reply: str | None = None
    """What a judging model wrote; None for rules."""
    second: Verdict | None = None
    """Of the second judge; None where it did not read this answer."""
    response: str
    decision: Decision | Unknown | None = None
    """What the method did; None when it did not touch the request, as with steering off."""
    suite: str = ""
    category: str | None = None
    variant: str = ""
    """Control or attack that the request was put through; empty for the request as it is."""
    group: str = ""
    """Id of the request as it is, for a variant of it."""
    log_odds: float | None = None
    """Refusal log-odds of the first token, nats; None where the method names no refusal tokens."""
    push: float | None = None
    """Length of the change where the answer begins over that of the residual stream there."""
    cluster: str = ""
    """Topic or source prompt, as the suite says; empty means that it stands alone."""
    advice: bool = False
    """Whether it asks for advice that may be given (`Sample.advice`)."""
    cut: bool = False
    """Whether the answer reached the token limit without an end token."""
    kl: float | None = None
    """Divergence of the first token from the reference's, KL(reference || arm), nats; None where it
    is not finite."""

    @property
    def told(self) -> Decision | None:
        """The decision where one was made and is known."""
        return self.decision if isinstance(self.decision, Decision) else None


class FirstToken(Record):
    """The likeliest first tokens of the answer to a probe, to know the model by."""

    probe: int
    """Index into the calibration's probes."""
    arm: str
    tokens: list[int]
    """Likeliest first."""
    logits: list[float]


class SelfCheck(Record):
    """Whether the loaded checkpoint steers as calibrated and only where it should."""

    active: bool
    detail: str
    """One sentence: what was compared and how near it came, or what failed."""
    fingerprint: list[FirstToken] = Field(default_factory=list)
    """Both arms of every probe; `mars-export verify --run` compares it. Absent in older reports."""


class Protocol(Record):
    """How a request is written and answered."""

    system: str | None
    """System prompt of the requests as they are; None where there is none."""
    template_sha256: str
    """Of the chat template."""
    template_options: dict[str, Any]
    """What it is rendered with, for example the thinking mode."""
    decoding: dict[str, str | int | float | bool]
    """`do_sample`, `max_new_tokens`, ... as in the report."""


class Overhead(Record):
    """What steering costs: steering on over off, in the same batches of this very run."""

    seconds_ratio: float
    """Ratio of two sums over the batches; it includes measuring the push of each request."""
    peak_memory_ratio: float | None
    """Ratio of the largest peaks; None where the device does not say (all but CUDA)."""
    n: int
    """Batches that took as many forward passes on as off: short refusals are no speed."""


class DosePoint(Record):
    """Some requests of one label and modality at one multiple of the calibrated strength."""

    factor: float
    """0 is steering off, 1 as it was calibrated."""
    refused: Rate
    degenerate: Rate
    unknown: Rate
    log_odds: float | None
    """Mean refusal log-odds of the first token, nats; None where one is not known or not finite."""


class Push(Record):
    """How long the change is where an answer begins, over the residual stream there."""

    n: int
    """Requests of one label and modality of which it is known; those left alone count as 0."""
    median: float
    high: float
    """95th percentile."""


class Dose(Record):
    """What weaker and stronger steering does to requests of one label and modality."""

    modality: Modality
    harmful: bool
    points: list[DosePoint]
    """By rising factor; all of the same requests, fewer than those of the cells."""
    push: Push | None
    """Of all requests as they are, as calibrated; None where it could not be measured."""


Beginning = Literal["agreement", "no", "caution", "list", "matter", "nothing"]
"""How an answer begins: it agrees, declines or apologizes, warns, counts steps, comes to the matter
at once, or there is none."""


class Failure(Record):
    """One answer of the checkpoint that went wrong, without its words."""

    id: str
    modality: Modality
    harmful: bool
    variant: str
    """Empty for a request as it is."""
    topic: str | None
    """Cluster of the request; None where it has none that is named in a few words."""
    category: str | None
    reference: Verdict
    """On the answer with steering off."""
    verdict: Verdict
    """On the answer with steering on."""
    harm: Harm | None
    """Of the answer with steering on; None when the judge does not say."""
    beginning: Beginning
    """Of the answer with steering on."""
    cut: bool
    active: bool | None
    """Whether the method changed anything; None if it does not say."""


class Report(Part, VersionedRecord):
    """The whole evaluation. Without an active self-check it holds no number of a steered arm.

    As a part it holds the requests as they are, of all suites, without variants.
    """

    schema_version: int = 4
    run: str = ""
    """Identity of all that the numbers depend on: weights, suite, judge, decoding, versions."""
    steering_sha256: str = ""
    """That of the manifest of the directory that was measured."""
    samples_sha256: str = ""
    """Digest of `samples.jsonl`."""
    created: str
    self_check: SelfCheck
    arms: list[ArmSource]
    """The reference first; what is compared is compared with it."""
    regressions: dict[str, list[str]]
    """By arm: ids of harmful requests that the reference refuses and the arm does not."""
    newly_refused: dict[str, list[str]]
    """By arm: ids of harmless requests that the reference does not refuse and the arm does."""
    uncalibrated: dict[str, int] = Field(default_factory=dict)
    """By arm: requests that lie outside what was calibrated, of methods that say so."""
    suite: SuiteSource
    judge: str
    """Name and version of the judge."""
    judge_error: JudgeError | None = None
    """None when it is not known for this judge."""
    no_correction: str | None = None
    """Why no rate of this report is corrected for the judge's errors; None when all are."""
    agreement: Agreement | None = None
    """With a second judge; None where none was run."""
    no_agreement: str | None = None
    """Why no second judge was run, in one sentence."""
    overlap: Overlap | None = None
    """With the calibration prompts; None when those were not at hand."""
    near: list[str] = Field(default_factory=list)
    """Ids of the requests as they are that `overlap` calls near."""
    margin: float = MARGIN
    """That of `PairedTest.harm`."""
    protocol: Protocol | None = None
    engine: EngineSource = EngineSource()
    overhead: Overhead | None = None
    """None when it was not measured, as where a server answered."""
    decoding: dict[str, str | int | float | bool]
    """`do_sample`, `max_new_tokens`, `batch_size`, ..."""
    dtype: str
    quantization: str = "none"
    """What it was calibrated for and loaded in."""
    device: str
    versions: dict[str, str]
    no_headline: str | None = None
    """Why no rate of this report may be quoted alone; None when there is no reason."""
    means: list[MacroMean] = Field(default_factory=list)
    """Empty with one suite."""
    unleaked: Unleaked | None = None
    """The requests as they are without those near a calibration prompt (`overlap`); None where
    none is, or the calibration prompts were not at hand."""
    suites: list[SuiteResult] = Field(default_factory=list)
    variants: list[VariantResult] = Field(default_factory=list)
    """Controls and attacks."""
    controls: Part | None = None
    """All controls together; None where none was run."""
    skipped: dict[str, str] = Field(default_factory=dict)
    """Variants and arms that the model cannot be put through, and why."""
    dose: list[Dose] = Field(default_factory=list)
    """Empty where it was not measured; then `skipped` says why under `dose`."""
    failures: list[Failure] = Field(default_factory=list)
    """A few, of different kinds, of the checkpoint."""
    gates: dict[str, dict[str, list[float]]]
    """Gate values by steered arm, keyed `harmful image`, `harmless text`, ...; for plots."""
    seconds: float

    @classmethod
    def upgraded(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """Refuse: an older report lacks what its numbers stand for."""
        current = cls.model_fields["schema_version"].default
        raise ValueError(
            f"schema version {raw.get('schema_version', 'none')!r} is not {current}, the one that "
            "this release of mars-export reads; evaluate the directory again"
        )


def label(harmful: bool, modality: Modality) -> str:
    """Name of one kind of request, as in `Report.gates`."""
    return f"{'harmful' if harmful else 'harmless'} {modality}"


def undecided(cells: Iterable[Cell]) -> str | None:
    """Where the judge left more than UNKNOWN_LIMIT of the responses open, in one sentence."""
    open_rates = [
        (cell, max((r for r in (cell.unknown, cell.harm_unknown) if r), key=lambda r: r.rate))
        for cell in cells
    ]
    places = [
        f"{rate.count} of {rate.n} {label(cell.harmful, cell.modality)} (steering {cell.arm})"
        for cell, rate in open_rates
        if rate.rate > UNKNOWN_LIMIT
    ]
    return f"The judge could not decide {', '.join(places)}." if places else None
