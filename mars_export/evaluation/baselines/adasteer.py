"""AdaSteer (arXiv 2504.09466), refit: two directions, each with a strength linear in a position.

A pass without steering says where the state lies along a rejection direction (refused harmful
against answered harmless text) and a harmfulness direction (answered harmful against answered
harmless text). A clamped line through each position says how much of the first is added and how
much of the second is taken away, which spares harmless requests, at every position of the prompt,
at many layers. The constants of the released code are of other models. Ours: the lines are least
squares on the labeled held-out text, 1 for harmful and 0 for harmless on the first direction, 0 and
-1 on the second; positions are read at the layer that separates best; the
layers are the middle three fifths; the length is the least of `_GAINS` with which strength 1 makes
harmless text be refused. The harmfulness direction is left out of a model that answers too few
harmful prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch

from mars_export.calibration.data import LEAST_DECISION
from mars_export.calibration.directions import (
    TextStatistics,
    coordinates,
    in_the_middle,
    separability,
    text_statistics,
)
from mars_export.common.header import Header
from mars_export.evaluation.baselines.base import Batch, Fitted
from mars_export.evaluation.baselines.hooks import (
    Change,
    changed,
    columns,
    states_at,
    steered_answers,
    with_costs,
)
from mars_export.evaluation.baselines.study import Study
from mars_export.evaluation.generation import Answers, Loaded

__all__ = ["Axis", "Fit", "Line", "fitted_line"]

_GAINS: Final = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Length of all pushes of a direction together, over the mean separation of the layers."""


class Line(NamedTuple):
    """Strength of a position: slope * x + offset, between 0 and 1."""

    slope: float
    offset: float

    def __call__(self, position: torch.Tensor) -> torch.Tensor:
        """(N,) strengths of (N,) positions."""
        return (self.slope * position + self.offset).clamp(0, 1)

    def __str__(self) -> str:
        """For people."""
        return f"{self.slope:.2f} x {self.offset:+.2f}"


@dataclass(frozen=True)
class Axis:
    """One of the two directions.

    Attributes:
        name: For people.
        text: Direction, separation and harmless centroid of every layer.
        layer: Where the position is read: 0 at the harmless centroid, 1 at the harmful one.
        line: Strength of a position.
        least: Of the strengths, at the harmless centroid; at the harmful one it is 1 more.
    """

    name: str
    text: TextStatistics
    layer: int
    line: Line
    least: float = 0.0

    @classmethod
    def of(
        cls,
        name: str,
        text: TextStatistics,
        harmful: torch.Tensor,
        harmless: torch.Tensor,
        least: float = 0.0,
    ) -> Axis:
        """Choose the layer and fit the line on held-out states (L, N, d) and (L, M, d)."""
        layers = len(harmful)
        scores = separability(
            coordinates(harmful, text.direction), coordinates(harmless, text.direction)
        ).nan_to_num(-torch.inf)
        middle = [i for i in range(layers) if in_the_middle(i, layers)] or list(range(layers))
        layer = max(middle, key=lambda i: float(scores[i]))
        axis = cls(name, text, layer, Line(0.0, 0.0))
        line = fitted_line(axis.positions(harmful), axis.positions(harmless))
        return cls(name, text, layer, line, least)

    def positions(self, states: torch.Tensor) -> torch.Tensor:
        """(N,) float64 of states (L, N, d)."""
        along: torch.Tensor = states[self.layer].double() @ self.text.direction[self.layer]
        scale = self.text.separation[self.layer].clamp_min(1e-12)
        return (along - self.text.harmless[self.layer]) / scale

    def strengths(self, states: torch.Tensor) -> torch.Tensor:
        """(N,) float64 of states (L, N, d)."""
        return self.line(self.positions(states)) + self.least


@dataclass(frozen=True)
class Fit(Fitted):
    """The axes, the layers that are pushed, and how far: gain over the number of layers."""

    headers: list[Header]
    axes: tuple[Axis, ...]
    layers: tuple[int, ...]
    gain: float
    answered: int

    @property
    def detail(self) -> str:
        """Lines, layers and length."""
        lines = ", ".join(
            f"{a.name} {a.line._replace(offset=a.line.offset + a.least)} at layer {a.layer}"
            for a in self.axes
        )
        missing = (
            f"; no harmfulness direction, as the model answers {self.answered} of the harmful "
            f"prompts (needed: {LEAST_DECISION})"
            if len(self.axes) == 1
            else ""
        )
        where = f"layers {self.layers[0]} to {self.layers[-1]}"
        return f"strength by {lines}; length {self.gain:g} R over {where}{missing}"

    @classmethod
    def fit(cls, study: Study) -> Fit:
        """Refit directions, lines and length."""
        harmful = study.states("harmful", "decision")
        harmless = study.states("harmless", "decision")
        axes = [Axis.of("rejection", study.measured.statistics, harmful, harmless)]
        answered = study.unlike_label("harmful", "direction")
        if answered.shape[1] >= LEAST_DECISION:
            text = text_statistics(answered, study.states("harmless", "direction"))
            both = torch.cat([harmful, study.unlike_label("harmful", "decision")], 1)
            axes.append(Axis.of("harmfulness", text, both, harmless, least=-1.0))
        count = study.record.source.layers
        layers = tuple(i for i in range(count) if in_the_middle(i, count)) or tuple(range(count))
        fit = cls(study.headers, tuple(axes), layers, _GAINS[-1], answered.shape[1])
        return fit.with_least_gain(study)

    def with_least_gain(self, study: Study) -> Fit:
        """The same with the least length that makes harmless text be refused; else the longest."""
        requests = study.measured.text["harmless"].decision.requests
        for gain in _GAINS:
            fit = Fit(self.headers, self.axes, self.layers, gain, self.answered)
            pushes = fit.pushes([torch.ones(1), *[torch.zeros(1)] * (len(self.axes) - 1)])
            changes = {layer: _adding(push) for layer, push in pushes.items()}
            with changed(study.loaded.model, changes):
                induced = float(study.measured.reader.read(requests).log_odds.mean())
            if induced > 0:
                break
        return fit

    def pushes(self, strengths: Sequence[torch.Tensor]) -> dict[int, torch.Tensor]:
        """(B, d) float32 by layer of strengths (B,), one of each axis."""
        share = self.gain / len(self.layers)
        return {
            layer: sum(
                (
                    strength.double().unsqueeze(1)
                    * (share * axis.text.separation[layer] * axis.text.direction[layer])
                    for axis, strength in zip(self.axes, strengths, strict=True)
                ),
                torch.zeros(1, dtype=torch.float64),
            ).float()
            for layer in self.layers
        }

    def answer(self, loaded: Loaded, batch: Batch) -> Answers:
        """Read the positions in a pass of its own, then push the prompt."""
        at = columns(batch.inputs, self.headers)
        states, cost = states_at(loaded, batch.inputs, at)
        strengths = [axis.strengths(states) for axis in self.axes]
        chosen = at.up_to_last().unsqueeze(-1)
        changes = {layer: _adding(push, chosen) for layer, push in self.pushes(strengths).items()}
        gates = strengths[0].tolist()
        answers = steered_answers(loaded, batch, changes, at, gates=lambda: gates)
        return with_costs(answers, [cost])


def fitted_line(harmful: torch.Tensor, harmless: torch.Tensor) -> Line:
    """Least squares: 1 at positions (N,) of harmful, 0 at positions (M,) of harmless text."""
    x = torch.cat([harmful, harmless]).double()
    y = torch.cat([torch.ones(len(harmful)), torch.zeros(len(harmless))]).double()
    centered = x - x.mean()
    spread = float(centered.square().sum())
    slope = float((centered * y).sum()) / spread if spread else 0.0
    return Line(slope, float(y.mean()) - slope * float(x.mean()))


def _adding(push: torch.Tensor, chosen: torch.Tensor | None = None) -> Change:
    """Add push (B, d) to the prompt, at columns (B, T, 1); at every one of any pass if None."""

    def change(h: torch.Tensor, prompt: bool) -> torch.Tensor:
        if chosen is None:
            return h + push.to(h.device).unsqueeze(1)
        return h + chosen.to(h.device) * push.to(h.device).unsqueeze(1) if prompt else h

    return change
