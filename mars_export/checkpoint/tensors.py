"""The steering tensors as the checkpoint holds them."""

import re
from collections.abc import Mapping
from typing import Any, Final

import torch

from mars_export.common.errors import ExportError
from mars_export.methods import method_named
from mars_export.methods.base import Artefact, ArtefactRecord
from mars_export.runtime.layer import steering_digest

__all__ = [
    "STEERING_NAME",
    "LayerTensors",
    "push_problem",
    "steering_digest",
    "steering_tensors",
    "tensor_names",
    "tensor_place",
]

STEERING_NAME: Final = "steering.safetensors"
_NAME: Final = re.compile(r"(?:^|\.)layers\.(\d+)\.steering\.(\w+)$")

LayerTensors = dict[int, dict[str, torch.Tensor]]
"""Decoder layer -> name in `Rule.TENSORS` -> float32 tensor."""


def steering_tensors(artefact: Artefact) -> LayerTensors:
    """The artefact's tensors that are shipped: those that the method's `Rule` has, by layer.

    Where an artefact steers several layers, `NAME.LAYER` is a tensor of one, `NAME` of all.

    Raises:
        ExportError: if one is absent.
    """
    names = method_named(artefact.record.method).rule_class().TENSORS
    shipped: LayerTensors = {}
    for layer in artefact.record.layers:
        shipped[layer] = {}
        for name in names:
            tensor = artefact.tensors.get(f"{name}.{layer}", artefact.tensors.get(name))
            if tensor is None:
                raise ExportError(f"the calibration has no tensor {name}; calibrate again")
            shipped[layer][name] = tensor.contiguous()
    return shipped


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
    problems: list[str | None] = []
    for part in tensors.values():
        try:
            rule = method_named(record.method).rule_class()(record.source.hidden_size, dict(rules))
            rule.load_state_dict(part)
        except (TypeError, RuntimeError):  # sizes in the rules, which each method has of its own
            return "its rules and its tensors do not fit each other"
        problems.append(rule.problem())
    if all(problems):
        return problems[0]
    if len(record.unprobed) == len(record.source.modalities):
        return "no probe of the calibration is pushed"
    return None


def tensor_names(tensors: LayerTensors, decoder: str) -> dict[str, torch.Tensor]:
    """The tensors by their names in a checkpoint whose decoder has this module path."""
    return {
        f"{decoder}.layers.{layer}.steering.{name}": tensor
        for layer, part in tensors.items()
        for name, tensor in part.items()
    }


def tensor_place(name: str) -> tuple[int, str] | None:
    """Layer and short name of a steering tensor; None for other tensors of a checkpoint.

    Saved again, it may stand under another prefix than that of the export.
    """
    match = _NAME.search(name)
    return (int(match[1]), match[2]) if match else None
