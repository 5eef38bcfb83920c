"""Whether steered checkpoints that a command loads at once fit, told before a weight is read."""

from dataclasses import replace
from pathlib import Path

from mars_export.checkpoint.derived import native_config
from mars_export.checkpoint.manifest import Manifest
from mars_export.common.errors import ExportError
from mars_export.evaluation.arms import open_arms
from mars_export.evaluation.options import EvaluationOptions
from mars_export.families import families
from mars_export.families.memory import Batch, Memory, Weights, memory_of
from mars_export.families.placement import Placement
from mars_export.families.quantization import SCHEMES
from mars_export.families.room import DISK
from mars_export.pipeline.capacity import (
    check_processes,
    fitted,
    longest,
    require_split,
    rooms_of,
    spread_over,
)

__all__ = ["check_loaded", "divided"]


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
    from mars_export.families.loading import pick_device

    if options.placement is None:
        return ""
    where = pick_device(options.placement)
    check_processes(where)
    count = len({arm.directory for arm in open_arms(directory, options.arms)})
    source = Manifest.read(directory).calibration.source
    if (family := families().get(source.model_type)) is None:
        return ""
    memory = memory_of(
        directory,
        family,
        dtype=options.dtype or ("auto" if source.quantization not in SCHEMES else source.dtype),
        quantization=source.quantization,
        stated=native_config(directory),
    )
    if where.split:
        require_split(memory, family, source.quantization)
    memory = _several(memory, count)
    if gradients:
        _require_at_hand(memory, where)
    tokens = longest(directory, source.modalities)
    batch = Batch(options.batch_size, tokens, options.max_new_tokens)
    told = fitted(memory, batch, where)
    return told if count == 1 else f"{told}; {count} checkpoints at once"


def divided(placement: Placement | None, count: int) -> Placement | None:
    """A placement of each of several checkpoints: `max_memory` is that of all of them."""
    if placement is None or placement.max_memory is None:
        return placement
    most = {device: size // count for device, size in placement.max_memory.items()}
    return placement.model_copy(update={"max_memory": most})


def _several(memory: Memory, count: int) -> Memory:
    weights = memory.weights
    sizes = {kind: size * count for kind, size in weights.by_dtype.items()}
    most, split = weights.total * count, weights.divided * count
    return replace(memory, weights=Weights(most, sizes, weights.largest, split))


def _require_at_hand(memory: Memory, where: Placement) -> None:
    """Refuse layers that lie elsewhere than on what computes: backward passes need them all."""
    shares = spread_over(memory, rooms_of(where))
    elsewhere = {DISK} | ({"cpu"} if next(iter(shares)) != "cpu" else set())
    if elsewhere & shares.keys():
        raise ExportError(
            "attacks take gradients, for which all layers have to be on GPUs (or all in memory); "
            "use more GPUs, or leave --device-map and --max-memory out on a machine with memory"
        )
