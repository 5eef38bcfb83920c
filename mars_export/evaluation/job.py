"""What an evaluation runs, and all that its result depends on. Free of torch."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.common.names import EVALUATION, REPORT_FILE, SAMPLES_FILE
from mars_export.evaluation.arms import Arm
from mars_export.evaluation.engines.base import Engine
from mars_export.evaluation.judges.base import Judge
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.suite import Sample, Suite
from mars_export.evaluation.variants import VARIANTS, absent
from mars_export.families.placement import device_name
from mars_export.families.quantization import SCHEMES
from mars_export.inputs.prompts import PromptSets
from mars_export.inputs.requests import Request

__all__ = ["Job", "installed_versions", "sha256"]

_PACKAGES: Final = ("mars-export", "torch", "torchvision", "transformers", "tokenizers", "pillow")


@dataclass(frozen=True)
class Job:
    """A steered directory, the requests to run on it, and how.

    Attributes:
        arms: The reference first.
        suite: Where `samples` come from.
        samples: What is run, in the order of the suite; variants after all requests as they are.
        judge: Of the answers.
        second: A judge of the same answers, for the agreement of the two.
        run: Identity of the job that this one is a part of; None for a job of its own.
        engine: What answers.
        place: Where the report goes; None for `evaluation/` of the directory.
        options: How it is run, the device decided.
        calibration_prompts: For the overlap; empty when they are not at hand.
        prompts: The same with labels and parts, which baselines are fitted on.
    """

    arms: tuple[Arm, ...]
    suite: Suite
    samples: list[Sample]
    judge: Judge
    options: EvaluationOptions
    engine: Engine
    calibration_prompts: Sequence[str] = ()
    prompts: PromptSets | None = None
    second: Judge | None = None
    run: str | None = None
    place: Path | None = None

    @property
    def folder(self) -> Path:
        """Where the report goes."""
        return self.place or self.directory / EVALUATION

    @property
    def report(self) -> Path:
        """The report's file."""
        return self.folder / REPORT_FILE

    @property
    def answers(self) -> Path:
        """The file of all answers."""
        return self.folder / SAMPLES_FILE

    @property
    def directory(self) -> Path:
        """The steered checkpoint that is evaluated."""
        return self.arms[0].directory

    @property
    def manifest(self) -> Manifest:
        """Of that checkpoint."""
        return self.arms[0].manifest

    @cached_property
    def identity(self) -> str:
        """The same for two runs that must give the same result."""
        if self.run is not None:
            return self.run
        parts = {
            "arms": [
                [
                    arm.name,
                    arm.optional,
                    sha256((arm.directory / MANIFEST_NAME).read_bytes()),
                    *arm.mark,
                ]
                for arm in self.arms
            ],
            "suite": [self.suite.name, self.suite.sha256],
            "samples": [sample.id for sample in self.samples],
            "judge": self.judge.name,
            "second": self.second.name if self.second else None,
            "decoding": self.decoding,
            "calibration": sha256("\n".join(self.calibration_prompts).encode()),
            "where": [device_name(self.options.device), self.options.dtype],
            "versions": self.versions,
        }
        if engine := self.engine.identity:
            parts["engine"] = engine
        return sha256(json.dumps(parts, sort_keys=True).encode())[:16]

    @property
    def decoding(self) -> dict[str, str | int | float | bool]:
        """Settings of generation, as the report prints them."""
        return {
            "do_sample": False,
            "num_beams": 1,
            "max_new_tokens": self.options.max_new_tokens,
            "batch_size": self.options.batch_size,
        }

    @property
    def versions(self) -> dict[str, str]:
        """Installed versions of all that the numbers can depend on."""
        scheme = SCHEMES.get(self.manifest.calibration.source.quantization)
        kernels = {scheme.package: version(scheme.package)} if scheme else {}
        return installed_versions() | kernels

    @property
    def order(self) -> list[Sample]:
        """One modality after the other, long prompts first: too large a batch shows at once."""
        variants, modalities = ("", *VARIANTS), self.manifest.calibration.source.modalities
        return sorted(
            self.samples,
            key=lambda s: (
                variants.index(s.variant), modalities.index(s.modality), -len(s.prompt)
            ),
        )  # fmt: skip

    def reduced(self, arms: tuple[Arm, ...], variants: Container[str]) -> Job:
        """The same job, of the same identity, with these arms only and without these variants."""
        samples = [sample for sample in self.samples if sample.variant not in variants]
        return replace(self, arms=arms, samples=samples, run=self.identity)

    def arms_for(self, sample: Sample) -> tuple[Arm, ...]:
        """The arms that answer it: of a control, those that nobody asked for are left out."""
        control = sample.variant and VARIANTS[sample.variant].kind == "control"
        return tuple(arm for arm in self.arms if not (control and arm.optional))

    def request(self, sample: Sample) -> Request:
        """The sample with its media opened.

        Raises:
            ExportError: A medium cannot be read.
        """
        if not sample.variant:
            return self.suite.request(sample)
        return VARIANTS[sample.variant].change(self.plain(sample), sample.group)

    def plain(self, variant: Sample) -> Request:
        """The request that a variant is made of, with its media opened.

        Raises:
            ExportError: A medium cannot be read.
        """
        return self.suite.request(self._plain[variant.group])

    @property
    def absent(self) -> dict[str, str]:
        """Why there is no sample of a variant that was asked for, by name."""
        return absent(
            self.samples,
            self.manifest.calibration.source.modalities,
            controls=self.options.controls,
            attacks=self.options.attacks,
        )

    @cached_property
    def _plain(self) -> dict[str, Sample]:
        return {sample.id: sample for sample in self.suite.samples}


@cache
def installed_versions() -> dict[str, str]:
    """Installed versions of Python and of what the numbers can depend on."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # an extra that is not installed
            continue
    return versions


def sha256(data: bytes) -> str:
    """Hexadecimal digest."""
    return hashlib.sha256(data).hexdigest()
