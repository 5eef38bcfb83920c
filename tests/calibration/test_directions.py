"""Difference in means and layer scores against NumPy, on activations with a planted direction."""

import numpy as np
import pytest
import torch

from mars_export.calibration import directions as st

LAYERS, WIDTH = 3, 32


def planted(count: int, offset: float, seed: int) -> np.ndarray:
    """(L, N, d) normal states; layer l has `offset` * (l + 1) along axis l."""
    states = np.random.default_rng(seed).normal(size=(LAYERS, count, WIDTH))
    for layer in range(LAYERS):
        states[layer, :, layer] += offset * (layer + 1)
    return states.astype(np.float32)


U, S = planted(400, 3.0, 0), planted(300, 0.0, 1)
HELD_U, HELD_S = planted(90, 3.0, 2), planted(80, 0.0, 3)
STATS = st.text_statistics(torch.from_numpy(U), torch.from_numpy(S))


def numpy_direction(layer: int) -> tuple[np.ndarray, float]:
    difference = U[layer].astype(np.float64).mean(0) - S[layer].astype(np.float64).mean(0)
    size = np.linalg.norm(difference)
    return difference / size, size


@pytest.mark.parametrize("layer", range(LAYERS))
def test_difference_in_means(layer):
    r, size = numpy_direction(layer)
    assert STATS.direction.dtype == torch.float64
    np.testing.assert_allclose(STATS.direction[layer], r, rtol=1e-12)
    assert float(STATS.separation[layer]) == pytest.approx(size, rel=1e-12)
    assert float(STATS.direction[layer, layer]) > 0.99  # the planted axis
    assert size == pytest.approx(3 * (layer + 1), abs=0.8)
    gap = STATS.harmful[layer] - STATS.harmless[layer]
    assert float(gap) == pytest.approx(size, rel=1e-12)


@pytest.mark.parametrize("layer", range(LAYERS))
def test_scores(layer):
    r, size = numpy_direction(layer)
    held_u, held_s = HELD_U[layer].astype(np.float64), HELD_S[layer].astype(np.float64)
    q_u, q_s = held_u @ r, held_s @ r
    from_harmless = held_u - S[layer].astype(np.float64).mean(0)
    cosine = from_harmless @ r / np.linalg.norm(from_harmless, axis=1)
    d_prime = (q_u.mean() - q_s.mean()) / np.sqrt((q_u.var(ddof=1) + q_s.var(ddof=1)) / 2)
    gap = (np.quantile(q_u, 0.05) - np.quantile(q_s, 0.95)) / size

    u = st.coordinates(torch.from_numpy(HELD_U), STATS.direction)
    s = st.coordinates(torch.from_numpy(HELD_S), STATS.direction)
    np.testing.assert_allclose(u[layer], q_u, rtol=1e-10)
    consistency = st.consistency(
        st.coordinates(torch.from_numpy(HELD_U), STATS.direction),
        (torch.from_numpy(HELD_U).double() - STATS.centroid_harmless[:, None]).norm(dim=-1),
        STATS,
    )
    assert float(consistency[layer]) == pytest.approx(cosine.mean(), rel=1e-10)
    assert float(st.separability(u, s)[layer]) == pytest.approx(d_prime, rel=1e-10)
    assert float(st.margin(u, s, STATS.separation)[layer]) == pytest.approx(gap, rel=1e-9)


def test_combination_is_the_mean_of_min_max_scores_over_admissible_layers():
    scores = torch.tensor([[9.0, 0.0, 2.0, 4.0], [9.0, 5.0, 5.0, 5.0]], dtype=torch.float64)
    admissible = torch.tensor([False, True, True, True])
    combined = st.combine(scores, admissible)
    assert combined[0].isnan()
    assert combined[1:].tolist() == [0.5, 0.75, 1.0]
    assert st.combine(scores, torch.zeros(4, dtype=torch.bool)).isnan().all()


def test_equal_centroids_have_no_direction_and_no_infinities():
    states = torch.ones(2, 5, 4)
    stats = st.text_statistics(states, states)
    assert stats.separation.tolist() == [0, 0]
    assert stats.direction.abs().max() == 0
    q = st.coordinates(states, stats.direction)
    assert st.separability(q, q).tolist() == [0, 0]
