"""Origin and strength of a modality from a few labeled requests that show it (A3.10).

Direction, layer and shifts stay as text and neutral stimuli made them.
A3.n are sections of docs/method.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from mars_export.calibration.measurements import Measurements, Reading
from mars_export.common.vocabulary import LABELS, Label, Modality
from mars_export.methods.mars.layers import LEAST_GATE_WIDTH
from mars_export.methods.mars.material import Material
from mars_export.methods.mars.origin import (
    prediction_bound,
    surprising,
    tolerance_bound,
    upper_bound,
)
from mars_export.methods.mars.record import OPEN_LIMIT, HeldOut, MarsOptions, Strength, Tuned
from mars_export.methods.mars.rule import Rule
from mars_export.methods.mars.strength import Tuning, effect
from mars_export.methods.mars.view import LayerView

__all__ = ["refit"]

_GAINS: Final = (2.0, 3.0, 4.0, 6.0, 8.0)
_RADII: Final = (1.0, 1.5)
_RESERVES: Final = (1 / 4, 3 / 16, 1 / 8, 3 / 32, 1 / 16, 1 / 32)
"""Of the origin over R, most first; without one is the last resort."""
_FEWEST: Final = 2
"""Harmless requests of a half that the unsteered model answers."""


@dataclass(frozen=True)
class _Part:
    """Requests of one modality and half, run without steering.

    Attributes:
        harmful: All of them.
        harmless: Those that the unsteered model answers.
    """

    harmful: Reading
    harmless: Reading


def refit(
    baseline: Measurements,
    view: LayerView,
    tuning: Tuning,
    material: Material,
    options: MarsOptions,
) -> LayerView:
    """Tune the modalities that labeled requests show; without such requests nothing changes.

    The weakest strength that refuses about as many harmful requests of one half as any is taken,
    and the origin with the largest reserve, none above the present one, at which it refuses as
    many. The origin rises only where harmless requests need that. The other half says what
    that brought: where it does not help, or opens the gate for harmless requests too often, the
    modality stays as it was.

    Args:
        baseline: The unsteered model, with the requests.
        view: The chosen layer.
        tuning: Its strength.
        material: Decision requests; harmful text beside neutral stimuli must still be pushed.
        options: `gain` and `radius` fix a value, `reserve` is that of `view`.

    Returns:
        The layer with what was applied; `tuned` says it of each modality.
    """
    for modality in baseline.data.tuning.modalities if baseline.data.tuning else ():
        fit, held_out = _part(baseline, modality, False), _part(baseline, modality, True)
        if min(len(fit.harmless), len(held_out.harmless)) < _FEWEST:
            view = replace(view, tuned=(*view.tuned, _untouched(view, modality, held_out)))
            continue
        search = _Search(baseline, view, tuning, options, modality, fit)
        other, reserve = search.best()
        before, after = (_held_out(baseline, v, tuning, held_out) for v in (view, other))
        inert = float(view.placed(material.harmful[modality]).max()) <= other.origin[modality]
        reason = _objection(before, after, len(held_out.harmless), inert)
        tuned = Tuned(
            modality=modality, applied=not reason, reason=reason, origin=view.origin[modality],
            reserve=reserve, before=before, after=after, **_counts(held_out),
        )  # fmt: skip
        view = replace(view if reason else other, tuned=(*view.tuned, tuned))
    return view


@dataclass(frozen=True)
class _Search:
    """What may be chosen for one modality.

    Attributes:
        baseline: The unsteered model.
        view: The layer without these requests.
        tuning: Its strength.
        options: `gain` and `radius` fix a value.
        modality: Which one.
        fit: The requests to choose on.
    """

    baseline: Measurements
    view: LayerView
    tuning: Tuning
    options: MarsOptions
    modality: Modality
    fit: _Part

    def best(self) -> tuple[LayerView, float]:
        """The layer with the chosen origin and strength, and the reserve of the origin over R."""
        least, size = self._least(), self.view.separation
        every = [self._with(least, strength) for strength in self._strengths()]
        counts = [self._refused(view) for view in every]
        # One request more is no reason to push harder.
        chosen = next(i for i, count in enumerate(counts) if count >= max(counts) - 1)
        strength = every[chosen].strengths[self.modality]
        for reserve in _RESERVES:
            origin = least + reserve * size
            other = self._with(origin, strength)
            spares = origin <= self.view.origin[self.modality]
            if spares and self._refused(other) >= counts[chosen]:
                return other, reserve
        return every[chosen], 0.0

    def _least(self) -> float:
        """Least origin: above what harmless requests need, neutral stimuli and those to tune on.

        The present origin will do unless the latter show that the gate opens too often.
        """
        view, placed = self.view, self.view.placed(self.fit.harmless)
        present = view.origin[self.modality]
        neutral = present - self.options.reserve * view.separation
        least = max(neutral, prediction_bound(placed))
        often = surprising(int((placed > present).sum()), len(placed))
        return least if often else min(least, present)

    def _strengths(self) -> Iterator[Strength]:
        """Weakest first."""
        placed = self.view.placed(self.fit.harmful)
        edge = float(tolerance_bound(placed, strict=False))
        gains = (self.options.gain,) if self.options.gain else _GAINS
        radii = (self.options.radius,) if self.options.radius else _RADII
        for cap in dict.fromkeys((self.view.cap, max(self.view.cap, edge))):
            for radius in radii:
                for gain in gains:
                    yield Strength(cap=cap, gain=gain, radius=radius)

    def _with(self, origin: float, strength: Strength) -> LayerView:
        widest = origin + LEAST_GATE_WIDTH * self.view.separation
        harmful = max(self.view.harmful[self.modality], widest)
        return replace(
            self.view,
            origin={**self.view.origin, self.modality: origin},
            harmful={**self.view.harmful, self.modality: harmful},
            strengths={**self.view.strengths, self.modality: strength},
        )

    def _refused(self, view: LayerView) -> int:
        rule = view.rule(self.tuning.gain, self.tuning.radius)
        return _refused(self.baseline, view, rule, self.fit.harmful)


def _part(baseline: Measurements, modality: Modality, held_out: bool) -> _Part:
    harmful, harmless = (_reading(baseline, modality, held_out, label) for label in LABELS)
    return _Part(harmful, harmless.where(~harmless.readout.refused))


def _reading(baseline: Measurements, modality: Modality, held_out: bool, label: Label) -> Reading:
    assert baseline.data.tuning is not None
    requests = baseline.data.tuning.half(held_out, modality, label)
    n = len(requests)
    return Reading(requests, baseline.read(requests), ((),) * n, tuple(range(n)))


def _refused(baseline: Measurements, view: LayerView, rule: Rule, reading: Reading) -> int:
    """Requests that are refused by the likeliest first token, steered."""
    return int(baseline.reader.read(reading.requests, edit=view.steered(rule)).refused.sum())


def _held_out(baseline: Measurements, view: LayerView, tuning: Tuning, part: _Part) -> HeldOut:
    rule = view.rule(tuning.gain, tuning.radius)
    done = effect(baseline, view, rule, part.harmless)
    count = int(done.open.sum())
    return HeldOut(
        refused=_refused(baseline, view, rule, part.harmful),
        open=count,
        bound=upper_bound(count, len(part.harmless)),
        newly_refused=done.refusals,
    )


def _objection(before: HeldOut, after: HeldOut, harmless: int, inert: bool) -> str:
    """Why the held-out requests speak against it, as a clause; empty if they do not."""
    goal = OPEN_LIMIT * harmless
    if inert:
        return "the gate would be shut for harmful text beside every neutral stimulus"
    if after.open > max(before.open, goal):
        return f"the gate would be open for {after.open} of {harmless} held-out harmless requests"
    if after.newly_refused > max(before.newly_refused, goal):
        return f"{after.newly_refused} of {harmless} held-out harmless requests would be refused"
    if after.refused < before.refused and before.open <= goal:
        return (
            f"{after.refused} held-out harmful requests would be refused, and {before.refused} are "
            "without"
        )
    if after.refused <= before.refused and after.open >= before.open:
        return "it changes nothing for held-out requests"
    return ""


def _counts(part: _Part) -> dict[str, int]:
    return {
        "harmful": len(part.harmful),
        "refused": int(part.harmful.readout.refused.sum()),
        "harmless": len(part.harmless),
    }


def _untouched(view: LayerView, modality: Modality, part: _Part) -> Tuned:
    """Of a modality whose harmless requests the model refuses itself."""
    nothing = HeldOut(refused=0, open=0, bound=1.0, newly_refused=0)
    return Tuned(
        modality=modality, applied=False, origin=view.origin[modality], reserve=0.0,
        reason="the unsteered model itself refuses too many of the harmless requests",
        before=nothing, after=nothing, **_counts(part),
    )  # fmt: skip
