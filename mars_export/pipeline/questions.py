"""Whether a model can be asked all that a run will ask, looked at before it is loaded."""

from functools import partial
from pathlib import Path
from typing import Any

from mars_export.common.errors import ExportError
from mars_export.common.input_errors import input_errors
from mars_export.common.vocabulary import Modality
from mars_export.evaluation.suite import HARMFUL_ONLY, Sample, Suite
from mars_export.families.directory import read_config
from mars_export.inputs.limits import Asked, check_prompts, check_requests, context_of
from mars_export.inputs.prompts import PromptSets
from mars_export.inputs.template import with_options
from mars_export.methods.base import CalibrationSource

__all__ = ["check_questions", "check_suite", "harmful_only", "require_harmless"]


def check_questions(
    processor: Any,
    base: Path,
    suite: Suite,
    modalities: tuple[Modality, ...],
    prompts: PromptSets | None = None,
) -> None:
    """Refuse prompts and requests that a model cannot be asked.

    Args:
        processor: The model's processor or tokenizer.
        base: Directory of the model, which is not loaded.
        suite: What is evaluated.
        modalities: What the model takes.
        prompts: What it is calibrated on; None for nothing.

    Raises:
        ExportError: There are some; names files and lines.
    """
    context = context_of(read_config(base))
    if prompts is not None:
        check_prompts(processor, context, prompts)
    check_requests(processor, context, _asked(suite, modalities))


def check_suite(directory: Path, suite: Suite, source: CalibrationSource) -> None:
    """The same for a steered directory, whose processor is loaded here.

    Args:
        directory: Steered checkpoint.
        suite: What is evaluated.
        source: Of its calibration.

    Raises:
        ExportError: There are some, or the processor does not load.
    """
    from transformers import AutoProcessor

    with input_errors(f"the processor of {directory} does not load"):
        processor = AutoProcessor.from_pretrained(directory, trust_remote_code=True)
    processor = with_options(processor, source.template_options)
    check_questions(processor, directory, suite, source.modalities)


def harmful_only(suite: Suite, modalities: tuple[Modality, ...]) -> bool:
    """Whether a model is asked harmful requests alone, which says nothing of over-refusal."""
    return all(sample.harmful for sample in suite.evaluation_samples(modalities))


def require_harmless(suite: Suite, modalities: tuple[Modality, ...]) -> None:
    """Refuse a suite whose results carry no model card.

    Raises:
        ExportError: if all requests for such a model are harmful.
    """
    if harmful_only(suite, modalities):
        raise ExportError(f"the suite {suite.name} {HARMFUL_ONLY}")


def _asked(suite: Suite, modalities: tuple[Modality, ...]) -> list[Asked]:
    return [
        Asked(
            part.places.get(sample.id, f"{part.name}, request {sample.id}"),
            sample.prompt,
            partial(part.request, sample),
            _alike(part, sample),
        )
        for part in suite.parts or (suite,)
        for sample in part.evaluation_samples(modalities)
    ]


def _alike(suite: Suite, sample: Sample) -> str:
    return f"{suite.name} {sample.types}" if suite.drawn else ""
