"""The judge that `--judge` names. Free of torch."""

from pathlib import Path

from mars_export.common.errors import ExportError
from mars_export.evaluation.judges.base import Judge
from mars_export.evaluation.judges.guards import GUARDS
from mars_export.evaluation.judges.rules import RulesJudge

__all__ = ["judge_named"]


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
            "OpenAI-compatible endpoint"
        )
    from mars_export.evaluation.judges.local import LocalJudge

    return LocalJudge(kind, _directory(model) or None, device)


def _directory(model: str) -> str:
    path = Path(model).expanduser()
    return str(path) if model and path.is_dir() else model
