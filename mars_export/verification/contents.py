"""Checks of the files: all there, unaltered, nothing beside them that would be loaded or run."""

from mars_export.checkpoint.integrity import changed_files, dangerous_files, stray_files
from mars_export.checkpoint.manifest import MANIFEST_NAME, checksum
from mars_export.verification.report import CheckFailedError, CheckSkippedError
from mars_export.verification.subject import Subject

__all__ = ["files_are_the_exported", "manifest_is_whole", "nothing_else_is_loaded", "plain_files"]

_SHOWN = 5


def manifest_is_whole(subject: Subject) -> str:
    """The manifest against its own checksum, and no file in it twice."""
    paths = [entry.path for entry in subject.manifest.files]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    if twice:
        raise CheckFailedError(f"{MANIFEST_NAME} lists {twice[0]} twice")
    stated = subject.manifest.manifest_sha256
    if stated is None:
        raise CheckSkippedError("written before manifests had a checksum")
    if checksum(subject.place.fetch(MANIFEST_NAME).read_bytes()) != stated:
        raise CheckFailedError(f"{MANIFEST_NAME} was changed after the export")
    return "as it was written"


def plain_files(subject: Subject) -> str:
    """Nothing that leads elsewhere: links, devices, pipes."""
    if subject.place.odd:
        raise CheckFailedError(*(f"{name} {what}" for name, what in subject.place.odd.items()))
    return f"{len(subject.place.sizes)} plain files, no link out of the checkpoint"


def files_are_the_exported(subject: Subject) -> str:
    """Every file of the manifest by size and SHA-256."""
    problems = list(changed_files(subject.place, subject.manifest, subject.progress))
    if problems:
        raise CheckFailedError(*problems)
    entries = subject.manifest.files
    return f"{len(entries)} files, {sum(e.size for e in entries):,} bytes, by SHA-256"


def nothing_else_is_loaded(subject: Subject) -> str:
    """No code, pickle or configuration that the export did not write."""
    problems = list(dangerous_files(subject.place, subject.manifest))
    if problems:
        raise CheckFailedError(*problems)
    stray = stray_files(subject.place, subject.manifest)
    if not stray:
        return "nothing beside the exported files"
    more = ", ..." if len(stray) > _SHOWN else ""
    return f"not looked at, as nothing loads it: {', '.join(stray[:_SHOWN])}{more}"
