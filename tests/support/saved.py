"""Calibrations as they were saved, and what it is for two to be the same or to agree."""

import json

import pytest
from safetensors.torch import load_file

from mars_export.evaluation.selfcheck import TOLERANCE


def calibration(folder):
    """The record but for its time, and the tensors."""
    record = json.loads((folder / "calibration.json").read_text())
    del record["source"]["seconds"]
    return record, load_file(folder / "calibration.safetensors")


def require_same(ours, theirs):
    """Two calibrations are equal, bit for bit."""
    (record, tensors), (other, own) = calibration(ours), calibration(theirs)
    assert other == record
    assert own.keys() == tensors.keys()
    assert all(own[name].equal(tensor) for name, tensor in tensors.items())


def require_close(ours, theirs):
    """Two calibrations agree within the tolerance of the self-check in float32."""
    (record, tensors), (other, own) = calibration(ours), calibration(theirs)
    bound = TOLERANCE["float32"]
    assert dict(_numbers(other)) == pytest.approx(dict(_numbers(record)), rel=bound, abs=bound)
    assert own.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert own[name].sub(tensor).norm() <= bound * tensor.norm()


def _numbers(value, place=""):
    """Place of every number of a record, and the number."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in items:
        where = f"{place}.{key}"
        if isinstance(part, dict | list):
            yield from _numbers(part, where)
        elif isinstance(part, float):
            yield where, part
