"""The plugin by which `vllm serve steered --trust-remote-code` serves a checkpoint steered.

vLLM calls `register` in each of its processes (entry point group `vllm.general_plugins`). It has no
option that a checkpoint itself could set, so the place where engine arguments become a model's
configuration is wrapped: a steered checkpoint gets this package's worker and scheduler there.
Nothing of vLLM is imported, and no torch.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any, Final

from mars_export.integrations.vllm.limits import OPTIONS, SCHEDULER, WORKER, is_scheduler

SALT: Final = "mars_export.steering"
"""Key of the steering's digest in `additional_config`, which vLLM hashes for its compile cache."""
_DONE: Final = "_serves_steered"


def register() -> None:
    """Let this process's engine arguments recognize steered checkpoints; doing it twice is fine.

    vLLM calls plugins from the module of its engine arguments. A process that has not loaded it, as
    that of a worker, makes no engine of its own.
    """
    module = sys.modules.get("vllm.engine.arg_utils")
    if module is not None:
        recognize_steered(getattr(module, "EngineArgs", None))


def recognize_steered(arguments: Any) -> None:
    """Wrap `create_model_config` of vLLM's `EngineArgs`.

    Where another vLLM has no such method, nothing is wrapped: a steered checkpoint then does not
    load, and says which options it needs (`runtime/guard.py`).
    """
    native: Callable[..., Any] | None = getattr(arguments, "create_model_config", None)
    if native is None or hasattr(native, _DONE):
        return

    @functools.wraps(native)
    def create_model_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        config = native(self, *args, **kwargs)
        rules = getattr(getattr(config, "hf_config", None), "steering", None)
        if isinstance(rules, dict) and "sha256" in rules:
            serve_steered(self, rules["sha256"])
        return config

    setattr(create_model_config, _DONE, True)
    arguments.create_model_config = create_model_config


def serve_steered(arguments: Any, digest: str) -> None:
    """Set what a steered checkpoint needs in the engine arguments of vLLM.

    Args:
        arguments: An `EngineArgs`.
        digest: Of the steering, as in config.json. Compiled graphs are kept per digest.

    Raises:
        ValueError: if another worker or scheduler is asked for, or this vLLM knows neither.
    """
    names = ("worker_cls", "scheduler_cls", "additional_config")
    unknown = [name for name in names if not hasattr(arguments, name)]
    if unknown or not isinstance(arguments.additional_config, dict):
        raise ValueError(
            f"steered checkpoint: the plugin mars_export does not know this vLLM, whose engine "
            f"arguments have no {' and no '.join(unknown) or 'dict as additional_config'}; "
            f"start it with VLLM_PLUGINS= and give {OPTIONS}"
        )
    if arguments.worker_cls not in ("auto", WORKER):
        raise ValueError(
            "steered checkpoint: another --worker-cls would serve it without steering; leave it out"
        )
    if arguments.scheduler_cls is not None and not is_scheduler(arguments.scheduler_cls):
        raise ValueError(
            "steered checkpoint: another --scheduler-cls would stop at a request that cannot be "
            "steered; leave it out"
        )
    arguments.worker_cls = WORKER
    arguments.scheduler_cls = SCHEDULER
    arguments.additional_config = {**arguments.additional_config, SALT: digest}
