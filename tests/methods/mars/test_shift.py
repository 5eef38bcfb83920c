"""The paired shift and the gate origin, on numbers whose answer is known."""

import numpy as np
import pytest
import torch

from mars_export.methods.mars.shift import gate_origin, paired_shift

LAYERS, WIDTH = 3, 32


def test_paired_shift_cancels_the_text():
    rng = np.random.default_rng(4)
    text = rng.normal(scale=50, size=(LAYERS, 64, WIDTH))
    b = rng.normal(size=(LAYERS, WIDTH))
    visual = text + b[:, None] + rng.normal(scale=0.1, size=text.shape)
    found = paired_shift(torch.from_numpy(text), torch.from_numpy(visual))
    np.testing.assert_allclose(found, b, atol=0.06)


def test_gate_origins():
    p_s = torch.tensor([2.0, 2.0]).double()
    calm = torch.linspace(-1, 1, 201).double().expand(2, -1)
    shown = torch.stack([calm[0] + 3, calm[0] - 5])
    assert gate_origin([calm, shown], p_s).tolist() == pytest.approx([3.9, 2.0])
    assert float((shown[0] > 3.9).double().mean()) <= 0.05
