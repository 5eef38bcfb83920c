"""Words that depend on a fact: the methods, and what an evaluation left out."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mars_export.common.vocabulary import Modality
from mars_export.evaluation.report import Report
from mars_export.families.quantization import SCHEMES

__all__ = ["METHODS", "Method", "not_evaluated"]


RHO: Final = "\N{GREEK SMALL LETTER RHO}"


@dataclass(frozen=True)
class Method:
    """How a card names and explains a steering method."""

    name: str
    summary: str
    formula: str
    citation: str
    """Markdown link to the paper."""


METHODS: Final[dict[str, Method]] = {
    "mars": Method(
        name="MARS (modality-agnostic refusal steering)",
        summary=(
            "The refusal direction is the difference of the mean activations on harmful and "
            "harmless *text*. Where an answer begins (see *position* below), one decoder layer's "
            "output h is read along that direction r, the average shift β of the request's "
            "modality (measured on neutral random-color visuals) is taken off, and a gate "
            "decides: at or below the origin o nothing happens; above it, h is moved along r, but "
            f"never past the edge c of the harmful text data and never by more than {RHO}R. Only "
            "the reading is re-centered; the state itself is not."
        ),
        formula=(
            "p = <h, r> - β(modality)\n"
            "gate = max(0, (p - o) / (p_u - o))\n"
            f"h <- h + min(κ R gate, max(0, c - p), {RHO} R) r"
        ),
        citation=(
            "Harnessing Textual Refusal Directions for Multimodal Safety, "
            "[arXiv 2606.31876](https://arxiv.org/abs/2606.31876)"
        ),
    ),
}

_PUBLISHED: Final = ("hub:", "known:")
"""Origins of suites that are published benchmarks."""
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
_HARM: Final = (
    "Whether an answer does harm. The judge sees refusal style; an answer that is not a refusal "
    "may be harmless, wrong or dangerous."
)
_OVERLAP: Final = "Overlap between the calibration prompts and the evaluation requests."

_UTILITY: Final = "Utility on general benchmarks (MMMU, MMStar, MME, ...)."

_COPIES: Final = (
    "Speed, memory, quantized copies, and every serving engine other than Transformers."
)
_OTHER_COPIES: Final = (
    "Speed, memory, other quantizations and the weights as stored, and every serving engine other "
    "than Transformers."
)

_NEVER: Final = (
    _UTILITY,
    _BENCHMARKS,
    _ATTACKS,
    "Other languages, several images in one request, long videos, tool use, thinking modes.",
    "Differences in over-refusal between groups of people (bias).",
    _COPIES,
)


def not_evaluated(
    report: Report | None, modalities: Iterable[Modality], utility: bool = False
) -> tuple[str, ...]:
    """What nobody measured, first what this report could have had and has not."""
    never = tuple(item for item in _NEVER if not (utility and item == _UTILITY))
    if report is None:
        first = "Refusal" if utility else "Anything"
        return (f"{first}: this directory holds no evaluation report.", _HARM, _OVERLAP, *never)
    have = {(c.modality, c.harmful) for c in report.cells}
    missing = [
        f"{'Harmful' if harmful else 'Harmless'} {modality} requests, although the checkpoint "
        f"takes {modality}."
        for modality in modalities
        for harmful in (True, False)
        if (modality, harmful) not in have
    ]
    harm = () if report.harm_pairs else (_HARM,)
    overlap = () if report.overlap else (_OVERLAP,)
    known = any(s.source.origin.startswith(_PUBLISHED) for s in report.suites)
    done = {_BENCHMARKS: "" if known else _BENCHMARKS}
    done[_COPIES] = _OTHER_COPIES if report.quantization in SCHEMES else _COPIES
    done[_ATTACKS] = _OTHER_ATTACKS if report.attacks else _ATTACKS
    rest = (text for item in never if (text := done.get(item, item)))
    return (*missing, *harm, *overlap, *rest)
