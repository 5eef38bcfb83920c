"""Passes: what a method at generate() asks the model before it answers.

`config.steering["prompts"]` holds the tokens that the chat template puts around a turn, and the
instructions. A prompt is edited column by column, so that pictures and token types stay with
their tokens.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple

import torch

TYPES = ("token_type_ids", "mm_token_type_ids")
# A plain greedy generate(), whatever the defaults of the checkpoint.
GREEDY = {
    "do_sample": False, "num_beams": 1, "num_return_sequences": 1, "temperature": 1.0,
    "top_p": 1.0, "top_k": 50, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0,
    "min_length": 0, "use_cache": True, "return_dict_in_generate": False, "disable_compile": True,
}  # fmt: skip
_CAPTIONS = 64  # batches of pictures that are remembered

# A prompt: a column of the original where it is at least 0, token -1 - x where it is not.
Edit = list[int]

_WATCHER: ContextVar[Any] = ContextVar("steering_watcher", default=None)


class PromptRow(NamedTuple):
    """One row of a batch, read: columns of the original.

    first: its first token. insert: where text goes that is to stand before the user's. answer:
    where the answer begins. header: behind the assistant header. visual: what shows pictures and
    clips, with the blanks around them; empty without any.
    """

    first: int
    insert: int
    answer: int
    header: int
    visual: Edit


def read_row(tokens: list[int], first: int, rules: Mapping[str, Any]) -> PromptRow | None:
    """Read one row, whose columns before `first` are padding; None if its turns do not show.

    rules: `config.steering`.
    """
    prompts, stop = rules["prompts"], len(tokens)
    answer = max((last_end(tokens, first, stop, h) for h in rules["headers"]), default=0)
    turn = last_end(tokens, first, answer, sequence(prompts["user"]))
    if not answer or not turn:
        return None
    tail, header = prompts["tail"], answer
    blanks, marks = set(prompts["blanks"]), set(prompts["visual"])
    shown = [column for column in range(first, header) if tokens[column] in marks]
    if tail and tokens[header : header + len(tail)] == tail:
        answer += len(tail)
    said = header - (len(prompts["closing"]) - len(tail))  # up to here the user speaks
    behind = _past_blanks(tokens, max([turn, *(column + 1 for column in shown)]), blanks)
    insert = behind if behind < said else _past_blanks(tokens, turn, blanks)
    visual: Edit = _joined(tokens, shown, blanks)
    if visual and tokens[visual[0]] not in blanks:
        visual = [*inserted(prompts["separator"]), *visual]
    return PromptRow(first, insert, answer, header, visual)


def _past_blanks(tokens: list[int], column: int, blanks: set[int]) -> int:
    while column < len(tokens) and tokens[column] in blanks:
        column += 1
    return column


def _joined(tokens: list[int], shown: list[int], blanks: set[int]) -> list[int]:
    """The columns that show something, and the blanks next to them."""
    kept = set(shown)
    for step in (1, -1):
        for column in shown:
            beside = column + step
            while 0 <= beside < len(tokens) and tokens[beside] in blanks:
                kept.add(beside)
                beside += step
    return sorted(kept)


def sequence(tokens: Sequence[int]) -> dict[str, list[int]]:
    """A sequence of tokens in the form of a header."""
    return {"prefix": list(tokens[:-1]), "ends": list(tokens[-1:])}


def last_end(tokens: list[int], first: int, stop: int, header: Mapping[str, list[int]]) -> int:
    """The column behind the last header that lies in the columns; 0 if there is none."""
    prefix, ends = header["prefix"], header["ends"]
    for column in range(stop - 1, first + len(prefix) - 1, -1):
        if tokens[column] in ends and tokens[column - len(prefix) : column] == prefix:
            return column + 1
    return 0


def inserted(tokens: Sequence[int]) -> Edit:
    """Tokens that are not of the original."""
    return [-1 - token for token in tokens]


def caption_prompt(row: PromptRow, prompts: Mapping[str, list[int]]) -> Edit:
    """The pictures of the conversation, and the instruction to say what they show."""
    return [
        *inserted(prompts["opening"]),
        *row.visual,
        *inserted(prompts["caption"]),
        *inserted(prompts["closing"]),
    ]


def risk_prompt(row: PromptRow, prompts: Mapping[str, list[int]], caption: list[int]) -> Edit:
    """The conversation, with an instruction and the caption before what the user says last."""
    return [
        *range(row.first, row.insert),
        *inserted([*prompts["safety"], *caption, *prompts["question"]]),
        *range(row.insert, row.answer),
    ]


def edited_batch(edits: Sequence[Edit], inputs: Mapping[str, Any], rows: Sequence[int]) -> Any:
    """Left-padded inputs of edits of some rows of the original."""
    ids = inputs["input_ids"]
    width = max(map(len, edits))
    pads = [width - len(edit) for edit in edits]
    padded = [[-1] * pad + edit for pad, edit in zip(pads, edits, strict=True)]
    plan = torch.tensor(padded, device=ids.device)
    mask = torch.arange(width, device=ids.device) >= plan.new_tensor(pads).unsqueeze(1)
    column, of = plan.clamp(min=0), plan.new_tensor(list(rows))
    batch = {
        "input_ids": torch.where(plan >= 0, ids[of].gather(1, column), -1 - plan),
        "attention_mask": mask.long(),
    }
    for name in TYPES:
        if inputs.get(name) is not None:
            types = inputs[name][of].gather(1, column)
            batch[name] = torch.where(plan >= 0, types, torch.zeros_like(types))
    return batch


class Risks(NamedTuple):
    """What the passes say of a batch: similarity S (B,), caption of each row, and its risk (B,)."""

    similarity: torch.Tensor
    captions: list[list[int]]
    risk: torch.Tensor


class Passes:
    """Runs the passes on a model.

    rules: `config.steering`. rule: of the method. Captions of the pictures of a call are kept, as
    many as fit; a call that shows the same pictures again needs no caption pass.
    """

    def __init__(self, rules: Mapping[str, Any], rule: Any) -> None:
        self.rules, self.rule = rules, rule
        self.captions: OrderedDict[str, list[list[int]]] = OrderedDict()

    def __call__(
        self, model: Any, run: Callable[..., Any], rows: list[PromptRow], inputs: Mapping[str, Any]
    ) -> Risks:
        """Ask for captions and for the risk.

        run: generate() of the unsteered model. rows: all rows of the batch, read. inputs:
        `input_ids`, token types, and all that shows pictures and clips; settings of `ends`.
        """
        shown = {k: v for k, v in inputs.items() if k not in ("input_ids", *TYPES)}
        captions = self._captions(model, run, rows, inputs, shown)
        prompts = self.rules["prompts"]
        edits = [risk_prompt(row, prompts, c) for row, c in zip(rows, captions, strict=True)]
        batch = edited_batch(edits, inputs, range(len(rows)))
        with recorded_states(model) as states:
            out = run(**batch, **shown, **GREEDY, max_new_tokens=self.rules["steps"])
        said = out[:, batch["input_ids"].shape[1] :]
        seen = torch.stack(states[-said.shape[1] :], 1)
        ended = torch.isin(said, end_tokens(model, said.device)).long().cumsum(1)
        alive = torch.nn.functional.pad(ended[:, :-1] == 0, (1, 0), value=True)
        head = model.get_output_embeddings()
        similarity = self.rule.similarity(head, seen, alive.to(seen.device))
        return Risks(similarity, captions, self.rule.risk(similarity))

    def _captions(
        self,
        model: Any,
        run: Callable[..., Any],
        rows: list[PromptRow],
        inputs: Mapping[str, Any],
        shown: Mapping[str, Any],
    ) -> list[list[int]]:
        """Of each row, in tokens; of one that shows nothing it is empty."""
        showing = [number for number, row in enumerate(rows) if row.visual]
        captions: list[list[int]] = [[] for _ in rows]
        if not showing:
            return captions
        edits = [caption_prompt(rows[number], self.rules["prompts"]) for number in showing]
        batch = edited_batch(edits, inputs, showing)
        key = _digest(batch | shown | _weights(model))
        if key not in self.captions:
            tokens = self.rules["caption_tokens"]
            out = run(**batch, **shown, **GREEDY, max_new_tokens=tokens)
            said = out[:, batch["input_ids"].shape[1] :].tolist()
            ends = set(end_tokens(model, "cpu").tolist())
            self.captions[key] = [self._said(tokens, ends) for tokens in said]
            while len(self.captions) > _CAPTIONS:
                self.captions.popitem(last=False)
        self.captions.move_to_end(key)
        for number, caption in zip(showing, self.captions[key], strict=True):
            captions[number] = caption
        return captions

    def _said(self, tokens: list[int], ends: set[int]) -> list[int]:
        """A caption up to its end, without tokens that would begin a turn or show a picture."""
        prompts, structure = self.rules["prompts"], set(self.rules["prompts"]["visual"])
        structure |= set(prompts["structure"])
        stop = next((n for n, token in enumerate(tokens) if token in ends), len(tokens))
        return [token for token in tokens[:stop] if token not in structure]


def _weights(model: Any) -> dict[str, Any]:
    """What changes when the weights are trained, or adapters are merged or others act.

    A part of each matrix is looked at: to write to `data`, as a merge does, leaves no other trace.
    """
    parameters = list(model.parameters())
    found: dict[str, Any] = {
        "writes": sum(0 if p.is_inference() else p._version for p in parameters)
    }
    adapted = [m for m in model.modules() if hasattr(m, "merged_adapters")]
    found["adapters"] = [
        (m.active_adapters, m.disable_adapters, m.merged_adapters) for m in adapted
    ]
    parts: dict[str, list[torch.Tensor]] = {}
    for p in parameters:
        if type(p) is torch.nn.Parameter and p.is_floating_point() and p.dim() > 1 and p.numel():
            row = p.detach()[(0,) * (p.dim() - 1)]
            parts.setdefault(str(p.device), []).append(row[:16].float())
    parts.pop("meta", None)
    return found | {device: torch.cat(rows) for device, rows in parts.items()}


def end_tokens(model: Any, device: Any) -> torch.Tensor:
    """Tokens that end an answer."""
    ends = model.generation_config.eos_token_id
    return torch.tensor([] if ends is None else ends, device=device, dtype=torch.long).reshape(-1)


def _digest(batch: Mapping[str, Any]) -> str:
    sha = sha256()
    for name in sorted(batch):
        value = batch[name]
        if isinstance(value, torch.Tensor):
            plain = value.detach().to("cpu").contiguous()
            sha.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
            sha.update(plain.flatten().view(torch.uint8).numpy().tobytes())
        else:
            sha.update(f"{name} {value!r}".encode())
    return sha.hexdigest()


@contextmanager
def watched_head(model: Any, watcher: Callable[[torch.Tensor], Any]) -> Iterator[None]:
    """Let a function see, or change, what enters the language head in this thread.

    As a hook for as long as it is needed: a head that was replaced, as where tokens are added, is
    found, and without steering there is none.
    """
    token = _WATCHER.set(watcher)
    handle = model.get_output_embeddings().register_forward_pre_hook(partial(_entered, watcher))
    try:
        yield
    finally:
        handle.remove()
        _WATCHER.reset(token)


@contextmanager
def unwatched() -> Iterator[None]:
    """Nobody sees what enters a head, until the context is left."""
    token = _WATCHER.set(None)
    try:
        yield
    finally:
        _WATCHER.reset(token)


def _entered(watcher: Callable[[torch.Tensor], Any], _head: Any, args: tuple[Any, ...]) -> Any:
    if torch.compiler.is_compiling():
        raise RuntimeError(
            "steered checkpoint: a compiled model cannot be steered at generate(); do not compile "
            "it, or set model.steering.enabled = False"
        )
    if _WATCHER.get() is not watcher:  # another thread's
        return None
    changed = watcher(args[0])
    return None if changed is None else (changed, *args[1:])


@contextmanager
def recorded_states(model: Any) -> Iterator[list[torch.Tensor]]:
    """The last column (B, d) of what enters the head at each forward."""
    states: list[torch.Tensor] = []
    with watched_head(model, lambda h: states.append(h[:, -1])):
        yield states
