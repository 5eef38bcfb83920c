# SPDX-License-Identifier: Apache-2.0
"""Steering inside the model: the file that travels with a checkpoint.

It needs only torch and transformers. MARS (arXiv 2606.31876) pushes the residual stream along a
refusal direction measured on text, at one decoder layer and at one position per assistant turn: the
last token of the generation prompt, whose output is the first generated token. `Steering` holds the
arithmetic, `Plan` the positions, and the mixins put both into the native classes of Transformers
that are named at the end of the file.

Whatever would drop the steering in silence raises instead. `model.steering.enabled = False`
switches it
off openly and gives the base model's logits bit for bit; `model.steering.last` tells what it did.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

MODALITIES = ("text", "image", "video")

# On disk the name of the text activation is replaced by this sentence: a native class that is
# called by name, and would load the weights without the steering, stops at it.
# `SteeredConfigMixin` puts the true name back.
GUARD = "steered checkpoint: load it with an Auto class and trust_remote_code=True"


@dataclass(frozen=True)
class SteeredPosition:
    """What happened at one steered position of one row.

    position: index of the token in its row, padding not counted. modality: whose shift was used.
    gate: 0 for a request on the harmless side of the origin, 1 at the harmful text centroid.
    strength: length of the push, residual-stream units.
    """

    position: int
    modality: str
    gate: float
    strength: float


class Trace:
    """Steered positions of one request, as tensors until somebody reads them."""

    def __init__(self) -> None:
        self.entries: list[tuple[torch.Tensor, ...]] = []

    def add(self, entry: tuple[torch.Tensor, ...]) -> None:
        """Keep (steered, position, modality, gate, strength), each (B, T)."""
        self.entries.append(tuple(t.detach() for t in entry))
        if len(self.entries) > 64 and not torch.compiler.is_compiling():
            # A loop written by hand adds one entry a token; nearly all of them steer nothing.
            self.entries = [kept for kept in self.entries if kept[0].any()]

    def rows(self) -> list[list[SteeredPosition]]:
        """Steered positions of every row, in order."""
        rows: list[list[SteeredPosition]] = []
        for entry in self.entries:
            steered, position, modality, gate, strength = (t.tolist() for t in entry)
            rows += [[] for _ in range(len(steered) - len(rows))]
            for b, row in enumerate(steered):
                rows[b] += [
                    SteeredPosition(
                        position[b][t], MODALITIES[modality[b][t]], gate[b][t], strength[b][t]
                    )
                    for t, hit in enumerate(row)
                    if hit
                ]
        return rows


class SteeringSwitch:
    """The switch and the record of a steered model, at `model.steering`."""

    def __init__(self) -> None:
        self.enabled = True
        self.verified = False
        self.trace = Trace()

    @property
    def last(self) -> list[list[SteeredPosition]]:
        """Steered positions of the last request, one list per row of its batch, in order.

        A request is one generate(), or the forwards from an empty cache on.
        """
        return self.trace.rows()


class Steering(nn.Module):
    """h + strength * direction at the steered positions.

    Persistent float32 buffers: saved and loaded like weights, never trained, never cast.
    direction (d,): unit refusal direction. shift (3,): coordinate shift of text, image and video
    requests. bounds (5,): origin, harmful centroid, cap, slope and radius, as coordinates along the
    direction.
    """

    direction: torch.Tensor
    shift: torch.Tensor
    bounds: torch.Tensor

    def __init__(self, hidden_size: int, switch: SteeringSwitch) -> None:
        super().__init__()
        self.switch = switch
        for name, size in (("direction", hidden_size), ("shift", len(MODALITIES)), ("bounds", 5)):
            self.register_buffer(name, torch.zeros(size, dtype=torch.float32))

    def _apply(self, fn: Any, recurse: bool = True) -> "Steering":
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

    def digest(self, rules: dict[str, Any]) -> str:
        """SHA-256 over `config.steering` but its digest, and the tensors' float32 bytes."""
        stated = {name: rule for name, rule in rules.items() if name != "sha256"}
        sha = hashlib.sha256(json.dumps(stated, sort_keys=True).encode())
        for name in ("direction", "shift", "bounds"):
            tensor = getattr(self, name).detach().to("cpu", torch.float32).contiguous()
            sha.update(name.encode() + tensor.numpy().astype("<f4").tobytes())
        return sha.hexdigest()

    def forward(self, h: torch.Tensor, window: dict[str, Any]) -> torch.Tensor:
        """Steer h (B, T, d) where window["steered"] (B, T) bool says so; computed in float32."""
        steered, modality, position = (
            window[k].to(h.device) for k in ("steered", "modality", "position")
        )
        origin, harmful, cap, slope, radius = self.bounds.unbind()
        x = h.float()
        p = (x * self.direction).sum(-1) - self.shift[modality]
        gate = torch.relu((p - origin) / (harmful - origin))
        strength = torch.minimum(torch.minimum(slope * gate, torch.relu(cap - p)), radius)
        if window["record"]:
            window["trace"].add((steered, position, modality, gate, strength))
        pushed = (x + strength.unsqueeze(-1) * self.direction).to(h.dtype)
        return torch.where(steered.unsqueeze(-1), pushed, h)


def steer(layer: Any, _args: Any, kwargs: dict[str, Any], out: Any) -> Any:
    """Forward hook of the steered layer; at module level, it survives deepcopy and pickle."""
    if not layer.steering.switch.enabled:
        cache = kwargs.get("past_key_values")
        if cache is not None and getattr(cache, "steering_history", None) is not None:
            cache.steering_history = None  # from here on it holds what was not steered
        return None
    window = kwargs.get("steering_window")
    if window is None:
        raise RuntimeError(
            "the steered layer was reached without knowing which position to steer: call the "
            "model that from_pretrained returned, not its inner modules, or set "
            "model.steering.enabled = False"
        )
    if window is False:
        return None
    if isinstance(out, tuple):
        return (layer.steering(out[0], window), *out[1:])
    return layer.steering(out, window)
