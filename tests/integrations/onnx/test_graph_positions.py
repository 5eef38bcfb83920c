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
from mars_export.integrations.onnx.graph_positions import GraphColumns
from mars_export.integrations.onnx.graphs import write_graph
from mars_export.runtime.positions import contexts

PLAIN = [{"prefix": [1, 2], "ends": [3]}]
MERGED = [{"prefix": [1, 2], "ends": [3, 4]}, {"prefix": [], "ends": [5]}]
TURNS = [[1, 6], [9]]
IMAGE, VIDEO = 7, 8
tokens = st.lists(st.sampled_from([1, 2, 3, 4, 5, 6, 9]), min_size=1, max_size=12)
headers = st.sampled_from([PLAIN, MERGED])


def columns(ids, headers, mask=None):
    ids = torch.tensor([ids])
    mask = torch.ones_like(ids) if mask is None else torch.tensor([mask])
    return GraphColumns(ids, mask, headers, TURNS, {IMAGE: 1, VIDEO: 2})


def ends(ids, headers):
    """Where a header ends, looked for in the plainest way."""
    parts = [[*h["prefix"], end] for h in headers for end in h["ends"]]
    return [i for i in range(len(ids)) if any(ids[: i + 1][-len(p) :] == p for p in parts)]


@given(tokens, headers)
@settings(deadline=None)
def test_every_header_is_steered_whatever_follows(ids, headers):
    for length in range(1, len(ids) + 1):
        found = columns(ids[:length], headers)
        assert found.steered[0].nonzero()[:, 0].tolist() == ends(ids[:length], headers)
        assert found.steered.equal(columns(ids, headers).steered[:, :length])


@given(tokens, headers)
@settings(deadline=None)
def test_an_answer_needs_a_header_behind_which_nobody_else_begins(ids, headers):
    others = [{"prefix": turn[:-1], "ends": turn[-1:]} for turn in TURNS]
    known = max(ends(ids, headers), default=-1) > max(ends(ids, others), default=-1)
    assert columns(ids, headers).answering.tolist() == [known]


def test_padding_is_neither_steered_nor_answered():
    early, late = [0, 0, 0, 1, 1], [1, 1, 1, 1, 0]
    padded = columns([1, 2, 3, 4, 4], PLAIN, early)
    assert not padded.steered.any()
    assert not padded.answering.any()
    assert columns([1, 6, 1, 2, 3], PLAIN, early[::-1]).answering.tolist() == [False]
    assert columns([4, 1, 2, 3, 4], PLAIN).valid.all()
    assert not columns([4, 1, 2, 3, 4], PLAIN, late).valid.any()
    assert columns([4, 4, 4, 4, 4], PLAIN, late).valid.all()  # not there yet


conversations = st.lists(st.sampled_from([1, 2, 3, 4, 5, IMAGE, VIDEO]), min_size=1, max_size=12)


@given(conversations, headers)
@settings(deadline=None)
def test_contexts_are_those_of_the_runtime(ids, headers):
    found = columns(ids, headers)
    shown = (found.ids == IMAGE).long() + 2 * (found.ids == VIDEO).long()
    assert found.context.equal(contexts(shown, found.steered))
    assert not GraphColumns(found.ids, found.mask, headers, TURNS, {}).context[..., :2].any()


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
    def __init__(self, headers):
        super().__init__()
        self.headers = headers

    def forward(self, ids, mask):
        found = GraphColumns(ids, mask, self.headers, TURNS, {IMAGE: 1, VIDEO: 2})
        made = {"steered": found.steered, "context": found.context}
        return made | {"answering": found.answering, "valid": found.valid}


@pytest.mark.parametrize("headers", [PLAIN, MERGED], ids=["plain", "merged"])
def test_nothing_is_frozen_into_the_graph(headers, tmp_path):
    """As a graph it says the same of any sizes, one row and one column included."""
    onnxruntime = pytest.importorskip("onnxruntime")
    example = {"ids": torch.full((2, 7), 1), "mask": torch.ones(2, 7, dtype=torch.long)}
    axes = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    dynamic = {"ids": axes, "mask": axes}
    write_graph(Rule(headers), example, dynamic, {}, {}, tmp_path / "rule.onnx")
    graph = onnxruntime.InferenceSession(str(tmp_path / "rule.onnx"))
    draw = random.Random(0)
    for _ in range(200):
        rows, width = draw.randint(1, 4), draw.randint(1, 20)
        words = [1, 2, 3, 3, 4, 5, 6, 9, IMAGE]
        ids = torch.tensor([[draw.choice(words) for _ in range(width)] for _ in range(rows)])
        mask = torch.tensor([[0] * (k := draw.randint(0, width - 1)) + [1] * (width - k)] * rows)
        inputs = {"ids": ids, "mask": mask}
        want = Rule(headers)(**inputs)
        got = graph.run(list(want), {name: value.numpy() for name, value in inputs.items()})
        for name, value in zip(want, got, strict=True):
            np.testing.assert_array_equal(value, want[name].numpy(), err_msg=name)
