"""The page: gradio widgets around the turns, which are drawn elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment

from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import CALLED
from mars_export.demo.asking import Subject
from mars_export.demo.drawing import drawn, notice
from mars_export.demo.files import endings, open_files
from mars_export.demo.turns import Exchange
from mars_export.inputs.requests import Media
from mars_export.methods import method_named

__all__ = ["Offer", "look", "make_page", "open_once"]

Offer = tuple[str, str, Sequence[Path]]
"""Words of a button, and the prompt and files that it fills in."""

_PACE: Final = 0.1
"""Seconds between two updates of an answer."""
_FORGOTTEN: Final = 3600
"""Seconds after which the conversation of a page that was left is forgotten."""
_FONTS: Final = ("system-ui", "Segoe UI", "Helvetica", "Arial", "sans-serif")
_FIXED: Final = ("ui-monospace", "Menlo", "Consolas", "monospace")

_GROUND: Final = ("#f5f6f8", "#14181e")
"""Behind everything, by day and by night, as in the style sheet."""

_HEAD: Final = Environment(autoescape=True).from_string(
    '<div class="mars-head"><h1>{{ name }}</h1><p>{{ about }}</p></div>'
)


def make_page(gradio: Any, subject: Subject, offers: Sequence[Offer] = ()) -> Any:
    """The page as `gradio.Blocks`, not yet served.

    Args:
        gradio: The module; its temporary folder must have been set before it was imported.
        subject: What answers.
        offers: Examples, below the box that is written into.
    """
    page = gradio.Blocks(
        title=f"{subject.name}: steering off and on",
        analytics_enabled=False,
        delete_cache=(60, _FORGOTTEN),
    )
    with page:
        gradio.HTML(_HEAD.render(**_about(subject)), apply_default_css=False)
        box = gradio.MultimodalTextbox(
            label="Your message",
            show_label=False,
            placeholder=_placeholder(subject),
            file_count="multiple",
            file_types=endings(subject.modalities) or None,
            sources=_sources(subject),
            lines=1,
            autofocus=True,
        )
        with gradio.Row(elem_classes="mars-buttons"):
            buttons = [gradio.Button(words, size="sm", min_width=80) for words, *_ in offers]
            new = gradio.Button("New conversation", size="sm", min_width=80)
        with gradio.Column(elem_classes="mars-stack"):
            problem, live, past = (gradio.HTML("", apply_default_css=False) for _ in range(3))
        state = gradio.State((), time_to_live=_FORGOTTEN)
        outputs = [box, problem, live, past, state]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        asked = box.submit(
            _asks(gradio, subject), [box, state], outputs, concurrency_limit=1, **quiet
        )
        new.click(_fresh, None, outputs, cancels=[asked], **quiet)
        for button, (_, prompt, files) in zip(buttons, offers, strict=True):
            button.click(_filled(prompt, files), None, box, **quiet)
    return page


def look(gradio: Any) -> dict[str, Any]:
    """How the page looks, for `launch`: no fonts from the network."""
    theme = gradio.themes.Base(font=list(_FONTS), font_mono=list(_FIXED), primary_hue="blue")
    theme = theme.set(body_background_fill=_GROUND[0], body_background_fill_dark=_GROUND[1])
    css = (Path(__file__).parent / "page.css").read_text("utf-8")
    return {"theme": theme, "css": css, "footer_links": []}


def _asks(gradio: Any, subject: Subject) -> Callable[..., Iterator[tuple[Any, ...]]]:
    """The function behind the box."""

    def ask(message: dict[str, Any], earlier: tuple[Exchange, ...]) -> Iterator[tuple[Any, ...]]:
        keep, text = gradio.skip(), str(message.get("text") or "").strip()
        number = len(earlier) + 1
        try:
            media = open_once([Path(name) for name in message.get("files") or ()], subject)
            shown, exchange = 0.0, Exchange(text, media)
            for exchange in subject.exchange(text, media, earlier):
                if time.monotonic() - shown < _PACE:
                    continue
                shown = time.monotonic()
                yield {"text": "", "files": []}, "", _one(exchange, subject, number), keep, keep
        except ExportError as error:
            again = {"text": text, "files": []}
            yield again, notice(str(error)), "", keep, keep
            return
        whole = (*earlier, exchange)
        past = "".join(_one(one, subject, place) for place, one in reversed([*enumerate(whole, 1)]))
        yield keep, "", "", past, whole

    return ask


def open_once(files: Sequence[Path], subject: Subject) -> tuple[Media, ...]:
    """The uploaded files as media; they are deleted, also where one of them cannot be read.

    Raises:
        ExportError: One cannot be read or is of a kind that the checkpoint does not take.
    """
    try:
        return open_files(files, subject.modalities)
    finally:
        kept = Path(os.environ["GRADIO_TEMP_DIR"]).resolve()
        for path in files:
            if path.resolve().is_relative_to(kept):
                path.unlink(missing_ok=True)


def _one(exchange: Exchange, subject: Subject, number: int) -> str:
    return drawn(exchange, subject.scale, number)


def _fresh() -> tuple[Any, ...]:
    """An empty page."""
    return {"text": "", "files": []}, "", "", "", ()


def _filled(prompt: str, files: Sequence[Path]) -> Callable[[], dict[str, Any]]:
    return lambda: {"text": prompt, "files": [str(path) for path in files]}


def _about(subject: Subject) -> dict[str, str]:
    """The heading: what the checkpoint is."""
    name = subject.name
    if subject.manifest is None:
        return {"name": name, "about": "Steered, trained on since and not calibrated again."}
    record = subject.manifest.calibration
    layers = ", ".join(map(str, record.layers))
    where = f" at layer {layers}" if layers else ""
    title = method_named(record.method).title
    about = (
        f"{subject.manifest.base.name}, steered with {title}{where}. Both answers come from the "
        "same weights, greedy; each side goes on from its own answers."
    )
    return {"name": name, "about": about}


def _placeholder(subject: Subject) -> str:
    taken = [f"{CALLED[m]}s" for m in subject.modalities if m in CALLED]
    return "Ask something" + (f"; {', '.join(taken)} may be added" if taken else "")


def _sources(subject: Subject) -> list[str]:
    if not endings(subject.modalities):
        return []
    return ["upload", "microphone"] if "audio" in subject.modalities else ["upload"]
