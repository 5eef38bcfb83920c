"""The result of a calibration, in memory and on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mars_export.common.atomic import replacing, write_atomically
from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import Modality
from mars_export.methods.mars.record import CalibrationRecord

__all__ = ["RECORD_NAME", "TENSORS_NAME", "Calibration"]

RECORD_NAME: Final = "calibration.json"
TENSORS_NAME: Final = "calibration.safetensors"

_VECTORS: Final = ("direction", "centroid_harmful", "centroid_harmless")
_SHIFT: Final = "shift."


@dataclass(frozen=True)
class Calibration:
    """What a calibration decided, and the vectors behind it; float32, at the chosen layer.

    Attributes:
        record: Every number and its provenance.
        direction: (d,) unit refusal direction r.
        centroid_harmful: (d,) mean state of harmful training text.
        centroid_harmless: (d,) mean state of harmless training text.
        shift: Modality -> (d,) paired shift b; beta in the record is its coordinate along r.
    """

    record: CalibrationRecord
    direction: torch.Tensor
    centroid_harmful: torch.Tensor
    centroid_harmless: torch.Tensor
    shift: dict[Modality, torch.Tensor] = field(default_factory=dict)

    def save(self, directory: Path) -> None:
        """Write `calibration.json` and `calibration.safetensors`; each appears whole or not at all.

        Args:
            directory: Made if it does not exist.
        """
        tensors = {name: getattr(self, name) for name in _VECTORS}
        tensors.update({f"{_SHIFT}{m}": vector for m, vector in self.shift.items()})
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        with replacing(directory / TENSORS_NAME) as path:
            save_file(whole, path)
        write_atomically(directory / RECORD_NAME, self.record.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, directory: Path) -> Calibration:
        """Read what `save` wrote.

        Raises:
            ExportError: A file is missing or damaged, or a vector has the wrong size.
        """
        try:
            raw = (directory / RECORD_NAME).read_text("utf-8")
            record = CalibrationRecord.model_validate_json(raw)
            tensors = load_file(directory / TENSORS_NAME)
        except (OSError, ValidationError, SafetensorError, UnicodeDecodeError) as error:
            reason = str(error).splitlines()[0]
            raise ExportError(
                f"{directory}: no readable calibration ({reason}); run it again."
            ) from error
        _check(directory, record, tensors)
        shift: dict[Modality, torch.Tensor] = {
            modality: tensors[_SHIFT + modality]
            for modality in record.shift
            if _SHIFT + modality in tensors
        }
        direction, harmful, harmless = (tensors[name] for name in _VECTORS)
        return cls(record, direction, harmful, harmless, shift)


def _check(directory: Path, record: CalibrationRecord, tensors: dict[str, torch.Tensor]) -> None:
    for name in (*_VECTORS, *(n for n in tensors if n not in _VECTORS)):
        vector = tensors.get(name)
        if vector is None:
            problem = "is missing"
        elif tuple(vector.shape) != (record.hidden_size,):
            problem = f"has shape {tuple(vector.shape)}, not ({record.hidden_size},)"
        elif vector.dtype != torch.float32 or not bool(vector.isfinite().all()):
            problem = "is not finite float32"
        else:
            continue
        raise ExportError(f"{directory / TENSORS_NAME}: {name} {problem}; calibrate again.")
