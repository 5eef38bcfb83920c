"""What the plots of the page show; places are percent of the width, so that text keeps its size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mars_export.common.vocabulary import MODALITIES
from mars_export.evaluation.report import REFERENCE, STEERED, Report, label

__all__ = ["Bar", "GateRow", "Interval", "RateRow", "gate_rows", "rate_rows"]

_BINS: Final = 24


@dataclass(frozen=True)
class Interval:
    """The share that one arm refuses, in percent, with its interval and what it says."""

    arm: str
    rate: float
    low: float
    high: float
    title: str


@dataclass(frozen=True)
class RateRow:
    """Requests of one label and modality."""

    name: str
    modality: str
    label: str
    intervals: tuple[Interval, ...]


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram: left, width and height in percent, and what it says."""

    x: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class GateRow:
    """Gates of one kind of request, steering on."""

    name: str
    label: str
    open: str
    bars: tuple[Bar, ...]


def rate_rows(report: Report) -> list[RateRow]:
    """Shares refused with steering off and on, of the requests as they are."""
    found = []
    for harmful in (True, False):
        for modality in MODALITIES:
            cells = [c for c in report.cells if (c.harmful, c.modality) == (harmful, modality)]
            cells = [c for c in cells if c.arm in (REFERENCE, STEERED)]
            if not cells:
                continue
            intervals = tuple(
                Interval(
                    cell.arm,
                    round(100 * cell.refused.rate, 1),
                    round(100 * cell.refused.low, 1),
                    round(100 * cell.refused.high, 1),
                    f"steering {cell.arm}: {cell.refused.count} of {cell.refused.n} refused "
                    f"({100 * cell.refused.rate:.1f} %, 95 % interval "
                    f"{100 * cell.refused.low:.1f} to {100 * cell.refused.high:.1f})",
                )
                for cell in cells
            )
            kind = "harmful" if harmful else "harmless"
            found.append(RateRow(label(harmful, modality), modality, kind, intervals))
    return found


def gate_rows(report: Report) -> list[GateRow]:
    """Histograms of the gates of the checkpoint; empty for methods without any."""
    gates = {name: values for name, values in report.gates.get(STEERED, {}).items() if values}
    top = max((value for values in gates.values() for value in values), default=0.0) or 1.0
    return [_gate_row(name, values, top) for name, values in gates.items()]


def _gate_row(name: str, values: list[float], top: float) -> GateRow:
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, int(max(0.0, value) / top * _BINS))] += 1
    size, most = top / _BINS, max(counts)
    bars = tuple(
        Bar(
            round(100 * index / _BINS, 2),
            round(100 / _BINS, 2),
            # Few are seen beside many.
            round(8 + 92 * count / most, 1),
            f"{count} of {len(values)}: gate {index * size:.2f} to {(index + 1) * size:.2f}",
        )
        for index, count in enumerate(counts)
        if count
    )
    opened = sum(value > 0 for value in values)
    kind = "harmful" if name.startswith("harmful") else "harmless"
    return GateRow(name, kind, f"{opened} of {len(values)} open", bars)
