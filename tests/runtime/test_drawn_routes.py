"""Drawn conversations, run in drawn ways, against the base with two hooks set by hand.

A test knows where it put each header, so it needs none of the package's code to say what is to be
steered. `MARS_DRAWN_ROUTES=2000` draws as many examples for each kind of model as that.
"""

import os

import pytest
import torch
from hypothesis import HealthCheck, assume, event, given, note, reject, settings

from support.routes import (
    OPTIONS,
    applicable,
    follows_from_the_tokens,
    has_visuals,
    laid_out,
    losses,
    lost_call,
    plain,
    score,
    scores,
    talk,
    talks,
)
from support.sides import Native, RefusedError, Steered, check_same, forget

KINDS = {
    "llama": (),
    "gemma3_text": (),
    "gemma3": ("image",),
    "qwen3_vl": ("image", "video"),
}
EXAMPLES = int(os.environ.get("MARS_DRAWN_ROUTES", "20"))
drawn = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
each_kind = pytest.mark.parametrize("kind", list(KINDS))


def both(talkers, kind):
    pair = talkers(kind)
    return Native(pair), Steered(pair)


@each_kind
def test_answers_are_steered_at_every_header_and_nowhere_else(talkers, kind):
    @drawn
    @given(talks(KINDS[kind]))
    def check(case):
        assume(applicable(case))
        note(f"route: {case}")
        native, steered = both(talkers, kind)
        try:
            want = talk(native, case)
        except RefusedError as error:
            event(f"refused by the base: {error}")
            return
        got = talk(steered, case)
        check_same(steered, native)
        assert got.equal(want)
        if follows_from_the_tokens(kind, case):
            assert got.equal(talk(Native(talkers(kind)), plain(case)))

    check()


@each_kind
def test_scored_conversations_are_steered_at_every_header_and_nowhere_else(talkers, kind):
    @drawn
    @given(scores(KINDS[kind]))
    def check(case):
        assume(case.route != "embeddings" or not has_visuals(case.rows))
        note(f"route: {case}")
        native, steered = both(talkers, kind)
        try:
            score(native, case)
        except RefusedError as error:
            event(f"refused by the base: {error}")
            return
        score(steered, case)
        check_same(steered, native)

    check()


@each_kind
def test_what_is_unknown_raises_whatever_the_route(talkers, kind):
    pair = talkers(kind)

    @drawn
    @given(losses(KINDS[kind]))
    def check(case):
        text_only = case.route in {"chunks of 1", "chunks of 3", "embeddings"}
        assume(not (text_only and has_visuals(case.rows)))
        assume(case.route != "looked up" or len(case.rows) == 1)
        note(f"route: {case}")
        batch = laid_out(kind, case.whole)
        generates = case.route in OPTIONS and case.route != "embeddings"
        in_earlier_turn = all(row.ends for row in batch.rows)
        assume(generates or not in_earlier_turn)
        call = lost_call(pair, batch, case.route)
        forget(pair.base, pair.model)
        with pytest.raises(ValueError, match=r"steered checkpoint: row \d .*no assistant header"):
            call(pair.model)
        forget(pair.base, pair.model)
        try:
            want = call(pair.base)
        except (ValueError, RuntimeError):
            # It has written a placeholder, which it cannot read again; or the oldest Transformers
            # cannot prefill this model in chunks.
            reject()
        forget(pair.base, pair.model)
        with pair.model.steering.off():
            assert call(pair.model).equal(want)
        forget(pair.base, pair.model)
        nothing = [[]] if case.route == "packed" else [[] for _ in batch.rows]
        stated = call(pair.model, steering_positions=nothing)
        torch.testing.assert_close(stated, want, rtol=1e-5, atol=1e-5)

    check()
