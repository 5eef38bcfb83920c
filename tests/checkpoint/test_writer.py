"""The steered directory: base bytes as they were, little else, nothing half-written."""

import filecmp
import json
import shutil

import pytest
import torch
import transformers
from transformers.activations import ACT2FN

from mars_export.checkpoint import writer
from mars_export.checkpoint.integrity import verify_files
from mars_export.checkpoint.manifest import Manifest
from mars_export.checkpoint.seal import SEAL_NAME
from mars_export.checkpoint.tensors import push_problem, steering_tensors
from mars_export.checkpoint.writer import write_checkpoint
from mars_export.common.errors import ExportError
from mars_export.runtime.guard import GUARD
from support import tiny


@pytest.fixture(params=tiny.FAMILIES)
def made(request, tmp_path):
    base, target = tiny.export(request.param, tmp_path)
    return request.param, base, target


def test_shards_are_the_bases_own_bytes(made):
    _, base, target = made
    shard = target / "model-00001-of-00002.safetensors"
    assert filecmp.cmp(base / "model.safetensors", shard, shallow=False)
    assert (base / "model.safetensors").samefile(shard)
    new = sum(p.stat().st_size for p in target.rglob("*") if p.is_file() and p != shard)
    assert new < 120_000
    assert (target / "steering.safetensors").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"cap": -1e9}, "the cap is not above the gate's origin"),
        ({"gain": 0.0}, "the slope is not above 0"),
        ({"radius": -1.0}, "the radius is not above 0"),
        ({"harmful": -10.0}, "the harmful centroid is not above the gate's origin"),
        ({"probes": []}, "no probe of the calibration is pushed"),
    ],
)
def test_a_calibration_that_never_pushes_is_refused_before_anything_is_written(
    tmp_path, changes, problem
):
    with pytest.raises(ExportError, match=f"nothing would be steered: .*{problem}") as caught:
        tiny.export("gemma3", tmp_path, **changes)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "steered").exists()


def test_one_of_several_layers_that_can_push_is_enough():
    made = tiny.addition("gemma3", layers=(1, 2))
    rules, tensors = made.record.rules, steering_tensors(made)
    tensors[1]["push"] = torch.zeros(tiny.HIDDEN)
    assert push_problem(made.record, rules, tensors) is None
    tensors[2]["push"] = torch.zeros(tiny.HIDDEN)
    assert push_problem(made.record, rules, tensors) == "the push has length 0"
    assert push_problem(made.record, rules, {}) == "no layer is steered"


def test_manifest_lists_every_file_and_verifies(made):
    family, _, target = made
    manifest = Manifest.read(target)
    on_disk = {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()}
    assert {e.path for e in manifest.files} == on_disk - {"steering_manifest.json", SEAL_NAME}
    by_path = {e.path: e for e in manifest.files}
    assert by_path["model-00001-of-00002.safetensors"].base_path == "model.safetensors"
    assert by_path["config.json"].origin == "base-rewritten"
    assert by_path["modeling_steered.py"].origin == by_path["steering_host.py"].origin == "added"
    assert manifest.calibration == tiny.artefact(family).record
    modalities = len(manifest.calibration.source.modalities)
    shapes = [t.shape for t in manifest.tensors]
    assert shapes == [[tiny.HIDDEN], *([modalities, n] for n in (2, 2, 1, 5))]
    assert manifest.tensors[0].norm == pytest.approx(1)
    assert verify_files(target) == []


def test_verify_names_what_changed(made):
    _, _, target = made
    (target / "generation_config.json").unlink()
    (target / "config.json").write_text("{}")
    (target / "extra.py").write_text("")
    problems = verify_files(target)
    assert problems == [
        "config.json is not the file that was exported",
        "generation_config.json is missing",
        "extra.py is no part of an export, yet it is code",
    ]


def test_sharded_base_keeps_its_shard_names(tmp_path):
    base = tiny.save_base("gemma3", tmp_path / "base", max_shard_size="300KB")
    calibration = tiny.save_calibration("gemma3", tmp_path / "calibration")
    target = tmp_path / "steered"
    write_checkpoint(base, target, source=tiny.source("gemma3"), calibration_dir=calibration)
    shards = sorted(p.name for p in base.glob("*.safetensors"))
    assert len(shards) > 2
    assert sorted(p.name for p in target.glob("*.safetensors")) == sorted(
        [*shards, "steering.safetensors"]
    )
    model, info = transformers.AutoModelForImageTextToText.from_pretrained(
        target, trust_remote_code=True, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.steering.verified


def test_activation_that_the_base_leaves_out_is_guarded_too(tmp_path):
    base = tiny.save_base("gemma3", tmp_path / "base")
    raw = json.loads((base / "config.json").read_text())
    native = raw["text_config"].pop("hidden_activation", "gelu_pytorch_tanh")
    (base / "config.json").write_text(json.dumps(raw))
    calibration = tiny.save_calibration("gemma3", tmp_path / "calibration")
    target = tmp_path / "steered"
    write_checkpoint(base, target, source=tiny.source("gemma3"), calibration_dir=calibration)
    model = transformers.AutoModelForImageTextToText.from_pretrained(target, trust_remote_code=True)
    assert model.config.get_text_config().hidden_activation == GUARD
    one = torch.ones(1)
    assert model.get_decoder().layers[0].mlp.act_fn(one).equal(ACT2FN[native](one))


def damage_type(base, calibration):
    raw = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**raw, "model_type": "mystery"}))


def damage_code(base, calibration):
    raw = json.loads((base / "config.json").read_text())
    raw["auto_map"] = {"AutoModel": "m.M"}
    (base / "config.json").write_text(json.dumps(raw))


def damage_weights(base, calibration):
    (base / "model.safetensors").unlink()


def damage_json(base, calibration):
    (base / "config.json").write_text("{")


def damage_family(base, calibration):
    tiny.save_calibration("qwen3_vl", calibration)


def damage_width(base, calibration):
    path = calibration / "calibration.json"
    record = tiny.artefact("gemma3").record
    shapes = {**record.shapes, "direction": [32]}
    path.write_text(record.model_copy(update={"shapes": shapes}).model_dump_json())


def damage_record(base, calibration):
    (calibration / "calibration.json").write_text("{")


def damage_vectors(base, calibration):
    (calibration / "calibration.safetensors").write_bytes(b"half")


def damage_index(base, calibration):
    (base / "model.safetensors").unlink()
    (base / "model.safetensors.index.json").write_text('{"metadata": {}}')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_type, "not supported"),
        (damage_code, "custom code of its own"),
        (damage_weights, "holds no safetensors weights"),
        (damage_json, "not valid JSON"),
        (damage_family, "was made for 'qwen3_vl'"),
        (damage_width, "direction has shape"),
        (damage_record, "no readable calibration"),
        (damage_vectors, "no readable calibration"),
        (damage_index, "has no `weight_map`"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(tmp_path, damage, message):
    base = tiny.save_base("gemma3", tmp_path / "base")
    calibration = tiny.save_calibration("gemma3", tmp_path / "calibration")
    damage(base, calibration)
    target = tmp_path / "steered"
    with pytest.raises(ExportError, match=message) as caught:
        write_checkpoint(base, target, source=tiny.source("gemma3"), calibration_dir=calibration)
    assert "\n" not in str(caught.value)
    assert not target.exists()


def test_an_error_while_writing_removes_the_target(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        tiny.export("gemma3", tmp_path)
    assert not (tmp_path / "steered").exists()


def test_files_on_another_file_system_are_copied(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("mars_export.families.directory.os.link", refuse)
    base, target = tiny.export("gemma3", tmp_path)
    shard = target / "model-00001-of-00002.safetensors"
    assert filecmp.cmp(base / "model.safetensors", shard, shallow=False)
    assert shard.stat().st_nlink == 1


def test_snapshots_of_symbolic_links_are_resolved(tmp_path):
    base = tiny.save_base("gemma3", tmp_path / "blobs")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for path in base.iterdir():
        (snapshot / path.name).symlink_to(path)
    calibration = tiny.save_calibration("gemma3", tmp_path / "calibration")
    target = tmp_path / "steered"
    write_checkpoint(snapshot, target, source=tiny.source("gemma3"), calibration_dir=calibration)
    shutil.rmtree(snapshot)
    assert verify_files(target) == []
    assert not any(p.is_symlink() for p in target.rglob("*"))
