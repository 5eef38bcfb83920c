"""Shifts of every layer, on numbers whose answer is known."""

import numpy as np
import pytest
import torch

from mars_export.calibration.activations import Readout
from mars_export.calibration.measurements import Reading
from mars_export.methods.mars.record import Shift
from mars_export.methods.mars.shift import Shifts, paired_shift

LAYERS = 3


def reading(coordinates, prompts):
    n, nothing = coordinates.shape[1], torch.empty(0)
    readout = Readout(nothing, coordinates, nothing, nothing, nothing, torch.zeros(n), nothing)
    return Reading((None,) * n, readout, ((),) * n, tuple(prompts))


def test_paired_shift_cancels_the_text():
    rng = np.random.default_rng(4)
    text = torch.from_numpy(rng.normal(scale=50, size=(LAYERS, 64)))
    beta = torch.from_numpy(rng.normal(size=LAYERS))
    prompts = rng.integers(0, 64, size=200).tolist()
    visual = text[:, prompts] + beta[:, None]
    visual += torch.from_numpy(rng.normal(scale=0.1, size=visual.shape))
    found = paired_shift(text, reading(visual, prompts))
    np.testing.assert_allclose(found, beta, atol=0.03)


def test_one_account_of_the_shift_for_all_layers_and_one_for_each():
    values = torch.tensor([[3.0, 9.0], [0.0, 1.0], [2.0, -1.0], [8.0, 0.0]], dtype=torch.float64)
    turns = torch.tensor([[0.0, 0.0], [0.5, 0.25]], dtype=torch.float64)
    shifts = Shifts([0, 8, 32, 64], values, turns, 8)
    context = torch.tensor([[1, 8, 0], [1, 16, 0], [1, 32, 1], [1, 500, 7], [1, 0, 1], [1, 2, 0]])
    want = [[0.0, 1.0, 2.5, 8.5, 3.5, 1.5], [1.0, 0.0, -0.75, 0.25, 9.25, 5.0]]
    assert shifts.beta(context).tolist() == [pytest.approx(row) for row in want]
    for layer, row in enumerate(want):
        one = shifts.at(layer)
        assert [one.at(int(v), int(t)) for _, v, t in context] == pytest.approx(row)
        assert one.at() == float(values[1, layer])


def test_a_shift_of_text_is_its_turn():
    shift = Shift(tokens=[0], values=[0.0], turns=[0.0, 0.5])
    assert [shift.at(0, turn) for turn in range(3)] == [0, 0.5, 0.5]
