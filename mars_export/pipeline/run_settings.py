"""How a command runs: options that never make finished work stale."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from mars_export.evaluation.options import EvaluationOptions
from mars_export.families.placement import Device, Placement
from mars_export.families.room import limits
from mars_export.pipeline.words import problem

__all__ = ["PlacementSettings", "RunSettings", "setting"]


def setting(default: Any, description: str, *, group: str, metavar: str = "") -> Any:
    """A field with the section and the placeholder that its help text uses."""
    extra: JsonDict = {"group": group, "metavar": metavar}
    return Field(default, description=description, json_schema_extra=extra)


class RunSettings(BaseModel):
    """How to run, not what to make. Changing these never makes finished work stale."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    device: Literal["auto", "cpu", "cuda", "mps"] = setting(
        "auto",
        "Where the model runs; auto takes a GPU of CUDA when there is one.",
        group="Running",
    )
    batch_size: PositiveInt = setting(
        EvaluationOptions().batch_size,
        "Requests in one forward pass; halved by itself when memory runs out.",
        group="Running",
        metavar="N",
    )
    display: Literal["auto", "rich", "plain", "none"] = setting(
        "auto", "Progress; auto is rich on a terminal and plain lines otherwise.", group="Running"
    )


class PlacementSettings(RunSettings):
    """Where a model lies that one device cannot hold."""

    device_map: Literal["none", "auto"] = setting(
        "none",
        "auto spreads the model over all GPUs, memory and the disk; none puts it on one device.",
        group="Running",
    )
    max_memory: str | None = setting(
        None,
        "Most that --device-map puts on each device, for example 0=20GiB,cpu=60GiB; the rest goes "
        "to the disk.",
        group="Running",
        metavar="DEVICE=SIZE,...",
    )
    offload_folder: Path | None = setting(
        None,
        "Where --device-map makes its temporary folder for layers on the disk.",
        group="Running",
        metavar="DIR",
    )

    @field_validator("max_memory")
    @classmethod
    def _limits_can_be_read(cls, text: str | None) -> str | None:
        try:
            _ = text and limits(text)
        except ValueError as error:
            raise PydanticCustomError("memory", "{wanted}", {"wanted": str(error)}) from error
        return text

    @model_validator(mode="after")
    def _limits_are_of_a_device_map(self) -> "PlacementSettings":
        for name in ("max_memory", "offload_folder"):
            value = getattr(self, name)
            if value is not None and self.device_map == "none":
                raise problem(name, value, "given with --device-map auto")
        return self

    @property
    def placement(self) -> Placement | None:
        """Of a model that one device need not hold; None for one on `device`."""
        if self.device_map == "none":
            return None
        return Placement(
            device=self.device,
            max_memory=limits(self.max_memory) if self.max_memory else None,
            offload_folder=self.offload_folder,
        )

    @property
    def where(self) -> Device:
        """What a model is loaded onto."""
        return self.placement or self.device
