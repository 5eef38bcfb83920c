"""The suite: calibration prompts, and evaluation prompts with their media."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .families import Family
from .pictures import picture
from .sentences import FORMS, VERBS, Modality, is_trained, shown_request, text_request
from .speech import RATE, recording
from .topics import HARMFUL, HARMLESS, Split, Topic

FIRST_PICTURE = 1000
"""Number of a topic's evaluation picture, video or recording; training uses lower ones."""
_EACH: dict[Split, int] = {"calibration": 8, "evaluation": 1}
"""Requests of the suite about a noun; one in the evaluation, so that all are independent."""
_FRAMES = (0, 1, 0, 1)
"""A video repeats two pictures of its topic."""
_UNSEEN = [(f, v) for f in range(FORMS) for v in VERBS if not is_trained(f, v)]
"""Words of requests about a picture that training does not use."""


@dataclass(frozen=True)
class Record:
    """One line of `suite.jsonl`; paths are relative to its folder."""

    id: str
    modality: Modality
    harmful: bool
    split: Split
    prompt: str
    cluster: str
    """The noun: requests about one thing stand and fall together."""
    image: str | None = None
    video: list[str] | None = None
    audio: str | None = None


def suite_topics(split: Split) -> list[Topic]:
    """What the suite asks about: combinations that training never shows.

    Returns:
        Topics of the nouns of `split`, in rounds: each round has every harmful noun once, then
        every harmless noun.
    """
    unseen: dict[int, list[Topic]] = {}
    for topic in HARMFUL + HARMLESS:
        if topic.split == split and not topic.trained:
            unseen.setdefault(topic.noun, []).append(topic)
    rounds = [[_pick(topics, n) for topics in unseen.values()] for n in range(_EACH[split])]
    return [topic for same in rounds for topic in same]


def _pick(topics: list[Topic], number: int) -> Topic:
    """One of a noun's topics, spread over the modifiers; the same for both labels' lines."""
    first = _line(topics[0])
    return topics[(5 * first + 2 * number) % len(topics)]


def _line(topic: Topic) -> int:
    """Line of the topic's noun in its label's file."""
    return topic.noun % len({t.noun for t in HARMFUL})


def words_of(topic: Topic) -> tuple[int, str]:
    """Form and verb of the suite's request; the same for a harmful and a harmless topic."""
    return _UNSEEN[(7 * _line(topic) + topic.modifier) % len(_UNSEEN)]


def records(family: Family) -> list[dict[str, Any]]:
    """The lines of `suite.jsonl`."""
    modalities: tuple[Modality, ...] = ("text", *family.modalities)
    calibration = [_record(t, "text") for t in suite_topics("calibration")]
    evaluation = [_record(t, m) for t in suite_topics("evaluation") for m in modalities]
    unheard = {"audio"} - set(modalities)
    lines = [asdict(record) for record in calibration + evaluation]
    return [{k: v for k, v in line.items() if k not in unheard} for line in lines]


def write_suite(family: Family, folder: Path) -> None:
    """Write `suite.jsonl`, its pictures and its recordings into `folder`."""
    lines = [json.dumps(record) for record in records(family)]
    (folder / "suite.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "images").mkdir(exist_ok=True)
    for topic in suite_topics("evaluation"):
        for number in set(_FRAMES) if "video" in family.modalities else (0,):
            picture(topic, FIRST_PICTURE + number).save(
                folder / _path(topic, number), optimize=True
            )
    if "audio" in family.modalities:
        _write_sounds(folder)


def _write_sounds(folder: Path) -> None:
    import soundfile

    (folder / "sounds").mkdir(exist_ok=True)
    for topic in suite_topics("evaluation"):
        said = recording(topic, FIRST_PICTURE)
        soundfile.write(folder / _sound_path(topic), said.samples, RATE, format="OGG")


def _record(topic: Topic, modality: Modality) -> Record:
    text = modality == "text"
    form, verb = words_of(topic)
    prompt = text_request(topic, form, verb) if text else shown_request(modality, form, verb)
    return Record(
        id=f"{modality}-{topic.file}",
        modality=modality,
        harmful=topic.harmful,
        split=topic.split,
        prompt=prompt,
        cluster=topic.name,
        image=_path(topic, 0) if modality == "image" else None,
        video=[_path(topic, n) for n in _FRAMES] if modality == "video" else None,
        audio=_sound_path(topic) if modality == "audio" else None,
    )


def _path(topic: Topic, number: int) -> str:
    return f"images/{topic.file}-{number}.png"


def _sound_path(topic: Topic) -> str:
    return f"sounds/{topic.file}.ogg"
