"""What the chat template and the processor of a model cannot be asked. Free of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mars_export.common.errors import ExportError
from mars_export.inputs.requests import PLAIN_REQUEST, Request, template_problem

if TYPE_CHECKING:
    from mars_export.evaluation.engines.base import Engine
    from mars_export.evaluation.job import Job
    from mars_export.evaluation.suite import Sample

__all__ = ["require_modalities", "unsupported"]


def unsupported(job: Job, engine: Engine) -> dict[str, str]:
    """Variants and optional arms of a job that the model cannot be put through.

    The first request of each variant stands for all, of sounds the longest. One with several
    pictures or sounds is answered, as some models take only one.

    Args:
        job: With all arms and variants.
        engine: Opened for its arms.

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
    reasons = {name: _problem(engine, job.request(sample)) for name, sample in stands.items()}
    for arm in job.arms:
        if arm.optional:
            reasons[arm.name] = template_problem(engine.processor, arm.request(PLAIN_REQUEST))
    return {name: reason for name, reason in reasons.items() if reason}


def _seconds(job: Job, sample: Sample) -> float:
    """Of the longest sound of the request that a variant is made of; 0 without one."""
    if not sample.heard:
        return 0.0
    return max((float(s.seconds) for s in job.plain(sample).shown("audio")), default=0.0)


def require_modalities(job: Job, engine: Engine) -> None:
    """Ask for each modality of the requests as they are, before work is begun.

    Raises:
        ExportError: The engine does not take one.
    """
    firsts = {sample.modality: sample for sample in reversed(job.samples) if not sample.variant}
    for modality, sample in firsts.items():
        if reason := engine.problem(job.request(sample)):
            raise ExportError(
                f"{modality} requests cannot be asked ({sample.id}): {reason}; give a --suite "
                f"without {modality}"
            )


def _problem(engine: Engine, request: Request) -> str:
    return template_problem(engine.processor, request) or engine.problem(request)
