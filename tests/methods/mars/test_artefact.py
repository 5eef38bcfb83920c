"""A calibration on disk."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mars_export.common.errors import ExportError
from mars_export.methods.mars.artefact import RECORD_NAME, TENSORS_NAME, Calibration
from support import tiny


def made() -> Calibration:
    a, b, c, d = torch.randn(4, tiny.HIDDEN, generator=torch.Generator().manual_seed(0))
    return Calibration(tiny.record("gemma3"), a / a.norm(), b, c, {"image": d})


def test_round_trip(tmp_path):
    saved = made()
    saved.save(tmp_path / "calibration")
    assert sorted(p.name for p in (tmp_path / "calibration").iterdir()) == [
        RECORD_NAME,
        TENSORS_NAME,
    ]
    back = Calibration.load(tmp_path / "calibration")
    assert back.record == saved.record
    for name in ("direction", "centroid_harmful", "centroid_harmless"):
        assert torch.equal(getattr(back, name), getattr(saved, name))
    assert list(back.shift) == ["image"]
    assert torch.equal(back.shift["image"], saved.shift["image"])


def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    made().save(tmp_path)
    before = (tmp_path / TENSORS_NAME).read_bytes()

    def fails(_tensors, path):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("mars_export.methods.mars.artefact.save_file", fails)
    with pytest.raises(OSError, match="no space"):
        made().save(tmp_path)
    assert (tmp_path / TENSORS_NAME).read_bytes() == before


def damaged(tmp_path, change):
    made().save(tmp_path)
    tensors = load_file(tmp_path / TENSORS_NAME)
    change(tensors)
    save_file(tensors, tmp_path / TENSORS_NAME)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("direction"), "direction is missing"),
        (lambda t: t.update(direction=torch.ones(3)), r"direction has shape \(3,\), not \(64,\)"),
        (lambda t: t["centroid_harmful"].fill_(torch.nan), "centroid_harmful is not finite"),
        (lambda t: t.update({"shift.image": torch.ones(64).half()}), "shift.image is not finite"),
    ],
)
def test_damaged_tensors_are_named(tmp_path, change, message):
    with pytest.raises(ExportError, match=message):
        Calibration.load(damaged(tmp_path, change))


def test_missing_and_malformed_records(tmp_path):
    with pytest.raises(ExportError, match="no readable calibration"):
        Calibration.load(tmp_path)
    made().save(tmp_path)
    raw = json.loads((tmp_path / RECORD_NAME).read_text())
    (tmp_path / RECORD_NAME).write_text(json.dumps({**raw, "layer": "third"}))
    with pytest.raises(ExportError, match="no readable calibration"):
        Calibration.load(tmp_path)
    made().save(tmp_path)
    (tmp_path / TENSORS_NAME).write_bytes(b"not safetensors")
    with pytest.raises(ExportError, match="no readable calibration"):
        Calibration.load(tmp_path)
