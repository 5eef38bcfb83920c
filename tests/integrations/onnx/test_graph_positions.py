"""The graph's rule against the runtime's, on random conversations and in every cut of them."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.export import Dim

from mars_export.integrations.onnx.attention import attention_masks
from mars_export.integrations.onnx.graph_positions import Claims, modalities, steered_columns
from mars_export.integrations.onnx.graphs import write_graph
from mars_export.runtime.positions import header_ends

PLAIN = [[1, 2, 3]]
TWO = [[1, 2], [3, 1, 1]]
NESTED = [[1, 2], [1, 2, 3], [1, 2, 3, 3]]
IMAGE, VIDEO = 7, 8
tokens = st.lists(st.integers(1, 4), min_size=1, max_size=12)
headers = st.sampled_from([PLAIN, TWO, NESTED])


def claims(ids, length, past=0, mask=None):
    ids = torch.tensor([ids])
    mask = torch.ones_like(ids) if mask is None else torch.tensor([mask])
    return Claims(
        ids, mask, torch.tensor([length]), torch.tensor(past), torch.tensor(ids.shape[1] - past)
    )


def steered(told, suffixes):
    return steered_columns(told, suffixes)[0].nonzero()[:, 0].tolist()


def ends(ids, suffixes):
    """What the runtime steers in these tokens."""
    return header_ends(torch.tensor([ids]), suffixes)[0].nonzero()[:, 0].tolist()


@given(tokens, headers)
@settings(deadline=None)
def test_of_a_prompt_all_headers_and_the_last_token_are_steered(ids, suffixes):
    told = claims(ids, len(ids))
    assert steered(told, suffixes) == sorted({*ends(ids, suffixes), len(ids) - 1})
    assert told.valid(suffixes).all()


@given(tokens, tokens, st.sampled_from([PLAIN, TWO]))
@settings(deadline=None)
def test_behind_the_prompt_headers_are_steered_as_in_a_forward(prompt, more, suffixes):
    whole = prompt + more
    found = steered(claims(whole, len(prompt)), suffixes)
    assert found == sorted({*ends(whole, suffixes), len(prompt) - 1})


@given(tokens, headers, st.data())
@settings(deadline=None)
def test_a_prompt_in_pieces_is_steered_as_in_one_or_is_spoilt(ids, suffixes, data):
    cut = data.draw(st.integers(0, len(ids) - 1))
    first = steered(claims(ids[:cut], len(ids)), suffixes) if cut else []
    told = claims(ids, len(ids), past=cut)
    second = [column for column in steered(told, suffixes) if column >= cut]
    whole = steered(claims(ids, len(ids)), suffixes)
    if told.valid(suffixes).all():
        assert first + second == whole
    else:
        # The runtime raises there: a header that ended in the cache goes on behind it.
        assert suffixes is NESTED
        assert first != [column for column in whole if column < cut]


def test_a_thought_that_the_model_opens_itself_is_no_header():
    prompt = [4, 1, 2]
    ids = [*prompt, 3, 3]
    for past in (3, 4):
        told = claims(ids[: past + 1], len(prompt), past=past)
        assert told.valid(NESTED).all()
        assert steered(told, NESTED) == [2]


def test_what_a_caller_may_not_claim():
    ids = [4, 4, 1, 2, 3]
    assert claims(ids, 5).valid(PLAIN).all()
    assert claims(ids, 9).valid(PLAIN).all()  # the rest of the prompt comes later
    assert not claims(ids, 9).answering.any()
    assert claims(ids, 5).answering.all()
    assert not claims(ids, 4, mask=[1, 1, 1, 1, 0]).valid(PLAIN).any()
    assert not claims(ids, 0).valid(PLAIN).any()
    assert not claims(ids, 5, mask=[1, 1, 1, 1, 0]).valid(PLAIN).any()
    assert not claims(ids, 2, past=2).valid(PLAIN).any()  # three tokens generated at once
    assert claims(ids, 4, past=4).valid(PLAIN).all()


def test_padding_is_never_steered():
    told = claims([1, 2, 3, 4, 4], 5, mask=[0, 0, 0, 1, 1])
    assert steered(told, PLAIN) == [4]


def test_the_richest_modality_so_far():
    ids = torch.tensor([[4, IMAGE, 4, VIDEO, 4, IMAGE], [4, 4, 4, 4, IMAGE, 4]])
    found = modalities(ids, {IMAGE: 1, VIDEO: 2})
    assert found.tolist() == [[0, 1, 1, 2, 2, 2], [0, 0, 0, 0, 1, 1]]
    assert modalities(ids, {}).tolist() == [[0] * 6] * 2


def test_masks_are_causal_but_for_blocks_windows_and_padding():
    ids = torch.tensor([[4, IMAGE, IMAGE, 4, IMAGE]])
    mask = torch.tensor([[0, 1, 1, 1, 1]])
    windows = {"full_attention": None, "sliding_attention": 2}
    made = attention_masks(ids, mask, 3, windows, [IMAGE])
    full, sliding = (made[kind][0, 0] == 0 for kind in windows)
    assert full.int().tolist() == [[0, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 1]]
    assert sliding.int().tolist() == [[0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]
    whole = attention_masks(ids, mask, 5, windows, [IMAGE])["full_attention"][0, 0]
    assert (whole == 0).int().tolist()[1] == [0, 1, 1, 0, 0]  # the first of a picture sees the last


class Rule(nn.Module):
    def __init__(self, suffixes):
        super().__init__()
        self.suffixes = suffixes

    def forward(self, ids, mask, length, past):
        new = (ids[0] == ids[0]).sum() - past
        told = Claims(ids, mask, length, past, new)
        shown = modalities(ids, {IMAGE: 1, VIDEO: 2})
        found = steered_columns(told, self.suffixes)
        return {"steered": found, "modality": shown, "valid": told.valid(self.suffixes)}


@pytest.mark.parametrize("suffixes", [PLAIN, NESTED], ids=["plain", "nested"])
def test_nothing_is_frozen_into_the_graph(suffixes, tmp_path):
    """As a graph it says the same of any sizes, one row, one column and an empty cache included."""
    onnxruntime = pytest.importorskip("onnxruntime")
    example = {
        "ids": torch.full((2, 7), 1),
        "mask": torch.ones(2, 7, dtype=torch.long),
        "length": torch.tensor([5, 6]),
        "past": torch.tensor(3),
    }
    axes = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    dynamic = {"ids": axes, "mask": axes, "length": {0: Dim.DYNAMIC}, "past": None}
    write_graph(Rule(suffixes), example, dynamic, {}, {}, tmp_path / "rule.onnx")
    graph = onnxruntime.InferenceSession(str(tmp_path / "rule.onnx"))
    draw = random.Random(0)
    for _ in range(200):
        rows, width = draw.randint(1, 4), draw.randint(1, 20)
        ids = torch.tensor([[draw.choice([1, 2, 3, 3, 4, IMAGE]) for _ in range(width)]] * rows)
        mask = torch.tensor([[0] * (k := draw.randint(0, width - 1)) + [1] * (width - k)] * rows)
        length = torch.tensor([draw.randint(0, width + 2) for _ in range(rows)])
        inputs = {"ids": ids, "mask": mask, "length": length}
        inputs["past"] = torch.tensor(draw.randint(0, width - 1))
        want = Rule(suffixes)(**inputs)
        got = graph.run(list(want), {name: value.numpy() for name, value in inputs.items()})
        for name, value in zip(want, got, strict=True):
            np.testing.assert_array_equal(value, want[name].numpy(), err_msg=name)
