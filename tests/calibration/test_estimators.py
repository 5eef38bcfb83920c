"""Directions from text other than the difference in means, against NumPy and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from mars_export.calibration.directions import text_statistics
from mars_export.calibration.estimators import (
    ESTIMATORS,
    difference_of_means,
    linear_probe,
    principal_component,
)

WIDTH, HARM, NOISY = 24, 3, 7


def states(count, offset, seed, wide=1.0):
    """(N, d) normal states, `offset` along HARM; NOISY varies `wide` times as much, with HARM."""
    x = np.random.default_rng(seed).normal(size=(count, WIDTH))
    x[:, NOISY] = wide * x[:, NOISY]
    x[:, HARM] += offset
    return torch.from_numpy(x)


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


@pytest.mark.parametrize(("count", "other"), [(90, 70), (9, 8)])
def test_the_principal_component_is_that_of_numpy(count, other):
    u, s = states(count, 5.0, 0), states(other, 0.0, 1)
    both = torch.cat([u, s]) - (u.mean(0) + s.mean(0)) / 2
    first = torch.from_numpy(np.linalg.svd(both.numpy())[2][0])
    assert abs(cosine(principal_component(u, s), first)) == pytest.approx(1, abs=1e-9)


def test_the_principal_component_follows_what_varies_most_not_the_label():
    u, s = states(200, 2.0, 0, wide=9.0), states(200, 0.0, 1, wide=9.0)
    component = principal_component(u, s)
    assert abs(float(component[NOISY] / component.norm())) > 0.99


@pytest.mark.parametrize(("count", "other"), [(90, 70), (9, 8)])  # more and fewer than axes
def test_the_probe_is_a_linear_discriminant(count, other):
    u, s = states(count, 2.0, 0, wide=4.0), states(other, 0.0, 1, wide=4.0)
    within = torch.cat([u - u.mean(0), s - s.mean(0)]).numpy()
    covariance = within.T @ within / (len(within) - 2)
    ridge = 0.1 * np.trace(covariance) / WIDTH * np.eye(WIDTH)
    expected = np.linalg.solve(covariance + ridge, (u.mean(0) - s.mean(0)).numpy())
    np.testing.assert_allclose(linear_probe(u, s).numpy(), expected, rtol=1e-8)


def test_the_probe_separates_as_well_as_that_of_scikit_learn():
    u, s = states(60, 1.5, 0, wide=6.0), states(60, 0.0, 1, wide=6.0)
    held_u, held_s = states(2000, 1.5, 2, wide=6.0), states(2000, 0.0, 3, wide=6.0)
    theirs = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.1)
    theirs.fit(torch.cat([u, s]).numpy(), [1] * 60 + [0] * 60)

    def separability(direction):
        a, b = held_u @ direction, held_s @ direction
        return float((a.mean() - b.mean()) / ((a.var() + b.var()) / 2).sqrt())

    other = torch.from_numpy(theirs.coef_[0])
    assert separability(linear_probe(u, s)) > 0.95 * separability(other)
    assert separability(linear_probe(u, s)) > separability(u.mean(0) - s.mean(0))


@pytest.mark.parametrize("estimate", [difference_of_means, *ESTIMATORS.values()])
def test_states_without_any_difference_give_no_direction_and_no_infinities(estimate):
    same = torch.ones(5, 4, dtype=torch.float64)
    direction = estimate(same, same)
    assert direction.isfinite().all()
    statistics = text_statistics(same[None], same[None], direction[None])
    assert statistics.separation.tolist() == [0]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_direction_points_from_harmless_to_harmful_whatever_its_sign_and_length(sign):
    u, s = states(50, 3.0, 0), states(50, 0.0, 1)
    along = sign * 7 * torch.eye(WIDTH, dtype=torch.float64)[HARM]
    statistics = text_statistics(u[None], s[None], along[None])
    assert statistics.direction[0].tolist() == [float(i == HARM) for i in range(WIDTH)]
    gap = float(u[:, HARM].mean() - s[:, HARM].mean())
    assert float(statistics.separation[0]) == pytest.approx(gap)
    assert float(statistics.harmful[0] - statistics.harmless[0]) == pytest.approx(gap)
