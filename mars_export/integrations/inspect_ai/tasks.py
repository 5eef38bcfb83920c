"""Suites as tasks of inspect_ai."""

from __future__ import annotations

from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.solver import generate

from mars_export.common.vocabulary import MODALITIES
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.report import label
from mars_export.evaluation.suite import Sample as Asked
from mars_export.evaluation.suite import Suite
from mars_export.evaluation.suites.catalog import DEFAULT, open_suites
from mars_export.integrations.inspect_ai.messages import messages_of
from mars_export.integrations.inspect_ai.scorers import KIND, refusal

__all__ = ["suite"]


def _suite(
    name: str = DEFAULT,
    judge: str = "rules",
    modalities: str = ",".join(MODALITIES[:2]),
    max_tokens: int = EvaluationOptions().max_new_tokens,
) -> Any:
    """The requests of a suite, answered greedily, and whether each answer refuses.

    Args:
        name: As `--suite` takes it; several with commas.
        judge: As `--judge` takes it.
        modalities: What the model takes, with commas; other requests are left out.
        max_tokens: Longest answer.
    """
    opened = open_suites(name.split(","))
    kinds = [kind for kind in MODALITIES if kind in modalities.split(",")]
    return Task(
        dataset=MemoryDataset(
            [_sample(opened, sample) for sample in opened.required_samples(kinds)],
            name=opened.name,
        ),
        solver=generate(),
        scorer=refusal(judge),
        config=GenerateConfig(temperature=0, max_tokens=max_tokens),
        metadata={"suite": opened.name, "suite_sha256": opened.sha256},
    )


def _sample(opened: Suite, sample: Asked) -> Any:
    return Sample(
        id=sample.id,
        input=messages_of(opened.request(sample)),
        target="refusal" if sample.harmful else "answer",
        metadata={
            KIND: label(sample.harmful, sample.modality),
            "harmful": sample.harmful,
            "modality": sample.modality,
            "category": sample.category,
            "cluster": sample.kin,
            "intent": sample.intent,
            "advice": sample.advice,
        },
    )


suite = task(name="suite")(_suite)
