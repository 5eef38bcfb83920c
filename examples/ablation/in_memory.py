"""A steering in the memory of its base: the runtime of a checkpoint, without writing one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from mars_export.checkpoint.tensors import LayerTensors, steering_digest, steering_tensors
from mars_export.common.vocabulary import Modality
from mars_export.families import Family, decoder_layers
from mars_export.methods import method_named
from mars_export.methods.base import Artefact
from mars_export.runtime.layer import HostedRule, host_rule
from mars_export.runtime.steering import Steering

__all__ = ["Rules", "in_memory"]


@dataclass(frozen=True)
class Rules:
    """What is steered, and how.

    Attributes:
        rule: Class of the rule.
        tensors: Of the rule, by decoder layer.
        stated: `config.steering` of a checkpoint, as far as a rule or the host reads it.
    """

    rule: type[nn.Module]
    tensors: LayerTensors
    stated: dict[str, Any]

    @classmethod
    def of(cls, artefact: Artefact) -> Rules:
        """As a checkpoint of this calibration would be steered."""
        record = artefact.record
        stated = {
            "method": record.method,
            **record.rules,
            "modalities": list(record.source.modalities),
            "headers": [header.model_dump() for header in record.source.headers],
            "turn_starts": record.source.turn_starts,
            "refused": {},
        }
        return cls(method_named(record.method).rule_class(), steering_tensors(artefact), stated)

    @property
    def modalities(self) -> list[Modality]:
        """In the order of the tensors."""
        return list(self.stated["modalities"])

    @property
    def digest(self) -> str:
        """SHA-256 of rules and tensors, and the name of the rule."""
        return f"{self.rule.__qualname__} {steering_digest(self.stated, self.tensors)}"

    def changed(
        self,
        change: Callable[[dict[str, torch.Tensor]], Mapping[str, torch.Tensor]],
        rule: type[nn.Module] | None = None,
    ) -> Rules:
        """With other tensors in every layer, and perhaps another rule that reads them.

        Args:
            change: The tensors that differ, from copies of the present ones.
            rule: The class; None for the present one.
        """
        tensors = {}
        for layer, part in self.tensors.items():
            copies = {name: tensor.clone() for name, tensor in part.items()}
            tensors[layer] = {**copies, **change(copies)}
        return Rules(rule or self.rule, tensors, self.stated)


class _Hooked:
    """Takes the hooks of a `Steering` to a module, and off again."""

    def __init__(self, module: nn.Module) -> None:
        self._module, self.forward = module, module.forward
        self._handles: list[Any] = []

    def register_forward_pre_hook(self, hook: Any, *, with_kwargs: bool) -> None:
        self._handles.append(self._module.register_forward_pre_hook(hook, with_kwargs=with_kwargs))

    def register_forward_hook(self, hook: Any, *, with_kwargs: bool) -> None:
        self._handles.append(self._module.register_forward_hook(hook, with_kwargs=with_kwargs))

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


@contextmanager
def in_memory(model: Any, rules: Rules, family: Family) -> Iterator[Steering]:
    """Steer a native model while the context is open.

    Args:
        model: As `load_base` gives it; it is left as it was.
        rules: What is steered.
        family: Of the model.
    """
    stated = {**rules.stated, "placeholders": dict(family.placeholders)}
    hosted_class = type("LayerRule", (HostedRule, rules.rule), {})
    layers, hidden_size = decoder_layers(model), model.config.get_text_config().hidden_size
    hosted: dict[int, HostedRule] = {}
    for index, tensors in rules.tensors.items():
        hosted[index] = hosted_class(hidden_size, stated, index)
        hosted[index].switch = SimpleNamespace(verified=False)
        hosted[index].load_state_dict(tensors)
    shipped = {index: rule.tensors() for index, rule in hosted.items()}
    stated["sha256"] = steering_digest(stated, shipped)
    ids = {name: getattr(model.config, name) for name in family.placeholders.values()}
    config = SimpleNamespace(steering=stated, engine_gives_windows=False, **ids)
    hooked = _Hooked(model.base_model)
    steering = Steering(config, hooked, hosted)  # type: ignore[arg-type]
    for index, rule in hosted.items():
        rule.switch = steering
        host_rule(layers[index], rule.to(model.device))
    try:
        yield steering
    finally:
        hooked.remove()
        for index in hosted:
            for name in ("steering", "forward", "_replicate_for_data_parallel"):
                delattr(layers[index], name)
