"""What neutral stimuli and earlier turns alone do to the coordinate of harmless text; float64.

A3.n are sections of docs/method.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from mars_export.calibration.conditions import PLAIN, Setting, read
from mars_export.calibration.measurements import Measurements, Reading
from mars_export.common.vocabulary import Modality
from mars_export.inputs.requests import Turn
from mars_export.methods.mars.record import Shift
from mars_export.methods.mars.rule import between

__all__ = ["Shifts", "measure_shifts", "paired_shift"]


@dataclass(frozen=True)
class Shifts:
    """The shift of one modality at every layer.

    Attributes:
        tokens: (K,) media tokens of a turn in the settings measured, ascending.
        values: (K, L) beta at each.
        turns: (T, L) what each turn adds; the first row is 0.
        plain: Visual tokens of a plain request.
    """

    tokens: list[int]
    values: torch.Tensor
    turns: torch.Tensor
    plain: int

    def at(self, layer: int) -> Shift:
        """The record of one layer."""
        return Shift(
            tokens=self.tokens,
            values=self.values[:, layer].tolist(),
            turns=self.turns[:, layer].tolist(),
            plain=self.plain,
        )

    def beta(self, context: torch.Tensor) -> torch.Tensor:
        """(L, N) the shift of requests with contexts (N, 3)."""
        knots = torch.tensor(self.tokens)
        first = between(context[:, 1], knots, self.values.T.unsqueeze(1))
        turn = context[:, 2].clamp(max=len(self.turns) - 1)
        return first + self.turns[turn].T


def measure_shifts(
    baseline: Measurements, modality: Modality, settings: Sequence[Setting], turns: Sequence[Turn]
) -> Shifts:
    """Run harmless direction prompts in every setting of which the shift is to know.

    Returns:
        Shifts of every layer, from paired differences (A3.2).
    """
    alone = baseline.text["harmless"].direction.readout.coordinates
    zero = torch.zeros(1, len(alone), dtype=torch.float64)
    shifts = Shifts([0], zero, zero, 0)
    if modality != "text":
        knots: dict[int, torch.Tensor] = {}
        plain = 0
        for setting in settings:
            if setting.counts:
                reading = read(baseline, setting, modality, "direction", turns)
                tokens = int(reading.readout.context[:, 1].median())
                knots[tokens] = paired_shift(alone, reading)
                plain = tokens if setting == PLAIN else plain
        tokens_of = sorted(knots)
        shifts = Shifts(tokens_of, torch.stack([knots[t] for t in tokens_of]), zero, plain)
    turns_of = _turns(baseline, modality, settings, turns, shifts)
    if silent := [setting for setting in settings if modality != "text" and not setting.stimuli]:
        latest = len(turns_of) - 1  # 0 where the template shows pictures in a first turn alone
        added = [
            paired_shift(alone, read(baseline, setting, modality, "direction", turns))
            - turns_of[min(setting.turn, latest)]
            for setting in silent
        ]
        values = torch.cat([torch.stack(added).mean(0, keepdim=True), shifts.values])
        shifts = Shifts([0, *shifts.tokens], values, turns_of, shifts.plain)
    return replace(shifts, turns=turns_of)


def _turns(
    baseline: Measurements,
    modality: Modality,
    settings: Sequence[Setting],
    turns: Sequence[Turn],
    first: Shifts,
) -> torch.Tensor:
    """(T, L) what each turn adds to the shift of a first one; row 0 is 0."""
    alone = baseline.text["harmless"].direction.readout.coordinates
    later: dict[int, list[torch.Tensor]] = {}
    for setting in settings:
        if setting.turn and (modality == "text" or setting.stimuli):
            reading = read(baseline, setting, modality, "direction", turns)
            context = reading.readout.context.clone()
            context[:, 2] = 0
            added = paired_shift(alone, reading) - first.beta(context).mean(1)
            later.setdefault(setting.turn, []).append(added)
    rows = [torch.stack(later[turn]).mean(0) for turn in sorted(later)]
    return torch.stack([first.turns[0], *rows])


def paired_shift(alone: torch.Tensor, reading: Reading) -> torch.Tensor:
    """Paired shift: mean of p(t, ...) - p(t) over harmless prompts t (C1).

    Args:
        alone: (L, P) coordinates of the prompts alone.
        reading: The same prompts beside neutral stimuli, or after other turns.

    Returns:
        (L,) float64.
    """
    return (reading.readout.coordinates - alone[:, list(reading.prompts)]).mean(1)
