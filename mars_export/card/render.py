"""Render and write the card of a steered directory."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

from jinja2 import Environment
from pydantic import BaseModel, ValidationError

from mars_export.card import figures
from mars_export.card.adaptive import CURVES
from mars_export.card.consistency import check_records, check_responses
from mars_export.card.data import STEERING_FILE, CardData
from mars_export.card.dose import DOSE
from mars_export.card.metadata import contact_of
from mars_export.card.results import HARMFUL_OF_1000, Tally
from mars_export.card.samples import check_samples, read_samples
from mars_export.card.snippets import check, repository_of
from mars_export.card.text import FILTERS
from mars_export.checkpoint.manifest import Manifest
from mars_export.checkpoint.seal import write_seal
from mars_export.common import names
from mars_export.common.atomic import replacing, write_atomically
from mars_export.common.errors import ExportError
from mars_export.common.markdown import code, templates
from mars_export.common.names import (
    ADAPTIVE_NAME,
    CARD_NAME,
    PLOTS,
    REPORT_FILE,
    REPORT_NAME,
    UTILITY_NAME,
)
from mars_export.common.plotting import png
from mars_export.evaluation.adaptive.record import Adaptive
from mars_export.evaluation.changes import ENOUGH
from mars_export.evaluation.report import MARGIN, Report, label
from mars_export.evaluation.reports import main_folder, others
from mars_export.evaluation.utility import Utility
from mars_export.evaluation.variants import ATTACKS, CONTROLS

__all__ = ["render", "write_card"]

_PLOT: Final = re.compile(rf"\]\(({PLOTS}/[\w.-]+\.png)\)")
"""How a card shows a plot."""

_Record = TypeVar("_Record", bound=BaseModel)


def write_card(directory: Path, repo_id: str | None = None, contact: str | None = None) -> Path:
    """Write `README.md` and its plots from the directory's manifest and evaluation report.

    They are sealed; all else stays sealed as it was.

    Args:
        directory: A steered checkpoint. Without `evaluation/report.json` the card says first of
            all that the copy was not evaluated.
        repo_id: Hub repository that the loading snippet names; by default the one that the
            directory's present card names, else the directory's name.
        contact: Where to report failures; by default what the directory's present card says, else
            the discussions of the repository.

    Returns:
        Path of the card. Plots of an earlier card that this one has not are removed.

    Raises:
        ExportError: if manifest or report cannot be read, they cannot carry a card, or a file
            cannot be written.
    """
    manifest = Manifest.read(directory)
    report = _read(directory / REPORT_NAME, Report, "evaluate")
    utility = _read(directory / UTILITY_NAME, Utility, "measure utility of")
    adaptive = _read(directory / ADAPTIVE_NAME, Adaptive, "attack")
    samples = read_samples(main_folder(directory))
    if report is not None:
        check_samples(main_folder(directory), report, samples)
    beside = list(others(directory)) if report is not None else []
    for folder, other in beside:
        answers = read_samples(folder)
        check_samples(folder, other, answers)
        samples += answers
    card = directory / CARD_NAME
    earlier = card.read_text("utf-8") if card.exists() else ""
    name = repo_id or repository_of(earlier) or directory.resolve().name
    contact = contact or contact_of(earlier)
    paths = {(folder.relative_to(directory) / REPORT_FILE).as_posix(): o for folder, o in beside}
    data = _checked(manifest, report, name, utility, adaptive, contact, paths)
    text = _text(data)
    check_responses(text, (result.response for result in samples))
    images = {path: png(draw) for path, draw in data.plots.items()}
    try:
        for path, image in images.items():
            with replacing(directory / path) as temporary:
                temporary.write_bytes(image)
        write_atomically(card, text)
        for path in set(_PLOT.findall(earlier)) - set(images):
            (directory / path).unlink(missing_ok=True)
        write_seal(directory, CARD_NAME, f"{PLOTS}/")
    except OSError as error:
        raise ExportError(
            f"{card} cannot be written: {error.strerror}; free the disk or make it writable"
        ) from error
    return card


def render(
    manifest: Manifest,
    report: Report | None,
    checkpoint: str | None = None,
    utility: Utility | None = None,
    adaptive: Adaptive | None = None,
    contact: str | None = None,
    others: Mapping[str, Report] | None = None,
) -> str:
    """Render the card. Pure: the same records give the same text.

    Args:
        manifest: Record of the steered directory.
        report: Its evaluation, or None if there is none.
        checkpoint: Hub repository or directory name for the loading snippet.
        utility: What steering costs on utility benchmarks, if that was measured.
        adaptive: How far attackers come that adapt, if that was measured.
        contact: Where to report failures; None for the discussions of the repository.
        others: Further evaluations by the path of their report, on other suites or in other ways.

    Raises:
        ExportError: if the records cannot carry an honest card.
    """
    return _text(_checked(manifest, report, checkpoint, utility, adaptive, contact, others or {}))


def _checked(
    manifest: Manifest,
    report: Report | None,
    checkpoint: str | None,
    utility: Utility | None,
    adaptive: Adaptive | None,
    contact: str | None,
    others: Mapping[str, Report],
) -> CardData:
    check_records(manifest, report, utility, adaptive)
    for path, other in others.items():
        check_records(manifest, other, None, where=path)
    return CardData.of(manifest, report, checkpoint, utility, adaptive, contact, others)


def _text(data: CardData) -> str:
    return (
        _environment()
        .get_template("card.md.j2")
        .render(
            data=data,
            manifest=data.manifest,
            source=data.source,
            report=data.report,
            results=data.results,
            section=data.section,
            figures=figures,
            label=label,
            margin=f"{100 * MARGIN:g}",
            enough=ENOUGH,
            control_names=[variant.name for variant in CONTROLS],
            attack_names=[variant.name for variant in ATTACKS],
            harmful_of_1000=HARMFUL_OF_1000,
            dose_plot=DOSE,
            adaptive_plot=CURVES,
            names=names,
            check=check(data.manifest.calibration),
            steering_file=STEERING_FILE,
        )
    )


@cache
def _environment() -> Environment:
    environment = templates("mars_export.card")
    environment.filters |= {**FILTERS, "ids": _ids}
    return environment


def _ids(tally: Tally) -> str:
    more = f" and {tally.more} more" if tally.more else ""
    return f"{', '.join(map(code, tally.ids))}{more}"


def _read(path: Path, record: type[_Record], do: str) -> _Record | None:
    """One record, or None where there is no file; `do` is what makes it again."""
    try:
        return record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ExportError(
            f"{path} cannot be read: {error.strerror}; {do} the directory again"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ExportError(f"{path}: {where}: {first['msg']}; {do} the directory again") from error
