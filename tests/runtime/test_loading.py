"""Every route loads steered or raises; nothing becomes the unsteered model in silence."""

import copy
import json
import os
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mars_export.families import families
from support import tiny
from support.tiny import random_ids

AUTO = (
    "AutoModelForImageTextToText",
    "AutoModel",
    "AutoModelForMultimodalLM",
    "AutoModelForCausalLM",
)


@pytest.fixture
def copied(pair, tmp_path):
    """A private copy of the steered directory, to damage. Its name is unique for module caches."""
    target = tmp_path / f"copy{os.getpid()}{id(tmp_path)}"
    shutil.copytree(pair.directory, target)
    return target


def load(directory, auto="AutoModelForImageTextToText", **options):
    return getattr(transformers, auto).from_pretrained(directory, trust_remote_code=True, **options)


@pytest.mark.parametrize("auto", AUTO)
def test_auto_classes_load_steered_with_nothing_missing(pair, auto):
    model, info = load(pair.directory, auto, output_loading_info=True)
    for keys in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not info[keys]
    batch = tiny.inputs(pair.family, [(random_ids(6, 1), "image")])
    out = model.eval()(**batch)
    assert model.steering.last[0][-1].strength > 0
    model.steering.enabled = False
    name = "last_hidden_state" if auto == "AutoModel" else "logits"
    assert not getattr(out, name).equal(getattr(model(**batch), name))


@pytest.mark.parametrize("auto", [*AUTO, "AutoConfig"])
@pytest.mark.parametrize("trust", [None, False])
def test_without_trust_every_auto_class_raises(pair, auto, trust, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: "n")
    with pytest.raises(ValueError, match="custom code"):
        getattr(transformers, auto).from_pretrained(pair.directory, trust_remote_code=trust)


def test_native_classes_by_name_raise(pair):
    natives = {
        "gemma3": ("Gemma3ForConditionalGeneration", "Gemma3Model", "Gemma3ForCausalLM"),
        "qwen3_vl": ("Qwen3VLForConditionalGeneration", "Qwen3VLModel"),
    }
    for name in natives[pair.family]:
        with pytest.raises(Exception, match="load it with an Auto class and trust_remote_code"):
            getattr(transformers, name).from_pretrained(pair.directory)


def alter(directory, change):
    path = directory / "steering.safetensors"
    tensors = load_file(path)
    change(tensors)
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("name", ["direction", "knots", "shift", "turn", "bounds"])
def test_altered_steering_tensors_raise(copied, name):
    def nudge(tensors):
        key = next(k for k in tensors if k.endswith(name))
        tensors[key][0] += 1e-3

    alter(copied, nudge)
    with pytest.raises(RuntimeError, match="SHA-256"):
        load(copied)


def test_renamed_steering_key_raises(copied):
    path = copied / "model.safetensors.index.json"
    alter(copied, lambda t: t.update(renamed=t.pop(next(k for k in t if k.endswith("shift")))))
    path.write_text(path.read_text().replace("steering.shift", "renamed"))
    with pytest.raises(RuntimeError, match="damaged"):
        load(copied)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("headers", [{"prefix": [9], "ends": [9]}]),
        ("turn_starts", []),
        ("placeholders", {}),
        ("refused", {"x": "video"}),
    ],
)
def test_altered_rules_raise(copied, name, value):
    config = json.loads((copied / "config.json").read_text())
    config["steering"][name] = value
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(RuntimeError, match=r"config\.steering"):
        load(copied)


def test_tensors_loaded_later_are_checked(pair):
    model = copy.deepcopy(pair.model)
    name = next(k for k in model.state_dict() if k.endswith("steering.direction"))
    model.load_state_dict({name: torch.zeros(tiny.HIDDEN)}, strict=False)
    with pytest.raises(RuntimeError, match="SHA-256 differs"):
        model(**tiny.inputs(pair.family, [(random_ids(6, 1), None)]))


def test_the_switch_cannot_be_replaced(pair):
    with pytest.raises(AttributeError):
        pair.model.steering = False


def test_missing_steering_shard_or_modeling_file_raises(copied):
    (copied / "steering.safetensors").rename(copied / "elsewhere")
    with pytest.raises(OSError, match=r"steering\.safetensors"):
        load(copied)
    (copied / "elsewhere").rename(copied / "steering.safetensors")
    (copied / "modeling_steered.py").unlink()
    with pytest.raises(OSError, match="modeling_steered"):
        load(copied)


def test_line_ends_that_git_has_changed_are_the_same_host(copied):
    host = copied / "steering_host.py"
    host.write_bytes(host.read_bytes().replace(b"\n", b"\r\n"))
    assert load(copied).steering.verified


def test_another_host_than_that_of_the_modeling_file_does_not_run(copied):
    host = copied / "steering_host.py"
    host.write_text("raise SystemExit(3)\n" + host.read_text())
    with pytest.raises(RuntimeError, match=r"steering_host\.py is not the file .* both again"):
        load(copied)
    host.unlink()
    with pytest.raises(OSError, match="steering_host"):
        load(copied)


def test_transformers_without_the_family_is_said_so(pair, copied):
    modeling, family = copied / "modeling_steered.py", families()[pair.family]
    source = modeling.read_text().replace(f"        {family.model},", "        Missing,")
    modeling.write_text(source)
    said = rf"steered checkpoint.* lacks {family.name}, .*'Missing'.* --upgrade"
    with pytest.raises(ImportError, match=said):
        load(copied)


def test_index_without_the_steering_shard_raises(copied):
    path = copied / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] = {k: v for k, v in index["weight_map"].items() if "steering" not in k}
    path.write_text(json.dumps(index))
    with pytest.raises(RuntimeError, match="missing_keys"):
        load(copied)


def test_model_built_without_weights_refuses_to_run(pair):
    config = transformers.AutoConfig.from_pretrained(pair.directory, trust_remote_code=True)
    model = transformers.AutoModelForImageTextToText.from_config(config, trust_remote_code=True)
    with pytest.raises(RuntimeError, match=r"tensors or config\.steering are absent"):
        model(**tiny.inputs(pair.family, [(random_ids(6, 1), None)]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_the_gate_in_float32(pair, dtype):
    model = load(pair.directory, dtype=dtype).eval()
    base = transformers.AutoModelForImageTextToText.from_pretrained(pair.base_dir, dtype=dtype)
    steering = model.get_decoder().layers[pair.record.layer].steering
    assert {b.dtype for b in steering.buffers()} == {torch.float32}
    batch = tiny.inputs(pair.family, [(random_ids(6, 1), None)])
    assert model(**batch).logits[:, :-1].equal(base.eval()(**batch).logits[:, :-1])
    model.steering.enabled = False
    assert model(**batch).logits.equal(base(**batch).logits)
    model.to(dtype)
    model.verify_steering()


def test_saved_again_it_is_still_steered_and_self_contained(pair, tmp_path):
    batch = tiny.inputs(pair.family, [(random_ids(6, 1), "image")])
    want = pair.model(**batch).logits
    pair.model.save_pretrained(tmp_path / "again", max_shard_size="400KB")
    for name in ("modeling_steered.py", "steering_host.py"):
        assert (tmp_path / "again" / name).exists()
    again = load(tmp_path / "again").eval()
    assert again(**batch).logits.equal(want)
    assert len(again.steering.last[0]) == 1
    with pytest.raises(Exception, match="load it with an Auto class"):
        getattr(transformers, type(pair.base).__name__).from_pretrained(tmp_path / "again")


def test_deep_copy_is_steered_and_switched_on_its_own(pair):
    batch = tiny.inputs(pair.family, [(random_ids(6, 1), "image")])
    twin = copy.deepcopy(pair.model)
    assert twin(**batch).logits.equal(pair.model(**batch).logits)
    twin.steering.enabled = False
    assert not twin(**batch).logits.equal(pair.model(**batch).logits)
