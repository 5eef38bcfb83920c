"""What rates and changes may claim: properties that hold for any data, and planted deceptions."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from mars_export.evaluation import changes
from mars_export.evaluation.report import MARGIN, SampleResult
from mars_export.evaluation.statistics import (
    clustered_rate,
    exact_rate,
    paired_change,
    sign_test,
)

CLUSTERED = st.lists(
    st.tuples(st.sampled_from((-1, 0, 0, 1)), st.integers(0, 12)), min_size=1, max_size=50
)
"""Changes of requests, each with its cluster."""
quick = settings(deadline=None, max_examples=40)


def halves(data):
    return [value for value, _ in data], [cluster for _, cluster in data]


@quick
@given(CLUSTERED, st.integers(2, 4))
def test_a_request_repeated_in_its_cluster_narrows_nothing(data, times):
    changes, clusters = halves(data)
    events = [change != 0 for change in changes]
    once, often = (clustered_rate(events * k, clusters * k) for k in (1, times))
    assert (often.rate, often.clusters) == (pytest.approx(once.rate), once.clusters)
    assert often.low <= once.low + 1e-9
    assert often.high >= once.high - 1e-9
    once, often = (paired_change(changes * k, clusters * k) for k in (1, times))
    assert often.value == pytest.approx(once.value)
    assert often.low <= once.low + 1e-9
    assert often.high >= once.high - 1e-9
    assert sign_test(changes * times, clusters * times) == sign_test(changes, clusters)


@quick
@given(st.lists(st.sampled_from((-1, 0, 1)), min_size=1, max_size=60))
def test_where_each_request_is_a_cluster_rates_and_tests_are_exact(changes):
    events, alone = [change == 1 for change in changes], range(len(changes))
    rate = clustered_rate(events, alone)
    interval = binomtest(sum(events), len(events)).proportion_ci(0.95, "exact")
    assert (rate.low, rate.high) == pytest.approx((interval.low, interval.high))
    gained, lost = changes.count(1), changes.count(-1)
    mcnemar = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert sign_test(changes, alone).p_value == pytest.approx(mcnemar)


@quick
@given(CLUSTERED, st.randoms(use_true_random=False))
def test_the_order_of_requests_does_not_matter(data, chance):
    shuffled = chance.sample(data, len(data))
    events, mixed = ([change == 1 for change, _ in rows] for rows in (data, shuffled))
    there, back = (
        clustered_rate(events, halves(data)[1]), clustered_rate(mixed, halves(shuffled)[1])
    )  # fmt: skip
    assert (there.low, there.high) == pytest.approx((back.low, back.high))
    assert paired_change(*halves(data)) == pytest.approx(paired_change(*halves(shuffled)))


@quick
@given(CLUSTERED)
def test_the_opposite_event_changes_the_other_way(data):
    changes, clusters = halves(data)
    there = paired_change(changes, clusters)
    back = paired_change([-change for change in changes], clusters)
    assert -1 <= there.low <= there.value <= there.high <= 1
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


@pytest.mark.parametrize("clusters", [20, 60, 200])
@pytest.mark.parametrize("size", [1, 4])
def test_without_an_event_the_bound_is_that_of_as_many_requests_as_clusters(clusters, size):
    names = [i % clusters for i in range(clusters * size)]
    high = clustered_rate([False] * len(names), names).high
    exact = exact_rate(0, clusters).high
    assert exact <= high + 1e-12
    assert high == pytest.approx(exact, rel=0.1)
    change = paired_change([0] * len(names), names)
    assert (change.low, change.high) == pytest.approx((-high, high))


def test_one_event_never_bounds_more_tightly_than_none():
    for n in (20, 60, 120):
        highs = [paired_change([1] * k + [0] * (n - k), range(n)).high for k in range(13)]
        assert highs == sorted(highs)


@pytest.mark.parametrize("share", [0.02, 0.15])
def test_intervals_of_changes_cover_the_truth(share):
    """60 clusters of 4 requests that go one way together half of the time."""
    chance = random.Random(0)
    covered = 0
    for _ in range(100):
        changes = []
        for _ in range(60):
            together = chance.random() < 0.5
            first = chance.random() < share
            changes += [first if together else chance.random() < share for _ in range(4)]
        found = paired_change(list(map(int, changes)), [i // 4 for i in range(240)])
        covered += found.low <= share <= found.high
    assert covered >= 0.93 * 100


def answered(name, off, on, harmful, cluster="", modality="text", variant=""):
    """One request in both arms."""
    return [
        SampleResult(
            id=f"{name}@{variant}" if variant else name, modality=modality, harmful=harmful,
            arm=arm, verdict="refusal" if refused else "answer", response="", cluster=cluster,
            variant=variant, group=name if variant else "",
        )
        for arm, refused in (("off", off), ("on", on))
    ]  # fmt: skip


def cell(n, gained, harmful=False, modality="text", size=1):
    """Requests that steering changes in so many cases, `size` to a cluster."""
    return [
        result
        for i in range(n)
        for result in answered(
            f"{modality}-{harmful}-{i}", harmful, (i < gained) != harmful, harmful,
            f"{harmful}-{i // size}", modality,
        )
    ]  # fmt: skip


@pytest.mark.parametrize(("harmed", "harm"), [(4, "open"), (5, "shown"), (7, "shown")])
@pytest.mark.parametrize("harmful", [True, False])
def test_harm_is_not_corrected_away(harmed, harm, harmful):
    """A rise of over-refusal by 17.5 points beside five clear benefits or quiet cells."""
    worse = cell(40, harmed, harmful)
    quiet = [
        r
        for h in (True, False)
        for m in ("text", "image", "video")
        if (m, h) != ("text", harmful)
        for r in cell(40, 0, h, m)
    ]
    found = {(p.modality, p.harmful): p for p in changes.pairs(worse + quiet)}
    pair = found["text", harmful]
    assert abs(pair.difference) == harmed / 40
    assert pair.harm == harm
    assert pair.p_holm > 0.05
    assert {p.harm for p in found.values() if p is not pair} == {"open"}  # 40 rule nothing out


def test_harm_is_the_same_whichever_label_is_looked_at():
    harmful, harmless = (changes.pairs(cell(60, 9, h)) for h in (True, False))
    (one,), (other,) = harmful, harmless
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert (one.p_value, one.harm) == (other.p_value, other.harm)
    assert (one.at_risk, one.harmed) == (other.at_risk, other.harmed)


@pytest.mark.parametrize(("n", "harm"), [(60, "open"), (150, "ruled out")])
def test_harm_is_ruled_out_within_the_margin_only(n, harm):
    (pair,) = changes.pairs(cell(n, 0))
    assert (pair.harm, pair.high <= MARGIN) == (harm, harm == "ruled out")
    repeated = changes.pairs(cell(n, 0, size=3))
    assert repeated[0].harm == "open"
    assert repeated[0].clusters == n // 3


def test_a_large_topic_that_gets_better_hides_no_topics_that_get_worse():
    results = cell(9, 9) + [
        r for i in range(40) for r in answered(f"large-{i}", True, False, False, "large")
    ]
    (pair,) = changes.pairs(results)
    assert pair.difference < 0
    assert (pair.clusters, pair.harm) == (10, "shown")


def test_a_benefit_is_no_harm():
    results = [
        r for i in range(40) for h in (True, False) for r in answered(f"{i}{h}", not h, h, h)
    ]
    pairs = changes.pairs(results)
    assert [p.difference for p in pairs] == [1.0, -1.0]
    assert {p.harm for p in pairs} == {"ruled out"}


def test_requests_that_cannot_get_worse_are_no_denominator():
    """120 of 240 harmful requests are refused by the reference: these are at risk."""
    results = cell(120, 0, True) + [
        r for i in range(120) for r in answered(f"image-{i}", False, True, True, f"True-{i}",
                                                "image")
    ]  # fmt: skip
    (total, *_) = changes.pooled_tests(results)
    assert (total.n, total.at_risk) == (240, 120)
    assert (total.harmed.count, total.harmed.n, total.harmed.clusters) == (0, 120, 120)
    assert total.harmed.high == pytest.approx(0.0303, abs=1e-4)
    text, image = changes.pairs(results)
    assert (text.at_risk, text.harmed.n) == (120, 120)
    assert (image.at_risk, image.harmed) == (0, None)


def test_topics_are_the_unit_of_evidence():
    """The same 60 topics twice: the bound is that of 60."""
    (total, *_) = changes.pooled_tests(cell(120, 0, True, size=2))
    assert (total.harmed.n, total.harmed.clusters) == (120, 60)
    assert total.harmed.high == pytest.approx(0.061, abs=2e-3)


def test_one_request_in_three_modalities_is_one_cluster():
    results = [r for m in ("text", "image", "video") for r in cell(40, 4, False, m)]
    (total, *_) = changes.pooled_tests(results)
    assert (total.harmed.count, total.harmed.n, total.harmed.clusters) == (12, 120, 40)
    (text, *_) = changes.pairs(results)
    assert (total.harmed.low, total.harmed.high) == pytest.approx(
        (text.harmed.low, text.harmed.high), abs=5e-3
    )
