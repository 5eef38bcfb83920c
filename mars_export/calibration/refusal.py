"""Whether a first token says refusal, and how strongly.

A3.n are sections of docs/method.md.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from mars_export.common.errors import ExportError

__all__ = ["divergence", "log_odds", "refusal_tokens", "refuses", "separating"]


def refusal_tokens(tokenizer: Any, openers: Iterable[str]) -> list[int]:
    """First tokens of refusal openers, with and without a leading space.

    Args:
        tokenizer: A Transformers tokenizer.
        openers: Beginnings of refusals, for example `I'm sorry`.

    Returns:
        Sorted token ids without special, unknown and white-space tokens.

    Raises:
        ExportError: No opener begins with a known token.
    """
    special = set(tokenizer.all_special_ids)
    found = set()
    for opener in openers:
        for text in (opener, " " + opener):
            ids = tokenizer.encode(text, add_special_tokens=False)
            found.update([i for i in ids if tokenizer.decode([i]).strip()][:1])
    if not found - special:
        raise ExportError(
            "No refusal opener begins with a token that the tokenizer knows; give openers in the "
            "language in which the model refuses."
        )
    return sorted(found - special)


def separating(tokens: list[int], harmful: torch.Tensor, harmless: torch.Tensor) -> list[int]:
    """Refusal tokens without those that harmless answers of this model begin with (A3.1).

    `I` begins "I can't" and "I think". While it helps, the token is left out without which more
    harmful or fewer harmless prompts are refused, as shares, by their likeliest first token.

    Args:
        tokens: First tokens of refusal openers.
        harmful: (N, V) first-token log-probabilities of harmful direction prompts.
        harmless: (M, V) of harmless ones.

    Returns:
        At least one of the tokens, in their order.
    """

    def separation(kept: list[int]) -> float:
        refused = [float(refuses(p, kept).double().mean()) for p in (harmful, harmless)]
        return refused[0] - refused[1]

    kept = list(tokens)
    while len(kept) > 1:
        fewer = max(([k for k in kept if k != out] for out in kept), key=separation)
        if separation(fewer) <= separation(kept):
            break
        kept = fewer
    return kept


def refuses(logits: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    """(N,) bool: whether greedy decoding begins a refusal.

    Args:
        logits: (N, V) first-token logits, or log-probabilities.
        tokens: Refusal token ids.
    """
    return torch.isin(logits.argmax(-1), torch.tensor(tokens, device=logits.device))


def log_odds(logits: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    """Refusal log-odds ln P(refusal tokens) - ln(1 - P) (Arditi et al., arXiv 2406.11717).

    Args:
        logits: (N, V) first-token logits.
        tokens: Refusal token ids.

    Returns:
        (N,) float64, nats.
    """
    refuses = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    refuses[list(tokens)] = True
    logits = logits.double()
    return logits[:, refuses].logsumexp(-1) - logits[:, ~refuses].logsumexp(-1)


def divergence(base: torch.Tensor, steered: torch.Tensor) -> torch.Tensor:
    """First-token KL(base || steered) of each row.

    Args:
        base: (N, V) log-probabilities without steering.
        steered: (N, V) log-probabilities with steering.

    Returns:
        (N,) float64, nats.
    """
    rows = [
        torch.nn.functional.kl_div(q.double(), p.double(), reduction="sum", log_target=True)
        for p, q in zip(base, steered, strict=True)
    ]
    return torch.stack(rows)
