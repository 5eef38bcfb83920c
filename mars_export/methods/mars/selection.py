"""The causal tie-break: at which layer a bounded push makes the model refuse beside a picture."""

from dataclasses import dataclass
from typing import Final

from mars_export.calibration.activations import Reader
from mars_export.calibration.measurements import Measured
from mars_export.calibration.refusal import divergence
from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import Modality
from mars_export.methods.mars.arithmetic import Bounds
from mars_export.methods.mars.edits import added, bounded, gated
from mars_export.methods.mars.layers import Landscape

__all__ = [
    "GAIN",
    "KL_LIMIT",
    "RADIUS",
    "Checks",
    "Trial",
    "choose",
    "gated_divergence",
    "try_layer",
]

KL_LIMIT: Final = 0.1
"""Largest first-token KL on harmless inputs, nats (arXiv 2406.11717; method A3.5)."""

GAIN: Final = 2.0
RADIUS: Final = 1.0
"""kappa and rho before tuning (A3.4)."""

Checks = dict[Modality, Measured]
"""Harmless validation requests of each modality, with their unsteered readouts; `text` is there."""


@dataclass(frozen=True)
class Trial:
    """Outcome of a layer's causal checks.

    Attributes:
        layer: Decoder layer.
        induced: Mean refusal log-odds on harmless text after adding the whole difference in means.
        kl: Largest mean first-token KL of the gated edit over the modalities, nats.
        lift: Refusal log-odds that the largest push allowed adds to harmless text beside a
            neutral visual; mean over requests, least over modalities.
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
        return [said for passed, said in checks if not passed]


def choose(
    reader: Reader, landscape: Landscape, checks: Checks, finalists: int
) -> tuple[int, list[Trial]]:
    """Choose the layer to steer.

    Layers are tried in the order of their text scores, `finalists` at a time, until some pass;
    among those the one with the greatest lift wins.

    Args:
        reader: Runs the model.
        landscape: Scores of every layer.
        checks: Harmless validation requests.
        finalists: How many layers are compared at a time.

    Returns:
        The layer and the trials made, in the order tried.

    Raises:
        ExportError: No layer passes; the message names the check that failed.
    """
    ranked = landscape.ranking()
    trials: list[Trial] = []
    for start in range(0, len(ranked), finalists):
        group = [try_layer(reader, landscape, checks, i) for i in ranked[start : start + finalists]]
        trials += group
        passed = [trial for trial in group if not trial.failures]
        if passed:
            return max(passed, key=lambda trial: trial.lift).layer, trials
    best = max(trials, key=lambda trial: trial.induced)
    raise ExportError(
        f"No usable refusal direction: at layer {best.layer}, the best of {len(trials)} tried, "
        f"{best.failures[0]}. Choose a base that refuses harmful text reliably, or give other "
        "prompts."
    )


def try_layer(reader: Reader, landscape: Landscape, checks: Checks, layer: int) -> Trial:
    """Run the three causal checks at one layer."""
    direction = landscape.direction(layer)
    size = float(landscape.text.separation[layer])
    bounds = landscape.bounds(layer, GAIN, RADIUS)
    induced = reader.read(checks["text"].requests, edit=added(layer, direction, size)).log_odds
    lifts = []
    for modality, measured in checks.items():
        if modality != "text" or len(checks) == 1:
            edit = bounded(layer, direction, float(landscape.shift[modality][layer]), bounds)
            pushed = reader.read(measured.requests, edit=edit).log_odds
            lifts.append(float((pushed - measured.readout.log_odds).mean()))
    kl = gated_divergence(reader, landscape, checks, layer, bounds)
    return Trial(layer, float(induced.mean()), kl, min(lifts))


def gated_divergence(
    reader: Reader, landscape: Landscape, checks: Checks, layer: int, bounds: Bounds
) -> float:
    """Largest mean first-token KL(base || steered) over the modalities, nats."""
    worst = 0.0
    for modality, measured in checks.items():
        shift = float(landscape.shift[modality][layer])
        edit = gated(layer, landscape.direction(layer), shift, bounds)
        steered = reader.read(measured.requests, log_probs=True, edit=edit)
        kl = divergence(measured.readout.log_probs, steered.log_probs)
        worst = max(worst, float(kl.mean()))
    return worst
