"""What a card says about utility: every metric paired, and the losses that are not ruled out."""

from dataclasses import dataclass

from mars_export.common.markdown import minus, unbroken
from mars_export.evaluation.utility import Metric, Utility

__all__ = ["UtilityLine", "utility_lines"]


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


def utility_lines(utility: Utility | None) -> tuple[UtilityLine, ...]:
    """Every metric of every task, as it is printed."""
    tasks = utility.tasks if utility else []
    return tuple(_line(task.task, metric) for task in tasks for metric in task.metrics)


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
