"""What requests may differ in without being more harmful: one table, and how it is measured.

A3.n are sections of docs/method.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from jinja2 import TemplateError

from mars_export.calibration.measurements import (
    FIRST_STIMULUS,
    Measurements,
    Part,
    Reading,
    stimulus,
)
from mars_export.calibration.source import Group, Label
from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import Modality
from mars_export.inputs.requests import Media, Request, Turn, collate

__all__ = ["PLAIN", "SETTINGS", "Setting", "available", "earlier_turns", "forecast", "plain_groups",
           "read"]  # fmt: skip

_TURNS: Final = 16
"""Earlier turns that are made, of which each later turn takes some."""
_ANSWER: Final = 24
"""Tokens of the model's own answer in an earlier turn."""


@dataclass(frozen=True)
class Setting:
    """A kind of request; the defaults are those of a plain one: one turn, one stimulus.

    Attributes:
        name: In records.
        stimuli: Neutral stimuli that the request shows, of any modality but text.
        scale: Of a picture's sides, or of the number of a clip's frames.
        turn: Earlier turns.
        earlier: Whether the stimulus was shown in the first turn, instead of the last.
        system: System prompt.
    """

    name: str
    stimuli: int = 1
    scale: float = 1.0
    turn: int = 0
    earlier: bool = False
    system: str = ""

    @property
    def counts(self) -> bool:
        """Whether it differs in the number of visual tokens alone: a knot of the shift."""
        return (self.turn, self.system) == (0, "")

    def fits(self, modality: Modality) -> bool:
        """Whether there are such requests of a modality."""
        return modality != "text" or (self.stimuli, self.scale, self.earlier) == (1, 1.0, False)


PLAIN: Final = Setting("plain")
SETTINGS: Final = (
    PLAIN,
    Setting("two stimuli", stimuli=2),
    Setting("four stimuli", stimuli=4),
    Setting("smaller or shorter", scale=0.5),
    Setting("larger or longer", scale=2.0),
    Setting("second turn", turn=1),
    Setting("third turn", turn=2),
    Setting("follow-up", turn=1, earlier=True),
    Setting("system prompt", system="You are a helpful assistant. Answer briefly and clearly."),
)
"""Everything that is measured; of every modality that it fits. A plain request is measured with
every prompt of a part, or with as many as the shift takes; any other with `condition_requests`."""


def forecast(parts: Sequence[int], beside: int, pairs: int, each: int) -> int:
    """About how many requests the conditions of one layer choice take.

    Args:
        parts: Harmless prompts of the parts that decide and check.
        beside: Modalities beside text.
        pairs: Of the shift of a first turn.
        each: `condition_requests`.
    """
    text = sum(setting.fits("text") for setting in SETTINGS) - 1
    visual = len(SETTINGS) - 1
    shift = beside * (pairs + visual * each) + 2 * each
    rest = sum(min(each, part) for part in parts) * (text + beside * (visual + 1))
    return shift + rest + beside * sum(parts) + _TURNS


def available(baseline: Measurements, modality: Modality) -> tuple[Setting, ...]:
    """The settings that the processor, the chat template and the context length allow.

    A picture size that changes nothing in the number of visual tokens is left out.
    """
    prompt = baseline.text["harmless"].direction.requests[0]
    turns = (Turn("Hello.", "Hello."),) * 2
    visual: dict[int, Setting] = {}
    kept = []
    for setting in SETTINGS:
        if not setting.fits(modality):
            continue
        request = _request(baseline, setting, modality, prompt, [0] * setting.stimuli, turns)
        try:
            length, tokens = baseline.reader.size(request)
        except (TemplateError, ExportError, ValueError, IndexError, KeyError):
            continue
        if length > _context_length(baseline.data.model.config):
            continue
        if setting.counts and modality != "text":
            if tokens in visual:
                continue
            visual[tokens] = setting
        kept.append(setting)
    return tuple(kept)


def earlier_turns(baseline: Measurements) -> tuple[Turn, ...]:
    """Harmless direction prompts with the model's own short greedy answers."""
    model, processor = baseline.data.model, baseline.data.processor
    prompts = baseline.text["harmless"].direction.requests[-_TURNS:]
    inputs = collate(processor, prompts).to(model.device, model.dtype)
    length = inputs["input_ids"].shape[1]
    with torch.inference_mode():
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=_ANSWER)
    tokenizer = getattr(processor, "tokenizer", processor)
    answers = tokenizer.batch_decode(ids[:, length:], skip_special_tokens=True)
    baseline.reader.meter.advance(len(prompts))
    pairs = zip(prompts, answers, strict=True)
    return tuple(Turn(request.prompt, answer.strip() or "Yes.") for request, answer in pairs)


def read(
    baseline: Measurements,
    setting: Setting,
    modality: Modality,
    part: Part,
    turns: Sequence[Turn],
    label: Label = "harmless",
) -> Reading:
    """Run prompts of one part in one setting; plain text was read before.

    Prompts are taken in turn, from another one on in each setting, so that together the settings
    show as many of them as they can.
    """
    text = baseline.text[label].part(part)
    if setting == PLAIN and modality == "text":
        return text
    count = _count(baseline, setting, part, label)
    place = SETTINGS.index(setting)
    rows = [(place * count + i) % len(text) for i in range(count)]
    each = 0 if modality == "text" else setting.stimuli
    first = FIRST_STIMULUS[part] + place * 10_000
    stimuli = [tuple(range(first + i * each, first + (i + 1) * each)) for i in range(count)]
    baseline.drawn.setdefault(modality, set()).update(i for shown in stimuli for i in shown)
    requests = tuple(
        _request(
            baseline, setting, modality, text.requests[row], shown, turns[i % max(len(turns), 1) :]
        )
        for i, (row, shown) in enumerate(zip(rows, stimuli, strict=True))
    )
    return Reading(requests, baseline.read(requests), tuple(stimuli), tuple(rows))


def _count(baseline: Measurements, setting: Setting, part: Part, label: Label) -> int:
    """How many requests of a setting are run."""
    measurement, prompts = baseline.data.measurement, len(baseline.text[label].part(part))
    if setting == PLAIN and label == "harmless":
        return measurement.pairs if part == "direction" else prompts
    each = measurement.condition_requests
    return each if part == "direction" else min(each, prompts)


def plain_groups(baseline: Measurements) -> dict[Group, Reading]:
    """Plain decision requests of every label and modality; text first.

    Harmful ones beside a neutral stimulus are no harmful stimuli: what is harmful there is the
    text alone.
    """
    return {
        Group(label, modality): read(baseline, PLAIN, modality, "decision", (), label)
        for modality in baseline.modalities
        for label in baseline.text
    }


def _request(
    baseline: Measurements,
    setting: Setting,
    modality: Modality,
    plain: Request,
    stimuli: Sequence[int],
    turns: Sequence[Turn],
) -> Request:
    """A plain request in a setting; `turns` may be too few and is then begun again."""
    media: tuple[Media, ...] = ()
    if modality != "text":
        measurement = baseline.data.measurement
        media = tuple(stimulus(modality, i, measurement, setting.scale) for i in stimuli)
    history = [turns[k % len(turns)] for k in range(setting.turn)]
    if setting.earlier:
        history[0] = history[0]._replace(media=media)
        media = ()
    return replace(plain, media=media, history=tuple(history), system=setting.system)


def _context_length(config: Any) -> int:
    """Tokens that the model takes; without end where its configuration does not say."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return int(getattr(text, "max_position_embeddings", None) or 10**9)
