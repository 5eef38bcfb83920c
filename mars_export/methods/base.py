"""What a steering method is: one object behind `Method`, whose calibration gives an `Artefact`.

Nothing here imports torch, so that cards render and commands start without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from pydantic import BaseModel, ConfigDict, JsonValue, SerializeAsAny, field_validator

from mars_export.common.record import Record, VersionedRecord
from mars_export.common.vocabulary import Modality

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

__all__ = [
    "Artefact",
    "ArtefactRecord",
    "CalibrationSource",
    "Decision",
    "Method",
    "MethodOptions",
    "MethodRecord",
    "MethodSection",
    "Probe",
    "PromptSource",
    "Site",
    "StimulusSource",
]

Site = Literal["decoder", "projector", "generate", "template"]
"""Where a method acts: in decoder layers, behind the projector, around generate(), or in the chat
template alone."""

RECORD_NAME: Final = "calibration.json"
TENSORS_NAME: Final = "calibration.safetensors"


class PromptSource(Record):
    """Where one set of calibration prompts came from."""

    name: str
    """Packaged set or file name, without its directory."""
    sha256: str
    """Digest of the file's bytes."""
    license: str
    train: int
    """Prompts that directions are made from."""
    validation: int
    """Prompts that choices are made with; none of them is a training prompt."""
    dropped: int
    """Prompts that the model handled the other way (refused harmless, answered harmful)."""


class StimulusSource(Record):
    """The neutral stimuli of one modality; the same values make the same ones again."""

    generator: str
    """For example `uniform random color`."""
    seed: int
    count: int
    width: int
    height: int
    frames: int
    """1 for an image."""


class CalibrationSource(Record):
    """What a calibration was made from: the same for every method."""

    model_type: str
    layers: int
    hidden_size: int
    dtype: str
    quantization: str = "none"
    """A scheme of `--quantization`, or `own` where the base is stored quantized."""
    modalities: tuple[Modality, ...]
    """What was calibrated, in the order of the steering tensors; anything else is refused."""
    header_suffixes: list[list[int]]
    """Token suffixes that end an assistant header of the chat template."""
    prompts: dict[str, PromptSource]
    """Keys `harmful` and `harmless`."""
    stimuli: dict[Modality, StimulusSource]
    seed: int
    seconds: float


class Decision(Record):
    """What a method did for one request, as far as it can say."""

    active: bool
    """Whether anything was changed."""
    gate: float | None = None
    strength: float | None = None
    """Length of the change, residual-stream units."""
    position: int | None = None
    """Index of the last steered token in its row, padding not counted."""
    shown: Modality | None = None
    """The modality whose calibration was used."""


class Probe(Record):
    """A request with a known decision, to check that a loaded checkpoint still steers."""

    modality: Modality
    prompt: str
    stimulus: int | None
    """Index into the seeded neutral stimuli of the modality; None for text."""
    expected: Decision
    gate_scale: float = 1.0
    """Change of the gate that a relative error of 1 in the activations brings."""
    strength_scale: float = 1.0
    """Change of the strength that a relative error of 1 in the activations brings."""
    significant: bool = False
    """Whether the push matters: at least half of it must be seen, whatever the dtype."""


class MethodRecord(Record):
    """A method's own numbers; each method has a subclass."""


class MethodOptions(BaseModel):
    """A method's own options; each becomes a flag in a section of the command line's help."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ArtefactRecord(VersionedRecord):
    """An artefact without its tensors: `calibration.json`, and `calibration` in the manifest."""

    schema_version: int = 2
    method: str
    source: CalibrationSource
    record: SerializeAsAny[MethodRecord]
    rules: dict[str, JsonValue]
    """What the method adds to `steering` in config.json."""
    probes: list[Probe]

    @field_validator("record", mode="before")
    @classmethod
    def _read_as_the_methods_own(cls, raw: Any, info: Any) -> Any:
        from mars_export.methods import method_named

        name = info.data.get("method")
        return raw if isinstance(raw, MethodRecord) else method_named(name).Record(**raw)


@dataclass(frozen=True)
class Artefact:
    """What a calibration decided: every stage after it takes this and nothing else of the method.

    Attributes:
        record: Numbers, provenance, rules and probes.
        tensors: Name -> float32 tensor. Those named by the method's rule are shipped; the others
            stay in `calibration/` for people.
    """

    record: ArtefactRecord
    tensors: Mapping[str, torch.Tensor]

    def save(self, directory: Path) -> None:
        """Write `calibration.json` and `calibration.safetensors`; each appears whole or not."""
        raise NotImplementedError

    @classmethod
    def load(cls, directory: Path) -> Artefact:
        """Read what `save` wrote.

        Raises:
            ExportError: A file is missing or damaged, or of a schema this release cannot read.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class MethodSection:
    """What a method says of itself in a model card; Markdown unless stated otherwise."""

    summary: str
    """One paragraph for readers who do not know the method."""
    formula: str
    """Plain text, set as code."""
    details: str
    """The rendered `card.md.j2` of the method: its numbers and its plots."""
    citations: tuple[str, ...]
    """Each a title with a link; the method's own paper first."""
    limits: tuple[str, ...] = ()
    """Limitations of the method, one sentence or two each."""
    threats: tuple[str, ...] = ()
    """Ways around the method, beyond those that every steered checkpoint has."""
    options: tuple[tuple[str, str], ...] = ()
    """Flags and values of the command line that make the same calibration."""
    plots: Mapping[str, Callable[[], Figure]] = field(default_factory=dict)
    """Path relative to the card -> what draws the plot; `details` shows them."""


class Method(Protocol):
    """A way of steering; an object of each is in the literal list `mars_export.methods.METHODS`."""

    name: str
    title: str
    paper: str | None
    """arXiv number, or None."""
    site: Site
    exportable: bool
    """Whether it makes a checkpoint; a method that does not is an arm of the evaluation only."""
    Options: type[MethodOptions]
    Record: type[MethodRecord]

    def calibrate(self, data: Any, options: MethodOptions) -> Artefact:
        """Measure a model and decide."""

    def rule_source(self) -> str:
        """The part of the modeling file that is the method's own; imports only torch."""

    def must_act(self, modality: Modality) -> bool:
        """Whether a request of this modality without a decision is an error."""

    def card(self, artefact: ArtefactRecord) -> MethodSection:
        """Its section of the model card."""
