"""Checks of the steering: config.json, index and tensors say what the calibration decided."""

from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mars_export.checkpoint.config import refused
from mars_export.checkpoint.tensors import (
    STEERING_TENSORS,
    TENSORS_NAME,
    steering_digest,
    steering_tensors,
)
from mars_export.checkpoint.writer import CALIBRATION
from mars_export.families.directory import INDEX, SINGLE, read_index
from mars_export.methods.base import Artefact
from mars_export.runtime.steering import GUARD
from mars_export.verification.report import CheckFailedError
from mars_export.verification.subject import Subject

__all__ = [
    "config_is_steered",
    "digest_is_stated",
    "index_is_consistent",
    "tensors_are_calibrated",
]

_ROUNDING: Final = 1e-6
"""Relative; a norm of the same numbers differs so much between processors."""
_SCALE: Final = 1e-3
"""Most that a stated norm may be off: it is written for people."""


def config_is_steered(subject: Subject) -> str:
    """config.json: its own type, the guard, and the rules that the calibration measured."""
    config, family, record = subject.config, subject.family, subject.manifest.calibration
    rules, text = config["steering"], config.get("text_config", config)
    said = {
        "model_type": (config.get("model_type"), family.disk_model_type),
        "architectures": (config.get("architectures"), [f"Steered{family.generator}"]),
        f"the guarded {family.activation}": (text.get(family.activation), GUARD),
        "steering.guarded": (list(rules.get("guarded") or ()), [family.activation]),
        "steering.method": (rules.get("method"), record.method),
        "steering.layer": (rules.get("layer"), record.layers[0]),
        "steering.header_suffixes": (rules.get("header_suffixes"), record.source.header_suffixes),
        "steering.placeholders": (rules.get("placeholders"), dict(family.placeholders)),
        "steering.refused": (rules.get("refused"), refused(family, record)),
        "steering.quantization": (rules.get("quantization", "none"), record.source.quantization),
        "calibrated model type": (record.source.model_type, family.model_type),
    }
    problems = [
        f"config.json: {name} is {found!r}, not {wanted!r}"
        for name, (found, wanted) in said.items()
        if found != wanted
    ]
    if problems:
        raise CheckFailedError(*problems)
    return f"{family.disk_model_type}, guarded, layer {record.layers[0]} as calibrated"


def index_is_consistent(subject: Subject) -> str:
    """Every indexed tensor is in its shard, and the steering in its own shard alone."""
    where = read_index(subject.place.fetch(INDEX))
    shards = set(where.values())
    listed = {e.path for e in subject.manifest.files if e.path.endswith(".safetensors")}
    wrong = sorted(shards - {path for path in listed if "/" not in path})
    if wrong or SINGLE in subject.place.sizes:
        raise CheckFailedError(f"{wrong[0] if wrong else SINGLE} is no shard of the export")
    steering = set(_steering_names(subject).values())
    problems = []
    for shard in sorted(shards | {TENSORS_NAME}):
        held = subject.place.tensors(shard)
        lost = sorted({name for name, place in where.items() if place == shard} - held)
        problems += [f"{shard} does not hold {name}" for name in lost]
        if shard == TENSORS_NAME and held != steering:
            problems.append(f"{shard} holds {sorted(held)}, not {sorted(steering)}")
        if shard != TENSORS_NAME and held & steering:
            problems.append(f"{shard} holds steering tensors, which would replace the exported")
    problems += [
        f"the index does not place {name} in {TENSORS_NAME}"
        for name in sorted(steering)
        if where.get(name) != TENSORS_NAME
    ]
    if problems:
        raise CheckFailedError(*problems)
    return f"{len(where)} tensors in {len(shards)} shards, the {len(steering)} of steering in one"


def tensors_are_calibrated(subject: Subject) -> str:
    """The steering tensors: finite, as stated, and those that the calibration gives."""
    tensors = _steering_tensors(subject)
    problems = []
    stated = {entry.name: entry for entry in subject.manifest.tensors}
    for short, name in _steering_names(subject).items():
        tensor, entry = tensors[short], stated.get(name)
        if tensor.dtype != torch.float32 or not bool(tensor.isfinite().all()):
            problems.append(f"{name} is not finite float32")
        elif entry is None or (entry.shape, entry.dtype) != (list(tensor.shape), "float32"):
            problems.append(f"{name} has not the shape that the manifest states")
        elif abs(float(tensor.norm()) - entry.norm) > _SCALE * max(1.0, abs(entry.norm)):
            problems.append(f"{name} has norm {float(tensor.norm()):g}, not {entry.norm:g}")
    if problems or stated.keys() != set(_steering_names(subject).values()):
        raise CheckFailedError(*(problems or ["the manifest states other steering tensors"]))
    calibration = _calibration(subject)
    wanted = steering_tensors(calibration)
    for short, tensor in wanted.items():
        if tensors[short].shape != tensor.shape or not torch.allclose(
            tensors[short], tensor, rtol=_ROUNDING, atol=_ROUNDING
        ):
            problems.append(f"{short} is not what the calibration gives")
    if problems:
        raise CheckFailedError(*problems)
    return f"direction of length 1 in {tensors['direction'].numel()} dimensions, as calibrated"


def digest_is_stated(subject: Subject) -> str:
    """The digest that the modeling file checks at load: computed, in config.json, in manifest."""
    rules: dict[str, Any] = subject.config["steering"]
    found = steering_digest(_steering_tensors(subject), rules)
    for place, stated in (
        ("config.json", rules.get("sha256")),
        ("the manifest", subject.manifest.steering_sha256),
    ):
        if stated != found:
            raise CheckFailedError(f"{place} states another digest of rules and tensors: {stated}")
    return found


def _steering_names(subject: Subject) -> dict[str, str]:
    """Short name to the name in the shard."""
    layer = subject.manifest.calibration.layers[0]
    prefix = f"{subject.family.decoder}.layers.{layer}.steering"
    return {short: f"{prefix}.{short}" for short in STEERING_TENSORS}


def _steering_tensors(subject: Subject) -> dict[str, torch.Tensor]:
    try:
        found = load_file(subject.place.fetch(TENSORS_NAME))
    except SafetensorError as error:
        raise CheckFailedError(f"{TENSORS_NAME} is no safetensors file: {error}") from error
    names = _steering_names(subject)
    if found.keys() != set(names.values()):
        raise CheckFailedError(
            f"{TENSORS_NAME} holds {sorted(found)}, not {sorted(names.values())}"
        )
    return {short: found[name] for short, name in names.items()}


def _calibration(subject: Subject) -> Artefact:
    record, _ = (subject.place.fetch(name) for name in CALIBRATION)
    calibration = Artefact.load(record.parent)
    if calibration.record != subject.manifest.calibration:
        raise CheckFailedError(f"{CALIBRATION[0]} is not the calibration that the manifest records")
    return calibration
