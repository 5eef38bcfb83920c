"""The steering tensors as the checkpoint holds them."""

import re
from collections.abc import Mapping
from typing import Any, Final

import torch

from mars_export.common.errors import ExportError
from mars_export.methods import method_named
from mars_export.methods.base import Artefact, ArtefactRecord, Method
from mars_export.runtime.layer import AT_MODEL, steering_digest

__all__ = [
    "STEERING_NAME",
    "LayerTensors",
    "push_problem",
    "steering_digest",
    "steering_tensors",
    "tensor_names",
    "tensor_place",
    "tensors_at_first",
]

STEERING_NAME: Final = "steering.safetensors"
_NAME: Final = re.compile(r"(?:^|\.)(?:layers\.(\d+)\.)?steering\.(\w+)$")

LayerTensors = dict[int, dict[str, torch.Tensor]]
"""Decoder layer, or `AT_MODEL` -> name in `Rule.TENSORS` -> float32 tensor."""


def steering_tensors(artefact: Artefact) -> LayerTensors:
    """The artefact's tensors that are shipped: those that the rules of its method have, by place.

    Where an artefact steers several layers, `NAME.LAYER` is a tensor of one, `NAME` of all.

    Raises:
        ExportError: if one is absent.
    """
    shipped: LayerTensors = {}
    for part in method_named(artefact.record.method).parts:
        names = part.rule_class().TENSORS
        for place in _places(part, artefact.record):
            held = shipped.setdefault(place, {})
            for name in names:
                tensor = artefact.tensors.get(f"{name}.{place}", artefact.tensors.get(name))
                if tensor is None:
                    raise ExportError(f"the calibration has no tensor {name}; calibrate again")
                held[name] = tensor.contiguous()
    return shipped


def _places(part: Method, record: ArtefactRecord) -> list[int]:
    return record.layers if part.site == "decoder" else [AT_MODEL]


def tensors_at_first(tensors: LayerTensors) -> dict[str, torch.Tensor]:
    """The tensors of the first steered layer, and those of the model as a whole."""
    layers = sorted(place for place in tensors if place != AT_MODEL)
    places = [AT_MODEL, *layers[:1]]
    return {name: t for place in places for name, t in tensors.get(place, {}).items()}


def push_problem(
    record: ArtefactRecord, rules: Mapping[str, Any], tensors: LayerTensors
) -> str | None:
    """Why steering with these tensors can never push, or cannot show that it does, as one clause.

    One layer that can push is enough: with several, a push of 0 in some is a choice of the method.

    Args:
        record: The calibration.
        rules: Of `config.steering`, or what becomes of it.
        tensors: As they are shipped.
    """
    if not tensors:
        return "no layer is steered"
    for part in method_named(record.method).parts:
        problems: list[str | None] = []
        for place in _places(part, record):
            try:
                rule = part.rule_class()(record.source.hidden_size, dict(rules))
                rule.load_state_dict(tensors[place])
            except (TypeError, RuntimeError, KeyError):  # each method has sizes of its own there
                return "its rules and its tensors do not fit each other"
            problems.append(rule.problem())
        if all(problems):
            return problems[0] if problems else "no layer is steered"
    if not record.pushed:
        return "no probe of the calibration is pushed"
    return None


def tensor_names(tensors: LayerTensors, decoder: str) -> dict[str, torch.Tensor]:
    """The tensors by their names in a checkpoint whose decoder has this module path."""
    modules = {
        place: decoder if place == AT_MODEL else f"{decoder}.layers.{place}" for place in tensors
    }
    return {
        f"{modules[place]}.steering.{name}": tensor
        for place, part in tensors.items()
        for name, tensor in part.items()
    }


def tensor_place(name: str) -> tuple[int, str] | None:
    """Place and short name of a steering tensor; None for other tensors of a checkpoint.

    Saved again, it may stand under another prefix than that of the export.
    """
    match = _NAME.search(name)
    return (int(match[1] or AT_MODEL), match[2]) if match else None
