"""Requests that the page offers: some of what the checkpoint was made with, where it is at hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import Modality
from mars_export.evaluation.suite import Suite
from mars_export.evaluation.suites.catalog import open_suites
from mars_export.inputs.requests import Request
from mars_export.pipeline.evaluation import suites_at_hand

__all__ = ["Example", "examples_of", "written"]

_OFFERED: tuple[Modality, ...] = ("text", "image", "audio")
"""A clip would have to be encoded first."""


class Example(NamedTuple):
    """A request on a button. words: on the button; request: what it fills in."""

    words: str
    request: Request


def examples_of(directory: Path, modalities: Sequence[Modality]) -> list[Example]:
    """One harmless and one harmful request of each modality; none where no suite is at hand."""
    try:
        names = [
            name for name in suites_at_hand(directory) if Path(name.rpartition("=")[2]).is_file()
        ]
        return list(_picked(open_suites(names), modalities)) if names else []
    except ExportError:
        return []


def _picked(suite: Suite, modalities: Sequence[Modality]) -> Iterator[Example]:
    samples = suite.evaluation_samples(modalities)
    for modality in _OFFERED:
        for harmful, label in ((False, "Harmless"), (True, "Harmful")):
            kind = (modality, harmful)
            one = next((s for s in samples if (s.modality, s.harmful) == kind), None)
            if one is not None and len(one.media) == (modality != "text"):
                yield Example(f"{label} {modality}", suite.request(one))


def written(example: Example, folder: Path) -> list[Path]:
    """The files of an example, written into a folder; empty without media."""
    paths = []
    for medium in example.request.media:
        stem = folder / example.words.replace(" ", "-").lower()
        if medium.modality == "image":
            paths.append(stem.with_suffix(".png"))
            medium.data.save(paths[-1])
        else:
            import soundfile

            paths.append(stem.with_suffix(".wav"))
            soundfile.write(paths[-1], medium.data.samples, medium.data.rate)
    return paths
