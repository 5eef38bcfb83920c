# SPDX-License-Identifier: Apache-2.0
"""Steering inside the model: the file that travels with a checkpoint.

It needs only torch and transformers. MARS (arXiv 2606.31876) pushes the residual stream along a
refusal direction measured on text, at one decoder layer and at one position per assistant turn: the
last token of the generation prompt, whose output is the first generated token. `Steering` holds the
arithmetic, `_Plan` the positions, and the mixins put both into the native classes of Transformers
that are named at the end of the file.

Whatever would drop the steering in silence raises instead. `model.mars.enabled = False` switches it
off openly and gives the base model's logits bit for bit; `model.mars.last` tells what it did.
"""

import copy
import hashlib
import json
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

MODALITIES = ("text", "image", "video")

# On disk the name of the text activation is replaced by this sentence: a native class that is
# called by name, and would load the weights without the steering, stops at it.
# `SteeredConfigMixin` puts the true name back.
GUARD = "steered checkpoint: load it with an Auto class and trust_remote_code=True"

# The mixins stand before a native class, whose methods they call and which mypy does not know.
_Native: Any = object

_PLAN: ContextVar["_Plan | None"] = ContextVar("mars_plan", default=None)


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


class Mars:
    """The switch and the record of a steered model, at `model.mars`."""

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

    def __init__(self, hidden_size: int, mars: Mars) -> None:
        super().__init__()
        self.mars = mars
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
        self.mars.verified = False
        super()._load_from_state_dict(*args, **kwargs)

    def digest(self, rules: dict[str, Any]) -> str:
        """SHA-256 over `config.mars` but its digest, and the tensors' float32 bytes."""
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


def _steer(layer: Any, _args: Any, kwargs: dict[str, Any], out: Any) -> Any:
    """Forward hook of the steered layer; at module level, it survives deepcopy and pickle."""
    if not layer.steering.mars.enabled:
        return None
    window = kwargs.get("mars_window")
    if window is None:
        raise RuntimeError(
            "the steered layer was reached without knowing which position to steer: call the "
            "model that from_pretrained returned, not its inner modules, or set "
            "model.mars.enabled = False"
        )
    if window is False:
        return None
    if isinstance(out, tuple):
        return (layer.steering(out[0], window), *out[1:])
    return layer.steering(out, window)


@dataclass
class _Plan:
    """Where to steer in a prompt whose first column is at `offset` in the cache; tensors (B, n)."""

    steered: torch.Tensor
    modality: torch.Tensor
    position: torch.Tensor
    offset: int
    trace: Trace
    finished: bool = False

    def window(self, start: int, length: int, rows: int) -> "dict[str, Any] | bool":
        """The part that a forward over columns start..start+length sees; False if there is none."""
        first, last = start - self.offset, start - self.offset + length
        n = self.steered.shape[1]
        if first >= n and self.finished:
            return False
        if not 0 <= first < n:
            raise RuntimeError(
                "steered checkpoint: the end of the prompt would not be steered, because the cache "
                "does not fit the prompt; give generate() the whole conversation and its mask"
            )
        record, self.finished = not self.finished, self.finished or last >= n
        window: dict[str, Any] = {"record": record, "trace": self.trace}
        for name in ("steered", "modality", "position"):
            part = getattr(self, name)[:, first:last]
            part = part.repeat_interleave(rows // part.shape[0], 0)  # beams, returned sequences
            # without a cache every step repeats the prompt and the tokens generated since
            window[name] = nn.functional.pad(part, (0, length - part.shape[1]))
        return window


def _follow(tokens: list[torch.Tensor]) -> torch.Tensor:
    """Columns where a token sequence ends; tokens[i] (B, T) bool: where its i-th token stands."""
    hit = tokens[-1]
    for back, token in enumerate(reversed(tokens[:-1]), start=1):
        hit = hit & nn.functional.pad(token, (back, 0))[:, : token.shape[1]]
    return hit


def _seen(history: Any, past: int) -> torch.Tensor:
    """(B, past) modality of a cached prefix; the cache may have been cropped or generated on."""
    modality: torch.Tensor = history[1][:, :past]
    missing = past - modality.shape[1]
    return torch.cat([modality, modality[:, -1:].expand(-1, missing)], 1)


class SteeredMixin(_Native):
    """Puts `Steering` into layer `config.mars["layer"]` and finds the positions to steer."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        layer = self._steered_layer()
        layer.steering = Steering(config.get_text_config().hidden_size, Mars())
        layer.register_forward_hook(_steer, with_kwargs=True)

    @property
    def mars(self) -> Mars:
        """The switch and the record; the steered layer owns them."""
        mars: Mars = self._steered_layer().steering.mars
        return mars

    def _steered_layer(self) -> Any:
        found = self.get_decoder()  # of Llama 4: the language model with its head
        found = found if hasattr(found, "layers") else found.model
        return found.layers[self.config.mars["layer"]]

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """Load as the native class does; raise where a tensor is missing, misshapen or altered."""
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        for problem in ("missing_keys", "mismatched_keys"):
            if info.get(problem):
                names = sorted(map(str, info[problem]))[:3]
                raise RuntimeError(
                    f"steered checkpoint is damaged: {problem}: {names}; download it again"
                )
        model.verify_steering()
        return (model, info) if output_loading_info else model

    def verify_steering(self) -> None:
        """Raise unless the steering tensors are the ones that were exported."""
        steering = self._steered_layer().steering
        rules = self.config.mars
        if steering.direction.is_meta or steering.digest(rules) != rules["sha256"]:
            raise RuntimeError(
                "steered checkpoint is damaged: the steering tensors or config.mars are absent or "
                "not the exported ones (SHA-256 differs); download it again"
            )
        steering.mars.verified = True

    def _steered_forward(self, native: Any, named: dict[str, Any], extra: dict[str, Any]) -> Any:
        """Run the native forward, telling the steered layer its window."""
        window, mars = extra.pop("mars_window", None), self.mars
        by_hand = window is None
        if mars.enabled:
            if not mars.verified:
                self.verify_steering()
            if by_hand:
                window = self._window_of(named, extra)
            extra["mars_window"] = window
        else:
            mars.trace = Trace()
        history = self._history(named) if mars.enabled and window else None
        out = native(**{k: v for k, v in named.items() if v is not None}, **extra)
        cache = getattr(out, "past_key_values", None)
        if cache is not None and window:
            self._remember(cache, named, window["modality"], history)
        return out

    def _window_of(self, named: dict[str, Any], extra: dict[str, Any]) -> "dict[str, Any] | bool":
        """The window of a forward outside generate(): the assistant headers among its tokens."""
        if any(extra.get(k) is not None for k in ("cu_seq_lens_q", "attention_instances")):
            raise RuntimeError(
                "steered checkpoint: packed sequences do not say which request a token belongs to; "
                "use padded batches, or set model.mars.enabled = False"
            )
        x = named.get("input_ids")
        x = named.get("inputs_embeds") if x is None else x
        if x is None:
            return False
        past = self._past(named)
        if not past:
            self.mars.trace = Trace()
        return self._plan({**extra, **named}, prompt_end=False).window(past, *x.shape[1::-1])

    def _history(self, inputs: dict[str, Any]) -> Any:
        """What a cached prefix showed: (its last tokens (B, k), modality (B, n)), or None.

        Raises:
            ValueError: if this model did not fill the cache with steering on.
        """
        cache, past = inputs.get("past_key_values"), self._past(inputs)
        if not past:
            return None
        history = getattr(cache, "mars_history", None)
        x: Any = inputs.get("input_ids")
        x = inputs.get("inputs_embeds") if x is None else x
        if history is None or history[0].shape[0] != x.shape[0]:
            raise ValueError(
                "steered checkpoint: this cache was not filled by this model with steering on, row "
                "by row; pass the whole conversation, or set model.mars.enabled = False"
            )
        return history

    def _remember(
        self, cache: Any, named: dict[str, Any], modality: torch.Tensor, history: Any
    ) -> None:
        """Leave with the cache what a later forward on it must know; see `_history`."""
        k = max(map(len, self.config.mars["header_suffixes"])) - 1
        ids = named.get("input_ids")
        tail = torch.full_like(modality, -1) if ids is None else ids.to(modality.device)
        if history is not None:
            tail = torch.cat([history[0].to(tail.device), tail], 1)
            past = cache.get_seq_length() - modality.shape[1]
            modality = torch.cat([_seen(history, int(past)).to(modality.device), modality], 1)
        tail = nn.functional.pad(tail, (max(0, k - tail.shape[1]), 0), value=-1)
        cache.mars_history = (tail[:, tail.shape[1] - k :], modality)

    @staticmethod
    def _past(inputs: dict[str, Any]) -> int:
        cache = inputs.get("past_key_values")
        return int(cache.get_seq_length()) if cache is not None else 0

    def _plan(self, inputs: dict[str, Any], prompt_end: bool) -> _Plan:
        """Positions and modalities of a prompt.

        Steered are the tokens that end an assistant header and, inside generate(), the last one.
        """
        self._refuse_uncalibrated(inputs)
        ids, embeds = inputs.get("input_ids"), inputs.get("inputs_embeds")
        ids = ids if ids is not None and ids.shape[1] else None
        x: Any = ids if ids is not None else embeds
        n, mask = x.shape[1], inputs.get("attention_mask")
        ones = x.new_ones(x.shape[:2], dtype=torch.long)
        mask = mask.to(x.device) if mask is not None and mask.dim() == 2 else ones
        offset = self._past(inputs) if not prompt_end else max(0, mask.shape[1] - n)
        history = self._history(inputs) if offset else None
        if mask.shape[1] < offset + n:
            mask = nn.functional.pad(mask, (offset + n - mask.shape[1], 0), value=1)
        steered = self._headers(ids, embeds, history) & (mask[:, offset : offset + n] != 0)
        if prompt_end:
            if bool((mask[:, -1] == 0).any()):
                raise ValueError("steered checkpoint: generate() needs left padding, not right")
            steered = steered | (torch.arange(n, device=x.device) == n - 1)
        position = (mask != 0).long().cumsum(1)[:, offset : offset + n] - 1
        modality = self._modality(ids, x, inputs)
        if history is not None:
            modality = torch.maximum(modality, _seen(history, offset)[:, -1:].to(x.device))
        trace = Trace() if prompt_end else self.mars.trace
        return _Plan(steered, modality, position, offset, trace)

    def _refuse_uncalibrated(self, inputs: dict[str, Any]) -> None:
        """Raise where an input brings a modality whose shift was never measured."""
        given = {**inputs, **(inputs.get("mm_encoder_outputs") or {})}
        for name, modality in self.config.mars["refused"].items():
            if given.get(name) is not None:
                raise ValueError(
                    f"steered checkpoint: {name} was given, and steering was not calibrated for "
                    f"{modality}; leave it out, or set model.mars.enabled = False"
                )

    def _headers(self, ids: Any, embeds: Any, history: Any) -> torch.Tensor:
        """(B, T) bool: tokens that end an assistant header, which may begin in the cache."""
        hits, known = [], 0
        if ids is not None and history is not None:
            known = history[0].shape[1]
            ids = torch.cat([history[0].to(ids.device), ids], 1)
        for suffix in self.config.mars["header_suffixes"]:
            if ids is not None:
                hits.append(_follow([ids == token for token in suffix]))
            else:
                rows = self.get_input_embeddings()(torch.tensor(suffix, device=embeds.device))
                hits.append(_follow([(embeds == row.to(embeds.dtype)).all(-1) for row in rows]))
        return torch.stack(hits).any(0)[:, known:]

    def _modality(self, ids: Any, x: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """(B, T) index into MODALITIES: the richest modality that the row has shown so far."""
        tokens = self.config.mars["visual_tokens"]
        if not tokens:
            return x.new_zeros(x.shape[:2], dtype=torch.long)
        types = [inputs.get(k) for k in ("mm_token_type_ids", "token_type_ids")]
        n = x.shape[1]
        codes = [t[:, -n:].to(x.device).long() for t in types if t is not None and t.shape[1] >= n]
        for modality, attribute in tokens.items() if ids is not None else ():
            codes.append((ids == getattr(self.config, attribute)) * MODALITIES.index(modality))
        if not codes:
            raise ValueError(
                "steered checkpoint: inputs_embeds do not show which rows hold pictures; pass "
                "input_ids or mm_token_type_ids (0 text, 1 image, 2 video) as well"
            )
        return torch.stack(codes).amax(0).cummax(1).values


class SteeredGenerationMixin(SteeredMixin):
    """Fixes the prompt end once per generate(), whatever pieces the prompt is fed in."""

    def generate(self, inputs: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As the native generate; steers the prompt's last token and every earlier header."""
        given = {**kwargs, "input_ids": inputs if inputs is not None else kwargs.get("input_ids")}
        prompt = [given.get(k) for k in ("input_ids", "inputs_embeds")]
        if not self.mars.enabled:
            return super().generate(inputs, *args, **kwargs)
        if all(x is None or not x.shape[1] for x in prompt):
            raise ValueError("steered checkpoint: generate() needs input_ids or inputs_embeds")
        plan = self._plan(given, prompt_end=True)
        self.mars.trace = plan.trace
        token = _PLAN.set(plan)
        try:
            out = super().generate(inputs, *args, **kwargs)
        finally:
            _PLAN.reset(token)
        if not plan.finished and not any(self.mars.last):
            raise RuntimeError(
                "steered checkpoint: this way of generating never ran the end of the prompt "
                "steered; its result is not to be used"
            )
        if plan.finished:
            self.mars.trace = plan.trace  # a generate() inside this one has left its own
        return out

    def prepare_inputs_for_generation(self, input_ids: Any, *args: Any, **kwargs: Any) -> Any:
        """As the native method, and the window of the plan that this forward sees."""
        out = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)
        plan = _PLAN.get()
        if plan is not None and self.mars.enabled:
            x = out.get("input_ids")
            x = out["inputs_embeds"] if x is None else x
            # After the prompt, single tokens need no look at the cache (which may synchronise).
            decoding = plan.finished and x.shape[1] == 1
            out["mars_window"] = not decoding and plan.window(self._past(out), *x.shape[1::-1])
        return out


class SteeredConfigMixin(_Native):
    """Native at run time; its own model type and the guard on disk: nothing loads unsteered."""

    disk_model_type = ""

    def to_json_string(self, use_diff: bool = True) -> str:
        """The text of config.json. `to_dict` stays native: peft chooses its targets by it."""
        raw = json.loads(super().to_json_string(use_diff))
        raw["model_type"] = self.disk_model_type
        raw.get("text_config", raw).update(dict.fromkeys(self.mars["guarded"], GUARD))
        return json.dumps(raw, indent=2, sort_keys=True) + "\n"

    @classmethod
    def get_config_dict(cls, *args: Any, **kwargs: Any) -> Any:
        """Read config.json, giving the native model type back to its own classes."""
        raw, rest = super().get_config_dict(*args, **kwargs)
        if raw.get("model_type") == cls.disk_model_type:
            raw = {**raw, "model_type": cls.model_type}
        return raw, rest

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """The one place that every loading route passes: take the guard away."""
        raw = copy.deepcopy({k: v for k, v in config_dict.items() if k != "model_type"})
        raw.get("text_config", raw).update(raw.get("mars", {}).get("guarded", {}))
        return super().from_dict(raw, **kwargs)
