"""Where a benchmark's tables are: in the package, on the user's disk, or on the Hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from mars_export.common.errors import ExportError
from mars_export.common.paths import exists, is_dir, is_file, resolved
from mars_export.evaluation.suites.record import SuiteRecord

__all__ = ["Source", "from_disk", "from_hub", "from_package"]

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Source:
    """The tables of one benchmark.

    Attributes:
        tables: Files, sorted.
        origin: For the report, for example `hub:ORG/NAME@COMMIT`; `newest:` instead of `hub:` where
            no revision was asked for and none is recorded.
        root: Folder that the paths of pictures are relative to, beside the table's own.
        hub: Repository and commit that pictures are fetched from when they are shown.
    """

    tables: list[Path]
    origin: str
    root: Path
    hub: tuple[str, str] | None = None

    def find(self, table: Path, path: str) -> Path | None:
        """A file that a row of `table` names; fetched from the Hub if it lies there.

        Raises:
            ExportError: The Hub does not give it.
        """
        places = (table.parent, self.root)
        for place in places:
            file = resolved(place / path)
            inside = any(file.is_relative_to(resolved(p)) for p in places)
            if exists(file) and (inside or self.hub):
                return file
        return self._fetch(table, path) if self.hub else None

    def _fetch(self, table: Path, path: str) -> Path | None:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

        assert self.hub is not None
        repo, commit = self.hub
        inner = (table.parent.relative_to(self.root) / path).as_posix()
        try:
            return Path(hf_hub_download(repo, inner, repo_type="dataset", revision=commit))
        except EntryNotFoundError:
            return None
        except (HfHubHTTPError, OSError) as error:
            raise ExportError(f"{repo}: {inner} cannot be fetched ({_first(error)})") from error


def from_package(record: SuiteRecord) -> Source:
    """The copy that ships with the package."""
    folder = Path(str(files(__package__) / "data"))
    return Source([folder / name for name in record.files], f"known:{record.name}", folder)


def from_disk(record: SuiteRecord, path: Path) -> Source:
    """The user's copy: one table, or a folder that is laid out as the original.

    Raises:
        ExportError: There is no such file, or the folder holds no table of this benchmark.
    """
    if is_file(path):
        return Source([path], f"known:{record.name}=FILE", path.parent)
    if not is_dir(path):
        raise ExportError(f"--suite {record.name}={path}: there is no such file or folder")
    return Source(_tables(record, path, str(path)), f"known:{record.name}=FILE", path)


def from_hub(record: SuiteRecord, revision: str | None) -> Source:
    """The tables at one commit, downloaded once.

    Args:
        record: A benchmark that lies on the Hub.
        revision: Commit, branch or tag; None for the record's, or the newest commit.

    Raises:
        ExportError: The Hub does not answer or refuses, or pictures have to be unpacked by hand.
    """
    hub = record.hub
    assert hub is not None
    wanted = revision or hub.revision
    if hub.archive:
        raise ExportError(
            f"the pictures of {record.name} come packed: download {hub.repo}@{wanted} from the "
            f"Hub, unpack {hub.archive} into the same folder and give --suite {record.name}=FOLDER"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                hub.repo, repo_type="dataset", revision=wanted, allow_patterns=list(record.files)
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ExportError(
            f"the suite {record.name} cannot be fetched from {hub.repo}@{wanted or 'main'} "
            f"({_first(error)}); download it and give --suite {record.name}=PATH"
        ) from error
    commit = folder.name if _COMMIT.fullmatch(folder.name) else str(wanted)
    tables = _tables(record, folder, f"{hub.repo}@{commit}")
    kind = "hub" if wanted else "newest"
    return Source(tables, f"{kind}:{hub.repo}@{commit}", folder, (hub.repo, commit))


def _tables(record: SuiteRecord, folder: Path, where: str) -> list[Path]:
    tables = sorted({path for pattern in record.files for path in folder.glob(pattern)})
    if not tables:
        raise ExportError(f"{where} holds no {' or '.join(record.files)}; is it {record.name}?")
    return tables


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
