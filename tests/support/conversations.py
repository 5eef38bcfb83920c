"""Conversations that a test puts together, so that it knows without looking where headers end."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from support import zoo_inputs
from support.oracle import Shown, Where
from support.tiny import AUDIO, HEADER, IMAGE, TURN_STARTS, VIDEO, random_ids
from support.zoo import VIDEO_START

USER = TURN_STARTS[0]
BLANK = 314  # the header's last token and a line feed behind it, in one token
HEADERS = [{"prefix": HEADER[:-1], "ends": [HEADER[-1], BLANK]}]
"""The headers of a calibration whose tokenizer has `BLANK`."""

SPECIAL = [0, 1, 2, *range(300, 320)]
"""Tokens that a model must not say: what it says itself would look like a header or a picture."""

_MODALITIES = ["text", "image", "video", "audio"]


@dataclass(frozen=True)
class Turn:
    """A question and its answer, of which the tokens are random.

    question, answer: number of tokens; without an answer, the turn ends with its header. blank:
    whether the answer begins with a line feed that the tokenizer joins to the header. header: what
    stands in the place of the header, if it is not one.
    """

    question: int = 5
    answer: int = 0
    visual: str | None = None
    blank: bool = False
    header: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Row:
    """A conversation: its ids, and the index of each header's last token with what is shown."""

    ids: list[int]
    ends: list[tuple[int, Shown]]

    @classmethod
    def of(cls, turns: tuple[Turn, ...], seed: int = 0) -> "Row":
        """Lay the turns out one after another."""
        row = cls([1], [])
        for number, turn in enumerate(turns):
            row = row.followed_by(turn, seed + 100 * number)
        return row

    def followed_by(self, turn: Turn, seed: int) -> "Row":
        """This one with a further turn behind it."""
        visual = zoo_inputs.MARKED[turn.visual] if turn.visual else []
        ids = [*self.ids, *USER, *visual, *random_ids(turn.question, seed)]
        header = [*HEADER[:-1], BLANK] if turn.blank else HEADER
        ids += header if turn.header is None else turn.header
        ends = list(self.ends)
        if turn.header is None:
            begin = ends[-1][0] + 1 if ends else 0
            ends.append((len(ids) - 1, shown(ids, len(ends), begin)))
        return Row(ids + random_ids(turn.answer, seed + 50), ends)

    def visual_columns(self) -> int:
        """Number of columns up to the last picture or clip."""
        return max((k + 2 for k, t in enumerate(self.ids) if t in (IMAGE, VIDEO, AUDIO)), default=0)


def shown(ids: list[int], turn: int, begin: int = 0) -> Shown:
    """What these tokens show, in the answer after so many others; its turn begins at `begin`."""
    kinds = [
        (token == IMAGE) + 2 * (token in (VIDEO, VIDEO_START)) + 3 * (token == AUDIO)
        for token in ids
    ]
    return Shown(_MODALITIES[max(kinds)], sum(map(bool, kinds[begin:])), turn)


def places(ids: torch.Tensor, columns: list[list[int]]) -> Where:
    """Positions of ids (B, T) that are steered in each row, as the reference needs them."""
    return [
        (number, column, shown(row[: column + 1], turn, max([0, *(c + 1 for c in ends[:turn])])))
        for number, (row, ends) in enumerate(zip(ids.tolist(), map(sorted, columns), strict=True))
        for turn, column in enumerate(ends)
    ]


@dataclass(frozen=True)
class Batch:
    """Padded rows with what the model gets for them.

    inputs: arguments of the model. padding: columns before each row's first token.
    """

    rows: tuple[Row, ...]
    inputs: dict[str, Any]
    padding: list[int]

    @classmethod
    def of(cls, model_type: str, *rows: Row, right: bool = False) -> "Batch":
        """Pad on the left, or on the right."""
        inputs = zoo_inputs.padded(model_type, [row.ids for row in rows], right=right)
        width = inputs["input_ids"].shape[1]
        padding = [0 if right else width - len(row.ids) for row in rows]
        return cls(rows, inputs, padding)

    @property
    def ids(self) -> torch.Tensor:
        return self.inputs["input_ids"]

    @property
    def mask(self) -> torch.Tensor:
        return self.inputs["attention_mask"]

    @property
    def where(self) -> Where:
        """(row, column, what was shown) of every header's end."""
        return self.places([[index for index, _ in row.ends] for row in self.rows])

    def places(self, stated: list[list[int]]) -> Where:
        """(row, column, what was shown) of positions that are stated for each row."""
        columns = [[i + by for i in row] for row, by in zip(stated, self.padding, strict=True)]
        return places(self.ids, columns)

    def typed(self) -> dict[str, Any]:
        """Token types (B, T), if the family has them."""
        return {name: t for name, t in self.inputs.items() if name.endswith("type_ids")}

    def seen(self) -> dict[str, Any]:
        """Pictures and clips."""
        text = {"input_ids", "attention_mask", *self.typed()}
        return {name: t for name, t in self.inputs.items() if name not in text}

    def longer(self, rows: list[Row]) -> "Batch":
        """The same pictures, with rows that are longer by as many tokens each."""
        more = len(rows[0].ids) - len(self.rows[0].ids)
        added = torch.tensor([row.ids[len(row.ids) - more :] for row in rows])
        grown = {
            "input_ids": torch.cat([self.ids, added], 1),
            "attention_mask": torch.nn.functional.pad(self.mask, (0, more), value=1),
            **{n: torch.nn.functional.pad(t, (0, more)) for n, t in self.typed().items()},
        }
        return replace(self, rows=tuple(rows), inputs={**self.inputs, **grown})

    def said(self, tokens: torch.Tensor) -> "Batch":
        """With tokens (B, n) that the model has said."""
        rows = [
            replace(row, ids=row.ids + spoken)
            for row, spoken in zip(self.rows, tokens.tolist(), strict=True)
        ]
        return self.longer(rows)

    def asked(self, turn: Turn, seed: int) -> "Batch":
        """With a further turn of text behind every row."""
        rows = [row.followed_by(turn, seed + number) for number, row in enumerate(self.rows)]
        return self.longer(rows)

    def packed(self) -> tuple[dict[str, Any], Where]:
        """All rows one behind the other in one, told apart by their positions alone."""
        ids = torch.tensor([[token for row in self.rows for token in row.ids]])
        positions = torch.tensor([[k for row in self.rows for k in range(len(row.ids))]])
        real = self.mask.bool()
        types = {name: t[real].unsqueeze(0) for name, t in self.typed().items()}
        starts = torch.tensor([0, *(len(row.ids) for row in self.rows)]).cumsum(0).tolist()
        where = [
            (0, start + index, shown)
            for start, row in zip(starts, self.rows, strict=False)
            for index, shown in row.ends
        ]
        return {"input_ids": ids, "position_ids": positions, **types, **self.seen()}, where
