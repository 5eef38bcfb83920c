"""The page on large models shows what the planner computes today."""

from mars_export.pipeline.capacity import in_bytes
from tools import large

KNOWN = {
    "Qwen3-VL-2B": 2.13,
    "Qwen3-VL-8B": 8.77,
    "Qwen2.5-VL-72B": 73.4,
    "Qwen3-VL-235B-A22B": 236,
}
"""Billions of parameters that the Hub counts in the published weights."""


def test_the_page_is_what_the_planner_computes():
    assert large.PAGE.read_text("utf-8") == large.page(), "run python -m tools.large"


def test_the_shapes_are_those_of_the_published_models():
    for shape in large.MODELS:
        assert abs(shape.parameters / 1e9 / KNOWN[shape.name] - 1) < 0.002
    dense, experts = large.MODELS[1], large.MODELS[3]
    assert dense.active == dense.parameters
    assert (dense.split, large.MODELS[2].split, experts.split) == (0, 8, 4)
    assert 21.5e9 < experts.active < 23e9


def test_weights_that_are_not_on_the_gpu_take_the_time_of_moving_them():
    model = large.MODELS[2]
    here, away = (large.ROOMS[name] for name in list(large.ROOMS)[:2])
    moved = model.memory.weights.total - (away["0"] - model.memory.weights.largest)
    seconds = large._forward(model, away, 1) - large._forward(model, here, 1)
    assert abs(seconds * large.RATES["cpu"] - moved) < 0.001 * moved
    assert in_bytes(moved).endswith(" GB")
