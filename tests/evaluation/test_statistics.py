"""Against published examples, and against simulated judges whose truth is known."""

import random

import numpy as np
import pytest

from mars_export.evaluation.corrections import rate_elsewhere, rogan_gladen
from mars_export.evaluation.report import JudgeError
from mars_export.evaluation.statistics import (
    Difference,
    bounds,
    clustered_difference,
    clustered_rate,
    exact_rate,
    holm,
    non_inferior,
    paired_change,
    resampled,
    sign_test,
)


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 5
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0, 0.1684),
        (1, 29, 0.0009, 0.1776),
    ],
)
def test_exact_rate(count, n, low, high):
    rate = exact_rate(count, n)
    assert (round(rate.low, 4), round(rate.high, 4)) == (low, high)
    assert (rate.count, rate.n, rate.clusters, rate.rate) == (count, n, n, count / n)


@pytest.mark.parametrize(("count", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_have_no_rate(count, n):
    with pytest.raises(ValueError, match="there is no rate"):
        exact_rate(count, n)


def test_no_requests_no_rate_and_no_change():
    with pytest.raises(ValueError, match="no requests"):
        clustered_rate([], [])
    with pytest.raises(ValueError, match="no requests"):
        paired_change([], [])


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [(5, 0, 0.063), (6, 0, 0.031), (10, 2, 0.039), (20, 8, 0.036), (0, 0, 1.0), (7, 1, 0.070)],
)
def test_exact_sign_test(gained, lost, p):
    changes = [1] * gained + [-1] * lost + [0] * 9
    assert sign_test(changes, range(len(changes))) == pytest.approx((gained, lost, p), abs=6e-4)


def test_a_cluster_has_one_sign():
    assert sign_test([1, 1, -1, 0, 1, -1], "aaabcc") == (1, 0, 1.0)
    assert sign_test([1] * 12, "aabbccddeeff") == (6, 0, 2 / 2**6)


def test_without_an_event_a_cluster_counts_as_one_request():
    assert bounds([(0, 10)] * 60, 120).high == pytest.approx(1 - 0.05 ** (1 / 60), rel=0.04)
    assert bounds([(10, 10)] * 60, 120).low == pytest.approx(0.05 ** (1 / 60), rel=0.02)


def test_repeated_runs_are_no_further_evidence():
    once = bounds([(1, 2)] * 3 + [(0, 2)] * 57, 120).high
    five = bounds([(5, 10)] * 3 + [(0, 10)] * 57, 120).high
    assert five >= once - 1e-3


@pytest.mark.parametrize(("share", "correlation"), [(0.03, 0.3), (0.06, 0.7), (0.06, 0.05)])
def test_bounds_cover_the_truth(share, correlation):
    source = np.random.default_rng(0)
    a, b = (x * (1 / correlation - 1) for x in (share, 1 - share))
    covered = 0
    for _ in range(300):
        events = source.binomial(10, source.beta(a, b, 60))
        covered += bounds([(int(e), 10) for e in events], 120).high >= share
    assert covered >= 0.95 * 300


def test_no_event_is_bounded_not_zero():
    assert round(exact_rate(0, 100).high, 3) == 0.036


def test_holm():
    # the worked example of "Holm-Bonferroni method" in Wikipedia
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.04, 0.03]) == pytest.approx([0.06, 0.06])  # never in another order than before


def test_non_inferiority_needs_the_whole_interval():
    assert non_inferior(Difference(0.0, -0.009, 0.009), 0.01)
    assert not non_inferior(Difference(0.0, -0.034, 0.034), 0.01)
    with pytest.raises(ValueError, match="margin"):
        non_inferior(Difference(0.0, 0.0, 0.0), 0.0)


def error(sensitivity, specificity):
    rates = {"sensitivity": exact_rate(*sensitivity), "specificity": exact_rate(*specificity)}
    return JudgeError(**rates, source="")


@pytest.mark.parametrize(
    ("positive", "n", "sensitivity", "specificity", "truth"),
    [
        # Brucellosis and Helicobacter, the worked examples of epi.prev in the R package epiR
        (23, 150, (960, 1000), (890, 1000), 0.051),
        (6, 151, (964, 1000), (927, 1000), 0.0),
    ],
)
def test_rogan_gladen(positive, n, sensitivity, specificity, truth):
    found = rogan_gladen(exact_rate(positive, n), error(sensitivity, specificity))
    assert round(found.rate, 3) == truth
    assert found.low <= found.rate <= found.high


def test_a_perfect_judge_changes_little():
    found = rogan_gladen(exact_rate(30, 100), error((10**6, 10**6), (10**6, 10**6)))
    plain = exact_rate(30, 100)
    assert found.rate == pytest.approx(0.3)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.01)


def test_a_judge_no_better_than_chance_says_nothing():
    assert rogan_gladen(exact_rate(30, 100), error((50, 100), (50, 100))) is None
    assert rogan_gladen(exact_rate(30, 100), error((10, 100), (20, 100))) is None


def test_a_rate_on_another_model_allows_for_how_models_differ():
    alike = rate_elsewhere([(90, 100), (180, 200), (91, 100), (88, 100), (89, 100)])
    apart = rate_elsewhere([(100, 100), (200, 200), (98, 100), (70, 100), (70, 100)])
    assert (alike.count, alike.n, alike.clusters) == (538, 600, 5)
    assert 0.75 < alike.low < alike.rate == 538 / 600 < alike.high < 0.98
    assert apart.rate == alike.rate
    assert apart.low < 0.6
    assert rate_elsewhere([(0, 50), (0, 50)]).low == 0.0
    with pytest.raises(ValueError, match="groups"):
        rate_elsewhere([(9, 10)])


def test_a_rate_on_another_model_lies_in_the_interval():
    """Judges whose sensitivity is drawn anew for each model, seen on six, used on a seventh."""
    chance = random.Random(1)
    hits = 0
    for _ in range(200):
        rates = [chance.betavariate(17, 3) for _ in range(7)]
        tables = [(sum(chance.random() < p for _ in range(80)), 80) for p in rates[:6]]
        found = rate_elsewhere(tables)
        hits += found.low <= rates[6] <= found.high
    assert hits >= 0.93 * 200


def test_a_judge_that_may_err_anyhow_leaves_any_rate_open():
    unsure = {"sensitivity": [(99, 100), (50, 100)], "specificity": [(99, 100), (60, 100)]}
    known = JudgeError(**{k: rate_elsewhere(v) for k, v in unsure.items()}, source="")
    found = rogan_gladen(exact_rate(50, 100), known)
    assert (found.low, found.high) == (0.0, 1.0)


def test_corrected_intervals_cover_the_truth():
    """Judges of sensitivity .85 and specificity .95, both estimated from 100 labels each."""
    chance = random.Random(0)

    def draw(n, p):
        return sum(chance.random() < p for _ in range(n))

    for truth in (0.1, 0.6):
        seen = truth * 0.85 + (1 - truth) * 0.05
        hits = 0
        for _ in range(200):
            known = error((draw(100, 0.85), 100), (draw(100, 0.95), 100))
            found = rogan_gladen(exact_rate(draw(200, seen), 200), known)
            hits += found.low <= truth <= found.high
        assert hits >= 0.92 * 200


def test_clusters_widen_the_interval():
    same = [1, 0, 0, -1, 1, 0, 1, 0, 0, 1] * 3
    alone = clustered_difference(same, range(30))
    tripled = clustered_difference(same * 3, [i % 30 for i in range(90)])
    ignored = clustered_difference(same * 3, range(90))
    assert alone.value == pytest.approx(0.3)
    assert tripled == pytest.approx(alone)
    assert ignored.high - ignored.low < 0.7 * (tripled.high - tripled.low)
    assert clustered_difference(same, range(30)) == alone


def test_clusters_of_unequal_size_count_by_requests():
    found = clustered_difference([1, 1, 1, 0, 0, -1], "aaabcd")
    assert found.value == pytest.approx(2 / 6)
    assert found.low < found.value < found.high


def test_the_same_change_is_resampled_once(monkeypatch):
    changes = [1] * 12 + [0] * 7
    once = paired_change(changes, range(19))
    monkeypatch.setattr("mars_export.evaluation.statistics._interval", None)
    assert paired_change(changes[::-1], range(19)) == once
    value, low, high = paired_change([-change for change in changes], range(19))
    assert (-value, -high, -low) == once


@pytest.mark.parametrize(("differences", "clusters"), [([1, 1], "aa"), ([0, 0, 0], "abc")])
def test_resampling_does_not_feign_certainty(differences, clusters):
    with pytest.raises(ValueError, match="cannot be resampled"):
        clustered_difference(differences, clusters)


def test_resampled_statistic():
    values = [0.0] * 50 + [1.0] * 50
    low, high = resampled(lambda chosen: sum(values[i] for i in chosen) / len(chosen), 100)
    assert low == pytest.approx(0.4, abs=0.03)
    assert high == pytest.approx(0.6, abs=0.03)
