"""Command-line options, environment variables and TOML keys, made from a settings model."""

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
from mars_export.pipeline.settings import GROUPS, Settings

__all__ = ["GroupedHelp", "read_settings", "settings_options"]

_Model = TypeVar("_Model", bound=BaseModel)
_CONFIG_KEY: Final = "mars_export.config"
_OTHER: Final = "Other"


class GroupedOption(click.Option):
    """An option that knows its section of the help text."""

    def __init__(self, *args: Any, group: str = _OTHER, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class _Several(click.types.UnprocessedParamType):
    """A value that may be given several times; an environment variable separates them as PATH."""

    envvar_list_splitter = os.pathsep


class GroupedHelp(click.Command):
    """A command whose help lists its options in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section of options per group, then the subcommands if there are any."""
        sections: dict[str, list[tuple[str, str]]] = {group: [] for group in (*GROUPS, _OTHER)}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Option) and record is not None:
                sections[getattr(parameter, "group", _OTHER)].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)


def settings_options(
    model: type[BaseModel], without: Collection[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that adds one option per field of `model` but those left out, and `--config`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        options = [
            _option(name, info) for name, info in model.model_fields.items() if name not in without
        ]
        for option in reversed([*options, _config_option()]):
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
    given = {name: value for name, value in values.items() if value not in (None, ())}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise ExportError(_explain(error, ctx)) from error


def _option(name: str, info: FieldInfo) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    common: dict[str, Any] = {
        "cls": GroupedOption,
        "group": extra.get("group", _OTHER),
        "envvar": f"MARS_{name.upper()}",
        "help": _help(info),
        "default": None,
    }
    flag = _flag(name)
    if info.annotation is bool:
        return click.option(flag, name, is_flag=True, **common)
    common |= {"type": click.UNPROCESSED, "metavar": extra.get("metavar") or _metavar(info)}
    if get_origin(info.annotation) is tuple:
        common |= {"type": _Several(), "multiple": True}
    if name == "push":  # the one flag whose value may be left out
        common |= {"is_flag": False, "flag_value": "true"}
    return click.option(flag, name, **common)


def _config_option() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--config",
        cls=GroupedOption,
        type=click.Path(path_type=Path),
        metavar="FILE",
        envvar="MARS_CONFIG",
        is_eager=True,
        expose_value=False,
        callback=_load_config,
        help="TOML file with any of these options, for example batch_size = 8.",
    )


def _load_config(ctx: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExportError(f"--config {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ExportError(f"--config {path} is not valid TOML: {error}") from error
    unknown = sorted(set(values) - set(Settings.model_fields))
    if unknown:
        raise ExportError(f"{path}: unknown option {unknown[0]!r}; see mars-export --help")
    several = {n for n, i in Settings.model_fields.items() if get_origin(i.annotation) is tuple}
    for name, value in values.items():
        items = value if name in several and isinstance(value, list) else [value]
        if not all(isinstance(item, str | int | float) for item in items):
            raise ExportError(f"{path}: {name} should be a text, a number, true or false")
    ctx.default_map = {
        name: [value] if name in several and isinstance(value, str) else value
        for name, value in values.items()
    }
    ctx.meta[_CONFIG_KEY] = path


def _explain(error: ValidationError, ctx: click.Context) -> str:
    """The first problem as one line: where it was given, what it was, what it should be."""
    problems = error.errors()
    first = problems[0]
    if not first["loc"]:
        return first["msg"].removeprefix("Value error, ")
    name = str(first["loc"][0])
    if first["type"] == "missing":
        return f"{_flag(name)} is missing; see mars-export --help"
    messages = dict.fromkeys(
        problem["msg"].removeprefix("Input should be ").split(", unable")[0]
        for problem in problems
        if problem["loc"][0] == name
    )
    return f"{_origin(name, ctx)}: {first['input']!r} should be {' or '.join(messages)}"


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


def _help(info: FieldInfo) -> str:
    text = info.description or ""
    shown = isinstance(info.default, str | int) and not isinstance(info.default, bool)
    return f"{text}  [default: {info.default}]" if shown else text


def _metavar(info: FieldInfo) -> str:
    if get_origin(info.annotation) is Literal:
        return "|".join(map(str, get_args(info.annotation)))
    return "VALUE"
