"""How far the gate opened on the evaluation requests, by modality and label."""

from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mars_export.card.results import label
from mars_export.common.plotting import BLUE, GREY, ORANGE, WIDTH, titled
from mars_export.common.vocabulary import MODALITIES, Modality
from mars_export.evaluation.report import Report

__all__ = ["figure"]

_COLOURS: Final = {True: ORANGE, False: BLUE}
_BINS: Final = 30


def figure(report: Report) -> Figure:
    """One panel per modality with both labels as mirrored histograms on one gate axis."""
    shown = [m for m in MODALITIES if any(report.gates["on"].get(label(m, h)) for h in _COLOURS)]
    drawing = Figure(figsize=(WIDTH, 1.3 + 1.5 * len(shown)))
    titled(
        drawing,
        "Gate values on the evaluation requests, steering on",
        "up: harmful, down: harmless; bars count requests with an open gate (0 = left alone)",
    )
    top = max(max(values, default=0.0) for values in report.gates["on"].values())
    edges = np.linspace(0.0, top if top > 0 else 1.0, _BINS + 1)
    panels = drawing.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for axes, modality in zip(panels, shown, strict=True):
        _panel(axes, modality, report, edges)
    panels[-1].set_xlabel("gate: 0 at the origin o, 1 at the mean of harmful text")
    return drawing


def _panel(axes: Axes, modality: Modality, report: Report, edges: np.ndarray) -> None:
    axes.set_title(modality, fontweight="bold")
    counts = {h: _open(report.gates["on"].get(label(modality, h), []), edges) for h in _COLOURS}
    height = max(1, *(int(c.max()) for c in counts.values()))
    for harmful, color in _COLOURS.items():
        sign = 1 if harmful else -1
        values = report.gates["on"].get(label(modality, harmful), [])
        axes.bar(
            edges[:-1], sign * counts[harmful], np.diff(edges), align="edge", color=color,
            edgecolor="white", linewidth=0.4,
        )  # fmt: skip
        shut = sum(v <= 0 for v in values)
        axes.text(
            0.995, 0.5 + 0.42 * sign, f"{label(modality, harmful)}: gate shut on {shut} of "
            f"{len(values)}", transform=axes.transAxes, ha="right", va="center", color=color,
            fontsize=9,
        )  # fmt: skip
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_ylim(-1.9 * height, 1.9 * height)
    axes.set_yticks([-height, 0, height], labels=[str(height), "0", str(height)])
    axes.tick_params(labelsize=8.5)


def _open(values: list[float], edges: np.ndarray) -> np.ndarray:
    return np.histogram([v for v in values if v > 0], edges)[0]
