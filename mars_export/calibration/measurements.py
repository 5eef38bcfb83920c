"""The forwards that a calibration needs before it knows a layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mars_export.calibration.activations import Reader, Readout
from mars_export.calibration.options import LEAST_TRAIN, LEAST_VALIDATION, Options
from mars_export.calibration.shift import modality_shift
from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import Modality
from mars_export.inputs import stimuli as visuals
from mars_export.inputs.prompts import PromptSet, PromptSets
from mars_export.inputs.requests import Request

__all__ = [
    "Label",
    "Measured",
    "Neutral",
    "TextMeasurements",
    "beside",
    "measure_neutral",
    "measure_text",
    "neutral_requests",
]


@dataclass(frozen=True)
class Measured:
    """Requests and what they did to the unsteered model."""

    requests: tuple[Request, ...]
    readout: Readout


@dataclass(frozen=True)
class Label:
    """Text of one label after the filter, and how many prompts the filter dropped."""

    train: Measured
    validation: Measured
    dropped: int


@dataclass(frozen=True)
class TextMeasurements:
    """Harmful text that the model refuses, harmless text that it answers."""

    harmful: Label
    harmless: Label


@dataclass(frozen=True)
class Neutral:
    """Harmless text beside neutral visuals of one modality.

    Attributes:
        shift: (L, d) float64, paired shift of the training pairs.
        validation: Harmless validation text, each beside visuals of its own.
        harmful: Harmful validation text, each beside one of those visuals.
        indices: Which visual each request of `validation` shows.
        harmful_indices: Which visual each request of `harmful` shows.
        count: Visuals generated.
    """

    shift: torch.Tensor
    validation: Measured
    harmful: Measured
    indices: tuple[int, ...]
    harmful_indices: tuple[int, ...]
    count: int


def measure_text(reader: Reader, prompts: PromptSets) -> TextMeasurements:
    """Run the text prompts and keep those that the model handles as their label says (A3.1).

    Raises:
        ExportError: Too few harmful prompts are refused, or too few harmless ones answered.
    """
    return TextMeasurements(
        _label(reader, prompts.harmful, harmful=True),
        _label(reader, prompts.harmless, harmful=False),
    )


def measure_neutral(
    reader: Reader, text: TextMeasurements, modality: Modality, options: Options, seed: int
) -> Neutral:
    """Run harmless text beside neutral visuals of one modality, for the shift and the gate (A3.2).

    The harmful validation text is run beside neutral visuals too; its content is text alone.
    """
    harmless, harmful = text.harmless, text.harmful
    checks = max(options.validation_pairs, len(harmless.validation.requests))
    shown = neutral_requests(modality, options.pairs + checks, options, seed)
    train, held = range(options.pairs), range(options.pairs, options.pairs + checks)
    paired = beside(harmless.train.requests, shown, train)
    visual = reader.read(paired, states=True).states
    alone = harmless.train.readout.states
    same_text = alone[:, [i % alone.shape[1] for i in train]]
    validation = beside(harmless.validation.requests, shown, held)
    mixed = held[: len(harmful.validation.requests)]
    mixed_requests = beside(harmful.validation.requests, shown, mixed)
    return Neutral(
        modality_shift(same_text, visual),
        Measured(validation, reader.read(validation, states=True, log_probs=True)),
        Measured(mixed_requests, reader.read(mixed_requests, states=True)),
        tuple(held),
        tuple(mixed),
        len(shown),
    )


def _label(reader: Reader, prompts: PromptSet, *, harmful: bool) -> Label:
    train = _filtered(reader, prompts.train, harmful)
    validation = _filtered(reader, prompts.validation, harmful, log_probs=not harmful)
    kept = (len(train.requests), len(validation.requests))
    total = len(prompts.train) + len(prompts.validation)
    if kept[0] < LEAST_TRAIN or kept[1] < LEAST_VALIDATION:
        raise ExportError(_shortage(prompts.name, kept, total, harmful))
    return Label(train, validation, total - sum(kept))


def _filtered(
    reader: Reader, prompts: Sequence[str], harmful: bool, log_probs: bool = False
) -> Measured:
    requests = tuple(Request(prompt) for prompt in prompts)
    full = reader.read(requests, states=True, log_probs=log_probs)
    keep = (full.log_odds > 0) if harmful else (full.log_odds < 0)
    chosen = tuple(r for r, k in zip(requests, keep.tolist(), strict=True) if k)
    readout = Readout(full.states[:, keep], full.log_odds[keep], full.log_probs[keep])
    return Measured(chosen, readout)


def _shortage(name: str, kept: tuple[int, int], total: int, harmful: bool) -> str:
    handled, sign = ("refuses", "> 0") if harmful else ("answers", "< 0")
    advice = (
        "it has no text refusal to build on: choose a safety-tuned base, or give the openers of "
        "its refusals"
        if harmful
        else "give prompts that it answers"
    )
    return (
        f"The model {handled} only {kept[0]} training and {kept[1]} validation prompts of the "
        f"{total} in {name} (refusal log-odds {sign}; needed: {LEAST_TRAIN} and "
        f"{LEAST_VALIDATION}); {advice}."
    )


def neutral_requests(modality: Modality, count: int, options: Options, seed: int) -> list[Request]:
    """Requests without a prompt that show neutral visuals."""
    if modality == "video":
        made = visuals.clips(count, seed, options.frames, options.visual_size)
        return [Request("", video=clip) for clip in made]
    return [Request("", images=(i,)) for i in visuals.images(count, seed, options.visual_size)]


def beside(
    text: Sequence[Request], shown: Sequence[Request], indices: Sequence[int]
) -> tuple[Request, ...]:
    """Prompts in turn, each beside the visual of the next index."""
    return tuple(
        Request(text[n % len(text)].prompt, shown[i].images, shown[i].video)
        for n, i in enumerate(indices)
    )
