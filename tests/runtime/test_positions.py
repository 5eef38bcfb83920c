"""Steering acts once per assistant header, with the shift of what the row has shown."""

import pytest
import torch

from support import tiny
from support.conversations import places
from support.oracle import oracle_greedy, oracle_logits
from support.tiny import HEADER, random_ids


def rows(family):
    mixed = [(random_ids(6, 1), None), (random_ids(9, 2), "image")]
    return mixed + ([(random_ids(4, 3), "video")] if family == "qwen3_vl" else [])


def ends(batch):
    """The last column of every row."""
    ids = batch["input_ids"]
    return places(ids, [[ids.shape[1] - 1]] * len(ids))


def test_off_is_the_base_bit_for_bit(pair):
    batch = tiny.inputs(pair.family, rows(pair.family))
    pair.model.steering.enabled = False
    assert torch.equal(pair.model(**batch).logits, pair.base(**batch).logits)
    assert pair.model.generate(**batch, max_new_tokens=5, do_sample=False).equal(
        pair.base.generate(**batch, max_new_tokens=5, do_sample=False)
    )


def test_mixed_batch_forward_equals_the_oracle(pair):
    batch = tiny.inputs(pair.family, rows(pair.family))
    got = pair.model(**batch).logits
    want = oracle_logits(pair.base, pair.record, pair.direction, batch, ends(batch))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    unsteered = pair.base(**batch).logits
    assert torch.equal(got[:, :-1], unsteered[:, :-1])
    assert (got[:, -1] - unsteered[:, -1]).abs().amax(-1).min() > 0.1


def test_last_tells_position_modality_gate_and_strength(pair):
    batch = tiny.inputs(pair.family, rows(pair.family))
    pair.model(**batch)
    seen = [row[0] for row in pair.model.steering.last]
    lengths = batch["attention_mask"].sum(1).tolist()
    assert [s.position for s in seen] == [n - 1 for n in lengths]
    assert [s.modality for s in seen] == ["text", "image", "video"][: len(seen)]
    assert all(s.gate > 0 and 0 < s.strength <= 10 * pair.record.separation for s in seen)
    pair.model.steering.enabled = False
    pair.model.generate(**batch, max_new_tokens=2, do_sample=False)
    assert pair.model.steering.last == []


GENERATION = {
    "greedy": {},
    "no cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static", "disable_compile": True},
    "prompt lookup decoding": {"prompt_lookup_num_tokens": 2},
    "dictionary output": {"return_dict_in_generate": True},
}


@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=pytest.mark.mode(mode)) for mode in GENERATION]
)
def test_generation_equals_the_oracle(pair, mode):
    options = GENERATION[mode]
    which = rows(pair.family)[1:2] if mode == "prompt lookup decoding" else rows(pair.family)
    batch = tiny.inputs(pair.family, which)
    where = ends(batch)
    want = oracle_greedy(pair.base, pair.record, pair.direction, batch, where, 8)
    got = pair.model.generate(**batch, max_new_tokens=8, do_sample=False, **options)
    got = getattr(got, "sequences", got)
    assert got[:, : want.shape[1]].equal(want)
    assert not want.equal(pair.base.generate(**batch, max_new_tokens=8, do_sample=False))
    assert [len(row) for row in pair.model.steering.last] == [1] * len(which)


@pytest.mark.mode("chunked prefill of text")
def test_chunked_prefill_equals_unchunked(pair):
    batch = tiny.inputs(pair.family, [(random_ids(17, 5), None), (random_ids(11, 6), None)])
    try:
        pair.base.generate(**batch, max_new_tokens=1, prefill_chunk_size=3)
    except RuntimeError as error:  # Qwen3-VL in Transformers 5.16
        pytest.skip(f"this Transformers cannot prefill the base in chunks: {error}")
    whole = pair.model.generate(**batch, max_new_tokens=6, do_sample=False)
    gates = [[s.position for s in row] for row in pair.model.steering.last]
    for size in (3, 5, 7):
        chunked = pair.model.generate(
            **batch, max_new_tokens=6, do_sample=False, prefill_chunk_size=size
        )
        assert chunked.equal(whole)
        assert [[s.position for s in row] for row in pair.model.steering.last] == gates


@pytest.mark.mode("several answers to a prompt")
def test_beams_and_returned_sequences_share_their_rows_steering(pair):
    batch = tiny.inputs(pair.family, rows(pair.family))
    pair.model.generate(**batch, max_new_tokens=3, num_beams=3, do_sample=False)
    seen = pair.model.steering.last
    assert len(seen) == 3 * len(rows(pair.family))
    assert all(seen[3 * b] == seen[3 * b + k] for b in range(len(seen) // 3) for k in range(3))
    pair.model.generate(**batch, max_new_tokens=3, num_return_sequences=2, do_sample=True)
    assert [r[0].modality for r in pair.model.steering.last][:4] == [
        "text",
        "text",
        "image",
        "image",
    ]


def conversation(turns):
    """Ids of a text conversation and the columns where its assistant headers end."""
    ids, columns = [1], []
    for k, (question, answer) in enumerate(turns):
        ids += random_ids(question, 20 + k) + HEADER
        columns.append(len(ids) - 1)
        ids += random_ids(answer, 40 + k)
    return torch.tensor([ids]), columns


@pytest.mark.mode("conversation of several turns")
def test_every_assistant_header_of_a_conversation_is_steered(pair):
    ids, columns = conversation([(5, 4), (3, 6), (7, 0)])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    pair.model(**batch)
    assert [s.position for s in pair.model.steering.last[0]] == columns
    pair.model.generate(**batch, max_new_tokens=2, do_sample=False)
    assert [s.position for s in pair.model.steering.last[0]] == columns
    where = places(ids, [columns])
    torch.testing.assert_close(
        pair.model(**batch).logits,
        oracle_logits(pair.base, pair.record, pair.direction, batch, where),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.mode("scoring an answer")
def test_scoring_an_answer_steers_where_generation_did(pair):
    batch = tiny.inputs(pair.family, rows(pair.family)[:1])
    answer = pair.model.generate(**batch, max_new_tokens=6, do_sample=False)
    logits = pair.model(input_ids=answer, attention_mask=torch.ones_like(answer)).logits
    start = batch["input_ids"].shape[1]
    assert logits[0, start - 1 : -1].argmax(-1).equal(answer[0, start:])


@pytest.mark.mode("cache of an earlier turn")
def test_cached_and_refilled_turns_agree(pair):
    if pair.family == "qwen3_vl":
        first = tiny.inputs(pair.family, [(random_ids(5, 1), "video")])
    else:
        first = tiny.inputs(pair.family, [(random_ids(5, 1), "image")])
    out = pair.model.generate(
        **first, max_new_tokens=4, min_new_tokens=4, do_sample=False, return_dict_in_generate=True
    )
    follow = torch.tensor([random_ids(6, 9) + HEADER])
    whole = torch.cat([out.sequences, follow], 1)
    second = {"input_ids": whole, "attention_mask": torch.ones_like(whole)}
    for types in ("token_type_ids", "mm_token_type_ids"):
        if types in first:
            pad = whole.shape[1] - first[types].shape[1]
            second[types] = torch.nn.functional.pad(first[types], (0, pad))
    pixels = {k: v for k, v in first.items() if "pixel" in k or "grid" in k}
    refilled = pair.model.generate(**second, **pixels, max_new_tokens=4, do_sample=False)
    refilled_last = pair.model.steering.last[0][-1]
    cached = pair.model.generate(
        **second, past_key_values=out.past_key_values, max_new_tokens=4, do_sample=False
    )
    assert cached.equal(refilled)
    cached_last = pair.model.steering.last[0][-1]
    assert cached_last.modality == refilled_last.modality != "text"
    assert cached_last.position == refilled_last.position
    assert cached_last.strength == pytest.approx(refilled_last.strength, rel=1e-3, abs=1e-3)


@pytest.mark.mode("embeddings instead of tokens")
def test_embeddings_alone_are_steered_at_the_same_place(pair):
    batch = tiny.inputs(pair.family, [(random_ids(6, 1), None)])
    embeds = pair.model.get_input_embeddings()(batch["input_ids"])
    types = {k: batch[k] for k in ("mm_token_type_ids", "token_type_ids") if k in batch}
    got = pair.model(inputs_embeds=embeds, attention_mask=batch["attention_mask"], **types).logits
    torch.testing.assert_close(got, pair.model(**batch).logits, rtol=1e-5, atol=1e-5)


def test_the_model_below_the_head_is_steered_on_its_own(pair):
    """As trainers call it that fuse the head with the loss."""
    batch = tiny.inputs(pair.family, rows(pair.family))
    want = pair.model(**batch)
    pushes = pair.model.steering.last
    got = pair.model.base_model(**batch)
    assert pair.model.get_output_embeddings()(got.last_hidden_state).equal(want.logits)
    assert pair.model.steering.last == pushes
    assert all(row[0].strength > 0 for row in pushes)
    assert got.past_key_values.steering_history.steered.any()


def test_what_hides_the_modality_raises(pair):
    batch = tiny.inputs(pair.family, [(random_ids(6, 1), None)])
    embeds = pair.model.get_input_embeddings()(batch["input_ids"])
    with pytest.raises(ValueError, match="mm_token_type_ids"):
        pair.model(inputs_embeds=embeds)
    types = torch.full_like(batch["input_ids"], 3)
    with pytest.raises(ValueError, match="types of inputs_embeds name what steering was not"):
        pair.model(inputs_embeds=embeds, mm_token_type_ids=types)
    with pytest.raises(RuntimeError, match="packed"):
        pair.model(**batch, cu_seq_lens_q=torch.tensor([0, 10]))
    with pytest.raises(RuntimeError, match="not its inner modules"):
        pair.model.get_decoder()(inputs_embeds=embeds)


def test_batch_and_padding_do_not_move_the_gate(pair):
    alone = tiny.inputs(pair.family, [(random_ids(6, 1), None)])
    pair.model(**alone)
    one = pair.model.steering.last[0][0]
    pair.model(**tiny.inputs(pair.family, [(random_ids(6, 1), None), (random_ids(30, 2), None)]))
    batched = pair.model.steering.last[0][0]
    assert (batched.position, batched.modality) == (one.position, one.modality)
    assert batched.gate == pytest.approx(one.gate, rel=1e-4)


@pytest.mark.mode("compiled forward")
def test_compiled_without_a_graph_break_it_is_the_same_and_tells_the_same(pair):
    batch = tiny.inputs(pair.family, [(random_ids(6, 1), None), (random_ids(9, 2), None)])
    want = pair.model(**batch).logits
    eager = pair.model.steering.last
    compiled = torch.compile(pair.model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(**batch).logits, want, rtol=1e-5, atol=1e-5)
    assert [[s.position for s in row] for row in pair.model.steering.last] == [
        [s.position for s in row] for row in eager
    ]
