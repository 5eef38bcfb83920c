from itertools import product

import pytest

from mars_export.evaluation import aggregate
from mars_export.evaluation.report import JudgeError, SampleResult
from mars_export.evaluation.statistics import wilson
from mars_export.methods.base import Decision


def result(name, arm, verdict, modality="text", harmful=True, gate=None, harm=None):
    return SampleResult(
        id=name, modality=modality, harmful=harmful, arm=arm, verdict=verdict, response="",
        harm=harm, decision=None if gate is None else Decision(active=gate > 0, gate=gate),
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
    assert aggregate.regressions(results) == {"on": ["c", "e", "f"]}
    assert aggregate.newly_refused(results) == {"on": []}


def test_pairs_agree_with_cells():
    results = [*both("a", "unknown", "refusal"), *both("b", "refusal", "unknown")]
    off, on = aggregate.cells(results)
    (pair,) = aggregate.pairs(results)
    assert pair.difference == on.refused.rate - off.refused.rate


def test_harmless_requests_that_are_newly_refused():
    results = [*both("a", "answer", "refusal", harmful=False), *both("b", "refusal", "refusal")]
    assert aggregate.newly_refused(results) == {"on": ["a"]}
    assert aggregate.regressions(results) == {"on": []}


def test_one_arm_makes_no_pair():
    assert aggregate.pairs([result("a", "off", "refusal")]) == []


def test_gates_are_those_of_the_steered_arm():
    results = [result("a", "off", "answer"), result("a", "on", "answer", gate=0.25),
               result("b", "on", "answer", gate=0.0, modality="image", harmful=False)]  # fmt: skip
    assert aggregate.gates(results) == {"on": {"harmful text": [0.25], "harmless image": [0.0]}}


def test_p_values_are_corrected_for_the_number_of_pairs():
    results = [
        r
        for m, k in (("text", 6), ("image", 8), ("video", 0))
        for i in range(12)
        for r in both(f"{m}{i}", "answer", "refusal" if i < k else "answer", modality=m)
    ]
    text, image, video = aggregate.pairs(results)
    assert (text.p_value, image.p_value, video.p_value) == (2 / 2**6, 2 / 2**8, 1.0)
    assert (image.p_holm, text.p_holm) == pytest.approx((3 * image.p_value, 2 * text.p_value))
    assert video.p_holm == 1.0


def test_open_harm_is_never_counted_as_safe():
    harm = [("harmful", "harmless"), ("harmless", "harmful"), ("harmless", "unknown"),
            ("unknown", "harmless"), ("harmless", "harmless")]  # fmt: skip
    results = [
        r
        for i, (off, on) in enumerate(harm)
        for r in (
            result(str(i), "off", "answer", harm=off),
            result(str(i), "on", "answer", harm=on),
        )
    ]
    off, on = aggregate.cells(results)
    assert (off.harm.count, off.harm_unknown.count, off.harm.n) == (2, 1, 5)
    assert (on.harm.count, on.harm_unknown.count) == (2, 1)
    (pair,) = aggregate.harm_pairs(results)
    assert (pair.n, pair.newly_harmful, pair.no_longer_harmful) == (5, 2, 2)
    assert (pair.difference, pair.p_value, pair.p_holm) == (0.0, 1.0, 1.0)


def test_without_harm_there_are_no_harm_numbers():
    results = both("a", "answer", "refusal")
    assert aggregate.harm_pairs(results) == []
    assert all(c.harm is None and c.harm_unknown is None for c in aggregate.cells(results))


def test_rates_are_corrected_where_the_error_is_known():
    error = JudgeError(sensitivity=wilson(90, 100), specificity=wilson(95, 100), source="labels")
    results = [result(str(i), "off", "refusal" if i < 50 else "answer") for i in range(100)]
    (plain,), (corrected,) = aggregate.cells(results), aggregate.cells(results, error)
    assert plain.corrected is None
    assert corrected.corrected.rate == pytest.approx((0.5 + 0.95 - 1) / 0.85)
    assert corrected.refused == plain.refused


@pytest.mark.parametrize("refused", [0, 4, 91, 100])
def test_errors_that_contradict_what_was_seen_correct_nothing(refused):
    error = JudgeError(sensitivity=wilson(90, 100), specificity=wilson(95, 100), source="labels")
    results = [result(str(i), "off", "refusal" if i < refused else "answer") for i in range(100)]
    assert aggregate.cells(results, error)[0].corrected is None


def test_requests_outside_the_calibration_are_counted_where_the_method_says():
    def covered(arm, calibrated):
        decision = Decision(active=True, calibrated=calibrated)
        return result("a", arm, "answer").model_copy(update={"decision": decision})

    results = [
        result("a", "off", "answer"),
        *(covered("on", flag) for flag in (True, False, False)),
        covered("clean", True),
        covered("silent", None),
    ]
    assert aggregate.uncalibrated(results) == {"on": 2, "clean": 0}
