"""Values of options for the completion of a shell. Light until a shell asks."""

from collections.abc import Callable, Iterable
from typing import Final, Literal, get_args, get_origin

import click
from click.shell_completion import CompletionItem
from pydantic.fields import FieldInfo

__all__ = ["completes"]

_Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def completes(name: str, field: FieldInfo) -> _Complete:
    """What a shell offers for an option: its values, and files where it takes some.

    Args:
        name: Of a field of the settings.
        field: Tells its choices and its type.
    """

    def complete(_ctx: click.Context, _option: click.Parameter, begun: str) -> list[CompletionItem]:
        if get_origin(field.annotation) is Literal:
            known: Iterable[str] = get_args(field.annotation)
        else:
            known = _VALUES[name]() if name in _VALUES else ()
        items = [CompletionItem(value) for value in sorted(known) if value.startswith(begun)]
        kind = _FILES.get(name)
        return [*items, CompletionItem(begun, type=kind)] if kind else items

    return complete


def _models() -> Iterable[str]:
    from mars_export.pipeline.organisms import organisms

    return organisms()


def _suites() -> Iterable[str]:
    from mars_export.evaluation.suites.catalog import DEFAULT
    from mars_export.evaluation.suites.record import known_suites

    return [DEFAULT, *known_suites()]


def _judges() -> Iterable[str]:
    from mars_export.evaluation.judges.guards import GUARDS

    return ["rules", *GUARDS]


def _methods() -> Iterable[str]:
    from mars_export.methods import METHODS

    return [method.name for method in METHODS if method.exportable]


def _arms() -> Iterable[str]:
    from mars_export.evaluation.arms import NAMED_ARMS, NO_BASELINE

    return [*NAMED_ARMS, NO_BASELINE]


_VALUES: Final[dict[str, Callable[[], Iterable[str]]]] = {
    "model": _models,
    "suite": _suites,
    "tune_on": _suites,
    "judge": _judges,
    "method": _methods,
    "arm": _arms,
    "baseline": _arms,
}
_FILES: Final = {
    "model": "dir",
    "output": "dir",
    "suite": "file",
    "tune_on": "file",
    "harmful": "file",
    "harmless": "file",
}
"""Options that take a path, and whether it is that of a directory."""
