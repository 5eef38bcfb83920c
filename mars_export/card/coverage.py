"""What was evaluated, and what nobody measured."""

from collections.abc import Collection, Iterator
from typing import Final, Literal

from mars_export.card.extent import extents
from mars_export.common.markdown import code
from mars_export.common.vocabulary import Modality
from mars_export.evaluation.adaptive.record import Adaptive
from mars_export.evaluation.report import Report, label
from mars_export.evaluation.variants import ATTACKS
from mars_export.families.quantization import SCHEMES
from mars_export.methods.safety_prompt import SAFETY_PROMPT

__all__ = ["not_evaluated", "status"]

_PUBLISHED: Final = ("hub:", "newest:", "known:")
"""Origins of suites that are published benchmarks."""

_HARM: Final = (
    "Whether an answer does harm. The judge sees refusal style; an answer that is not a refusal "
    "may be harmless, wrong or dangerous."
)
_OVERLAP: Final = "Overlap between the calibration prompts and the evaluation requests."
_BASELINE: Final = "A one-line safety prompt in place of steering, as a baseline."
_UTILITY: Final = "Utility on general benchmarks (MMMU, MMStar, MME, ...)."
_BENCHMARKS: Final = (
    "Public safety and over-refusal benchmarks (HarmBench, FigStep, MM-SafetyBench, XSTest, ...)."
)
_CONTROLS: Final = (
    "Controls: requests in later turns, under a system prompt, beside neutral pictures, with "
    "several pictures, written in a picture, answered by sampling."
)
_ADAPTIVE: Final = (
    "Attackers who adapt: optimized images and suffixes, many draws, rewording, attackers who "
    "know the method."
)
_MORE_ATTACKS: Final = (
    "Attackers who spend more than stated above, attacks that transfer from other models, "
    "optimized videos, attacks on the judge."
)
_SOUNDS: Final = (
    "Other voices, accents and languages, several speakers, music, optimized sounds. Sounds beside "
    "pictures or clips raise an error."
)
_SITUATIONS: Final = (
    "Other languages, long videos, tool use, the other thinking mode of the chat template."
)
_BIAS: Final = "Differences in over-refusal between groups of people (bias)."

_Kind = Literal["control", "attack"]


def status(
    report: Report | None,
    modalities: Collection[Modality],
    utility: bool,
    adaptive: Adaptive | None = None,
) -> str:
    """What was evaluated and what was not, one mark each."""
    groups = _groups(report)
    kinds = {
        harmful: " ".join(f"{m} {_mark((harmful, m) in groups)}" for m in modalities)
        for harmful in (True, False)
    }
    refusals = (
        [f"refusal and over-refusal {kinds[True]}"]
        if kinds[True] == kinds[False]
        else [f"refusal {kinds[True]}", f"over-refusal {kinds[False]}"]
    )
    return " · ".join([
        *refusals,
        f"harm of the answers {_mark(report is not None and bool(report.harm_pairs))}",
        f"utility {_mark(utility)}",
        f"controls {_share(report, modalities, 'control')}",
        f"attacks {_share(report, modalities, 'attack')}",
        f"adaptive attacks {_mark(adaptive is not None and bool(adaptive.curves))}",
    ])  # fmt: skip


def not_evaluated(
    report: Report | None,
    modalities: Collection[Modality],
    utility: bool,
    adaptive: Adaptive | None = None,
) -> tuple[str, ...]:
    """What nobody measured; first what this report could have measured and did not."""
    return (
        *_of_the_requests(report, modalities, utility),
        *([] if utility else [_UTILITY]),
        *_of_the_suites(report),
        *_of_variants(report, modalities),
        *_of_attackers(adaptive),
        *([_SOUNDS] if "audio" in modalities else []),
        _SITUATIONS,
        _BIAS,
        _copies(report),
    )


def _of_the_requests(
    report: Report | None, modalities: Collection[Modality], utility: bool
) -> Iterator[str]:
    groups = _groups(report)
    if report is None:
        yield f"{'Refusal' if utility else 'Anything'}: this directory holds no evaluation report."
    else:
        for modality in modalities:
            for harmful in (True, False):
                if (harmful, modality) not in groups:
                    kind = label(harmful, modality).capitalize()
                    yield f"{kind} requests, although the checkpoint takes {modality}."
    if report is None or not report.harm_pairs:
        yield _HARM
    if report is None or not report.overlap:
        yield _OVERLAP
    if report is None or SAFETY_PROMPT.name not in {arm.name for arm in report.arms}:
        yield _BASELINE


def _of_the_suites(report: Report | None) -> Iterator[str]:
    suites = report.suites if report else []
    if not any(suite.source.origin.startswith(_PUBLISHED) for suite in suites):
        yield _BENCHMARKS


def _of_variants(report: Report | None, modalities: Collection[Modality]) -> Iterator[str]:
    """Controls and attacks that were not run."""
    absent = {kind: _absent(report, modalities, kind) for kind in ("control", "attack")}
    if report is None or not any(variant.kind == "control" for variant in report.variants):
        yield _CONTROLS
    elif absent["control"]:
        yield f"Controls that were not run: {', '.join(absent['control'])}."
    if report is None:
        attacks = (attack for attack in ATTACKS if attack.concerns(modalities))
        absent["attack"] = [f"{code(attack.name)} ({attack.about})" for attack in attacks]
    if absent["attack"]:
        yield f"Attacks on all requests: {', '.join(absent['attack'])}."


def _absent(report: Report | None, modalities: Collection[Modality], kind: _Kind) -> list[str]:
    return [
        f"{code(extent.variant.name)} ({extent.variant.about})"
        for extent in (extents(report, modalities, kind) if report else ())
        if not extent.run
    ]


def _of_attackers(adaptive: Adaptive | None) -> Iterator[str]:
    if adaptive is None or not adaptive.curves:
        yield _ADAPTIVE
    elif adaptive.skipped:
        yield f"Of the attackers who adapt: {', '.join(sorted(map(code, adaptive.skipped)))}."
    if adaptive is not None:
        yield _MORE_ATTACKS


def _copies(report: Report | None) -> str:
    """Costs that were not measured, and copies that were not run."""
    cost = report.overhead if report else None
    memory = [] if cost and cost.peak_memory_ratio is not None else ["memory"]
    quantized = (
        ["other quantizations and the weights as stored"]
        if report and report.quantization in SCHEMES
        else ["quantized copies"]
    )
    parts = [*([] if cost else ["speed"]), *memory, *quantized]
    text = f"{', '.join(parts)}, and every serving engine other than Transformers."
    return text[:1].upper() + text[1:]


def _groups(report: Report | None) -> set[tuple[bool, Modality]]:
    return {(cell.harmful, cell.modality) for cell in report.cells} if report else set()


def _share(report: Report | None, modalities: Collection[Modality], kind: _Kind) -> str:
    """A mark, or how many of the variants of a kind were run."""
    every = extents(report, modalities, kind) if report else []
    run = sum(bool(extent.run) for extent in every)
    return f"{run} of {len(every)}" if 0 < run < len(every) else _mark(run > 0)


def _mark(done: bool) -> str:
    return "✔" if done else "✘"
