"""A suffix that is optimized: words swapped one at a time, guided by gradients.

Greedy coordinate search (Zou et al. 2023) over harmless words, so that a suffix stays text that
anybody can type: each is a token of its own behind a space.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor

from mars_export.evaluation.adaptive.batches import UnreachableError, inputs_of
from mars_export.evaluation.adaptive.surface import Reading, Surface
from mars_export.families.placement import input_device
from mars_export.inputs.merges import tokenizer_of
from mars_export.inputs.requests import Request

__all__ = ["Vocabulary", "search", "with_suffix"]

_LEAST: Final = 32
"""Fewest words to choose from."""
_CANDIDATES: Final = 24
"""Swaps with the steepest descent, of which some are drawn and tried."""

Cost = Callable[[Reading], Tensor]


@dataclass(frozen=True)
class Vocabulary:
    """Harmless words, each with its token."""

    words: tuple[str, ...]
    tokens: tuple[int, ...]

    @classmethod
    def of(cls, processor: Any, texts: Iterable[str]) -> Vocabulary:
        """The words of texts that are one token behind a space.

        Raises:
            UnreachableError: There are too few.
        """
        tokenizer = tokenizer_of(processor)
        lower = sorted({word for text in texts for word in re.findall(r"[a-z]{3,}", text)})
        before = tokenizer("and", add_special_tokens=False)["input_ids"]
        tokens = {}
        for word in lower:
            ids = tokenizer(f"and {word}", add_special_tokens=False)["input_ids"]
            whole = len(ids) == len(before) + 1 and ids[:-1] == before
            if whole and ids[-1] != tokenizer.unk_token_id:
                tokens[word] = ids[-1]
        if len(tokens) < _LEAST:
            raise UnreachableError(f"only {len(tokens)} harmless words are one token each")
        return cls(tuple(tokens), tuple(tokens.values()))

    def start(self, count: int, seed: int) -> list[int]:
        """Places of `count` words to begin with."""
        source = random.Random(f"suffix {seed}")
        return [source.randrange(len(self.words)) for _ in range(count)]


def with_suffix(request: Request, vocabulary: Vocabulary, suffix: Sequence[int]) -> Request:
    """The request with words, by their places in the vocabulary, behind its prompt."""
    words = (vocabulary.words[place] for place in suffix)
    return replace(request, prompt=" ".join([request.prompt, *words]))


def search(
    surface: Surface,
    requests: Sequence[Request],
    vocabulary: Vocabulary,
    suffixes: Sequence[list[int]],
    cost: Cost,
    *,
    steps: int,
    swaps: int,
    seed: int,
) -> list[list[int]]:
    """Better suffixes, none worse than the one that it began with.

    Args:
        surface: The model, in its arm.
        requests: Text, or with media.
        vocabulary: What suffixes are made of.
        suffixes: One for each request, as places in the vocabulary.
        cost: (B,) of a reading; what is minimized.
        steps: Each swaps at most one word of each request.
        swaps: Tried in each step for each request.
        seed: Of the draws.
    """
    best = [list(suffix) for suffix in suffixes]
    costs = _costs(surface, requests, vocabulary, best, cost)
    for step in range(steps):
        slopes = _slopes(surface, requests, vocabulary, best, cost)
        drawn = [_draws(s, b, swaps, f"{seed} {step} {r}") for r, (s, b) in
                 enumerate(zip(slopes, best, strict=True))]  # fmt: skip
        rows = [row for row, options in enumerate(drawn) for _ in options]
        options = [option for row in drawn for option in row]
        asked = [requests[row] for row in rows]
        tried = _costs(surface, asked, vocabulary, options, cost)
        for row, option, value in zip(rows, options, tried, strict=True):
            if value < costs[row]:
                costs[row], best[row] = value, option
    return best


def _draws(slope: Tensor, suffix: list[int], count: int, seed: str) -> list[list[int]]:
    """Suffixes that differ in one word, drawn from the swaps that promise most.

    slope: (k, V) change of the cost, to first order, for a word of the vocabulary at each place.
    """
    steepest = slope.flatten().topk(min(_CANDIDATES, slope.numel()), largest=False).indices.tolist()
    chosen = random.Random(seed).sample(steepest, min(count, len(steepest)))
    options = []
    for flat in chosen:
        place, word = divmod(flat, slope.shape[1])
        options.append([*suffix[:place], word, *suffix[place + 1 :]])
    return options


def _costs(
    surface: Surface,
    requests: Sequence[Request],
    vocabulary: Vocabulary,
    suffixes: Sequence[list[int]],
    cost: Cost,
) -> list[float]:
    def work(rows: Sequence[tuple[Request, list[int]]]) -> list[float]:
        with torch.no_grad():
            reading = surface.read(_inputs(surface, vocabulary, rows))
        return [float(value) for value in cost(reading)]

    return surface.batches.map(work, list(zip(requests, suffixes, strict=True)))


def _slopes(
    surface: Surface,
    requests: Sequence[Request],
    vocabulary: Vocabulary,
    suffixes: Sequence[list[int]],
    cost: Cost,
) -> list[Tensor]:
    """For each request (k, V): first-order change of its cost for every word at every place."""
    embedding = surface.loaded.model.get_input_embeddings()
    table = embedding(torch.tensor(vocabulary.tokens, device=input_device(surface.loaded.model)))
    table = table.detach().float()

    def work(rows: Sequence[tuple[Request, list[int]]]) -> list[Tensor]:
        inputs, captured = _inputs(surface, vocabulary, rows), list[Tensor]()
        hook = embedding.register_forward_hook(lambda _module, _args, out: _captured(captured, out))
        try:
            total = cost(surface.read(inputs)).sum()
        finally:
            hook.remove()
        (grads,) = torch.autograd.grad(total, captured[0])
        slopes = []
        for row, (_, suffix) in enumerate(rows):
            tokens = [vocabulary.tokens[place] for place in suffix]
            at = _place(inputs["input_ids"][row].tolist(), tokens)
            slope = grads[row, at : at + len(suffix)].float()
            present = (slope * table[suffix]).sum(-1, keepdim=True)
            slopes.append(slope @ table.T - present)
        return slopes

    return surface.batches.map(work, list(zip(requests, suffixes, strict=True)))


def _inputs(
    surface: Surface, vocabulary: Vocabulary, rows: Sequence[tuple[Request, list[int]]]
) -> Any:
    """Model inputs of requests that end with suffixes."""
    asked = [with_suffix(request, vocabulary, suffix) for request, suffix in rows]
    return inputs_of(surface.loaded, asked)


def _captured(captured: list[Tensor], out: Tensor) -> Tensor:
    leaf = out.detach().requires_grad_()
    captured.append(leaf)
    return leaf


def _place(ids: list[int], tokens: list[int]) -> int:
    """Where the tokens stand last in a row.

    Raises:
        UnreachableError: They do not: the chat template has changed the prompt.
    """
    for start in range(len(ids) - len(tokens), -1, -1):
        if ids[start : start + len(tokens)] == tokens:
            return start
    raise UnreachableError("the chat template changes the words of a prompt")
