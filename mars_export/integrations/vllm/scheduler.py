"""The scheduler of a steered checkpoint in vLLM: `--scheduler-cls` takes its name."""

from typing import Any

from vllm.logger import init_logger
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.request import Request, RequestStatus

from mars_export.integrations.vllm.prefix_cache import guard_sharing
from mars_export.integrations.vllm.prompt_plan import prompt_plan

logger = init_logger("vllm.mars_export")


class SteeredScheduler(AsyncScheduler):
    """Ends requests that cannot be steered, and shares cached blocks that are steered alike."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rules: dict[str, Any] = self.vllm_config.model_config.hf_config.steering
        self._refused: list[tuple[Request, str]] = []

    def add_request(self, request: Request) -> None:
        """As the native method; a request of which nothing shows what to steer is never computed.

        It ends with the finish reason `error`, and the sentence as its stop reason.
        """
        super().add_request(request)
        refusal = self._refusal(request)
        if refusal is None:
            guard_sharing(request, self._rules["headers"])
            return
        logger.warning("request %s: %s", request.request_id, refusal)
        self.finish_requests(request.request_id, RequestStatus.FINISHED_ERROR)
        self._refused.append((request, refusal))

    def _refusal(self, request: Request) -> str | None:
        """Why a request cannot be steered, if it cannot."""
        if request.resumable:
            return "steered checkpoint: a prompt that comes in pieces cannot be steered"
        try:
            prompt_plan(request.prompt_token_ids or [], self._rules, {})
        except ValueError as error:
            return str(error)
        return None

    def update_from_output(self, *args: Any, **kwargs: Any) -> dict[int, EngineCoreOutputs]:
        """As the native method, and the ends of refused requests."""
        outputs: dict[int, EngineCoreOutputs] = super().update_from_output(*args, **kwargs)
        for request, sentence in self._refused:
            end = EngineCoreOutput(
                request.request_id,
                [],
                finish_reason=request.get_finished_reason(),
                stop_reason=sentence,
                events=request.take_events(),
                trace_headers=request.trace_headers,
            )
            outputs.setdefault(request.client_index, EngineCoreOutputs()).outputs.append(end)
        self._refused.clear()
        return outputs
