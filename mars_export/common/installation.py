"""How this package was installed, and so how an extra of it is."""

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

__all__ = ["install_extra"]

_NAME: Final = "mars-export"
_ROOT: Final = Path(__file__).parents[2]
_CONSTRAINTS: Final = "constraints.txt"


def install_extra(extra: str | None = None) -> str:
    """The command that installs an extra of this package, or the package anew.

    In a checkout it keeps the versions of `constraints.txt`; elsewhere it takes the package from
    where pip took it: an index, an archive, a directory or a repository.

    Args:
        extra: For example `onnx`; None for none.
    """
    brackets = f"[{extra}]" if extra else ""
    if all((_ROOT / name).is_file() for name in (_CONSTRAINTS, "pyproject.toml")):
        here = Path() if Path.cwd() == _ROOT else _ROOT
        constraints, place = shlex.quote(str(here / _CONSTRAINTS)), shlex.quote(f"{here}{brackets}")
        return f"pip install -c {constraints} -e {place}"
    return f"pip install {shlex.quote(_NAME + brackets + _origin())}"


def _origin() -> str:
    """Where pip took the package from, as a requirement says it; empty for an index."""
    try:
        record = json.loads(distribution(_NAME).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return ""
    if not isinstance(record, dict) or "url" not in record:
        return ""
    source = record.get("vcs_info")
    if source:
        return f" @ {source['vcs']}+{record['url']}@{source['commit_id']}"
    return f" @ {record['url']}"
