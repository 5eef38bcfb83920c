"""Steering: the switch and the record of a model, and the hooks that say where to act.

The object at `model.steering`. Its hooks are on the module that takes the tokens in: the model
below the head, or the model itself where there is no head.
"""

import copy
import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import nn

from mars_export.runtime.layer import HostedRule, in_graph, steering_digest
from mars_export.runtime.positions import (
    WINDOW_VERSION,
    History,
    NoWindow,
    Plan,
    Window,
    header_ends_behind,
    highest_modality,
    last_column,
    recognized,
    requests,
    stated_columns,
    steered_columns,
    unknown_columns,
)
from mars_export.runtime.trace import SteeredPosition, Trace

# What `mm_token_type_ids` of Transformers count.
TOKEN_TYPES = ("text", "image", "video", "audio")

UNKNOWN = (
    "steered checkpoint: {shows} no assistant header of the calibrated chat template{where}, so "
    "where its answer begins is unknown; use apply_chat_template(..., add_generation_prompt=True), "
    "or name the tokens to steer (steering_positions=[[...], ...]), or run it without steering "
    "(with model.steering.off():)"
)

_OFF: ContextVar[frozenset[int]] = ContextVar("steering_off", default=frozenset())
_PAUSING = threading.Lock()


class Steering:
    """The switch and the record of a steered model, at `model.steering`.

    Attributes:
        enabled: The switch of the model. A generate() reads it once, when it begins.
    """

    def __init__(self, config: Any, module: nn.Module, layers: dict[int, HostedRule]) -> None:
        self.enabled = True
        self.verified = False
        self.trace = Trace()
        self.rules: dict[str, Any] = copy.deepcopy(config.steering)
        self._config = config
        self._layers = layers
        self._parameters = list(inspect.signature(module.forward).parameters)
        self._paused = 0
        turns = [{"prefix": start[:-1], "ends": start[-1:]} for start in self.rules["turn_starts"]]
        self._turn_starts = turns
        module.register_forward_pre_hook(self.before_forward, with_kwargs=True)
        module.register_forward_hook(self.after_forward, with_kwargs=True)

    def __getstate__(self) -> dict[str, Any]:
        """A copy, or what is read from a file, is in nobody's off()."""
        return {**self.__dict__, "_paused": 0}

    @property
    def active(self) -> bool:
        """Whether a request that begins now, in this thread, is steered."""
        if torch.compiler.is_compiling():  # which cannot see to which thread it belongs
            if self._paused:
                raise RuntimeError(
                    "steered checkpoint: off() does not reach into a compiled model; set "
                    "model.steering.enabled = False instead"
                )
            return self.enabled
        return self.enabled and id(self) not in _OFF.get()

    @contextmanager
    def off(self) -> Iterator[None]:
        """Run the base model inside this context: this thread's requests, and nobody else's."""
        token = _OFF.set(_OFF.get() | {id(self)})
        with _PAUSING:
            self._paused += 1
        try:
            yield
        finally:
            with _PAUSING:
                self._paused -= 1
            _OFF.reset(token)

    @property
    def last(self) -> list[list[SteeredPosition]]:
        """Steered positions of the last request, one list per row of its batch, in order.

        A request is one generate(), or the forwards from an empty cache on. Of a generate(), the
        forwards up to the end of its prompt are recorded.
        """
        return self.trace.rows(self.rules["modalities"])

    def verify(self) -> None:
        """Raise unless the steering tensors are the ones that were exported, and can act."""
        tensors = {index: layer.tensors() for index, layer in self._layers.items()}
        absent = any(tensor.is_meta for part in tensors.values() for tensor in part.values())
        if absent or steering_digest(self.rules, tensors) != self.rules["sha256"]:
            raise RuntimeError(
                "steered checkpoint is damaged: the steering tensors or config.steering are absent "
                "or not the exported ones (SHA-256 differs); download it again"
            )
        problems = [layer.problem() for layer in self._layers.values()]
        if all(problems):  # with several layers, a push of 0 in some is a choice of the method
            raise RuntimeError(
                f"steered checkpoint: it can never steer, because {problems[0]}; export it again"
            )
        self.verified = True

    def before_forward(self, module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Forward pre-hook: give the layers their window, made here unless somebody has done so."""
        window = kwargs.get("steering_window", NoWindow.UNKNOWN)
        if window is NoWindow.NOTHING:
            return None
        inputs = {**dict(zip(self._parameters, args, strict=False)), **kwargs}
        stated = inputs.pop("steering_positions", None)
        if window is NoWindow.UNKNOWN and not self.active:
            window = NoWindow.OFF
        if window is NoWindow.OFF:
            self.trace = Trace()
        elif window is NoWindow.UNKNOWN:
            window = self._window_of(module, inputs, stated)
        else:
            window = self._fitted(window, inputs)
        return (), {**inputs, "steering_window": window}

    def after_forward(self, _module: Any, _args: Any, kwargs: dict[str, Any], out: Any) -> None:
        """Forward hook: let the cache remember what was steered in it."""
        window = kwargs["steering_window"]
        if window is NoWindow.NOTHING:
            return
        parts = out if isinstance(out, tuple) else (getattr(out, "past_key_values", None),)
        caches = [kwargs.get("past_key_values"), *parts]
        cache = next((part for part in caches if hasattr(part, "get_seq_length")), None)
        if cache is None:
            return
        if isinstance(window, NoWindow):
            if getattr(cache, "steering_history", None) is not None:
                cache.steering_history = None  # from here on it holds what was not steered
        elif window.history is not None:
            cache.steering_history = window.history

    def plan(self, module: Any, inputs: dict[str, Any], stated: Any, drafts: bool) -> Plan:
        """The plan of a generate(), whose cache must hold the beginning of its prompt, if any.

        inputs: those of generate(). stated: its steering_positions. drafts: whether it drafts for
        another generate(), which has checked the prompt.
        """
        x = tokens_or_embeds(inputs)
        if x is None:
            raise ValueError("steered checkpoint: generate() needs input_ids or inputs_embeds")
        mask, n = inputs.get("attention_mask"), x.shape[1]
        two_axes = isinstance(mask, torch.Tensor) and mask.dim() == 2
        offset = max(0, mask.shape[1] - n) if two_axes else 0  # type: ignore[union-attr]
        if bool((_mask(inputs, x, offset)[:, -1] == 0).any()):
            raise ValueError("steered checkpoint: generate() needs left padding, not right")
        cached = self._cached(inputs)
        before = cached.columns(0, offset) if cached is not None and offset else None
        columns = self._columns(module, inputs, before, offset, stated)
        if columns.request is not None:
            raise ValueError(
                "steered checkpoint: position_ids begin anew within a row; generate() takes one "
                "request a row"
            )
        self._refuse_unknown(columns)
        answer = self.rules["positions"] == "all" and stated is None
        if stated is None and not drafts and not answer:
            self._refuse_unanswered(columns.history, before)
        again = None if cached is None else cached.columns(offset, offset + n)
        if again is not None and not again.agrees(columns.history):
            raise ValueError(
                "steered checkpoint: the cache holds other tokens than this conversation, or "
                "was steered elsewhere; pass the whole conversation without the cache"
            )
        return Plan(columns.history, columns.position, offset, Trace(), answer)

    def _window_of(self, module: Any, inputs: dict[str, Any], stated: Any) -> Window | NoWindow:
        """The window of a forward outside generate(), which knows its own columns and the cache."""
        if any(inputs.get(k) is not None for k in ("cu_seq_lens_q", "attention_instances")):
            raise RuntimeError(
                "steered checkpoint: rows packed by sequence lengths do not say which request a "
                "token belongs to; pack by position_ids alone, use padded batches, or run it "
                "without steering (with model.steering.off():)"
            )
        if self._config.engine_gives_windows:
            raise RuntimeError("steered checkpoint: the engine did not say what to steer")
        if tokens_or_embeds(inputs) is None:
            return NoWindow.NOTHING
        self._verify_once()
        past = cached_columns(inputs)
        if not past:
            self.trace = Trace()
        before = self._cached(inputs)
        columns = self._columns(module, inputs, before, past, stated)
        self._refuse_unknown(columns)
        history: History | None = columns.history
        if columns.request is not None:
            history = None  # what is packed cannot go on
        elif before is not None:
            history = before.joined(columns.history)
        return Window(
            WINDOW_VERSION,
            columns.history.steered,
            columns.history.modality,
            columns.position,
            self.trace,
            history,
            columns.unknown if in_graph() else None,
        )

    def _fitted(self, window: Window, inputs: dict[str, Any]) -> Window:
        """A window of an engine or a generate(), as this forward's columns and cache need it."""
        self._verify_once()
        if window.history is None:
            return window
        more = tokens_or_embeds(inputs).shape[1] - window.steered.shape[1]
        if more > 0 and inputs.get("input_ids") is None:
            window = window.behind(more)  # peft puts its virtual tokens before the prompt
        elif more:
            raise RuntimeError(
                "steered checkpoint: this forward has other columns than generate() planned; its "
                "steering would be misplaced"
            )
        before, history = self._cached(inputs), window.history
        if before is None or history is None:
            return window
        return window._replace(history=before.joined(history))

    def _verify_once(self) -> None:
        if not self.verified:
            self.verify()

    def _cached(self, inputs: dict[str, Any]) -> History | None:
        """What the cache holds, or None if it is empty; raises unless this model filled it."""
        past, x = cached_columns(inputs), tokens_or_embeds(inputs)
        if not past:
            return None
        history: History | None = getattr(inputs["past_key_values"], "steering_history", None)
        if (
            history is None
            or history.tokens.shape[0] != x.shape[0]
            or history.tokens.shape[1] < past
        ):
            raise ValueError(
                "steered checkpoint: this cache was not filled by this model with steering on, row "
                "by row; pass the whole conversation, or run it without steering "
                "(with model.steering.off():)"
            )
        return history.columns(0, past, x.device)

    def _columns(
        self,
        module: Any,
        inputs: dict[str, Any],
        before: History | None,
        offset: int,
        stated: Any,
    ) -> "Columns":
        """What is steered in the columns of `inputs`, behind the `offset` columns of the cache."""
        self._refuse_uncalibrated(inputs)
        rules, x = self.rules, tokens_or_embeds(inputs)
        ids: torch.Tensor | None = inputs.get("input_ids")
        if ids is not None and ids.shape[1] != x.shape[1]:
            ids = None  # embeddings run, of other columns than these tokens
        if ids is not None:
            tokens = ids
        else:
            known = self._header_tokens()
            tokens = recognized(x, module.get_input_embeddings(), known, in_graph())
        # The mask covers the cache as well.
        allowed = _mask(inputs, x, offset) != 0
        position = allowed.long().cumsum(1) - 1
        real = allowed[:, offset:]
        request = requests(inputs.get("position_ids"), real)
        if request is not None and not in_graph() and not bool(request.any()):
            request = None
        policy, unknown = rules["positions"], None
        if stated is not None:
            steered = stated_columns(stated, position, allowed, before, in_graph())
        else:
            steered = steered_columns(policy, before, tokens, real, rules["headers"], request)
            if policy != "all":
                unknown = unknown_columns(steered, before, real, request)
        modality = highest_modality(self._shown(ids, x, inputs), request)
        if before is not None:
            modality = torch.maximum(modality, before.modality[:, -1:])
        history = History(tokens, modality, steered)
        return Columns(history, position[:, offset:], unknown, request)

    def _header_tokens(self) -> set[int]:
        """Tokens that headers and the beginnings of other turns are made of."""
        return {
            token
            for header in [*self.rules["headers"], *self._turn_starts]
            for token in [*header["prefix"], *header["ends"]]
        }

    def _refuse_unknown(self, columns: "Columns") -> None:
        """Raise where a request shows no header, and none is in the cache."""
        if columns.unknown is None or in_graph() or not bool(columns.unknown.any()):
            return
        row = int(columns.unknown.any(1).nonzero()[0])
        shows = f"row {row} shows"
        if columns.request is not None:
            shows = f"row {row} packs, by its position_ids, a request that shows"
        raise ValueError(UNKNOWN.format(shows=shows, where=""))

    def _refuse_unanswered(self, history: History, before: History | None) -> None:
        """Raise where somebody else's turn has begun behind the last assistant header."""
        tokens = history.tokens
        starts = header_ends_behind(before, tokens, self._turn_starts)
        ends = header_ends_behind(before, tokens, self.rules["headers"])
        late = (last_column(starts) > last_column(ends))[:, 0]
        if bool(late.any()):
            shows = f"row {int(late.nonzero()[0])} shows"
            raise ValueError(UNKNOWN.format(shows=shows, where=" in its last turn"))

    def _refuse_uncalibrated(self, inputs: dict[str, Any]) -> None:
        """Raise where an input brings a modality that was never calibrated."""
        brought = {**inputs, **(inputs.get("mm_encoder_outputs") or {})}
        for name, modality in self.rules["refused"].items():
            if brought.get(name) is not None:
                raise ValueError(
                    f"steered checkpoint: {name} was given, and steering was not calibrated for "
                    f"{modality}; leave it out, or run it without steering "
                    "(with model.steering.off():)"
                )

    def _shown(
        self, ids: torch.Tensor | None, x: torch.Tensor, inputs: dict[str, Any]
    ) -> torch.Tensor:
        """(B, T) index of the modality that each column shows; 0 is text.

        A column shows a modality by its token, where there are ids (B, T), or by its token type.
        """
        modalities: list[str] = self.rules["modalities"]
        shown = x.new_zeros(x.shape[:2], dtype=torch.long)
        if not self.rules["placeholders"]:
            return shown
        n = x.shape[1]
        given = [inputs.get(k) for k in ("mm_token_type_ids", "token_type_ids")]
        types = [t[:, -n:].to(x.device) for t in given if t is not None and t.shape[1] >= n]
        if ids is None and not types:
            raise ValueError(
                "steered checkpoint: inputs_embeds do not show which rows hold pictures; pass "
                "input_ids or mm_token_type_ids (0 text, 1 image, 2 video) as well"
            )
        for modality, attribute in self.rules["placeholders"].items():
            if modality in modalities:
                hits = [t.eq(TOKEN_TYPES.index(modality)) for t in types]
                if ids is not None:
                    hits.append(ids.eq(getattr(self._config, attribute)))
                for hit in hits:
                    index = torch.full_like(shown, modalities.index(modality))
                    shown = torch.where(hit, torch.maximum(shown, index), shown)
        return shown


class Columns(NamedTuple):
    """Of the columns of a forward (B, T): history, position, unknown and request as in `Window`."""

    history: History
    position: torch.Tensor
    unknown: torch.Tensor | None
    request: torch.Tensor | None


def tokens_or_embeds(inputs: dict[str, Any]) -> Any:
    """inputs_embeds (B, T, d) or, where there are none, input_ids (B, T); None of no columns."""
    both = (inputs.get("inputs_embeds"), inputs.get("input_ids"))
    present = [x for x in both if x is not None and x.shape[1]]
    return present[0] if present else None


def cached_columns(inputs: dict[str, Any]) -> int:
    """Columns in the cache."""
    cache = inputs.get("past_key_values")
    return int(cache.get_seq_length()) if cache is not None else 0


def _mask(inputs: dict[str, Any], x: torch.Tensor, offset: int) -> torch.Tensor:
    """(B, offset + T) attention mask; 1 for what it leaves out, or where it is not 2-d."""
    mask, columns = inputs.get("attention_mask"), offset + x.shape[1]
    if not isinstance(mask, torch.Tensor) or mask.dim() != 2:
        return x.new_ones((x.shape[0], columns), dtype=torch.long)
    return nn.functional.pad(mask.to(x.device), (max(0, columns - mask.shape[1]), 0), value=1)
