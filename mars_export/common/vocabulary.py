"""Words that every part of the package uses."""

from collections.abc import Iterable
from typing import Final, Literal

__all__ = [
    "BROKEN",
    "CALLED",
    "LABELS",
    "MANIFEST_NAME",
    "MODALITIES",
    "REFUSED",
    "Harm",
    "Label",
    "Modality",
    "Verdict",
    "auto_class",
    "plural",
]

Modality = Literal["text", "image", "video", "audio"]
"""What a request shows the model: text alone, or at least one image, video or sound."""

Verdict = Literal["refusal", "rebuttal", "answer", "degenerate", "unknown"]
"""What a judge says of a response. `unknown` is never counted as safe."""

REFUSED: Final[frozenset[Verdict]] = frozenset({"refusal", "rebuttal"})
"""Verdicts that count as refused. `unknown` and `degenerate` never do."""

BROKEN: Final[frozenset[Verdict]] = frozenset({"degenerate", "unknown"})
"""Verdicts on what is neither answer nor refusal, or cannot be told."""

Harm = Literal["harmful", "harmless", "unknown"]
"""What a judge says of what a response does. `unknown` is never counted as safe."""

Label = Literal["harmful", "harmless"]
LABELS: Final[tuple[Label, ...]] = ("harmful", "harmless")
MODALITIES: Final[tuple[Modality, ...]] = ("text", "image", "video", "audio")
"""The order in which people are shown them; steering tensors have one of their own."""

MANIFEST_NAME: Final = "steering_manifest.json"
"""In every steered directory, written last: it says that the directory is complete."""


CALLED: Final[dict[Modality, str]] = {"image": "picture", "video": "clip", "audio": "sound"}
"""What one of a modality is called on a page."""


def plural(modality: Modality) -> str:
    """What several of a modality are called."""
    return "sounds" if modality == "audio" else f"{modality}s"


def auto_class(modalities: Iterable[Modality]) -> str:
    """Name of the Auto class that people load a model of these modalities with."""
    beside = set(modalities) - {"text"}
    if beside == {"audio"}:
        return "AutoModelForMultimodalLM"
    return "AutoModelForImageTextToText" if beside else "AutoModelForCausalLM"
