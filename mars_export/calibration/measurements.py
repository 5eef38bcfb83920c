"""What a calibration reads of the unsteered model before it decides anything.

A3.n are sections of docs/method.md.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, Final, Literal

import torch

from mars_export.calibration.activations import Reader, Readout, Shown
from mars_export.calibration.data import (
    LEAST_DECISION,
    LEAST_DIRECTION,
    CalibrationData,
    MeasurementOptions,
)
from mars_export.calibration.directions import TextStatistics, places, text_statistics
from mars_export.calibration.estimators import (
    DIFFERENCE,
    ESTIMATORS,
    SELF_GUARD,
    prompt_shift,
)
from mars_export.calibration.meter import Meter
from mars_export.calibration.refusal import log_odds, refusal_tokens, refuses, separating
from mars_export.calibration.source import (
    CalibrationSource,
    DirectionSource,
    Label,
    PromptSource,
    StimulusSource,
    TuningSource,
)
from mars_export.common.errors import ExportError, UnsteerableError
from mars_export.common.vocabulary import Modality
from mars_export.families import families
from mars_export.families.inspection import inspect_family
from mars_export.inputs.prompts import PromptSet
from mars_export.inputs.requests import PLAIN_REQUEST, Media, Request, extent, template_problem
from mars_export.inputs.safety_prompt import SAFETY_PROMPT_TEXT
from mars_export.inputs.stimuli import STIMULI
from mars_export.inputs.template import TurnTokens, thinking_options, turn_tokens
from mars_export.inputs.tuning import TuningSet

__all__ = [
    "FIRST_STIMULUS",
    "Measurements",
    "Part",
    "Reading",
    "TextSet",
    "measure",
    "placeholders",
    "stimulus",
    "stimulus_source",
]

Part = Literal["direction", "decision", "check"]

FIRST_STIMULUS: Final[dict[Part, int]] = {"direction": 0, "decision": 100_000, "check": 200_000}
"""Index of the first neutral stimulus of each part: the parts share none."""


@dataclass(frozen=True)
class Reading:
    """Requests and what they did to the unsteered model.

    Attributes:
        requests: N requests of one modality.
        readout: Of those requests.
        stimuli: Indices of the neutral stimuli that each shows.
        prompts: Place of each prompt among those of its part and label.
    """

    requests: tuple[Request, ...]
    readout: Readout
    stimuli: tuple[tuple[int, ...], ...]
    prompts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.requests)

    def where(self, chosen: torch.Tensor) -> "Reading":
        """Some of the requests; chosen: (N,) bool."""
        rows = chosen.nonzero()[:, 0].tolist()
        return Reading(
            tuple(self.requests[i] for i in rows),
            self.readout.rows(chosen),
            tuple(self.stimuli[i] for i in rows),
            tuple(self.prompts[i] for i in rows),
        )


@dataclass(frozen=True)
class TextSet:
    """Text of one label that the model handles as the label says (A3.1).

    Attributes:
        direction: For directions and shifts.
        decision: For choices.
        check: For checking them.
        source: Where the prompts came from, and how many were dropped.
    """

    direction: Reading
    decision: Reading
    check: Reading
    source: PromptSource

    def part(self, name: Part) -> Reading:
        """One of the three."""
        reading: Reading = getattr(self, name)
        return reading


@dataclass(frozen=True)
class Measurements:
    """A model measured on text, and what measures it on more.

    Attributes:
        data: What was measured, and with what.
        reader: Runs further requests.
        turns: How turns begin in the chat template.
        text: Text of both labels, without states: along the directions.
        statistics: Of the direction prompts.
        began: Clock at the start, seconds.
        drawn: Indices of the neutral stimuli of each modality that were used.
    """

    data: CalibrationData
    reader: Reader
    turns: TurnTokens
    text: dict[Label, TextSet]
    statistics: TextStatistics
    began: float
    drawn: dict[Modality, set[int]] = field(default_factory=dict)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What was measured, text first, in the order of the steering tensors."""
        return ("text", *self.data.beside)

    def read(self, requests: Sequence[Request]) -> Readout:
        """Run requests of one modality; keep where they lie along the directions."""
        return self.reader.read(requests, along=self.statistics)

    def source(self) -> CalibrationSource:
        """What the record of a method says of this; its clock stops now."""
        layers, hidden_size = self.statistics.direction.shape
        return CalibrationSource(
            model_type=self.data.model.config.model_type,
            layers=layers,
            hidden_size=hidden_size,
            dtype=str(self.data.model.dtype).removeprefix("torch."),
            quantization=self.data.quantization,
            template_options=thinking_options(self.data.processor, self.data.measurement.thinking),
            modalities=self.modalities,
            headers=self.turns.headers,
            turn_starts=self.turns.turn_starts,
            prompts={label: text.source for label, text in self.text.items()},
            stimuli={
                m: stimulus_source(m, self.data.measurement, len(self.drawn.get(m, ())))
                for m in self.data.beside
            },
            tuning=_tuning(self.data.tuning),
            seed=self.data.measurement.seed,
            seconds=time.monotonic() - self.began,
        )


def measure(
    data: CalibrationData, further: int = 0, direction: DirectionSource = DIFFERENCE
) -> Measurements:
    """Run the prompts through the unsteered model.

    Args:
        data: What to measure; the model is left in evaluation mode.
        further: Requests that the method runs afterwards, for the display.
        direction: What the directions are estimated from.

    Raises:
        ExportError: The chat template takes no safety prompt where one is needed, too few harmful
            prompts are refused or harmless ones answered, the chat template is absent, no refusal
            opener is known, or memory is too small.
    """
    began = time.monotonic()
    turns = turn_tokens(data.processor)
    if direction == SELF_GUARD:
        further += len(data.prompts.harmful.direction)
        _require_system_prompt(data.processor)
    tokenizer = getattr(data.processor, "tokenizer", data.processor)
    tokens = refusal_tokens(tokenizer, data.measurement.openers)
    usual = fmean(extent(len(prompt)) for prompt in data.prompts.prompts)
    meter = Meter(data.progress, usual)
    meter.plan(len(data.prompts.prompts) + further)
    shown = Shown(("text", *data.beside), placeholders(data.model.config))
    size = data.measurement.batch_size
    reader = Reader(
        data.model.eval(), data.processor, turns.headers, tokens, size, meter, shown, data.processes
    )
    sets: dict[Label, PromptSet] = {
        "harmful": data.prompts.harmful,
        "harmless": data.prompts.harmless,
    }
    first = {
        label: _reading(prompts.direction, reader.read(_requests(prompts.direction), **_WHOLE))
        for label, prompts in sets.items()
    }
    probs = [reading.readout.log_probs for reading in first.values()]
    reader.refusal_tokens = separating(tokens, *probs)
    first = {label: _handled(reader, reading, label) for label, reading in first.items()}
    _require(first, sets, "direction", LEAST_DIRECTION)
    harmful, harmless = _states(first)
    statistics = text_statistics(harmful, harmless, _directions(reader, first, direction))
    text = {
        label: _text(reader, sets[label], _placed(reading, statistics), statistics, label)
        for label, reading in first.items()
    }
    _require({label: both.decision for label, both in text.items()}, sets, "decision",
             LEAST_DECISION)  # fmt: skip
    return Measurements(data, reader, turns, text, statistics, began)


def _require_system_prompt(processor: Any) -> None:
    guarded = replace(PLAIN_REQUEST, system=SAFETY_PROMPT_TEXT)
    if problem := template_problem(processor, guarded):
        raise ExportError(
            f"--direction {SELF_GUARD} puts a system prompt before harmful text, and {problem}; "
            "take another direction"
        )


def _states(first: dict[Label, Reading]) -> list[torch.Tensor]:
    """(L, N, d) of harmful and of harmless text."""
    return [reading.readout.states for reading in first.values()]


def _directions(
    reader: Reader, first: dict[Label, Reading], source: DirectionSource
) -> torch.Tensor | None:
    """(L, d) float64; None for the difference in means."""
    if source == DIFFERENCE:
        return None
    if source == SELF_GUARD:
        harmful = first["harmful"]
        guarded = [replace(request, system=SAFETY_PROMPT_TEXT) for request in harmful.requests]
        return prompt_shift(harmful.readout.states, reader.read(guarded, states=True).states)
    layers = zip(*_states(first), strict=True)
    return torch.stack([ESTIMATORS[source](u.double(), s.double()) for u, s in layers])


def _tuning(tuning: TuningSet | None) -> TuningSource | None:
    if tuning is None:
        return None
    fit, held_out = (tuning.counts(half) for half in (tuning.fit, tuning.held_out))
    return TuningSource(
        name=tuning.name, sha256=tuning.sha256, license=tuning.license, fit=fit, held_out=held_out
    )


_WHOLE: Final[dict[str, Any]] = {"states": True, "log_probs": True}


def stimulus(
    modality: Modality, index: int, measurement: MeasurementOptions, scale: float = 1.0
) -> Media:
    """A neutral stimulus, drawn when a batch needs it.

    scale: of a picture's sides, a clip's frames or a sound's length.
    """
    drawn, size, frames = STIMULI[modality], measurement.size, measurement.frames
    if drawn.extent == "frames":
        frames = max(1, round(scale * frames))
    else:
        size = (round(scale * size[0]), round(scale * size[1]))
    seconds = scale * measurement.seconds
    return drawn.drawn(index, measurement.seed, size, frames, measurement.kinds, seconds)


def stimulus_source(
    modality: Modality, measurement: MeasurementOptions, count: int
) -> StimulusSource:
    """What the record of a method says of the neutral stimuli of a modality."""
    drawn = STIMULI[modality]
    width, height = measurement.size if drawn.shown else (0, 0)
    return StimulusSource(
        generator=drawn.generator,
        kinds=drawn.own(measurement.kinds),
        seed=measurement.seed,
        count=count,
        width=width,
        height=height,
        frames=measurement.frames if drawn.extent == "frames" else 1,
        seconds=0.0 if drawn.shown else measurement.seconds,
    )


def placeholders(config: Any) -> dict[str, int]:
    """Modality to the token that shows it, of a base or of a steered checkpoint."""
    steering = getattr(config, "steering", None)
    if steering is not None:
        attributes = steering["placeholders"]
    elif config.model_type in families():
        attributes = families()[config.model_type].placeholders
    else:
        attributes = inspect_family(config.to_dict()).placeholders
    return {modality: getattr(config, name) for modality, name in attributes.items()}


def _text(
    reader: Reader,
    prompts: PromptSet,
    direction: Reading,
    statistics: TextStatistics,
    label: Label,
) -> TextSet:
    decision, check = (
        _handled(reader, _reading(part, reader.read(_requests(part), along=statistics)), label)
        if part
        else direction.where(torch.zeros(len(direction), dtype=torch.bool))
        for part in (prompts.decision, prompts.check)
    )
    parts = (direction, decision, check)
    total = len(prompts.direction) + len(prompts.decision) + len(prompts.check)
    source = PromptSource(
        name=prompts.name,
        sha256=prompts.sha256,
        license=prompts.license,
        direction=len(direction),
        decision=len(decision),
        check=len(check),
        dropped=total - sum(map(len, parts)),
    )
    return TextSet(direction, decision, check, source)


def _requests(prompts: Sequence[str]) -> tuple[Request, ...]:
    return tuple(Request(prompt) for prompt in prompts)


def _reading(prompts: Sequence[str], readout: Readout) -> Reading:
    return Reading(_requests(prompts), readout, ((),) * len(prompts), tuple(range(len(prompts))))


def _handled(reader: Reader, reading: Reading, label: Label) -> Reading:
    """Without the requests that the model handles the other way."""
    log_probs, tokens = reading.readout.log_probs, reader.refusal_tokens
    if log_probs.numel():  # taken before the refusal tokens were known
        readout = replace(
            reading.readout,
            refused=refuses(log_probs, tokens),
            log_odds=log_odds(log_probs, tokens),
            log_probs=torch.empty(len(log_probs), 0),
        )
        reading = replace(reading, readout=readout)
    refused = reading.readout.refused
    kept = reading.where(refused if label == "harmful" else ~refused)
    return replace(kept, prompts=tuple(range(len(kept))))


def _placed(reading: Reading, statistics: TextStatistics) -> Reading:
    """A reading of states with their coordinates instead."""
    along, apart = places(reading.readout.states, statistics)
    readout = replace(
        reading.readout,
        states=torch.empty(0, len(reading), 0),
        coordinates=along,
        distances=apart,
    )
    return replace(reading, readout=readout)


def _require(
    readings: dict[Label, Reading], sets: dict[Label, PromptSet], part: Part, least: int
) -> None:
    """Refuse a model that handles too few prompts as their label says."""
    for label, reading in readings.items():
        if len(reading) >= least:
            continue
        handled = "refuses" if label == "harmful" else "answers"
        advice = (
            "it has no text refusal to build on: choose a safety-tuned base, give the openers of "
            "its refusals, or --thinking off where it thinks first"
            if label == "harmful"
            else "give prompts that it answers"
        )
        total = len(getattr(sets[label], part))
        raise UnsteerableError(
            f"The model {handled} only {len(reading)} of the {total} {part} prompts of "
            f"{sets[label].name}, by the likeliest first token (needed: {least}); {advice}."
        )
