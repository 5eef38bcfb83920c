"""The public surface: what a command does, one public call does, with public types and defaults."""

import ast
import inspect
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import pytest
from pydantic import BaseModel

import mars_export
from mars_export.cli.main import cli
from mars_export.pipeline.settings import Settings, sections

PUBLIC = {name: getattr(mars_export, name) for name in mars_export.__all__}
CALLS = {n: call for n, call in PUBLIC.items() if inspect.isfunction(inspect.unwrap(call))}
COMMANDS = {
    "": {"export"},
    "adopt": {"adopt"},
    "ask": {"ask"},
    "attack": {"attack"},
    "card": {"write_card"},
    "compare": {"compare"},
    "demo": set(),  # a page, not a call
    "drift": {"measure_drift", "own_prompts", "tuning_set"},
    "evaluate": {"evaluate", "open_suites", "judge_named", "engine_named"},
    "families": {"supported_families"},
    "onnx": {"export_onnx"},
    "push": {"publish"},
    "recalibrate": {"recalibrate"},
    "seal": {"write_seal"},
    "suites": {"known_suites"},
    "utility": {"compare_utility", "measure_utility"},
    "verify": {"verify"},
}
"""Command, "" for the main one -> the public calls that do the same."""
PROMPTS = {"packaged_prompts", "prompts_from_files", "prompts_from_suite"}
OTHER_CALLS = {"calibrate", "load_base", "write_checkpoint", "progress_for", *PROMPTS}
"""Parts of the main command, for people who put their own together."""

NOT_FLAGS = {"dtype", "judge", "quantization", "thinking"}
"""Parameters whose None stands for the rules, or for what the checkpoint states."""


def packaged_types(annotation):
    """The classes of this package in an annotation."""
    if isinstance(annotation, list):
        yield from (kind for part in annotation for kind in packaged_types(part))
    elif get_origin(annotation) is not None:
        yield from (kind for part in get_args(annotation) for kind in packaged_types(part))
    elif getattr(annotation, "__module__", "").startswith("mars_export"):
        yield annotation


def test_every_command_has_its_public_calls():
    assert set(COMMANDS) == {"", *cli.commands}
    assert set().union(*COMMANDS.values(), OTHER_CALLS) == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_types_of_public_calls_are_public_and_documented(name):
    assert inspect.getdoc(CALLS[name])
    hints = get_type_hints(CALLS[name], localns=PUBLIC)
    assert hints, "no annotations"
    wanted = [kind for hint in hints.values() for kind in packaged_types(hint)]
    assert [kind for kind in wanted if kind not in PUBLIC.values()] == []


def test_names_for_type_checkers_are_those_that_are_loaded():
    tree = ast.parse(Path(mars_export.__file__).read_text("utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    checked = {
        alias.asname: (line.module, alias.name) for line in block.body for alias in line.names
    }
    loaded = {}
    for name, home in mars_export._HOME.items():
        module, _, attribute = home.partition(":")
        loaded[name] = (f"mars_export.{module}", attribute or name)
    assert checked == loaded


def test_an_option_has_one_default():
    """In every public call and in every model that a call takes, as on the command line."""
    fields = {n: field for section in sections(Settings).values() for n, field in section.items()}
    for call in CALLS.values():
        hints = get_type_hints(call, localns=PUBLIC)
        found = {n: p.default for n, p in inspect.signature(call).parameters.items()}
        for model in (kind for hint in hints.values() for kind in packaged_types(hint)):
            if model.__name__.endswith("Options"):
                found |= defaults(model)
        for name in found.keys() & fields.keys() - NOT_FLAGS:
            if found[name] is not inspect.Parameter.empty:
                expected = fields[name].default
                assert found[name] == expected, f"{call.__name__}: {name}"


def defaults(model):
    if issubclass(model, BaseModel):
        return {name: field.default for name, field in model.model_fields.items()}
    return {name: p.default for name, p in inspect.signature(model).parameters.items()}


def test_commands_declare_no_setting_again():
    """`--device` and the like come from the settings, with their help and their default."""
    fields = {n: field for section in sections(Settings).values() for n, field in section.items()}
    described = {name: field.description for name, field in fields.items()}
    for command in cli.commands.values():
        for option in command.params:
            if option.name in {"device", "batch_size", "display", "suite", "max_new_tokens"}:
                assert option.help.startswith(described[option.name]), command.name
                assert option.envvar == f"MARS_{option.name.upper()}"
