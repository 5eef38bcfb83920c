"""How a model lies on the devices of this machine: on one, spread over several, or split.

Free of torch until it is used.
"""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from mars_export.common.errors import ExportError
from mars_export.common.installation import install_extra
from mars_export.families.room import free_bytes, room_on

__all__ = [
    "Device",
    "Placement",
    "device_name",
    "input_device",
    "is_split",
    "offloading",
    "whole_tensors",
]

_OFFLOADED: Final = ("cpu", "disk")
_FILLED: Final = 0.9
"""Of what is free, where nobody says how much; as accelerate does for one model."""


class Placement(BaseModel):
    """A model that one device need not hold: accelerate spreads it, or processes split it.

    Functions that load a model take one in the place of the name of a device.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str = "auto"
    """Where the rest runs, such as a judge; for a split model, the device of this process."""
    split: bool = False
    """Whether the processes of `torchrun` hold a part of every layer each (tensor parallelism);
    else whole layers lie on one device or another: GPUs first, then memory, then the disk."""
    max_memory: dict[str, int] | None = None
    """Bytes that a device may hold: numbers of GPUs and `cpu`; None for what is free."""
    offload_folder: Path | None = None
    """Where a temporary folder is made for layers on the disk; None for that of the system."""

    def __str__(self) -> str:
        """The device, as it is named in a report."""
        return f"{self.device}, {'tensor parallel' if self.split else 'device map'}"

    def rooms(self) -> dict[str, int]:
        """Bytes by device that a device map may fill, in order."""
        if self.device == "cpu" and self.max_memory is None:
            return {"cpu": room_on("cpu")}
        return free_bytes(self.max_memory)

    def shared_by(self, count: int) -> "Placement":
        """That of each of so many models which are held at once.

        `max_memory` is divided among them, or else what is free: the first one would leave too
        little for the layers of the next, which all come to one device when they run.
        """
        if self.split or count == 1:
            return self
        most = self.max_memory or {d: int(_FILLED * size) for d, size in self.rooms().items()}
        each = {device: size // count for device, size in most.items()}
        return self.model_copy(update={"max_memory": each})

    def options(self) -> dict[str, Any]:
        """Arguments of `from_pretrained`.

        Raises:
            ExportError: if what it needs is not installed.
        """
        return _split() if self.split else self._spread()

    def _spread(self) -> dict[str, Any]:
        if find_spec("accelerate") is None:
            raise ExportError(f"--device-map needs accelerate; run `{install_extra('large')}`")
        options: dict[str, Any] = {"device_map": "auto"}
        if self.max_memory or self.device == "cpu":
            # What is planned: accelerate would take a size that is larger than the device.
            most = self.rooms()
            named = {int(name) if name.isdigit() else name: size for name, size in most.items()}
            options["max_memory"] = named
        return options


Device = str | Placement
"""Name of a torch device, or where else a model lies."""


def device_name(where: Device) -> str:
    """Name of the torch device; of a placement, of the one where the rest runs."""
    return where if isinstance(where, str) else where.device


def _split() -> dict[str, Any]:
    try:
        from transformers.distributed import DistributedConfig
    except ImportError as error:
        raise ExportError(
            "--tensor-parallel needs Transformers 5.23 or later; run "
            "`pip install -U 'transformers>=5.23'`"
        ) from error
    return {"distributed_config": DistributedConfig(tp_plan="auto")}


@contextmanager
def offloading(device: Device) -> Iterator[tuple[dict[str, Any], Callable[[Any], None]]]:
    """Arguments of `from_pretrained` for a placement, and what keeps their folder for a model.

    The folder for layers on the disk is removed with the model, when the program ends, or at once
    if there is no model.
    """
    if isinstance(device, str) or device.split:
        yield ({} if isinstance(device, str) else device.options()), lambda _model: None
        return
    options, parent = device.options(), device.offload_folder
    try:
        folder = tempfile.mkdtemp(prefix="mars-export-offload-", dir=parent)
    except OSError as error:
        raise ExportError(
            f"--offload-folder: cannot write to {parent or tempfile.gettempdir()} "
            f"({error.strerror}); choose another"
        ) from error
    kept = False

    def keep(model: Any) -> None:
        nonlocal kept
        kept = True
        weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)

    try:
        yield {**options, "offload_folder": folder}, keep
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def input_device(model: Any) -> Any:
    """The torch device that inputs of a model go to; weights on the disk are on none."""
    places = getattr(model, "hf_device_map", None)
    if not isinstance(places, dict):
        return model.device
    import torch

    used = [place for place in places.values() if place not in _OFFLOADED]
    return torch.device(used[0] if used else "cpu")


def is_split(model: Any) -> bool:
    """Whether processes hold a part of every layer of a model each."""
    return any(hasattr(weight, "device_mesh") for weight in getattr(model, "parameters", list)())


def whole_tensors(module: Any) -> Any:
    """A context in which the own parameters of a module are there, wherever they lie otherwise."""
    from accelerate.utils import align_module_device

    return align_module_device(module)
