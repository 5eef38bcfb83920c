"""A turn of the page as HTML, escaped whatever the user and the model write. Free of gradio."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from jinja2 import Environment

from mars_export.common.html import pages
from mars_export.common.vocabulary import CALLED
from mars_export.demo.clouds import Scale
from mars_export.demo.strip import named_media, signed, strip_of, unsigned
from mars_export.demo.turns import Exchange, Reading
from mars_export.inputs.requests import Media

__all__ = ["drawn", "notice", "thumbnail"]

_THUMBNAIL: Final = 168
"""Longest side of a small picture, in pixels; it is shown at half of that."""
_FRAMES: Final = 4
"""Frames that stand for a clip."""
_BARS: Final = 40
"""Of a sound."""


def drawn(exchange: Exchange, scale: Scale | None, number: int) -> str:
    """One turn.

    Args:
        exchange: As far as it has come.
        scale: Of the checkpoint.
        number: Of the turn, from 1.
    """
    media = [
        {"name": name, "drawing": thumbnail(medium), "effect": effect}
        for name, medium, effect in zip(
            named_media(exchange), exchange.media, _effects(exchange), strict=True
        )
    ]
    return _rendered(
        "turn.html.j2",
        turn=exchange,
        number=number,
        media=media,
        reading=exchange.reading,
        called=CALLED,
        summary=_summary(exchange.reading),
        strip=strip_of(exchange, scale),
    )


def notice(text: str) -> str:
    """One line about what went wrong."""
    return _rendered("notice.html.j2", text=text)


def thumbnail(medium: Media) -> dict[str, Any]:
    """What stands for a medium: addresses of small pictures in themselves, or bars of a sound."""
    if medium.modality == "audio":
        samples, size = medium.data.samples, max(1, len(medium.data.samples) // _BARS)
        parts = [abs(samples[i * size : (i + 1) * size]) for i in range(_BARS)]
        peaks = [float(part.max()) if len(part) else 0.0 for part in parts]
        loudest = max(*peaks, 1e-6)
        return {"bars": [round(peak / loudest, 2) for peak in peaks], "pictures": []}
    frames: Sequence[Any] = medium.data if medium.modality == "video" else (medium.data,)
    last = len(frames) - 1
    count = min(_FRAMES, len(frames))
    chosen = [frames[round(i * last / max(1, count - 1))] for i in range(count)]
    return {"bars": [], "pictures": [_address(frame) for frame in chosen]}


def _address(picture: Any) -> str:
    small = picture.copy()
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _effects(exchange: Exchange) -> list[str]:
    """What each medium did, in a sentence; empty where that is not measured."""
    found = [_effect(exchange.reading, reading) for reading in exchange.without]
    return found + [""] * (len(exchange.media) - len(found))


def _effect(whole: Reading | None, without: Reading | None) -> str:
    if whole is None or without is None:
        return ""
    if whole.gate is None or without.gate is None:
        return f"Without it the push is {_percent(without.push)}."
    now, then = whole.gate, without.gate
    if not now and not then:
        did = "The gate stays shut without it."
    elif then and not now:
        did = f"Without it the gate would open ({unsigned(then)}): it keeps the gate shut."
    elif now and not then:
        did = "Without it the gate would be shut: it opens the gate."
    else:
        did = f"Without it the gate would be {unsigned(then)}."
    if without.margin is not None and whole.margin is not None:
        change = whole.margin - without.margin
        side = "larger" if change > 0 else "smaller"
        did += f" With it the margin is {unsigned(change)} {side}."
        if without.modality != whole.modality:
            word = CALLED.get(without.modality, without.modality)
            did += f" Without it the request is read as {word}, whose gate opens elsewhere."
    return did


def _summary(reading: Reading | None) -> str:
    """What steering did, in plain words."""
    if reading is None:
        return ""
    if not reading.push:
        shut = reading.gate == 0
        return "Left alone: the gate is shut." if shut else "Left alone: nothing was pushed."
    gate = "" if reading.gate is None else f"The gate is open ({unsigned(reading.gate)}). "
    return f"{gate}The answer begins after a push of {_percent(reading.push)}."


def _percent(share: float | None) -> str:
    return "not known" if share is None else f"{100 * share:.1f} % of the residual stream"


def _rendered(name: str, **values: Any) -> str:
    return _environment().get_template(name).render(**values)


@cache
def _environment() -> Environment:
    environment = pages("mars_export.demo")
    environment.filters |= {"signed": signed, "unsigned": unsigned}
    return environment
