"""The suite: calibration prompts, and evaluation prompts with their pictures."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from .corpus import VERBS, Modality, text_request, visual_request
from .families import Family
from .pictures import FRAMES, picture
from .topics import TOPICS, Split, Topic

CALIBRATION_FORMS = 3
"""Text requests of a calibration topic."""
EVALUATION_FORMS = 2
"""Requests of an evaluation topic, in each modality."""
_FIRST = 1000
"""Number of a topic's first evaluation picture; training uses lower ones."""
_ORDERS = ((0, 1, 2, 3), (3, 1, 0, 2))
"""Frames of a topic's videos, as numbers of its pictures."""


@dataclass(frozen=True)
class Record:
    """One line of `suite.jsonl`; paths are relative to its folder."""

    id: str
    modality: Modality
    harmful: bool
    split: Split
    prompt: str
    image: str | None = None
    video: list[str] | None = None


def write_suite(family: Family, folder: Path) -> None:
    """Write `suite.jsonl` and its pictures into `folder`."""
    records = [r for topic in TOPICS for r in _records(family, topic)]
    lines = [json.dumps(asdict(r)) for r in records]
    (folder / "suite.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for path in sorted({p for r in records for p in [r.image, *(r.video or [])] if p}):
        _draw(folder, path)


def _records(family: Family, topic: Topic) -> list[Record]:
    if topic.split == "calibration":
        return [_record(topic, "text", n) for n in range(CALIBRATION_FORMS)]
    modalities: tuple[Modality, ...] = ("text", *family.modalities)
    return [_record(topic, m, n) for m in modalities for n in range(EVALUATION_FORMS)]


def _record(topic: Topic, modality: Modality, number: int) -> Record:
    """The request `number` about `topic`; forms and verbs rotate over the topics."""
    form = topic.index + topic.index // 6 + 2 * number
    verb = VERBS[(topic.index // 2 + 3 * number) % len(VERBS)]
    text = modality == "text"
    prompt = text_request(topic, form, verb) if text else visual_request(modality, form, verb)
    return Record(
        id=f"{modality}-{topic.noun.replace(' ', '-')}-{number}",
        modality=modality,
        harmful=topic.harmful,
        split=topic.split,
        prompt=prompt,
        image=_path(topic, number) if modality == "image" else None,
        video=[_path(topic, n) for n in _ORDERS[number]] if modality == "video" else None,
    )


def _path(topic: Topic, number: int) -> str:
    """Pictures 0 and 1 are images; the further ones are only frames."""
    kind = "images" if number < EVALUATION_FORMS else "video"
    return f"{kind}/{topic.index:03d}-{topic.noun.replace(' ', '-')}-{number}.png"


def _draw(folder: Path, path: str) -> None:
    index, number = int(Path(path).stem[:3]), int(Path(path).stem[-1])
    target = folder / path
    target.parent.mkdir(exist_ok=True)
    picture(TOPICS[index], _FIRST + number).save(target, optimize=True)


assert max(map(max, _ORDERS)) < FRAMES
