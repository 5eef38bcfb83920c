"""A header is found whatever text follows it, also where the tokenizer merges both."""

import itertools

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from mars_export.common.errors import ExportError
from mars_export.common.header import Header
from mars_export.inputs.merges import merged_headers
from mars_export.inputs.template import turn_tokens
from mars_export.runtime.positions import header_ends
from support.byte_pairs import KINDS, Longest, tokenizer

_TURNS = "{% for m in messages %}BEGIN{% endfor %}{% if add_generation_prompt %}OPEN{% endif %}"
TEMPLATES = {
    "special": _TURNS.replace("BEGIN", "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n")
    .replace("OPEN", "<|im_start|>assistant\n"),
    "two line feeds": _TURNS.replace("BEGIN", "<|im_start|>{{ m.role }}\n\n{{ m.content }}<eos>")
    .replace("OPEN", "<|im_start|>assistant\n\n"),
    "opens a thought": _TURNS.replace("BEGIN", "<|im_start|>{{ m.role }}\n{{ m.content }}<eos>")
    .replace("OPEN", "<|im_start|>assistant\n<think>\n"),
    "role": _TURNS.replace(
        "BEGIN",
        "{{ 'USER: ' if m.role == 'user' else ' ASSISTANT: ' }}{{ m.content }}"
        "{{ eos_token if m.role == 'assistant' }}",
    ).replace("OPEN", " ASSISTANT:"),
    "headline": _TURNS.replace(
        "BEGIN",
        "### {{ 'Instruction' if m.role == 'user' else 'Response' }}:\n{{ m.content }}\n\n",
    ).replace("OPEN", "### Response:\n"),
}  # fmt: skip
CASES = {}
for kind, name in itertools.product(KINDS, TEMPLATES):
    chat = tokenizer(kind, TEMPLATES[name])
    CASES[kind, name] = (chat, turn_tokens(chat).headers)
QWEN = CASES["qwen", "special"]
words = st.sampled_from(["\n", "\n\n", " ", "\t", "\r\n", ":", "//", "Sure", "ants", "USER", "1."])
answers = st.lists(words | st.text(max_size=2), max_size=6).map("".join)


def prompt(words, question="say"):
    turn = {"role": "user", "content": question}
    return words.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)


def up_to_header(words, headers, question="say"):
    """A prompt without what its template says behind the header."""
    text, header = prompt(words, question), words.decode([*headers[0].prefix, headers[0].ends[0]])
    return text[: text.rindex(header.lstrip()) + len(header.lstrip())]


def columns(words, headers, text):
    ids = words.encode(text, add_special_tokens=False)
    hits = header_ends(torch.tensor([ids]), [header.model_dump() for header in headers])
    return ids, hits[0].nonzero()[:, 0].tolist()


def test_a_begun_answer_is_found_behind_its_line_feed():
    words, headers = QWEN
    name = words.convert_tokens_to_ids
    assert headers[0].prefix == name(["<|im_start|>", "assistant"])
    assert headers[0].ends[0] == name("Ċ")
    assert name("ĊĊ") in headers[0].ends
    ids, hits = columns(words, headers, prompt(words) + "\nSure")
    assert ids[hits[0] :] == name(["ĊĊ", "Sure"])
    assert len(hits) == 1


@pytest.mark.parametrize("case", CASES, ids=" ".join)
@given(answers)
@example("\nSure")
@example("")
def test_a_header_is_found_once_before_any_answer(case, answer):
    words, headers = CASES[case]
    begun = up_to_header(words, headers)
    ids, hits = columns(words, headers, begun + answer)
    assert len(hits) == 1
    up_to, before = (words.decode(ids[:stop]) for stop in (hits[0] + 1, hits[0]))
    assert up_to.startswith(begun)
    assert not before.startswith(begun)


@pytest.mark.parametrize("case", CASES, ids=" ".join)
@given(answers)
@example("a\n")
@example("a ")
def test_a_header_is_found_once_behind_any_question(case, question):
    words, headers = CASES[case]
    assert len(columns(words, headers, prompt(words, question))[1]) == 1


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_every_end_comes_out_of_the_tokenizer(case):
    words, headers = CASES[case]
    plain = words.decode([*headers[0].prefix, headers[0].ends[0]]).lstrip()
    for header in headers:
        for end in header.ends:
            alone = Header(prefix=header.prefix, ends=[end])
            following = words.decode([*header.prefix, end]).lstrip().removeprefix(plain)
            texts = [
                up_to_header(words, headers, question) + following + more
                for question, more in itertools.product(["say", "say "], ["", "\n"])
            ]
            assert any(columns(words, [alone], text)[1] for text in texts), following


def test_special_tokens_never_merge():
    template = TEMPLATES["special"].replace("role }}\n", "role }}<think>")
    words = tokenizer("qwen", template.replace("assistant\n", "assistant<think>"))
    name = words.convert_tokens_to_ids
    want = Header(prefix=name(["<|im_start|>", "assistant"]), ends=name(["<think>"]))
    assert turn_tokens(words).headers == [want]


def test_slow_tokenizers_too():
    vocabulary = ["?", "user", "assistant", "\n", "\n\n", "a", "b", *'qzxwkv. /s"']
    special = {"start": "<|im_start|>", "end": "<|im_end|>"}
    words = Longest(vocabulary, extra_special_tokens=special, chat_template=TEMPLATES["special"])
    name = words.convert_tokens_to_ids
    turns = turn_tokens(words)
    want = Header(prefix=name(["<|im_start|>", "assistant"]), ends=name(["\n", "\n\n"]))
    assert turns.headers == [want]
    assert name(["<|im_start|>", "user"]) in turns.turn_starts


@pytest.mark.parametrize("text", ["no header at all", ""])
def test_a_text_without_the_header_is_an_error(text):
    words, (header, *_) = QWEN
    with pytest.raises(ExportError, match="does not make the tokens"):
        merged_headers(words, text, [*header.prefix, header.ends[0]])
