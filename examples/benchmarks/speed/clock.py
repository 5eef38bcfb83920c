"""Time on a device, and ratios of times that were taken in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList

__all__ = ["Clock", "Deadline", "Generate", "Ratios", "compare", "one_thread"]

Generate = Callable[..., Any]
"""Takes a request and the arguments of generate()."""
Phases = dict[str, float]
"""Phase (prefill, decode) to seconds; decode is per token."""


class Deadline:
    """When to stop measuring."""

    def __init__(self, minutes: float) -> None:
        self.end = time.perf_counter() + 60 * minutes

    @property
    def passed(self) -> bool:
        """Whether nothing more is to be started."""
        return time.perf_counter() > self.end

    def share(self, parts: int) -> Deadline:
        """For the next of so many parts: at most twice its equal share of what is left."""
        left = max(0.0, self.end - time.perf_counter())
        return Deadline(min(1.0, 2 / parts) * left / 60)


@contextmanager
def one_thread(device: str) -> Iterator[None]:
    """What `Clock` wants of a CPU; nothing on a GPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if device == "cpu" else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Clock:
    """Marks in time.

    On a GPU: events of its stream, which wait for nothing. On a CPU: processor time of this
    thread, which other programs disturb far less than the wall clock; give torch no other one.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.cuda = device, device.type == "cuda"

    def mark(self) -> Any:
        """Now, in the order of the work given to the device."""
        if not self.cuda:
            return time.thread_time()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def wait(self) -> None:
        """Until the device has done all its work."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, first: Any, last: Any) -> float:
        """Between two marks; `wait` first."""
        return float(first.elapsed_time(last) / 1000 if self.cuda else last - first)

    def generate(self, generate: Generate, request: Mapping[str, Any], tokens: int) -> Phases:
        """Time to the first and per further token of a greedy run to exactly `tokens` > 1."""
        stamps = _Stamps(self)
        self.wait()
        start = self.mark()
        generate(
            **request, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False,
            logits_processor=LogitsProcessorList([stamps]),
        )  # fmt: skip
        self.wait()
        return self.phases([start, *stamps.marks])

    def phases(self, marks: list[Any]) -> Phases:
        """Phases of marks at the start and after each token; decode is the median token."""
        steps = [self.seconds(first, last) for first, last in pairwise(marks)]
        return {"prefill": steps[0]} | ({"decode": median(steps[1:])} if steps[1:] else {})


class _Stamps(LogitsProcessor):
    """Called by generate() once a token, when its logits are there."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.marks = clock, list[Any]()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        self.marks.append(self.clock.mark())
        return scores


@dataclass(frozen=True)
class Ratios:
    """Base time over a subject's time, one ratio a round: above 1 the subject is the faster one."""

    base: list[float]
    subject: list[float]

    def summary(self) -> dict[str, Any]:
        """Raw ratios, their median and its 95 % percentile bootstrap interval."""
        ratios = np.array(self.base) / np.array(self.subject)
        drawn = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
        low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
        return {
            "base_seconds": float(np.median(self.base)),
            "subject_seconds": float(np.median(self.subject)),
            "ratio": float(np.median(ratios)), "low": float(low), "high": float(high),
            "ratios": [round(float(ratio), 5) for ratio in ratios],
        }  # fmt: skip


def compare(
    runs: Mapping[str, Callable[[], Phases]], rounds: int, deadline: Deadline
) -> dict[tuple[str, str], Ratios]:
    """Run the first (the base) against the others, in turn: A B C, C B A, ...

    One run of each, not counted, comes first. What the deadline cuts off is left out; a round that
    has begun is finished.

    Returns:
        (subject, phase) -> ratios, one a round.
    """
    names, times = list(runs), list[dict[str, Phases]]()
    for name in names:
        runs[name]()
    while len(times) < rounds and not (deadline.passed and times):
        order = names if len(times) % 2 == 0 else names[::-1]
        times.append({name: runs[name]() for name in order})
    return {
        (subject, phase): Ratios(
            [row[names[0]][phase] for row in times], [row[subject][phase] for row in times]
        )
        for subject in names[1:]
        for phase in times[0][subject]
    }
