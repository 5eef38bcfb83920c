"""A method at generate() in quantized models: the passes are those of the quantized model."""

import pytest
import torch

from support import quantized, tiny
from support.answers import ByHand

OPTIONS = {"do_sample": False, "max_new_tokens": 5, "min_new_tokens": 5}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return tiny.export("gemma3", tmp_path_factory.mktemp("ras"), "ras")


@pytest.mark.parametrize("scheme", quantized.USES)
@torch.no_grad()
def test_the_answers_are_those_made_by_hand(exported, scheme):
    pytest.importorskip("torchao" if "torchao" in scheme else "bitsandbytes")
    base, model = (quantized.load(directory, scheme, dtype=torch.float32) for directory in exported)
    batch = tiny.inputs("gemma3", [(tiny.random_ids(9, 2), "image")])
    by_hand = ByHand(base, tiny.ras("gemma3"))
    risk = by_hand.risk(batch)
    out = model.generate(**batch, **OPTIONS)
    assert [s.gate for s in model.steering.last[0]] == pytest.approx([risk] * 3, abs=1e-3)
    assert out.equal(by_hand.answer(batch, risk, **OPTIONS))
    assert {buffer.dtype for buffer in model._answers.rule.buffers()} == {torch.float32}
    with model.steering.off():
        assert model.generate(**batch, **OPTIONS).equal(base.generate(**batch, **OPTIONS))
