"""Whether a model and its batches fit, told before a weight is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mars_export.common.errors import ExportError
from mars_export.common.launch import local_process_count, process_count
from mars_export.common.vocabulary import Modality
from mars_export.families.memory import Batch, Memory, memory_of
from mars_export.families.placement import Device, Placement
from mars_export.families.quantization import NONE
from mars_export.families.room import DISK, free_bytes, room_on

if TYPE_CHECKING:
    from mars_export.families import Family
    from mars_export.pipeline.preflight import RunInputs
    from mars_export.pipeline.settings import Settings

__all__ = [
    "check_memory",
    "check_processes",
    "fitted",
    "in_bytes",
    "longest",
    "require_split",
    "rooms_of",
    "split_problem",
    "spread_over",
]

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
    from mars_export.families.loading import pick_device

    def memory(dtype: str = settings.dtype, scheme: str = job.quantization) -> Memory:
        return memory_of(job.base, job.family, dtype=dtype, quantization=scheme)

    where = pick_device(settings.where)
    if isinstance(where, Placement) and where.split:
        require_split(memory(), job.family, job.quantization)
    tokens = longest(job.base, job.family.modalities, processor)
    batch = Batch(settings.batch_size, tokens, settings.max_new_tokens)
    try:
        return fitted(memory(), batch, where)
    except ExportError as error:
        remedies = "; ".join([str(error), *_remedies(memory, where)])
        raise ExportError(f"{job.source.name} does not fit: {remedies}") from error


def check_processes(where: Device) -> None:
    """Refuse a placement that does not go with the number of processes; nothing is loaded.

    Raises:
        ExportError: with what to do instead.
    """
    if isinstance(where, str):
        return
    count = process_count()
    if where.split and count == 1:
        raise ExportError(
            "--tensor-parallel splits a model among processes, and this is only one; start them "
            "with `torchrun --nproc-per-node N -m mars_export ...`"
        )
    if not where.split and count > 1:
        raise ExportError(
            f"--device-map gives one process all devices, and there are {count}; use "
            "--tensor-parallel, or start one process"
        )


def require_split(memory: Memory, family: Family, quantization: str) -> None:
    """Refuse to split a model that cannot be; no weight is read.

    Raises:
        ExportError: Transformers has no plan for it, its heads cannot be dealt out evenly, or it is
            quantized.
    """
    problem = split_problem(memory, process_count())
    if quantization != NONE:
        problem = "a quantized model is not split"
    if problem:
        raise ExportError(f"--tensor-parallel: {family.name}: {problem}; use --device-map auto")


def split_problem(memory: Memory, count: int) -> str:
    """Why so many processes cannot hold a part of every layer each; empty if they can."""
    text = memory.config.get_text_config()
    heads = text.num_attention_heads
    keys = getattr(text, "num_key_value_heads", None) or heads
    if not memory.weights.divided:
        return "Transformers has no tensor parallel plan for its layers"
    if heads % count or keys % count:
        return f"{heads} heads, of which {keys} have keys, cannot be split {count} ways"
    return ""


def fitted(memory: Memory, batch: Batch, where: Device) -> str:
    """One line on a model and a batch, on the devices of this machine.

    Raises:
        ExportError: if the weights do not fit.
    """
    told = f"memory: {in_bytes(memory.weights.total)} of weights ({_kinds(memory)}), "
    told += f"about {in_bytes(memory.batch(batch))} for {batch.rows} requests of {batch.tokens} "
    told += "tokens; "
    if isinstance(where, Placement) and not where.split:
        rooms = rooms_of(where)
        shares = spread_over(memory, rooms)
        first = next(iter(rooms))
        left = (room_on("cpu") if first == "cpu" else rooms[first]) - shares.get(first, 0)
        told += "weights on " + ", ".join(f"{n}: {in_bytes(size)}" for n, size in shares.items())
    else:
        first, parts = (where, 1) if isinstance(where, str) else (where.device, process_count())
        free, whole = room_on(first), memory.weights.part(parts)
        if first == "cpu":
            free //= local_process_count()
        share = " for each process" if first == "cpu" and local_process_count() > 1 else ""
        each = f" on each of {parts} devices" if parts > 1 else ""
        if whole > free:
            raise ExportError(
                f"its weights take {in_bytes(whole)} in {memory.dtype}{each}, and {first} has "
                f"{in_bytes(free)} free{share}"
            )
        left = free - whole
        told += f"{in_bytes(whole)}{each}; " if parts > 1 else ""
        told += f"{first} has {in_bytes(free)} free{share}"
    rows = memory.rows(batch, left)
    if rows < batch.rows:
        several = f"about {rows} requests fit at once, so batches may be made smaller"
        told += f"; {several if rows else 'beside them the longest request alone may not fit'}"
    return told


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


def _kinds(memory: Memory) -> str:
    """The dtypes of most weights."""
    weights = memory.weights
    return ", ".join(kind for kind, size in weights.by_dtype.items() if size * 20 > weights.total)


def in_bytes(size: float) -> str:
    """A size as people read it, in decimal units."""
    for unit, power in (("TB", 12), ("GB", 9), ("MB", 6)):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return f"{size / 1000:.1f} kB"


def rooms_of(where: Placement) -> dict[str, int]:
    """Bytes by device that a device map may fill, in order."""
    if where.device == "cpu" and where.max_memory is None:
        return {"cpu": room_on("cpu")}
    return free_bytes(where.max_memory)


def longest(base: Path, modalities: Sequence[Modality], processor: Any = None) -> int:
    """Tokens of the longest requests of a calibration.

    Args:
        base: Directory of the model, or of its steered checkpoint.
        modalities: What it takes.
        processor: Of it; None to load it.
    """
    from mars_export.families.directory import read_config
    from mars_export.inputs.limits import context_of
    from mars_export.pipeline.preflight import plain_size

    if processor is None:
        from mars_export.evaluation.generation import load_processor

        processor = load_processor(base)
    plain = max(plain_size(processor, modality) for modality in modalities)
    return min(_STIMULI * plain + _WORDS, context_of(read_config(base)))


def _remedies(memory: Any, where: Device) -> Iterator[str]:
    """What to do, with what each would take; `memory` gives that of a dtype and a scheme."""
    if isinstance(where, str):
        yield "use --device-map auto, which puts layers on all GPUs, in memory and on the disk"
    if memory().dtype == "float32":
        yield f"or --dtype bfloat16 ({in_bytes(memory('bfloat16').weights.total)})"
    if memory().weights.by_dtype.keys() <= {"float32", "bfloat16", "float16"}:
        small = memory(scheme="bnb-4bit").weights.total
        yield f"or --quantization bnb-4bit (about {in_bytes(small)})"
    yield "or a larger device"
