"""What vLLM must not be started with. Reads a `VllmConfig`, and imports nothing of vLLM."""

import json
import os
from collections.abc import Callable
from typing import Any, Final, NamedTuple

TESTED: Final = "0.32"
"""The vLLM release whose worker, scheduler and Transformers backend this package was tested in."""
SCHEDULER: Final = "mars_export.integrations.vllm.scheduler.SteeredScheduler"
WORKER: Final = "mars_export.integrations.vllm.worker.SteeredWorker"
OPTIONS: Final = f"--worker-cls {WORKER} --scheduler-cls {SCHEDULER}"
ALLOW_UNTESTED: Final = "MARS_VLLM_UNTESTED"
SWITCHABLE: Final = "MARS_VLLM_SWITCHABLE"
"""Set by an evaluation alone: whether steering may be switched off, as no server should let."""


class Limit(NamedTuple):
    """A setting that steering does not survive, or, where `untested`, was never tried with."""

    applies: Callable[[Any], bool]
    sentence: str
    untested: bool = False


LIMITS: Final = (
    Limit(
        lambda c: c.use_v2_model_runner,
        "model runner V2 does not tell a worker the order of its requests; "
        "set VLLM_USE_V2_MODEL_RUNNER=0",
    ),
    Limit(
        lambda c: not is_scheduler(c.scheduler_config.scheduler_cls),
        "vLLM's own scheduler would stop at a request that cannot be steered; "
        f"give --scheduler-cls {SCHEDULER}",
    ),
    Limit(
        lambda c: c.speculative_config is not None,
        "speculative decoding (--speculative-config) counts tokens that may not stay; leave it out",
    ),
    Limit(
        lambda c: c.parallel_config.pipeline_parallel_size > 1,
        "with --pipeline-parallel-size above 1 most ranks see no tokens; leave it out",
    ),
    Limit(
        lambda c: c.parallel_config.use_ubatching,
        "--enable-dbo and --ubatch-size cut a step into several forwards; leave them out",
    ),
    Limit(
        lambda c: c.model_config.enable_prompt_embeds,
        "--enable-prompt-embeds brings prompts without tokens; leave it out",
    ),
    Limit(
        lambda c: c.lora_config is not None,
        "--enable-lora: an adapter changes what steering was calibrated for; merge it and run "
        "`mars-export recalibrate`",
    ),
    Limit(
        lambda c: c.kv_transfer_config is not None,
        "--kv-transfer-config brings cache blocks that this server has not steered; leave it out",
    ),
    Limit(
        lambda c: c.cache_config.kv_sharing_fast_prefill,
        "--kv-sharing-fast-prefill leaves prompt tokens out of layers; leave it out",
    ),
    Limit(
        lambda c: c.model_config.runner_type != "generate",
        "only --runner generate has prompts that end in an answer",
    ),
    Limit(
        lambda c: _vision(c, "vision_use_head"),
        "vLLM's Transformers backend cannot run the pooling head of the vision tower "
        "(vision_use_head in config.json); use `transformers serve --trust-remote-code`",
    ),
    Limit(
        lambda c: _shares_tokens(c.parallel_config),
        "of all ways to share a model only tensor parallel was tested; give "
        "--tensor-parallel-size alone",
        untested=True,
    ),
    Limit(
        lambda c: _takes_audio(c),
        "audio was not tested; give --limit-mm-per-prompt '{\"audio\": 0}'",
        untested=True,
    ),
    Limit(
        lambda c: c.model_config.quantization is not None,
        "--quantization was not tested",
        untested=True,
    ),
    Limit(
        lambda c: c.compilation_config.cudagraph_mode.has_full_cudagraphs(),
        "full CUDA graphs were tested with a stand-in on a CPU only; give "
        '--compilation-config \'{"cudagraph_mode": "PIECEWISE"}\' or --enforce-eager',
        untested=True,
    ),
    Limit(
        lambda c: c.device_config.device_type != "cpu",
        "only vLLM's CPU build was tested",
        untested=True,
    ),
)


def refusals(config: Any, version: str, uncalibrated: set[str]) -> tuple[list[str], list[str]]:
    """Why a server must not start, and what of it was only never tested.

    Args:
        config: A `VllmConfig`.
        version: Of vLLM.
        uncalibrated: Modalities whose shift was never measured.
    """
    wrong = [limit.sentence for limit in LIMITS if not limit.untested and limit.applies(config)]
    untested = [limit.sentence for limit in LIMITS if limit.untested and limit.applies(config)]
    if version.split(".")[:2] != TESTED.split("."):
        untested.append(f"vLLM {version} was not tested; install {TESTED}")
    media = config.model_config.multimodal_config
    taken = [m for m in sorted(uncalibrated) if media is not None and media.get_limit_per_prompt(m)]
    if taken:
        limits = json.dumps(dict.fromkeys(taken, 0))
        wrong.append(
            f"steering was not calibrated for {', '.join(taken)}; "
            f"give --limit-mm-per-prompt '{limits}'"
        )
    return wrong, untested


def check(config: Any, version: str, uncalibrated: set[str]) -> list[str]:
    """Return what was not tested and is allowed all the same, for a warning.

    Raises:
        RuntimeError: if a steered checkpoint must not be served like this.
    """
    wrong, untested = refusals(config, version, uncalibrated)
    allowed = bool(os.environ.get(ALLOW_UNTESTED))
    found = wrong if allowed else wrong + untested
    if found:
        advice = "" if wrong else f" (set {ALLOW_UNTESTED}=1 to try)"
        raise RuntimeError(f"steered checkpoint: {'; '.join(found)}{advice}")
    return untested


def differences(config: Any) -> list[str]:
    """What vLLM itself computes otherwise than Transformers, with or without steering."""
    told = []
    if _vision(config, "deepstack_visual_indexes"):
        told.append(
            "vLLM's Transformers backend leaves out the DeepStack features of pictures and clips; "
            "gates and answers differ a little from those of Transformers"
        )
    if config.model_config.is_mm_prefix_lm and config.device_config.device_type == "cpu":
        told.append(
            "vLLM's CPU attention is causal inside pictures, where this model's is not; gates and "
            "answers differ a little from those of Transformers"
        )
    return told


def _shares_tokens(parallel: Any) -> bool:
    """Whether ranks may hold other tokens, or other parts of them, than all of one step.

    Under tensor parallel alone every rank has the whole residual stream behind each layer, and the
    same schedule, so each computes the same gates and pushes, and nothing has to be sent.
    """
    sizes = ("data_parallel_size", "prefill_context_parallel_size", "decode_context_parallel_size")
    return parallel.enable_expert_parallel or any(getattr(parallel, name) > 1 for name in sizes)


def _vision(config: Any, name: str) -> bool:
    """Whether the vision tower has a feature, and pictures or clips may come."""
    tower = getattr(config.model_config.hf_config, "vision_config", None)
    return bool(getattr(tower, name, None)) and config.model_config.is_multimodal_model


def _takes_audio(config: Any) -> bool:
    """Whether sounds may come to a checkpoint that was calibrated for them."""
    steering = getattr(config.model_config.hf_config, "steering", {})
    media = config.model_config.multimodal_config
    calibrated = "audio" in steering.get("modalities", ())
    return calibrated and media is not None and bool(media.get_limit_per_prompt("audio"))


def is_scheduler(scheduler: Any) -> bool:
    """Whether this is the scheduler of this package, or its name."""
    if isinstance(scheduler, str):
        return scheduler == SCHEDULER
    return (
        f"{getattr(scheduler, '__module__', '')}.{getattr(scheduler, '__name__', '')}" == SCHEDULER
    )
