"""Calibration of a loaded model by any method."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mars_export.calibration.data import CalibrationData, MeasurementOptions
from mars_export.common.errors import ExportError
from mars_export.common.progress import Tick
from mars_export.common.vocabulary import Modality
from mars_export.families.processes import joined
from mars_export.inputs.prompts import PromptSets
from mars_export.inputs.template import thinking_options, with_options
from mars_export.inputs.tuning import TuningSet
from mars_export.methods import method_for, taken
from mars_export.methods.base import Artefact, MethodOptions

__all__ = ["calibrate"]


def calibrate(
    model: Any,
    processor: Any,
    *,
    prompts: PromptSets,
    modalities: Sequence[Modality],
    method: str = "mars",
    options: MethodOptions | None = None,
    measurement: MeasurementOptions | None = None,
    progress: Tick | None = None,
    quantization: str = "none",
    tuning: TuningSet | None = None,
) -> Artefact:
    """Measure a model and decide how to steer it.

    The model runs in the dtype it was loaded in and is left in evaluation mode; nothing is trained.

    Started by `accelerate launch` or `torchrun`, the processes share the requests, unless each
    holds a part of the model; every one returns the same.

    Args:
        model: A Transformers model.
        processor: Its processor or tokenizer, with a chat template.
        prompts: Harmful and harmless text.
        modalities: What the model takes; `text` may be left out.
        method: One of `mars_export.methods.METHODS` that makes checkpoints.
        options: Its own options; the defaults if None.
        measurement: How the model is measured; the defaults if None.
        progress: Called with (requests done, requests in all).
        quantization: What the model was loaded in, for the record.
        tuning: Labeled requests that show something, to tune on, as `tuning_set` gives them;
            None for none.

    Returns:
        What every later stage takes.

    Raises:
        ExportError: There is no such method, it makes no checkpoint, or the model cannot be
            steered by it; the message says why.
    """
    chosen = method_for(method, modalities, model.config.model_type)
    if tuning is not None and not chosen.tunable:
        raise ExportError(f"{method} cannot be tuned on requests; use mars, or leave them out")
    measurement = measurement or MeasurementOptions()
    options = options or chosen.Options()
    with joined() as processes:
        data = CalibrationData(
            model,
            with_options(processor, thinking_options(processor, measurement.thinking)),
            prompts,
            taken(chosen, modalities),
            measurement,
            quantization,
            progress,
            tuning,
            processes.sharing(model),
        )
        return _with_options(chosen.calibrate(data, options), options)


def _with_options(artefact: Artefact, options: MethodOptions) -> Artefact:
    """State the options: all in the record, the user's choices in the rules for after training.

    The rules leave the layer out: after training, another one may be better.
    """
    record = artefact.record
    stated = options.model_dump(mode="json", exclude_none=True)
    choices = options.model_dump(mode="json", exclude={"layer"}, exclude_defaults=True)
    rules = {**record.rules, **({"options": choices} if choices else {})}
    return replace(artefact, record=record.model_copy(update={"options": stated, "rules": rules}))
