"""Safety prompt: a system prompt that asks the model to refuse; the model is not changed.

It costs nothing, so whatever else is done has to beat it. Zheng et al. (arXiv 2401.18018) show that
such prompts push harmless requests toward refusal too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mars_export.inputs.safety_prompt import SAFETY_PROMPT_TEXT
from mars_export.methods.base import Method

if TYPE_CHECKING:
    from mars_export.inputs.requests import Request

__all__ = ["SAFETY_PROMPT"]


class _SafetyPrompt(Method):
    name = "safety-prompt"
    title = "safety prompt"
    paper = "2401.18018"
    site = "template"
    exportable = False

    def change(self, request: Request) -> Request:
        """The request with the safety prompt before whatever system prompt it has."""
        return replace(request, system=f"{SAFETY_PROMPT_TEXT}\n\n{request.system}".strip())


SAFETY_PROMPT = _SafetyPrompt()
