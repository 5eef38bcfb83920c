"""How far a judge can be trusted: against people, and against the rules. Free of torch."""

import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Final

from mars_export.common.vocabulary import REFUSED
from mars_export.evaluation.judges.base import Judge
from mars_export.evaluation.judges.rules import RulesJudge, classify
from mars_export.evaluation.report import JudgeError, SampleResult
from mars_export.evaluation.statistics import kappa, wilson
from mars_export.evaluation.suite import Sample

__all__ = ["judge_error", "kappa_with_rules"]

_FILE: Final = "judges.json"


def judge_error(name: str) -> JudgeError | None:
    """Sensitivity and specificity for refusals of the judge of this very name and version.

    `examples/judges` measures them and writes the file.
    """
    raw = (files("mars_export.evaluation") / "data" / _FILE).read_text("utf-8")
    known = json.loads(raw).get(name)
    if known is None:
        return None
    return JudgeError(
        sensitivity=wilson(*known["sensitivity"]),
        specificity=wilson(*known["specificity"]),
        source=known["source"],
    )


def kappa_with_rules(
    judge: Judge, results: Sequence[SampleResult], samples: Iterable[Sample]
) -> float | None:
    """Agreement about refusals with the rules, a second and independent judge.

    Returns:
        None where the style is the rules' own verdict.
    """
    if RulesJudge.name in judge.name:
        return None
    questions = {sample.id: sample.intent or sample.prompt for sample in samples}
    verdicts = [result.verdict in REFUSED for result in results]
    rules = [classify(questions[result.id], result.response) in REFUSED for result in results]
    return kappa(verdicts, rules)
