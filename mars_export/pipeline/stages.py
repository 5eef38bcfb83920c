"""The stages in order: calibrate, export, evaluate, card; then publish and push."""

import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from mars_export._version import __version__
from mars_export.checkpoint.manifest import Manifest
from mars_export.common.disk_errors import clear_disk_errors
from mars_export.common.errors import ExportError
from mars_export.common.names import CARD_NAME, EVALUATION, PLOTS
from mars_export.common.paths import named, resolved
from mars_export.common.progress import Progress, Tick, progress_for
from mars_export.common.record import first_problem
from mars_export.common.workspace import RUN_NAME, Stage, Workspace, digests
from mars_export.evaluation.arms import arm_digests
from mars_export.evaluation.judges.choice import judge_named
from mars_export.evaluation.reports import leading
from mars_export.families.loading import check_config, check_shapes, pick_device
from mars_export.families.processes import joined
from mars_export.inputs.template import thinking_word
from mars_export.methods import method_named
from mars_export.pipeline.capacity import check_memory
from mars_export.pipeline.checks import (
    check_judge,
    check_modules_cache,
    check_processor,
    check_push,
    check_requests,
    check_space,
    require_layer,
)
from mars_export.pipeline.kept import keep_prompts, keep_suites, keep_tuning, kept_tuning
from mars_export.pipeline.organisms import ORGANISM
from mars_export.pipeline.preflight import RunInputs, describe, prepare
from mars_export.pipeline.questions import check_questions, require_harmless
from mars_export.pipeline.settings import NO_TUNING, Settings
from mars_export.pipeline.shared import (
    assist,
    calibration_task,
    dismiss,
    evaluation_task,
    together,
)
from mars_export.pipeline.splitting import check_processes
from mars_export.pipeline.tuning import check_tuning

__all__ = ["adopt", "checkpoint", "export", "output_of", "publish", "recalibrate", "values_like"]

_CALIBRATION: Final = "calibration"
_CHECKPOINT: Final = "checkpoint"
_VIEW: Final = "base"
_MAKING: Final = 2
"""Stages that make the checkpoint; the others say what it does."""


def export(settings: Settings, progress: Progress | None = None) -> Path:
    """Make a steered, evaluated and documented checkpoint of a base model, and push it if asked.

    Finished stages survive an interruption: the same call goes on after them. The output
    directory appears complete or not at all; when it is there already, made from the same
    inputs, only the push is done.

    Args:
        settings: What to make and where.
        progress: Display; None for the one that `settings.display` names.

    Returns:
        The output directory.

    Raises:
        ExportError: for everything that the user can fix.
    """
    return _run(settings, progress, lambda _: prepare(settings))


def checkpoint(settings: Settings, progress: Progress | None = None) -> Path:
    """As `export`, without evaluation and card; nothing is pushed."""
    return _run(settings, progress, lambda _: prepare(settings), count=_MAKING)


def recalibrate(
    settings: Settings, progress: Progress | None = None, *, base: Path | None = None
) -> Path:
    """As `export`, of the weights of a steered checkpoint that was trained on.

    Its old steering is left out; the manifest names it in `base.derived_from`. The method and its
    options, prompts, suites and license are those of the checkpoint unless the settings name
    others; the layer is chosen anew.

    Args:
        settings: As for `export`; `model` is the steered directory.
        progress: Display; None for the one that `settings.display` names.
        base: The steered directory before training, which keeps prompts, suites and license.

    Returns:
        The output directory.

    Raises:
        ExportError: for everything that the user can fix.
    """
    directory = named(settings.model)
    stated = settings.model_dump(exclude_unset=True)
    own = stated.pop("method_options", {})
    try:
        settings = Settings(**values_like(directory, {**stated, **own}))
    except ValidationError as error:
        raise ExportError(first_problem(error)) from error
    return _derive(settings, progress, directory, base, keep=False)


def adopt(settings: Settings, base: Path, progress: Progress | None = None) -> Path:
    """A steered checkpoint that was trained on, as a steered directory with the calibration it has.

    The weights are evaluated and documented as `export` does. The calibration was made before
    training: `mars-export drift` says whether it fits.

    Args:
        settings: As for `export`; `model` is what was saved after training.
        base: The steered directory before training.
        progress: Display; None for the one that `settings.display` names.

    Returns:
        The output directory.

    Raises:
        ExportError: for everything that the user can fix.
    """
    directory = named(settings.model)
    return _derive(settings, progress, directory, base, keep=True)


def _derive(
    settings: Settings,
    progress: Progress | None,
    directory: Path,
    base: Path | None,
    *,
    keep: bool,
) -> Path:
    """Make a steered directory of the weights of one."""
    if resolved(output_of(settings)) in {resolved(directory), base and resolved(base)}:
        raise ExportError(f"{output_of(settings)} is what is read; choose another --output")
    if keep and base and base.resolve() == directory.resolve():
        raise ExportError(f"{directory} is --base itself; give what was saved after training")

    def read(workspace: Workspace) -> RunInputs:
        from mars_export.checkpoint.derived import native_view
        from mars_export.pipeline import trained

        parent = trained.parent_of(directory, base)
        origin = trained.derivation(directory, base, parent, calibrated=not keep)
        sets = trained.calibration_sets(settings, directory, base)
        own = settings.model_copy(update={"tune_on": NO_TUNING}) if keep else settings
        like = trained.like_parent(own, directory, base, parent)
        view = workspace.root / _VIEW / origin.name
        native_view(directory, view)
        if base is not None:
            trained.complete(view, base)
        job = prepare(like.model_copy(update={"model": str(view), "revision": None}), sets)
        source = trained.inherited(job.source, parent)
        if not settings.suite:
            origin = origin.model_copy(update={"suite": job.suite.sha256})
        return replace(
            job,
            source=source.model_copy(update={"derived_from": origin}),
            calibration=base / _CALIBRATION if keep and base else None,
            tuning_word=kept_tuning(base) if keep and base else job.tuning_word,
        )

    return _run(settings, progress, read)


def values_like(directory: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of `Settings` that steer as a checkpoint does, where the user does not say otherwise.

    Args:
        directory: Steered checkpoint.
        values: The user's, by name; the options of a method stand among them.

    Raises:
        ExportError: if the directory is not steered, or its steering is damaged.
    """
    from mars_export.checkpoint.derived import read_steering

    rules, _ = read_steering(directory)
    if values.get("method", rules["method"]) != rules["method"]:
        return dict(values)
    options = method_named(rules["method"]).options_like(rules, same_layer=False)
    own = options.model_dump(exclude_unset=True)
    if word := thinking_word(rules.get("template_options", {})):
        own["thinking"] = word
    return {**own, **values, "method": rules["method"]}


def _run(
    settings: Settings,
    progress: Progress | None,
    read: Callable[[Workspace], RunInputs],
    count: int | None = None,
) -> Path:
    output = output_of(settings)
    check_processes(settings.where)
    with joined() as processes:
        if processes.rank:
            assist(processes)
            return output
        progress = progress or progress_for(settings.display)
        with clear_disk_errors(output), Workspace.open(output) as workspace:
            workspace.check_replaceable(overwrite=True)
            _make(workspace, read(workspace), settings, progress, count)
        dismiss(processes)
    if settings.push and not settings.dry_run:
        repo = settings.push if isinstance(settings.push, str) else None
        url = publish(output, repo, progress, private=settings.private)
        progress.note(f"published: {url}")
    return output


def output_of(settings: Settings) -> Path:
    """The output directory, named after the model unless the user says otherwise."""
    if settings.output is not None:
        return named(settings.output)
    from mars_export.hub import cached_repository

    path = named(settings.model.removeprefix(ORGANISM))
    repo, _ = cached_repository(path) or (resolved(path).name, "")
    return Path(method_named(settings.method).checkpoint_name(repo))


def _make(
    workspace: Workspace, job: RunInputs, settings: Settings, progress: Progress, count: int | None
) -> None:
    stages = _stages(workspace, job, settings)[:count]
    digest = digests(stages)[-1]
    if workspace.is_published(digest):
        progress.note(f"{workspace.output} is already there, made with these settings")
        report, name = leading(workspace.output), shlex.quote(str(workspace.output))
        if report is not None and report.suite.sha256 != job.suite.sha256:
            progress.note(
                f"its card leads with an evaluation on {report.suite.name}, not on "
                f"{job.suite.name}: `mars-export evaluate {name} --lead` changes that"
            )
        workspace.discard()
        return
    workspace.check_replaceable(settings.overwrite)
    if count is None:
        require_harmless(job.suite, job.family.modalities)
    if resolved(workspace.output) in (resolved(job.base), *resolved(job.base).parents):
        raise ExportError(f"{workspace.output} holds the base model; choose another --output")
    check_space(job.base, workspace.root)
    pick_device(settings.device)
    layers = check_config(job.base, job.family)
    require_layer(getattr(settings.method_options, "layer", None), layers)
    processor = check_processor(job.base, job.family, settings.thinks)
    check_requests(processor, job.base, job.family)
    check_questions(processor, job.base, job.suite, job.family.modalities, job.prompts)
    if job.tuning is not None:
        check_tuning(processor, job.base, job.tuning)
    check_shapes(job.base, job.family)
    check_modules_cache()
    check_judge(judge_named(settings.judge, settings.device))
    if settings.push:
        check_push(settings, job.source)
    progress.note(describe(job))
    progress.note(check_memory(job, settings, processor))
    if settings.dry_run:
        return
    workspace.run(stages, progress)
    workspace.publish(_CHECKPOINT, digest, overwrite=settings.overwrite, finish=_seal_run)


def _seal_run(directory: Path) -> None:
    from mars_export.checkpoint.seal import write_seal

    write_seal(directory, RUN_NAME)


def _stages(workspace: Workspace, job: RunInputs, settings: Settings) -> list[Stage]:
    calibration, checkpoint = workspace.root / _CALIBRATION, workspace.root / _CHECKPOINT
    name = workspace.output.name
    judge = judge_named(settings.judge, settings.device)

    def calibrate(tick: Tick) -> None:
        if job.calibration is not None:
            shutil.copytree(job.calibration, calibration)
            return
        together(calibration_task(job, settings), tick).save(calibration)

    def write(tick: Tick) -> None:
        from mars_export.checkpoint.writer import write_checkpoint

        write_checkpoint(
            job.base,
            checkpoint,
            source=job.source,
            calibration_dir=calibration,
            family=job.family,
            progress=tick,
        )
        keep_prompts(checkpoint, job.prompts, settings.seed)
        keep_tuning(checkpoint, job.tuning_word)

    def evaluate(tick: Tick) -> None:
        keep_suites(checkpoint, job.suite_words)
        report = together(evaluation_task(checkpoint, job, settings), tick)
        if not report.self_check.active:
            raise ExportError(
                f"the checkpoint does not steer as calibrated: {report.self_check.detail}; "
                "please report this with the model's name"
            )

    def card(_tick: Tick) -> None:
        from mars_export.card.render import write_card

        write_card(checkpoint, name, settings.contact)

    chosen = {"method", "method_options", "dtype", "seed", "thinking"}
    asked = {
        "version": __version__,
        "base": job.source.model_dump(mode="json"),
        "family": job.family.model_dump(mode="json"),
        "files": _fingerprint(job.base),
        "prompts": [job.prompts.harmful.sha256, job.prompts.harmless.sha256],
        "quantization": job.quantization,
        "kinds": settings.kinds,
        **({"kept": True} if job.calibration else {}),
        **({"tuning": job.tuning.sha256} if job.tuning else {}),
        **settings.model_dump(mode="json", include=chosen),
    }
    evaluated = {"max_new_tokens", "controls", "control_requests", "attacks"}
    measured = {
        "suite": job.suite.sha256,
        "arms": arm_digests(settings.arm),
        **settings.model_dump(mode="json", include=evaluated),
        "judge": judge.name,
    }
    return [
        Stage("calibrate", asked, (_CALIBRATION,), calibrate),
        Stage("export", {}, (_CHECKPOINT,), write),
        Stage("evaluate", measured, (f"{_CHECKPOINT}/{EVALUATION}",), evaluate, resumes=True),
        Stage(
            "card",
            settings.model_dump(include={"contact"}),
            (f"{_CHECKPOINT}/{CARD_NAME}", f"{_CHECKPOINT}/{PLOTS}"),
            card,
        ),
    ]


def _fingerprint(base: Path) -> list[list[object]]:
    """Name, size and modification time (ns) of every file of the base."""
    files = sorted(path for path in base.iterdir() if path.is_file())
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def publish(
    directory: Path,
    repo: str | None = None,
    progress: Progress | None = None,
    *,
    private: bool = False,
    contact: str | None = None,
) -> str:
    """Push a steered directory, with a card whose snippets name the repository.

    Args:
        directory: Complete steered directory.
        repo: `org/name` or `name`; None for the base's name and the method's.
        progress: Display; None for none.
        private: Whether to make a new repository private; it follows the base otherwise.
        contact: Where to report failures, for the card.

    Returns:
        Address of the commit.

    Raises:
        ExportError: if the directory is not fit to be published, or the Hub refuses.
    """
    from mars_export.card.render import write_card
    from mars_export.checkpoint.seal import SEAL_NAME, SIGNATURE_NAME
    from mars_export.hub import check_destination, destination_of, push

    progress = progress or progress_for("none")
    target = destination_of(directory, repo)
    check_destination(Manifest.read(directory).base, target, private or None)
    seal, signature = directory / SEAL_NAME, directory / SIGNATURE_NAME
    before = seal.read_bytes() if signature.exists() and seal.exists() else None
    write_card(directory, target, contact)
    if before not in (None, seal.read_bytes()):
        raise ExportError(
            f"{signature} is of another card, as {directory}/README.md now names {target}: sign "
            f"{SEAL_NAME} again, or delete the signature, then push"
        )
    with progress.stage(f"push to {target}") as tick:
        return push(directory, target, private=private or None, note=progress.note, tick=tick)
