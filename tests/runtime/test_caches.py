"""Prompts that reach the model in pieces: what was cached decides, and what is unknown raises."""

import threading

import pytest
import torch

from support import tiny
from support.tiny import random_ids


def by_hand(model, batch, cut, steps=4):
    """Greedy tokens of a loop written by hand, the prompt fed in two pieces.

    The first has no header yet, which only the caller knows to be right.
    """
    ids = batch["input_ids"]
    rest = {k: v for k, v in batch.items() if k not in ("input_ids", "attention_mask")}
    types = {k: rest.pop(k) for k in list(rest) if "type_ids" in k}
    first = {k: v[:, :cut] for k, v in types.items()}
    rest["steering_positions"] = [[]]
    out = model(input_ids=ids[:, :cut], use_cache=True, **first, **rest)
    piece, tokens = ids[:, cut:], []
    for _ in range(steps):
        out = model(input_ids=piece, past_key_values=out.past_key_values, use_cache=True)
        piece = out.logits[:, -1:].argmax(-1)
        tokens.append(piece)
    return torch.cat(tokens, 1)


@pytest.mark.mode("two-chunk prefill")
# With a cached picture the positions of later tokens are the caller's business in Qwen3-VL.
@pytest.mark.parametrize("back", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("family", "visual"), [("gemma3", None), ("gemma3", "image"), ("qwen3_vl", None)]
)
def test_a_header_split_between_two_forwards_is_steered(exported, family, visual, back):
    pair = exported(family)
    batch = tiny.inputs(pair.family, [(random_ids(9, 2), visual)])
    n = batch["input_ids"].shape[1]
    want = pair.model.generate(**batch, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    if pair.family == "qwen3_vl" and visual:
        pytest.skip("positions of a cached picture are the caller's business in Qwen3-VL")
    assert by_hand(pair.model, batch, n - back).equal(want[:, n:])
    assert [(s.position, s.modality) for s in pair.model.steering.last[0]] == [
        (n - 1, visual or "text")
    ]


def filled(model, batch):
    return model(**batch, use_cache=True).past_key_values


def test_a_cache_that_was_filled_unsteered_is_refused(pair):
    batch = tiny.inputs(pair.family, [(random_ids(6, 1), None)])
    pair.model.steering.enabled = False
    caches = [filled(pair.model, batch), filled(pair.base, batch)]
    pair.model.steering.enabled = True
    for cache in caches:
        with pytest.raises(ValueError, match="not filled by this model with steering on"):
            pair.model(input_ids=torch.tensor([random_ids(5, 3)]), past_key_values=cache)


def test_generate_with_a_cache_that_hides_the_prompt_end_raises(pair):
    batch = tiny.inputs(pair.family, [(random_ids(6, 1), None)])
    more = torch.tensor([random_ids(4, 3) + tiny.HEADER])
    with pytest.raises((RuntimeError, ValueError), match="steered checkpoint"):
        pair.model.generate(
            input_ids=more, past_key_values=filled(pair.model, batch), max_new_tokens=2
        )


def test_generating_around_the_model_is_steered_by_its_forwards(pair):
    ids = torch.tensor([random_ids(6, 1) + tiny.HEADER])
    mask = torch.ones_like(ids)

    def around(model, input_ids, **kwargs):
        return model(input_ids=input_ids).logits.argmax(-1)

    got = pair.model.generate(input_ids=ids, attention_mask=mask, custom_generate=around)
    assert got.equal(pair.model(input_ids=ids).logits.argmax(-1))
    assert [s.position for s in pair.model.steering.last[0]] == [ids.shape[1] - 1]


def test_right_padding_raises(pair):
    batch = tiny.inputs(pair.family, [(random_ids(6, 1), None)])
    batch["attention_mask"][:, -1] = 0
    with pytest.raises(ValueError, match="pad on the left"):
        pair.model.generate(**batch, max_new_tokens=2)


def test_a_cropped_cache_forgets_the_picture(exported):
    pair = exported("gemma3")
    cache = filled(pair.model, tiny.inputs("gemma3", [(random_ids(5, 1), "image")]))
    cache.crop(-(cache.get_seq_length() - 1))
    pair.model(input_ids=torch.tensor([random_ids(5, 3) + tiny.HEADER]), past_key_values=cache)
    assert pair.model.steering.last[0][-1].modality == "text"


def test_a_cropped_cache_forgets_the_header(exported):
    pair = exported("gemma3")
    batch = tiny.inputs("gemma3", [(random_ids(6, 1), None)])
    want = pair.model(**batch).logits[:, -1]
    places, cache = pair.model.steering.last[0], filled(pair.model, batch)
    cache.crop(-1)
    got = pair.model(input_ids=batch["input_ids"][:, -1:], past_key_values=cache).logits[:, -1]
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert pair.model.steering.last[0][-1].position == places[0].position


def test_a_cache_whose_rows_changed_places_is_refused(exported):
    """Its rows would be taken for one another's: the text row for the one with a picture."""
    pair = exported("gemma3")
    batch = tiny.inputs("gemma3", [(random_ids(5, 1), "image"), (random_ids(11, 2), None)])
    options = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True}
    out = pair.model.generate(**batch, **options)
    whole = torch.cat([out.sequences, torch.tensor([random_ids(5, 3) + tiny.HEADER] * 2)], 1)
    more = whole.shape[1] - batch["input_ids"].shape[1]
    mask = torch.nn.functional.pad(batch["attention_mask"], (0, more), value=1)
    types = torch.nn.functional.pad(batch["token_type_ids"], (0, more))
    swap = torch.tensor([1, 0])
    out.past_key_values.batch_select_indices(swap)
    again = {"input_ids": whole, "attention_mask": mask, "token_type_ids": types}
    again = {name: t[swap] for name, t in again.items()}
    with pytest.raises(ValueError, match="other tokens than this conversation"):
        pair.model.generate(**again, **options, past_key_values=out.past_key_values)


def test_after_candidates_that_were_turned_down_the_picture_is_known(exported):
    pair = exported("gemma3")
    batch = tiny.inputs("gemma3", [(random_ids(5, 1), "image")])
    out = pair.model.generate(
        **batch, max_new_tokens=4, prompt_lookup_num_tokens=3, return_dict_in_generate=True
    )
    more = torch.tensor([random_ids(5, 3) + tiny.HEADER])
    pair.model(input_ids=more, past_key_values=out.past_key_values)
    assert pair.model.steering.last[0][-1].modality == "image"


@pytest.mark.mode("assistant prefill")
def test_an_answer_that_was_begun_is_steered_at_its_header_alone(pair):
    begun = torch.tensor([[1, *random_ids(6, 1), *tiny.HEADER, *random_ids(3, 2)]])
    n = begun.shape[1]
    options = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
    options["return_dict_in_generate"] = True
    batch = {"input_ids": begun, "attention_mask": torch.ones_like(begun)}
    out = pair.model.generate(**batch, **options)
    assert [s.position for s in pair.model.steering.last[0]] == [n - 4]
    whole = torch.cat([out.sequences, torch.tensor([random_ids(4, 3) + tiny.HEADER])], 1)
    more = {"input_ids": whole, "attention_mask": torch.ones_like(whole)}
    want = pair.model.generate(**more, **options).sequences
    assert [s.position for s in pair.model.steering.last[0]] == [n - 4, whole.shape[1] - 1]
    got = pair.model.generate(**more, **options, past_key_values=out.past_key_values).sequences
    assert got.equal(want)


def test_nested_and_parallel_requests_keep_their_own_records(pair):
    outer = tiny.inputs(pair.family, [(random_ids(6, 1), None)])
    inner = tiny.inputs(pair.family, [(random_ids(15, 2), None)])

    def meanwhile(input_ids, scores):
        pair.model(**inner)
        return scores

    pair.model.generate(**outer, max_new_tokens=3, logits_processor=[meanwhile])
    assert [s.position for s in pair.model.steering.last[0]] == [9]
    seen = []

    def run(batch):
        pair.model.generate(**batch, max_new_tokens=3, do_sample=False)
        seen.append([len(row) for row in pair.model.steering.last])

    threads = [threading.Thread(target=run, args=(b,)) for b in (outer, inner)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # A request that begins takes the place of the record, so the first may find an empty one.
    assert all(count in ([1], [0], []) for count in seen), seen
    assert [len(row) for row in pair.model.steering.last] == [1]


def test_a_long_loop_by_hand_keeps_a_short_record(exported):
    pair = exported("gemma3")
    batch = tiny.inputs("gemma3", [(random_ids(6, 1), None)])
    by_hand(pair.model, batch, 4, steps=150)
    assert len(pair.model.steering.trace.entries) <= 65
    assert [s.position for s in pair.model.steering.last[0]] == [9]
