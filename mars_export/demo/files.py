"""What people drop onto the page: told by its ending, opened once, and not kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final

from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import MODALITIES, Modality
from mars_export.inputs.media import CLIPS, PICTURES, open_picture, read_frames
from mars_export.inputs.requests import Media
from mars_export.inputs.sounds import SOUNDS, open_sound

__all__ = ["ENDINGS", "endings", "open_files"]

ENDINGS: Final[dict[Modality, tuple[str, ...]]] = {
    "image": PICTURES,
    "video": CLIPS,
    "audio": SOUNDS,
}
_OPEN: Final[dict[Modality, Callable[[Path, str], Any]]] = {
    "image": open_picture,
    "video": read_frames,
    "audio": open_sound,
}


def endings(modalities: Collection[Modality]) -> list[str]:
    """Endings of the files that a checkpoint of these modalities takes."""
    return [ending for m, known in ENDINGS.items() if m in modalities for ending in known]


def open_files(files: Sequence[Path], modalities: Collection[Modality]) -> tuple[Media, ...]:
    """Open files as the media of a request, in order.

    Raises:
        ExportError: One cannot be read, or the checkpoint does not take its kind; names the file
            without its folder.
    """
    return tuple(_opened(path, modalities) for path in files)


def _opened(path: Path, modalities: Collection[Modality]) -> Media:
    kind = next((m for m, known in ENDINGS.items() if path.suffix.lower() in known), None)
    if kind is None or kind not in modalities:
        taken = ", ".join(m for m in MODALITIES if m in modalities)
        ending = f"{kind}" if kind else f"a file ending in {path.suffix or 'nothing'}"
        raise ExportError(f"{path.name}: this checkpoint takes {taken}, not {ending}")
    if not path.is_file():
        raise ExportError(f"{path.name} is not there any more; add it again")
    return Media(kind, _OPEN[kind](path, path.name))
