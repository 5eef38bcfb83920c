"""Sounds of users' files, decoded and brought to the rate that a processor takes."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mars_export.common.errors import ExportError
from mars_export.common.input_errors import decoding
from mars_export.common.installation import install_extra

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "LONGEST",
    "OTHER_SOUNDS",
    "SHORTEST",
    "SOUNDS",
    "Sound",
    "audio_problem",
    "longest",
    "open_sound",
    "padding",
]

SOUNDS: Final = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus")
"""Endings of sound files."""
OTHER_SOUNDS: Final = (".aif", ".aiff", ".m4a", ".aac", ".wma", ".amr")
"""Endings of others, most of which libsndfile does not read."""

SHORTEST: Final = 0.1
"""Seconds; of less, some processors make no token at all."""
LONGEST: Final = 300.0
"""Seconds of a file that is opened; a processor may take less, see `longest`."""
_RATES: Final = (4_000, 192_000)
"""Fewest and most samples a second."""
_LOUDEST: Final = 1.001
"""Largest value of a file of floats; full scale is 1, and rounding may lie above."""
_BLOCK: Final = 1 << 16
"""Samples that are decoded at once, of all channels."""
_SLACK: Final = 2 * 1152
"""Samples that an mp3 file may have less than it states: encoders count frames in two ways."""
_FLOATS: Final = ("FLOAT", "DOUBLE")
_UNENDED: Final = ("lacks an end-of-stream bit", "ended unexpectedly without an End-Of-Stream")
"""What libsndfile says of Ogg files without their last page."""
_DATA: Final = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
"""What it says of a WAV file with another length than its header states."""
_UNSTATED: Final = 0x7FFF_0000
"""Bytes from which such a length is that of a stream, whose end was not known."""
_UNPADDED: Final = ("Qwen2_5OmniProcessor",)
"""Processors whose models leave padding out, and that pad every sound to their longest one."""
_PACKAGES: Final = ("soundfile", "soxr")


@dataclass(frozen=True, eq=False)
class Sound:
    """One channel of sound.

    Attributes:
        samples: (N,) float32, from -1 to 1.
        rate: Samples a second.
    """

    samples: NDArray[np.float32]
    rate: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.rate

    def at(self, rate: int) -> Sound:
        """The same at another number of samples a second.

        Raises:
            ExportError: soxr is not installed.
        """
        if rate == self.rate:
            return self
        try:
            import soxr
        except ImportError as error:
            raise ExportError(
                f"Sound of {self.rate} samples a second is brought to {rate} by soxr; run "
                f"`{install_extra('audio')}`"
            ) from error
        return Sound(soxr.resample(self.samples, self.rate, rate).astype("float32"), rate)


def audio_problem() -> str:
    """What is missing to read and resample sound; empty if nothing is."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if not missing:
        return ""
    return f"audio, which needs {' and '.join(missing)}; run `{install_extra('audio')}`"


def open_sound(data: Path | bytes, where: str) -> Sound:
    """Decode a sound file as libsndfile does; several channels become one, their mean.

    Lossy formats overshoot full scale a little when they are decoded; that is cut off, as players
    do. Silence is sound.

    Args:
        data: A file, or its bytes.
        where: For messages.

    Raises:
        ExportError: It cannot be decoded, is cut off, is shorter than `SHORTEST` or longer than
            `LONGEST`, has too few or too many samples a second, floats beyond full scale or none
            at all, or soundfile is not installed.
    """
    try:
        import soundfile
    except (ImportError, OSError) as error:  # the latter where its library is absent
        raise ExportError(f"{where}: needs soundfile; run `{install_extra('audio')}`") from error
    with (
        decoding("sound", where),
        io.BytesIO(data) if isinstance(data, bytes) else data.open("rb") as file,
    ):
        return _decoded(soundfile.SoundFile(file))


def _decoded(opened: Any) -> Sound:
    """All of an open file.

    Raises:
        ValueError: It is not what `open_sound` takes.
    """
    import numpy as np

    rate: int = opened.samplerate
    if not _RATES[0] <= rate <= _RATES[1]:
        raise ValueError(f"{rate} samples a second, not {_RATES[0]} to {_RATES[1]}")
    blocks: list[NDArray[np.float32]] = []
    samples = 0
    at_once = max(1, _BLOCK // opened.channels)
    while len(block := opened.read(at_once, dtype="float32", always_2d=True)):
        if not np.isfinite(block).all():
            raise ValueError("values that are not finite")
        if opened.subtype in _FLOATS and np.abs(block).max() > _LOUDEST:
            raise ValueError(
                f"values up to {np.abs(block).max():.3g}, beyond the full scale of 1: save it "
                "quieter, or with 16 bits"
            )
        blocks.append(block.mean(1, dtype="float64").clip(-1, 1).astype("float32"))
        samples += len(block)
        if samples > LONGEST * rate:
            raise ValueError(f"longer than {LONGEST:g} seconds")
    if samples + _SLACK < opened.frames or _is_cut_off(opened.extra_info):
        raise ValueError("cut off: it ends before its header says")
    if samples < SHORTEST * rate:
        length = f"{samples / rate:.4g} seconds" if samples else "no samples"
        raise ValueError(f"{length}; the least is {SHORTEST:g} seconds")
    return Sound(np.concatenate(blocks), rate)


def _is_cut_off(told: str) -> bool:
    """Whether the end of a file is missing, by what libsndfile told of it."""
    sizes = [tuple(map(int, found)) for found in _DATA.findall(told)]
    short = any(real < stated < _UNSTATED for stated, real in sizes)
    return short or any(text in told for text in _UNENDED)


def longest(processor: Any) -> float | None:
    """Seconds of one sound that a processor takes whole: it cuts off the rest without a word.

    Returns:
        None if it cuts nothing off, or states no limit.
    """
    windows = getattr(processor, "max_audio_len", None)  # of those that cut sound into windows
    if windows is not None:
        return float(windows)
    tokens = getattr(processor, "audio_seq_length", None)
    each = getattr(processor, "audio_ms_per_token", None)
    if tokens is not None and each is not None:
        return float(tokens * each / 1000)
    defaults = getattr(type(processor), "audio_kwargs", None)
    if isinstance(defaults, dict) and defaults.get("truncation") is False:
        return None
    chunk = getattr(getattr(processor, "feature_extractor", None), "chunk_length", None)
    return None if chunk is None else float(chunk)


def padding(processor: Any, sounds: Iterable[Sound]) -> dict[str, int]:
    """Options of a processor that pad sounds to the longest of them, where that changes nothing.

    Its own padding, to 300 s, takes a hundred times as long as a sound of 3 s.
    """
    seconds = max((sound.seconds for sound in sounds), default=0.0)
    if type(processor).__name__ not in _UNPADDED or not seconds:
        return {}
    extractor = processor.feature_extractor
    # The window of the last frame reaches into the padding.
    return {"max_length": math.ceil(seconds * extractor.sampling_rate) + extractor.n_fft}
