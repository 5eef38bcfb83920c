"""The command that makes a steered directory again, from what its records know."""

import shlex
from collections.abc import Iterator
from typing import Final

from mars_export.card.markdown import code
from mars_export.checkpoint.manifest import Manifest
from mars_export.evaluation.report import Report, SuiteSource
from mars_export.families.quantization import SCHEMES
from mars_export.methods.mars.record import mars_record

__all__ = ["command", "needs"]

_PACKAGED: Final = "mars-export/"
"""Start of the names of prompts and suites that ship with the package."""

_ENDPOINT: Final = "endpoint/"
"""Start of the names of judges behind an address."""

_LABELS: Final = ("harmful", "harmless")


def command(manifest: Manifest, report: Report | None, output: str) -> str:
    """The `mars-export` call, one option a line; every recorded setting is spelled out.

    Args:
        manifest: Record of the steered directory.
        report: Its evaluation, which knows the suite; None if there is none.
        output: Name of the directory to make.
    """
    base = manifest.base
    made_from = ("recalibrate" if base.derived_from else "--model", base.repo or base.name)
    pairs = (made_from, *_options(manifest, report), ("--output", output))
    lines = [f"{flag} {shlex.quote(value)}" if value else flag for flag, value in pairs]
    if manifest.family_inspected:
        lines.append("--allow-unknown-family")
    return "mars-export " + " \\\n  ".join(lines)


def needs(manifest: Manifest, report: Report | None) -> tuple[str, ...]:
    """What the command takes from the reader's disk, as Markdown in the order of use."""
    base = manifest.base
    found = [f"the directory {code(base.name)}"] if base.repo is None else []
    found += [f"the prompt file {code(name)}" for name in _prompt_files(manifest).values()]
    if report is not None and any("FILE" in asked for asked in _suites(manifest, report)):
        found.append(f"the suite {code(report.suite.name)} in place of FILE")
    if report is not None and report.judge.startswith(_ENDPOINT):
        found.append(f"the judge {code(report.judge)} in place of URL")
    return tuple(found)


def _options(manifest: Manifest, report: Report | None) -> Iterator[tuple[str, str]]:
    base, source = manifest.base, manifest.calibration.source
    record = mars_record(manifest.calibration)
    if base.revision is not None:
        yield "--revision", base.revision
    if base.repo is None:
        yield "--license", base.license
    yield "--dtype", source.dtype
    if source.quantization in SCHEMES:
        yield "--quantization", source.quantization
    yield "--seed", str(source.seed)
    if record.layer_forced:
        yield "--layer", str(record.layer)
    for label, name in _prompt_files(manifest).items():
        yield f"--{label}", name
    if report is not None:
        for asked in _suites(manifest, report):
            yield "--suite", asked
        yield from _judge(report.judge)
        for name in ("controls", "attacks"):
            if getattr(report, name):
                yield f"--{name}", ""
        if "max_new_tokens" in report.decoding:
            yield "--max-new-tokens", str(report.decoding["max_new_tokens"])


def _judge(name: str) -> Iterator[tuple[str, str]]:
    """The option that names the judge, from a name such as `qwen3guard/org/model@commit, ...`."""
    kind, _, rest = name.partition("/")
    if name.startswith(_ENDPOINT):
        yield "--judge", "URL"
    elif "@" in rest:
        yield "--judge", f"{kind}:{rest.partition('@')[0]}"


def _prompt_files(manifest: Manifest) -> dict[str, str]:
    """Names of the user's prompt files by label; none for prompts of the package or the base."""
    names = {label: manifest.calibration.source.prompts[label].name for label in _LABELS}
    if any(_is_found_unasked(name, label) for label, name in names.items()):
        return {}
    return names


def _is_found_unasked(name: str, label: str) -> bool:
    return name.startswith(_PACKAGED) or name == f"suite.jsonl ({label})"


def _suites(manifest: Manifest, report: Report) -> list[str]:
    """What was given with `--suite`; nothing where the suite is found unasked."""
    sources = [suite.source for suite in report.suites] or [report.suite]
    if len(sources) == 1 and not _own_suite(manifest, report):
        return []
    return [_asked(source, alone=len(sources) == 1) for source in sources]


def _asked(source: SuiteSource, alone: bool) -> str:
    kind, _, rest = source.origin.partition(":")
    if kind == "known":
        return rest
    if kind == "hub":
        return f"{source.name}@{rest.rpartition('@')[2]}"
    if source.name.startswith(_PACKAGED):
        return source.name.removeprefix(_PACKAGED)
    return "FILE" if alone else f"{source.name}=FILE"


def _own_suite(manifest: Manifest, report: Report) -> bool:
    """Whether the suite was given with `--suite`: not the package's, and not the base's own."""
    bundled = manifest.base.repo is None and report.suite.name == manifest.base.name
    return not (bundled or report.suite.name.startswith(_PACKAGED))
