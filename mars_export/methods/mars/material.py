"""The readings that origin, margins and checks are computed from, of every layer.

A3.n are sections of docs/method.md.
"""

from dataclasses import dataclass
from typing import Final

import torch

from mars_export.calibration.conditions import (
    PLAIN,
    SETTINGS,
    Setting,
    available,
    earlier_turns,
    forecast,
    read,
)
from mars_export.calibration.data import CalibrationData
from mars_export.calibration.measurements import Measurements, Part, Reading
from mars_export.calibration.source import Group
from mars_export.common.errors import UnsteerableError
from mars_export.common.vocabulary import Modality
from mars_export.inputs.requests import Turn
from mars_export.methods.mars.shift import Shifts, measure_shifts

__all__ = ["Kind", "Material", "check_readings", "gather", "requests_to_come"]

_LEAST: Final = 4
"""Answered requests of a kind from which a bound is made."""

_DIVIDED: Final = 6
"""Requests of each kind of stimulus from which the kinds are looked at one by one."""


@dataclass(frozen=True)
class Kind:
    """Harmless requests of one condition.

    Attributes:
        name: Of the setting; of a plain request that shows a stimulus, the stimulus's kind.
        setting: What the requests differ in.
        every: All of them.
        answered: Those that the unsteered model answers.
        divided: Whether its requests stand in the kinds of stimuli that follow as well.
    """

    name: str
    setting: Setting
    every: Reading
    answered: Reading
    divided: bool = False

    @property
    def usually_answered(self) -> bool:
        """Whether a bound can be made: the model answers enough of them, and more than half."""
        return len(self.answered) >= max(_LEAST, len(self.every) / 2)


@dataclass(frozen=True)
class Material:
    """All that is measured beside the text.

    Attributes:
        turns: Earlier turns, with the model's own answers.
        settings: Of every modality, those that the model takes.
        shifts: Of every modality.
        harmless: Decision requests of every modality; plain ones first.
        harmful: Plain decision requests of every modality with harmful text.
    """

    turns: tuple[Turn, ...]
    settings: dict[Modality, tuple[Setting, ...]]
    shifts: dict[Modality, Shifts]
    harmless: dict[Modality, list[Kind]]
    harmful: dict[Modality, Reading]

    def placed(self, modality: Modality, reading: Reading) -> torch.Tensor:
        """(L, N) re-centered coordinates."""
        return reading.readout.coordinates - self.shifts[modality].beta(reading.readout.context)

    def groups(self) -> dict[Group, Reading]:
        """Plain decision requests of every label and modality."""
        groups = {}
        for modality, harmful in self.harmful.items():
            groups[Group("harmful", modality)] = harmful
            groups[Group("harmless", modality)] = self.harmless[modality][0].answered
        return groups


def gather(baseline: Measurements) -> Material:
    """Measure the shifts, and run the decision prompts in every condition.

    Raises:
        ExportError: A plain request of a modality cannot be made, or the model answers none.
    """
    settings = {modality: available(baseline, modality) for modality in baseline.modalities}
    turns = earlier_turns(baseline)
    shifts = {m: measure_shifts(baseline, m, some, turns) for m, some in settings.items()}
    harmless = {m: _kinds(baseline, m, some, "decision", turns) for m, some in settings.items()}
    for modality, (plain, *_) in harmless.items():
        if not len(plain.answered):
            raise UnsteerableError(
                f"The model refuses all {len(plain.every)} harmless prompts beside a neutral "
                f"{modality}, so where a gate should open is unknown; take other neutral stimuli "
                "(--neutral) or another base."
            )
    harmful = {
        m: read(baseline, PLAIN, m, "decision", turns, "harmful") for m in baseline.modalities
    }
    return Material(turns, settings, shifts, harmless, harmful)


def check_readings(
    baseline: Measurements, material: Material
) -> tuple[dict[Modality, list[Kind]], dict[Modality, Reading]]:
    """The same of the check prompts: harmless requests by condition, and plain harmful text."""
    harmless = {
        m: _kinds(baseline, m, some, "check", material.turns)
        for m, some in material.settings.items()
    }
    harmful = {
        m: read(baseline, PLAIN, m, "check", material.turns, "harmful") for m in baseline.modalities
    }
    return harmless, harmful


def requests_to_come(data: CalibrationData) -> int:
    """About how many requests `gather` and the checks run, for the display."""
    measurement, harmless = data.measurement, data.prompts.harmless
    parts = [len(part) for part in (harmless.decision, harmless.check) if part]
    each = measurement.condition_requests
    return forecast(parts, data.beside, measurement.pairs, each)


def _kinds_of(reading: Reading) -> dict[str, torch.Tensor]:
    """Kind of the neutral stimulus -> which requests (N,) bool show it."""
    names = [r.media[0].kind if r.media else "" for r in reading.requests]
    return {name: torch.tensor([n == name for n in names]) for name in dict.fromkeys(names) if name}


def _kinds(
    baseline: Measurements,
    modality: Modality,
    settings: tuple[Setting, ...],
    part: Part,
    turns: tuple[Turn, ...],
) -> list[Kind]:
    """Plain requests, those of each kind of stimulus among them, then each other setting."""
    assert settings[0] == PLAIN == SETTINGS[0]
    if not len(baseline.text["harmless"].part(part)):
        return []
    kinds = []
    for setting in settings:
        reading = read(baseline, setting, modality, part, turns)
        several = _kinds_of(reading) if setting == PLAIN else {}
        divided = len(several) > 1 and min(int(r.sum()) for r in several.values()) >= _DIVIDED
        kinds.append(_kind(setting.name, setting, reading, divided))
        if divided:
            kinds += [_kind(n, setting, reading.where(rows)) for n, rows in several.items()]
    return kinds


def _kind(name: str, setting: Setting, reading: Reading, divided: bool = False) -> Kind:
    return Kind(name, setting, reading, reading.where(~reading.readout.refused), divided)
