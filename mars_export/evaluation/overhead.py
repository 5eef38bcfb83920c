"""What steering costs, measured in the evaluation itself. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict

from mars_export.evaluation.report import REFERENCE, STEERED, Overhead

__all__ = ["Cost", "overhead"]


class Cost(BaseModel):
    """What the answers to one batch took in one arm."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: float
    steps: int
    """Forward passes: tokens of the longest answer."""
    peak: int | None = None
    """Most memory that was allocated, in bytes; None where the device does not say."""


def overhead(batches: Iterable[Mapping[str, Cost]]) -> Overhead | None:
    """Steering on over off, in the same batches.

    Refusals are short, so only batches count that took as many forward passes on as off; else an
    arm would be fast for what it says.

    Args:
        batches: The costs of each, by arm.

    Returns:
        Seconds as the ratio of two sums, memory as that of two largest peaks; None where no batch
        counts.
    """
    pairs = [
        (batch[REFERENCE], batch[STEERED])
        for batch in batches
        if {REFERENCE, STEERED} <= batch.keys() and batch[REFERENCE].steps == batch[STEERED].steps
    ]
    off, on = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    seconds = sum(cost.seconds for cost in off)
    if not seconds:
        return None
    peak_off, peak_on = (max(cost.peak or 0 for cost in arm) for arm in (off, on))
    return Overhead(
        seconds_ratio=sum(cost.seconds for cost in on) / seconds,
        peak_memory_ratio=peak_on / peak_off if peak_off else None,
        n=len(pairs),
    )
