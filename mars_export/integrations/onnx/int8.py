"""Dynamic int8 quantization, and what it changes: gates, tokens, and refusals on a suite."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from mars_export.common.errors import ExportError
from mars_export.common.quiet import without_advice
from mars_export.common.vocabulary import REFUSED, Modality
from mars_export.evaluation.judges.rules import classify
from mars_export.evaluation.suite import Sample, Suite, read_suite
from mars_export.inputs.requests import collate
from mars_export.integrations.onnx.parity import Case, arrays
from mars_export.integrations.onnx.record import Quantized
from mars_export.integrations.onnx.runner import SteeredOnnx

__all__ = ["GATE_TOLERANCE", "SuiteParity", "compare_int8", "quantize", "suite_parity"]

GATE_TOLERANCE: Final = 0.25
"""Largest change of a gate: 0 is shut, 1 the mean of harmful text. More would hide a lost one."""

_LARGE: Final = 1 << 30
"""Bytes from which weights go into a file of their own; protobuf ends at twice that."""

_SUITE_NAME: Final = "suite.jsonl"
_SUITE_BATCH: Final = 16
_SUITE_TOKENS: Final = 32


def quantize(source: Path, target: Path) -> None:
    """Write a graph again with the weights of its matrix products in int8, per output channel.

    Embeddings, norms and the steering, which is no matrix product, stay in float32.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(source))
    # Shapes that the exporter noted for inner values contradict what onnx infers for some.
    del model.graph.value_info[:]
    large = model.ByteSize() >= _LARGE
    with without_advice():
        quantize_dynamic(
            model,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=large,
            extra_options={"MatMulConstBOnly": True},
        )


def compare_int8(
    graphs: SteeredOnnx, quantized: SteeredOnnx, cases: Sequence[Case], tokens: int
) -> Quantized:
    """Compare int8 with float32 graphs, each answering greedily by itself.

    Raises:
        ExportError: if a gate differs by more than `GATE_TOLERANCE`.
    """
    logits, gates, equal, decided, total = 0.0, 0.0, 0, 0, 0
    for case in cases:
        inputs = arrays(case.inputs)
        (_, a), (_, b) = graphs.begin(inputs), quantized.begin(inputs)
        logits = max(logits, float(np.abs(a.logits - b.logits).max()))
        for row, prompt in enumerate(case.prompts):
            whole, small = (step.gate[row][a.steered[row]] for step in (a, b))
            change = float(np.abs(whole - small).max())
            same = bool((a.steered[row] == b.steered[row]).all())
            if not (same and change <= GATE_TOLERANCE):  # NaN fails too
                raise ExportError(
                    f"int8 changes the gate of the {case.modality} request {prompt!r} by "
                    f"{change:.3f}, and {GATE_TOLERANCE} is the most that is let through; export "
                    "without --int8"
                )
            gates = max(gates, change)
            decided += bool((whole[-1] > 0) == (small[-1] > 0))
        answers = (g.generate(inputs, tokens) for g in (graphs, quantized))
        for x, y in zip(*answers, strict=True):
            total += max(len(x), len(y))
            equal += _equal(x, y)
    requests = sum(len(case.prompts) for case in cases)
    return Quantized(
        requests=requests,
        logits=logits,
        tokens=equal / total,
        gate=gates,
        gate_tolerance=GATE_TOLERANCE,
        decisions=decided / requests,
    )


def _equal(a: Sequence[int], b: Sequence[int]) -> int:
    """Tokens before the first that differs."""
    pairs = zip(a, b, strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))


class SuiteParity(NamedTuple):
    """Requests that both refuse or both answer, that the int8 graphs refuse, and all."""

    alike: int
    refused: int
    requests: int


def suite_parity(
    directory: Path,
    processor: Any,
    modalities: list[Modality],
    graphs: SteeredOnnx,
    quantized: SteeredOnnx,
) -> SuiteParity | None:
    """Greedy answers of both to the evaluation requests of `directory`'s suite.

    Returns:
        None if the directory has no `suite.jsonl`.

    Raises:
        ExportError: if the suite cannot be read.
    """
    if not (directory / _SUITE_NAME).is_file():
        return None
    suite = read_suite(directory / _SUITE_NAME)
    pairs: list[tuple[bool, bool]] = []
    for modality in modalities:
        samples = suite.evaluation_samples([modality])
        for start in range(0, len(samples), _SUITE_BATCH):
            batch = samples[start : start + _SUITE_BATCH]
            refusals = (_refusals(suite, batch, processor, g) for g in (graphs, quantized))
            pairs += zip(*refusals, strict=True)
    return SuiteParity(sum(a == b for a, b in pairs), sum(b for _, b in pairs), len(pairs))


def _refusals(suite: Suite, batch: list[Sample], processor: Any, graphs: SteeredOnnx) -> list[bool]:
    """Whether each answer is a refusal."""
    inputs = arrays(collate(processor, [suite.request(sample) for sample in batch]))
    texts = processor.batch_decode(graphs.generate(inputs, _SUITE_TOKENS), skip_special_tokens=True)
    pairs = zip(batch, texts, strict=True)
    return [classify(sample.prompt, text) in REFUSED for sample, text in pairs]
