"""Against published examples, and against simulated judges whose truth is known."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_export.evaluation.report import JudgeError
from mars_export.evaluation.statistics import (
    Difference,
    clustered_difference,
    holm,
    mcnemar,
    non_inferior,
    paired_difference,
    resampled,
    rogan_gladen,
    wilson,
)


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [
        (0, 20, 0, 16.1),
        (2, 20, 2.8, 30.1),
        (0, 50, 0, 7.1),
        (5, 50, 4.3, 21.4),
        (0, 100, 0, 3.7),
        (10, 100, 5.5, 17.4),
        (50, 500, 7.7, 12.9),
        # Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 3
        (81, 263, 25.53, 36.62),
        (15, 148, 6.24, 16.05),
        (1, 29, 0.61, 17.18),
    ],
)
def test_wilson(count, n, low, high):
    rate = wilson(count, n)
    digits = 2 if n in (263, 148, 29) else 1
    assert (round(100 * rate.low, digits), round(100 * rate.high, digits)) == (low, high)
    assert (rate.count, rate.n, rate.rate) == (count, n, count / n)


@pytest.mark.parametrize(("count", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(count, n):
    with pytest.raises(ValueError):
        wilson(count, n)


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [(5, 0, 0.063), (6, 0, 0.031), (10, 2, 0.039), (20, 8, 0.036), (0, 0, 1.0), (7, 1, 0.070)],
)
def test_exact_mcnemar(gained, lost, p):
    assert mcnemar(gained, lost) == pytest.approx(p, abs=6e-4)
    assert mcnemar(gained, lost) == mcnemar(lost, gained)


@pytest.mark.parametrize(
    ("table", "value", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:2635-2650, method 10; first minus second there
        ((36, 12, 2, 0), -0.2000, -0.3404, -0.0569),
        ((20, 12, 2, 16), -0.2000, -0.3292, -0.0562),
        # Airway hyper-responsiveness (Bentur et al. 2009) in Fagerland et al. 2014
        ((1, 1, 7, 12), 0.286, 0.026, 0.507),
    ],
)
def test_newcombe_paired_difference(table, value, low, high):
    found = paired_difference(*table)
    digits = 4 if value < 0 else 3
    assert tuple(round(x, digits) for x in found) == (value, low, high)


counts = st.integers(0, 60)


@given(counts, counts, counts, counts)
def test_paired_difference_is_an_interval_and_antisymmetric(both, first, second, neither):
    if both + first + second + neither == 0:
        return
    there = paired_difference(both, first, second, neither)
    back = paired_difference(both, second, first, neither)
    assert -1 <= there.low <= there.value <= there.high <= 1
    assert there.low == pytest.approx(-back.high, abs=1e-12)


def test_no_subjects_no_difference():
    with pytest.raises(ValueError):
        paired_difference(0, 0, 0, 0)


def test_no_event_is_bounded_not_zero():
    assert round(wilson(0, 100).high, 3) == 0.037


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
    return JudgeError(sensitivity=wilson(*sensitivity), specificity=wilson(*specificity), source="")


@pytest.mark.parametrize(
    ("positive", "n", "sensitivity", "specificity", "truth"),
    [
        # Brucellosis and Helicobacter, the worked examples of epi.prev in the R package epiR
        (23, 150, (960, 1000), (890, 1000), 0.051),
        (6, 151, (964, 1000), (927, 1000), 0.0),
    ],
)
def test_rogan_gladen(positive, n, sensitivity, specificity, truth):
    found = rogan_gladen(wilson(positive, n), error(sensitivity, specificity))
    assert round(found.rate, 3) == truth
    assert found.low <= found.rate <= found.high


def test_a_perfect_judge_changes_little():
    found = rogan_gladen(wilson(30, 100), error((10**6, 10**6), (10**6, 10**6)))
    plain = wilson(30, 100)
    assert found.rate == pytest.approx(0.3)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.01)


def test_a_judge_no_better_than_chance_says_nothing():
    assert rogan_gladen(wilson(30, 100), error((50, 100), (50, 100))) is None
    assert rogan_gladen(wilson(30, 100), error((10, 100), (20, 100))) is None


def test_corrected_intervals_cover_the_truth():
    """Judges of sensitivity .85 and specificity .95, both estimated from 100 labels each."""
    chance = random.Random(0)

    def draw(n, p):
        return sum(chance.random() < p for _ in range(n))

    for truth in (0.1, 0.6):
        seen = truth * 0.85 + (1 - truth) * 0.05
        hits = 0
        for _ in range(400):
            known = error((draw(100, 0.85), 100), (draw(100, 0.95), 100))
            found = rogan_gladen(wilson(draw(200, seen), 200), known)
            hits += found.low <= truth <= found.high
        assert hits >= 0.92 * 400


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


@pytest.mark.parametrize(("differences", "clusters"), [([1, 1], "aa"), ([0, 0, 0], "abc")])
def test_resampling_does_not_feign_certainty(differences, clusters):
    with pytest.raises(ValueError, match="cannot be resampled"):
        clustered_difference(differences, clusters)


def test_resampled_statistic():
    values = [0.0] * 50 + [1.0] * 50
    low, high = resampled(lambda chosen: sum(values[i] for i in chosen) / len(chosen), 100)
    assert low == pytest.approx(0.4, abs=0.03)
    assert high == pytest.approx(0.6, abs=0.03)
