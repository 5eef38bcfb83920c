"""Steered checkpoints as models of inspect_ai: `--model mars/DIR`, `-M steering=off` for the base.

The checkpoint must pass its self-check before anything is answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Final, NamedTuple

from anyio import to_thread
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    ModelAPI,
    ModelOutput,
    modelapi,
)

from mars_export.checkpoint.manifest import Manifest
from mars_export.common.errors import ExportError
from mars_export.evaluation.generation import Loaded
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.selfcheck import load_checked
from mars_export.families.loading import pick_device
from mars_export.inputs.requests import Request, size_class
from mars_export.integrations.inspect_ai.messages import request_of

__all__ = ["mars"]

_GATHER: Final = 0.2
"""Seconds to wait for companions of a request."""


class _Asked(NamedTuple):
    request: Request
    tokens: int
    seed: int | None
    reply: Future[Any]

    @property
    def kind(self) -> tuple[Any, ...]:
        """The same for requests that can stand in one batch."""
        request = self.request
        size = size_class(request.characters)
        return request.modality, bool(request.prefill), size, self.tokens, self.seed


class _Batches:
    """Answers requests that arrive together in one batch, one batch after the other."""

    def __init__(self, loaded: Loaded, steered: bool, most: int) -> None:
        self._loaded, self._steered, self._most = loaded, steered, most
        self._waiting: Queue[_Asked] = Queue()
        self._held: list[_Asked] = []
        self._turns = ThreadPoolExecutor(1)

    def ask(self, request: Request, tokens: int, seed: int | None) -> Future[Any]:
        """What will be the text, whether it was cut, and what steering did."""
        reply: Future[Any] = Future()
        self._waiting.put(_Asked(request, tokens, seed, reply))
        self._turns.submit(self._turn)
        return reply

    def _turn(self) -> None:
        """Answer the oldest request that waits, with its companions; each brings a turn."""
        self._gather()
        if not self._held:
            return
        kind, held = self._held[0].kind, self._held
        batch = [one for one in held if one.kind == kind]
        self._held = [one for one in held if one.kind != kind]
        try:
            answers = self._answered(batch)
        except BaseException as error:  # it belongs to those who asked
            for one in batch:
                one.reply.set_exception(error)
            return
        for one, answer in zip(batch, answers, strict=True):
            one.reply.set_result(answer)

    def _gather(self) -> None:
        """Take a batch at most; a turn whose request was answered beside another waits for none."""
        while len(self._held) < self._most:
            try:
                self._held.append(self._waiting.get(timeout=_GATHER if self._held else 0))
            except Empty:
                return

    def _answered(self, batch: Sequence[_Asked]) -> list[tuple[str, bool, Any]]:
        first, requests = batch[0], [one.request for one in batch]
        told = self._loaded.answer(
            self._loaded.inputs(requests), first.tokens, steered=self._steered, seed=first.seed
        )
        return list(zip(told.texts, told.cut, told.decisions, strict=True))


class _SteeredModel(ModelAPI):
    """A steered checkpoint in this process."""

    def __init__(
        self,
        model_name: str,
        *args: Any,
        steering: bool = True,
        device: str = "auto",
        batch_size: int = EvaluationOptions().batch_size,
        **kwargs: Any,
    ) -> None:
        super().__init__(model_name, *args, **kwargs)
        directory = Path(model_name)
        loaded = load_checked(directory, Manifest.read(directory), pick_device(device))
        self._steered, self._size = steering, batch_size
        self._batches = _Batches(loaded, steering, batch_size)

    def max_connections(self) -> int:
        """As many requests as stand in a batch."""
        return self._size

    def max_tokens(self) -> int:
        """Of an answer where the task does not say."""
        return EvaluationOptions().max_new_tokens

    async def generate(self, input: Any, tools: Any, tool_choice: Any, config: Any) -> Any:  # noqa: ARG002
        """Answer: greedily at temperature 0 or none, else drawn at temperature 1."""
        if tools:
            raise ExportError("mars: steered checkpoints are asked without tools; leave them out")
        if config.temperature not in (None, 0, 1):
            raise ExportError("mars: temperature 0 (greedy) or 1; another was not calibrated for")
        seed = (config.seed or 0) if config.temperature else None
        reply = self._batches.ask(request_of(input), config.max_tokens or self.max_tokens(), seed)
        text, cut, decision = await to_thread.run_sync(reply.result)
        message = ChatMessageAssistant(content=text, model=self.model_name, source="generate")
        choice = ChatCompletionChoice(message=message, stop_reason="max_tokens" if cut else "stop")
        return ModelOutput(
            model=self.model_name,
            choices=[choice],
            metadata={
                "steering": "on" if self._steered else "off",
                "decision": decision.model_dump() if decision else None,
            },
        )


def _mars() -> type[Any]:
    return _SteeredModel


mars = modelapi(name="mars")(_mars)
