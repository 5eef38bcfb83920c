"""Audio beside pictures or clips, or where steering does not look: it raises, or is counted."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mars_export.runtime.positions import mixed_columns
from mars_export.runtime.windows import History
from support import zoo, zoo_inputs
from support.behavior import Pair
from support.tiny import AUDIO, HEADER, TURN_STARTS, random_ids

MODALITIES = ["text", "image", "video", "audio"]
OPTIONS = {"max_new_tokens": 3, "do_sample": False}


@pytest.fixture(scope="module", params=zoo.each("gemma4", "qwen2_5_omni_thinker"))
def pair(request, tmp_path_factory):
    return Pair.make(request.param, tmp_path_factory.mktemp(request.param))


def conversation(*turns):
    """Token ids; a turn is what it shows, in order."""
    ids = [1]
    for number, shown in enumerate(turns):
        marks = [token for kind in shown for token in zoo_inputs.MARKED[kind]]
        ids += [*TURN_STARTS[0], *marks, *random_ids(5, number), *HEADER]
        ids += random_ids(2, 50 + number) if number + 1 < len(turns) else []
    return ids


@torch.no_grad()
@pytest.mark.parametrize(
    "turns",
    [
        [("audio", "image")],
        [("image", "audio")],
        [("audio",), ("image",)],
        [("image",), (), ("audio",)],
    ],
)
def test_a_row_with_both_raises_whichever_comes_first(pair, turns):
    model_type = pair.family.model_type
    batch = zoo_inputs.padded(model_type, [conversation(("audio",)), conversation(*turns)])
    for call in (pair.model, lambda **inputs: pair.model.generate(**inputs, **OPTIONS)):
        with pytest.raises(ValueError, match="row 1 holds audio beside pictures or clips"):
            call(**batch)
    with pair.model.steering.off():
        assert pair.model(**batch).logits.equal(pair.base(**batch).logits)


@torch.no_grad()
def test_rows_with_one_each_share_a_batch(pair):
    rows = [conversation(()), *(conversation((kind,), ()) for kind in pair.family.placeholders)]
    batch = zoo_inputs.padded(pair.family.model_type, rows)
    pair.model(**batch)
    assert [row[-1].modality for row in pair.model.steering.last] == MODALITIES


@torch.no_grad()
def test_a_turn_behind_a_cache_raises_as_well(pair):
    first, whole = conversation(("audio",)), conversation(("audio",), ("image",))
    batch = zoo_inputs.padded(pair.family.model_type, [first])
    cache = pair.model(**batch, use_cache=True).past_key_values
    more = zoo_inputs.padded(pair.family.model_type, [whole[len(first) :]])
    more["attention_mask"] = torch.ones(1, len(whole), dtype=torch.long)
    with pytest.raises(ValueError, match="row 0 holds audio beside pictures or clips"):
        pair.model(**more, past_key_values=cache)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["audio", "image"])
def test_what_is_shown_behind_the_last_header_raises(pair, kind):
    """Steering was decided there without it."""
    ids = [*conversation(()), *zoo_inputs.MARKED[kind], *random_ids(2, 9)]
    batch = zoo_inputs.padded(pair.family.model_type, [conversation((kind,)), ids])
    with pytest.raises(ValueError, match="row 1 shows a picture, clip or sound behind its last"):
        pair.model.generate(**batch, **OPTIONS)
    earlier = [*ids, *TURN_STARTS[0], *random_ids(4, 3), *HEADER]
    pair.model.generate(**zoo_inputs.padded(pair.family.model_type, [earlier]), **OPTIONS)
    assert pair.model.steering.last[0][-1].modality == kind


@torch.no_grad()
def test_what_is_masked_is_not_heard(pair):
    batch = zoo_inputs.padded(pair.family.model_type, [conversation(("audio",))])
    hidden = batch["input_ids"] == AUDIO
    pair.model(**{**batch, "attention_mask": batch["attention_mask"] * ~hidden})
    (position,) = pair.model.steering.last[0]
    assert (position.modality, position.visual) == ("text", 0)


@torch.no_grad()
def test_placeholders_are_known_by_their_embeddings(pair):
    """The native classes put features in their place, whatever the token types say."""
    batch = zoo_inputs.padded(pair.family.model_type, [conversation(("audio",))])
    ids = batch.pop("input_ids")
    types = {"mm_token_type_ids": torch.zeros_like(ids)}
    pair.model(**{**batch, **types}, inputs_embeds=pair.model.get_input_embeddings()(ids))
    assert pair.model.steering.last[0][-1].modality == "audio"


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=3),
    st.integers(0, 5),
)
def test_columns_are_mixed_from_where_a_request_has_shown_both(requests, cut):
    """Of packed requests, of which the first columns may lie in a cache."""
    shown = torch.tensor([[kind for request in requests for kind in request]])
    number = torch.tensor([[n for n, request in enumerate(requests) for _ in request]])
    want = [
        3 in seen and bool({1, 2} & set(seen))
        for request in requests
        for seen in (request[: end + 1] for end in range(len(request)))
    ]
    assert mixed_columns(shown, MODALITIES, None, number).tolist() == [want]
    cut = min(cut, len(requests[0]) - 1)
    if cut:  # the cache holds the beginning of the first request
        highest = shown[:, :cut].cummax(1).values
        nothing = torch.zeros_like(highest)
        context = torch.stack([highest, nothing, nothing], -1)
        before = History(nothing, context, nothing.bool(), "")
        if want[cut - 1]:
            return  # it raised before
        after = mixed_columns(shown[:, cut:], MODALITIES, before, number[:, cut:])
        assert after.tolist() == [want[cut:]]


def test_models_without_audio_have_nothing_to_mix():
    assert mixed_columns(torch.zeros(1, 3).long(), MODALITIES[:3]) is None
