"""Whether a model and its batches fit, told before a weight is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from mars_export.common.errors import ExportError
from mars_export.common.launch import local_process_count, process_count
from mars_export.common.vocabulary import Modality
from mars_export.families.directory import read_config
from mars_export.families.loading import pick_device
from mars_export.families.memory import BatchSize, Memory, memory_of
from mars_export.families.placement import Device, Placement, device_name
from mars_export.families.room import DISK, UNKNOWN, room_on
from mars_export.inputs.limits import context_of
from mars_export.pipeline.checks import plain_size
from mars_export.pipeline.preflight import RunInputs
from mars_export.pipeline.settings import Settings
from mars_export.pipeline.splitting import require_split

__all__ = ["check_memory", "fitted", "in_bytes", "longest", "spread_over"]

_STIMULI: Final = 4
"""Of the longest requests of a calibration, which show several pictures or larger ones."""
_WORDS: Final = 256
"""Tokens of a long prompt, with earlier turns or a system prompt."""


def check_memory(job: RunInputs, settings: Settings, processor: Any) -> str:
    """Work out what a run takes; no weight is read.

    Args:
        job: The base and its family.
        settings: How it is run.
        processor: Of the base.

    Returns:
        One line: what the weights and a batch take, and where they go.

    Raises:
        ExportError: if the weights fit nowhere, with what would make them fit.
    """

    def memory(dtype: str = settings.dtype, scheme: str = job.quantization) -> Memory:
        return memory_of(job.base, job.family, dtype=dtype, quantization=scheme)

    where, planned = pick_device(settings.where), memory()
    if isinstance(where, Placement):
        if where.split:
            require_split(planned, job.family, job.quantization)
        else:
            where.rooms()  # a GPU that is not there is no matter of size
    tokens = longest(job.base, job.family.modalities, processor)
    batch = BatchSize(settings.batch_size, tokens, settings.max_new_tokens)
    try:
        return fitted([planned], batch, where)
    except ExportError as error:
        remedies = "; ".join([str(error), *_remedies(planned, memory, where)])
        raise ExportError(f"{job.source.name} does not fit: {remedies}") from error


def fitted(models: Sequence[Memory], batch: BatchSize, where: Device) -> str:
    """One line on models that are held at once and a batch of one of them, on this machine.

    Args:
        models: One, or several of the same base.
        batch: Of requests.
        where: What each of them is loaded onto.

    Raises:
        ExportError: if the weights do not fit.
    """
    memory, total = models[0], sum(model.weights.total for model in models)
    if isinstance(where, Placement) and not where.split:
        placed, left = _spread(models, where)
    else:
        placed, left = _held(models, where)
    told = f"memory: {in_bytes(total)} of weights ({_kinds(models)}), about "
    told += f"{in_bytes(memory.batch(batch))} for {batch.rows} requests of {batch.tokens} tokens; "
    told += placed
    rows = memory.rows(batch, left)
    if rows < batch.rows:
        several = f"about {rows} requests fit at once, so batches may be made smaller"
        told += f"; {several if rows else 'beside them the longest request alone may not fit'}"
    return told


def _spread(models: Sequence[Memory], where: Placement) -> tuple[str, int]:
    """Where a device map puts weights, and the bytes left on the device that runs the batches."""
    rooms, shares = where.shared_by(len(models)).rooms(), Counter[str]()
    for model in models:
        shares.update(spread_over(model, rooms))
    first = next(iter(rooms))
    left = (room_on("cpu") if first == "cpu" else where.rooms()[first]) - shares[first]
    return "weights on " + ", ".join(f"{n}: {in_bytes(size)}" for n, size in shares.items()), left


def _held(models: Sequence[Memory], where: Device) -> tuple[str, int]:
    """What the device of this process holds, whole models or its part, and the bytes left there."""
    device, parts = device_name(where), 1 if isinstance(where, str) else process_count()
    room, size = room_on(device), sum(model.weights.part(parts) for model in models)
    processes = local_process_count() if device == "cpu" else 1
    free = room // processes
    share = " for each process" if processes > 1 else ""
    each = f" on each of {parts} devices" if parts > 1 else ""
    has = f"{device} has {in_bytes(free)} free{share}"
    if size > free:
        raise ExportError(
            f"its weights take {in_bytes(size)} in {models[0].dtype}{each}, and {has}"
        )
    told = f"{in_bytes(size)}{each}; " if parts > 1 else ""
    return told + (has if room < UNKNOWN else "nothing says what is free"), free - size


def spread_over(memory: Memory, rooms: Mapping[str, int]) -> dict[str, int]:
    """About how many bytes of weights a device map puts where, with the disk for the rest.

    Args:
        memory: Of the model.
        rooms: Bytes that each device may hold, in order; the first one runs what is offloaded.

    Raises:
        ExportError: if that device cannot hold the largest layer.
    """
    first, most = next(iter(rooms)), memory.weights.largest
    if rooms[first] < most:
        raise ExportError(
            f"its largest layer takes {in_bytes(most)} in {memory.dtype}, and {first} has "
            f"{in_bytes(rooms[first])} for it"
        )
    rest, shares = memory.weights.total, {}
    for device, room in rooms.items():
        kept = most if device == first and rest > room else 0  # for a layer from elsewhere
        shares[device] = min(rest, room - kept)
        rest -= shares[device]
    shares[DISK] = rest
    return {device: size for device, size in shares.items() if size}


def _kinds(models: Sequence[Memory]) -> str:
    """The dtypes of most weights."""
    sizes = Counter[str]()
    for model in models:
        sizes.update(model.weights.by_dtype)
    return ", ".join(kind for kind, size in sizes.items() if size * 20 > sizes.total())


def in_bytes(size: float) -> str:
    """A size as people read it, in decimal units."""
    for unit, power in (("TB", 12), ("GB", 9), ("MB", 6)):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return f"{size / 1000:.1f} kB"


def longest(base: Path, modalities: Sequence[Modality], processor: Any = None) -> int:
    """Tokens of the longest requests of a calibration.

    Args:
        base: Directory of the model, or of its steered checkpoint.
        modalities: What it takes.
        processor: Of it; None to load it.
    """
    if processor is None:
        from mars_export.evaluation.generation import load_processor

        processor = load_processor(base)
    plain = max(plain_size(processor, modality) for modality in modalities)
    return min(_STIMULI * plain + _WORDS, context_of(read_config(base)))


def _remedies(planned: Memory, memory: Callable[..., Memory], where: Device) -> Iterator[str]:
    """What to do, with what each would take; `memory` gives that of a dtype and a scheme."""
    if isinstance(where, str):
        yield "use --device-map auto, which puts layers on all GPUs, in memory and on the disk"
    if planned.dtype == "float32":
        yield f"or --dtype bfloat16 ({in_bytes(memory('bfloat16').weights.total)})"
    if planned.weights.by_dtype.keys() <= {"float32", "bfloat16", "float16"}:
        small = memory(scheme="bnb-4bit").weights.total
        yield f"or --quantization bnb-4bit (about {in_bytes(small)})"
    yield "or a larger device"
