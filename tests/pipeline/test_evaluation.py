"""No record is lost to another one, and what can be refused is refused before a model is loaded."""

import errno
from dataclasses import replace

import pytest

from mars_export.common.errors import ExportError
from mars_export.common.names import ADAPTIVE_NAME
from mars_export.evaluation.adaptive.record import Adaptive, Budget
from mars_export.evaluation.judges.rules import RulesJudge
from mars_export.evaluation.report import SuiteSource
from mars_export.evaluation.reports import FILES
from mars_export.evaluation.suites.catalog import open_suites
from mars_export.pipeline import attacks, evaluation
from support import bases, records
from support.hub_directory import steered_directory

SUITE = open_suites(["xstest"])


@pytest.fixture
def steered(tmp_path, monkeypatch):
    for module in (evaluation, attacks):
        monkeypatch.setattr(module, "check_suite", lambda *_: None)
    return steered_directory(tmp_path / "steered")


@pytest.fixture
def begun(monkeypatch):
    """Stands for an evaluation of the identity `run` and for attacks; says what was begun."""
    calls = []

    def evaluate(*_args, place, **_options):
        calls.append(place("run"))
        raise KeyboardInterrupt

    def attack(_directory, _suite, budget, **_options):
        calls.append(budget)

    monkeypatch.setattr(evaluation.evaluation, "evaluate", evaluate)
    monkeypatch.setattr(attacks.adaptive, "attack", attack)
    return calls


def test_a_report_elsewhere_replaces_none_but_itself(steered, begun, tmp_path):
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for run, message in (("run", None), ("other", "holds an evaluation on"), (None, "something")):
        report = records.report(run=run).model_dump_json() if run else "{}"
        (folder / FILES[0]).write_text(report)
        with pytest.raises(ExportError if message else KeyboardInterrupt, match=message):
            evaluation.evaluate(steered, SUITE, calibration_prompts=(), folder=folder)
    with pytest.raises(KeyboardInterrupt):  # the main command replaces what is its own
        evaluation.evaluate(steered, SUITE, calibration_prompts=(), folder=folder, checked=True)
    assert begun == [folder, folder]


def test_a_suite_that_carries_no_card_says_so_before_the_work(
    steered, begun, tmp_path, monkeypatch
):
    monkeypatch.setattr(evaluation, "prompts_at_hand", lambda *_: ())
    asked = ("evaluate", steered, "--display", "plain", "--suite")
    for words, said in (
        (("xstest-unsafe",), True),
        (("xstest",), False),
        (("xstest-unsafe", "--output", tmp_path / "elsewhere"), False),
    ):
        done = bases.command(*asked, *words)
        assert done.code == 130
        assert any("no model card is written" in line for line in done.errors) == said
    assert len(begun) == 3


def test_a_report_needs_a_folder(steered, begun, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ExportError, match="file is a file, not a directory; choose another --out"):
        evaluation.evaluate(steered, SUITE, calibration_prompts=(), folder=tmp_path / "file")
    assert begun == []


@pytest.mark.parametrize("under", ["a", "a/b"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
    steered, begun, tmp_path, monkeypatch, under
):
    def refuse(**options):
        raise PermissionError(errno.EACCES, "denied", str(options["dir"]))

    monkeypatch.setattr("mars_export.common.disk_errors.TemporaryFile", refuse)
    with pytest.raises(ExportError, match="Permission denied; choose another"):
        evaluation.evaluate(steered, SUITE, calibration_prompts=(), folder=tmp_path / under)
    with pytest.raises(ExportError, match="Permission denied; choose another"):
        attacks.attack(steered, SUITE)
    assert begun == []
    assert not (tmp_path / "a").exists()


def save_attacks(steered, budget, **changes):
    source = SuiteSource(name=SUITE.name, sha256=SUITE.sha256, samples=1, license="mit", origin="x")
    record = Adaptive(
        run="1" * 16, steering_sha256="0" * 64, created="2026-11-01T00:00:00+00:00", suite=source,
        judge=RulesJudge.name, device="cpu", versions={}, budget=budget, beginnings={}, curves=[],
        skipped={}, seconds=1.0,
    )  # fmt: skip
    (steered / ADAPTIVE_NAME).write_text(record.model_copy(update=changes).model_dump_json())


def test_attacks_are_replaced_by_those_that_show_as_much(steered, begun):
    for least in (Budget(), Budget(requests=30), Budget(draws=200, eps=(4, 6, 8, 16, 32))):
        save_attacks(steered, Budget())
        attacks.attack(steered, SUITE, least)
        assert begun[-1] == least


@pytest.mark.parametrize("less", [{"requests": 4}, {"steps": 1}, {"eps": (4,)}, {"seed": 1}])
def test_attacks_are_not_replaced_by_smaller_ones(steered, begun, less):
    save_attacks(steered, Budget())
    with pytest.raises(ExportError, match="give --overwrite to replace it"):
        attacks.attack(steered, SUITE, Budget(**less))
    assert begun == []
    attacks.attack(steered, SUITE, Budget(**less), overwrite=True)
    assert len(begun) == 1


@pytest.mark.parametrize("changes", [{"suite": replace(SUITE, sha256="1" * 64)}, {"judge": "x/1"}])
def test_attacks_are_not_replaced_by_others(steered, begun, changes):
    save_attacks(steered, Budget(), **({"judge": "x/1"} if "judge" in changes else {}))
    with pytest.raises(ExportError, match="give --overwrite"):
        attacks.attack(steered, changes.get("suite", SUITE), Budget())
    assert begun == []


def test_the_suite_is_looked_at_before_attacks_begin(steered, begun, monkeypatch):
    def refuse(*_):
        raise ExportError("line 1: too long")

    monkeypatch.setattr(attacks, "check_suite", refuse)
    with pytest.raises(ExportError, match="line 1"):
        attacks.attack(steered, SUITE)
    assert begun == []
