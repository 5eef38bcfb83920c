"""What a calibration does: the same requests under many conditions, steering off and on.

Run: python examples/ablation/study.py organism:gemma3 --work /somewhere --seeds 5

A seed splits the calibration prompts and draws the neutral stimuli. What is done already is kept,
so a stopped run goes on when it is repeated.
"""

import argparse
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from answers import BATCH, TOKENS, Answer, Journal, Key, Model, answer, forecast
from conditions import CONDITIONS, FIRST, Companions, Exchange, Task, fitting, tasks
from counts import Part, Row, counted, parts, pooled
from in_memory import Rules
from tables import dots, harmful_table, harmless_table, summary

from mars_export.calibration.activations import Reader
from mars_export.calibration.data import OPENERS, CalibrationData, MeasurementOptions
from mars_export.calibration.refusal import refusal_tokens, separating
from mars_export.common.atomic import write_atomically
from mars_export.common.errors import ExportError
from mars_export.common.plotting import png
from mars_export.common.progress import Progress, progress_for
from mars_export.families.directory import digest
from mars_export.families.loading import load_base
from mars_export.families.weights import weight_map
from mars_export.inputs.drawings import MIXTURE
from mars_export.inputs.merges import tokenizer_of
from mars_export.inputs.prompts import PromptSets
from mars_export.inputs.requests import Request, template_problem
from mars_export.inputs.template import turn_tokens
from mars_export.methods.base import Artefact
from mars_export.methods.calibrate import calibrate
from mars_export.methods.mars.material import requests_to_come
from mars_export.methods.mars.record import MarsOptions
from mars_export.pipeline.preflight import RunInputs, prepare
from mars_export.pipeline.settings import Settings

__all__ = [
    "Base",
    "add_arguments",
    "ask_the_base",
    "calibration",
    "calibration_cost",
    "opened",
    "planned",
]


_PROMPTS: Final = 32
"""Calibration prompts of each label that the refusal tokens are told from."""


@dataclass(frozen=True)
class Base:
    """An organism that is ready to answer.

    Attributes:
        settings: That name it and the prompts.
        job: What it is calibrated and evaluated on.
        model: That answers.
        digest: Of its weights and its suite.
        work: Folder for all that is made.
        display: Progress.
    """

    settings: Settings
    job: RunInputs
    model: Model
    digest: str
    work: Path
    display: Progress

    def journal(self, name: str, *further: str) -> Journal:
        """Answers that depend on the base and on what is named here."""
        plain = re.sub(r"[^a-z0-9.]+", "-", name.lower())
        identity = self.model.identity(name, self.digest, *further)
        return Journal(self.work / "answers" / f"{plain}.{identity}.jsonl")

    def calibrated(self, name: str, measure: Callable[[Any], Artefact]) -> Artefact:
        """A calibration, made once.

        Args:
            name: Of its folder.
            measure: Makes it; told where to report progress.
        """
        folder = self.work / "calibrations" / f"{name}.{self.digest[:12]}"
        if not folder.exists():
            with self.display.stage(f"calibration, {name}") as tick:
                measure(tick).save(folder)
        return Artefact.load(folder)


def main() -> None:
    """Run the study, and write results.json, results.md and results.png into the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--seeds", type=int, default=5, help="calibrations, seeds 0 to N - 1")
    arguments = parser.parse_args()
    try:
        _study(arguments)
    except ExportError as error:
        parser.exit(1, f"{error}\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every command here is told."""
    parser.add_argument("model", help="directory, Hub repository or organism:NAME")
    parser.add_argument("--work", type=Path, required=True, help="folder for all that is made")
    parser.add_argument("--plan", action="store_true", help="say what it costs, and run nothing")
    parser.add_argument("--limit", type=int, help="requests of each kind and label")
    for name in ("harmful", "harmless"):
        what = f"{name} prompts to calibrate with, one a line, instead of the organism's own"
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=what)
    parser.add_argument("--batch-size", type=int, default=BATCH)
    parser.add_argument("--max-new-tokens", type=int, default=TOKENS)
    parser.add_argument(
        "--conditions", nargs="+", default=[], metavar="NAME", choices=[c.name for c in CONDITIONS],
        help=f"only these: {', '.join(c.name for c in CONDITIONS)}",
    )  # fmt: skip


def opened(arguments: argparse.Namespace, dtype: str = "auto", quantization: str = "none") -> Base:
    """The organism that the command names, loaded."""
    settings = Settings(
        model=arguments.model, harmful=arguments.harmful, harmless=arguments.harmless
    )
    job = prepare(settings)
    native, processor = load_base(
        job.base, job.family, dtype=dtype, device="cpu", quantization=quantization
    )
    size, length = arguments.batch_size, arguments.max_new_tokens
    tokens = _refusal_tokens(job, native, processor, size)
    model = Model(native, processor, job.family, tokens, size, length)
    shards = sorted(set(weight_map(job.base).values()))
    weights = [digest(job.base / shard) for shard in shards]
    stated = [weights, job.suite.sha256, quantization, version("transformers")]
    if arguments.harmful:
        stated += [job.prompts.harmful.sha256, job.prompts.harmless.sha256]
    identity = hashlib.sha256(json.dumps(stated).encode()).hexdigest()
    arguments.work.mkdir(parents=True, exist_ok=True)
    return Base(settings, job, model, identity, arguments.work, progress_for("auto"))


def _refusal_tokens(job: RunInputs, native: Any, processor: Any, batch: int) -> list[int]:
    """First tokens of refusals that harmless answers of this model do not begin with."""
    tokens = refusal_tokens(tokenizer_of(processor), OPENERS)
    reader = Reader(native, processor, turn_tokens(processor).headers, tokens, batch)
    harmful, harmless = (
        reader.read([Request(p) for p in prompts.direction[:_PROMPTS]], log_probs=True).log_probs
        for prompts in (job.prompts.harmful, job.prompts.harmless)
    )
    return separating(tokens, harmful, harmless)


def ask_the_base(
    base: Base, names: Sequence[str], limit: int | None
) -> tuple[list[Task], dict[Key, Answer]]:
    """All tasks, and the answers of the base to them.

    Its answers to plain text requests are the earlier turns of other conditions.
    """
    modalities, journal = base.job.family.modalities, base.journal("off")
    make = partial(tasks, base.job.suite, modalities=modalities, limit=limit)
    first = make(fitting(modalities, [FIRST]), Companions())
    with base.display.stage("steering off, first turns") as tick:
        plain = answer(first, base.model, journal, tick)
    samples = {task.sample.id: task.sample for task in first}
    said = [(Exchange(samples[a.id], a.text), a) for a in plain.values()]
    companions = Companions(
        [exchange for exchange, a in said if not a.harmful and a.verdict == "answer"],
        [exchange for exchange, a in said if a.harmful and a.refused],
    )
    whole = make(fitting(modalities, names), companions)
    whole = _writable(base, whole)
    with base.display.stage("steering off") as tick:
        return whole, answer(whole, base.model, journal, tick)


def _writable(base: Base, whole: Sequence[Task]) -> list[Task]:
    """Without conditions that the chat template refuses, or leaves out without a word."""
    one_each = {task.condition.name: task for task in whole if task.condition.shows == "text"}
    problems = {
        name: template_problem(base.model.processor, task.request())
        for name, task in one_each.items()
    }
    for name, problem in problems.items():
        if problem:
            base.display.note(f"left out: {name}: {problem}")
    return [task for task in whole if not problems.get(task.condition.name)]


def _study(arguments: argparse.Namespace) -> None:
    base = opened(arguments)
    _announce(base, arguments)
    if arguments.plan:
        return
    artefacts = {}
    for seed in range(arguments.seeds):
        artefacts[seed] = base.calibrated(f"seed-{seed}", partial(calibration, base, seed=seed))
    whole, off = ask_the_base(base, arguments.conditions, arguments.limit)
    runs = {}
    for seed, artefact in artefacts.items():
        rules = Rules.of(artefact)
        with base.display.stage(f"steering on, seed {seed}") as tick:
            journal = base.journal(f"seed-{seed}", rules.digest)
            on = answer(whole, base.model, journal, tick, rules, off)
        runs[str(seed)] = counted(off, on)
    single = [part for run, both in runs.items() for part in parts(run, both)]
    _write(base, arguments, single, pooled(list(runs.values())), artefacts)


def calibration(
    base: Base,
    tick: Any,
    *,
    seed: int = 0,
    kinds: Sequence[str] = MIXTURE,
    prompts: PromptSets | None = None,
    options: MarsOptions | None = None,
) -> Artefact:
    """What the main job makes of the organism, in memory.

    Args:
        base: The organism.
        tick: Where to report progress.
        seed: Of neutral stimuli, and of the split of the organism's own prompts.
        kinds: Of neutral stimuli.
        prompts: Instead of the organism's own.
        options: Of the method; the defaults if None.
    """
    own = prepare(base.settings.model_copy(update={"seed": seed})).prompts
    return calibrate(
        base.model.model,
        base.model.processor,
        prompts=prompts or own,
        modalities=base.job.family.modalities,
        options=options,
        measurement=MeasurementOptions(batch_size=base.model.batch, seed=seed, kinds=tuple(kinds)),
        progress=tick,
    )


def planned(base: Base, arguments: argparse.Namespace) -> list[Task]:
    """All that is asked, before it is known which requests can have earlier turns."""
    modalities = base.job.family.modalities
    samples = base.job.suite.evaluation_samples(modalities)
    stand_ins = [Exchange(sample, "") for sample in samples if sample.modality == "text"]
    companions = Companions(stand_ins, stand_ins)
    chosen = fitting(modalities, arguments.conditions)
    return tasks(base.job.suite, chosen, companions, modalities, arguments.limit)


def calibration_cost(base: Base) -> str:
    """About what one calibration takes, for people."""
    job = base.job
    data = CalibrationData(
        base.model.model, base.model.processor, job.prompts, job.family.modalities
    )
    requests = len(job.prompts.prompts) + requests_to_come(data)
    return f"one calibration reads about {requests} prompts"


def _announce(base: Base, arguments: argparse.Namespace) -> None:
    """Say what is going to be run."""
    requests = planned(base, arguments)
    conditions = {task.condition.name for task in requests}
    cost = forecast(requests, base.model, 1 + arguments.seeds)
    base.display.note(
        f"{base.job.source.name}: {len(conditions)} conditions, {len(requests)} requests, "
        f"{arguments.seeds} calibrations; with steering off once and on {arguments.seeds} times "
        f"{cost}; answers that steering leaves alone cost one forward; {calibration_cost(base)}"
    )


def _write(
    base: Base,
    arguments: argparse.Namespace,
    single: Sequence[Part],
    rows: Sequence[Row],
    artefacts: dict[int, Artefact],
) -> None:
    """results.json, results.md and results.png."""
    results = {
        "model": base.job.source.name,
        "seeds": arguments.seeds,
        "limit": arguments.limit,
        "max_new_tokens": base.model.tokens,
        "dtype": str(base.model.model.dtype).removeprefix("torch."),
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "layers": {seed: artefact.record.layers for seed, artefact in artefacts.items()},
        "rows": [row.model_dump() | {"verdict": row.verdict} for row in rows],
        "parts": [part.model_dump() for part in single],
    }
    text = "\n".join((summary(rows), harmless_table(rows, single), harmful_table(rows)))
    write_atomically(base.work / "results.json", json.dumps(results, indent=1) + "\n")
    write_atomically(base.work / "results.md", text)
    title = f"{base.job.source.name}: what steering changes"
    runs = "one calibration" if arguments.seeds == 1 else f"{arguments.seeds} calibrations"
    subtitle = f"{runs}; lines: 95 % bounds, topics as clusters"
    (base.work / "results.png").write_bytes(png(lambda: dots(rows, single, title, subtitle)))
    print(text)


if __name__ == "__main__":
    main()
