"""What can be known to go wrong with a model and on this machine, before the long work begins."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

from mars_export.checkpoint.manifest import BaseModelSource
from mars_export.common.errors import ExportError
from mars_export.common.input_errors import InputError, input_errors, reason
from mars_export.common.installation import install_extra
from mars_export.common.vocabulary import Modality
from mars_export.evaluation.judges.base import Judge
from mars_export.families import Family
from mars_export.families.placement import input_device
from mars_export.families.weights import weight_map
from mars_export.inputs.requests import Request, collate
from mars_export.inputs.sounds import audio_problem
from mars_export.inputs.stimuli import STIMULI
from mars_export.inputs.template import thinking_options, turn_tokens, with_options
from mars_export.methods import method_named
from mars_export.pipeline.settings import Settings

__all__ = [
    "check_judge",
    "check_modules_cache",
    "check_processor",
    "check_push",
    "check_requests",
    "check_space",
    "plain_size",
    "require_layer",
    "try_model",
]

_SMALL_FILES: Final = 64_000_000
"""Bytes for everything but the base's weights: tokenizer, plots, answers, ..."""


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


def _bytes_to_copy(shards: Iterable[Path], workspace: Path) -> Iterable[int]:
    """Shards on the same file system are hard-linked and take no space."""
    device = workspace.stat().st_dev
    return (stat.st_size for stat in (path.stat() for path in shards) if stat.st_dev != device)


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
    name = method_named(settings.method).checkpoint_name(base.name)
    check_destination(base, named or name, settings.private or None)
