"""Real processors that hear, and a tiny random Qwen2.5-Omni thinker that is steered by a made-up
calibration."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from mars_export.checkpoint.writer import write_checkpoint
from mars_export.inputs.requests import Media
from mars_export.inputs.sounds import Sound
from support import planted, tiny, zoo

CHUNK = 4
"""Seconds that the processor takes."""
_MARKS = {
    "image_token": "<|IMAGE|>", "video_token": "<|VIDEO|>", "audio_token": "<|AUDIO|>",
    "vision_bos_token": "<|vision_bos|>", "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>",
}  # fmt: skip
_SHOWN = (
    "{% if c['type'] == 'image' %}<|vision_bos|><|IMAGE|><|vision_eos|> "
    "{% elif c['type'] == 'video' %}<|vision_bos|><|VIDEO|><|vision_eos|> "
    "{% elif c['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|> {% else %}"
)
MODEL_TYPE = "qwen2_5_omni_thinker"


def processor() -> transformers.Qwen2_5OmniProcessor:
    """A real processor around the words of the planted model."""
    core = planted.processor().tokenizer.backend_tokenizer
    core.add_special_tokens(list(_MARKS.values()))
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
        extra_special_tokens=_MARKS,
    )  # fmt: skip
    template = planted.TEMPLATE.replace("{% if c['type'] == 'image' %}<boi> {% else %}", _SHOWN)
    return transformers.Qwen2_5OmniProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(patch_size=14),
        video_processor=transformers.Qwen2VLVideoProcessor(patch_size=14),
        feature_extractor=transformers.WhisperFeatureExtractor(
            zoo.MEL_BINS, chunk_length=CHUNK
        ),
        tokenizer=words,
        chat_template=template.replace("{{ bos_token }}", ""),
    )  # fmt: skip


def gemma4() -> transformers.Gemma4Processor:
    """A real processor of Gemma 4, which takes 30 s, around the same words."""
    from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
    from transformers.models.gemma4.video_processing_gemma4 import Gemma4VideoProcessor

    marks = {"image_token": "<img>", "boi_token": "<boi>", "eoi_token": "<eoi>"}
    marks |= {"audio_token": _MARKS["audio_token"], "boa_token": "<boa>", "eoa_token": "<eoa>"}
    core = planted.processor().tokenizer.backend_tokenizer
    core.add_special_tokens(list(marks.values()))
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<bos>", unk_token="<unk>",
        extra_special_tokens=marks,
    )  # fmt: skip
    template = planted.TEMPLATE.replace("'image' %}<boi>", f"'audio' %}}{marks['audio_token']}")
    return transformers.Gemma4Processor(
        transformers.Gemma4AudioFeatureExtractor(), Gemma4ImageProcessorPil(), words,
        Gemma4VideoProcessor(), chat_template=template,
    )  # fmt: skip


def export_heard(folder: Path, **changes: Any) -> Path:
    """A steered checkpoint in `folder`; `changes` are fields of the calibration."""
    base, steered, made = folder / "base", folder / "steered", processor()
    vocabulary = made.tokenizer.get_vocab()
    cls, config = zoo.build(MODEL_TYPE)
    config.text_config.vocab_size = len(vocabulary)
    names = {"image": "image_token", "video": "video_token", "audio": "audio_token"}
    for modality, name in names.items():
        setattr(config, f"{modality}_token_id", vocabulary[_MARKS[name]])
    config.audio_start_token_id = vocabulary[_MARKS["audio_bos_token"]]
    config.audio_end_token_id = vocabulary[_MARKS["audio_eos_token"]]
    config.vision_start_token_id = vocabulary[_MARKS["vision_bos_token"]]
    config.vision_end_token_id = vocabulary[_MARKS["vision_eos_token"]]
    torch.manual_seed(0)
    cls(config).save_pretrained(base)
    made.save_pretrained(base)
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
