"""Every family as ONNX on a tiny random checkpoint, or the reason why not. On request: `-m use`."""

import numpy as np
import pytest

from mars_export.common.errors import ExportError
from mars_export.families import families
from mars_export.integrations.onnx.parity import Case, compare
from mars_export.integrations.onnx.routes import route_of, routes
from support import zoo
from support.behavior import Pair
from support.onnx_graphs import arrays, graphs_of

DEEP = ("gemma3", "qwen3_vl")  # test_graphs.py
WITH = [name for name, route in routes().items() if not route.lacking and name not in DEEP]
WITHOUT = [name for name, route in routes().items() if route.lacking]


@pytest.fixture
def on_request(request):
    if "use" not in request.config.option.markexpr:
        pytest.skip("a quarter of a minute a family; runs with -m use")


def test_every_family_has_a_route_or_a_reason():
    assert routes().keys() == families().keys()


@pytest.mark.use("ONNX, onnxruntime")
@pytest.mark.parametrize("model_type", zoo.each(*WITHOUT))
def test_a_family_without_a_route_says_why(model_type, raises_clearly):
    with pytest.raises(ExportError, match="cannot be written as ONNX: ") as error:
        route_of(families()[model_type])
    assert "gemma3" in str(error.value)
    raises_clearly(routes()[model_type].lacking)


@pytest.mark.use("ONNX, onnxruntime")
@pytest.mark.parametrize("model_type", zoo.each(*WITH))
def test_graphs_are_what_pytorch_is(on_request, tiny_graphs, model_type, raises_clearly):
    pair, graphs = tiny_graphs(model_type)
    shown = graphs.about["placeholders"]
    for visual in pair.visuals():
        rows = (None, visual) if visual else (None,)
        batch = pair.batch(*rows)
        if visual is None or visual in shown:
            found = compare(
                pair.model, graphs, [Case(visual or "text", list(map(str, rows)), batch)]
            )
            assert all(p.tokens == 64 and p.logits < 2e-5 and p.decoded < 2e-5 for p in found)
        else:
            refuses(graphs, batch, visual)
    if set(pair.visuals()) - {None, *shown}:
        raises_clearly(graphs.about["left_out"])


def test_a_window_that_every_layer_has_is_followed(on_request, tmp_path, monkeypatch):
    """Mistral: its decoder knows no kinds of layer, and prompts are longer than the window."""
    text = zoo._SPECS["mistral3"][1]["text_config"]
    monkeypatch.setitem(text, "sliding_window", 8)
    pair = Pair.make("mistral3", tmp_path)
    (tmp_path / "graphs").mkdir()
    graphs = graphs_of(pair, tmp_path / "graphs")
    batch = pair.batch(None, None)
    assert batch["input_ids"].shape[1] > 8
    for found in compare(pair.model, graphs, [Case("text", ["first", "second"], batch)]):
        assert found.logits < 2e-5


def refuses(graphs, batch, visual):
    """A placeholder that has no vision graph spoils its row, and only its row."""
    ids = {
        name: value
        for name, value in arrays(batch).items()
        if not {"pixel", "features", "feature"} & set(name.split("_"))
    }
    with pytest.raises(ValueError, match=r"cannot tell|do not match"):
        graphs.begin(ids)
    text = {name: ids[name][:1] for name in ("input_ids", "attention_mask")}
    assert np.isfinite(graphs.begin(text)[1].logits).all(), visual
