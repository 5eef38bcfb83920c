"""The planner: bytes of weights are those of the loaded model, and free memory is what it is."""

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from mars_export.common.errors import ExportError
from mars_export.families import families, room
from mars_export.families.memory import BatchSize, Memory, Weights, memory_of, weights_of
from mars_export.families.weights import stored_bytes
from support import zoo

KINDS = ["gemma3", "gemma4", "llama", "qwen3_vl", "qwen3_vl_moe", "qwen3_5_moe", "voxtral"]


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", KINDS)
def test_planned_bytes_are_those_of_the_loaded_model(kind, dtype, tmp_path):
    base = zoo.save_base(kind, tmp_path / kind)
    planned = memory_of(base, zoo.family(kind), dtype=dtype, quantization="none")
    native = getattr(transformers, zoo.family(kind).generator)
    loaded = native.from_pretrained(base, dtype=dtype)
    assert planned.weights == weights_of(loaded)
    assert planned.dtype == str(loaded.dtype).removeprefix("torch.")
    held = [*loaded.parameters(), *loaded.buffers()]
    assert planned.weights.total == sum(t.numel() * t.itemsize for t in held)


def test_headers_say_what_is_stored(tmp_path):
    base = zoo.save_base("llama", tmp_path)
    model = transformers.LlamaForCausalLM.from_pretrained(base)
    assert stored_bytes(base) == {"float32": sum(4 * p.numel() for p in model.parameters())}
    kinds = (torch.uint32, torch.int32, torch.float8_e4m3fn, torch.bool, torch.bfloat16)
    tensors = {str(kind): torch.zeros(6, dtype=kind) for kind in kinds}
    save_file(tensors, base / "model.safetensors")
    assert stored_bytes(base) == {
        "U32": 24, "int32": 24, "float8_e4m3fn": 6, "bool": 6, "bfloat16": 12,
    }  # fmt: skip


def test_quantized_linear_layers_are_smaller_and_the_rest_is_not(tmp_path):
    pytest.importorskip("torchao")
    base = zoo.save_base("llama", tmp_path)
    plain, eight = (
        memory_of(base, families()["llama"], dtype="bfloat16", quantization=scheme).weights
        for scheme in ("none", "torchao-int8")
    )
    linear = eight.by_dtype["torchao-int8"]
    assert plain.total - eight.total == linear
    assert eight.by_dtype["bfloat16"] == plain.by_dtype["bfloat16"] - 2 * linear


COUNTS = st.integers(1, 4096)


@given(COUNTS, COUNTS, st.integers(0, 512), st.integers(0, 2**40))
def test_rows_that_fit_do_fit_and_one_more_does_not(rows, tokens, answer, free):
    memory = Memory(Weights(10, {}, 5), "bfloat16", transformers.LlamaConfig())
    batch = BatchSize(rows, tokens, answer)
    fit = memory.rows(batch, free)
    assert fit <= rows
    assert memory.batch(BatchSize(fit, tokens, answer)) <= free or not fit
    assert fit == rows or memory.batch(BatchSize(fit + 1, tokens, answer)) > free


def test_an_answer_takes_keys_and_values_of_every_layer():
    config = transformers.LlamaConfig(num_hidden_layers=4)
    memory = Memory(Weights(10, {}, 5), "bfloat16", config)
    with torch.device("meta"):
        layer = transformers.LlamaForCausalLM(config).model.layers[0]
    cache = 2 * 3 * (100 + 20) * 2 * layer.self_attn.k_proj.out_features * 4
    assert memory.batch(BatchSize(3, 100, 20)) - memory.batch(BatchSize(3, 100)) == cache


def test_limits_are_read_as_accelerate_reads_them():
    read = pytest.importorskip("accelerate.utils").convert_file_size_to_int
    text = "0=20GiB, cpu=1.5GB,1=300MiB"
    assert room.limits(text) == {
        name.strip(): read(size) for name, size in (part.split("=") for part in text.split(","))
    }
    for wrong in ("20GB", "0=20", "gpu=3GB", "", "0=3GB,,"):
        with pytest.raises(ValueError, match="each with a size"):
            room.limits(wrong)


def test_a_device_has_one_limit_whatever_its_name_looks_like():
    assert list(room.limits("cpu=1GB,10=1GB,02=1GB")) == ["2", "10", "cpu"]
    for twice in ("0=3GB,00=4GB", "cpu=1GB,CPU=2GB"):
        with pytest.raises(ValueError, match="has two"):
            room.limits(twice)
    with pytest.raises(ValueError, match="each with a size"):
        room.limits("٣=3GB")


def test_free_memory_is_that_of_the_machine_or_less():
    free = room.room_on("cpu")
    assert 10**8 < free < 10**15
    assert room.free_bytes({"cpu": 1000}) == {"cpu": 1000}
    assert set(room.free_bytes()) == {*map(str, range(torch.cuda.device_count())), "cpu"}
    with pytest.raises(ExportError, match="there is no GPU 77"):
        room.free_bytes({"77": 10**9})


def test_a_container_has_what_its_control_group_leaves(tmp_path, monkeypatch):
    for name, text in (("max", "5000"), ("current", "4000"), ("stat", "anon 1\ninactive_file 700")):
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(room, "_GROUP", tmp_path)
    assert room.room_on("cpu") == 1700
    (tmp_path / "memory.max").write_text("max")
    assert room.room_on("cpu") > 10**8
