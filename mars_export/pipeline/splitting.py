"""Whether a model can lie as asked among the processes that were started; nothing is loaded."""

from mars_export.common.errors import ExportError
from mars_export.common.launch import process_count
from mars_export.families import Family
from mars_export.families.memory import Memory
from mars_export.families.placement import Device
from mars_export.families.quantization import NONE

__all__ = ["check_processes", "require_split", "split_problem"]


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
