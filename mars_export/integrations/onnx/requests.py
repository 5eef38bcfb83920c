"""The requests that an export is checked on."""

from pathlib import Path
from typing import Final

from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.common.vocabulary import Modality
from mars_export.evaluation.selfcheck import probe_request
from mars_export.inputs import stimuli as visuals
from mars_export.inputs.prompts import packaged
from mars_export.inputs.requests import Request

__all__ = ["check_requests"]

_EACH: Final = 3
_SEED: Final = 0


def check_requests(directory: Path, modalities: list[Modality]) -> dict[Modality, list[Request]]:
    """Harmful and harmless requests of every modality.

    Those that the calibration recorded; of a checkpoint without a manifest, which training has
    changed, packaged prompts with neutral visuals.
    """
    if (directory / MANIFEST_NAME).is_file():
        record = Manifest.read(directory).calibration
        found = {m: [p for p in record.probes if p.modality == m] for m in modalities}
        return {m: [probe_request(record.source, p) for p in probes] for m, probes in found.items()}
    sets = packaged()
    prompts = [*sets.harmful.validation[:_EACH], *sets.harmless.validation[:_EACH]]
    return {m: [_shown(m, i, prompt) for i, prompt in enumerate(prompts)] for m in modalities}


def _shown(modality: Modality, number: int, prompt: str) -> Request:
    if modality == "image":
        return Request(prompt, images=(visuals.images(number + 1, _SEED)[number],))
    if modality == "video":
        return Request(prompt, video=visuals.clips(number + 1, _SEED)[number])
    return Request(prompt)
