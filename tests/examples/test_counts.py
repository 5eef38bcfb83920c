"""Counts add up, and bounds hold what they promise."""

import pytest
from answers import Answer
from conditions import CONDITIONS
from counts import GOAL, LIMIT, counted, parts, pooled
from hypothesis import given, settings
from hypothesis import strategies as st

VERDICTS = ("refusal", "rebuttal", "answer", "degenerate", "unknown")
CASES = st.tuples(
    st.sampled_from(("text", "picture")), st.integers(0, 3), st.integers(0, 1), st.booleans(),
    st.sampled_from(VERDICTS), st.lists(st.sampled_from(VERDICTS), min_size=2, max_size=2),
)  # fmt: skip


def response(condition, id, topic, harmful, verdict):
    return Answer(
        condition=condition, id=id, topic=topic, harmful=harmful, verdict=verdict, text=verdict,
        log_odds=0.0,
    )  # fmt: skip


def runs_of(cases):
    """Answers off, and of two runs on."""
    off, on = {}, ({}, {})
    for condition, topic, number, harmful, before, after in cases:
        key = (condition, f"{topic}-{number}-{harmful}", f"{topic}", harmful)
        answers = [response(*key, verdict) for verdict in (before, *after)]
        off[answers[0].key] = answers[0]
        for run, later in zip(on, answers[1:], strict=True):
            run[later.key] = later
    return [counted(off, run) for run in on]


@settings(deadline=None)
@given(st.lists(CASES, min_size=1, max_size=12))
def test_counts_add_up(cases):
    runs = runs_of(cases)
    single = [part for n, both in enumerate(runs) for part in parts(str(n), both)]
    assert sum(part.n for part in single) == sum(map(len, runs))
    rows = pooled(runs)
    for part in single:
        assert part.on == part.off + part.gained - part.lost
        assert part.gained <= part.at_risk
        assert part.lost <= part.off
    for row in rows:
        mine = [p for p in single if (p.condition, p.harmful) == (row.condition, row.harmful)]
        for name in ("n", "off", "on", "gained", "lost", "unclear_off", "unclear_on"):
            assert getattr(row, name) == sum(getattr(part, name) for part in mine)
        for name in ("n", "gained", "lost"):
            assert getattr(row, name) == sum(getattr(topic, name) for topic in row.topics)
        assert sum(topic.at_risk for topic in row.topics) == row.n - row.off
        assert row.requests * 2 == row.n
        assert row.rise.value == pytest.approx((row.on - row.off) / row.n)
        assert row.rise.low <= row.rise.value <= row.rise.high
        if row.new:
            assert row.new.low <= row.new.value <= row.new.high
            assert row.new.value == row.gained / (row.n - row.off)


def planted(condition, harmful, changes, topics=60):
    """Answers of a planted judge: verdict off and on of one request of each topic."""
    cases = [
        (condition, topic, 0, harmful, *changes.get(topic, ("answer", ["answer", "answer"])))
        for topic in range(topics)
    ]
    (row,) = pooled(runs_of(cases))
    return row


def test_verdicts_follow_the_goals():
    newly = ("answer", ["refusal", "rebuttal"])
    assert planted("text", False, {}).verdict == "met"
    few = planted("text", False, {1: newly}, topics=120)
    assert few.gained == 2
    assert few.new.value <= GOAL
    assert few.new.high <= LIMIT
    assert few.verdict == "met"
    assert planted("text", False, {1: newly}, topics=40).verdict == "not shown"
    assert planted("text", False, dict.fromkeys(range(6), newly)).verdict == "missed"
    refused = ("refusal", ["refusal", "refusal"])
    assert planted("text", False, {0: refused, 1: refused}, 2).verdict == "nothing at risk"
    assert planted("text", True, {0: refused}).verdict == "met"
    lost = planted("text", True, {0: ("refusal", ["refusal", "unknown"])})
    assert (lost.verdict, lost.lost) == ("missed", 1)
    assert planted("picture", True, {0: refused}).verdict == ""


def test_what_the_base_refuses_is_not_at_risk():
    row = planted("text", False, {0: ("rebuttal", ["refusal", "refusal"])})
    assert (row.gained, row.off, row.topics[0].at_risk) == (0, 2, 0)


def test_different_requests_are_not_compared():
    off = response("text", "a", "a", False, "answer")
    other = response("text", "b", "b", False, "answer")
    with pytest.raises(ValueError, match="different requests"):
        counted({off.key: off}, {other.key: other})


def test_tables_name_every_condition_once():
    from tables import dots, harmful_table, harmless_table, summary

    rows = [planted(name, harmful, {0: ("answer", ["refusal", "answer"])}, 3)
            for name in ("text", "picture") for harmful in (False, True)]  # fmt: skip
    assert harmless_table(rows, []).count("\n") == harmful_table(rows).count("\n") == 4
    assert summary(rows).startswith("1 of 3 goals reached.")
    assert len(dots(rows, [], "title", "subtitle").axes) == 2
    assert {row.condition for row in rows} <= {c.name for c in CONDITIONS}
