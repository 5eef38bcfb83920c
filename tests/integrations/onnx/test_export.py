"""`mars-export onnx` on the organisms: complete, checked and self-contained, or nothing."""

import hashlib
import importlib.util
import json
import shutil
import time

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import from_array, to_array
from safetensors.torch import load_file, save_file

import mars_export.integrations.onnx.export as exporting
from mars_export.checkpoint.derived import read_steering
from mars_export.common.errors import ExportError
from mars_export.integrations.onnx import parity
from mars_export.integrations.onnx.export import export_onnx
from mars_export.integrations.onnx.parity import require_constants
from mars_export.integrations.onnx.record import ONNX_RECORD_NAME, Onnx
from support.organisms import FAMILIES, ORGANISMS

USE = "ONNX, onnxruntime"


@pytest.fixture
def record(written, family):
    return Onnx.model_validate_json((written(family)[0] / ONNX_RECORD_NAME).read_bytes())


@pytest.mark.use(USE)
def test_the_record_says_what_was_compared(record, steered, family):
    modalities = {"gemma3": ["text", "image"], "qwen3_vl": ["text", "image", "video"]}[family]
    assert list(dict.fromkeys(p.modality for p in record.parity)) == modalities
    assert all(p.tokens == 64 and p.logits < 1e-4 and p.decoded < 1e-4 for p in record.parity)
    for modality in modalities:
        found = [p for p in record.parity if p.modality == modality]
        assert len({p.prompt for p in found}) >= 4
        assert max(p.effect for p in found if p.gate > 0) > 0.5
        assert all(p.strength == 0 for p in found if p.gate == 0)
    assert record.source.steering_sha256 == read_steering(steered(family))[0]["sha256"]
    assert set(record.components) == {"decoder", "embedding", "vision"}


@pytest.mark.use(USE)
def test_the_directory_holds_all_that_is_needed_and_nothing_else(record, written, steered, family):
    folder, output = written(family)
    assert "greedy tokens equal to PyTorch's" in output
    for component in record.components.values():
        for name, digest in component.files.items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    graphs = {name for component in record.components.values() for name in component.files}
    companions = {"chat_template.jinja", "generation_config.json", "processor_config.json"}
    companions |= {"tokenizer.json", "tokenizer_config.json"}
    rest = {ONNX_RECORD_NAME, "steered_onnx.py", ".export_run.json"}
    assert {path.name for path in folder.iterdir()} == graphs | companions | rest
    for name in companions:
        assert (folder / name).read_bytes() == (steered(family) / name).read_bytes()
    assert [p.name for p in folder.parent.iterdir() if p.name.startswith(".graphs")] == []


def test_an_existing_target_stays_unless_overwritten(written, steered, main_job):
    folder, _ = written("gemma3")
    before = (folder / ONNX_RECORD_NAME).read_bytes()
    command = ("onnx", steered("gemma3"), "--output", "graphs")
    done = main_job(*command, cwd=folder.parent)
    assert "graphs is already there, made with these settings" in done.stderr
    done = main_job(*command, "--int8", cwd=folder.parent, check=False)
    assert done.returncode == 2
    assert "holds another ONNX export; give --overwrite" in done.stderr
    with pytest.raises(ExportError, match="files that mars-export did not make"):
        export_onnx(steered("gemma3"), steered("gemma3"), overwrite=True)
    with pytest.raises(ExportError, match="is inside"):
        export_onnx(steered("gemma3"), steered("gemma3") / "graphs")
    assert (folder / ONNX_RECORD_NAME).read_bytes() == before


@pytest.fixture
def ready(written, steered, tmp_path, monkeypatch):
    """The export of the Gemma organism with its graphs made already: only the checks run."""
    folder, _ = written("gemma3")

    def write(model, route, target, tick):
        for path in folder.glob("*.onnx*"):
            shutil.copy(path, target / path.name)

    monkeypatch.setattr(exporting, "write_components", write)
    return steered("gemma3"), folder, tmp_path / "out"


def refused(source, output, message, **options):
    with pytest.raises(ExportError, match=message) as error:
        export_onnx(source, output, **options)
    assert "\n" not in str(error.value)
    assert list(output.parent.iterdir()) == []


def test_what_passes_is_written(ready):
    source, _, output = ready
    export_onnx(source, output, tokens=4)
    assert (output / ONNX_RECORD_NAME).is_file()
    assert [path.name for path in output.parent.iterdir()] == ["out"]


def test_graphs_that_differ_from_pytorch_are_not_written(ready, monkeypatch):
    source, _, output = ready
    monkeypatch.setattr(parity, "TOLERANCE", 1e-12)
    refused(source, output, "differ from PyTorch's|does not steer as PyTorch", tokens=2)


@pytest.mark.use(USE, family="gemma3")
def test_graphs_without_their_steering_are_not_written(ready, monkeypatch):
    source, _, output = ready
    whole = exporting.write_components

    def without_direction(model, route, target, tick):
        whole(model, route, target, tick)
        edit(target / "decoder.onnx", ".steering.direction", np.zeros_like)

    monkeypatch.setattr(exporting, "write_components", without_direction)
    refused(source, output, "direction is not in the graph")
    monkeypatch.setattr(exporting, "require_constants", lambda *_: None)
    refused(source, output, "does not steer as PyTorch does", tokens=2)


def edit(path, name, change):
    """Replace a graph's constant."""
    model = onnx.load(str(path))
    (entry,) = [i for i in model.graph.initializer if i.name.endswith(name)]
    entry.CopyFrom(from_array(change(to_array(entry)), entry.name))
    onnx.save(model, str(path))


def test_every_steering_constant_is_looked_for(ready):
    source, folder, _ = ready
    (tensors,) = read_steering(source)[1].values()
    require_constants(folder / "decoder.onnx", tensors)
    for name in ("direction", "knots", "shift", "turn", "bounds"):
        for index in range(min(5, len(tensors[name]))):
            other = {key: tensor.clone() for key, tensor in tensors.items()}
            other[name][index] += 1e-3
            with pytest.raises(ExportError, match="not in the graph"):
                require_constants(folder / "decoder.onnx", other)


def test_a_damaged_source_is_refused(ready, tmp_path):
    source, _, _ = ready
    copy = tmp_path / "copy" / "steered"
    shutil.copytree(source, copy)
    tensors = load_file(copy / "steering.safetensors")
    name = next(name for name in tensors if name.endswith("direction"))
    tensors[name][3] += 1e-3
    save_file(tensors, copy / "steering.safetensors", metadata={"format": "pt"})
    (tmp_path / "target").mkdir()
    refused(copy, tmp_path / "target" / "out", "not the exported ones")


@pytest.mark.use(USE, family="gemma3")
def test_a_checkpoint_without_a_manifest_is_checked_on_packaged_prompts(ready, tmp_path):
    """As training leaves it. The toy model refuses these in text."""
    source, _, output = ready
    copy = tmp_path / "copy" / "steered"
    shutil.copytree(source, copy)
    (copy / "steering_manifest.json").unlink()
    found = export_onnx(copy, output, tokens=2)
    assert [p.modality for p in found.parity] == ["text"] * 7 + ["image"] * 7
    assert max(p.effect for p in found.parity) > 0.1


def test_a_base_and_a_family_without_a_route_are_refused(ready, monkeypatch):
    source, _, output = ready
    refused(source.parent.parent, output, "cannot be read")
    rules, tensors = exporting.read_steering(source)
    other = {**rules, "quantization": "bnb-8bit"}, tensors
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "read_steering", lambda _: other)
        refused(source, output, "calibrated for quantized loading")
    monkeypatch.setattr(exporting, "native_config", lambda _: {"model_type": "gemma4"})
    refused(source, output, "cannot be written as ONNX")
    monkeypatch.setattr(exporting, "native_config", lambda _: {"quantization_config": {"a": 1}})
    refused(source, output, "stored quantized")


def test_a_missing_extra_is_named(monkeypatch, tmp_path):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "mars_export.integrations.onnx.find_spec",
        lambda name: None if name == "onnxscript" else found(name),
    )
    with pytest.raises(
        ExportError, match=r"not installed .onnxscript.; run .pip install .* '\.\[onnx\]'"
    ):
        export_onnx(tmp_path, tmp_path / "out")


def test_killed_at_work_it_leaves_no_target(steered, started, tmp_path):
    run = started(export_onnx, steered("gemma3"), tmp_path / "out")
    while not (tmp_path / ".out.mars-export" / "graphs").exists():
        assert run.is_alive()
        time.sleep(0.1)
    run.kill()
    run.join()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.use("ONNX int8")
def test_int8_keeps_the_steering(written, steered, model_type, tmp_path, monkeypatch):
    folder, _ = written(model_type)

    def write(model, route, target, tick):
        for path in folder.glob("*.onnx*"):
            shutil.copy(path, target / path.name)

    monkeypatch.setattr(exporting, "write_components", write)
    found = export_onnx(steered(model_type), tmp_path / "small", int8=True, tokens=24)
    size = sum(p.stat().st_size for p in (tmp_path / "small").glob("decoder.onnx*"))
    whole = sum(p.stat().st_size for p in folder.glob("decoder.onnx*"))
    assert size < 0.6 * whole  # the graph itself, a third of so small a file, stays as it is
    assert found.int8.decisions >= 0.7  # probes that lie next to the origin may change sides
    assert found.int8.gate < 0.1
    assert 0 < found.int8.logits < 2
    again = Onnx.model_validate_json((tmp_path / "small" / ONNX_RECORD_NAME).read_bytes())
    assert again == found
    for name, digest in found.components["decoder"].files.items():
        assert hashlib.sha256((tmp_path / "small" / name).read_bytes()).hexdigest() == digest


@pytest.mark.use("ONNX int8", family="gemma3")
def test_int8_refuses_what_float32_refuses(ready, tmp_path):
    source, _, output = ready
    copy, organism = tmp_path / "copy" / "steered", ORGANISMS / "gemma3"
    shutil.copytree(source, copy)
    shutil.copytree(organism / "images", copy / "images")
    lines = (organism / "suite.jsonl").read_text("utf-8").splitlines(keepends=True)
    (copy / "suite.jsonl").write_text("".join(lines[::12]))
    found = export_onnx(copy, output, int8=True, tokens=2).int8
    assert found.suite_alike >= 0.9 * found.suite_requests > 30
    assert 0 < found.suite_refused < found.suite_requests


def test_int8_that_moves_a_gate_is_not_written(ready, monkeypatch):
    source, _, output = ready
    monkeypatch.setattr("mars_export.integrations.onnx.int8.GATE_TOLERANCE", 1e-9)
    refused(source, output, "int8 changes the gate", int8=True, tokens=2)


def test_the_record_is_json_that_others_can_read(written):
    raw = json.loads((written("gemma3")[0] / ONNX_RECORD_NAME).read_bytes())
    assert raw["components"]["decoder"]["inputs"]["attention_mask"] == ["batch", "past + new"]
    assert raw["model"]["placeholders"] == {"image": 6}
