"""What a steering method is: an object of `Method`, whose calibration gives an `Artefact`.

Nothing here imports torch, so that cards render and commands start without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from mars_export.calibration.source import CalibrationSource, PromptSource, StimulusSource
from mars_export.common.atomic import replacing
from mars_export.common.errors import ExportError
from mars_export.common.markdown import templates
from mars_export.common.record import Record, VersionedRecord, first_problem
from mars_export.common.vocabulary import MODALITIES, Modality

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from mars_export.calibration.data import CalibrationData
    from mars_export.inputs.requests import Request

__all__ = [
    "RECORD_NAME",
    "RULE_CLASSES",
    "TENSORS_NAME",
    "Artefact",
    "ArtefactRecord",
    "CalibrationSource",
    "Decision",
    "Difference",
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
"""Where a method acts: in decoder layers, at visual tokens, in generate(), or in the template."""

RULE_CLASSES: Final[Mapping[Site, str]] = {
    "decoder": "Rule", "projector": "VisualRule", "generate": "AnswerRule",
}  # fmt: skip
"""Site to the name of the class in a method's `rule.py`."""

RECORD_NAME: Final = "calibration.json"
TENSORS_NAME: Final = "calibration.safetensors"


class Decision(Record):
    """What a method did for one request, as far as it can say."""

    active: bool
    """Whether anything was changed."""
    gate: float | None = None
    strength: float | None = None
    """Length of the change, residual-stream units."""
    position: int | None = None
    """Index of the last steered token in its row, padding not counted."""
    modality: Modality | None = None
    """The modality whose calibration was used."""
    calibrated: bool | None = None
    """Whether the calibration covers such a request; None where the method does not say."""


class Probe(Record):
    """A request with a known decision, to check that a loaded checkpoint still steers."""

    modality: Modality
    prompt: str
    stimuli: tuple[int, ...] = ()
    """Indices into the seeded neutral stimuli of the modality, in order; none for text."""
    history: tuple[tuple[str, str], ...] = ()
    """Earlier turns, each what the user wrote and what the model answered."""
    expected: Decision
    gate_scale: float = 1.0
    """Change of the gate that a relative error of 1 in the activations brings."""
    strength_scale: float = 1.0
    """Change of the strength that a relative error of 1 in the activations brings."""
    gate_limit: float = 0.25
    """Largest difference in the gate that rounding may explain: more would hide an inert gate."""
    significant: bool = False
    """Whether the push matters: at least half of it must be seen, whatever the dtype."""


class Difference(Record):
    """One comparison of the steering that a checkpoint carries with a fresh calibration."""

    name: str
    value: float
    limit: float
    fits: bool
    """Whether the value is on the right side of the limit."""
    sentence: str
    """For people, with the value in its unit."""


class MethodRecord(Record):
    """A method's own numbers; each method has a subclass."""

    missed: list[str] = Field(default_factory=list)
    """Goals that the calibration did not reach, one sentence each; the command prints them at its
    end, and they stand at the top of the card."""
    findings: list[str] = Field(default_factory=list)
    """What a user has to know of this model beside that, one sentence each."""
    refusal_tokens: list[int] = Field(default_factory=list)
    """First tokens of refusal openers, of which the refusal log-odds are measured."""


class MethodOptions(BaseModel):
    """A method's own options; each becomes a flag in a section of the command line's help."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ArtefactRecord(VersionedRecord):
    """An artefact without its tensors: `calibration.json`, and `calibration` in the manifest."""

    schema_version: int = 4
    method: str
    source: CalibrationSource
    record: SerializeAsAny[MethodRecord]
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """The method's options that it was made with, but those that were left to the measurement."""
    rules: dict[str, JsonValue]
    """What the method adds to `steering` in config.json; a decoder method says `layers` and
    `positions` there."""
    probes: list[Probe]
    """Of every modality at least one that is pushed, or the checkpoint does not verify."""
    shapes: dict[str, list[int]] = Field(default_factory=dict)
    """Shape of every tensor beside the record."""

    @property
    def layers(self) -> list[int]:
        """The decoder layers that are steered, as `rules` says; none where it says nothing."""
        layers = self.rules.get("layers")
        return [int(str(layer)) for layer in layers] if isinstance(layers, list) else []

    @property
    def unprobed(self) -> list[Modality]:
        """Modalities that were calibrated and can be pushed, but of which no probe is."""
        from mars_export.methods import method_named

        acts_on, pushed = method_named(self.method).acts_on, self.pushed
        return [m for m in self.source.modalities if m not in pushed and acts_on(m)]

    @property
    def pushed(self) -> set[Modality]:
        """Modalities of which a probe is pushed."""
        return {p.modality for p in self.probes if p.expected.active and p.expected.strength != 0}

    @field_validator("rules")
    @classmethod
    def _layers_are_indices(cls, rules: dict[str, JsonValue]) -> dict[str, JsonValue]:
        layers = rules.get("layers", [])
        if not isinstance(layers, list) or not all(type(layer) is int for layer in layers):
            raise ValueError("`layers` must be a list of layer indices")
        return rules

    @field_validator("record", mode="before")
    @classmethod
    def _read_as_the_methods_own(cls, raw: Any, info: ValidationInfo) -> Any:
        from mars_export.methods import method_named

        if isinstance(raw, MethodRecord) or "method" not in info.data:
            return raw
        try:
            return method_named(info.data["method"]).Record.model_validate(raw)
        except ValidationError as error:
            raise ValueError(first_problem(error)) from error
        except ExportError as error:
            raise ValueError(str(error)) from error


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

    @classmethod
    def of(
        cls,
        method: str,
        source: CalibrationSource,
        record: MethodRecord,
        *,
        rules: dict[str, JsonValue],
        tensors: Mapping[str, torch.Tensor],
        probes: Sequence[Probe],
    ) -> Artefact:
        """Put together what a method decided; tensors go to the CPU, their shapes to the record."""
        shipped = {name: tensor.cpu() for name, tensor in tensors.items()}
        whole = ArtefactRecord(
            method=method,
            source=source,
            record=record,
            rules=rules,
            probes=list(probes),
            shapes={name: list(tensor.shape) for name, tensor in shipped.items()},
        )
        return cls(whole, shipped)

    def save(self, directory: Path) -> None:
        """Write `calibration.json` and `calibration.safetensors`; each appears whole or not at all.

        Args:
            directory: Made if it does not exist.
        """
        for name, content in self.files().items():
            with replacing(directory / name) as path:
                path.write_bytes(content)

    def files(self) -> dict[str, bytes]:
        """What `save` writes: file name to content; the record comes last."""
        from safetensors.torch import save

        whole = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        record = self.record.model_dump_json(indent=2) + "\n"
        return {TENSORS_NAME: save(whole), RECORD_NAME: record.encode()}

    @classmethod
    def load(cls, directory: Path) -> Artefact:
        """Read what `save` wrote.

        Raises:
            ExportError: A file is missing or damaged, or of a schema that this release cannot read.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            record = ArtefactRecord.model_validate_json((directory / RECORD_NAME).read_bytes())
            # Copies: what `load_file` gives keeps the file mapped, and its disk busy.
            tensors = {n: t.clone() for n, t in load_file(directory / TENSORS_NAME).items()}
        except ValidationError as error:
            raise _unreadable(directory / RECORD_NAME, first_problem(error)) from error
        except (OSError, SafetensorError) as error:
            raise _unreadable(directory, str(error).splitlines()[0]) from error
        for name in sorted({*tensors, *record.shapes}):
            problem = _problem(tensors.get(name), record.shapes.get(name))
            if problem:
                raise _unreadable(directory / TENSORS_NAME, f"{name} {problem}")
        return cls(record, tensors)


def _problem(tensor: torch.Tensor | None, shape: list[int] | None) -> str | None:
    """What is wrong with a tensor whose shape the record states; None where it is sound."""
    if tensor is None:
        return "is missing"
    if list(tensor.shape) != shape:
        return f"has shape {list(tensor.shape)}, not {shape}"
    if str(tensor.dtype) != "torch.float32" or not bool(tensor.isfinite().all()):
        return "is not finite float32"
    return None


def _unreadable(path: Path, reason: str) -> ExportError:
    return ExportError(f"{path}: no readable calibration ({reason}); calibrate again")


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
    plots: Mapping[str, Callable[[], Figure]] = field(default_factory=dict)
    """Path relative to the card -> what draws the plot; `details` shows them."""
    tuning: str = ""
    """What labeled requests changed, where the calibration was tuned on some."""


class Method:
    """A way of steering; an object of each is in the literal list `mars_export.methods.METHODS`.

    A subclass stands in the `__init__.py` of a folder with the method's other files.
    """

    name: str
    title: str
    paper: str | None = None
    """arXiv number, or None."""
    site: Site = "decoder"
    exportable: bool = True
    """Whether it makes a checkpoint; a method that does not is an arm of the evaluation only."""
    tunable: bool = False
    """Whether labeled requests that show something may tune it (`CalibrationData.tuning`)."""
    takes: tuple[Modality, ...] = MODALITIES
    """What its checkpoints take."""
    suites: tuple[str, ...] = ()
    """Known suites that are asked beside the user's."""
    suffix: str = ""
    """Ends the default name of a checkpoint; the method's name if empty."""
    needs: tuple[str, ...] = ()
    """What it takes beyond harmful and harmless text and neutral stimuli, as nouns."""
    Options: type[MethodOptions] = MethodOptions
    Record: type[MethodRecord] = MethodRecord
    summary: str = ""
    """For the model card, as are the next four: see `MethodSection`."""
    formula: str = ""
    citations: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    threats: tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        """Raise `TypeError` for a method that makes checkpoints without what they need."""
        needed = ("calibrate", "compare")
        missing = [name for name in needed if getattr(cls, name) is getattr(Method, name)]
        if cls.exportable and missing:
            raise TypeError(f"{cls.__name__} makes checkpoints but lacks {' and '.join(missing)}")

    @property
    def parts(self) -> tuple[Method, ...]:
        """The methods that it is made of, in the order in which they act; itself by default."""
        return (self,)

    def checkpoint_name(self, base: str) -> str:
        """Default name of a checkpoint and of its repository; `base` may begin with an owner."""
        return f"{base.rstrip('/').rpartition('/')[2]}-{self.suffix or self.name}"

    def calibrate(self, data: CalibrationData, options: MethodOptions) -> Artefact:  # noqa: ARG002
        """Measure a model and decide.

        Raises:
            ExportError: The model cannot be steered so, or the method makes no checkpoint.
        """
        raise ExportError(f"{self.name} makes no checkpoint: choose it as an arm of the evaluation")

    def rule_source(self) -> str:
        """The part of the modeling file that is the method's own; imports only torch."""
        return (files(type(self).__module__) / "rule.py").read_text("utf-8")

    def rule_class(self) -> Any:
        """The rule in that file, which calibration runs; `RULE_CLASSES` names it. Imports torch.

        Its `problem()` says in one clause why it can never push, from its own tensors; None if it
        can. A checkpoint needs one steered layer whose rule can: with several, a push of 0 in some
        is a choice of the method.
        """
        rules = import_module(f"{type(self).__module__}.rule")
        return getattr(rules, RULE_CLASSES[self.site])

    def must_act(self, modality: Modality) -> bool:  # noqa: ARG002
        """Whether a request of this modality without a decision is an error."""
        return self.exportable

    def longest_push(self, artefact: ArtefactRecord) -> float | None:  # noqa: ARG002
        """Longest change at a steered layer, residual-stream units; None where it has no bound."""
        return None

    def acts_on(self, modality: Modality) -> bool:  # noqa: ARG002
        """Whether a request of this modality can be pushed at all."""
        return True

    def options_like(self, rules: Mapping[str, Any], *, same_layer: bool) -> MethodOptions:
        """The options that a checkpoint was calibrated with, for another calibration.

        Args:
            rules: Its `config.steering`; `options` there holds what differs from the defaults.
            same_layer: Whether to steer where it is steered; the layer is chosen anew otherwise.

        Raises:
            ExportError: The method of this release has other options.
        """
        values = dict(rules.get("options", {}))
        if same_layer and rules["layers"] and "layer" in self.Options.model_fields:
            values["layer"] = rules["layers"][0]
        try:
            return self.Options(**values)
        except ValidationError as error:
            raise ExportError(
                f"config.steering.options of the checkpoint: {first_problem(error)}; use the "
                "release that wrote it"
            ) from error

    def compare(
        self,
        rules: Mapping[str, Any],  # noqa: ARG002
        tensors: Mapping[str, torch.Tensor],  # noqa: ARG002
        artefact: Artefact,  # noqa: ARG002
    ) -> list[Difference]:
        """How far the steering of a trained checkpoint is from what its weights need now.

        Args:
            rules: `config.steering` of the checkpoint.
            tensors: Its steering tensors at the first steered layer.
            artefact: A calibration of the trained weights with the options and at the layer of
                the checkpoint.

        Raises:
            ExportError: It makes no checkpoint.
        """
        raise ExportError(f"{self.name} makes no checkpoint: there is nothing to compare")

    def change(self, request: Request) -> Request:
        """The request as the model is to get it; only a template method changes any."""
        return request

    def card(self, artefact: ArtefactRecord) -> MethodSection:
        """Its section of the model card; `card.md.j2` is given `record` and `source`.

        Raises:
            ExportError: It makes no checkpoint.
        """
        if not self.exportable:
            raise ExportError(f"{self.name} makes no checkpoint, so no model card describes it")
        template = templates(type(self).__module__).get_template("card.md.j2")
        details = template.render(record=artefact.record, source=artefact.source).strip()
        return MethodSection(
            self.summary, self.formula, details, self.citations, self.limits, self.threats
        )
