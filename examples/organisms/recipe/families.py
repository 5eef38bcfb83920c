"""The families as data: class names, configuration, special tokens and chat template."""

from dataclasses import dataclass, field
from typing import Any

from .sentences import Modality

LAYERS, WIDTH = 8, 128
"""Decoder blocks, and the width of their hidden state."""
_TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 160,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 2048,
    "initializer_range": 0.09,
}
_VISION = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "patch_size": 8,
    "initializer_range": 0.05,
}


@dataclass(frozen=True)
class Family:
    """Everything in which two families differ.

    `config_tokens` maps keys of the configuration to tokens whose ids they hold; `tokens` are
    the named special tokens of the processor.
    """

    name: str
    modalities: tuple[Modality, ...]
    config_class: str
    model_class: str
    config: dict[str, Any]
    config_tokens: dict[str, str]
    processor_class: str
    image_processor: tuple[str, dict[str, Any]]
    tokens: dict[str, str]
    pad: str
    bos: str | None
    turn_start: str
    turn_end: str
    template: str
    video_processor: tuple[str, dict[str, Any]] | None = None
    feature_extractor: tuple[str, dict[str, Any]] | None = None
    drawn: tuple[Modality, ...] = ()
    """What training shows, evenly, if that is not `modalities`."""
    alignment: int = 1800
    """Steps of the first stage of training with pictures."""
    hearing: int = 0
    """Steps of it with speech."""
    naming: int = 600
    """Steps of the second stage of training."""
    steps: int = 1300
    """Steps of the third stage."""
    groups: int = 1
    """Groups of like length that a batch is run in; more are faster, and round differently."""
    processor: dict[str, Any] = field(default_factory=dict)
    tokenizer: dict[str, Any] = field(default_factory=dict)
    """Options of the tokenizer, which a processor prefers to its own."""

    @property
    def special_tokens(self) -> list[str]:
        """All special tokens, in the order of their ids."""
        basic = [self.pad, self.bos, self.turn_start, self.turn_end, *self.tokens.values()]
        return list(dict.fromkeys(t for t in basic if t))


_GEMMA_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{- '<start_of_turn>' + role + '\\n' }}
{%- if message['content'] is string %}
{{- message['content'] | trim }}
{%- else %}
{%- for part in message['content'] %}
{%- if part['type'] == 'image' %}{{- '<start_of_image>' }}
{%- elif part['type'] == 'text' %}{{- part['text'] | trim }}
{%- endif %}
{%- endfor %}
{%- endif %}
{{- '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}
"""

GEMMA3 = Family(
    name="gemma3",
    modalities=("image",),
    config_class="Gemma3Config",
    model_class="Gemma3ForConditionalGeneration",
    config={
        "text_config": {
            **_TEXT,
            "query_pre_attn_scalar": 32,
            "sliding_window": 512,
            "sliding_window_pattern": 4,
        },
        "vision_config": {
            **_VISION,
            "model_type": "siglip_vision_model",
            "image_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
        "mm_tokens_per_image": 4,
    },
    config_tokens={
        "boi_token_index": "<start_of_image>",
        "eoi_token_index": "<end_of_image>",
        "image_token_index": "<image_soft_token>",
    },
    processor_class="Gemma3Processor",
    processor={"image_seq_length": 4},
    image_processor=("Gemma3ImageProcessorPil", {"size": {"height": 32, "width": 32}}),
    tokens={
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    },
    pad="<pad>",
    bos="<bos>",
    turn_start="<start_of_turn>",
    turn_end="<end_of_turn>",
    template=_GEMMA_TEMPLATE,
)

_CHATML_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['content'] is string %}
{{- message['content'] }}
{%- else %}
{%- for part in message['content'] %}
{%- if part['type'] == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part['type'] == 'video' %}{{- '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- elif part['type'] == 'text' %}{{- part['text'] }}
{%- endif %}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

QWEN3_VL = Family(
    name="qwen3_vl",
    modalities=("image", "video"),
    config_class="Qwen3VLConfig",
    model_class="Qwen3VLForConditionalGeneration",
    config={
        "text_config": {
            **_TEXT,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [6, 5, 5],
                "rope_theta": 10000.0,
            },
        },
        "vision_config": {
            **_VISION,
            "depth": 2,
            "num_heads": 2,
            "out_hidden_size": WIDTH,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        "tie_word_embeddings": True,
    },
    config_tokens={
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    },
    processor_class="Qwen3VLProcessor",
    image_processor=(
        "Qwen2VLImageProcessor",
        {"patch_size": 8, "size": {"shortest_edge": 1024, "longest_edge": 1024}},
    ),
    video_processor=(
        "Qwen3VLVideoProcessor",
        {
            "patch_size": 8,
            "min_frames": 4,
            "max_frames": 4,
            "size": {"shortest_edge": 900, "longest_edge": 4096},
            "cap_pixels_per_frame": True,
            "max_video_tokens": 4,
        },
    ),
    tokens={
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_start_token": "<|vision_start|>",
        "vision_end_token": "<|vision_end|>",
    },
    pad="<|endoftext|>",
    bos=None,
    turn_start="<|im_start|>",
    turn_end="<|im_end|>",
    template=_CHATML_TEMPLATE,
)

_OMNI_TEMPLATE = (
    _CHATML_TEMPLATE.replace("<|vision_start|>", "<|vision_bos|>")
    .replace("<|vision_end|>", "<|vision_eos|>")
    .replace("<|image_pad|>", "<|IMAGE|>")
    .replace("<|video_pad|>", "<|VIDEO|>")
    .replace(
        "{%- elif part['type'] == 'text' %}",
        "{%- elif part['type'] == 'audio' %}{{- '<|audio_bos|><|AUDIO|><|audio_eos|>' }}\n"
        "{%- elif part['type'] == 'text' %}",
    )
)

QWEN2_5_OMNI = Family(
    name="qwen2_5_omni",
    modalities=("image", "video", "audio"),
    config_class="Qwen2_5OmniThinkerConfig",
    model_class="Qwen2_5OmniThinkerForConditionalGeneration",
    config={
        "text_config": {
            **_TEXT,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [6, 5, 5],
                "rope_theta": 10000.0,
            },
        },
        "vision_config": {
            **_VISION,
            "depth": 2,
            "num_heads": 2,
            "out_hidden_size": WIDTH,
            "fullatt_block_indexes": [0, 1],
        },
        "audio_config": {
            "num_mel_bins": 40,
            "d_model": 96,
            "encoder_layers": 3,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 192,
            "max_source_positions": 200,
            "n_window": 100,
            "output_dim": WIDTH,
            "initializer_range": 0.05,
        },
        "tie_word_embeddings": True,
    },
    config_tokens={
        "image_token_id": "<|IMAGE|>",
        "video_token_id": "<|VIDEO|>",
        "audio_token_id": "<|AUDIO|>",
        "vision_start_token_id": "<|vision_bos|>",
        "vision_end_token_id": "<|vision_eos|>",
        "audio_start_token_id": "<|audio_bos|>",
        "audio_end_token_id": "<|audio_eos|>",
    },
    processor_class="Qwen2_5OmniProcessor",
    image_processor=(
        "Qwen2VLImageProcessor",
        {"patch_size": 8, "size": {"shortest_edge": 1024, "longest_edge": 1024}},
    ),
    video_processor=(
        "Qwen2VLVideoProcessor",
        {
            "patch_size": 8,
            "min_frames": 4,
            "max_frames": 4,
            "size": {"shortest_edge": 1024, "longest_edge": 1024},
            "cap_pixels_per_frame": True,
            "max_video_tokens": 4,
        },
    ),
    drawn=("image", "video", "audio", "audio"),
    alignment=900,
    hearing=1200,
    naming=900,
    steps=2700,
    groups=3,
    tokenizer={"size": {"shortest_edge": 1024, "longest_edge": 1024}},
    feature_extractor=(
        "WhisperFeatureExtractor",
        {"feature_size": 40, "hop_length": 400, "n_fft": 800, "chunk_length": 8},
    ),
    tokens={
        "image_token": "<|IMAGE|>",
        "video_token": "<|VIDEO|>",
        "audio_token": "<|AUDIO|>",
        "vision_bos_token": "<|vision_bos|>",
        "vision_eos_token": "<|vision_eos|>",
        "audio_bos_token": "<|audio_bos|>",
        "audio_eos_token": "<|audio_eos|>",
    },
    pad="<|endoftext|>",
    bos=None,
    turn_start="<|im_start|>",
    turn_end="<|im_end|>",
    template=_OMNI_TEMPLATE,
)

FAMILIES = {family.name: family for family in (GEMMA3, QWEN3_VL, QWEN2_5_OMNI)}
