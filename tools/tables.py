"""Tables of `docs/compatibility.md`, in Markdown, from the records of what was tested."""

import json
from typing import Any, Final

from mars_export.families import Family, Tested, families
from tools.outcomes import NOT_APPLICABLE, PASSED, RAISES, REFUSED, SIGNS, kind, reason
from tools.records import USES

REPOSITORY: Final = "https://github.com/mars-export/mars-export"
OLDEST: Final = Family.model_fields["since"].default

HEADS: Final = {
    "loads steered through its auto classes with no key left over": "loads",
    "forward has the native signature": "signature",
    "off is the base bit for bit": "off",
    "on equals a hook set by hand in every modality": "on",
    "greedy tokens equal a hook set by hand": "greedy",
    "requests of all modalities share a batch": "mixed",
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
    "stated positions are steered and no others": "stated",
    "a layer is steered or raises whoever calls it": "layer",
}
"""Column of each behavior, by the name of its test."""
_MEANING: Final = {
    PASSED: "holds",
    NOT_APPLICABLE: "does not apply",
    REFUSED: "Transformers itself refuses it",
    RAISES: "raises an error rather than run unsteered",
}


class Footnotes:
    """Letters for reasons, the same for the same reason."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def cell(self, outcome: str) -> str:
        """Sign of an outcome, with the letter of its reason."""
        sign, why = SIGNS[kind(outcome)], reason(outcome)
        if not why:
            return sign
        if why not in self.reasons:
            self.reasons.append(why)
        return f"{sign}<sup>{_letter(self.reasons.index(why))}</sup>"

    def lines(self) -> list[str]:
        """The reasons behind their letters."""
        return [f"<sup>{_letter(i)}</sup> {why}" for i, why in enumerate(self.reasons)]


def family_table(tested: dict[str, Tested]) -> str:
    """Families against behaviors.

    Raises:
        KeyError: if a behavior has no column head.
    """
    titles = list(next(iter(tested.values())).behaviors)
    notes = Footnotes()
    rows = [["family", "modalities", *(HEADS[title] for title in titles)]]
    for model_type, line in tested.items():
        family = families()[model_type]
        cells = [notes.cell(line.behaviors[title]) for title in titles]
        since = "" if family.since == OLDEST else f" (Transformers {family.since})"
        rows.append([family.name + since, ", ".join(family.modalities), *cells])
    kinds = {kind(outcome) for line in tested.values() for outcome in line.behaviors.values()}
    columns = "\n".join(f"- **{HEADS[title]}**: {title}" for title in titles)
    table = _markdown(rows, centered=len(titles))
    after = [legend(kinds), *notes.lines(), _versions(tested)]
    return "\n".join([columns, "", table, "", "<br>\n".join(after)])


def mode_table(tested: dict[str, Tested]) -> str:
    """Ways of running, the families that they hold for, and what the others do."""
    rows = [["mode", "holds for", "otherwise"]]
    for mode in sorted({mode for line in tested.values() for mode in line.modes}):
        outcomes = {name: line.modes[mode] for name, line in tested.items() if mode in line.modes}
        rows.append([mode, *_holds_and_otherwise(outcomes)])
    kinds = {kind(outcome) for line in tested.values() for outcome in line.modes.values()}
    return "\n".join([_markdown(rows, centered=0), "", legend(kinds - {PASSED})])


def use_table(record: str) -> str:
    """Uses, the families that each holds for, what the others do, versions and example.

    Args:
        record: Text of `examples/compatibility.jsonl`.
    """
    rows = [["", "use", "holds for", "otherwise", "tested with", "example"]]
    heading, kinds = "", set[str]()
    for line in map(json.loads, record.splitlines()):
        use = USES[line["use"]]
        kinds |= set(map(kind, line["families"].values()))
        packages = use.packages or ("transformers",)
        versions = ", ".join(f"{name} {line['versions'][name]}" for name in packages)
        example = f"[{use.example}]({REPOSITORY}/tree/main/examples/{use.example})"
        first = "" if use.heading == heading else f"**{use.heading}**"
        cells = _holds_and_otherwise(line["families"])
        rows.append([first, line["use"], *cells, versions, example])
        heading = use.heading
    rest = kinds - {PASSED}
    return "\n".join([_markdown(rows, centered=0), *(["", legend(rest)] if rest else [])])


def _holds_and_otherwise(outcomes: dict[str, str]) -> tuple[str, str]:
    """Cells of one row: the families for which it holds, and what the others do.

    Args:
        outcomes: Model type to outcome.
    """
    groups: dict[str, list[str]] = {}
    for model_type, outcome in outcomes.items():
        groups.setdefault(outcome, []).append(families()[model_type].name)
    holds = in_words(groups.pop(PASSED, []))
    others = [f"{SIGNS[kind(o)]} {in_words(names)}: {reason(o)}" for o, names in groups.items()]
    if len(outcomes) < len(families()):
        others.append("not tested on the other families")
    return holds, "<br>".join(others)


def in_words(names: list[str]) -> str:
    """Families in words; by what is missing, where that is shorter."""
    total = len(families())
    missing = [family.name for family in families().values() if family.name not in names]
    if not missing:
        return f"all {total}"
    if len(missing) <= total // 3:
        return f"all {total} but {', '.join(missing)}"
    return ", ".join(names)


def legend(kinds: set[str]) -> str:
    """The signs that a table has."""
    return ", ".join(f"{sign} {_MEANING[k]}" for k, sign in SIGNS.items() if k in kinds) + "."


def between(text: str, mark: str) -> str:
    """The part of a text between the marks `<!-- mark -->` and `<!-- /mark -->`.

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


def _versions(tested: dict[str, Tested]) -> str:
    versions = next(iter(tested.values())).versions
    named = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers"))
    return f"Tested on tiny random checkpoints in the Hub's layout, on the CPU, with {named}."


def _markdown(rows: list[list[Any]], centered: int) -> str:
    rule = ["---"] * (len(rows[0]) - centered) + [":-:"] * centered
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])


def _letter(number: int) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[number]
