"""Dose and response: what weaker and stronger steering does, and how long the push is.

Some requests are answered with every change that steering makes multiplied, in memory alone; the
evaluation itself has answered them with steering off (0) and on (1). How long the push is beside
the residual stream that it is added to is measured on all requests. Free of torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean, median, quantiles
from typing import Final

from mars_export.evaluation.changes import group_by, is_advice, is_refused, rate_of
from mars_export.evaluation.job import Job
from mars_export.evaluation.report import (
    REFERENCE,
    STEERED,
    Dose,
    DosePoint,
    Push,
    SampleResult,
)
from mars_export.evaluation.variants import spread
from mars_export.methods import method_named

__all__ = ["FACTORS", "MOST", "dosed", "doses", "no_doses"]

MOST: Final = 40
"""Requests of one label and modality, at most, spread over clusters."""

FACTORS: Final = {REFERENCE: 0.0, "on x 0.5": 0.5, STEERED: 1.0, "on x 1.5": 1.5, "on x 2": 2.0}
"""Arm to the multiple of the calibrated strength."""


def no_doses(job: Job) -> str | None:
    """Why a job has no doses, as one clause; None if it has."""
    method = method_named(job.manifest.calibration.method)
    if method.site != "decoder":
        return f"{method.title} has no strength that could be scaled"
    if job.engine.no_doses:
        return job.engine.no_doses
    if not job.options.controls:
        return "left out together with the controls"
    if not job.options.doses:
        return "left out where methods are compared"
    return None


def dosed(job: Job) -> Job:
    """The answers that a job lacks: some of its requests, steering scaled.

    Harmful requests for advice are not among them: refusing more of those is not better.

    Args:
        job: Whose arms include `on`.
    """
    (on,) = (arm for arm in job.arms if arm.name == STEERED)
    plain = [sample for sample in job.samples if not (sample.variant or is_advice(sample))]
    kinds = group_by(plain, lambda sample: (sample.modality, sample.harmful)).values()
    arms = tuple(
        replace(on, name=name, title=f"steering times {factor:g}", factor=factor)
        for name, factor in FACTORS.items()
        if factor not in (0, 1)
    )
    samples = [s for kind in kinds for s in spread(kind, MOST)]
    return replace(job, arms=arms, samples=samples, run=f"{job.identity}.doses")


def doses(results: Iterable[SampleResult], scaled: Iterable[SampleResult]) -> list[Dose]:
    """What the doses did, by modality and label; empty where none were run.

    Args:
        results: Of the job; variants and harmful requests for advice are left out.
        scaled: Of `dosed`.
    """
    plain = [
        result
        for result in results
        if result.arm in FACTORS and not (result.variant or is_advice(result))
    ]
    scaled = list(scaled)
    ids = {result.id for result in scaled}
    chosen = [result for result in plain if result.id in ids] + scaled
    pushes = group_by(
        (result for result in plain if result.arm == STEERED), lambda r: (r.modality, r.harmful)
    )
    return [
        Dose(
            modality=modality,
            harmful=harmful,
            points=_points(members),
            push=_push(pushes[modality, harmful]),
        )
        for (modality, harmful), members in group_by(
            chosen, lambda r: (r.modality, r.harmful)
        ).items()
    ]


def _points(results: Sequence[SampleResult]) -> list[DosePoint]:
    by_arm = group_by(results, lambda result: result.arm)
    return [_point(factor, by_arm[arm]) for arm, factor in FACTORS.items()]


def _point(factor: float, members: Sequence[SampleResult]) -> DosePoint:
    odds = [result.log_odds for result in members if result.log_odds is not None]
    return DosePoint(
        factor=factor,
        refused=rate_of(members, is_refused),
        degenerate=rate_of(members, lambda r: r.verdict == "degenerate"),
        unknown=rate_of(members, lambda r: r.verdict == "unknown"),
        log_odds=fmean(odds) if len(odds) == len(members) else None,
    )


def _push(results: Sequence[SampleResult]) -> Push | None:
    """Of the requests of which it is known; None if of none."""
    pushes = [result.push for result in results if result.push is not None]
    if not pushes:
        return None
    high = quantiles(pushes, n=20, method="inclusive")[-1] if len(pushes) > 1 else pushes[0]
    return Push(n=len(pushes), median=median(pushes), high=high)
