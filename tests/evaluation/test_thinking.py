"""A checkpoint is evaluated in the thinking mode that it was calibrated in."""

import json

import torch

from mars_export.checkpoint.writer import write_checkpoint
from mars_export.evaluation.generation import load
from support import planted, tiny

OPEN = "{% if add_generation_prompt %}<turn> model <nl>"
THINKING = planted.TEMPLATE.replace(OPEN, OPEN + "{% if enable_thinking %} think{% endif %}")
TURN = [{"role": "user", "content": [{"type": "text", "text": "show me"}]}]


def test_the_mode_is_written_down_and_used(tmp_path):
    processor = planted.processor(THINKING)
    vocabulary = processor.tokenizer.get_vocab()
    cls, config = tiny.BUILDERS["gemma3"]()
    config.text_config.vocab_size = len(vocabulary)
    config.image_token_id = vocabulary["<img>"]
    torch.manual_seed(0)
    cls(config).save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    told = {"enable_thinking": True}
    *prefix, end = [vocabulary[word] for word in planted.HEADER]
    calibration = tiny.save_calibration(
        "gemma3",
        tmp_path / "calibration",
        headers=[{"prefix": prefix, "ends": [end]}],
        template_options=told,
    )
    steered = tmp_path / "steered"
    write_checkpoint(
        tmp_path / "base", steered, source=tiny.source("gemma3"), calibration_dir=calibration
    )
    assert json.loads((steered / "config.json").read_text())["steering"]["template_options"] == told
    template = "chat_template.jinja"
    assert (steered / template).read_bytes() == (tmp_path / "base" / template).read_bytes()
    loaded = load(steered, ("text", "image"), "cpu", None)
    text = loaded.processor.apply_chat_template(TURN, add_generation_prompt=True, tokenize=False)
    assert text.endswith(" think")
    plain = processor.apply_chat_template(TURN, add_generation_prompt=True, tokenize=False)
    assert not plain.endswith(" think")
