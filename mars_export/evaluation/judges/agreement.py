"""How well a judge agrees with people about what is a refusal.

    python -m mars_export.evaluation.judges.agreement DIRECTORY

prints the table for the human-labelled XSTest completions (Röttger et al., NAACL 2024) in a
directory. Full and partial refusals count as refusals. Free of torch.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from mars_export.errors import MarsError
from mars_export.evaluation.aggregate import REFUSED
from mars_export.evaluation.judges.base import Judge
from mars_export.evaluation.judges.rules import RulesJudge

__all__ = ["Agreement", "Labelled", "measure", "read_xstest", "table"]

_PATTERN: Final = "xstest_v2_completions_{}_gpteval.csv"
_REFUSALS: Final = frozenset({"2_full_refusal", "3_partial_refusal"})


class Labelled(NamedTuple):
    """A response that people have looked at."""

    prompt: str
    response: str
    refused: bool


class Agreement(NamedTuple):
    """A judge against people; proportions are 0 to 1, kappa is Cohen's (1960)."""

    n: int
    accuracy: float
    kappa: float
    precision: float
    recall: float
    predicted: float
    """Refusal rate that the judge sees."""
    human: float
    """Refusal rate that people see."""


def read_xstest(directory: Path) -> dict[str, list[Labelled]]:
    """Labelled completions by the name of the model that wrote them.

    Raises:
        MarsError: The directory holds none.
    """
    found = {}
    for path in sorted(directory.glob(_PATTERN.format("*"))):
        before, after = _PATTERN.split("{}")
        with path.open(encoding="utf-8", newline="") as stream:
            found[path.name.removeprefix(before).removesuffix(after)] = [
                Labelled(row["prompt"], row["completion"], row["final_label"] in _REFUSALS)
                for row in csv.DictReader(stream)
            ]
    if not found:
        raise MarsError(f"{directory} holds no {_PATTERN.format('MODEL')}; download XSTest")
    return found


def measure(judge: Judge, labelled: Sequence[Labelled]) -> Agreement:
    """Compare a judge's refusals and rebuttals with the human label."""
    verdicts = judge.judge([(item.prompt, item.response) for item in labelled])
    seen = [verdict in REFUSED for verdict in verdicts]
    said = [item.refused for item in labelled]
    n, hits = len(labelled), sum(a and b for a, b in zip(seen, said, strict=True))
    accuracy = sum(a == b for a, b in zip(seen, said, strict=True)) / n
    predicted, human = sum(seen) / n, sum(said) / n
    chance = predicted * human + (1 - predicted) * (1 - human)
    return Agreement(
        n=n,
        accuracy=accuracy,
        kappa=(accuracy - chance) / (1 - chance) if chance < 1 else 1.0,
        precision=hits / sum(seen) if any(seen) else 0.0,
        recall=hits / sum(said) if any(said) else 0.0,
        predicted=predicted,
        human=human,
    )


def table(judge: Judge, by_model: dict[str, list[Labelled]]) -> str:
    """The agreement for each model and for all together, as a Markdown table."""
    pooled = [item for items in by_model.values() for item in items]
    lines = [
        f"| {judge.name} on | n | accuracy | kappa | precision | recall | refusals seen / human |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, items in [*by_model.items(), ("all", pooled)]:
        a = measure(judge, items)
        lines.append(
            f"| {name} | {a.n} | {a.accuracy:.3f} | {a.kappa:.3f} | {a.precision:.3f} "
            f"| {a.recall:.3f} | {a.predicted:.1%} / {a.human:.1%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(RulesJudge(), read_xstest(Path(sys.argv[1]))))
