"""Running a suite batch by batch, in every arm, into the journal."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from mars_export.calibration.refusal import log_odds
from mars_export.common.errors import ExportError
from mars_export.common.progress import Tick
from mars_export.evaluation.arms import Arm
from mars_export.evaluation.baselines.base import Batch
from mars_export.evaluation.generation import Answers, Loaded
from mars_export.evaluation.job import Job
from mars_export.evaluation.journal import Entry, Journal
from mars_export.evaluation.judges.base import Exchange, Judgment
from mars_export.evaluation.overhead import Cost
from mars_export.evaluation.processes import Processes
from mars_export.evaluation.report import REFERENCE, SampleResult
from mars_export.evaluation.suite import Sample
from mars_export.evaluation.variants import VARIANTS
from mars_export.families.loading import free_memory, is_out_of_memory
from mars_export.inputs.requests import Request, size_class
from mars_export.methods.base import Decision

__all__ = ["Models", "answered_by", "expected", "run_batches"]

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
    order, answers = _share(job, processes), expected(job, processes)
    journal.keep(_valid(journal.entries, answers))
    done = len({result.id for result in journal.results})
    limit = journal.entries[-1].limit if journal.entries else job.options.batch_size
    progress(len(journal.results), len(answers))
    while done < len(order):
        batch = _batch(order[done:], limit)
        started = time.monotonic()
        answers_of = _try(job, models, batch, turn=len(journal.entries))
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
    job: Job, models: Models, batch: Sequence[Sample], turn: int
) -> tuple[list[SampleResult], dict[str, Cost]] | None:
    """Results by sample, its arms in order, and costs; None if the batch exceeds the memory."""
    try:
        return _results(job, models, batch, turn)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None


def _results(
    job: Job, models: Models, batch: Sequence[Sample], turn: int
) -> tuple[list[SampleResult], dict[str, Cost]]:
    requests = [job.request(sample) for sample in batch]
    answers = _answers(job, models, batch, requests, turn)
    arms = job.arms_for(batch[0])
    base = answers[REFERENCE].logits if REFERENCE in answers else None
    by_arm = [_judged(job, arm, batch, requests, answers[arm.name], base) for arm in arms]
    costs = {name: answer.cost for name, answer in answers.items()}
    return [result for results in zip(*by_arm, strict=True) for result in results], costs


def _answers(
    job: Job, models: Models, batch: Sequence[Sample], requests: Sequence[Request], turn: int
) -> dict[str, Answers]:
    """By arm. Every other batch goes through them backwards, so that none always comes first."""
    inputs: dict[tuple[Path, str], Any] = {}  # arms that differ in steering alone share theirs
    answers = {}
    for arm in job.arms_for(batch[0])[:: -1 if turn % 2 else 1]:
        loaded, key = models[arm.directory], (arm.directory, arm.template)
        if key not in inputs:
            inputs[key] = loaded.inputs([arm.request(request) for request in requests])
        asked = Batch(requests, inputs[key], job.options.max_new_tokens, _seed(batch))
        answers[arm.name] = answered_by(arm, loaded, asked)
    return answers


def answered_by(arm: Arm, loaded: Loaded, batch: Batch) -> Answers:
    """What one arm answers; that of a baseline must be fitted."""
    if arm.fitted is not None:
        return arm.fitted.answer(loaded, batch)
    return loaded.answer(
        batch.inputs,
        batch.max_new_tokens,
        steered=arm.steered,
        seed=batch.seed,
        factor=arm.factor,
    )


def _judged(
    job: Job,
    arm: Arm,
    batch: Sequence[Sample],
    requests: Sequence[Request],
    answers: Answers,
    base: torch.Tensor | None,
) -> list[SampleResult]:
    judgments = job.judge.judge(
        [
            Exchange(sample.prompt, text, sample.intent, request.pictures, sample.heard)
            for sample, text, request in zip(batch, answers.texts, requests, strict=True)
        ]
    )
    odds = _log_odds(answers.logits, job.manifest.calibration.record.refusal_tokens)
    rows = zip(
        batch,
        answers.texts,
        answers.cut,
        judgments,
        answers.decisions,
        odds,
        answers.pushes,
        _divergence(base, answers.logits),
        strict=True,
    )
    return [_result(arm, *row) for row in rows]


def _divergence(base: torch.Tensor | None, logits: torch.Tensor) -> list[float | None]:
    """KL(base || other) of each row of first-token logits (B, V), nats; None if not finite."""
    if base is None:
        return [None] * len(logits)
    p, q = (part.float().log_softmax(dim=-1) for part in (base.to(logits.device), logits))
    rows = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(dim=-1).tolist()
    return [round(max(value, 0.0), 6) if math.isfinite(value) else None for value in rows]


def _log_odds(logits: torch.Tensor, tokens: Sequence[int]) -> list[float | None]:
    """Refusal log-odds of each row; None where they are not known or not finite."""
    odds = log_odds(logits, tokens).tolist() if tokens else [math.nan] * len(logits)
    return [round(value, 4) if math.isfinite(value) else None for value in odds]


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
    arm: Arm,
    sample: Sample,
    text: str,
    cut: bool,
    judgment: Judgment,
    decision: Decision | None,
    odds: float | None,
    push: float | None,
    kl: float | None,
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
        cut=cut,
        decision=decision,
        suite=sample.suite,
        category=sample.category,
        variant=sample.variant,
        group=sample.group,
        log_odds=odds,
        push=push,
        kl=kl,
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
