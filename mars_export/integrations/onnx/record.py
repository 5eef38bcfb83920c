"""What stands beside the graphs: `steered_onnx.json`. Free of torch."""

from typing import Final, Literal

from mars_export.common.header import Header
from mars_export.common.record import Record, VersionedRecord
from mars_export.common.vocabulary import Modality

__all__ = ["ONNX_RECORD_NAME", "About", "Component", "Onnx", "Parity", "Quantized", "Source"]

ONNX_RECORD_NAME: Final = "steered_onnx.json"


class Source(Record):
    """The steered checkpoint that the graphs were made from."""

    name: str
    steering_sha256: str
    """Digest of its steering tensors and rules, `config.steering`."""
    config_sha256: str
    """Of its config.json."""


class About(Record):
    """What a caller of the graphs must know."""

    model_type: str
    layers: list[int]
    """The steered decoder layers, from 0."""
    modalities: list[Modality]
    """Names of the indices that the decoder gives as `modality`."""
    headers: list[Header]
    """How an assistant turn begins."""
    placeholders: dict[Modality, int]
    """Token that a feature of the modality takes the place of."""
    hidden_size: int
    rotary_axes: Literal[1, 3]
    """3: the decoder takes `position_ids`."""
    deepstack_levels: int
    vision: Literal["pixels", "single", "tile", "grid"] | None
    left_out: str | None
    """Why the graphs refuse a modality that the checkpoint takes, if they do."""
    merge: int
    """Patches of a picture that make one feature, along each side."""
    stop_tokens: list[int]


class Component(Record):
    """One graph."""

    files: dict[str, str]
    """Name to SHA-256; weights beyond the graph file stand in a second one."""
    opset: int
    inputs: dict[str, list[str | int]]
    """Name to shape; a word is a size that varies."""
    outputs: dict[str, list[str | int]]


class Parity(Record):
    """One request, the graphs beside PyTorch in float32."""

    modality: Modality
    prompt: str
    logits: float
    """Largest difference of the first token's logits."""
    decoded: float
    """The same over the tokens that follow."""
    tokens: int
    """Greedy tokens that were compared, all equal."""
    gate: float
    """Of the graph, at the prompt's last header."""
    strength: float
    """Length of the push, residual-stream units."""
    effect: float
    """Largest difference of the first token's logits from PyTorch's with steering off."""


class Quantized(Record):
    """The int8 graphs beside the float32 ones."""

    requests: int
    logits: float
    """Largest difference of the first token's logits."""
    tokens: float
    """Share of greedy tokens that are equal up to each answer's first difference."""
    gate: float
    """Largest difference of the gate at prompts' headers."""
    gate_tolerance: float
    decisions: float
    """Share of requests whose gate is open, or shut, in both."""
    suite_alike: int | None = None
    """Requests of the checkpoint's own suite that both refuse, or both answer; None without one."""
    suite_refused: int | None = None
    """Of those requests, how many the int8 graphs refuse."""
    suite_requests: int | None = None


class Onnx(VersionedRecord):
    """The whole record."""

    schema_version: int = 2
    source: Source
    model: About
    components: dict[str, Component]
    versions: dict[str, str]
    tolerance: float
    """Largest difference of logits that parity allows, relative to the largest logit."""
    parity: list[Parity]
    int8: Quantized | None = None
