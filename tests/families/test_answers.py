"""A method at generate() in every family: as by hand on the native model, and off it is that."""

import pytest
import torch
import transformers

from mars_export.checkpoint.writer import write_checkpoint
from mars_export.methods.ras import RAS
from support import tiny, zoo, zoo_inputs
from support.answers import ByHand, alone
from support.behavior import load, shifts

OPTIONS = {
    "do_sample": False, "max_new_tokens": 5, "min_new_tokens": 5, "return_dict_in_generate": True,
    "output_logits": True,
}  # fmt: skip


@pytest.mark.parametrize("model_type", zoo.each())
def test_answers_are_those_made_by_hand(model_type, tmp_path):
    family = zoo.family(model_type)
    base_dir = zoo.save_base(model_type, tmp_path / "base")
    base = getattr(transformers, family.generator).from_pretrained(base_dir).eval()
    shift = {m: s for m, s in shifts(family).items() if m in RAS.takes}
    artefact = tiny.ras(model_type, shift=shift)
    artefact.save(tmp_path / "calibration")
    source = tiny.source(model_type).model_copy(update={"architecture": family.generator})
    write_checkpoint(
        base_dir, tmp_path / "steered", source=source, calibration_dir=tmp_path / "calibration",
        family=family,
    )  # fmt: skip
    model = load(tmp_path / "steered", family.auto_class)
    by_hand, visual = (
        ByHand(base, artefact),
        next((m for m in family.placeholders if m in RAS.takes), None),
    )
    rows = [(tiny.random_ids(6, 1), None), (tiny.random_ids(9, 2), visual)]
    batch = zoo_inputs.inputs(model_type, rows)
    on, last = model.generate(**batch, **OPTIONS), model.steering.last
    text = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}
    shown = {name: tensor for name, tensor in batch.items() if name not in text}
    for row, pixels in enumerate([{}, shown]):
        one = alone(batch, row, pixels)
        risk = by_hand.risk(one)
        assert [s.gate for s in last[row]] == pytest.approx([risk] * 3, abs=1e-3)
        n = one["input_ids"].shape[1]
        assert [s.position for s in last[row]] == [n - 1, n, n + 1]
        assert last[row][0].modality == ("text" if row == 0 or not visual else visual)
        want = by_hand.answer(one, risk, **OPTIONS)
        got = on.logits[0][row]
        torch.testing.assert_close(got, want.logits[0][0], rtol=1e-3, atol=1e-2)
        assert on.sequences[row, -5:].equal(want.sequences[0, -5:])
    with pytest.raises(RuntimeError, match="ras acts in generate"):
        model(**batch)
    with model.steering.off():
        off, native = model.generate(**batch, **OPTIONS), base.generate(**batch, **OPTIONS)
        assert model(**batch).logits.equal(base(**batch).logits)
    assert off.sequences.equal(native.sequences)
    assert all(a.equal(b) for a, b in zip(off.logits, native.logits, strict=True))
