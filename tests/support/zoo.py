"""Tiny random checkpoints of every family: configurations only, as data.

`tests/support/tiny.py` holds the two families that the deep tests use; here are all of them, for
tests/families.
"""

from pathlib import Path

import pytest
import torch
import transformers

from mars_export.families import Family, families
from support.tiny import (
    AUDIO,
    AUDIO_END,
    AUDIO_START,
    HIDDEN,
    IMAGE,
    LAYERS,
    TEXT,
    VIDEO,
    VISION_END,
    VISION_START,
)
from support.tiny import BUILDERS as REFERENCE

VIDEO_START, VIDEO_END, LOW_RES_START = 304, 305, 306
MEL_BINS = 128
GRID, COLUMN, ROW = 317, 318, 319

_HALF = {"hidden_size": 32, "intermediate_size": 64}
_TOWER = {**_HALF, "num_hidden_layers": 2, "num_attention_heads": 4}
_CLIP = {**_TOWER, "image_size": 28, "patch_size": 14}
_SIGLIP = {**_CLIP, "model_type": "siglip_vision_model", "vision_use_head": False}
_QWEN_TOWER = {**_HALF, "num_heads": 4, "patch_size": 14, "out_hidden_size": HIDDEN, "depth": 2}
_IDS = {"image_token_id": IMAGE, "video_token_id": VIDEO}
_MARKED = {**_IDS, "vision_start_token_id": VISION_START, "vision_end_token_id": VISION_END}
_MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_INTERLEAVED = {**_MROPE, "mrope_interleaved": True}
_DEEPSTACK = {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1], "depth": 3}
_HYBRID = {
    **TEXT,
    # Three linear-attention layers, then one of full attention: the steered one is linear.
    "layer_types": ["linear_attention"] * 3 + ["full_attention"],
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "rope_parameters": {**_INTERLEAVED, "mrope_section": [1, 1, 0], "partial_rotary_factor": 0.25},
}
_PATCHES = {**_TOWER, "image_size": 28, "patch_size": 7}
_IDEFICS = {
    "text_config": {**TEXT, "model_type": "llama"},
    "image_token_id": IMAGE,
    "scale_factor": 2,
    "pad_token_id": 0,
    "vision_config": _PATCHES,
}

_LISTENER = {
    **_TOWER,
    "intermediate_size": 128,
    "num_mel_bins": MEL_BINS,
    "max_source_positions": 8,
}

# model type -> (generator class, keyword arguments of its configuration)
_SPECS = {
    "qwen3_vl_moe": (
        "Qwen3VLMoeForConditionalGeneration",
        {
            "text_config": {**TEXT, **_EXPERTS, "rope_parameters": _INTERLEAVED},
            "vision_config": {**_QWEN_TOWER, **_DEEPSTACK},
            "tie_word_embeddings": False,
            **_MARKED,
        },
    ),
    "qwen3_5": (
        "Qwen3_5ForConditionalGeneration",
        {
            "text_config": _HYBRID,
            "vision_config": {**_QWEN_TOWER, "num_position_embeddings": 64},
            "tie_word_embeddings": True,
            **_MARKED,
        },
    ),
    "qwen3_5_moe": (
        "Qwen3_5MoeForConditionalGeneration",
        {
            "text_config": {**_HYBRID, **_EXPERTS, "shared_expert_intermediate_size": 32},
            "vision_config": {**_QWEN_TOWER, "num_position_embeddings": 64},
            "tie_word_embeddings": False,
            **_MARKED,
        },
    ),
    "qwen2_5_vl": (
        "Qwen2_5_VLForConditionalGeneration",
        {
            "text_config": {**TEXT, "rope_parameters": _MROPE},
            "vision_config": {**_QWEN_TOWER, "fullatt_block_indexes": [1]},
            "tie_word_embeddings": False,
            **_MARKED,
        },
    ),
    "qwen2_5_omni_thinker": (
        "Qwen2_5OmniThinkerForConditionalGeneration",
        {
            "text_config": {**TEXT, "rope_parameters": _MROPE},
            "vision_config": {**_QWEN_TOWER, "fullatt_block_indexes": [1]},
            "audio_config": {
                "d_model": 32,
                "encoder_layers": 2,
                "encoder_attention_heads": 4,
                "encoder_ffn_dim": 64,
                "num_mel_bins": MEL_BINS,
                "n_window": 8,
                "max_source_positions": 64,
                "output_dim": HIDDEN,
            },
            "image_token_index": IMAGE,
            "video_token_index": VIDEO,
            "audio_token_index": AUDIO,
            "vision_start_token_id": VISION_START,
            "vision_end_token_id": VISION_END,
            "audio_start_token_id": AUDIO_START,
            "audio_end_token_id": AUDIO_END,
            "tie_word_embeddings": False,
        },
    ),
    "glm46v": (
        "Glm46VForConditionalGeneration",
        {
            "text_config": {**TEXT, "model_type": "glm4v_text", "rope_parameters": _MROPE},
            "vision_config": {
                **_QWEN_TOWER,
                "model_type": "glm4v_vision",
                "image_size": 56,
            },
            "tie_word_embeddings": False,
            "image_start_token_id": VISION_START,
            "image_end_token_id": VISION_END,
            "video_start_token_id": VIDEO_START,
            "video_end_token_id": VIDEO_END,
            **_IDS,
        },
    ),
    "internvl": (
        "InternVLForConditionalGeneration",
        {
            "text_config": {**TEXT, "model_type": "qwen3"},
            "vision_config": {**_TOWER, "image_size": (28, 28), "patch_size": (7, 7)},
            "image_token_id": IMAGE,
            "image_seq_length": 4,
            "downsample_ratio": 0.5,
            "tie_word_embeddings": False,
        },
    ),
    "llava": (
        "LlavaForConditionalGeneration",
        {
            "text_config": {**TEXT, "model_type": "llama"},
            "vision_config": {**_CLIP, "model_type": "clip_vision_model"},
            "image_token_index": IMAGE,
            "image_seq_length": 4,
            "vision_feature_layer": -1,
        },
    ),
    "llava_onevision": (
        "LlavaOnevisionForConditionalGeneration",
        {
            "text_config": {**TEXT, "model_type": "qwen2"},
            "vision_config": _SIGLIP,
            "image_token_index": IMAGE,
            "video_token_index": VIDEO,
            "image_grid_pinpoints": [[28, 28]],
            "tie_word_embeddings": False,
        },
    ),
    "mistral3": (
        "Mistral3ForConditionalGeneration",
        {
            "text_config": {**TEXT, "model_type": "mistral"},
            "vision_config": {**_PATCHES, "model_type": "pixtral", "head_dim": 8},
            "image_token_index": IMAGE,
        },
    ),
    "smolvlm": ("SmolVLMForConditionalGeneration", _IDEFICS),
    "idefics3": ("Idefics3ForConditionalGeneration", _IDEFICS),
    "ovis2": (
        "Ovis2ForConditionalGeneration",
        {
            "text_config": {**TEXT, "model_type": "llama"},
            "vision_config": {**_PATCHES, "hidden_stride": 2, "vocab_size": 48},
            "image_token_id": IMAGE,
            # The two marks around a picture are among those that get visual embeddings.
            "visual_indicator_token_ids": [VISION_START, GRID, COLUMN, ROW, VISION_END],
            "vocab_size": TEXT["vocab_size"],
            "hidden_size": HIDDEN,
        },
    ),
    "molmo2": (
        "Molmo2ForConditionalGeneration",
        {
            "text_config": {**TEXT, "additional_vocab_size": 8},
            "vision_config": {
                **_TOWER,
                "num_hidden_layers": 3,
                "num_key_value_heads": 4,
                "head_dim": 8,
                "image_size": [28, 28],
                "patch_size": 14,
                "num_position_embeddings": 4,
            },
            "adapter_config": {
                **_HALF,
                "vision_feature_layer": [-1, -2],
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
                "head_dim": 8,
                "text_hidden_size": HIDDEN,
            },
            "image_patch_id": IMAGE,
            "image_start_token_id": VISION_START,
            "image_end_token_id": VISION_END,
            "low_res_image_start_token_id": LOW_RES_START,
            "frame_start_token_id": VIDEO_START,
            "frame_end_token_id": VIDEO_END,
        },
    ),
    "gemma4": (
        "Gemma4ForConditionalGeneration",
        {
            "text_config": {
                **TEXT,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
                "sliding_window": 16,
                "global_head_dim": 16,
                "hidden_size_per_layer_input": 8,
                "vocab_size_per_layer_input": TEXT["vocab_size"],
                "num_kv_shared_layers": 2,
            },
            "vision_config": {
                **_TOWER,
                "num_key_value_heads": 4,
                "head_dim": 8,
                "patch_size": 4,
                "pooling_kernel_size": 2,
                "position_embedding_size": 16,
            },
            "audio_config": {
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "subsampling_conv_channels": [MEL_BINS, 4],
                "output_proj_dims": 32,
            },
            "audio_token_id": AUDIO,
            "boa_token_id": AUDIO_START,
            "eoa_token_index": AUDIO_END,
            "boi_token_id": VISION_START,
            "eoi_token_id": VISION_END,
            **_IDS,
        },
    ),
    "llama4": (
        "Llama4ForConditionalGeneration",
        {
            "text_config": {
                **TEXT,
                "intermediate_size_mlp": 128,
                "num_local_experts": 2,
                "attention_chunk_size": 32,
                "no_rope_layer_interval": 2,
            },
            "vision_config": {
                **_PATCHES,
                "intermediate_size": 128,
                "vision_output_dim": 32,
                "projector_input_dim": 32,
                "projector_output_dim": 32,
            },
            "image_token_index": IMAGE,
        },
    ),
    "voxtral": (
        "VoxtralForConditionalGeneration",
        {
            "text_config": {**TEXT, "model_type": "llama"},
            "audio_config": {**_LISTENER, "max_source_positions": 16},
            "audio_token_id": AUDIO,
        },
    ),
    "audioflamingo3": (
        "AudioFlamingo3ForConditionalGeneration",
        {
            "text_config": {**TEXT, "model_type": "qwen2"},
            "audio_config": _LISTENER,
            "audio_token_id": AUDIO,
        },
    ),
    "qwen2_audio": (
        "Qwen2AudioForConditionalGeneration",
        {
            "text_config": {**TEXT, "model_type": "qwen2"},
            "audio_config": {
                "d_model": 32,
                "encoder_layers": 2,
                "encoder_attention_heads": 4,
                "encoder_ffn_dim": 64,
                "num_mel_bins": MEL_BINS,
                "max_source_positions": 8,
            },
            "audio_token_index": AUDIO,
        },
    ),
    "llama": ("LlamaForCausalLM", {**TEXT, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3ForCausalLM", TEXT),
    "gemma3_text": (
        "Gemma3ForCausalLM",
        {**TEXT, "query_pre_attn_scalar": 16, "sliding_window": 16},
    ),
}

MODEL_TYPES = sorted([*_SPECS, *REFERENCE])
AVAILABLE = [name for name in MODEL_TYPES if not families()[name].lacking]
"""Those that the installed Transformers has."""


def each(*model_types: str) -> list:
    """Test parameters, one a family; those that the installed Transformers lacks are skipped."""
    return [
        pytest.param(name, marks=pytest.mark.skipif(bool(reason), reason=reason or ""))
        for name in model_types or MODEL_TYPES
        for reason in [families()[name].lacking]
    ]


def family(model_type: str) -> Family:
    return families()[model_type]


def build(model_type: str):
    """Native generator class and tiny configuration of a family."""
    if model_type in REFERENCE:
        return REFERENCE[model_type]()
    name, settings = _SPECS[model_type]
    cls = getattr(transformers, name)
    return cls, cls.config_class(**settings)


def save_base(model_type: str, directory: Path, **save) -> Path:
    """Save a seeded random base in the layout that the Hub has (`save_pretrained` undoes renames).

    Matrices are scaled up so that greedy tokens vary from step to step.
    """
    cls, config = build(model_type)
    assert config.get_text_config().num_hidden_layers == LAYERS
    torch.manual_seed(0)
    model = cls(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2 and "norm" not in name:
                parameter.mul_(3)
    model.save_pretrained(directory, **save)
    return directory
