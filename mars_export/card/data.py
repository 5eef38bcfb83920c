"""Everything a card prints, computed from the manifest and the report alone."""

import re
from dataclasses import dataclass

from mars_export.card import provenance, reproduce, results
from mars_export.card.plots import LAYERS, planned
from mars_export.card.prose import METHODS, Method, not_evaluated
from mars_export.card.snippet import check_snippet, loading_snippet
from mars_export.checkpoint.manifest import Manifest
from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import Modality
from mars_export.evaluation.report import Report
from mars_export.evaluation.utility import Utility

__all__ = ["CardData", "card_data", "default_checkpoint"]


@dataclass(frozen=True)
class CardData:
    """The template's whole world. No field can hold a model's response."""

    name: str
    checkpoint: str
    """Hub repository or directory name, as the snippets load it."""
    manifest: Manifest
    report: Report | None
    utility: Utility | None
    method: Method
    modalities: tuple[Modality, ...]
    base: str
    """The base model as Markdown, with its revision or the word that it has none."""
    origin: provenance.Origin
    results: results.Results | None
    """None when there is no report."""
    status: str
    loading: str
    checking: str
    figures: tuple[str, ...]
    """Paths of the plots, relative to the card."""
    layers_figure: str
    not_evaluated: tuple[str, ...]
    command: str
    """The call that makes the directory again."""
    needs: tuple[str, ...]
    """What that call takes from the disk."""


def card_data(
    manifest: Manifest,
    report: Report | None,
    checkpoint: str | None = None,
    utility: Utility | None = None,
) -> CardData:
    """Compute a card's content.

    Args:
        manifest: Record of the steered directory.
        report: Its evaluation; None gives a card that says it was not evaluated.
        checkpoint: Hub repository or directory name for the snippets; by default made from the
            base's name.
        utility: What steering costs on utility benchmarks; None if that was not measured.

    Raises:
        ExportError: if the steering method is not one that cards know how to describe.
    """
    checkpoint = checkpoint or default_checkpoint(manifest)
    source = manifest.calibration.source
    modalities = source.modalities
    measured = results.results(report) if report else None
    name = checkpoint.rsplit("/", 1)[-1]
    return CardData(
        name=name,
        checkpoint=checkpoint,
        manifest=manifest,
        report=report,
        utility=utility,
        method=_method(manifest.calibration.method),
        modalities=modalities,
        base=provenance.base_link(manifest.base),
        origin=provenance.origin(manifest),
        results=measured,
        status=results.status(report, modalities, utility is not None),
        loading=loading_snippet(checkpoint, modalities, source.dtype, source.quantization),
        checking=check_snippet(),
        figures=planned(manifest, report),
        layers_figure=LAYERS,
        not_evaluated=not_evaluated(report, modalities, utility is not None),
        command=reproduce.command(manifest, report, name),
        needs=reproduce.needs(manifest, report),
    )


def default_checkpoint(manifest: Manifest) -> str:
    """Directory name made from the base's name, for example `gemma-3-4b-it-MARS`."""
    last = manifest.base.name.rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^\w.-]+", "-", last).strip("-.") + "-MARS"


def _method(name: str) -> Method:
    try:
        return METHODS[name]
    except KeyError:
        raise ExportError(
            f"no model card: the steering method `{name}` has no description in "
            f"mars_export.card.prose (known: {', '.join(sorted(METHODS))}); add one"
        ) from None
