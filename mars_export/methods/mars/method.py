"""Calibration from end to end: from a model and text prompts to a `Calibration`."""

import time
from collections.abc import Sequence
from typing import Any

from mars_export.calibration.activations import Reader
from mars_export.calibration.measurements import Neutral, measure_neutral, measure_text
from mars_export.calibration.meter import Meter, Progress
from mars_export.calibration.options import Options
from mars_export.calibration.refusal import refusal_tokens
from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import Modality
from mars_export.inputs.prompts import PromptSets
from mars_export.inputs.template import header_suffixes
from mars_export.methods.mars.artefact import Calibration
from mars_export.methods.mars.assembly import Findings, assemble
from mars_export.methods.mars.layers import Landscape, survey
from mars_export.methods.mars.probes import check_probes
from mars_export.methods.mars.selection import Checks, Trial, choose, try_layer
from mars_export.methods.mars.strength import tune

__all__ = ["calibrate"]


def calibrate(
    model: Any,
    processor: Any,
    *,
    prompts: PromptSets,
    modalities: Sequence[Modality],
    options: Options | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    quantization: str = "none",
) -> Calibration:
    """Measure where and how to steer a model (MARS, arXiv 2606.31876).

    Only text and neutral visuals are shown to the model; nothing is trained. The model runs in
    the dtype it was loaded in and is left in evaluation mode.

    Args:
        model: A Transformers image-text-to-text model.
        processor: Its processor, with a chat template.
        prompts: Harmful and harmless text.
        modalities: What the model takes; `text` may be left out.
        options: Choices; the defaults if None.
        seed: Seed of the neutral visuals.
        progress: Called with (requests done, requests in all).
        quantization: What the model was loaded in, for the record.

    Returns:
        The record and its vectors.

    Raises:
        ExportError: The model has no usable refusal direction (the message names the score that
            failed, its value and its threshold), no chat template, or too little memory.
    """
    began = time.monotonic()
    options = options or Options()
    visual: list[Modality] = [modality for modality in modalities if modality != "text"]
    suffixes = header_suffixes(processor)
    tokens = refusal_tokens(getattr(processor, "tokenizer", processor), options.openers)
    meter = Meter(progress)
    meter.plan(_forecast(prompts, len(visual), options))
    reader = Reader(model.eval(), processor, tokens, options.batch_size, meter)

    text = measure_text(reader, prompts)
    neutral: dict[Modality, Neutral] = {
        m: measure_neutral(reader, text, m, options, seed) for m in visual
    }
    landscape = survey(text, neutral)
    checks: Checks = {"text": text.harmless.validation}
    checks.update({m: seen.validation for m, seen in neutral.items()})
    harmful: Checks = {"text": text.harmful.validation}
    harmful.update({m: seen.harmful for m, seen in neutral.items()})
    layer, trials = _layer(reader, landscape, checks, options)
    tuning = tune(reader, landscape, layer, checks, harmful, options)
    meter.settle()

    findings = Findings(text, neutral, landscape, layer, tuple(trials), tuning)
    calibration = assemble(
        findings,
        prompts,
        options,
        model_type=model.config.model_type,
        dtype=str(model.dtype).removeprefix("torch."),
        quantization=quantization,
        refusal_tokens=tokens,
        header_suffixes=suffixes,
        seed=seed,
        seconds=time.monotonic() - began,
    )
    check_probes(calibration.record.probes)
    return calibration


def _layer(
    reader: Reader, landscape: Landscape, checks: Checks, options: Options
) -> tuple[int, list[Trial]]:
    """The chosen layer; one named in the options is taken if its gate makes sense at all."""
    layer = options.layer
    if layer is None:
        return choose(reader, landscape, checks, options.finalists)
    layers = len(landscape.excluded)
    if not 0 <= layer < layers:
        raise ExportError(f"Layer {layer} does not exist; the model has layers 0 to {layers - 1}.")
    room = float(landscape.text.harmful[layer] - landscape.origin[layer])
    if not room > 0:
        raise ExportError(
            f"Layer {layer} cannot be steered: its gate origin lies {-room:.3g} above the harmful "
            "centroid; take another layer."
        )
    return layer, [try_layer(reader, landscape, checks, layer)]


def _forecast(prompts: PromptSets, visual: int, options: Options) -> int:
    """About how many requests a calibration runs."""
    held = len(prompts.harmless.validation)
    checks = max(options.validation_pairs, held)
    measured = options.pairs + checks + len(prompts.harmful.validation)
    trial = 2 * held + 2 * checks * visual
    tuning = held + (checks + len(prompts.harmful.validation)) * visual
    tried = 1 if options.layer is not None else options.finalists
    return len(prompts.prompts) + visual * measured + tried * trial + tuning
