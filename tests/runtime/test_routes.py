"""One position per assistant turn, whichever way the tokens arrive."""

import copy
import json
import pickle
import subprocess
import sys
import threading

import pytest
import torch
import transformers

from support import tiny
from support.conversations import BLANK, SPECIAL, Batch, Row, Turn
from support.oracle import told
from support.sides import Native, Steered, check_same
from support.tiny import HEADER, random_ids

KINDS = ["llama", "gemma3", "qwen3_vl"]
LAST = {"llama": None, "gemma3": "image", "qwen3_vl": "video"}
OPTIONS = {"do_sample": False, "suppress_tokens": SPECIAL, "return_dict_in_generate": True}


@pytest.fixture(params=KINDS)
def pair(request, talkers):
    return talkers(request.param)


def steps(count, **options):
    return {**OPTIONS, "max_new_tokens": count, "min_new_tokens": count, **options}


def batch_of(pair, *rows, right=False):
    """A batch of rows, each given by its turns."""
    kind = pair.family.model_type
    return Batch.of(kind, *(Row.of(turns, seed) for seed, turns in enumerate(rows)), right=right)


def visual_rows(pair):
    """A text and, where the family has one, a visual row of two turns."""
    last = LAST[pair.family.model_type]
    rows = [(Turn(4),), (Turn(5, 3, visual=last), Turn(3))]
    return rows if last else rows[::-1]


def check(pair, run):
    """Both models go the same way; the steered one as the hooks steer the base."""
    sides = Native(pair), Steered(pair)
    for side in sides:
        run(side)
    check_same(sides[1], sides[0])


def positions(model):
    return [[place[0] for place in row] for row in told(model)]


@pytest.mark.parametrize("option", [{}, {"repetition_penalty": 1.8}], ids=["greedy", "penalized"])
@pytest.mark.parametrize("cached", [False, True], ids=["anew", "cached"])
@pytest.mark.parametrize("size", [1, 2])
def test_generate_in_pieces_says_what_one_call_says(pair, option, cached, size):
    batch = batch_of(pair, (Turn(5, 2), Turn(4)))
    want = pair.model.generate(**batch.inputs, **steps(6, **option)).sequences
    where, cache = positions(pair.model), None
    for k in range(6 // size):
        cache = {"past_key_values": cache} if cache is not None and cached else {}
        out = pair.model.generate(**batch.inputs, **cache, **steps(size, **option))
        cache, batch = out.past_key_values, batch.said(out.sequences[:, -size:])
        assert positions(pair.model) == ([[]] if k and cached else where)
    assert batch.ids.equal(want)


def test_an_answer_goes_on_behind_a_stop_string(pair):
    class Stop(transformers.StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return torch.tensor([input_ids.shape[1] >= first])

    batch = batch_of(pair, (Turn(5),))
    want = pair.model.generate(**batch.inputs, **steps(6)).sequences
    first = batch.ids.shape[1] + 2
    options = {**OPTIONS, "max_new_tokens": 6, "stopping_criteria": [Stop()]}
    out = pair.model.generate(**batch.inputs, **options).sequences
    assert out.shape[1] == first
    batch = batch.said(out[:, -2:])
    assert pair.model.generate(**batch.inputs, **steps(4)).sequences.equal(want)


@pytest.mark.mode("assistant prefill")
def test_a_begun_answer_is_steered_at_its_header_alone(pair):
    batch = batch_of(pair, (Turn(5, 3),), (Turn(7, 1, blank=True),))

    def run(side):
        side.forward(batch, batch.inputs, batch.where)
        side.generate(batch, batch.where, **batch.inputs, **steps(3))

    check(pair, run)
    generated = pair.model.generate(**batch.inputs, **steps(1, output_logits=True)).logits[0]
    mask, places = batch.mask, (batch.mask.cumsum(1) - 1).clamp(min=0)
    more = {} if pair.family.model_type == "qwen3_vl" else {"position_ids": places}
    logits = pair.model(**batch.inputs, **more).logits[:, -1]
    assert mask[:, -1].all()
    torch.testing.assert_close(generated, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.mode("header joined to a blank line")
def test_a_header_that_is_joined_to_a_blank_line_is_steered(pair):
    batch = batch_of(pair, (Turn(5, 2, blank=True), Turn(4, 2, blank=True)))
    assert batch.ids[0].tolist().count(BLANK) == 2

    def run(side):
        side.forward(batch, batch.inputs, batch.where)
        side.generate(batch, batch.where, **batch.inputs, **steps(2))

    check(pair, run)
    assert len(positions(pair.model)[0]) == 2


def test_every_mention_of_a_header_counts(pair):
    """In a user's message or behind a tool's turn as well."""
    row = Row.of((Turn(4), Turn(3)))
    batch = Batch.of(pair.family.model_type, row)
    pair.model(**batch.inputs)
    assert positions(pair.model) == [[index for index, _ in row.ends]]


@pytest.mark.parametrize("right", [False, True], ids=["left", "right"])
def test_padding_moves_nothing(pair, right):
    batch = batch_of(pair, *visual_rows(pair), right=right)
    check(pair, lambda side: side.forward(batch, batch.inputs, batch.where))


def test_packed_rows_are_steered_request_by_request(pair):
    last = LAST[pair.family.model_type]
    batch = batch_of(pair, (Turn(5, 2, visual=last),), (Turn(4, 3),), (Turn(3, 1, visual=last),))
    inputs, where = batch.packed()
    row = Batch(batch.rows[:1], inputs, [0])
    check(pair, lambda side: side.forward(row, inputs, where))
    packed = told(pair.model)[0]
    assert [shown.modality for _, shown, _ in packed] == [last or "text", "text", last or "text"]


def test_transformers_flattening_collator_packs_requests_that_stay_apart(talkers):
    pair = talkers("llama")
    batch = batch_of(pair, (Turn(5, 2),), (Turn(4, 3),))
    features = [{"input_ids": row.ids} for row in batch.rows]
    packed = transformers.DataCollatorWithFlattening()(features)
    assert "cu_seq_lens_q" not in packed
    where = batch.packed()[1]
    row = Batch(batch.rows[:1], packed, [0])
    inputs = {name: packed[name] for name in ("input_ids", "position_ids")}
    check(pair, lambda side: side.forward(row, inputs, where))


@pytest.mark.parametrize("as_tensor", [False, True])
def test_positions_that_are_stated_are_steered_instead(pair, as_tensor):
    batch = batch_of(pair, *visual_rows(pair))
    stated = [[2, 5], []]
    where = batch.places(stated)
    given = torch.tensor([[2, 5], [-1, -1]]) if as_tensor else stated

    def run(side):
        side.forward(batch, batch.inputs, where, given)
        side.generate(batch, where, given, **batch.inputs, **steps(3))

    check(pair, run)


def test_a_piece_without_a_header_comes_with_its_positions(pair):
    batch = batch_of(pair, (Turn(8),))
    n = batch.ids.shape[1]

    def run(side):
        cache = None
        for start, stop in [(0, n - 5), (n - 5, n - 2), (n - 2, n)]:
            inputs = {"input_ids": batch.ids[:, start:stop], "past_key_values": cache}
            stated = None if stop == n else [[]]
            out = side.forward(batch, {**inputs, "use_cache": True}, batch.where, stated, start)
            cache = out.past_key_values

    check(pair, run)
    assert positions(pair.model) == [[n - 1]]


@pytest.mark.mode("embeddings instead of tokens")
def test_embeddings_are_steered_as_their_tokens(pair):
    batch = batch_of(pair, (Turn(4),), (Turn(5, 3), Turn(3)))
    embeds = pair.base.get_input_embeddings()(batch.ids)
    inputs = {"inputs_embeds": embeds, "attention_mask": batch.mask, **batch.typed()}
    check(pair, lambda side: side.forward(batch, inputs, batch.where))
    if pair.family.model_type != "gemma3":  # whose native generate() takes none
        check(pair, lambda side: side.generate(batch, batch.where, **inputs, **steps(3)))


def test_longer_embeddings_beside_their_tokens_are_planned_by_what_is_run(talkers):
    """generate() runs the embeddings, and repeats the tokens only in what it returns."""
    pair = talkers("llama")
    batch = batch_of(pair, (Turn(5, 2), Turn(4)))
    embeds = pair.base.get_input_embeddings()(batch.ids)
    inputs = {"inputs_embeds": embeds, "attention_mask": batch.mask, "input_ids": batch.ids[:, :3]}
    check(pair, lambda side: side.generate(batch, batch.where, **inputs, **steps(3)))


def test_masks_by_kind_of_layer(talkers):
    pair = talkers("gemma3")
    batch = batch_of(pair, (Turn(12, 3), Turn(5)))
    n = batch.ids.shape[1]
    causal = torch.ones(n, n, dtype=torch.bool).tril()
    window = causal & causal.T.logical_not().logical_or(torch.eye(n, dtype=torch.bool)).tril()
    near = window & (torch.arange(n)[:, None] - torch.arange(n) < 16)
    masks = {"full_attention": causal[None, None], "sliding_attention": near[None, None]}
    inputs = {"input_ids": batch.ids, "attention_mask": masks}
    check(pair, lambda side: side.forward(batch, inputs, batch.where))


def test_a_mask_of_four_axes_and_shifted_positions(talkers):
    pair = talkers("llama")
    batch = batch_of(pair, (Turn(6, 2), Turn(4)))
    n = batch.ids.shape[1]
    causal = torch.ones(n, n, dtype=torch.bool).tril()[None, None]
    inputs = {"input_ids": batch.ids, "attention_mask": causal}
    check(pair, lambda side: side.forward(batch, inputs, batch.where))
    inputs = {"input_ids": batch.ids, "position_ids": torch.arange(n)[None] + 5}
    check(pair, lambda side: side.forward(batch, inputs, batch.where))


def test_a_cached_picture_counts_in_a_later_turn(pair):
    last = LAST[pair.family.model_type]
    batch = batch_of(pair, (Turn(5, 1, visual=last),))
    more = batch.asked(Turn(4), 7)

    def run(side):
        cache = side.forward(
            batch, {**batch.inputs, "use_cache": True}, batch.where
        ).past_key_values
        later = {"input_ids": more.ids[:, batch.ids.shape[1] :], "past_key_values": cache}
        side.forward(more, later, more.where, start=batch.ids.shape[1])

    check(pair, run)
    assert [shown.modality for _, shown, _ in told(pair.model)[0]] == [last or "text"] * 2


def test_a_prefix_that_is_copied_goes_on_in_two_ways(pair):
    prefix = batch_of(pair, (Turn(5, 2),))
    cache = pair.model(**prefix.inputs, use_cache=True).past_key_values
    for seed in (3, 4):
        batch = prefix.asked(Turn(4), seed)
        want = pair.model.generate(**batch.inputs, **steps(3)).sequences
        again = copy.deepcopy(cache)
        got = pair.model.generate(**batch.inputs, **steps(3), past_key_values=again).sequences
        assert got.equal(want)
        assert positions(pair.model) == [[batch.ids.shape[1] - 1]]


def test_token_types_may_be_left_out(talkers):
    pair = talkers("gemma3")
    batch = batch_of(pair, *visual_rows(pair))
    inputs = {**batch.inputs, "token_type_ids": torch.zeros_like(batch.ids)}
    check(pair, lambda side: side.forward(batch, inputs, batch.where))


def test_right_padding_is_seen_without_a_mask(pair):
    batch = batch_of(pair, (Turn(5),), (Turn(9),), right=True)
    with pytest.raises(ValueError, match="pad on the left"):
        pair.model.generate(input_ids=batch.ids, **steps(2))


def test_pickled_it_is_steered(pair):
    batch = batch_of(pair, (Turn(5),))
    want = pair.model(**batch.inputs).logits
    twin = pickle.loads(pickle.dumps(pair.model))
    torch.testing.assert_close(twin(**batch.inputs).logits, want, rtol=1e-5, atol=1e-5)
    assert told(twin) == told(pair.model)


@pytest.mark.parametrize("kind", KINDS)
def test_exported_it_steers_and_can_still_be_asked(talkers, kind):
    pair = talkers(kind)
    batch = batch_of(pair, (Turn(8),))
    want = pair.model(**batch.inputs).logits
    inputs = {**batch.inputs, "use_cache": False}
    program = torch.export.export(pair.model, (), inputs, strict=False)
    assert isinstance(pair.model.steering.last, list)
    torch.testing.assert_close(program.module()(**inputs).logits, want, rtol=1e-4, atol=1e-4)
    pair.model(**batch.inputs)
    assert positions(pair.model) == [[batch.ids.shape[1] - 1]]


def test_a_switch_that_others_turn_does_not_reach_a_request(pair):
    batch = batch_of(pair, (Turn(5),))
    want = pair.model.generate(**batch.inputs, **steps(4)).sequences

    def switch_off(*_):
        thread = threading.Thread(target=lambda: setattr(pair.model.steering, "enabled", False))
        thread.start()
        thread.join()

    handle = pair.model.get_input_embeddings().register_forward_pre_hook(switch_off)
    try:
        assert pair.model.generate(**batch.inputs, **steps(4)).sequences.equal(want)
    finally:
        handle.remove()
    assert not pair.model.steering.enabled


FRESH = """
import json, sys, torch, transformers
transformers.logging.set_verbosity_error()
ids, answers = torch.tensor([json.loads(sys.argv[1])]), []
for auto, directory, base_class, base_dir in json.loads(sys.argv[2]):
    model = getattr(transformers, auto).from_pretrained(directory, trust_remote_code=True)
    base = getattr(transformers, base_class).from_pretrained(base_dir)
    outs = []
    for one in (model, base):
        one.eval().set_attn_implementation("eager")
        asked = {"input_ids": ids, "output_hidden_states": True, "output_attentions": True}
        outs.append(one(**asked))
    with model.steering.off():
        outs.append(model(**asked))
    counts = [[len(out.hidden_states), len(out.attentions)] for out in outs]
    on, native, off = (out.hidden_states + out.attentions for out in outs)
    same = all(a.equal(b) for a, b in zip(off, native))
    first = [a.equal(b) for a, b in zip(on, native)].index(False)
    answers.append([counts, same, first])
print(json.dumps(answers))
"""


def test_hidden_states_and_attentions_come_as_from_the_base(talkers, tmp_path):
    """In a process of their own: what another model has registered here would hide a mistake."""
    pairs = [talkers(kind) for kind in [*KINDS, "gemma3_text"]]
    jobs = [
        [pair.family.auto_class, str(pair.directory), pair.family.generator, str(pair.base_dir)]
        for pair in pairs
    ]
    ids = [1, *random_ids(5), *HEADER]
    run = subprocess.run(
        [sys.executable, "-c", FRESH, json.dumps(ids), json.dumps(jobs)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout.strip().splitlines()[-1])
    counts = [[tiny.LAYERS + 1, tiny.LAYERS]] * 3
    assert told == [[counts, True, tiny.LAYER + 1]] * len(pairs)
