"""Everything a card prints, computed from the records of a steered directory alone."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mars_export.card import snippets
from mars_export.card.adaptive import AdaptiveLine, adaptive_lines, adaptive_plots
from mars_export.card.coverage import not_evaluated, status
from mars_export.card.dose import plot, sentences
from mars_export.card.figures import plots
from mars_export.card.harm import HarmTests, alarms, comparisons, harm_tests, worse
from mars_export.card.metadata import front_matter
from mars_export.card.results import Results
from mars_export.card.utility import UtilityLine, utility_lines
from mars_export.checkpoint.manifest import BaseModelSource, Derivation, FileEntry, Manifest
from mars_export.checkpoint.modeling import CODE_NAMES
from mars_export.common.markdown import code
from mars_export.common.vocabulary import MODALITIES
from mars_export.evaluation.adaptive.record import Adaptive
from mars_export.evaluation.report import Report
from mars_export.evaluation.utility import Utility
from mars_export.families.quantization import NONE, OWN, SCHEMES
from mars_export.methods import method_named
from mars_export.methods.base import CalibrationSource, MethodSection

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STEERING_FILE", "CardData"]

STEERING_FILE: Final = "steering.safetensors"
DISCUSSION: Final = "open a discussion on this repository"
_WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".pth")
_STIMULI: Final = {"image": "a picture", "video": "a video", "audio": "a sound"}


@dataclass(frozen=True)
class OtherEvaluation:
    """A further evaluation: another suite, judge or setting than the one that the card is about."""

    path: str
    """Of its report, relative to the card."""
    report: Report
    results: Results


@dataclass(frozen=True)
class CardData:
    """All that the template reads. No field can hold a model's response."""

    name: str
    checkpoint: str
    """Hub repository or directory name, as the snippets load it."""
    manifest: Manifest
    source: CalibrationSource
    report: Report | None
    results: Results | None
    """None when there is no report."""
    utility: Utility | None
    utility_lines: tuple[UtilityLine, ...]
    adaptive: Adaptive | None
    adaptive_lines: tuple[AdaptiveLine, ...]
    alarms: list[str]
    """Where the checkpoint is shown to do worse, and what was not looked at."""
    others: tuple[OtherEvaluation, ...]
    """Evaluations beside the one that the card is about; their alarms are among `alarms`."""
    doses: tuple[str, ...]
    """What weaker and stronger steering does, in sentences."""
    harm_tests: list[HarmTests]
    comparisons: int
    """How many tests of harm of the checkpoint the card shows."""
    title: str
    """The method's full name."""
    section: MethodSection
    front_matter: str
    contact: str
    """Where to report failures."""
    changes: tuple[tuple[str, str], ...]
    """Dates and what was done."""
    base: str
    """The base model as Markdown, with its revision or the reason why it has none."""
    training: str
    """Whether the weights were trained, and from what, in sentences."""
    tuning: str
    """How many labeled requests of each kind the calibration was tuned on; empty for none."""
    media: str
    """How requests reach the model other than as text, for the first paragraph."""
    weights: tuple[FileEntry, ...]
    """Weight files that are the base's byte for byte."""
    rewritten: tuple[FileEntry, ...]
    """Weight files that are not. Empty for a directory that mars-export wrote."""
    key_files: tuple[FileEntry, ...]
    """The code that runs and the tensors that it reads."""
    quantized: str
    """What follows the dtype: nothing, or the quantization of the calibration."""
    kernels: str
    """Package that loading needs for its quantization, if any."""
    status: str
    loading: str
    not_evaluated: tuple[str, ...]
    command: str
    """The call that makes the directory again."""
    folder: str
    """The directory that it makes, as a shell takes it."""
    needs: tuple[str, ...]
    """What that call takes from the disk."""
    plots: dict[str, Callable[[], "Figure"]]
    """Path relative to the card -> what draws the plot."""

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        report: Report | None,
        checkpoint: str | None = None,
        utility: Utility | None = None,
        adaptive: Adaptive | None = None,
        contact: str | None = None,
        others: Mapping[str, Report] | None = None,
    ) -> "CardData":
        """Compute a card's content.

        Args:
            manifest: Record of the steered directory.
            report: Its evaluation; None gives a card that says it was not evaluated.
            checkpoint: Hub repository or directory name for the snippets; by default made from
                the base's name.
            utility: What steering costs on utility benchmarks; None if that was not measured.
            adaptive: How far attackers come that adapt; None if that was not measured.
            contact: Where to report failures; None for the discussions of the repository.
            others: Further evaluations by the path of their report.

        Raises:
            ExportError: if the steering method is unknown.
        """
        calibration, source = manifest.calibration, manifest.calibration.source
        method = method_named(calibration.method)
        section = method.card(calibration)
        checkpoint = checkpoint or method.checkpoint_name(manifest.base.name)
        name = checkpoint.rsplit("/", 1)[-1]
        modalities = tuple(m for m in MODALITIES if m in source.modalities)
        weights = [f for f in manifest.files if _is_weight(f)]
        further = (others or {}).values()
        return cls(
            name=name,
            checkpoint=checkpoint,
            manifest=manifest,
            source=source,
            report=report,
            results=Results.of(report) if report else None,
            utility=utility,
            utility_lines=utility_lines(utility),
            adaptive=adaptive,
            adaptive_lines=adaptive_lines(adaptive),
            alarms=[
                *(alarms(report, modalities) if report else []),
                *(f"In {code(o.suite.name)}: {text}" for o in further for text in worse(o)),
            ],
            others=tuple(
                OtherEvaluation(path, other, Results.of(other))
                for path, other in (others or {}).items()
            ),
            doses=sentences(report) if report else (),
            harm_tests=harm_tests(report) if report else [],
            comparisons=comparisons(report) if report else 0,
            title=method.title,
            section=section,
            front_matter=front_matter(manifest, report, name, contact),
            contact=contact or DISCUSSION,
            changes=tuple(_changes(manifest, report)),
            base=_base_link(manifest.base),
            training=_training(manifest.base.derived_from),
            tuning=_tuning(source),
            media=_either([_STIMULI[m] for m in modalities if m in _STIMULI]),
            weights=tuple(f for f in weights if f.origin == "base"),
            rewritten=tuple(f for f in weights if f.origin != "base"),
            key_files=tuple(f for f in manifest.files if f.path in (*CODE_NAMES, STEERING_FILE)),
            quantized=_quantized(source.quantization),
            kernels=SCHEMES[source.quantization].package if source.quantization in SCHEMES else "",
            status=status(report, modalities, utility is not None, adaptive),
            loading=snippets.loading(
                checkpoint,
                modalities,
                source.dtype,
                source.quantization,
                source.template_options,
            ),
            not_evaluated=not_evaluated(report, modalities, utility is not None, adaptive),
            command=snippets.command(manifest, report, name),
            folder=shlex.quote(name),
            needs=snippets.needs(manifest, report),
            plots={**plots(report), **plot(report), **adaptive_plots(adaptive), **section.plots},
        )


def _either(names: Sequence[str]) -> str:
    """For example `a picture, a video or a sound`."""
    *first, last = names or [""]
    return f"{', '.join(first)} or {last}" if first else last


def _changes(manifest: Manifest, report: Report | None) -> Iterator[tuple[str, str]]:
    version = manifest.versions["mars-export"]
    origin = manifest.base.derived_from
    adopted = origin is not None and not origin.calibrated
    done = "adopted with the calibration from before training" if adopted else "calibrated"
    yield manifest.created[:10], f"{done} and exported with mars-export {version}"
    if report is not None:
        version = report.versions.get("mars-export", "of unknown version")
        yield report.created[:10], f"evaluated with mars-export {version}"


def _base_link(base: BaseModelSource) -> str:
    if base.repo is None:
        return f"`{base.name}` (a local directory, without a Hub revision)"
    link = f"[{base.repo}](https://huggingface.co/{base.repo})"
    if base.revision is None:
        return f"{link} (revision not recorded)"
    return f"{link} at revision `{base.revision}`"


def _training(origin: Derivation | None) -> str:
    if origin is None or not origin.trained:
        return "Nothing was trained."
    parent = f"the steered checkpoint {code(origin.parent)}" if origin.parent else ""
    commit = f" at revision {code(origin.revision)}" if origin.revision else ""
    of = f", made from {code(origin.base)}{commit}" if origin.base else ""
    start = f"from {parent or 'a steered checkpoint that is not named'}{of}"
    calibration = (
        "the calibration was made anew after that"
        if origin.calibrated
        else "**the calibration is from before that**"
    )
    return (
        f"**Its weights were trained**, or may have been, {start}, and saved as "
        f"{code(origin.name)}; {calibration}. mars-export itself trains nothing."
    )


def _tuning(source: CalibrationSource) -> str:
    counts = source.tuning.counts if source.tuning else {}
    each = (f"{n} {label} {m}" for m, labels in counts.items() for label, n in labels.items())
    return ", ".join(each) + " requests" if counts else ""


def _is_weight(file: FileEntry) -> bool:
    return (
        file.path.endswith(_WEIGHTS)
        and file.path != STEERING_FILE
        and not file.path.startswith("calibration/")
    )


def _quantized(quantization: str) -> str:
    if quantization == NONE:
        return ""
    return ", stored quantized" if quantization == OWN else f", quantized (`{quantization}`)"
