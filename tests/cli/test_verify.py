"""`mars-export verify`: a list to read, or JSON, and an exit code for scripts."""

import json

import pytest

from support import tiny


@pytest.fixture
def steered(tmp_path, capsys):
    made = tiny.export("gemma3", tmp_path / "made")[1]
    capsys.readouterr()  # what Transformers said
    return made


def test_a_verified_directory(mars, steered):
    result = mars("verify", steered)
    assert (result.code, result.errors) == (0, [])
    lines = result.out.splitlines()
    assert lines[0].startswith("✓ manifest")
    assert any(line.startswith("- base weights") for line in lines)
    assert lines[-1].startswith(f"{steered}: verified; not checked: base weights, base files")


def test_a_directory_that_is_not_what_it_says(mars, steered):
    (steered / "extra.py").touch()
    (steered / "generation_config.json").unlink()
    result = mars("verify", steered, "--offline")
    assert (result.code, result.errors) == (1, [])
    assert "✗ nothing else       extra.py is no part of an export" in result.out
    assert result.out.splitlines()[-1].endswith(
        "NOT verified, 3 of 14 checks failed; do not load it"
    )


def test_a_card_that_was_edited(mars, steered):
    (steered / "README.md").write_text("mine")
    result = mars("verify", steered)
    assert (result.code, result.errors) == (1, [])
    assert "✗ sealed files       README.md was added after the directory was sealed" in result.out
    assert result.out.splitlines()[-1].endswith(
        "NOT verified: what is loaded is what was exported, but not what lies beside it"
    )
    result = mars("seal", steered)
    assert (result.code, result.errors) == (0, [])
    assert mars("verify", steered).code == 0
    assert mars("seal", steered.parent).errors[0].startswith("mars-export: error: ")


def test_json(mars, steered):
    result = mars("verify", steered, "--json")
    found = json.loads(result.out)
    assert result.code == 0
    assert (found["passed"], found["target"]) == (True, str(steered))
    assert {check["status"] for check in found["checks"]} == {"passed", "skipped"}
    (steered / "extra.py").touch()
    result = mars("verify", steered, "--json")
    assert result.code == 1
    assert json.loads(result.out)["passed"] is False
    assert [c["name"] for c in json.loads(result.out)["checks"] if c["status"] == "failed"] == [
        "sealed files",
        "nothing else",
    ]


def test_goals_that_the_calibration_missed_are_noted(mars, tmp_path, capsys):
    record = {"missed": ["Too much KL."], "findings": ["Writing opens the gate."]}
    steered = tiny.export("gemma3", tmp_path / "made", **record)[1]
    capsys.readouterr()
    result = mars("verify", steered)
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[-3:-1] == ["note: Too much KL.", "note: Writing opens the gate."]
    notes = json.loads(mars("verify", steered, "--json").out)["notes"]
    assert notes == [*record["missed"], *record["findings"]]


@pytest.mark.parametrize("arguments", [["nowhere/at/all"], ["."], []])
def test_bad_input(mars, arguments):
    result = mars("verify", *arguments)
    assert (result.code, result.out) == (2, "")
    assert len(result.errors) == 1


def test_terminal_escapes_of_a_manifest_are_not_sent(mars, steered):
    (steered / "\x1b[2Jx.py").touch()
    assert "\x1b" not in mars("verify", steered).out
