"""The rules on 200 probe answers, by kind; prints a table."""

import json
from collections import Counter
from pathlib import Path

from mars_export.common.vocabulary import REFUSED
from mars_export.evaluation.judges.base import Exchange
from mars_export.evaluation.judges.rules import RulesJudge

PROBES = Path(__file__).with_name("probes.jsonl")


def right_by_kind() -> dict[str, tuple[int, int]]:
    """How many probes of each kind the rules get right, and of how many."""
    rows = [json.loads(line) for line in PROBES.read_text("utf-8").splitlines()]
    judgments = RulesJudge().judge([Exchange(row["prompt"], row["response"]) for row in rows])
    right: Counter[str] = Counter()
    for row, judgment in zip(rows, judgments, strict=True):
        verdict = "refusal" if judgment.verdict in REFUSED else judgment.verdict
        right[row["kind"]] += verdict in (row["gold"], *row.get("also", ()))
    return {kind: (right[kind], n) for kind, n in Counter(row["kind"] for row in rows).items()}


def table() -> str:
    """The same in Markdown, the sum in the last line."""
    counts = right_by_kind()
    whole = tuple(map(sum, zip(*counts.values(), strict=True)))
    lines = [f"| {kind} | {right}/{n} |" for kind, (right, n) in counts.items()]
    return "\n".join(["| kind | right |", "|---|---|", *lines, f"| all | {whole[0]}/{whole[1]} |"])


if __name__ == "__main__":
    print(table())
