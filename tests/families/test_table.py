"""The tables say what the tests say, and are not made of failures or gaps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from mars_export.families import families
from mars_export.families import tested as recorded
from mars_export.families.results import read_tested
from support.table import HEADS, between, main, mode_table, record, replace_between, tables

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text("utf-8")
LOADS, MIXED = next(iter(HEADS)), "text picture and clip share a batch"


def results(**changes):
    """Made-up results of all families; `changes` are of Gemma 3's behaviors."""
    cells = {LOADS: "passed", MIXED: "does not apply: one visual"}
    told = {model_type: dict(cells) for model_type in families()}
    told["gemma3"] |= {name.replace("_", " "): outcome for name, outcome in changes.items()}
    modes = {
        **{model_type: {"sampling": "passed"} for model_type in families()},
        "gemma3": {"sampling": "passed", "serving": "raises: no room"},
        "llama": {"sampling": "refused natively: no dice"},
    }
    return {"versions": {"torch": "1", "transformers": "2"}, "families": told, "modes": modes}


def test_tables_have_a_row_for_each_family_and_mode_and_say_why():
    told = read_tested(record(results()))
    made = tables(told)
    lines = made["families"].splitlines()
    assert lines[0] == "| family | shows | loads | mixed |"
    assert "| Gemma 3 | text, image | ✓ | -<sup>a</sup> |" in lines
    assert len([line for line in lines if line.startswith("|")]) == len(families()) + 2
    assert "<sup>a</sup> one visual<br>" in lines
    assert f"**loads**: {LOADS}; **mixed**: {MIXED}." in lines[-1]
    assert "| Molmo2 (Transformers 5.20) |" in made["families"]
    assert "⊘" not in made["families"]
    assert "torch 1, transformers 2" in made["families"]
    lines = made["modes"].splitlines()
    assert lines[2:4] == [
        f"| sampling | all {len(families())} but Llama | ○ Llama: no dice |",
        "| serving |  | ⊘ Gemma 3: no room |",
    ]
    assert lines[-1].startswith("○ Transformers itself refuses it, ⊘ raises an error")


@pytest.mark.parametrize("outcome", ["failed", "not run: no wings", "nonsense"])
def test_failures_make_no_table(outcome):
    broken = results()
    broken["families"]["gemma3"][LOADS] = outcome
    with pytest.raises(ValueError, match=f"gemma3: {LOADS}: {outcome}"):
        record(broken)
    broken = results()
    broken["modes"]["gemma3"]["serving"] = outcome
    with pytest.raises(ValueError, match=f"gemma3: serving: {outcome}"):
        record(broken)


def test_gaps_make_no_table():
    gaps = results()
    del gaps["families"]["llama"][LOADS]
    with pytest.raises(ValueError, match="llama was not tested, or not all"):
        record(gaps)
    with pytest.raises(ValueError, match="gemma3 was not tested"):
        record({"versions": {}, "families": {}, "modes": {}})
    with pytest.raises(ValueError, match="mystery: no such family"):
        record(results() | {"modes": {"mystery": {"sampling": "passed"}}})


def test_nothing_is_written_when_the_readme_has_no_marks(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(results()))
    (tmp_path / "README.md").write_text("no marks")
    with pytest.raises(ValueError, match="<!-- families -->"):
        main(tmp_path / "results.json", tmp_path / "README.md", tmp_path / "tested.jsonl")
    assert not (tmp_path / "tested.jsonl").exists()
    marks = "".join(f"<!-- {mark} -->\n\n<!-- /{mark} -->\n" for mark in ("families", "modes"))
    (tmp_path / "README.md").write_text(marks)
    main(tmp_path / "results.json", tmp_path / "README.md", tmp_path / "tested.jsonl")
    told = read_tested((tmp_path / "tested.jsonl").read_text())
    text = (tmp_path / "README.md").read_text()
    assert between(text, "modes") == mode_table(told, families())


def test_only_the_part_between_the_marks_is_replaced():
    text = "before\n<!-- a -->\nold\n<!-- /a -->\nafter\n"
    assert replace_between(text, "a", "new") == text.replace("old", "new")


def test_the_readme_shows_what_the_last_recorded_results_say():
    made = tables(recorded())
    assert {mark: between(README, mark) for mark in made} == made


def test_the_record_has_every_family_and_every_marked_test(tmp_path):
    """What pytest collects now is what the record holds, no more and no less."""
    told = recorded()
    if transformers.__version__ != told["gemma3"].versions["transformers"]:
        pytest.skip("the record was made with another Transformers")
    target = tmp_path / "results.json"
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "behavior or mode"]
    environment = {**os.environ, "MARS_RESULTS": str(target)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    collected = json.loads(target.read_text())
    assert list(told) == list(families())
    for model_type, line in told.items():
        assert set(line.behaviors) == set(collected["families"][model_type])
        assert set(line.modes) == set(collected["modes"].get(model_type, {}))
