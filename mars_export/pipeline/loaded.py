"""Whether steered checkpoints that a command loads at once fit, told before a weight is read."""

from pathlib import Path

from mars_export.checkpoint.derived import native_config
from mars_export.common.errors import ExportError
from mars_export.evaluation.arms import open_arms
from mars_export.evaluation.options import EvaluationOptions
from mars_export.families import families
from mars_export.families.loading import pick_device
from mars_export.families.memory import BatchSize, Memory, memory_of
from mars_export.families.placement import Placement
from mars_export.families.quantization import SCHEMES
from mars_export.families.room import DISK
from mars_export.pipeline.capacity import fitted, longest, spread_over
from mars_export.pipeline.splitting import check_processes, require_split

__all__ = ["check_loaded"]


def check_loaded(directory: Path, options: EvaluationOptions, *, gradients: bool = False) -> str:
    """Work out what a steered checkpoint and those of further arms take; no weight is read.

    Args:
        directory: Steered checkpoint.
        options: How it is run, and beside which arms.
        gradients: Whether gradients are taken, for which no layer may be brought from elsewhere.

    Returns:
        One line as `check_memory` gives it; empty where there is no placement.

    Raises:
        ExportError: The weights fit nowhere, or cannot be placed so.
    """
    where = pick_device(options.device)
    if isinstance(where, str):
        return ""
    check_processes(where)
    arms = open_arms(directory, options.arms)
    sources = {arm.directory: arm.manifest.calibration.source for arm in arms}
    family = families().get(sources[directory].model_type)
    if family is None:
        return ""
    models = []
    for path, source in sources.items():
        model = memory_of(
            path,
            family,
            dtype=options.dtype or ("auto" if source.quantization not in SCHEMES else source.dtype),
            quantization=source.quantization,
            stated=native_config(path),
        )
        if where.split:
            require_split(model, family, source.quantization)
        models.append(model)
    if gradients:
        _require_at_hand(models[0], where)
    tokens = longest(directory, sources[directory].modalities)
    batch = BatchSize(options.batch_size, tokens, options.max_new_tokens)
    told = "" if len(models) == 1 else f"; {len(models)} checkpoints at once"
    try:
        return fitted(models, batch, where) + told
    except ExportError as error:
        raise ExportError(f"{error}{told}") from error


def _require_at_hand(memory: Memory, where: Placement) -> None:
    """Refuse layers that lie elsewhere than on what computes: backward passes need them all."""
    shares = spread_over(memory, where.rooms())
    elsewhere = {DISK} | ({"cpu"} if next(iter(shares)) != "cpu" else set())
    if elsewhere & shares.keys():
        raise ExportError(
            "attacks take gradients, for which all layers have to be on GPUs (or all in memory); "
            "use more GPUs, or leave --device-map and --max-memory out on a machine with memory"
        )
