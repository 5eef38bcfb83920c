"""Loads a base model with its native class, and says what its memory allows."""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, overload

from mars_export.common.errors import ExportError
from mars_export.common.input_errors import input_errors, is_out_of_memory, one_line, origin
from mars_export.common.installation import install_extra
from mars_export.families import Family, decoder_layers
from mars_export.families.directory import read_config
from mars_export.families.placement import Device, Placement, offloading, whole_tensors
from mars_export.families.quantization import NONE, loading_options, own_method, refuse_unfit_layers

__all__ = [
    "check_config",
    "check_shapes",
    "free_memory",
    "load_base",
    "native_class",
    "pick_device",
    "settled",
]

_COUNTS: Final = ("layers", "depth", "experts", "num_labels")
"""Endings of the keys of a config.json that say how many parts are made."""
_MOST_PARTS: Final = 10_000


@overload
def pick_device(device: str) -> str: ...
@overload
def pick_device(device: Placement) -> Placement: ...
@overload
def pick_device(device: Device) -> Device: ...
def pick_device(device: Device) -> Device:
    """The torch device, decided; `auto` takes a GPU of CUDA or ROCm when there is one.

    Args:
        device: Its name, or a placement, whose device is decided.

    Raises:
        ExportError: if a GPU is asked for and torch sees none.
    """
    import torch

    if isinstance(device, Placement):
        return device.model_copy(update={"device": pick_device(device.device)})

    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise ExportError("--device cuda: torch sees no GPU; install a CUDA build or use cpu")
    if device == "mps" and not torch.backends.mps.is_available():
        raise ExportError("--device mps: torch sees no GPU of Apple here; use cpu")
    return ("cuda" if there else "cpu") if device == "auto" else device


def load_base(
    base: Path, family: Family, *, dtype: str, device: Device, quantization: str = NONE
) -> tuple[Any, Any]:
    """Load a base model and its processor.

    Args:
        base: Directory of the base model.
        family: Names the native class.
        dtype: Name of a torch dtype, or `auto` for the one the checkpoint is saved in.
        device: Torch device that holds the whole model, or another placement.
        quantization: `none`, `own` or a name of `quantization.SCHEMES`.

    Returns:
        The model, in evaluation mode, and the processor.

    Raises:
        ExportError: if weights are missing or do not fit: Transformers would make them up; or if
            the kernels of a quantized model are missing.
    """
    import transformers

    native = native_class(family)
    options = loading_options(read_config(base), quantization, dtype=dtype, device=device)
    with input_errors(f"{base} does not load"), _enough_memory(base):
        with offloading(device) as (placed, keep):
            options |= {**placed, "ignore_mismatched_sizes": True, "output_loading_info": True}
            model, info = native.from_pretrained(base, **options)
            keep(model)
        refuse_unfit_layers(model)
        require_whole(base, info)
        _require_finite(base, model)
        model = settled(model, options, device)
    with input_errors(f"the processor of {base} does not load"):
        return model.eval(), transformers.AutoProcessor.from_pretrained(base)


def settled(model: Any, options: Mapping[str, Any], device: Device) -> Any:
    """A model on its device, where loading it has not put it there.

    Args:
        model: Of `from_pretrained`.
        options: Its arguments.
        device: Of `loading_options`.
    """
    return model.to(device) if isinstance(device, str) and "device_map" not in options else model


def native_class(family: Family) -> Any:
    """The class of Transformers that makes the family's models.

    Raises:
        ExportError: if a package that it needs is missing or does not fit the others.
    """
    import transformers

    try:
        return getattr(transformers, family.generator)
    except (ImportError, RuntimeError) as error:  # also of a torchvision built for another torch
        said = one_line(origin(error)).rstrip(".")
        foreign = "torchvision" in said
        anew = "`pip uninstall torchvision`, then " if foreign else ""
        same_index = ", with the --extra-index-url that torch came from" if foreign else ""
        raise ExportError(
            f"Transformers cannot import {family.generator} ({said}); run {anew}"
            f"`{install_extra(family.extras)}`{same_index}"
        ) from error


def check_config(base: Path, family: Family) -> int:
    """Check that the configuration makes a model; it is built without memory.

    Args:
        base: Directory of the base model.
        family: Names the native class.

    Returns:
        Decoder layers.

    Raises:
        ExportError: if the configuration is not valid.
    """
    import torch

    native = native_class(family)
    with input_errors(f"{base / 'config.json'} makes no {family.name}", "correct it"):
        _require_buildable(base, read_config(base))
        config = native.config_class.from_pretrained(base)
        with torch.device("meta"):
            return len(decoder_layers(native(config)))


def check_shapes(base: Path, family: Family) -> None:
    """Check that the weights have the shapes that the configuration says.

    Their headers alone are read. Without accelerate, and for a base that is stored quantized, this
    is left to `load_base`.

    Args:
        base: Directory of the base model.
        family: Names the native class.

    Raises:
        ExportError: if tensors are missing or have other shapes.
    """
    if find_spec("accelerate") is None or own_method(read_config(base)) is not None:
        return
    native = native_class(family)
    with input_errors(f"{base} does not load"):
        _, info = native.from_pretrained(
            base,
            device_map={"": "meta"},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    require_whole(base, info)


def _require_buildable(base: Path, config: Any) -> None:
    """Refuse numbers of layers that no model has: to build it would take forever."""
    for key, value in config.items() if isinstance(config, dict) else ():
        _require_buildable(base, value)
        counts = key.endswith(_COUNTS)
        if counts and isinstance(value, int) and value > _MOST_PARTS:
            raise ExportError(f"{base / 'config.json'}: {key} is {value}; correct it")


def require_whole(base: Path, info: Mapping[str, Any]) -> None:
    """Refuse weights that Transformers would make up.

    Args:
        base: For the message.
        info: `output_loading_info` of `from_pretrained`.

    Raises:
        ExportError: if tensors are missing or have other shapes than the configuration says.
    """
    missing = sorted(map(str, info["missing_keys"]))
    if missing:
        raise ExportError(
            f"{base} does not hold the whole model: {len(missing)} tensors are missing, for "
            f"example {missing[0]}; download it again"
        )
    mismatched = sorted(info["mismatched_keys"])
    if mismatched:
        name, stored, stated = mismatched[0]
        raise ExportError(
            f"{base} does not hold the model of its config.json: {len(mismatched)} tensors have "
            f"another shape, for example {name} has {list(stored)} and not {list(stated)}; correct "
            "config.json, or download the model again"
        )


def _require_finite(base: Path, model: Any) -> None:
    """Refuse weights that are no numbers, before anything is measured with them."""
    for name, weight in _parameters(model):
        if not _is_finite(weight):
            raise ExportError(
                f"{base}: the tensor {name} is not finite in {str(weight.dtype)[6:]}; download the "
                "weights again, or use --dtype bfloat16 where they were stored in another precision"
            )


def _parameters(model: Any) -> Iterator[tuple[str, Any]]:
    """Every parameter; those that lie on the disk or in memory are brought one after the other."""
    if not hasattr(model, "hf_device_map"):
        yield from model.named_parameters()
        return
    for name, module in model.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            with whole_tensors(module):
                for own, weight in module.named_parameters(recurse=False):
                    yield f"{name}.{own}", weight


def _is_finite(weight: Any) -> bool:
    """Whether a plain weight holds numbers."""
    import torch

    if hasattr(weight, "to_local"):  # a part of it, which another process has the rest of
        weight = weight.to_local()
    # Quantized weights are of a class of their own, which need not know sums.
    plain = type(weight) in (torch.nn.Parameter, torch.Tensor)
    if not plain or not weight.is_floating_point() or weight.element_size() < 2:
        return True
    # A sum needs no memory; only where it is not finite, which it may be of large numbers too, the
    # elements are looked at.
    return bool(weight.sum(dtype=torch.float32).isfinite() or weight.isfinite().all())


@contextmanager
def _enough_memory(base: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise ExportError(
                f"{base} does not fit into memory; take a larger machine, --dtype bfloat16 or "
                "--quantization"
            ) from error
        raise


def free_memory() -> None:
    """Give the memory of a batch that failed back to the device, before the next is run."""
    import torch

    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
