"""`mars-export drift DIR`: does the calibration still fit after training?"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mars_export.cli.options import GroupedHelp, read_settings, settings_options
from mars_export.common.errors import ExportError
from mars_export.common.quiet import quiet_libraries
from mars_export.families.quantization import NONE, SCHEMES, scheme_for
from mars_export.pipeline.settings import PromptSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mars_export.calibration.source import CalibrationSource
    from mars_export.inputs.prompts import PromptSets

__all__ = ["drift"]

_FOLDER = click.Path(path_type=Path)
_ADVICE: Final = {
    "recalibrate": "run `mars-export recalibrate {0}`",
    "lost": "the weights cannot be calibrated where they are steered; `mars-export recalibrate "
    "{0}` may find another layer, otherwise train again from {1} with less change",
}


@click.command(cls=GroupedHelp)
@click.argument("directory", type=_FOLDER)
@click.option("--base", type=_FOLDER, metavar="DIR", help="The steered checkpoint before training.")
@click.option(
    "--quantization",
    type=click.Choice([NONE, *SCHEMES]),
    help="Load DIRECTORY in this quantization; without it, in the one it was calibrated in.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
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

    Exits with 0 if the calibration still fits, 1 if it does not, 2 for bad input. Give the prompts
    that were calibrated on; those of a suite.jsonl in DIRECTORY or in the base are taken. Seed
    and kinds of the neutral pictures are those of the calibration unless you give others.
    """
    settings = read_settings(PromptSettings, ctx, values)
    from mars_export.cli.summary import print_drift
    from mars_export.common.progress import progress_for
    from mars_export.families.directory import read_config
    from mars_export.integrations.finetune.drift import measure_drift
    from mars_export.pipeline.preflight import own_prompts

    if quantization is not None:
        scheme_for(read_config(directory), quantization)
    folders = [directory] if base is None else [directory, base]
    sources = [source for folder in folders if (source := _source(folder))]
    settings = _as_calibrated(settings, sources)
    sets = own_prompts(settings, folders)
    for source in sources:
        _check_prompts(directory, source, sets)
    progress = progress_for(settings.display)
    for source in sources[:1]:
        if settings.seed != source.seed:
            progress.note(
                f"{directory} was calibrated with --seed {source.seed}: with {settings.seed} the "
                "prompts are split otherwise and the neutral stimuli are others, which also counts "
                "as drift"
            )
        if source.kinds and settings.kinds != source.kinds:
            progress.note(
                f"{directory} was calibrated with --neutral {','.join(source.kinds)}: what other "
                "neutral stimuli do also counts as drift"
            )
    if not sources:
        progress.note(
            f"no manifest says what {directory} was calibrated on: the result is right if it was "
            f"{sets.harmful.name} and {sets.harmless.name} with --seed {settings.seed} and "
            f"--neutral {settings.neutral}; give --base to be sure"
        )
    quiet_libraries()
    with progress.stage("drift") as tick:
        result = measure_drift(
            directory,
            sets,
            base=base,
            device=settings.device,
            batch_size=settings.batch_size,
            seed=settings.seed,
            kinds=settings.kinds,
            progress=tick,
            quantization=quantization,
        )
    if as_json:
        click.echo(result.model_dump_json(indent=2))
    else:
        print_drift(result)
    if result.verdict == "holds":
        return 0
    broken = "; ".join(d.sentence for d in result.differences if not d.fits) or result.obstacle
    advice = _ADVICE[result.verdict].format(directory, base or "its base")
    click.echo(
        f"mars-export: the calibration of {directory} no longer fits: {broken}: {advice}", err=True
    )
    return 1


def _as_calibrated(
    settings: PromptSettings, sources: "Sequence[CalibrationSource]"
) -> PromptSettings:
    """Seed and kinds of the first source, where the user gives none."""
    if not sources:
        return settings
    values: dict[str, Any] = {"seed": sources[0].seed}
    if sources[0].kinds:
        values["neutral"] = ",".join(sources[0].kinds)
    own = settings.model_fields_set
    return settings.model_copy(update={n: v for n, v in values.items() if n not in own})


def _source(directory: Path) -> "CalibrationSource | None":
    """What the steering was calibrated on; None without a manifest, as save_pretrained leaves it.

    Raises:
        ExportError: if the manifest cannot be read.
    """
    from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest

    if not (directory / MANIFEST_NAME).is_file():
        return None
    return Manifest.read(directory).calibration.source


def _check_prompts(directory: Path, source: "CalibrationSource", sets: "PromptSets") -> None:
    """Other prompts have another direction: what they show would not be the work of training.

    Raises:
        ExportError: if the calibration was on other prompts.
    """
    for label in ("harmful", "harmless"):
        if source.prompts[label].sha256 != getattr(sets, label).sha256:
            raise ExportError(
                f"{directory} was calibrated on {source.prompts[label].name}, not on "
                f"{getattr(sets, label).name}: give its prompts with --harmful and --harmless, or "
                "put its suite.jsonl there"
            )
