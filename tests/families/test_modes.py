"""Every way of generating steers where the oracle does, in every family, or raises."""

import copy
import re

import pytest
import torch

from support import tiny
from support.conversations import places, shown
from support.oracle import Shown, left_padding, oracle_generate, oracle_logits, same_told, told
from support.recording import does_not_apply
from support.tiny import HEADER, random_ids

STEPS = {"max_new_tokens": 4, "min_new_tokens": 4}
GREEDY = {**STEPS, "do_sample": False}


def richest(pair):
    """The last visual that the family knows, or None of a text model."""
    return pair.visuals()[-1]


def rows_of(pair):
    visual = richest(pair)
    return (None, visual) if visual else (None,)


def oracle(pair, *rows, **options):
    """Batch, and tokens and places of the native model steered by hand."""
    batch = pair.batch(*rows)
    where = pair.ends(batch, *rows)
    return batch, *oracle_generate(pair.base, pair.record, pair.direction, batch, where, **options)


@pytest.fixture
def refused_natively(pair, natively_refused):
    """Whether the native model refuses a call; then the steered one must say the same."""

    def refuses(call):
        try:
            call(pair.base)
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            said = str(error).split(",")[0]
            assert "steered checkpoint" not in said
            with pytest.raises(type(error), match=re.escape(said)):
                call(pair.model)
            plain = isinstance(error, ValueError)
            natively_refused(said if plain else f"it raises a {type(error).__name__}")
            return True
        return False

    return refuses


@pytest.mark.mode("sampling")
def test_sampling_draws_from_what_the_oracle_draws_from(pair):
    options = {**STEPS, "do_sample": True, "temperature": 0.7, "top_k": 40}
    torch.manual_seed(5)
    batch, want, where = oracle(pair, *rows_of(pair), **options)
    torch.manual_seed(5)
    assert pair.model.generate(**batch, **options).equal(want)
    assert same_told(told(pair.model), where)


@pytest.mark.mode("beam search")
def test_beams_are_steered_as_their_row(pair, refused_natively):
    rows, options = rows_of(pair), {**GREEDY, "num_beams": 2}
    batch = pair.batch(*rows)
    if not refused_natively(lambda model: model.generate(**batch, **options)):
        _, want, where = oracle(pair, *rows, **options, cached=True)
        assert pair.model.generate(**batch, **options).equal(want)
        assert same_told(told(pair.model), where)


@pytest.mark.mode("static cache")
def test_a_static_cache_changes_no_token(pair, refused_natively):
    batch, want, where = oracle(pair, *rows_of(pair), **GREEDY)
    options = {**GREEDY, "cache_implementation": "static", "disable_compile": True}
    if not refused_natively(lambda model: model.generate(**batch, **options)):
        assert pair.model.generate(**batch, **options).equal(want)
        assert same_told(told(pair.model), where)


@pytest.mark.mode("prompt lookup decoding")
def test_looked_up_candidates_change_no_token(pair, refused_natively):
    batch, want, where = oracle(pair, richest(pair), **GREEDY)
    options = {**GREEDY, "prompt_lookup_num_tokens": 2}
    if not refused_natively(lambda model: model.generate(**batch, **options)):
        assert pair.model.generate(**batch, **options)[:, : want.shape[1]].equal(want)
        assert same_told(told(pair.model), where)


@pytest.mark.mode("assisted decoding")
def test_a_steered_draft_changes_no_token(pair, refused_natively):
    batch, want, where = oracle(pair, richest(pair), **GREEDY)
    drafts = copy.deepcopy(pair.model)
    options = {**GREEDY, "assistant_model": drafts}
    if not refused_natively(lambda model: model.generate(**batch, **options)):
        assert pair.model.generate(**batch, **options).equal(want)
        assert same_told(told(pair.model), where)


@pytest.mark.mode("assisted decoding")
@pytest.mark.parametrize("model_type", tiny.FAMILIES)
def test_an_unsteered_draft_changes_no_token(pairs, model_type):
    pair = pairs(model_type)
    switched_off = copy.deepcopy(pair.model)
    switched_off.steering.enabled = False
    batch, want, where = oracle(pair, "image", **GREEDY)
    for drafts in (pair.base, switched_off):
        assert pair.model.generate(**batch, **GREEDY, assistant_model=drafts).equal(want)
        assert same_told(told(pair.model), where)


@pytest.mark.mode("chunked prefill of text")
def test_chunks_of_a_text_prompt_change_no_token(pair, refused_natively):
    batch, want, where = oracle(pair, None, **GREEDY)
    for size in (3, 4):
        options = {**GREEDY, "prefill_chunk_size": size}
        if not refused_natively(lambda model, o=options: model.generate(**batch, **o)):
            assert pair.model.generate(**batch, **options).equal(want)
            assert same_told(told(pair.model), where)


@pytest.mark.mode("chunked prefill of a picture")
def test_chunks_of_a_visual_prompt_are_steered_at_its_end(pair, refused_natively):
    """Chunks may change the native answer itself: a picture that is cut cannot see itself whole."""
    if not pair.family.placeholders:
        does_not_apply("text only")
    for visual in pair.family.placeholders:
        batch, options = pair.batch(visual), {**GREEDY, "prefill_chunk_size": 4}
        if not refused_natively(lambda model, b=batch, o=options: model.generate(**b, **o)):
            _, want, where = oracle(pair, visual, **options, cached=True)
            assert pair.model.generate(**batch, **options).equal(want)
            assert same_told(told(pair.model), where)


@pytest.mark.mode("continuous batching")
def test_continuous_batching_raises_before_any_token(pair, raises_clearly):
    prompts = pair.batch(None)["input_ids"].tolist()
    with pytest.raises(RuntimeError, match=r"continuous batching .* use generate\(\)"):
        pair.model.generate_batch(prompts)
    with pytest.raises(RuntimeError, match="continuous batching"):
        pair.model.init_continuous_batching()
    raises_clearly("use generate() with padded batches")


@pytest.mark.mode("scoring an answer")
def test_an_answer_is_scored_as_it_was_generated(pair):
    batch = pair.batch(richest(pair))
    answer = pair.model.generate(**batch, **GREEDY)
    n, more = batch["input_ids"].shape[1], answer.shape[1] - batch["input_ids"].shape[1]
    where = told(pair.model)
    scored = {**batch, "input_ids": answer, "attention_mask": torch.ones_like(answer)}
    for types in ("token_type_ids", "mm_token_type_ids"):
        if types in batch:
            scored[types] = torch.nn.functional.pad(batch[types], (0, more))
    logits = pair.model(**scored).logits
    logits[..., tiny.TEXT["eos_token_id"]] = -torch.inf  # as `min_new_tokens` has it
    assert logits[0, n - 1 : -1].argmax(-1).equal(answer[0, n:])
    assert same_told(told(pair.model), where)


def turn(seed):
    return torch.tensor([random_ids(5, seed) + HEADER])


@pytest.mark.mode("cache of an earlier turn")
def test_a_cached_turn_is_answered_as_a_refilled_one(pair):
    out = pair.model.generate(**pair.batch(None), **GREEDY, return_dict_in_generate=True)
    whole = torch.cat([out.sequences, turn(9)], 1)
    more = pair.whole(whole)
    want = pair.model.generate(**more, **GREEDY)
    where = told(pair.model)
    got = pair.model.generate(**more, **GREEDY, past_key_values=out.past_key_values)
    assert got.equal(want)
    assert len(where[0]) == (1 if pair.cuts else 2)
    assert same_told(told(pair.model), [where[0][-1:]])


@pytest.mark.mode("cache with a turn that was not steered")
@pytest.mark.parametrize("who", ["generate", "forward", "inner model", "another model"])
def test_a_cache_with_an_unsteered_turn_raises(pair, raises_clearly, who):
    out = pair.model.generate(**pair.batch(None), **GREEDY, return_dict_in_generate=True)
    cache, whole = out.past_key_values, torch.cat([out.sequences, turn(9)], 1)
    new = whole[:, cache.get_seq_length() :]
    pair.model.steering.enabled = False
    if who == "generate":
        whole = pair.model.generate(**pair.whole(whole), **GREEDY, past_key_values=cache)
    elif who == "forward":
        pair.model(input_ids=new, past_key_values=cache)
    elif who == "inner model":
        pair.model.base_model(input_ids=new, past_key_values=cache)
    else:
        pair.base(input_ids=new, past_key_values=cache)
    pair.model.steering.enabled = True
    whole = torch.cat([whole, turn(11)], 1)
    with pytest.raises(ValueError, match="not filled by this model with steering on"):
        pair.model.generate(**pair.whole(whole), **GREEDY, past_key_values=cache)
    with pytest.raises(ValueError, match="not filled by this model with steering on"):
        pair.model(input_ids=turn(12), past_key_values=cache)
    raises_clearly("pass the whole conversation")


@pytest.mark.mode("an answer in pieces")
@pytest.mark.parametrize("cached", [False, True], ids=["anew", "cached"])
def test_an_answer_in_pieces_is_what_one_call_says(pair, cached):
    batch, options = pair.batch(None), {**GREEDY, "return_dict_in_generate": True}
    want = pair.model.generate(**batch, **options).sequences
    where, ids, cache = told(pair.model), batch["input_ids"], {}
    for k in range(4):
        options |= {"max_new_tokens": 1, "min_new_tokens": 1}
        out = pair.model.generate(**pair.whole(ids), **options, **cache)
        ids, cache = out.sequences, {"past_key_values": out.past_key_values} if cached else {}
        assert same_told(told(pair.model), [[]] if k and (cached or pair.cuts) else where)
    assert ids.equal(want)


@pytest.mark.mode("positions that are stated")
def test_stated_positions_are_steered_instead_of_the_header(pair):
    rows = rows_of(pair)
    batch = pair.batch(*rows)
    n = batch["input_ids"].shape[1]
    padding = left_padding(batch)
    stated = [[2, 5], [0, n - padding[-1] - 3]][: len(rows)]
    columns = [[by + index for index in row] for row, by in zip(stated, padding, strict=False)]
    where = places(batch["input_ids"], columns)
    arguments = (pair.base, pair.record, pair.direction, batch, where)
    want, steered = oracle_generate(*arguments, **GREEDY)
    assert pair.model.generate(**batch, **GREEDY, steering_positions=stated).equal(want)
    assert same_told(told(pair.model), steered)


@pytest.mark.mode("packed by position_ids")
def test_packed_requests_are_steered_each_with_its_own_modality(pair, refused_natively):
    visual = richest(pair)
    parts = [pair.batch(visual), pair.batch(None)]
    lengths = [part["input_ids"].shape[1] for part in parts]
    joined = {name for name in parts[1] if name != "attention_mask"}
    batch = {name: t for name, t in parts[0].items() if name != "attention_mask"}
    batch |= {name: torch.cat([part[name] for part in parts], 1) for name in joined}
    batch["position_ids"] = torch.cat([torch.arange(n) for n in lengths])[None]
    if not refused_natively(lambda model: model(**batch)):
        first = shown(batch["input_ids"][0, : lengths[0]].tolist(), 0)
        where = [(0, lengths[0] - 1, first), (0, sum(lengths) - 1, Shown())]
        want = oracle_logits(pair.base, pair.record, pair.direction, batch, where)
        torch.testing.assert_close(pair.model(**batch).logits, want, rtol=1e-4, atol=1e-4)
        steered = [place[:2] for place in told(pair.model)[0]]
        assert steered == [place[1:] for place in where]


@pytest.mark.mode("switched off for a while")
def test_inside_off_it_is_the_base(pair):
    batch = pair.batch(*rows_of(pair))
    want = pair.model.generate(**batch, **GREEDY)
    with pair.model.steering.off():
        off = pair.model.generate(**batch, **GREEDY)
        assert pair.model.steering.last == []
    assert off.equal(pair.base.generate(**batch, **GREEDY))
    assert pair.model.generate(**batch, **GREEDY).equal(want)
