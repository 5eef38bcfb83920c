"""Running a suite on a steered directory: the same weights, steering off and on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from pydantic import ValidationError

from mars_export.checkpoint.manifest import Manifest
from mars_export.common.atomic import write_atomically
from mars_export.common.errors import ExportError
from mars_export.common.progress import Tick
from mars_export.common.vocabulary import Arm
from mars_export.evaluation import aggregate
from mars_export.evaluation import by_group as breakdown
from mars_export.evaluation.attackable import unsupported
from mars_export.evaluation.every_eval_ever import EXPORT_NAME, every_eval_ever
from mars_export.evaluation.generation import Loaded, load_calibrated
from mars_export.evaluation.job import Run, sha256
from mars_export.evaluation.journal import Journal
from mars_export.evaluation.judges.base import Judge
from mars_export.evaluation.judges.quality import judge_error, kappa_with_rules
from mars_export.evaluation.judges.rules import RulesJudge
from mars_export.evaluation.leakage import overlap
from mars_export.evaluation.loop import run_batches
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
from mars_export.evaluation.variants import vary
from mars_export.families.loading import pick_device

__all__ = ["evaluate"]


def evaluate(
    directory: Path,
    suite: Suite,
    *,
    batch_size: int = 16,
    max_new_tokens: int = 32,
    device: str | None = None,
    dtype: str | None = None,
    progress: Tick | None = None,
    judge: Judge | None = None,
    controls: bool = False,
    attacks: bool = False,
    calibration_prompts: Sequence[str] = (),
) -> Report:
    """Measure a steered directory on a suite and write the report into it.

    Every request is answered greedily by the same weights with steering off and on. If the
    self-check finds that steering is not active, nothing is run with steering on and the report
    holds no `on` numbers; the caller decides what to make of it.

    Started by `accelerate launch` or `torchrun`, the processes share the batches and the first one
    writes; the result is that of one process.

    A killed run continues where it stopped, and `evaluation/samples.jsonl` and the report come
    out as those of an uninterrupted one, but for `created` and `seconds`. A finished run with
    an active self-check is not repeated.

    Args:
        directory: Steered checkpoint; `evaluation/` in it is written.
        suite: Requests; those of the split `evaluation` whose modality the model takes are run.
        batch_size: Requests at once, halved when memory runs out.
        max_new_tokens: Longest answer, in tokens.
        device: For example `cpu`; None or `auto` takes a GPU when there is one.
        dtype: Name of a torch dtype; None for the one the checkpoint is saved in.
        progress: Told how many answers there are, and of how many.
        judge: Of the answers; None for the rules.
        controls: Whether to ask every text request beside neutral pictures and in a picture too.
        attacks: Whether to put every harmful request through the attacks too.
        calibration_prompts: What the calibration saw, to be compared with the requests; empty
            when it is not at hand, and then the report says nothing of overlap.

    Raises:
        ExportError: The directory is not a steered checkpoint or does not load, there is no such
            device, the suite has nothing to run, one request alone does not fit into memory, or
            a request was not steered although steering is active.
    """
    manifest = Manifest.read(directory)
    modalities = manifest.calibration.source.modalities
    samples = suite.evaluation_samples(modalities)
    run = Run(
        directory=directory,
        manifest=manifest,
        suite=suite,
        samples=samples + vary(samples, modalities, controls=controls, attacks=attacks),
        judge=judge or RulesJudge(),
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        device=pick_device(device or "auto"),
        dtype=dtype,
        seen=tuple(calibration_prompts),
    )
    if not samples:
        raise ExportError(
            f"the suite {suite.name} has no request of the split `evaluation` for "
            f"{', '.join(modalities)}; give one that has"
        )
    with joined() as processes:
        return _finished(run) or _execute(run, progress or (lambda _done, _total: None), processes)


def _finished(run: Run) -> Report | None:
    """The report of this very run, if it is there with its samples."""
    try:
        report = Report.model_validate_json((run.directory / REPORT_NAME).read_bytes())
        samples = (run.directory / SAMPLES_NAME).read_bytes()
    except (OSError, ValidationError):
        return None
    same = report.run == run.identity and report.self_check.active
    return report if same and sha256(samples) == report.samples_sha256 else None


def _execute(run: Run, progress: Tick, processes: Processes) -> Report:
    device = processes.device(run.device)
    record = run.manifest.calibration
    loaded = load_calibrated(run.directory, record, device, run.dtype)
    checks = processes.gather(self_check(loaded, run.manifest))
    check = next((check for check in checks if not check.active), checks[0])
    arms: tuple[Arm, ...] = ("off", "on") if check.active else ("off",)
    skipped = unsupported(loaded, {sample.variant for sample in run.samples})
    folder = (run.directory / SAMPLES_NAME).parent
    journal = Journal(folder, run.identity, processes.rank, processes.count)
    run_batches(run.without(skipped), loaded, arms, journal, progress, processes)
    processes.wait()
    if processes.rank == 0:
        ranks = range(processes.count)
        journals = [Journal(folder, run.identity, rank, processes.count) for rank in ranks]
        _write(run, loaded, check, journals, skipped)
        journal.remove()
    processes.wait()
    return Report.model_validate_json((run.directory / REPORT_NAME).read_bytes())


def _write(
    run: Run,
    loaded: Loaded,
    check: SelfCheck,
    journals: Sequence[Journal],
    skipped: dict[str, str],
) -> None:
    place = {sample.id: index for index, sample in enumerate(run.samples)}
    found = [result for journal in journals for result in journal.results]
    results = sorted(found, key=lambda r: (place[r.id], r.arm != "off"))
    lines = "".join(result.model_dump_json() + "\n" for result in results)
    plain, worst = breakdown.plain(results), breakdown.attacks(results)
    sources = breakdown.sources(run.suite, results)
    entries = [journal.entries for journal in journals if journal.entries]
    smallest = min(share[-1].limit for share in entries)
    reduced = {"reduced_batch_size": smallest} if smallest < run.batch_size else {}
    error = judge_error(run.judge.name)
    cells = aggregate.cells(plain, error)
    report = Report(
        run=run.identity,
        steering_sha256=run.manifest.steering_sha256,
        samples_sha256=sha256(lines.encode()),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        self_check=check,
        suite=SuiteSource(
            name=run.suite.name, sha256=run.suite.sha256, samples=sum(s.samples for s in sources)
        ),
        judge=run.judge.name,
        judge_error=error,
        kappa_with_rules=kappa_with_rules(run.judge, results, run.samples),
        overlap=overlap(run.seen, run.samples),
        decoding={**run.decoding, **reduced},
        dtype=str(loaded.model.dtype).removeprefix("torch."),
        quantization=run.manifest.calibration.source.quantization,
        device=_named(run.device),
        versions=run.versions,
        no_headline=undecided(cells),
        cells=cells,
        pairs=aggregate.pairs(plain),
        harm_pairs=aggregate.harm_pairs(plain),
        regressions=aggregate.regressions(plain),
        attack_regressions=[name for attack in worst for name in attack.regressions],
        externalities=breakdown.externalities(results),
        newly_refused=aggregate.newly_refused(plain),
        suites=breakdown.suites(sources, results, error),
        controls=breakdown.controls(results),
        attacks=worst,
        skipped=skipped,
        gates=aggregate.gates(plain),
        seconds=round(max(sum(entry.seconds for entry in share) for share in entries), 3),
    )
    exported = json.dumps(every_eval_ever(report, run.manifest), indent=2) + "\n"
    write_atomically(run.directory / SAMPLES_NAME, lines)
    write_atomically(run.directory / EXPORT_NAME, exported)
    write_atomically(run.directory / REPORT_NAME, report.model_dump_json(indent=2) + "\n")


def _named(device: str) -> str:
    """The device as the report prints it, with the model of a GPU."""
    if device.startswith("cuda"):
        return f"{device}, {torch.cuda.get_device_name(device)}"
    return device
