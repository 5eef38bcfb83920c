"""What a card says about where a steered checkpoint came from: base, files, tensors, data."""

import math
from dataclasses import dataclass
from typing import Final

from mars_export.checkpoint.manifest import BaseModelSource, FileEntry, Manifest
from mars_export.common.vocabulary import MODALITIES, Modality
from mars_export.methods.mars.record import LayerScore, mars_record

__all__ = ["STEERING_FILE", "WEIGHT_SUFFIXES", "Origin", "Shift", "base_link", "origin"]

STEERING_FILE: Final = "steering.safetensors"
WEIGHT_SUFFIXES: Final = (".safetensors", ".bin", ".pt", ".pth")
KL_LIMIT: Final = 0.1
"""Largest first-token KL of a layer that may be chosen, nats."""


@dataclass(frozen=True)
class Shift:
    """Re-centering of one modality."""

    modality: Modality
    value: float
    """beta, residual-stream units."""
    relative: float
    """beta over R."""


@dataclass(frozen=True)
class Origin:
    """Files and calibration in the order and grouping in which a card prints them."""

    unchanged: tuple[FileEntry, ...]
    """Weight files that are the base's byte for byte."""
    rewritten: tuple[FileEntry, ...]
    """Weight files that are not. Empty for a directory that mars-export wrote."""
    key_files: tuple[FileEntry, ...]
    """The code that runs and the tensors that it reads."""
    bytes: int
    """Size of the unchanged weights."""
    shifts: tuple[Shift, ...]
    finalists: tuple[LayerScore, ...]
    """Layers that reached the causal tie-break."""
    by_rule: bool
    """Whether the tie-break picks the layer that was used; False when somebody set another."""


def base_link(base: BaseModelSource) -> str:
    """The base model as Markdown."""
    if base.repo is None:
        return f"`{base.name}` (a local directory, so there is no Hub revision to name)"
    link = f"[{base.repo}](https://huggingface.co/{base.repo})"
    if base.revision is None:
        return f"{link} (revision not recorded)"
    return f"{link} at revision `{base.revision}`"


def origin(manifest: Manifest) -> Origin:
    """Group the manifest's files and calibration numbers for the card."""
    weights = [f for f in manifest.files if _is_weight(f)]
    unchanged = tuple(f for f in weights if f.origin == "base")
    calibration = mars_record(manifest.calibration)
    finalists = tuple(s for s in calibration.scores if s.induced is not None)
    return Origin(
        unchanged=unchanged,
        rewritten=tuple(f for f in weights if f.origin != "base"),
        key_files=tuple(
            f for f in manifest.files if f.path in (manifest.modeling_file, STEERING_FILE)
        ),
        bytes=sum(f.size for f in unchanged),
        shifts=tuple(
            Shift(m, calibration.shift[m], calibration.shift[m] / calibration.separation)
            for m in MODALITIES
            if m in calibration.shift
        ),
        finalists=finalists,
        by_rule=_tie_break(finalists) == calibration.layer,
    )


def _tie_break(finalists: tuple[LayerScore, ...]) -> int | None:
    """Layer with the greatest lift among those whose push causes refusal and spares harmless text.

    The thresholds are those of the refusal-direction paper (arXiv 2406.11717).
    """
    passed = [
        s
        for s in finalists
        if (s.induced or 0) > 0 and (math.inf if s.kl is None else s.kl) <= KL_LIMIT
        if (s.lift or 0) > 0
    ]
    best = max(passed, key=lambda s: s.lift or 0, default=None)
    return best.layer if best else None


def _is_weight(file: FileEntry) -> bool:
    return (
        file.path.endswith(WEIGHT_SUFFIXES)
        and file.path != STEERING_FILE
        and not file.path.startswith("calibration/")
    )
