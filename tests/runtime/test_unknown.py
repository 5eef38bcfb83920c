"""Where an answer begins is known, or stated, or steering is off; otherwise there is one line."""

import copy

import pytest
import torch
import transformers

from support.conversations import SPECIAL, Batch, Row, Turn
from support.oracle import told
from support.sides import Native, Steered, check_same, forget
from support.tiny import HEADER, random_ids

KINDS = ["llama", "gemma3", "qwen3_vl"]
LAST = {"llama": None, "gemma3": "image", "qwen3_vl": "video"}
NO_HEADER = {"none": (), "unfinished": (310, 311), "of another template": (310, 316, 312)}
STEPS = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False, "suppress_tokens": SPECIAL}
unknown = pytest.raises(ValueError, match=r"steered checkpoint: row \d .*no assistant header")
each_absence = pytest.mark.parametrize("header", list(NO_HEADER))


@pytest.fixture(params=KINDS)
def pair(request, talkers):
    return talkers(request.param)


def batch_of(pair, *rows):
    kind = pair.family.model_type
    return Batch.of(kind, *(Row.of(turns, seed) for seed, turns in enumerate(rows)))


def beside(pair, header):
    """A row that is known, and beside it one, with the last modality, that is not."""
    lost = Turn(5, 2, visual=LAST[pair.family.model_type], header=NO_HEADER[header])
    return batch_of(pair, (Turn(4),), (lost,))


@each_absence
def test_a_forward_without_a_header_raises(pair, header):
    batch = beside(pair, header)
    labels = {"labels": batch.ids}
    for more in ({}, labels):
        with unknown:
            pair.model(**batch.inputs, **more)
    pair.model.train()
    try:
        with unknown:
            pair.model(**batch.inputs, **labels)
    finally:
        pair.model.eval()
    with unknown:
        pair.model.base_model(**batch.inputs)


@each_absence
def test_generate_without_a_header_raises(pair, header):
    batch = beside(pair, header)
    for options in ({}, {"use_cache": False}, {"num_beams": 2}, {"max_new_tokens": 1}):
        with unknown:
            pair.model.generate(**batch.inputs, **{**STEPS, **options})


def test_the_line_names_every_way_out(pair):
    batch = beside(pair, "none")
    with pytest.raises(ValueError, match="row 1") as raised:
        pair.model(**batch.inputs)
    line = str(raised.value)
    assert "\n" not in line
    for way in ("add_generation_prompt=True", "steering_positions=", "model.steering.off()"):
        assert way in line


@each_absence
def test_every_way_out_works(pair, header):
    batch = beside(pair, header)
    stated = [[index for index, _ in row.ends] for row in batch.rows]
    sides = Native(pair), Steered(pair)
    for side in sides:
        side.forward(batch, batch.inputs, batch.where, stated)
        side.forward(batch, {**batch.inputs, "labels": batch.ids}, batch.where, stated)
        side.off(lambda model: model(**batch.inputs).logits)
    check_same(sides[1], sides[0])
    got = pair.model.generate(**batch.inputs, **STEPS, steering_positions=[[], []])
    assert got.equal(pair.base.generate(**batch.inputs, **STEPS))
    assert told(pair.model) == [[], []]


@each_absence
def test_generate_raises_where_the_last_turn_has_no_header(pair, header):
    """The header of an earlier turn says nothing about this one; the forward has no answer."""
    batch = batch_of(pair, (Turn(4, 2), Turn(3, header=NO_HEADER[header])))
    with pytest.raises(ValueError, match=r"no assistant header .* in its last turn"):
        pair.model.generate(**batch.inputs, **STEPS)
    sides = Native(pair), Steered(pair)
    for side in sides:
        side.forward(batch, batch.inputs, batch.where)
        side.generate(
            batch, batch.where, [[batch.rows[0].ends[0][0]]],
            **batch.inputs, **STEPS, return_dict_in_generate=True,
        )  # fmt: skip
    check_same(sides[1], sides[0])


def test_generate_raises_where_a_cached_turn_is_followed_by_none(pair):
    first = batch_of(pair, (Turn(4),))
    out = pair.model.generate(**first.inputs, **STEPS, return_dict_in_generate=True)
    more = first.said(out.sequences[:, -3:]).asked(Turn(4, header=()), 5)
    with pytest.raises(ValueError, match="in its last turn"):
        pair.model.generate(**more.inputs, **STEPS, past_key_values=out.past_key_values)


def test_a_packed_request_without_a_header_raises(pair):
    batch = beside(pair, "of another template")
    inputs, _ = batch.packed()
    with pytest.raises(ValueError, match="packs, by its position_ids, a request that shows no"):
        pair.model(**inputs)


@pytest.mark.parametrize("masked", [False, True])
def test_positions_that_never_go_on_by_one_hide_no_request(talkers, masked):
    """Taken for packing, they would make every token a request of its own, without a header."""
    pair = talkers("llama")
    batch = batch_of(pair, (Turn(5),))
    inputs = {"input_ids": batch.ids, "position_ids": 2 * torch.arange(batch.ids.shape[1])[None]}
    inputs |= {"attention_mask": batch.mask} if masked else {}
    with pytest.raises(ValueError, match="by its position_ids, a request that shows no"):
        pair.model(**inputs)


def test_a_first_piece_without_a_header_raises(pair):
    ids = batch_of(pair, (Turn(8),)).ids
    with unknown:
        pair.model(input_ids=ids[:, :-2], use_cache=True)


@pytest.mark.parametrize("noise", [1e-6, "bfloat16"])
def test_embeddings_that_are_no_rows_of_the_table_raise(pair, noise):
    batch = batch_of(pair, (Turn(5),))
    exact = pair.model.get_input_embeddings()(batch.ids)
    embeds = exact.bfloat16().float() if noise == "bfloat16" else exact + noise
    inputs = {"inputs_embeds": embeds, "attention_mask": batch.mask, **batch.typed()}
    with unknown:
        pair.model(**inputs)
    stated = [[batch.ids.shape[1] - 1]]
    sides = Native(pair), Steered(pair)
    for side in sides:
        side.forward(batch, inputs, batch.where, stated)
    check_same(sides[1], sides[0])


def test_noisy_embeddings_of_training_are_steered_by_their_tokens(talkers):
    """As NEFTune makes them: the noise is put onto what the embedding returns."""
    pair = talkers("llama")
    batch = batch_of(pair, (Turn(5, 3),))

    def noise(module, args, out):
        return out + torch.full_like(out, 1e-3)

    sides = Native(pair), Steered(pair)
    for side, model in zip(sides, (pair.base, pair.model), strict=True):
        handle = model.get_input_embeddings().register_forward_hook(noise)
        side.forward(batch, batch.inputs, batch.where)
        embeds = model.get_input_embeddings()(batch.ids)
        handle.remove()
    check_same(sides[1], sides[0])
    with unknown:
        pair.model(inputs_embeds=embeds)


def test_embeddings_in_generate_that_are_no_rows_of_the_table_raise(talkers):
    pair = talkers("llama")
    batch = batch_of(pair, (Turn(5),))
    embeds = pair.model.get_input_embeddings()(batch.ids) + 1e-6
    with unknown:
        pair.model.generate(inputs_embeds=embeds, **STEPS)


def test_a_headless_model_raises(talkers):
    pair = talkers("llama")
    model = transformers.AutoModel.from_pretrained(pair.directory, trust_remote_code=True)
    lost, good = (batch_of(pair, (turn,)) for turn in (Turn(5, header=()), Turn(5)))
    with unknown:
        model(**lost.inputs)
    model(**good.inputs)
    assert [s.position for s in model.steering.last[0]] == [good.ids.shape[1] - 1]


def test_generating_around_the_plan_raises(pair):
    """The plan was asked for, and the model below the head was then run without it."""
    lost = batch_of(pair, (Turn(5, header=()),)).ids

    def around(model, input_ids, **_):
        mask = torch.ones_like(input_ids)
        model.prepare_inputs_for_generation(input_ids, attention_mask=mask)
        states = model.base_model(input_ids=input_ids).last_hidden_state
        token = model.get_output_embeddings()(states)[:, -1:].argmax(-1)
        return torch.cat([input_ids, token], 1)

    stated = {"steering_positions": [[lost.shape[1] - 1]]}
    for more in ({}, stated):
        with pytest.raises((ValueError, RuntimeError), match="steered checkpoint"):
            pair.model.generate(input_ids=lost, custom_generate=around, **more)


def test_layers_that_are_run_one_by_one_raise(talkers):
    pair = talkers("llama")
    ids = batch_of(pair, (Turn(5),)).ids
    model, places = pair.model.model, torch.arange(ids.shape[1])[None]
    x = model.embed_tokens(ids)
    shared = {"attention_mask": None, "position_ids": places}
    shared["position_embeddings"] = model.rotary_emb(x, places)
    for layer in model.layers[: pair.record.layer]:
        x = layer.forward(x, **shared)
    steered = model.layers[pair.record.layer]
    for call in (steered, steered.forward):
        with pytest.raises(RuntimeError, match="not its inner modules"):
            call(x, **shared)


def test_inner_modules_raise(talkers):
    pair = talkers("gemma3")
    ids = batch_of(pair, (Turn(5),)).ids
    for module in (pair.model.model.language_model, pair.model.get_decoder()):
        with pytest.raises(RuntimeError, match="not its inner modules"):
            module(input_ids=ids)


def test_guidance_raises(pair):
    batch = batch_of(pair, (Turn(5),))
    negative = {"negative_prompt_ids": batch.ids}
    for more in ({}, negative):
        with pytest.raises(ValueError, match="guidance"):
            pair.model.generate(**batch.inputs, **STEPS, guidance_scale=1.5, **more)
    config = transformers.GenerationConfig(**STEPS, guidance_scale=1.5)
    with pytest.raises(ValueError, match="guidance"):
        pair.model.generate(**batch.inputs, generation_config=config)


def test_guidance_off_is_that_of_the_base(talkers):
    pair = talkers("llama")
    batch = batch_of(pair, (Turn(5),))
    options = {**STEPS, "guidance_scale": 1.5, "negative_prompt_ids": batch.ids}
    with pair.model.steering.off():
        got = pair.model.generate(**batch.inputs, **options)
    assert got.equal(pair.base.generate(**batch.inputs, **options))


@pytest.mark.parametrize(
    ("stated", "line"),
    [
        ([[3]], "a list of token positions.*for each of 2 rows"),
        ([3, 4], "a list of token positions.*for each of 2 rows"),
        (3, "a list of token positions.*for each of 2 rows"),
        ([[-1], [3]], "a list of token positions, counted from 0"),
        ([[True], [3]], "a list of token positions, counted from 0"),
        ([[2**63], [3]], "a list of token positions, counted from 0"),
        ([[3], [400]], "of row 1 name a token that the row does not have"),
        (torch.tensor([[-2], [3]]), "of row 0 name a token that the row does not have"),
    ],
)
def test_positions_that_do_not_fit_raise(pair, stated, line):
    batch = batch_of(pair, (Turn(5),), (Turn(3),))
    for call in (pair.model, pair.model.generate):
        with pytest.raises(ValueError, match=line):
            call(**batch.inputs, steering_positions=stated)


def test_a_cache_holds_what_was_steered_in_it(pair):
    """Positions behind the header of a cached turn can no longer be stated."""
    batch = batch_of(pair, (Turn(5),))
    cache = pair.model(**batch.inputs, use_cache=True).past_key_values
    more = batch.asked(Turn(3), 2)
    later = {"input_ids": more.ids[:, batch.ids.shape[1] :], "past_key_values": cache}
    with pytest.raises(ValueError, match="or that its cache holds unsteered"):
        pair.model(**later, steering_positions=[[2]])


def test_a_window_of_another_length_raises(pair):
    """As of a generate() whose forwards were given other columns than it planned."""
    batch = batch_of(pair, (Turn(5),))
    n = batch.ids.shape[1]

    def shorter(model, input_ids, **_):
        mask = torch.ones_like(input_ids)
        inputs = model.prepare_inputs_for_generation(input_ids, attention_mask=mask)
        model(**{**inputs, "input_ids": input_ids[:, 2:], "attention_mask": mask[:, 2:]})
        return input_ids

    with pytest.raises((RuntimeError, ValueError), match="steered checkpoint"):
        pair.model.generate(**batch.inputs, custom_generate=shorter)
    assert batch.ids[0, n - 1] == HEADER[-1]


def test_compiled_an_unknown_row_is_not_a_number(talkers):
    """A graph cannot raise; what would be unsteered in it cannot be used."""
    pair = talkers("llama")
    batch = beside(pair, "none")
    torch._dynamo.reset()
    compiled = torch.compile(pair.model, fullgraph=True, backend="aot_eager")
    logits = compiled(**batch.inputs, use_cache=False).logits
    assert logits[0, batch.padding[0] :].isfinite().all()
    assert logits[1, -1].isnan().all()


def test_a_turn_that_began_in_the_cache_needs_its_header(pair):
    """Of a conversation whose last user turn lies in the cache, without a generation prompt."""
    ids = batch_of(pair, (Turn(5, 3), Turn(4, header=()))).ids
    cut = ids.shape[1] - 2
    cache = pair.model(input_ids=ids[:, :cut], use_cache=True).past_key_values
    rest = {"attention_mask": torch.ones_like(ids), "past_key_values": cache, "max_new_tokens": 1}
    for given in (ids, ids[:, cut:]):
        with pytest.raises(ValueError, match=r"no assistant header .* in its last turn"):
            pair.model.generate(given, **rest)


def test_settings_of_a_config_count_as_arguments_do(pair):
    ids = batch_of(pair, (Turn(5),)).ids
    config = transformers.GenerationConfig(max_new_tokens=1)
    padded = torch.nn.functional.pad(ids, (0, 3), value=0)
    with pytest.raises(ValueError, match="pad on the left"):
        pair.model.generate(padded, config, pad_token_id=0)
    config.guidance_scale = 1.5
    with pytest.raises(ValueError, match="guidance_scale"):
        pair.model.generate(ids, config)


def test_a_cache_that_was_changed_elsewhere_raises(pair):
    ids = batch_of(pair, (Turn(5), Turn(3))).ids
    twice = ids.repeat(2, 1)
    line = "was changed since"

    def cache():
        return pair.model(input_ids=twice, use_cache=True).past_key_values

    pair.model(input_ids=twice[:, :1], past_key_values=copy.deepcopy(cache()))
    if pair.family.model_type != "gemma3":  # whose layers all slide here: they keep few keys
        moved, refilled, cropped = cache(), cache(), cache()
        moved.reorder_cache(torch.tensor([1, 0]))
        with pytest.raises(ValueError, match=line):
            pair.model(input_ids=twice[:, :1], past_key_values=moved)
        refilled.crop(-3)
        pair.base(input_ids=twice[:, -3:], past_key_values=refilled)
        with pytest.raises(ValueError, match=line):
            pair.model(input_ids=twice[:, :1], past_key_values=refilled)
        cropped.crop(-3)
        for same in (copy.deepcopy(cropped), cropped):
            pair.model(input_ids=twice[:, :1], past_key_values=same)
        config = pair.base.config.get_text_config()
        static = transformers.StaticCache(config=config, max_cache_len=64)
        pair.model(input_ids=twice, past_key_values=static)
        pair.model(input_ids=twice[:, :1], past_key_values=copy.deepcopy(static))
        static.reset()
        pair.base(input_ids=twice, past_key_values=static)
        with pytest.raises(ValueError, match=line):
            pair.model(input_ids=twice[:, :1], past_key_values=static)


def test_a_dense_mask_tells_padding_and_requests_apart(pair):
    left = batch_of(pair, (Turn(3),), (Turn(6),))
    n = left.ids.shape[1]
    causal = torch.ones(n, n).tril().bool()
    real = left.inputs["attention_mask"].bool()
    dense = causal[None, None] & real[:, None, None]
    pair.model(**left.inputs)
    want = told(pair.model)
    inputs = {**left.inputs, "attention_mask": dense | ~real[:, None, :, None]}
    pair.model(**inputs)
    assert [[s[:2] for s in row] for row in told(pair.model)] == [
        [s[:2] for s in row] for row in want
    ]
    ids = batch_of(pair, (Turn(5), Turn(3))).ids
    packed = torch.cat([ids, torch.tensor([random_ids(5, 3)])], 1)
    n, m = ids.shape[1], packed.shape[1]
    blocks = torch.block_diag(torch.ones(n, n), torch.ones(m - n, m - n)).tril().bool()
    with pytest.raises(ValueError, match="packs"):
        pair.model(input_ids=packed, attention_mask=blocks[None, None], use_cache=False)


def test_padding_within_a_header_does_not_hide_it(pair):
    """Rows of a batch that go on at different lengths, their header cut by a cache."""
    forget(pair.model)
    first = torch.tensor([[1, *random_ids(5, 1), *HEADER[:-1]]] * 2)
    cache = pair.model(input_ids=first, steering_positions=[[], []]).past_key_values
    later = torch.tensor([[0, HEADER[-1]], [HEADER[-1], 9]])
    mask = torch.ones(2, first.shape[1] + 2, dtype=torch.long)
    mask[0, first.shape[1]] = 0
    pair.model(input_ids=later, attention_mask=mask, past_key_values=cache)
    end = first.shape[1]
    assert [[s[0] for s in row] for row in told(pair.model)] == [[end], [end]]


def test_a_packed_request_is_not_known_by_the_cache_of_another(pair):
    ids = batch_of(pair, (Turn(5),)).ids
    cache = pair.model(input_ids=ids).past_key_values
    more = torch.tensor([random_ids(6, 2)])
    position = torch.cat([torch.arange(3) + ids.shape[1], torch.arange(3)])[None]
    with pytest.raises(ValueError, match="packs"):
        pair.model(input_ids=more, position_ids=position, past_key_values=cache)


def test_stated_positions_in_a_graph_are_checked_by_its_numbers(talkers):
    pair = talkers("llama")
    ids = batch_of(pair, (Turn(5),)).ids
    model = torch.compile(copy.deepcopy(pair.model), backend="eager", fullgraph=True)
    want = pair.model(input_ids=ids, use_cache=False).logits
    last = ids.shape[1] - 1
    for stated in ([[last]], torch.tensor([[last, -1]])):
        got = model(input_ids=ids, use_cache=False, steering_positions=stated).logits
        torch.testing.assert_close(got, want)
    wrong = model(input_ids=ids, use_cache=False, steering_positions=torch.tensor([[99, -1]]))
    assert wrong.logits.isnan().all()
