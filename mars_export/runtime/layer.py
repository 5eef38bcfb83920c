"""Steered layer: a method's rule in a decoder layer, and the hook that runs it on the output.

`Steering` is the object at `model.steering`, which all steered layers of a model share.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mars_export.runtime.positions import WINDOW_VERSION, NoWindow, Window
from mars_export.runtime.trace import SteeredPosition, Trace, TraceEntry


class Steering:
    """The switch and the record of a steered model, at `model.steering`."""

    def __init__(self, modalities: list[str]) -> None:
        self.enabled = True
        self.verified = False
        self.trace = Trace()
        self.modalities = modalities

    @property
    def last(self) -> list[list[SteeredPosition]]:
        """Steered positions of the last request, one list per row of its batch, in order.

        A request is one generate(), or the forwards from an empty cache on. Of a generate(), the
        forwards up to the end of its prompt are recorded.
        """
        return self.trace.rows(self.modalities)


class HostedRule(nn.Module):
    """What the host adds to a method's `Rule`, the class behind this one in a layer's module.

    The rule's tensors are persistent float32 buffers: saved and loaded like weights, never trained,
    never cast.
    """

    TENSORS: tuple[str, ...]

    def __init__(
        self, hidden_size: int, rules: dict[str, Any], layer: int, steering: Steering
    ) -> None:
        super().__init__(hidden_size, rules)
        self.layer = layer
        self.switch = steering

    def _apply(self, fn: Any, recurse: bool = True) -> "HostedRule":
        """Follow the model to another device, but stay in float32 through `.to(bfloat16)`."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, old in before.items():
            new = self._buffers[name]
            if old is not None and new is not None and new.dtype != old.dtype:
                self._buffers[name] = old.to(new.device)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Tensors that come in later are checked before they are used."""
        self.switch.verified = False
        super()._load_from_state_dict(*args, **kwargs)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The rule's tensors by name."""
        return {name: getattr(self, name) for name in self.TENSORS}

    def steer(self, h: torch.Tensor, window: Window) -> torch.Tensor:
        """Return h (B, T, d), changed where the window says so; the rule computes in float32."""
        steered, modality, position = (
            part.to(h.device) for part in (window.steered, window.modality, window.position)
        )
        changed, decision = self(h.float(), modality)
        if window.trace is not None:
            window.trace.add(TraceEntry(self.layer, steered, position, modality, decision))
        return torch.where(steered.unsqueeze(-1), changed.to(h.dtype), h)


def steering_digest(
    rules: Mapping[str, Any], tensors: Mapping[int, Mapping[str, torch.Tensor]]
) -> str:
    """SHA-256 over `config.steering` but its digest, and each layer's tensors as float32 bytes."""
    stated = {name: rule for name, rule in rules.items() if name != "sha256"}
    sha = hashlib.sha256(json.dumps(stated, sort_keys=True).encode())
    for layer in sorted(tensors):
        for name, tensor in sorted(tensors[layer].items()):
            values = tensor.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4")
            sha.update(f"{layer}.{name}".encode() + values.tobytes())
    return sha.hexdigest()


def steer(layer: Any, _args: Any, kwargs: dict[str, Any], out: Any) -> Any:
    """Forward hook of a steered layer; at module level, it survives deepcopy and pickle."""
    if not layer.steering.switch.enabled:
        cache = kwargs.get("past_key_values")
        if cache is not None and getattr(cache, "steering_history", None) is not None:
            cache.steering_history = None  # from here on it holds what was not steered
        return None
    window = kwargs.get("steering_window", NoWindow.UNKNOWN)
    if window is NoWindow.NOTHING:
        return None
    if window is NoWindow.UNKNOWN:
        raise RuntimeError(
            "the steered layer was reached without knowing which position to steer: call the "
            "model that from_pretrained returned, not its inner modules, or set "
            "model.steering.enabled = False"
        )
    if getattr(window, "version", None) != WINDOW_VERSION:
        raise RuntimeError(
            "steered checkpoint: the engine says what to steer in the form of another release; "
            "install the release of mars-export that the checkpoint's manifest names"
        )
    if isinstance(out, tuple):
        return (layer.steering.steer(out[0], window), *out[1:])
    return layer.steering.steer(out, window)
