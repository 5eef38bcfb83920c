"""Answers as they are written: generation runs in a thread, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from transformers import TextIteratorStreamer

from mars_export.inputs.merges import tokenizer_of

__all__ = ["StoppedError", "streamed"]

_Result = TypeVar("_Result")


class StoppedError(Exception):
    """The reader has gone, so the rest of the answer is not generated."""


class _Streamer(TextIteratorStreamer):
    """Ends the generation that writes to it when nobody reads any more."""

    stopped = False

    def put(self, value: Any) -> None:
        """Take tokens."""
        if self.stopped:
            raise StoppedError
        super().put(value)


def streamed(
    processor: Any, generate: Callable[[Any], _Result], one_at_a_time: threading.Lock
) -> Generator[str, None, _Result]:
    """Run a generation, and yield the answer as far as it is written.

    Args:
        processor: A processor or tokenizer.
        generate: Takes the streamer that it must write to.
        one_at_a_time: Held while it runs; a reader who leaves frees it at the next token.

    Returns:
        What `generate` returns.

    Raises:
        Exception: What `generate` raises.
    """
    streamer = _Streamer(tokenizer_of(processor), skip_prompt=True, skip_special_tokens=True)
    results: list[_Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with one_at_a_time:
                results.append(generate(streamer))
        except BaseException as error:  # raised again where the answer is read
            errors.append(error)
        finally:
            streamer.on_finalized_text("", stream_end=True)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    text = ""
    try:
        for piece in streamer:
            text += piece
            if piece:
                yield text
    finally:
        streamer.stopped = True
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
