"""The checkpoints in this process, as Transformers loads them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mars_export.calibration.refusal import log_odds
from mars_export.common.errors import ExportError
from mars_export.common.input_errors import is_out_of_memory, one_line
from mars_export.evaluation.arms import Arm
from mars_export.evaluation.baselines.base import Batch
from mars_export.evaluation.engines.base import Answer, Answered, Asked, Engine
from mars_export.evaluation.generation import Answers, Loaded
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.ready import Ready, fit, load_models
from mars_export.evaluation.report import REFERENCE, EngineSource, SelfCheck
from mars_export.evaluation.selfcheck import self_check
from mars_export.families.placement import Device, is_split
from mars_export.inputs.prompts import PromptSets
from mars_export.inputs.requests import Request

__all__ = ["InProcess", "Models", "answered_by"]

Models = Mapping[Path, Loaded]
"""Loaded checkpoints by directory."""


class InProcess(Engine):
    """Answers with `generate()`, and tells all that there is to know."""

    def __init__(self, models: Models | None = None) -> None:
        """Take checkpoints that are loaded, the one that is evaluated first, or none so far."""
        self._models = models or {}

    @property
    def identity(self) -> list[str]:
        """Nothing: the versions of the packages say it."""
        return []

    @property
    def source(self) -> EngineSource:
        """Transformers."""
        return EngineSource()

    @property
    def split(self) -> bool:
        """As loaded."""
        return is_split(self._loaded.model)

    @property
    def processor(self) -> Any:
        """As loaded."""
        return self._loaded.processor

    @property
    def dtype(self) -> str:
        """Of the model's floating-point weights."""
        return str(self._loaded.model.dtype).removeprefix("torch.")

    @property
    def _loaded(self) -> Loaded:
        return next(iter(self._models.values()))

    def device(self, device: str) -> str:
        """With the model of a GPU."""
        if device.startswith("cuda"):
            return f"{device}, {torch.cuda.get_device_name(device.split(',')[0])}"
        return device

    def require(self, arms: Sequence[Arm]) -> None:
        """All arms can be answered in."""

    def open(self, arms: Sequence[Arm], options: EvaluationOptions, device: Device) -> None:
        """Load each checkpoint once."""
        self._models = load_models(arms, device, options.dtype)

    def self_check(self, arm: Arm) -> SelfCheck:
        """The probes of the calibration; see `selfcheck`."""
        return self_check(self._models[arm.directory], arm.manifest)

    def problem(self, request: Request) -> str:
        """Of sounds and of several pictures alone, which some models do not take."""
        if request.modality != "audio" and len(request.media) < 2:
            return ""
        try:
            inputs = self._loaded.inputs([request])
            if len(request.media) > 1:
                self._loaded.answer(inputs, 1, steered=False)
        except Exception as error:  # models raise what they like
            if not is_out_of_memory(error):
                return f"the model refuses it: {one_line(error)}"
            what = "sounds" if request.modality == "audio" else "pictures"
            raise ExportError(
                f"a request with {len(request.media)} {what} alone does not fit into "
                "memory; use a device with more memory, or --no-controls"
            ) from error
        return ""

    def fit(self, arms: Sequence[Arm], prompts: PromptSets | None, batch_size: int) -> Ready:
        """See `ready.fit`."""
        return fit(arms, self._loaded, prompts, batch_size)

    def answers(self, arms: Sequence[Arm], asked: Asked) -> Answered:
        """All arms get the same inputs but for what they change in the requests."""
        inputs: dict[tuple[Path, str], Any] = {}  # arms that differ in steering alone share theirs
        told: dict[str, Answers] = {}
        for arm in arms:
            loaded, key = self._models[arm.directory], (arm.directory, arm.template)
            if key not in inputs:
                inputs[key] = loaded.inputs([arm.request(request) for request in asked.requests])
            batch = Batch(asked.requests, inputs[key], asked.max_new_tokens, asked.seed)
            told[arm.name] = answered_by(arm, loaded, batch)
        base = told[REFERENCE].logits if REFERENCE in told else None
        tokens = arms[0].manifest.calibration.record.refusal_tokens
        return Answered(
            {name: _answers(answers, base, tokens) for name, answers in told.items()},
            {name: answers.cost for name, answers in told.items()},
        )


def answered_by(arm: Arm, loaded: Loaded, batch: Batch) -> Answers:
    """What one arm answers; that of a baseline must be fitted."""
    if arm.fitted is not None:
        return arm.fitted.answer(loaded, batch)
    return loaded.answer(
        batch.inputs,
        batch.max_new_tokens,
        steered=arm.steered,
        seed=batch.seed,
        factor=arm.factor,
    )


def _answers(told: Answers, base: torch.Tensor | None, tokens: Sequence[int]) -> list[Answer]:
    """Row by row; `base` are the first logits (B, V) of the reference."""
    columns = zip(
        told.texts,
        told.cut,
        told.decisions,
        _log_odds(told.logits, tokens),
        told.pushes,
        _divergence(base, told.logits),
        strict=True,
    )
    return [Answer(*column) for column in columns]


def _divergence(base: torch.Tensor | None, logits: torch.Tensor) -> list[float | None]:
    """KL(base || other) of each row of first-token logits (B, V), nats; None if not finite."""
    if base is None:
        return [None] * len(logits)
    p, q = (part.float().log_softmax(dim=-1) for part in (base.to(logits.device), logits))
    rows = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(dim=-1).tolist()
    return [round(max(value, 0.0), 6) if math.isfinite(value) else None for value in rows]


def _log_odds(logits: torch.Tensor, tokens: Sequence[int]) -> list[float | None]:
    """Refusal log-odds of each row; None where they are not known or not finite."""
    odds = log_odds(logits, tokens).tolist() if tokens else [math.nan] * len(logits)
    return [round(value, 4) if math.isfinite(value) else None for value in odds]
