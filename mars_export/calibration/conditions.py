"""What requests may differ in without being more harmful: one table, and how it is measured.

A3.n are sections of docs/method.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

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
from mars_export.families.placement import input_device
from mars_export.inputs.limits import context_length
from mars_export.inputs.requests import Media, Request, Turn, collate
from mars_export.inputs.stimuli import STIMULI
from mars_export.inputs.tones import SPEECH

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
        stimuli: Neutral stimuli that the last turn shows, of any modality but text.
        scale: Of a picture's sides, of the number of a clip's frames, or of a sound's length.
        turn: Earlier turns.
        earlier: Neutral stimuli that the first of them showed.
        systems: System prompts, of which each request has one.
        kinds: Of its stimuli, in place of those that were chosen; only modalities that have them.
    """

    name: str
    stimuli: int = 1
    scale: float = 1.0
    turn: int = 0
    earlier: int = 0
    systems: tuple[str, ...] = ("",)
    kinds: tuple[str, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether it differs in the number of media tokens alone: a knot of the shift."""
        return (self.turn, self.systems, self.kinds) == (0, ("",), ())

    @property
    def shown(self) -> int:
        """Neutral stimuli of the whole request."""
        return self.earlier + self.stimuli

    def fits(self, modality: Modality) -> bool:
        """Whether there are such requests of a modality."""
        if self.kinds:
            return modality in STIMULI and set(self.kinds) <= STIMULI[modality].kinds.keys()
        return modality != "text" or (self.stimuli, self.scale, self.earlier) == (1, 1.0, 0)


PLAIN: Final = Setting("plain")
SETTINGS: Final = (
    PLAIN,
    Setting("two stimuli", stimuli=2),
    Setting("four stimuli", stimuli=4),
    Setting("smaller or shorter", scale=0.5),
    Setting("larger or longer", scale=2.0),
    Setting("second turn", turn=1),
    Setting("third turn", turn=2),
    Setting("follow-up", stimuli=0, turn=1, earlier=1),
    Setting("another stimulus", turn=1, earlier=1),
    Setting("system prompt", systems=(
        "You are a helpful assistant. Answer briefly and clearly.",
        "You work at the information desk of a museum.",
        "Answer in full sentences, and say so if you do not know something.",
        "You are the polite assistant of a small company. Be exact.",
    )),
    Setting("benign speech", kinds=(SPEECH,)),
)  # fmt: skip
"""Everything that is measured; of every modality that it fits. A plain request is measured with
every prompt of a part, or with as many as the shift takes; any other with `condition_requests`."""


def forecast(parts: Sequence[int], beside: Sequence[Modality], pairs: int, each: int) -> int:
    """About how many requests the shifts and all conditions take.

    Args:
        parts: Harmless prompts of the parts that decide and check.
        beside: The modalities beside text.
        pairs: Of the shift of a first turn.
        each: `condition_requests`.
    """
    text = sum(setting.fits("text") for setting in SETTINGS) - 1
    further = sum(setting.fits(m) for m in beside for setting in SETTINGS) - len(beside)
    shift = len(beside) * pairs + (further + 2) * each
    rest = sum(min(each, part) for part in parts) * (text + further + len(beside))
    return shift + rest + len(beside) * sum(parts) + _TURNS


def available(baseline: Measurements, modality: Modality) -> tuple[Setting, ...]:
    """The settings that the processor, the chat template and the context length allow.

    A size or length that changes nothing in the number of media tokens is left out.

    Raises:
        ExportError: Not even a plain request is allowed.
    """
    prompt = baseline.text["harmless"].direction.requests[0]
    turns = (Turn("Hello.", "Hello."),) * 2
    counts: set[int] = set()
    kept = []
    for setting in SETTINGS:
        if not setting.fits(modality):
            continue
        request = _request(baseline, setting, modality, prompt, [0] * setting.shown, turns, 0)
        try:
            tokens = _media_tokens(baseline, request)
        except (TemplateError, ExportError, ValueError, IndexError, KeyError) as error:
            if setting == PLAIN:
                raise _no_plain_request(modality, error) from error
            continue
        if setting.counts and modality != "text":
            if tokens in counts:
                continue
            counts.add(tokens)
        kept.append(setting)
    return tuple(kept)


def _media_tokens(baseline: Measurements, request: Request) -> int:
    """Of its last turn; refuses a request that is longer than the model takes."""
    length, tokens = baseline.reader.size(request)
    most = context_length(baseline.data.model.config)
    if length > most:
        raise ExportError(f"it has {length} tokens, and the model takes {most}")
    return tokens


def _no_plain_request(modality: Modality, error: Exception) -> ExportError:
    shown = "of text" if modality == "text" else f"with one neutral {modality}"
    reason = " ".join(str(error).split()).rstrip(".")
    return ExportError(
        f"A request {shown} cannot be made ({reason}); correct the chat template or the sizes in "
        "the processor's configuration."
    )


def earlier_turns(baseline: Measurements) -> tuple[Turn, ...]:
    """Harmless direction prompts with the model's own short greedy answers."""
    model, processor = baseline.data.model, baseline.data.processor
    prompts = baseline.text["harmless"].direction.requests[-_TURNS:]
    tokenizer = getattr(processor, "tokenizer", processor)
    answers: list[str] = []
    size = baseline.reader.batch_size
    for start in range(0, len(prompts), size):
        some = prompts[start : start + size]
        inputs = collate(processor, some).to(input_device(model), model.dtype)
        with torch.inference_mode():
            ids = model.generate(**inputs, do_sample=False, max_new_tokens=_ANSWER)
        begun = inputs["input_ids"].shape[1]
        answers += tokenizer.batch_decode(ids[:, begun:], skip_special_tokens=True)
        baseline.reader.meter.advance(some)
    # In all processes the same words, whatever their GPUs make of the last bits.
    pairs = zip(prompts, baseline.reader.processes.first(answers), strict=True)
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
    show as many of them as they can. Where the model handles none of a part as its label says,
    there are none.
    """
    text = baseline.text[label].part(part)
    if not len(text) or (setting == PLAIN and modality == "text"):
        return text
    count = _count(baseline, setting, part, label)
    place = SETTINGS.index(setting)
    rows = [(place * count + i) % len(text) for i in range(count)]
    each = 0 if modality == "text" else setting.shown
    first = FIRST_STIMULUS[part] + place * 10_000
    stimuli = [tuple(range(first + i * each, first + (i + 1) * each)) for i in range(count)]
    if not setting.kinds:  # of which the record of the neutral stimuli says nothing
        baseline.drawn.setdefault(modality, set()).update(i for shown in stimuli for i in shown)
    requests = tuple(
        _request(baseline, setting, modality, text.requests[row], shown, turns, i)
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
    number: int,
) -> Request:
    """The plain request in a setting; its number says which earlier turns and system prompt."""
    media: tuple[Media, ...] = ()
    if modality != "text":
        measurement = baseline.data.measurement
        if setting.kinds:
            measurement = replace(measurement, kinds=setting.kinds)
        media = tuple(stimulus(modality, i, measurement, setting.scale) for i in stimuli)
    history = [turns[(number + k) % len(turns)] for k in range(setting.turn)]
    if setting.earlier:
        history[0] = history[0]._replace(media=media[: setting.earlier])
    media = media[setting.earlier :]
    system = setting.systems[number % len(setting.systems)]
    return replace(plain, media=media, history=tuple(history), system=system)
