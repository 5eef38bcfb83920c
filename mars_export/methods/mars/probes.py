"""Requests with a known gate, by which a loaded checkpoint shows that it still steers."""

from collections.abc import Sequence
from typing import Final

import torch

from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import Modality
from mars_export.methods.mars.arithmetic import Bounds, gate, strength
from mars_export.methods.mars.record import Probe

__all__ = ["check_probes", "probes_of"]

_STRONG: Final = 3


def probes_of(
    modality: Modality,
    harmful: Sequence[tuple[str, int | None, float]],
    harmless: Sequence[tuple[str, int | None, float]],
    bounds: Bounds,
) -> list[Probe]:
    """The strongest pushes among harmful requests, and one harmless request with gate 0.

    Args:
        modality: Modality of the requests.
        harmful: Prompt, index of the neutral visual, re-centered coordinate.
        harmless: The same for harmless requests.
        bounds: The run-time scalars.

    Returns:
        Up to four probes, strongest first.
    """
    strong = sorted((_probe(modality, *r, bounds) for r in harmful), key=lambda p: -p.strength)
    calm = min((_probe(modality, *r, bounds) for r in harmless), key=lambda p: p.projection)
    return [p for p in strong[:_STRONG] if p.strength > 0] + [calm] * (calm.gate == 0)


def check_probes(probes: Sequence[Probe]) -> None:
    """Raise unless the probes can tell a steered checkpoint from an unsteered one.

    Raises:
        ExportError: No probe is pushed, or none is left alone.
    """
    if not any(probe.strength > 0 for probe in probes):
        raise ExportError(
            "The gate opens for none of the harmful validation prompts; give more or plainer "
            "harmful prompts."
        )
    if not any(probe.gate == 0 for probe in probes):
        raise ExportError(
            "The gate is open for every harmless validation prompt; give more harmless prompts."
        )


def _probe(
    modality: Modality, prompt: str, visual: int | None, projection: float, bounds: Bounds
) -> Probe:
    p = torch.tensor(projection, dtype=torch.float64)
    return Probe(
        modality=modality,
        prompt=prompt,
        visual=visual,
        projection=projection,
        gate=float(gate(p, bounds)),
        strength=float(strength(p, bounds)),
    )
