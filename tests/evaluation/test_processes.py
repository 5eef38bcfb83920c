"""Two processes give the result of one, also after both were killed."""

import json
import signal
import sys
import time
from unittest.mock import Mock

import pytest
import torch
from evaluation.fakes import SUITE, save_manifest, save_suite

from mars_export.cli.main import main
from mars_export.common.errors import ExportError
from mars_export.common.launch import is_first_process
from mars_export.common.names import REPORT_NAME, SAMPLES_NAME
from mars_export.families.processes import Processes, joined
from support import slow_evaluation
from support.forking import ranks, wait_for


def written(directory):
    report = json.loads((directory / REPORT_NAME).read_text())
    del report["created"], report["seconds"]
    return (directory / SAMPLES_NAME).read_bytes(), report


@pytest.fixture
def launch(started):
    """Two ranks, in the environment that a launcher gives them."""

    def begin(*arguments):
        return [started(slow_evaluation.run, *arguments, **place) for place in ranks(2)]

    return begin


def test_two_processes_give_the_result_of_one(launch, tmp_path):
    suite = save_suite(tmp_path / "suite", SUITE)
    save_suite(tmp_path / "other", [{**row, "id": f"other {row['id']}"} for row in SUITE])
    for name in ("one", "two"):
        save_manifest(tmp_path / name)
    slow_evaluation.run(tmp_path / "one", suite)
    folder = tmp_path / "two" / "evaluation"
    first = launch(tmp_path / "two", suite, 0.05)
    while all(rank.is_alive() for rank in first) and not all(
        (path := next(folder.glob(f"*.{rank}of2.partial.jsonl"), None)) and path.stat().st_size
        for rank in (0, 1)
    ):
        time.sleep(0.01)
    for rank in first:
        rank.kill()
        rank.join()
    assert len(list(folder.glob("*.partial.jsonl"))) == 2
    again = launch(tmp_path / "two", suite)
    wait_for(again)
    assert [rank.exitcode for rank in again] == [0, 0]
    assert written(tmp_path / "two") == written(tmp_path / "one")
    assert not list(folder.glob("*.partial.jsonl"))


@pytest.mark.parametrize(
    ("apart", "line"),
    [("asked", "the 2 processes are not asked the same"), ("kept", "answers of other processes")],
)
def test_processes_that_do_not_share_one_evaluation_write_no_report(started, tmp_path, apart, line):
    """Other requests in one of them, or other folders, would leave a report of half of it."""
    few = [row for row in SUITE if row["id"] != SUITE[0]["id"]]
    suites = [save_suite(tmp_path / "suite", SUITE), save_suite(tmp_path / "few", few)]
    save_suite(tmp_path / "other", [{**row, "id": f"other {row['id']}"} for row in SUITE])
    directories = [tmp_path / "one", tmp_path / "two"]
    for directory in directories:
        save_manifest(directory)
    chosen = suites if apart == "asked" else [suites[0]] * 2
    where = directories if apart == "kept" else [directories[0]] * 2
    notes = [tmp_path / "0.txt", tmp_path / "1.txt"]
    group = [
        started(slow_evaluation.run_noted, *asked, **place)
        for *asked, place in zip(where, chosen, notes, ranks(2), strict=True)
    ]
    wait_for(group)
    assert [rank.exitcode for rank in group] == [1, 1]
    assert line in notes[0].read_text()
    assert not any((directory / REPORT_NAME).exists() for directory in directories)


@pytest.mark.parametrize(("said", "first"), [("", True), ("1", True), ("2", False)])
def test_a_rank_without_a_launcher_is_the_only_process(monkeypatch, said, first):
    monkeypatch.setenv("WORLD_SIZE", said)
    monkeypatch.setenv("RANK", "1")
    assert is_first_process() == first


@pytest.mark.parametrize("said", ["two", "0", "-1", "1.0", "²"])
def test_a_number_of_processes_that_is_none_is_one_line(monkeypatch, capsys, said):
    monkeypatch.setenv("WORLD_SIZE", said)
    with pytest.raises(SystemExit) as ended:
        main(["families"])
    assert ended.value.code == 2
    assert f"WORLD_SIZE is {said!r} in the environment" in capsys.readouterr().err


def test_one_process_needs_no_launcher(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as alone:
        assert alone == Processes()
        assert alone.gather("x") == ["x"]
        assert alone.device("cuda") == "cuda"


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert Processes(5, 8, 1).device("cuda") == "cuda:1"
    assert Processes(5, 8, 1).device("cpu") == "cpu"
    with pytest.raises(ExportError, match=r"process 6 has no GPU: torch sees 2 on its machine"):
        Processes(6, 8, 2).device("cuda")


class Unpackable:
    """Cannot be told to others."""

    def __reduce__(self):
        raise RuntimeError("cannot be packed")


def test_only_a_lost_connection_is_said_to_be_one(monkeypatch):
    one = Processes(0, 2)
    for share in (one.gather, one.first):
        with pytest.raises(RuntimeError, match="cannot be packed"):
            share(Unpackable())
    for said, error in (("can't allocate memory", RuntimeError), ("closed by peer", ExportError)):
        failing = Mock(side_effect=RuntimeError(said))
        monkeypatch.setattr(torch.distributed, "all_gather_object", failing)
        with pytest.raises(error):
            one.gather(1)


def test_a_rank_that_fails_ends_the_others(started):
    """As a launcher does; else a test would wait for a rank that waits."""
    group = [started(sys.exit, 3), started(time.sleep, 10**6)]
    wait_for(group)
    assert [rank.exitcode for rank in group] == [3, -signal.SIGKILL]
