"""The judge that `--judge` names. Free of torch."""

from pathlib import Path
from typing import Final

from mars_export.common.errors import ExportError
from mars_export.common.missing import missing_directory
from mars_export.common.paths import is_dir, named
from mars_export.common.problems import near
from mars_export.evaluation.judges.base import Judge
from mars_export.evaluation.judges.guards import GUARDS
from mars_export.evaluation.judges.rules import RulesJudge

__all__ = ["NO_SECOND", "SECOND", "judge_named", "second_judge"]

SECOND: Final = "qwen3guard"
"""The guard that judges beside the rules where its weights are on this machine."""
NO_SECOND: Final = f"{GUARDS[SECOND].model} is not in the Hugging Face cache of this machine."
_WEIGHTS: Final = "*.safetensors"


def judge_named(word: str, device: str = "auto") -> Judge:
    """Make a judge; a model is loaded when it is first asked.

    Args:
        word: `rules`, the name of a guard, `GUARD:MODEL` for another checkpoint of the same
            kind (a repository or a directory), or the address of an OpenAI-compatible endpoint.
        device: Where a guard runs.

    Raises:
        ExportError: There is no such judge.
    """
    if word == "rules":
        return RulesJudge()
    if word.startswith(("http://", "https://")):
        from mars_export.evaluation.judges.endpoint import EndpointJudge

        return EndpointJudge(word)
    kind, _, model = word.partition(":")
    if kind not in GUARDS or word.endswith(":"):
        known = ", ".join(["rules", *GUARDS])
        raise ExportError(
            f"there is no judge {word!r}; choose {known}, GUARD:MODEL or the address of an "
            f"OpenAI-compatible endpoint{near(kind, ['rules', *GUARDS])}"
        )
    from mars_export.evaluation.judges.local import LocalJudge

    return LocalJudge(kind, _directory(model) or None, device)


def _directory(model: str) -> str:
    path = named(model)
    if model and is_dir(path):
        return str(path)
    if model.startswith(("/", "./", "../", "~")):
        raise ExportError(f"--judge: {missing_directory(path)}")
    return model


def second_judge(first: Judge, device: str = "auto") -> Judge | None:
    """A judge of the same answers that is independent of the first. Nothing is downloaded.

    Args:
        first: The judge that the report's verdicts come from.
        device: Where a guard runs.

    Returns:
        The rules beside a judge with verdicts of its own; the guard `SECOND` beside the rules, or
        None where its weights are not in the cache of Hugging Face.
    """
    if RulesJudge.name not in first.name:
        return RulesJudge()
    folder = _cached(GUARDS[SECOND].model)
    if folder is None:
        return None
    from mars_export.evaluation.judges.local import LocalJudge

    return LocalJudge(SECOND, str(folder), device)


def _cached(repository: str) -> Path | None:
    """The snapshot of a repository in the cache, if it has weights."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(repository, "config.json")
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    return folder if any(folder.glob(_WEIGHTS)) else None
