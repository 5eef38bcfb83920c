"""The tables say what the tests say, and are not made of failures or gaps."""

import json
from pathlib import Path

import pytest
import transformers

from mars_export.families import families
from mars_export.families import tested as recorded
from mars_export.families.results import read_tested
from tools.records import family_record, write_records
from tools.tables import HEADS, between, family_table, mode_table, replace_between

ROOT = Path(__file__).parents[2]
LOADS, MIXED = next(iter(HEADS)), "requests of all modalities share a batch"


def results(**changes):
    """Made-up results of all families; `changes` are of Gemma 3's behaviors."""
    cells = {LOADS: "passed", MIXED: "does not apply: one visual"}
    behaviors = {model_type: dict(cells) for model_type in families()}
    behaviors["gemma3"] |= {name.replace("_", " "): outcome for name, outcome in changes.items()}
    modes = {
        **{model_type: {"sampling": "passed"} for model_type in families()},
        "gemma3": {"sampling": "passed", "serving": "raises: no room"},
        "llama": {"sampling": "refused natively: no dice"},
    }
    versions = {"torch": "1", "transformers": "2"}
    return {"versions": versions, "families": behaviors, "modes": modes, "uses": {}}


def test_tables_have_a_row_for_each_family_and_mode_and_say_why():
    tested = read_tested(family_record(results()))
    table = family_table(tested)
    lines = table.splitlines()
    assert lines[:2] == [f"- **loads**: {LOADS}", f"- **mixed**: {MIXED}"]
    assert lines[3] == "| family | modalities | loads | mixed |"
    assert "| Gemma 3 | text, image | ✓ | -<sup>a</sup> |" in lines
    assert len([line for line in lines if line.startswith("|")]) == len(families()) + 2
    assert "<sup>a</sup> one visual<br>" in lines
    assert "| Molmo2 (Transformers 5.20) |" in table
    assert "⊘" not in table
    assert "torch 1, transformers 2" in table
    lines = mode_table(tested).splitlines()
    assert lines[2:4] == [
        f"| sampling | all {len(families())} but Llama | ○ Llama: no dice |",
        "| serving |  | ⊘ Gemma 3: no room<br>not tested on the other families |",
    ]
    assert lines[-1].startswith("○ Transformers itself refuses it, ⊘ raises an error")


@pytest.mark.parametrize("outcome", ["failed", "not run: no wings", "nonsense"])
def test_failures_make_no_table(outcome):
    broken = results()
    broken["families"]["gemma3"][LOADS] = outcome
    with pytest.raises(ValueError, match=f"gemma3: {LOADS}: {outcome}"):
        family_record(broken)
    broken = results()
    broken["modes"]["gemma3"]["serving"] = outcome
    with pytest.raises(ValueError, match=f"gemma3: serving: {outcome}"):
        family_record(broken)


def test_gaps_make_no_table():
    gaps = results()
    del gaps["families"]["llama"][LOADS]
    with pytest.raises(ValueError, match="llama was not tested, or not all"):
        family_record(gaps)
    with pytest.raises(ValueError, match=f"{next(iter(families()))} was not tested"):
        family_record({"versions": {}, "families": {}, "modes": {}})
    with pytest.raises(ValueError, match="mystery: no such family"):
        family_record(results() | {"modes": {"mystery": {"sampling": "passed"}}})


def test_families_that_were_not_tested_keep_their_lines():
    before = family_record(results())
    some = results()
    for group in ("families", "modes"):
        some[group] = {"llama": dict(some[group].get("llama", {}))}
    some["families"]["llama"][LOADS] = "does not apply: it is small"
    after = family_record(some, before)
    assert [line for line in after.splitlines() if '"llama"' not in line] == [
        line for line in before.splitlines() if '"llama"' not in line
    ]
    assert "it is small" in after
    del some["families"]["llama"][LOADS]
    with pytest.raises(ValueError, match="was not tested, or not all"):
        family_record(some, before)


def test_both_records_are_written_or_none(tmp_path):
    path, tested, used = (tmp_path / name for name in ("results.json", "tested", "used"))
    before = (ROOT / "examples/compatibility.jsonl").read_text("utf-8")
    used.write_text(before, encoding="utf-8")
    broken = results()
    broken["families"]["gemma3"][LOADS] = "failed"
    path.write_text(json.dumps(broken))
    with pytest.raises(ValueError, match="gemma3"):
        write_records([path], tested, used)
    assert not tested.exists()
    path.write_text(json.dumps(results()))
    write_records([path], tested, used)
    assert list(read_tested(tested.read_text("utf-8"))) == list(families())
    assert used.read_text("utf-8") == before


def test_only_the_part_between_the_marks_is_replaced():
    text = "before\n<!-- a -->\nold\n<!-- /a -->\nafter\n"
    assert replace_between(text, "a", "new") == text.replace("old", "new")
    with pytest.raises(ValueError, match="<!-- b -->"):
        between(text, "b")


def test_the_record_has_every_family_and_every_marked_test(collected):
    """What pytest collects now is what the record holds, no more and no less."""
    tested = recorded()
    if transformers.__version__ != tested["gemma3"].versions["transformers"]:
        pytest.skip("the record was made with another Transformers")
    assert list(tested) == list(families())
    for model_type, line in tested.items():
        assert set(line.behaviors) == set(collected["families"][model_type])
        assert set(line.modes) == set(collected["modes"].get(model_type, {}))
