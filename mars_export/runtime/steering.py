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
from mars_export.runtime.model_inputs import (
    VISUAL_TOKENS,
    attended_pairs,
    attention_mask,
    cached_columns,
    modality_shown,
    refuse_uncalibrated,
    refuse_untyped,
    tokens_or_embeds,
    visual_columns,
)
from mars_export.runtime.positions import (
    MIXED,
    contexts,
    header_ends_after,
    is_assistants_turn,
    mixed_columns,
    recognized,
    refuse_shown_late,
    requests,
    stated_columns,
    steered_columns,
    unknown_columns,
)
from mars_export.runtime.trace import SteeredPosition, Trace
from mars_export.runtime.windows import PADDING, WINDOW_VERSION, History, NoWindow, Plan, Window

NO_HEADER = (
    "steered checkpoint: {shows} no assistant header of the calibrated chat template{where}, so "
    "where its answer begins is unknown; use apply_chat_template(..., add_generation_prompt=True), "
    "or name the tokens to steer (steering_positions=[[...], ...]), or run it without steering "
    "(with model.steering.off():)"
)


_ATTRIBUTES = frozenset(
    (
        *("enabled", "verified", "trace", "rules"),
        *("_config", "_placeholders", "_visual", "_layers", "_parameters", "_paused"),
    )
)


class _Scope:
    """A context in which a steering is off, until it ends: also where its context was copied to."""

    def __init__(self, steering: int) -> None:
        self.steering = steering
        self.is_open = True


_OFF: ContextVar[tuple[_Scope, ...]] = ContextVar("steering_off", default=())
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
        self._placeholders: dict[str, int] = {
            modality: getattr(config, attribute)
            for modality, attribute in self.rules["placeholders"].items()
        }
        self._visual = [
            self._placeholders[modality]
            for modality, attribute in self.rules["placeholders"].items()
            if attribute in VISUAL_TOKENS and any(rule.visual for rule in layers.values())
        ]
        self._layers = layers
        self._parameters = list(inspect.signature(module.forward).parameters)
        self._paused = 0
        module.register_forward_pre_hook(self.before_forward, with_kwargs=True)
        module.register_forward_hook(self.after_forward, with_kwargs=True)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse what would leave requests unsteered unseen: a mistyped name, a word as switch."""
        if name == "enabled" and not isinstance(value, bool):
            raise TypeError(f"model.steering.enabled takes True or False, not {value!r}")
        if name not in _ATTRIBUTES:
            raise AttributeError(
                f"model.steering has no attribute {name!r} to set; the switch is "
                "model.steering.enabled"
            )
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        """The switch, what steers where, and what was done to the last request."""
        switch = ("on" if self.active else "off here") if self.enabled else "off"
        layers = ", ".join(map(str, self.rules["layers"]))
        where = self.rules["method"] + (f", layers {layers}" if layers else "")
        rows = "; ".join(_told(number, row) for number, row in enumerate(self.last))
        last = f"last request: {rows}" if rows else "no request steered yet"
        return f"<Steering {switch}: {where}; {last}>"

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
        off = any(scope.is_open and scope.steering == id(self) for scope in _OFF.get())
        return self.enabled and not off

    @contextmanager
    def off(self) -> Iterator[None]:
        """Run the base model inside this context: requests of this thread or task, no others.

        Raises:
            RuntimeError: from a model compiled as one graph, which cannot see whose request it is.
        """
        scope = _Scope(id(self))
        _OFF.set((*_OFF.get(), scope))
        with _PAUSING:
            self._paused += 1
        try:
            yield
        finally:
            scope.is_open = False
            with _PAUSING:
                self._paused -= 1
            # Not by a token: a generator may end in another context, and scopes in any order.
            _OFF.set(tuple(scope for scope in _OFF.get() if scope.is_open))

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
            cache.steering_history = window.history.of(None if in_graph() else cache)

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
        if bool((attention_mask(inputs, x, offset)[:, -1] == 0).any()):
            raise ValueError(
                "steered checkpoint: a row of generate() ends in padding; pad on the left "
                '(processor(..., padding=True, padding_side="left")) and leave out empty rows'
            )
        cached = self._cached(inputs)
        before = cached.columns(0, offset) if cached is not None and offset else None
        columns = self._columns(module, inputs, before, offset, stated)
        if columns.request is not None:
            raise ValueError(
                "steered checkpoint: position_ids begin anew within a row; generate() takes one "
                "request a row"
            )
        self._refuse_unknown(columns)
        policy = self.rules["positions"]
        answer = policy == "all" and stated is None
        if stated is None and not drafts and policy not in ("all", "none"):
            self._refuse_unanswered(columns.history, before)
            refuse_shown_late(columns.history.steered, columns.history.context)
        again = None if cached is None else cached.columns(offset, offset + n)
        if again is not None and not again.agrees(columns.history):
            raise ValueError(
                "steered checkpoint: the cache holds other tokens than this conversation, or "
                "was steered elsewhere; pass the whole conversation without the cache"
            )
        return Plan(
            columns.history, columns.position, offset, Trace(), answer, visual=columns.visual
        )

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
        if "prompts" in self.rules:
            raise RuntimeError(
                f"steered checkpoint: {self.rules['method']} acts in generate() alone; call that, "
                "or run it without steering (with model.steering.off():)"
            )
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
            columns.history.context,
            columns.position,
            self.trace,
            history,
            columns.unknown if in_graph() else None,
            columns.visual,
        )

    def _fitted(self, window: Window, inputs: dict[str, Any]) -> Window:
        """A window of an engine or a generate(), as this forward's columns and cache need it."""
        self._verify_once()
        if window.history is None:
            return window
        more = tokens_or_embeds(inputs).shape[1] - window.steered.shape[1]
        if more > 0 and inputs.get("input_ids") is None:  # virtual tokens of peft
            window = window.with_columns_before(more)
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
            or history.sha256 != self.rules["sha256"]
            or history.tokens.shape[0] != x.shape[0]
            or history.tokens.shape[1] < past
            or not (in_graph() or history.describes(inputs["past_key_values"]))
        ):
            raise ValueError(
                "steered checkpoint: this cache was not filled by this model with steering on, row "
                "by row, or was changed since; pass the whole conversation without it, or run it "
                "without steering (with model.steering.off():)"
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
        """What is steered in the columns of `inputs`, after the `offset` columns of the cache."""
        refuse_uncalibrated(inputs, self.rules["refused"])
        x, graph = tokens_or_embeds(inputs), in_graph()
        ids: torch.Tensor | None = inputs.get("input_ids")
        if ids is not None and ids.shape[1] != x.shape[1]:
            ids = None  # embeddings run, of other columns than these tokens
        if ids is not None:
            tokens = ids
        else:
            known = self._header_tokens() | set(self._placeholders.values())
            tokens = recognized(x, module.get_input_embeddings(), known, graph)
            if self._placeholders:
                names = [m for m in self.rules["modalities"] if m in self._placeholders]
                refuse_untyped(inputs, x, names, graph)
        # The mask covers the cache as well.
        allowed = attention_mask(inputs, x, offset) != 0
        position = allowed.long().cumsum(1) - 1
        real = allowed[:, offset:]
        tokens = tokens.masked_fill(~real, PADDING)
        request = requests(inputs.get("position_ids"), attended_pairs(inputs, x), real)
        if request is not None and not graph and not bool(request.any()):
            request = None
        policy, headers, unknown = self.rules["positions"], self.rules["headers"], None
        if stated is not None and policy == "none":
            raise ValueError(
                "steered checkpoint: it steers no token by its position; leave steering_positions "
                "out"
            )
        if stated is not None:
            steered, wrong = stated_columns(stated, position, allowed, before)
            unknown = wrong[:, None] & real
            if not graph and bool(wrong.any()):
                raise ValueError(
                    f"steered checkpoint: steering_positions of row {int(wrong.nonzero()[0])} name "
                    "a token that the row does not have so far, or that its cache holds unsteered"
                )
        else:
            steered = steered_columns(policy, before, tokens, real, headers, request, graph)
            if policy not in ("all", "none"):
                unknown = unknown_columns(steered, before, real, request)
        shown = modality_shown(inputs, tokens, x, self._placeholders, self.rules["modalities"])
        shown = shown * real  # what is masked is padding, and nothing hears or sees it
        mixed = mixed_columns(shown, self.rules["modalities"], before, request)
        if mixed is not None:
            mixed = mixed & real
            if not graph and bool(mixed.any()):
                raise ValueError(MIXED.format(row=int(mixed.any(1).nonzero()[0])))
            unknown = mixed if unknown is None else unknown | mixed
        context = contexts(shown, steered, before, request)
        history = History(tokens, context, steered, self.rules["sha256"])
        visual = visual_columns(inputs, ids, x, self._visual) & real if self._visual else None
        return Columns(history, position[:, offset:], unknown, request, visual)

    def _header_tokens(self) -> set[int]:
        """Tokens that headers and the beginnings of other turns are made of."""
        return {
            token
            for header in self.rules["headers"]
            for token in [*header["prefix"], *header["ends"]]
        } | {token for start in self.rules["turn_starts"] for token in start}

    def _refuse_unknown(self, columns: "Columns") -> None:
        """Raise where a request shows no header, and none is in the cache."""
        if columns.unknown is None or in_graph() or not bool(columns.unknown.any()):
            return
        row = int(columns.unknown.any(1).nonzero()[0])
        shows = f"row {row} shows"
        if columns.request is not None:
            shows = f"row {row} packs, by its position_ids, a request that shows"
        raise ValueError(NO_HEADER.format(shows=shows, where=""))

    def _refuse_unanswered(self, history: History, before: History | None) -> None:
        """Raise where somebody else's turn has begun after the last assistant header."""
        if before is None and self.rules["positions"] != "prompt":
            tokens, ends = history.tokens, history.steered
        else:  # where the cache may have been steered elsewhere
            tokens = history.tokens if before is None else before.joined(history).tokens
            ends = header_ends_after(None, tokens, self.rules["headers"])
        own = is_assistants_turn(tokens, ends, self.rules["turn_starts"])
        if not bool(own.all()):
            shows = f"row {int((~own).nonzero()[0])} shows"
            raise ValueError(NO_HEADER.format(shows=shows, where=" in its last turn"))


def _told(number: int, row: list[SteeredPosition]) -> str:
    """The last steered position of a row, in words."""
    if not row:
        return f"row {number} not steered"
    return f"row {number} at {len(row)} positions, the last {row[-1]}"


class Columns(NamedTuple):
    """Of the columns of a forward (B, T), as in `Window`; request: number of each in its row."""

    history: History
    position: torch.Tensor
    unknown: torch.Tensor | None
    request: torch.Tensor | None
    visual: torch.Tensor | None
