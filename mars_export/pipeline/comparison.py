"""Methods and baselines on one model, from the words of the user to the comparison card."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import prod
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from mars_export.checkpoint.expected import CALIBRATION
from mars_export.checkpoint.manifest import Manifest
from mars_export.checkpoint.modeling import CODE_NAMES
from mars_export.common.atomic import replacing, write_atomically
from mars_export.common.disk_errors import clear_disk_errors, require_writable
from mars_export.common.errors import ExportError, UnsteerableError
from mars_export.common.names import CARD_NAME, EVALUATION, PLOTS
from mars_export.common.paths import exists, is_dir, named
from mars_export.common.plotting import png
from mars_export.common.problems import near
from mars_export.common.progress import Progress, Tick, progress_for
from mars_export.common.record import VersionedRecord, first_problem
from mars_export.common.vocabulary import MODALITIES, Modality
from mars_export.comparison.record import (
    COMPARISON_NAME,
    Answered,
    Comparison,
    Contender,
    Setting,
    Speed,
    Travels,
)
from mars_export.evaluation.arms import NO_BASELINE
from mars_export.evaluation.baselines import BASELINES, CAPTIONS
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.report import REFERENCE, STEERED, Report
from mars_export.evaluation.suite import Suite
from mars_export.inputs.requests import PLAIN_REQUEST, template_problem
from mars_export.methods import METHODS, method_named
from mars_export.pipeline import stages
from mars_export.pipeline.checks import check_processor
from mars_export.pipeline.comparison_settings import ComparisonSettings
from mars_export.pipeline.loaded import check_loaded
from mars_export.pipeline.preflight import RunInputs, prepare
from mars_export.pipeline.settings import Settings

__all__ = ["compare"]

_METHODS: Final = "methods"
_SPEED: Final = "speed.json"
_FLOAT32: Final = 4
"""Bytes of a number of the steering tensors, whatever the base is loaded in."""
_BASE: Final = Contender(name=REFERENCE, title="the model as it is", kind="base")
_TEMPLATES: Final = tuple(method for method in METHODS if method.site == "template")


@dataclass(frozen=True)
class _Made:
    """A method's checkpoint, or why there is none."""

    contender: Contender
    directory: Path | None


def compare(settings: ComparisonSettings, progress: Progress | None = None) -> Path:
    """Make a checkpoint of every method, ask all of them and the baselines the same, write a card.

    The directory gets `methods/NAME`, complete steered checkpoints; `evaluation/`, the answers of
    all; `comparison.json`, `README.md` and its plot. A stopped comparison goes on when it is
    repeated. A method that the model cannot be steered by is in the card with the reason.

    Args:
        settings: What to compare, on what, and where.
        progress: Display; None for the one that `settings.display` names.

    Returns:
        The directory.

    Raises:
        ExportError: for everything that the user can fix.
    """
    progress = progress or progress_for(settings.display)
    wanted = _wanted(settings)
    job = prepare(_settings_for(settings, "mars", {}, Path("unused")))
    output = _output(settings, job)
    with clear_disk_errors(output):
        require_writable(output)
        baselines = {
            word: contender
            for word, contender in _baselines(settings, job).items()
            if contender.name not in wanted  # as a checkpoint, which does the same
        }
        made = [_made(settings, output, *method, progress) for method in wanted.items()]
        answered = _answered(settings, job, output, made, baselines, progress)
        skipped = {} if answered is None else answered.setting.skipped
        comparison = Comparison(
            model=job.source.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            command=_command(settings),
            contenders=[
                _BASE,
                *(one.contender for one in made),
                *(_told(baseline, skipped) for baseline in baselines.values()),
            ],
            answered=answered,
        )
        _write(output, comparison)
    return output


def _wanted(settings: ComparisonSettings) -> dict[str, dict[str, str]]:
    """Name of each method's contender to its word and options; every word is checked here."""
    try:
        words = settings.methods()
    except ValueError as error:
        raise ExportError(f"--method: {error}; give NAME:OPTION=VALUE,...") from error
    wanted: dict[str, dict[str, str]] = {}
    for word, options in words.items():
        name = word.partition(":")[0]
        label = "-".join([name, *(f"{k}-{Path(v).name}" for k, v in options.items())])
        label = re.sub(r"[^A-Za-z0-9._+-]+", "-", label)
        if label in wanted:
            raise ExportError(f"--method {word}: another one is called {label} as well")
        method = method_named(name)
        own = sorted([*method.Options.model_fields, *(["tune_on"] if method.tunable else [])])
        for option in options:
            if option not in own:  # others, as the prompts and the seed, are the same for all
                known = ", ".join(own) or "none"
                raise ExportError(
                    f"--method {word}: {option} is no option of {name} ({known})"
                    + near(option, own)
                )
        _settings_for(settings, name, options, Path("unused"))
        wanted[label] = {"method": name, **options}
    return wanted


def _settings_for(
    settings: ComparisonSettings, method: str, options: Mapping[str, str], output: Path
) -> Settings:
    """The settings of one method's checkpoint."""
    values = settings.model_dump(exclude_unset=True, exclude={"method", "baseline", "arm"})
    if method not in {m.name for m in METHODS if m.tunable}:
        values.pop("tune_on", None)
    try:
        return Settings(**{**values, **options, "method": method, "output": output})
    except ValidationError as error:
        word = method + (":" if options else "") + ",".join(f"{k}={v}" for k, v in options.items())
        raise ExportError(f"--method {word}: {first_problem(error)}") from error


def _output(settings: ComparisonSettings, job: RunInputs) -> Path:
    output = named(settings.output or Path(job.source.name.split("/")[-1] + "-compared"))
    if exists(output) and not is_dir(output):
        raise ExportError(f"{output} is a file; choose another --output")
    own = {_METHODS, EVALUATION, COMPARISON_NAME, CARD_NAME, PLOTS}
    there = {path.name for path in output.iterdir()} if is_dir(output) else set()
    if there and not (there <= own and there & {_METHODS, COMPARISON_NAME}):
        raise ExportError(
            f"{output} holds files that mars-export did not make; choose another --output"
        )
    return output


def _made(
    settings: ComparisonSettings,
    output: Path,
    label: str,
    words: Mapping[str, str],
    progress: Progress,
) -> _Made:
    """The checkpoint of one method, made unless it is there."""
    options = {name: value for name, value in words.items() if name != "method"}
    method = method_named(words["method"])
    contender = Contender(
        name=label,
        title=method.title,
        kind="method",
        paper=method.paper,
        needs=list(method.needs),
        options=options,
    )
    directory = output / _METHODS / label
    progress.note(f"method {label}")
    try:
        stages.checkpoint(_settings_for(settings, method.name, options, directory), progress)
    except UnsteerableError as error:
        progress.note(f"{label} is turned down: {error}")
        return _Made(contender.model_copy(update={"turned_down": str(error)}), None)
    return _Made(contender.model_copy(update={"travels": _travels(directory)}), directory)


def _travels(directory: Path) -> Travels:
    manifest = Manifest.read(directory)
    files = (file for file in manifest.files if file.origin == "added")
    return Travels(
        bytes=sum(file.size for file in files if not file.path.startswith(CALIBRATION)),
        lines=sum((directory / name).read_text("utf-8").count("\n") for name in CODE_NAMES),
        memory=sum(_FLOAT32 * prod(tensor.shape) for tensor in manifest.tensors),
    )


def _baselines(settings: ComparisonSettings, job: RunInputs) -> dict[str, Contender]:
    """By the word that names it, those asked for, or all that need no second model.

    One that this model cannot be asked with has the reason; second models must be at hand.
    """
    words = settings.baseline
    if not words:
        free = (b.name for b in BASELINES.values() if not b.takes_model)
        words = (*(method.name for method in _TEMPLATES), *free)
    processor = check_processor(job.base, job.family, settings.thinks)
    sees = any(modality != "text" for modality in job.family.modalities)
    contenders: dict[str, Contender] = {}
    for word in dict.fromkeys(words):
        name, _, model = word.partition(":")
        template = next((method for method in _TEMPLATES if method.name == name), None)
        problem = None
        if template is not None:
            problem = template_problem(processor, template.change(PLAIN_REQUEST)) or None
            paper, title, needs = template.paper, template.title, template.needs
        elif name in BASELINES:
            known = replace(BASELINES[name], model=model)
            paper, title, needs = known.paper or None, known.title, known.needs
            if known.takes_model:
                known.fit_class.source()
            if CAPTIONS in needs and not sees:
                problem = "it changes requests with pictures or clips, and this model takes none"
        else:  # none
            continue
        if any(other.name == name for other in contenders.values()):
            raise ExportError(f"--baseline {word}: {name} is compared already; give it once")
        contenders[word] = Contender(
            name=name, title=title, kind="baseline", paper=paper, needs=list(needs),
            turned_down=problem,
        )  # fmt: skip
    return contenders


def _told(baseline: Contender, skipped: Mapping[str, str]) -> Contender:
    """A baseline with the reason why the model could not be fitted, if so."""
    reason = skipped.get(baseline.name, baseline.turned_down)
    return baseline.model_copy(update={"turned_down": reason})


def _answered(
    settings: ComparisonSettings,
    job: RunInputs,
    output: Path,
    made: Sequence[_Made],
    baselines: Mapping[str, Contender],
    progress: Progress,
) -> Answered | None:
    """Ask all that can be asked; None where no method made a checkpoint."""
    from mars_export.card.samples import read_samples
    from mars_export.comparison.tables import renamed, tables
    from mars_export.evaluation.judges.choice import judge_named
    from mars_export.pipeline.evaluation import evaluate

    hosts = [one for one in made if one.directory is not None]
    if not hosts:
        return None
    host = next((one for one in hosts if one.contender.name == "mars"), hosts[0])
    assert host.directory is not None
    folder = output / EVALUATION
    takes = {one.contender.name: _modalities(one) for one in hosts}
    shared = [m for m in job.family.modalities if all(m in taken for taken in takes.values())]
    suite = job.suite.of(shared)
    words = [f"{o.contender.name}={o.directory}" for o in hosts if o is not host]
    words += [word for word, one in baselines.items() if one.turned_down is None]
    options = settings.options.model_copy(update={"arms": (*words, NO_BASELINE), "doses": False})
    if settings.placement:
        progress.note(check_loaded(host.directory, options))
    with progress.stage("ask all of them") as tick:
        report = evaluate(
            host.directory,
            suite,
            options,
            judge=judge_named(settings.judge, settings.device),
            calibration_prompts=job.prompts.prompts,
            progress=tick,
            folder=folder,
        )
    if not report.self_check.active:
        raise ExportError(f"{host.directory} does not steer: {report.self_check.detail}")
    with progress.stage("time all of them") as tick:
        speed = _speed(folder, host.directory, suite, options, report, tick)
    name = host.contender.name
    results = renamed(read_samples(folder), {STEERED: name})
    speed = [s.model_copy(update={"arm": name}) if s.arm == STEERED else s for s in speed]
    setting = _setting(report, host)
    for modality in (m for m in job.family.modalities if m not in shared):
        without = [name for name, taken in takes.items() if modality not in taken]
        setting.skipped[modality] = f"{', '.join(without)} cannot be asked with it; compare without"
    return Answered(setting=setting, speed=speed, **tables(results, name))


def _modalities(made: _Made) -> tuple[Modality, ...]:
    assert made.directory is not None
    return Manifest.read(made.directory).calibration.source.modalities


class _Timed(VersionedRecord):
    """`speed.json`: what was timed, for a comparison that goes on later."""

    run: str
    """Of the report of the same contenders."""
    speed: list[Speed]


def _speed(
    folder: Path, host: Path, suite: Suite, options: EvaluationOptions, report: Report, tick: Tick
) -> list[Speed]:
    """Times of all contenders; those of an earlier run of the same report are kept.

    A modality with too few harmless requests has none.
    """
    from mars_export.comparison.speed import FEWEST, ROUNDS, measure_speed
    from mars_export.evaluation.arms import open_arms
    from mars_export.evaluation.ready import fit, load_models
    from mars_export.families.loading import pick_device
    from mars_export.pipeline.evaluation import sets_at_hand

    path = folder / _SPEED
    try:
        kept = _Timed.model_validate_json(path.read_bytes())
        if kept.run == report.run:
            return kept.speed
    except (OSError, ValidationError):
        pass
    arms = [arm for arm in open_arms(host, options.arms) if arm.name not in report.skipped]
    models = load_models(arms, pick_device(options.device), options.dtype)
    ready = fit(arms, models[host], sets_at_hand(host), options.batch_size)
    asked = {}
    for modality in MODALITIES:
        samples = suite.evaluation_samples((modality,))
        chosen = [s for s in samples if not s.harmful and s.modality == modality][: ROUNDS + 1]
        if len(chosen) >= FEWEST:
            asked[modality] = [suite.request(sample) for sample in chosen]
    speed = measure_speed(ready.arms, models, asked, tick)
    write_atomically(path, _Timed(run=report.run, speed=speed).model_dump_json(indent=1) + "\n")
    return speed


def _setting(report: Report, host: _Made) -> Setting:
    assert host.directory is not None
    ours = {"calibrated_on", "skipped"}
    told = {name: getattr(report, name) for name in Setting.model_fields.keys() - ours}
    prompts = Manifest.read(host.directory).calibration.source.prompts
    return Setting(
        **told,
        skipped={name: reason for name, reason in report.skipped.items() if name != "dose"},
        calibrated_on={label: source.name for label, source in prompts.items()},
    )


def _command(settings: ComparisonSettings) -> str:
    """The command line that makes the comparison again."""
    words = ["mars-export", "compare"]
    for name, value in settings.model_dump(mode="json", exclude_unset=True).items():
        flag = "--" + name.replace("_", "-")
        if name in ("output", "overwrite", "display"):
            continue
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, bool):
                words.append(flag if one else flag.replace("--", "--no-", 1))
            else:
                words += [flag, str(one)]
    return shlex.join(words)


def _write(output: Path, comparison: Comparison) -> None:
    from mars_export.comparison.card import render
    from mars_export.comparison.figures import FRONTIER, draw

    text = render(comparison)
    if comparison.answered is not None:
        with replacing(output / FRONTIER) as path:
            path.write_bytes(png(lambda: draw(comparison)))
    write_atomically(output / COMPARISON_NAME, comparison.model_dump_json(indent=1) + "\n")
    write_atomically(output / CARD_NAME, text)
