"""A serving engine that does not say what to steer gets no model; one that does, a steered one."""

import pytest
import torch
import transformers
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mars_export.runtime.windows import WINDOW_VERSION, Window
from support import tiny

HINTS = {
    "vllm": "--worker-cls mars_export.integrations.vllm.worker.SteeredWorker",
    "sglang": "transformers serve",
    "tgi": "transformers serve",
}


@pytest.fixture(params=sorted(HINTS))
def engine(request, monkeypatch):
    """Name of an attention that an engine registers, as engines do before they build a model."""
    monkeypatch.setitem(
        ALL_ATTENTION_FUNCTIONS._global_mapping, request.param, ALL_ATTENTION_FUNCTIONS["sdpa"]
    )
    return request.param


def opened(directory):
    return transformers.AutoConfig.from_pretrained(directory, trust_remote_code=True)


def built(config, engine):
    config._attn_implementation = engine
    return transformers.AutoModel.from_config(config, trust_remote_code=True).eval()


def test_no_engine_builds_it_unawares(exported, engine):
    directory = exported("gemma3").directory
    with pytest.raises(RuntimeError, match=f"{engine} would serve it without steering") as raised:
        built(opened(directory), engine)
    assert HINTS[engine] in str(raised.value)
    assert built(opened(directory), "sdpa")


def test_a_packed_row_is_steered_where_the_engine_says(exported, engine, monkeypatch):
    pair = exported("gemma3")
    config = opened(pair.directory)
    monkeypatch.setattr(type(config), "engine_gives_windows", True)
    model = built(config, engine)
    model.load_state_dict(pair.model.model.state_dict())
    ids = torch.tensor([tiny.prompt(tiny.random_ids(4)) + tiny.prompt(tiny.random_ids(6))])
    asked = {"inputs_embeds": model.get_input_embeddings()(ids), "use_cache": False}
    with pytest.raises(RuntimeError, match="the engine did not say what to steer"):
        model(**asked)
    none = torch.zeros_like(ids, dtype=torch.bool)
    window = Window(WINDOW_VERSION, none, torch.zeros(*ids.shape, 3).long(), torch.zeros_like(ids))
    plain = model(**asked, steering_window=window)[0]
    one = (torch.arange(ids.shape[1]) == 7).expand_as(ids)
    steered = model(**asked, steering_window=window._replace(steered=one))[0]
    changed = (plain != steered).any(-1)[0]
    assert not changed[:7].any()
    assert changed[7]
    with pytest.raises(RuntimeError, match="in the form of another release"):
        model(**asked, steering_window=window._replace(version=0))
