"""How far training moved a steered checkpoint from its calibration, as JSON. Free of torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from mars_export.common.vocabulary import Modality

__all__ = ["Drift", "Finding", "Group", "Snapshot"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Group(_Record):
    """Validation prompts of one label, alone or beside neutral visuals of one modality."""

    harmful: bool
    modality: Modality
    n: int
    gate: float
    """Mean of z = (p - o) / (p_u - o), negative on the harmless side; 1 is where harmful text was
    at calibration."""
    open: int
    """Prompts with z > 0."""
    refused_off: int
    """Prompts whose first token says refusal (log-odds > 0), steering off."""
    refused_on: int
    """The same, steering on."""

    @property
    def name(self) -> str:
        """For people, for example `harmful text + neutral image`."""
        beside = "" if self.modality == "text" else f" + neutral {self.modality}"
        return f"{'harmful' if self.harmful else 'harmless'} text{beside}"


class Snapshot(_Record):
    """One checkpoint, measured against the steering that it carries."""

    name: str
    cosine: float
    """Of the stored direction and the one measured now, on all prompts."""
    shift: dict[Modality, float]
    """Error of the stored modality shift, in gates: (beta now - stored) / (p_u - o)."""
    groups: list[Group]
    usable: dict[str, tuple[int, int]]
    """`harmful` and `harmless`: training and validation prompts that are handled as their label
    says, which is what a calibration is made from."""


class Finding(_Record):
    """One check."""

    name: str
    value: float
    limit: float
    holds: bool
    says: str
    """The finding as a sentence."""


class Drift(_Record):
    """The whole comparison."""

    schema_version: int = 1
    steering_sha256: str
    layer: int
    prompts: dict[str, str]
    """`harmful` and `harmless`: name of the set."""
    now: Snapshot
    base: Snapshot | None
    """The steered checkpoint before training, measured in the same way."""
    cosine: float
    """Of the direction measured now with the base's measured now, or without a base with the
    stored one."""
    findings: list[Finding]
    verdict: Literal["holds", "recalibrate", "lost"]
    """`lost`: too few prompts are handled as their label says; a calibration would refuse."""
