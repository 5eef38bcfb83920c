"""Loading guard: a steered checkpoint loads with its steering, or not at all.

The configuration has GUARD in place of the text model's activation, at which a native class
stops, and on disk a model type of its own, at which Auto classes stop that may run no code.
`GuardedLoadingMixin` raises where a tensor is missing, misshapen or altered.
"""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.models.auto import modeling_auto

# The mixins stand before a native class, whose methods they call and which mypy does not know.
_Native: Any = object

GUARD = "steered checkpoint: load it with an Auto class and trust_remote_code=True"

# Engines register their attention with Transformers under these names.
ENGINES = {
    "vllm": "install mars-export beside vLLM, whose plugin mars_export serves it (VLLM_PLUGINS "
    "must not leave it out), or give "
    "--worker-cls mars_export.integrations.vllm.worker.SteeredWorker "
    "--scheduler-cls mars_export.integrations.vllm.scheduler.SteeredScheduler",
    **dict.fromkeys(("sglang", "tgi"), "use `transformers serve --trust-remote-code`"),
}


class SteeredConfigMixin(_Native):
    """Native but for the guard, which stays in it; on disk it has its own model type as well.

    So no native class builds a model from it, whether it is read from a file or handed over. Only a
    steered class takes the guard off, on a copy of its own, while it builds the model.
    """

    disk_model_type = ""
    engine_gives_windows = False
    """Set on the class by the worker of a serving engine that gives each forward its window."""

    def to_json_string(self, use_diff: bool = True) -> str:
        """The text of config.json. `to_dict` stays native: peft chooses its targets by it."""
        raw = json.loads(super().to_json_string(use_diff))
        raw["model_type"] = self.disk_model_type
        return json.dumps(raw, indent=2, sort_keys=True) + "\n"

    @classmethod
    def get_config_dict(cls, *args: Any, **kwargs: Any) -> Any:
        """Read config.json, giving the native model type back to its own classes."""
        raw, rest = super().get_config_dict(*args, **kwargs)
        if raw.get("model_type") == cls.disk_model_type:
            raw = {**raw, "model_type": cls.model_type}
        return raw, rest

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As the native class, from a file or from `to_dict`."""
        raw = {k: v for k, v in config_dict.items() if k != "model_type"}
        return super().from_dict(copy.deepcopy(raw), **kwargs)

    @contextmanager
    def unguarded(self) -> Iterator[None]:
        """Without the guard, for as long as the model is built."""
        text, native = self.get_text_config(), self.steering["guarded"]
        for name, value in native.items():
            setattr(text, name, value)
        try:
            yield
        finally:
            for name in native:
                setattr(text, name, GUARD)


class GuardedLoadingMixin(_Native):
    """from_pretrained() as the native class has it, and checks of what came out."""

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """Load as the native class does; raise where a tensor is missing, misshapen or altered."""
        if (getattr(kwargs.get("distributed_config"), "pp_size", None) or 1) > 1:
            raise RuntimeError(
                "steered checkpoint: pipeline parallelism leaves the steered layer to one process, "
                "and the others know nothing of it; use tensor parallelism or device_map"
            )
        if kwargs.get("gguf_file"):
            raise RuntimeError(
                "steered checkpoint: a GGUF file holds no steering; load it without gguf_file"
            )
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        for problem in ("missing_keys", "mismatched_keys"):
            if info.get(problem):
                names = sorted(map(str, info[problem]))[:3]
                raise RuntimeError(
                    f"steered checkpoint is damaged: {problem}: {names}; download it again"
                )
        model.verify_steering()
        return (model, info) if output_loading_info else model


def refuse_engines(config: Any) -> None:
    """Raise inside a serving engine whose worker does not say which columns to steer.

    Engines put their own attention into the model, pack pieces of many requests into one row and
    may leave out what another request has computed: no forward shows where a prompt ends.
    """
    for part in (config, config.get_text_config()):
        engine = (getattr(part, "_attn_implementation", None) or "").split("_")[0]
        if engine in ENGINES and "prompts" in config.steering:
            raise RuntimeError(
                f"steered checkpoint: {config.steering['method']} acts in generate(), which "
                f"{engine} does not call; load it with Transformers"
            )
        if engine in ENGINES and not config.engine_gives_windows:
            raise RuntimeError(
                f"steered checkpoint: {engine} would serve it without steering; " + ENGINES[engine]
            )


def register_steered(config: Any, *natives: Any) -> None:
    """Give the steered classes what Transformers keeps under the names of their native classes."""
    for native in (cls.__name__ for cls in natives):
        # Without the renames of its checkpoint keys, a custom class would get random weights.
        renames = get_checkpoint_conversion_mapping(native)
        renames = renames or get_checkpoint_conversion_mapping(config.model_type)
        if renames:
            register_checkpoint_conversion_mapping("Steered" + native, renames, overwrite=True)
        # `transformers serve` refuses a class that is in none of the tables of tasks. The Auto
        # classes do not read them for a custom class, so this changes nothing else.
        for task in ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM"):
            names = getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES", {})
            if native in names.values():
                names[config.disk_model_type] = "Steered" + native
