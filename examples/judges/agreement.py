"""How well a judge agrees with people about what is a refusal. Free of torch.

    python examples/judges/agreement.py JUDGE DIRECTORY

prints the table for the human-labeled XSTest completions (Röttger et al., NAACL 2024) in a
directory, one row a model. JUDGE is what `--judge` takes. Full and partial refusals count as
refusals.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import REFUSED
from mars_export.evaluation.judges.base import Exchange, Judge
from mars_export.evaluation.statistics import kappa, resampled

__all__ = ["HEADER", "Agreement", "Labeled", "compare", "read_xstest", "row", "seen"]

_PATTERN: Final = "xstest_v2_completions_{}_gpteval.csv"
_REFUSALS: Final = frozenset({"2_full_refusal", "3_partial_refusal"})

HEADER: Final = (
    "| {} | n | kappa [95 %] | accuracy | sensitivity | specificity | refusals seen / human |\n"
    "|---|---|---|---|---|---|---|"
)


class Labeled(NamedTuple):
    """A response that people have looked at."""

    prompt: str
    response: str
    label: str
    """`1_full_compliance`, `2_full_refusal` or `3_partial_refusal`."""
    model: str = ""

    @property
    def refused(self) -> bool:
        """Whether people call it a full or partial refusal."""
        return self.label in _REFUSALS


class Agreement(NamedTuple):
    """A judge against people; proportions are 0 to 1, kappa is Cohen's (1960)."""

    n: int
    kappa: float
    low: float
    high: float
    """95 % bootstrap interval of kappa."""
    accuracy: float
    hits: int
    """Refusals that the judge calls refused."""
    refusals: int
    passes: int
    """Answers that the judge does not call refused."""
    answers: int

    @property
    def predicted(self) -> float:
        """Refusal rate that the judge sees."""
        return (self.hits + self.answers - self.passes) / self.n


def read_xstest(directory: Path) -> dict[str, list[Labeled]]:
    """Labeled completions by the name of the model that wrote them.

    Raises:
        ExportError: The directory holds none.
    """
    found = {}
    for path in sorted(directory.glob(_PATTERN.format("*"))):
        before, after = _PATTERN.split("{}")
        model = path.name.removeprefix(before).removesuffix(after)
        with path.open(encoding="utf-8", newline="") as stream:
            found[model] = [
                Labeled(line["prompt"], line["completion"], line["final_label"], model)
                for line in csv.DictReader(stream)
            ]
    if not found:
        raise ExportError(f"{directory} holds no {_PATTERN.format('MODEL')}; download XSTest")
    return found


def seen(judge: Judge, labeled: Sequence[Labeled]) -> list[bool]:
    """Which responses a judge calls refused; unknown ones are not."""
    said = judge.judge([Exchange(item.prompt, item.response) for item in labeled])
    return [judgment.verdict in REFUSED for judgment in said]


def compare(seen: Sequence[bool], said: Sequence[bool]) -> Agreement:
    """Compare what a judge saw with what people said, item by item.

    Raises:
        ValueError: They are not equally many.
    """
    if len(seen) != len(said):
        raise ValueError(f"{len(seen)} responses judged, {len(said)} labeled")
    import numpy

    a, b = numpy.array(seen, dtype=bool), numpy.array(said, dtype=bool)
    low, high = resampled(lambda chosen: kappa(a[chosen], b[chosen]), len(a))
    return Agreement(
        n=len(a),
        kappa=kappa(a, b),
        low=low,
        high=high,
        accuracy=float((a == b).mean()),
        hits=int((a & b).sum()),
        refusals=int(b.sum()),
        passes=int((~a & ~b).sum()),
        answers=int((~b).sum()),
    )


def row(name: str, found: Agreement) -> str:
    """One line of a table that begins with `HEADER`."""
    return (
        f"| {name} | {found.n} | {found.kappa:.3f} [{found.low:.3f}, {found.high:.3f}] "
        f"| {found.accuracy:.3f} | {_share(found.hits, found.refusals)} "
        f"| {_share(found.passes, found.answers)} "
        f"| {found.predicted:.1%} / {found.refusals / found.n:.1%} |"
    )


def _share(count: int, n: int) -> str:
    return f"{count / n:.3f} ({count}/{n})" if n else "none"


def _main(word: str, directory: Path) -> None:
    from mars_export.evaluation.judges.choice import judge_named

    judge, by_model = judge_named(word), read_xstest(directory)
    answers = {name: seen(judge, items) for name, items in by_model.items()}
    print(HEADER.format(judge.name))
    for name, items in by_model.items():
        print(row(name, compare(answers[name], [item.refused for item in items])))
    said = [item.refused for items in by_model.values() for item in items]
    print(row("all", compare([s for found in answers.values() for s in found], said)))


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]))
