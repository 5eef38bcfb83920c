"""Which layer is steered, and how strongly: causal checks on text, then beside neutral stimuli.

A3.n are sections of docs/method.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import torch

from mars_export.calibration.activations import Edit
from mars_export.calibration.measurements import Measurements, Reading
from mars_export.calibration.refusal import divergence
from mars_export.common.errors import UnsteerableError
from mars_export.common.vocabulary import Modality
from mars_export.methods.mars.layers import LEAST_GATE_WIDTH, Layers
from mars_export.methods.mars.material import Material
from mars_export.methods.mars.record import KL_LIMIT, TIE, MarsOptions
from mars_export.methods.mars.rule import Rule
from mars_export.methods.mars.view import LayerView, text_view, view_of

__all__ = [
    "COMPRESSED",
    "GAIN",
    "RADIUS",
    "Effect",
    "Trial",
    "Tuning",
    "by_lift",
    "by_scores",
    "corrected",
    "effect",
    "reached",
    "try_layer",
    "tune",
]

GAIN: Final = 2.0
RADIUS: Final = 1.0
"""kappa and rho before tuning (A3.4)."""

_LADDER: Final = ((GAIN, RADIUS), (3.0, RADIUS), (GAIN, 1.5), (3.0, 1.5))
"""(kappa, rho), weakest first."""

_TOLERANCE: Final = 0.5
"""Nats by which refusal beside a stimulus may fall short of refusal of the same text alone."""

_TRIED: Final = 64
"""Harmless texts that a layer is tried on."""

COMPRESSED: Final = 0.9
"""Separation beside a stimulus, over that of text, below which the gate's scale is looked at."""

_HELPS: Final = 0.1
"""Nats of refusal log-odds that a correction of the scale has to add on held-out requests."""


@dataclass(frozen=True)
class Trial:
    """Outcome of a layer's causal checks (A3.5).

    Attributes:
        layer: Decoder layer.
        induced: Mean refusal log-odds on harmless text after adding the whole difference in means.
        kl: Mean first-token KL of the gated edit on harmless requests, nats; of text, or the
            largest over the modalities where the layer is chosen by lift.
        lift: Refusal log-odds that the longest push allowed adds to harmless text beside a
            neutral stimulus, or to text; mean over requests, least over modalities. None if the
            layer is chosen by its scores.
    """

    layer: int
    induced: float
    kl: float
    lift: float | None = None

    @property
    def failures(self) -> list[str]:
        """The checks that failed, each with its value and threshold; NaN fails."""
        lift = 1.0 if self.lift is None else self.lift
        checks = (
            (self.induced > 0, f"the induced refusal log-odds are {self.induced:.2f}, not above 0"),
            (
                self.kl <= KL_LIMIT,
                f"the KL on harmless inputs is {self.kl:.3f} nats, above {KL_LIMIT:g}",
            ),
            (
                lift > 0,
                f"the lift of the refusal log-odds by the largest push is {lift:.2f}, not above 0",
            ),
        )
        return [reason for passed, reason in checks if not passed]


class Tuning(NamedTuple):
    """The chosen strength and how far it gets.

    Attributes:
        gain: kappa.
        radius: rho.
        reached: Mean refusal log-odds of harmful text beside neutral stimuli, steered; least over
            their modalities. None if there are none.
        goal: What `reached` should be at least. None if there are no such modalities.
    """

    gain: float
    radius: float
    reached: float | None = None
    goal: float | None = None


class Effect(NamedTuple):
    """What steering does to harmless requests.

    open: (N,) bool, whose gate is open. kl: mean first-token KL(base || steered), nats; 0 where the
    gate is shut, as nothing is changed there. refusals: requests whose first token becomes one.
    """

    open: torch.Tensor
    kl: float
    refusals: int


def by_scores(baseline: Measurements, layers: Layers) -> list[Trial]:
    """Try layers in the order of their text scores until one passes; that one comes last.

    Layers whose scores are about equal are tried together, and the one of them that induces most
    refusal on text is taken.

    Raises:
        ExportError: No layer passes; the message names the check that failed.
    """
    ranked = layers.ranking()
    trials: list[Trial] = []
    while ranked:
        best = float(layers.combined[ranked[0]])
        equal = [i for i in ranked if float(layers.combined[i]) >= best - TIE]
        group = [try_layer(baseline, text_view(layers, layer)) for layer in equal]
        ranked = [layer for layer in ranked if layer not in equal]
        passed = [trial for trial in group if not trial.failures]
        if passed:
            chosen = max(passed, key=lambda trial: trial.induced)
            return [*trials, *(t for t in group if t != chosen), chosen]
        trials += group
    raise _unusable(trials)


def by_lift(
    baseline: Measurements, layers: Layers, material: Material, options: MarsOptions
) -> list[Trial]:
    """Try layers by their text scores, `finalists` at a time; the greatest lift comes last.

    Raises:
        ExportError: No layer passes; the message names the check that failed.
    """
    ranked = layers.ranking()
    trials: list[Trial] = []
    for start in range(0, len(ranked), options.finalists):
        group = [
            _with_lift(baseline, view_of(layers, material, layer, options.reserve), material)
            for layer in ranked[start : start + options.finalists]
        ]
        passed = [trial for trial in group if not trial.failures]
        if passed:
            chosen = max(passed, key=lambda trial: trial.lift or 0.0)
            return [*trials, *(t for t in group if t != chosen), chosen]
        trials += group
    raise _unusable(trials)


def try_layer(baseline: Measurements, view: LayerView) -> Trial:
    """Run the two causal checks at one layer, on text alone."""
    harmless = _first(baseline.text["harmless"].decision)
    rule, whole = view.rule(GAIN, RADIUS), view.separation

    def added(h: torch.Tensor, _context: torch.Tensor) -> torch.Tensor:
        strength = torch.full(h.shape[:-1], whole, device=h.device)
        return rule.to(h.device).push(h.float(), strength).to(h.dtype)

    induced = baseline.reader.read(harmless.requests, edit=Edit(view.layer, added)).log_odds
    kl = effect(baseline, view, rule, baseline.text["harmless"].decision).kl
    return Trial(view.layer, float(induced.mean()), kl)


def _with_lift(baseline: Measurements, view: LayerView, material: Material) -> Trial:
    """The checks of `try_layer` beside neutral stimuli as well, and the lift."""
    rule = view.rule(GAIN, RADIUS)
    plain = {modality: kinds[0].answered for modality, kinds in material.harmless.items()}
    kl = max(effect(baseline, view, rule, reading).kl for reading in plain.values())
    visual: list[Modality] = [m for m in plain if m != "text"] or ["text"]
    lifts = []
    for before in (_first(plain[modality]) for modality in visual):
        after = baseline.reader.read(before.requests, edit=view.pushed_to_the_limit(rule))
        lifts.append(float((after.log_odds - before.readout.log_odds).mean()))
    return replace(try_layer(baseline, view), kl=kl, lift=min(lifts))


def effect(baseline: Measurements, view: LayerView, rule: Rule, reading: Reading) -> Effect:
    """Steer those of some harmless requests whose gate is open; the others stay as they are."""
    p, modality = view.placed(reading), reading.readout.context[:, 0]
    is_open = rule.gate(p, modality) > 0
    chosen = reading.where(is_open)
    if not len(chosen):
        return Effect(is_open, 0.0, 0)
    before = baseline.reader.read(chosen.requests, log_probs=True)
    after = baseline.reader.read(chosen.requests, log_probs=True, edit=view.steered(rule))
    kl = float(divergence(before.log_probs, after.log_probs).sum()) / len(reading)
    turned = ~before.refused & after.refused
    return Effect(is_open, kl, int(turned.sum()))


def corrected(baseline: Measurements, view: LayerView, material: Material) -> LayerView:
    """Take p_u of a modality from its own stand-ins where that helps (A3.2, C3).

    p_u is the mean of one half of the harmful text beside neutral stimuli. It replaces the text's
    where refusal of the other half grows, and harmless requests keep within the limit of the KL.
    """
    for modality, kept in (view.compression or {}).items():
        if kept >= COMPRESSED:
            continue
        reading = material.harmful[modality]
        rows = torch.arange(len(reading)) % 2 == 0
        mean = float(view.placed(reading.where(rows)).mean())
        narrowest = view.origin[modality] + LEAST_GATE_WIDTH * view.separation
        other = replace(view, harmful={**view.harmful, modality: max(mean, narrowest)})
        held_out = reading.where(~rows)
        reached = [_refusal(baseline, v, v.rule(GAIN, RADIUS), held_out) for v in (view, other)]
        spared = effect(
            baseline, other, other.rule(GAIN, RADIUS), material.harmless[modality][0].answered
        )
        if reached[1] > reached[0] + _HELPS and spared.kl <= KL_LIMIT:
            view = other
    return view


def tune(
    baseline: Measurements, view: LayerView, material: Material, options: MarsOptions
) -> Tuning:
    """Choose kappa and rho from text and neutral stimuli (A3.4).

    The defaults (2, 1) stay if harmful text beside neutral stimuli, steered, is refused as strongly
    as the same text alone. Else the next stronger pair is taken at which it is, and whose KL on
    harmless requests keeps within the limit; if there is none, the defaults stay, and
    `reached` or the layer's recorded checks say so.

    Args:
        baseline: The unsteered model.
        view: The chosen layer.
        material: Decision requests.
        options: `gain` and `radius` fix a value.
    """
    pairs = [(options.gain or gain, options.radius or radius) for gain, radius in _LADDER]
    visual: list[Modality] = [m for m in material.harmful if m != "text"]
    if not visual:
        return Tuning(*pairs[0])
    goal = float(material.harmful["text"].readout.log_odds.mean()) - _TOLERANCE
    tunings: list[Tuning] = []
    for gain, radius in dict.fromkeys(pairs):
        tuning = reached(baseline, view, Tuning(gain, radius, goal=goal), material)
        tunings.append(tuning)
        rule = view.rule(gain, radius)
        # NaN does not reach the goal either.
        far = tuning.reached is not None and tuning.reached >= goal
        if far and _divergence(baseline, view, rule, material) <= KL_LIMIT:
            return tuning
    return tunings[0]


def reached(baseline: Measurements, view: LayerView, tuning: Tuning, material: Material) -> Tuning:
    """A strength with how far it gets at a layer; without modalities beside text as it is."""
    rule = view.rule(tuning.gain, tuning.radius)
    visual = [reading for m, reading in material.harmful.items() if m != "text"]
    far = [_refusal(baseline, view, rule, reading) for reading in visual]
    return tuning._replace(reached=min(far, default=None))


def _first(reading: Reading) -> Reading:
    return reading.where(torch.arange(len(reading)) < _TRIED)


def _unusable(trials: Iterable[Trial]) -> UnsteerableError:
    tried = list(trials)
    best = max(tried, key=lambda trial: trial.induced)
    return UnsteerableError(
        f"No usable refusal direction: at layer {best.layer}, the best of {len(tried)} tried, "
        f"{best.failures[0]}. Choose a base that refuses harmful text reliably, or give other "
        "prompts."
    )


def _refusal(baseline: Measurements, view: LayerView, rule: Rule, reading: Reading) -> float:
    """Mean refusal log-odds of requests, steered."""
    return float(baseline.reader.read(reading.requests, edit=view.steered(rule)).log_odds.mean())


def _divergence(baseline: Measurements, view: LayerView, rule: Rule, material: Material) -> float:
    """Largest mean first-token KL(base || steered) over plain harmless requests, nats."""
    plain = (kinds[0].answered for kinds in material.harmless.values())
    return max(effect(baseline, view, rule, reading).kl for reading in plain)
