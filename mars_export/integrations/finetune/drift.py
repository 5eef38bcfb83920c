"""Whether the calibration of a checkpoint still fits after training: calibrate anew, compare."""

from pathlib import Path
from typing import Any

from mars_export.calibration.data import MeasurementOptions
from mars_export.checkpoint.derived import read_steering
from mars_export.checkpoint.tensors import tensors_at_first
from mars_export.common.errors import ExportError, UnsteerableError
from mars_export.common.progress import Tick
from mars_export.evaluation.generation import load
from mars_export.families.loading import pick_device
from mars_export.families.placement import Device
from mars_export.families.quantization import NONE
from mars_export.inputs.prompts import PromptSets
from mars_export.inputs.stimuli import MIXTURE
from mars_export.inputs.tuning import TuningSet
from mars_export.integrations.finetune.record import Drift
from mars_export.methods import method_named
from mars_export.methods.calibrate import calibrate

__all__ = ["measure_drift"]


def measure_drift(
    directory: Path,
    prompts: PromptSets,
    *,
    base: Path | None = None,
    device: Device = "auto",
    batch_size: int = 16,
    seed: int = 0,
    kinds: tuple[str, ...] = MIXTURE,
    progress: Tick | None = None,
    quantization: str | None = None,
    tuning: TuningSet | None = None,
) -> Drift:
    """Calibrate a trained checkpoint anew, at the layer where it is steered, and compare.

    It is loaded as a user loads it, so its own code runs; steering is off while it is calibrated.

    Args:
        directory: Steered checkpoint that was trained on.
        prompts: Those that it was calibrated on.
        base: The steered checkpoint before training, to make sure that it is the one.
        device: Torch device, or another placement; `auto` takes a GPU when there is one.
        batch_size: Requests per forward; halved by itself when memory runs out.
        seed: That of the calibration, for the same neutral stimuli.
        kinds: Of the neutral stimuli of the calibration.
        progress: Called with (requests done, requests in all).
        quantization: Scheme to load in; None for the one that it was calibrated in.
        tuning: The requests that it was tuned on, if it was.

    Raises:
        ExportError: if a directory is not steered, is damaged or does not load, if `base`
            carries another steering, or if the calibration was made on other prompts or tuned on
            other requests.
    """
    rules, tensors = read_steering(directory)
    if base is not None and read_steering(base)[0]["sha256"] != rules["sha256"]:
        raise ExportError(
            f"{directory} was not made from {base}: they carry different steering; give the "
            "steered checkpoint that the training began with"
        )
    same_prompts = _same_prompts(directory, rules, prompts)
    _require_same_tuning(directory, rules, tuning)
    method = method_named(rules["method"])
    scheme = quantization or rules.get("quantization", NONE)
    loaded = load(directory, rules["modalities"], pick_device(device), None, scheme)
    loaded.model.steering.enabled = False
    obstacle, differences = None, []
    try:
        artefact = calibrate(
            loaded.model,
            loaded.processor,
            prompts=prompts,
            modalities=rules["modalities"],
            method=method.name,
            options=method.options_like(rules, same_layer=True),
            measurement=MeasurementOptions(batch_size=batch_size, seed=seed, kinds=kinds),
            progress=progress,
            quantization=scheme,
            tuning=tuning,
        )
        differences = method.compare(rules, tensors_at_first(tensors), artefact)
    except UnsteerableError as error:
        obstacle = str(error)
    return Drift(
        name=directory.resolve().name,
        method=method.name,
        layers=tuple(rules["layers"]),
        steering_sha256=rules["sha256"],
        prompts={"harmful": prompts.harmful.name, "harmless": prompts.harmless.name},
        differences=tuple(differences),
        same_prompts=same_prompts,
        obstacle=obstacle,
    )


def _same_prompts(directory: Path, rules: dict[str, Any], prompts: PromptSets) -> bool | None:
    """Whether the calibration was made on these prompts; None where the rules do not say.

    Raises:
        ExportError: if it was made on others.
    """
    stated = rules.get("calibrated_on")
    if stated is None:
        return None
    for label in ("harmful", "harmless"):
        sets = getattr(prompts, label)
        if stated[label]["sha256"] != sets.sha256:
            raise ExportError(
                f"cannot tell whether the calibration of {directory} still fits: it was made on "
                f"{stated[label]['name']}, not on {sets.name}; give its own prompts"
            )
    return True


def _require_same_tuning(directory: Path, rules: dict[str, Any], tuning: TuningSet | None) -> None:
    """Refuse to compare a tuned calibration with another."""
    stated = rules.get("calibrated_on", {}).get("tuning") or {}
    if stated.get("sha256") != (tuning.sha256 if tuning else None):
        was = f"it was tuned on {stated['name']}" if stated else "it was not tuned on requests"
        raise ExportError(
            f"cannot tell whether the calibration of {directory} still fits: {was}; tune alike"
        )
