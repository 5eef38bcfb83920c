"""`evaluation/utility.json`: what steering costs on utility benchmarks. Free of torch."""

from typing import Final

from mars_export.common.record import Record, VersionedRecord

__all__ = ["MARGIN", "Metric", "TaskUtility", "Utility"]

MARGIN: Final = 0.01
"""Acceptable loss unless the user states another: one point of accuracy."""


class Metric(Record):
    """One metric of a task over the same samples."""

    name: str
    n: int
    off: float
    """Mean with steering off, in the metric's own unit."""
    on: float
    difference: float
    """On minus off."""
    low: float | None
    high: float | None
    """95 % interval: `statistics.paired_change` for scores of 0 and 1, else a BCa bootstrap; None
    when other scores all changed by the same amount."""
    margin: float
    """Loss that was declared acceptable beforehand, in the metric's unit."""
    not_inferior: bool | None
    """Whether the whole interval lies above minus the margin; None without an interval."""


class TaskUtility(Record):
    """One task of lmms-eval."""

    task: str
    n: int
    metrics: list[Metric]
    """Empty for a task that is scored only as a whole."""
    refused_off: int
    refused_on: int
    """Answers that the rules take for refusals: lost capability that hides in the score."""


class Utility(VersionedRecord):
    """`evaluation/utility.json`."""

    schema_version: int = 1
    steering_sha256: str
    engine: str
    """Name and version, or `log` for logs that were given."""
    tasks: list[TaskUtility]
