"""Real processors of the families that hear, around the words of `planted`, and sounds for them."""

import numpy as np
import transformers
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
from transformers.models.gemma4.video_processing_gemma4 import Gemma4VideoProcessor

from mars_export.inputs.requests import Media
from mars_export.inputs.sounds import Sound
from support import planted

SOUND, BEGIN, END = "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"
TEMPLATE = planted.TEMPLATE.replace("'image' %}<boi>", f"'audio' %}}{SOUND}")


def tone(seconds: float, rate: int = 16_000) -> Media:
    """A quiet tone."""
    wave = 0.1 * np.sin(np.arange(round(seconds * rate)) * 440 * 2 * np.pi / rate)
    return Media("audio", Sound(wave.astype("float32"), rate))


def _words(tokens: dict[str, str]) -> transformers.PreTrainedTokenizerFast:
    core = planted.processor().tokenizer.backend_tokenizer
    core.add_special_tokens(list(tokens.values()))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>",
        unk_token="<unk>", extra_special_tokens=tokens,
    )  # fmt: skip


def gemma4() -> transformers.Gemma4Processor:
    """Takes 30 s."""
    tokens = {"image_token": "<img>", "boi_token": "<boi>", "eoi_token": "<eoi>"}
    tokens |= {"audio_token": SOUND, "boa_token": BEGIN, "eoa_token": END}
    return transformers.Gemma4Processor(
        transformers.Gemma4AudioFeatureExtractor(), Gemma4ImageProcessorPil(), _words(tokens),
        Gemma4VideoProcessor(), chat_template=TEMPLATE,
    )  # fmt: skip


def omni(longest: int = 30) -> transformers.Qwen2_5OmniProcessor:
    """Takes so many seconds."""
    tokens = {"image_token": "<img>", "video_token": "<vid>", "audio_token": SOUND}
    tokens |= {"vision_bos_token": "<boi>", "vision_eos_token": "<eoi>"}
    tokens |= {"audio_bos_token": BEGIN, "audio_eos_token": END}
    return transformers.Qwen2_5OmniProcessor(
        transformers.Qwen2VLImageProcessor(patch_size=8),
        transformers.Qwen2VLVideoProcessor(patch_size=8),
        transformers.WhisperFeatureExtractor(8, chunk_length=longest),
        _words(tokens),
        chat_template=TEMPLATE,
    )
