"""Mixins: they stand before the native classes, and tell the steered layers where to act.

`SteeredMixin` gives every forward its window, `SteeredGenerationMixin` plans a generate().
"""

import inspect
from contextvars import ContextVar
from functools import wraps
from typing import Any

import torch
from torch import nn

from mars_export.runtime.guard import GuardedLoadingMixin, refuse_engines
from mars_export.runtime.layer import HostedRule, Steering, steer, steering_digest
from mars_export.runtime.positions import (
    POLICIES,
    History,
    NoWindow,
    Plan,
    Window,
    recognized,
    steered_columns,
)
from mars_export.runtime.trace import Trace

RULES_VERSION = 1
# What `mm_token_type_ids` of Transformers count.
TOKEN_TYPES = ("text", "image", "video", "audio")

_PLAN: ContextVar[Plan | None] = ContextVar("steering_plan", default=None)


class SteeredMixin(GuardedLoadingMixin):
    """Puts the rule into the layers of `config.steering["layers"]` and finds what to steer.

    layer_rule: the hosted rule of the method. backbone: the steered class of the model below the
    head, where there is one.
    """

    layer_rule: type[HostedRule]
    backbone: Any = None

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        rules = self.config.steering
        if rules.get("version") != RULES_VERSION or rules["positions"] not in POLICIES:
            raise RuntimeError(
                "steered checkpoint: config.json is not of the release that wrote this modeling "
                "file; download both again"
            )
        refuse_engines(self.config)
        if self.backbone is not None:
            # The native class has built the model below its head from the native class of that.
            # Trainers that fuse the head with the loss call this inner model themselves, so it must
            # find its windows on its own. It is changed in place: the same weights under the same
            # names, only its forward() is the steered one.
            self.base_model.__class__ = self.backbone
        steering = Steering(rules["modalities"])
        hidden_size = config.get_text_config().hidden_size
        for index, layer in self._steered_layers().items():
            layer.steering = self.layer_rule(hidden_size, rules, index, steering)
            layer.register_forward_hook(steer, with_kwargs=True)

    @property
    def steering(self) -> Steering:
        """The switch and the record; the steered layers own them."""
        first = next(iter(self._steered_layers().values()))
        switch: Steering = first.steering.switch
        return switch

    def _steered_layers(self) -> dict[int, Any]:
        """Index to decoder layer."""
        decoder = self.get_decoder()  # of Llama 4: the language model with its head
        decoder = decoder if hasattr(decoder, "layers") else decoder.model
        return {index: decoder.layers[index] for index in self.config.steering["layers"]}

    def verify_steering(self) -> None:
        """Raise unless the steering tensors are the ones that were exported."""
        rules = self.config.steering
        tensors = {i: layer.steering.tensors() for i, layer in self._steered_layers().items()}
        absent = any(tensor.is_meta for part in tensors.values() for tensor in part.values())
        if absent or steering_digest(rules, tensors) != rules["sha256"]:
            raise RuntimeError(
                "steered checkpoint is damaged: the steering tensors or config.steering are absent "
                "or not the exported ones (SHA-256 differs); download it again"
            )
        self.steering.verified = True

    def _steered_forward(self, native: Any, inputs: dict[str, Any]) -> Any:
        """Run the native forward with a window, and let the cache remember it.

        native: forward() of the native class. inputs: its arguments by name. The window is one that
        it does not know, and so reaches the decoder layers.
        """
        window = inputs.pop("steering_window", NoWindow.UNKNOWN)
        # Nothing to do in a decode step of generate(), nor where the model around this one, or an
        # engine, has given the window.
        around = window is not NoWindow.UNKNOWN and not self.can_generate()
        if window is NoWindow.NOTHING or around:
            return native(self, **inputs, steering_window=window)
        switch = self.steering
        if not switch.enabled:
            switch.trace = Trace()
            return native(self, **inputs)
        if not switch.verified:
            self.verify_steering()
        remembers = window is NoWindow.UNKNOWN or window.history is not None
        before = self._cached(inputs) if remembers else None
        if window is NoWindow.UNKNOWN:
            window = self._window_of(inputs, before)
        out = native(self, **inputs, steering_window=window)
        cache = getattr(out, "past_key_values", None)
        if cache is not None and window is not NoWindow.NOTHING and window.history is not None:
            history = window.history
            cache.steering_history = history if before is None else before.joined(history)
        return out

    def _window_of(self, inputs: dict[str, Any], before: History | None) -> Window | NoWindow:
        """The window of a forward outside generate(), which knows its own columns and the cache."""
        if any(inputs.get(k) is not None for k in ("cu_seq_lens_q", "attention_instances")):
            raise RuntimeError(
                "steered checkpoint: packed sequences do not say which request a token belongs to; "
                "use padded batches, or set model.steering.enabled = False"
            )
        if self.config.engine_gives_windows:
            raise RuntimeError("steered checkpoint: the engine did not say what to steer")
        x = _tokens_or_embeds(inputs)
        if x is None:
            return NoWindow.NOTHING
        past, (rows, length) = _past(inputs), x.shape[:2]
        if not past:
            self.steering.trace = Trace()
        plan = self._plan(inputs, before, past, self.steering.trace, prompt=False)
        return plan.window(past, length, rows)

    def _cached(self, inputs: dict[str, Any]) -> History | None:
        """What the cache holds, or None if it is empty; raises unless this model filled it."""
        past, x = _past(inputs), _tokens_or_embeds(inputs)
        if not past or x is None:
            return None
        history: History | None = getattr(inputs["past_key_values"], "steering_history", None)
        if (
            history is None
            or history.tokens.shape[0] != x.shape[0]
            or history.tokens.shape[1] < past
        ):
            raise ValueError(
                "steered checkpoint: this cache was not filled by this model with steering on, row "
                "by row; pass the whole conversation, or set model.steering.enabled = False"
            )
        return history.columns(0, past, x.device)

    def _plan(
        self,
        inputs: dict[str, Any],
        before: History | None,
        offset: int,
        trace: Trace,
        prompt: bool,
    ) -> Plan:
        """The plan of the columns in `inputs`.

        before: the `offset` columns of the cache that stand before them. prompt: whether an answer
        follows them.
        """
        self._refuse_uncalibrated(inputs)
        rules, x = self.config.steering, _tokens_or_embeds(inputs)
        suffixes, ids, tokens = rules["header_suffixes"], x, x
        if x.dim() == 3:  # embeddings, in which the tokens of headers can be recognized
            headers = {token for suffix in suffixes for token in suffix}
            ids, tokens = None, recognized(x, self.get_input_embeddings(), headers)
        # The mask covers the cache as well.
        seen_by_attention = _mask(inputs, x, offset) != 0
        position = seen_by_attention.long().cumsum(1) - 1
        real, position = (t[:, offset : offset + x.shape[1]] for t in (seen_by_attention, position))
        steered = steered_columns(rules["positions"], before, tokens, real, suffixes, prompt)
        modality = self._modality(ids, x, inputs)
        if before is not None:
            modality = torch.maximum(modality, before.modality[:, -1:])
        answer = rules["positions"] == "all"
        return Plan(History(tokens, modality, steered), position, offset, trace, answer)

    def _refuse_uncalibrated(self, inputs: dict[str, Any]) -> None:
        """Raise where an input brings a modality that was never calibrated."""
        brought = {**inputs, **(inputs.get("mm_encoder_outputs") or {})}
        for name, modality in self.config.steering["refused"].items():
            if brought.get(name) is not None:
                raise ValueError(
                    f"steered checkpoint: {name} was given, and steering was not calibrated for "
                    f"{modality}; leave it out, or set model.steering.enabled = False"
                )

    def _modality(self, ids: Any, x: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """(B, T) index into the modalities: the highest that the row has shown up to a column.

        A column shows a modality by its token, where there are ids (B, T), or by its token type.
        """
        modalities = self.config.steering["modalities"]
        placeholders = self.config.steering["placeholders"]
        highest = x.new_zeros(x.shape[:2], dtype=torch.long)
        if not placeholders:
            return highest
        n = x.shape[1]
        types = [inputs.get(k) for k in ("mm_token_type_ids", "token_type_ids")]
        types = [t[:, -n:].to(x.device) for t in types if t is not None and t.shape[1] >= n]
        if ids is None and not types:
            raise ValueError(
                "steered checkpoint: inputs_embeds do not show which rows hold pictures; pass "
                "input_ids or mm_token_type_ids (0 text, 1 image, 2 video) as well"
            )
        for modality, attribute in placeholders.items():
            if modality in modalities:
                shown = [t == TOKEN_TYPES.index(modality) for t in types]
                shown += [] if ids is None else [ids == getattr(self.config, attribute)]
                for columns in shown:
                    highest = torch.maximum(highest, columns * modalities.index(modality))
        return highest.cummax(1).values


class SteeredGenerationMixin(SteeredMixin):
    """Plans each generate() once, whatever pieces the prompt is fed in."""

    def generate(self, inputs: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As the native generate, steered; the prompt's last token is always known here."""
        if not self.steering.enabled:
            return super().generate(inputs, *args, **kwargs)
        input_ids = inputs if inputs is not None else kwargs.get("input_ids")
        plan = self._prompt_plan({**kwargs, "input_ids": input_ids})
        self.steering.trace = plan.trace
        token = _PLAN.set(plan)
        try:
            out = super().generate(inputs, *args, **kwargs)
        finally:
            _PLAN.reset(token)
        if plan.finished:
            # A logits processor that calls this model has put its own trace in the place of ours.
            self.steering.trace = plan.trace
        elif not any(self.steering.last):
            raise RuntimeError(
                "steered checkpoint: this way of generating never ran the end of the prompt "
                "steered; its result is not to be used"
            )
        history = getattr(plan.cache, "steering_history", None)
        if history is not None:  # of the prompt: the answer's columns are added here, all at once
            more = int(plan.cache.get_seq_length()) - history.tokens.shape[1]
            plan.cache.steering_history = history.padded(max(0, more), steered=plan.answer)
        return out

    def _prompt_plan(self, inputs: dict[str, Any]) -> Plan:
        """The plan of a generate(), whose cache must hold the beginning of its prompt, if any."""
        x = _tokens_or_embeds(inputs)
        if x is None:
            raise ValueError("steered checkpoint: generate() needs input_ids or inputs_embeds")
        mask, n = inputs.get("attention_mask"), x.shape[1]
        whole = n if mask is None or mask.dim() != 2 else mask.shape[1]
        offset = max(0, whole - n)
        if bool((_mask(inputs, x, offset)[:, -1] == 0).any()):
            raise ValueError("steered checkpoint: generate() needs left padding, not right")
        # An assistant drafts on from any token, round by round: only headers are prompt ends.
        drafts = getattr(inputs.get("generation_config"), "is_assistant", False)
        cached = self._cached(inputs) if offset or not drafts else None
        before = cached.columns(0, offset) if cached is not None and offset else None
        plan = self._plan(inputs, before, offset, Trace(), prompt=not drafts)
        if not drafts and cached is not None:
            again = cached.columns(offset, offset + n)  # given once more, as generate() wants it
            if not again.agrees(plan.history):
                raise ValueError(
                    "steered checkpoint: the cache holds other tokens than this conversation, or "
                    "was steered elsewhere; pass the whole conversation without the cache"
                )
        return plan

    def prepare_inputs_for_generation(self, input_ids: Any, *args: Any, **kwargs: Any) -> Any:
        """As the native method, and the part of the plan that this forward gets."""
        inputs = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)
        plan = _PLAN.get()
        if plan is not None:
            rows, length = _tokens_or_embeds(inputs).shape[:2]
            plan.cache = inputs.get("past_key_values")
            # After the prompt, single tokens need no look at the cache (which may synchronize).
            if plan.finished and length == 1 and not plan.answer:
                inputs["steering_window"] = NoWindow.NOTHING
            elif self.steering.enabled:
                inputs["steering_window"] = plan.window(_past(inputs), length, rows)
        return inputs

    def init_continuous_batching(self, *args: Any, **kwargs: Any) -> Any:
        """As the native method, with steering off only; generate_batch() comes by here too.

        A step of continuous batching holds pieces of many prompts. A header that is cut between two
        steps, or lies in a shared prefix, cannot be seen in either.
        """
        if self.steering.enabled:
            raise RuntimeError(
                "steered checkpoint: continuous batching (generate_batch, transformers serve "
                "--continuous-batching) cannot be steered; use generate() with padded batches, or "
                "set model.steering.enabled = False"
            )
        return super().init_continuous_batching(*args, **kwargs)


def steered_forward(native: Any) -> Any:
    """The forward() of a steered class, in the place of that of its native class.

    It shows the signature of the native one, which generate(), Trainer and peft read.
    """
    names = list(inspect.signature(native).parameters)[1:]

    @wraps(native)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._steered_forward(native, {**dict(zip(names, args, strict=False)), **kwargs})

    return forward


def _tokens_or_embeds(inputs: dict[str, Any]) -> Any:
    """input_ids (B, T) or, where there are none, inputs_embeds (B, T, d)."""
    both = (inputs.get("input_ids"), inputs.get("inputs_embeds"))
    present = [x for x in both if x is not None and x.shape[1]]
    return present[0] if present else None


def _past(inputs: dict[str, Any]) -> int:
    """Columns in the cache."""
    cache = inputs.get("past_key_values")
    return int(cache.get_seq_length()) if cache is not None else 0


def _mask(inputs: dict[str, Any], x: torch.Tensor, offset: int) -> torch.Tensor:
    """(B, offset + T) attention mask; 1 for what it leaves out, or where it is not 2-d."""
    mask, columns = inputs.get("attention_mask"), offset + x.shape[1]
    if mask is None or mask.dim() != 2:
        return x.new_ones((x.shape[0], columns), dtype=torch.long)
    return nn.functional.pad(mask.to(x.device), (max(0, columns - mask.shape[1]), 0), value=1)
