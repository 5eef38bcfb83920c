"""How far a judge can be trusted: against people, and against a second judge. Free of torch."""

import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from random import Random
from typing import Final

from mars_export.common.vocabulary import REFUSED
from mars_export.evaluation.corrections import fits, rate_elsewhere
from mars_export.evaluation.judges.base import Exchange, Judge
from mars_export.evaluation.judges.rules import RulesJudge
from mars_export.evaluation.report import Agreement, Cell, JudgeError, SampleResult
from mars_export.evaluation.statistics import kappa
from mars_export.evaluation.suite import Sample

__all__ = [
    "AGREEMENT_ANSWERS",
    "agreement",
    "judge_error",
    "kappa_of",
    "no_correction",
    "second_opinions",
]

_FILE: Final = "judges.json"
AGREEMENT_ANSWERS: Final = 200
"""So many answers a second judge that is a model reads: a minute or two on a CPU."""


def judge_error(name: str) -> JudgeError | None:
    """Sensitivity and specificity for refusals of the judge of this very name and version.

    `examples/judges` measures them, model by model, and writes the file; the intervals are for the
    responses of a model that is not among them.
    """
    raw = (files("mars_export.evaluation") / "data" / _FILE).read_text("utf-8")
    known = json.loads(raw).get(name)
    if known is None:
        return None
    models = known["models"].values()
    return JudgeError(
        sensitivity=rate_elsewhere([(m["hits"], m["refusals"]) for m in models]),
        specificity=rate_elsewhere([(m["passes"], m["answers"]) for m in models]),
        source=known["source"],
    )


def no_correction(judge: str, error: JudgeError | None, cells: Iterable[Cell]) -> str | None:
    """Why the rates of a report cannot be corrected for the judge's errors, in one sentence.

    Args:
        judge: Its name.
        error: Its errors; None where they are not known.
        cells: The rates.

    Returns:
        None if they can. The answer is for the report as a whole, so that no cell lacks a
        correction that its neighbor has.
    """
    if error is None:
        return f"How often {judge} errs has not been measured against people."
    if error.sensitivity.low + error.specificity.low <= 1:
        return (
            f"The judge was measured on answers of {error.sensitivity.clusters} models, which is "
            "too few to say how often it errs on those of another."
        )
    if not all(fits(cell.refused, error) for cell in cells):
        return "The judge evidently errs otherwise here than on the responses that people labeled."
    return None


def second_opinions(
    second: Judge, results: Sequence[SampleResult], samples: Iterable[Sample]
) -> list[SampleResult]:
    """The answers, with what a second judge says of those that it reads.

    The rules read all answers. A model reads at most `AGREEMENT_ANSWERS`, drawn from all alike.
    """
    places: Sequence[int] = range(len(results))
    if not isinstance(second, RulesJudge) and len(results) > AGREEMENT_ANSWERS:
        places = Random(0).sample(places, AGREEMENT_ANSWERS)
    requests = {sample.id: sample for sample in samples}
    judgments = second.judge([
        Exchange(asked.prompt, r.response, asked.intent, heard=asked.heard)
        for r in map(results.__getitem__, places)
        for asked in [requests[r.id]]
    ])  # fmt: skip
    read = list(results)
    for place, judgment in zip(places, judgments, strict=True):
        read[place] = read[place].model_copy(update={"second": judgment.verdict})
    return read


def agreement(judge: str, results: Iterable[SampleResult]) -> Agreement | None:
    """How far the second judge, of this name, agrees about what is a refusal; None without one."""
    verdicts = [
        (result.verdict in REFUSED, result.second in REFUSED)
        for result in results
        if result.second is not None
    ]
    if not verdicts:
        return None
    first, second = map(sum, zip(*verdicts, strict=True))
    both = sum(one and other for one, other in verdicts)
    return Agreement(
        judge=judge,
        kappa=kappa_of(first, second, both, len(verdicts)),
        n=len(verdicts),
        refused=first,
        refused_second=second,
        refused_both=both,
    )


def kappa_of(first: int, second: int, both: int, n: int) -> float:
    """Cohen's kappa of n answers, from those that each of two judges calls refused.

    Raises:
        ValueError: No answers can be so.
    """
    if not 0 <= both <= min(first, second) or first + second - both > n:
        raise ValueError(f"{first} and {second} of {n} with {both} in common are impossible")
    table = [(True, True)] * both + [(True, False)] * (first - both)
    table += [(False, True)] * (second - both)
    table += [(False, False)] * (n - len(table))
    one, other = zip(*table, strict=True)
    return kappa(one, other)
