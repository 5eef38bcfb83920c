"""The model that is calibrated or evaluated: a bundled organism or another base that refuses."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from mars_export.families.loading import load_base
from mars_export.inputs.prompts import PromptSet, PromptSets
from mars_export.pipeline.organisms import resolve_model
from mars_export.pipeline.preflight import RunInputs, prepare
from mars_export.pipeline.settings import Settings
from speed.widen import widen

__all__ = ["Subject", "add_options", "subject"]


class Subject:
    """A base, what it is calibrated on, and how it is named in a table."""

    def __init__(self, path: Path, name: str, inputs: RunInputs, prompts: PromptSets) -> None:
        self.path, self.name, self.inputs, self.prompts = path, name, inputs, prompts

    def load(self) -> tuple[Any, Any]:
        """The model and its processor."""
        return load_base(self.path, self.inputs.family, dtype="auto", device="cpu")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which model, and on how much."""
    add = parser.add_argument
    add("--model", default="organism:qwen3_vl", help="a model that refuses harmful requests")
    add("--name", help="of it in the table; default: the option as given")
    add("--widen", type=int, default=1, help="make its MLPs so many times as wide, with zeros")
    add("--per-label", type=int, default=64, help="prompts of each label and part, at most")


def subject(given: argparse.Namespace, folder: Path) -> Subject:
    """A copy of the model in `folder`, widened."""
    path = folder / "base"
    shutil.copytree(resolve_model(given.model), path)
    if given.widen > 1:
        widen(path, given.widen)
    license_id = None if given.model.startswith("organism:") else "apache-2.0"
    inputs = prepare(Settings(model=str(path), license=license_id))
    config = json.loads((path / "config.json").read_bytes())
    width = config.get("text_config", config)["intermediate_size"]
    name = given.name or given.model
    name += f", MLPs of {width} neurons" if given.widen > 1 else ""
    sets = inputs.prompts
    cut = PromptSets(_cut(sets.harmful, given.per_label), _cut(sets.harmless, given.per_label))
    return Subject(path, name, inputs, cut)


def _cut(prompts: PromptSet, most: int) -> PromptSet:
    return replace(
        prompts, direction=prompts.direction[:most], decision=prompts.decision[:most],
        check=prompts.check[:most],
    )  # fmt: skip
