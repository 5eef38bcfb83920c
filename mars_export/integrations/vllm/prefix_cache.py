"""Which cached blocks may be shared between requests.

A block of a prefix cache holds what one request computed, and serves every other that begins with
the same tokens and pictures. That is right only if both steer alike in it. Where a request is
steered at every assistant header of its tokens and nowhere else, this follows from the tokens. It
does not where a prompt ends elsewhere (no template, an assistant prefill), where one header
begins a longer one, and where the model wrote a header itself: such requests share nothing from
there on.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch

from mars_export.integrations.vllm.prompt_plan import is_beam_step, prompt_plan
from mars_export.runtime.positions import header_ends


def prompt_is_shareable(tokens: Sequence[int], suffixes: list[list[int]], end: bool = True) -> bool:
    """Whether where this prompt is steered follows, token for token, from what stands before."""
    plan = prompt_plan(tokens, suffixes, {}, end=end)
    return plan.steered.equal(_headers(tokens, suffixes))


def answer_is_shareable(
    prompt: Sequence[int], answer: Sequence[int], suffixes: list[list[int]]
) -> bool:
    """Whether an answer, which is not steered, holds no end of a header that would be."""
    behind = max(map(len, suffixes)) - 1
    before = list(prompt[-behind:]) if behind else []
    return not _headers([*before, *answer], suffixes)[len(before) :].any()


def _headers(tokens: Sequence[int], suffixes: list[list[int]]) -> torch.Tensor:
    """(n,) bool: where a header ends, whatever follows."""
    ids = torch.tensor([list(tokens)])
    return torch.stack([header_ends(ids, [suffix]) for suffix in suffixes]).any(0)[0]


def private(block: bytes, request: str) -> bytes:
    """A hash of a block that no other request has."""
    return hashlib.sha256(block + request.encode()).digest()


def guard_sharing(request: Any, suffixes: list[list[int]]) -> None:
    """Make the hashes of a request's blocks its own from where it must share nothing.

    vLLM finds cached blocks by `block_hashes`, each made from the one before, and appends to them
    with `_block_hasher`, which has no public name.
    """
    native = request._block_hasher
    if native is None:  # no prefix cache
        return
    prompt, asked = list(request.prompt_token_ids or ()), request.sampling_params
    end = asked is None or not is_beam_step(asked.max_tokens, asked.logprobs)
    shared = bool(prompt) and prompt_is_shareable(prompt, suffixes, end)
    if not shared:
        request.block_hashes = [private(h, request.request_id) for h in request.block_hashes]

    def hasher(asking: Any) -> Any:
        nonlocal shared
        new = native(asking)
        if new and shared:
            shared = answer_is_shareable(prompt, asking.output_token_ids, suffixes)
        return new if shared else [private(h, asking.request_id) for h in new]

    request._block_hasher = hasher
