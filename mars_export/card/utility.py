"""What a card says about utility: every metric paired, and which losses are not ruled out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mars_export.card.numbers import minus, unbroken
from mars_export.evaluation.utility import Metric, Utility

__all__ = ["UtilityLine", "lines", "open_losses", "problems"]

_TOLERANCE: Final = 1e-6


@dataclass(frozen=True)
class UtilityLine:
    """One metric of one task."""

    task: str
    metric: str
    n: int
    off: str
    on: str
    change: str
    verdict: str
    ruled_out: bool
    """Whether a loss beyond the margin is ruled out."""


def lines(utility: Utility) -> tuple[UtilityLine, ...]:
    """Every metric of every task, as it is printed."""
    return tuple(_line(task.task, m) for task in utility.tasks for m in task.metrics)


def open_losses(utility: Utility) -> tuple[UtilityLine, ...]:
    """Metrics for which a loss beyond the margin is measured or not ruled out."""
    return tuple(line for line in lines(utility) if not line.ruled_out)


def problems(utility: Utility) -> Iterator[str]:
    """Numbers that do not follow from each other."""
    for task in utility.tasks:
        if not 0 <= max(task.refused_off, task.refused_on) <= task.n:
            yield f"{task.task} has more refusals than samples; measure utility again"
        for m in task.metrics:
            if not _agrees(m):
                yield (
                    f"{m.name} of {task.task} does not follow from its means and interval; "
                    "measure utility again"
                )


def _agrees(m: Metric) -> bool:
    if m.n < 1 or m.margin <= 0 or abs(m.difference - (m.on - m.off)) > _TOLERANCE:
        return False
    if m.low is None or m.high is None:
        return m.low is m.high is m.not_inferior is None
    inside = m.low - _TOLERANCE <= m.difference <= m.high + _TOLERANCE
    return inside and m.not_inferior == (m.low > -m.margin)


def _line(task: str, m: Metric) -> UtilityLine:
    return UtilityLine(
        task=task,
        metric=m.name,
        n=m.n,
        off=f"{m.off:.3f}",
        on=f"{m.on:.3f}",
        change=_change(m),
        verdict=_verdict(m),
        ruled_out=m.not_inferior is True,
    )


def _change(m: Metric) -> str:
    if m.low is None or m.high is None:
        return minus(f"{m.difference:+.3f}")
    return unbroken(minus(f"{m.difference:+.3f} [{m.low:+.3f}, {m.high:+.3f}]"))


def _verdict(m: Metric) -> str:
    if m.not_inferior:
        return f"no loss above {m.margin:g}"
    if m.high is not None and m.high < -m.margin:
        return f"loses more than {m.margin:g}"
    return f"a loss above {m.margin:g} is not ruled out"
