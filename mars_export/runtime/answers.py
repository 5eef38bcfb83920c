"""Answers: a rule at generate(), by which the first tokens of an answer are changed.

It acts on what enters the language head. So a cache holds what the base model would put there for
the same tokens.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from mars_export.runtime.layer import AT_MODEL, HostedRule, replace_forward
from mars_export.runtime.model_inputs import attention_mask, modality_shown
from mars_export.runtime.passes import (
    TYPES,
    Passes,
    PromptRow,
    Risks,
    read_row,
    unwatched,
    watched_head,
)
from mars_export.runtime.positions import contexts, header_ends
from mars_export.runtime.trace import Trace, TraceEntry
from mars_export.runtime.windows import NoWindow, Plan, Window

NO_TURN = (
    "steered checkpoint: row {row} does not end in a user's turn and an assistant header of the "
    "calibrated chat template, so it cannot be assessed; use apply_chat_template(..., "
    "add_generation_prompt=True), or run it without steering (with model.steering.off():)"
)
# Tensors of generate() that show nothing.
_NOT_SHOWN = (
    *("input_ids", "inputs_embeds", "attention_mask", "position_ids", "past_key_values"),
    *("negative_prompt_ids", "negative_prompt_attention_mask", "labels", "use_cache"),
    *("cache_position", "logits_to_keep", *TYPES),
)


class Answers:
    """Changes the answers of a model as `rule`, an `AnswerRule`, says.

    rules: `config.steering`. placeholders: modality to the token that shows it.
    """

    def __init__(
        self, rules: Mapping[str, Any], rule: Any, placeholders: Mapping[str, int]
    ) -> None:
        self.rules, self.rule, self.placeholders = rules, rule, placeholders
        self.passes = Passes(rules, rule)

    @contextmanager
    def changed(
        self, model: Any, run: Callable[..., Any], inputs: Mapping[str, Any], plan: Plan
    ) -> Iterator[dict[str, Any]]:
        """Run the passes; while the context is open, the plan's answers are changed.

        run: generate() of the unsteered model. inputs: of the generate() that has this plan.

        Yields:
            Further arguments for it.

        Raises:
            ValueError: if the request cannot be assessed, as by its embeddings.
            RuntimeError: if this way of generating leaves the plan.
        """
        with torch.no_grad():
            plan.mixing = self.assess(model, run, inputs, plan.trace)
        if plan.mixing is None:
            yield {}
            return
        with plan.mixing.around(model):
            yield {"disable_compile": True}

    def unchanged(self, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What `run` returns, whatever answer is being changed around it."""
        with unwatched():
            return run(*args, **kwargs)

    def assess(
        self, model: Any, run: Callable[..., Any], inputs: Mapping[str, Any], trace: Trace | None
    ) -> "Mixing | None":
        """As `changed`; None if the answers of all rows were begun and have gone on too far."""
        ids = self._tokens(inputs)
        shown = {
            name: value
            for name, value in inputs.items()
            if isinstance(value, torch.Tensor) and name not in _NOT_SHOWN
        }
        mask = attention_mask(inputs, ids, 0) != 0
        rows = self.rows(ids, mask)
        pixels = any(value.is_floating_point() for value in shown.values())
        if any(row.visual for row in rows) and not pixels:
            raise ValueError(
                "steered checkpoint: the prompt shows a picture or clip that was not given; give "
                "the whole conversation with all it shows"
            )
        last = max(row.answer for row in rows) - 1 + self.rules["steps"]
        if ids.shape[1] - 1 >= last:
            return None
        types = {name: inputs[name] for name in TYPES if inputs.get(name) is not None}
        risks = self.passes(model, run, rows, {"input_ids": ids, **types, **shown})
        return Mixing(self.rule, rows, risks, self._context(inputs, ids, mask, rows), trace)

    def _tokens(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        ids: torch.Tensor | None = inputs.get("input_ids")
        embeds, mask = inputs.get("inputs_embeds"), inputs.get("attention_mask")
        if ids is None or embeds is not None:
            raise ValueError(
                "steered checkpoint: the request is read again in other words, which "
                "inputs_embeds do not allow; pass input_ids, or run it without steering "
                "(with model.steering.off():)"
            )
        if mask is not None and mask.shape[-1] != ids.shape[1]:
            raise ValueError(
                "steered checkpoint: the request is read again as a whole; pass the whole "
                "conversation in input_ids, with or without a cache of its beginning"
            )
        if isinstance(inputs.get("logits_to_keep"), torch.Tensor):
            raise TypeError("steered checkpoint: logits_to_keep must be a number of columns")
        return ids

    def rows(self, ids: torch.Tensor, mask: torch.Tensor) -> list[PromptRow]:
        """The rows of a batch, read."""
        first = mask.long().argmax(1).tolist()
        rows = []
        for number, (tokens, start) in enumerate(zip(ids.tolist(), first, strict=True)):
            row = read_row(tokens, start, self.rules)
            if row is None:
                raise ValueError(NO_TURN.format(row=number))
            rows.append(row)
        return rows

    def _context(
        self,
        inputs: Mapping[str, Any],
        ids: torch.Tensor,
        mask: torch.Tensor,
        rows: list[PromptRow],
    ) -> torch.Tensor:
        """(B, 3) at the end of each row's last header, as in `History`."""
        modalities = self.rules["modalities"]
        shown = modality_shown(inputs, ids, ids, self.placeholders, modalities) * mask
        every = contexts(shown, header_ends(ids, self.rules["headers"]) & mask)
        at = torch.tensor([row.header - 1 for row in rows], device=ids.device)
        return every[torch.arange(len(rows), device=ids.device), at]


def host_answers(model: Any, decoder: Any, rule: type[HostedRule]) -> dict[int, HostedRule]:
    """Host a rule in the text decoder, where its tensors are, and give the model its answers."""
    rules, size = model.config.steering, model.config.get_text_config().hidden_size
    hosted = rule(size, rules, AT_MODEL)
    decoder.steering = hosted
    replace_forward(decoder, watched_decoder)
    places = {m: getattr(model.config, name) for m, name in rules["placeholders"].items()}
    model._answers = Answers(rules, hosted, places)
    return {AT_MODEL: hosted}


def watched_decoder(
    decoder: Any, *args: Any, steering_window: Window | NoWindow = NoWindow.UNKNOWN, **kwargs: Any
) -> Any:
    """forward() of the decoder, which raises where the model around it was gone past."""
    if steering_window is NoWindow.UNKNOWN and decoder.steering.switch.active:
        raise RuntimeError(
            "steered checkpoint: the text decoder was called alone, and its method acts in "
            "generate(); call that, or run it without steering (with model.steering.off():)"
        )
    return type(decoder).forward(decoder, *args, steering_window=steering_window, **kwargs)


class Mixing:
    """The change of the first tokens of the answers of one generate().

    A column is changed by its place behind the header: where an answer was begun by the caller,
    only what is left of its first tokens; where candidates are tried, those in their places.
    """

    def __init__(
        self,
        rule: Any,
        rows: list[PromptRow],
        risks: Risks,
        context: torch.Tensor,
        trace: Trace | None,
    ) -> None:
        self.rule, self.risks, self.trace = rule, risks, trace
        device = risks.risk.device
        self.begin = torch.tensor([row.answer - 1 for row in rows], device=device)
        self.first = torch.tensor([row.first for row in rows], device=device)
        self.context = context.to(device)
        self.stop = max(row.answer - 1 for row in rows) + len(rule.prototypes)
        self.expected: int | None = None
        self.reached: int | None = None  # columns up to here were run
        self.virtual = 0  # columns of the cache that are no tokens, as peft's
        self.begun = self.over = False
        self.entries: dict[int, TraceEntry] = {}

    @contextmanager
    def around(self, model: Any) -> Iterator[None]:
        """Change what enters the head while the context is open.

        Raises:
            RuntimeError: if this way of generating leaves the plan.
        """
        with watched_head(model, self.mixed):
            yield
        if self.expected is not None or not self.begun:
            raise RuntimeError(_LEFT)
        if self.trace is not None:
            self.trace.entries += [self.entries[column] for column in sorted(self.entries)]

    def expect(self, start: int, length: int) -> None:
        """A forward over `length` columns from index `start` of the cache comes next."""
        if self.expected is not None:
            raise RuntimeError(_LEFT)
        start -= self.virtual
        if self.reached is not None and start > self.reached:
            self.virtual += start - self.reached
            start = self.reached
        self.reached = start + length
        self.begun, self.over = True, start >= self.stop
        self.expected = None if self.over else start + length

    def mixed(self, h: torch.Tensor) -> torch.Tensor | None:
        """The states (B, k, d) of the last k columns of a forward, changed where an answer begins.

        B may be a multiple of the rows: beams and returned sequences share the risk of their row.
        """
        if self.over:
            return None
        if self.expected is None:
            raise RuntimeError(_LEFT)
        stop, self.expected = self.expected, None
        columns = range(stop - h.shape[1], stop)
        if columns.start >= self.stop:
            return None
        times = h.shape[0] // len(self.begin)
        steps = len(self.rule.prototypes)
        begin, first, risk = (
            part.repeat_interleave(times).to(h.device)
            for part in (self.begin, self.first, self.risks.risk)
        )
        column = torch.arange(columns.start, stop, device=h.device)
        step = column - begin.unsqueeze(1)
        steered = (step >= 0) & (step < steps)
        risk = risk.unsqueeze(1).expand(step.shape)
        flat = (h.float(), risk, step.clamp(0, steps - 1))
        changed, decision = self.rule(*(part.flatten(0, 1) for part in flat))
        changed = changed.view(h.shape)
        decision = {name: values.view(step.shape) for name, values in decision.items()}
        context = self.context.to(h.device).repeat_interleave(times, 0).unsqueeze(1)
        for k, place in enumerate(columns):
            self._record(place, k, steered, column - first.unsqueeze(1), context, decision)
        return torch.where(steered.unsqueeze(-1), changed.to(h.dtype), h)

    def _record(
        self,
        place: int,
        k: int,
        steered: torch.Tensor,
        position: torch.Tensor,
        context: torch.Tensor,
        decision: dict[str, torch.Tensor],
    ) -> None:
        """Keep one column; of candidates that are tried again, what was done last."""
        part = slice(k, k + 1)
        self.entries = {column: e for column, e in self.entries.items() if column < place}
        if place < self.stop:
            self.entries[place] = TraceEntry(
                AT_MODEL,
                steered[:, part],
                position[:, part],
                context,
                {name: values[:, part] for name, values in decision.items()},
            )


_LEFT = (
    "steered checkpoint: this way of generating does not run the answer's first tokens as planned, "
    "so they would not be steered; use greedy decoding, sampling or beams, or run it without "
    "steering (with model.steering.off():)"
)
