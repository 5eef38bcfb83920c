"""What the exporter must know about a family to write it as ONNX: `routes.json`, and its reader."""

from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from mars_export.common.errors import ExportError
from mars_export.families import Family

__all__ = ["Route", "route_of", "routes"]


class Route(BaseModel):
    """How a family's parts become graphs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lacking: str | None = None
    """Why there is no route, if there is none."""
    vision: Literal["pixels", "single", "tile", "grid"] | None = None
    """How pictures come: `pixels`, one size, any number at once; `single`, the same one by one;
    `tile`, one tile of a picture; `grid`, patches of one picture or clip of any size."""
    shown: tuple[Literal["image", "video"], ...] = ("image", "video")
    """What the vision graph takes, of the modalities that the family has."""
    rotary_axes: Literal[1, 3] = 1
    """3: the caller gives `position_ids`, because they follow the grids of pictures."""
    deepstack: bool = False
    """Whether vision features are also added behind the first decoder layers."""
    vision_lacking: str | None = None
    """Why some modality of the family is left out; the graphs refuse its placeholders."""
    blocks: tuple[Literal["image", "video"], ...] = ()
    """Modalities whose placeholders attend in both directions inside a picture."""


@cache
def routes() -> dict[str, Route]:
    """Routes by model type."""
    raw = (files("mars_export.integrations.onnx") / "routes.json").read_bytes()
    return TypeAdapter(dict[str, Route]).validate_json(raw)


def route_of(family: Family) -> Route:
    """The route of a family.

    Raises:
        ExportError: if it has none.
    """
    route = routes().get(family.model_type, Route(lacking="nobody has tried it"))
    if route.lacking:
        there = ", ".join(name for name, r in routes().items() if not r.lacking)
        raise ExportError(
            f"{family.name} cannot be written as ONNX: {route.lacking}; families that can: {there}"
        )
    return route
