"""A processor that needs a package which is not installed says which extra brings it."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
import transformers
from packaging.requirements import Requirement

from mars_export.common.errors import ExportError
from mars_export.common.installation import install_extra
from mars_export.families import families
from mars_export.families.loading import native_class
from mars_export.inputs import sounds
from mars_export.pipeline.checks import check_processor
from support import planted, zoo
from support.organisms import ORGANISMS

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


@pytest.fixture
def smolvlm(tmp_path):
    """The parts of a SmolVLM processor as its repositories have them."""
    _, config = zoo.build("smolvlm")
    config.save_pretrained(tmp_path)
    transformers.SmolVLMImageProcessor().save_pretrained(tmp_path)
    transformers.SmolVLMVideoProcessor().save_pretrained(tmp_path)
    tokens = {
        "fake_image_token": "<fake>", "image_token": "<image>",
        "global_image_token": "<global>", "end_of_utterance_token": "<end>",
    }  # fmt: skip
    words = planted.processor().tokenizer.backend_tokenizer
    words.add_special_tokens(list(tokens.values()))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", extra_special_tokens=tokens
    ).save_pretrained(tmp_path)
    return tmp_path


def test_smolvlm_without_num2words_names_the_extra(smolvlm, monkeypatch):
    monkeypatch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", None)
    hint = f"needs a package that is not installed; run `{install_extra('video')}`"
    with pytest.raises(ExportError, match=re.escape(f"the processor of SmolVLM {hint}")):
        check_processor(smolvlm, families()["smolvlm"])


def test_a_torchvision_of_another_torch_is_one_line(monkeypatch):
    class Broken:
        def __getattr__(self, name):
            cause = RuntimeError("operator torchvision::nms does not exist")
            raise ModuleNotFoundError(f"Could not import module '{name}'. Are ...") from cause

    monkeypatch.setitem(sys.modules, "transformers", Broken())
    said = (
        "cannot import SmolVLMForConditionalGeneration (operator torchvision::nms does not exist); "
        f"run `pip uninstall torchvision`, then `{install_extra('video')}`, with the "
        "--extra-index-url that torch came from"
    )
    with pytest.raises(ExportError, match=re.escape(said)):
        native_class(families()["smolvlm"])


def test_smolvlm_with_num2words_loads(smolvlm):
    pytest.importorskip("num2words")
    check_processor(smolvlm, families()["smolvlm"])


def test_the_extras_that_families_name_exist():
    assert {family.extra for family in families().values()} - {None} <= set(EXTRAS)
    assert "num2words" in {Requirement(text).name for text in EXTRAS["video"]}


def test_a_thinking_mode_that_the_template_does_not_know_is_refused_first():
    base = ORGANISMS / "gemma3"
    check_processor(base, families()["gemma3"])
    with pytest.raises(ExportError, match="no thinking switch"):
        check_processor(base, families()["gemma3"], thinking=False)


def test_packages_for_sound_are_asked_for_before_anything_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setattr(sounds, "find_spec", lambda name: None)
    with pytest.raises(
        ExportError, match=r"Qwen2-Audio takes audio, which needs soundfile and soxr"
    ):
        check_processor(tmp_path, families()["qwen2_audio"])
