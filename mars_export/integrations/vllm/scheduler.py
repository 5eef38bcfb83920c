"""The scheduler that lets vLLM keep its prefix cache: `--scheduler-cls` takes its name."""

from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.request import Request

from mars_export.integrations.vllm.prefix_cache import guard_sharing


class SteeredScheduler(AsyncScheduler):
    """A scheduler whose requests share cached blocks only where they are steered alike."""

    def add_request(self, request: Request) -> None:
        """As the native method; a request that must share nothing gets hashes of its own."""
        rules: dict[str, Any] = self.vllm_config.model_config.hf_config.steering
        guard_sharing(request, rules["header_suffixes"])
        super().add_request(request)
