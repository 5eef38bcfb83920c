"""The forwards that a calibration needs before it knows a layer.

A3.n are sections of docs/method.md.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mars_export.calibration.activations import Reader, Readout
from mars_export.calibration.data import (
    LEAST_DECISION,
    LEAST_DIRECTION,
    CalibrationData,
    MeasurementOptions,
)
from mars_export.calibration.directions import TextStatistics, text_statistics
from mars_export.calibration.meter import Meter
from mars_export.calibration.refusal import log_odds, refusal_tokens, separating
from mars_export.calibration.source import (
    CalibrationSource,
    Group,
    Label,
    PromptSource,
    StimulusSource,
)
from mars_export.common.errors import UnsteerableError
from mars_export.common.vocabulary import Modality
from mars_export.inputs.prompts import PromptSet
from mars_export.inputs.requests import Request
from mars_export.inputs.stimuli import GENERATOR, STIMULI
from mars_export.inputs.template import TurnTokens, turn_tokens

__all__ = ["Measurements", "Reading", "TextSet", "beside", "measure", "neutral_requests"]


@dataclass(frozen=True)
class Reading:
    """Requests and what they did to the unsteered model.

    Attributes:
        requests: N requests of one modality.
        readout: Of those requests.
        stimuli: Indices of the neutral stimuli that each shows.
    """

    requests: tuple[Request, ...]
    readout: Readout
    stimuli: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class TextSet:
    """Text of one label that the model handles as the label says (A3.1).

    Attributes:
        direction: For directions.
        decision: For choices.
        source: Where the prompts came from, and how many were dropped.
    """

    direction: Reading
    decision: Reading
    source: PromptSource


@dataclass(frozen=True)
class Measurements:
    """A model measured on text, and on text beside neutral stimuli.

    Attributes:
        data: What was measured, and with what.
        reader: Runs further requests.
        turns: How turns begin in the chat template.
        text: Text of both labels.
        validation: Validation requests of every label and modality; text first. Harmful ones beside
            a neutral stimulus are no harmful stimuli: what is harmful there is the text alone.
        began: Clock at the start, seconds.
    """

    data: CalibrationData
    reader: Reader
    turns: TurnTokens
    text: dict[Label, TextSet]
    validation: dict[Group, Reading]
    began: float

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What was measured, text first, in the order of the steering tensors."""
        return ("text", *self.data.beside)

    def text_statistics(self) -> TextStatistics:
        """Difference in means of the direction prompts, for every layer (A3.1)."""
        harmful, harmless = self.text["harmful"].direction, self.text["harmless"].direction
        return text_statistics(harmful.readout.states, harmless.readout.states)

    def source(self) -> CalibrationSource:
        """What the record of a method says of this; its clock stops now."""
        layers, _, hidden_size = self.text["harmful"].direction.readout.states.shape
        return CalibrationSource(
            model_type=self.data.model.config.model_type,
            layers=layers,
            hidden_size=hidden_size,
            dtype=str(self.data.model.dtype).removeprefix("torch."),
            quantization=self.data.quantization,
            modalities=self.modalities,
            headers=self.turns.headers,
            turn_starts=self.turns.turn_starts,
            prompts={label: text.source for label, text in self.text.items()},
            stimuli={m: self._stimuli(m) for m in self.data.beside},
            seed=self.data.measurement.seed,
            seconds=time.monotonic() - self.began,
        )

    def _stimuli(self, modality: Modality) -> StimulusSource:
        measurement = self.data.measurement
        width, height = measurement.size
        return StimulusSource(
            generator=GENERATOR,
            kinds=measurement.kinds,
            seed=measurement.seed,
            count=self.data.measurement.pairs + self.data.validation_stimuli,
            width=width,
            height=height,
            frames=measurement.frames if STIMULI[modality].frames else 1,
        )


def measure(data: CalibrationData, further: int = 0) -> Measurements:
    """Run the prompts, alone and beside neutral stimuli, through the unsteered model.

    Args:
        data: What to measure; the model is left in evaluation mode.
        further: Requests that the method runs afterwards, for the display.

    Raises:
        ExportError: Too few harmful prompts are refused or harmless ones answered, the chat
            template is absent, no refusal opener is known, or memory is too small.
    """
    began = time.monotonic()
    turns = turn_tokens(data.processor)
    tokenizer = getattr(data.processor, "tokenizer", data.processor)
    tokens = refusal_tokens(tokenizer, data.measurement.openers)
    meter = Meter(data.progress)
    held = len(data.prompts.harmful.decision) + data.validation_stimuli
    meter.plan(len(data.prompts.prompts) + len(data.beside) * held + further)
    reader = Reader(
        data.model.eval(),
        data.processor,
        turns.headers,
        tokens,
        data.measurement.batch_size,
        meter,
    )
    harmful, harmless = (
        _read(reader, prompts.direction)
        for prompts in (data.prompts.harmful, data.prompts.harmless)
    )
    probs = (harmful.readout.log_probs, harmless.readout.log_probs)
    reader.refusal_tokens = separating(tokens, *probs)
    text: dict[Label, TextSet] = {
        "harmful": _text(reader, data.prompts.harmful, harmful, harmful=True),
        "harmless": _text(reader, data.prompts.harmless, harmless, harmful=False),
    }
    validation = {Group(label, "text"): both.decision for label, both in text.items()}
    for modality in data.beside:
        validation |= _neutral(reader, text, modality, data)
    return Measurements(data, reader, turns, text, validation, began)


def neutral_requests(
    modality: Modality, count: int, measurement: MeasurementOptions
) -> list[Request]:
    """Requests without a prompt that show neutral stimuli."""
    m = measurement
    made = STIMULI[modality].make(count, m.seed, m.size, m.frames, m.kinds)
    return [Request("", (medium,)) for medium in made]


def beside(
    text: Sequence[Request], neutral: Sequence[Request], indices: Sequence[int]
) -> tuple[Request, ...]:
    """Prompts in turn, each beside the stimulus of the next index."""
    return tuple(
        Request(text[n % len(text)].prompt, neutral[i].media) for n, i in enumerate(indices)
    )


def _neutral(
    reader: Reader, text: dict[Label, TextSet], modality: Modality, data: CalibrationData
) -> dict[Group, Reading]:
    """Validation text beside neutral stimuli of one modality, behind those for training."""
    first, checks = data.measurement.pairs, data.validation_stimuli
    neutral = neutral_requests(modality, first + checks, data.measurement)
    groups = {}
    for label, both in text.items():
        requests = both.decision.requests
        # A harmful prompt is run once, harmless ones in turn beside every stimulus.
        count = min(len(requests), checks) if label == "harmful" else checks
        indices = range(first, first + count)
        mixed = beside(requests, neutral, indices)
        readout = reader.read(mixed, states=True, log_probs=label == "harmless")
        groups[Group(label, modality)] = Reading(mixed, readout, tuple((i,) for i in indices))
    return groups


def _text(reader: Reader, prompts: PromptSet, direction: Reading, *, harmful: bool) -> TextSet:
    decision = _filtered(reader, _read(reader, prompts.decision), harmful, not harmful)
    direction = _filtered(reader, direction, harmful)
    counts = (len(direction.requests), len(decision.requests))
    total = len(prompts.direction) + len(prompts.decision)
    if counts[0] < LEAST_DIRECTION or counts[1] < LEAST_DECISION:
        raise UnsteerableError(_shortage(prompts.name, counts, total, harmful))
    source = PromptSource(
        name=prompts.name,
        sha256=prompts.sha256,
        license=prompts.license,
        direction=counts[0],
        decision=counts[1],
        check=len(prompts.check),
        dropped=total - sum(counts),
    )
    return TextSet(direction, decision, source)


def _read(reader: Reader, prompts: Sequence[str]) -> Reading:
    requests = tuple(Request(prompt) for prompt in prompts)
    readout = reader.read(requests, states=True, log_probs=True)
    return Reading(requests, readout, ((),) * len(requests))


def _filtered(reader: Reader, reading: Reading, harmful: bool, log_probs: bool = False) -> Reading:
    """Without the requests that the model handles the other way."""
    full = reading.readout
    odds = log_odds(full.log_probs, reader.refusal_tokens)
    fits = (odds > 0) if harmful else (odds < 0)
    chosen = tuple(r for r, fit in zip(reading.requests, fits.tolist(), strict=True) if fit)
    probs = full.log_probs if log_probs else torch.empty(len(odds), 0)
    readout = Readout(full.states[:, fits], odds[fits], probs[fits])
    return Reading(chosen, readout, ((),) * len(chosen))


def _shortage(name: str, counts: tuple[int, int], total: int, harmful: bool) -> str:
    handled, sign = ("refuses", "> 0") if harmful else ("answers", "< 0")
    advice = (
        "it has no text refusal to build on: choose a safety-tuned base, or give the openers of "
        "its refusals"
        if harmful
        else "give prompts that it answers"
    )
    return (
        f"The model {handled} only {counts[0]} direction and {counts[1]} decision prompts of the "
        f"{total} in {name} (refusal log-odds {sign}; needed: {LEAST_DIRECTION} and "
        f"{LEAST_DECISION}); {advice}."
    )
