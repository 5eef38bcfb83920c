"""What steering costs, from the times of single batches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_export.evaluation.overhead import Cost, overhead

SECONDS = st.floats(0.001, 100)


def batch(off, on, steps=(5, 5), peaks=(None, None)):
    values = zip(("off", "on"), (off, on), steps, peaks, strict=True)
    return {arm: Cost(seconds=s, steps=n, peak=peak) for arm, s, n, peak in values}


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=9))
def test_sums_are_divided_not_ratios_averaged(times):
    found = overhead([batch(*pair) for pair in times])
    off, on = (sum(arm) for arm in zip(*times, strict=True))
    assert found.seconds_ratio == pytest.approx(on / off)
    assert (found.n, found.peak_memory_ratio) == (len(times), None)


def test_short_refusals_do_not_make_steering_fast():
    found = overhead([batch(10, 1, steps=(64, 6)), batch(2, 3)])
    assert (found.seconds_ratio, found.n) == (1.5, 1)
    assert overhead([batch(10, 1, steps=(64, 6))]) is None


def test_batches_of_one_arm_do_not_count():
    assert overhead([{"off": Cost(seconds=1, steps=1)}]) is None
    assert overhead([]) is None


def test_peak_memory_is_that_of_the_largest_batch():
    batches = [batch(1, 1, peaks=(100, 110)), batch(1, 1, peaks=(200, 210))]
    assert overhead(batches).peak_memory_ratio == 1.05
