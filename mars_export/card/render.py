"""Render and write the card of a steered directory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel, ValidationError

from mars_export.card.consistency import lint_records
from mars_export.card.data import CardData, card_data
from mars_export.card.lint import lint_responses, lint_text
from mars_export.card.markdown import FILTERS
from mars_export.card.metadata import front_matter
from mars_export.card.plots import PATHS, draw
from mars_export.card.provenance import STEERING_FILE
from mars_export.card.results import VERDICTS, label
from mars_export.card.tables import breakdown
from mars_export.card.utility import lines, open_losses
from mars_export.checkpoint.manifest import Manifest
from mars_export.common.atomic import replacing, write_atomically
from mars_export.common.errors import ExportError
from mars_export.evaluation.report import REPORT_NAME, SAMPLES_NAME, Report, SampleResult
from mars_export.evaluation.utility import UTILITY_NAME, Utility
from mars_export.families.quantization import NONE, OWN, SCHEMES
from mars_export.methods.mars.record import mars_record

__all__ = ["CARD_NAME", "render", "write_card"]

CARD_NAME: Final = "README.md"

_Record = TypeVar("_Record", bound=BaseModel)

_SHOWN: Final = {"image": "a picture", "video": "a video"}
_ORIGIN_WORDS: Final = {
    "base": "base, unchanged",
    "base-rewritten": "base, adapted",
    "added": "added",
}


def write_card(directory: Path, repo_id: str | None = None) -> Path:
    """Write `README.md` and its plots from the directory's manifest and evaluation report.

    Args:
        directory: A steered checkpoint. Without `evaluation/report.json` the card says first of
            all that the copy was not evaluated.
        repo_id: Hub repository that the loading snippet names; by default the directory's name.

    Returns:
        Path of the card. Plots of an earlier card that this one has not are removed.

    Raises:
        ExportError: if manifest or report cannot be read, a lint fails, or a file cannot be
            written.
    """
    manifest = Manifest.read(directory)
    report = _read(directory / REPORT_NAME, Report, "evaluate")
    utility = _read(directory / UTILITY_NAME, Utility, "measure utility of")
    text = render(manifest, report, repo_id or directory.resolve().name, utility)
    lint_responses(text, _responses(directory / SAMPLES_NAME))
    drawn = draw(manifest, report)
    card = directory / CARD_NAME
    try:
        for path, png in drawn.items():
            with replacing(directory / path) as temporary:
                temporary.write_bytes(png)
        write_atomically(card, text)
        for path in set(PATHS) - set(drawn):
            (directory / path).unlink(missing_ok=True)
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
        ExportError: if a lint fails.
    """
    lint_records(manifest, report, utility)
    data = card_data(manifest, report, checkpoint, utility)
    text = _environment().get_template("template.md.j2").render(_context(data))
    lint_text(data, text)
    return text


def _context(data: CardData) -> dict[str, Any]:
    quantization = data.manifest.calibration.source.quantization
    direction = [t.name for t in data.manifest.tensors if t.name.endswith("direction")]
    visual = [_SHOWN[m] for m in data.modalities if m != "text"]
    return {
        "data": data,
        "manifest": data.manifest,
        "source": data.manifest.calibration.source,
        "record": mars_record(data.manifest.calibration),
        "report": data.report,
        "results": data.results,
        "breakdown": breakdown(data.report) if data.report else None,
        "utility_lines": lines(data.utility) if data.utility else (),
        "open_losses": open_losses(data.utility) if data.utility else (),
        "front_matter": front_matter(data),
        "quantized": _quantized(quantization),
        "kernels": SCHEMES[quantization].package if quantization in SCHEMES else "",
        "figure": lambda name: next((p for p in data.figures if name in p), None),
        "corrected": _correction(data.report),
        "label": label,
        "verdicts": VERDICTS,
        "origin_words": _ORIGIN_WORDS,
        "visual": f" shown as {' or '.join(visual)}" if visual else "",
        "direction": direction[0] if direction else None,
        "steering_file": STEERING_FILE,
    }


def _quantized(quantization: str) -> str:
    """What follows the dtype: nothing, or the quantization that the gate was placed for."""
    if quantization == NONE:
        return ""
    return ", stored quantized" if quantization == OWN else f", quantized (`{quantization}`)"


def _correction(report: Report | None) -> str:
    holm = report is not None and all(pair.p_holm is not None for pair in report.pairs)
    return "corrected by Holm for" if holm else "not corrected for"


def _environment() -> Environment:
    # The output is Markdown, not HTML: foreign strings go through `code` and `cell` instead.
    environment = Environment(
        loader=PackageLoader("mars_export.card", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= FILTERS
    return environment


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
