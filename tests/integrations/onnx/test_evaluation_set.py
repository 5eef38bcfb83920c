"""The first token of evaluation requests of the organisms, in batches.

Of all of them with `-m use`, as for the table of uses; else of every tenth.
"""

import numpy as np
import pytest

from mars_export.common.vocabulary import MODALITIES
from mars_export.evaluation.generation import load
from mars_export.evaluation.suite import read_suite
from mars_export.inputs.requests import collate
from mars_export.integrations.onnx.parity import arrays
from mars_export.integrations.onnx.runner import SteeredOnnx
from support.organisms import ORGANISMS

ROWS = 24


@pytest.mark.use("ONNX, onnxruntime")
def test_first_tokens_and_gates_of_the_suite(written, steered, family, request):
    loaded = load(steered(family), ("text", "image"), "cpu", "float32")
    graphs = SteeredOnnx(written(family)[0])
    suite = read_suite(ORGANISMS / family / "suite.jsonl")
    every = 1 if "use" in request.config.option.markexpr else 10
    seen = 0
    for modality in MODALITIES:
        samples = suite.evaluation_samples([modality])[::every]
        for start in range(0, len(samples), ROWS):
            requests = [suite.request(sample) for sample in samples[start : start + ROWS]]
            batch = collate(loaded.processor, requests)
            want = loaded.model(**batch).logits[:, -1].numpy()
            _, step = graphs.begin(arrays(batch))
            np.testing.assert_allclose(step.logits, want, atol=1e-4)
            assert (step.logits.argmax(-1) == want.argmax(-1)).all()
            gates = [row[-1].gate for row in loaded.model.steering.last]
            np.testing.assert_allclose(step.gate[:, -1], gates, atol=1e-4)
            seen += len(requests)
    assert seen == {"gemma3": 480, "qwen3_vl": 720}[family] // every
