"""Do int8 graphs refuse what the float32 graphs refuse? Judged by rules on a suite."""

from pathlib import Path
from typing import Any, Final, NamedTuple

from mars_export.common.vocabulary import Modality
from mars_export.evaluation.judges.rules import classify
from mars_export.evaluation.suite import Sample, Suite, read_suite
from mars_export.inputs.requests import collate
from mars_export.integrations.onnx.parity import arrays
from mars_export.integrations.onnx.runner import SteeredOnnx

__all__ = ["Decisions", "suite_decisions"]

_NAME: Final = "suite.jsonl"
_BATCH: Final = 16
_TOKENS: Final = 32
_REFUSED: Final = ("refusal", "rebuttal")


class Decisions(NamedTuple):
    """Requests that both refuse or both answer, that the int8 graphs refuse, and all."""

    alike: int
    refused: int
    requests: int


def suite_decisions(
    directory: Path,
    processor: Any,
    modalities: list[Modality],
    graphs: SteeredOnnx,
    quantized: SteeredOnnx,
) -> Decisions | None:
    """Greedy answers of both to the evaluation requests of `directory`'s suite.

    Returns:
        None if the directory has no `suite.jsonl`.

    Raises:
        ExportError: if the suite cannot be read.
    """
    if not (directory / _NAME).is_file():
        return None
    suite = read_suite(directory / _NAME)
    pairs: list[tuple[bool, bool]] = []
    for modality in modalities:
        samples = suite.evaluation_samples([modality])
        for start in range(0, len(samples), _BATCH):
            batch = samples[start : start + _BATCH]
            refusals = (_refusals(suite, batch, processor, g) for g in (graphs, quantized))
            pairs += zip(*refusals, strict=True)
    return Decisions(sum(a == b for a, b in pairs), sum(b for _, b in pairs), len(pairs))


def _refusals(suite: Suite, batch: list[Sample], processor: Any, graphs: SteeredOnnx) -> list[bool]:
    """Whether each answer is a refusal."""
    inputs = arrays(collate(processor, [suite.request(sample) for sample in batch]))
    texts = processor.batch_decode(graphs.generate(inputs, _TOKENS), skip_special_tokens=True)
    pairs = zip(batch, texts, strict=True)
    return [classify(sample.prompt, text) in _REFUSED for sample, text in pairs]
