"""The properties that A3.4 asks of the rule."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_export.methods.mars.record import Shift
from mars_export.methods.mars.rule import Rule

FINITE = st.floats(-50, 50, width=32)
LENGTH = st.floats(0.125, 50, width=32)


class Bounds(NamedTuple):
    origin: float
    harmful: float
    cap: float
    slope: float
    radius: float


OTHER = Bounds(-1.0, 2.0, 3.0, 4.0, 0.5)
"""Of pictures, beside those of text."""


@st.composite
def bounds(draw) -> Bounds:
    origin, size = draw(FINITE), draw(LENGTH)
    harmful = origin + size * draw(st.floats(0.25, 1, width=32))
    cap = harmful + size * draw(st.floats(-0.25, 1, width=32))
    return Bounds(origin, harmful, cap, draw(st.floats(0.5, 3)) * size, draw(LENGTH))


def rule(b, direction=None, shift=0.0):
    direction = torch.ones(1) if direction is None else direction
    made = Rule(len(direction), {"modalities": ["text", "image"], "knots": 1, "turns": 1})
    made.load_state_dict(
        {
            "direction": direction, "knots": torch.zeros(2, 1),
            "shift": torch.tensor([[shift], [9.0]]), "turn": torch.zeros(2, 1),
            "bounds": torch.stack([torch.tensor(b), torch.tensor(OTHER)]),
        }
    )  # fmt: skip
    return made


def steered(made, h):
    return made(h, torch.zeros((*h.shape[:-1], 3), dtype=torch.long))


TEXT, IMAGE = torch.tensor(0), torch.tensor(1)


GRID = torch.linspace(-200, 200, 4001, dtype=torch.float64)


@given(bounds())
@settings(max_examples=60, deadline=None)
def test_strength_is_bounded_and_zero_where_it_should_be(b):
    alpha = rule(b).strength(GRID, TEXT)
    origin, _, cap, _, radius = torch.tensor(b).double()
    assert (alpha >= 0).all()
    assert (alpha <= radius).all()
    assert (alpha[origin >= GRID] == 0).all()
    assert (alpha[cap <= GRID] == 0).all()
    assert (GRID + alpha <= torch.maximum(GRID, cap) + 1e-9).all()


@given(bounds())
@settings(max_examples=60, deadline=None)
def test_strength_is_continuous_and_piecewise_linear(b):
    alpha = rule(b).strength(GRID, TEXT)
    origin, harmful, _, slope, _ = torch.tensor(b).double().tolist()
    steepest = max(slope / (harmful - origin), 1.0)
    step = float(GRID[1] - GRID[0])
    assert (alpha.diff().abs() <= steepest * step * (1 + 1e-6) + 1e-9).all()
    bends = alpha.diff().diff().abs() > 1e-6 * max(1.0, steepest)
    assert int(bends.sum()) <= 8  # four corners, each between two grid points


@given(bounds(), st.integers(0, 2**16), FINITE)
@settings(max_examples=60, deadline=None)
def test_push_moves_along_the_direction_only_and_no_further_than_the_radius(b, seed, shift):
    generator = torch.Generator().manual_seed(seed)
    h = 20 * torch.randn(8, 12, generator=generator)
    r = torch.randn(12, generator=generator)
    r = r / r.norm()
    made = rule(b, r, shift)
    pushed, decision = steered(made, h)
    moved = pushed - h
    along = moved @ r
    assert torch.allclose(moved, along.unsqueeze(-1) * r, atol=1e-4)
    assert (along <= b.radius + 1e-4).all()
    assert torch.allclose(along, made.strength(h @ r - shift, TEXT), atol=1e-3)
    assert torch.allclose(along, decision["strength"], atol=1e-4)


def test_known_values():
    made = rule(Bounds(origin=0.0, harmful=4.0, cap=5.0, slope=8.0, radius=3.0))
    p = torch.tensor([-1.0, 0.0, 1.0, 1.5, 3.0, 4.5, 5.0, 9.0])
    assert made.gate(p, TEXT).tolist() == [0, 0, 0.25, 0.375, 0.75, 1.125, 1.25, 2.25]
    assert made.strength(p, TEXT).tolist() == [0, 0, 2, 3, 2, 0.5, 0, 0]
    assert made.limit(p, TEXT).tolist() == [3, 3, 3, 3, 2, 0.5, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_calm_rows_are_left_bit_for_bit(dtype):
    r = torch.nn.functional.one_hot(torch.tensor(2), 6).float()
    made = rule(Bounds(origin=0.0, harmful=4.0, cap=5.0, slope=8.0, radius=3.0), r)
    h = torch.randn(5, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    h[:, 2] = torch.tensor([-3, -0.5, 0, 5, 7], dtype=dtype)
    out, decision = steered(made, h.float())
    assert torch.equal(out.to(dtype), h)
    assert decision["strength"].tolist() == [0] * 5


SOUND = Bounds(origin=-1.0, harmful=2.0, cap=3.0, slope=4.0, radius=0.5)


@given(bounds())
@settings(max_examples=60, deadline=None)
def test_a_rule_without_a_problem_pushes_something(b):
    made = rule(b)
    between = torch.tensor((b.origin + b.cap) / 2)
    assert (made.problem() is None) == bool(made.strength(between, TEXT) > 0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"harmful": -1.0}, "the harmful centroid is not above the gate's origin"),
        ({"harmful": -9.0}, "the harmful centroid is not above the gate's origin"),
        ({"cap": -1.0}, "the cap is not above the gate's origin"),
        ({"cap": -1e9}, "the cap is not above the gate's origin"),
        ({"slope": 0.0}, "the slope is not above 0"),
        ({"radius": -1.0}, "the radius is not above 0"),
        ({"harmful": float("inf")}, "a bound is not finite"),
        ({"origin": float("nan")}, "a bound is not finite"),
    ],
)
def test_bounds_that_allow_no_push(changes, problem):
    made = rule(SOUND._replace(**changes))
    assert made.problem() == problem
    if {"cap", "slope", "radius"} & changes.keys():
        assert not (made.strength(GRID, TEXT) > 0).any()


@pytest.mark.parametrize(
    ("direction", "shift", "problem"),
    [
        ([0.6, 0.8], 5.0, None),
        ([0.0, 0.0], 0.0, "the direction has length 0 instead of 1"),
        ([1e-9, 0.0], 0.0, "the direction has length 1e-09 instead of 1"),
        ([float("nan"), 1.0], 0.0, "the direction has length nan instead of 1"),
        ([1.0, 0.0], float("inf"), "a shift is not finite"),
    ],
)
def test_directions_and_shifts_that_allow_no_push(direction, shift, problem):
    assert rule(SOUND, torch.tensor(direction), shift).problem() == problem


def test_every_modality_has_bounds_of_its_own():
    made = rule(SOUND._replace(origin=0.0))
    p = torch.tensor([-0.5, 0.5])
    assert made.gate(p, TEXT).tolist() == [0, 0.25]
    assert made.gate(p, IMAGE).tolist() == pytest.approx([0.5 / 3, 0.5])
    h = torch.tensor([[-0.5], [8.5]])
    context = torch.tensor([[0, 0, 0], [1, 4, 0]])
    assert made(h, context)[1]["gate"].tolist() == pytest.approx([0, 0.5 / 3])


@given(
    st.lists(st.integers(0, 4096), min_size=1, max_size=5, unique=True),
    st.lists(st.floats(-9, 9, width=32), min_size=5, max_size=5),
    st.integers(0, 20000),
    st.integers(0, 9),
)
@settings(max_examples=80, deadline=None)
def test_the_shift_is_linear_in_the_logarithm_of_the_visual_tokens(tokens, values, visual, turn):
    tokens, values, turns = sorted(tokens), values[: len(tokens)], [0.0, 0.5, -2.0]
    made = Rule(1, {"modalities": ["text", "image"], "knots": len(tokens), "turns": 3})
    made.knots[1] = torch.tensor(tokens).float()
    made.shift[1] = torch.tensor(values)
    made.turn[1] = torch.tensor(turns)
    context = torch.tensor([[1, visual, turn], [0, 0, turn]])
    x, *knots = [np.log2(count) if count else -1.0 for count in (visual, *tokens)]
    want = np.interp(x, knots, values) + turns[min(turn, 2)]
    assert made.beta(context).tolist() == pytest.approx([want, 0], abs=1e-4)
    assert Shift(tokens=tokens, values=values, turns=turns).at(visual, turn) == pytest.approx(
        want, abs=1e-9
    )


def test_what_was_not_calibrated_is_said():
    made = Rule(1, {"modalities": ["text", "image"], "knots": 3, "turns": 1})
    made.knots[:] = torch.tensor([[0.0, 0, 0], [100, 400, 400]])
    visual = torch.tensor([0, 49, 50, 100, 399, 400, 401, 5000])
    context = torch.stack([torch.ones(8).long(), visual, torch.zeros(8).long()], -1)
    assert made.covered(context).tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    made.knots[1] = torch.tensor([0.0, 100, 400])
    assert made.covered(context).tolist() == [1, 0, 1, 1, 1, 1, 0, 0]
    text, later = torch.tensor([0, 0, 0]), torch.tensor([0, 0, 7])
    assert (made.covered(text), made.covered(later)) == (1, 0)
    made.turn = torch.zeros(2, 2)
    assert made.covered(later) == 1


def test_knots_that_do_not_ascend_are_a_problem():
    made = rule(SOUND)
    made.knots = torch.tensor([[3.0, 2.0], [0.0, 0.0]])
    assert made.problem() == "the knots do not ascend"
