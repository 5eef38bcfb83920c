"""The study of attackers: its README holds its results, and a run writes them."""

import sys

import pytest

from mars_export.common.names import ADAPTIVE_NAME
from mars_export.evaluation.adaptive.record import Adaptive
from support.organisms import FAMILIES, ROOT

FOLDER = ROOT / "examples" / "attacks"


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "attacks", raising=False)
    import attacks

    return attacks


@pytest.mark.parametrize("family", FAMILIES)
def test_the_readme_holds_the_tables_of_the_results(study, family):
    record = Adaptive.model_validate_json((FOLDER / "results" / f"{family}.json").read_bytes())
    assert study.table(record) in (FOLDER / "README.md").read_text("utf-8")
    assert record.suite.name == family
    assert {p.success.n for curve in record.curves for p in curve.points} == {24}


def test_a_run_steers_attacks_and_writes(study, monkeypatch, tmp_path, capsys):
    calls = []
    made = (FOLDER / "results" / "gemma3.json").read_text("utf-8")

    def mars_export(*words):
        calls.append([str(word) for word in words])
        path = tmp_path / "work" / "gemma3" / ADAPTIVE_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made, encoding="utf-8")

    monkeypatch.setattr(study, "mars_export", mars_export)
    monkeypatch.setattr(study, "png", lambda _draw: b"picture")
    words = ["gemma3", "--work", str(tmp_path / "work"), "--results", str(tmp_path / "results")]
    study.main([*words, "--draws", "5"])
    (export, attack) = calls
    assert export[0] == "--model"
    assert attack[0] == "attack"
    assert attack[-2:] == ["--draws", "5"]
    assert (tmp_path / "results" / "gemma3.json").read_text("utf-8") == made
    assert (tmp_path / "results" / "gemma3.png").read_bytes() == b"picture"
    assert "| gate evasion | harmful image | gate shut |" in capsys.readouterr().out
