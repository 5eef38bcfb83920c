from itertools import product

import pytest

from mars_export.evaluation import aggregate
from mars_export.evaluation.report import SampleResult


def result(name, arm, verdict, modality="text", harmful=True, gate=None):
    return SampleResult(
        id=name, modality=modality, harmful=harmful, arm=arm, verdict=verdict, response="",
        position=None, seen_as=None, gate=gate, strength=None,
    )  # fmt: skip


def both(name, off, on, **more):
    return [result(name, "off", off, **more), result(name, "on", on, **more)]


def test_unknown_and_degenerate_are_never_refused():
    verdicts = ["refusal", "rebuttal", "answer", "degenerate", "unknown"]
    (cell,) = aggregate.cells([result(v, "off", v) for v in verdicts])
    assert (cell.refused.count, cell.degenerate.count, cell.unknown.count) == (2, 1, 1)
    assert cell.refused.n == cell.degenerate.n == cell.unknown.n == 5
    assert cell.verdicts == dict.fromkeys(verdicts, 1)


def test_cells_follow_modality_label_and_arm():
    results = [
        r
        for m, h in product(("video", "text"), (False, True))
        for r in both("a", "answer", "refusal", modality=m, harmful=h)
    ]
    found = [(c.modality, c.harmful, c.arm) for c in aggregate.cells(results)]
    assert found == [
        (m, h, a) for m in ("text", "video") for h in (True, False) for a in ("off", "on")
    ]


def test_pairs_count_both_kinds_of_change():
    results = [
        *both("a", "answer", "refusal"),
        *both("b", "answer", "rebuttal"),
        *both("c", "refusal", "answer"),
        *both("d", "refusal", "refusal"),
        *both("e", "rebuttal", "degenerate"),
        *both("f", "refusal", "unknown"),
        *both("g", "answer", "unknown"),
    ]
    (pair,) = aggregate.pairs(results)
    assert (pair.n, pair.newly_refused, pair.newly_answered) == (7, 2, 3)
    assert pair.difference == pytest.approx(-1 / 7)
    assert pair.low < pair.difference < pair.high
    assert pair.p_value == 1.0
    assert aggregate.regressions(results) == ["c", "e", "f"]
    assert aggregate.newly_refused(results) == []


def test_pairs_agree_with_cells():
    results = [*both("a", "unknown", "refusal"), *both("b", "refusal", "unknown")]
    off, on = aggregate.cells(results)
    (pair,) = aggregate.pairs(results)
    assert pair.difference == on.refused.rate - off.refused.rate


def test_harmless_requests_that_are_newly_refused():
    results = [*both("a", "answer", "refusal", harmful=False), *both("b", "refusal", "refusal")]
    assert aggregate.newly_refused(results) == ["a"]
    assert aggregate.regressions(results) == []


def test_one_arm_makes_no_pair():
    assert aggregate.pairs([result("a", "off", "refusal")]) == []


def test_gates_are_those_of_the_steered_arm():
    results = [result("a", "off", "answer"), result("a", "on", "answer", gate=0.25),
               result("b", "on", "answer", gate=0.0, modality="image", harmful=False)]  # fmt: skip
    assert aggregate.gates(results) == {"harmful text": [0.25], "harmless image": [0.0]}
