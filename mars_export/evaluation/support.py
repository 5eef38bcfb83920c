"""What the chat template and the processor of a model cannot be asked. Free of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mars_export.common.errors import ExportError
from mars_export.common.input_errors import one_line
from mars_export.inputs.requests import PLAIN_REQUEST, Request, template_problem

if TYPE_CHECKING:
    from mars_export.evaluation.generation import Loaded
    from mars_export.evaluation.job import Job
    from mars_export.evaluation.suite import Sample

__all__ = ["unsupported"]


def unsupported(job: Job, loaded: Loaded) -> dict[str, str]:
    """Variants and optional arms of a job that the model cannot be put through.

    The first request of each variant stands for all, of sounds the longest. One with several
    pictures or sounds is answered, as some models take only one.

    Args:
        job: With all arms and variants.
        loaded: The checkpoint that is evaluated.

    Returns:
        The reason, by name.

    Raises:
        ExportError: A request with several pictures or sounds alone does not fit into memory.
    """
    seconds: dict[str, float] = {}
    stands: dict[str, Sample] = {}
    for sample in (sample for sample in job.samples if sample.variant):
        if sample.group not in seconds:
            seconds[sample.group] = _seconds(job, sample)
        first = stands.setdefault(sample.variant, sample)
        if seconds[sample.group] > seconds[first.group]:
            stands[sample.variant] = sample
    reasons = {name: _problem(loaded, job.request(sample)) for name, sample in stands.items()}
    for arm in job.arms:
        if arm.optional:
            reasons[arm.name] = template_problem(loaded.processor, arm.request(PLAIN_REQUEST))
    return {name: reason for name, reason in reasons.items() if reason}


def _seconds(job: Job, sample: Sample) -> float:
    """Of the longest sound of the request that a variant is made of; 0 without one."""
    if not sample.heard:
        return 0.0
    return max((float(s.seconds) for s in job.plain(sample).shown("audio")), default=0.0)


def _problem(loaded: Loaded, request: Request) -> str:
    if problem := template_problem(loaded.processor, request):
        return problem
    if request.modality != "audio" and len(request.media) < 2:
        return ""
    try:
        inputs = loaded.inputs([request])
        if len(request.media) > 1:
            loaded.answer(inputs, 1, steered=False)
    except Exception as error:  # models raise what they like
        from mars_export.families.loading import is_out_of_memory

        if not is_out_of_memory(error):
            return f"the model refuses it: {one_line(error)}"
        raise ExportError(
            f"a request with {len(request.media)} {_named(request)} alone does not fit into "
            "memory; use a device with more memory, or --no-controls"
        ) from error
    return ""


def _named(request: Request) -> str:
    return "sounds" if request.modality == "audio" else "pictures"
