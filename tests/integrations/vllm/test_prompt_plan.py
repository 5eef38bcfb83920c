"""The plan of a packed request is that of generate(), whatever pieces it is computed in."""

import inspect
from types import SimpleNamespace

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_export.integrations.vllm.prompt_plan import (
    UNKNOWN,
    Piece,
    Placeholder,
    Plans,
    prompt_plan,
    visual_columns,
)
from support import tiny
from support.tiny import AUDIO, HEADER, HEADERS, IMAGE, TURN_STARTS, VIDEO, random_ids

VISUAL = {"image": Placeholder(IMAGE, 1), "video": Placeholder(VIDEO, 2)}
MODALITIES = ["text", "image", "video", "audio"]
RULES = {"headers": HEADERS, "turn_starts": TURN_STARTS, "modalities": MODALITIES}


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def model(request, tmp_path_factory):
    _, directory = tiny.export(request.param, tmp_path_factory.mktemp(request.param))
    auto = transformers.AutoModelForImageTextToText
    return auto.from_pretrained(directory, trust_remote_code=True).eval()


def prompts():
    """One turn of each modality, three turns with a picture in the second, an answer begun."""
    turns = [*tiny.prompt(random_ids(5)), *tiny.prompt(random_ids(3), "image")[1:]]
    return [
        tiny.prompt(random_ids(6)),
        tiny.prompt(random_ids(4), "image"),
        tiny.prompt(random_ids(4), "video"),
        [*turns, *random_ids(4), *HEADER],
        [*tiny.prompt(random_ids(4)), 7, 8],
    ]


@pytest.mark.parametrize("case", range(5))
def test_a_prompt_is_steered_where_generate_steers_it(model, case):
    tokens = prompts()[case]
    rules = model.config.steering
    visual = {
        name: Placeholder(getattr(model.config, attribute), rules["modalities"].index(name))
        for name, attribute in rules["placeholders"].items()
    }
    if VIDEO in tokens and "video" not in visual:
        return
    ids = torch.tensor([tokens])
    types = sum((ids == token) * index for token, index in visual.values())
    inputs = {"input_ids": ids, "mm_token_type_ids": types}
    want = model.steering.plan(model, inputs, None, drafts=False).history
    plan = prompt_plan(tokens, rules, visual)
    assert plan.tokens.tolist() == tokens
    assert plan.steered.equal(want.steered[0])
    assert plan.context.equal(want.context[0])


@pytest.mark.parametrize(
    "tokens",
    [[], random_ids(3), HEADER[:-1], [*HEADER, 7, *TURN_STARTS[0], 8], [*HEADER, *TURN_STARTS[0]]],
)
def test_a_prompt_without_a_known_beginning_of_its_answer_has_no_plan(tokens):
    with pytest.raises(ValueError, match="where its answer begins is unknown"):
        prompt_plan(tokens, RULES, {})
    plan = prompt_plan([*tokens, *HEADER, 9], RULES, {})
    assert plan.steered[-2:].tolist() == [True, False]


def test_a_compiler_binds_arguments_to_the_code_that_runs(model):
    forward = type(model).forward
    bound = inspect.signature(forward, follow_wrapped=False).parameters
    assert list(bound) == ["self", "args", "kwargs"]
    assert {"steering_positions", "input_ids"} < set(inspect.signature(forward).parameters)


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_pieces_of_many_requests_make_up_their_plans(data):
    plans, wanted, left = Plans(), {}, {}
    for number, tokens in enumerate(prompts()):
        plan = prompt_plan(tokens, RULES, VISUAL)
        plans.begin(str(number), plan)
        answered = len(tokens) + 3
        wanted[str(number)] = plan
        left[str(number)] = data.draw(st.integers(0, len(tokens) - 1)), answered
    seen = {name: [] for name in wanted}
    start_of = {name: start for name, (start, _) in left.items()}
    while left:
        order = data.draw(st.permutations(sorted(left)))
        pieces = []
        for name in order[: data.draw(st.integers(1, len(order)))]:
            start, stop = left[name]
            count = data.draw(st.integers(1, stop - start))
            pieces.append(Piece(name, start, start + count))
            left[name] = start + count, stop
        pack, at = plans.pack(pieces), 0
        for name, start, stop in pieces:
            count = stop - start
            assert pack.position[at : at + count].tolist() == list(range(start, stop))
            columns = zip(*(part[at : at + count].tolist() for part in pack[:3]), strict=True)
            seen[name] += columns
            at += count
        left = {name: (start, stop) for name, (start, stop) in left.items() if start < stop}
    for name, plan in wanted.items():
        whole = list(zip(*(part.tolist() for part in plan), strict=True))
        richest = plan.context[-1].tolist()
        assert seen[name] == whole[start_of[name] :] + [(UNKNOWN, richest, False)] * 3


def test_what_the_engine_says_of_a_picture_counts_beside_the_tokens():
    tokens = [1, 5, 6, *HEADER]
    shown = [("image", torch.tensor([1]))]
    plan = prompt_plan(tokens, RULES, VISUAL, shown)
    assert plan.context[:, 0].tolist() == [0, *[1] * 5]
    assert not prompt_plan(tokens, RULES, {}, shown).context[:, :2].any()


@pytest.mark.parametrize("pictures", [1, 4])
def test_delimiters_of_a_picture_are_no_visual_tokens(pictures):
    """As line breaks and the start token of Gemma 3, which vLLM counts to a picture's place."""
    picture = [8, 9, *[IMAGE] * 4, 10, 8]
    tokens = [1, *picture * pictures, 5, *HEADER]
    inside = torch.tensor([token == IMAGE for token in picture])
    places = [
        SimpleNamespace(offset=1 + k * len(picture), length=len(picture), is_embed=inside)
        for k in range(pictures)
    ]
    told = prompt_plan(tokens, RULES, VISUAL, [("image", visual_columns(p)) for p in places])
    assert told.context.equal(prompt_plan(tokens, RULES, VISUAL).context)
    assert told.context[-1].tolist() == [1, 4 * pictures, 0]


def test_a_place_without_delimiters_is_visual_altogether():
    place = SimpleNamespace(offset=2, length=3, is_embed=None)
    assert visual_columns(place).tolist() == [2, 3, 4]


def test_what_was_not_announced_is_not_computed():
    plans = Plans()
    with pytest.raises(RuntimeError, match="without having told its prompt"):
        plans.pack([Piece("a", 0, 1)])
    plans.begin("a", prompt_plan([1, *HEADER], RULES, {}))
    plans.end(["a", "b"])
    with pytest.raises(RuntimeError, match="without having told its prompt"):
        plans.pack([Piece("a", 0, 1)])


def test_sounds_beside_pictures_have_no_plan():
    shown = {"image": Placeholder(IMAGE, 1), "audio": Placeholder(AUDIO, 3)}
    for first, second in ((IMAGE, AUDIO), (AUDIO, IMAGE)):
        tokens = [1, first, first, *random_ids(3), second, *HEADER]
        with pytest.raises(ValueError, match="audio beside pictures or clips"):
            prompt_plan(tokens, RULES, shown)
    alone = prompt_plan([1, AUDIO, AUDIO, *random_ids(3), *HEADER], RULES, shown)
    assert alone.context[-1, :2].tolist() == [3, 2]


def test_a_picture_behind_the_last_header_has_no_plan():
    with pytest.raises(ValueError, match="row 0 shows a picture, clip or sound behind its last"):
        prompt_plan([1, 5, *HEADER, IMAGE, 6], RULES, VISUAL)
