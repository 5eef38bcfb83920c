"""Refusal tokens, log-odds and divergence."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mars_export.calibration.data import OPENERS
from mars_export.calibration.refusal import (
    divergence,
    log_odds,
    refusal_tokens,
    refuses,
    separating,
)
from mars_export.common.errors import ExportError
from support import planted


def byte_level() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, "So", "rr", "Sorr", "Sorry", "ĠS", "ĠSo", "ĠSorry", "I'", "<eos>"]
    merges = [("S", "o"), ("r", "r"), ("So", "rr"), ("Sorr", "y"), ("Ġ", "Sorry")]
    core = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>")


def test_first_tokens_with_and_without_a_space():
    tokenizer = byte_level()
    found = tokenizer.convert_ids_to_tokens(refusal_tokens(tokenizer, ["Sorry, no", "I can't"]))
    assert sorted(found) == ["I", "Sorry", "ĠSorry"]  # the bare space before I is no opener


def test_unknown_words_are_no_refusal_tokens():
    tokenizer = planted.processor().tokenizer
    names = tokenizer.convert_ids_to_tokens(refusal_tokens(tokenizer, OPENERS))
    assert names == ["Sorry"]
    with pytest.raises(ExportError, match="No refusal opener begins with a token"):
        refusal_tokens(tokenizer, ["Désolé"])


def test_log_odds():
    p = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]], dtype=torch.float64)
    found = log_odds(p.log() + 5, [0, 3])
    assert found.tolist() == pytest.approx([0.0, float(torch.tensor(4.0).log())])


def test_divergence():
    p = torch.tensor([[0.5, 0.5], [0.9, 0.1]], dtype=torch.float64)
    q = torch.tensor([[0.5, 0.5], [0.5, 0.5]], dtype=torch.float64)
    expected = (p[1] * (p[1] / q[1]).log()).sum()
    assert divergence(p.log(), q.log()).tolist() == pytest.approx([0, float(expected)])


def test_a_token_that_begins_harmless_answers_is_no_refusal_token():
    sorry, i, other = torch.tensor([[8, 1, 1], [1, 8, 1], [1, 1, 8]]).double().div(10).log()
    harmful = torch.stack([sorry, sorry, sorry, i])
    assert separating([0, 1], harmful, torch.stack([i, i, other, other])) == [0]
    assert separating([0, 1], harmful, torch.stack([other, other, other, other])) == [0, 1]
    assert separating([0, 1], harmful[3:], torch.stack([sorry, other])) == [1]


def test_a_token_stays_without_which_fewer_prompts_are_told_apart():
    i, other = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]).log()
    harmful, harmless = torch.stack([i, i, i, other]), torch.stack([i, other, other])
    assert separating([0, 1], harmful, harmless) == [0, 1]


def test_what_is_refused_is_what_greedy_decoding_begins_with_a_refusal():
    spread = torch.tensor([[0.4, 0.15, 0.15, 0.15, 0.15], [0.3, 0.4, 0.1, 0.1, 0.1]]).log()
    assert refuses(spread, [0]).tolist() == [True, False]
    assert refuses(spread, [0, 1]).tolist() == [True, True]
    assert float(log_odds(spread, [0])[0]) < 0  # fewer than half of the answers drawn at random
