"""Wherever `device_map` puts the layers, the steered one steers as before."""

import pytest
import torch
import transformers
from transformers.utils.import_utils import is_accelerate_available

from support import tiny
from support.conversations import places
from support.oracle import oracle_generate, same_told, told
from support.tiny import random_ids

pytestmark = [
    pytest.mark.mode("device_map"),
    pytest.mark.skipif(not is_accelerate_available(), reason="needs accelerate"),
]
GREEDY = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
MAPS = {
    "auto": "auto",
    "cpu": "cpu",
    "whole": {"": "cpu"},
}


def offloaded(model, only=None):
    """The decoder's layers on disk, or only one of them; all else in memory."""
    top = [f"model.{name}" for name, _ in model.model.named_children()]
    decoder = [f"model.language_model.{n}" for n, _ in model.model.language_model.named_children()]
    names = {*top, *decoder, "lm_head"} - {"model.language_model"}
    if only is None:
        return {name: "disk" if name.endswith(".layers") else "cpu" for name in sorted(names)}
    layers = "model.language_model.layers"
    count = len(model.model.language_model.layers)
    places = {f"{layers}.{k}": "disk" if k == only else "cpu" for k in range(count)}
    return {**dict.fromkeys(sorted(names - {layers}), "cpu"), **places}


@pytest.mark.use("device_map with offload")
@pytest.mark.parametrize("where", [*MAPS, "disk", "steered layer on disk"])
def test_a_placed_model_equals_the_oracle(pair, where, tmp_path):
    only = pair.record.layer if where.startswith("steered") else None
    device_map = MAPS.get(where) or offloaded(pair.base, only)
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        pair.directory, trust_remote_code=True, device_map=device_map, offload_folder=tmp_path
    ).eval()
    layer = model.get_decoder().layers[pair.record.layer]
    assert next(layer.parameters()).is_meta == where.endswith("disk")
    rows = [(random_ids(6, 1), None), (random_ids(9, 2), "image")]
    batch = tiny.inputs(pair.family, rows)
    last = batch["input_ids"].shape[1] - 1
    where = places(batch["input_ids"], [[last], [last]])
    want, oracle = oracle_generate(pair.base, pair.record, pair.direction, batch, where, **GREEDY)
    assert model.generate(**batch, **GREEDY).equal(want)
    assert same_told(told(model), oracle)
    model.steering.enabled = False
    assert model(**batch).logits.equal(pair.base(**batch).logits)
    assert {b.dtype for b in layer.steering.buffers()} <= {torch.float32}
