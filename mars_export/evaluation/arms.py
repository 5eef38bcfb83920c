"""Arms: the ways in which every request of an evaluation is answered. Free of torch.

The reference is the checkpoint with steering off, `on` the same with steering on. Further ones are
methods that change nothing but the request and baselines, both by name, and other steered
directories of the same base. The safety prompt, which costs nothing, is one of them unless it is
left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mars_export.checkpoint.manifest import Manifest
from mars_export.common.errors import ExportError
from mars_export.common.paths import named
from mars_export.common.problems import near
from mars_export.common.vocabulary import Modality
from mars_export.evaluation.baselines import BASELINES
from mars_export.evaluation.report import REFERENCE, STEERED, ArmSource
from mars_export.inputs.requests import Request
from mars_export.methods import METHODS, method_named
from mars_export.methods.safety_prompt import SAFETY_PROMPT

if TYPE_CHECKING:
    from mars_export.evaluation.baselines.base import Baseline, Fitted

__all__ = ["NAMED_ARMS", "NO_BASELINE", "Arm", "arm_digests", "is_named_arm", "open_arms"]

NO_BASELINE: Final = "none"
"""Stands among the names of arms for leaving out the safety prompt."""

NAMED_ARMS: Final = (*(m.name for m in METHODS if m.site == "template"), *BASELINES)
"""Arms that a name is enough for."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Arm:
    """One way in which every request is answered.

    Attributes:
        name: In reports.
        title: For people.
        directory: Steered checkpoint that answers.
        manifest: Of that checkpoint.
        steered: Whether its steering is on.
        template: Name of the method that changes the requests; empty for none.
        factor: Multiple of every change that the steering makes.
        optional: Whether it is left out where the chat template cannot write its requests.
        baseline: What answers instead of the steering; None for nothing.
        fitted: The same, fitted to the model; None before.
    """

    name: str
    title: str
    directory: Path
    manifest: Manifest
    steered: bool = False
    template: str = ""
    factor: float = 1.0
    optional: bool = False
    baseline: Baseline | None = None
    fitted: Fitted | None = field(default=None, compare=False, repr=False)

    @property
    def source(self) -> ArmSource:
        """The arm as a report names it."""
        return ArmSource(
            name=self.name,
            title=self.title,
            steered=self.steered,
            steering_sha256=self.manifest.steering_sha256,
            detail=self.fitted.detail if self.fitted else "",
        )

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What the checkpoint was calibrated for."""
        return self.manifest.calibration.source.modalities

    def request(self, request: Request) -> Request:
        """The request as this arm puts it to the model."""
        return method_named(self.template).change(request) if self.template else request

    @property
    def mark(self) -> list[str]:
        """What tells it from an arm of the same name and directory."""
        if self.baseline is None:
            return []
        return [f"baseline {self.baseline.name}", self.baseline.fit_class.source()]

    def with_fit(self, fitted: Fitted) -> Arm:
        """The arm of a baseline when it has been fitted."""
        return replace(self, fitted=fitted)

    def must_act(self, modality: Modality) -> bool:
        """Whether a request of this modality without a decision is an error."""
        method = method_named(self.manifest.calibration.method)
        return self.steered and method.must_act(modality)


def open_arms(directory: Path, words: Sequence[str] = ()) -> tuple[Arm, ...]:
    """The reference, the checkpoint with steering on, the safety prompt, and further arms.

    No model is loaded.

    Args:
        directory: Steered checkpoint that is evaluated.
        words: Each one of `NAMED_ARMS`, `NAME=DIR`, or `none` for no safety prompt.

    Raises:
        ExportError: The directory is not a steered checkpoint, there is no such arm, a name is
            used twice, or the other directory is of another base.
    """
    manifest = Manifest.read(directory)
    arms = [
        Arm(REFERENCE, "steering off", directory, manifest),
        Arm(STEERED, "steering on", directory, manifest, steered=True),
    ]
    if not {NO_BASELINE, SAFETY_PROMPT.name} & {word.partition("=")[0] for word in words}:
        arms.append(replace(_open(SAFETY_PROMPT.name, arms[0]), optional=True))
    for word in words:
        if word == NO_BASELINE:
            continue
        arm = _open(word, arms[0])
        if arm.name in {other.name for other in arms}:
            raise ExportError(f"--arm {word}: an arm is called {arm.name} already; give NAME=DIR")
        arms.append(arm)
    return tuple(arms)


def arm_digests(words: Sequence[str]) -> dict[str, str]:
    """Word of an arm to the digest in its directory's manifest; "" for what has no directory.

    Raises:
        ExportError: There is no such arm, or the directory is not a steered checkpoint.
    """
    directories = {word: _parse(word)[1] for word in words}
    return {
        word: Manifest.read(directory).manifest_sha256 if directory else ""
        for word, directory in directories.items()
    }


def is_named_arm(word: str) -> bool:
    """Whether it is one of `NAMED_ARMS`, with its model as NAME:MODEL where it takes one."""
    name, _, model = word.partition(":")
    takes_model = name in BASELINES and BASELINES[name].takes_model
    return word in NAMED_ARMS or bool(model and takes_model)


def _parse(word: str) -> tuple[str, Path | None]:
    """The name of an arm and its directory; None where the name is that of a method."""
    name, equals, path = word.partition("=")
    if equals and path and _NAME.fullmatch(name):
        return name, named(path)
    names = [*NAMED_ARMS, NO_BASELINE]
    if word != NO_BASELINE and not is_named_arm(word):
        known = ", ".join(NAMED_ARMS)
        raise ExportError(
            f"--arm {word}: there is no such arm; give a baseline ({known}), or NAME=DIR "
            "with another steered directory of the same base" + near(word, names)
        )
    return word, None


def _open(word: str, reference: Arm) -> Arm:
    name, directory = _parse(word)
    if directory is not None:
        return _other_directory(word, name, directory, reference)
    name, _, model = name.partition(":")
    if name in BASELINES:
        title, baseline = BASELINES[name].title, replace(BASELINES[name], model=model)
        return Arm(name, title, reference.directory, reference.manifest, baseline=baseline)
    title = method_named(name).title
    return Arm(name, title, reference.directory, reference.manifest, template=name)


def _other_directory(word: str, name: str, directory: Path, reference: Arm) -> Arm:
    manifest = Manifest.read(directory)
    ours = reference.manifest
    if _weights(manifest) != _weights(ours):
        raise ExportError(
            f"--arm {word}: its base is {manifest.base.name}, not the same weights of "
            f"{ours.base.name}; export it from the same base"
        )
    return Arm(name, f"steering of {directory.resolve().name}", directory, manifest, steered=True)


def _weights(manifest: Manifest) -> tuple[str, str | None, frozenset[tuple[str | None, str]]]:
    """What tells two bases apart: name, commit, and digests of the files that were copied."""
    files = ((f.base_path, f.sha256) for f in manifest.files if f.origin == "base")
    return manifest.base.name, manifest.base.revision, frozenset(files)
