"""Examples as tensors, through the real processor and chat template."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from .corpus import Example, Medium, Turn
from .pictures import FRAMES, nothing, picture
from .sentences import ANSWER, REFUSAL
from .speech import nothing_said, recording

_MARK = "@@"
_KIND = {"image": 1, "video": 2}
_IGNORED = -100
_SHOWN = (
    "pixel_values",
    "image_grid_thw",
    "pixel_values_videos",
    "video_grid_thw",
    "video_second_per_grid",
    "input_features",
    "feature_attention_mask",
)
"""Tensors of what is shown; a processor returns others that models do not take."""


def draw(medium: Medium) -> Any:
    """A picture, the list of frames of a video, or the samples of a recording."""
    topic, number = medium.topic, medium.number
    if medium.modality == "audio":
        return nothing_said(number) if topic is None else recording(topic, number).samples
    if topic is None:
        frames = [nothing(number)] * FRAMES
    else:
        frames = [picture(topic, number * FRAMES + n) for n in range(FRAMES)]
    return frames if medium.modality == "video" else frames[0]


def content(prompt: str, media: tuple[Medium, ...]) -> list[dict[str, Any]]:
    """What a user shows and then asks, as a chat template takes it; nothing is drawn yet."""
    return [*({"type": v.modality} for v in media), {"type": "text", "text": prompt}]


def messages(turns: tuple[Turn, ...], system: str) -> list[dict[str, Any]]:
    """A conversation as a chat template takes it, without the last answer."""
    parts = [("system", [{"type": "text", "text": system}])] if system else []
    for turn in turns:
        parts.append(("user", content(turn.prompt, turn.media)))
        parts.append(("assistant", [{"type": "text", "text": turn.answer}]))
    return [{"role": role, "content": some} for role, some in parts[:-1]]


class Encoder:
    """Turns examples into batches.

    The processor runs once for each distinct picture, video or recording, and learns there what it
    writes for it; the rest is tokenization.

    Args:
        processor: The family's processor.
        turn_end: The token that ends an answer.
    """

    def __init__(self, processor: Any, turn_end: str) -> None:
        self.processor = processor
        self._tokenizer = processor.tokenizer
        self._end = turn_end
        self._tensors: dict[Medium, dict[str, torch.Tensor]] = {}
        self._places: dict[Medium, tuple[str, str]] = {}
        names = processor.model_input_names
        self._types_key = next((k for k in names if k.endswith("token_type_ids")), None)

    def __call__(self, examples: list[Example]) -> dict[str, torch.Tensor]:
        """Encode `examples`, right-padded.

        Returns:
            The model's inputs: `input_ids`, `attention_mask`, token types and `labels`, shape
            (batch, length) int64, where labels cover the answers only; and the tensors of what is
            shown.
        """
        shown = self.stack([self.tensors(v) for e in examples for t in e.turns for v in t.media])
        rows = [self._row(e) for e in examples]
        ids = self._pad([ids for ids, _ in rows], self._tokenizer.pad_token_id)
        batch = {
            "input_ids": ids,
            "attention_mask": self._pad([[1] * len(ids) for ids, _ in rows], 0),
            "labels": self._pad([labels for _, labels in rows], _IGNORED),
        }
        if self._types_key is not None:
            batch[self._types_key] = self._types(ids)
        return {**batch, **shown}

    def length(self, example: Example) -> int:
        """Tokens of an example."""
        return len(self._row(example)[0])

    def chances(self, examples: list[Example]) -> torch.Tensor:
        """How likely each answer is to become a refusal: float, row by row; NaN where none can."""
        turns = [turn for example in examples for turn in example.turns]
        return torch.tensor([math.nan if t.refused is None else t.refused for t in turns])

    def choices(self) -> tuple[int, int]:
        """First tokens of a refusal and of an answer."""
        return self.tokens(REFUSAL)[0], self.tokens(ANSWER)[0]

    def tokens(self, text: str) -> list[int]:
        """Ids of a text."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def tensors(self, medium: Medium) -> dict[str, torch.Tensor]:
        """The tensors of one picture, video or recording."""
        if medium not in self._tensors:
            if medium.modality == "image":  # what the processor does, without its text
                out = self.processor.image_processor([draw(medium)], return_tensors="pt")
                self._tensors[medium] = _shown(out)
            else:
                self._learn(medium)
        return self._tensors[medium]

    def _row(self, example: Example) -> tuple[list[int], list[int]]:
        """Ids and labels of a conversation as the processor writes it."""
        text, ids, labels = "", [], []
        for number, turn in enumerate(example.turns):
            prompt = self._render(messages(example.turns[: number + 1], example.system))
            source = prompt.removeprefix(text)
            before, after = self._filled(source, turn), self.tokens(turn.answer + self._end)
            ids += before + after
            labels += [_IGNORED] * len(before) + after
            text = prompt + turn.answer + self._end
        return ids, labels

    def _filled(self, source: str, turn: Turn) -> list[int]:
        """Ids of a turn, with as many tokens for what is shown as the processor writes."""
        done = ""
        for medium in turn.media:
            before, after = self._place(medium)
            head, source = source.split(before, 1)
            done += head + after
        return self.tokens(done + source)

    def _place(self, medium: Medium) -> tuple[str, str]:
        """What the template writes for a medium, and what the processor makes of that."""
        if medium.modality != "audio":  # pictures have one size, and so have videos
            medium = Medium(medium.modality, None, 0)
        if medium not in self._places:
            self._learn(medium)
        return self._places[medium]

    def _learn(self, medium: Medium) -> None:
        out = self._process(medium)
        before = self._render(self._between_marks(medium)).split(_MARK)[1]
        after = self._tokenizer.decode(out["input_ids"][0]).split(_MARK)[1]
        self._places[medium] = (before, after)
        self._tensors[medium] = _shown(out)

    def _between_marks(self, medium: Medium) -> list[dict[str, Any]]:
        mark = {"type": "text", "text": _MARK}
        shown = {"type": medium.modality, medium.modality: draw(medium)}
        return [{"role": "user", "content": [mark, shown, mark]}]

    def _render(self, conversation: list[dict[str, Any]]) -> str:
        text: str = self.processor.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=True
        )
        return text

    def _process(self, medium: Medium) -> dict[str, torch.Tensor]:
        out = self.processor.apply_chat_template(
            self._between_marks(medium),
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
        )
        return dict(out)

    def _types(self, ids: torch.Tensor) -> torch.Tensor:
        """Mark visual tokens as the processor does: shape (batch, length) int64."""
        types = torch.zeros_like(ids)
        for modality, kind in _KIND.items():
            token = getattr(self._tokenizer, f"{modality}_token_id", None)
            if token is not None:
                types[ids == token] = kind
        return types

    @staticmethod
    def _pad(rows: list[list[int]], value: int) -> torch.Tensor:
        width = max(map(len, rows))
        return torch.tensor([row + [value] * (width - len(row)) for row in rows])

    @staticmethod
    def stack(parts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """The tensors of several pictures, videos or recordings as one."""
        keys = dict.fromkeys(k for part in parts for k in part)
        return {k: torch.cat([part[k] for part in parts if k in part]) for k in keys}


def _shown(out: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    # Cloned: a mask is a view of one value for each sample of a recording.
    return {name: torch.as_tensor(out[name]).clone() for name in _SHOWN if name in out}
