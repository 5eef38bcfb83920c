# SPDX-License-Identifier: Apache-2.0
"""Runs the ONNX graphs of a steered model. Travels beside them; needs numpy and onnxruntime only.

    from steered_onnx import SteeredOnnx

    model = SteeredOnnx(directory)
    tokens = model.generate(processor(..., return_tensors="np"), max_new_tokens=64)

The graphs steer by themselves, at the end of each assistant header. Where their inputs contradict
each other, or do not end in an assistant turn, they answer NaN, and this file raises.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

__all__ = ["Conversation", "SteeredOnnx", "Step"]

PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}
SHOWN = ("pixel_values", "image_embeds", "video_embeds", "input_features", "inputs_embeds")
"""How inputs begin that show something beside the text."""
GRIDS = {"image": "image_grid_thw", "video": "video_grid_thw"}


@dataclass(frozen=True)
class Step:
    """What one call of the decoder graph gave.

    logits (B, V): of each row's last column. answering (B,) bool: whether that is in an assistant
    turn; logits are NaN where it is not. steered (B, n) bool, modality (B, n) index into
    `about["modalities"]`, gate, strength, and calibrated, 1 where the calibration covers such a
    request, (B, n): of the new columns.
    """

    logits: np.ndarray
    answering: np.ndarray
    steered: np.ndarray
    modality: np.ndarray
    gate: np.ndarray
    strength: np.ndarray
    calibrated: np.ndarray


@dataclass
class Conversation:
    """Everything that the decoder has seen, and its cache.

    ids, mask (B, S): tokens, and 0 where a column is padding. offset (B,): what rotary positions
    run ahead of columns.
    """

    ids: np.ndarray
    mask: np.ndarray
    offset: np.ndarray
    cache: dict[str, np.ndarray] = field(default_factory=dict)


class SteeredOnnx:
    """The graphs of a directory that `mars-export onnx` wrote."""

    def __init__(
        self, directory: str | Path, session: Callable[..., Any] | None = None, **options: Any
    ) -> None:
        """Load the graphs.

        Args:
            directory: What `mars-export onnx` wrote.
            session: Makes of the path of a graph what runs it, as `onnxruntime.InferenceSession`.
            options: Go to `session`.
        """
        self.folder = Path(directory)
        self.record = json.loads((self.folder / "steered_onnx.json").read_bytes())
        if session is None:
            session = onnxruntime.InferenceSession
            options.setdefault("providers", ["CPUExecutionProvider"])
        self.graphs = {
            name: session(str(self.folder / f"{name}.onnx"), **options)
            for name in self.record["components"]
        }
        self.about = self.record["model"]
        decoder = self.graphs["decoder"]
        self._past = [i for i in decoder.get_inputs() if i.name.startswith("past_key_values.")]
        self._outputs = [output.name for output in decoder.get_outputs()]

    def generate(
        self, inputs: Mapping[str, Any], max_new_tokens: int, stop: Sequence[int] | None = None
    ) -> list[list[int]]:
        """Greedy answers to a batch; one ends, too, where the model begins somebody else's turn.

        Args:
            inputs: What the processor gives, as numpy arrays; padded on the left.
            max_new_tokens: Longest answer.
            stop: Tokens that end an answer and are its last; None for the model's own.

        Returns:
            Tokens of every answer.

        Raises:
            ValueError: as `begin`, and if no token is asked for.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {max_new_tokens}; give at least 1")
        ends = set(self.about["stop_tokens"] if stop is None else stop)
        conversation, step = self.begin(inputs)
        answers: list[list[int]] = [[] for _ in step.logits]
        unfinished = step.answering
        chosen = step.logits.argmax(-1)
        while True:
            for answer, token, goes_on in zip(answers, chosen.tolist(), unfinished, strict=True):
                if goes_on:
                    answer.append(token)
            unfinished = unfinished & ~np.isin(chosen, list(ends))
            if not unfinished.any() or max(map(len, answers)) >= max_new_tokens:
                return answers
            step = self.forward(conversation, chosen[:, None], generated=True)
            unfinished = unfinished & step.answering
            # A row that has ended repeats its last token: what the model writes behind that could
            # be a placeholder that the graph refuses, and nobody reads it.
            chosen = np.where(unfinished, step.logits.argmax(-1), chosen)

    def begin(self, inputs: Mapping[str, Any]) -> tuple[Conversation, Step]:
        """Run a prompt.

        Raises:
            ValueError: if the inputs contradict each other, hold what was not calibrated, or do not
                end in an assistant turn.
        """
        ids = np.asarray(inputs["input_ids"], np.int64)
        if ids.ndim != 2 or not ids.size:
            raise ValueError(f"input_ids have shape {ids.shape}; give rows of at least one token")
        self._refuse_unknown(inputs)
        mask = np.asarray(inputs.get("attention_mask", np.ones_like(ids)), np.int64)
        if not mask[:, -1].all():
            raise ValueError("pad prompts on the left")
        rows = len(ids)
        conversation = Conversation(
            np.zeros((rows, 0), np.int64),
            np.zeros((rows, 0), np.int64),
            np.zeros(rows, np.int64),
            {i.name: self._empty(i, rows) for i in self._past},
        )
        features = {m: self.features(inputs, m) for m in self.about["placeholders"]}
        self._match(ids, features)
        positions = None
        if self.about["rotary_axes"] == 3:
            positions, conversation.offset = rotary_positions(ids, mask, inputs, self.about)
        step = self.forward(conversation, ids, mask, features, positions)
        if not step.answering.all():
            raise ValueError(
                f"row {step.answering.argmin()} does not end in an assistant turn of the "
                "calibrated chat template, so where its answer begins is unknown; use "
                "apply_chat_template(..., add_generation_prompt=True)"
            )
        return conversation, step

    def forward(
        self,
        conversation: Conversation,
        ids: np.ndarray,
        mask: np.ndarray | None = None,
        features: Mapping[str, tuple[np.ndarray, np.ndarray | None]] | None = None,
        positions: np.ndarray | None = None,
        generated: bool = False,
    ) -> Step:
        """Run new columns ids (B, n) behind those of the conversation, and add them to it.

        Args:
            conversation: Changed.
            ids: Of any turn, also in pieces.
            mask: (B, n), 0 where a column is padding.
            features: Of the pictures in these columns, by modality.
            positions: (3, B, n) rotary ones, where there are pictures.
            generated: Whether the model wrote the tokens: a placeholder is no picture then.

        Raises:
            ValueError: if the inputs contradict each other.
        """
        rows, n = ids.shape
        mask = np.ones_like(ids) if mask is None else mask
        past = conversation.ids.shape[1]
        if not generated:
            self._match(ids, features)
        whole = np.concatenate([conversation.ids, ids], 1)
        seen = np.concatenate([conversation.mask, mask], 1)
        feed = {
            "input_ids": whole,
            "attention_mask": seen,
            **self.embed(ids, features),
            **conversation.cache,
        }
        if self.about["rotary_axes"] == 3:
            if positions is None:
                if not generated:
                    self._require_text(ids)
                text = np.maximum(seen.cumsum(1) - 1, 0)[:, past:]
                text = text + conversation.offset[:, None]
                positions = np.broadcast_to(text, (3, rows, n))
            feed["position_ids"] = np.ascontiguousarray(positions)
        values = self.graphs["decoder"].run(None, feed)
        outputs = dict(zip(self._outputs, values, strict=True))
        if np.isnan(outputs["logits"][outputs["answering"]]).any():
            raise ValueError(
                "the graph cannot tell which position to steer: the tokens of all columns, the "
                "mask, embeddings and cache must fit each other"
            )
        conversation.ids, conversation.mask = whole, seen
        names = (i.name for i in self._past)
        conversation.cache = {n: outputs[n.replace("past_key_values", "present")] for n in names}
        logits = outputs.pop("logits")[:, -1]
        names_of_step = ("answering", "steered", "modality", "gate", "strength", "calibrated")
        return Step(logits, *(outputs[name] for name in names_of_step))

    def embed(
        self,
        ids: np.ndarray,
        features: Mapping[str, tuple[np.ndarray, np.ndarray | None]] | None = None,
    ) -> dict[str, np.ndarray]:
        """Embeddings of tokens (B, n), pictures put in the places of their placeholders."""
        width, levels = self.about["hidden_size"], self.about["deepstack_levels"]
        feed: dict[str, np.ndarray] = {"input_ids": ids}
        for modality in self.about["placeholders"]:
            rows, deep = (features or {}).get(modality, (None, None))
            none = np.zeros((0, width), np.float32)
            feed[f"{modality}_features"] = none if rows is None else rows
            if levels:
                none = np.zeros((levels, 0, width), np.float32)
                feed[f"{modality}_deepstack"] = none if deep is None else deep
        names = [output.name for output in self.graphs["embedding"].get_outputs()]
        return dict(zip(names, self.graphs["embedding"].run(None, feed), strict=True))

    def features(
        self, inputs: Mapping[str, Any], modality: str
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Features (F, d) of the pictures or clips in `inputs`, and those of DeepStack."""
        found = [self._encode(picture) for picture in self._pictures(inputs, modality)]
        if not found:
            return np.zeros((0, self.about["hidden_size"]), np.float32), None
        rows = np.concatenate([part["features"] for part in found])
        deep = [part["deepstack"] for part in found if "deepstack" in part]
        return rows, np.concatenate(deep, 1) if deep else None

    def _encode(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        graph = self.graphs["vision"]
        names = [output.name for output in graph.get_outputs()]
        feed = {graph.get_inputs()[0].name: picture.astype(np.float32)}
        return dict(zip(names, graph.run(None, feed), strict=True))

    def _pictures(self, inputs: Mapping[str, Any], modality: str) -> Iterator[np.ndarray]:
        """What one call of the vision graph takes, one after another."""
        pixels = inputs.get(PIXELS[modality])
        if pixels is None:
            return
        pixels = np.asarray(pixels)
        if self.about["vision"] == "pixels":
            yield pixels
            return
        if self.about["vision"] in ("single", "tile"):
            yield from self._tiles(pixels, inputs.get("pixel_attention_mask"))
            return
        start, merge = 0, self.about["merge"]
        for t, h, w in np.asarray(inputs[GRIDS[modality]]).tolist():
            grid = (t, h // merge, w // merge, merge * merge, -1)
            yield pixels[start : start + t * h * w].reshape(grid)
            start += t * h * w

    def _tiles(self, pixels: np.ndarray, mask: Any) -> Iterator[np.ndarray]:
        """Pictures or their tiles (1, channels, height, width), those left out that only pad."""
        tiles = pixels.reshape(-1, 1, *pixels.shape[-3:])
        if self.about["vision"] == "tile":
            real = tiles.any(axis=(1, 2, 3, 4))
            seen = np.ones(len(tiles)) if mask is None else np.asarray(mask)
            if not seen.reshape(len(tiles), -1)[real].all():
                raise ValueError("a tile is partly padding, and the vision graph takes whole ones")
            tiles = tiles[real]
        yield from tiles

    def _refuse_unknown(self, inputs: Mapping[str, Any]) -> None:
        """Raise where something is shown that the graphs would leave out."""
        taken = {PIXELS[modality] for modality in self.about["placeholders"]}
        for name, value in inputs.items():
            if name.startswith(SHOWN) and name not in taken and value is not None:
                raise ValueError(f"the graphs do not take {name}; leave it out")

    def _match(
        self,
        ids: np.ndarray,
        features: Mapping[str, tuple[np.ndarray, np.ndarray | None]] | None,
    ) -> None:
        """Raise unless every placeholder has a feature."""
        for modality, token in self.about["placeholders"].items():
            given = (features or {}).get(modality, ((), None))[0]
            if len(given) != (ids == token).sum():
                raise ValueError(f"the prompt's {modality} placeholders and features do not match")

    def _require_text(self, ids: np.ndarray) -> None:
        if np.isin(ids, list(self.about["placeholders"].values())).any():
            raise ValueError("a picture behind the first prompt needs its rotary positions")

    def _empty(self, past: Any, rows: int) -> np.ndarray:
        _, heads, _, size = past.shape
        return np.zeros((rows, heads, 0, size), np.float32)


def rotary_positions(
    ids: np.ndarray, mask: np.ndarray, inputs: Mapping[str, Any], about: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (3, B, n) on the axes time, height and width, and how far they run ahead (B,).

    Text counts on all axes alike; a picture's patches have their row and column, and what follows
    goes on behind its longer side. A clip is one picture a frame. As `get_rope_index` of Qwen3-VL.
    """
    tokens = {token: m for m, token in about["placeholders"].items()}
    grids = {m: _frames(inputs.get(GRIDS[m]), about["merge"]) for m in tokens.values()}
    positions = np.zeros((3, *ids.shape), np.int64)
    offset = np.zeros(len(ids), np.int64)
    for row, (line, kept) in enumerate(zip(ids, mask != 0, strict=True)):
        at, parts = 0, []
        for modality, run in groupby(tokens.get(token) for token in line[kept].tolist()):
            length = len(list(run))
            if modality is None:
                parts.append(np.tile(np.arange(length), (3, 1)) + at)
                at += length
                continue
            h, w = next(grids[modality], (0, 0))
            place = np.indices((1, h, w)).reshape(3, -1)
            if place.shape[1] != length:
                raise ValueError(f"{length} {modality} placeholders for a grid of {h} x {w}")
            parts.append(place + at)
            at += max(h, w)
        positions[:, row, kept] = np.concatenate(parts, 1)
        offset[row] = at - kept.sum()
    return positions, offset


def _frames(grid: Any, merge: int) -> Iterator[tuple[int, int]]:
    """Rows and columns of features of every picture or frame."""
    for t, h, w in [] if grid is None else np.asarray(grid).tolist():
        for _ in range(t):
            yield h // merge, w // merge
