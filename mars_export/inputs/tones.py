"""The kinds of neutral sounds: what a calibration plays beside text. Free of torch.

None of them says anything to refuse. A kind is a function of a source of chance and a length.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from importlib.resources import files
from random import Random
from typing import TYPE_CHECKING, Final

from mars_export.inputs.sounds import Sound, open_sound

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float64]

__all__ = ["KINDS", "MIXTURE", "RATE", "SPEECH", "Kind"]

Kind = Callable[[Random, float], Sound]
"""Makes a sound of so many seconds; the same source gives the same one."""

RATE: Final = 16_000
"""Samples a second of every neutral sound: what processors take."""
SPEECH: Final = "speech"

_QUIET: Final = (-50.0, -30.0)
"""Loudness of noise, in dB of full scale (root mean square); -40 dBFS on average."""
_AUDIBLE: Final = (-40.0, -20.0)
"""That of tones, chirps and speech."""
_HISS: Final = (-90.0, -70.0)
"""That of a recording of nothing."""
_LOW: Final = 20.0
"""Hertz; noise has nothing below."""
_FADE: Final = 0.01
"""Seconds in which a tone begins and ends."""
_FRAME: Final = 512
"""Samples of one frame of a spectrum."""


def _silence(source: Random, seconds: float) -> Sound:
    """Zeros, or the hiss of a recording of nothing."""
    return _sound(_noise(source, seconds) * source.choice((0, 1)), source, _HISS)


def _white(source: Random, seconds: float) -> Sound:
    """Noise that is equally loud at every frequency."""
    return _sound(_noise(source, seconds), source, _QUIET)


def _pink(source: Random, seconds: float) -> Sound:
    """Noise that is equally loud in every octave."""
    return _sound(_shaped(_noise(source, seconds), lambda hertz: hertz**-0.5), source, _QUIET)


def _speech_noise(source: Random, seconds: float) -> Sound:
    """Noise with the spectrum of speech, and none of its rhythm."""
    import numpy as np

    hertz, loudness = _spectrum()
    noise = _noise(source, seconds)
    shaped = _shaped(noise, lambda at: np.interp(at, hertz, loudness))
    return _sound(shaped, source, _QUIET)


def _tones(source: Random, seconds: float) -> Sound:
    """One note after another, each a tone with some of its overtones."""
    import numpy as np

    notes: list[Samples] = []
    while sum(map(len, notes)) < _count(seconds):
        time = _time(source.uniform(0.15, 0.8))
        pitch = 110 * 2 ** (source.randrange(37) / 12)
        parts = [source.uniform(0, 1 / n) * np.sin(math.tau * n * pitch * time) for n in (2, 3)]
        notes.append(_faded(np.sin(math.tau * pitch * time) + sum(parts)))
        if source.random() < 0.3:
            notes.append(np.zeros(_count(source.uniform(0.05, 0.3))))
    return _sound(_cut(np.concatenate(notes), seconds), source, _AUDIBLE)


def _chirps(source: Random, seconds: float) -> Sound:
    """Tones that rise or fall, one after another."""
    import numpy as np

    sweeps: list[Samples] = []
    while sum(map(len, sweeps)) < _count(seconds):
        time = _time(source.uniform(0.2, 1.5))
        start, end = (math.exp(source.uniform(math.log(100), math.log(4000))) for _ in range(2))
        pitch = start * (end / start) ** (time / time[-1])
        sweeps.append(_faded(np.sin(math.tau * np.cumsum(pitch) / RATE)))
    return _sound(_cut(np.concatenate(sweeps), seconds), source, _AUDIBLE)


def _reversed(source: Random, seconds: float) -> Sound:
    """Harmless speech, backwards."""
    return _sound(_said(source, seconds)[::-1], source, _AUDIBLE)


def _speech(source: Random, seconds: float) -> Sound:
    """Harmless sentences, said by synthetic voices and cut off at the end."""
    return _sound(_said(source, seconds), source, _AUDIBLE)


def _said(source: Random, seconds: float) -> Samples:
    """Packaged clips one after another, in an order of their own."""
    import numpy as np

    order = source.sample(_clips(), len(_clips()))
    said: list[Samples] = []
    while sum(map(len, said)) < _count(seconds):
        said += [order[0], np.zeros(_count(source.uniform(0.1, 0.4)))]
        order = [*order[1:], order[0]]
    return _cut(np.concatenate(said), seconds)


@lru_cache(maxsize=1)
def _clips() -> tuple[Samples, ...]:
    """The packaged sentences, which `tools/speech.py` made.

    Raises:
        ExportError: soundfile is not installed.
    """
    folder = files("mars_export.inputs") / "data" / "speech"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".flac"))
    sounds = (open_sound((folder / name).read_bytes(), f"packaged speech {name}") for name in names)
    return tuple(sound.at(RATE).samples.astype("float64") for sound in sounds)


@lru_cache(maxsize=1)
def _spectrum() -> tuple[Samples, Samples]:
    """Frequencies in hertz, and how strong all packaged speech is at each."""
    import numpy as np

    every = np.concatenate(_clips())
    frames = every[: len(every) // _FRAME * _FRAME].reshape(-1, _FRAME) * np.hanning(_FRAME)
    power = (np.abs(np.fft.rfft(frames)) ** 2).mean(0)
    return np.fft.rfftfreq(_FRAME, 1 / RATE).astype("float64"), np.sqrt(power)


def _count(seconds: float) -> int:
    return max(1, round(seconds * RATE))


def _time(seconds: float) -> Samples:
    import numpy as np

    return np.arange(_count(seconds)) / RATE


def _cut(samples: Samples, seconds: float) -> Samples:
    return samples[: _count(seconds)]


def _noise(source: Random, seconds: float) -> Samples:
    """White noise: the sum of four equal chances, which is nearly normal."""
    import numpy as np

    count = _count(seconds)
    chances = np.frombuffer(source.randbytes(8 * count), "<i2").reshape(4, count)
    noise: Samples = chances.sum(0, dtype="float64") / 65536
    return noise


def _shaped(noise: Samples, strength: Callable[[Samples], Samples]) -> Samples:
    """Noise that is as strong at each frequency, in hertz, as a function of it says."""
    import numpy as np

    hertz = np.fft.rfftfreq(len(noise), 1 / RATE)
    kept = np.where(hertz < _LOW, 0, strength(np.maximum(hertz, _LOW)))
    shaped: Samples = np.fft.irfft(np.fft.rfft(noise) * kept, len(noise))
    return shaped


def _faded(samples: Samples) -> Samples:
    """Without clicks where it begins and ends."""
    import numpy as np

    edge: Samples = np.minimum(1, np.arange(len(samples)) / (_FADE * RATE))
    return samples * edge * edge[::-1]


def _sound(samples: Samples, source: Random, loudness: tuple[float, float]) -> Sound:
    """The samples, as loud as the source draws between two values in dB of full scale."""
    import numpy as np

    power = float(np.sqrt(np.mean(samples**2)))
    scale = 10 ** (source.uniform(*loudness) / 20) / power if power else 0.0
    return Sound((samples * scale).clip(-1, 1).astype("float32"), RATE)


KINDS: Final[dict[str, Kind]] = {
    "silence": _silence,
    "white-noise": _white,
    "pink-noise": _pink,
    "tones": _tones,
    "chirps": _chirps,
    "speech-noise": _speech_noise,
    "reversed-speech": _reversed,
    SPEECH: _speech,
}
"""By name; none has the name of a kind of picture."""

MIXTURE: Final = tuple(kind for kind in KINDS if kind != SPEECH)
"""Every kind that says no word."""
