"""What a shell completes: commands, options and their values."""

import pytest
from click.shell_completion import ShellComplete

from mars_export.cli.main import cli


def offered(*words):
    *before, begun = words
    completer = ShellComplete(cli, {}, "mars-export", "_MARS_EXPORT_COMPLETE")
    return [item.value for item in completer.get_completions(list(before), begun)]


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["ev"], "evaluate"),
        (["evaluate", "--su"], "--suite"),
        (["evaluate", "x", "--suite", "xs"], "xstest"),
        (["evaluate", "x", "--judge", "q"], "qwen3guard"),
        (["evaluate", "x", "--arm", "sa"], "safety-prompt"),
        (["evaluate", "x", "--arm", "ran"], "random-direction"),
        (["compare", "--baseline", "ran"], "random-direction"),
        (["compare", "--tune-on", "xs"], "xstest"),
        (["--model", "organism:g"], "organism:gemma3"),
        (["--model", "x", "--method", "a"], "addition"),
        (["--model", "x", "--device", "m"], "mps"),
        (["--model", "x", "--dtype", "bf"], "bfloat16"),
    ],
)
def test_values_are_offered(words, value):
    assert value in offered(*words)


def test_only_what_was_begun(monkeypatch):
    assert offered("evaluate", "x", "--display", "ri") == ["rich"]
