"""A Space of the Hub that shows a steered checkpoint: its files, and what they run there."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Final

import yaml
from packaging.requirements import Requirement

from mars_export.checkpoint.integrity import verify_files
from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.common.atomic import write_atomically
from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import Modality
from mars_export.families.directory import digest
from mars_export.methods import method_named

__all__ = ["SPACE_FILES", "checkpoint_of", "serve", "space_files", "write_space"]

SPACE_FILES: Final = ("README.md", "app.py", "requirements.txt")
_PACKAGE: Final = "mars-export"
_PORT: Final = 7860
"""That a Space has to listen at."""
_EVERYWHERE: Final = "0.0.0.0"
_EXTRAS: Final[dict[Modality, tuple[str, ...]]] = {
    "video": ("video", "suites"),
    "audio": ("audio",),
}

_APP: Final = '''\
"""Shows {repo} with steering off and on. Written by mars-export {version}."""

from mars_export.demo.space import serve

serve(
    {repo!r},
    manifest_sha256={digest!r},
)
'''

_TEXT: Final = """\
Asks [{repo}](https://huggingface.co/{repo}) with steering off and on, side by side, and shows what
the steering did. The checkpoint is a modified copy of {base}; its card says what was measured.

- The page loads the checkpoint only if every file is the one that was exported: `app.py` names the
  digest of its manifest.
- For a private or gated checkpoint, give this Space a secret `HF_TOKEN` that may read it.
- Files that visitors add are deleted as soon as they are read; nothing is logged.
"""


def checkpoint_of(manifest: Manifest, space: str) -> str:
    """The repository that `mars-export push` gives the checkpoint by default, of the same owner."""
    owner, _, _ = space.partition("/")
    method = method_named(manifest.calibration.method)
    return f"{owner}/{method.checkpoint_name(manifest.base.name)}"


def space_files(directory: Path, space: str, repo: str) -> dict[str, str]:
    """Name to content of the files of a Space.

    Args:
        directory: Steered checkpoint, as it is or will be published.
        space: `org/name` of the Space.
        repo: Repository of the checkpoint.

    Raises:
        ExportError: The directory has no manifest, or a package has no known version.
    """
    manifest = Manifest.read(directory)
    fields = {
        "title": space.partition("/")[2],
        "sdk": "gradio",
        "sdk_version": version("gradio"),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "app_file": "app.py",
        "models": [repo],
        "license": manifest.base.license,
        "pinned": False,
        "disable_embedding": True,
    }
    matter = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    text = _TEXT.format(repo=repo, base=manifest.base.name)
    sha256 = digest(directory / MANIFEST_NAME)
    app = _APP.format(repo=repo, version=version(_PACKAGE), digest=sha256)
    pins = "".join(f"{line}\n" for line in _requirements(manifest.calibration.source.modalities))
    contents = (f"---\n{matter}---\n\n# {fields['title']}\n\n{text}", app, pins)
    return dict(zip(SPACE_FILES, contents, strict=True))


def write_space(directory: Path, space: str, repo: str, target: Path) -> Path:
    """Write the folder of a Space.

    Args:
        directory: Steered checkpoint.
        space: `org/name` of the Space.
        repo: Repository of the checkpoint.
        target: Folder to make; files of a Space that are there are replaced, no others.

    Returns:
        `target`.

    Raises:
        ExportError: The target holds something else.
    """
    strange = [path.name for path in target.iterdir()] if target.is_dir() else []
    strange = sorted({*strange} - {*SPACE_FILES} - {".git", ".gitattributes"})
    if strange or (target.exists() and not target.is_dir()):
        what = strange[0] if strange else "a file"
        raise ExportError(f"{target} is not the folder of a Space (it holds {what}); give --output")
    for name, content in space_files(directory, space, repo).items():
        write_atomically(target / name, content)
    return target


def _requirements(modalities: Sequence[Modality]) -> Iterator[str]:
    """What the Space installs, each at the version that is installed here."""
    extras = ["demo", *(e for m in modalities for e in _EXTRAS.get(m, ()))]
    yield f"{_PACKAGE}[{','.join(extras)}]=={version(_PACKAGE)}"
    found = {}
    for line in distribution(_PACKAGE).requires or ():
        needed = Requirement(line)
        if not needed.marker or any(needed.marker.evaluate({"extra": e}) for e in extras):
            found[needed.name.lower()] = needed.name
    for name in sorted(found):
        try:
            # A build for other hardware has a local version, which the index does not know.
            yield f"{name}=={re.sub(r'[+].*', '', version(name))}"
        except PackageNotFoundError as error:
            raise ExportError(
                f"{name} is not installed, so the Space cannot name its version; install it"
            ) from error


def serve(repo: str, *, manifest_sha256: str, max_new_tokens: int = 256) -> None:
    """What `app.py` runs on the Hub: load the checkpoint that was meant, or nothing.

    Args:
        repo: Repository of the checkpoint.
        manifest_sha256: Digest of its manifest's file.
        max_new_tokens: Longest answer, in tokens.

    Raises:
        ExportError: The repository holds another checkpoint, or a file that was changed.
    """
    from huggingface_hub import snapshot_download

    from mars_export.common.quiet import quiet_libraries
    from mars_export.demo.asking import open_subject
    from mars_export.demo.server import served, wait

    quiet_libraries()
    directory = Path(snapshot_download(repo))
    require_meant(directory, repo, manifest_sha256)
    subject = open_subject(directory, name=repo, max_new_tokens=max_new_tokens)
    with served(subject, port=_PORT, host=_EVERYWHERE):
        wait()


def require_meant(directory: Path, repo: str, manifest_sha256: str) -> None:
    """Refuse a checkpoint that is not the one that a Space was written for.

    Raises:
        ExportError: It is another, or a file of it was changed.
    """
    if digest(directory / MANIFEST_NAME) != manifest_sha256:
        raise ExportError(
            f"{repo} holds another checkpoint than the one that this Space was written for; "
            "write the Space again with `mars-export demo DIR --space`"
        )
    if problems := verify_files(directory):
        raise ExportError(f"{repo}: {problems[0]}; publish it again")
