"""Which cached blocks may be shared between requests.

A block of a prefix cache holds what one request computed, and serves every other that begins with
the same tokens and pictures. That is right if both steer alike in it. Where a prompt is steered
follows from its tokens alone. An answer is not steered: where the model wrote an assistant header
itself, a prompt of the same tokens would be, so from there on such a request shares nothing.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch

from mars_export.integrations.vllm.limits import TESTED
from mars_export.runtime.positions import Headers, header_ends


def answer_is_shareable(prompt: Sequence[int], answer: Sequence[int], headers: Headers) -> bool:
    """Whether an answer holds no end of a header, which may have begun in its prompt."""
    longest = max(len(header["prefix"]) for header in headers)
    before = list(prompt[max(0, len(prompt) - longest) :])
    ids = torch.tensor([[*before, *answer]], dtype=torch.long)
    return not header_ends(ids, headers)[0, len(before) :].any()


def private(block: bytes, request: str) -> bytes:
    """A hash of a block that no other request has."""
    return hashlib.sha256(block + request.encode()).digest()


def guard_sharing(request: Any, headers: Headers) -> None:
    """Make the hashes of a request's blocks its own from where it must share nothing.

    vLLM finds cached blocks by `block_hashes`, each made from the one before, and appends to them
    with `_block_hasher`, which has no public name.

    Raises:
        RuntimeError: This vLLM has no such name, so nothing could be kept apart.
    """
    if not hasattr(request, "_block_hasher"):
        raise RuntimeError(
            f"steered checkpoint: requests of this vLLM have no _block_hasher; install {TESTED}"
        )
    native = request._block_hasher
    if native is None:  # no prefix cache
        return
    shared = True

    def hasher(asking: Any) -> Any:
        nonlocal shared
        new = native(asking)
        if new and shared:
            prompt, answer = asking.prompt_token_ids, asking.output_token_ids
            shared = answer_is_shareable(prompt, answer, headers)
        return new if shared else [private(h, asking.request_id) for h in new]

    request._block_hasher = hasher
