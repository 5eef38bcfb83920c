"""Against published examples, and against simulated judges whose truth is known."""

import random

import pytest

from mars_export.evaluation.corrections import holm, non_inferior, rogan_gladen
from mars_export.evaluation.intervals import Difference, clopper_pearson, wilson
from mars_export.evaluation.report import JudgeError
from mars_export.evaluation.resampling import clustered_difference, resampled


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 5
        (81, 263, 25.27, 36.76),
        (15, 148, 5.78, 16.17),
        (0, 20, 0.00, 16.84),
        (1, 29, 0.09, 17.76),
    ],
)
def test_clopper_pearson(count, n, low, high):
    rate = clopper_pearson(count, n)
    assert (round(100 * rate.low, 2), round(100 * rate.high, 2)) == (low, high)


def test_no_event_is_bounded_not_zero():
    assert round(wilson(0, 100).high, 3) == 0.037
    assert round(clopper_pearson(0, 100).high, 3) == 0.036
    for n in (30, 100, 1000):  # the rule of three is the one-sided exact bound
        assert 1 - 0.05 ** (1 / n) == pytest.approx(3 / n, rel=0.06)
        assert clopper_pearson(0, n).high > 3 / n


def test_holm():
    # the worked example of "Holm-Bonferroni method" in Wikipedia
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


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
