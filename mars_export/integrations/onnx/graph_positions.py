"""Which columns the decoder graph steers: the runtime's rule, as arithmetic on tensors.

Comparisons of lengths in Python would be frozen into an exported graph, and a graph cannot raise.
Here what the runtime raises for is a row of a mask, which spoils the row's output.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mars_export.runtime.positions import Headers, header_ends, last_column, total_within

__all__ = ["GraphColumns"]


@dataclass(frozen=True)
class GraphColumns:
    """What a caller says of a conversation, and how turns begin in it.

    ids (B, S): tokens of all columns, the cached ones first. mask (B, S): 0 where a column is
    padding. headers: of assistant turns. turn_starts: of everybody else's. placeholders: token to
    the index of its modality, in the checkpoint's order.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    headers: Headers
    turn_starts: list[list[int]]
    placeholders: Mapping[int, int]

    @property
    def steered(self) -> torch.Tensor:
        """(B, S) bool: the end of every assistant header."""
        return header_ends(self.ids, self.headers) & (self.mask != 0)

    @property
    def answering(self) -> torch.Tensor:
        """(B,) whether the columns end in an assistant turn, which was steered at its header."""
        turns = [{"prefix": start[:-1], "ends": start[-1:]} for start in self.turn_starts]
        others = header_ends(self.ids, turns) & (self.mask != 0)
        return (last_column(self.steered) > last_column(others))[:, 0]

    @property
    def valid(self) -> torch.Tensor:
        """(B,) whether no answer ends in padding, whose logits nobody means."""
        return ~(self.answering & (self.mask[:, -1] == 0))

    @property
    def context(self) -> torch.Tensor:
        """(B, S, 3): what a row has come to at each column, as the runtime's `contexts` gives."""
        modality, visual = torch.zeros_like(self.ids), torch.zeros_like(self.ids)
        for token, index in self.placeholders.items():
            shows = (self.ids == token).long()
            modality = torch.maximum(modality, (shows.cumsum(1) > 0).long() * index)
            visual = visual + shows
        turn = self.steered.long().cumsum(1) - self.steered.long()
        return torch.stack([modality, total_within(visual, turn), turn], -1)
