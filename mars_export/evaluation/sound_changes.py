"""Ways in which a spoken request is heard otherwise: faster, through a telephone, among voices.

Pure functions from a `Sound` to a `Sound` of the same rate: float32, finite, from -1 to 1, and as
long as the first unless they say otherwise. What chance decides comes from a seed. Free of torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Final

from mars_export.inputs.sounds import Sound
from mars_export.inputs.tones import RATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float64]

__all__ = [
    "among",
    "echoed",
    "joined",
    "noise",
    "noisy",
    "over_telephone",
    "pitched",
    "reversed_parts",
    "silence",
    "stretched",
    "whispered",
]

_FRAME: Final = 0.04
"""Seconds of the pieces that a stretched sound is put together from: a few periods of a voice."""
_WHISPER: Final = 0.008
"""Seconds of pieces that are shorter than a period of a voice, so that its pitch is not kept."""
_BAND: Final = (300.0, 3400.0)
"""Hz that a telephone passes."""
_LEVELS: Final = 255
"""Of the logarithmic scale of a telephone (mu-law, ITU-T G.711)."""
_ECHOES: Final = ((0.12, 0.5), (0.24, 0.25))
"""Delay in seconds and strength."""
_REVERSED: Final = 0.06
"""Seconds of each part that is played backwards: people still understand most (Saberi and Perrott,
Nature 1999)."""


def silence(seconds: float) -> Sound:
    """Zeros."""
    import numpy as np

    return Sound(np.zeros(round(seconds * RATE), np.float32), RATE)


def noise(seconds: float, seed: str, level: float) -> Sound:
    """White noise.

    Args:
        seconds: How long.
        seed: Of the samples.
        level: Root mean square, in dB of full scale.
    """
    samples = _white(round(seconds * RATE), seed)
    return _sound(samples * 10 ** (level / 20), RATE)


def stretched(sound: Sound, factor: float) -> Sound:
    """`factor` times as long, at the same pitch.

    By overlapping pieces, each taken from where it best continues the one before (WSOLA, Verhelst
    and Roelands, ICASSP 1993), which is looked for at about 16 kHz.
    """
    import numpy as np

    size = max(4, round(_FRAME * sound.rate) // 2 * 2)
    hop, slack, step = size // 2, size // 4, max(1, sound.rate // RATE)
    length = max(1, round(len(sound.samples) * factor))
    around = size + slack
    padded = np.pad(sound.samples.astype(np.float64), (around, around + size))
    window = np.hanning(size + 1)[:-1]
    out, start = np.zeros(length + 2 * size), around
    for place in range(0, length + hop, hop):
        target = min(around + round(place / factor), around + len(sound.samples))
        if place:
            region = padded[target - slack : target + slack + size : step]
            follows = padded[start + hop : start + hop + size : step]
            start = target - slack + step * int(np.correlate(region, follows, "valid").argmax())
        out[place : place + size] += window * padded[start : start + size]
    return _sound(out[hop : hop + length], sound.rate)


def pitched(sound: Sound, semitones: float) -> Sound:
    """Higher, or lower for negative semitones, at the same speed."""
    from scipy.signal import resample

    longer = stretched(sound, 2 ** (semitones / 12)).samples
    return _sound(resample(longer, len(sound.samples)), sound.rate)


def noisy(sound: Sound, seed: str, ratio: float) -> Sound:
    """With white noise that is `ratio` dB weaker than the sound."""
    return _beside(sound, _white(len(sound.samples), seed), ratio)


def among(sound: Sound, voices: Sequence[Sound], seed: str, ratio: float) -> Sound:
    """Among other sounds, repeated from anywhere, which are together `ratio` dB weaker."""
    import numpy as np

    source, length = Random(seed), len(sound.samples)
    total = np.zeros(length)
    for voice in voices:
        samples = voice.at(sound.rate).samples.astype(np.float64)
        samples = np.roll(samples, source.randrange(len(samples)))
        total += np.resize(samples, length) / max(_level(samples), 1e-9)
    return _beside(sound, total, ratio)


def over_telephone(sound: Sound) -> Sound:
    """Between 300 and 3400 Hz, in 8 bits on a logarithmic scale."""
    import numpy as np
    from scipy.signal import butter, sosfilt

    high = min(_BAND[1], 0.45 * sound.rate)
    band = butter(4, (_BAND[0], high), "bandpass", fs=sound.rate, output="sos")
    passed = np.clip(sosfilt(band, sound.samples.astype(np.float64)), -1, 1)
    scaled = np.sign(passed) * np.log1p(_LEVELS * abs(passed)) / np.log1p(_LEVELS)
    rounded = np.round(scaled * (_LEVELS // 2)) / (_LEVELS // 2)
    return _sound(
        np.sign(rounded) * np.expm1(abs(rounded) * np.log1p(_LEVELS)) / _LEVELS, sound.rate
    )


def echoed(sound: Sound) -> Sound:
    """With two echoes, which make it a little longer."""
    import numpy as np

    own = sound.samples.astype(np.float64)
    last = round(_ECHOES[-1][0] * sound.rate)
    out = np.pad(own, (0, last))
    for delay, strength in _ECHOES:
        at = round(delay * sound.rate)
        out[at : at + len(own)] += strength * own
    return _sound(out, sound.rate)


def reversed_parts(sound: Sound) -> Sound:
    """Every short part of it backwards."""
    import numpy as np

    size = max(1, round(_REVERSED * sound.rate))
    starts = range(0, len(sound.samples), size)
    parts = [sound.samples[start : start + size][::-1] for start in starts]
    return _sound(np.concatenate(parts), sound.rate)


def whispered(sound: Sound, seed: str) -> Sound:
    """Without a voice: pieces shorter than its period keep their spectra and get random phases."""
    import numpy as np

    size = max(4, round(_WHISPER * sound.rate) // 2 * 2)
    hop, length = size // 2, len(sound.samples)
    padded = np.pad(sound.samples.astype(np.float64), (size, 2 * size))
    window = np.hanning(size + 1)[:-1]
    starts = np.arange(0, length + size + 1, hop)
    pieces = padded[starts[:, None] + np.arange(size)] * window
    spectra = abs(np.fft.rfft(pieces))
    turns = _generator(seed).uniform(0, 2 * np.pi, spectra.shape)
    pieces = np.fft.irfft(spectra * np.exp(1j * turns), size) * window
    out = np.zeros(len(padded))
    for start, piece in zip(starts, pieces, strict=True):
        out[start : start + size] += piece
    out = out[size : size + length]
    return _sound(out * _level(sound.samples) / max(_level(out), 1e-9), sound.rate)


def joined(sounds: Sequence[Sound], rate: int, pause: float) -> Sound:
    """One after the other, with pauses of so many seconds between them, at one rate."""
    import numpy as np

    gap = np.zeros(round(pause * rate))
    parts = [part for sound in sounds for part in (gap, sound.at(rate).samples)]
    return _sound(np.concatenate(parts[1:]), rate)


def _beside(sound: Sound, other: Samples, ratio: float) -> Sound:
    """The sound and another of its length, which is made `ratio` dB weaker."""
    level = _level(sound.samples) * 10 ** (-ratio / 20)
    return _sound(sound.samples + other * level / max(_level(other), 1e-9), sound.rate)


def _white(length: int, seed: str) -> Samples:
    drawn: Samples = _generator(seed).standard_normal(length)
    return drawn


def _generator(seed: str) -> np.random.Generator:
    import numpy as np

    return np.random.default_rng(Random(seed).getrandbits(64))


def _level(samples: NDArray[np.floating]) -> float:
    """Root mean square; 0 for nothing."""
    import numpy as np

    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0


def _sound(samples: Samples, rate: int) -> Sound:
    """Made quieter where it is too loud, so that nothing is cut."""
    import numpy as np

    peak = float(abs(samples).max(initial=1.0))
    return Sound((samples / peak).astype(np.float32), rate)
