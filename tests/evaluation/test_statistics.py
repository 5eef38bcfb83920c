"""Against published examples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_export.evaluation.intervals import mcnemar, paired_difference, wilson


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
