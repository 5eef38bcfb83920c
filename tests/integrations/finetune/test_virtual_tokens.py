"""peft's virtual tokens come before the prompt as embeddings: its header is found behind them."""

import copy
from functools import partial

import pytest
import torch

from support.behavior import Pair
from support.conversations import HEADERS, SPECIAL, Batch, Row, Turn
from support.oracle import Oracle, told
from support.sharing import once_each
from support.sides import forget

peft = pytest.importorskip("peft")

COUNT = 5
METHODS = {"prompt tuning": peft.PromptTuningConfig, "P-tuning": peft.PromptEncoderConfig}
STEPS = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False, "suppress_tokens": SPECIAL}
each_method = pytest.mark.parametrize("method", list(METHODS))
each_family = pytest.mark.parametrize("model_type", ["llama", "gemma3", "qwen3_vl"])


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return once_each(tmp_path_factory, partial(Pair.make, headers=HEADERS))


@pytest.fixture
def tuned(model_type, pairs):
    """The pair, and a function that puts both models behind the same virtual tokens."""
    pair = pairs(model_type)

    def wrap(model, method):
        forget(model)
        config = METHODS[method](task_type="CAUSAL_LM", num_virtual_tokens=COUNT)
        torch.manual_seed(0)
        return peft.get_peft_model(copy.deepcopy(model), config).eval()

    return pair, lambda method: (wrap(pair.base, method), wrap(pair.model, method))


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def batch_of(pair):
    """Two rows; peft and the base of Qwen3-VL do not get on with padding."""
    kind = pair.family.model_type
    rows = [Row.of((Turn(4, 2), Turn(3)), 1), Row.of((Turn(5),))]
    return Batch.of(kind, *rows[: 1 if kind == "qwen3_vl" else 2])


def hooked(pair, base, batch, call):
    """What the base gives, steered at its headers behind the virtual tokens."""
    where = [(row, column + COUNT, modality) for row, column, modality in batch.where]
    native = base.get_base_model()
    with Oracle(native, pair.record, pair.direction, where, len(batch.rows)):
        return call(base)


def steered_at_its_headers(model, batch):
    steered = [len(row) for row in told(model.get_base_model())]
    return steered == [len(row.ends) for row in batch.rows]


@pytest.mark.mode("prompt tuning and P-tuning")
@each_family
@each_method
def test_generate_is_steered_at_the_header(tuned, method):
    pair, models = tuned
    base, model = models(method)
    batch = batch_of(pair)

    def call(either):
        forget(either.get_base_model())
        return either.generate(**batch.inputs, **STEPS)

    with model.get_base_model().steering.off():
        assert call(model).equal(call(base))
    want = hooked(pair, base, batch, call)
    assert call(model).equal(want)
    assert steered_at_its_headers(model, batch)


@each_family
@each_method
def test_a_forward_is_steered_at_the_header_or_says_why_not(tuned, method):
    pair, models = tuned
    base, model = models(method)
    batch = batch_of(pair)

    def call(either):
        forget(either.get_base_model())
        return either(input_ids=batch.ids, attention_mask=batch.mask).logits

    with model.get_base_model().steering.off():
        assert call(model).equal(call(base))
    if pair.family.placeholders:
        with pytest.raises(ValueError, match="inputs_embeds do not show which rows hold pictures"):
            call(model)
        return
    want = hooked(pair, base, batch, call)
    mask = torch.nn.functional.pad(batch.mask, (COUNT, 0), value=1).bool()
    torch.testing.assert_close(call(model)[mask], want[mask], rtol=1e-4, atol=1e-4)
    assert steered_at_its_headers(model, batch)


@each_family
def test_prefix_tuning_raises(tuned):
    """Its prefix is a cache, of which nothing says what was steered in it."""
    pair, _ = tuned
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=COUNT)
    model = peft.get_peft_model(copy.deepcopy(pair.model), config).eval()
    batch = batch_of(pair)
    with pytest.raises(ValueError, match="not filled by this model"):
        model(input_ids=batch.ids, attention_mask=batch.mask)
