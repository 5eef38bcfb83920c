"""A checkpoint is evaluated in the thinking mode that it was calibrated in."""

import json

from mars_export.evaluation.generation import load
from support import planted
from support.worded import export_worded

OPEN = "{% if add_generation_prompt %}<turn> model <nl>"
THINKING = planted.TEMPLATE.replace(OPEN, OPEN + "{% if enable_thinking %} think{% endif %}")
TURN = [{"role": "user", "content": [{"type": "text", "text": "show me"}]}]


def test_the_mode_is_written_down_and_used(tmp_path):
    processor = planted.processor(THINKING)
    told = {"enable_thinking": True}
    base, steered = export_worded(tmp_path, processor, template_options=told)
    assert json.loads((steered / "config.json").read_text())["steering"]["template_options"] == told
    template = "chat_template.jinja"
    assert (steered / template).read_bytes() == (base / template).read_bytes()
    loaded = load(steered, ("text", "image"), "cpu", None)
    text = loaded.processor.apply_chat_template(TURN, add_generation_prompt=True, tokenize=False)
    assert text.endswith(" think")
    plain = processor.apply_chat_template(TURN, add_generation_prompt=True, tokenize=False)
    assert not plain.endswith(" think")
