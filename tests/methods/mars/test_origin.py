"""The gate's origin keeps its promise: coverage of the tolerance bound, simulated and by hand."""

import numpy as np
import pytest
import torch

from mars_export.methods.mars.origin import (
    confidence,
    fewest_prompts,
    one_of_each_prompt,
    surprising,
    tolerance_bound,
    upper_bound,
)


def above(n, strict=True):
    """How many of n values lie above the bound."""
    return n - 1 - int(tolerance_bound(torch.arange(n), strict=strict))


@pytest.mark.parametrize(
    ("n", "left_out"), [(1, 0), (58, 0), (59, 0), (92, 0), (93, 1), (123, 1), (124, 2), (200, 4)]
)
def test_how_many_may_lie_above(n, left_out):
    assert above(n) == left_out


def test_without_a_promise_it_is_the_quantile():
    assert [above(n, strict=False) for n in (19, 20, 64, 200)] == [0, 1, 3, 10]


@pytest.mark.parametrize("n", [59, 93, 200])
@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_the_bound_covers_its_share_as_often_as_it_says(n, draw):
    rng = np.random.default_rng(n)
    values = getattr(rng, draw)(size=(20_000, n))
    bounds = tolerance_bound(torch.from_numpy(values), strict=True).numpy()
    limit = np.quantile(getattr(rng, draw)(size=2_000_000), 0.95)
    held = float((bounds >= limit).mean())
    assert held >= 0.945
    assert held <= 0.99


def test_confidence_grows_with_the_prompts():
    assert fewest_prompts() == 59
    assert confidence(58) < 0.95 == confidence(59) == confidence(400)
    assert confidence(1) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("count", "n", "bound"),
    [(0, 59, 0.0495), (1, 93, 0.0500), (3, 40, 0.1826), (40, 40, 1.0), (0, 0, 1.0)],
)
def test_upper_bounds_of_a_share(count, n, bound):  # scipy.stats.beta.ppf(.95, k + 1, n - k)
    assert upper_bound(count, n) == pytest.approx(bound, abs=1e-4)


def test_open_gates_that_chance_does_not_explain():
    assert not surprising(0, 64)
    assert not surprising(6, 64)
    assert surprising(7, 64)


def test_a_prompt_counts_once():
    values = [torch.tensor([1.0, 5.0]), torch.tensor([3.0, 2.0, 4.0])]
    found = one_of_each_prompt(values, [(0, 1), (0, 1, 2)])
    assert found.tolist() == [1, 2, 4]  # each from another one of its conditions
