"""From findings to the record and its vectors."""

from collections.abc import Sequence
from dataclasses import dataclass

from mars_export.calibration.measurements import Label, Measured, Neutral, TextMeasurements
from mars_export.calibration.options import Options
from mars_export.common.vocabulary import Modality
from mars_export.inputs.prompts import PromptSet, PromptSets
from mars_export.inputs.stimuli import GENERATOR
from mars_export.methods.mars.artefact import Calibration
from mars_export.methods.mars.layers import Landscape
from mars_export.methods.mars.probes import probes_of
from mars_export.methods.mars.record import (
    CalibrationRecord,
    LayerScore,
    Probe,
    PromptSource,
    VisualSource,
)
from mars_export.methods.mars.selection import Trial
from mars_export.methods.mars.strength import Tuning

__all__ = ["Findings", "assemble"]


@dataclass(frozen=True)
class Findings:
    """Everything measured and chosen."""

    text: TextMeasurements
    neutral: dict[Modality, Neutral]
    landscape: Landscape
    layer: int
    trials: tuple[Trial, ...]
    tuning: Tuning


def assemble(
    findings: Findings,
    prompts: PromptSets,
    options: Options,
    *,
    model_type: str,
    dtype: str,
    quantization: str,
    refusal_tokens: list[int],
    header_suffixes: list[list[int]],
    seed: int,
    seconds: float,
) -> Calibration:
    """Write findings down as a `Calibration`."""
    landscape, layer = findings.landscape, findings.layer
    stats = landscape.text
    tuning = findings.tuning
    bounds = landscape.bounds(layer, tuning.gain, tuning.radius)
    record = CalibrationRecord(
        model_type=model_type,
        layer=layer,
        layers=len(landscape.excluded),
        hidden_size=stats.direction.shape[-1],
        dtype=dtype,
        quantization=quantization,
        separation=float(stats.separation[layer]),
        harmful=float(stats.harmful[layer]),
        harmless=float(stats.harmless[layer]),
        shift={m: float(beta[layer]) for m, beta in landscape.shift.items()},
        origin=bounds.origin,
        cap=bounds.cap,
        **tuning._asdict(),
        layer_forced=options.layer is not None,
        layer_failures=next(t.failures for t in findings.trials if t.layer == layer),
        refusal_tokens=refusal_tokens,
        scores=_scores(landscape, findings.trials),
        prompts={
            "harmful": _prompt_source(prompts.harmful, findings.text.harmful),
            "harmless": _prompt_source(prompts.harmless, findings.text.harmless),
        },
        visuals={m: _visual_source(m, n, options, seed) for m, n in findings.neutral.items()},
        header_suffixes=header_suffixes,
        probes=_probes(findings),
        projections={name: p[layer].tolist() for name, p in landscape.groups.items()},
        seed=seed,
        seconds=seconds,
    )
    return Calibration(
        record,
        landscape.direction(layer),
        stats.centroid_harmful[layer].float(),
        stats.centroid_harmless[layer].float(),
        {m: vector[layer].float() for m, vector in landscape.vectors.items()},
    )


def _scores(landscape: Landscape, trials: Sequence[Trial]) -> list[LayerScore]:
    scores = [landscape.score(i) for i in range(len(landscape.excluded))]
    for trial in trials:
        checked = {"induced": trial.induced, "kl": trial.kl, "lift": trial.lift}
        scores[trial.layer] = scores[trial.layer].model_copy(update=checked)
    return scores


def _prompt_source(prompts: PromptSet, label: Label) -> PromptSource:
    return PromptSource(
        name=prompts.name,
        sha256=prompts.sha256,
        license=prompts.license,
        train=len(label.train.requests),
        validation=len(label.validation.requests),
        dropped=label.dropped,
    )


def _visual_source(
    modality: Modality, neutral: Neutral, options: Options, seed: int
) -> VisualSource:
    width, height = options.visual_size
    return VisualSource(
        generator=GENERATOR,
        seed=seed,
        count=neutral.count,
        width=width,
        height=height,
        frames=options.frames if modality == "video" else 1,
    )


def _probes(findings: Findings) -> list[Probe]:
    text, layer = findings.text, findings.layer
    bounds = findings.landscape.bounds(layer, findings.tuning.gain, findings.tuning.radius)

    def rows(
        measured: Measured, group: str, visuals: Sequence[int] | None = None
    ) -> list[tuple[str, int | None, float]]:
        shown = visuals if visuals is not None else [None] * len(measured.requests)
        p = findings.landscape.groups[group][layer].tolist()
        texts = [request.prompt for request in measured.requests]
        return list(zip(texts, shown, p, strict=True))

    probes = probes_of(
        "text",
        rows(text.harmful.validation, "harmful text"),
        rows(text.harmless.validation, "harmless text"),
        bounds,
    )
    for m, seen in findings.neutral.items():
        harmful = rows(seen.harmful, f"harmful text + neutral {m}", seen.harmful_indices)
        harmless = rows(seen.validation, f"harmless text + neutral {m}", seen.indices)
        probes += probes_of(m, harmful, harmless, bounds)
    return probes
