"""Which layer is steered, and how strongly: what a bounded push does beside a neutral stimulus.

A3.n are sections of docs/method.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch

from mars_export.calibration.activations import Edit
from mars_export.calibration.measurements import Measurements
from mars_export.calibration.refusal import divergence
from mars_export.calibration.source import Group
from mars_export.common.errors import UnsteerableError
from mars_export.methods.mars.layers import Layers, LayerView
from mars_export.methods.mars.record import KL_LIMIT, MarsOptions
from mars_export.methods.mars.rule import Rule

__all__ = ["GAIN", "RADIUS", "Trial", "Tuning", "choose", "forecast", "try_layer", "tune"]

GAIN: Final = 2.0
RADIUS: Final = 1.0
"""kappa and rho before tuning (A3.4)."""

_LADDER: Final = ((GAIN, RADIUS), (3.0, RADIUS), (GAIN, 1.5), (3.0, 1.5))
"""(kappa, rho), weakest first; weaker ones than the defaults are not needed, because the chosen
layer passed its KL check with the defaults."""

_TOLERANCE: Final = 0.5
"""Nats by which refusal beside a stimulus may fall short of refusal of the same text alone."""


@dataclass(frozen=True)
class Trial:
    """Outcome of a layer's causal checks (A3.5).

    Attributes:
        layer: Decoder layer.
        induced: Mean refusal log-odds on harmless text after adding the whole difference in means.
        kl: Largest mean first-token KL of the gated edit over the modalities, nats.
        lift: Refusal log-odds that the longest push allowed adds to harmless text beside a
            neutral stimulus; mean over requests, least over modalities.
    """

    layer: int
    induced: float
    kl: float
    lift: float

    @property
    def failures(self) -> list[str]:
        """The checks that failed, each with its value and threshold; NaN fails."""
        checks = (
            (self.induced > 0, f"the induced refusal log-odds are {self.induced:.2f}, not above 0"),
            (
                self.kl <= KL_LIMIT,
                f"the KL on harmless inputs is {self.kl:.3f} nats, above {KL_LIMIT:g}",
            ),
            (
                self.lift > 0,
                f"the lift of the refusal log-odds by the largest push is {self.lift:.2f}, "
                "not above 0",
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


def choose(
    baseline: Measurements, layers: Layers, options: MarsOptions
) -> tuple[LayerView, list[Trial]]:
    """Choose the layer to steer.

    Layers are tried in the order of their text scores, `finalists` at a time, until some pass;
    among those the one with the greatest lift wins. One named in the options is taken if its gate
    makes sense at all.

    Returns:
        The layer and the trials made, in the order tried.

    Raises:
        ExportError: No layer passes; the message names the check that failed.
    """
    if options.layer is not None:
        view = _named(layers, options.layer)
        return view, [try_layer(baseline, view)]
    ranked = layers.ranking()
    trials: list[Trial] = []
    for start in range(0, len(ranked), options.finalists):
        together = ranked[start : start + options.finalists]
        group = [try_layer(baseline, layers.at(layer)) for layer in together]
        trials += group
        passed = [trial for trial in group if not trial.failures]
        if passed:
            best = max(passed, key=lambda trial: trial.lift)
            return layers.at(best.layer), trials
    best = max(trials, key=lambda trial: trial.induced)
    raise UnsteerableError(
        f"No usable refusal direction: at layer {best.layer}, the best of {len(trials)} tried, "
        f"{best.failures[0]}. Choose a base that refuses harmful text reliably, or give other "
        "prompts."
    )


def try_layer(baseline: Measurements, view: LayerView) -> Trial:
    """Run the three causal checks at one layer."""
    rule, whole = view.rule(GAIN, RADIUS), view.separation

    def added(h: torch.Tensor) -> torch.Tensor:
        strength = torch.full(h.shape[:-1], whole, device=h.device)
        return rule.to(h.device).push(h.float(), strength).to(h.dtype)

    text = baseline.text["harmless"].decision.requests
    induced = baseline.reader.read(text, edit=Edit(view.layer, added)).log_odds
    beside_text = _harmless(baseline)[1:] or _harmless(baseline)
    lifts = []
    for group in beside_text:
        requests, before = baseline.validation[group].requests, baseline.validation[group].readout
        edit = view.pushed_to_the_limit(rule, group.modality)
        after = baseline.reader.read(requests, edit=edit)
        lifts.append(float((after.log_odds - before.log_odds).mean()))
    return Trial(view.layer, float(induced.mean()), _divergence(baseline, view, rule), min(lifts))


def tune(baseline: Measurements, view: LayerView, options: MarsOptions) -> Tuning:
    """Choose kappa and rho from text and neutral stimuli (A3.4).

    The defaults (2, 1) stay if harmful text beside neutral stimuli, steered, is refused as strongly
    as the same text alone. Else the next stronger pair is taken at which it is, and whose KL on
    harmless inputs keeps within the limit; if there is none, the defaults stay, and
    `reached` or the layer's recorded checks say so.

    Args:
        baseline: The unsteered model.
        view: The chosen layer.
        options: `gain` and `radius` fix a value.
    """
    pairs = [(options.gain or gain, options.radius or radius) for gain, radius in _LADDER]
    beside_text = [g for g in baseline.validation if g.label == "harmful" and g.modality != "text"]
    if not beside_text:
        return Tuning(*pairs[0])
    alone = baseline.validation[Group("harmful", "text")].readout.log_odds
    goal = float(alone.mean()) - _TOLERANCE
    tunings: list[Tuning] = []
    for gain, radius in dict.fromkeys(pairs):
        rule = view.rule(gain, radius)
        reached = min(_refusal(baseline, view, rule, group) for group in beside_text)
        tunings.append(Tuning(gain, radius, reached, goal))
        # NaN does not reach the goal either.
        if reached >= goal and _divergence(baseline, view, rule) <= KL_LIMIT:
            return tunings[-1]
    return tunings[0]


def forecast(counts: Sequence[int], options: MarsOptions) -> int:
    """About how many requests `choose` and `tune` run.

    Args:
        counts: Validation requests of text, then of all stimuli, then harmful ones
            beside stimuli.
        options: Of the calibration.
    """
    text, neutral, harmful = counts
    layers = 1 if options.layer is not None else options.finalists
    return layers * (2 * text + 2 * neutral) + text + neutral + harmful


def _named(layers: Layers, layer: int) -> LayerView:
    view = layers.at(layer)
    over = max(view.origin[m] - view.harmful[m] for m in view.origin)
    if not over < 0:
        raise UnsteerableError(
            f"Layer {layer} cannot be steered: its gate origin lies {over:.3g} above the harmful "
            "centroid; take another layer."
        )
    return view


def _harmless(baseline: Measurements) -> list[Group]:
    """Groups of harmless validation requests, text first."""
    return [group for group in baseline.validation if group.label == "harmless"]


def _refusal(baseline: Measurements, view: LayerView, rule: Rule, group: Group) -> float:
    """Mean refusal log-odds of a group, steered."""
    edit = view.steered(rule, group.modality)
    requests = baseline.validation[group].requests
    return float(baseline.reader.read(requests, edit=edit).log_odds.mean())


def _divergence(baseline: Measurements, view: LayerView, rule: Rule) -> float:
    """Largest mean first-token KL(base || steered) over the harmless groups, nats."""
    worst = 0.0
    for group in _harmless(baseline):
        before = baseline.validation[group]
        edit = view.steered(rule, group.modality)
        after = baseline.reader.read(before.requests, log_probs=True, edit=edit)
        worst = max(worst, float(divergence(before.readout.log_probs, after.log_probs).mean()))
    return worst
