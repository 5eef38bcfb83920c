"""`--suite` in all the ways that it can be given, and the list of what there is."""

import click
import pytest

from mars_export.cli.options import read_settings, settings_options
from mars_export.evaluation.suites.record import known_suites
from mars_export.pipeline.settings import EvaluationSettings, Settings


@pytest.fixture
def given(monkeypatch, tmp_path):
    @click.command()
    @settings_options(EvaluationSettings)
    @click.pass_context
    def command(ctx, /, **values):
        return read_settings(EvaluationSettings, ctx, values)

    return lambda *arguments: command.main(list(arguments), standalone_mode=False).suite


def test_suites_come_from_flags_environment_and_file(given, monkeypatch, tmp_path):
    assert given() == ()
    assert given("--suite", "xstest", "--suite", "a=b c") == ("xstest", "a=b c")
    monkeypatch.setenv("MARS_SUITE", "xstest:my file.jsonl")
    assert given() == ("xstest", "my file.jsonl")
    assert given("--suite", "figstep") == ("figstep",)
    monkeypatch.delenv("MARS_SUITE")
    config = tmp_path / "c.toml"
    for text, want in [('"figstep"', ("figstep",)), ('["a", "b"]', ("a", "b"))]:
        config.write_text(f"suite = {text}\nattacks = true\n")
        assert given("--config", str(config)) == want


def test_one_suite_may_stand_alone_in_python(tmp_path):
    assert Settings(model="x", suite="xstest").suite == ("xstest",)
    assert Settings(model="x", suite=tmp_path).suite == (str(tmp_path),)


def test_every_suite_is_listed_with_its_license(mars):
    done = mars("suites")
    assert done.code == 0
    lines = {line.split()[0]: line for line in done.out.splitlines()[1:]}
    assert set(lines) == {"typographic", *known_suites()}
    for name, record in known_suites().items():
        assert record.license in lines[name]
        assert f" {record.samples} " in lines[name]


def test_an_unknown_suite_is_a_user_error(mars, tmp_path):
    (tmp_path / "steered").mkdir()
    done = mars("evaluate", "steered", "--suite", "xtest")
    assert done.code == 2
    assert done.errors == [
        "mars-export: error: --suite xtest: neither a known suite nor a file; is it xstest? "
        "see mars-export suites"
    ]
