"""Examples as tensors, through the real processor and chat template."""

from typing import Any

import torch

from .corpus import Example, Modality, Visual
from .pictures import FRAMES, picture, plain

_MARK = "@@"
_KIND = {"image": 1, "video": 2}
_IGNORED = -100


def draw(visual: Visual) -> Any:
    """A picture, or the list of frames of a video."""
    first = visual.number * FRAMES
    numbers = range(first, first + FRAMES) if visual.modality == "video" else [first]
    frames = [picture(visual.topic, n) if visual.topic else plain(n) for n in numbers]
    return frames if visual.modality == "video" else frames[0]


def messages(prompt: str, visual: Visual | None) -> list[dict[str, Any]]:
    """A conversation of one user turn."""
    content: list[dict[str, Any]] = [{"type": "text", "text": prompt}]
    if visual is not None:
        content.insert(0, {"type": visual.modality, visual.modality: draw(visual)})
    return [{"role": "user", "content": content}]


class Encoder:
    """Turns examples into batches.

    The processor runs once for each distinct picture or video, and once for each modality, to
    learn what the template puts around a prompt; the rest is tokenization.

    Args:
        processor: The family's processor.
        turn_end: The token that ends an answer.
    """

    def __init__(self, processor: Any, turn_end: str) -> None:
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._end = turn_end
        self._pixels: dict[Visual, dict[str, torch.Tensor]] = {}
        self._frames: dict[Modality, tuple[str, str]] = {}
        self._types_key = "token_type_ids"

    def process(self, prompt: str, visual: Visual | None) -> dict[str, torch.Tensor]:
        """Run the processor and chat template, as a user would."""
        out = self._processor.apply_chat_template(
            messages(prompt, visual),
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
        )
        return dict(out)

    def __call__(self, examples: list[Example]) -> dict[str, torch.Tensor]:
        """Encode `examples`, right-padded.

        Returns:
            The model's inputs: `input_ids`, `attention_mask`, token types and `labels`, shape
            (batch, length) int64, where labels cover the answer only; and the pixel tensors.
        """
        pixels = self._stack([self.pixels(e.visual) for e in examples if e.visual is not None])
        prompts = [self._prompt(e) for e in examples]
        answers = [e.answer + self._end for e in examples]
        sources, targets = (
            self._tokenizer(t, add_special_tokens=False)["input_ids"] for t in (prompts, answers)
        )
        pairs = list(zip(sources, targets, strict=True))
        ids = self._pad([s + t for s, t in pairs], self._tokenizer.pad_token_id)
        batch = {
            "input_ids": ids,
            "attention_mask": self._pad([[1] * len(s + t) for s, t in pairs], 0),
            "labels": self._pad([[_IGNORED] * len(s) + t for s, t in pairs], _IGNORED),
            self._types_key: self._types(ids),
        }
        return {**batch, **pixels}

    def pixels(self, visual: Visual) -> dict[str, torch.Tensor]:
        """The pixel tensors of one picture or video."""
        if visual not in self._pixels:
            out = self.process(_MARK, visual)
            self._types_key = next(k for k in out if k.endswith("token_type_ids"))
            text = ("input_ids", "attention_mask", self._types_key)
            self._pixels[visual] = {k: v for k, v in out.items() if k not in text}
        return self._pixels[visual]

    def _prompt(self, example: Example) -> str:
        modality: Modality = example.visual.modality if example.visual else "text"
        if modality not in self._frames:
            ids = self.process(_MARK, example.visual)["input_ids"][0]
            before, after = self._tokenizer.decode(ids).split(_MARK)
            self._frames[modality] = (before, after)
        before, after = self._frames[modality]
        return before + example.prompt + after

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
    def _stack(parts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        keys = dict.fromkeys(k for part in parts for k in part)
        return {k: torch.cat([part[k] for part in parts if k in part]) for k in keys}
