"""Options of the commands: flags, MARS_* variables and TOML keys, made from the settings models.

click keeps the order flag, variable, file, default, and knows where each value came from, which a
settings model that reads variables and files itself could not say.
"""

import json
import os
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args, get_origin

import click
from click.core import ParameterSource
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from mars_export.cli.completion import completes
from mars_export.common.errors import ExportError
from mars_export.common.launch import is_first_process
from mars_export.common.missing import missing_directory, missing_file
from mars_export.common.paths import exists, is_dir, named
from mars_export.common.problems import near, near_file
from mars_export.pipeline.settings import Settings, sections

__all__ = [
    "DIRECTORY",
    "GroupedHelp",
    "as_json",
    "print_json",
    "read_settings",
    "settings_options",
]

_Model = TypeVar("_Model", bound=BaseModel)
_Function = TypeVar("_Function", bound=Callable[..., Any])
_CONFIG_KEY: Final = "mars_export.config"
_MODEL: Final = "settings_model"
"""Attribute of a command's function: the settings that its options are made from."""
_TYPO: Final = 0.9
"""How near a variable must be to one that is read: others may begin so too."""
_METAVARS: Final = {"Path": "FILE", "float": "X", "int": "N"}


class _Text(click.types.UnprocessedParamType):
    """Checked by the settings model; a variable separates several values as PATH does."""

    envvar_list_splitter = os.pathsep


class _Directory(click.Path):
    """A directory that a command works on: one that is not there is called that."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path, which is a directory."""
        path = named(str(super().convert(value, param, ctx)))
        if is_dir(path):
            return path
        hint = "" if exists(path) or near_file(path) else "; check the path"
        if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", str(value)):
            hint = f"; if that is a repository, run `hf download {value} --local-dir DIR` first"
        raise ExportError(missing_directory(path) + hint)


DIRECTORY: Final = _Directory(path_type=Path)
"""Type of the arguments and options that name a directory which must be there."""


as_json: Final = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else, on stdout."
)
"""The option of commands whose result a program may read."""


def print_json(result: BaseModel | Any, **first: object) -> None:
    """Print a result: a record, with what follows from it first, or what `json` can write."""
    if isinstance(result, BaseModel):
        result = {**first, **json.loads(result.model_dump_json())}
    click.echo(json.dumps(result, indent=2, default=str))


class GroupedHelp(click.Command):
    """A command whose help lists its options in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections of the settings, the other options, and the subcommands."""
        options = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]
        records = {p.name: record for p in options if (record := p.get_help_record(ctx))}
        for title, names in _sections(getattr(self.callback, _MODEL, Settings)).items():
            if rows := [records.pop(name) for name in names if name in records]:
                with formatter.section(title):
                    formatter.write_dl(rows)
        with formatter.section("Other"):
            formatter.write_dl(list(records.values()))
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)


def settings_options(
    model: type[BaseModel], without: Collection[str] = (), only: Collection[str] | None = None
) -> Callable[[_Function], _Function]:
    """A decorator that adds an option per field of `model` but those left out, and `--config`."""

    def decorate(function: _Function) -> _Function:
        chosen = _fields(model).keys() - set(without) if only is None else only
        fields = {name: field for name, field in _fields(model).items() if name in chosen}
        config = _config_option(model)
        for option in (config, *(_option(*item) for item in reversed(fields.items()))):
            function = option(function)
        setattr(function, _MODEL, model)
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
    _warn_of_variables()
    try:
        return model.model_validate({n: v for n, v in values.items() if v not in (None, ())})
    except ValidationError as error:
        raise ExportError(_explain(error, ctx)) from error


def _warn_of_variables() -> None:
    """Say which variables of the environment look like a mistyped option, and are not read."""
    if not is_first_process():
        return
    names = {f"MARS_{field.upper()}" for field in _fields(Settings)}
    for name in sorted(os.environ.keys() - names):
        if name.startswith("MARS_") and (hint := near(name, names, _TYPO)):
            click.echo(f"mars-export: warning: {name} is not read{hint}", err=True)


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {name: f for section in sections(model).values() for name, f in section.items()}


def _sections(model: type[BaseModel]) -> dict[str, list[str]]:
    """Names of options by section: where `model` has them, the rest as the main command."""
    own, owned = sections(model), _fields(model)
    return {
        title: [name for name in {**main, **own[title]} if name in own[title] or name not in owned]
        for title, main in sections(Settings).items()
    }


def _option(name: str, field: FieldInfo) -> Callable[[_Function], _Function]:
    kind: dict[str, Any] = {"is_flag": True}
    if field.annotation is not bool:
        kind = {"type": _Text(), "metavar": _metavar(field), "multiple": _is_list(field)}
    if name == "push":  # the one flag whose value may be left out
        kind |= {"is_flag": False, "flag_value": "true"}
    envvar = f"MARS_{name.upper()}"
    flag = f"{_flag(name)}/{_flag(f'no-{name}')}" if field.default is True else _flag(name)
    kind["shell_complete"] = completes(name, field)
    return click.option(flag, name, envvar=envvar, help=_help(field), default=None, **kind)


def _config_option(model: type[BaseModel]) -> Callable[[_Function], _Function]:
    fields = {**_fields(Settings), **_fields(model)}
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        envvar="MARS_CONFIG",
        is_eager=True,
        expose_value=False,
        callback=partial(_load_config, fields),
        help="TOML file with any of these options, for example batch_size = 8.",
    )


def _load_config(
    fields: Mapping[str, FieldInfo],
    ctx: click.Context,
    _parameter: click.Parameter,
    path: Path | None,
) -> None:
    if path is None:
        return
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ExportError(f"--config {path}: {missing_file(path)}") from error
    except OSError as error:
        raise ExportError(f"--config {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ExportError(f"--config {path} is not valid TOML: {error}") from error
    for name, value in values.items():
        if name not in fields:
            hint = near(name, fields) or f"; see {ctx.command_path} --help"
            raise ExportError(f"{path}: unknown option {name!r}{hint}")
        items = value if _is_list(fields[name]) and isinstance(value, list) else [value]
        if not all(isinstance(item, str | int | float) for item in items):
            raise ExportError(f"{path}: {name} should be a text, a number, true or false")
        values[name] = items if _is_list(fields[name]) else value
    ctx.default_map, ctx.meta[_CONFIG_KEY] = values, path


def _explain(error: ValidationError, ctx: click.Context) -> str:
    """The first problem as one line: where it was given, what it was, what it should be."""
    first, *others = error.errors()
    if not first["loc"]:
        return first["msg"].removeprefix("Value error, ")
    name = str(first["loc"][0])
    if first["type"] == "missing":
        return f"{_flag(name)} is missing; see {ctx.command_path} --help"
    alike = [p for p in (first, *others) if p["loc"][0] == name]  # the types of a union
    messages = (p["msg"].removeprefix("Input should be ").split(", unable")[0] for p in alike)
    origin, source = _flag(name), ctx.get_parameter_source(name)
    if source is ParameterSource.ENVIRONMENT:
        origin = f"MARS_{name.upper()}"
    elif source is ParameterSource.DEFAULT_MAP:
        origin = f"{ctx.meta[_CONFIG_KEY]}: {name}"
    given = first.get("ctx", {}).get("given", first["input"])
    return f"{origin}: {given!r} should be {' or '.join(dict.fromkeys(messages))}"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _is_list(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is tuple


def _help(field: FieldInfo) -> str:
    plain = isinstance(field.default, str | int | float) and not isinstance(field.default, bool)
    return (field.description or "") + (f"  [default: {field.default}]" if plain else "")


def _metavar(field: FieldInfo) -> str:
    """The choices, what the field says, or a letter for its type."""
    if get_origin(field.annotation) is Literal:
        return "|".join(map(str, get_args(field.annotation)))
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    letters = (letter for kind, letter in _METAVARS.items() if kind in str(field.annotation))
    return str(extra.get("metavar") or next(letters, "VALUE"))
