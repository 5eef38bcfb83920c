"""The table of uses says what the tests say, and every line has an example that a test runs."""

import json
import re
from pathlib import Path

import pytest

from tools import records, tables
from tools.records import USES, Use, use_record
from tools.tables import use_table

ROOT = Path(__file__).parents[2]
RECORDED = (ROOT / "examples/compatibility.jsonl").read_text("utf-8")
MADE_UP = {
    "baking": Use("Kitchen", "oven", ("flour",)),
    "frying": Use("Kitchen", "pan"),
    "digging": Use("Garden", "spade"),
}
VERSIONS = {"torch": "1", "transformers": "2", "flour": "3"}


@pytest.fixture
def made_up(monkeypatch):
    for module in (records, tables):
        monkeypatch.setattr(module, "USES", MADE_UP)


def results(**outcomes):
    """Outcomes of Gemma 3."""
    return {"versions": VERSIONS, "uses": {"gemma3": outcomes}}


def test_a_line_says_for_whom_it_holds_and_with_what(made_up):
    made = results(baking="passed", frying="raises: too hot", digging="passed")
    made["uses"]["llama"] = {"baking": "passed", "digging": "refused natively: no hands"}
    lines = use_table(use_record("", made)).splitlines()
    rest, folder = "not tested on the other families", "tree/main/examples"
    kitchen = f"| **Kitchen** | baking | Gemma 3, Llama | {rest} |"
    oven, pan = (f"[{name}]({tables.REPOSITORY}/{folder}/{name})" for name in ("oven", "pan"))
    assert lines[2] == f"{kitchen} flour 3 | {oven} |"
    assert lines[3] == f"|  | frying |  | ⊘ Gemma 3: too hot<br>{rest} | transformers 2 | {pan} |"
    assert lines[4].startswith(f"| **Garden** | digging | Gemma 3 | ○ Llama: no hands<br>{rest} |")
    assert lines[-1].startswith("○ Transformers itself refuses it, ⊘ raises an error")


def test_what_was_not_run_keeps_its_line(made_up):
    before = use_record("", results(baking="passed", frying="passed", digging="passed"))
    newer = results(baking="not run: no flour", frying="raises: x") | {
        "versions": VERSIONS | {"transformers": "5"}
    }
    lines = list(map(json.loads, use_record(before, newer).splitlines()))
    assert [line["use"] for line in lines] == list(MADE_UP)
    assert [line["versions"]["transformers"] for line in lines] == ["2", "5", "2"]
    assert lines[1]["families"] == {"gemma3": "raises: x"}


@pytest.mark.parametrize(
    ("outcomes", "why"),
    [
        ({"baking": "failed", "frying": "passed", "digging": "passed"}, "gemma3: baking: failed"),
        ({"baking": "passed", "frying": "passed"}, "digging: no result"),
        ({"flying": "passed"}, "flying: not in tools/records.py"),
    ],
)
def test_failures_and_gaps_make_no_table(made_up, outcomes, why):
    with pytest.raises(ValueError, match=why):
        use_record("", results(**outcomes))


def test_one_variant_that_did_not_run_makes_no_table(made_up):
    made = results(baking="passed", frying="passed", digging="passed")
    made["uses"]["llama"] = {"digging": "not run: rain"}
    with pytest.raises(ValueError, match="llama: digging: not run"):
        use_record("", made)


def test_the_record_has_every_marked_test_and_no_other(collected):
    pairs = {(family, use) for family, outcomes in collected["uses"].items() for use in outcomes}
    lines = map(json.loads, RECORDED.splitlines())
    assert pairs == {(family, line["use"]) for line in lines for family in line["families"]}


@pytest.mark.parametrize("example", sorted({use.example for use in USES.values()}))
def test_every_example_has_a_test_that_names_it(example):
    assert list((ROOT / "examples" / example).glob("*.py"))
    named = re.compile(rf'run_example\("{example}"|"examples"\s*/\s*"{example}"|examples/{example}')
    tests = [p for p in (ROOT / "tests").rglob("*.py") if named.search(p.read_text("utf-8"))]
    assert tests
