"""From the rows of a benchmark's table to a suite, as its record says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mars_export.common.errors import ExportError
from mars_export.common.problems import Problems
from mars_export.evaluation.suite import MediaFiles, Sample, Suite, unique
from mars_export.evaluation.suites.builtin import CLIP_FRAMES, typographic
from mars_export.evaluation.suites.record import FOLDER, ROW, SuiteRecord, Visual
from mars_export.evaluation.suites.scenes import scene
from mars_export.evaluation.suites.sources import Source
from mars_export.inputs.media import VIDEO_FRAMES, open_picture, read_frames
from mars_export.inputs.sounds import Sound, open_sound
from mars_export.inputs.tables import Row, embedded, read_table

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["adapt", "figstep_text"]

_ITEMS: Final = 3


def adapt(record: SuiteRecord, source: Source) -> Suite:
    """Read a benchmark. Media are opened when their request is run.

    Raises:
        ExportError: A table cannot be read, a column is missing, or a row is malformed; names file
            and line.
    """
    rows = [row for table in source.tables for row in read_table(table) if _counts(record, row)]
    if not rows:
        raise ExportError(f"{source.tables[0]}: the suite {record.name} is empty; check the file")
    visuals = _Visuals(record, source, rows)
    problems = Problems()
    read = [
        (sample, row.where)
        for number, row in enumerate(rows)
        for sample in problems.attempt(row.where, partial(_sample, record, row, number, visuals))
    ]
    samples = unique(read, problems)
    problems.refuse()
    return Suite(
        record.name,
        _digest(record, source, visuals),
        samples,
        visuals.picture,
        license=record.license,
        origin=source.origin,
        places={sample.id: where for sample, where in read},
        drawn=record.visual is not None and not record.visual.in_files,
        sound=visuals.sound,
    )


def figstep_text(instruction: str) -> str:
    """What a picture of FigStep says: an instruction, then the numbers of an empty list.

    After Gong et al., arXiv 2311.05608. The typeface is Pillow's own, so a picture shows what the
    original shows without being the same file.
    """
    return "\n".join([instruction.strip(), *(f"{number}." for number in range(1, _ITEMS + 1))])


@dataclass(frozen=True)
class _Visuals:
    """What the rows show. A medium is named by the number of its row, a frame by `ROW/FRAME`."""

    record: SuiteRecord
    source: Source
    rows: Sequence[Row]

    def media(self, number: int) -> list[MediaFiles]:
        """What the row of that number shows."""
        if self.record.modality == "text":
            return []
        if self.record.modality != "video":
            return [MediaFiles(type=self.record.modality, path=str(number))]
        visual = self.record.visual
        count = CLIP_FRAMES if visual and visual.kind == "figstep-clip" else VIDEO_FRAMES
        return [MediaFiles(type="video", paths=[f"{number}/{frame}" for frame in range(count)])]

    def picture(self, name: str) -> Image:
        number, _, frame = name.partition("/")
        row, visual = self.rows[int(number)], self.record.visual
        assert visual is not None
        if visual.kind.startswith("figstep"):
            return typographic(figstep_text(_text(row, visual.column, self.record)))
        if visual.kind == "scene":
            words = _text(row, visual.column, self.record)
            return scene(_text(row, ("layout",), self.record), words)
        if visual.kind == "clip":
            return read_frames(self.file(row, visual), row.where)[int(frame)]
        return open_picture(self._data(row, visual), row.where)

    def sound(self, name: str) -> Sound:
        row, visual = self.rows[int(name)], self.record.visual
        assert visual is not None
        return open_sound(self._data(row, visual), row.where)

    def _data(self, row: Row, visual: Visual) -> Path | bytes:
        """What lies inside the row, or else the file that it names."""
        data = _first(embedded(row, column) for column in visual.column)
        return data or self.file(row, visual)

    def file(self, row: Row, visual: Visual) -> Path:
        """The file that a row shows."""
        path = _text(row, visual.column, self.record)
        inner = f"{visual.folder}/{path}" if visual.folder else path
        file = self.source.find(row.file, inner)
        if file is None and visual.folder:
            file = self.source.find(row.file, path)
        if file is None:
            raise ExportError(f"{row.where}: {path} does not exist; add it or correct the path")
        return file

    def files(self) -> list[Path]:
        """The user's own media, checked; those on the Hub are fetched when shown."""
        visual = self.record.visual
        if visual is None or not visual.in_files or self.source.hub:
            return []
        plain = (r for r in self.rows if not any(embedded(r, c) for c in visual.column))
        return [self.file(row, visual) for row in plain]


def _counts(record: SuiteRecord, row: Row) -> bool:
    """Whether a row belongs to the suite.

    Raises:
        ExportError: A row of a harmless suite does not say so: it may be harmful.
    """
    cells = {column: row.get(column) for column in record.where}
    absent = next((column for column, value in cells.items() if value is None), None)
    if absent is not None and not record.harmful:
        raise ExportError(
            f"{row.where}: no {absent}, which says whether the row belongs to {record.name}; add it"
        )
    return all(
        value is None or str(value) in record.where[column] for column, value in cells.items()
    )


def _sample(record: SuiteRecord, row: Row, number: int, visuals: _Visuals) -> Sample:
    category = _optional(row, record.category)
    return Sample(
        id=f"{record.name}/{_id(record, row, len(visuals.source.tables) > 1)}",
        modality=record.modality,
        harmful=record.harmful,
        split="evaluation",
        prompt=_prompt(record, row),
        media=visuals.media(number),
        category=category,
        advice=category in record.advice,
        intent=_optional(row, record.intent),
        cluster=_cluster(record, row),
        suite=record.name,
    )


def _id(record: SuiteRecord, row: Row, several: bool) -> str:
    parts = [_optional(row, (column,)) for column in record.id]
    known = [part for part in parts if part is not None]
    if known:
        return "-".join(known)
    return f"{row.file.stem}-{row.number}" if several else str(row.number)


def _cluster(record: SuiteRecord, row: Row) -> str:
    """Its source prompt; empty where the columns that name it are not there."""
    parts = [_optional(row, (column,)) for column in record.cluster]
    known = [part for part in parts if part is not None]
    return f"{record.source or record.name}/{'-'.join(known)}" if known else ""


def _prompt(record: SuiteRecord, row: Row) -> str:
    if record.wording is not None and "{}" not in record.wording:
        return record.wording
    text = _text(row, record.prompt, record)
    return record.wording.replace("{}", text) if record.wording else text


def _text(row: Row, columns: Sequence[str], record: SuiteRecord) -> str:
    """The text of the first of these columns that is there.

    Raises:
        ExportError: None is there, or it is empty.
    """
    value = _first(row.get(column) for column in columns)
    if value is None:
        raise ExportError(
            f"{row.where}: no column {' or '.join(columns)}, which {record.name} needs; there are "
            f"{', '.join(map(str, row.values))}"
        )
    if not isinstance(value, str) or not value.strip():
        raise ExportError(f"{row.where}: {columns[0]} is not a text; correct the record")
    return value.strip()


def _optional(row: Row, columns: Sequence[str]) -> str | None:
    virtual = {FOLDER: row.file.parent.name, ROW: row.number}
    value = _first(virtual[c] if c in virtual else row.get(c) for c in columns)
    return None if value is None else str(value).strip() or None


def _first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value is not None), None)


def _digest(record: SuiteRecord, source: Source, visuals: _Visuals) -> str:
    """Of the record, the tables, the user's media, and the commit on the Hub."""
    whole = hashlib.sha256(record.identity.encode())
    whole.update(repr((source.hub, CLIP_FRAMES, VIDEO_FRAMES)).encode())
    for path in (*source.tables, *visuals.files()):
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()
