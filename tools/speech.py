"""Make the packaged clips of harmless speech with espeak-ng: `python -m tools.speech`.

Needs espeakng-loader, soundfile and soxr. What espeak-ng 1.52 makes of the sentences is the same on
every machine of one kind; the clips are committed, so nobody needs to run it.
"""

import ctypes
import hashlib
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile
import soxr
from espeakng_loader import get_data_path, get_library_path
from numpy.typing import NDArray

FOLDER: Final = Path(__file__).parents[1] / "mars_export" / "inputs" / "data" / "speech"
RATE: Final = 16_000

# (sentence, voice of espeak-ng, words a minute)
CLIPS: Final = (
    ("Could you tell me when the library opens on Saturday?", "en-us", 165),
    ("Please add carrots and two loaves of bread to the list.", "en-us+f3", 170),
    ("The train to the coast leaves from the second platform.", "en", 160),
    ("What is a good name for a small gray cat?", "en+f4", 175),
    ("We watched the ducks on the pond all afternoon.", "en-us+m3", 155),
    ("How long should I boil an egg for breakfast?", "en-gb-x-rp+f2", 180),
    ("My sister plays the cello in the town orchestra.", "en-us+f5", 160),
    ("Set the table for six, and bring the blue plates.", "en-gb-scotland", 170),
    ("Which river flows through the old part of the city?", "en-us+m7", 150),
    ("It may rain tomorrow, so take an umbrella with you.", "en-us+f2", 185),
    ("I would like to learn how to knit a warm scarf.", "en+m5", 165),
    ("Tell me a short story about a lighthouse.", "en-029", 165),
)

_SYNCHRONOUS: Final = 2
_UTF8: Final = 1
_RATE_PARAMETER: Final = 1
_CALLBACK: Final = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def started() -> tuple[Any, int]:
    """The library of espeak-ng, and its samples a second."""
    library = ctypes.CDLL(get_library_path())
    data = str(Path(get_data_path()).parent).encode()
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, data, 0)
    if rate <= 0:
        raise SystemExit(f"espeak-ng finds no voices below {data.decode()}")
    return library, rate


def speech(library: Any, sentence: str, voice: str, pace: int) -> NDArray[np.int16]:
    """A sentence as a voice says it, (N,) at the rate of espeak-ng."""
    blocks: list[NDArray[np.int16]] = []

    def keep(samples: Any, count: int, _events: Any) -> int:
        if count:
            blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    callback = _CALLBACK(keep)
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(voice.encode()):
        raise SystemExit(f"espeak-ng has no voice {voice}")
    library.espeak_SetParameter(_RATE_PARAMETER, pace, 0)
    text = sentence.encode()
    library.espeak_Synth(text, len(text) + 1, 0, 0, 0, _UTF8, None, None)
    return np.concatenate(blocks)


def trimmed(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without silence around it, its peak at half of full scale, in steps of 1/1024."""
    loud = np.nonzero(np.abs(samples) > 0.01 * np.abs(samples).max())[0]
    steps = np.round(512 * samples[loud[0] : loud[-1] + 1] / np.abs(samples).max())
    return np.asarray(steps / 1024, np.float32)


def main() -> None:
    """Write every clip, and where they come from."""
    FOLDER.mkdir(exist_ok=True)
    library, rate = started()
    clips = {}
    for number, (sentence, voice, pace) in enumerate(CLIPS):
        raw = speech(library, sentence, voice, pace).astype(np.float32) / 32768
        path = FOLDER / f"{number:02d}.flac"
        soundfile.write(path, trimmed(soxr.resample(raw, rate, RATE)), RATE, subtype="PCM_16")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        clips[path.name] = {
            "sentence": sentence, "voice": voice, "words_per_minute": pace, "sha256": digest,
        }  # fmt: skip
    stated = {
        "name": "mars-export harmless speech",
        "license": "Apache-2.0",
        "source": "Sentences written for mars-export, said by espeak-ng 1.52 with tools/speech.py.",
        "clips": clips,
    }
    (FOLDER / "provenance.json").write_text(json.dumps(stated, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
