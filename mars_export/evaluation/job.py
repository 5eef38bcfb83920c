"""What a run of the evaluation is, and all that its result depends on. Free of torch."""

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
from mars_export.common.vocabulary import MODALITIES
from mars_export.evaluation.judges.base import Judge
from mars_export.evaluation.suite import Sample, Suite
from mars_export.evaluation.variants import VARIANTS
from mars_export.families.quantization import SCHEMES
from mars_export.inputs.requests import Request

__all__ = ["Run", "sha256"]

_PACKAGES: Final = ("mars-export", "torch", "torchvision", "transformers", "tokenizers", "pillow")


@dataclass(frozen=True)
class Run:
    """A steered directory, the requests to run on it, and how.

    Attributes:
        directory: Steered checkpoint.
        manifest: Of that checkpoint.
        suite: Where `samples` come from.
        samples: What is run, in the order of the suite; variants after all requests as they are.
        judge: Of the answers.
        batch_size: Requests at once, while memory lasts.
        max_new_tokens: Longest answer, in tokens.
        device: For example `cpu`.
        dtype: Name of a torch dtype; None for the one the checkpoint is saved in.
        seen: Prompts of the calibration, for the overlap; empty when they are not at hand.
    """

    directory: Path
    manifest: Manifest
    suite: Suite
    samples: list[Sample]
    judge: Judge
    batch_size: int
    max_new_tokens: int
    device: str
    dtype: str | None
    seen: Sequence[str] = ()

    @cached_property
    def identity(self) -> str:
        """The same for two runs that must give the same result."""
        parts = {
            "manifest": sha256((self.directory / MANIFEST_NAME).read_bytes()),
            "suite": [self.suite.name, self.suite.sha256],
            "samples": [sample.id for sample in self.samples],
            "judge": self.judge.name,
            "decoding": self.decoding,
            "seen": sha256("\n".join(self.seen).encode()),
            "where": [self.device, self.dtype],
            "versions": self.versions,
        }
        return sha256(json.dumps(parts, sort_keys=True).encode())[:16]

    @property
    def decoding(self) -> dict[str, str | int | float | bool]:
        """Settings of generation, as the report prints them."""
        return {
            "do_sample": False,
            "num_beams": 1,
            "max_new_tokens": self.max_new_tokens,
            "batch_size": self.batch_size,
        }

    @property
    def versions(self) -> dict[str, str]:
        """Installed versions of all that the numbers can depend on."""
        scheme = SCHEMES.get(self.manifest.calibration.source.quantization)
        return {**_installed(), **({scheme.package: version(scheme.package)} if scheme else {})}

    @property
    def order(self) -> list[Sample]:
        """One modality after the other, long prompts first: too large a batch shows at once."""
        kinds = ("", *VARIANTS)
        return sorted(
            self.samples,
            key=lambda s: (kinds.index(s.variant), MODALITIES.index(s.modality), -len(s.prompt)),
        )

    def without(self, variants: Container[str]) -> Run:
        """The same run, of the same identity, with fewer variants."""
        kept = [sample for sample in self.samples if sample.variant not in variants]
        fewer = replace(self, samples=kept)
        fewer.__dict__["identity"] = self.identity
        return fewer

    def request(self, sample: Sample) -> Request:
        """The sample with its pictures opened.

        Raises:
            ExportError: A picture cannot be read.
        """
        if not sample.variant:
            return self.suite.request(sample)
        plain = self.suite.request(self._plain[sample.group])
        return VARIANTS[sample.variant].change(plain, sample.group)

    @cached_property
    def _plain(self) -> dict[str, Sample]:
        return {sample.id: sample for sample in self.suite.samples}


@cache
def _installed() -> dict[str, str]:
    """Installed versions of Python and of what the numbers can depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # an extra that is not installed
            continue
    return found


def sha256(data: bytes) -> str:
    """Hexadecimal digest."""
    return hashlib.sha256(data).hexdigest()
