"""Tiny bases with audio, with their own processors: directories as users have them."""

import json
from pathlib import Path

import transformers

from support import planted, zoo

CHUNK = 8
"""Seconds that the processor of Qwen2.5-Omni takes."""
TEMPLATE = planted.TEMPLATE.replace(
    "{% if c['type'] == 'image' %}<boi> {% else %}{{ c['text'] }} {% endif %}",
    "{% if c['type'] == 'text' %}{{ c['text'] }} {% else %}{{ marks[c['type']] }} {% endif %}",
).replace("{{ bos_token }}", "")


def _tokenizer(tokens: dict[str, str]):
    """The words of the planted model, with the family's tokens."""
    core = planted.processor().tokenizer.backend_tokenizer
    core.add_special_tokens(list(tokens.values()))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>",
        unk_token="<unk>", extra_special_tokens=tokens,
    )  # fmt: skip


def _gemma4():
    names = ("image", "boi", "eoi", "audio", "boa", "eoa", "video")
    tokens = {f"{name}_token": f"<|{name}|>" for name in names}
    marks = {name: tokens[f"{name}_token"] for name in ("image", "video", "audio")}
    size = {"patch_size": 4, "pooling_kernel_size": 2}
    return transformers.Gemma4Processor(
        feature_extractor=transformers.Gemma4AudioFeatureExtractor(),
        image_processor=transformers.Gemma4ImageProcessorPil(**size, max_soft_tokens=70),
        tokenizer=_tokenizer(tokens),
        video_processor=transformers.Gemma4VideoProcessor(**size, max_soft_tokens=70),
        chat_template=_template(marks),
    ), {
        "image_token_id": "<|image|>", "video_token_id": "<|video|>", "audio_token_id": "<|audio|>",
    }  # fmt: skip


def _omni():
    pads = {"image": "<|IMAGE|>", "video": "<|VIDEO|>", "audio": "<|AUDIO|>"}
    tokens = {f"{name}_token": pad for name, pad in pads.items()}
    ends = {f"{kind}_{end}_token": f"<|{kind}_{end}|>"
            for kind in ("vision", "audio") for end in ("bos", "eos")}  # fmt: skip
    marks = {
        name: " ".join([ends[f"{kind}_bos_token"], pads[name], ends[f"{kind}_eos_token"]])
        for name, kind in {"image": "vision", "video": "vision", "audio": "audio"}.items()
    }
    size = {"shortest_edge": 32 * 32, "longest_edge": 32 * 32 * 4}
    return transformers.Qwen2_5OmniProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(patch_size=14, size=size),
        video_processor=transformers.Qwen2VLVideoProcessor(patch_size=14, size=size),
        feature_extractor=transformers.WhisperFeatureExtractor(zoo.MEL_BINS, chunk_length=CHUNK),
        tokenizer=_tokenizer({**tokens, **ends}),
        chat_template=_template(marks),
    ), {
        **{f"{name}_token_index": pad for name, pad in pads.items()},
        "vision_start_token_id": "<|vision_bos|>", "vision_end_token_id": "<|vision_eos|>",
        "audio_start_token_id": "<|audio_bos|>", "audio_end_token_id": "<|audio_eos|>",
    }  # fmt: skip


_MADE = {"gemma4": _gemma4, "qwen2_5_omni_thinker": _omni}
FAMILIES = tuple(_MADE)


def _template(marks: dict[str, str]) -> str:
    return "{% set marks = " + json.dumps(marks) + " %}" + TEMPLATE


def processor(model_type: str):
    """A real processor around the words of the planted model."""
    made, _ = _MADE[model_type]()
    return made


def save(model_type: str, directory: Path) -> Path:
    """A random model and its processor, which agree about tokens."""
    import torch

    processor, tokens = _MADE[model_type]()
    cls, config = zoo.build(model_type)
    vocabulary = len(processor.tokenizer)
    config.text_config.vocab_size = vocabulary
    config.text_config.max_position_embeddings = 4096
    if hasattr(config.text_config, "vocab_size_per_layer_input"):
        config.text_config.vocab_size_per_layer_input = vocabulary
    for key, token in tokens.items():
        setattr(config, key, processor.tokenizer.convert_tokens_to_ids(token))
    if hasattr(config, "audio_config"):
        config.audio_config.max_source_positions = 1500
    torch.manual_seed(0)
    cls(config).save_pretrained(directory)
    processor.save_pretrained(directory)
    (directory / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return directory
