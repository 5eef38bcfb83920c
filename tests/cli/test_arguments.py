"""Arguments, environment and file: what reaches the settings, and what is said when it is wrong."""

import re
from types import SimpleNamespace

import click
import pytest
from pydantic import ValidationError

from mars_export.cli.main import cli
from mars_export.cli.options import read_settings
from mars_export.common.installation import install_extra
from mars_export.evaluation.baselines import BASELINES
from mars_export.families import families
from mars_export.inputs.stimuli import MIXTURE
from mars_export.methods import METHODS
from mars_export.methods.base import MethodOptions
from mars_export.pipeline import settings as settings_module
from mars_export.pipeline.settings import Settings, sections


@pytest.fixture
def settings_of(monkeypatch):
    """The settings that the main command would run with."""

    def read(*arguments):
        found = []
        monkeypatch.setattr(
            "mars_export.cli.export.export",
            lambda ctx, values, _: found.append(read_settings(Settings, ctx, values)),
        )
        cli.main(["--model", "x", *arguments], standalone_mode=False)
        return found[0]

    return read


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        ([], "push", False),
        (["--push"], "push", True),
        (["--push", "org/name"], "push", "org/name"),
        (["--push", "--overwrite"], "push", True),
        (["--push=no"], "push", False),
        (["--batch-size", "8"], "batch_size", 8),
        (["--private"], "private", True),
        (["--allow-unknown-family"], "allow_unknown_family", True),
        (["--seed", "7"], "seed", 7),
        ([], "kinds", MIXTURE),
        (["--neutral", "color"], "kinds", ("color",)),
        (["--neutral", "writing, scene"], "kinds", ("writing", "scene")),
        (["--display", "none"], "display", "none"),
        (["--dtype=bfloat16"], "dtype", "bfloat16"),
        (["--model", "later"], "model", "later"),
    ],
)
def test_flags(settings_of, arguments, field, value):
    assert getattr(settings_of(*arguments), field) == value


def test_flag_beats_environment_beats_file_beats_default(settings_of, monkeypatch, tmp_path):
    (tmp_path / "mars.toml").write_text("seed = 3\nlayer = 3\npush = true\nmax_new_tokens = 3")
    monkeypatch.setenv("MARS_SEED", "2")
    monkeypatch.setenv("MARS_LAYER", "2")
    found = settings_of("--config", "mars.toml", "--seed", "1")
    assert (found.seed, found.max_new_tokens, found.dtype) == (1, 3, "auto")
    assert found.method_options.layer == 2
    assert found.push is True


def test_every_field_is_an_option_an_environment_variable_and_a_key():
    options = {p.name: p for p in cli.params if isinstance(p, click.Option)}
    for fields in sections(Settings).values():
        for name in fields:
            assert options.pop(name).opts == ["--" + name.replace("_", "-")]
    assert set(options) == {"as_json", "config", "version"}
    assert {name for fields in sections(Settings).values() for name in fields} == {
        *Settings.model_fields.keys() - {"method_options"},
        *(name for method in METHODS if method.exportable for name in method.Options.model_fields),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--model is missing; see mars-export --help"),
        (["--model", ""], "--model: '' should be"),
        (["--seed", "-1"], "--seed: '-1' should be greater than or equal to 0"),
        (["--neutral", "color,nois"], "--neutral: 'color,nois' should be mixture, or with"),
        (["--neutral", "mixtur"], "is it mixture?"),
        (["--batch-size", "0"], "--batch-size: '0' should be greater than 0"),
        (["--batch-size", "many"], "--batch-size: 'many' should be a valid integer"),
        (["--device", "tpu"], "--device: 'tpu' should be 'auto', 'cpu', 'cuda' or 'mps'"),
        (["--harmful", "a.txt"], "--harmful is given without --harmless; give both or neither"),
        (["--harmless", "a.txt"], "--harmless is given without --harmful; give both or neither"),
        (["--nonsense"], "No such option '--nonsense'; "),
        (["--mdel", "x"], "No such option '--mdel'; is it --model? see mars-export --help"),
        (["evalute"], "No such command 'evalute'; is it evaluate? see mars-export --help"),
        (["--method", "marz"], "; is it mars?"),
        (["nonsense"], "No such command 'nonsense'"),
        (["--output"], "Option '--output' requires an argument"),
        (["--config", "no.toml"], "--config no.toml: there is no file no.toml"),
        (["--config", "bad.toml"], "--config bad.toml is not valid TOML: "),
        (["--config", "unknown.toml"], "unknown.toml: unknown option 'sed'; is it seed?"),
        (["--config", "value.toml"], "value.toml: seed: 'x' should be a valid integer"),
        (["card"], "Missing argument 'DIRECTORY'; see mars-export card --help"),
        (["card", ".", "--repo", "a b"], "a b cannot be a repository: give ORG/NAME"),
        (["attack", ".", "--steps", "0"], "--steps: 0 is not in the range x>=1; see mars-export"),
        (["attack", ".", "--draws", "x"], "--draws: 'x' is not a valid integer; see mars-export"),
        (["push", ".", "--device", "cpu"], "No such option '--device'"),
        (["evaluate", "./no/such"], "there is no directory no/such; check the path"),
        (["evaluate", "no/such"], "run `hf download no/such --local-dir DIR` first"),
    ],
)
def test_one_line_and_exit_code_2(mars, tmp_path, arguments, message):
    (tmp_path / "bad.toml").write_text("seed = = 3")
    (tmp_path / "unknown.toml").write_text("sed = 3")
    (tmp_path / "value.toml").write_text("seed = 'x'")
    started = sorted(tmp_path.iterdir())
    model = ["--model", "m"] if arguments and "--model" not in arguments else []
    result = mars(*model, *arguments)
    assert result.code == 2
    assert len(result.errors) == 1
    assert result.errors[0].startswith("mars-export: error: ")
    assert message in result.errors[0]
    assert sorted(tmp_path.iterdir()) == started


def test_a_wrong_environment_variable_is_named(mars, monkeypatch):
    monkeypatch.setenv("MARS_DEVICE", "toaster")
    assert "MARS_DEVICE: 'toaster'" in mars("--model", "m").errors[0]


def test_a_mistyped_environment_variable_is_named(mars, monkeypatch, settings_of, capsys):
    monkeypatch.setenv("MARS_BATCHSIZE", "4")
    monkeypatch.setenv("MARS_ROVER", "4")
    assert settings_of().batch_size == Settings(model="x").batch_size
    assert capsys.readouterr().err == (
        "mars-export: warning: MARS_BATCHSIZE is not read; is it MARS_BATCH_SIZE?\n"
    )


def test_version(mars):
    import mars_export

    result = mars("--version")
    assert (result.code, result.out) == (0, f"mars-export, version {mars_export.__version__}\n")


def test_families(mars):
    result = mars("families")
    assert result.code == 0
    assert {line.split()[0] for line in result.out.splitlines()} == set(families())
    assert install_extra("video") in result.out
    (omni,) = (line for line in result.out.splitlines() if line.startswith("qwen2_5_omni"))
    assert install_extra("video,audio") in omni
    assert len({line.rindex(" text") for line in result.out.splitlines()}) == 1  # columns


class TestMethods:
    """Two methods that make checkpoints and share an option, and one that is an arm only."""

    @pytest.fixture(autouse=True)
    def methods(self, monkeypatch):
        class First(MethodOptions):
            layer: int | None = None
            gain: float | None = None

        class Second(MethodOptions):
            layer: int | None = None
            strength: float = 1.0

        exportable = {
            "first": SimpleNamespace(name="first", Options=First),
            "second": SimpleNamespace(name="second", Options=Second),
        }
        owners = {"layer": ("first", "second"), "gain": ("first",), "strength": ("second",)}
        monkeypatch.setattr(settings_module, "EXPORTABLE", exportable)
        monkeypatch.setattr(settings_module, "_OWNERS", owners)
        arm = SimpleNamespace(name="words")
        monkeypatch.setattr(settings_module, "METHODS", (*exportable.values(), arm))

    def test_options_are_those_of_the_method(self):
        first = Settings(model="x", method="first", layer="3", gain=0.5)
        assert first.method_options.model_dump() == {"layer": 3, "gain": 0.5}
        assert Settings(model="x", method="second").method_options.model_dump() == {
            "layer": None,
            "strength": 1.0,
        }
        assert Settings(**first.model_dump()) == first

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"strength": 1}, "left out: it is an option of second, not of first"),
            ({"layer": "x"}, "valid integer"),
            ({"method": "words"}, "makes a checkpoint: first, second; words is an arm of the eval"),
            ({"method": "nonsense"}, "a method that makes a checkpoint: first, second"),
            ({"method": ["first"]}, "valid string"),
            ({"method_options": 3}, "valid dictionary"),
            ({"gain": 2, "method_options": {"gain": 1}}, "given once: method_options has it too"),
        ],
    )
    def test_other_options_and_methods_are_refused(self, values, message):
        with pytest.raises(ValidationError, match=message) as caught:
            Settings(**{"model": "x", "method": "first", **values})
        assert caught.value.errors()[0]["loc"] == (next(iter(values)),)


@pytest.mark.parametrize("values", ["model", ["model"], None])
def test_settings_that_are_no_mapping_are_refused(values):
    with pytest.raises(ValidationError, match="dictionary"):
        Settings.model_validate(values)


def test_options_of_a_method_are_flags_variables_and_keys(settings_of, monkeypatch, tmp_path, mars):
    assert settings_of("--layer", "0").method_options.layer == 0
    (tmp_path / "mars.toml").write_text("gain = 0.5")
    monkeypatch.setenv("MARS_RADIUS", "2")
    options = settings_of("--config", "mars.toml").method_options
    assert (options.gain, options.radius) == (0.5, 2.0)
    monkeypatch.setenv("MARS_RADIUS", "wide")
    assert "MARS_RADIUS: 'wide' should be a valid number" in mars("--model", "x").errors[0]
    help_text = mars("--help").out
    assert re.search(r"Calibration \(mars, [^)]*addition[^)]*\):\n  --layer N ", help_text)
    assert "--gain X" in help_text


def test_the_help_lists_the_baselines(mars):
    text = "".join(mars("--help").out.split())  # lines break behind hyphens too
    assert f"baseline({','.join(BASELINES)}),orwithNAME=DIR" in text
    assert "safety-promptiscomparedanywayunlessyougivenone" in text
    assert "--controls/--no-controls" in text


def test_a_coefficient_that_is_no_push_is_one_line(mars):
    problem = mars("--model", "x", "--method", "addition", "--coefficient", "0").errors
    assert problem[0].endswith("--coefficient: '0' should be greater than 0 or less than 0")
    problem = mars("--model", "x", "--method", "addition", "--coefficient", "nan").errors
    assert problem[0].endswith("--coefficient: 'nan' should be a finite number")
