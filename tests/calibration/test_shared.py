"""Processes that share the requests of a calibration all get what one alone gets."""

import pytest

from mars_export.families.placement import Placement
from mars_export.families.processes import Processes
from mars_export.methods import method_named
from support import methods, saved, shared_calibration
from support.forking import ranks, wait_for

METHODS = ["mars", "rai", "ras"]
"""Each reads a model in a way of its own; addition is part of MARS."""


@pytest.mark.parametrize("method", ["mars", "addition"])
def test_two_processes_calibrate_as_one(method, started, tmp_path):
    shared_calibration.run(method, tmp_path, 7)
    group = [
        started(shared_calibration.run, method, tmp_path, rank, **place)
        for rank, place in enumerate(ranks(2))
    ]
    wait_for(group)
    assert [process.exitcode for process in group] == [0, 0]
    for rank in ("0", "1"):
        saved.require_same(tmp_path / rank, tmp_path / "7")


@pytest.fixture(scope="module")
def placed(started, tmp_path_factory):
    """Folder with calibrations of the organism: alone, on the disk, and by two processes."""
    folder = tmp_path_factory.mktemp("placed")
    group = [started(shared_calibration.organism, METHODS, folder, **place) for place in ranks(2)]
    for name in METHODS:
        options = method_named(name).Options()
        methods.calibrated(name, options).save(folder / "alone" / name)
        disk = Placement(device="cpu", max_memory={"cpu": 2_500_000}, offload_folder=folder)
        methods.calibrated(name, options, disk).save(folder / "disk" / name)
    wait_for(group)
    assert [process.exitcode for process in group] == [0, 0]
    return folder


@pytest.mark.parametrize("way", ["disk", *shared_calibration.WAYS])
@pytest.mark.parametrize("method", METHODS)
def test_methods_find_the_same_wherever_the_model_lies(method, way, placed):
    pytest.importorskip("accelerate")
    saved.require_close(placed / way / method, placed / "alone" / method)


def test_parts_come_back_in_order():
    assert Processes().each(range(5), lambda n: n * n) == [0, 1, 4, 9, 16]
