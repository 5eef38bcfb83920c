"""Pictures that are optimized: projected gradient descent within a largest change of each pixel.

The way from pixels to `pixel_values` is measured, not assumed: what a processor makes of black, of
white and of pictures that number their pixels says which pixel each value is, and how it is
scaled. That holds for every processor that arranges and scales pixels without mixing them at the
size that it makes; where it mixes them, the attack says so and is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from math import isqrt
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mars_export.evaluation.adaptive.batches import UnreachableError, inputs_of
from mars_export.evaluation.adaptive.surface import Reading, Surface
from mars_export.families.placement import input_device
from mars_export.inputs.requests import Media, Request, collate

__all__ = [
    "FULL",
    "PixelPath",
    "Pixels",
    "descend",
    "fitted",
    "pictures_of",
    "size_of",
    "with_pictures",
]

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
"""Of all pictures of a batch, (N, height, width, 3), 0 to 255."""

FULL: Final = 255
"""Largest value of a pixel, and the largest change where none is stated."""
_MIXED: Final = 0.02
"""Largest error, of 255, of a pixel that was not mixed with others."""
_LARGEST: Final = 1024
"""Pixels of the longer side up to which a size that a processor states is tried."""
_WHOLE: Final = (224, 224)
"""A multiple of the patches of most families."""
_OVERSHOOT: Final = 2.5
"""All steps together would go so many times as far as they may."""


def pictures_of(request: Request) -> list[Image.Image]:
    """Its pictures and the frames of its videos, in order."""
    return [
        picture
        for medium in request.media
        for picture in (medium.data if isinstance(medium.data, tuple) else (medium.data,))
    ]


def with_pictures(request: Request, pictures: Iterator[Image.Image]) -> Request:
    """The request with other pictures and frames, which are taken from an iterator."""
    media = tuple(
        Media(m.modality, tuple(next(pictures) for _ in m.data), m.kind)
        if isinstance(m.data, tuple)
        else Media(m.modality, next(pictures), m.kind)
        for m in request.media
    )
    return replace(request, media=media)


@dataclass(frozen=True)
class PixelPath:
    """How the pixels of a batch of requests become one tensor of model inputs.

    Attributes:
        requests: With their pictures at the size that the processor makes, so that it mixes none.
        name: Of the tensor, for example `pixel_values`.
        index: For each of its values the pixel, counted over all N pictures of (height, width, 3).
        low: Each value for a black pixel.
        scale: How much larger it is for a white one.
    """

    requests: tuple[Request, ...]
    name: str
    index: Tensor
    low: Tensor
    scale: Tensor

    @classmethod
    def of(cls, processor: Any, requests: Sequence[Request]) -> PixelPath:
        """Measure the path of a batch, whose pictures are all brought to the size of the first.

        Raises:
            UnreachableError: The processor mixes pixels at every size that was tried, or spreads
                them over several inputs.
        """
        problem = "it takes no pictures"
        for size in _sizes(processor, requests):
            resized = tuple(_resized(request, size) for request in requests)
            try:
                return _measured(processor, resized)
            except UnreachableError as error:
                problem = str(error)
        name = type(processor).__name__
        raise UnreachableError(f"pixels cannot be optimized through {name}: {problem}")

    @property
    def pixels(self) -> Pixels:
        """Of all pictures, (N, height, width, 3), 0 to 255."""
        return np.stack([np.asarray(p) for r in self.requests for p in pictures_of(r)])

    @property
    def rows(self) -> list[slice]:
        """The pictures of each request."""
        counts = [len(pictures_of(request)) for request in self.requests]
        return [slice(a, b) for a, b in pairwise(accumulate(counts, initial=0))]

    def values(self, pixels: Tensor) -> Tensor:
        """Pixels (N, height, width, 3), 0 to 1, as the processor gives them to the model."""
        return self.low + self.scale * pixels.flatten()[self.index]

    def shown(self, pixels: Pixels) -> list[Request]:
        """The requests with other pixels, (N, height, width, 3)."""
        return _filled(self.requests, pixels)


def fitted(processor: Any, requests: Sequence[Request]) -> list[Request]:
    """The requests with their pictures at a size at which the processor mixes no pixels.

    Those of several sizes may stay different: then they share no `PixelPath`.

    Raises:
        UnreachableError: One of them has no such size.
    """
    sizes: dict[tuple[str, tuple[int, int]], tuple[int, int]] = {}
    resized = []
    for request in requests:
        key = request.modality, size_of(request)
        if key not in sizes:
            sizes[key] = size_of(PixelPath.of(processor, [request]).requests[0])
        resized.append(_resized(request, sizes[key]))
    return resized


def size_of(request: Request) -> tuple[int, int]:
    """Width and height of its first picture."""
    return pictures_of(request)[0].size


def _sizes(processor: Any, requests: Sequence[Request]) -> Iterator[tuple[int, int]]:
    """Sizes (width, height) at which the processor may leave pixels alone, the likeliest first."""
    yield size_of(requests[0])
    image_processor = getattr(processor, "image_processor", processor)
    patch = getattr(image_processor, "patch_size", None)
    inputs = collate(processor, requests[:1])
    for name in ("image_grid_thw", "video_grid_thw"):
        if name in inputs and isinstance(patch, int):
            _, height, width = (int(n) * patch for n in inputs[name][0])
            yield width, height
    for stated in (getattr(image_processor, name, None) or {} for name in ("crop_size", "size")):
        edge = stated.get("shortest_edge") or 0
        width, height = (int(stated.get(side) or edge) for side in ("width", "height"))
        if min(width, height) > 0 and max(width, height) <= _LARGEST:  # some count pixels
            yield width, height
        if side := isqrt(edge):
            yield side, side  # where it counts pixels
    yield _WHOLE


def _resized(request: Request, size: tuple[int, int]) -> Request:
    rgb = (picture.convert("RGB") for picture in pictures_of(request))
    return with_pictures(request, (p.resize(size, Image.Resampling.BICUBIC) for p in rgb))


def _filled(requests: Sequence[Request], pixels: Pixels) -> list[Request]:
    pictures = iter([Image.fromarray(picture) for picture in pixels])
    return [with_pictures(request, pictures) for request in requests]


def _measured(processor: Any, requests: tuple[Request, ...]) -> PixelPath:
    """The path of requests whose pictures have their final size."""
    shape = np.stack([np.asarray(p) for r in requests for p in pictures_of(r)]).shape
    count = int(np.prod(shape))

    def values(pixels: np.ndarray[Any, Any]) -> dict[str, Tensor]:
        batch = collate(processor, _filled(requests, pixels.reshape(shape).astype(np.uint8)))
        return {n: v for n, v in batch.items() if isinstance(v, Tensor) and v.is_floating_point()}

    black, white = values(np.zeros(count)), values(np.full(count, FULL))
    names = [n for n in black if black[n].shape != white[n].shape or (black[n] != white[n]).any()]
    if len(names) != 1:
        raise UnreachableError(f"pixels reach {len(names)} inputs")
    (name,) = names
    low, scale = black[name], white[name] - black[name]
    safe = torch.where(scale == 0, torch.ones_like(scale), scale)
    index, numbers = torch.zeros(low.shape, dtype=torch.long), np.arange(count)
    for digit in range((count - 1).bit_length() // 8 + 1):
        value = (values(numbers >> (8 * digit) & FULL)[name] - low) / safe * FULL
        if float((value - value.round()).abs().max()) > _MIXED:
            raise UnreachableError("it mixes neighboring pixels")
        index += value.round().long() << (8 * digit)
    path = PixelPath(requests, name, index.clamp(0, count - 1), low, scale)
    noise = np.random.default_rng(0).integers(0, FULL + 1, shape, dtype=np.uint8)
    error = (path.values(torch.from_numpy(noise) / FULL) - values(noise)[name]) / safe * FULL
    if float(error.abs().max()) > _MIXED:
        raise UnreachableError("what it makes of a pixel depends on others")
    return path


def descend(
    surface: Surface,
    path: PixelPath,
    start: Pixels,
    cost: Callable[[Reading], Tensor],
    radius: int | None,
    steps: int,
) -> Pixels:
    """Projected gradient descent on the sign of the gradient (Madry et al. 2018).

    Of all steps the best is taken, request by request; costs are those of whole pixels, so what is
    returned is a picture that can be saved.

    Args:
        surface: The model, in its arm.
        path: Of the requests.
        start: Where to begin, (N, height, width, 3), within the radius.
        cost: (B,) of a reading; what is minimized.
        radius: Largest change of a pixel, of 255; None for any.
        steps: Of the descent.
    """
    plain, reach = torch.from_numpy(path.pixels).float(), FULL if radius is None else radius
    low, high = (plain - reach).clamp(min=0), (plain + reach).clamp(max=FULL)
    size = max(1.0, _OVERSHOOT * reach / steps)
    inputs = inputs_of(surface.loaded, path.requests)
    present = torch.from_numpy(start).float()
    best, best_cost = present, torch.full((len(path.requests),), torch.inf)
    for step in range(steps + 1):
        rounded = present.round().requires_grad_()
        costs = cost(surface.read(_with_pixels(inputs, path, rounded, surface)))
        best, best_cost = _better(path, (best, best_cost), (rounded, costs))
        if step == steps or not bool(best_cost.any()):
            break
        (slope,) = torch.autograd.grad(costs.sum(), rounded)
        moved = present - size * slope.sign()
        present = torch.minimum(torch.maximum(moved, low), high)
    return best.numpy().astype(np.uint8)


def _with_pixels(inputs: Any, path: PixelPath, pixels: Tensor, surface: Surface) -> dict[str, Any]:
    model = surface.loaded.model
    values = path.values(pixels / FULL).to(input_device(model), model.dtype)
    return {**inputs, path.name: values}


def _better(
    path: PixelPath, best: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Request by request the pixels with the lower cost, and that cost."""
    pixels, costs = best[0].clone(), best[1].clone()
    new = other[1].detach().float().cpu()
    for row, pictures in enumerate(path.rows):
        if new[row] < costs[row]:
            costs[row], pixels[pictures] = new[row], other[0].detach()[pictures]
    return pixels, costs
