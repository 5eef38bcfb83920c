"""The numbers of a comparison that follow from the answers. Free of torch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mars_export.common.vocabulary import MODALITIES
from mars_export.comparison.record import Behavior, Way
from mars_export.evaluation import aggregate, changes
from mars_export.evaluation.report import REFERENCE, Pair, Part, SampleResult
from mars_export.evaluation.variants import VARIANTS

__all__ = ["behavior", "renamed", "tables"]


def tables(results: Sequence[SampleResult], yardstick: str) -> dict[str, Any]:
    """The fields of `Answered` that the answers decide.

    Args:
        results: All answers, arms named as the contenders are.
        yardstick: Name of the arm that the others are tested against.
    """
    plain = aggregate.plain(results)
    harmless = [r for r in results if not r.harmful and not _is_attack(r)]
    return {
        "yardstick": yardstick,
        "plain": Part(**aggregate.part(plain)),
        "ways": _ways(results),
        "harmless": changes.pairs(harmless),
        "against": _against([*_harmful(plain), *harmless], yardstick),
        "behavior": behavior(plain),
    }


def renamed(results: Sequence[SampleResult], names: Mapping[str, str]) -> list[SampleResult]:
    """The answers with other names of arms; arms that are not named keep theirs."""
    return [r.model_copy(update={"arm": names.get(r.arm, r.arm)}) for r in results]


def _harmful(results: Sequence[SampleResult]) -> list[SampleResult]:
    return [result for result in aggregate.tested(results) if result.harmful]


def _is_attack(result: SampleResult) -> bool:
    return bool(result.variant) and VARIANTS[result.variant].kind == "attack"


def _ways(results: Sequence[SampleResult]) -> list[Way]:
    groups = changes.group_by(aggregate.tested(results), lambda result: result.variant)
    return [
        Way(
            name=name,
            about=VARIANTS[name].about,
            kind=VARIANTS[name].kind,
            cells=aggregate.cells(rows),
            pairs=changes.pairs(rows),
        )
        for name, rows in groups.items()
        if name
    ]


def _against(results: Sequence[SampleResult], yardstick: str) -> list[Pair]:
    """Every contender against one of them: it and the model as it is change names for the test."""
    pairs = changes.pairs(renamed(results, {yardstick: REFERENCE, REFERENCE: yardstick}))
    return [p.model_copy(update={"arm": REFERENCE}) if p.arm == yardstick else p for p in pairs]


def behavior(results: Sequence[SampleResult]) -> list[Behavior]:
    """First tokens and words of the answers to harmless requests, by modality and arm."""
    harmless = [result for result in results if not result.harmful]
    base = {result.id: result for result in harmless if result.arm == REFERENCE}
    groups = changes.group_by(harmless, lambda r: (r.modality, r.arm))
    found = []
    for (modality, arm), rows in sorted(groups.items(), key=lambda g: MODALITIES.index(g[0][0])):
        if arm == REFERENCE:
            continue
        known = sorted(r.kl for r in rows if r.kl is not None)
        whole = len(known) == len(rows)
        found.append(
            Behavior(
                arm=arm,
                modality=modality,
                n=len(rows),
                kl_mean=round(sum(known) / len(known), 6) if whole else None,
                kl_high=known[math.ceil(0.95 * len(known)) - 1] if whole else None,
                same=changes.rate_of(rows, lambda r: r.response == base[r.id].response),
            )
        )
    return found
