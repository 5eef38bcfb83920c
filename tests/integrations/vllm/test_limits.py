"""A server that could not be steered does not start, and says which option it is."""

from types import SimpleNamespace as Bag

import pytest

from mars_export.integrations.vllm.limits import (
    ALLOW_UNTESTED,
    SCHEDULER,
    WORKER,
    check,
    differences,
)
from mars_export.integrations.vllm.limits import TESTED as VERSION


def config(**changes):
    """A `VllmConfig` as tested, but for `cache_config__enable_prefix_caching=True` and the like."""
    mode = Bag(has_full_cudagraphs=lambda: False)
    media = Bag(get_limit_per_prompt=lambda modality: 999)
    made = Bag(
        use_v2_model_runner=False,
        cache_config=Bag(kv_sharing_fast_prefill=False),
        scheduler_config=Bag(scheduler_cls=SCHEDULER),
        speculative_config=None,
        parallel_config=Bag(
            pipeline_parallel_size=1, use_ubatching=False, tensor_parallel_size=1,
            data_parallel_size=1, prefill_context_parallel_size=1, decode_context_parallel_size=1,
            enable_expert_parallel=False,
        ),
        compilation_config=Bag(cudagraph_mode=mode),
        model_config=Bag(
            enable_prompt_embeds=False, runner_type="generate", quantization=None,
            multimodal_config=media, is_multimodal_model=True, is_mm_prefix_lm=False,
            hf_config=Bag(vision_config=Bag(vision_use_head=False, deepstack_visual_indexes=[])),
        ),
        kv_transfer_config=None,
        lora_config=None,
        device_config=Bag(device_type="cpu"),
    )  # fmt: skip
    for path, value in changes.items():
        *parents, name = path.split("__")
        part = made
        for parent in parents:
            part = getattr(part, parent)
        setattr(part, name, value)
    return made


WRONG = {
    "VLLM_USE_V2_MODEL_RUNNER=0": {"use_v2_model_runner": True},
    "--scheduler-cls": {"scheduler_config__scheduler_cls": None},
    "--speculative-config": {"speculative_config": Bag()},
    "--pipeline-parallel-size": {"parallel_config__pipeline_parallel_size": 2},
    "--enable-dbo": {"parallel_config__use_ubatching": True},
    "recalibrate": {"lora_config": Bag()},
    "--enable-prompt-embeds": {"model_config__enable_prompt_embeds": True},
    "--kv-transfer-config": {"kv_transfer_config": Bag()},
    "--kv-sharing-fast-prefill": {"cache_config__kv_sharing_fast_prefill": True},
    "vision_use_head": {"model_config__hf_config__vision_config__vision_use_head": True},
    "--runner generate": {"model_config__runner_type": "pooling"},
}
UNTESTED = {
    "--tensor-parallel-size alone": {"parallel_config__data_parallel_size": 2},
    "only tensor parallel": {"parallel_config__enable_expert_parallel": True},
    "of all ways": {"parallel_config__prefill_context_parallel_size": 2},
    "to share a model": {"parallel_config__decode_context_parallel_size": 2},
    "PIECEWISE": {"compilation_config__cudagraph_mode": Bag(has_full_cudagraphs=lambda: True)},
    "--quantization": {"model_config__quantization": "fp8"},
    "audio was not tested": {
        "model_config__hf_config__steering": {"modalities": ["text", "audio"]},
    },
    "CPU build": {"device_config__device_type": "cuda"},
}


@pytest.mark.parametrize("ranks", [1, 2])
def test_what_was_tested_starts(ranks):
    made = config(parallel_config__tensor_parallel_size=ranks)
    assert check(made, f"{VERSION}.0", set()) == []


@pytest.mark.parametrize("named", WRONG)
def test_what_would_not_be_steered_does_not_start(monkeypatch, named):
    for allowed in ("", "1"):
        monkeypatch.setenv(ALLOW_UNTESTED, allowed)
        with pytest.raises(RuntimeError, match="steered checkpoint: ") as raised:
            check(config(**WRONG[named]), f"{VERSION}.0", set())
        assert named in str(raised.value)


@pytest.mark.parametrize("named", UNTESTED)
def test_what_was_not_tested_starts_on_request_only(monkeypatch, named):
    monkeypatch.delenv(ALLOW_UNTESTED, raising=False)
    with pytest.raises(RuntimeError, match=f"set {ALLOW_UNTESTED}=1") as raised:
        check(config(**UNTESTED[named]), f"{VERSION}.0", set())
    assert named in str(raised.value)
    monkeypatch.setenv(ALLOW_UNTESTED, "1")
    assert any(named in sentence for sentence in check(config(**UNTESTED[named]), VERSION, set()))


def test_another_version_was_not_tested(monkeypatch):
    monkeypatch.delenv(ALLOW_UNTESTED, raising=False)
    with pytest.raises(RuntimeError, match=r"vLLM 0\.33\.0 was not tested; install 0\.32"):
        check(config(), "0.33.0", set())


def test_a_modality_that_was_not_calibrated_must_be_switched_off():
    with pytest.raises(RuntimeError, match=r"--limit-mm-per-prompt '\{\"video\": 0\}'"):
        check(config(), f"{VERSION}.0", {"video"})
    off = Bag(get_limit_per_prompt=lambda modality: 0)
    assert check(config(model_config__multimodal_config=off), f"{VERSION}.0", {"video"}) == []
    assert check(config(model_config__multimodal_config=None), f"{VERSION}.0", {"video"}) == []


def test_the_names_given_to_vllm_exist():
    import ast
    from pathlib import Path

    import mars_export

    for name in (SCHEDULER, WORKER):
        *module, cls = name.split(".")
        path = Path(mars_export.__file__).parent.joinpath(*module[1:]).with_suffix(".py")
        classes = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef)]
        assert cls in {node.name for node in classes}


def test_what_vllm_computes_otherwise_is_told():
    assert differences(config()) == []
    levels = "model_config__hf_config__vision_config__deepstack_visual_indexes"
    assert "DeepStack" in differences(config(**{levels: [1]}))[0]
    assert "causal" in differences(config(model_config__is_mm_prefix_lm=True))[0]
    text = {levels: [1], "model_config__is_multimodal_model": False}
    assert differences(config(**text)) == []
