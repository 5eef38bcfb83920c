"""A decode step has the base's operations, and a long prompt needs the base's memory."""

from functools import partial

import pytest
import torch
import transformers

from mars_export.runtime.positions import recognized, stated_columns
from support import tiny, zoo
from support.counting import cost, recording

KINDS = ("llama", "gemma3", "qwen3_vl")
"""Text, image, image and video."""


def batch_of(pair):
    return pair.batch(None, pair.visuals()[-1]) if pair.visuals() else pair.batch(None, None)


def long_prompt(length):
    ids = torch.tensor([tiny.random_ids(length)])
    ids[:, -len(tiny.HEADER) :] = torch.tensor(tiny.HEADER)
    return ids


def generated(model, batch, tokens, **options):
    options = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, **options}
    return cost(lambda: model.generate(**batch, **options)).operations


def step(model, batch, **options):
    """Operations of one token more; equal names are equal waits for the device as well."""
    more = generated(model, batch, 4, **options)
    more.subtract(generated(model, batch, 3, **options))
    return {name: count for name, count in more.items() if count}


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_decode_step_has_the_operations_of_the_base(pair, cache):
    batch = batch_of(pair)
    try:
        want = step(pair.base, batch, cache_implementation=cache)
    except TypeError as error:  # Llama 4 in Transformers 5.16
        pytest.skip(f"this Transformers cannot run the base so: {error}")
    assert step(pair.model, batch, cache_implementation=cache) == want
    assert sum(want.values()) > 50


def test_off_a_whole_generate_has_the_operations_of_the_base(pair):
    batch = batch_of(pair)
    want = generated(pair.base, batch, 3)
    with pair.model.steering.off():
        assert generated(pair.model, batch, 3) == want
    assert generated(pair.model, batch, 3) != want


@pytest.mark.parametrize("model_type", zoo.each(*KINDS))
def test_a_compiled_decode_step_is_the_graph_of_the_base(pairs, model_type):
    pair, batch = pairs(model_type), batch_of(pairs(model_type))
    graphs = []
    for model in (pair.base, pair.model):
        graphs.append([])
        config = transformers.CompileConfig(fullgraph=True, backend=recording(graphs[-1]))
        config.mode, config._compile_all_devices = None, True
        options = {"cache_implementation": "static", "compile_config": config}
        torch.compiler.reset()
        model.generate(**batch, max_new_tokens=4, min_new_tokens=4, do_sample=False, **options)
    assert graphs[0] == graphs[1]
    assert graphs[0]
    assert all(graph.total() > 50 for graph in graphs[0])


@pytest.mark.parametrize("way", ["ids", "embeddings"])
@pytest.mark.parametrize("model_type", zoo.each(*KINDS))
def test_a_long_prompt_needs_the_memory_of_the_base(pairs, model_type, way):
    pair, ids = pairs(model_type), long_prompt(2000)
    batch = pair.whole(ids)
    if way == "embeddings":
        batch["inputs_embeds"] = pair.base.get_input_embeddings()(batch.pop("input_ids"))
    runs = [lambda model: model(**batch, logits_to_keep=1)]
    if way == "ids":  # not every native generate() takes embeddings
        runs.append(lambda model: model.generate(**batch, max_new_tokens=1, do_sample=False))
    for run in runs:
        base, steered = (cost(partial(run, model)).peak for model in (pair.base, pair.model))
        assert steered <= base + 96 * ids.numel()


def test_many_known_tokens_are_recognized_in_less_memory_than_the_embeddings():
    ids, table = long_prompt(500), torch.nn.Embedding(tiny.VOCABULARY, 2048).bfloat16()
    embeds, known = table(ids), set(range(20, 320))
    embeds[0, 7, 9] += 1  # no row of the table any more
    want = torch.where(ids < 20, -1, ids)
    want[0, 7] = -1
    for graph in (False, True):
        assert recognized(embeds, table, known, graph).equal(want)
    known -= set(tiny.random_ids(500))  # the header's tokens and some more
    assert cost(lambda: recognized(embeds, table, known, graph=False)).peak < embeds.nbytes
    compiled = torch.compile(recognized, fullgraph=True, backend="aot_eager")
    assert compiled(embeds, table, known, True).equal(recognized(embeds, table, known, False))


def test_every_position_can_be_stated_in_little_memory():
    real = torch.ones(2, 3000, dtype=torch.bool)
    real[1, :1000] = False
    position = real.long().cumsum(1) - 1
    stated = torch.arange(3000).repeat(2, 1)
    stated[1, 2000:] = -1

    def columns():
        return stated_columns(stated, position, real, None)

    assert columns()[0].equal(real)
    assert not columns()[1].any()
    assert cost(columns).peak < 64 * real.numel()
    stated[1, 2000] = 2000
    assert columns()[1].tolist() == [False, True]  # which has 2000 tokens so far
