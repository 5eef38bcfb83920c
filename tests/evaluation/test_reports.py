"""No report is lost to another: each suite, judge and setting has a folder of its own."""

import json
from pathlib import Path

import pytest

from mars_export.common.errors import ExportError
from mars_export.common.names import REPORT_NAME
from mars_export.evaluation.report import SelfCheck
from mars_export.evaluation.reports import (
    FILES,
    folder_for,
    folder_of,
    lead_with,
    leading,
    main_folder,
    others,
)
from mars_export.hub.readiness import is_published
from support import records


def of_run(run, suite="mine/of 2026", **changes):
    source = records.report().suite.model_copy(update={"name": suite})
    return records.report(run=run, suite=source, **changes)


def save(folder, report):
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).write_text(f"{report.run} {name}")
    (folder / FILES[0]).write_text(report.model_dump_json())
    return report


def test_the_first_report_leads_and_another_gets_a_folder(tmp_path):
    first, second = of_run("1" * 16), of_run("2" * 16)
    assert folder_for(tmp_path, "x", first.run) == main_folder(tmp_path)
    save(main_folder(tmp_path), first)
    assert folder_of(tmp_path, first) == main_folder(tmp_path)
    folder = folder_of(tmp_path, second)
    assert folder == tmp_path / "evaluation" / "mine-of-2026-22222222"
    save(folder, second)
    assert leading(tmp_path) == first
    assert list(others(tmp_path)) == [(folder, second)]


def test_another_may_lead_and_the_first_stays(tmp_path):
    first, second = of_run("1" * 16, "a"), of_run("2" * 16, "b")
    save(main_folder(tmp_path), first)
    save(folder_of(tmp_path, second), second)
    lead_with(tmp_path, second)
    assert leading(tmp_path) == second
    ((folder, other),) = others(tmp_path)
    assert (folder.name, other) == ("a-11111111", first)
    assert (folder / FILES[1]).read_text().startswith(first.run)
    assert (main_folder(tmp_path) / FILES[1]).read_text().startswith(second.run)
    assert len(list(main_folder(tmp_path).iterdir())) == len(FILES) + 1
    lead_with(tmp_path, second)
    assert leading(tmp_path) == second


@pytest.mark.parametrize("moves", range(2 * len(FILES)))
def test_a_change_of_the_lead_that_was_interrupted_goes_on(tmp_path, monkeypatch, moves):
    first, second = of_run("1" * 16, "a"), of_run("2" * 16, "b")
    save(main_folder(tmp_path), first)
    save(folder_of(tmp_path, second), second)
    left, replace = iter(range(moves)), Path.replace

    def interrupted(path, target):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lead_with(tmp_path, second)
    monkeypatch.setattr(Path, "replace", replace)
    assert {r.run for r in (leading(tmp_path), *(r for _, r in others(tmp_path))) if r} == {
        first.run, second.run
    }  # fmt: skip
    lead_with(tmp_path, second)
    assert leading(tmp_path) == second
    ((folder, other),) = others(tmp_path)
    assert other == first
    for place, report in ((main_folder(tmp_path), second), (folder, first)):
        assert all((place / name).read_text().startswith(report.run) for name in FILES[1:])


def test_what_else_is_beside_a_report_stays(tmp_path):
    first, second = of_run("1" * 16, "a"), of_run("2" * 16, "b")
    save(main_folder(tmp_path), first)
    folder = folder_of(tmp_path, second)
    save(folder, second)
    (folder / "notes.txt").write_text("mine")
    lead_with(tmp_path, second)
    assert leading(tmp_path) == second
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_one_that_says_that_nothing_steers_gives_way_and_never_leads(tmp_path):
    check = SelfCheck(active=False, detail="no")
    first, second = of_run("1" * 16), of_run("2" * 16, self_check=check)
    save(main_folder(tmp_path), first)
    save(folder_of(tmp_path, second), second)
    lead_with(tmp_path, second)
    assert leading(tmp_path) == first
    save(main_folder(tmp_path), of_run("1" * 16, self_check=check))
    assert folder_for(tmp_path, "x", "3" * 16) == main_folder(tmp_path)


def test_one_that_cannot_be_read_is_not_left_out(tmp_path):
    path = tmp_path / "evaluation" / "old" / FILES[0]
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"schema_version": 1}))
    with pytest.raises(ExportError, match=r"schema version 1 .* or delete .*old"):
        list(others(tmp_path))


@pytest.mark.parametrize(
    ("path", "published"),
    [
        (REPORT_NAME, True),
        ("evaluation/mine-1/report.json", True),
        ("evaluation/mine-1/safety_eval.json", True),
        ("evaluation/mine-1/samples.jsonl", False),
        ("evaluation/samples.jsonl", False),
        ("evaluation/report.html", False),
        ("inputs/prompts.json", False),
        ("elsewhere/report.json", False),
    ],
)
def test_reports_are_published_and_answers_stay_at_home(path, published):
    assert is_published(path) == published
