"""What a model card says of MARS. Free of torch.

A3.n are sections of docs/method.md.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from mars_export.calibration.source import DirectionSource
from mars_export.common.markdown import DASH, minus, num, templates, unbroken
from mars_export.common.names import PLOTS
from mars_export.common.vocabulary import Modality, plural
from mars_export.methods.base import ArtefactRecord, MethodSection
from mars_export.methods.mars.record import (
    KL_LIMIT,
    OPEN_LIMIT,
    TIE,
    Check,
    Condition,
    LayerRule,
    LayerScore,
    Margin,
    MarsRecord,
    Tuned,
    mars_record,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CITATIONS", "CONDITIONS", "DIRECTIONS", "SCORES", "SEPARATION", "THREATS", "section"]

CONDITIONS: Final = f"{PLOTS}/conditions.png"
SCORES: Final = f"{PLOTS}/layer_scores.png"
SEPARATION: Final = f"{PLOTS}/layer_separation.png"

RHO: Final = "\N{GREEK SMALL LETTER RHO}"

DIRECTIONS: Final[Mapping[DirectionSource, str]] = {
    "difference-of-means": "The refusal direction r is the normalized difference between the mean "
    "activations on harmful and on harmless *text*.",
    "pca": "The refusal direction r (`--direction pca`) is the first principal component of the "
    "activations on harmful and on harmless *text*, around the midpoint of their means "
    "([arXiv 2409.05907](https://arxiv.org/abs/2409.05907)).",
    "probe": "The refusal direction r (`--direction probe`) is a linear discriminant between the "
    "activations on harmful and on harmless *text* "
    "([arXiv 2310.06824](https://arxiv.org/abs/2310.06824)).",
    "self-guard": "The refusal direction r (`--direction self-guard`) is what a safety prompt adds "
    "to the mean activation on harmful *text*, normalized (after "
    "[arXiv 2602.00707](https://arxiv.org/abs/2602.00707)).",
}
SUMMARY: Final = (
    "At the steered positions (see *position* below) the output h of one "
    "decoder layer is projected onto r, and β is subtracted: how far neutral stimuli of the "
    "request's modality move activations along r, by the turn and its media tokens. A "
    "gate then decides. At or below the modality's origin o nothing happens; above it h moves "
    "along r, but never past c, the edge of the harmful text data, and never by more than "
    f"{RHO}R. Only the projection is re-centered; h itself is not."
)
FORMULA: Final = (
    "p = <h, r> - β(modality, media tokens of the turn, turn)\n"
    "gate = max(0, (p - o) / (p_u - o))    o, p_u of the modality\n"
    f"h <- h + min(κ R gate, max(0, c - p), {RHO} R) r"
)
CITATIONS: Final = (
    "Method: Harnessing Textual Refusal Directions for Multimodal Safety, "
    "[arXiv 2606.31876](https://arxiv.org/abs/2606.31876)",
    "Refusal direction: Refusal in Language Models Is Mediated by a Single Direction, "
    "[arXiv 2406.11717](https://arxiv.org/abs/2406.11717)",
)
LIMITS: Final = (
    "Steering acts where an answer begins. It cannot stop an answer that somebody else began "
    "(assistant prefill) or one that turns harmful later.",
    "Re-centering knows modality, number of media tokens and turn, and was measured on neutral "
    "stimuli. Real media may shift activations differently, so some over-refusal can remain.",
    "The paper leaves parts of the method open, and the authors' code was not available: the gate, "
    "the strength rule and the layer scores are a reconstruction.",
)
THREATS: Final = (
    "**Use of the direction itself.** It is stored in a named tensor (`direction` of the steered "
    "layer); removing it from the activations is a known way to make a model comply.",
    "**Adaptive attackers**, who can optimize a prompt or a medium until the gate stays shut.",
    "**Prefill and edited templates**: the model is steered at the end of an assistant header; "
    "this is not known to stop an answer that has begun behind it.",
)
TREATMENTS: Final[dict[str, str]] = {
    "shift": "calibrated as a shift",
    "origin": "in the origin's mixture",
    "none": "does not matter",
    "left out": "**left out: a finding**",
    "refused": "left out: the base refuses them itself",
}
_CHOICES: Final[dict[LayerRule, str]] = {
    "scores": "by its scores on text alone**: the greatest mean of consistency, separability and "
    "margin among the layers that pass two causal checks on text; of layers within "
    f"{TIE:g} of the best, the one where adding the direction makes harmless text refused most.",
    "lift": "by trial beside neutral stimuli** (`--layer-rule lift`): of the layers with the best "
    "scores on text, the one where the largest allowed push adds most refusal.",
}


class _ModalityRow(NamedTuple):
    """Numbers of one modality over R; coordinates from the mean of harmless text."""

    modality: Modality
    shift: float
    origin: float
    harmful: float
    compression: float | None
    check: Check | None
    """Of all harmless requests that the origin covers."""
    margin: Margin | None


def section(artefact: ArtefactRecord) -> MethodSection:
    """The section of a checkpoint's card, from its calibration."""
    record, plots = mars_record(artefact), _plots(artefact)
    tried = [score for score in record.scores if score.induced is not None]
    environment = templates("mars_export.methods.mars")
    environment.filters |= {
        "open": _open,
        "margin": _margin,
        "share": _percent,
        "movement": _movement,
        "nats": _nats,
    }
    details = environment.get_template("card.md.j2").render(
        record=record,
        source=artefact.source,
        choice=_CHOICES[record.layer_rule],
        other_rule=_other_rule(record),
        vetoed=_vetoed(record),
        by_rule=_by_rule(record),
        modalities=_modalities(record),
        conditions=_conditions(record),
        treatments=TREATMENTS,
        knots=_knots(record),
        tried=tried,
        lifted=any(score.lift is not None for score in tried),
        kl_limit=KL_LIMIT,
        open_limit=_percent(OPEN_LIMIT),
        reserve=f"{record.reserve:.3g} R",
        strengths=_strengths(record),
        tuned=[plural(tuned.modality) for tuned in record.tuned if tuned.applied],
        plots=plots,
        CONDITIONS=CONDITIONS,
        SCORES=SCORES,
        SEPARATION=SEPARATION,
    )
    return MethodSection(
        summary=f"{DIRECTIONS[record.direction]} {SUMMARY}",
        formula=FORMULA,
        details=details.strip(),
        citations=CITATIONS,
        tuning=_tuning(record),
        limits=LIMITS,
        threats=THREATS,
        plots=plots,
    )


def _tuning(record: MarsRecord) -> str:
    """What labeled requests were used for, in sentences."""
    applied = [plural(tuned.modality) for tuned in record.tuned if tuned.applied]
    what = (
        f"One half of their topics chose where the gate of {' and '.join(applied)} opens and how "
        "far they are pushed; direction and layer come from text alone"
        if applied
        else "One half of their topics was to choose origin and strength, and nothing came of it"
    )
    lines = [
        f"{plural(tuned.modality)}: refused harmful {tuned.refused} unsteered, "
        f"{tuned.before.refused} before, {tuned.after.refused} after tuning, of {tuned.harmful}; "
        f"harmless newly refused {tuned.before.newly_refused} before, "
        f"{tuned.after.newly_refused} after, of {tuned.harmless}; gate open "
        f"{tuned.before.open} before, {tuned.after.open} after (at most "
        f"{100 * tuned.after.bound:.1f} %){_not_applied(tuned)}"
        for tuned in record.tuned
    ]
    return f"{what}. By the first token, of the other half, {'; '.join(lines)}."


def _not_applied(tuned: Tuned) -> str:
    return "" if tuned.applied else f"; **not applied**, as {tuned.reason}"


def _strengths(record: MarsRecord) -> str:
    """c, kappa and rho of the modalities with their own, in one sentence; empty for none."""
    parts = (
        f"{plural(modality)} {num(own.cap)}, {num(own.gain)}, {num(own.radius)}"
        for modality, own in record.strengths.items()
    )
    return f"c, κ, {RHO} as tuned: {'; '.join(parts)}." if record.strengths else ""


def _plots(artefact: ArtefactRecord) -> dict[str, Callable[[], "Figure"]]:
    from mars_export.methods.mars import figures

    record = mars_record(artefact)
    plots: dict[str, Callable[[], Figure]] = {}
    if record.conditions:
        plots[CONDITIONS] = partial(figures.conditions, artefact)
    if record.scores:
        plots[SCORES] = partial(figures.scores, artefact)
    if any(score.groups for score in record.scores):
        plots[SEPARATION] = partial(figures.separation, artefact)
    return plots


def _modalities(record: MarsRecord) -> list[_ModalityRow]:
    size = record.separation
    checks = {check.modality: check for check in record.checks if check.name == "all"}
    margins = {margin.modality: margin for margin in record.margins}
    return [
        _ModalityRow(
            modality,
            shift.at() / size,
            (record.origin[modality] - record.harmless) / size,
            (record.harmful[modality] - record.harmless) / size,
            1.0 if modality == "text" else record.compression.get(modality),
            checks.get(modality),
            margins.get(modality),
        )
        for modality, shift in record.shift.items()
    ]


def _conditions(record: MarsRecord) -> list[tuple[Condition, Check | None]]:
    """Each with its check; first those that were left out."""
    checks = {(check.modality, check.name): check for check in record.checks}
    order = sorted(record.conditions, key=lambda c: c.treatment != "left out")
    return [(c, checks.get((c.modality, c.name))) for c in order]


def _knots(record: MarsRecord) -> list[tuple[Modality, str, str]]:
    """Of modalities whose shift varies: beta at each number of media tokens, and the turns."""
    size = record.separation
    return [
        (
            modality,
            ", ".join(
                f"{tokens}: {num(beta / size)}"
                for tokens, beta in zip(shift.tokens, shift.values, strict=True)
            ),
            ", ".join(num(turn / size) for turn in shift.turns[1:]) or DASH,
        )
        for modality, shift in record.shift.items()
        if len(shift.tokens) > 1 or len(shift.turns) > 1
    ]


def _failed(score: LayerScore) -> bool:
    """Whether a causal check turned the layer down (arXiv 2406.11717)."""
    return score.induced is not None and not (
        score.induced > 0 and score.kl is not None and score.kl <= KL_LIMIT
    )


def _most_lift(record: MarsRecord) -> int | None:
    """The layer that the lift rule takes of those that it tried; None where it tried none."""
    lifts = {s.layer: s.lift for s in record.scores if s.lift is not None and not _failed(s)}
    best = max(lifts, key=lambda layer: lifts[layer], default=None)
    return best if best is not None and lifts[best] > 0 else None


def _best_score(record: MarsRecord) -> int | None:
    """The layer that the scores on text choose; None where it was not tried."""
    ranked = sorted(
        (s for s in record.scores if s.combined is not None), key=lambda s: -(s.combined or 0.0)
    )
    while ranked:
        least = (ranked[0].combined or 0.0) - TIE
        equal = [s for s in ranked if (s.combined or 0.0) >= least]
        ranked = ranked[len(equal) :]
        passed = [s for s in equal if s.induced is not None and not _failed(s)]
        if passed:
            return max(passed, key=lambda s: s.induced or 0.0).layer
    return None


def _vetoed(record: MarsRecord) -> list[int]:
    """Layers with better scores than the chosen one that a causal check turned down."""
    combined = {s.layer: s.combined for s in record.scores if s.combined is not None}
    failed = {s.layer for s in record.scores if _failed(s)}
    chosen = combined.get(record.layer, 1.0)
    return [layer for layer in combined if layer in failed and combined[layer] > chosen]


def _by_rule(record: MarsRecord) -> bool:
    """Whether the recorded trials, if there are any, lead to the recorded layer."""
    pick = _best_score if record.layer_rule == "scores" else _most_lift
    return pick(record) in (None, record.layer)


def _other_rule(record: MarsRecord) -> str:
    """What the rule that was not used would have chosen."""
    if record.layer_rule == "lift":
        best, rule = _best_score(record), "By scores on text alone (`--layer-rule scores`)"
    else:
        best, rule = _most_lift(record), "By trial beside neutral stimuli (`--layer-rule lift`)"
        if sum(score.lift is not None for score in record.scores) < 2:
            return "The other rule, `--layer-rule lift`, tries pushes beside neutral stimuli."
    return "" if best is None else f"{rule} it would be layer {best} of those tried."


def _open(counted: Check | Margin | None) -> str:
    """`k/n`, of harmless requests with the upper bound; a dash for None."""
    if counted is None:
        return DASH
    bound = f" (at most {100 * counted.bound:.1f} %)" if isinstance(counted, Check) else ""
    return unbroken(f"{counted.open}/{counted.n}{bound}")


def _margin(margin: Margin | None) -> str:
    return DASH if margin is None else f"{num(margin.median)} ({num(margin.low)})"


def _percent(share: float | None) -> str:
    return DASH if share is None else unbroken(f"{100 * share:.0f} %")


def _movement(value: float) -> str:
    rounded = round(value, 2)
    return minus(f"{rounded:+.2f}") if rounded else "0"


def _nats(value: float | None) -> str:
    return unbroken("< 0.001") if value is not None and 0 < value < 0.001 else num(value)
