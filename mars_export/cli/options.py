"""Options of the commands: flags, MARS_* variables and TOML keys, made from the settings models.

click keeps the order flag, variable, file, default, and knows where a value came from.
"""

import os
import tomllib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args, get_origin

import click
from click.core import ParameterSource
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from mars_export.common.errors import ExportError
from mars_export.pipeline.settings import Settings, sections

__all__ = ["GroupedHelp", "read_settings", "settings_options"]

_Model = TypeVar("_Model", bound=BaseModel)
_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
_CONFIG_KEY: Final = "mars_export.config"
_METAVARS: Final = {"Path": "FILE", "float": "X", "int": "N"}


class _Text(click.types.UnprocessedParamType):
    """Checked by the settings model; a variable separates several values as PATH does."""

    envvar_list_splitter = os.pathsep


class GroupedHelp(click.Command):
    """A command whose help lists its options in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section of options per group, then the subcommands if there are any."""
        options = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]
        records = {p.name: record for p in options if (record := p.get_help_record(ctx))}
        for title, fields in sections(Settings).items():
            if rows := [records.pop(name) for name in fields if name in records]:
                with formatter.section(title):
                    formatter.write_dl(rows)
        with formatter.section("Other"):
            formatter.write_dl(list(records.values()))
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)


def settings_options(
    model: type[BaseModel], *, only: Collection[str] | None = None, without: Collection[str] = ()
) -> _Decorator:
    """A decorator that adds an option for each field of `model`, and `--config`.

    Args:
        model: Settings model; the options of the methods come with `Settings`.
        only: Names of the fields; None for all.
        without: Names that are left out.
    """
    fields = _fields(model)
    names = [name for name in fields if only is None or name in only]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        options = [_option(name, fields[name]) for name in names if name not in without]
        for option in reversed([*options, _CONFIG_OPTION]):
            function = option(function)
        return function

    return decorate


def read_settings(model: type[_Model], ctx: click.Context, values: dict[str, Any]) -> _Model:
    """Check the values that click collected.

    Args:
        model: Settings model whose fields made the options.
        ctx: Context of the command; it knows where each value came from.
        values: Value by field name; None where nothing was given.

    Raises:
        ExportError: if a value is not valid, with the flag, variable or file that it came from.
    """
    try:
        return model.model_validate({n: v for n, v in values.items() if v not in (None, ())})
    except ValidationError as error:
        raise ExportError(_explain(error, ctx)) from error


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {name: f for section in sections(model).values() for name, f in section.items()}


def _option(name: str, field: FieldInfo) -> _Decorator:
    shared: dict[str, Any] = {"envvar": f"MARS_{name.upper()}", "help": _help(field)}
    if field.annotation is bool:
        return click.option(_flag(name), name, is_flag=True, default=None, **shared)
    if name == "push":  # the one flag whose value may be left out
        shared |= {"is_flag": False, "flag_value": "true"}
    several = get_origin(field.annotation) is tuple
    text = {"type": _Text(), "metavar": _metavar(field), "multiple": several, "default": None}
    return click.option(_flag(name), name, **text, **shared)


def _load_config(ctx: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExportError(f"--config {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ExportError(f"--config {path} is not valid TOML: {error}") from error
    fields = _fields(Settings)
    if unknown := sorted(values.keys() - fields.keys()):
        raise ExportError(f"{path}: unknown option {unknown[0]!r}; see mars-export --help")
    for name, value in values.items():
        several = get_origin(fields[name].annotation) is tuple
        items = value if several and isinstance(value, list) else [value]
        if not all(isinstance(item, str | int | float) for item in items):
            raise ExportError(f"{path}: {name} should be a text, a number, true or false")
        values[name] = items if several else value
    ctx.default_map, ctx.meta[_CONFIG_KEY] = values, path


_CONFIG_OPTION: Final = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    envvar="MARS_CONFIG",
    is_eager=True,
    expose_value=False,
    callback=_load_config,
    help="TOML file with any of these options, for example batch_size = 8.",
)


def _explain(error: ValidationError, ctx: click.Context) -> str:
    """The first problem as one line: where it was given, what it was, what it should be."""
    problems = error.errors()
    first = problems[0]
    if not first["loc"]:
        return first["msg"].removeprefix("Value error, ")
    name = str(first["loc"][0])
    if first["type"] == "missing":
        return f"{_flag(name)} is missing; see mars-export --help"
    expected = dict.fromkeys(
        problem["msg"].removeprefix("Input should be ").split(", unable")[0]
        for problem in problems
        if problem["loc"][0] == name
    )
    return f"{_origin(name, ctx)}: {first['input']!r} should be {' or '.join(expected)}"


def _origin(name: str, ctx: click.Context) -> str:
    match ctx.get_parameter_source(name):
        case ParameterSource.ENVIRONMENT:
            return f"MARS_{name.upper()}"
        case ParameterSource.DEFAULT_MAP:
            return f"{ctx.meta[_CONFIG_KEY]}: {name}"
        case _:
            return _flag(name)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _help(field: FieldInfo) -> str:
    text = field.description or ""
    plain = isinstance(field.default, str | int | float) and not isinstance(field.default, bool)
    return f"{text}  [default: {field.default}]" if plain else text


def _metavar(field: FieldInfo) -> str:
    """What the field says, its choices, or a letter for its type."""
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    if get_origin(field.annotation) is Literal:
        return "|".join(map(str, get_args(field.annotation)))
    letters = (letter for kind, letter in _METAVARS.items() if kind in str(field.annotation))
    return str(extra.get("metavar") or next(letters, "VALUE"))
