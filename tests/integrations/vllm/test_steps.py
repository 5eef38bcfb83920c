"""What is steered is what the plan says, also where a captured graph is replayed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mars_export.integrations.vllm.prompt_plan import Piece, Placeholder, Plans, prompt_plan
from mars_export.integrations.vllm.steps import Steps
from support.tiny import HEADER, HEADERS, IMAGE, TURN_STARTS, prompt, random_ids

RULES = {"headers": HEADERS, "turn_starts": TURN_STARTS, "modalities": ["text", "image"]}
PROMPTS = [
    prompt(random_ids(3)),
    prompt(random_ids(2), "image"),
    [*prompt(random_ids(2)), 7, *TURN_STARTS[0], 8, *HEADER],
    [*HEADER, 7, 8],
]
SIZE, ANSWER, PAD = 16, 4, 4


class GraphWrapper:
    """As vLLM's: captures a row of each length once, then repeats what was captured.

    Of a repeated run, nothing but the tensors that were captured is read; no Python is called.
    """

    def __init__(self, model):
        self.model, self.graphs, self.replays = model, {}, 0

    def __call__(self, length):
        if length not in self.graphs:
            self.graphs[length] = self.model.captured(length)
        else:
            self.replays += 1
        read = self.graphs[length]
        return [(bool(s), tuple(c.tolist())) for s, c in zip(*read, strict=True)]


class Model:
    """Says of each column whether it is steered, and as what."""

    def __init__(self, steps):
        self.steps = steps

    def captured(self, length):
        window = self.steps.window(length)
        return window.steered[0], window.context[0]


class Runner:
    """As vLLM's: pieces become a row, padded to a length that was captured."""

    def __init__(self, capture_first):
        self.plans = Plans()
        self.steps = Steps(self.plans, SIZE)
        self.model = GraphWrapper(Model(self.steps))
        for length in range(PAD, SIZE + 1, PAD) if capture_first else ():
            assert not any(steered for steered, _ in self.model(length))

    def run(self, pieces, tokens_of, forward=None):
        row = [token for p in pieces for token in (tokens_of(p) + [0] * ANSWER)[: p.stop - p.start]]
        packed = torch.tensor(row + [0] * (SIZE - len(row)), dtype=torch.int32)
        with self.steps.step(sorted(pieces)):
            self.steps.fill([p.request for p in pieces], packed)
            return (forward or self.model)(-(-len(row) // PAD) * PAD)

    def is_quiet(self):
        return not any(column.any() for column in self.steps._columns.values())


@given(st.booleans(), st.data())
def test_any_schedule_steers_what_the_plans_say(capture_first, data):
    runner = Runner(capture_first)
    plans = {
        str(n): prompt_plan(p, RULES, {"image": Placeholder(IMAGE, 1)})
        for n, p in enumerate(PROMPTS)
    }
    for name, plan in plans.items():
        runner.plans.begin(name, plan)
    done, seen = dict.fromkeys(plans, 0), {name: [] for name in plans}
    end = {name: len(plan.tokens) + ANSWER for name, plan in plans.items()}
    while left := [name for name in plans if done[name] < end[name]]:
        order = data.draw(st.permutations(left))[: data.draw(st.integers(1, len(left)))]
        # Steps of one token each look like answers, wherever in its prompt a request is.
        most = data.draw(st.sampled_from([1, 1, SIZE // len(order)]))
        pieces = []
        for name in order:
            stop = min(end[name], done[name] + data.draw(st.integers(1, most)))
            pieces.append(Piece(name, done[name], stop))
        said = runner.run(pieces, lambda p: PROMPTS[int(p.request)][p.start : p.stop])
        for name, start, stop in pieces:
            seen[name] += said[: stop - start]
            said = said[stop - start :]
            done[name] = stop
        assert not any(steered for steered, _ in said)  # padding
        assert runner.is_quiet()
    for name, plan in plans.items():
        n = len(plan.tokens)
        assert [steered for steered, _ in seen[name]] == [*plan.steered.tolist(), *[False] * ANSWER]
        steered = plan.steered.nonzero().flatten().tolist()
        assert [seen[name][at][1] for at in steered] == [
            tuple(c) for c in plan.context[steered].tolist()
        ]
        assert len(seen[name]) == n + ANSWER


@pytest.fixture
def runner():
    made = Runner(capture_first=True)
    made.plans.begin("a", prompt_plan(PROMPTS[0], RULES, {}))
    return made


def tokens(piece):
    return PROMPTS[0][piece.start : piece.stop]


def test_a_last_header_token_alone_is_replayed_and_steered(runner):
    n = len(PROMPTS[0])
    runner.run([Piece("a", 0, n - 1)], tokens)
    replays = runner.model.replays
    assert runner.run([Piece("a", n - 1, n)], tokens)[0][0]
    assert not any(steered for steered, _ in runner.run([Piece("a", n, n + 1)], tokens))
    assert runner.model.replays == replays + 2


def test_a_step_that_nobody_asked_about_steers_nothing_and_is_noticed(runner):
    with pytest.raises(RuntimeError, match="without asking what to steer"):  # noqa: SIM117
        with runner.steps.step([Piece("a", 0, 4)]):
            assert not any(steered for steered, _ in runner.model(PAD))
    with runner.steps.step([]):  # nothing was scheduled
        pass


def test_a_step_that_fails_leaves_nothing_behind(runner):
    def fails(_length):
        assert not runner.is_quiet()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        runner.run([Piece("a", 0, len(PROMPTS[0]))], tokens, fails)
    assert runner.is_quiet()
    assert runner.steps.pieces == []


def test_an_evaluation_without_steering_steers_nothing(runner):
    n = len(PROMPTS[0])
    with runner.steps.step([Piece("a", 0, n)]):
        runner.steps.fill(["a"], torch.tensor(PROMPTS[0]), steering=False)
        assert not runner.steps.window(n).steered.any()
    assert runner.is_quiet()


def test_what_was_not_scheduled_is_refused(runner):
    packed = torch.tensor(PROMPTS[0])
    piece = Piece("a", 0, len(packed))
    wrong = {
        "other requests": (["b"], packed),
        "other tokens": (["a"], packed + 1),
        "other tokens than": (["a"], packed[:-1]),
    }
    for sentence, asked in wrong.items():
        with pytest.raises(RuntimeError, match=sentence), runner.steps.step([piece]):
            runner.steps.fill(*asked)
        assert runner.is_quiet()
    with runner.steps.step([piece]):
        runner.steps.fill(["a"], packed)
        with pytest.raises(RuntimeError, match="several forwards"):
            runner.steps.fill(["a"], packed)
        with pytest.raises(RuntimeError, match="leaves out tokens"):
            runner.steps.window(2)
    with pytest.raises(RuntimeError, match="without having told its prompt"):  # noqa: SIM117
        with runner.steps.step([Piece("b", 3, 4)]):
            runner.steps.fill(["b"], packed)
    assert runner.is_quiet()
