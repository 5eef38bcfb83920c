"""What the tool knows of each benchmark: one record each, in `records.json`. Free of torch."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

from pydantic import Field

from mars_export.common.record import Record
from mars_export.common.vocabulary import Modality

__all__ = ["FOLDER", "ROW", "HubSource", "SuiteRecord", "Visual", "known_suites"]

FOLDER: Final = "@folder"
"""Stands for a column: the name of the folder that the table lies in."""
ROW: Final = "@row"
"""Stands for a column: the number of the row, as `Row.number` counts."""


class HubSource(Record):
    """Where a benchmark lies on the Hub."""

    repo: str
    revision: str | None
    """Commit; None where no commit is known to be good: then the newest, which is recorded."""
    archive: str | None = None
    """A packed file that has to be unpacked by hand: then only `--suite NAME=FOLDER` works."""


class Visual(Record):
    """What a request shows.

    `figstep` and `figstep-clip` draw the text in the column; `scene` draws it on the thing that
    the column `layout` names; `picture` and `sound` are one inside the row or the path of one,
    relative to the table; `clip` is the path of a video or a folder of frames.
    """

    kind: Literal["figstep", "figstep-clip", "scene", "picture", "clip", "sound"]
    column: tuple[str, ...]
    """Names under which copies of the benchmark keep it; the first that is there counts."""
    folder: str = ""
    """That the paths are in, where they do not say so."""

    @property
    def in_files(self) -> bool:
        """Whether it is there already and not drawn."""
        return self.kind in ("picture", "clip", "sound")


class SuiteRecord(Record):
    """One benchmark. Columns are tuples of names, of which the first that is there counts."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    title: str
    modality: Modality
    harmful: bool
    samples: int
    """As published."""
    license: str
    citation: str
    files: tuple[str, ...]
    """Tables: a file of the package, or patterns in the Hub repository or the user's folder."""
    hub: HubSource | None = None
    """None for what ships with the package, or is to be had by hand."""
    by_hand: str = ""
    """Where it is to be had, of a benchmark that is not fetched; then only `--suite NAME=PATH`
    works."""
    where: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Rows that count: column -> allowed values. A column that is absent excludes nothing, but the
    rows of a harmless suite must have it."""
    id: tuple[str, ...] = ()
    """Columns that make the id, joined by `-`; without them the number of the row does."""
    prompt: tuple[str, ...] = ()
    wording: str | None = None
    """Prompt around the column's text, with `{}` for it; or the same prompt for all requests."""
    category: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    """Categories of legal, financial and medical advice, where refusing more is not better."""
    cluster: tuple[str, ...] = ()
    """Columns that name the source prompt; without them each request's own words do."""
    source: str = ""
    """Whose prompts these are: suites that share it share clusters. Empty means the own name."""
    intent: tuple[str, ...] = ()
    """What the request is after in plain text, for judges that neither see nor hear."""
    visual: Visual | None = None

    @property
    def offline(self) -> bool:
        """Whether it ships with the package."""
        return self.hub is None and not self.by_hand

    @property
    def columns(self) -> str:
        """Those that it needs, for people."""
        shown = self.visual.column if self.visual else ()
        needed = [" or ".join(names) for names in (shown, self.prompt) if names]
        wanted = [" or ".join(names) for names in (self.intent, self.category) if names]
        more = f", and if there are any {', '.join(wanted)}" if wanted else ""
        return f"columns {', '.join(needed)}{more}"

    @property
    def source_name(self) -> str:
        """Where it is from, for lists of suites."""
        if self.hub is None:
            return f"your copy: {self.citation}" if self.by_hand else self.citation
        return f"{self.hub.repo}@{(self.hub.revision or 'newest')[:8]}"

    @property
    def identity(self) -> str:
        """The record as JSON, for digests. Fields that came later are left out where unused."""
        later: dict[str, Any] = {} if self.by_hand else {"by_hand": True}
        if self.visual is not None and not self.visual.folder:
            later["visual"] = {"folder"}
        return self.model_dump_json(exclude=later)


@cache
def known_suites() -> dict[str, SuiteRecord]:
    """Every benchmark by name, in the order of `records.json`."""
    raw = json.loads((files(__package__) / "records.json").read_text("utf-8"))
    records = [SuiteRecord.model_validate(entry) for entry in raw]
    return {record.name: record for record in records}
