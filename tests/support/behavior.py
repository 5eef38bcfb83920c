"""A family's base and steered model, side by side, with batches and an independent reference."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

from mars_export.checkpoint.writer import write_checkpoint
from mars_export.families import Family, decoder_layers, families
from mars_export.methods.mars.record import MarsRecord
from support import tiny, zoo, zoo_inputs
from support.conversations import places
from support.oracle import Where
from support.tiny import random_ids

NO_MIXED_VISUALS = {
    "molmo2": "pixel_values and pixel_values_videos are provided at the same time",
    "glm46v": "Image features and image tokens do not match",
}
"""Families whose native classes take no picture and clip in one batch, and what they say."""


@dataclass(frozen=True)
class Pair:
    """Native and steered model of one family, both in float32."""

    family: Family
    record: MarsRecord
    direction: torch.Tensor
    base_dir: Path
    directory: Path
    base: Any
    model: Any

    @classmethod
    def make(cls, model_type: str, folder: Path, **changes: Any) -> "Pair":
        """Save a base, measure where its gate opens, export, and load both.

        `changes` are fields of the calibration that the test sets itself.
        """
        family = families()[model_type]
        base_dir = zoo.save_base(model_type, folder / "base")
        native = getattr(transformers, family.generator)
        base = native.from_pretrained(base_dir).eval()
        changes = {**_open_gate(family, base), **changes}
        directory = export(family, base_dir, folder, **changes)
        return cls(
            family=family,
            record=tiny.record(model_type, **changes),
            direction=load_file(directory / "calibration/calibration.safetensors")["direction"],
            base_dir=base_dir,
            directory=directory,
            base=base,
            model=load(directory, family.auto_class),
        )

    @property
    def unit(self) -> torch.Tensor:
        return self.direction / self.direction.norm()

    @property
    def opening(self) -> float:
        """Coordinates between a closed gate and gate 1."""
        return self.record.harmful["text"] - self.record.origin["text"]

    @property
    def cuts(self) -> bool:
        """Whether generate() runs the last column of a prompt alone through the steered layer."""
        text = self.base.config.get_text_config()
        shared = getattr(text, "num_kv_shared_layers", 0)
        return text.num_hidden_layers - shared <= tiny.LAYER

    def batches(self) -> dict[str, dict]:
        """One batch for each modality, with a text row beside the visual one."""
        return {visual: self.batch(None, *filter(None, [visual])) for visual in self.visuals()}

    def visuals(self) -> tuple[str | None, ...]:
        return (None, *self.family.placeholders)

    def batch(self, *visuals: str | None) -> dict:
        rows = [(random_ids(6 + 3 * k, k + 1), visual) for k, visual in enumerate(visuals)]
        return zoo_inputs.inputs(self.family.model_type, rows)

    def whole(self, ids: torch.Tensor) -> dict:
        """Batch of text ids (B, T) without padding."""
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        types = set(self.batch(None)) - set(batch)
        return {**batch, **{name: torch.zeros_like(ids) for name in types}}

    def ends(self, batch: dict, *visuals: str | None) -> Where:
        """(row, column, what was shown) of every header's end, with which rows of `batch` end."""
        last = batch["input_ids"].shape[1] - 1
        return places(batch["input_ids"], [[last]] * len(visuals))


def load(directory: Path, auto: str, **options: Any) -> Any:
    """Load a steered directory as users do."""
    loaded = getattr(transformers, auto).from_pretrained(
        directory, trust_remote_code=True, **options
    )
    if options.get("output_loading_info"):
        return loaded[0].eval(), loaded[1]
    return loaded.eval()


def export(family: Family, base_dir: Path, folder: Path, **changes: Any) -> Path:
    """Write a steered directory with a made-up calibration."""
    calibration = tiny.save_calibration(family.model_type, folder / "calibration", **changes)
    target = folder / "steered"
    source = tiny.source(family.model_type).model_copy(update={"architecture": family.generator})
    write_checkpoint(base_dir, target, source=source, calibration_dir=calibration, family=family)
    return target


def shifts(family: Family) -> dict[str, float]:
    every = {"text": 0.0, "image": 3.0, "video": -5.0, "audio": 7.0}
    return {modality: every[modality] for modality in family.modalities}


@torch.no_grad()
def _open_gate(family: Family, base: Any) -> dict[str, Any]:
    """A calibration whose gate is half open on random requests, so that every shift matters."""
    direction = torch.randn(tiny.HIDDEN, generator=torch.Generator().manual_seed(7))
    unit, seen = direction / direction.norm(), []
    layer = decoder_layers(base)[tiny.LAYER]
    handle = layer.register_forward_hook(lambda *a: seen.append(float(a[2][0, -1] @ unit)))
    for k, visual in enumerate([None, None, *family.placeholders]):
        rows = [(random_ids(6 + 3 * k, k + 1), visual)]
        base(**zoo_inputs.inputs(family.model_type, rows))
    handle.remove()
    origin = min(seen) - 30
    harmful = max(seen) + 30
    return {
        "origin": origin,
        "harmful": harmful,
        "cap": harmful + 1000,
        "gain": 4.0,
        "shift": shifts(family),
    }
