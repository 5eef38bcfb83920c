"""Pictures and clips of a benchmark's rows, opened when a request is run."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mars_export.common.errors import ExportError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["VIDEO_FRAMES", "open_picture", "read_frames"]

VIDEO_FRAMES: Final = 8
"""Frames that are taken from a video, evenly spaced."""

_PICTURES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


def open_picture(data: Path | bytes, where: str) -> Image:
    """Decode a picture.

    Returns:
        RGB.

    Raises:
        ExportError: It cannot be decoded.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as opened:
            return opened.convert("RGB")
    except OSError as error:
        raise ExportError(f"{where}: not a readable picture ({error}); replace it") from error


@lru_cache(maxsize=2)
def read_frames(path: Path, where: str) -> tuple[Image, ...]:
    """`VIDEO_FRAMES` evenly spaced frames of a video file or of a folder of numbered pictures.

    Raises:
        ExportError: There are no frames, they cannot be decoded, or PyAV is not installed.
    """
    if not path.is_dir():
        return _video(path, where)
    names = sorted(file for file in path.iterdir() if file.suffix.lower() in _PICTURES)
    if not names:
        raise ExportError(f"{where}: {path} holds no frames; replace it")
    return tuple(open_picture(names[index], where) for index in _spread(len(names)))


def _video(path: Path, where: str) -> tuple[Image, ...]:
    try:
        import av
    except ImportError as error:
        raise ExportError(f"{path} needs PyAV; run `pip install 'mars-export[suites]'`") from error
    try:
        with av.open(str(path)) as container:
            total = sum(1 for _ in container.decode(video=0))
        wanted = _spread(total)
        with av.open(str(path)) as container:
            # Only the chosen frames become pictures: all of a clip would fill the memory.
            frames = enumerate(container.decode(video=0))
            chosen = {index: f.to_image() for index, f in frames if index in set(wanted)}
    except (av.FFmpegError, IndexError) as error:
        raise ExportError(
            f"{where}: {path} is not a readable video ({error}); replace it"
        ) from error
    return tuple(chosen[index] for index in wanted)


def _spread(total: int) -> list[int]:
    """Indices of `VIDEO_FRAMES` evenly spaced items of `total`, first and last among them.

    Raises:
        IndexError: There are none.
    """
    if not total:
        raise IndexError("no frames")
    return [round(i * (total - 1) / (VIDEO_FRAMES - 1)) for i in range(VIDEO_FRAMES)]
