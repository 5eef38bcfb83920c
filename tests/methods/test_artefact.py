"""A calibration on disk."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mars_export.common.errors import ExportError
from mars_export.methods.base import RECORD_NAME, TENSORS_NAME, Artefact
from support import tiny


def made() -> Artefact:
    return tiny.artefact("gemma3")


def test_round_trip(tmp_path):
    saved = made()
    saved.save(tmp_path / "calibration")
    assert sorted(p.name for p in (tmp_path / "calibration").iterdir()) == [
        RECORD_NAME,
        TENSORS_NAME,
    ]
    back = Artefact.load(tmp_path / "calibration")
    assert back.record == saved.record
    assert back.tensors.keys() == saved.tensors.keys()
    assert all(torch.equal(back.tensors[name], saved.tensors[name]) for name in saved.tensors)


def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    made().save(tmp_path)
    before = (tmp_path / TENSORS_NAME).read_bytes()

    def fails(path, content):
        path.write_text("half")
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", fails)
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
        (lambda t: t.update(direction=torch.ones(3)), r"direction has shape \[3\], not \[64\]"),
        (lambda t: t["shift"].fill_(torch.nan), "shift is not finite"),
        (lambda t: t.update(bounds=t["bounds"].half()), "bounds is not finite float32"),
        (lambda t: t.update(more=torch.ones(2)), "more has shape"),
    ],
)
def test_damaged_tensors_are_named(tmp_path, change, message):
    with pytest.raises(ExportError, match=message):
        Artefact.load(damaged(tmp_path, change))


def test_missing_and_malformed_records(tmp_path):
    with pytest.raises(ExportError, match="no readable calibration"):
        Artefact.load(tmp_path)
    made().save(tmp_path)
    raw = json.loads((tmp_path / RECORD_NAME).read_text())
    for change, message in (
        ({"record": {**raw["record"], "layer": "third"}}, r"record: layer: Input should be"),
        ({"method": "nonsense"}, r"there is no steering method 'nonsense'; choose one of mars"),
        ({"schema_version": 2}, "schema version 2 is not 4"),
    ):
        (tmp_path / RECORD_NAME).write_text(json.dumps({**raw, **change}))
        with pytest.raises(ExportError, match=message) as caught:
            Artefact.load(tmp_path)
        assert "\n" not in str(caught.value)
    raw.pop("schema_version")
    (tmp_path / RECORD_NAME).write_text(json.dumps(raw))
    with pytest.raises(ExportError, match="schema version 'none' is not 4"):
        Artefact.load(tmp_path)
    made().save(tmp_path)
    (tmp_path / TENSORS_NAME).write_bytes(b"not safetensors")
    with pytest.raises(ExportError, match="no readable calibration"):
        Artefact.load(tmp_path)
