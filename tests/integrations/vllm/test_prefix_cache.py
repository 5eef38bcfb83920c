"""Requests share cached blocks only where both are steered alike in them."""

import hashlib
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from mars_export.integrations.vllm.prefix_cache import (
    answer_is_shareable,
    guard_sharing,
    private,
    prompt_is_shareable,
)
from mars_export.integrations.vllm.prompt_plan import prompt_plan
from support.tiny import HEADER

TOKEN = st.sampled_from([5, 6, *HEADER])
TOKENS = st.lists(TOKEN, min_size=1, max_size=24)
LONGER = [*HEADER, 313, 314]


def flags(prompt, answer, suffixes):
    return [*prompt_plan(prompt, suffixes, {}).steered.tolist(), *[False] * len(answer)]


@given(TOKENS, TOKENS, TOKENS, st.booleans())
def test_what_is_shared_is_steered_alike(prompt, answer, more, thinking):
    """A later prompt goes on from an earlier request, answer included, or from a part of it."""
    suffixes = [HEADER, LONGER] if thinking else [HEADER]
    for cut in range(1, len(prompt + answer) + 1):
        told = (prompt + answer)[:cut]
        later = [*told, *more]
        if not prompt_is_shareable(prompt, suffixes) or not prompt_is_shareable(later, suffixes):
            continue
        if not answer_is_shareable(prompt, told[len(prompt) :], suffixes):
            continue
        earlier = flags(prompt, answer, suffixes)
        assert earlier[:cut] == flags(later, [], suffixes)[:cut]


def test_what_shares_and_what_does_not():
    chat = [1, 5, *HEADER]
    assert prompt_is_shareable(chat, [HEADER])
    assert prompt_is_shareable([*chat, 6, 2, 5, *HEADER], [HEADER])
    assert not prompt_is_shareable([1, 5], [HEADER])  # no template
    assert not prompt_is_shareable([*chat, 6], [HEADER])  # an assistant prefill
    assert prompt_is_shareable([*chat, 6], [HEADER], end=False)  # a step of a beam search
    assert not prompt_is_shareable([1, 5, *LONGER], [HEADER, LONGER])
    assert answer_is_shareable(chat, [5, 6], [HEADER])
    assert not answer_is_shareable(chat, [5, *HEADER, 6], [HEADER])
    assert not answer_is_shareable([1, 5, *HEADER[:2]], [HEADER[2]], [HEADER])


def test_a_private_block_is_found_by_its_own_request_only():
    assert private(b"block", "a") == private(b"block", "a")
    assert len({private(b"block", "a"), private(b"block", "b"), private(b"other", "a")}) == 3


def test_hashes_become_private_from_the_block_that_differs():
    def native(request):
        """Blocks of two tokens, each hash made from the one before."""
        new, before = [], request.block_hashes[-1] if request.block_hashes else b""
        whole = [*request.prompt_token_ids, *request.output_token_ids]
        for at in range(2 * len(request.block_hashes), len(whole) - 1, 2):
            before = hashlib.sha256(before + bytes(str(whole[at : at + 2]), "ascii")).digest()
            new.append(before)
        return new

    def made(name, prompt):
        asked = SimpleNamespace(max_tokens=8, logprobs=None)
        request = SimpleNamespace(
            request_id=name, prompt_token_ids=prompt, output_token_ids=[], block_hashes=[],
            sampling_params=asked, _block_hasher=native,
        )  # fmt: skip
        request.block_hashes = native(request)
        guard_sharing(request, [HEADER])
        return request

    def answer(request, tokens):
        for token in tokens:
            request.output_token_ids.append(token)
            request.block_hashes += request._block_hasher(request)
        return request.block_hashes

    chat = [1, *HEADER]
    quiet, same = answer(made("a", chat), [5, 6, 7, 8]), answer(made("b", chat), [5, 6, 7, 8])
    assert len(quiet) == 4
    assert quiet == same
    header = [5, 6, *HEADER, 7, 8, 9]
    loud, again = answer(made("c", chat), header), answer(made("d", chat), header)
    assert len(loud) == 6
    assert loud[:4] == again[:4]  # the header's last token is in the fifth
    assert loud[:3] == quiet[:3]
    assert not set(loud[4:]) & set(again[4:])
    bare, twice = made("e", [1, 5, 6, 7]), made("f", [1, 5, 6, 7])
    assert not set(bare.block_hashes) & set(twice.block_hashes)
    assert not set(answer(bare, [5, 6])) & set(answer(twice, [5, 6]))
