"""Everything a card prints, computed from the records of a steered directory alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mars_export.card import snippets
from mars_export.card.coverage import not_evaluated, status
from mars_export.card.figures import plots
from mars_export.card.metadata import front_matter
from mars_export.card.results import Results
from mars_export.card.utility import UtilityLine, utility_lines
from mars_export.checkpoint.manifest import BaseModelSource, FileEntry, Manifest
from mars_export.common.vocabulary import MODALITIES
from mars_export.evaluation.report import Report
from mars_export.evaluation.utility import Utility
from mars_export.families.quantization import NONE, OWN, SCHEMES
from mars_export.methods import method_named
from mars_export.methods.base import CalibrationSource, MethodSection

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STEERING_FILE", "CardData"]

STEERING_FILE: Final = "steering.safetensors"
_WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".pth")
_STIMULI: Final = {"image": "a picture", "video": "a video"}


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
    title: str
    """The method's full name."""
    section: MethodSection
    front_matter: str
    base: str
    """The base model as Markdown, with its revision or the reason why it has none."""
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
    ) -> "CardData":
        """Compute a card's content.

        Args:
            manifest: Record of the steered directory.
            report: Its evaluation; None gives a card that says it was not evaluated.
            checkpoint: Hub repository or directory name for the snippets; by default made from
                the base's name.
            utility: What steering costs on utility benchmarks; None if that was not measured.

        Raises:
            ExportError: if the steering method is unknown.
        """
        calibration, source = manifest.calibration, manifest.calibration.source
        method = method_named(calibration.method)
        section = method.card(calibration)
        checkpoint = checkpoint or method.checkpoint_name(
            manifest.base.name.rstrip("/").rsplit("/", 1)[-1]
        )
        name = checkpoint.rsplit("/", 1)[-1]
        modalities = tuple(m for m in MODALITIES if m in source.modalities)
        weights = [f for f in manifest.files if _is_weight(f)]
        return cls(
            name=name,
            checkpoint=checkpoint,
            manifest=manifest,
            source=source,
            report=report,
            results=Results.of(report) if report else None,
            utility=utility,
            utility_lines=utility_lines(utility),
            title=method.title,
            section=section,
            front_matter=front_matter(manifest, report, name),
            base=_base_link(manifest.base),
            media=" or ".join(_STIMULI[m] for m in modalities if m in _STIMULI),
            weights=tuple(f for f in weights if f.origin == "base"),
            rewritten=tuple(f for f in weights if f.origin != "base"),
            key_files=tuple(
                f for f in manifest.files if f.path in (manifest.modeling_file, STEERING_FILE)
            ),
            quantized=_quantized(source.quantization),
            kernels=SCHEMES[source.quantization].package if source.quantization in SCHEMES else "",
            status=status(report, modalities, utility is not None),
            loading=snippets.loading(
                checkpoint,
                modalities,
                source.dtype,
                source.quantization,
                source.template_options,
            ),
            not_evaluated=not_evaluated(report, modalities, utility is not None),
            command=snippets.command(manifest, report, name),
            needs=snippets.needs(manifest, report),
            plots={**plots(report), **section.plots},
        )


def _base_link(base: BaseModelSource) -> str:
    if base.repo is None:
        return f"`{base.name}` (a local directory, so there is no Hub revision to name)"
    link = f"[{base.repo}](https://huggingface.co/{base.repo})"
    if base.revision is None:
        return f"{link} (revision not recorded)"
    return f"{link} at revision `{base.revision}`"


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
