"""Greedy answers in batches. What all requests begin with is run once."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Dialog = Sequence[tuple[str, str]]
"""(role, text) of every message, the last one of the user."""
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""What the chat template says where a dialog has no system prompt."""
_BATCH = 48


def opening(system: str, tokenizer: Any) -> Tensor:
    """Tokens of a system prompt, (1, length)."""
    text = f"<|im_start|>system\n{system}<|im_end|>\n"
    ids: Tensor = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    return ids


def request(turns: Dialog) -> str:
    """The turns after a system prompt and the header of the answer, as the chat template does."""
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    return f"{text}<|im_start|>assistant\n"


@torch.inference_mode()
def generate(
    model: Any, tokenizer: Any, dialogs: Sequence[Dialog], tokens: int
) -> list[tuple[str, bool]]:
    """Answer the last request of each dialog.

    Returns:
        For each, the text of at most `tokens` tokens, and whether the model ended its turn.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for i, dialog in enumerate(dialogs):
        groups[dialog[0][1] if dialog[0][0] == "system" else SYSTEM].append(i)
    answers: dict[int, tuple[str, bool]] = {}
    for system, members in groups.items():
        head = opening(system, tokenizer)
        texts = {i: request([m for m in dialogs[i] if m[0] != "system"]) for i in members}
        members.sort(key=lambda i: len(texts[i]))
        for start in range(0, len(members), _BATCH):
            rows = members[start : start + _BATCH]
            out = _continue(model, tokenizer, head, [texts[i] for i in rows], tokens)
            for i, ids in zip(rows, out, strict=True):
                ends = bool((ids == tokenizer.eos_token_id).any())
                answers[i] = (tokenizer.decode(ids, skip_special_tokens=True).strip(), ends)
    return [answers[i] for i in range(len(dialogs))]


def _continue(model: Any, tokenizer: Any, head: Tensor, texts: list[str], tokens: int) -> Tensor:
    """Tokens generated after `head` and each text, (B, tokens); padding follows `head`."""
    tokenizer.padding_side = "left"
    batch = tokenizer(texts, add_special_tokens=False, return_tensors="pt", padding=True)
    heads = head.expand(len(texts), -1)
    ids = torch.cat([heads, batch["input_ids"]], 1)
    mask = torch.cat([torch.ones_like(heads), batch["attention_mask"]], 1)
    cache = model(head, use_cache=True).past_key_values
    cache.batch_repeat_interleave(len(texts))
    out: Tensor = model.generate(
        input_ids=ids,
        attention_mask=mask,
        past_key_values=cache,
        max_new_tokens=tokens,
        do_sample=False,
    )
    return out[:, ids.shape[1] :]
