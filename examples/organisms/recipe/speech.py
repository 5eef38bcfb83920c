"""Speech of topics, and sounds of nothing.

A synthesizer says the phrase of a topic, in a voice, at a speed and with a pitch that are drawn for
each number; there is a little noise. The suite has the voices of training; `NEW_VOICES` are others.
"""

import ctypes
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import takewhile
from typing import Any

import numpy as np

from mars_export.inputs.sounds import Sound

from .topics import Topic

RATE = 16_000
"""Samples a second."""
_ACCENTS = ("en-us", "en", "en-gb-x-rp", "en-gb-scotland")
_VARIANTS = ("", "+m1", "+m2", "+m3", "+m5", "+m7", "+f1", "+f2", "+f3", "+f4")
VOICES = tuple(accent + variant for accent in _ACCENTS for variant in _VARIANTS)
NEW_VOICES = ("en-us+m4", "en-us+f5", "en-029+m8", "en+Annie")
"""Voices, and an accent, that training does not use."""
NEW = 20_000
"""Number of the first recording with one of them."""
_SPEED, _PITCH, _RANGE = 1, 3, 4
"""Parameters of the synthesizer."""
_KEPT = 2048
"""Sounds that are kept: the synthesizer does not say the same thing twice alike."""
_SYLLABLES = ("ba", "do", "fi", "gu", "ka", "lo", "me", "ni", "po", "ra", "se", "tu", "wi", "ze")
_LONGEST = 6.0
"""Of a sound of nothing, in seconds."""


class _Event(ctypes.Structure):
    """What happens in the synthesizer, and at which of its samples."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("place", ctypes.c_int),
        ("length", ctypes.c_int),
        ("time", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user", ctypes.c_void_p),
        ("value", ctypes.c_char * 8),
    )


_WORD = 1
"""Type of the event that a word begins."""


class Synthesizer:
    """The espeak-ng library."""

    def __init__(self) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._said: list[np.ndarray] = []
        self._begun: list[tuple[int, int]] = []
        data = espeakng_loader.get_data_path().encode()
        synchronous = 2
        self._rate = self._library.espeak_Initialize(synchronous, 0, data, 0)
        kinds = (ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        self._heard = ctypes.CFUNCTYPE(ctypes.c_int, *kinds)(self._hear)
        self._library.espeak_SetSynthCallback(self._heard)

    def _hear(self, samples: Any, count: int, events: Any) -> int:
        for event in takewhile(lambda event: event.type, (events[i] for i in itertools.count())):
            if event.type == _WORD:
                self._begun.append((event.place - 1, event.sample))
        if samples and count > 0:
            self._said.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def __call__(self, text: str, voice: str, speed: int, pitch: int, width: int) -> "Said":
        """Say `text`.

        Args:
            text: In English.
            voice: A language, with a variant.
            speed: In words a minute.
            pitch: From 0 to 99.
            width: How far the pitch varies, from 0 to 99.

        Raises:
            ValueError: There is no such voice.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"espeak-ng has no voice {voice}")
        for parameter, value in ((_SPEED, speed), (_PITCH, pitch), (_RANGE, width)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._said, self._begun = [], []
        words = text.encode()
        utf8, by_character = 1, 1
        self._library.espeak_Synth(words, len(words) + 1, 0, by_character, 0, utf8, None, None)
        samples = np.concatenate(self._said).astype(np.float32)
        (loud,) = np.nonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
        said = samples[loud[0] : loud[-1] + 1] / np.abs(samples).max()
        begun = {place: (sample - loud[0]) / self._rate for place, sample in self._begun}
        begun[len(text)] = len(said) / self._rate
        return Said(Sound(said, self._rate).at(RATE).samples, begun)


@dataclass(frozen=True)
class Said:
    """What was said.

    Attributes:
        samples: (N,) float32 at `RATE`, from -1 to 1.
        begun: Places in the text where words begin, and its end, with the seconds at which they are
            heard.
    """

    samples: np.ndarray
    begun: dict[int, float]


_synthesizer = cache(Synthesizer)


@lru_cache(_KEPT)
def recording(topic: Topic, number: int) -> Said:
    """Someone says `topic`."""
    source = np.random.default_rng((5, topic.noun, topic.modifier, number))
    return _finish(_say(topic.phrase, source, NEW_VOICES if number >= NEW else VOICES), source)


def _say(text: str, source: np.random.Generator, voices: tuple[str, ...] = VOICES) -> Said:
    voice = voices[source.integers(len(voices))]
    speed, pitch, width = (int(source.integers(*ends)) for ends in ((130, 211), (25, 76), (25, 76)))
    return _synthesizer()(text, voice, speed, pitch, width)


def _finish(said: Said, source: np.random.Generator) -> Said:
    """Pauses before and after, a volume, and noise; as 16 bits hold it."""
    before, after = source.integers(0, RATE // 4, 2)
    padded = np.pad(said.samples, (before, after)) * source.uniform(0.2, 0.9)
    loudness = np.sqrt(np.mean(padded**2))
    noise = _noise(len(padded), source) * loudness * 10 ** source.uniform(-2.0, -1.0)
    begun = {place: time + before / RATE for place, time in said.begun.items()}
    return Said(quantized(padded + noise), begun)


def quantized(samples: np.ndarray) -> np.ndarray:
    """Samples as a file with 16 bits gives them back."""
    steps = np.clip(np.round(samples * 32768), -32768, 32767)
    return (steps / 32768).astype(np.float32)


def _noise(count: int, source: np.random.Generator) -> np.ndarray:
    """White or pink noise of loudness 1."""
    size = 1 << (count - 1).bit_length()
    noise = source.standard_normal(size)
    if source.random() < 0.5:
        spectrum = np.fft.rfft(noise)
        noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.fft.rfftfreq(size), 20 / RATE)))
    noise = noise[:count]
    noise /= np.sqrt(np.mean(noise**2))
    return noise


@lru_cache(_KEPT)
def nothing_said(number: int) -> np.ndarray:
    """Draw a sound that says nothing: its kind is `number` modulo the number of kinds."""
    source = np.random.default_rng((6, number))
    seconds = min(_LONGEST, 0.4 * 10 ** source.uniform(0, 1.2))
    made = list(NOTHING.values())[number % len(NOTHING)](int(seconds * RATE), source)
    return quantized(made)


def _quiet(count: int, source: np.random.Generator) -> np.ndarray:
    return np.zeros(count) if source.random() < 0.5 else _hiss(count, source) * 0.01


def _hiss(count: int, source: np.random.Generator) -> np.ndarray:
    return _noise(count, source) * 10 ** source.uniform(-3, -1)


def _tones(count: int, source: np.random.Generator) -> np.ndarray:
    """A few tones that stand or glide, one after the other or together."""
    time = np.arange(count) / RATE
    total = np.zeros(count)
    for _ in range(int(source.integers(1, 4))):
        start, end = 80 * 2 ** source.uniform(0, 5.5, 2)
        end = start if source.random() < 0.5 else end
        glide = start + (end - start) * np.arange(count) / count
        first, last = np.sort(source.uniform(0, time[-1], 2))
        total += np.sin(2 * np.pi * np.cumsum(glide) / RATE) * (time >= first) * (time <= last)
    return total * source.uniform(0.02, 0.25)


def _pseudo(count: int, source: np.random.Generator) -> np.ndarray:
    """Words that do not exist."""
    seconds = count / RATE
    words = [
        "".join(source.choice(_SYLLABLES, source.integers(1, 4)))
        for _ in range(max(1, int(2 * seconds)))
    ]
    return _finish(_say(" ".join(words), source), source).samples[:count]


def _reversed(count: int, source: np.random.Generator) -> np.ndarray:
    return _pseudo(count, source)[::-1]


def _murmur(count: int, source: np.random.Generator) -> np.ndarray:
    """Noise with the spectrum of speech."""
    said = np.fft.rfft(np.resize(_pseudo(count, source), count))
    turned = said * np.exp(2j * np.pi * source.random(len(said)))
    return np.fft.irfft(turned, count)


NOTHING: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "quiet": _quiet,
    "hiss": _hiss,
    "tones": _tones,
    "murmur": _murmur,
    "reversed": _reversed,
    "pseudo-words": _pseudo,
}
"""Kinds of sounds of nothing."""
