"""A model of eight billion parameters is understood before a weight is read."""

import json
import os
import time
from importlib.util import find_spec

import torch
import transformers

from mars_export.pipeline import shared, stages
from support import bases

SIZES = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "head_dim": 128,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "dtype": "bfloat16",
}  # fmt: skip
SHARD = 5 * 10**9


def save_sparse(directory):
    """A Llama of that size; its shards have whole headers and take no space on the disk."""
    base = bases.save_whole_base(directory, "llama")
    for path in base.glob("model*.safetensors"):
        path.unlink()
    config = json.loads((base / "config.json").read_text()) | SIZES
    (base / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_pretrained(base))
    shards = [{}]
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        held = sum(end - start for start, end in (t["data_offsets"] for t in shards[-1].values()))
        size = 2 * tensor.numel()
        if held + size > SHARD:
            shards.append({})
            held = 0
        entry = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [held, held + size]}
        shards[-1][name] = entry
    where = {}
    for number, header in enumerate(shards, 1):
        shard = f"model-{number:05}-of-{len(shards):05}.safetensors"
        where |= dict.fromkeys(header, shard)
        raw = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
        with (base / shard).open("wb") as stream:
            stream.write(len(raw).to_bytes(8, "little") + raw)
            stream.truncate(8 + len(raw) + max(t["data_offsets"][1] for t in header.values()))
    index = {"metadata": {}, "weight_map": where}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    return base, sorted(base.glob("model-*.safetensors"))


def test_a_large_model_is_understood_in_two_seconds(tmp_path, monkeypatch):
    class LoadingError(Exception):
        """The weights would be read now."""

    def load(*_, **__):
        raise LoadingError

    monkeypatch.setattr(shared, "load_base", load)
    monkeypatch.setattr(stages, "check_space", lambda *_: None)
    base, shards = save_sparse(tmp_path / "base")
    assert sum(path.stat().st_size for path in shards) > 14 * 10**9
    assert len(shards) > 2

    def run():
        done = bases.command("--model", base, "--output", tmp_path / "out", "--display", "none")
        return done.errors[0]

    assert "LoadingError" in run()  # and what is imported late
    start = time.process_time()
    assert "LoadingError" in run()
    assert time.process_time() - start < 2
    whole = shards[1].stat().st_size
    os.truncate(shards[1], whole - 1000)
    assert "is no whole safetensors file" in run()
    os.truncate(shards[1], whole)
    if find_spec("accelerate") is None:  # shapes are compared when the weights are loaded
        return
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"vocab_size": 128264}))
    assert "model.embed_tokens.weight has [128256, 4096] and not [128264, 4096]" in run()
