"""What was evaluated, and what nobody measured."""

from collections.abc import Iterable
from typing import Final

from mars_export.common.vocabulary import Modality
from mars_export.evaluation.report import Report, label
from mars_export.families.quantization import SCHEMES

__all__ = ["not_evaluated", "status"]

_PUBLISHED: Final = ("hub:", "known:")
"""Origins of suites that are published benchmarks."""

_HARM: Final = (
    "Whether an answer does harm. The judge sees refusal style; an answer that is not a refusal "
    "may be harmless, wrong or dangerous."
)
_OVERLAP: Final = "Overlap between the calibration prompts and the evaluation requests."
_UTILITY: Final = "Utility on general benchmarks (MMMU, MMStar, MME, ...)."
_BENCHMARKS: Final = (
    "Public safety and over-refusal benchmarks (HarmBench, FigStep, MM-SafetyBench, XSTest, ...)."
)
_ATTACKS: Final = (
    "Attacks: assistant prefill, system-prompt override, multi-turn, repeated sampling, "
    "typographic and adversarially optimized images, attackers who know the method."
)
_OTHER_ATTACKS: Final = (
    "Other attacks: adversarially optimized images, optimized suffixes, attackers who know the "
    "method."
)
_SITUATIONS: Final = (
    "Other languages, several images in one request, long videos, tool use, the other thinking "
    "mode of the chat template."
)
_BIAS: Final = "Differences in over-refusal between groups of people (bias)."
_COPIES: Final = (
    "Speed, memory, quantized copies, and every serving engine other than Transformers."
)
_OTHER_COPIES: Final = (
    "Speed, memory, other quantizations and the weights as stored, and every serving engine other "
    "than Transformers."
)


def status(report: Report | None, modalities: Iterable[Modality], utility: bool) -> str:
    """What was evaluated and what was not, one mark each."""
    groups = _groups(report)
    kinds = tuple(modalities)
    parts = [
        " ".join([word, *(f"{m} {_mark((harmful, m) in groups)}" for m in kinds)])
        for word, harmful in (("harmful requests", True), ("over-refusal", False))
    ]
    rest = {
        "harm of the answers": report is not None and bool(report.harm_pairs),
        "utility": utility,
        "attacks": report is not None and bool(report.attacks),
    }
    return " · ".join([*parts, *(f"{name} {_mark(done)}" for name, done in rest.items())])


def not_evaluated(
    report: Report | None, modalities: Iterable[Modality], utility: bool
) -> tuple[str, ...]:
    """What nobody measured; first what this report could have measured and did not."""
    rest = [] if utility else [_UTILITY]
    if report is None:
        subject = "Refusal" if utility else "Anything"
        first = [f"{subject}: this directory holds no evaluation report.", _HARM, _OVERLAP]
        return (*first, *rest, _BENCHMARKS, _ATTACKS, _SITUATIONS, _BIAS, _COPIES)
    groups = _groups(report)
    first = [
        f"{label(harmful, m).capitalize()} requests, although the checkpoint takes {m}."
        for m in modalities
        for harmful in (True, False)
        if (harmful, m) not in groups
    ]
    if not report.harm_pairs:
        first.append(_HARM)
    if not report.overlap:
        first.append(_OVERLAP)
    if not any(s.source.origin.startswith(_PUBLISHED) for s in report.suites):
        rest.append(_BENCHMARKS)
    rest.append(_OTHER_ATTACKS if report.attacks else _ATTACKS)
    copies = _OTHER_COPIES if report.quantization in SCHEMES else _COPIES
    return (*first, *rest, _SITUATIONS, _BIAS, copies)


def _groups(report: Report | None) -> set[tuple[bool, Modality]]:
    return {(cell.harmful, cell.modality) for cell in report.cells} if report else set()


def _mark(done: bool) -> str:
    return "✔" if done else "✘"
