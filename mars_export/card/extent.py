"""How many requests each control and attack was put to, against how many there were."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from mars_export.card.lines import Group
from mars_export.common.vocabulary import Modality
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.report import REFERENCE, Cell, Report, VariantResult
from mars_export.evaluation.variants import VARIANTS, Variant

__all__ = ["Extent", "due", "extents"]


@dataclass(frozen=True)
class Extent:
    """How much of one variant was run."""

    variant: Variant
    due: dict[Group, int]
    """Requests that it is put to by default; never empty."""
    run: dict[Group, int]
    """Those that the report holds; empty where it was not run."""

    @property
    def short(self) -> Iterator[tuple[Group, int, int]]:
        """Groups with fewer requests than are due: the group, those run, and those due."""
        for group, n in self.due.items():
            if self.run.get(group, 0) < n:
                yield group, self.run.get(group, 0), n


def extents(
    report: Report, modalities: Collection[Modality], kind: Literal["control", "attack"]
) -> list[Extent]:
    """Every variant of a kind that the plain requests and the checkpoint allow.

    Args:
        report: An evaluation.
        modalities: What the checkpoint takes.
        kind: Which variants.
    """
    results = {result.name: result for result in report.variants}
    return [
        Extent(variant, groups, _run(results.get(name)))
        for name, variant in VARIANTS.items()
        if variant.kind == kind and (groups := due(variant, report.cells, modalities))
    ]


def due(
    variant: Variant,
    cells: Iterable[Cell],
    modalities: Collection[Modality],
    *,
    limited: bool = True,
) -> dict[Group, int]:
    """Requests that a variant is made of, by label and the modality that it shows.

    Those with as many pictures as the variant shows are counted too, although they are left out.

    Args:
        variant: A control or an attack.
        cells: Of the requests as they are.
        modalities: What the checkpoint takes.
        limited: Whether to count no more than a variant is put to by default.
    """
    if variant.shows and variant.shows not in modalities:
        return {}
    counts: Counter[Group] = Counter()
    for cell in cells:
        fits = not variant.of or cell.modality in variant.of
        if cell.arm == REFERENCE and fits and not (variant.harmless and cell.harmful):
            counts[cell.harmful, variant.shows or cell.modality] += cell.refused.n
    most = variant.most(EvaluationOptions().control_requests) if limited else None
    return {group: min(n, most or n) for group, n in counts.items()}


def _run(result: VariantResult | None) -> dict[Group, int]:
    if result is None:
        return {}
    cells = (cell for cell in result.cells if cell.arm == REFERENCE)
    return {(c.harmful, c.modality): c.refused.n // result.draws for c in cells}
