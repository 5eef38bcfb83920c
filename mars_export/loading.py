"""Loads a base model with its native class, for calibration."""

from pathlib import Path
from typing import Any

from mars_export.errors import MarsError
from mars_export.families import Family

__all__ = ["load_base", "pick_device"]


def pick_device(device: str) -> str:
    """Name of the torch device; `auto` takes a GPU when there is one.

    Raises:
        MarsError: if a GPU is asked for and torch sees none.
    """
    import torch

    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise MarsError("--device cuda: torch sees no GPU; install a CUDA build or use cpu")
    return ("cuda" if there else "cpu") if device == "auto" else device


def load_base(base: Path, family: Family, *, dtype: str, device: str) -> tuple[Any, Any]:
    """Load a base model and its processor.

    Args:
        base: Directory of the base model.
        family: Names the native class.
        dtype: Name of a torch dtype, or `auto` for the one the checkpoint is saved in.
        device: Torch device that holds the whole model.

    Returns:
        The model, in evaluation mode, and the processor.

    Raises:
        MarsError: if weights are missing or do not fit: Transformers would make them up.
    """
    import transformers

    native = getattr(transformers, family.generator)
    model, info = native.from_pretrained(base, dtype=dtype, output_loading_info=True)
    wrong = sorted(map(str, (*info["missing_keys"], *info["mismatched_keys"])))
    if wrong:
        raise MarsError(
            f"{base} does not hold the whole model: {len(wrong)} tensors are missing or have "
            f"another shape, for example {wrong[0]}; download it again"
        )
    return model.to(device).eval(), transformers.AutoProcessor.from_pretrained(base)
