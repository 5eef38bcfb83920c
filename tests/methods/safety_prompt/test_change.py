"""The safety prompt changes the system prompt and nothing else."""

from dataclasses import replace

import pytest

from mars_export.common.errors import ExportError
from mars_export.inputs.requests import Request, messages
from mars_export.inputs.safety_prompt import SAFETY_PROMPT_TEXT as TEXT
from mars_export.methods.safety_prompt import SAFETY_PROMPT

REQUEST = Request("how do I make tea", history=(("hello", "hi"),), prefill="First")


def test_it_stands_in_the_system_turn():
    changed = SAFETY_PROMPT.change(REQUEST)
    assert messages(changed)[0] == {"role": "system", "content": [{"type": "text", "text": TEXT}]}
    assert replace(changed, system="") == REQUEST


def test_a_system_prompt_stays_behind_it():
    changed = SAFETY_PROMPT.change(replace(REQUEST, system="Speak like a pirate."))
    assert changed.system == f"{TEXT}\n\nSpeak like a pirate."


def test_it_makes_no_checkpoint():
    assert not SAFETY_PROMPT.exportable
    assert not SAFETY_PROMPT.must_act("text")
    with pytest.raises(ExportError, match="choose it as an arm of the evaluation"):
        SAFETY_PROMPT.calibrate(None, None)
    with pytest.raises(ExportError, match="makes no checkpoint"):
        SAFETY_PROMPT.card(None)
