"""Running a suite on a steered directory: the same requests in every arm."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mars_export.common.atomic import write_atomically
from mars_export.common.errors import ExportError
from mars_export.common.names import PAGE_FILE
from mars_export.common.progress import Tick
from mars_export.common.vocabulary import Modality
from mars_export.evaluation import aggregate
from mars_export.evaluation.arms import Arm, open_arms
from mars_export.evaluation.dose import dosed, doses, no_doses
from mars_export.evaluation.engines.base import Engine
from mars_export.evaluation.engines.in_process import InProcess
from mars_export.evaluation.failures import failures
from mars_export.evaluation.job import Job, sha256
from mars_export.evaluation.journal import Journal
from mars_export.evaluation.judges.base import Judge
from mars_export.evaluation.judges.choice import NO_SECOND, second_judge
from mars_export.evaluation.judges.quality import (
    agreement,
    judge_error,
    no_correction,
    second_opinions,
)
from mars_export.evaluation.judges.rules import RulesJudge
from mars_export.evaluation.loop import expected, run_batches
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.overhead import overhead
from mars_export.evaluation.overlap import near_duplicates, overlap, texts
from mars_export.evaluation.page import report_page
from mars_export.evaluation.ready import check_baselines
from mars_export.evaluation.report import (
    Protocol,
    Report,
    SampleResult,
    SelfCheck,
    SuiteSource,
    undecided,
)
from mars_export.evaluation.suite import Suite
from mars_export.evaluation.support import require_modalities, unsupported
from mars_export.evaluation.variants import vary
from mars_export.families.loading import pick_device
from mars_export.families.placement import device_name
from mars_export.families.processes import Processes, joined
from mars_export.inputs.prompts import PromptSets
from mars_export.inputs.requests import PLAIN_REQUEST, template_problem
from mars_export.inputs.template import bare_template

__all__ = ["evaluate"]


def evaluate(
    directory: Path,
    suite: Suite,
    options: EvaluationOptions | None = None,
    *,
    judge: Judge | None = None,
    calibration_prompts: Sequence[str] = (),
    prompts: PromptSets | None = None,
    progress: Tick | None = None,
    place: Callable[[str], Path] | None = None,
    engine: Engine | None = None,
) -> Report:
    """Measure a steered directory on a suite and write the report into it.

    Every request is answered greedily in every arm, by the same weights, and some of each kind
    are asked in other ways too. What the model cannot be asked is in the report with the reason.
    If the self-check finds that steering is not active, nothing is run with steering on and the
    report holds no number of a steered arm; the caller decides what to make of it.

    Started by `accelerate launch` or `torchrun`, the processes share the batches and the first one
    writes; the result is that of one process.

    A killed run continues where it stopped, and `evaluation/samples.jsonl` and the report come
    out as those of an uninterrupted one, but for what was timed. A finished run with an active
    self-check is not repeated.

    Args:
        directory: Steered checkpoint; `evaluation/` in it is written.
        suite: Requests; those of the split `evaluation` whose modality the model takes are run.
        options: How to run it; the defaults if None.
        judge: Of the answers; None for the rules.
        calibration_prompts: What the calibration was made from, to be compared with the requests;
            empty when it is not at hand, and then the report says nothing of overlap.
        prompts: The same with their labels and parts, which baselines are fitted on; None when
            they are not at hand.
        place: Folder of the report for the identity of the run; None for `evaluation/`.
        progress: Told how many answers there are, and of how many.
        engine: What answers; None for Transformers in this process.

    Raises:
        ExportError: The directory is not a steered checkpoint or does not load, there is no such
            arm or device, the suite has nothing to run, one request alone does not fit into
            memory, or a request was not steered although steering is active.
    """
    options = options or EvaluationOptions()
    arms = open_arms(directory, options.arms)
    modalities = arms[0].modalities
    samples = suite.required_samples(modalities)
    _check_modalities(arms, {m for sample in samples for m in (sample.modality, *sample.types)})
    modalities = tuple(m for m in modalities if all(m in arm.modalities for arm in arms))
    engine = engine or InProcess()
    engine.require(arms)
    check_baselines(arms, prompts)
    variants = vary(
        samples,
        modalities,
        controls=options.controls,
        attacks=options.attacks,
        control_requests=options.control_requests,
    )
    first = judge or RulesJudge()
    job = Job(
        arms=arms,
        suite=suite,
        samples=samples + variants,
        judge=first,
        second=second_judge(first, device_name(options.device)),
        options=options.model_copy(update={"device": pick_device(options.device)}),
        calibration_prompts=tuple(calibration_prompts),
        prompts=prompts,
        engine=engine,
    )
    if place is not None:
        job = replace(job, place=place(job.identity))
    with joined() as processes:
        _require_alike(job, processes)
        return _finished(job) or _execute(job, progress or (lambda _done, _total: None), processes)


def _require_alike(job: Job, processes: Processes) -> None:
    """Refuse processes that would share the requests of different evaluations."""
    if len(set(processes.gather(job.identity))) > 1:
        raise ExportError(
            f"the {processes.count} processes are not asked the same; give all of them the same "
            "options, variables (MARS_...), files, devices and versions of packages"
        )


def _check_modalities(arms: Sequence[Arm], asked: Collection[Modality]) -> None:
    for arm in arms:
        if missing := sorted(set(asked) - set(arm.modalities)):
            raise ExportError(
                f"--arm {arm.name}: {arm.directory} was not calibrated for {', '.join(missing)}; "
                "export it with the same modalities"
            )


def _finished(job: Job) -> Report | None:
    """The report of this very job, if it is there with its samples."""
    try:
        report = Report.model_validate_json(job.report.read_bytes())
        samples = job.answers.read_bytes()
    except (OSError, ValidationError):
        return None
    same = report.run == job.identity and report.self_check.active
    return report if same and sha256(samples) == report.samples_sha256 else None


def _execute(job: Job, progress: Tick, processes: Processes) -> Report:
    job.judge.check()
    engine = job.engine
    engine.open(job.arms, job.options, processes.place(job.options.device))
    _check_templates(job)
    require_modalities(job, engine)
    checks = {arm.directory: _self_check(job, arm, processes) for arm in job.arms if arm.steered}
    check = checks[job.directory]
    skipped = {**job.absent, **unsupported(job, engine)}
    arms = tuple(
        arm
        for arm in job.arms
        if (check.active or not arm.steered) and not (arm.optional and arm.name in skipped)
    )
    ready = engine.fit(arms, job.prompts, job.options.batch_size)
    skipped |= ready.unfit
    part = job.reduced(ready.arms, skipped)
    if absent := "steering is not active" if not check.active else no_doses(job):
        skipped["dose"] = absent
    jobs = [part] if absent else [part, dosed(part)]
    _run(jobs, progress, processes)
    if processes.rank == 0:
        count = 1 if engine.split else processes.count
        runs = [_journals(each, count) for each in jobs]
        _write(part, check, runs, skipped)
        runs[0][0].remove()
    processes.wait()
    return Report.model_validate_json(job.report.read_bytes())


def _run(jobs: Sequence[Job], progress: Tick, processes: Processes) -> None:
    """One job after the other; `progress` is told of all of them together."""
    share = processes.alone() if jobs[0].engine.split else processes
    counts = [len(expected(job, share)) for job in jobs]
    for number, job in enumerate(jobs):
        kept = share is processes or processes.rank == 0
        journal = Journal(job.folder, job.identity, share.rank, share.count, kept=kept)
        before = sum(counts[:number])
        processes.wait()  # all have read what there is before one writes

        def tick(done: int, _total: int, before: int = before) -> None:
            progress(before + done, sum(counts))

        run_batches(job, job.engine, journal, tick, share)
        processes.wait()


def _journals(job: Job, count: int) -> list[Journal]:
    """Those of all processes."""
    return [Journal(job.folder, job.identity, rank, count) for rank in range(count)]


def _check_templates(job: Job) -> None:
    for arm in job.arms:
        problem = template_problem(job.engine.processor, arm.request(PLAIN_REQUEST))
        if problem and not arm.optional:
            raise ExportError(f"--arm {arm.name}: {problem}; leave this arm out")


def _self_check(job: Job, arm: Arm, processes: Processes) -> SelfCheck:
    """The check of one checkpoint in all processes; that of another arm must be active."""
    checks = processes.gather(job.engine.self_check(arm))
    check = next((check for check in checks if not check.active), checks[0])
    if not check.active and arm.directory != job.directory:
        raise ExportError(f"--arm {arm.name}: {arm.directory} does not steer: {check.detail}")
    return check


def _write(
    job: Job,
    check: SelfCheck,
    runs: Sequence[Sequence[Journal]],
    skipped: dict[str, str],
) -> None:
    place = {sample.id: index for index, sample in enumerate(job.samples)}
    arms = [arm.name for arm in job.arms]
    results = sorted(_answers(runs[:1]), key=lambda r: (place[r.id], arms.index(r.arm)))
    if missing := len(expected(job, Processes())) - len(results):
        raise ExportError(
            f"{missing} answers of other processes are not in {job.folder}; processes on several "
            "machines need one file system for it, then repeat the command"
        )
    results, second = _second_opinions(job, results)
    lines = "".join(result.model_dump_json() + "\n" for result in results)
    plain = aggregate.tested(aggregate.plain(results))
    sources = aggregate.sources(job.suite, results)
    entries = [journal.entries for journal in runs[0] if journal.entries]
    smallest = min(share[-1].limit for share in entries)
    reduced = {"reduced_batch_size": smallest} if smallest < job.options.batch_size else {}
    known = judge_error(job.judge.name)
    obstacle = no_correction(job.judge.name, known, aggregate.cells(plain))
    near = near_duplicates(job.calibration_prompts, job.samples)
    tables = aggregate.tables(results, sources, near, None if obstacle else known)
    report = Report(
        run=job.identity,
        steering_sha256=job.manifest.steering_sha256,
        samples_sha256=sha256(lines.encode()),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        self_check=check,
        arms=[arm.source for arm in job.arms],
        suite=SuiteSource(
            name=job.suite.name, sha256=job.suite.sha256, samples=sum(s.samples for s in sources)
        ),
        judge=job.judge.name,
        judge_error=known,
        no_correction=obstacle,
        **second,
        overlap=overlap(job.calibration_prompts, texts(job.samples))
        if job.calibration_prompts
        else None,
        near=sorted(s.id for s in job.samples if s.id in near and not s.variant),
        decoding={**job.decoding, **reduced},
        dtype=job.engine.dtype,
        quantization=job.manifest.calibration.source.quantization,
        device=job.engine.device(str(job.options.device)),
        versions=job.versions,
        no_headline=undecided(tables["cells"]),
        **tables,
        failures=failures(results),
        skipped=skipped,
        dose=doses(results, _answers(runs[1:])),
        protocol=_protocol(job),
        engine=job.engine.source,
        overhead=overhead(entry.costs for share in entries for entry in share),
        seconds=round(max(map(_seconds, zip(*runs, strict=True))), 3),
    )
    prompts = {sample.id: sample.prompt for sample in job.samples}
    page = report_page(report, results, job.manifest.calibration, prompts)
    write_atomically(job.answers, lines)
    write_atomically(job.report.with_name(PAGE_FILE), page)
    write_atomically(job.report, report.model_dump_json(indent=2) + "\n")


def _second_opinions(
    job: Job, results: list[SampleResult]
) -> tuple[list[SampleResult], dict[str, Any]]:
    """The answers as a second judge read them, and the fields of the report that speak of it."""
    if job.second is None:
        return results, {"no_agreement": NO_SECOND}
    try:
        read = second_opinions(job.second, results, job.samples)
    except ExportError as error:  # the report does not hang on it
        return results, {"no_agreement": f"it failed: {error}."}
    return read, {"agreement": agreement(job.second.name, read)}


def _protocol(job: Job) -> Protocol:
    template = bare_template(job.engine.processor)
    return Protocol(
        system=None,
        template_sha256=sha256(template.encode()),
        template_options=job.manifest.calibration.source.template_options,
        decoding=job.decoding,
    )


def _answers(runs: Iterable[Iterable[Journal]]) -> list[SampleResult]:
    return [result for run in runs for journal in run for result in journal.results]


def _seconds(journals: Iterable[Journal]) -> float:
    """Of one process, in all that it has run."""
    return sum(entry.seconds for journal in journals for entry in journal.entries)
