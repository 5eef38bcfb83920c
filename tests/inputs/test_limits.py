"""What a model cannot be asked is found with its processor, and named with its record."""

import pytest
from PIL import Image

from mars_export.common.errors import ExportError
from mars_export.inputs.limits import Asked, check_prompts, check_requests, context_of
from mars_export.inputs.prompts import PromptSet, PromptSets
from mars_export.inputs.requests import Media, Request
from support import planted

PROCESSOR = planted.processor()


def picture(width, height):
    return Media("image", Image.new("RGB", (width, height)))


def clip(*sizes):
    return Media("video", tuple(Image.new("RGB", size) for size in sizes))


def asked(number, prompt, *media):
    return Asked(f"s.jsonl, line {number}", prompt, lambda: Request(prompt, media))


def refusal(requests, processor=PROCESSOR, context=100):
    with pytest.raises(ExportError) as caught:
        check_requests(processor, context, requests)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def sets(*harmless):
    places = {text: f"good.txt, line {number}" for number, text in enumerate(harmless, 1)}
    bad = PromptSet("bad.txt", "", "", ("show me",), (), ())
    return PromptSets(bad, PromptSet("good.txt", "", "", harmless, (), (), places))


@pytest.mark.parametrize("word", ["<turn>", "<end>", "<img>", "<boi>", "<eos>", "<pad>", "<bos>"])
def test_a_special_token_in_a_prompt_is_named_with_its_line(word):
    with pytest.raises(ExportError) as caught:
        check_prompts(PROCESSOR, 100, sets("show me", f"what is {word} here", "please"))
    text = str(caught.value)
    assert text.startswith(f"good.txt, line 2: the prompt holds {word}, a special token")
    assert word in refusal([asked(1, "show"), asked(3, f"show {word} me", picture(8, 8))])


def test_what_only_looks_like_one_is_a_prompt():
    for text in ("what is <unknown> here", "turn <b>bold</b>", "a user and a model", "< turn >"):
        check_prompts(PROCESSOR, 100, sets(text))
        check_requests(PROCESSOR, 100, [asked(1, text)])


def test_tokens_of_turns_count_even_where_they_are_not_marked_as_special():
    processor = planted.processor()
    tokenizer = processor.tokenizer
    tokenizer.add_tokens(["<ask>", "<other>"])
    processor.chat_template = planted.TEMPLATE.replace("<nl>", "<ask>")
    check_requests(processor, 100, [asked(1, "the <other> one")])
    assert "<ask>" in refusal([asked(1, "the <ask> one")], processor)


def test_prompts_beyond_the_context():
    long = " ".join(["show"] * 200)
    with pytest.raises(ExportError, match=r"good\.txt, line 2: 20\d tokens .* takes 100; shorten"):
        check_prompts(PROCESSOR, 100, sets("show me", long))
    check_prompts(PROCESSOR, 300, sets("show me", long))
    text = refusal([asked(1, "show", picture(8, 8)), asked(2, long, picture(8, 8)), asked(3, long)])
    assert text.startswith("s.jsonl has 2 problems: line 2: ")
    assert "; line 3: " in text


def test_every_record_that_the_processor_refuses_is_named():
    processor = planted.video_processor()
    shown = "{% if c['type'] == 'image' %}<|image_pad|> {% elif"
    processor.chat_template = processor.chat_template.replace("{% if", shown, 1)
    two = clip((64, 64), (64, 64))
    good = [asked(1, "show"), asked(2, "me", picture(64, 64)), asked(3, "me", two)]
    check_requests(processor, 1000, good)
    bad = [
        asked(4, "me", picture(1200, 4)),
        asked(5, "show me", picture(1200, 4)),
        asked(6, "me", clip((64, 64))),
        asked(7, "me", clip((64, 64), (32, 64))),
    ]
    text = refusal([*good, *bad], processor, 1000)
    assert text.startswith("s.jsonl has 4 problems: line 4: Qwen3VLProcessor refuses a picture of")
    assert "line 5: " in text
    assert "line 6: Qwen3VLProcessor refuses a clip with 1 frames of 64x64: " in text
    assert "line 7: Qwen3VLProcessor refuses a clip with 2 frames of 32x64 and 64x64: " in text


def test_what_cannot_be_opened_is_named_too():
    def fail():
        raise ExportError("p.png: not a readable picture (empty); replace it")

    text = refusal([asked(1, "show"), Asked("s.jsonl, line 2", "me", fail)])
    assert text == "s.jsonl, line 2: p.png: not a readable picture (empty); replace it"


def test_requests_that_are_alike_are_opened_once():
    opened = []

    def draw(number):
        opened.append(number)
        return Request("show", (picture(8, 8),))

    words = ["show", "show me", "show me the good1", "please"]
    requests = [Asked(str(n), w, lambda n=n: draw(n), "drawn") for n, w in enumerate(words)]
    check_requests(PROCESSOR, 100, requests)
    assert opened == [2]


def test_the_context_is_that_of_the_text_model():
    text = {"max_position_embeddings": 77}
    assert context_of({"model_type": "gemma3", "text_config": text}) == 77
    assert context_of({"model_type": "steered_gemma3"}) == 131072
    assert context_of({"model_type": "nothing"}) > 10**8


def test_a_tokenizer_alone():
    tokenizer = PROCESSOR.tokenizer
    tokenizer.chat_template = "{% for m in messages %}<turn> {{ m['content'] }} {% endfor %}<nl>"
    check_requests(tokenizer, 100, [asked(1, "show")])
    assert "<turn>" in refusal([asked(1, "show <turn>")], tokenizer)
