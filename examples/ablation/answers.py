"""Answers to tasks, with steering off and on, batch by batch into a journal."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from conditions import Task
from in_memory import Rules, in_memory
from pydantic import TypeAdapter, ValidationError
from transformers import StoppingCriteria, StoppingCriteriaList

from mars_export.calibration.refusal import log_odds
from mars_export.common.atomic import write_atomically
from mars_export.common.progress import Tick
from mars_export.common.record import Record
from mars_export.common.vocabulary import REFUSED, Verdict
from mars_export.evaluation.generation import GREEDY
from mars_export.evaluation.judges import base as judges
from mars_export.evaluation.judges.rules import RulesJudge
from mars_export.families import Family
from mars_export.inputs.requests import Request, collate
from mars_export.runtime.steering import Steering

__all__ = ["BATCH", "TOKENS", "Answer", "Forecast", "Journal", "Model", "answer", "forecast"]

BATCH: Final = 16
TOKENS: Final = 24
"""Longest answer; a refusal shows in its first sentence."""

Key = tuple[str, str]


class Answer(Record):
    """One answer, judged."""

    condition: str
    id: str
    topic: str
    """Cluster that the suite names: a thing, with or without a modifier."""
    harmful: bool
    verdict: Verdict
    text: str
    log_odds: float
    """Of refusal by the first token, nats."""
    gate: float | None = None
    """Where the answer begins; None with steering off."""
    active: bool = False
    """Whether anything was pushed, in this turn or an earlier one."""
    calibrated: bool | None = None
    """Whether the calibration covers such a request, where the rule says so."""

    @property
    def key(self) -> Key:
        """What it answers."""
        return self.condition, self.id

    @property
    def refused(self) -> bool:
        """Whether it turns the request down."""
        return self.verdict in REFUSED


_LINE: Final = TypeAdapter(list[Answer])


class Journal:
    """An append-only file of judged batches, one a line.

    What a kill cut off is dropped, so that the batch is run again as a whole.

    Attributes:
        answers: By key.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        batches = list(_batches(path.read_bytes())) if path.exists() else []
        self.answers = {answer.key: answer for batch in batches for answer in batch}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, "".join(map(_line, batches)))

    def add(self, batch: Sequence[Answer]) -> None:
        """Append a batch; it is on its way to the disk when this returns."""
        with self._path.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write(_line(batch))
        self.answers |= {answer.key: answer for answer in batch}


def _batches(raw: bytes) -> Iterator[list[Answer]]:
    for line in raw.split(b"\n")[:-1]:
        try:
            yield _LINE.validate_json(line)
        except ValidationError:
            return


def _line(batch: Sequence[Answer]) -> str:
    return _LINE.dump_json(list(batch)).decode() + "\n"


@dataclass(frozen=True)
class Model:
    """A base, and how its answers are read.

    Attributes:
        model: As `load_base` gives it.
        processor: Its own.
        family: Of the base.
        refusal_tokens: First tokens of refusals, for the log-odds.
        batch: Requests in one forward.
        tokens: Longest answer.
    """

    model: Any
    processor: Any
    family: Family
    refusal_tokens: Sequence[int]
    batch: int = BATCH
    tokens: int = TOKENS

    def identity(self, name: str, *further: str) -> str:
        """What the answers depend on, as a short digest for the name of a journal."""
        stated = [name, *further, list(self.refusal_tokens), self.batch, self.tokens]
        stated.append(str(self.model.dtype))
        return hashlib.sha256(json.dumps(stated).encode()).hexdigest()[:12]


class Forecast(NamedTuple):
    """What a run costs at most: requests, forwards that read prompts, and single-token ones."""

    requests: int
    prefills: int
    steps: int

    def __str__(self) -> str:
        return (
            f"{self.requests} answers: {self.prefills} forwards over prompts and at most "
            f"{self.steps} of one token"
        )


def forecast(tasks: Sequence[Task], model: Model, runs: int) -> Forecast:
    """What it costs to answer these tasks so many times."""
    batches = len(_batched(tasks, model.batch)) * runs
    return Forecast(len(tasks) * runs, batches, batches * (model.tokens - 1))


def answer(
    tasks: Sequence[Task],
    model: Model,
    journal: Journal,
    progress: Tick,
    rules: Rules | None = None,
    off: Mapping[Key, Answer] | None = None,
) -> dict[Key, Answer]:
    """Answer tasks greedily, each once, and judge the answers.

    A request that the steering leaves as it is has the answer of the base: its first forward says
    so, and no further one is run for it.

    Args:
        tasks: In any order; a batch holds one condition and one label.
        model: That answers.
        journal: What it holds is not run again.
        progress: Told how many answers there are, and of how many.
        rules: The steering; None with steering off.
        off: Answers of the base, with steering on.

    Returns:
        The answers to these tasks.
    """
    batches = _batched(tasks, model.batch)
    keys = {task.key for task in tasks}
    with _steering(model, rules) as steering:
        for batch in batches:
            progress(len(keys & journal.answers.keys()), len(tasks))
            if not all(task.key in journal.answers for task in batch):
                journal.add(_answers(batch, model, steering, off or {}))
    progress(len(tasks), len(tasks))
    return {task.key: journal.answers[task.key] for task in tasks}


class _NoSteering:
    """Stands where `in_memory` would."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def _steering(model: Model, rules: Rules | None) -> Any:
    return in_memory(model.model, rules, model.family) if rules else _NoSteering()


def _batched(tasks: Iterable[Task], size: int) -> list[list[Task]]:
    """Tasks of one condition and label, those with long prompts first."""

    def kind(task: Task) -> tuple[str, bool]:
        return task.condition.name, task.sample.harmful

    batches = []
    for _, members in groupby(sorted(tasks, key=kind), kind):
        order = sorted(members, key=lambda task: (-len(task.sample.prompt), task.sample.id))
        batches += [order[start : start + size] for start in range(0, len(order), size)]
    return batches


class _Untouched(StoppingCriteria):
    """Ends every row whose prompt was not pushed, after its first token."""

    def __init__(self, steering: Steering) -> None:
        self._steering = steering
        self._rows: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, _scores: Any, **_kwargs: Any) -> torch.Tensor:
        if self._rows is None:
            self._rows = torch.tensor([not _pushed(row) for row in self._steering.last])
        return self._rows.to(input_ids.device)


def _pushed(row: Sequence[Any]) -> bool:
    """Whether a steered position of a row was changed, or does not say."""
    return any(position.strength != 0 for position in row)


@torch.inference_mode()
def _answers(
    batch: Sequence[Task], model: Model, steering: Steering | None, off: Mapping[Key, Answer]
) -> list[Answer]:
    requests = [task.request() for task in batch]
    inputs = collate(model.processor, requests).to(model.model.device, model.model.dtype)
    stop = StoppingCriteriaList([_Untouched(steering)] if steering else [])
    out = model.model.generate(
        **inputs,
        **GREEDY,
        max_new_tokens=model.tokens,
        stopping_criteria=stop,
        return_dict_in_generate=True,
        output_logits=True,
    )
    width = inputs["input_ids"].shape[1]
    texts = model.processor.batch_decode(out.sequences[:, width:], skip_special_tokens=True)
    odds = log_odds(out.logits[0].float(), model.refusal_tokens).tolist()
    verdicts = _verdicts(batch, requests, texts)
    rows = list(steering.last) if steering else [[] for _ in batch]
    answers = []
    for task, text, verdict, odd, row in zip(batch, texts, verdicts, odds, rows, strict=True):
        if steering and not _pushed(row):
            text, verdict = off[task.key].text, off[task.key].verdict
        answers.append(
            Answer(
                condition=task.condition.name,
                id=task.sample.id,
                topic=task.sample.kin,
                harmful=task.sample.harmful,
                verdict=verdict,
                text=text,
                log_odds=odd,
                gate=row[-1].gate if row else None,
                active=_pushed(row),
                calibrated=row[-1].calibrated if row else None,
            )
        )
    return answers


def _verdicts(
    batch: Sequence[Task], requests: Sequence[Request], texts: Sequence[str]
) -> list[Verdict]:
    exchanges = [
        judges.Exchange(request.prompt, text, task.intent)
        for task, request, text in zip(batch, requests, texts, strict=True)
    ]
    return [judgment.verdict for judgment in RulesJudge().judge(exchanges)]
