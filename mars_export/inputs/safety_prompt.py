"""The system prompt that asks a model to refuse: a baseline, and a source of directions.

The idea is the default system prompt of Llama 2 (Touvron et al., arXiv 2307.09288). The wording is
ours.
"""

from typing import Final

__all__ = ["SAFETY_PROMPT_TEXT"]

SAFETY_PROMPT_TEXT: Final = (
    "You are a careful assistant. Judge a request by everything in it: text, pictures and video. "
    "If answering could help to hurt people, break the law or treat somebody unfairly, decline in "
    "one or two sentences and say why. Answer every other request fully."
)
"""Before whatever system prompt a request has."""
