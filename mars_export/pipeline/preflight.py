"""What a run works on: found, read and checked before the long work begins."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mars_export.checkpoint.manifest import BaseModelSource
from mars_export.common.errors import ExportError
from mars_export.common.paths import is_file, named
from mars_export.evaluation.overlap import overlap, texts
from mars_export.evaluation.suite import SUITE_NAME, Suite
from mars_export.evaluation.suites.catalog import DEFAULT, open_suites
from mars_export.families import Family, names_code
from mars_export.families.directory import companions, read_config, read_json
from mars_export.families.inspection import family_for
from mars_export.families.quantization import scheme_for
from mars_export.families.weights import weight_map
from mars_export.inputs import prompts
from mars_export.inputs.samples import read_suite_texts
from mars_export.inputs.tuning import TuningSet
from mars_export.methods import method_for, method_named, taken
from mars_export.pipeline.organisms import ORGANISM, resolve_model
from mars_export.pipeline.settings import PromptSettings, Settings
from mars_export.pipeline.tuning import tuning_set

if TYPE_CHECKING:
    from mars_export.hub import BaseDirectory

__all__ = [
    "RunInputs",
    "brings_prompts",
    "describe",
    "own_prompts",
    "prepare",
]

_HUB: Final = "https://huggingface.co"
_TABLES: Final = frozenset({"tokenizer.json", "vocab.json"})
"""Large files, which the tokenizer is made of."""


@dataclass(frozen=True)
class RunInputs:
    """What a run works on, all of it read and checked."""

    base: Path
    source: BaseModelSource
    family: Family
    prompts: prompts.PromptSets
    suite: Suite
    suite_words: tuple[str, ...]
    """What names the suite, as for `open_suites`."""
    own_suite: bool
    """Whether prompts and suite come from the model's own `suite.jsonl`."""
    calibration: Path | None
    """A calibration to keep; None to make one."""
    tuning: TuningSet | None
    """What the calibration is tuned on beside that; None for nothing."""
    tuning_word: str | None
    """What names its suite."""
    quantization: str
    """What the base is loaded in: `none`, `own` or a name of `quantization.SCHEMES`."""

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which opens the suite anew: its media are read when asked for."""
        return {**self.__dict__, "suite": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """See `__getstate__`."""
        self.__dict__.update(state, suite=open_suites(state["suite_words"]))


def prepare(settings: Settings, sets: prompts.PromptSets | None = None) -> RunInputs:
    """Find the base model, its license and family, the prompts and the suite.

    Args:
        settings: The user's.
        sets: Prompts to calibrate on; None for those of `own_prompts`.

    Raises:
        ExportError: if one of them is missing, malformed or not supported.
    """
    from mars_export.hub import fetch_base

    model = resolve_model(settings.model)
    own = named(model) / SUITE_NAME
    words = settings.suite or ((str(own),) if is_file(own) else ())
    further = [suite for part in method_named(settings.method).parts for suite in part.suites]
    if further:
        words = (*(words or (DEFAULT,)), *(suite for suite in further if suite not in words))
    brings = sets is None and settings.harmful is None and _brings_prompts(own)
    sets = sets or own_prompts(settings, [Path(model)])
    try:
        suite = open_suites(words)
    except OSError as error:
        raise ExportError(f"{error.filename} cannot be read: {error.strerror}; check it") from error
    base = fetch_base(model, settings.revision)
    config = read_config(base.path)
    family = family_for(config, allow_unknown=settings.allow_unknown_family)
    method = method_for(settings.method, family.modalities, family.name)
    family = family.model_copy(update={"modalities": taken(method, family.modalities)})
    weight_map(base.path)
    _check_objects(base.path)
    quantization = scheme_for(config, settings.quantization)
    suite.required_samples(family.modalities)
    word = settings.tunes
    tuning = tuning_set(word, family.modalities, settings.seed, suite) if word else None
    uses_own = not settings.suite and brings
    source = _source(base, family, config, settings)
    return RunInputs(
        base.path, source, family, sets, suite, words, uses_own, None, tuning, word, quantization
    )


def own_prompts(settings: PromptSettings, folders: Iterable[Path]) -> prompts.PromptSets:
    """The user's prompts, those of the first folder whose suite brings some, or the packaged ones.

    Raises:
        ExportError: if they are malformed, too few or not to be read.
    """
    bundled = (named(folder) / SUITE_NAME for folder in folders)
    try:
        return _prompts(settings, bundled)
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
    if job.tuning is not None:
        line += f", tuned on {job.tuning.name}"
    # Not for records of one suite: they share templates and are split by topic.
    repeated = overlap(job.prompts.prompts, texts(requests)).near
    return line + (f", {repeated} of them nearly repeat a prompt" if repeated else "")


def _check_objects(base: Path) -> None:
    """Check the small JSON files that are copied, of which loading skips some that are broken."""
    for path in companions(base):
        if path.suffix != ".json" or path.name in _TABLES:
            continue
        content = read_json(path)
        if not isinstance(content, dict):
            raise ExportError(f"{path} holds no JSON object; download it again")
        if names_code(content):
            raise ExportError(f"{path} names code of its own (auto_map): give a model without")


def _prompts(settings: PromptSettings, suites: Iterable[Path]) -> prompts.PromptSets:
    if settings.harmful is not None and settings.harmless is not None:
        return prompts.from_files(settings.harmful, settings.harmless, settings.seed)
    own = next(filter(_brings_prompts, suites), None)
    return prompts.from_suite(own, settings.seed) if own else prompts.packaged(settings.seed)


def brings_prompts(directory: Path) -> bool:
    """Whether a directory has a suite with text requests to calibrate on."""
    return _brings_prompts(directory / SUITE_NAME)


def _brings_prompts(suite: Path) -> bool:
    return is_file(suite) and any(read_suite_texts(suite, "calibration").values())


def _source(
    base: "BaseDirectory", family: Family, config: dict[str, Any], settings: Settings
) -> BaseModelSource:
    from mars_export.hub import license_of, with_terms

    origin = f"{_HUB}/{base.repo}/blob/{base.revision}" if base.repo else None
    license = with_terms(license_of(base.name, base.card, settings.license), base.path, origin)
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
        notes=list(base.card.notes),
        gated=base.gated,
        private=base.private,
        bundled=settings.model.startswith(ORGANISM),
    )
