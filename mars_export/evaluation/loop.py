"""Running a suite batch by batch, in every arm, into the journal."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from itertools import takewhile

from mars_export.common.errors import ExportError
from mars_export.common.input_errors import is_out_of_memory
from mars_export.common.progress import Tick
from mars_export.evaluation.arms import Arm
from mars_export.evaluation.engines.base import Answer, Asked, Engine
from mars_export.evaluation.job import Job
from mars_export.evaluation.journal import Entry, Journal
from mars_export.evaluation.judges.base import Exchange, Judgment
from mars_export.evaluation.overhead import Cost
from mars_export.evaluation.report import SampleResult
from mars_export.evaluation.suite import Sample
from mars_export.evaluation.variants import VARIANTS
from mars_export.families.loading import free_memory
from mars_export.families.processes import Processes
from mars_export.inputs.requests import Request, size_class

__all__ = ["expected", "run_batches"]


def run_batches(
    job: Job, engine: Engine, journal: Journal, progress: Tick, processes: Processes
) -> None:
    """Run what the journal does not hold yet of this process's share.

    The share is whole batches, so that however many processes there are, each request meets the
    same padding; only where memory runs out may batches differ. Every batch runs in all arms, so
    all of them see the same companions.

    Args:
        job: What to run.
        engine: Opened for its arms.
        journal: Of this job; results of other arms or requests in it are dropped.
        progress: Told how many answers there are, and of how many.
        processes: Who shares the work.

    Raises:
        ExportError: A request alone does not fit into memory, or a method had to act on it and
            did not.
    """
    order, answers = _share(job, processes), expected(job, processes)
    journal.keep(_valid(journal.entries, answers))
    done = len({result.id for result in journal.results})
    limit = journal.entries[-1].limit if journal.entries else job.options.batch_size
    progress(len(journal.results), len(answers))
    while done < len(order):
        batch = _batch(order[done:], limit)
        started = time.monotonic()
        answers_of = _try(job, engine, batch, turn=len(journal.entries))
        if answers_of is None:
            limit = _halved(len(batch), batch[0])
            continue
        results, costs = answers_of
        seconds = round(time.monotonic() - started, 3)
        journal.append(Entry(limit=limit, seconds=seconds, costs=costs, results=results))
        done += len(batch)
        progress(len(journal.results), len(answers))


def expected(job: Job, processes: Processes) -> list[tuple[str, str]]:
    """Request and arm of each answer in this process's share, in order."""
    order = _share(job, processes)
    return [(sample.id, arm.name) for sample in order for arm in job.arms_for(sample)]


def _share(job: Job, processes: Processes) -> list[Sample]:
    """Every `count`-th batch, in order."""
    order, limit = job.order, job.options.batch_size
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
    kind = _kind(rest[0])
    return list(takewhile(lambda sample: _kind(sample) == kind, rest[:limit]))


def _kind(sample: Sample) -> tuple[str, str, int]:
    """The same for samples that may share a batch."""
    return sample.variant, sample.modality, size_class(len(sample.prompt))


def _try(
    job: Job, engine: Engine, batch: Sequence[Sample], turn: int
) -> tuple[list[SampleResult], dict[str, Cost]] | None:
    """Results by sample, its arms in order, and costs; None if the batch exceeds the memory."""
    try:
        return _results(job, engine, batch, turn)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if engine.split:  # the other processes are in the middle of this very batch
            raise ExportError(
                f"{len(batch)} requests at once do not fit into memory beside a part of the model; "
                "give a smaller --batch-size"
            ) from error
        return None


def _results(
    job: Job, engine: Engine, batch: Sequence[Sample], turn: int
) -> tuple[list[SampleResult], dict[str, Cost]]:
    """Every other batch goes through the arms backwards, so that none always comes first."""
    requests, arms = [job.request(sample) for sample in batch], job.arms_for(batch[0])
    asked = Asked(requests, job.options.max_new_tokens, _seed(batch))
    answered = engine.answers(arms[:: -1 if turn % 2 else 1], asked)
    by_arm = [_judged(job, arm, batch, requests, answered.answers[arm.name]) for arm in arms]
    results = [result for results in zip(*by_arm, strict=True) for result in results]
    return results, dict(answered.costs)


def _judged(
    job: Job,
    arm: Arm,
    batch: Sequence[Sample],
    requests: Sequence[Request],
    answers: Sequence[Answer],
) -> list[SampleResult]:
    judgments = job.judge.judge(
        [
            Exchange(sample.prompt, answer.text, sample.intent, request.pictures, sample.heard)
            for sample, answer, request in zip(batch, answers, requests, strict=True)
        ]
    )
    return [_result(arm, *row) for row in zip(batch, answers, judgments, strict=True)]


def _seed(batch: Sequence[Sample]) -> int | None:
    """The seed of a batch that is sampled; None for a greedy one.

    It depends on the batch alone, so that a resumed run draws what an uninterrupted one draws.
    """
    variant = batch[0].variant
    if not variant or VARIANTS[variant].draws == 1:
        return None
    name = " ".join(sample.id for sample in batch)
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def _result(arm: Arm, sample: Sample, answer: Answer, judgment: Judgment) -> SampleResult:
    if answer.decision is None and arm.must_act(sample.modality):
        raise ExportError(f"{arm.directory}: {sample.id} was not steered; export the model again")
    return SampleResult(
        id=sample.id,
        modality=sample.modality,
        harmful=sample.harmful,
        arm=arm.name,
        verdict=judgment.verdict,
        harm=judgment.harm,
        judge_reply=judgment.reply,
        response=answer.text,
        cut=answer.cut,
        decision=answer.decision,
        suite=sample.suite,
        category=sample.category,
        variant=sample.variant,
        group=sample.group,
        log_odds=answer.log_odds,
        push=answer.push,
        kl=answer.kl,
        cluster=sample.kin,
        advice=sample.advice,
    )


def _halved(size: int, sample: Sample) -> int:
    if size == 1:
        raise ExportError(
            f"the request {sample.id} alone does not fit into memory; use a device with more memory"
        )
    free_memory()
    return size // 2
