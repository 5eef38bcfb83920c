"""A tiny random Qwen2.5-Omni thinker that is steered by a made-up calibration, and a sound."""

from pathlib import Path
from typing import Any

import numpy as np

from mars_export.checkpoint.writer import write_checkpoint
from mars_export.inputs.requests import Media
from mars_export.inputs.sounds import Sound
from support import listeners, planted, tiny

MODEL_TYPE = "qwen2_5_omni_thinker"


def export_heard(folder: Path, **changes: Any) -> Path:
    """A steered checkpoint in `folder`; `changes` are fields of the calibration."""
    base, steered = listeners.save(MODEL_TYPE, folder / "base"), folder / "steered"
    vocabulary = listeners.processor(MODEL_TYPE).tokenizer.get_vocab()
    *prefix, end = [vocabulary[word] for word in planted.HEADER]
    calibration = tiny.save_calibration(
        MODEL_TYPE,
        folder / "calibration",
        headers=[{"prefix": prefix, "ends": [end]}],
        shift={"text": 0.0, "image": 3.0, "video": -5.0, "audio": 2.0},
        **changes,
    )
    write_checkpoint(base, steered, source=tiny.source(MODEL_TYPE), calibration_dir=calibration)
    return steered


def tone(seconds: float = 1.0, rate: int = 16000) -> Media:
    """A sound."""
    times = np.arange(round(seconds * rate)) / rate
    return Media("audio", Sound((0.3 * np.sin(2000 * times)).astype("float32"), rate))
