"""Rendering requests: left padding, modalities, and nothing left behind."""

import logging

import pytest
import torch
from PIL import Image

from mars_export.common.errors import ExportError
from mars_export.inputs.requests import Media, Request, Turn, collate, messages, modality_of
from mars_export.inputs.template import turn_tokens
from support import planted

RED = Image.new("RGB", (40, 30), (200, 10, 10))
PICTURE = Media("image", RED)


def test_rows_are_left_padded_whatever_the_tokenizer_says():
    processor = planted.processor()
    for side in ("right", "left"):
        processor.tokenizer.padding_side = side
        batch = collate(processor, [Request("show me"), Request("please show me the good1")])
        assert processor.tokenizer.padding_side == side
        assert batch["attention_mask"][0].tolist() == [0] * 3 + [1] * 10
        ends = processor.tokenizer.convert_ids_to_tokens(batch["input_ids"][0, -3:].tolist())
        assert ends == planted.HEADER


def test_one_row_of_a_batch_equals_the_request_alone():
    processor = planted.processor()
    short, long = Request("show me", (PICTURE,)), Request("please show me the good1", (PICTURE,))
    batch, alone = collate(processor, [short, long]), collate(processor, [short])
    width = alone["input_ids"].shape[1]
    assert torch.equal(batch["input_ids"][:1, -width:], alone["input_ids"])
    assert torch.equal(batch["pixel_values"][:1], alone["pixel_values"])
    assert int((alone["input_ids"] == processor.tokenizer.image_token_id).sum()) == 4


def test_the_sequence_begins_once():
    processor = planted.processor()
    ids = collate(processor, [Request("show me")])["input_ids"][0].tolist()
    assert ids.count(processor.tokenizer.bos_token_id) == 1


def test_modality_of_a_request():
    assert Request("a").modality == "text"
    assert Request("a", (PICTURE,)).modality == "image"
    clip = Media("video", (RED, RED))
    assert Request("a", (clip,)).modality == "video"
    both = Request("a", (clip, PICTURE))
    assert both.modality == "video"
    assert both.pictures == (RED, RED, RED)
    assert modality_of(["video", "image"], ("text", "video", "image")) == "image"
    with pytest.raises(ValueError, match="not in"):
        modality_of(["video"], ("text", "image"))
    with pytest.raises(ValueError, match="one modality"):
        collate(planted.processor(), [Request("a"), Request("a", (PICTURE,))])


def test_a_processor_that_cannot_is_told_apart():
    with pytest.raises(ExportError, match="Gemma3Processor takes no video"):
        collate(planted.processor(), [Request("a", (Media("video", (RED, RED)),))])
    bare = planted.processor()
    bare.chat_template = None
    with pytest.raises(ExportError, match="no chat template"):
        collate(bare, [Request("a")])


def test_a_clip_is_rendered_without_a_warning(caplog):
    processor = planted.video_processor()
    clip = Media("video", tuple(Image.new("RGB", (32, 32), (60 * i, 0, 0)) for i in range(4)))
    with caplog.at_level(logging.WARNING):
        batch = collate(processor, [Request("show me", (clip,)), Request("me", (clip,))])
    assert not caplog.records
    assert batch["video_grid_thw"][:, 0].tolist() == [2, 2]  # four frames, two a temporal patch
    assert batch["attention_mask"][1, 0] == 0
    assert set(batch["mm_token_type_ids"].unique().tolist()) == {0, 2}


PLAIN = planted.TEMPLATE.replace(
    planted.TEMPLATE[planted.TEMPLATE.index("{% for c in") : planted.TEMPLATE.index("<end>")],
    "{{ m['content'] }} ",
)


def test_a_text_only_model_has_a_tokenizer_alone():
    processor = planted.processor()
    tokenizer = processor.tokenizer
    tokenizer.chat_template = PLAIN
    requests = [Request("show me"), Request("me")]
    batch, same = collate(tokenizer, requests), collate(processor, requests)
    assert batch["input_ids"].equal(same["input_ids"])
    assert batch["attention_mask"].equal(same["attention_mask"])
    assert turn_tokens(tokenizer) == turn_tokens(processor)
    with pytest.raises(ExportError, match="takes text alone"):
        collate(tokenizer, [Request("a", (PICTURE,))])


def words(batch, processor):
    """Tokens of the first row without padding."""
    ids = batch["input_ids"][0][batch["attention_mask"][0].bool()]
    return processor.tokenizer.convert_ids_to_tokens(ids.tolist())


def test_earlier_turns_and_a_system_prompt_come_first():
    processor = planted.processor()
    plain = words(collate(processor, [Request("show me")]), processor)
    long = Request("show me", system="please", history=(("how", "sure"),))
    found = words(collate(processor, [long]), processor)
    assert found[-len(plain) + 1 :] == plain[1:]
    rest = found[: -len(plain) + 1]
    assert [w for w in rest if w in ("please", "how", "sure")] == ["please", "how", "sure"]


def test_a_picture_of_an_earlier_turn_stays_in_view():
    processor = planted.processor()
    blue = Media("image", Image.new("RGB", (40, 30), (10, 10, 200)))
    earlier = Request("please", history=(Turn("show me", "sure", (PICTURE,)), ("how", "me")))
    both = Request("please", (blue,), history=earlier.history)
    assert earlier.modality == both.modality == "image"
    assert (earlier.media, earlier.pictures) == ((), (RED,))
    assert both.pictures == (RED, blue.data)
    batch = collate(processor, [earlier, Request("show me", (PICTURE,))])
    assert torch.equal(batch["pixel_values"][0], batch["pixel_values"][1])
    row = words(batch, processor)
    image = processor.tokenizer.convert_ids_to_tokens(processor.tokenizer.image_token_id)
    assert row.count(image) == 4
    ends = [index for index, word in enumerate(row) if word == image]
    assert ends[-1] < row.index("show") < row.index("sure") < row.index("how")
    one, two = collate(processor, [both])["pixel_values"]
    assert torch.equal(one, batch["pixel_values"][0])
    assert not torch.equal(one, two)


def test_a_clip_of_an_earlier_turn_stays_in_view():
    processor = planted.video_processor()
    clip = Media("video", tuple(Image.new("RGB", (32, 32), (60 * i, 0, 0)) for i in range(4)))
    earlier = Request("me", history=(Turn("show me", "sure", (clip,)),))
    assert collate(processor, [earlier])["video_grid_thw"][:, 0].tolist() == [2]
    with_picture = Request("me", (PICTURE,), history=earlier.history)
    assert earlier.modality == with_picture.modality == "video"
    parts = [[part["type"] for part in turn["content"]] for turn in messages(with_picture)]
    assert parts == [["video", "text"], ["text"], ["image", "text"]]


def test_a_text_only_model_is_shown_nothing_earlier_either():
    tokenizer = planted.processor().tokenizer
    tokenizer.chat_template = PLAIN
    with pytest.raises(ExportError, match="takes text alone"):
        collate(tokenizer, [Request("a", history=(Turn("b", "c", (PICTURE,)),))])


def test_a_prefill_stands_after_the_open_header():
    processor = planted.processor()
    plain = words(collate(processor, [Request("show me")]), processor)
    begun = words(collate(processor, [Request("show me", prefill="sure")]), processor)
    assert begun == [*plain, "sure"]


def test_a_batch_does_not_mix_forms():
    with pytest.raises(ValueError, match="mixes requests"):
        collate(planted.processor(), [Request("show me", prefill="sure"), Request("show me")])
