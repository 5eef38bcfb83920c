"""Loads a base model with its native class, and says what its memory allows."""

import gc
from pathlib import Path
from typing import Any

from mars_export.common.errors import ExportError
from mars_export.families import Family
from mars_export.families.directory import read_config
from mars_export.families.quantization import NONE, loading_options, refuse_unfit_layers

__all__ = ["free_memory", "is_out_of_memory", "load_base", "pick_device"]


def pick_device(device: str) -> str:
    """Name of the torch device; `auto` takes a GPU when there is one.

    Raises:
        ExportError: if a GPU is asked for and torch sees none.
    """
    import torch

    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise ExportError("--device cuda: torch sees no GPU; install a CUDA build or use cpu")
    return ("cuda" if there else "cpu") if device == "auto" else device


def load_base(
    base: Path, family: Family, *, dtype: str, device: str, quantization: str = NONE
) -> tuple[Any, Any]:
    """Load a base model and its processor.

    Args:
        base: Directory of the base model.
        family: Names the native class.
        dtype: Name of a torch dtype, or `auto` for the one the checkpoint is saved in.
        device: Torch device that holds the whole model.
        quantization: `none`, `own` or a name of `quantization.SCHEMES`.

    Returns:
        The model, in evaluation mode, and the processor.

    Raises:
        ExportError: if weights are missing or do not fit: Transformers would make them up; or if
            the kernels of a quantized model are missing.
    """
    import transformers

    native = getattr(transformers, family.generator)
    options = loading_options(read_config(base), quantization, dtype=dtype, device=device)
    try:
        model, info = native.from_pretrained(base, **options, output_loading_info=True)
    except ImportError as error:
        raise ExportError(f"{base} does not load: {str(error).strip().splitlines()[0]}") from error
    refuse_unfit_layers(model)
    wrong = sorted(map(str, (*info["missing_keys"], *info["mismatched_keys"])))
    if wrong:
        raise ExportError(
            f"{base} does not hold the whole model: {len(wrong)} tensors are missing or have "
            f"another shape, for example {wrong[0]}; download it again"
        )
    model = model if "device_map" in options else model.to(device)
    return model.eval(), transformers.AutoProcessor.from_pretrained(base)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a batch was too large for the memory of its device."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def free_memory() -> None:
    """Give the memory of a batch that failed back to the device, before the next is run."""
    import torch

    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
