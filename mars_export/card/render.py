"""Render and write the card of a steered directory."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from mars_export.card import figures
from mars_export.card.consistency import check_records, check_responses
from mars_export.card.data import STEERING_FILE, CardData
from mars_export.card.results import VERDICTS, Tally
from mars_export.card.snippets import CHECK
from mars_export.card.text import FILTERS
from mars_export.checkpoint.manifest import Manifest
from mars_export.checkpoint.seal import write_seal
from mars_export.common.atomic import replacing, write_atomically
from mars_export.common.errors import ExportError
from mars_export.common.markdown import code, templates
from mars_export.common.plotting import png
from mars_export.evaluation.report import REPORT_NAME, SAMPLES_NAME, Report, SampleResult, label
from mars_export.evaluation.utility import UTILITY_NAME, Utility

__all__ = ["CARD_NAME", "render", "write_card"]

CARD_NAME: Final = "README.md"
_PLOT: Final = re.compile(r"\]\((assets/[\w.-]+\.png)\)")
"""How a card shows a plot."""

_Record = TypeVar("_Record", bound=BaseModel)


def write_card(directory: Path, repo_id: str | None = None) -> Path:
    """Write `README.md` and its plots from the directory's manifest and evaluation report.

    They are sealed; all else stays sealed as it was.

    Args:
        directory: A steered checkpoint. Without `evaluation/report.json` the card says first of
            all that the copy was not evaluated.
        repo_id: Hub repository that the loading snippet names; by default the directory's name.

    Returns:
        Path of the card. Plots of an earlier card that this one has not are removed.

    Raises:
        ExportError: if manifest or report cannot be read, they cannot carry a card, or a file
            cannot be written.
    """
    manifest = Manifest.read(directory)
    report = _read(directory / REPORT_NAME, Report, "evaluate")
    utility = _read(directory / UTILITY_NAME, Utility, "measure utility of")
    data = _checked(manifest, report, repo_id or directory.resolve().name, utility)
    text = _text(data)
    check_responses(text, _responses(directory / SAMPLES_NAME))
    images = {path: png(draw) for path, draw in data.plots.items()}
    card = directory / CARD_NAME
    try:
        earlier = card.read_text("utf-8") if card.exists() else ""
        for path, image in images.items():
            with replacing(directory / path) as temporary:
                temporary.write_bytes(image)
        write_atomically(card, text)
        for path in set(_PLOT.findall(earlier)) - set(images):
            (directory / path).unlink(missing_ok=True)
        write_seal(directory, CARD_NAME, "assets/")
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
) -> str:
    """Render the card. Pure: the same records give the same text.

    Args:
        manifest: Record of the steered directory.
        report: Its evaluation, or None if there is none.
        checkpoint: Hub repository or directory name for the loading snippet.
        utility: What steering costs on utility benchmarks, if that was measured.

    Raises:
        ExportError: if the records cannot carry an honest card.
    """
    return _text(_checked(manifest, report, checkpoint, utility))


def _checked(
    manifest: Manifest, report: Report | None, checkpoint: str | None, utility: Utility | None
) -> CardData:
    check_records(manifest, report, utility)
    return CardData.of(manifest, report, checkpoint, utility)


def _text(data: CardData) -> str:
    environment = templates("mars_export.card")
    environment.filters |= {**FILTERS, "ids": _ids}
    return environment.get_template("card.md.j2").render(
        data=data,
        manifest=data.manifest,
        source=data.source,
        report=data.report,
        results=data.results,
        section=data.section,
        figures=figures,
        label=label,
        verdicts=VERDICTS,
        check=CHECK,
        steering_file=STEERING_FILE,
    )


def _ids(tally: Tally) -> str:
    """The ids in parentheses, or nothing."""
    if not tally.ids:
        return ""
    more = f" and {tally.more} more" if tally.more else ""
    return f" ({', '.join(map(code, tally.ids))}{more})"


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


def _responses(path: Path) -> Iterator[str]:
    """Responses that the card must not quote; none when there is no sample log."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield SampleResult.model_validate_json(line).response
            except ValidationError as error:
                raise ExportError(
                    f"{path}, line {number} is not a sample; evaluate the directory again"
                ) from error
