"""Media as data URLs, without loss, and back."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from mars_export.common.errors import ExportError
from mars_export.common.installation import install_extra

if TYPE_CHECKING:
    from PIL.Image import Image

    from mars_export.inputs.sounds import Sound

__all__ = ["clip_url", "frames_of", "frames_url", "opened", "picture_url", "sound_url"]

_FPS: Final = 2
_LOSSLESS: Final = {"crf": "0", "preset": "ultrafast"}


def picture_url(picture: Image) -> str:
    """A picture as PNG."""
    return f"data:image/png;base64,{_png(picture)}"


def frames_url(frames: Sequence[Image]) -> str:
    """The frames of a clip in a row, each as PNG: the form that vLLM takes frames in."""
    return f"data:video/jpeg;base64,{','.join(map(_png, frames))}"


def sound_url(sound: Sound) -> str:
    """A sound as a WAV file of floats."""
    from soundfile import write

    def save(stream: io.BytesIO) -> None:
        write(stream, sound.samples, sound.rate, format="WAV", subtype="FLOAT")

    return f"data:audio/wav;base64,{_written(save)}"


def clip_url(frames: Sequence[Image]) -> str:
    """A clip as an MP4 file whose frames are exactly these.

    Raises:
        ExportError: PyAV is not installed.
    """
    av = _av()

    def save(stream: io.BytesIO) -> None:
        with av.open(stream, "w", format="mp4") as container:
            track = container.add_stream("libx264rgb", rate=_FPS, options=_LOSSLESS)
            track.width, track.height = frames[0].size
            track.pix_fmt = "rgb24"
            for frame in frames:
                container.mux(track.encode(av.VideoFrame.from_image(frame)))
            container.mux(track.encode())

    return f"data:video/mp4;base64,{_written(save)}"


def opened(url: str) -> bytes:
    """What a data URL holds.

    Raises:
        ExportError: It is none.
    """
    head, comma, data = url.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise ExportError(f"{url[:60]!r} is no data URL; give media as data, not as addresses")
    return base64.b64decode(data)


def frames_of(clip: bytes) -> tuple[Image, ...]:
    """Every frame of a video file.

    Raises:
        ExportError: PyAV is not installed, or cannot decode it.
    """
    av = _av()
    try:
        with av.open(io.BytesIO(clip)) as container:
            return tuple(frame.to_image() for frame in container.decode(video=0))
    except av.FFmpegError as error:
        raise ExportError(f"a clip cannot be decoded ({error}); replace it") from error


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise ExportError(f"clips need PyAV; run `{install_extra('suites')}`") from error
    return av


def _png(picture: Image) -> str:
    return _written(lambda stream: picture.save(stream, format="PNG"))


def _written(save: Callable[[io.BytesIO], None]) -> str:
    stream = io.BytesIO()
    save(stream)
    return base64.b64encode(stream.getvalue()).decode()
