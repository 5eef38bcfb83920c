"""Pictures and clips of users' files, opened as Transformers opens them: the one place for it."""

from __future__ import annotations

import io
import re
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mars_export.common.errors import ExportError
from mars_export.common.input_errors import decoding
from mars_export.common.installation import install_extra
from mars_export.common.paths import is_dir

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["CLIPS", "PICTURES", "VIDEO_FRAMES", "frame_files", "open_picture", "read_frames"]

VIDEO_FRAMES: Final = 8
"""Frames that are taken from a video, evenly spaced."""

CLIPS: Final = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")
"""Endings of video files."""
PICTURES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
"""Endings of picture files."""
_WHITE: Final = 255
"""Brightest value of an 8-bit picture; Pillow cuts off what lies above."""


def open_picture(data: Path | bytes, where: str) -> Image:
    """Decode a picture as `transformers.image_utils.load_image` does.

    It is turned as its EXIF orientation says; transparency is dropped, and of an animation the
    first frame is taken.

    Returns:
        RGB.

    Raises:
        ExportError: It cannot be decoded, or would turn white, having more than 8 bits.
    """
    from PIL import Image, ImageOps

    # Warnings are of large pictures and of kinds of transparency, which is dropped.
    with decoding("picture", where), warnings.catch_warnings(action="ignore"):
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as opened:
            upright = ImageOps.exif_transpose(_plain(opened))
        return upright.convert("RGB")


def _plain(opened: Image) -> Image:
    """The picture, unless it is a program, or has values that an RGB picture cannot show.

    Raises:
        ValueError: It is one of these.
    """
    if opened.format == "EPS":  # Pillow would have Ghostscript run it
        raise ValueError("PostScript is a program")
    if opened.mode.startswith("I") or opened.mode == "F":
        low, high = opened.getextrema()
        if not (isinstance(low, int | float) and isinstance(high, int | float)):
            raise ValueError(f"unknown range of the mode {opened.mode}")
        if not 0 <= low <= high <= _WHITE:
            raise ValueError(
                f"values from {low:g} to {high:g}, which Transformers clips to 0 to {_WHITE}: save "
                "it with 8 bits"
            )
    return opened


@lru_cache(maxsize=2)
def read_frames(path: Path, where: str) -> tuple[Image, ...]:
    """`VIDEO_FRAMES` evenly spaced frames of a video file or of a folder of numbered pictures.

    Raises:
        ExportError: There are no frames, they cannot be decoded, or PyAV is not installed.
    """
    if not is_dir(path):
        return _video(path, _place(path, where))
    return tuple(open_picture(file, _place(file, where)) for file in frame_files(path, where))


def frame_files(folder: Path, where: str) -> list[Path]:
    """The files of `VIDEO_FRAMES` evenly spaced frames of a folder of numbered pictures.

    Raises:
        ExportError: There are none.
    """
    pictures = (file for file in folder.iterdir() if file.suffix.lower() in PICTURES)
    names = sorted(pictures, key=_number)
    if not names:
        what = f"no pictures ({', '.join(PICTURES)})"
        raise ExportError(f"{_place(folder, where)}: a clip's folder with {what}; replace it")
    return [names[index] for index in _spread(len(names))]


def _number(file: Path) -> list[str | int]:
    """For sorting: frame 2 stands before frame 10."""
    parts = re.split(r"(\d+)", file.name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def _place(path: Path, where: str) -> str:
    """Where a file of a clip is: `where` is the place that names it, or the path itself."""
    return str(path) if str(path).startswith(where) else f"{where}, {path.name}"


def _video(path: Path, where: str) -> tuple[Image, ...]:
    try:
        import av
    except ImportError as error:
        raise ExportError(f"{where}: needs PyAV; run `{install_extra('suites')}`") from error
    with decoding("video", where):
        with av.open(str(path)) as container:
            streams = container.streams.video
            # Without a decoder PyAV would crash, and not only raise.
            known = bool(streams) and streams[0].codec_context is not None
            total = sum(1 for _ in container.decode(video=0)) if known else 0
        wanted = _spread(total)
        with av.open(str(path)) as container:
            # Only the chosen frames become pictures: all of a clip would fill the memory.
            frames = enumerate(container.decode(video=0))
            chosen = {index: f.to_image() for index, f in frames if index in set(wanted)}
        return tuple(chosen[index] for index in wanted)


def _spread(total: int) -> list[int]:
    """Indices of `VIDEO_FRAMES` evenly spaced items of `total`, first and last among them.

    Raises:
        IndexError: There are none.
    """
    if not total:
        raise IndexError("no frames, or none that can be decoded")
    return [round(i * (total - 1) / (VIDEO_FRAMES - 1)) for i in range(VIDEO_FRAMES)]
