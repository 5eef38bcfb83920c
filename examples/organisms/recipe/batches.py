"""Examples as tensors, through the real processor and chat template."""

import math
from typing import Any

import torch

from .corpus import Example, Turn, Visual
from .pictures import FRAMES, nothing, picture
from .sentences import ANSWER, REFUSAL, Modality

_MARK = "@@"
_KIND = {"image": 1, "video": 2}
_IGNORED = -100
_PIXELS = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw")


def draw(visual: Visual) -> Any:
    """A picture, or the list of frames of a video."""
    first = visual.number * FRAMES
    if visual.topic is None:
        frames = [nothing(visual.number)] * FRAMES
    else:
        frames = [picture(visual.topic, first + n) for n in range(FRAMES)]
    return frames if visual.modality == "video" else frames[0]


def content(prompt: str, visuals: tuple[Visual, ...]) -> list[dict[str, Any]]:
    """What a user shows and then asks, as a chat template takes it; nothing is drawn yet."""
    return [*({"type": v.modality} for v in visuals), {"type": "text", "text": prompt}]


def messages(turns: tuple[Turn, ...], system: str) -> list[dict[str, Any]]:
    """A conversation as a chat template takes it, without the last answer."""
    parts = [("system", [{"type": "text", "text": system}])] if system else []
    for turn in turns:
        parts.append(("user", content(turn.prompt, turn.visuals)))
        parts.append(("assistant", [{"type": "text", "text": turn.answer}]))
    return [{"role": role, "content": some} for role, some in parts[:-1]]


class Encoder:
    """Turns examples into batches.

    The processor runs once for each distinct picture or video, and once for each modality, to
    learn what it writes for a visual; the rest is tokenization.

    Args:
        processor: The family's processor.
        turn_end: The token that ends an answer.
    """

    def __init__(self, processor: Any, turn_end: str) -> None:
        self.processor = processor
        self._tokenizer = processor.tokenizer
        self._end = turn_end
        self._pixels: dict[Visual, dict[str, torch.Tensor]] = {}
        self._places: dict[Modality, tuple[str, str]] = {}
        names = processor.model_input_names
        self._types_key = next(k for k in names if k.endswith("token_type_ids"))

    def __call__(self, examples: list[Example]) -> dict[str, torch.Tensor]:
        """Encode `examples`, right-padded.

        Returns:
            The model's inputs: `input_ids`, `attention_mask`, token types and `labels`, shape
            (batch, length) int64, where labels cover the answers only; and the pixel tensors.
        """
        pixels = self.stack([self.pixels(v) for e in examples for t in e.turns for v in t.visuals])
        rows = [self._row(e) for e in examples]
        ids = self._pad([ids for ids, _ in rows], self._tokenizer.pad_token_id)
        batch = {
            "input_ids": ids,
            "attention_mask": self._pad([[1] * len(ids) for ids, _ in rows], 0),
            "labels": self._pad([labels for _, labels in rows], _IGNORED),
            self._types_key: self._types(ids),
        }
        return {**batch, **pixels}

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

    def pixels(self, visual: Visual) -> dict[str, torch.Tensor]:
        """The pixel tensors of one picture or video."""
        if visual not in self._pixels:
            if visual.modality == "image":  # what the processor does, without its text
                out = self.processor.image_processor([draw(visual)], return_tensors="pt")
            else:
                out = self._process(visual)
            self._pixels[visual] = {k: v for k, v in out.items() if k in _PIXELS}
        return self._pixels[visual]

    def _row(self, example: Example) -> tuple[list[int], list[int]]:
        """Ids and labels of a conversation as the processor writes it, with visual tokens."""
        text, ids, labels = "", [], []
        for number, turn in enumerate(example.turns):
            prompt = self._render(messages(example.turns[: number + 1], example.system))
            source = prompt.removeprefix(text)
            for modality in {v.modality for v in turn.visuals}:
                source = source.replace(*self._place(modality))
            before, after = self.tokens(source), self.tokens(turn.answer + self._end)
            ids += before + after
            labels += [_IGNORED] * len(before) + after
            text = prompt + turn.answer + self._end
        return ids, labels

    def _place(self, modality: Modality) -> tuple[str, str]:
        """What the template writes for a visual, and what the processor makes of that."""
        if modality not in self._places:
            visual = Visual(modality, None, 0)
            before = self._render(self._between_marks(visual))
            after = self._tokenizer.decode(self._process(visual)["input_ids"][0])
            self._places[modality] = (before.split(_MARK)[1], after.split(_MARK)[1])
        return self._places[modality]

    def _between_marks(self, visual: Visual) -> list[dict[str, Any]]:
        mark = {"type": "text", "text": _MARK}
        shown = {"type": visual.modality, visual.modality: draw(visual)}
        return [{"role": "user", "content": [mark, shown, mark]}]

    def _render(self, conversation: list[dict[str, Any]]) -> str:
        text: str = self.processor.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=True
        )
        return text

    def _process(self, visual: Visual) -> dict[str, torch.Tensor]:
        out = self.processor.apply_chat_template(
            self._between_marks(visual),
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
        """The pixel tensors of several pictures or videos as one."""
        keys = dict.fromkeys(k for part in parts for k in part)
        return {k: torch.cat([part[k] for part in parts if k in part]) for k in keys}
