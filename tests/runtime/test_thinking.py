"""Templates with a thinking mode: each turn is steered once, at the end of the shared header."""

import pytest
import torch
from transformers import LogitsProcessor

from mars_export.inputs.template import turn_tokens
from support import tiny
from support.behavior import Pair
from support.conversations import places
from support.oracle import oracle_generate, same_told, told
from support.thinking import MODES, TEMPLATES, tokenizer

GREEDY = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
TURNS = [("user", "word1 word2"), ("assistant", "word10 word3"), ("user", "word4")]
TURNS += [("assistant", "word11"), ("user", "word5 word6 word7")]
HEADERS = {
    "qwen3": ["<|im_start|> assistant n"],
    "qwen3_5": ["<|im_start|> assistant n"],
    "glm46v": ["<|assistant|> n"],
}
pytestmark = pytest.mark.mode("thinking templates")

each_template = pytest.mark.parametrize("model_type", list(TEMPLATES))
each_mode = pytest.mark.parametrize("mode", MODES, ids=["default", "on", "off"])


@pytest.fixture(scope="module")
def thinkers(tmp_path_factory):
    """Base and steered model with the headers of its own template."""
    made = {}

    def get(model_type):
        if model_type not in made:
            turns = turn_tokens(tokenizer(model_type))
            folder = tmp_path_factory.mktemp(model_type)
            made[model_type] = Pair.make(model_type, folder, **turns._asdict())
        return made[model_type]

    return get


def prompt(model_type, turns, mode, **options):
    messages = [{"role": role, "content": content} for role, content in turns]
    words = tokenizer(model_type)
    options = {"add_generation_prompt": True, **options}
    text = words.apply_chat_template(messages, tokenize=False, **options, **mode)
    return torch.tensor([words.encode(text, add_special_tokens=False)])


def starts(model_type, ids):
    """Columns of the line feeds behind the assistant's role, found without any header."""
    role = "<|assistant|>" if model_type == "glm46v" else "assistant"
    hits = ids[0] == tokenizer(model_type).convert_tokens_to_ids(role)
    return (hits.nonzero()[:, 0] + 1).tolist()


@each_template
def test_headers_are_read_off_the_template(model_type):
    words = tokenizer(model_type)
    headers = [[*header.prefix, header.ends[0]] for header in turn_tokens(words).headers]
    names = [words.convert_ids_to_tokens(header) for header in headers]
    shown = [" ".join(name.replace("\n", "n") for name in header) for header in names]
    assert shown == HEADERS[model_type]


@each_template
@each_mode
def test_every_turn_is_steered_once_where_it_begins(thinkers, model_type, mode):
    pair = thinkers(model_type)
    ids = prompt(model_type, TURNS, mode)
    columns = starts(model_type, ids)
    where = places(ids, [columns])
    batch = pair.whole(ids)
    want, steered = oracle_generate(pair.base, pair.record, pair.direction, batch, where, **GREEDY)
    assert [place[0] for place in steered[0]] == columns
    assert pair.model.generate(**batch, **GREEDY).equal(want)
    assert same_told(told(pair.model), steered)
    scored = pair.model(**pair.whole(want)).logits
    scored[..., tiny.TEXT["eos_token_id"]] = -torch.inf  # as `min_new_tokens` has it
    assert scored[0, ids.shape[1] - 1 : -1].argmax(-1).equal(want[0, ids.shape[1] :])
    assert same_told(told(pair.model), steered)


@each_template
def test_a_header_that_is_cut_into_chunks_is_steered_once(thinkers, model_type):
    pair = thinkers(model_type)
    batch = pair.whole(prompt(model_type, TURNS, {"enable_thinking": False}))
    options = {**GREEDY, "prefill_chunk_size": 3}
    try:
        pair.base.generate(**batch, **options)
    except RuntimeError as error:  # rotary embeddings of several axes in Transformers 5.16
        pytest.skip(f"this Transformers cannot prefill the base in chunks: {error}")
    want = pair.model.generate(**batch, **GREEDY)
    places = told(pair.model)
    assert pair.model.generate(**batch, **options).equal(want)
    assert same_told(told(pair.model), places)


@each_template
@each_mode
def test_embeddings_are_steered_as_their_tokens(thinkers, model_type, mode):
    pair = thinkers(model_type)
    batch = pair.whole(prompt(model_type, TURNS, mode))
    pair.model(**batch)
    places = told(pair.model)
    batch["inputs_embeds"] = pair.model.get_input_embeddings()(batch.pop("input_ids"))
    pair.model(**batch)
    assert same_told(told(pair.model), places)


class Says(LogitsProcessor):
    """Makes the model say these tokens."""

    def __init__(self, tokens):
        self.tokens = iter(tokens)

    def __call__(self, input_ids, scores):
        forced = torch.full_like(scores, -torch.inf)
        forced[:, next(self.tokens)] = 0
        return forced


def answered(pair, ids, text, **options):
    words = tokenizer(pair.family.model_type)
    tokens = words.encode(text, add_special_tokens=False)
    return pair.model.generate(
        **pair.whole(ids), do_sample=False, max_new_tokens=len(tokens),
        logits_processor=[Says(tokens)], return_dict_in_generate=True, **options,
    )  # fmt: skip


@each_template
@each_mode
def test_a_cached_turn_is_answered_as_a_refilled_one(thinkers, model_type, mode):
    pair = thinkers(model_type)
    out = answered(pair, prompt(model_type, TURNS[:1], mode), "word10 word3 <eos>")
    more = prompt(model_type, TURNS[2:3], mode)
    whole = pair.whole(torch.cat([out.sequences, more], 1))
    want = pair.model.generate(**whole, **GREEDY)
    places = told(pair.model)
    got = pair.model.generate(**whole, **GREEDY, past_key_values=out.past_key_values)
    assert got.equal(want)
    assert same_told(told(pair.model), [places[0][1:]])


@pytest.mark.parametrize(
    ("model_type", "thought"),
    [("qwen3", "<think>\n\n</think>\n\nword10 word3"), ("glm46v", "<think></think>\nword10 word3")],
)
def test_a_thought_that_the_model_closed_itself_changes_no_position(thinkers, model_type, thought):
    pair = thinkers(model_type)
    out = answered(pair, prompt(model_type, TURNS[:1], {}), thought)
    whole = pair.whole(torch.cat([out.sequences, prompt(model_type, TURNS[2:3], {})], 1))
    want = pair.model.generate(**whole, **GREEDY)
    places = told(pair.model)
    assert len(places[0]) == 2
    got = pair.model.generate(**whole, **GREEDY, past_key_values=out.past_key_values)
    assert got.equal(want)
    assert same_told(told(pair.model), [places[0][1:]])


@each_template
def test_a_generation_prompt_in_two_forwards_is_steered_once(thinkers, model_type):
    pair = thinkers(model_type)
    ids = prompt(model_type, TURNS, {"enable_thinking": False})
    columns = starts(model_type, ids)
    for back in range(1, ids.shape[1] - columns[-1] + 3):
        out = pair.model(input_ids=ids[:, :-back], use_cache=True)
        assert [place[0] for place in told(pair.model)[0]] == [
            column for column in columns if column < ids.shape[1] - back
        ]
        pair.model(input_ids=ids[:, -back:], past_key_values=out.past_key_values)
        assert [place[0] for place in told(pair.model)[0]] == columns
