"""A family without a file: worked out from its classes, or refused with the reason."""

import json

import pytest
import torch
import transformers

from mars_export import verify
from mars_export.calibration.measurements import placeholders
from mars_export.checkpoint.manifest import Manifest
from mars_export.common.errors import ExportError
from mars_export.families import families
from mars_export.families.family import UNSTEERABLE
from mars_export.families.inspection import family_for, inspect_family
from support import tiny, zoo
from support.behavior import export, load
from support.oracle import Shown, oracle_logits


def raw_of(family, **changes):
    cls, config = zoo.build(family)
    raw = {**json.loads(config.to_json_string()), "architectures": [cls.__name__], **changes}
    return {key: value for key, value in raw.items() if value is not None}


def test_unknown_families_need_permission():
    raw = raw_of("llama", architectures=["MistralForCausalLM"], model_type="mistral")
    with pytest.raises(ExportError, match="allow-unknown-family"):
        family_for(raw, allow_unknown=False)
    assert family_for(raw, allow_unknown=True).inspected
    assert family_for(raw_of("llama"), allow_unknown=True) is families()["llama"]
    with pytest.raises(ExportError, match="already steered"):
        family_for({**raw, "model_type": "steered_mistral"}, allow_unknown=True)


@pytest.mark.parametrize("model_type", zoo.each("molmo2"))
def test_placeholders_that_image_and_video_share_show_images_only(model_type):
    seen = inspect_family(raw_of(model_type))
    assert seen.modalities == ("text", "image")
    assert seen.placeholders == {"image": "image_token_id"}
    assert seen.shown_by["pixel_values_videos"] == "video"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architectures": None}, "no generating class ''"),
        ({"architectures": ["Mystery"]}, "no generating class 'Mystery'"),
        ({"architectures": ["LlamaModel"]}, "no generating class 'LlamaModel'"),
        ({"architectures": ["Qwen3ForCausalLM"]}, "is of type 'qwen3'"),
        ({"hidden_act": "mystery"}, "structure is not understood"),
    ],
)
def test_what_cannot_be_worked_out_says_why(changes, reason):
    with pytest.raises(ExportError, match=reason) as caught:
        inspect_family(raw_of("llama", **changes))
    assert "\n" not in str(caught.value)
    assert "docs/extending.md" in str(caught.value)


def test_unknown_families_with_custom_code_are_refused():
    for raw in (raw_of("llama", auto_map={"AutoModel": "m.M"}), {"auto_map": {"AutoModel": "m.M"}}):
        with pytest.raises(ExportError, match="custom code of its own"):
            inspect_family(raw)


def test_inputs_of_unknown_name_are_refused(monkeypatch):
    """They would be taken for text, and re-centered as such."""
    monkeypatch.setattr("mars_export.families.inspection._SHOWN_BY", {})
    with pytest.raises(ExportError, match="LlavaForConditionalGeneration brings its image"):
        inspect_family(raw_of("llava"))


def test_decoders_that_nothing_guards_are_refused(monkeypatch):
    monkeypatch.setattr("transformers.activations.ACT2FN", {})
    with pytest.raises(ExportError, match="nothing guards it"):
        inspect_family(raw_of("llama"))


@pytest.mark.parametrize("model_type", zoo.each("molmo2"))
def test_modalities_that_are_not_steered_are_noted(model_type):
    notes = inspect_family(raw_of(model_type)).notes
    assert notes == ("Video is not calibrated and is refused while steering is on.",)
    assert inspect_family(raw_of("llama")).notes == ()


@pytest.mark.parametrize("model_type", UNSTEERABLE)
@pytest.mark.parametrize("allow", [False, True])
def test_families_that_cannot_be_steered_say_why(model_type, allow):
    with pytest.raises(ExportError, match=f"^{model_type} cannot be steered: .*; (take|give) "):
        family_for({"model_type": model_type}, allow_unknown=allow)


@pytest.mark.parametrize("model_type", zoo.each("gemma4"))
def test_a_model_without_a_part_takes_less_than_its_family(model_type):
    raw = raw_of(model_type)
    assert "audio" in family_for(raw, allow_unknown=False).modalities
    less = family_for({**raw, "audio_config": None}, allow_unknown=False)
    assert less.modalities == ("text", "image", "video")


def test_an_inspected_family_is_steered_as_any_other(tmp_path):
    """Mistral has no file: the whole way, from its config.json to the oracle's logits."""
    assert "mistral" not in families()
    config = transformers.MistralConfig(**tiny.TEXT)
    torch.manual_seed(0)
    base = transformers.MistralForCausalLM(config).eval()
    base.save_pretrained(tmp_path / "base")
    family = inspect_family(json.loads((tmp_path / "base/config.json").read_text()))
    changes = {"shift": {"text": 0.0}, "origin": -100.0, "harmful": 100.0, "gain": 4.0}
    directory = export(family, tmp_path / "base", tmp_path, **changes)
    assert Manifest.read(directory).family_inspected
    assert verify(directory).passed
    model = load(directory, family.auto_class)
    ids = torch.tensor([tiny.prompt(tiny.random_ids(6, 1))])
    direction = torch.randn(tiny.HIDDEN, generator=torch.Generator().manual_seed(7))
    record = tiny.record("mistral", **changes)
    where = [(0, ids.shape[1] - 1, Shown())]
    want = oracle_logits(base, record, direction, {"input_ids": ids}, where)
    torch.testing.assert_close(model(input_ids=ids).logits, want, rtol=1e-5, atol=1e-5)
    assert (want - base(input_ids=ids).logits).abs().max() > 0.001


def test_the_calibration_knows_the_placeholders_of_a_family_without_a_file():
    raw = raw_of("llama", architectures=["MistralForCausalLM"], model_type="mistral")
    assert placeholders(transformers.MistralConfig.from_dict(raw)) == {}
