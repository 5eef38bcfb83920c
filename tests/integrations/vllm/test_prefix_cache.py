"""Requests share cached blocks only where both are steered alike in them."""

import hashlib
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_export.integrations.vllm.prefix_cache import answer_is_shareable, guard_sharing, private
from mars_export.integrations.vllm.prompt_plan import prompt_plan
from support.tiny import HEADER, HEADERS

ENDS = [HEADER[-1], 313]  # the second one: what the tokenizer makes of the first and what follows
RULES = {
    "headers": [{"prefix": HEADER[:-1], "ends": ENDS}],
    "turn_starts": [[305]],
    "modalities": ["text", "image"],
}
TOKEN = st.sampled_from([5, 6, *HEADER, 313])
TOKENS = st.lists(TOKEN, max_size=24)


@given(TOKENS, TOKENS, TOKENS)
def test_what_is_shared_is_steered_alike(prompt, answer, more):
    """A later prompt goes on from an earlier request, answer included, or from a part of it."""
    prompt = [1, *HEADER, *prompt]
    earlier = [*prompt_plan(prompt, RULES, {}).steered.tolist(), *[False] * len(answer)]
    for cut in range(len(prompt), len(prompt + answer) + 1):
        begun = (prompt + answer)[:cut]
        later = prompt_plan([*begun, *more], RULES, {}).steered.tolist()
        shared = answer_is_shareable(prompt, begun[len(prompt) :], RULES["headers"])
        assert shared == (earlier[:cut] == later[:cut])


def test_what_shares_and_what_does_not():
    chat = [1, 5, *HEADER]
    assert answer_is_shareable(chat, [5, 6], HEADERS)
    assert not answer_is_shareable(chat, [5, *HEADER, 6], HEADERS)
    assert not answer_is_shareable([*chat, *HEADER[:2]], [HEADER[2]], HEADERS)
    assert answer_is_shareable(HEADER[2:], [5], HEADERS)  # a prompt shorter than a header
    assert not answer_is_shareable([5], [9], [{"prefix": [], "ends": [9]}])


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
        request = SimpleNamespace(
            request_id=name, prompt_token_ids=prompt, output_token_ids=[], block_hashes=[],
            _block_hasher=native,
        )  # fmt: skip
        request.block_hashes = native(request)
        guard_sharing(request, HEADERS)
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


def test_another_vllm_shares_nothing_unseen():
    with pytest.raises(RuntimeError, match=r"have no _block_hasher; install 0\.32"):
        guard_sharing(SimpleNamespace(), HEADERS)
    whole = SimpleNamespace(_block_hasher=None)  # no prefix cache
    guard_sharing(whole, HEADERS)
    assert whole._block_hasher is None
