"""Running a suite on a steered directory: the same requests in every arm."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from pydantic import ValidationError

from mars_export.common.atomic import write_atomically
from mars_export.common.errors import ExportError
from mars_export.common.progress import Tick
from mars_export.evaluation import aggregate
from mars_export.evaluation.arms import Arm, open_arms
from mars_export.evaluation.attacks import template_problem, unsupported, vary
from mars_export.evaluation.generation import Loaded, load_calibrated
from mars_export.evaluation.job import Job, sha256
from mars_export.evaluation.journal import Journal
from mars_export.evaluation.judges.base import Judge
from mars_export.evaluation.judges.quality import judge_error, kappa_with_rules
from mars_export.evaluation.judges.rules import RulesJudge
from mars_export.evaluation.loop import run_batches
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.overlap import overlap, texts
from mars_export.evaluation.processes import Processes, joined
from mars_export.evaluation.report import (
    REPORT_NAME,
    SAMPLES_NAME,
    Report,
    SelfCheck,
    SuiteSource,
    undecided,
)
from mars_export.evaluation.selfcheck import self_check
from mars_export.evaluation.suite import Suite
from mars_export.families.loading import pick_device
from mars_export.inputs.requests import Request

__all__ = ["evaluate"]


def evaluate(
    directory: Path,
    suite: Suite,
    options: EvaluationOptions | None = None,
    *,
    judge: Judge | None = None,
    calibration_prompts: Sequence[str] = (),
    progress: Tick | None = None,
) -> Report:
    """Measure a steered directory on a suite and write the report into it.

    Every request is answered greedily in every arm, by the same weights. If the self-check finds
    that steering is not active, nothing is run with steering on and the report holds no number of
    a steered arm; the caller decides what to make of it.

    Started by `accelerate launch` or `torchrun`, the processes share the batches and the first one
    writes; the result is that of one process.

    A killed run continues where it stopped, and `evaluation/samples.jsonl` and the report come
    out as those of an uninterrupted one, but for `created` and `seconds`. A finished run with
    an active self-check is not repeated.

    Args:
        directory: Steered checkpoint; `evaluation/` in it is written.
        suite: Requests; those of the split `evaluation` whose modality the model takes are run.
        options: How to run it; the defaults if None.
        judge: Of the answers; None for the rules.
        calibration_prompts: What the calibration was made from, to be compared with the requests;
            empty when it is not at hand, and then the report says nothing of overlap.
        progress: Told how many answers there are, and of how many.

    Raises:
        ExportError: The directory is not a steered checkpoint or does not load, there is no such
            arm or device, the suite has nothing to run, one request alone does not fit into
            memory, or a request was not steered although steering is active.
    """
    options = options or EvaluationOptions()
    arms = open_arms(directory, options.arms)
    modalities = arms[0].manifest.calibration.source.modalities
    samples = suite.evaluation_samples(modalities)
    if not samples:
        raise ExportError(
            f"the suite {suite.name} has no request of the split `evaluation` for "
            f"{', '.join(modalities)}; give one that has"
        )
    _check_modalities(arms, modalities)
    variants = vary(samples, modalities, controls=options.controls, attacks=options.attacks)
    job = Job(
        arms=arms,
        suite=suite,
        samples=samples + variants,
        judge=judge or RulesJudge(),
        options=options.model_copy(update={"device": pick_device(options.device)}),
        calibration_prompts=tuple(calibration_prompts),
    )
    with joined() as processes:
        return _finished(job) or _execute(job, progress or (lambda _done, _total: None), processes)


def _check_modalities(arms: Sequence[Arm], modalities: Sequence[str]) -> None:
    for arm in arms:
        missing = [m for m in modalities if m not in arm.manifest.calibration.source.modalities]
        if missing:
            raise ExportError(
                f"--arm {arm.name}: {arm.directory} was not calibrated for {', '.join(missing)}; "
                "export it with the same modalities"
            )


def _finished(job: Job) -> Report | None:
    """The report of this very job, if it is there with its samples."""
    try:
        report = Report.model_validate_json((job.directory / REPORT_NAME).read_bytes())
        samples = (job.directory / SAMPLES_NAME).read_bytes()
    except (OSError, ValidationError):
        return None
    same = report.run == job.identity and report.self_check.active
    return report if same and sha256(samples) == report.samples_sha256 else None


def _execute(job: Job, progress: Tick, processes: Processes) -> Report:
    models = _load(job, processes.device(job.options.device))
    _check_templates(job, models[job.directory])
    checks = {path: _self_check(job, path, models[path], processes) for path in models}
    check = checks[job.directory]
    skipped = unsupported(
        models[job.directory].processor, {sample.variant for sample in job.samples}
    )
    arms = tuple(arm for arm in job.arms if check.active or not arm.steered)
    part = job.reduced(arms, skipped)
    folder = (job.directory / SAMPLES_NAME).parent
    journal = Journal(folder, job.identity, processes.rank, processes.count)
    run_batches(part, models, journal, progress, processes)
    processes.wait()
    if processes.rank == 0:
        ranks = range(processes.count)
        journals = [Journal(folder, job.identity, rank, processes.count) for rank in ranks]
        _write(part, models[job.directory], check, journals, skipped)
        journal.remove()
    processes.wait()
    return Report.model_validate_json((job.directory / REPORT_NAME).read_bytes())


def _load(job: Job, device: str) -> dict[Path, Loaded]:
    """The checkpoints of all arms by directory, each loaded once."""
    manifests = {arm.directory: arm.manifest for arm in job.arms}
    return {
        directory: load_calibrated(directory, manifest.calibration, device, job.options.dtype)
        for directory, manifest in manifests.items()
    }


def _check_templates(job: Job, loaded: Loaded) -> None:
    for arm in job.arms:
        problem = arm.template and template_problem(
            loaded.processor, arm.request(Request("How are you?"))
        )
        if problem:
            raise ExportError(f"--arm {arm.name}: {problem}; leave this arm out")


def _self_check(job: Job, directory: Path, loaded: Loaded, processes: Processes) -> SelfCheck:
    """The check of one checkpoint in all processes; that of another arm must be active."""
    arm = next(arm for arm in job.arms if arm.directory == directory and arm.steered)
    checks = processes.gather(self_check(loaded, arm.manifest))
    check = next((check for check in checks if not check.active), checks[0])
    if not check.active and directory != job.directory:
        raise ExportError(f"--arm {arm.name}: {directory} does not steer: {check.detail}")
    return check


def _write(
    job: Job,
    loaded: Loaded,
    check: SelfCheck,
    journals: Sequence[Journal],
    skipped: dict[str, str],
) -> None:
    place = {sample.id: index for index, sample in enumerate(job.samples)}
    arms = [arm.name for arm in job.arms]
    answers = [result for journal in journals for result in journal.results]
    results = sorted(answers, key=lambda r: (place[r.id], arms.index(r.arm)))
    lines = "".join(result.model_dump_json() + "\n" for result in results)
    plain, attacks = aggregate.plain(results), aggregate.attacks(results)
    sources = aggregate.sources(job.suite, results)
    entries = [journal.entries for journal in journals if journal.entries]
    smallest = min(share[-1].limit for share in entries)
    reduced = {"reduced_batch_size": smallest} if smallest < job.options.batch_size else {}
    error = judge_error(job.judge.name)
    cells = aggregate.cells(plain, error)
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
        judge_error=error,
        kappa_with_rules=kappa_with_rules(job.judge, results, job.samples),
        overlap=overlap(job.calibration_prompts, texts(job.samples))
        if job.calibration_prompts
        else None,
        decoding={**job.decoding, **reduced},
        dtype=str(loaded.model.dtype).removeprefix("torch."),
        quantization=job.manifest.calibration.source.quantization,
        device=_named(job.options.device),
        versions=job.versions,
        no_headline=undecided(cells),
        cells=cells,
        pairs=aggregate.pairs(plain),
        harm_pairs=aggregate.harm_pairs(plain),
        regressions=aggregate.regressions(plain),
        attack_regressions=aggregate.attack_regressions(attacks),
        externalities=aggregate.externalities(results),
        newly_refused=aggregate.newly_refused(plain),
        uncalibrated=aggregate.uncalibrated(plain),
        suites=aggregate.suites(sources, results, error),
        controls=aggregate.controls(results),
        attacks=attacks,
        skipped=skipped,
        gates=aggregate.gates(plain),
        seconds=round(max(sum(entry.seconds for entry in share) for share in entries), 3),
    )
    write_atomically(job.directory / SAMPLES_NAME, lines)
    write_atomically(job.directory / REPORT_NAME, report.model_dump_json(indent=2) + "\n")


def _named(device: str) -> str:
    """The device as the report prints it, with the model of a GPU."""
    if device.startswith("cuda"):
        return f"{device}, {torch.cuda.get_device_name(device)}"
    return device
