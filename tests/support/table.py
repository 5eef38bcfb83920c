"""The README's family x behaviour table and the package's record of it, from test results.

    MARS_BEHAVIOUR=results.json python -m pytest tests/families/test_behaviour.py
    python tests/support/table.py results.json README.md mars_export/families/tested.jsonl

The table replaces what stands between `<!-- families -->` and `<!-- /families -->`. Nothing is
written if a behaviour failed or a family is not in the results.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

BEGIN: Final = "<!-- families -->"
END: Final = "<!-- /families -->"
_CELLS: Final = {"passed": "yes", "does not apply": "-", "refused natively": "native"}


def behaviours(results: dict[str, Any]) -> list[str]:
    """All behaviours, in the order of the tests."""
    return list(dict.fromkeys(name for cells in results["families"].values() for name in cells))


def cell(outcome: str) -> str:
    """Word of the table for an outcome.

    Raises:
        ValueError: if the behaviour failed.
    """
    kind = outcome.split(":")[0]
    if kind not in _CELLS:
        raise ValueError(f"an outcome is {outcome!r}; the table shows only what passed")
    return _CELLS[kind]


def table(results: dict[str, Any], names: dict[str, str]) -> str:
    """Markdown table with a legend.

    Args:
        results: What `tests/families/conftest.py` wrote.
        names: Model type to the family's name; all of them must be in the results.

    Raises:
        ValueError: if something failed or is missing.
    """
    columns, families = behaviours(results), results["families"]
    missing = [f"{m} {c}" for m in names for c in columns if c not in families.get(m, {})]
    if missing or not columns:
        raise ValueError(f"not tested: {', '.join(missing) or 'anything'}; run all of them")
    numbers = [str(i) for i in range(1, len(columns) + 1)]
    lines = [["family", "`model_type`", *numbers], ["---"] * (len(columns) + 2)]
    for model_type, name in names.items():
        cells = [cell(families[model_type][column]) for column in columns]
        lines.append([name, f"`{model_type}`", *cells])
    legend = [f"{number}. {column}" for number, column in zip(numbers, columns, strict=True)]
    versions = ", ".join(f"{name} {v}" for name, v in results["versions"].items())
    return "\n".join(
        ["\n".join(f"| {' | '.join(line)} |" for line in lines), "", *legend, "", _words(versions)]
    )


def _words(versions: str) -> str:
    return (
        f"Tiny random checkpoints in the Hub's layout, on the CPU, with {versions}. "
        "-: does not apply to the family. native: Transformers itself refuses it."
    )


def replace_between(text: str, new: str) -> str:
    """Text with the part between the marks replaced.

    Raises:
        ValueError: if the marks are not there, once each.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"the file must hold {BEGIN} and {END} once each")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{new}\n{END}{rest.split(END)[1]}"


def record(results: dict[str, Any]) -> str:
    """One JSON line per family: its model type, versions, and how each behaviour came out."""
    lines = (
        {"model_type": model_type, "versions": results["versions"], "behaviours": cells}
        for model_type, cells in results["families"].items()
    )
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def main(results_path: Path, readme: Path, tested: Path) -> None:
    from mars_export.families import families

    results = json.loads(results_path.read_text("utf-8"))
    made = table(results, {f.model_type: f.name for f in families().values()})
    text = replace_between(readme.read_text("utf-8"), made)
    readme.write_text(text, encoding="utf-8")
    tested.write_text(record(results), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
