"""Headers are read off the chat template and hold in every turn."""

import pytest

from mars_export.common.errors import ExportError
from mars_export.inputs.template import turn_tokens
from support import planted

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


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (planted.TEMPLATE.split("{% if add_generation_prompt")[0], "adds no generation prompt"),
        (planted.TEMPLATE.replace("'model' if", "'user' if").replace("<turn> {{", "<end> {{"),
         "without the header"),
        (None, "no chat template"),
    ],
)  # fmt: skip
def test_templates_that_cannot_be_steered_are_refused(template, message):
    processor = planted.processor()
    processor.chat_template = template
    with pytest.raises(ExportError, match=message):
        turn_tokens(processor)
