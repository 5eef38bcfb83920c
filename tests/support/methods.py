"""A bundled organism, calibrated by any method on few prompts, exported and loaded."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from mars_export.calibration.data import MeasurementOptions
from mars_export.checkpoint.manifest import Manifest
from mars_export.checkpoint.writer import write_checkpoint
from mars_export.evaluation.generation import Loaded, load_calibrated
from mars_export.families.loading import load_base
from mars_export.families.placement import Device
from mars_export.inputs import prompts
from mars_export.methods import method_named
from mars_export.methods.base import Artefact, MethodOptions
from mars_export.methods.calibrate import calibrate
from mars_export.pipeline.preflight import prepare
from mars_export.pipeline.settings import Settings
from support.organisms import ORGANISMS

BASE = ORGANISMS / "gemma3"
MEASUREMENT = MeasurementOptions(pairs=16, condition_requests=16, batch_size=32)


def few(some: prompts.PromptSet) -> prompts.PromptSet:
    return replace(
        some, direction=some.direction[:32], decision=some.decision[:16], check=some.check[:16]
    )


@dataclass(frozen=True)
class Exported:
    """A method's artefact and the checkpoint made with it."""

    artefact: Artefact
    directory: Path

    @property
    def manifest(self) -> Manifest:
        return Manifest.read(self.directory)

    def load(self) -> Loaded:
        """As a user loads it."""
        return load_calibrated(self.directory, self.artefact.record, "cpu")


def calibrated(name: str, options: MethodOptions, device: Device = "cpu") -> Artefact:
    """The organism, calibrated by a method on few prompts."""
    job = prepare(Settings(model=str(BASE)))
    model, processor = load_base(BASE, job.family, dtype="auto", device=device)
    sets = prompts.PromptSets(few(job.prompts.harmful), few(job.prompts.harmless))
    return calibrate(
        model,
        processor,
        prompts=sets,
        modalities=job.family.modalities,
        method=name,
        options=options,
        measurement=MEASUREMENT,
    )


def export(name: str, folder: Path, **options: Any) -> Exported:
    """Calibrate the organism by a method, save the artefact and write a checkpoint."""
    artefact = calibrated(name, method_named(name).Options(**options))
    artefact.save(folder / "calibration")
    target = folder / f"steered_{name}"
    source = prepare(Settings(model=str(BASE))).source
    write_checkpoint(BASE, target, source=source, calibration_dir=folder / "calibration")
    return Exported(artefact, target)


@torch.no_grad()
def base_logits(inputs: Any) -> torch.Tensor:
    base = transformers.AutoModelForImageTextToText.from_pretrained(BASE).eval()
    return base(**inputs).logits
