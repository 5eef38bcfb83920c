"""OpenVINO computes of our graphs what onnxruntime does. Where `openvino` is installed."""

import numpy as np
import pytest

from mars_export.integrations.onnx.runner import SteeredOnnx
from support.onnx_graphs import arrays

pytest.importorskip("openvino", reason="needs openvino, which nothing else needs")


@pytest.mark.parametrize("model_type", ["gemma3", "qwen3_vl", "llama"])
def test_gates_and_logits_are_those_of_onnxruntime_and_pytorch(tiny_graphs, model_type):
    from openvino_session import OpenVinoSession

    pair, graphs = tiny_graphs(model_type)
    other = SteeredOnnx(graphs.folder, session=OpenVinoSession)
    for batch in pair.batches().values():
        inputs = arrays(batch)
        _, want = graphs.begin(inputs)
        _, step = other.begin(inputs)
        assert (step.steered == want.steered).all()
        assert step.gate.max() > 0.4
        np.testing.assert_allclose(step.gate, want.gate, atol=1e-5)
        np.testing.assert_allclose(step.logits, want.logits, atol=2e-5)
        np.testing.assert_allclose(step.logits, pair.model(**batch).logits[:, -1], atol=2e-5)
        with pair.model.steering.off():
            assert abs(step.logits - pair.model(**batch).logits[:, -1].numpy()).max() > 1
        assert other.generate(inputs, 16, stop=()) == graphs.generate(inputs, 16, stop=())


def test_a_prompt_without_an_assistant_turn_is_refused(tiny_graphs):
    from openvino_session import OpenVinoSession

    pair, graphs = tiny_graphs("llama")
    other = SteeredOnnx(graphs.folder, session=OpenVinoSession)
    inputs = {name: value[:, :-1] for name, value in arrays(pair.batch(None)).items()}
    with pytest.raises(ValueError, match="does not end in an assistant turn"):
        other.begin(inputs)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_the_model_itself_is_not_converted(tiny_graphs, monkeypatch):
    """OpenVINO's converter for PyTorch lacks two operations that find the end of a header."""
    import openvino

    pair, _ = tiny_graphs("llama")
    monkeypatch.setattr(pair.model.config, "use_cache", False)
    with pytest.raises(Exception, match="cummax"):
        openvino.convert_model(pair.model, example_input=pair.batch(None))
