"""Everything that can be known to go wrong, looked at before the long work begins."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mars_export.checkpoint.manifest import BaseModelSource
from mars_export.common.errors import ExportError
from mars_export.evaluation.overlap import overlap, texts
from mars_export.evaluation.suite import SUITE_NAME, Suite
from mars_export.evaluation.suites.catalog import open_suites
from mars_export.families import Family
from mars_export.families.directory import read_config, weight_map
from mars_export.families.inspection import family_for
from mars_export.families.quantization import scheme_for
from mars_export.inputs import prompts
from mars_export.inputs.template import thinking_options
from mars_export.pipeline.settings import PromptSettings, Settings

if TYPE_CHECKING:
    from mars_export.hub import BaseDirectory

__all__ = [
    "RunInputs",
    "check_processor",
    "check_space",
    "describe",
    "own_prompts",
    "prepare",
    "resolve_model",
]

_ORGANISM: Final = "organism:"
_PACKAGE: Final = Path(__file__).parents[1]
_ORGANISM_FOLDERS: Final = (_PACKAGE / "organisms", _PACKAGE.parent / "examples" / "organisms")
"""In an installed wheel, and in a checkout."""
_SMALL_FILES: Final = 64_000_000
"""Bytes for everything but the base's weights: tokenizer, plots, answers, ..."""


@dataclass(frozen=True)
class RunInputs:
    """What a run works on, all of it read and checked."""

    base: Path
    source: BaseModelSource
    family: Family
    prompts: prompts.PromptSets
    suite: Suite
    own_suite: bool
    """Whether prompts and suite come from the model's own `suite.jsonl`."""
    quantization: str
    """What the base is loaded in: `none`, `own` or a name of `quantization.SCHEMES`."""


def resolve_model(model: str) -> str:
    """Directory of a bundled organism for `organism:NAME`; anything else as it is.

    Raises:
        ExportError: if there is no such organism.
    """
    if not model.startswith(_ORGANISM):
        return model
    known = {
        config.parent.name: config.parent
        for folder in reversed(_ORGANISM_FOLDERS)
        for config in folder.glob("*/config.json")
    }
    name = model.removeprefix(_ORGANISM)
    if name not in known:
        raise ExportError(f"there is no organism {name!r}; bundled: {', '.join(sorted(known))}")
    return str(known[name])


def prepare(settings: Settings) -> RunInputs:
    """Find the base model, its license and family, the prompts and the suite.

    Raises:
        ExportError: if one of them is missing, malformed or not supported.
    """
    from mars_export.hub import fetch_base

    model = resolve_model(settings.model)
    own = Path(model).expanduser() / SUITE_NAME
    bundled = own if own.is_file() else None
    sets = own_prompts(settings, [Path(model)])
    try:
        suite = _suite(settings, bundled)
    except OSError as error:
        raise ExportError(f"{error.filename} cannot be read: {error.strerror}; check it") from error
    base = fetch_base(model, settings.revision)
    config = read_config(base.path)
    family = family_for(config, allow_unknown=settings.allow_unknown_family)
    weight_map(base.path)
    quantization = scheme_for(config, settings.quantization)
    if not suite.evaluation_samples(family.modalities):
        raise ExportError(f"{suite.name} has no evaluation request for {family.name}; give --suite")
    uses_own = bundled is not None and not settings.suite and settings.harmful is None
    source = _source(base, family, config, settings)
    return RunInputs(base.path, source, family, sets, suite, uses_own, quantization)


def own_prompts(settings: PromptSettings, folders: Iterable[Path]) -> prompts.PromptSets:
    """The user's prompts, those of the first folder with a suite of its own, or the packaged ones.

    Raises:
        ExportError: if they are malformed, too few or not to be read.
    """
    bundled = (folder.expanduser() / SUITE_NAME for folder in folders)
    try:
        return _prompts(settings, next(filter(Path.is_file, bundled), None))
    except OSError as error:
        raise ExportError(f"{error.filename} cannot be read: {error.strerror}; check it") from error


def describe(job: RunInputs) -> str:
    """One line: the model, and what it is calibrated and evaluated on."""
    requests = job.suite.evaluation_samples(job.family.modalities)
    line = f"{job.source.name} ({job.family.name}), "
    if job.own_suite:
        return line + f"with its own prompts and {len(requests)} requests: {SUITE_NAME}"
    line += f"prompts {job.prompts.harmful.name} and {job.prompts.harmless.name}, "
    line += f"suite {job.suite.name} with {len(requests)} requests"
    # Not for records of one suite: they share templates and are split by topic.
    repeated = overlap(job.prompts.prompts, texts(requests)).near
    return line + (f", {repeated} of them nearly repeat a prompt" if repeated else "")


def check_space(base: Path, workspace: Path) -> None:
    """Check that the disk holds what will be written.

    Raises:
        ExportError: if it does not.
    """
    shards = {(base / name).resolve() for name in weight_map(base).values()}
    needed = _SMALL_FILES + sum(_bytes_to_copy(shards, workspace))
    free = shutil.disk_usage(workspace).free
    if free < needed:
        raise ExportError(
            f"{workspace.parent} has {free / 1e9:.2f} GB free and {needed / 1e9:.2f} GB are "
            "needed; free some space or choose an --output on another disk"
        )


def check_processor(base: Path, family: Family, thinking: bool | None = None) -> None:
    """Check that the base's tokenizer and processor load here, and take the thinking mode.

    Raises:
        ExportError: if a package is missing, a file is broken, or the chat template has no
            thinking switch to set.
    """
    from transformers import AutoProcessor

    try:
        thinking_options(AutoProcessor.from_pretrained(base), thinking)
    except ImportError as error:
        extra = f"[{family.extra}]" if family.extra else ""
        raise ExportError(
            f"the processor of {family.name} needs a package that is not installed; "
            f"run `pip install 'mars-export{extra}'`"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ExportError(
            f"the processor of {base} does not load: {reason}; download the base again"
        ) from error


def _prompts(settings: PromptSettings, own: Path | None) -> prompts.PromptSets:
    if settings.harmful is not None and settings.harmless is not None:
        return prompts.from_files(settings.harmful, settings.harmless, settings.seed)
    if own is not None:
        return prompts.from_suite(own, settings.seed)
    return prompts.packaged(settings.seed)


def _suite(settings: Settings, own: Path | None) -> Suite:
    return open_suites(settings.suite or ([str(own)] if own else []))


def _source(
    base: "BaseDirectory", family: Family, config: dict[str, Any], settings: Settings
) -> BaseModelSource:
    from mars_export.hub import license_of

    license = license_of(base.name, base.card, settings.license)
    named = config.get("architectures")
    architecture = named[0] if isinstance(named, list) and named else None
    return BaseModelSource(
        repo=base.repo,
        revision=base.revision,
        name=base.name,
        model_type=family.model_type,
        architecture=architecture if isinstance(architecture, str) else family.generator,
        license=license.id,
        license_name=license.name,
        license_link=license.link,
        pipeline_tag=base.card.pipeline_tag or family.pipeline_tag,
        languages=list(base.card.languages),
        gated=base.gated,
        private=base.private,
    )


def _bytes_to_copy(shards: Iterable[Path], workspace: Path) -> Iterable[int]:
    """Shards on the same file system are hard-linked and take no space."""
    device = workspace.stat().st_dev
    return (stat.st_size for stat in (path.stat() for path in shards) if stat.st_dev != device)
