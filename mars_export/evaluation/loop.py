"""Running a suite batch by batch, in both arms, into the journal."""

from __future__ import annotations

import gc
import hashlib
import time
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch

from mars_export.common.errors import ExportError
from mars_export.common.progress import Tick
from mars_export.common.vocabulary import Arm
from mars_export.evaluation.generation import Loaded, Steered, is_out_of_memory
from mars_export.evaluation.job import Run
from mars_export.evaluation.journal import Entry, Journal
from mars_export.evaluation.judges.base import Exchange, Judgment
from mars_export.evaluation.processes import Processes
from mars_export.evaluation.report import SampleResult
from mars_export.evaluation.suite import Sample
from mars_export.evaluation.variants import VARIANTS

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["run_batches"]


def run_batches(
    run: Run,
    loaded: Loaded,
    arms: Sequence[Arm],
    journal: Journal,
    progress: Tick,
    processes: Processes,
) -> None:
    """Run what the journal does not hold yet of this process's share.

    The share is whole batches, so that however many processes there are, each request meets the
    same padding; only where memory runs out may batches differ.

    Args:
        run: What to run.
        loaded: The steered directory.
        arms: `off` before `on`; every batch runs in all of them, so both see the same padding.
        journal: Of this run; results of other arms or requests in it are dropped.
        progress: Told how many answers there are, and of how many.
        processes: Who shares the work.

    Raises:
        ExportError: A request alone does not fit into memory, or was not steered in the arm `on`.
    """
    order = _share(run.order, run.batch_size, processes)
    journal.keep(_valid(journal.entries, order, arms))
    done = len(journal.results) // len(arms)
    limit = journal.entries[-1].limit if journal.entries else run.batch_size
    progress(done * len(arms), len(order) * len(arms))
    while done < len(order):
        batch = _batch(order[done:], limit)
        started = time.monotonic()
        results = _try(run, loaded, batch, arms)
        if results is None:
            limit = _halved(len(batch), batch[0])
            continue
        seconds = round(time.monotonic() - started, 3)
        journal.append(Entry(limit=limit, seconds=seconds, results=results))
        done += len(batch)
        progress(done * len(arms), len(order) * len(arms))


def _share(order: Sequence[Sample], limit: int, processes: Processes) -> list[Sample]:
    """Every `count`-th batch, in order."""
    batches: list[list[Sample]] = []
    done = 0
    while done < len(order):
        batches.append(_batch(order[done:], limit))
        done += len(batches[-1])
    return [sample for batch in batches[processes.rank :: processes.count] for sample in batch]


def _valid(entries: Sequence[Entry], order: Sequence[Sample], arms: Sequence[Arm]) -> int:
    """How many entries, from the first, are what this run would have written."""
    expected = [(sample.id, arm) for sample in order for arm in arms]
    start = 0
    for count, entry in enumerate(entries):
        end = start + len(entry.results)
        if [(r.id, r.arm) for r in entry.results] != expected[start:end] or end == start:
            return count
        start = end
    return len(entries)


def _batch(rest: Sequence[Sample], limit: int) -> list[Sample]:
    kind = (rest[0].variant, rest[0].modality)
    return list(takewhile(lambda sample: (sample.variant, sample.modality) == kind, rest[:limit]))


def _try(
    run: Run, loaded: Loaded, batch: Sequence[Sample], arms: Sequence[Arm]
) -> list[SampleResult] | None:
    """Results by sample, off before on; None if the batch does not fit into memory."""
    try:
        return _results(run, loaded, batch, arms)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None


def _results(
    run: Run, loaded: Loaded, batch: Sequence[Sample], arms: Sequence[Arm]
) -> list[SampleResult]:
    requests = [run.request(sample) for sample in batch]
    inputs = loaded.inputs(requests)
    shown = [request.images or request.video or () for request in requests]
    by_arm = [_arm(run, loaded, batch, shown, inputs, arm) for arm in arms]
    return [result for results in zip(*by_arm, strict=True) for result in results]


def _arm(
    run: Run,
    loaded: Loaded,
    batch: Sequence[Sample],
    shown: Sequence[Sequence[Image]],
    inputs: Any,
    arm: Arm,
) -> list[SampleResult]:
    answers = loaded.answer(inputs, arm, run.max_new_tokens, *_seed(batch))
    judged = run.judge.judge(
        [
            Exchange(sample.prompt, text, sample.intent, tuple(pictures))
            for sample, text, pictures in zip(batch, answers.texts, shown, strict=True)
        ]
    )
    rows = zip(batch, answers.texts, judged, answers.steered, strict=True)
    return [_result(run, arm, *row) for row in rows]


def _seed(batch: Sequence[Sample]) -> tuple[int, ...]:
    """The seed of a batch that is sampled; nothing for a greedy one.

    It depends on the batch alone, so that a resumed run draws what an uninterrupted one draws.
    """
    variant = batch[0].variant
    if not variant or VARIANTS[variant].draws == 1:
        return ()
    name = " ".join(sample.id for sample in batch)
    return (int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big"),)


def _result(
    run: Run, arm: Arm, sample: Sample, text: str, said: Judgment, steered: Sequence[Steered]
) -> SampleResult:
    if arm == "on" and not steered:
        raise ExportError(f"{run.directory}: {sample.id} was not steered; export the model again")
    end = steered[-1] if steered else None
    return SampleResult(
        id=sample.id,
        modality=sample.modality,
        harmful=sample.harmful,
        arm=arm,
        verdict=said.verdict,
        harm=said.harm,
        judge_reply=said.reply,
        response=text,
        position=end.position if end else None,
        seen_as=end.modality if end else None,
        gate=end.gate if end else None,
        strength=end.strength if end else None,
        suite=sample.suite,
        category=sample.category,
        variant=sample.variant,
        group=sample.group,
        positions=len(steered) if end else None,
    )


def _halved(size: int, sample: Sample) -> int:
    if size == 1:
        raise ExportError(
            f"the request {sample.id} alone does not fit into memory; use a device with more memory"
        )
    if torch.cuda.is_available():
        gc.collect()  # the failed batch, so that its memory is free before the next
        torch.cuda.empty_cache()
    return size // 2
