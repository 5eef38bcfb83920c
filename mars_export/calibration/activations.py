"""Activations at the end of the assistant header, and first-token logits, batch by batch.

A generation prompt may go on behind its header, as where it opens a thought.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeVar

import torch
from transformers import BatchFeature

from mars_export.calibration.directions import TextStatistics, places
from mars_export.calibration.meter import Meter
from mars_export.calibration.refusal import log_odds, refuses
from mars_export.common.ahead import Ahead
from mars_export.common.errors import ExportError
from mars_export.common.header import Header
from mars_export.common.input_errors import input_errors, is_out_of_memory
from mars_export.common.vocabulary import Modality
from mars_export.families import decoder_layers
from mars_export.families.loading import free_memory
from mars_export.families.placement import input_device, is_split
from mars_export.families.processes import Processes
from mars_export.inputs.requests import Request, collate, size_class
from mars_export.runtime.model_inputs import modality_shown
from mars_export.runtime.positions import contexts, header_ends, last_column

__all__ = ["LAST", "Edit", "Reader", "Readout", "Shown", "edited", "recorded"]

Result = TypeVar("Result")

LAST: Final = torch.tensor([-1])
"""Of the logits, those of the last column. With the number 1 a decoder whose layers share keys and
values, as that of Gemma 4, would leave all other columns out of those layers."""


@dataclass(frozen=True)
class Edit:
    """A change to the residual stream after one decoder layer.

    Attributes:
        layer: Decoder layer whose output is changed.
        change: Maps states (N, d), in the model's dtype, and contexts (N, 3) as a rule gets them,
            to new states of that dtype.
        positions: Which are changed: the ends of the headers, all up to the last one, or all.
    """

    layer: int
    change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    positions: Literal["turn_end", "prompt", "all"] = "turn_end"


@dataclass(frozen=True)
class Readout:
    """What a list of N requests did to the model.

    Attributes:
        states: (L, N, d) float32, residual stream after each decoder layer at the end of the
            assistant header; empty unless asked for.
        coordinates: (L, N) float64, of those states along a direction of each layer; empty unless
            asked for.
        distances: (L, N) float64, of those states from the harmless text centroid of each layer.
        context: (N, 3) long, what a rule is told at the end of the header.
        refused: (N,) bool, whether the likeliest first token begins a refusal.
        log_odds: (N,) float64, refusal log-odds of the first token, nats.
        log_probs: (N, V) float32, first-token log-probabilities; empty unless asked for.
    """

    states: torch.Tensor
    coordinates: torch.Tensor
    distances: torch.Tensor
    context: torch.Tensor
    refused: torch.Tensor
    log_odds: torch.Tensor
    log_probs: torch.Tensor

    def rows(self, chosen: torch.Tensor) -> "Readout":
        """Those requests alone; chosen: (N,) bool or indices."""
        return Readout(
            self.states[:, chosen],
            self.coordinates[:, chosen],
            self.distances[:, chosen],
            self.context[chosen],
            self.refused[chosen],
            self.log_odds[chosen],
            self.log_probs[chosen],
        )


@dataclass(frozen=True)
class Shown:
    """How the tokens of a prompt say what it shows.

    Attributes:
        modalities: In the order of the steering tensors.
        placeholders: Modality to the token that shows it.
    """

    modalities: tuple[Modality, ...]
    placeholders: Mapping[str, int]


class _Kept(NamedTuple):
    """What is kept of a forward; as the arguments of `Reader.read`."""

    states: bool
    along: TextStatistics | None
    log_probs: bool


class _Span(NamedTuple):
    """A batch: some of the requests in their order."""

    first: int
    end: int


class Reader:
    """Runs requests through a model, one left-padded forward per batch.

    The inputs of the next batch are made while the model runs. Only one position of every layer is
    kept, on the CPU: memory does not grow with the length of the prompts.

    Attributes:
        batch_size: Requests per forward; halved when memory runs out.
        processes: Those that share the batches; every one gets the results of all.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        headers: Sequence[Header],
        refusal_tokens: Sequence[int],
        batch_size: int = 16,
        meter: Meter | None = None,
        shown: Shown | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.model = model
        self.processor = processor
        self.headers = [header.model_dump() for header in headers]
        self.refusal_tokens = list(refusal_tokens)
        self.batch_size = batch_size
        self.meter = meter or Meter()
        self.shown = shown or Shown(("text",), {})
        self.processes = processes or Processes()

    def read(
        self,
        requests: Sequence[Request],
        *,
        states: bool = False,
        along: TextStatistics | None = None,
        log_probs: bool = False,
        edit: Edit | None = None,
    ) -> Readout:
        """Run requests of one modality, large ones first and in batches of their own.

        Args:
            requests: At least one.
            states: Keep the residual stream.
            along: Keep where it lies along these directions: two numbers a layer and request.
            log_probs: Keep the first-token distribution.
            edit: Steer while running.

        Returns:
            Rows in the order of `requests`.

        Raises:
            ExportError: A single request does not fit into memory, a prompt shows no header, or the
                unsteered model computes numbers that are not finite.
        """
        order = sorted(range(len(requests)), key=lambda i: -size_class(requests[i].characters))
        parts = list(
            self._parts([requests[i] for i in order], _Kept(states, along, log_probs), edit)
        )
        whole = _joined(parts)
        if order == sorted(order):
            return whole
        return whole.rows(torch.tensor(order).argsort())

    def size(self, request: Request) -> tuple[int, int]:
        """Tokens of a request, which is not run, and media tokens of its last turn."""
        inputs = collate(self.processor, [request])
        ends, _, context = self._contexts(inputs)
        return inputs["input_ids"].shape[1], int(context[0, ends[0], 1])

    def _parts(
        self, requests: Sequence[Request], kept: _Kept, edit: Edit | None
    ) -> Iterator[Readout]:
        return self.each_batch(requests, lambda inputs: self._forward(inputs, kept, edit))

    def each_batch(
        self, requests: Sequence[Request], run: Callable[[BatchFeature], Result]
    ) -> Iterator[Result]:
        """What `run` makes of the inputs of each batch; smaller ones if need be.

        The batches are those of one process, however many share them.

        Args:
            requests: Of one modality, the largest first.
            run: Gets the inputs of some of them, where and as the model wants them.

        Raises:
            ExportError: A single request does not fit into memory.
        """
        count = self.processes.count
        with Ahead[_Span, BatchFeature](
            lambda span: collate(self.processor, requests[span.first : span.end])
        ) as ahead:
            if count == 1:
                whole = _Span(0, len(requests))
                for span, part in self._in_turn(requests, whole, ahead, run):
                    yield part
                    self.meter.advance(requests[span.first : span.end])
                return
            spans = list(self._spans(requests))

            def run_part(number: int) -> tuple[list[Result], int]:
                then = spans[number + count] if number + count < len(spans) else None
                done = self._in_turn(requests, spans[number], ahead, run, then)
                parts = [part for _, part in done]
                for span in spans[number - self.processes.rank :][:count]:
                    self.meter.advance(requests[span.first : span.end])  # others do theirs
                return parts, self.batch_size

            shared = self.processes.each(range(len(spans)), run_part)
        self.batch_size = min(size for _, size in shared)
        for parts, _ in shared:
            yield from parts

    def _in_turn(
        self,
        requests: Sequence[Request],
        whole: _Span,
        ahead: Ahead[_Span, BatchFeature],
        run: Callable[[BatchFeature], Result],
        then: _Span | None = None,
    ) -> Iterator[tuple[_Span, Result]]:
        """Batches of a part of the requests and what `run` makes of them; `then` comes next."""
        first = whole.first
        while first < whole.end:
            span = self._batch(requests, first, whole.end)
            after = self._batch(requests, span.end, whole.end) if span.end < whole.end else then
            try:
                part = run(ahead.of(span, after).to(input_device(self.model), self.model.dtype))
            except (RuntimeError, MemoryError) as error:
                self._halve(error)
                continue
            yield span, part
            first = span.end

    def _spans(self, requests: Sequence[Request]) -> Iterator[_Span]:
        """All batches, as they are now."""
        first = 0
        while first < len(requests):
            yield (span := self._batch(requests, first, len(requests)))
            first = span.end

    def _batch(self, requests: Sequence[Request], first: int, end: int) -> _Span:
        """Requests of one size from `first` on; the largest stand first."""
        batch = requests[first : min(end, first + self.batch_size)]
        sizes = [size_class(request.characters) for request in batch]
        return _Span(first, first + sizes.count(sizes[0]))

    def _halve(self, error: RuntimeError | MemoryError) -> None:
        if not is_out_of_memory(error):
            raise error
        if is_split(self.model):  # the other processes wait for this very batch
            raise ExportError(
                f"{self.batch_size} requests at once do not fit into memory beside a part of the "
                "model; give a smaller --batch-size"
            ) from error
        if self.batch_size == 1:
            raise ExportError(
                "One request does not fit into memory; use a device with more memory or "
                "--dtype bfloat16."
            ) from error
        self.batch_size //= 2
        free_memory()

    @torch.inference_mode()
    def _forward(self, inputs: BatchFeature, kept: _Kept, edit: Edit | None) -> Readout:
        ends, headers, context = self._contexts(inputs)
        record: AbstractContextManager[list[torch.Tensor]]
        record = recorded(self.model, ends) if kept.states or kept.along else nullcontext([])
        # With an edit a failure is our own.
        what = f"the model {_place(self.model)} fails"
        net = nullcontext() if edit else input_errors(what, "check its config.json")
        with net, edited(self.model, edit, headers, context), record as layers:
            out = self.model(**inputs, use_cache=False, logits_to_keep=LAST)
        logits = out.logits[:, -1].to("cpu", torch.float32)
        if edit is None:
            _require_finite(layers, logits, self.model.dtype)
        rows = len(logits)
        h = torch.stack(layers) if layers else torch.empty(0, rows, 0)
        nowhere = torch.empty(0, rows, dtype=torch.float64)
        return Readout(
            h if kept.states else torch.empty(0, rows, 0),
            *(places(h, kept.along) if kept.along else (nowhere, nowhere)),
            context[torch.arange(rows), ends].cpu(),
            refuses(logits, self.refusal_tokens),
            log_odds(logits, self.refusal_tokens),
            logits.log_softmax(-1) if kept.log_probs else torch.empty(rows, 0),
        )

    def _contexts(self, inputs: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B,) column where the last assistant header of each row ends, (B, T) all, and contexts.

        Contexts (B, T, 3) are what a rule is told at each column.
        """
        ids = inputs["input_ids"]
        headers = header_ends(ids, self.headers)
        ends = last_column(headers)[:, 0]
        if bool((ends < 0).any()):
            raise ExportError(
                "A prompt shows no assistant header of the chat template, so there is no position "
                "to steer; give the model the tokenizer that its chat template was made for."
            )
        shown = modality_shown(
            inputs, ids, ids, self.shown.placeholders, list(self.shown.modalities)
        )
        return ends, headers, contexts(shown, headers)


def _joined(parts: Sequence[Readout]) -> Readout:
    return Readout(
        torch.cat([part.states for part in parts], 1),
        torch.cat([part.coordinates for part in parts], 1),
        torch.cat([part.distances for part in parts], 1),
        torch.cat([part.context for part in parts]),
        torch.cat([part.refused for part in parts]),
        torch.cat([part.log_odds for part in parts]),
        torch.cat([part.log_probs for part in parts]),
    )


def _require_finite(states: list[torch.Tensor], logits: torch.Tensor, dtype: torch.dtype) -> None:
    """Refuse a model that overflows, or whose weights are damaged.

    states: of each layer, if recorded. Logits of minus infinity are tokens that the model rules
    out.
    """
    layer = next((i for i, h in enumerate(states) if not bool(h.isfinite().all())), None)
    if layer is None and not bool(logits.isnan().any()):
        return
    where = "logits" if layer is None else f"states of layer {layer}"
    advice = (
        "use --dtype bfloat16, whose range is larger"
        if dtype == torch.float16
        else "weights are damaged: download them again"
    )
    name = str(dtype).removeprefix("torch.")
    raise ExportError(f"The {where} are not finite in {name}; {advice}.")


def _place(model: Any) -> str:
    """Where a model was loaded from."""
    return str(getattr(model, "name_or_path", "") or type(model).__name__)


@contextmanager
def recorded(model: Any, columns: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Collect one column of every decoder layer's output during one forward.

    Args:
        model: A Transformers model with a text decoder.
        columns: (B,) int64, one for each row.

    Yields:
        A list that the forward fills with (B, d) float32 CPU tensors, one per layer in order.
    """
    kept: list[torch.Tensor] = []

    def keep(_module: Any, _args: Any, output: Any) -> None:
        hidden = _hidden(output)
        rows = torch.arange(len(hidden), device=hidden.device)
        kept.append(hidden[rows, columns.to(hidden.device)].detach().to("cpu", torch.float32))

    handles = [layer.register_forward_hook(keep) for layer in decoder_layers(model)]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def edited(
    model: Any, edit: Edit | None, headers: torch.Tensor, context: torch.Tensor
) -> Iterator[None]:
    """Apply an edit while the context is open; None applies nothing.

    Args:
        model: A Transformers model with a text decoder.
        edit: What to change, at which layer.
        headers: (B, T) bool, columns where an assistant header ends.
        context: (B, T, 3) long, what the edit is told at each column.
    """
    if edit is None:
        yield
        return

    def change(_module: Any, _args: Any, output: Any) -> Any:
        hidden = _hidden(output).clone()
        changed = _selected(edit.positions, headers).to(hidden.device)
        hidden[changed] = edit.change(hidden[changed], context.to(hidden.device)[changed])
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = decoder_layers(model)[edit.layer].register_forward_hook(change)
    try:
        yield
    finally:
        handle.remove()


def _selected(
    positions: Literal["turn_end", "prompt", "all"], headers: torch.Tensor
) -> torch.Tensor:
    """(B, T) bool: which columns are changed; headers (B, T) as in `edited`."""
    if positions == "turn_end":
        return headers
    if positions == "all":
        return torch.ones_like(headers)
    return torch.arange(headers.shape[1], device=headers.device) <= last_column(headers)


def _hidden(output: Any) -> torch.Tensor:
    """Decoder layers return a tensor or a tuple that begins with it."""
    hidden: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return hidden
