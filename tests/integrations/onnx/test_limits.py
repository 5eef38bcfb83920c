"""Decoders that a graph would follow on short prompts only are refused."""

from types import SimpleNamespace

import pytest

from mars_export.common.errors import ExportError
from mars_export.integrations.onnx.attention import attention_windows, refuse_frozen_positions
from support import zoo

FULL, SLIDING = "full_attention", "sliding_attention"


def text(**settings):
    return SimpleNamespace(model_type="some", **settings)


def test_windows_by_kind_of_layer():
    assert attention_windows(text()) == {FULL: None}
    assert attention_windows(text(layer_types=[FULL, FULL], sliding_window=8)) == {FULL: None}
    both = text(layer_types=[SLIDING, FULL], sliding_window=8)
    assert attention_windows(both) == {FULL: None, SLIDING: 8}
    assert attention_windows(text(layer_types=[SLIDING], sliding_window=8)) == {SLIDING: 8}
    mistral = SimpleNamespace(model_type="mistral", sliding_window=None)
    assert attention_windows(mistral) == {FULL: None}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"layer_types": ["chunked_attention", FULL]}, "chunked_attention"),
        ({"sliding_window": 8}, "a sliding window"),
        ({"layer_types": [SLIDING], "sliding_window": None}, "a sliding window"),
    ],
)
def test_windows_of_another_form_are_refused(settings, named):
    with pytest.raises(ExportError, match=f"cannot be written as ONNX: {named} in a form"):
        attention_windows(text(**settings))


def test_positions_that_an_export_would_freeze_are_refused():
    for kind in ("dynamic", "longrope"):
        for rope in ({"rope_type": kind}, {FULL: {"rope_type": kind}, SLIDING: None}):
            with pytest.raises(ExportError, match=f"{kind}.* which a graph would freeze"):
                refuse_frozen_positions(text(rope_parameters=rope))
    for kind in ("default", "linear", "yarn", "llama3"):
        refuse_frozen_positions(text(rope_parameters={"rope_type": kind, "factor": 2.0}))
    refuse_frozen_positions(text())


@pytest.mark.parametrize(
    ("model_type", "windows"),
    [
        ("llama", {FULL: None}),
        ("qwen3_vl", {FULL: None}),
        ("gemma3", {SLIDING: 16}),
        ("mistral3", {SLIDING: 4096}),
    ],
)
def test_configurations_of_transformers(model_type, windows):
    config = zoo.build(model_type)[1].get_text_config()
    refuse_frozen_positions(config)
    assert attention_windows(config) == windows
