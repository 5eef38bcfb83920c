"""A quantized model is steered as a hook set by hand steers the same quantized model."""

import json

import pytest
import torch
from safetensors.torch import load_file

from mars_export.checkpoint.derived import read_steering
from mars_export.checkpoint.manifest import Manifest
from mars_export.common.errors import ExportError
from support import tiny
from support.conversations import places
from support.oracle import oracle_generate, oracle_logits, same_told, told
from support.quantized import USES, load, logged_outputs
from support.tiny import random_ids

for package in ("bitsandbytes", "torchao", "accelerate"):
    pytest.importorskip(package)

GREEDY = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
EACH = [
    pytest.param(family, scheme, marks=pytest.mark.use(use, family=family), id=f"{family}-{scheme}")
    for family in tiny.FAMILIES
    for scheme, use in USES.items()
]


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture
def both(family, scheme, exported):
    """Paths, and the native and the steered model in the same quantization."""
    pair = exported(family)
    return pair, load(pair.base, scheme), load(pair.steered, scheme)


def batch_of(family):
    visual = "image" if family == "gemma3" else "video"
    rows = [(random_ids(6, 1), None), (random_ids(9, 2), visual)]
    batch = tiny.inputs(family, rows)
    last = batch["input_ids"].shape[1] - 1
    return batch, places(batch["input_ids"], [[last], [last]])


def quantized_layers(model):
    """Names of the layers whose weights are no floats, or are a subclass that stands for such."""
    return {
        name
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear)
        and (not layer.weight.is_floating_point() or "Int8Tensor" in str(type(layer.weight)))
    }


@pytest.mark.parametrize(("family", "scheme"), EACH)
def test_all_but_the_steering_is_quantized(both, family, scheme):
    pair, native, model = both
    layer = model.get_decoder().layers[pair.record.layer]
    stored = load_file(pair.steered / "steering.safetensors")
    assert model.steering.verified
    for name, tensor in stored.items():
        buffer = getattr(layer.steering, name.rpartition(".")[2])
        assert buffer.dtype == torch.float32
        assert buffer.equal(tensor)
    assert quantized_layers(model) == quantized_layers(native)
    path = next(name for name in stored).partition(".steering.")[0]
    assert f"{path}.mlp.down_proj" in quantized_layers(model)


@pytest.mark.parametrize(("family", "scheme"), EACH)
def test_it_equals_a_hook_set_by_hand(both, family, scheme):
    pair, native, model = both
    batch, where = batch_of(family)
    layer = model.get_decoder().layers[pair.record.layer]
    with model.steering.off(), logged_outputs(layer) as states:
        model(**batch)
    got = model(**batch).logits
    want = oracle_logits(native, pair.record, pair.direction, batch, where)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    for row, column, shown in where:  # the gate, from the activations of this very model
        p = float(states[0][row, column].float() @ pair.unit)
        p -= pair.record.shift[shown.modality].at(shown.visual)
        origin = pair.record.origin[shown.modality]
        gate = max(0.0, (p - origin) / (pair.record.harmful[shown.modality] - origin))
        assert model.steering.last[row][0].gate == pytest.approx(gate, rel=1e-5, abs=1e-5)
    tokens, oracle = oracle_generate(native, pair.record, pair.direction, batch, where, **GREEDY)
    assert model.generate(**batch, **GREEDY).equal(tokens)
    assert same_told(told(model), oracle)
    model.steering.enabled = False
    off = model(**batch).logits
    assert off.equal(native(**batch).logits)
    assert (got[:, -1] - off[:, -1]).abs().amax(-1).min() > 0.01


@pytest.mark.parametrize(("family", "scheme"), EACH)
def test_saved_quantized_it_loads_steered_and_only_steered(both, family, scheme, tmp_path):
    pair, native, model = both
    batch, _ = batch_of(family)
    model.save_pretrained(tmp_path)
    want = model(**batch).logits
    again = load(tmp_path)
    assert again.steering.verified
    assert quantized_layers(again) == quantized_layers(model)
    # bitsandbytes packs 4 bits for the CPU, and unpacks them again only approximately.
    rounding = 1e-2 if scheme == "bnb-4bit" else 1e-5
    torch.testing.assert_close(again(**batch).logits, want, rtol=rounding, atol=rounding)
    assert [row[0].modality for row in again.steering.last] == [
        row[0].modality for row in model.steering.last
    ]
    (rules, tensors), (before, stored) = read_steering(tmp_path), read_steering(pair.steered)
    assert rules == before
    for layer, part in stored.items():
        assert all(tensors[layer][name].equal(tensor) for name, tensor in part.items())
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["quantization_config"]["quant_method"]
    with pytest.raises(ExportError, match="recalibrate"):  # derived: no numbers are known to hold
        Manifest.read(tmp_path)
    with pytest.raises(Exception, match="load it with an Auto class"):
        type(native).from_pretrained(tmp_path)


@pytest.mark.parametrize("scheme", USES)
def test_damaged_steering_does_not_load_quantized(exported, scheme, tmp_path):
    from safetensors.torch import save_file

    for path in exported("gemma3").steered.iterdir():
        (tmp_path / path.name).symlink_to(path)
    tensors = load_file(tmp_path / "steering.safetensors")
    (tmp_path / "steering.safetensors").unlink()
    next(iter(tensors.values()))[0] += 1e-3
    save_file(tensors, tmp_path / "steering.safetensors", metadata={"format": "pt"})
    with pytest.raises(RuntimeError, match="steered checkpoint is damaged"):
        load(tmp_path, scheme)
