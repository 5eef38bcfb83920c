"""CAST, conditional activation steering (Lee et al., arXiv 2409.05907): add only on a condition.

The condition is the cosine of a state with its projection on a condition vector, on one side of a
threshold, of the prompt alone. The vector is the first principal component of harmful and harmless
text; layer, threshold and side are the best of all by F1 on held-out text. Ours: the state is read
at the end of the assistant header and not averaged over the prompt, the projection has no tanh,
the condition lies no later than the layer that is steered, so that one pass is enough, and what is
added is the constant addition of `addition.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch

from mars_export.calibration.directions import in_the_middle
from mars_export.calibration.estimators import ESTIMATORS
from mars_export.evaluation.baselines import addition
from mars_export.evaluation.baselines.base import Batch, Fitted
from mars_export.evaluation.baselines.hooks import Change, columns, steered_answers
from mars_export.evaluation.baselines.study import Study
from mars_export.evaluation.generation import Answers, Loaded

__all__ = ["Condition", "Fit", "best_condition", "similarity"]


class Condition(NamedTuple):
    """When to steer: similarity on one side of the threshold."""

    layer: int
    threshold: float
    above: bool
    f1: float

    def holds(self, similarities: torch.Tensor) -> torch.Tensor:
        """(N,) bool of similarities (N,)."""
        return (similarities > self.threshold) == self.above


@dataclass(frozen=True)
class Fit(Fitted):
    """A condition, its vector (d,) float32, and what is added where it holds."""

    condition: Condition
    vector: torch.Tensor
    behavior: addition.Fit

    @property
    def detail(self) -> str:
        """Condition and behavior."""
        side = "above" if self.condition.above else "up to"
        return (
            f"similarity {side} {self.condition.threshold:.3g} at layer {self.condition.layer} "
            f"(F1 {self.condition.f1:.2f} on text), then {self.behavior.detail}"
        )

    @classmethod
    def fit(cls, study: Study) -> Fit:
        """Search layers and thresholds."""
        behavior = addition.Fit.fit(study)
        layers = [i for i in range(study.record.source.layers) if i <= behavior.layer]
        middle = [i for i in layers if in_the_middle(i, study.record.source.layers)]
        found = []
        for layer in middle or layers:
            u, s = (study.states(label, "direction")[layer].double()
                    for label in ("harmful", "harmless"))  # fmt: skip
            vector = ESTIMATORS["pca"](u, s).float()
            sides = [similarity(study.states(label, "decision")[layer], vector)
                     for label in ("harmful", "harmless")]  # fmt: skip
            found.append((best_condition(layer, *sides), vector))
        condition, vector = max(found, key=lambda pair: pair[0].f1)
        return cls(condition, vector, behavior)

    def answer(self, loaded: Loaded, batch: Batch) -> Answers:
        """Add the vector in the rows in which the condition holds."""
        at = columns(batch.inputs, self.behavior.headers)
        seen: dict[str, torch.Tensor] = {}
        vector, push = self.vector, self.behavior.push

        def measure(h: torch.Tensor, prompt: bool) -> torch.Tensor:
            if prompt:
                rows = torch.arange(len(h), device=h.device)
                last = h[rows, at.last.to(h.device)]
                seen["similarity"] = similarity(last, vector.to(h.device))
            return h

        def add(h: torch.Tensor, _prompt: bool) -> torch.Tensor:
            holds = self.condition.holds(seen["similarity"].to(h.device))
            return h + holds[:, None, None] * push.to(h.device) if bool(holds.any()) else h

        def both(h: torch.Tensor, prompt: bool) -> torch.Tensor:
            return add(measure(h, prompt), prompt)

        changes: dict[int, Change] = {self.condition.layer: measure, self.behavior.layer: add}
        if self.condition.layer == self.behavior.layer:
            changes = {self.behavior.layer: both}
        return steered_answers(
            loaded, batch, changes, at, gates=lambda: seen["similarity"].tolist()
        )


def similarity(h: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """(N,) float32 cosine of states (N, d) with their projections on a vector (d,); never negative.

    It is the length of the projection over that of the state.
    """
    along: torch.Tensor = h.float() @ (vector / vector.norm())
    cosines: torch.Tensor = along.abs() / h.float().norm(dim=-1).clamp_min(1e-12)
    return cosines


def best_condition(layer: int, harmful: torch.Tensor, harmless: torch.Tensor) -> Condition:
    """The threshold and the side with the best F1 for harmful text; half-way between two values.

    Args:
        layer: To be named in the condition.
        harmful: (N,) similarities of harmful text.
        harmless: (M,) of harmless text.
    """
    values = sorted({*harmful.tolist(), *harmless.tolist()})
    between = [(low + high) / 2 for low, high in pairwise(values)] or values
    best = Condition(layer, between[0], above=True, f1=-1.0)
    for threshold in between:
        for above in (True, False):
            tried = Condition(layer, threshold, above, 0.0)
            hits, misses = (int(tried.holds(x).sum()) for x in (harmful, harmless))
            f1 = 2 * hits / (hits + misses + len(harmful)) if len(harmful) else 0.0
            if f1 > best.f1:
                best = tried._replace(f1=f1)
    return best
