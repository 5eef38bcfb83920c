"""Family data agrees with the installed Transformers."""

import json

import pytest
from safetensors import safe_open

from mars_export.common.errors import ExportError
from mars_export.families import decoder_layers, families, family_of
from mars_export.families.inspection import inspect_family
from support import tiny, zoo

FAMILIES = list(families().values())
BY_HAND = {
    "also",
    *("name", "extra", "notes", "parts", "since", "modalities", "placeholders", "shown_by"),
    "inspected",
}

each_family = pytest.mark.parametrize("model_type", zoo.each())


@pytest.fixture
def family(model_type):
    return families()[model_type]


def raw_config(family):
    cls, config = zoo.build(family.model_type)
    return {**json.loads(config.to_json_string()), "architectures": [cls.__name__]}


def test_every_family_has_a_tiny_checkpoint():
    assert list(families()) == zoo.MODEL_TYPES


@each_family
def test_data_is_what_the_native_classes_say(family):
    seen = inspect_family(raw_config(family))
    assert seen.inspected
    assert not family.inspected
    assert seen.model_dump(exclude=BY_HAND) == family.model_dump(exclude=BY_HAND)
    # An input that an older Transformers has is listed as well.
    assert seen.shown_by.items() <= family.shown_by.items()


@each_family
def test_names_fit_the_native_classes(family):
    cls, config = zoo.build(family.model_type)
    assert cls.__name__ == family.generator
    assert type(config).__name__ == family.config
    assert set(family.placeholders) == set(family.modalities) - {"text"}
    assert set(family.placeholders) <= set(family.shown_by.values())
    tokens = [getattr(config, attribute) for attribute in family.placeholders.values()]
    assert all(isinstance(token, int) for token in tokens)
    assert len(set(tokens)) == len(tokens)
    model = cls(config)
    assert model.get_submodule(family.decoder).layers is decoder_layers(model)


# First part of the keys of the language model on disk, where it is not the module's name.
LEGACY = {
    "audioflamingo3": "language_model.model.layers.",
    "gemma3": "language_model.model.layers.",
    "internvl": "language_model.model.layers.",
    "llava": "language_model.model.layers.",
    "llava_onevision": "language_model.model.layers.",
    "mistral3": "language_model.model.layers.",
    "molmo2": "model.transformer.blocks.",
    "qwen2_5_omni_thinker": "model.layers.",
    "qwen2_audio": "language_model.model.layers.",
    "qwen2_5_vl": "model.layers.",
    "voxtral": "language_model.model.layers.",
}


@each_family
def test_tiny_checkpoints_have_the_layout_of_the_hub(family, tmp_path):
    zoo.save_base(family.model_type, tmp_path)
    prefix = LEGACY.get(family.model_type, f"{family.decoder}.layers.")
    with safe_open(tmp_path / "model.safetensors", "pt") as shard:
        assert any(key.startswith(prefix) for key in shard.keys())  # noqa: SIM118
        moved = any(key.startswith(f"{family.decoder}.layers.") for key in shard.keys())  # noqa: SIM118
    assert moved == (family.model_type not in LEGACY)


def test_the_steered_layer_of_hybrid_models_has_linear_attention(tmp_path):
    for model_type in ("qwen3_5", "qwen3_5_moe"):
        cls, config = zoo.build(model_type)
        layer = decoder_layers(cls(config))[tiny.LAYER]
        assert hasattr(layer, "linear_attn")
        assert not hasattr(layer, "self_attn")


def test_versions_that_lack_a_family_are_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr("mars_export.families.family.version", lambda _: "5.9.2")
    message = r"Gemma 3 needs Transformers 5.16 or later, and 5.9.2 .* -U 'transformers>=5.16'"
    with pytest.raises(ExportError, match=message):
        family_of("gemma3")


@pytest.mark.parametrize("installed", ["5.16", "5.16.0", "5.100.0.dev0", "6.0.0rc1"])
def test_versions_are_compared_as_numbers(monkeypatch, installed):
    monkeypatch.setattr("mars_export.families.family.version", lambda _: installed)
    assert families()["gemma3"].lacking is None


def test_unknown_and_steered_types_are_refused():
    with pytest.raises(ExportError, match="'mystery' is not supported"):
        family_of("mystery")
    for model_type in ("steered_gemma3", "steered_mystery"):
        with pytest.raises(ExportError, match="already steered"):
            family_of(model_type)
