"""The engine that `--engine` names."""

from collections.abc import Iterator
from pathlib import Path

from mars_export.checkpoint.manifest import Manifest
from mars_export.common.errors import ExportError
from mars_export.evaluation.engines.base import Engine
from mars_export.evaluation.engines.evidence import Evidence, recorded
from mars_export.evaluation.reports import main_folder, others
from mars_export.evaluation.suite import Suite
from mars_export.evaluation.suites.catalog import open_suites
from mars_export.pipeline.evaluation import suites_at_hand

__all__ = ["engine_named"]


def engine_named(
    name: str,
    directory: Path,
    suite: Suite,
    endpoint: str | None = None,
    base_endpoint: str | None = None,
) -> Engine | None:
    """Make an engine; nothing is loaded or sent.

    Args:
        name: One of `ENGINES`.
        directory: Steered checkpoint.
        suite: What is going to be asked.
        endpoint: Address of the server of the steered checkpoint.
        base_endpoint: That of the base model.

    Returns:
        None for Transformers in this process.

    Raises:
        ExportError: Addresses are missing or superfluous, what the engine needs is not installed,
            or the directory holds no answers that it could be compared with.
    """
    if name == "endpoint":
        if not (endpoint and base_endpoint):
            missing = "--base-endpoint" if endpoint else "--endpoint"
            raise ExportError(
                f"--engine endpoint: give {missing} URL#MODEL as well; it asks the steered "
                "checkpoint at --endpoint and its base at --base-endpoint"
            )
        from mars_export.evaluation.engines.endpoint import EndpointEngine

        return EndpointEngine(endpoint, base_endpoint, _evidence(directory, suite, name))
    if endpoint or base_endpoint:
        flag = "--endpoint" if endpoint else "--base-endpoint"
        raise ExportError(f"{flag}: it goes with --engine endpoint; give that, or leave it out")
    if name == "vllm":
        from mars_export.integrations.vllm.engine import VllmEngine

        return VllmEngine(_evidence(directory, suite, name))
    return None


def _evidence(directory: Path, suite: Suite, engine: str) -> Evidence:
    """The recorded answers of the first report that has some."""
    digest = Manifest.read(directory).steering_sha256
    folders = [main_folder(directory), *(folder for folder, _ in others(directory))]
    for asked in _suites(directory, suite):
        for folder in folders:
            if evidence := recorded(folder, digest, asked):
                return evidence
    raise ExportError(
        f"--engine {engine}: {directory} holds no answers of Transformers that differ with "
        "steering off and on, by which a server could be seen to steer; run `mars-export evaluate` "
        "on it once without --engine (a small --suite will do)"
    )


def _suites(directory: Path, suite: Suite) -> Iterator[Suite]:
    """What is asked, and what the directory was made with as far as it is at hand."""
    yield suite
    try:
        words = suites_at_hand(directory)
        kept = open_suites(words) if words else None
    except ExportError:  # its files are not at hand
        return
    if kept is not None:
        yield kept
