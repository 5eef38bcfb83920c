"""The logic of the check that needs a GPU: it passes what is right, and nothing else."""

import importlib.util
import json
import sys

import pytest

from support.organisms import ORGANISMS

PATH = ORGANISMS.parent / "serving/check_gpu.py"


@pytest.fixture
def check():
    spec = importlib.util.spec_from_file_location("check_gpu", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def said(check, token=5, at=(3,)):
    return [check.Said(token, None if at is None else list(at)), check.Said(7, [2, 9])]


def test_what_is_right_passes(check):
    told = {"eager": said(check), "graphs": [s._replace(steered=None) for s in said(check)]}
    found = check.results(said(check), told, [(1.0, 0.99), (1.0, 1.0), (2.0, 1.99)])
    assert found["passed"]
    assert found["decode_ratio"] == pytest.approx(0.995)


@pytest.mark.parametrize(
    ("eager", "graphs", "pairs"),
    [
        ({"token": 6}, {}, [(1, 1)]),
        ({"at": (4,)}, {}, [(1, 1)]),
        ({"at": None}, {}, [(1, 1)]),
        ({}, {"token": 6}, [(1, 1)]),
        ({}, {}, [(1, 0.98)]),
    ],
)
def test_anything_wrong_fails(check, eager, graphs, pairs):
    told = {"eager": said(check, **eager), "graphs": said(check, **graphs)}
    assert not check.results(said(check), told, pairs)["passed"]


def test_answers_that_are_missing_are_a_difference(check):
    assert check.differences(said(check), said(check)[:1]) == ["1 answers to 2 questions"]


@pytest.mark.parametrize("seconds", [1.0, 0.5])
def test_the_parts_come_together_in_a_file(check, tmp_path, monkeypatch, seconds, capsys):
    parts = {"speed": [[1.0, seconds]]}
    run = lambda name, *rest: parts.get(name, [[5, [3]]])  # noqa: E731
    monkeypatch.setattr(check, "run", run)
    out = tmp_path / "check.json"
    monkeypatch.setattr(sys, "argv", ["check_gpu.py", "steered", "base", "--output", str(out)])
    with pytest.raises(SystemExit) as ended:
        check.main()
    assert ended.value.code == (seconds < 0.99)
    assert json.loads(out.read_text())["decode_ratio"] == seconds


def test_numbers_that_make_no_sense_end_at_once(check, monkeypatch, capsys):
    wrong = ["check_gpu.py", "steered", "base", "--output", "x", "--pairs", "0"]
    monkeypatch.setattr(sys, "argv", wrong)
    with pytest.raises(SystemExit) as ended:
        check.main()
    assert ended.value.code == 2
