"""A model that lies in memory and on the disk computes what it computes on one device."""

import gc
import tempfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from mars_export.calibration.activations import Edit, Reader
from mars_export.common.errors import ExportError
from mars_export.evaluation.generation import load
from mars_export.families import room
from mars_export.families.loading import load_base
from mars_export.families.memory import weights_of
from mars_export.families.placement import Placement, input_device
from mars_export.inputs.requests import Request
from mars_export.inputs.stimuli import STIMULI
from mars_export.inputs.template import turn_tokens
from support import bases, zoo

pytest.importorskip("accelerate")


def half(model, folder):
    """About half of the weights in memory, the rest on the disk."""
    size = weights_of(model).total // 2
    return Placement(device="cpu", max_memory={"cpu": size}, offload_folder=folder)


def on_disk(model):
    return sum(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("family", bases.KINDS)
def test_calibration_reads_the_same(family, tmp_path):
    base = bases.save_whole_base(tmp_path / "base", family)
    plain, processor = load_base(base, zoo.family(family), dtype="auto", device="cpu")
    folder = tmp_path / "offloaded"
    folder.mkdir()
    spread, _ = load_base(base, zoo.family(family), dtype="auto", device=half(plain, folder))
    assert on_disk(spread) > 5
    assert input_device(spread) == torch.device("cpu")
    shown = () if family == "llama" else (STIMULI["image"].draw(0, 0),)
    requests = [Request(f"how do i make good{i}", shown) for i in range(3)]
    edit = Edit(3, lambda h, _: h + 1)
    first, second = (
        [
            Reader(model, processor, turn_tokens(processor).headers, [5], 2).read(requests, **how)
            for how in ({"states": True, "log_probs": True}, {"log_probs": True, "edit": edit})
        ]
        for model in (plain, spread)
    )
    for ours, theirs in zip(first, second, strict=True):
        assert ours.states.equal(theirs.states)
        assert ours.log_probs.equal(theirs.log_probs)
    assert not first[0].log_probs.equal(first[1].log_probs)
    assert len(list(folder.iterdir())) == 1
    del spread
    gc.collect()
    assert list(folder.iterdir()) == []


def test_weights_on_the_disk_are_looked_at_too(tmp_path):
    base = bases.save_whole_base(tmp_path / "base", "llama", shard="1GB")
    plain, _ = load_base(base, zoo.family("llama"), dtype="auto", device="cpu")
    path = base / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][3] = torch.nan
    save_file(tensors, path, metadata={"format": "pt"})
    where = half(plain, tmp_path)
    with pytest.raises(ExportError, match=r"model\.norm\.weight is not finite"):
        load_base(base, zoo.family("llama"), dtype="auto", device=where)
    gc.collect()
    assert [entry.name for entry in tmp_path.iterdir()] == ["base"]


@pytest.mark.parametrize("family", ["gemma3", "llama"])
def test_a_steered_checkpoint_answers_the_same(family, tmp_path):
    base = bases.save_whole_base(tmp_path / "base", family)
    with bases.quick_exports():
        assert bases.command("--model", base, "--output", tmp_path / "out").code == 0
    modalities = zoo.family(family).modalities
    plain = load(tmp_path / "out", modalities, "cpu", None)
    spread = load(tmp_path / "out", modalities, half(plain.model, tmp_path), None)
    assert on_disk(spread.model) > 5
    ours, theirs = (
        loaded.answer(loaded.inputs([Request("make good1")]), 4, steered=True)
        for loaded in (plain, spread)
    )
    assert ours.logits.equal(theirs.logits)
    assert ours.texts == theirs.texts
    assert [s.gate for s in ours.steered[0]] == [s.gate for s in theirs.steered[0]]
    assert ours.steered[0]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    base = bases.save_whole_base(tmp_path / "base", "llama")
    where = Placement(device="cpu", offload_folder=tmp_path / "absent")
    with pytest.raises(ExportError, match=r"--offload-folder: cannot write to .*absent \(No such"):
        load_base(base, zoo.family("llama"), dtype="auto", device=where)
    assert not list(tmp_path.glob("mars-export-offload-*"))


def test_no_more_is_filled_than_there_is(monkeypatch):
    monkeypatch.setattr(room, "_available", lambda: 5000)
    most = Placement(device="cpu", max_memory={"cpu": 10**15}).options()["max_memory"]
    assert most == {"cpu": 5000}
