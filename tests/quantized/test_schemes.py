"""The schemes that `--quantization` names, and what is said where one cannot be had."""

import re
from types import SimpleNamespace
from typing import get_args

import pytest

from mars_export.card.snippets import command, loading
from mars_export.checkpoint.config import steered_config
from mars_export.checkpoint.tensors import steering_tensors
from mars_export.common.errors import ExportError
from mars_export.common.installation import install_extra
from mars_export.families import families
from mars_export.families import quantization as quantization
from mars_export.families.quantization import (
    NONE,
    OWN,
    SCHEMES,
    loading_options,
    own_method,
    scheme_for,
)
from mars_export.pipeline.settings import Settings
from support import records, tiny

OWN_CONFIG = {"quantization_config": {"quant_method": "gptq"}}


def test_every_scheme_is_an_option():
    assert set(get_args(Settings.model_fields["quantization"].annotation)) == {NONE, *SCHEMES}


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_code_of_a_card_is_the_configuration_that_is_built(name, dtype):
    for package in ("bitsandbytes", "torchao"):
        pytest.importorskip(package)
    code = loading("x", ["text", "image"], dtype, name)
    names = {}
    imports = [line for line in code.splitlines() if line.startswith("from ")]
    exec("\n".join(imports), names)
    scheme = SCHEMES[name]
    made, built = eval(scheme.code(dtype), names), scheme.build(dtype)
    assert f"quantization_config={scheme.code(dtype)}," in code
    assert f'dtype="{dtype}"' in code
    assert made.to_dict() == built.to_dict()
    assert type(made).__name__ == scheme.config
    if name == "bnb-4bit":
        assert str(built.bnb_4bit_compute_dtype) == f"torch.{dtype}"


def test_an_unquantized_card_names_no_scheme():
    assert "quantization" not in loading("x", ["text", "image"], "bfloat16")


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({}, None),
        ({"quantization_config": None}, None),
        (OWN_CONFIG, "gptq"),
        ({"text_config": OWN_CONFIG}, "gptq"),
        ({"quantization_config": {}, "text_config": 3}, None),
        ({"quantization_config": ["?"]}, "['?']"),
    ],
)
def test_a_base_says_whether_it_is_quantized(config, method):
    assert own_method(config) == method


def test_what_a_base_is_calibrated_in(monkeypatch):
    assert scheme_for({}, NONE) == NONE
    assert scheme_for({}, "bnb-8bit") == "bnb-8bit"
    assert scheme_for(OWN_CONFIG, NONE) == OWN
    with pytest.raises(ExportError, match=r"stored quantized already \(gptq\)"):
        scheme_for(OWN_CONFIG, "bnb-8bit")
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    for config, asked, needed in (
        ({}, "torchao-int8", "accelerate and torchao"),
        (OWN_CONFIG, NONE, "needs accelerate;"),
    ):
        with pytest.raises(ExportError, match=re.escape(install_extra("quantized"))) as raised:
            scheme_for(config, asked)
        assert needed in str(raised.value)
    assert scheme_for({}, NONE) == NONE


def test_a_quantized_model_is_placed_while_it_loads():
    assert loading_options({}, NONE, dtype="auto", device="cpu") == {"dtype": "auto"}
    own = loading_options(OWN_CONFIG, OWN, dtype="auto", device="cpu")
    assert own == {"dtype": "auto", "device_map": {"": "cpu"}}
    assert loading_options(OWN_CONFIG, "bnb-8bit", dtype="auto", device="cpu") == own
    half = {"text_config": {"torch_dtype": "bfloat16"}}
    asked = loading_options(half, "bnb-4bit", dtype="auto", device="cuda")
    assert asked["device_map"] == {"": "cuda"}
    assert str(asked["quantization_config"].bnb_4bit_compute_dtype) == "torch.bfloat16"


@pytest.mark.parametrize(
    ("shape", "packs", "device", "raises"),
    [
        ((160, 128), True, "cpu", True),
        ((128, 48), True, "cpu", True),
        ((128, 96), True, "cpu", False),
        ((160, 128), False, "cpu", False),
        ((160, 128), True, "cuda", False),
    ],
)
def test_layers_that_4_bits_cannot_take_are_named(shape, packs, device, raises):
    layer = SimpleNamespace(
        in_features=shape[0],
        out_features=shape[1],
        support_avx512bf16_for_cpu=packs,
        weight=SimpleNamespace(device=SimpleNamespace(type=device)),
    )
    model = SimpleNamespace(named_modules=lambda: [("", object()), ("a.down_proj", layer)])
    if raises:
        with pytest.raises(
            ExportError, match=r"a\.down_proj .*use a GPU, or another --quantization"
        ):
            quantization.refuse_unfit_layers(model)
    else:
        quantization.refuse_unfit_layers(model)


@pytest.mark.parametrize(("name", "stated"), [(NONE, False), (OWN, True), ("bnb-8bit", True)])
def test_the_checkpoint_says_what_it_was_calibrated_for(name, stated):
    artefact = tiny.artefact("gemma3", quantization=name)
    record, tensors = artefact.record, steering_tensors(artefact)
    raw = tiny.BUILDERS["gemma3"]()[1].to_dict()
    rules = steered_config(raw, families()["gemma3"], record, tensors)["steering"]
    assert rules.get("quantization", NONE) == name
    assert ("quantization" in rules) == stated


def test_the_command_of_a_card_names_the_scheme():
    for name, named in ((NONE, False), (OWN, False), ("bnb-4bit", True)):
        record = records.calibration(quantization=name)
        text = command(records.manifest(calibration=record), None, "out")
        assert (f"--quantization {name}" in text) == named
