"""Which columns the decoder graph steers: the runtime's rule, as arithmetic on tensors.

Comparisons of lengths in Python would be frozen into an exported graph, and a graph cannot raise.
Here what the runtime raises for is a row of a mask, `Claims.valid`, which spoils the row's output.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations

import torch

from mars_export.runtime.positions import header_ends

__all__ = ["Claims", "modalities", "steered_columns"]


@dataclass(frozen=True)
class Claims:
    """What a caller says of a conversation.

    ids (B, S): tokens of all columns, the cached ones first. mask (B, S): 0 where a column is
    padding. prompt_length (B,): columns of the row's prompt, padding counted; the last of them is a
    prompt end, what follows was generated. past, new (): columns in the cache and those that come,
    S together.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    prompt_length: torch.Tensor
    past: torch.Tensor
    new: torch.Tensor

    @property
    def column(self) -> torch.Tensor:
        """(1, S) number of every column."""
        return torch.arange(self.ids.shape[1], device=self.ids.device)[None]

    @property
    def end(self) -> torch.Tensor:
        """(B, 1) column of the prompt's last token."""
        return self.prompt_length[:, None] - 1

    @property
    def answering(self) -> torch.Tensor:
        """(B,) whether the columns reach the end of the row's prompt."""
        return self.prompt_length <= self.past + self.new

    def valid(self, suffixes: list[list[int]]) -> torch.Tensor:
        """(B,) whether the row's prompt end is sure to be steered.

        Not so where the prompt has no length, or it or what follows ends in padding; where several
        tokens are said to have been generated at once, which is a turn whose length was not given;
        and where a header that ended in the cache goes on, as in the runtime, which raises.
        """
        reached = self.answering[:, None]
        last = (self.column == self.end) | ((self.column == self.past + self.new - 1) & reached)
        ends_in_padding = (last & (self.mask == 0)).any(1)
        unannounced = (self.new > 1) & (self.prompt_length <= self.past)
        claimed = (self.prompt_length >= 1) & ~ends_in_padding & ~unannounced
        return claimed & ~self._split(suffixes)

    def _split(self, suffixes: list[list[int]]) -> torch.Tensor:
        """(B,) whether a header that ended in the cache ends later with the new columns."""
        split = torch.zeros_like(self.prompt_length, dtype=torch.bool)
        for header, more in _continued(suffixes):
            done = header_ends(self.ids, [header]) & (self.column >= self.past)
            cached = self.column - more < self.past
            split = split | (done & cached & ~self.resumed(header, suffixes)).any(1)
        return split

    def resumed(self, header: list[int], suffixes: list[list[int]]) -> torch.Tensor:
        """(B, S) columns where `header` would end that generated tokens made of the prompt's end.

        It is none then: a thought that the model opened itself. Its turn was steered at that end.
        """
        found = torch.zeros_like(self.ids, dtype=torch.bool)
        for longer, more in _continued(suffixes):
            if longer == header:
                found = found | (self.column - more == self.end)
        return found


def steered_columns(claims: Claims, suffixes: list[list[int]]) -> torch.Tensor:
    """(B, S) bool: every assistant header's end, and each prompt's last token.

    In a prompt, headers are looked for among its own tokens, as generate() does; behind it, among
    all, as a forward does.
    """
    inside = claims.column <= claims.end
    own = header_ends(torch.where(inside, claims.ids, -1), suffixes) | (claims.column == claims.end)
    behind = header_ends(claims.ids, suffixes)
    for header in suffixes:
        resumed = header_ends(claims.ids, [header]) & claims.resumed(header, suffixes)
        behind = behind & ~resumed
    # onnxruntime chooses between numbers only.
    return ((inside & own) | (~inside & behind)) & (claims.mask != 0)


def _continued(suffixes: list[list[int]]) -> list[tuple[list[int], int]]:
    """Headers that begin with another one, and how many tokens they have more."""
    pairs = permutations(suffixes, 2)
    return [(b, len(b) - len(a)) for a, b in pairs if len(a) < len(b) and b[: len(a)] == a]


def modalities(ids: torch.Tensor, placeholders: Mapping[int, int]) -> torch.Tensor:
    """(B, S) index of a modality: the highest that the row has shown up to a column.

    placeholders: token to the index of its modality, in the checkpoint's order.
    """
    highest = torch.zeros_like(ids)
    for token, index in placeholders.items():
        shown = (ids == token).long().cumsum(1) > 0
        highest = torch.maximum(highest, shown.long() * index)
    return highest
