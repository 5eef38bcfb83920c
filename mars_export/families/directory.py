"""Files of a checkpoint: which there are, their digests, and how to reuse their bytes."""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event, Lock
from typing import Any, Final

from mars_export.common.errors import ExportError

__all__ = [
    "companions",
    "digest",
    "digests",
    "is_companion",
    "is_legal",
    "read_config",
    "read_json",
    "reuse",
    "write_text",
]

# Besides its weights a checkpoint is these files; all else in a repository stays behind.
_COMPANIONS: Final = frozenset(
    {
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "generation_config.json",
        "merges.txt",
        "preprocessor_config.json",
        "processor_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "video_preprocessor_config.json",
        "vocab.json",
    }
)
_LEGAL: Final = re.compile(
    r"(?i)[\w.-]*(?:licen[cs]e|notice|policy|terms|eula|copying|agreement)[\w.-]*"
)
"""Names of files with terms, such as LICENSE, Notice.txt or USE_POLICY.md."""
_TEXTS: Final = frozenset({"", ".txt", ".md", ".rst", ".pdf", ".html", ".htm"})
_CHUNK: Final = 1 << 22
_AT_ONCE: Final = 4
"""Files that are hashed at once: many disks read faster than one processor hashes."""


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        ExportError: if it cannot be read or parsed.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{path} is not valid JSON: {error}; download it again") from error


def read_config(directory: Path) -> dict[str, Any]:
    """The config.json of a model.

    Raises:
        ExportError: if it cannot be read or is no object with a `model_type`.
    """
    config = read_json(directory / "config.json")
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ExportError(
            f"{directory / 'config.json'} names no model_type; give a Transformers model"
        )
    return config


def companions(base: Path) -> list[Path]:
    """Tokenizer, processor, template, generation and license files of a checkpoint, sorted."""
    paths = [*base.iterdir(), *base.glob("additional_chat_templates/*")]
    return sorted(p for p in paths if is_companion(p.relative_to(base).as_posix()) and p.is_file())


def is_companion(path: str) -> bool:
    """Whether a file, by its path in a checkpoint, is one of them."""
    folder, _, name = path.rpartition("/")
    if folder:
        return folder == "additional_chat_templates" and name.endswith(".jinja")
    return name in _COMPANIONS or is_legal(name)


def is_legal(name: str) -> bool:
    """Whether a file of this name holds terms, which travel with the weights."""
    return bool(_LEGAL.fullmatch(name)) and Path(name).suffix.lower() in _TEXTS


def reuse(source: Path, target: Path) -> None:
    """Put the bytes of `source` at `target`: hard link where the file systems allow, else a copy.

    Snapshots of the Hub cache are symbolic links, hence the resolved path.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    real = source.resolve()
    try:
        os.link(real, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copyfile(real, target)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with Unix line ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def digest(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file, read in pieces; `progress` is told the bytes of each piece."""
    sha = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            sha.update(piece)
            if progress:
                progress(len(piece))
    return sha.hexdigest()


def digests(paths: Iterable[Path], progress: Callable[[int], None] | None = None) -> list[str]:
    """SHA-256 of each file, a few files at a time; `progress` is told one piece after the other.

    Raises:
        OSError: if a file cannot be read; the others are left then.
    """
    lock, stopped = Lock(), Event()

    def count(size: int) -> None:
        if stopped.is_set():
            raise InterruptedError
        with lock:
            if progress:
                progress(size)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        waiting = [pool.submit(digest, path, count) for path in paths]
        try:
            done, _ = wait(waiting, return_when=FIRST_EXCEPTION)
            for one in done:
                one.result()
            return [one.result() for one in waiting]
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
