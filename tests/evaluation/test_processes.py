"""Two processes give the result of one, also after both were killed."""

import json
import signal
import sys
import time
from unittest.mock import Mock

import pytest
import torch
from evaluation.fakes import SUITE, save_manifest, save_suite

from mars_export.common.errors import ExportError
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
