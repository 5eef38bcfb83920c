"""The command in a card makes the same directory again, as far as the records know."""

import shlex

import pytest

from mars_export.card import snippets
from mars_export.card.data import CardData
from mars_export.card.render import render
from mars_export.card.snippets import needs
from mars_export.checkpoint.manifest import Derivation
from mars_export.common.markdown import DASH
from mars_export.evaluation.report import SuiteResult
from mars_export.inputs import tones
from mars_export.inputs.stimuli import STIMULI, kinds_named
from mars_export.methods import method_named
from mars_export.pipeline.run_settings import PlacementSettings
from mars_export.pipeline.settings import EvaluationSettings, Settings, sections
from support import records


def command(manifest, report, output):
    return CardData.of(manifest, report, output).command


def prompts(harmful, harmless):
    both = records.calibration().source.prompts
    names = {"harmful": harmful, "harmless": harmless}
    return {k: both[k].model_copy(update={"name": name}) for k, name in names.items()}


def options(text):
    words = shlex.split(text.replace("\\\n", " "))
    assert words[0] == "mars-export"
    words = [word for word in words if word != "--no-controls"]
    return dict(zip(words[1::2], words[2::2], strict=True))


PACKAGED = prompts("mars-export/harmful.txt", "mars-export/harmless.txt")


def test_a_base_on_the_hub():
    chosen = {"template_options": {"enable_thinking": False}}
    record = records.calibration(prompts=PACKAGED, seed=3, **chosen)
    suite = records.report().suite.model_copy(update={"name": "mars-export/typographic"})
    manifest, report = records.manifest(calibration=record), records.report(suite=suite)
    assert options(command(manifest, report, "out")) == {
        "--model": "example-org/tiny-vl-instruct",
        "--revision": manifest.base.revision,
        "--dtype": "bfloat16",
        "--thinking": "off",
        "--seed": "3",
        "--arm": "none",
        "--max-new-tokens": "24",
        "--output": "out",
    }
    assert needs(manifest, report) == ()


def test_a_toy_model_of_the_package():
    base = records.base(repo=None, revision=None, name="gemma3", license="mit", bundled=True)
    manifest = records.manifest(base=base, calibration=records.calibration(prompts=PACKAGED))
    found = options(command(manifest, None, "out"))
    assert found["--model"] == "organism:gemma3"
    assert "--license" not in found
    assert needs(manifest, None) == ()


def test_everything_of_ones_own():
    record = records.calibration(prompts=prompts("my bad.txt", "good.txt"), options={"layer": 4})
    base = records.base(repo=None, revision=None, name="my-model", license="mit")
    manifest, report = records.manifest(calibration=record, base=base), records.report()
    found = options(command(manifest, report, "out"))
    assert found == {
        "--model": "my-model",
        "--license": "mit",
        "--dtype": "bfloat16",
        "--seed": "0",
        "--layer": "4",
        "--harmful": "my bad.txt",
        "--harmless": "good.txt",
        "--suite": "FILE",
        "--arm": "none",
        "--max-new-tokens": "24",
        "--output": "out",
    }
    names = {name for fields in sections(Settings).values() for name in fields}
    assert {flag[2:].replace("-", "_") for flag in found} <= names
    text = render(manifest, report)
    assert "the directory `my-model`, the prompt file `my bad.txt`, " in text
    assert "the suite `organism-topics` in place of FILE:" in text
    assert "  --harmful 'my bad.txt' \\\n" in text


GIVEN = {
    "mars": {
        "layer": 3,
        "layer_rule": "lift",
        "finalists": 2,
        "gain": 0.125,
        "radius": 1.75,
        "direction": "pca",
        "reserve": 0.25,
    },
    "addition": {"layer": 3, "coefficient": -0.3, "positions": "prompt"},
}
"""Method -> a value for each of its options that is not the default."""


@pytest.mark.parametrize("name", GIVEN)
def test_every_option_of_the_method_is_given_again(name):
    options_of = method_named(name).Options
    assert set(GIVEN[name]) == set(options_of.model_fields)
    for option, value in GIVEN[name].items():
        assert value != options_of.model_fields[option].default
        record = records.calibration().model_copy(
            update={"method": name, "options": {option: value}}
        )
        text = snippets.command(records.manifest(calibration=record), None, "out")
        words = {flag[2:].replace("-", "_"): word for flag, word in options(text).items()}
        given = {key: word for key, word in words.items() if key in GIVEN[name]}
        assert Settings(model="x", method=name, **given).method_options == options_of(
            **{option: value}
        )


EVALUATION = {
    "suite": ("--suite", "FILE"),
    "controls": ("--no-controls", None),
    "control_requests": ("--control-requests", "40"),
    "attacks": ("--attacks", None),
    "arm": ("--arm", "other=DIR"),
    "judge": ("--judge", "URL"),
    "max_new_tokens": ("--max-new-tokens", "24"),
}
"""Option of an evaluation -> how the command gives it again."""


def test_every_option_of_the_evaluation_is_given_again():
    where = {*PlacementSettings.model_fields, "tensor_parallel"}  # changes no number
    own = EvaluationSettings.model_fields.keys() - where
    assert set(EVALUATION) == own
    arms = [
        *records.report().arms,
        records.arm("other", "steering of other", steered=True),
    ]
    attack = [records.variant("prefill")]
    controls = [records.variant("noise", n=40)]
    judge = "endpoint/gpt-x@host:8000, prompt 12"
    report = records.report(arms=arms, variants=attack, judge=judge)
    words = shlex.split(command(records.manifest(), report, "out").replace("\\\n", " "))
    again = command(records.manifest(), report.model_copy(update={"variants": controls}), "out")
    words += shlex.split(again.replace("\\\n", " "))
    for flag, value in EVALUATION.values():
        assert flag in words
        assert value is None or value in words
    assert words[words.index("other=DIR") - 1] == "--arm"
    assert "the steered directory of the arm `other` in place of DIR" in needs(
        records.manifest(), report
    )


def test_a_checkpoint_that_was_trained_on_is_calibrated_again():
    manifest = records.manifest()
    origin = Derivation(name="tuned", steering_sha256="0" * 64)
    base = manifest.base.model_copy(
        update={"repo": None, "revision": None, "name": "tuned", "derived_from": origin}
    )
    text = command(manifest.model_copy(update={"base": base}), None, "out")
    assert text.startswith("mars-export recalibrate tuned \\\n")
    assert "--model" not in text
    kept = origin.model_copy(update={"calibrated": False, "parent": "steered"})
    base = base.model_copy(update={"derived_from": kept})
    manifest = manifest.model_copy(update={"base": base})
    text = command(manifest, None, "out")
    assert text.startswith("mars-export adopt tuned \\\n  --base steered \\\n")
    assert "--seed" not in text
    assert "the directory `steered`" in needs(manifest, None)
    card = render(manifest, None, "tuned mars")
    assert "sha256sum 'tuned mars'/steering.safetensors 'tuned mars'/modeling_steered.py" in card
    assert "adopted with the calibration from before training and exported" in card
    assert "**Its weights were trained**, or may have been, from the steered checkpoint `st" in card
    assert "**the calibration is from before that**" in card
    assert "Nothing was trained" not in card


def test_a_suite_that_was_kept_before_training_is_not_given_again():
    report = records.report()
    origin = Derivation(name="tuned", steering_sha256="0" * 64, parent="steered")
    for suite, named in ((report.suite.sha256, False), (None, True)):
        kept = origin.model_copy(update={"suite": suite})
        base = records.base(repo=None, revision=None, name="tuned", derived_from=kept)
        manifest = records.manifest(base=base)
        assert ("--suite" in options(command(manifest, report, "x"))) == named
        assert any("in place of FILE" in need for need in needs(manifest, report)) == named


def test_a_base_with_its_own_suite_needs_no_files():
    record = records.calibration(prompts=prompts("suite.jsonl (harmful)", "suite.jsonl (harmless)"))
    base = records.base(repo=None, revision=None, name="organism-topics")
    manifest, report = records.manifest(calibration=record, base=base), records.report()
    assert not {"--harmful", "--harmless", "--suite"} & set(options(command(manifest, report, "x")))
    assert needs(manifest, report) == ("the directory `organism-topics`",)


def test_without_a_report_no_suite_is_named():
    found = options(command(records.manifest(), None, "x"))
    assert not {"--suite", "--max-new-tokens"} & set(found)


def test_a_file_may_have_any_name():
    record = records.calibration(prompts=prompts("ASR 50 % TODO.txt", "good`.txt"))
    text = render(records.manifest(calibration=record), records.report())
    assert "--harmful 'ASR 50 % TODO.txt'" in text
    assert "the prompt file `good'.txt`" in text


def test_the_judge_is_named():
    def judged(name):
        report = records.report(judge=name)
        return options(command(records.manifest(), report, "out")).get("--judge"), report

    assert judged("rules/2")[0] is None
    assert judged("qwen3guard/Qwen/Qwen3Guard-Gen-0.6B@abc, prompt 12")[0] == (
        "qwen3guard:Qwen/Qwen3Guard-Gen-0.6B"
    )
    word, report = judged("endpoint/gpt-x@host:8000, prompt 12")
    assert word == "URL"
    assert "the judge `endpoint/gpt-x@host:8000, prompt 12` in place of URL" in needs(
        records.manifest(), report
    )


def test_suites_and_flags_are_given_again():
    suite = records.report().suite
    sources = [
        suite.model_copy(update={"name": name, "origin": origin})
        for name, origin in [
            ("xstest", "known:xstest"),
            ("harmbench", "known:harmbench=FILE"),
            ("msts", "newest:felfri/MSTS@0123"),
            ("vlsbench", "hub:Foreshhh/vlsbench@4567"),
            ("mars-export/typographic", "packaged"),
            ("mine", "file"),
        ]
    ]
    parts = [SuiteResult(**records.part(), source=s, categories=[]) for s in sources]
    report = records.report(suites=parts, variants=[records.variant("prefill")])
    text = command(records.manifest(), report, "out")
    asked = [line.split()[1] for line in text.splitlines() if "--suite" in line]
    known = ["xstest", "harmbench=FILE", "msts@0123", "vlsbench@4567"]
    assert asked == [*known, "typographic", "mine=FILE"]
    assert "  --attacks \\\n" in text
    assert "  --no-controls \\\n" in text
    assert "  --arm none" in text


def test_defaults_of_the_evaluation_are_not_spelled_out():
    arms = [*records.report().arms, records.arm("safety-prompt", "safety prompt")]
    controls = [records.variant("noise")]
    text = command(records.manifest(), records.report(arms=arms, variants=controls), "out")
    assert not {"--no-controls", "--controls", "--control-requests", "--attacks", "--arm"} & set(
        text.split()
    )
    left_out = {"safety-prompt": "the chat template leaves it out"}
    assert "--arm" not in command(records.manifest(), records.report(skipped=left_out), "out")
    cells = controls[0].cells
    cells = [*cells, *(c.model_copy(update={"arm": "safety-prompt"}) for c in cells)]
    named = [controls[0].model_copy(update={"cells": cells})]
    text = command(records.manifest(), records.report(arms=arms, variants=named), "out")
    assert "  --arm safety-prompt" in text


def heard(**made):
    """A calibration beside pictures and sounds."""
    image = records.calibration().source.stimuli["image"]
    sizes = {"width": 0, "height": 0, "frames": 1, "seconds": 3.0}
    names = {"generator": STIMULI["audio"].generator, "kinds": tones.MIXTURE}
    sound = image.model_copy(update={**sizes, **names, **made})
    return records.calibration(stimuli={"image": image, "audio": sound})


def test_kinds_of_sounds_are_given_again_where_they_were_chosen():
    usual = records.manifest(calibration=heard())
    assert "--neutral" not in options(command(usual, None, "out"))
    chosen = heard(kinds=("silence", "speech"))
    found = options(command(records.manifest(calibration=chosen), None, "out"))["--neutral"]
    assert kinds_named(found) == chosen.source.kinds
    assert STIMULI["audio"].own(kinds_named(found)) == ("silence", "speech")


def test_the_card_says_how_long_sounds_were():
    text = render(records.manifest(calibration=heard(kinds=("chirps",))), None)
    rows = [row for row in text.splitlines() if row.startswith("| neutral ")]
    assert [row.split(" | ")[4:6] for row in rows] == [
        ["3 s", DASH],
        ["64 \N{MULTIPLICATION SIGN} 64", "1"],
    ]
    assert "| chirps | seeded sounds, version 1 | 24 |" in rows[0]
