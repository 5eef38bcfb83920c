"""Graphs beside PyTorch: requests to compare them on, answers, and the steering constants."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.common.errors import ExportError
from mars_export.common.progress import Tick
from mars_export.common.vocabulary import Modality
from mars_export.evaluation.generation import GREEDY
from mars_export.evaluation.selfcheck import probe_request
from mars_export.inputs.prompts import packaged
from mars_export.inputs.requests import Request
from mars_export.inputs.stimuli import STIMULI
from mars_export.integrations.onnx.record import Parity
from mars_export.integrations.onnx.runner import SteeredOnnx, Step

__all__ = [
    "TOKENS",
    "TOLERANCE",
    "Case",
    "arrays",
    "check_requests",
    "compare",
    "require_constants",
]

TOLERANCE: Final = 1e-4
"""Largest difference that rounding may explain, relative to the largest logit, gate or push."""

TOKENS: Final = 64
"""Greedy tokens that must be equal."""

_SEEN: Final = 100
"""Steering is seen in the logits where it changes them by this many times what rounding does."""

_NO_TOKEN: Final = 1 << 30
"""No model has so many: nothing ends an answer early."""

_PROMPTS_OF_A_LABEL: Final = 3
_SEED: Final = 0


@dataclass(frozen=True)
class Case:
    """A batch of requests of one modality, as the processor gives it."""

    modality: Modality
    prompts: Sequence[str]
    inputs: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class _Reference:
    """PyTorch's answers: logits (steps, B, V), tokens (B, steps), and without steering (B, V)."""

    logits: np.ndarray
    tokens: np.ndarray
    off: np.ndarray
    steered: list[list[Any]]


def compare(
    model: Any,
    graphs: SteeredOnnx,
    cases: Sequence[Case],
    tokens: int = TOKENS,
    tick: Tick | None = None,
) -> list[Parity]:
    """Compare greedy answers, steering on.

    Args:
        model: Steered, in float32 on the CPU.
        graphs: Made from it.
        cases: Batches.
        tokens: Length of the answers, whatever the model's stop token.
        tick: Progress.

    Raises:
        ExportError: if logits, tokens or steering differ, or if no request was steered by so much
            that its absence would have been seen.
    """
    found: list[Parity] = []
    for number, case in enumerate(cases):
        if tick:
            tick(number, len(cases))
        found += _compare(model, graphs, case, tokens)
    if not any(p.effect > _SEEN * max(TOLERANCE, p.logits) for p in found):
        raise ExportError(
            "no request that was tried is steered, so nothing shows that the graphs steer; "
            "recalibrate the checkpoint, or look at its gate with `mars-export drift`"
        )
    return found


def _compare(model: Any, graphs: SteeredOnnx, case: Case, tokens: int) -> list[Parity]:
    reference = _answer(model, case.inputs, tokens)
    try:
        steps = _follow(graphs, case.inputs, reference.tokens)
    except ValueError as error:
        raise ExportError(f"{_name(case, 0)}: {error}; nothing is written") from error
    parts = []
    for row in range(len(case.prompts)):
        names = graphs.about["modalities"]
        _check_steering(case, row, steps[0], reference.steered[row], names)
        differences = [
            _difference(step.logits[row], reference.logits[t, row]) for t, step in enumerate(steps)
        ]
        _check_logits(case, row, steps, reference, differences)
        header = np.flatnonzero(steps[0].steered[row])[-1]
        parts.append(
            Parity(
                modality=case.modality,
                prompt=case.prompts[row],
                logits=differences[0],
                decoded=max(differences[1:], default=0.0),
                tokens=len(steps),
                gate=float(steps[0].gate[row, header]),
                strength=float(steps[0].strength[row, header]),
                effect=_difference(reference.off[row], reference.logits[0, row]),
            )
        )
    return parts


@torch.no_grad()
def _answer(model: Any, inputs: Mapping[str, torch.Tensor], tokens: int) -> _Reference:
    """PyTorch's greedy answers of a fixed length."""
    with model.steering.off():
        off = model(**inputs).logits[:, -1]
    out = model.generate(
        **inputs,
        **GREEDY,
        max_new_tokens=tokens,
        eos_token_id=_NO_TOKEN,
        return_dict_in_generate=True,
        output_logits=True,
    )
    width = inputs["input_ids"].shape[1]
    return _Reference(
        torch.stack(out.logits).float().numpy(),
        out.sequences[:, width:].numpy(),
        off.float().numpy(),
        list(model.steering.last),
    )


def _follow(
    graphs: SteeredOnnx, inputs: Mapping[str, torch.Tensor], tokens: np.ndarray
) -> list[Step]:
    """The graphs' steps when they are given PyTorch's tokens (B, steps).

    They end where the tokens begin a turn: the graph goes by all tokens alike, and PyTorch's
    generate() does not look at those that it wrote itself.
    """
    conversation, step = graphs.begin(arrays(inputs))
    steps = [step]
    for column in tokens.T[:-1]:
        step = graphs.forward(conversation, column[:, None].astype(np.int64), generated=True)
        if step.steered.any() or not step.answering.all():
            break
        steps.append(step)
    return steps


def arrays(inputs: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Inputs as the runner takes them."""
    return {name: value.numpy() for name, value in inputs.items()}


def _check_steering(
    case: Case, row: int, step: Step, wanted: list[Any], modalities: Sequence[str]
) -> None:
    """One entry for each place that PyTorch steered, and the same gate and push."""
    places = np.flatnonzero(step.steered[row])
    columns = (x[row, places] for x in (step.modality, step.gate, step.strength, step.calibrated))
    seen = [(modalities[modality], *rest) for modality, *rest in zip(*columns, strict=True)]
    expected = [(p.modality, p.gate, p.strength, p.calibrated) for p in wanted]
    same = len(seen) == len(expected) and all(
        a[0] == b[0] and all(_near(x, y) for x, y in zip(a[1:], b[1:], strict=True))
        for a, b in zip(seen, expected, strict=True)
    )
    if not same:
        raise ExportError(
            f"{_name(case, row)}: the graph does not steer as PyTorch does ({_told(seen)} instead "
            f"of {_told(expected)}); nothing is written"
        )


def _check_logits(
    case: Case, row: int, steps: list[Step], reference: _Reference, differences: list[float]
) -> None:
    for t, (step, difference) in enumerate(zip(steps, differences, strict=True)):
        logits = reference.logits[t, row]
        if not difference <= TOLERANCE * _scale(float(np.abs(logits).max())):  # NaN fails too
            raise ExportError(
                f"{_name(case, row)}: logits of token {t} differ from PyTorch's by "
                f"{difference:.1e}; nothing is written"
            )
        if step.logits[row].argmax() != reference.tokens[row, t]:
            raise ExportError(
                f"{_name(case, row)}: greedy token {t} is not PyTorch's; nothing is written"
            )


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


def _scale(size: float) -> float:
    return max(1.0, size)


def _near(a: float, b: float) -> bool:
    return abs(float(a) - b) <= TOLERANCE * _scale(abs(b)) * 10


def _told(places: Sequence[tuple[Any, ...]]) -> str:
    return "; ".join(f"{m}, gate {g:.4g}, push {s:.4g}" for m, g, s, _ in places) or "nothing"


def _name(case: Case, row: int) -> str:
    return f"the {case.modality} request {case.prompts[row]!r}"


def check_requests(directory: Path, modalities: list[Modality]) -> dict[Modality, list[Request]]:
    """Harmful and harmless requests of every modality.

    Those that the calibration recorded; of a checkpoint without a manifest, which training has
    changed, packaged prompts with neutral stimuli.
    """
    if (directory / MANIFEST_NAME).is_file():
        record = Manifest.read(directory).calibration
        found = {m: [p for p in record.probes if p.modality == m] for m in modalities}
        return {m: [probe_request(record.source, p) for p in probes] for m, probes in found.items()}
    sets = packaged()
    labels = (sets.harmful, sets.harmless)
    prompts = [p for label in labels for p in label.decision[:_PROMPTS_OF_A_LABEL]]
    return {m: [_shown(m, i, prompt) for i, prompt in enumerate(prompts)] for m in modalities}


def _shown(modality: Modality, number: int, prompt: str) -> Request:
    if modality == "text":
        return Request(prompt)
    return Request(prompt, (STIMULI[modality].draw(number, _SEED),))


def require_constants(path: Path, tensors: dict[str, Any]) -> None:
    """Check the graph's own constants; how they act, the comparison with PyTorch shows.

    Args:
        path: The decoder graph.
        tensors: Those of the checkpoint's rule, float32.

    Raises:
        ExportError: if one is not there, or with another value.
    """
    import onnx
    from onnx.numpy_helper import to_array

    # The weights may be large and lie in a file of their own: only small tensors are read.
    initializers = onnx.load(str(path), load_external_data=False).graph.initializer
    sizes = {tensor.numel() for tensor in tensors.values()}
    floats = [i for i in initializers if i.data_type == onnx.TensorProto.FLOAT]
    small = [i for i in floats if math.prod(i.dims) in sizes]
    there = {to_array(i, base_dir=str(path.parent)).tobytes() for i in small}
    for name, wanted in tensors.items():
        if wanted.numpy().tobytes() not in there:
            raise ExportError(
                f"{path.name}: the steering's {name} is not in the graph as it is in the "
                "checkpoint; nothing is written"
            )
