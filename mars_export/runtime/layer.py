"""Steered layer: a method's rule in a decoder layer, whose forward runs it on the output."""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from mars_export.runtime.trace import TraceEntry
from mars_export.runtime.windows import WINDOW_VERSION, NoWindow, Window

# In the place of a layer: a rule of the model as a whole, in its text decoder.
AT_MODEL = -1


class HostedRule(nn.Module):
    """What the host adds to a method's `Rule`, the class behind this one in a layer's module.

    The rule's tensors are persistent float32 buffers: saved and loaded like weights, never trained,
    never cast. `problem()` of the rule says why it can never act, if so. `switch` is the model's
    `Steering`. visual: whether it acts on visual tokens.
    """

    TENSORS: tuple[str, ...]
    problem: Any
    switch: Any = None
    visual = False
    # Whether the decoder may run only the last columns of a prompt through the layer.
    cut = False

    def __init__(self, hidden_size: int, rules: dict[str, Any], layer: int) -> None:
        super().__init__(hidden_size, rules)
        self.layer = layer

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
        if self.cut:
            window = window.last(h.shape[1])
        steered, context, position = (
            part.to(h.device) for part in (window.steered, window.context, window.position)
        )
        if h.shape[1] == 1 or in_graph():  # every column: how many are steered stays unknown
            changed, decision = self(h.float(), context)
            out = torch.where(steered.unsqueeze(-1), changed.to(h), h)
        else:
            at = steered.nonzero(as_tuple=True)
            changed, decision = self(h[at].float(), context[at])
            out = h.index_put(at, changed.to(h))
        if window.trace is not None:
            entry = TraceEntry(self.layer, steered, position, context, decision, self.visual)
            window.trace.add(entry)
        if window.unknown is not None:
            out = out.masked_fill(window.unknown.to(h.device).unsqueeze(-1), torch.nan)
        return out


def host_rule(layer: Any, rule: HostedRule) -> None:
    """Put a rule into a decoder layer, and its work into the layer's forward."""
    layer.steering = rule
    replace_forward(layer, steered_layer)


def host_layers(model: Any, decoder: Any, rule: type[HostedRule]) -> dict[int, HostedRule]:
    """Host a rule in every layer of `config.steering["layers"]`; returns them by layer."""
    rules, size = model.config.steering, model.config.get_text_config().hidden_size
    text = model.config.get_text_config()
    # Layers that share the keys and values of others: no later column looks at what they make of a
    # prompt, so the decoder leaves out the columns whose logits nobody asked for.
    sharing = text.num_hidden_layers - (getattr(text, "num_kv_shared_layers", None) or 0)
    hosted = {index: rule(size, rules, index) for index in rules["layers"]}
    for index, layer_rule in hosted.items():
        layer_rule.cut = index >= sharing
        host_rule(decoder.layers[index], layer_rule)
    return hosted


def replace_forward(module: Any, forward: Callable[..., Any]) -> None:
    """Give one module another forward, of module level, whose first argument it is.

    Not as a hook: `module.forward(...)` goes past those, and would run the module unsteered.
    """
    module.forward = partial(forward, module)
    # DataParallel copies a module's attributes: a replica must call its own forward.
    module._replicate_for_data_parallel = partial(replica_of, module, forward)


def replica_of(module: Any, forward: Callable[..., Any]) -> Any:
    """A replica, for another device, of a module whose forward was replaced."""
    replica = type(module)._replicate_for_data_parallel(module)
    replica.forward = partial(forward, replica)
    return replica


def steered_layer(
    layer: Any, *args: Any, steering_window: Window | NoWindow = NoWindow.UNKNOWN, **kwargs: Any
) -> Any:
    """forward() of a steered layer; at module level, it survives deepcopy and pickle."""
    out = type(layer).forward(layer, *args, **kwargs)
    if steering_window is NoWindow.NOTHING or steering_window is NoWindow.OFF:
        return out
    if isinstance(steering_window, NoWindow):
        if not layer.steering.switch.active:
            return out
        raise RuntimeError(
            "the steered layer was reached without knowing which position to steer: call the "
            "model that from_pretrained returned, not its inner modules, or run it without "
            "steering (with model.steering.off():)"
        )
    if getattr(steering_window, "version", None) != WINDOW_VERSION:
        raise RuntimeError(
            "steered checkpoint: the engine says what to steer in the form of another release; "
            "install the release of mars-export that the checkpoint's manifest names"
        )
    if isinstance(out, tuple):
        return (layer.steering.steer(out[0], steering_window), *out[1:])
    return layer.steering.steer(out, steering_window)


def in_graph() -> bool:
    """Whether this is run to make a graph, in which nothing can be looked at and nothing raises."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return torch.compiler.is_compiling() or tracing


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
