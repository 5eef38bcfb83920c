"""Everything that can be known to go wrong, looked at before the long work begins."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Final

from mars_export.checkpoint.manifest import BaseModelSource
from mars_export.common.errors import ExportError
from mars_export.common.input_errors import InputError, input_errors, reason
from mars_export.common.installation import install_extra
from mars_export.common.paths import exists, is_file, named
from mars_export.common.problems import near
from mars_export.common.vocabulary import Modality
from mars_export.evaluation.judges.base import Judge
from mars_export.evaluation.overlap import overlap, texts
from mars_export.evaluation.suite import SUITE_NAME, Suite
from mars_export.evaluation.suites.catalog import DEFAULT, open_suites
from mars_export.families import Family, names_code
from mars_export.families.directory import companions, read_config, read_json
from mars_export.families.inspection import family_for
from mars_export.families.placement import input_device
from mars_export.families.quantization import scheme_for
from mars_export.families.weights import weight_map
from mars_export.inputs import prompts
from mars_export.inputs.requests import Request, collate
from mars_export.inputs.samples import read_suite_texts
from mars_export.inputs.sounds import audio_problem
from mars_export.inputs.stimuli import STIMULI
from mars_export.inputs.template import thinking_options, turn_tokens, with_options
from mars_export.inputs.tuning import TuningSet
from mars_export.methods import method_for, method_named, taken
from mars_export.pipeline.settings import PromptSettings, Settings
from mars_export.pipeline.tuning import tuning_set

if TYPE_CHECKING:
    from mars_export.hub import BaseDirectory

__all__ = [
    "RunInputs",
    "brings_prompts",
    "check_judge",
    "check_modules_cache",
    "check_processor",
    "check_push",
    "check_requests",
    "check_space",
    "describe",
    "organisms",
    "own_prompts",
    "plain_size",
    "prepare",
    "require_layer",
    "resolve_model",
    "try_model",
]

_HUB: Final = "https://huggingface.co"
_ORGANISM: Final = "organism:"
_PACKAGE: Final = Path(__file__).parents[1]
_ELSEWHERE: Final = ("qwen2_5_omni", "qwen3_vl")
"""Organisms of the repository that the wheel leaves out."""
_REPOSITORY: Final = "https://github.com/mars-export/mars-export"
_ORGANISM_FOLDERS: Final = (_PACKAGE / "organisms", _PACKAGE.parent / "examples" / "organisms")
"""In an installed wheel, and in a checkout."""
_SMALL_FILES: Final = 64_000_000
"""Bytes for everything but the base's weights: tokenizer, plots, answers, ..."""


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


def organisms() -> list[str]:
    """What `--model` takes for the bundled toy models."""
    return sorted(_ORGANISM + name for name in _bundled())


def _bundled() -> dict[str, Path]:
    return {
        config.parent.name: config.parent
        for folder in reversed(_ORGANISM_FOLDERS)
        for config in folder.glob("*/config.json")
    }


def resolve_model(model: str) -> str:
    """Directory of a bundled organism for `organism:NAME`; anything else as it is.

    Raises:
        ExportError: if there is no such organism.
    """
    known = _bundled()
    if not model.startswith(_ORGANISM):
        if model in known and not exists(Path(model)):
            raise ExportError(f"there is no directory {model}; is it {_ORGANISM}{model}?")
        return model
    name = model.removeprefix(_ORGANISM)
    if name not in known:
        if name in _ELSEWHERE:
            raise ExportError(
                f"organism {name!r} is not part of the installed package, which holds "
                f"{', '.join(sorted(known))}; clone {_REPOSITORY} and give --model "
                f"examples/organisms/{name}"
            )
        hint = near(name, known) or f"; bundled: {', '.join(sorted(known))}"
        raise ExportError(f"there is no organism {name!r}{hint}")
    return str(known[name])


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


def check_processor(base: Path, family: Family, thinking: bool | None = None) -> Any:
    """The base's tokenizer or processor, which loads here and takes the thinking mode.

    Raises:
        ExportError: if a package is missing, a file is broken, or the chat template has no
            thinking switch to set.
    """
    from transformers import AutoProcessor

    if "audio" in family.modalities and (missing := audio_problem()):
        raise ExportError(f"{family.name} takes {missing}")
    try:
        with input_errors(f"the processor of {base} does not load"):
            processor = AutoProcessor.from_pretrained(base)
            options = thinking_options(processor, thinking)
    except InputError as error:
        if not isinstance(error.__cause__, ImportError):
            raise
        raise ExportError(
            f"the processor of {family.name} needs a package that is not installed; "
            f"run `{install_extra(family.extras)}`"
        ) from error
    return with_options(processor, options)


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


def check_requests(processor: Any, base: Path, family: Family) -> None:
    """Check that a request of each modality becomes inputs of the model.

    Raises:
        ExportError: if the chat template is absent, does not render, has no beginning of an answer,
            or a request with a picture or a clip is not taken.
    """
    try:
        with input_errors("its tokenizer and its chat template do not fit each other"):
            turn_tokens(processor)
    except InputError as error:
        raise InputError(f"{base}: {error}") from error.__cause__
    except ExportError as error:
        raise ExportError(f"{base}: {error}") from error
    for modality in family.modalities:
        try:
            collate(processor, [_plain(modality)])
        except InputError as error:
            said = reason(error.__cause__ or error)
            raise InputError(
                f"the processor of {base} takes no request with {modality}: {said}; correct its "
                "chat template or its files, or download it again"
            ) from error.__cause__


def try_model(model: Any, processor: Any, base: Path, family: Family) -> None:
    """Check that the model takes a request of each modality, before anything is measured.

    Args:
        model: As it was loaded.
        processor: Its processor or tokenizer.
        base: Directory of both, for the message.
        family: Names the modalities.

    Raises:
        ExportError: if it does not, as where config.json and the processor disagree about tokens.
    """
    import torch

    for modality in family.modalities:
        inputs = collate(processor, [_plain(modality)]).to(input_device(model), model.dtype)
        what = f"{base}: the model takes no request with {modality} as its processor makes it"
        advice = "correct config.json or the files of the processor"
        with input_errors(what, advice), torch.inference_mode():
            model(**inputs, use_cache=False, logits_to_keep=1)


def plain_size(processor: Any, modality: Modality) -> int:
    """Tokens of a short question, beside something neutral to look at."""
    return int(collate(processor, [_plain(modality)])["input_ids"].shape[1])


def _plain(modality: Modality) -> Request:
    """A question, with something neutral to look at."""
    media = (STIMULI[modality].draw(0, 0),) if modality in STIMULI else ()
    return Request("What is this?", media)


def require_layer(layer: int | None, layers: int) -> None:
    """Refuse a layer to steer that the model has not; None is any.

    Raises:
        ExportError: if there is no such layer.
    """
    if layer is not None and layer >= layers:
        raise ExportError(f"--layer {layer}: the model has the layers 0 to {layers - 1}")


def check_modules_cache() -> None:
    """Check that Transformers can put the code of a steered checkpoint where it imports it from.

    Raises:
        ExportError: if its folder cannot be made or written.
    """
    from transformers.utils import HF_MODULES_CACHE

    try:
        Path(HF_MODULES_CACHE).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=HF_MODULES_CACHE):
            pass
    except OSError as error:
        raise ExportError(
            f"{HF_MODULES_CACHE}, from where Transformers imports the code of a checkpoint, cannot "
            f"be written: {error.strerror}; set HF_MODULES_CACHE to another folder"
        ) from error


def check_judge(judge: Judge) -> None:
    """Check that the judge of the answers is there.

    Raises:
        ExportError: if its model cannot be found, or its endpoint does not answer or refuses.
    """
    _ = judge.name
    judge.check()


def check_push(settings: Settings, base: BaseModelSource) -> None:
    """Check that what will be made may be published where it is to be.

    Raises:
        ExportError: if nobody is logged in, the token or the user may not write there, or the
            repository there is more open than the base, or holds something else.
    """
    from mars_export.hub import check_destination

    named = settings.push if isinstance(settings.push, str) else None
    name = method_named(settings.method).checkpoint_name(base.name.rstrip("/").split("/")[-1])
    check_destination(base, named or name, settings.private or None)


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
        bundled=settings.model.startswith(_ORGANISM),
    )


def _bytes_to_copy(shards: Iterable[Path], workspace: Path) -> Iterable[int]:
    """Shards on the same file system are hard-linked and take no space."""
    device = workspace.stat().st_dev
    return (stat.st_size for stat in (path.stat() for path in shards) if stat.st_dev != device)
