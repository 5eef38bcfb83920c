"""The guard stands where the native class looks, whatever the base's config.json is like."""

import json

import pytest
import torch
import transformers
from torch.nn.functional import silu

from mars_export.checkpoint.config import unsteered_config
from mars_export.common.errors import ExportError
from mars_export.runtime.guard import GUARD
from support import zoo
from support.behavior import export, load
from support.tiny import TEXT


def base_with(model_type, folder, change):
    base = zoo.save_base(model_type, folder / "base")
    path = base / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    return base


def flat(raw):
    """As Qwen2.5-VL's repositories have it: the text settings at the top level."""
    text = raw.pop("text_config")
    return {**text, **raw}


def test_flat_text_settings_are_guarded_and_steered(tmp_path):
    family = zoo.family("qwen2_5_vl")
    base = base_with("qwen2_5_vl", tmp_path, flat)
    directory = export(family, base, tmp_path)
    assert "text_config" not in json.loads((directory / "config.json").read_text())
    with pytest.raises(Exception, match="load it with an Auto class"):
        transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(directory)
    model, info = load(directory, family.auto_class, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.config.get_text_config().hidden_act == GUARD
    assert model.get_decoder().layers[0].mlp.act_fn(torch.ones(1)).equal(silu(torch.ones(1)))
    model.save_pretrained(tmp_path / "again")
    assert load(tmp_path / "again", family.auto_class).steering.verified


def test_defaults_that_the_base_leaves_out_are_guarded(tmp_path):
    def leave_out(raw):
        del raw["text_config"]["hidden_act"]
        return raw

    family = zoo.family("llava")
    directory = export(family, base_with("llava", tmp_path, leave_out), tmp_path)
    with pytest.raises(Exception, match="load it with an Auto class"):
        transformers.LlavaForConditionalGeneration.from_pretrained(directory)
    model = load(directory, family.auto_class)
    assert model.config.get_text_config().hidden_act == GUARD
    assert model.get_decoder().layers[0].mlp.act_fn(torch.ones(1)).equal(silu(torch.ones(1)))


def test_text_models_with_another_activation_key_are_refused(tmp_path):
    """LLaVA takes any text model; one that names its activation otherwise would go unguarded."""
    text = {**TEXT, "model_type": "gemma2", "query_pre_attn_scalar": 16}
    base = base_with("llava", tmp_path, lambda raw: {**raw, "text_config": text})
    with pytest.raises(ExportError, match="no 'hidden_act' to guard"):
        export(zoo.family("llava"), base, tmp_path)


def test_absent_text_settings_are_refused(tmp_path):
    base = base_with("llava", tmp_path, lambda raw: {k: raw[k] for k in raw if k != "text_config"})
    with pytest.raises(ExportError, match="'hidden_act' to guard"):
        export(zoo.family("llava"), base, tmp_path)


def test_no_part_names_a_class_that_converters_know(tmp_path):
    """They take the class of `text_config` before that of the whole."""

    def name(raw):
        raw["text_config"]["architectures"] = ["LlamaForCausalLM"]
        return raw

    base = base_with("llava", tmp_path, name)
    directory = export(zoo.family("llava"), base, tmp_path)
    config = json.loads((directory / "config.json").read_text())
    assert config["architectures"] == ["SteeredLlavaForConditionalGeneration"]
    assert config["text_config"]["architectures"] == ["SteeredLlamaForCausalLM"]
    assert load(directory, "AutoModelForImageTextToText").steering.verified
    native = unsteered_config(config, directory)
    assert native == json.loads((base / "config.json").read_text())
