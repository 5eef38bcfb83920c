"""The README's tables of families and modes, and the package's record of both, from test results.

    MARS_RESULTS=results.json python -m pytest -m "behavior or mode"
    python tests/support/table.py results.json README.md mars_export/families/tested.jsonl

The record is written from the results and the tables from the record, between the marks
`<!-- families -->` and `<!-- /families -->`, `<!-- modes -->` and `<!-- /modes -->`. Nothing is
written if a test failed or did not run, or a family has no results.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

from mars_export.families import Family, Tested, families
from mars_export.families.results import read_tested

OLDEST: Final = Family.model_fields["since"].default

HEADS: Final = {
    "loads steered through its auto classes with no key left over": "loads",
    "off is the base bit for bit": "off",
    "on equals a hook set by hand in every modality": "on",
    "greedy tokens equal a hook set by hand": "greedy",
    "text picture and clip share a batch": "mixed",
    "modality that was not calibrated is refused": "unknown",
    "native classes by name raise": "native",
    "without trust every auto class raises": "trust",
    "saved again it is steered and has the layout of the base": "saved",
    "heads are tied as in the base": "tied",
    "half precision is gated in float32 and changes one position": "half",
    "sharded bases keep their shards": "shards",
    "deep copies are steered and switched on their own": "copy",
    "another process without the package answers the same": "alone",
    "bases with custom code are refused": "custom",
}
"""Column of each behavior, by the name of its test."""
CELLS: Final = {"passed": "✓", "does not apply": "-", "refused natively": "○", "raises": "⊘"}
_WORDS: Final = {
    "passed": "holds",
    "does not apply": "does not apply",
    "refused natively": "Transformers itself refuses it",
    "raises": "raises an error instead of going on unsteered",
}


def kind(outcome: str) -> str:
    """An outcome without its reason."""
    return outcome.split(":")[0]


def record(results: dict[str, Any]) -> str:
    """One JSON line per family: its model type, versions, and how each test came out.

    Args:
        results: What `support.recording` wrote.

    Raises:
        ValueError: if something failed, did not run or is missing.
    """
    known, lines = set(families()), []
    for group in ("families", "modes"):
        wrong = [
            f"{family}: {name}: {outcome}"
            for family, outcomes in results[group].items()
            for name, outcome in outcomes.items()
            if kind(outcome) not in CELLS
        ]
        wrong += [f"{family}: no such family" for family in set(results[group]) - known]
        if wrong:
            raise ValueError(f"no table is made of this: {'; '.join(wrong)}")
    columns = {name for cells in results["families"].values() for name in cells}
    for model_type in families():
        behaviors = results["families"].get(model_type, {})
        if set(behaviors) != columns or not columns:
            raise ValueError(f"{model_type} was not tested, or not all of it; run all tests")
        versions = {name: results["versions"][name] for name in ("torch", "transformers")}
        line = {"model_type": model_type, "versions": versions}
        modes = results["modes"].get(model_type, {})
        lines.append({**line, "behaviors": behaviors, "modes": modes})
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


class Footnotes:
    """Letters for reasons, the same for the same reason."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def cell(self, outcome: str) -> str:
        """Sign of an outcome, with the letter of its reason."""
        sign, reason = CELLS[kind(outcome)], why(outcome)
        if not reason:
            return sign
        if reason not in self.reasons:
            self.reasons.append(reason)
        return f"{sign}<sup>{_letter(self.reasons.index(reason))}</sup>"

    def lines(self) -> list[str]:
        """The reasons behind their letters."""
        return [f"<sup>{_letter(i)}</sup> {reason}" for i, reason in enumerate(self.reasons)]


def family_table(told: dict[str, Tested], known: dict[str, Family]) -> str:
    """Families against behaviors.

    Raises:
        KeyError: if a behavior has no column head.
    """
    titles = list(next(iter(told.values())).behaviors)
    notes = Footnotes()
    rows = [["family", "shows", *(HEADS[title] for title in titles)]]
    for model_type, line in told.items():
        family = known[model_type]
        cells = [notes.cell(line.behaviors[title]) for title in titles]
        since = "" if family.since == OLDEST else f" (Transformers {family.since})"
        rows.append([family.name + since, ", ".join(family.modalities), *cells])
    kinds = {kind(outcome) for line in told.values() for outcome in line.behaviors.values()}
    columns = "; ".join(f"**{HEADS[title]}**: {title}" for title in titles)
    after = [legend(kinds), *notes.lines(), _versions(told)]
    table = _markdown(rows, centered=len(titles))
    return "\n".join([table, "", "<br>\n".join(after), "", f"{columns}."])


def mode_table(told: dict[str, Tested], known: dict[str, Family]) -> str:
    """Ways of running, the families that they hold for, and what the others do."""
    rows = [["mode", "holds for", "otherwise"]]
    for mode in sorted({mode for line in told.values() for mode in line.modes}):
        groups: dict[str, list[str]] = {}
        for model_type, line in told.items():
            if mode in line.modes:
                groups.setdefault(line.modes[mode], []).append(known[model_type].name)
        holds = in_words(groups.pop("passed", []), list(known.values()))
        others = [
            f"{CELLS[kind(outcome)]} {in_words(names, list(known.values()))}: {why(outcome)}"
            for outcome, names in groups.items()
        ]
        rows.append([mode, holds, "<br>".join(others)])
    kinds = {kind(outcome) for line in told.values() for outcome in line.modes.values()}
    return "\n".join([_markdown(rows, centered=0), "", legend(kinds - {"passed"})])


def in_words(names: list[str], every: list[Family]) -> str:
    """Families in words; by what is missing, where that is shorter."""
    missing = [family.name for family in every if family.name not in names]
    if not missing:
        return f"all {len(every)}"
    if len(missing) <= len(every) // 3:
        return f"all {len(every)} but {', '.join(missing)}"
    return ", ".join(names)


def why(outcome: str) -> str:
    """What follows the kind, as one table cell."""
    return outcome.partition(": ")[2].replace("|", r"\|")


def tables(told: dict[str, Tested]) -> dict[str, str]:
    """Mark in the README to the table that stands there."""
    return {
        "families": family_table(told, families()),
        "modes": mode_table(told, families()),
    }


def between(text: str, mark: str) -> str:
    """The part of a text between the marks.

    Raises:
        ValueError: if the marks are not there, once each.
    """
    begin, end = f"<!-- {mark} -->\n", f"\n<!-- /{mark} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"the file must hold {begin.strip()} and {end.strip()} once each")
    return text.split(begin)[1].split(end)[0]


def replace_between(text: str, mark: str, new: str) -> str:
    """Text with the part between the marks replaced."""
    old = f"<!-- {mark} -->\n{between(text, mark)}\n<!-- /{mark} -->"
    return text.replace(old, f"<!-- {mark} -->\n{new}\n<!-- /{mark} -->")


def legend(kinds: set[str]) -> str:
    """The signs that a table has."""
    return ", ".join(f"{sign} {_WORDS[k]}" for k, sign in CELLS.items() if k in kinds) + "."


def _versions(told: dict[str, Tested]) -> str:
    versions = next(iter(told.values())).versions
    named = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers"))
    return f"Tested on tiny random checkpoints in the Hub's layout, on the CPU, with {named}."


def _markdown(rows: list[list[str]], centered: int) -> str:
    rule = ["---"] * (len(rows[0]) - centered) + [":-:"] * centered
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])


def _letter(number: int) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[number]


def main(results_path: Path, readme: Path, tested_path: Path) -> None:
    """Write the record and the tables."""
    made = record(json.loads(results_path.read_text("utf-8")))
    text = readme.read_text("utf-8")
    for mark, table in tables(read_tested(made)).items():
        text = replace_between(text, mark, table)
    tested_path.write_text(made, encoding="utf-8")
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main(*map(Path, sys.argv[1:]))
    except ValueError as error:
        sys.exit(f"table: {error}")
