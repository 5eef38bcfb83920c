"""What a steered checkpoint that was trained on takes over from the one before training."""

from pathlib import Path

from mars_export.checkpoint.derived import read_steering
from mars_export.checkpoint.integrity import verify_files
from mars_export.checkpoint.manifest import (
    MANIFEST_NAME,
    BaseModelSource,
    Derivation,
    Manifest,
)
from mars_export.common.errors import ExportError
from mars_export.families.directory import companions, is_legal, reuse
from mars_export.hub.license import read_card
from mars_export.inputs.prompts import PromptSets
from mars_export.methods import method_named
from mars_export.pipeline.kept import calibrated_on, find_sets, find_tuning, kept_suites
from mars_export.pipeline.preflight import brings_prompts
from mars_export.pipeline.settings import NO_TUNING, Settings

__all__ = ["calibration_sets", "complete", "derivation", "inherited", "like_parent", "parent_of"]


def parent_of(directory: Path, base: Path | None) -> Manifest | None:
    """The manifest of the checkpoint before training; None where it is not at hand.

    Args:
        directory: Steered, trained on and saved.
        base: The steered directory before training, if the user names it.

    Raises:
        ExportError: if one of them is not steered, or they carry different steering.
    """
    rules, _ = read_steering(directory)
    if base is None:
        here = (directory / MANIFEST_NAME).is_file()
        return Manifest.read(directory) if here else None
    if read_steering(base)[0]["sha256"] != rules["sha256"]:
        raise ExportError(
            f"{directory} was not made from {base}: they carry different steering; give the "
            "steered checkpoint that the training began with"
        )
    return Manifest.read(base)


def derivation(
    directory: Path, base: Path | None, parent: Manifest | None, *, calibrated: bool
) -> Derivation:
    """What a checkpoint made from this one says of its origin.

    Args:
        directory: Steered, perhaps trained on.
        base: The steered directory before training, if the user names it.
        parent: Its manifest.
        calibrated: Whether its weights are calibrated anew.

    Raises:
        ExportError: if the directory is not steered.
    """
    rules, _ = read_steering(directory)
    intact = (directory / MANIFEST_NAME).is_file() and not verify_files(directory)
    before = parent.base if parent else None
    earlier = before.derived_from if before else None
    first, revision = (before.repo or before.name, before.revision) if before else (None, None)
    if earlier is not None and earlier.base:
        first, revision = earlier.base, earlier.revision
    return Derivation(
        name=directory.resolve().name,
        steering_sha256=rules["sha256"],
        parent=base.resolve().name if base else None,
        base=first,
        revision=revision,
        trained=not intact or bool(earlier and earlier.trained),
        calibrated=calibrated,
    )


def inherited(source: BaseModelSource, parent: Manifest | None) -> BaseModelSource:
    """The source of a trained checkpoint, with the terms of what it was trained from."""
    if parent is None:
        return source
    before = parent.base
    return source.model_copy(
        update={
            "license_name": source.license_name or before.license_name,
            "license_link": source.license_link or before.license_link,
            "languages": source.languages or before.languages,
            "notes": source.notes or before.notes,
            "gated": source.gated or before.gated,
            "private": source.private or before.private,
        }
    )


def complete(view: Path, base: Path) -> None:
    """Bring what `save_pretrained` leaves out: legal files, and those of an absent processor.

    Args:
        view: What is calibrated or adopted.
        base: The steered directory before training.
    """
    has_processor = (view / "tokenizer_config.json").is_file()
    for path in companions(base):
        target = view / path.relative_to(base)
        if not target.exists() and (is_legal(path.name) or not has_processor):
            target.parent.mkdir(exist_ok=True)
            reuse(path, target)


def like_parent(
    settings: Settings, directory: Path, base: Path | None, parent: Manifest | None
) -> Settings:
    """The settings with suites and license of the checkpoint before training, where none is given.

    Raises:
        ExportError: if what is kept of them cannot be read.
    """
    folders = [directory, *([base] if base else [])]
    suites = (words for folder in folders if (words := kept_suites(folder)))
    update: dict[str, object] = {"suite": settings.suite or next(suites, ())}
    if settings.license is None and parent and read_card(directory).license is None:
        update["license"] = parent.base.license
    if settings.tune_on is None:
        update["tune_on"] = _tuned_on(settings, directory, base)
    return settings.model_copy(update=update)


def _tuned_on(settings: Settings, directory: Path, base: Path | None) -> str | None:
    """The suite that the calibration before was tuned on; None for none."""
    folders = [directory, *([base] if base else [])]
    known = next(filter(None, map(calibrated_on, folders)), None)
    if known is None or known.tuning is None or not method_named(settings.method).tunable:
        return None
    if word := find_tuning(known.tuning, folders):
        return word
    raise ExportError(
        f"{directory}: it was tuned on {known.tuning.name}, which is not at hand; give --base, the "
        "steered directory that the training began with, --tune-on SUITE, or --tune-on "
        f"{NO_TUNING} to go without"
    )


def calibration_sets(settings: Settings, directory: Path, base: Path | None) -> PromptSets | None:
    """The prompts of the calibration before; None where the settings or a suite name others.

    Raises:
        ExportError: if they are not at hand: packaged ones are not taken in their place.
    """
    if settings.harmful is not None:
        return None
    folders = [directory, *([base] if base else [])]
    known = next(filter(None, map(calibrated_on, folders)), None)
    sets = find_sets(known, folders, settings.seed) if known else None
    if sets is not None or brings_prompts(directory):
        return sets
    what = "nothing says what it was calibrated on"
    if known is not None:
        what = (
            f"it was calibrated on {known.harmful.name} and {known.harmless.name}, which are not "
            "at hand"
        )
    raise ExportError(
        f"{directory}: {what}; give --base, the steered directory that the training began with, or "
        "prompts with --harmful and --harmless"
    )
