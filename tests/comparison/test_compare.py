"""`mars-export compare` from its words to the card, on a tiny random model."""

import json

import pytest

from mars_export.comparison.record import COMPARISON_NAME, Comparison
from mars_export.evaluation.report import SelfCheck
from mars_export.pipeline.comparison import _wanted
from mars_export.pipeline.comparison_settings import ComparisonSettings
from support import bases

PROMPTS = ["paint", "house", "river", "stone", "bread", "light", "green", "sound"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return bases.save_whole_base(tmp_path_factory.mktemp("compare") / "base")


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    path = tmp_path_factory.mktemp("suite") / "mine.jsonl"
    lines = [
        {"id": f"{word}-{harmful}", "prompt": f"{word} {2 * number + harmful}", "harmful": harmful}
        for number, word in enumerate(PROMPTS)
        for harmful in (True, False)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(autouse=True, scope="module")
def made_up():
    """Exports of made-up numbers, whose probes are therefore not looked at."""
    with bases.quick_exports(), pytest.MonkeyPatch.context() as patch:
        active = SelfCheck(active=True, detail="not looked at")
        patch.setattr("mars_export.evaluation.engines.in_process.self_check", lambda *_: active)
        yield


@pytest.fixture(scope="module")
def compared(base, suite, tmp_path_factory):
    """The outcome, its directory, and the words of the call."""
    output = tmp_path_factory.mktemp("made") / "compared"
    words = [
        "compare", "--model", base, "--suite", suite, "--output", output, "--method", "mars",
        "--method", "mars:reserve=0.2", "--baseline", "random-direction", "--no-controls",
        "--max-new-tokens", "2", "--display", "none",
    ]  # fmt: skip
    return bases.command(*words), output, words


def test_a_device_map_gives_the_same_answers(compared, tmp_path):
    pytest.importorskip("accelerate")
    _, output, words = compared
    again = [tmp_path / "again" if word == output else word for word in words]
    again[again.index("--display") + 1] = "plain"
    done = bases.command(*again, "--device-map", "auto", "--max-memory", "cpu=400KB")
    assert done.code == 0, done.errors
    (told,) = [line for line in done.errors if line.endswith("; 2 checkpoints at once")]
    assert ", disk: " in told
    ours, theirs = (
        (folder / "evaluation" / "samples.jsonl").read_bytes()
        for folder in (output, tmp_path / "again")
    )
    assert ours == theirs


def test_one_command_makes_checkpoints_answers_and_a_card(compared):
    outcome, output, _ = compared
    assert outcome.code == 0, outcome.errors
    record = Comparison.model_validate_json((output / COMPARISON_NAME).read_bytes())
    names = ["off", "mars", "mars-reserve-0.2", "random-direction"]
    assert [c.name for c in record.contenders] == names
    assert record.contenders[2].options == {"reserve": "0.2"}
    for name in names[1:3]:
        assert (output / "methods" / name / "steering_manifest.json").is_file()
    cells = {(c.arm, c.harmful): c.refused.n for c in record.answered.plain.cells}
    assert cells == {(name, harmful): 8 for name in names for harmful in (True, False)}
    assert {s.arm for s in record.answered.speed} == set(names[1:])
    assert "## Against `mars`" in (output / "README.md").read_text("utf-8")
    assert outcome.out.splitlines()[1].split()[0] == "off"


def test_the_same_command_again_asks_nothing(compared, monkeypatch):
    _, output, words = compared
    before = json.loads((output / COMPARISON_NAME).read_text())
    monkeypatch.setattr("mars_export.evaluation.engines.in_process.load_models", None)
    outcome = bases.command(*words, "--json")
    assert outcome.code == 0, outcome.errors
    again = json.loads(outcome.out)
    assert again | {"created": ""} == before | {"created": ""}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--method", "marz"], "is it mars?"),
        (["--method", "mars:reserve"], "reserve is not OPTION=VALUE"),
        (["--method", "mars:reserve=no"], "--method mars:reserve=no: reserve"),
        (["--method", "mars:depth=2"], "depth"),
        (["--method", "mars:output=there"], "output is no option of mars"),
        (["--method", "mars:method=rai"], "method is no option of mars"),
        (["--method", "mars:seed=3"], "seed is no option of mars"),
        (["--method", "mars:reserve=0.1,reserve=0.2"], "reserve is given twice"),
        (
            ["--baseline", "cast", "--baseline", "cazt"],
            "--baseline: 'cazt' should be one of safety",
        ),
        (["--baseline", "cazt"], "is it cast?"),
    ],
)
def test_a_wrong_word_is_told_before_anything_is_made(base, tmp_path, words, problem):
    outcome = bases.command("compare", "--model", base, "--output", tmp_path / "out", *words)
    assert outcome.code == 2
    assert problem in outcome.errors[-1]
    assert len(outcome.errors) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("names", [["diary.txt"], ["README.md"], ["README.md", "methods", "src"]])
def test_a_directory_of_somebody_else_stays(base, tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("Monday")
    outcome = bases.command("compare", "--model", base, "--output", tmp_path)
    assert outcome.code == 2
    assert "did not make" in outcome.errors[-1]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        names, "Monday"
    )


def test_two_baselines_of_one_name_are_told_before_anything_is_made(base, tmp_path, monkeypatch):
    monkeypatch.setattr("mars_export.evaluation.baselines.guard.Fit.source", lambda: "")
    words = ["--baseline", "guard:one", "--baseline", "guard:two"]
    outcome = bases.command("compare", "--model", base, "--output", tmp_path / "out", *words)
    assert outcome.code == 2
    assert "--baseline guard:two: guard is compared already" in outcome.errors[-1]
    assert not any((tmp_path / "out").glob("methods/*"))


def test_methods_that_the_model_turns_down_are_in_the_card(base, suite, tmp_path, monkeypatch):
    from mars_export.common.errors import UnsteerableError
    from mars_export.pipeline import stages

    def refuse(*_):
        raise UnsteerableError("it refuses nothing")

    monkeypatch.setattr(stages, "checkpoint", refuse)
    outcome = bases.command(
        "compare", "--model", base, "--suite", suite, "--output", tmp_path / "out",
        "--method", "mars", "--baseline", "none", "--display", "none",
    )  # fmt: skip
    assert outcome.code == 0, outcome.errors
    assert outcome.out == "mars was turned down: it refuses nothing\n"
    assert "no number here" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_a_method_for_pictures_is_turned_down_by_a_model_of_text(suite, tmp_path):
    base = bases.save_whole_base(tmp_path / "base", "llama")
    outcome = bases.command(
        "compare", "--model", base, "--suite", suite, "--output", tmp_path / "out",
        "--method", "rai", "--display", "none",
    )  # fmt: skip
    assert outcome.code == 0, outcome.errors
    assert "rai was turned down: rai acts on pictures and clips" in outcome.out
    assert "shiftdc was turned down: it changes requests with pictures" in outcome.out


def test_a_file_names_methods_and_baselines(tmp_path):
    config = tmp_path / "compare.toml"
    config.write_text('model = "x"\nmethod = ["mars", "marz"]\nbaseline = ["cast", "ecso"]\n')
    outcome = bases.command("compare", "--config", config)
    assert outcome.code == 2
    assert "compare.toml: method: 'marz' should be one of mars" in outcome.errors[-1]


def test_the_help_lists_methods_and_baselines_together(capsys):
    from mars_export.cli.main import cli

    cli.main(["compare", "--help"], standalone_mode=False)
    section = capsys.readouterr().out.partition("Comparison:\n")[2].partition("\n\n")[0]
    assert "--method METHOD" in section
    assert "--baseline BASELINE" in section


def test_tuned_and_untuned_can_be_compared():
    words = ("mars", "mars:tune_on=mine/a.jsonl")
    wanted = _wanted(ComparisonSettings(model="organism:gemma3", method=words))
    assert list(wanted) == ["mars", "mars-tune_on-a.jsonl"]
    assert wanted["mars-tune_on-a.jsonl"] == {"method": "mars", "tune_on": "mine/a.jsonl"}
