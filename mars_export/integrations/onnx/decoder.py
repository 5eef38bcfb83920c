"""The decoder as a module that can be exported: cache in and out, steering decided inside."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import DynamicCache

from mars_export.families import text_decoder
from mars_export.integrations.onnx.attention import (
    attention_masks,
    attention_windows,
    refuse_frozen_positions,
)
from mars_export.integrations.onnx.graph_positions import Claims, modalities, steered_columns
from mars_export.integrations.onnx.routes import Route
from mars_export.runtime.positions import WINDOW_VERSION, Window
from mars_export.runtime.trace import Trace

__all__ = ["Decoder"]


class _Known(NamedTuple):
    """A token of a header, its row of the embedding (d,), and whether no other token has it."""

    token: int
    row: torch.Tensor
    alone: bool


class Decoder(nn.Module):
    """Embeddings and a cache to logits.

    The steering is that of the checkpoint: its own module in the steered layer, told by the graph
    where to act. A row whose inputs contradict each other gets NaN, in the logits and in the first
    keys of the cache, by which later calls know it: a graph cannot raise, and an answer without
    steering must not come out. Nothing else is touched, for in int8 rows share their scales. What
    comes before the end of a prompt has NaN for logits too, since no answer begins there.
    """

    def __init__(self, model: Any, route: Route) -> None:
        super().__init__()
        self.model, self.route = model, route
        self.rules = model.config.steering
        self.text = model.config.get_text_config()
        refuse_frozen_positions(self.text)
        headers = {token for suffix in self.rules["header_suffixes"] for token in suffix}
        self.known = [self._look_up(token) for token in sorted(headers)]
        self.visual = {
            modality: getattr(model.config, attribute)
            for modality, attribute in self.rules["placeholders"].items()
        }
        shown = set(route.shown if route.vision else ()) - set(self.rules["refused"].values())
        order = self.rules["modalities"]
        self.indices = {t: order.index(m) for m, t in self.visual.items() if m in order}
        self.refused = [token for m, token in self.visual.items() if m not in shown]

    @torch.no_grad()
    def _look_up(self, token: int) -> _Known:
        embedding = self.model.get_input_embeddings()
        row = embedding(torch.tensor(token)).detach().clone()
        weight = embedding.weight
        return _Known(token, row, int((weight == weight[token]).all(-1).sum()) == 1)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        prompt_length: torch.Tensor,
        inputs_embeds: torch.Tensor,
        past_key_values: list[tuple[torch.Tensor, torch.Tensor]],
        position_ids: torch.Tensor | None = None,
        deepstack: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Run n new columns behind P cached ones.

        Args:
            input_ids: (B, P + n) tokens of all columns, cached ones too.
            attention_mask: (B, P + n), 0 where a column is padding.
            prompt_length: (B,) columns of the prompt, padding counted.
            inputs_embeds: (B, n, d) of the new columns, pictures put in.
            past_key_values: For each layer keys and values, (B, heads, P, size).
            position_ids: (3, B, n) rotary positions, for families that have three axes.
            deepstack: (levels, B, n, d) added behind the first layers; zero off the pictures.

        Returns:
            `logits` (B, 1, V) of the last column; of the new columns `steered` bool, `modality`,
            `gate` and `strength`, (B, n); and the cache with them.
        """
        past, new = past_key_values[0][0].shape[2], inputs_embeds.shape[1]
        told = self._claims(input_ids, attention_mask, prompt_length, past, new)
        embeds = inputs_embeds
        valid = self._counts(input_ids, attention_mask, prompt_length, embeds, told)
        valid = valid & told.valid(self.rules["header_suffixes"])
        valid = valid & self._embedded(told.ids[:, past:], embeds) & self._calibrated(told.ids)
        (keys, values), *others = past_key_values
        spoilt = _spoilt(keys)
        valid = valid & ~spoilt
        trace = Trace()
        healed = torch.where(spoilt[:, None, None, None], 0.0, keys)
        window = Window(
            WINDOW_VERSION,
            steered=steered_columns(told, self.rules["header_suffixes"])[:, past:],
            modality=modalities(told.ids, self.indices)[:, past:],
            position=_positions(told.mask)[:, past:],
            trace=trace,
        )
        cached = [(healed, values), *others]
        out = self._run(embeds, told, cached, position_ids, deepstack, window)
        logits = self.model.get_output_embeddings()(out.last_hidden_state[:, -1:])
        logits = self._capped(logits).float()
        (entry,) = trace.entries
        made = {
            "logits": torch.where((valid & told.answering)[:, None, None], logits, torch.nan),
            "steered": entry.steered,
            "modality": entry.modality,
            **entry.decision,
        }
        for i, layer in enumerate(out.past_key_values.layers):
            made |= {f"present_{i}_key": layer.keys, f"present_{i}_value": layer.values}
        kept = valid[:, None, None, None]
        return made | {"present_0_key": torch.where(kept, made["present_0_key"], torch.nan)}

    def _claims(
        self, ids: torch.Tensor, mask: torch.Tensor, length: torch.Tensor, past: int, new: int
    ) -> Claims:
        """What is said of the columns that there are, whatever the lengths of ids and mask."""
        column = torch.arange(past + new)[None].expand(ids.shape[0], -1)
        ids, mask = (
            x.gather(1, column.clamp(max=x.shape[1] - 1).expand(x.shape[0], -1))
            for x in (ids, mask)
        )
        return Claims(ids, mask, length, torch.full((), past), torch.full((), new))

    def _counts(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        length: torch.Tensor,
        embeds: torch.Tensor,
        told: Claims,
    ) -> torch.Tensor:
        """() whether ids, mask and lengths are as many as columns and rows.

        Counted from the data: sizes that are equal in the example would be taken for equal.
        """
        rows = _count(embeds[:, 0, 0])
        columns = told.past + told.new
        there = (_count(ids) == rows * columns) & (_count(mask) == rows * columns)
        return there & (_count(length) == rows)

    def _embedded(self, ids: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
        """(B,) whether the embeddings (B, n, d) of header tokens are where the ids have them."""
        agree = torch.ones_like(ids[:, 0], dtype=torch.bool)
        for token, row, alone in self.known:
            here, there = ids == token, (embeds == row).all(-1)
            agree = agree & (here == there if alone else ~here | there).all(1)
        return agree

    def _calibrated(self, ids: torch.Tensor) -> torch.Tensor:
        """(B,) whether no placeholder of a modality stands there that was not calibrated."""
        known = torch.ones_like(ids[:, 0], dtype=torch.bool)
        for token in self.refused:
            known = known & (ids != token).all(1)
        return known

    def _run(
        self,
        embeds: torch.Tensor,
        told: Claims,
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
                attention_mask=self._masks(told, embeds.shape[1]),
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                steering_window=window,
            )

    def _masks(self, told: Claims, new: int) -> Any:
        """The mask of each kind of layer, as the family's decoder takes it."""
        windows = attention_windows(self.text)
        blocks = [self.visual[m] for m in self.route.blocks if m in self.visual]
        masks = attention_masks(told.ids, told.mask, new, windows, blocks)
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def _capped(self, logits: torch.Tensor) -> torch.Tensor:
        cap = getattr(self.text, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap


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


def _spoilt(keys: torch.Tensor) -> torch.Tensor:
    """(B,) whether keys (B, heads, P, size) are those of a row that was given NaN."""
    one = keys[:, 0, :, 0]
    return (one != one).long().sum(1) > 0


def _count(x: torch.Tensor) -> torch.Tensor:
    """() number of elements, looked at one by one; NaN is none."""
    return (x == x).long().sum()
