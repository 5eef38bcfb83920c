"""Does the loaded checkpoint steer as calibrated, and only where it should?

A checkpoint whose steering is not active looks like any other, so nothing is said about steering
before this check. The check never raises: whatever goes wrong means that steering is not known to
work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import torch

from mars_export.checkpoint.manifest import Manifest
from mars_export.common.errors import ExportError
from mars_export.evaluation.generation import Answers, Loaded, SteeredPosition, load_calibrated
from mars_export.evaluation.report import REFERENCE, STEERED, FirstToken, SelfCheck
from mars_export.families.placement import Device
from mars_export.inputs.requests import Request
from mars_export.inputs.stimuli import STIMULI
from mars_export.methods.base import ArtefactRecord, CalibrationSource, Decision, Probe
from mars_export.runtime.positions import header_ends

__all__ = ["TOLERANCE", "load_checked", "probe_request", "self_check"]

TOLERANCE: Final = {
    "float32": 2e-4,
    "float16": 1e-2,
    "bfloat16": 5e-2,
    # Rounds activations to float16; which of their columns it does not depends on the batch.
    "bnb-8bit": 1e-2,
    # Multiplies in bfloat16 on processors that can. What `own` stands for may do so too.
    "bnb-4bit": 5e-2,
    "own": 5e-2,
}
"""Rounding of a coordinate that other batch shapes and kernels bring, relative to its size."""

_CANDIDATES: Final = 8
"""First tokens that the fingerprint keeps of each answer."""

_WHERE: Final = {
    "turn_end": "one steered position each, at the assistant header",
    "answer": "steered where the answer begins",
    "none": "only visual tokens near a prototype are pushed",
}
"""By the positions of the rules, in the sentence of the self-check."""

_TOKENS: Final = 2
"""One is steered; the second shows that decoding is not."""


class _FailedError(Exception):
    """The reason why steering is not known to work, as one sentence."""


class _Distance(NamedTuple):
    """Of what was seen from what was calibrated, relative to its scale."""

    gate: float
    strength: float


def load_checked(
    directory: Path, manifest: Manifest, device: Device, dtype: str | None = None
) -> Loaded:
    """Load a steered checkpoint, and see that it steers.

    Args:
        directory: Steered checkpoint.
        manifest: Of that directory.
        device: Name of a torch device, or another placement.
        dtype: Name of a torch dtype; None for the one that it is saved in.

    Raises:
        ExportError: It does not load, or does not steer as calibrated.
    """
    loaded = load_calibrated(directory, manifest.calibration, device, dtype)
    check = self_check(loaded, manifest)
    if not check.active:
        raise ExportError(f"{directory} does not steer as calibrated: {check.detail}")
    return loaded


def self_check(loaded: Loaded, manifest: Manifest) -> SelfCheck:
    """Run the probes of the calibration with steering off, off again, and on.

    Active means, for every probe: exactly the positions of the method are steered (of one that acts
    where an answer begins, the end of the assistant header alone), with the numbers of the probe's
    own modality; gate and strength are the recorded ones within a tolerance for the dtype, which
    must tell an open gate from a shut one; a push that matters has at least half its length; logits
    with steering off repeat bit for bit, differ from those with steering on where the push is more
    than rounding, and equal them where it is zero. At least one probe has such a push.

    A checkpoint that was trained on and keeps the calibration of before is not compared with its
    numbers; at least one probe must be pushed.

    Args:
        loaded: The steered directory as a user loads it.
        manifest: Of that directory.
    """
    try:
        fingerprint: list[FirstToken] = []
        origin = manifest.base.derived_from
        kept = origin is not None and not origin.calibrated
        detail = _run(loaded, manifest.calibration, fingerprint, kept)
        return SelfCheck(active=True, detail=detail, fingerprint=fingerprint)
    except _FailedError as reason:
        return SelfCheck(active=False, detail=str(reason))
    except Exception as error:  # whatever it is, steering is not known to work
        message = " ".join(str(error).split())
        detail = f"The self-check could not be run: {type(error).__name__}: {message}"
        return SelfCheck(active=False, detail=detail)
    finally:
        if hasattr(loaded.model, "steering"):
            loaded.model.steering.enabled = True


def _run(loaded: Loaded, record: ArtefactRecord, fingerprint: list[FirstToken], kept: bool) -> str:
    """Check every probe and add its first tokens to `fingerprint`."""
    tolerance = _tolerance(loaded, record.source)
    if not any(_matters(probe, probe.expected.strength, tolerance) for probe in record.probes):
        raise _FailedError("The calibration has no probe with a positive strength.")
    distances, changes = [], 0
    for number, probe in enumerate(record.probes):
        distance, first = _probe(loaded, record, probe, tolerance, kept)
        distances.append(distance)
        changes += not torch.equal(first[REFERENCE], first[STEERED])
        fingerprint += [_first_token(number, arm, logits) for arm, logits in first.items()]
    if kept and not changes:
        raise _FailedError("After training no probe of the calibration is pushed any longer.")
    where = _WHERE.get(str(record.rules.get("positions")), "steered throughout")
    if kept:
        return (
            f"{len(distances)} probes: {where}; {changes} pushed; logits with steering off repeat "
            "bit for bit. Gates and strengths are not compared: the calibration is from before "
            "training."
        )
    return (
        f"{len(distances)} probes: {where}; {_largest(record.probes, distances, tolerance)}"
        "logits with steering off repeat bit for bit."
    )


def _largest(probes: Sequence[Probe], distances: Sequence[_Distance], tolerance: float) -> str:
    """The largest differences, in the numbers that the method has."""
    stated = [
        f"{max(getattr(distance, number) for distance in distances):.1e} in the {number}"
        for number in _Distance._fields
        if any(getattr(probe.expected, number) is not None for probe in probes)
    ]
    if not stated:
        return ""
    differences = " and ".join(stated)
    return f"largest difference from the calibration {differences} (tolerance {tolerance:.0e}); "


def _matters(probe: Probe, strength: float | None, tolerance: float) -> bool:
    """Whether a push is more than rounding; of a method that names no strength, every one is."""
    if strength is None:
        return probe.expected.active
    return strength > 0 and (probe.significant or strength > tolerance * probe.strength_scale)


def _tolerance(loaded: Loaded, source: CalibrationSource) -> float:
    """That of the coarsest rounding involved."""
    running = str(loaded.model.dtype).removeprefix("torch.")
    involved = (source.dtype, running, source.quantization)
    return max(TOLERANCE.get(name, TOLERANCE["float32"]) for name in involved)


def _first_token(number: int, arm: str, logits: torch.Tensor) -> FirstToken:
    """The head of one row of logits (1, V)."""
    best = logits[0].float().topk(min(_CANDIDATES, logits.shape[-1]))
    finite = best.values.isfinite()
    values, tokens = best.values[finite].tolist(), best.indices[finite].tolist()
    return FirstToken(probe=number, arm=arm, tokens=tokens, logits=values)


def _probe(
    loaded: Loaded, record: ArtefactRecord, probe: Probe, tolerance: float, kept: bool
) -> tuple[_Distance, dict[str, torch.Tensor]]:
    """How far a probe is from the calibration, and the logits (1, V) of its first token."""
    name = f"the {probe.modality} probe {probe.prompt!r}"
    inputs = loaded.inputs([probe_request(record.source, probe)])
    off, again, on = (loaded.answer(inputs, _TOKENS, steered=on) for on in (False, False, True))
    if not torch.equal(off.logits, again.logits):
        raise _FailedError(f"With steering off the logits of {name} do not repeat.")
    last = _seen(on, record, inputs, probe, name)
    changed = not torch.equal(off.logits, on.logits)
    pushed = any(steered.strength != 0 for steered in on.steered[0])  # earlier turns, too
    if (changed and not pushed) or (not changed and _matters(probe, last.strength, tolerance)):
        verb = "changes" if changed else "does not change"
        raise _FailedError(f"A strength of {_number(last.strength)} {verb} the logits of {name}.")
    first = {REFERENCE: off.logits, STEERED: on.logits}
    if kept:
        return _Distance(0.0, 0.0), first
    _check_strength(last, probe, name)
    return _distance(last, probe, tolerance, name), first


def probe_request(source: CalibrationSource, probe: Probe) -> Request:
    """The probe with the neutral stimuli that it was calibrated with."""
    if not probe.stimuli:
        return Request(probe.prompt, history=probe.history)
    neutral, stimulus = source.stimuli[probe.modality], STIMULI[probe.modality]
    if neutral.generator != stimulus.generator:
        raise _FailedError(f"The neutral stimuli {neutral.generator!r} cannot be made again.")
    size = (neutral.width, neutral.height)
    extent = (neutral.frames, neutral.kinds, neutral.seconds)
    shown = tuple(stimulus.draw(i, neutral.seed, size, *extent) for i in probe.stimuli)
    return Request(probe.prompt, shown, history=probe.history)


def _positions(record: ArtefactRecord, inputs: Mapping[str, torch.Tensor]) -> list[int]:
    """Where a prompt (1, T) is to be steered: at its header, up to there, or throughout."""
    tokens = inputs["input_ids"][inputs["attention_mask"] != 0]
    headers = [header.model_dump() for header in record.source.headers]
    ends: list[int] = header_ends(tokens[None], headers)[0].nonzero()[:, 0].tolist()
    policy = record.rules.get("positions")
    if policy == "turn_end":
        return ends
    if policy == "answer":
        return [len(tokens) - 1 + step for step in range(_TOKENS)]
    return list(range(max(ends, default=-1) + 1 if policy == "prompt" else len(tokens)))


def _seen(
    on: Answers,
    record: ArtefactRecord,
    inputs: Mapping[str, torch.Tensor],
    probe: Probe,
    name: str,
) -> SteeredPosition | Decision:
    """What was done where a probe looks: at a visual token that it names, or at its last header."""
    position, seen = probe.expected.position, on.steered[0]
    if record.rules.get("positions") == "answer":
        _check_positions(seen, record, _positions(record, inputs), name)
        # The first token is that of the probe; what follows depends on what was steered there.
        return _of_modality(seen[0], probe, name)
    visual = [s for s in seen if s.layer < 0]
    rest = [s for s in seen if s.layer >= 0]
    if position is None and record.layers:
        _check_positions(rest, record, _positions(record, inputs), name)
    elif position is None:
        if visual:
            raise _FailedError(f"Visual tokens of {name} are pushed, and none was to be.")
        return Decision(active=False, gate=0.0, strength=0.0)
    else:
        rest = [s for s in visual if s.position == position]
        if not rest:
            raise _FailedError(f"The visual token at position {position} of {name} is not pushed.")
    return _of_modality(rest[-1], probe, name)


def _of_modality(steered: SteeredPosition, probe: Probe, name: str) -> SteeredPosition:
    if steered.modality != probe.modality:
        raise _FailedError(f"The checkpoint takes {name} for a {steered.modality} request.")
    return steered


def _check_positions(
    steered: Sequence[SteeredPosition], record: ArtefactRecord, expected: list[int], name: str
) -> None:
    """Those that are expected, once in every layer."""
    where = sorted(one.position for one in steered)
    if not expected:
        raise _FailedError(f"No assistant header of the chat template is in {name}.")
    if where != sorted(expected * max(1, len(record.layers))):
        instead = f"{expected[0]} to {expected[-1]}" if expected[1:] else f"{expected[0]} alone"
        raise _FailedError(f"Steering of {name} is at positions {where} instead of {instead}.")


def _check_strength(last: SteeredPosition | Decision, probe: Probe, name: str) -> None:
    expected = probe.expected.strength
    strength = math.nan if last.strength is None else last.strength
    if probe.significant and expected is not None and not strength >= expected / 2:  # NaN too
        raise _FailedError(
            f"Strength {_number(last.strength)} of {name} is less than half of the calibrated "
            f"{expected:.4g}."
        )


def _distance(
    last: SteeredPosition | Decision, probe: Probe, tolerance: float, name: str
) -> _Distance:
    gate, strength = probe.expected.gate, probe.expected.strength
    off = _Distance(
        _difference(last.gate, gate),
        _difference(last.strength, strength),
    )
    distance = _Distance(off.gate / probe.gate_scale, off.strength / probe.strength_scale)
    # Where coordinates are large, rounding of the dtype excuses much; never an open gate seen shut.
    near = off.gate <= probe.gate_limit
    if not (near and all(part <= tolerance for part in distance)):  # NaN fails too
        expected = [f"{value:.4g}" for value in (gate, strength) if value is not None]
        raise _FailedError(
            f"Gate {_number(last.gate)} and strength {_number(last.strength)} of {name} are not "
            f"the calibrated {' and '.join(expected)}."
        )
    return distance


def _difference(actual: float | None, expected: float | None) -> float:
    """NaN, which fails every check, where a number that is expected is absent."""
    if expected is None:
        return 0.0
    return math.nan if actual is None else abs(actual - expected)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
