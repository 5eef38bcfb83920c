"""Running a suite batch by batch, in every arm, into the journal."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from mars_export.common.errors import ExportError
from mars_export.common.progress import Tick
from mars_export.evaluation.arms import Arm
from mars_export.evaluation.attacks import VARIANTS
from mars_export.evaluation.generation import Loaded
from mars_export.evaluation.job import Job
from mars_export.evaluation.journal import Entry, Journal
from mars_export.evaluation.judges.base import Exchange, Judgment
from mars_export.evaluation.processes import Processes
from mars_export.evaluation.report import SampleResult
from mars_export.evaluation.suite import Sample
from mars_export.families.loading import free_memory, is_out_of_memory
from mars_export.inputs.requests import Request
from mars_export.methods.base import Decision

__all__ = ["run_batches"]

Models = Mapping[Path, Loaded]
"""Loaded checkpoints by directory."""


def run_batches(
    job: Job, models: Models, journal: Journal, progress: Tick, processes: Processes
) -> None:
    """Run what the journal does not hold yet of this process's share.

    The share is whole batches, so that however many processes there are, each request meets the
    same padding; only where memory runs out may batches differ. Every batch runs in all arms, so
    all of them see the same companions.

    Args:
        job: What to run.
        models: The checkpoints of its arms.
        journal: Of this job; results of other arms or requests in it are dropped.
        progress: Told how many answers there are, and of how many.
        processes: Who shares the work.

    Raises:
        ExportError: A request alone does not fit into memory, or a method had to act on it and
            did not.
    """
    order = _share(job.order, job.options.batch_size, processes)
    answers = [(sample.id, arm.name) for sample in order for arm in job.arms]
    journal.keep(_valid(journal.entries, answers))
    done = len({result.id for result in journal.results})
    limit = journal.entries[-1].limit if journal.entries else job.options.batch_size
    progress(len(journal.results), len(answers))
    while done < len(order):
        batch = _batch(order[done:], limit)
        started = time.monotonic()
        results = _try(job, models, batch)
        if results is None:
            limit = _halved(len(batch), batch[0])
            continue
        seconds = round(time.monotonic() - started, 3)
        journal.append(Entry(limit=limit, seconds=seconds, results=results))
        done += len(batch)
        progress(len(journal.results), len(answers))


def _share(order: Sequence[Sample], limit: int, processes: Processes) -> list[Sample]:
    """Every `count`-th batch, in order."""
    batches: list[list[Sample]] = []
    done = 0
    while done < len(order):
        batches.append(_batch(order[done:], limit))
        done += len(batches[-1])
    return [sample for batch in batches[processes.rank :: processes.count] for sample in batch]


def _valid(entries: Sequence[Entry], expected: Sequence[tuple[str, str]]) -> int:
    """How many entries, from the first, hold the answers (sample, arm) that this run would have."""
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


def _try(job: Job, models: Models, batch: Sequence[Sample]) -> list[SampleResult] | None:
    """Results by sample, its arms in order; None if the batch does not fit into memory."""
    try:
        return _results(job, models, batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None


def _results(job: Job, models: Models, batch: Sequence[Sample]) -> list[SampleResult]:
    requests = [job.request(sample) for sample in batch]
    inputs: dict[tuple[Path, str], Any] = {}  # arms that differ in steering alone share theirs
    by_arm = []
    for arm in job.arms:
        key = (arm.directory, arm.template)
        if key not in inputs:
            inputs[key] = models[arm.directory].inputs([arm.request(r) for r in requests])
        by_arm.append(_answers(job, arm, models[arm.directory], batch, requests, inputs[key]))
    return [result for results in zip(*by_arm, strict=True) for result in results]


def _answers(
    job: Job,
    arm: Arm,
    loaded: Loaded,
    batch: Sequence[Sample],
    requests: Sequence[Request],
    inputs: Any,
) -> list[SampleResult]:
    tokens = job.options.max_new_tokens
    answers = loaded.answer(inputs, tokens, steered=arm.steered, seed=_seed(batch))
    judgments = job.judge.judge(
        [
            Exchange(sample.prompt, text, sample.intent, request.pictures)
            for sample, text, request in zip(batch, answers.texts, requests, strict=True)
        ]
    )
    rows = zip(batch, answers.texts, judgments, answers.decisions, strict=True)
    return [_result(arm, *row) for row in rows]


def _seed(batch: Sequence[Sample]) -> int | None:
    """The seed of a batch that is sampled; None for a greedy one.

    It depends on the batch alone, so that a resumed run draws what an uninterrupted one draws.
    """
    variant = batch[0].variant
    if not variant or VARIANTS[variant].draws == 1:
        return None
    name = " ".join(sample.id for sample in batch)
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def _result(
    arm: Arm, sample: Sample, text: str, judgment: Judgment, decision: Decision | None
) -> SampleResult:
    if decision is None and arm.must_act(sample.modality):
        raise ExportError(f"{arm.directory}: {sample.id} was not steered; export the model again")
    return SampleResult(
        id=sample.id,
        modality=sample.modality,
        harmful=sample.harmful,
        arm=arm.name,
        verdict=judgment.verdict,
        harm=judgment.harm,
        judge_reply=judgment.reply,
        response=text,
        decision=decision,
        suite=sample.suite,
        category=sample.category,
        variant=sample.variant,
        group=sample.group,
    )


def _halved(size: int, sample: Sample) -> int:
    if size == 1:
        raise ExportError(
            f"the request {sample.id} alone does not fit into memory; use a device with more memory"
        )
    free_memory()
    return size // 2
