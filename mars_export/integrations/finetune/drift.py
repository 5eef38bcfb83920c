"""Measures how far training moved a steered checkpoint from its calibration."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from mars_export.calibration.activations import Reader, Readout
from mars_export.calibration.data import OPENERS, Measuring
from mars_export.calibration.directions import text_statistics
from mars_export.calibration.measurements import beside, neutral_requests
from mars_export.calibration.meter import Meter
from mars_export.calibration.refusal import refusal_tokens
from mars_export.checkpoint.derived import read_steering
from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import MODALITIES, Modality
from mars_export.evaluation.generation import load
from mars_export.families.quantization import NONE
from mars_export.inputs.prompts import PromptSets
from mars_export.inputs.requests import Request
from mars_export.integrations.finetune.record import Drift, Group, Snapshot
from mars_export.integrations.finetune.verdict import findings, verdict

__all__ = ["measure_drift"]


_Cell = tuple[Modality, bool]
"""Modality, and whether harmful."""


class _Measured(NamedTuple):
    snapshot: Snapshot
    direction: torch.Tensor
    """(d,) float64, unit; measured now."""


class _Stored(NamedTuple):
    """The steering of a checkpoint; coordinates in residual-stream units."""

    layer: int
    sha256: str
    modalities: tuple[Modality, ...]
    direction: torch.Tensor
    shift: dict[Modality, float]
    origin: float
    harmful: float
    reach: float
    quantization: str

    def gates(self, states: torch.Tensor, modality: Modality) -> torch.Tensor:
        """Coordinates z of the method notes, (N,) float64, of states (L, N, d)."""
        p = states[self.layer].double() @ self.direction - self.shift[modality]
        return (p - self.origin) / (self.harmful - self.origin)


def measure_drift(
    directory: Path,
    prompts: PromptSets,
    *,
    base: Path | None = None,
    device: str = "cpu",
    batch_size: int = 16,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    quantization: str | None = None,
) -> Drift:
    """Compare a trained checkpoint with the calibration that it carries.

    It is loaded as a user loads it, so its own code runs. The direction is measured anew from
    all prompts, without the filter of a calibration: what is no longer refused counts.

    Args:
        directory: Steered checkpoint that was trained on.
        prompts: Best those that it was calibrated on.
        base: The steered checkpoint before training.
        device: Torch device.
        batch_size: Requests per forward; halved by itself when memory runs out.
        seed: Seed of the neutral visuals.
        progress: Called with (requests done, requests in all).
        quantization: Scheme to load `directory` in; None for the one that it was calibrated in,
            as `base` always is.

    Raises:
        ExportError: if a directory is not steered, is damaged or does not load, or if `base`
            carries another steering.
    """
    stored = _stored(directory)
    if base is not None and _stored(base).sha256 != stored.sha256:
        raise ExportError(
            f"{directory} was not made from {base}: they carry different steering; give the "
            "steered checkpoint that the training began with"
        )
    meter = Meter(progress)
    held = len(prompts.harmful.validation) + len(prompts.harmless.validation)
    once = len(prompts.prompts) + held + 2 * held * (len(stored.modalities) - 1)
    meter.plan(once * (2 if base is not None else 1))

    def measure(folder: Path, scheme: str) -> _Measured:
        return _measure(folder, scheme, stored, prompts, device, batch_size, seed, meter)

    now = measure(directory, quantization or stored.quantization)
    before = measure(base, stored.quantization) if base is not None else None
    cosine = float(now.direction @ (before.direction if before else stored.direction))
    found = findings(now.snapshot, before.snapshot if before else None, cosine, stored.reach)
    return Drift(
        steering_sha256=stored.sha256,
        layer=stored.layer,
        prompts={"harmful": prompts.harmful.name, "harmless": prompts.harmless.name},
        now=now.snapshot,
        base=before.snapshot if before else None,
        cosine=cosine,
        findings=found,
        verdict=verdict(now.snapshot, found),
    )


def _stored(directory: Path) -> _Stored:
    rules, tensors = read_steering(directory)
    origin, harmful, _, slope, radius = tensors["bounds"].double().tolist()
    known = {"text", *rules["placeholders"]} - set(rules["refused"].values())
    shifts = zip(MODALITIES, tensors["shift"].double().tolist(), strict=True)
    return _Stored(
        layer=rules["layer"],
        sha256=rules["sha256"],
        modalities=tuple(m for m in MODALITIES if m in known),
        direction=tensors["direction"].double(),
        shift=dict(shifts),
        origin=origin,
        harmful=harmful,
        reach=radius / slope,
        quantization=rules.get("quantization", NONE),
    )


def _measure(
    directory: Path,
    quantization: str,
    stored: _Stored,
    prompts: PromptSets,
    device: str,
    batch_size: int,
    seed: int,
    meter: Meter,
) -> _Measured:
    loaded = load(directory, stored.modalities, device, None, quantization)
    tokenizer = getattr(loaded.processor, "tokenizer", loaded.processor)
    tokens = refusal_tokens(tokenizer, OPENERS)
    reader = Reader(loaded.model, loaded.processor, tokens, batch_size, meter)
    train = [_off(reader, _texts(s.train)) for s in (prompts.harmful, prompts.harmless)]
    shown = _requests(prompts, stored.modalities, seed)
    held = {cell: _off(reader, requests) for cell, requests in shown.items()}
    loaded.model.steering.enabled = True
    steered = {cell: reader.read(requests) for cell, requests in shown.items()}
    direction = text_statistics(train[0].states, train[1].states).direction[stored.layer]
    snapshot = Snapshot(
        name=directory.resolve().name,
        cosine=float(direction @ stored.direction),
        shift=_shift_errors(stored, held),
        groups=[_group(stored, cell, held[cell], steered[cell]) for cell in shown],
        usable={
            "harmful": (_count(train[0].log_odds > 0), _count(held["text", True].log_odds > 0)),
            "harmless": (_count(train[1].log_odds < 0), _count(held["text", False].log_odds < 0)),
        },
    )
    return _Measured(snapshot, direction)


def _requests(
    prompts: PromptSets, modalities: Sequence[Modality], seed: int
) -> dict[_Cell, tuple[Request, ...]]:
    """Validation prompts of both labels, alone and beside neutral visuals."""
    texts = {True: _texts(prompts.harmful.validation), False: _texts(prompts.harmless.validation)}
    shown: dict[_Cell, tuple[Request, ...]] = {}
    for modality in modalities:
        for harmful, requests in texts.items():
            n = len(requests)
            if modality != "text":
                visuals = neutral_requests(modality, n, Measuring(seed=seed))
                requests = beside(requests, visuals, range(n))
            shown[modality, harmful] = requests
    return shown


def _texts(prompts: Sequence[str]) -> tuple[Request, ...]:
    return tuple(Request(prompt) for prompt in prompts)


def _off(reader: Reader, requests: Sequence[Request]) -> Readout:
    reader.model.steering.enabled = False
    return reader.read(requests, states=True)


def _group(stored: _Stored, cell: _Cell, off: Readout, on: Readout) -> Group:
    z = stored.gates(off.states, cell[0])
    return Group(
        modality=cell[0],
        harmful=cell[1],
        n=len(z),
        gate=float(z.mean()),
        open=_count(z > 0),
        refused_off=_count(off.log_odds > 0),
        refused_on=_count(on.log_odds > 0),
    )


def _shift_errors(stored: _Stored, held: dict[_Cell, Readout]) -> dict[Modality, float]:
    """(beta now - stored) / (p_u - o): what is left of re-centring, on harmless pairs."""
    text = stored.gates(held["text", False].states, "text")
    visual = [m for m in stored.modalities if m != "text"]
    return {m: float((stored.gates(held[m, False].states, m) - text).mean()) for m in visual}


def _count(hits: torch.Tensor) -> int:
    return int(hits.sum())
