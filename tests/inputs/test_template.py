"""Headers are read off the chat template and hold in every turn."""

import string

import pytest
import torch

from mars_export.common.errors import ExportError
from mars_export.inputs.requests import Request, collate
from mars_export.inputs.template import thinking_options, turn_tokens, with_options
from mars_export.runtime.positions import header_ends
from support import planted
from support.byte_pairs import KINDS, Longest, tokenizer

OPEN = "{% if add_generation_prompt %}<turn> model <nl>"
THINKING = planted.TEMPLATE.replace(
    OPEN, OPEN + "{% if enable_thinking is not defined or enable_thinking %} think{% endif %}"
)


def tokens(processor):
    names = processor.tokenizer.convert_ids_to_tokens
    return [names([*header.prefix, *header.ends]) for header in turn_tokens(processor).headers]


def test_the_generation_prompt_is_the_header():
    assert tokens(planted.processor()) == [planted.HEADER]


def test_every_assistant_turn_ends_its_header_so():
    processor = planted.processor()
    header = turn_tokens(processor).headers[0]
    suffix = [*header.prefix, *header.ends]
    turn = [
        {"role": role, "content": [{"type": "text", "text": "show me"}]}
        for role in ("user", "assistant")
    ]
    text = processor.apply_chat_template([*turn, *turn, turn[0]], add_generation_prompt=True)
    ids = processor.tokenizer.encode(text, add_special_tokens=False)
    hits = [i for i in range(len(ids)) if ids[i : i + len(suffix)] == suffix]
    assert len(hits) == 3
    assert hits[-1] + len(suffix) == len(ids)


@pytest.mark.parametrize("switch", ["enable_thinking", "thinking"])
def test_a_thinking_template_has_the_shortest_header(switch):
    template = THINKING.replace("enable_thinking", switch)
    assert tokens(planted.processor(template)) == [planted.HEADER]
    opens = template.replace(f"{switch} is not defined or {switch}", f"{switch} is true")
    assert tokens(planted.processor(opens)) == [planted.HEADER]


@pytest.mark.parametrize("switch", ["enable_thinking", "thinking"])
@pytest.mark.parametrize("thinking", [True, False])
def test_a_thinking_mode_is_fixed_whatever_callers_pass(switch, thinking):
    processor = planted.processor(THINKING.replace("enable_thinking", switch))
    turn = [{"role": "user", "content": [{"type": "text", "text": "show me"}]}]

    def text(source, **mode):
        return source.apply_chat_template(turn, add_generation_prompt=True, tokenize=False, **mode)

    options = thinking_options(processor, thinking)
    assert options == {switch: thinking}
    fixed = with_options(processor, options)
    expected = text(processor, **options)
    for mode in ({}, {switch: True}, {switch: False}):
        assert text(fixed, **mode) == expected
    assert text(processor, **{switch: True}) != text(processor, **{switch: False})
    assert turn_tokens(fixed).headers == turn_tokens(processor).headers
    assert with_options(processor, thinking_options(processor, None)) is processor


def test_of_several_templates_the_default_one_counts():
    processor = planted.processor()
    processor.chat_template = {"tools": "{{ messages }}", "default": THINKING}
    assert tokens(processor) == [planted.HEADER]
    fixed = with_options(processor, thinking_options(processor, thinking=False))
    turn = [{"role": "user", "content": [{"type": "text", "text": "show me"}]}]
    assert "think" not in fixed.apply_chat_template(turn, add_generation_prompt=True)
    assert collate(processor, [Request("show me")])["input_ids"].shape[0] == 1
    processor.chat_template.pop("default")
    for call in (turn_tokens, lambda p: collate(p, [Request("show me")])):
        with pytest.raises(ExportError, match="the chat templates tools and none that is called"):
            call(processor)


def test_the_template_of_the_tokenizer_alone_will_not_do_for_pictures():
    processor = planted.processor(None)
    with pytest.raises(ExportError, match="no chat template; add chat_template"):
        turn_tokens(processor)
    processor.tokenizer.chat_template = planted.TEMPLATE
    with pytest.raises(ExportError, match="only its tokenizer has one"):
        turn_tokens(processor)


def test_a_thinking_mode_needs_a_switch():
    with pytest.raises(ExportError, match="no thinking switch"):
        thinking_options(planted.processor(), False)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (planted.TEMPLATE.split("{% if add_generation_prompt")[0], "adds no generation prompt"),
        (planted.TEMPLATE.replace("'model' if", "'user' if").replace("<turn> {{", "<end> {{"),
         "without the header"),
        (planted.TEMPLATE.replace("c['text']", "c['words']"), "leaves out what the user says"),
        (None, "no chat template"),
    ],
)  # fmt: skip
def test_templates_that_cannot_be_steered_are_refused(template, message):
    processor = planted.processor()
    processor.chat_template = template
    with pytest.raises(ExportError, match=message):
        turn_tokens(processor)


PLAIN = (
    "{% for m in messages %}{{ 'Query: ' if m.role == 'user' else 'HEADER' }}{{ m.content }}\n\n"
    "{% endfor %}{% if add_generation_prompt %}HEADER{% endif %}"
)
BLANK = (
    "{% for m in messages %}        {% if m.role == 'user' %}### Instruction:{% else %}"
    "### Response:{% endif %}\n{{ m.content | trim }}\n\n\n{% endfor %}"
    "{% if add_generation_prompt %}    ### Response:\n{% endif %}"
)  # blank lines are all that the generation prompt and earlier turns have in common
TEXTS = ("model\n", "Answer:", "- ", "=> ", "Reply, please: ")
ORDINARY = [(kind, PLAIN.replace("HEADER", text)) for kind in KINDS for text in TEXTS]


@pytest.mark.parametrize(("kind", "template"), [("gpt2", BLANK), *ORDINARY])
def test_a_header_that_ordinary_text_contains_is_refused(kind, template):
    with pytest.raises(ExportError, match="ordinary text may hold") as caught:
        turn_tokens(tokenizer(kind, template))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("header", ["### Response:\n", "ASSISTANT: ", "<|model|>", "[bot] "])
def test_a_header_of_plain_text_is_marked_or_names_the_assistant(kind, header):
    words = tokenizer(kind, PLAIN.replace("HEADER", header))
    assert {text(words, h).strip() for h in turn_tokens(words).headers} == {header.strip()}


def text(words, header):
    return words.decode([*header.prefix, header.ends[0]])


def test_a_header_that_holds_another_one_is_none_of_its_own():
    """The mark at its beginning merges with the question before it in one thinking mode only."""
    off = "{% if enable_thinking is defined and not enable_thinking %}"
    template = (
        "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}<think></think>"
        "{% endif %}{{ m.content }}{% if m.role == 'user' %}" + off + "/nothink{% endif %}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>"
        + off + "<think></think>{% endif %}{% endif %}"
    )  # fmt: skip
    words = Longest([*string.printable, ".<"], chat_template=template)
    assert [text(words, header) for header in turn_tokens(words).headers] == ["|assistant|>"]


def test_a_header_that_also_ends_the_answer_is_refused():
    words = tokenizer("qwen", "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}")
    with pytest.raises(ExportError, match="has 5 assistant headers in a conversation of three"):
        turn_tokens(words)


@pytest.mark.parametrize("template", ["{{ raise_exception('tools\nonly') }}", "{% if %}"])
def test_a_template_that_cannot_be_rendered_is_refused(template):
    with pytest.raises(ExportError, match="cannot render a plain conversation") as caught:
        turn_tokens(tokenizer("qwen", template))
    assert "\n" not in str(caught.value)


LLAMA = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content | trim }}"
    " [/INST]{% else %} {{ m.content | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)
MISTRAL = LLAMA.replace("{{ bos_token }}", "").replace(" | trim", "").replace("%} {{", "%}{{")


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", [LLAMA, MISTRAL])
def test_the_end_of_the_users_turn_is_a_header_if_it_begins_the_answer(kind, template, special):
    words = tokenizer(kind, template)
    if special:
        words.add_special_tokens({"additional_special_tokens": ["[INST]", "[/INST]"]})
    turns = turn_tokens(words)
    assert {text(words, header).strip() for header in turns.headers} == {"[/INST]"}
    assert [words.decode(start).removeprefix("<bos>") for start in turns.turn_starts] == ["[INST]"]
    roles = ["user", "assistant", "user", "assistant", "user"]
    messages = [{"role": role, "content": "say it."} for role in roles]
    ids = words.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    hits = header_ends(torch.tensor([ids]), [header.model_dump() for header in turns.headers])[0]
    answers = [i + 1 for i, hit in enumerate(hits.tolist()) if hit]
    assert (len(answers), answers[-1]) == (3, len(ids))
    for answer in answers[:2]:
        assert words.decode(ids[answer:]).lstrip().startswith("say it.")


def test_a_users_turn_whose_end_does_not_begin_the_answer_is_no_header():
    words = tokenizer("qwen", CHAT.split("{% if add_generation_prompt")[0])
    with pytest.raises(ExportError, match="adds no generation prompt"):
        turn_tokens(words)


CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOL = "{% if m.role == 'tool' %}<|im_start|>user\n<tool>{{ m.content }}</tool>{% else %}"


@pytest.mark.parametrize(
    ("template", "openings"),
    [
        (CHAT, ["<|im_start|>user", "<|im_start|>tool", "<|im_start|>system"]),
        # The content is trimmed, so that the line feed behind the role never merges.
        (CHAT.replace("m.content", "m.content | trim"),
         ["<|im_start|>user\n", "<|im_start|>tool\n", "<|im_start|>system\n"]),
        # A tool's turn begins as the user's do.
        (CHAT.replace("<|im_start|>{{ m.role }}\n{{ m.content }}",
                      TOOL + "<|im_start|>{{ m.role }}\n{{ m.content }}{% endif %}"),
         ["<|im_start|>user", "<|im_start|>system"]),
        # What a tool says is a part of the assistant's turn; system turns are refused.
        (CHAT.replace("<|im_start|>{{", "{% if m.role == 'system' %}{{ raise_exception('no') }}"
                      "{% endif %}<|im_start|>{{")
         .replace("if add_generation_prompt", "if add_generation_prompt and "
                  "messages[-1].role != 'tool'"),
         ["<|im_start|>user"]),
        # Nothing tells the user's turn from the assistant's text.
        (CHAT.replace("<|im_start|>{{ m.role }}\n", "{% if m.role == 'assistant' %}"
                      "<|im_start|>assistant\n{% endif %}"), []),
    ],
)  # fmt: skip
def test_turns_of_others_are_known_by_what_does_not_depend_on_their_content(template, openings):
    words = tokenizer("qwen", template)
    assert [words.decode(start) for start in turn_tokens(words).turn_starts] == openings


def test_a_turn_start_is_in_every_conversation_and_in_no_header():
    words = tokenizer("qwen", CHAT)
    turns = turn_tokens(words)
    for content in ("say", "\nsay", "\n\n", "", "1.", "USER"):
        messages = [{"role": role, "content": content} for role in ("user", "assistant", "user")]
        text = words.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = words.encode(text, add_special_tokens=False)
        user = turns.turn_starts[0]
        assert sum(ids[i : i + len(user)] == user for i in range(len(ids))) == 2
