"""`mars-export drift DIR`: does the calibration still fit after training?"""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mars_export.cli.options import (
    DIRECTORY,
    GroupedHelp,
    as_json,
    print_json,
    read_settings,
    settings_options,
)
from mars_export.common.errors import ExportError
from mars_export.common.quiet import quiet_libraries
from mars_export.common.vocabulary import MANIFEST_NAME
from mars_export.families.quantization import NONE, SCHEMES, scheme_for
from mars_export.pipeline.settings import PromptSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mars_export.inputs.prompts import PromptSets
    from mars_export.inputs.tuning import TuningSet
    from mars_export.pipeline.kept import CalibratedOn

__all__ = ["drift"]

_ADVICE: Final = {
    "recalibrate": "run `mars-export recalibrate {0}{1}`",
    "lost": "the weights cannot be calibrated where they are steered; `mars-export recalibrate "
    "{0}{1}` may find another layer, otherwise train again from {2} with less change",
}


@click.command(cls=GroupedHelp)
@click.argument("directory", type=DIRECTORY)
@click.option(
    "--base", type=DIRECTORY, metavar="DIR", help="The steered checkpoint before training."
)
@click.option(
    "--quantization",
    type=click.Choice([NONE, *SCHEMES]),
    help="Load DIRECTORY in this quantization; without it, in the one it was calibrated in.",
)
@as_json
@settings_options(PromptSettings)
@click.pass_context
def drift(
    ctx: click.Context,
    /,
    directory: Path,
    base: Path | None,
    quantization: str | None,
    as_json: bool,
    **values: Any,
) -> int:
    """Measure how far training moved the steered DIRECTORY from its calibration.

    Exits with 0 if the calibration still fits, 1 if it does not, 2 for bad input and where it
    cannot tell. It needs the prompts of the calibration, which the steered directory before
    training keeps: give it as --base, or the prompts. Seed and kinds of the neutral pictures are
    those of the calibration unless you give others.
    """
    settings = read_settings(PromptSettings, ctx, values)
    from mars_export.cli.summary import print_drift
    from mars_export.common.progress import progress_for
    from mars_export.families.directory import read_config
    from mars_export.integrations.finetune.drift import measure_drift
    from mars_export.pipeline.kept import calibrated_on

    if quantization is not None:
        scheme_for(read_config(directory), quantization)
    folders = [directory] if base is None else [directory, base]
    known = next(filter(None, map(calibrated_on, folders)), None)
    settings = _as_calibrated(settings, known)
    sets = _prompts(directory, settings, known, folders)
    tuning = _tuning(directory, settings, known, folders)
    progress = progress_for(settings.display)
    for note in _notes(directory, settings, known, sets):
        progress.note(note)
    quiet_libraries()
    with progress.stage("drift") as tick:
        result = measure_drift(
            directory,
            sets,
            base=base,
            device=settings.where,
            batch_size=settings.batch_size,
            seed=settings.seed,
            kinds=settings.kinds,
            progress=tick,
            quantization=quantization,
            tuning=tuning,
        )
    if as_json:
        print_json(result, verdict=result.verdict)
    else:
        print_drift(result)
    name = shlex.quote(str(directory))
    before = f" --base {shlex.quote(str(base))}" if base else ""
    if result.verdict == "holds":
        if base and not (directory / MANIFEST_NAME).exists():
            click.echo(f"next: mars-export adopt {name}{before}", err=True)
        return 0
    if result.verdict == "cannot tell":
        raise ExportError(
            f"cannot tell whether the calibration of {directory} still fits: nothing says that it "
            "was made on these prompts; give --base, the steered directory before training"
        )
    broken = "; ".join(d.sentence for d in result.differences if not d.fits) or result.obstacle
    advice = _ADVICE[result.verdict].format(name, before, base or "its base")
    click.echo(
        f"mars-export: the calibration of {directory} no longer fits: {broken}: {advice}", err=True
    )
    return 1


def _as_calibrated(settings: PromptSettings, known: "CalibratedOn | None") -> PromptSettings:
    """Seed and kinds of the calibration, where the user gives none."""
    if known is None:
        return settings
    values: dict[str, Any] = {"seed": known.seed}
    if known.neutral:
        values["neutral"] = ",".join(known.neutral)
    own = settings.model_fields_set
    return settings.model_copy(update={n: v for n, v in values.items() if n not in own})


def _prompts(
    directory: Path,
    settings: PromptSettings,
    known: "CalibratedOn | None",
    folders: list[Path],
) -> "PromptSets":
    """Those of the calibration. Others have another direction, which training has not moved.

    Raises:
        ExportError: if they are not at hand, or those that were given are others.
    """
    from mars_export.pipeline.kept import find_sets
    from mars_export.pipeline.preflight import own_prompts

    given = own_prompts(settings, []) if settings.harmful else None
    sets = given or (find_sets(known, folders, settings.seed) if known else None)
    if sets is not None and (known is None or known.describes(sets)):
        return sets
    doubt = f"cannot tell whether the calibration of {directory} still fits"
    what = "nothing says what it was calibrated on"
    if known is not None:
        names = f"{known.harmful.name} and {known.harmless.name}"
        what = f"it was calibrated on {names}, which are not at hand"
        if given:
            what = f"it was calibrated on {names}, and those given are others"
    raise ExportError(
        f"{doubt}: {what}; give --base, the steered directory that the training began with, or the "
        "prompts with --harmful and --harmless"
    )


def _tuning(
    directory: Path,
    settings: PromptSettings,
    known: "CalibratedOn | None",
    folders: list[Path],
) -> "TuningSet | None":
    """The requests that the calibration was tuned on, if it was.

    Raises:
        ExportError: if they are not at hand, or those that are given are others.
    """
    from mars_export.checkpoint.derived import read_steering
    from mars_export.pipeline.kept import find_tuning
    from mars_export.pipeline.tuning import tuning_set

    stated = known.tuning if known else None
    word = settings.tunes or (find_tuning(stated, folders) if stated else None)
    if word is None and stated is None:
        return None
    rules = read_steering(directory)[0]
    tuning = tuning_set(word, rules["modalities"], settings.seed) if word else None
    if tuning and stated and tuning.sha256 == stated.sha256:
        return tuning
    what = f"it was tuned on {stated.name}, which is not at hand" if stated else "it was not tuned"
    if tuning:
        what = f"{what.partition(',')[0]}, not on {tuning.name}" if stated else what
    advice = "give its suite with --tune-on, or --base" if stated else "leave out --tune-on"
    raise ExportError(
        f"cannot tell whether the calibration of {directory} still fits: {what}; {advice}"
    )


def _notes(
    directory: Path,
    settings: PromptSettings,
    known: "CalibratedOn | None",
    sets: "PromptSets",
) -> "Iterator[str]":
    """What the user chose to make unlike the calibration, a line each."""
    from mars_export.inputs.stimuli import alike

    if known is None:
        yield (
            f"nothing says what {directory} was calibrated on: the result is right if it was "
            f"{sets.harmful.name} and {sets.harmless.name} with --seed {settings.seed} and "
            f"--neutral {settings.neutral}; give --base to be sure"
        )
        return
    if settings.seed != known.seed:
        yield (
            f"{directory} was calibrated with --seed {known.seed}: with {settings.seed} the "
            "prompts are split otherwise and the neutral stimuli are others, which also counts "
            "as drift"
        )
    if known.neutral and not alike(settings.kinds, known.neutral):
        yield (
            f"{directory} was calibrated with --neutral {','.join(known.neutral)}: what other "
            "neutral stimuli do also counts as drift"
        )
