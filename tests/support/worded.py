"""A tiny random Gemma 3 that has a real processor, steered by a made-up calibration."""

from pathlib import Path
from typing import Any

import torch

from mars_export.checkpoint.writer import write_checkpoint
from support import planted, tiny


def export_worded(folder: Path, processor: Any, **changes: Any) -> tuple[Path, Path]:
    """Base and steered checkpoint in `folder`; `changes` are fields of the calibration."""
    base, steered = folder / "base", folder / "steered"
    vocabulary = processor.tokenizer.get_vocab()
    cls, config = tiny.BUILDERS["gemma3"]()
    config.text_config.vocab_size = len(vocabulary)
    config.image_token_id = vocabulary["<img>"]
    torch.manual_seed(0)
    cls(config).save_pretrained(base)
    processor.save_pretrained(base)
    *prefix, end = [vocabulary[word] for word in planted.HEADER]
    calibration = tiny.save_calibration(
        "gemma3",
        folder / "calibration",
        headers=[{"prefix": prefix, "ends": [end]}],
        **changes,
    )
    write_checkpoint(base, steered, source=tiny.source("gemma3"), calibration_dir=calibration)
    return base, steered
