"""Processes that share the requests of a calibration all get what one alone gets."""

import json

import pytest
from safetensors.torch import load_file

from mars_export.families.processes import Processes
from support import shared_calibration
from support.forking import ranks, wait_for


def saved(folder):
    record = json.loads((folder / "calibration.json").read_text())
    del record["source"]["seconds"]
    return record, load_file(folder / "calibration.safetensors")


@pytest.mark.parametrize("method", ["mars", "addition"])
def test_two_processes_calibrate_as_one(method, started, tmp_path):
    shared_calibration.run(method, tmp_path, 7)
    group = [
        started(shared_calibration.run, method, tmp_path, rank, **place)
        for rank, place in enumerate(ranks(2))
    ]
    wait_for(group)
    assert [process.exitcode for process in group] == [0, 0]
    record, tensors = saved(tmp_path / "7")
    for rank in ("0", "1"):
        ours, theirs = saved(tmp_path / rank)
        assert ours == record
        assert all(theirs[name].equal(tensor) for name, tensor in tensors.items())


def test_parts_come_back_in_order():
    assert Processes().each(range(5), lambda n: n * n) == [0, 1, 4, 9, 16]
