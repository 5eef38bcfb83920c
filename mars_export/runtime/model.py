"""The native classes of Transformers, steered. Travels behind positions.py."""

import copy
import json
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from mars_export.runtime.positions import History, Plan, header_ends_behind, recognized
from mars_export.runtime.steering import GUARD, MODALITIES, Steering, SteeringSwitch, Trace, steer

# The mixins stand before a native class, whose methods they call and which mypy does not know.
_Native: Any = object

# Names under which serving engines register their attention with Transformers.
_TRANSFORMERS = "use `transformers serve --trust-remote-code`"
ENGINES = {
    "vllm": "install mars-export beside vLLM and give it the option "
    "--worker-cls mars_export.integrations.vllm.worker.SteeredWorker",
    "sglang": _TRANSFORMERS,
    "tgi": _TRANSFORMERS,
}

_PLAN: ContextVar["Plan | None"] = ContextVar("steering_plan", default=None)


class SteeredMixin(_Native):
    """Puts `Steering` into layer `config.steering["layer"]` and finds the positions to steer.

    backbone: the steered class of the model below the head, where there is one.
    """

    backbone: Any = None

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        _refuse_engines(self.config)
        if self.backbone is not None:
            # Trainers that fuse the head with the loss call the model below it themselves.
            self.base_model.__class__ = self.backbone
        layer = self._steered_layer()
        layer.steering = Steering(config.get_text_config().hidden_size, SteeringSwitch())
        layer.register_forward_hook(steer, with_kwargs=True)

    @property
    def steering(self) -> SteeringSwitch:
        """The switch and the record; the steered layer owns them."""
        switch: SteeringSwitch = self._steered_layer().steering.switch
        return switch

    def _steered_layer(self) -> Any:
        found = self.get_decoder()  # of Llama 4: the language model with its head
        found = found if hasattr(found, "layers") else found.model
        return found.layers[self.config.steering["layer"]]

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """Load as the native class does; raise where a tensor is missing, misshapen or altered."""
        if (getattr(kwargs.get("distributed_config"), "pp_size", None) or 1) > 1:
            raise RuntimeError(
                "steered checkpoint: pipeline parallelism leaves the steered layer to one process, "
                "and the others know nothing of it; use tensor parallelism or device_map"
            )
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
        rules = self.config.steering
        if steering.direction.is_meta or steering.digest(rules) != rules["sha256"]:
            raise RuntimeError(
                "steered checkpoint is damaged: the steering tensors or config.steering are "
                "absent or "
                "not the exported ones (SHA-256 differs); download it again"
            )
        steering.switch.verified = True

    def _steered_forward(self, native: Any, named: dict[str, Any], extra: dict[str, Any]) -> Any:
        """Run the native forward, telling the steered layer its window."""
        window = extra.pop("steering_window", None)
        given = {k: v for k, v in named.items() if v is not None}
        if window is False or (window is not None and not self.can_generate()):
            # A decode step of generate(), or the model around this one has seen to everything.
            return native(**given, **extra, steering_window=window)
        switch = self.steering
        if switch.enabled:
            if not switch.verified:
                self.verify_steering()
            if window is None:
                window = self._window_of(named, extra)
            extra["steering_window"] = window
        else:
            switch.trace = Trace()
        before = self._cached(named) if switch.enabled and window else None
        out = native(**given, **extra)
        cache = getattr(out, "past_key_values", None)
        if switch.enabled and window and cache is not None:
            seen = window["history"]
            cache.steering_history = seen if before is None else before.joined(seen)
        return out

    def _window_of(self, named: dict[str, Any], extra: dict[str, Any]) -> "dict[str, Any] | bool":
        """The window of a forward outside generate(): the assistant headers among its tokens."""
        if any(extra.get(k) is not None for k in ("cu_seq_lens_q", "attention_instances")):
            raise RuntimeError(
                "steered checkpoint: packed sequences do not say which request a token belongs to; "
                "use padded batches, or set model.steering.enabled = False"
            )
        if self.config.engine_gives_windows:
            raise RuntimeError("steered checkpoint: the engine did not say what to steer")
        x = _tokens_or_embeds(named)
        if x is None:
            return False
        past = _past(named)
        if not past:
            self.steering.trace = Trace()
        plan = self._plan({**extra, **named}, offset=past, trace=self.steering.trace)
        return plan.window(past, *x.shape[1::-1])

    def _cached(self, inputs: dict[str, Any]) -> History | None:
        """What the cache holds, or None if it is empty.

        Raises:
            ValueError: if this model did not fill all of it with steering on.
        """
        past, x = _past(inputs), _tokens_or_embeds(inputs)
        if not past:
            return None
        history: History | None = getattr(inputs["past_key_values"], "steering_history", None)
        if (
            history is None
            or history.tokens.shape[0] != x.shape[0]
            or past > len(history.tokens[0])
        ):
            raise ValueError(
                "steered checkpoint: this cache was not filled by this model with steering on, row "
                "by row; pass the whole conversation, or set model.steering.enabled = False"
            )
        return history.columns(0, past, x.device)

    def _plan(self, inputs: dict[str, Any], offset: int, trace: Trace) -> Plan:
        """Modalities, and the assistant headers, of tokens whose first is at `offset`."""
        self._refuse_uncalibrated(inputs)
        x = _tokens_or_embeds(inputs)
        ids = x if x.dim() == 2 else None
        cached = self._cached(inputs) if offset else None
        before = cached.columns(0, offset) if cached is not None else None
        mask = _mask(inputs, x, offset)
        suffixes = self.config.steering["header_suffixes"]
        tokens = ids
        if tokens is None:
            tokens = recognized(x, self.get_input_embeddings(), {t for s in suffixes for t in s})
        steered = (
            header_ends_behind(before, tokens, suffixes)
            & (mask != 0)[:, offset : offset + x.shape[1]]
        )
        position = (mask != 0).long().cumsum(1)[:, offset : offset + x.shape[1]] - 1
        modality = self._modality(ids, x, inputs)
        if before is not None:
            modality = torch.maximum(modality, before.modality[:, -1:])
        return Plan(History(tokens, modality, steered), position, offset, trace)

    def _refuse_uncalibrated(self, inputs: dict[str, Any]) -> None:
        """Raise where an input brings a modality whose shift was never measured."""
        given = {**inputs, **(inputs.get("mm_encoder_outputs") or {})}
        for name, modality in self.config.steering["refused"].items():
            if given.get(name) is not None:
                raise ValueError(
                    f"steered checkpoint: {name} was given, and steering was not calibrated for "
                    f"{modality}; leave it out, or set model.steering.enabled = False"
                )

    def _modality(self, ids: Any, x: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """(B, T) index into MODALITIES: the richest modality that the row has shown so far."""
        tokens = self.config.steering["placeholders"]
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
        if not self.steering.enabled:
            return super().generate(inputs, *args, **kwargs)
        given = {**kwargs, "input_ids": inputs if inputs is not None else kwargs.get("input_ids")}
        plan = self._prompt_plan(given)
        self.steering.trace = plan.trace
        token = _PLAN.set(plan)
        try:
            out = super().generate(inputs, *args, **kwargs)
        finally:
            _PLAN.reset(token)
        if not plan.finished and not any(self.steering.last):
            raise RuntimeError(
                "steered checkpoint: this way of generating never ran the end of the prompt "
                "steered; its result is not to be used"
            )
        if plan.finished:
            self.steering.trace = plan.trace  # a generate() inside this one has left its own
        history = getattr(plan.cache, "steering_history", None)
        if history is not None:  # the tokens generated since were not steered, and that is right
            more = int(plan.cache.get_seq_length()) - history.tokens.shape[1]
            plan.cache.steering_history = history.padded(max(0, more))
        return out

    def _prompt_plan(self, inputs: dict[str, Any]) -> Plan:
        """The plan of a generate(): its prompt's headers and, of an answer, the prompt's end.

        Raises:
            ValueError: if the prompt is absent or padded on the right, or if the cache is not of
                its beginning: other tokens, rows in another order, steered elsewhere.
        """
        x = _tokens_or_embeds(inputs)
        if x is None:
            raise ValueError("steered checkpoint: generate() needs input_ids or inputs_embeds")
        mask, n = inputs.get("attention_mask"), x.shape[1]
        whole = n if mask is None or mask.dim() != 2 else mask.shape[1]
        plan = self._plan(inputs, max(0, whole - n), Trace())
        if bool((_mask(inputs, x, plan.offset)[:, -1] == 0).any()):
            raise ValueError("steered checkpoint: generate() needs left padding, not right")
        # An assistant drafts on from any token, round by round: only headers are prompt ends.
        if getattr(inputs.get("generation_config"), "is_assistant", False):
            return plan
        plan.history.steered[:, -1] = True
        cached = self._cached(inputs)
        if cached is not None and not cached.columns(plan.offset, plan.offset + n).agrees(
            plan.history
        ):
            raise ValueError(
                "steered checkpoint: the cache holds other tokens than this conversation, or was "
                "steered elsewhere; pass the whole conversation without the cache"
            )
        return plan

    def prepare_inputs_for_generation(self, input_ids: Any, *args: Any, **kwargs: Any) -> Any:
        """As the native method, and the window of the plan that this forward sees."""
        out = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)
        plan = _PLAN.get()
        if plan is not None:
            x = _tokens_or_embeds(out)
            plan.cache = out.get("past_key_values")
            # After the prompt, single tokens need no look at the cache (which may synchronize).
            if plan.finished and x.shape[1] == 1:
                out["steering_window"] = False
            elif self.steering.enabled:
                out["steering_window"] = plan.window(_past(out), *x.shape[1::-1])
        return out

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


def _refuse_engines(config: Any) -> None:
    """Raise inside a serving engine whose worker does not say which positions to steer.

    Engines put their own attention into the model, pack pieces of many requests into one row and
    may leave out what another request has computed: no forward shows where a prompt ends.
    """
    for part in (config, config.get_text_config()):
        engine = (getattr(part, "_attn_implementation", None) or "").split("_")[0]
        if engine in ENGINES and not config.engine_gives_windows:
            raise RuntimeError(
                f"steered checkpoint: {engine} would serve it without steering; " + ENGINES[engine]
            )


def _tokens_or_embeds(inputs: dict[str, Any]) -> Any:
    """input_ids (B, T) or, where there are none, inputs_embeds (B, T, d)."""
    ids, embeds = inputs.get("input_ids"), inputs.get("inputs_embeds")
    given = [x for x in (ids, embeds) if x is not None and x.shape[1]]
    return given[0] if given else None


def _past(inputs: dict[str, Any]) -> int:
    cache = inputs.get("past_key_values")
    return int(cache.get_seq_length()) if cache is not None else 0


def _mask(inputs: dict[str, Any], x: torch.Tensor, offset: int) -> torch.Tensor:
    """(B, offset + T) attention mask; what it leaves out, or another shape than 2-d, is seen."""
    mask, columns = inputs.get("attention_mask"), offset + x.shape[1]
    if mask is None or mask.dim() != 2:
        return x.new_ones((x.shape[0], columns), dtype=torch.long)
    return nn.functional.pad(mask.to(x.device), (max(0, columns - mask.shape[1]), 0), value=1)


class SteeredConfigMixin(_Native):
    """Native at run time; its own model type and the guard on disk: nothing loads unsteered."""

    disk_model_type = ""
    engine_gives_windows = False
    """Set on the class by the worker of a serving engine that gives each forward its window."""

    def to_json_string(self, use_diff: bool = True) -> str:
        """The text of config.json. `to_dict` stays native: peft chooses its targets by it."""
        raw = json.loads(super().to_json_string(use_diff))
        raw["model_type"] = self.disk_model_type
        raw.get("text_config", raw).update(dict.fromkeys(self.steering["guarded"], GUARD))
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
        raw.get("text_config", raw).update(raw.get("steering", {}).get("guarded", {}))
        return super().from_dict(raw, **kwargs)
