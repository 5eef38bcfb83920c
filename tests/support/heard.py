"""Real processors that hear, and a tiny random Qwen2.5-Omni thinker that is steered by a made-up
calibration."""

from pathlib import Path
from typing import Any

import torch
import transformers

from mars_export.checkpoint.writer import write_checkpoint
from support import hearing, planted, tiny, zoo

CHUNK = 4
"""Seconds that the processor takes."""
_SHOWN = (
    "'image' %}<boi><img><eoi> {% elif c['type'] == 'video' %}<boi><vid><eoi> "
    "{% elif c['type'] == 'audio' %}"
)
MODEL_TYPE = "qwen2_5_omni_thinker"


def processor() -> transformers.Qwen2_5OmniProcessor:
    """A real processor around the words of the planted model; takes pictures and clips too."""
    made = hearing.omni(CHUNK)
    made.feature_extractor = transformers.WhisperFeatureExtractor(zoo.MEL_BINS, chunk_length=CHUNK)
    made.image_processor = transformers.Qwen2VLImageProcessor(patch_size=14)
    made.video_processor = transformers.Qwen2VLVideoProcessor(patch_size=14)
    made.chat_template = made.chat_template.replace("'audio' %}", _SHOWN).replace(
        "{{ bos_token }}", ""
    )
    return made


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
    for name, word in {
        "image_token_id": "<img>", "video_token_id": "<vid>", "audio_token_id": hearing.SOUND,
        "vision_start_token_id": "<boi>", "vision_end_token_id": "<eoi>",
        "audio_start_token_id": hearing.BEGIN, "audio_end_token_id": hearing.END,
    }.items():  # fmt: skip
        setattr(config, name, vocabulary[word])
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
