"""Weaker and stronger steering on a card: a plot, and three sentences."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mars_export.card.lines import order
from mars_export.common.names import PLOTS
from mars_export.common.plotting import BLUE, GRAY, LIGHT, ORANGE, WIDTH, titled
from mars_export.common.vocabulary import Modality
from mars_export.evaluation.report import Dose, DosePoint, Report, label

__all__ = ["DOSE", "plot", "sentences"]

DOSE: Final = f"{PLOTS}/dose_response.png"

_MARKS: Final[dict[Modality, str]] = {"text": "o", "image": "s", "video": "^", "audio": "D"}
_STEP: Final = 0.03
"""Between the marks of two kinds of requests at one dose, so that intervals stay apart."""


def plot(report: Report | None) -> dict[str, Callable[[], Figure]]:
    """The plot by its path relative to the card; none where doses were not measured."""
    return {DOSE: partial(_draw, _ordered(report))} if report and report.dose else {}


def sentences(report: Report) -> tuple[str, ...]:
    """What the doses show, for people; why there are none, if so."""
    if not report.dose:
        reason = report.skipped.get("dose", "it was not measured")
        return (f"Weaker and stronger steering: {reason}.",)
    ordered = _ordered(report)
    return (_refusals(ordered), _broken(ordered), _pushes(ordered))


def _ordered(report: Report) -> list[Dose]:
    return sorted(report.dose, key=lambda d: order(d.harmful, d.modality))


def _refusals(doses: list[Dose]) -> str:
    parts = [
        f"{label(d.harmful, d.modality)} {', '.join(str(p.refused.count) for p in d.points)} "
        f"of {d.points[0].refused.n}"
        for d in doses
    ]
    factors = ", ".join(f"{point.factor:g}" for point in doses[0].points)
    return f"Refused with every push times {factors}: {'; '.join(parts)}."


def _broken(doses: list[Dose]) -> str:
    """Strong steering can break answers, which no refusal rate shows."""
    broken = {
        name: [sum(getattr(p, name).count for p in points) for points in _columns(doses)]
        for name in ("degenerate", "unknown")
    }
    n = sum(dose.points[0].refused.n for dose in doses)
    parts = [f"{name} {', '.join(map(str, counts))}" for name, counts in broken.items()]
    return f"Of these {n} answers a dose, {' and '.join(parts)}."


def _columns(doses: list[Dose]) -> Iterator[tuple[DosePoint, ...]]:
    """The points of all kinds of requests, dose by dose."""
    return zip(*(dose.points for dose in doses), strict=True)


def _pushes(doses: list[Dose]) -> str:
    parts = [
        f"{label(d.harmful, d.modality)} {100 * d.push.median:.1f} % ({100 * d.push.high:.1f} %)"
        for d in doses
        if d.push
    ]
    if not parts:
        return "How long a push is beside the residual stream could not be measured."
    return (
        "Length of the calibrated push over that of the residual stream where the answer begins, "
        f"median (95th percentile) of all requests: {'; '.join(parts)}."
    )


def _draw(doses: list[Dose]) -> Figure:
    drawing = Figure(figsize=(WIDTH, 3.6))
    titled(
        drawing,
        "Weaker and stronger steering",
        f"the same requests with every push multiplied, at most {_most(doses)} of each kind; "
        "dots with 95 % intervals",
    )
    left, right = drawing.subplots(1, 2)
    left.set_title("Share refused")
    right.set_title("Refusal log-odds of the first token, mean")
    for number, dose in enumerate(doses):
        shift = _STEP * (number - (len(doses) - 1) / 2)
        color = ORANGE if dose.harmful else BLUE
        style: dict[str, Any] = {"color": color, "marker": _MARKS[dose.modality]}
        name = label(dose.harmful, dose.modality)
        _refused(left, dose, shift, style, name)
        known = [(p.factor + shift, p.log_odds) for p in dose.points if p.log_odds is not None]
        right.plot(*zip(*known, strict=True) if known else ((), ()), markersize=5, **style)
    for axes in (left, right):
        axes.axvline(1, color=GRAY, linewidth=0.8, linestyle=":")
        axes.set_xticks([p.factor for p in doses[0].points])
        axes.set_xlabel("multiple of the calibrated push")
        axes.grid(axis="y", color=LIGHT, linewidth=0.7)
    left.set_ylim(-4, 104)
    left.set_yticks([0, 50, 100], labels=["0", "50", "100 %"])
    drawing.legend(loc="outside lower center", ncols=2, frameon=False)
    return drawing


def _most(doses: list[Dose]) -> int:
    return max(dose.points[0].refused.n for dose in doses)


def _refused(axes: Axes, dose: Dose, shift: float, style: dict[str, Any], name: str) -> None:
    rates = [point.refused for point in dose.points]
    at, shares = [p.factor + shift for p in dose.points], [100 * rate.rate for rate in rates]
    axes.vlines(
        at, [100 * r.low for r in rates], [100 * r.high for r in rates], color=style["color"],
        linewidth=1, alpha=0.6,
    )  # fmt: skip
    axes.plot(at, shares, markersize=5, linewidth=1.2, label=name, **style)
