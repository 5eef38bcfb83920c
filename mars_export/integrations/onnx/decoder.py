"""The decoder as a module that can be exported: cache in and out, steering decided inside."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from mars_export.families import text_decoder
from mars_export.integrations.onnx.attention import (
    attention_masks,
    attention_windows,
    refuse_frozen_positions,
)
from mars_export.integrations.onnx.graph_positions import GraphColumns
from mars_export.integrations.onnx.routes import Route
from mars_export.runtime.positions import recognized
from mars_export.runtime.trace import Trace, TraceEntry
from mars_export.runtime.windows import WINDOW_VERSION, Window

__all__ = ["Decoder"]


class Decoder(nn.Module):
    """Embeddings and a cache to logits.

    The steering is that of the checkpoint: its own module in the steered layer, told by the graph
    where to act. A row whose inputs contradict each other gets NaN, in the logits and in the first
    keys of the cache, by which later calls know it: a graph cannot raise, and an answer without
    steering must not come out. Nothing else is touched, for in int8 rows share their scales. Logits
    behind columns that end in no assistant turn are NaN too, since no answer begins there.
    """

    def __init__(self, model: Any, route: Route) -> None:
        super().__init__()
        self.model, self.route = model, route
        self.rules = model.config.steering
        self.text = model.config.get_text_config()
        refuse_frozen_positions(self.text)
        self._know_tokens()
        self.visual = {
            modality: getattr(model.config, attribute)
            for modality, attribute in self.rules["placeholders"].items()
        }
        shown = set(route.shown if route.vision else ()) - set(self.rules["refused"].values())
        order = self.rules["modalities"]
        self.indices = {t: order.index(m) for m, t in self.visual.items() if m in order}
        self.refused = [token for m, token in self.visual.items() if m not in shown]

    @torch.no_grad()
    def _know_tokens(self) -> None:
        """Keep the embeddings of the tokens that turns begin with.

        known: those tokens, in order. rows (K, d): their embeddings. twins: token to the first of
        `known` that has the same embedding, where that is another. shared: those of `known` whose
        embedding a token has that is not one of them.
        """
        headers = [[*header["prefix"], *header["ends"]] for header in self.rules["headers"]]
        self.known = sorted({t for part in [*headers, *self.rules["turn_starts"]] for t in part})
        embedding = self.model.get_input_embeddings()
        self.rows = embedding(torch.tensor(self.known)).detach().clone()
        self.twins: dict[int, int] = {}
        self.shared: list[int] = []
        for token in self.known:
            near = (embedding.weight[:, :8] == embedding.weight[token, :8]).all(-1).nonzero()[:, 0]
            same = near[(embedding.weight[near] == embedding.weight[token]).all(-1)].tolist()
            first = next(other for other in self.known if other in same)
            self.twins |= {} if first == token else {token: first}
            self.shared += [token] if set(same) - set(self.known) else []

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        inputs_embeds: torch.Tensor,
        past_key_values: list[tuple[torch.Tensor, torch.Tensor]],
        position_ids: torch.Tensor | None = None,
        deepstack: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Run n new columns behind P cached ones.

        Args:
            input_ids: (B, P + n) tokens of all columns, cached ones too.
            attention_mask: (B, P + n), 0 where a column is padding.
            inputs_embeds: (B, n, d) of the new columns, pictures put in.
            past_key_values: For each layer keys and values, (B, heads, P, size).
            position_ids: (3, B, n) rotary positions, for families that have three axes.
            deepstack: (levels, B, n, d) added behind the first layers; zero off the pictures.

        Returns:
            `logits` (B, 1, V) of the last column; `answering` (B,) bool, whether it is in an
            assistant turn; of the new columns (B, n) `steered` bool, `modality`, `gate`,
            `strength` and `calibrated`; and the cache with them.
        """
        past, new = past_key_values[0][0].shape[2], inputs_embeds.shape[1]
        columns = self._columns(input_ids, attention_mask, past + new)
        valid = self._counts(input_ids, attention_mask, inputs_embeds, past + new) & columns.valid
        valid = valid & self._embedded(columns.ids[:, past:], inputs_embeds)
        valid = valid & self._calibrated(columns.ids)
        (keys, values), *others = past_key_values
        spoiled_rows = _spoiled_rows(keys)
        valid = valid & ~spoiled_rows
        trace = _Decisions()
        finite_keys = torch.where(spoiled_rows[:, None, None, None], 0.0, keys)
        window = Window(
            WINDOW_VERSION,
            steered=columns.steered[:, past:],
            context=columns.context[:, past:],
            position=_positions(columns.mask)[:, past:],
            trace=trace,
        )
        cached = [(finite_keys, values), *others]
        out = self._run(inputs_embeds, columns, cached, position_ids, deepstack, window)
        logits = self.model.get_output_embeddings()(out.last_hidden_state[:, -1:])
        logits = self._capped(logits).float()
        (entry,) = trace.entries
        answering = columns.answering
        made = {
            "logits": torch.where((valid & answering)[:, None, None], logits, torch.nan),
            "answering": answering,
            "steered": entry.steered,
            "modality": entry.context[..., 0],
            **entry.decision,
        }
        for i, layer in enumerate(out.past_key_values.layers):
            made |= {f"present_{i}_key": layer.keys, f"present_{i}_value": layer.values}
        kept = valid[:, None, None, None]
        return made | {"present_0_key": torch.where(kept, made["present_0_key"], torch.nan)}

    def _columns(self, ids: torch.Tensor, mask: torch.Tensor, count: int) -> GraphColumns:
        """The columns that there are, `count` of them, whatever the lengths of ids and mask."""
        column = torch.arange(count)[None].expand(ids.shape[0], -1)
        ids, mask = (
            x.gather(1, column.clamp(max=x.shape[1] - 1).expand(x.shape[0], -1))
            for x in (ids, mask)
        )
        turns = self.rules["headers"], self.rules["turn_starts"]
        return GraphColumns(ids, mask, *turns, self.indices)

    def _counts(
        self, ids: torch.Tensor, mask: torch.Tensor, embeds: torch.Tensor, count: int
    ) -> torch.Tensor:
        """() whether ids and mask are as many as columns and rows.

        Counted from the data: sizes that are equal in the example would be taken for equal.
        """
        there = _count(embeds[:, 0, 0]) * torch.full((), count)
        return (_count(ids) == there) & (_count(mask) == there)

    def _embedded(self, ids: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
        """(B,) whether the embeddings (B, n, d) that turns begin with are where the ids are."""
        known = (ids[..., None] == torch.tensor(self.known)).any(-1)
        expected = torch.where(known, ids, -1)
        for token, first in self.twins.items():
            expected = torch.where(ids == token, first, expected)
        there = recognized(embeds, lambda _: self.rows, set(self.known), graph=True)
        agree = there == expected
        for token in self.shared:
            agree = agree | ((there == token) & ~known)
        return agree.all(1)

    def _calibrated(self, ids: torch.Tensor) -> torch.Tensor:
        """(B,) whether no placeholder of a modality stands there that was not calibrated."""
        known = torch.ones_like(ids[:, 0], dtype=torch.bool)
        for token in self.refused:
            known = known & (ids != token).all(1)
        return known

    def _run(
        self,
        embeds: torch.Tensor,
        columns: GraphColumns,
        past: list[tuple[torch.Tensor, torch.Tensor]],
        position_ids: torch.Tensor | None,
        deepstack: torch.Tensor | None,
        window: Window,
    ) -> Any:
        cache = DynamicCache()
        for i, (keys, values) in enumerate(past):
            cache.update(keys, values, i)
        if position_ids is None:
            positions = window.position
        else:
            positions = torch.cat([window.position[None], position_ids])
        decoder = text_decoder(self.model)
        with _added(decoder.layers, deepstack):
            return decoder(
                inputs_embeds=embeds,
                attention_mask=self._masks(columns, embeds.shape[1]),
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                steering_window=window,
            )

    def _masks(self, columns: GraphColumns, new: int) -> Any:
        """The mask of each kind of layer, as the family's decoder takes it."""
        windows = attention_windows(self.text)
        blocks = [self.visual[m] for m in self.route.blocks if m in self.visual]
        masks = attention_masks(columns.ids, columns.mask, new, windows, blocks)
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def _capped(self, logits: torch.Tensor) -> torch.Tensor:
        cap = getattr(self.text, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap


class _Decisions(Trace):
    """A trace that keeps the tensors of an export, which become outputs of the graph."""

    def add(self, entry: TraceEntry) -> None:
        """Keep an entry."""
        self.entries.append(entry)


@contextmanager
def _added(layers: Any, deepstack: torch.Tensor | None) -> Iterator[None]:
    """Add deepstack[i] (B, n, d) to what layer i gives.

    The native code adds at positions that a mask selects, whose number no graph can know; with
    zeros off the pictures the sum is the same. Hooks set here run behind the one that steers.
    """

    def adding(level: torch.Tensor) -> Any:
        return lambda _layer, _args, out: out + level

    levels = [] if deepstack is None else list(deepstack)
    handles = [
        layer.register_forward_hook(adding(level))
        for layer, level in zip(layers, levels, strict=False)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _positions(mask: torch.Tensor) -> torch.Tensor:
    """(B, S) index of a column in its row, padding not counted."""
    return ((mask != 0).long().cumsum(1) - 1).clamp(min=0)


def _spoiled_rows(keys: torch.Tensor) -> torch.Tensor:
    """(B,) whether keys (B, heads, P, size) are those of a row that was given NaN."""
    one = keys[:, 0, :, 0]
    return (one != one).long().sum(1) > 0


def _count(x: torch.Tensor) -> torch.Tensor:
    """() number of elements, looked at one by one; NaN is none."""
    return (x == x).long().sum()
