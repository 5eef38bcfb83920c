"""Ways of running a conversation, drawn by hypothesis, which a side goes whichever model it is."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st

from support.conversations import SPECIAL, Batch, Row, Turn
from support.sides import Side

OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "penalized": {"repetition_penalty": 1.8},
    "without a cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static", "disable_compile": True},
    "beams": {"num_beams": 2},
    "several answers": {"do_sample": True, "num_return_sequences": 2},
    "looked up": {"prompt_lookup_num_tokens": 2},
    "chunks of 1": {"prefill_chunk_size": 1},
    "chunks of 3": {"prefill_chunk_size": 3},
    "embeddings": {},
}
TAKES_CACHE = {"greedy", "penalized"}
"""Options that go on from a cache. With candidates, Transformers runs the cached prompt again."""

LEAVES_CACHE = {*TAKES_CACHE, "looked up"}


@dataclass(frozen=True)
class Way:
    """How an answer is made.

    turn: what is asked first, of every turn but the first. option: of OPTIONS. steps: tokens of
    each generate(). feed: where the prompt is cut for forwards before generate(), as hundredths of
    what is left of it. cache: of the turn before, dropped, kept or copied. stated: seeds of the
    positions that are stated for each row instead of what the headers say. off: whether an
    unsteered answer is asked for in between.
    """

    turn: Turn
    option: str
    steps: tuple[int, ...]
    feed: tuple[int, ...]
    cache: str
    stated: tuple[tuple[int, ...], ...] | None
    off: bool


@dataclass(frozen=True)
class Talk:
    """Rows of a conversation up to its first answer, and how the answers are made."""

    rows: tuple[tuple[Turn, ...], ...]
    ways: tuple[Way, ...]


@dataclass(frozen=True)
class Score:
    """Rows of a conversation, and how they are run without generating.

    feed: as of a `Way`. right: padded on the right. stated: as of a `Way`; as a tensor or as lists.
    """

    rows: tuple[tuple[Turn, ...], ...]
    route: str
    feed: tuple[int, ...]
    right: bool
    stated: tuple[tuple[int, ...], ...]
    tensor: bool


sizes = st.integers(1, 7)
cuts = st.lists(st.integers(0, 100), max_size=3).map(tuple)
positions = st.lists(st.lists(st.integers(0, 1000), max_size=3).map(tuple), min_size=3, max_size=3)
positions = positions.map(tuple)


def turns(visuals, answers):
    shown = st.sampled_from([None, *visuals])
    return st.builds(Turn, sizes, answers, shown, st.booleans())


def conversations(visuals, last):
    """One to four turns each, in up to three rows; the last answer has `last` tokens."""
    earlier = st.lists(turns(visuals, st.integers(1, 5)), max_size=3)
    row = st.tuples(earlier, turns(visuals, last)).map(lambda parts: (*parts[0], parts[1]))
    return st.lists(row, min_size=1, max_size=3).map(tuple)


def ways(visuals):
    return st.builds(
        Way,
        turn=turns((), st.sampled_from([0, 0, 2])),
        option=st.sampled_from(["greedy", *OPTIONS]),
        steps=st.sampled_from([(3,), (1, 1, 1), (2, 1), (1, 3)]),
        feed=st.one_of(st.just(()), cuts),
        cache=st.sampled_from(["drop", "keep", "copy"]),
        stated=st.one_of(st.none(), st.none(), st.none(), positions),
        off=st.sampled_from([False, False, True]),
    )


def talks(visuals):
    begun = st.sampled_from([0, 0, 0, 1, 3])
    return st.builds(
        Talk,
        conversations(visuals, begun),
        st.lists(ways(visuals), min_size=1, max_size=3).map(tuple),
    )


def scores(visuals):
    return st.builds(
        Score,
        rows=conversations(visuals, st.integers(0, 4)),
        route=st.sampled_from(["whole", "pieces", "packed", "embeddings", "stated"]),
        feed=cuts,
        right=st.booleans(),
        stated=positions,
        tensor=st.booleans(),
    )


def laid_out(kind, rows, right=False):
    return Batch.of(kind, *(Row.of(turns, seed) for seed, turns in enumerate(rows)), right=right)


def chosen(seeds, batch):
    """Positions of each row that the seeds stand for."""
    return [
        sorted({seed % len(row.ids) for seed in some})
        for some, row in zip(seeds, batch.rows, strict=False)
    ]


def ends_before(batch, column):
    """Positions of the headers that end in the first columns."""
    return [
        [index for index, _ in row.ends if index + padding < column]
        for row, padding in zip(batch.rows, batch.padding, strict=True)
    ]


def fed(side: Side, batch: Batch, cache: Any, feed: tuple[int, ...], last: bool = False) -> Any:
    """The cache of forwards over the beginning of a batch, cut where `feed` says.

    A piece in which a row has no header yet comes with the positions to steer. last: whether the
    last piece is run too.
    """
    width = batch.ids.shape[1]
    start = 0 if cache is None else int(cache.get_seq_length())
    seen = [row.visual_columns() + pad for row, pad in zip(batch.rows, batch.padding, strict=True)]
    low = max(start + 1, *seen)
    stops = sorted({low + (width - 1 - low) * cut // 100 for cut in feed if low < width})
    for stop in [*stops, *([width] if last else [])]:
        inputs = {"input_ids": batch.ids[:, start:stop], "attention_mask": batch.mask[:, :stop]}
        if start == 0:
            inputs |= {name: t[:, :stop] for name, t in batch.typed().items()} | batch.seen()
        if side.pair.family.model_type != "qwen3_vl":  # which counts along three axes
            inputs["position_ids"] = (batch.mask.cumsum(1) - 1).clamp(min=0)[:, start:stop]
        stated = ends_before(batch, stop)
        stated = None if all(stated) else stated
        inputs |= {"past_key_values": cache, "use_cache": True}
        cache = side.forward(batch, inputs, batch.where, stated, start).past_key_values
        start = stop
    return cache


def talk(side: Side, case: Talk) -> torch.Tensor:
    """Answer the conversation turn by turn; the ids of all."""
    kind = side.pair.family.model_type
    batch, cache = laid_out(kind, case.rows), None
    for number, way in enumerate(case.ways):
        batch = batch.asked(way.turn, 1000 * number) if number else batch
        if way.off:
            options = {"max_new_tokens": 2, "do_sample": False}
            side.off(lambda model, b=batch, o=options: model.generate(**b.inputs, **o))
        stated = None if way.stated is None else chosen(way.stated, batch)
        takes, keeps = way.option in TAKES_CACHE and stated is None, way.cache != "drop"
        cache = copy.deepcopy(cache) if way.cache == "copy" else cache
        cache = fed(side, batch, cache if keeps else None, way.feed) if takes else None
        for step in way.steps:
            out = generated(side, batch, cache if takes else None, way, step, stated)
            if out.sequences.shape[0] != len(batch.rows):
                return out.sequences
            spoken = out.sequences[:, 0 if way.option == "embeddings" else batch.ids.shape[1] :]
            batch = batch.said(spoken[:, :step])
            # Candidates that were looked up may be more than what was asked for.
            leaves = way.option in LEAVES_CACHE and stated is None and spoken.shape[1] == step
            cache = out.past_key_values if leaves and keeps else None
    return batch.ids


def generated(side, batch, cache, way, step, stated):
    """One generate() of a way."""
    inputs = {**batch.inputs}
    if cache is not None:
        inputs = {name: t for name, t in inputs.items() if name not in batch.seen()}
        inputs["past_key_values"] = cache
    if way.option == "embeddings":
        ids = inputs.pop("input_ids")
        inputs["inputs_embeds"] = side.pair.base.get_input_embeddings()(ids)
    options = {"max_new_tokens": step, "min_new_tokens": step, "suppress_tokens": SPECIAL}
    options |= {"do_sample": False, "return_dict_in_generate": True, **OPTIONS[way.option]}
    where = batch.where if stated is None else batch.places(stated)
    return side.generate(batch, where, stated, **inputs, **options)


def score(side: Side, case: Score) -> None:
    """Run the conversation without generating."""
    batch = laid_out(side.pair.family.model_type, case.rows, case.right)
    if case.route == "pieces":
        fed(side, batch, None, case.feed, last=True)
    elif case.route == "packed":
        inputs, where = batch.packed()
        row = Batch(batch.rows[:1], inputs, [0])
        side.forward(row, inputs, where)
    elif case.route == "embeddings":
        embeds = side.pair.base.get_input_embeddings()(batch.ids)
        inputs = {**batch.typed(), "attention_mask": batch.mask, "inputs_embeds": embeds}
        side.forward(batch, inputs, batch.where)
    elif case.route == "stated":
        stated = chosen(case.stated, batch)
        where = batch.places(stated)
        if case.tensor:
            longest = max(map(len, stated))
            stated = torch.tensor([row + [-1] * (longest - len(row)) for row in stated]).long()
        side.forward(batch, batch.inputs, where, stated)
    else:
        side.forward(batch, batch.inputs, batch.where)


def plain(case: Talk) -> Talk:
    """The same answers, each by one generate() of the whole conversation."""
    ways = [
        replace(way, option="penalized" if way.option == "penalized" else "greedy",
                steps=(sum(way.steps),), feed=(), cache="drop", off=False)
        for way in case.ways
    ]  # fmt: skip
    return replace(case, ways=tuple(ways))


def has_visuals(rows):
    return any(turn.visual for row in rows for turn in row)


def applicable(case: Talk) -> bool:
    options = [way.option for way in case.ways]
    text_only = {"chunks of 1", "chunks of 3", "embeddings"} & set(options)
    return (
        not (text_only and has_visuals(case.rows))
        and ("looked up" not in options or len(case.rows) == 1)
        and "several answers" not in options[:-1]
    )


def follows_from_the_tokens(kind: str, case: Talk) -> bool:
    """Whether the base itself says the same if it gets each conversation in one piece."""
    others = {"beams", "several answers"} & {way.option for way in case.ways}
    uneven = kind == "qwen3_vl" and len(case.rows) > 1 and any(way.feed for way in case.ways)
    return not (others or uneven or has_visuals(case.rows))


@dataclass(frozen=True)
class Lost:
    """A conversation in which one row has no header, or none in its last turn; how it is run."""

    rows: tuple[tuple[Turn, ...], ...]
    number: int
    header: tuple[int, ...]
    last_turn_only: bool
    route: str

    @property
    def whole(self) -> tuple[tuple[Turn, ...], ...]:
        """The rows without those headers."""
        rows = list(self.rows)
        number = self.number % len(rows)
        turns = list(rows[number])
        for k in range(len(turns) - 1 if self.last_turn_only else 0, len(turns)):
            turns[k] = replace(turns[k], header=self.header, blank=False)
        rows[number] = tuple(turns)
        return tuple(rows)


def losses(visuals):
    return st.builds(
        Lost,
        rows=conversations(visuals, st.integers(0, 3)),
        number=st.integers(0, 2),
        header=st.sampled_from([(), (310,), (310, 311), (310, 316, 312), (311, 312)]),
        last_turn_only=st.booleans(),
        route=st.sampled_from(["forward", "inner", "packed", "embeddings", *OPTIONS]),
    )


def lost_call(pair, batch, route):
    """A call of either model that gives it a batch by some route."""
    if route == "packed":
        inputs, _ = batch.packed()
        return lambda model, **more: model(**inputs, **more).logits
    if route == "inner":
        return lambda model, **more: model.base_model(**batch.inputs, **more).last_hidden_state
    inputs = {**batch.inputs}
    if route == "embeddings":
        inputs["inputs_embeds"] = pair.base.get_input_embeddings()(inputs.pop("input_ids"))
    if route in ("forward", "embeddings"):
        return lambda model, **more: model(**inputs, **more).logits
    options = {"max_new_tokens": 2, "do_sample": False, **OPTIONS[route]}

    def call(model, **more):
        torch.manual_seed(1)
        return model.generate(**inputs, **options, **more)

    return call
