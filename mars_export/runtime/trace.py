"""Trace: what was steered, kept as tensors until somebody reads `model.steering.last`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch


@dataclass(frozen=True)
class SteeredPosition:
    """What happened at one steered position of one row.

    position: index of the token in its row, padding not counted. modality: whose calibration was
    used. gate, strength: what the rule decided; None where it has no such number. layer: decoder
    layer, or -1 for a visual token that was pushed before the first layer. turn: how many positions
    of the request were steered before, by their place in the text. visual: how many visual
    tokens the turn had shown. calibrated: whether the calibration covers such a request; None
    where the rule does not say.
    """

    position: int
    modality: str
    gate: float | None
    strength: float | None
    layer: int
    turn: int = 0
    visual: int = 0
    calibrated: bool | None = None


class TraceEntry(NamedTuple):
    """One forward of one steered layer: steered (B, T), position (B, T), context (B, T, 3).

    decision: what the rule says, name to (B, T) float, or (k,) of the k steered columns alone.
    visual: whether these are the visual tokens.
    """

    layer: int
    steered: torch.Tensor
    position: torch.Tensor
    context: torch.Tensor
    decision: dict[str, torch.Tensor]
    visual: bool = False

    def rows(self, modalities: Sequence[str]) -> list[list[SteeredPosition]]:
        """Steered positions of every row, from left to right."""
        rows: list[list[SteeredPosition]] = [[] for _ in range(self.steered.shape[0])]
        position, context = self.position.tolist(), self.context.tolist()
        known = {
            name: (values[self.steered] if values.dim() > 1 else values).tolist()
            for name, values in self.decision.items()
        }
        for k, (row, column) in enumerate(self.steered.nonzero().tolist()):
            gate, strength, calibrated = (
                known[name][k] if name in known else None
                for name in ("gate", "strength", "calibrated")
            )
            if self.visual and not strength:
                continue  # of visual tokens, which may be many, those that were pushed
            modality, visual, turn = context[row][column]
            rows[row].append(
                SteeredPosition(
                    position[row][column],
                    modalities[modality],
                    gate,
                    strength,
                    self.layer,
                    turn,
                    visual,
                    None if calibrated is None else bool(calibrated),
                )
            )
        return rows


class Trace:
    """Steered positions of one request."""

    def __init__(self) -> None:
        self.entries: list[TraceEntry] = []
        self._limit = 64

    def add(self, entry: TraceEntry) -> None:
        """Keep an entry; torch.export runs on tensors without values, of which none is kept."""
        if torch.compiler.is_exporting():
            return
        decision = {name: values.detach() for name, values in entry.decision.items()}
        self.entries.append(entry._replace(decision=decision))
        if len(self.entries) > self._limit and not torch.compiler.is_compiling():
            # A loop written by hand adds one entry a token, and most of them steer nothing. Looking
            # costs a synchronization, so the limit grows with what is left.
            self.entries = [entry for entry in self.entries if entry.steered.any()]
            self._limit = max(64, 2 * len(self.entries))

    def rows(self, modalities: Sequence[str]) -> list[list[SteeredPosition]]:
        """Steered positions of every row, in the order in which they were run."""
        rows: list[list[SteeredPosition]] = []
        for entry in self.entries:
            parts = entry.rows(modalities)
            rows += [[] for _ in range(len(parts) - len(rows))]
            for row, part in zip(rows, parts, strict=False):
                row += part
        return rows
