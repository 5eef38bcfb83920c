"""Which positions of packed requests are steered, and as which modality.

An engine packs pieces of many requests into one forward. A piece may begin inside an assistant
header, or behind a picture that another step or a shared prefix has computed. So nothing is read
off a forward: the plan of a request is made once, of its whole prompt, and each forward gets the
part that it computes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from mars_export.runtime.positions import (
    MIXED,
    contexts,
    header_ends,
    is_assistants_turn,
    mixed_columns,
    refuse_shown_late,
)

UNKNOWN = -1


class Placeholder(NamedTuple):
    """What shows a modality: a token id, and its index in the checkpoint's order."""

    token: int
    modality: int


class PromptPlan(NamedTuple):
    """Of a prompt's n tokens: tokens (n,) ids, context (n, 3), steered (n,) bool; see `History`."""

    tokens: torch.Tensor
    context: torch.Tensor
    steered: torch.Tensor


class Piece(NamedTuple):
    """What a forward computes of a request: the tokens from index `start` up to `stop`."""

    request: str
    start: int
    stop: int


class Pack(NamedTuple):
    """A forward over T packed tokens: context (T, 3), the others (T,).

    tokens: ids of prompts, UNKNOWN for what was generated. position: index in the request.
    """

    tokens: torch.Tensor
    context: torch.Tensor
    steered: torch.Tensor
    position: torch.Tensor


def prompt_plan(
    tokens: Sequence[int],
    rules: Mapping[str, Any],
    placeholders: Mapping[str, Placeholder],
    shown: Iterable[tuple[str, torch.Tensor]] = (),
) -> PromptPlan:
    """Where `generate()` would steer this prompt: at the end of each assistant header.

    Args:
        tokens: Ids of the whole prompt, with the placeholders of its pictures.
        rules: `steering` of the checkpoint's config.json.
        placeholders: What shows each modality.
        shown: Modality and `visual_columns` of each picture or clip that came with the request.
            What the checkpoint does not tell apart is left to the tokens.

    Raises:
        ValueError: if nothing shows where the answer begins: there is no assistant header, or
            somebody else's turn has begun behind the last one. Or a picture or sound stands behind
            it.
    """
    ids = torch.tensor([list(tokens)], dtype=torch.long)
    steered = header_ends(ids, rules["headers"])
    if not bool(is_assistants_turn(ids, steered, rules["turn_starts"]).all()):
        raise ValueError(
            "steered checkpoint: the prompt does not end in an assistant turn of the calibrated "
            "chat template, so where its answer begins is unknown; use the chat API, or end the "
            "prompt with the template's generation prompt"
        )
    columns = torch.zeros_like(ids)
    for token, index in placeholders.values():
        columns = columns.maximum((ids == token) * index)
    for name, at in shown:
        if name in placeholders:
            columns[0, at] = columns[0, at].clamp(min=placeholders[name].modality)
    mixed = mixed_columns(columns, rules["modalities"])
    if mixed is not None and bool(mixed.any()):
        raise ValueError(MIXED.format(row=0))
    context = contexts(columns, steered)
    refuse_shown_late(steered, context)
    return PromptPlan(ids[0], context[0], steered[0])


def visual_columns(place: Any) -> torch.Tensor:
    """(n,) indices in the prompt that hold embeddings of a picture or clip.

    Where it stands, delimiters, line breaks and time stamps may stand as well, also in front.

    place: its `PlaceholderRange` of vLLM.
    """
    columns = torch.arange(place.offset, place.offset + place.length)
    return columns if place.is_embed is None else columns[place.is_embed]


class Plans:
    """The plans of the requests that an engine is working on."""

    def __init__(self) -> None:
        self._plans: dict[str, PromptPlan] = {}

    def begin(self, request: str, plan: PromptPlan) -> None:
        """Keep the plan of a request, until `end`."""
        self._plans[request] = plan

    def end(self, requests: Iterable[str]) -> None:
        """Forget requests; those that are not known are forgotten already."""
        for request in requests:
            self._plans.pop(request, None)

    def reach(self, pieces: Iterable[Piece]) -> bool:
        """Whether any of these pieces holds a token of its prompt.

        Raises:
            RuntimeError: if none does and a request has no plan.
        """
        return any(piece.start < len(self._plan(piece).tokens) for piece in pieces)

    def pack(self, pieces: Iterable[Piece]) -> Pack:
        """What a forward over these pieces, in this order, has to steer.

        Raises:
            RuntimeError: if a request has no plan.
        """
        parts = [self._part(piece) for piece in pieces]
        return Pack(*(torch.cat(columns) for columns in zip(*parts, strict=True)))

    def _plan(self, piece: Piece) -> PromptPlan:
        plan = self._plans.get(piece.request)
        if plan is None:
            raise RuntimeError(
                f"steered checkpoint: the engine computes request {piece.request!r} without having "
                "told its prompt; it would not be steered"
            )
        return plan

    def _part(self, piece: Piece) -> Pack:
        plan = self._plan(piece)
        known = [column[piece.start : piece.stop] for column in plan]
        more = piece.stop - piece.start - len(known[0])
        generated = PromptPlan(
            torch.full((more,), UNKNOWN),
            plan.context[-1:].expand(more, -1),
            torch.zeros(more, dtype=torch.bool),
        )
        tokens, context, steered = (torch.cat(pair) for pair in zip(known, generated, strict=True))
        return Pack(tokens, context, steered, torch.arange(piece.start, piece.stop))
