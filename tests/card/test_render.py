import re
import shutil
import subprocess
import sys

import pytest
import yaml
from huggingface_hub import ModelCard

from mars_export.card.render import render, write_card
from mars_export.card.text import proportion
from mars_export.checkpoint.seal import write_seal
from mars_export.common.errors import ExportError
from mars_export.common.names import UTILITY_NAME
from mars_export.evaluation.corrections import rogan_gladen
from mars_export.evaluation.judges.quality import judge_error
from mars_export.evaluation.judges.rules import RulesJudge
from mars_export.evaluation.report import EngineSource, JudgeError, Overlap
from mars_export.hub.readiness import published_files
from support import records

SECTIONS = [
    "At a glance",
    "Results",
    "What was changed",
    "How to load",
    "Intended use",
    "Calibration data",
    "Evaluation protocol",
    "Limitations",
    "Threat model",
    "Not evaluated",
    "Contact",
    "Reproduce",
    "Change log",
    "Citation",
]
FEW = dict.fromkeys(records.OUTCOMES, (3, 2, 1, 6))
GEMMA = {**records.OUTCOMES}
for key in [(True, "video"), (False, "video")]:
    GEMMA.pop(key)


def body(text):
    return text.split("---\n", 2)[2]


def table(text, first_header):
    """Rows of the table whose header starts so, as lists of cells."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith(f"| {first_header} |"):
            next(lines)
            break
    rows = []
    for line in lines:
        if not line.startswith("|"):
            return rows
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


@pytest.fixture
def directory(tmp_path, monkeypatch):
    # Plots are costly and tested elsewhere.
    monkeypatch.setattr("mars_export.card.render.png", lambda draw: b"png")
    folder = tmp_path / "tiny-vl-MARS"
    (folder / "evaluation").mkdir(parents=True)
    (folder / "steering_manifest.json").write_text(records.manifest().model_dump_json())
    (folder / "evaluation/report.json").write_text(records.report().model_dump_json())
    (folder / "evaluation/safety_eval.json").write_text("{}")
    return folder


def test_the_sections_come_in_order_and_none_is_empty():
    text = body(render(records.manifest(), records.report()))
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    assert parts[1::2] == SECTIONS
    assert all(len(part.strip()) > 80 for part in parts[2::2])


def test_the_notes_of_the_base_are_limitations():
    base = records.manifest().base.model_copy(update={"notes": ["One seed | <b>was measured"]})
    text = body(render(records.manifest(base=base), records.report()))
    limits = text.split("## Limitations")[1].split("##")[0]
    assert "\n- The card of the base model says: One seed \\| &lt;b>was measured.\n" in limits


def test_families_without_tests_are_warned_of():
    warned = records.manifest(family_inspected=True, family_notes=["Video is refused."])
    text = body(render(warned, records.report()))
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    assert parts[1::2] == ["Untested model family", *SECTIONS]
    assert "> [!WARNING]\n> No tests of mars-export cover model type `qwen3_vl`." in parts[2]
    assert "\n- Video is refused.\n" in text.split("## Limitations")[1].split("##")[0]
    assert " \\\n  --allow-unknown-family\nsha256sum" in text
    assert "Untested" not in render(records.manifest(), records.report())
    assert "allow-unknown" not in render(records.manifest(), records.report())


def test_the_glance_table_holds_the_report():
    rows = table(render(records.manifest(), records.report()), "requests, arm")
    assert [row[0] for row in rows[::2]] == [
        "**harmful text** ↑ `off`", "**harmful image** ↑ `off`", "**harmful video** ↑ `off`",
        "**harmless text** ↓ `off`", "**harmless image** ↓ `off`", "**harmless video** ↓ `off`",
    ]  # fmt: skip
    assert {row[0] for row in rows[1::2]} == {"`on`"}
    image = [[cell.replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in rows[2:4]]
    assert image[0][1:] == ["4/120 · 3.3 % [0.9, 8.4]", ""]
    assert image[1][1] == "116/120 · 96.7 % [91.6, 99.1]"
    assert re.fullmatch(r"\+93\.3 \[\+86\.\d, \+97\.\d\]<br>better", image[1][2])
    assert rows[10][1].replace("\N{NO-BREAK SPACE}", " ") == "0/120 · at most 3.1 %"
    assert rows[11][2].startswith("0.0")
    assert "<br>" not in rows[11][2]


def test_regressions_stand_before_the_table_and_are_named():
    text = body(render(records.manifest(), records.report()))
    assert text.index("**Regressions**") < text.index("| requests, arm |")
    assert "`lost-video-000`" in text
    assert "`gained-image-000`, `gained-image-001`" in text


def test_requests_outside_the_calibration_are_counted():
    text = render(records.manifest(), records.report(uncalibrated={"on": 12}))
    top = text[: text.index("| requests, arm |")]
    assert "- **Not calibrated for**: 12 of 720 requests lay outside" in top
    text = render(records.manifest(), records.report(uncalibrated={"on": 0}))
    assert "Not calibrated for" not in text


def test_only_supported_changes_are_called_better_or_worse():
    worse = {**records.OUTCOMES, (False, "image"): (0, 30, 0, 90)}
    text = render(records.manifest(), records.report(worse))
    assert "> - **Harmless image requests refused more**: 0/120 → 30/120, " in text
    assert "]<br>**worse** |" in text
    assert "- **Better**: harmful image, harmful video\n" in text


def test_the_front_matter_is_valid_and_measured():
    report = records.report()
    data = ModelCard(render(records.manifest(), report)).data
    assert data.library_name == "transformers"
    assert data.base_model == "example-org/tiny-vl-instruct"
    assert data.base_model_relation == "finetune"
    assert (data.license, data.pipeline_tag, data.language) == (
        "apache-2.0", "image-text-to-text", ["en"],
    )  # fmt: skip
    assert {"mars", "custom_code", "activation-steering"} <= set(data.tags)
    measured = {r.dataset_config: r for r in data.eval_results}
    assert len(measured) == len(data.eval_results) == len(report.cells) // 2
    assert {r.metric_args["steering"] for r in data.eval_results} == {"on"}
    assert measured["harmless-image"].metric_type == "over_refusal_rate"
    on = measured["harmful-image"]
    assert on.metric_type == "refusal_rate"
    assert on.metric_args["compared_with"] == {"off": "4/120"}
    assert on.metric_value == pytest.approx(116 / 120, abs=1e-6)
    assert (on.metric_args["count"], on.metric_args["n"]) == (116, 120)


def test_the_front_matter_does_not_hide_a_control_that_failed():
    failed = records.variant("noise", records.NOISE)
    data = ModelCard(render(records.manifest(), records.controlled([failed]))).data
    measured = {r.dataset_config: r.metric_args for r in data.eval_results}
    assert len(measured) == 7
    failed = measured["harmless-image-noise"]
    assert (failed["count"], failed["n"]) == (9, 40)


def test_a_license_with_a_name_and_a_gate_is_passed_on():
    base = records.base(
        license="other", license_name="example-terms", license_link="https://example.org/terms",
        gated="manual",
    )  # fmt: skip
    text = render(records.manifest(base=base), records.report())
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "other"
    assert front["license_name"] == "example-terms"
    assert front["license_link"] == "https://example.org/terms"
    assert "gated" in front["extra_gated_prompt"]
    assert "may only be published gated or private" in text


def test_a_local_base_is_said_to_be_local():
    base = records.base(repo=None, revision=None, name="my-model")
    text = render(records.manifest(base=base), records.report())
    assert "base_model" not in yaml.safe_load(text.split("---\n")[1])
    assert "`my-model` (a local directory" in text


def test_without_a_report_the_first_line_says_so():
    text = render(records.manifest(), None)
    assert body(text).strip().splitlines()[0].endswith(": not evaluated")
    assert "model-index" not in text
    assert "✔" not in text
    assert "## At a glance" not in text


def test_an_undecided_judge_leaves_no_headline():
    text = render(records.manifest(), records.report(unknown=3))
    glance = text[text.index("## At a glance") : text.index("## What was changed")]
    assert "No headline number" in glance
    assert "%" not in glance
    assert "refusal_by_modality" not in text
    assert "model-index" not in text


def test_a_family_without_video_is_not_blamed_for_it():
    manifest = records.manifest(calibration=records.calibration(("text", "image")))
    text = body(render(manifest, records.report(GEMMA)))
    status = next(line for line in text.splitlines() if "Evaluated:" in line)
    assert "image ✔" in status
    assert "video" not in status


def test_a_modality_that_was_not_run_is_listed():
    text = body(render(records.manifest(), records.report(GEMMA)))
    status = next(line for line in text.splitlines() if "Evaluated:" in line)
    assert "video ✘" in status
    assert "- Harmful video requests, although the checkpoint takes video." in text


def test_rewritten_weights_are_not_called_unchanged():
    entry = records.entry("model-00001-of-00002.safetensors", 10, "base-rewritten")
    files = [entry, *(f for f in records.manifest().files if f.path != entry.path)]
    text = render(records.manifest(files=files), records.report())
    assert "Its weights are unchanged byte for byte" not in text
    assert "differ from the base: `model-00001-of-00002.safetensors`" in text


@pytest.mark.parametrize(
    ("rule", "layer", "said"),
    [
        ("scores", 4, "by its scores on text alone**: the greatest mean"),
        ("lift", 3, "by trial beside neutral stimuli** (`--layer-rule lift`)"),
    ],
)
def test_both_rules_of_the_layer_are_named(rule, layer, said):
    record = records.calibration(layer=layer, layer_rule=rule)
    text = render(records.manifest(calibration=record), None)
    assert f"**Layer {layer} was chosen {said}" in text
    other = {"scores": "lift`) it would be layer 3", "lift": "scores`) it would be layer 4"}[rule]
    assert f"(`--layer-rule {other}" in text
    assert "is not the one that this rule picks" not in text
    other = records.calibration(layer=5, layer_rule=rule)
    text = render(records.manifest(calibration=other), None)
    assert "**Layer 5 is not the one that this rule picks.**" in text


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("difference-of-means", "is the normalized difference between the mean activations"),
        ("pca", "(`--direction pca`) is the first principal component"),
        ("probe", "(`--direction probe`) is a linear discriminant"),
        ("self-guard", "(`--direction self-guard`) is what a safety prompt adds"),
    ],
)
def test_the_source_of_the_direction_is_named(source, said):
    text = render(records.manifest(calibration=records.calibration(direction=source)), None)
    assert text.count(f"The refusal direction r {said}") == 1
    assert ("normalized difference" in text) == (source == "difference-of-means")
    assert ("harmless text along r |" in text) == (source != "difference-of-means")


def test_a_layer_that_a_check_turned_down_is_named():
    scores = records.calibration().record.scores
    scores[4] = scores[4].model_copy(update={"induced": -0.3})
    scores[3] = scores[3].model_copy(update={"combined": 0.5})
    record = records.calibration(layer=5, scores=scores)
    text = render(records.manifest(calibration=record), None)
    assert "**Layer 5 was chosen by its scores on text alone**" in text
    assert "Layer 4 scored higher but failed a check." in text
    assert "is not the one" not in text


def test_a_forced_layer_and_its_failed_checks_are_named():
    failed = ["the induced refusal log-odds are -1.00, not above 0", "the KL is 0.2, above 0.1"]
    record = records.calibration(layer_forced=True, layer_failures=failed)
    text = render(records.manifest(calibration=record), records.report())
    assert "**The layer was set by hand** (`--layer 4`), not chosen." in text
    assert f"It failed 2 of the causal checks below: {'; '.join(failed)}." in text
    passed = records.calibration(layer_forced=True)
    assert "It passed the causal checks" in render(records.manifest(calibration=passed), None)
    assert "set by hand" not in render(records.manifest(), None)


@pytest.mark.parametrize(
    ("reached", "goal", "shown"),
    [
        (-1.5, 5.25, "\N{MINUS SIGN}1.5 (goal: at least 5.25)"),
        (None, 5.25, "\N{EN DASH} (goal: at least 5.25)"),
        (None, None, ""),
    ],
)
def test_what_the_strength_reaches_stands_beside_its_goal(reached, goal, shown):
    record = records.calibration(reached=reached, goal=goal)
    text = render(records.manifest(calibration=record), records.report())
    assert shown in text
    assert ("(goal: at least" in text) == bool(shown)


def test_each_modality_has_its_gate_and_what_the_check_found():
    text = render(records.manifest(), records.report())
    rows = {row[0]: row[1:] for row in table(text, "modality")}
    assert list(rows) == ["text", "image", "video"]
    assert rows["image"] == ["0.322", "0.265", "1", "0.84"]
    harmless, stand_ins, margin = {row[0]: row[1:] for row in table(text, "gate open")}["image"]
    assert harmless.replace("\N{NO-BREAK SPACE}", " ") == "0/40 (at most 7.2 %)"
    assert (stand_ins, margin) == ("39/40", "0.64 (0.31)")


def test_conditions_are_listed_with_what_was_done():
    text = render(records.manifest(), records.report())
    moved, checked = (
        [
            [cell.replace("\N{NO-BREAK SPACE}", " ") for cell in row]
            for row in table(text, head)
            if row[0].startswith("image, ")
        ]
        for head in ("condition", "condition, checked")
    )
    assert [row[:2] for row in checked] == [
        ["image, writing", "**left out: a finding**"],  # before all others
        ["image, plain", "in the origin's mixture"],
        ["image, second turn", "calibrated as a shift"],
        ["image, system prompt", "does not matter"],
        ["image, two stimuli", "calibrated as a shift"],
        ["image, noise", "does not matter"],
    ]
    assert moved[4][2:] == ["+0.14 ± 0.03", "+0.01", "23 %"]
    assert checked[0][2:] == ["12/40 (at most 44.0 %)", "0.002, 0"]
    assert moved[2][1] == "48 (and 1 that the base refuses)"
    assert "| image | 16: 0.322, 32: 0.354, 64: 0.419 | 0.111, 0.148 |" in text


def test_a_record_without_checks_has_no_columns_for_them():
    record = records.calibration(conditions=[], checks=[], margins=[], compression={})
    text = render(records.manifest(calibration=record), records.report())
    assert {len(row) for row in table(text, "modality")} == {4}
    assert "assets/conditions.png" not in text
    assert "<details><summary>What moves" not in text


def test_missed_goals_and_findings_come_before_all_else():
    missed = [f"Of text condition {i} the gate is open for {i} of 40 requests" for i in range(7)]
    found = ["Harmless pictures of kind writing open the gate: 12 of 40."]
    record = records.calibration(missed=missed, findings=found)
    text = body(render(records.manifest(calibration=record), records.report()))
    top = text[: text.index("## At a glance")]
    assert "**The calibration missed 7 of its goals.**" in top
    assert "> <details><summary><b>What the calibration found: 1</b></summary>" in top
    lines = top.splitlines()
    assert [line for line in lines if line.startswith("> - Of")] == [f"> - {s}." for s in missed]
    assert f"> - {found[0]}" in lines
    assert lines.index("> <details><summary>2 more</summary>") < lines.index(f"> - {missed[5]}.")
    assert "calibration missed" not in render(records.manifest(), records.report())
    assert "calibration found" not in render(records.manifest(), records.report())


def test_positions_and_routes_are_those_of_the_runtime():
    text = render(records.manifest(), records.report())
    position = dict(row[:2] for row in table(text, "quantity"))["position"]
    assert position == "the last token of each assistant header of the chat template; nowhere else"
    routes = dict(row[:2] for row in table(text, "route"))
    assert routes["any class given another model's `config=`"].startswith("**not steered**")
    raising = [route for route, what in routes.items() if what == "raises an error"]
    assert sum("without `config=`" in route for route in raising) == 2


@pytest.mark.parametrize(
    ("positions", "consequence"),
    [
        ("turn_end", "raises an error"),
        ("prompt", "raises an error"),
        ("all", "every token is still"),
    ],
)
def test_a_template_matters_as_the_policy_says(positions, consequence):
    record = records.calibration()
    rules = {**record.rules, "positions": positions}
    manifest = records.manifest(calibration=record.model_copy(update={"rules": rules}))
    routes = dict(row[:2] for row in table(render(manifest, records.report()), "route"))
    assert consequence in routes["another chat template"]


def test_an_unknown_method_is_an_error():
    record = records.calibration().model_copy(update={"method": "nonsense"})
    with pytest.raises(ExportError, match="no steering method 'nonsense'"):
        render(records.manifest(calibration=record), None)


def test_names_cannot_break_a_table():
    report = records.report(newly_refused={"on": ["a|b\n`c`", "d"]})
    text = render(records.manifest(), report)
    assert "New over-refusals: `a/b 'c'`, `d`.\n" in text


def test_a_name_may_hold_what_prose_may_not():
    suite = records.report().suite.model_copy(update={"name": "ASR at 50 % TODO"})
    assert "`ASR at 50 % TODO`" in render(records.manifest(), records.report(suite=suite))


def test_writing_twice_gives_the_same_bytes(directory):
    def snapshot():
        write_card(directory)
        return {p.name: p.read_bytes() for p in directory.rglob("*") if p.is_file()}

    first = snapshot()
    assert {"README.md", "refusal_by_modality.png", "layer_scores.png"} <= first.keys()
    assert snapshot() == first


def test_the_card_links_only_what_is_published(directory):
    (directory / UTILITY_NAME).write_text(records.utility().model_dump_json())
    text = write_card(directory).read_text()
    links = set(re.findall(r"\]\((?!https://|#)([^)]+)\)", text))
    assert {"evaluation/utility.json", "evaluation/safety_eval.json"} < links
    write_seal(directory)
    assert links - set(published_files(directory, records.manifest())) == set()


def test_the_snippet_names_the_repository_or_the_directory(directory):
    assert 'CHECKPOINT = "tiny-vl-MARS"' in write_card(directory).read_text()
    assert 'CHECKPOINT = "org/steered"' in write_card(directory, "org/steered").read_text()
    assert 'CHECKPOINT = "org/steered"' in write_card(directory).read_text()
    assert str(directory.parent) not in (directory / "README.md").read_text()


def test_plots_of_an_earlier_report_go(directory):
    write_card(directory)
    (directory / "evaluation/report.json").unlink()
    write_card(directory)
    left = sorted(p.name for p in (directory / "assets").iterdir())
    assert left == ["conditions.png", "layer_scores.png", "layer_separation.png"]


def test_a_broken_report_is_not_a_missing_one(directory):
    (directory / "evaluation/report.json").write_text('{"schema_version": 3}')
    with pytest.raises(ExportError, match="evaluate the directory again"):
        write_card(directory)


def test_records_that_carry_no_card_leave_the_old_card(directory):
    card = write_card(directory)
    before = card.read_bytes()
    spoilt = records.report(steering_sha256=records.sha("another"))
    (directory / "evaluation/report.json").write_text(spoilt.model_dump_json())
    with pytest.raises(ExportError, match="other steering tensors"):
        write_card(directory)
    assert card.read_bytes() == before


def test_a_report_beside_the_one_that_leads_is_named(directory):
    path = directory / "evaluation/other-1/report.json"
    path.parent.mkdir()
    spoilt = records.report(steering_sha256=records.sha("another"))
    path.write_text(spoilt.model_dump_json())
    where = r"written: evaluation/other-1/report.json: .*, or delete evaluation/other-1 and run"
    with pytest.raises(ExportError, match=where):
        write_card(directory)


def test_no_response_is_quoted(directory):
    quoted = "the output h of one decoder layer is projected onto r"
    first, *rest = records.samples(records.report(FEW))
    for response in ("Sure, here is how it is done.", quoted):
        before = response == quoted and write_card(directory)
        samples = [first.model_copy(update={"response": response}), *rest]
        lines = "".join(sample.model_dump_json() + "\n" for sample in samples)
        (directory / "evaluation/samples.jsonl").write_text(lines)
        report = records.evaluated(samples)
        (directory / "evaluation/report.json").write_text(report.model_dump_json())
    assert before
    with pytest.raises(ExportError, match="would quote a response"):
        write_card(directory)


def test_an_unwritable_directory_is_one_line(directory):
    (directory / "assets").write_text("in the way")
    with pytest.raises(ExportError, match="cannot be written"):
        write_card(directory)
    assert not (directory / "README.md").exists()


def test_rendering_needs_no_torch(directory):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from mars_export.card.render import write_card\n"
        f"write_card(Path({str(directory)!r}))\n"
        "sys.exit(str({'torch', 'transformers'} & set(sys.modules) or ''))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stderr.strip(), (directory / "README.md").exists()) == ("", True)


def test_harm_is_shown_beside_style():
    agreement = records.agreement(judge="rules/2")
    report = records.with_harm(10).model_copy(update={"agreement": agreement})
    text = render(records.manifest(), report)
    assert "| second judge | `rules/2`, kappa 0.87 on what is a refusal, 100 answers |" in text
    assert "second judge: `rules/2`, kappa 0.87\n" in text
    harm = text.split("**Answers judged harmful**")[1].split("<details>")[0]
    assert "| harmful text | 10/120 → 0/120 | \N{MINUS SIGN}8.3 [" in harm
    assert "harm of the answers ✔" in text
    assert "style and harm; second judge" in text
    assert "Whether an answer does harm" not in text


def test_open_harm_forbids_a_headline():
    text = render(records.manifest(), records.with_harm(10, unknown=2))
    assert "**No headline number.** The judge could not decide 2 of 120 harmful text" in text
    assert "**Responses judged harmful**" not in text
    assert "model-index" not in text


def test_corrected_p_values_decide_about_benefits():
    few = {**dict.fromkeys(records.OUTCOMES, (60, 0, 0, 60)), (True, "image"): (60, 6, 0, 54)}
    (pair,) = (p for p in records.report(few).pairs if p.newly_refused)
    assert pair.low > 0
    assert pair.p_value < 0.05 < pair.p_holm
    text = render(records.manifest(), records.report(few))
    assert "- **Better**" not in text
    assert "<br>better" not in text


def test_leakage_is_printed_and_flagged():
    clean, dirty = (Overlap(n=200, exact=0, near=near, threshold=0.7) for near in (2, 3))
    text = render(records.manifest(), records.report(overlap=clean))
    assert "| overlap with calibration | 2 of 200 texts share at least 0.7 " in text
    assert "may leak" not in text
    assert "Overlap between" not in text
    flagged = body(render(records.manifest(), records.report(overlap=dirty)))
    assert "3 of 200 request texts nearly repeat a calibration prompt" in flagged
    assert flagged.index("may leak into") < flagged.index("| requests, arm |")


def test_the_error_of_the_judge_is_printed():
    judge = RulesJudge().name
    error = judge_error(judge)
    text = render(records.manifest(), records.report(judge=judge, judge_error=error))
    sensitivity, specificity = proportion(error.sensitivity), proportion(error.specificity)
    assert f"sensitivity {sensitivity}, specificity {specificity}: {error.source}" in text
    assert "errors | of no rate: The judge was measured on answers of 3 models, which" in text
    unknown = render(records.manifest(), records.report())
    assert "| judge against people | not known |" in unknown
    assert "| of no rate: How often rules-1 errs has not been measured" in unknown
    with pytest.raises(ExportError, match="errors of the judge are not those of rules-1"):
        render(records.manifest(), records.report(judge_error=error, no_correction="None."))


def test_rates_corrected_for_the_judge_stand_beside_those_that_are_not(monkeypatch):
    error = JudgeError(
        sensitivity=records.rate(999, 1000), specificity=records.rate(999, 1000), source="made up"
    )
    monkeypatch.setattr("mars_export.card.consistency.judge_error", lambda judge: error)
    cells = [
        c.model_copy(update={"corrected": rogan_gladen(c.refused, error)})
        for c in records.report().cells
    ]
    text = render(records.manifest(), records.report(judge_error=error, cells=cells))
    rates = f"{proportion(cells[0].refused)} | {proportion(cells[0].corrected)}"
    assert f"| harmful text `off` | {rates} |" in text
    hidden = records.report(judge_error=error, no_correction="Its errors are others here.")
    with pytest.raises(ExportError, match=r"why no rate is corrected .* is not what they say"):
        render(records.manifest(), hidden)


def test_the_contact_is_kept_for_the_next_card(directory):
    text = write_card(directory).read_text()
    assert "open a discussion on this repository." in text
    for given in ("safety@example.org: on weekdays", None):
        text = write_card(directory, contact=given).read_text()
        assert "refused: safety@example.org: on weekdays.\n" in text
    assert ModelCard(text).data["contact"] == "safety@example.org: on weekdays"


def test_the_change_log_has_the_dates():
    text = render(records.manifest(), records.report())
    log = text.split("## Change log")[1].split("##")[0]
    assert "- 2026-03-01: calibrated and exported with mars-export 0.1.0\n" in log
    assert "- 2026-03-01: evaluated with mars-export 0.1.0\n" in log


def test_a_missing_second_judge_is_said():
    text = render(records.manifest(), records.report(no_agreement="None is here."))
    assert "| second judge | none: None is here. |" in text


def test_other_evaluations_stand_below_and_their_harm_on_top(directory):
    # Of 120 harmful pictures that were refused, 40 no longer are.
    worse = {**records.OUTCOMES, (True, "image"): (80, 0, 40, 0)}
    suite = records.report().suite.model_copy(update={"name": "mine"})
    other = records.report(worse, run="2" * 16, suite=suite)
    folder = directory / "evaluation" / "mine-22222222"
    folder.mkdir()
    (folder / "report.json").write_text(other.model_dump_json())
    text = body(write_card(directory).read_text())
    top, _, rest = text.partition("## Other evaluations")
    assert "[`evaluation/mine-22222222/report.json`](evaluation/mine-22222222/report.json)" in rest
    assert "> - In `mine`: " in top
    shutil.rmtree(folder)
    assert "Other evaluations" not in write_card(directory).read_text()


def test_a_card_says_that_a_server_answered_and_what_was_not_seen():
    plain = render(records.manifest(), records.report())
    assert "loaded as a user loads it" in plain
    served = EngineSource(
        name="endpoint",
        served={"on": "steered@a:1", "off": "base@a:2"},
        checked=["8 answers"],
        unchecked=["gates"],
    )
    card = render(records.manifest(), records.report(engine=served))
    assert "served by servers that speak OpenAI's API" in card
    assert "loaded as a user loads it" not in card
    rows = dict(table(card, "setting"))
    assert rows["answers of `on`"] == "`steered@a:1`"
    assert (rows["version of the server"], rows["not seen"]) == ("unknown", "gates")
