"""The whole run on a model organism: killed, resumed, repeated, refused, published."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mars_export import ExportError, Settings, evaluate, export, publish, verify, write_seal
from mars_export.checkpoint.integrity import verify_files
from mars_export.checkpoint.seal import SIGNATURE_NAME
from mars_export.cli.main import main
from mars_export.common.names import REPORT_NAME
from mars_export.common.workspace import RUN_NAME
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.report import Report
from mars_export.methods.base import Artefact
from support.hub import running_hub

ORGANISM = Path(__file__).parents[2] / "examples" / "organisms" / "gemma3"
PER_CELL = 8
"""Evaluation requests of each modality and label that are kept."""
BARE = {"controls": False, "arm": "none"}
FLAGS = ["--no-controls", "--arm", "none"]
"""The same on the command line: steering off and on, nothing else."""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The organism with a short suite of its own."""
    folder = tmp_path_factory.mktemp("models") / "gemma3"
    shutil.copytree(ORGANISM, folder)
    counts, kept = {}, []
    for line in (folder / "suite.jsonl").read_text("utf-8").splitlines():
        record = json.loads(line)
        cell = (record["split"], record["modality"], record["harmful"])
        counts[cell] = counts.get(cell, 0) + 1
        if counts[cell] <= (PER_CELL if record["split"] == "evaluation" else 60):
            kept.append(line)
    (folder / "suite.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def killed(base, tmp_path_factory):
    """An output whose first run was killed as soon as the evaluation began."""
    output = tmp_path_factory.mktemp("outputs") / "steered"
    process = subprocess.Popen(command(base, output), stderr=subprocess.PIPE, text=True)
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("[3/4] evaluate ..."):
            process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "".join(lines)
    assert not output.exists()
    assert hidden(output).is_dir()
    return output


@pytest.fixture(scope="module")
def resumed(base, killed, main_job):
    """The second run of the same command, to its end."""
    return main_job(*command(base, killed)[3:], cwd=killed.parent)


@pytest.fixture(scope="module")
def steered(resumed, killed):
    """The finished directory."""
    return killed


def command(base, output, *more):
    arguments = ["--model", str(base), "--output", str(output), "--display", "plain", *FLAGS, *more]
    return [sys.executable, "-m", "mars_export", *arguments]


def hidden(output):
    return output.parent / f".{output.name}.mars-export"


def test_a_killed_run_goes_on_after_its_last_finished_stage(resumed):
    lines = resumed.stderr.splitlines()
    assert "resuming after export, finished in an earlier run" in lines
    begun = [line for line in lines if line.endswith(" ...")]
    assert begun == ["[3/4] evaluate ...", "[4/4] card ..."]


def test_the_output_is_complete_and_nothing_else_is_left(steered):
    assert verify(steered).passed
    assert (steered / "README.md").read_text("utf-8").startswith("---\n")
    report = Report.model_validate_json((steered / REPORT_NAME).read_bytes())
    assert report.self_check.active
    assert {cell.refused.n for cell in report.cells} == {PER_CELL}
    assert [path.name for path in steered.parent.iterdir()] == [steered.name]


def test_verification_runs_it_and_knows_its_answers_again(steered, tmp_path):
    check = verify(steered, run=True, device="cpu").checks[-1]
    assert (check.name, check.status) == ("behavior", "passed")
    assert "First tokens of" in check.detail
    copy = shutil.copytree(steered, tmp_path / "copy")
    report = json.loads((copy / REPORT_NAME).read_bytes())
    report["self_check"]["fingerprint"][1]["logits"][0] += 1
    (copy / REPORT_NAME).write_text(json.dumps(report))
    write_seal(copy)
    check = verify(copy, run=True, device="cpu").checks[-1]
    assert check.detail == "probe 0 with steering on does not answer as at the export"


def test_the_end_of_a_run_says_what_changed_where_it_is_and_what_is_next(resumed, steered):
    assert resumed.stdout == f"{steered}\n"
    assert "harmful image" in resumed.stderr
    lines = resumed.stderr.splitlines()
    for name, file in (("report", REPORT_NAME), ("model card", "README.md")):
        assert f"{name + ':':12} {steered / file}" in lines
    commands = [line.split() for line in lines[lines.index("next:") + 1 :]]
    assert [words[:3] for words in commands] == [
        ["mars-export", name, str(steered)] for name in ("ask", "verify", "push")
    ]


def test_the_base_is_untouched_and_its_weights_take_no_room_twice(base, steered):
    shards = list(steered.glob("model-*.safetensors"))
    assert sum(shard.samefile(base / "model.safetensors") for shard in shards) == 1


def test_repeating_the_command_does_nothing(base, steered, capsys):
    before = {path: path.stat().st_mtime_ns for path in steered.rglob("*")}
    assert export(Settings(**BARE, model=str(base), output=steered, display="plain")) == steered
    note = f"{steered} is already there, made with these settings\n"
    assert capsys.readouterr().err == note
    assert {path: path.stat().st_mtime_ns for path in steered.rglob("*")} == before
    assert not hidden(steered).exists()


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"neutral": "color"}, {"max_new_tokens": 5}, {"dtype": "bfloat16"}]
)
def test_other_settings_do_not_replace_it(base, steered, change):
    with pytest.raises(ExportError, match="holds another steered checkpoint; give --overwrite"):
        export(Settings(**BARE, model=str(base), output=steered, display="none", **change))
    assert verify_files(steered) == []
    assert not hidden(steered).exists()


def test_settings_of_the_run_itself_do_not_matter(base, steered):
    run = {"display": "none", "batch_size": 3, "device": "cpu"}
    changed = Settings(**BARE, model=str(base), output=steered, **run)
    assert export(changed) == steered


def test_a_steered_model_is_not_steered_again(steered, tmp_path):
    with pytest.raises(ExportError, match="already steered; pass the base model"):
        export(Settings(model=str(steered), output=tmp_path / "twice", display="none"))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def quick_calibration(steered, monkeypatch):
    """The finished calibration instead of another one."""
    finished = Artefact.load(steered / "calibration")
    monkeypatch.setattr(
        "mars_export.methods.calibrate.calibrate", lambda *_args, **_options: finished
    )


def test_a_checkpoint_that_does_not_steer_is_not_delivered(
    base, steered, tmp_path, quick_calibration, monkeypatch
):
    report = Report.model_validate_json((steered / REPORT_NAME).read_bytes())
    failed = report.self_check.model_copy(update={"active": False, "detail": "no gate opened"})
    report = report.model_copy(update={"self_check": failed})
    monkeypatch.setattr(
        "mars_export.evaluation.evaluate.evaluate", lambda *_args, **_options: report
    )
    with pytest.raises(ExportError, match="does not steer as calibrated: no gate opened"):
        export(Settings(**BARE, model=str(base), output=tmp_path / "out", display="none"))
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.rglob("README.md")) == []


def test_overwrite_replaces_the_whole_directory(
    base, steered, tmp_path, quick_calibration, monkeypatch
):
    old = tmp_path / "out"
    shutil.copytree(steered, old)
    (old / "note.txt").write_text("of the old one")
    changed = Settings(**BARE, model=str(base), output=old, display="none", seed=3, overwrite=True)
    assert export(changed) == old
    assert verify_files(old) == []
    assert not (old / "note.txt").exists()
    assert (old / RUN_NAME).read_bytes() != (steered / RUN_NAME).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_subcommands_evaluate_and_describe_again(base, steered, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(steered, copy)
    shutil.rmtree(copy / "evaluation")
    (copy / "README.md").unlink()
    suite = ["--suite", str(base / "suite.jsonl"), "--display", "none", *FLAGS]
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", str(copy), *suite])
    assert stopped.value.code == 0
    assert "harmless image" in capsys.readouterr().out
    before, after = (
        Report.model_validate_json((folder / REPORT_NAME).read_bytes())
        for folder in (steered, copy)
    )
    assert after.cells == before.cells
    again = tmp_path / "again"
    shutil.copytree(copy, again, ignore=shutil.ignore_patterns("evaluation"))
    bare = EvaluationOptions(controls=False, arms=("none",))
    called = evaluate(again, [str(base / "suite.jsonl")], bare)
    changing = {"created": "", "seconds": 0, "overhead": None}
    assert called.model_copy(update=changing) == after.model_copy(update=changing)
    assert called.overlap is not None
    for folder in (copy, again):
        files = {path.name for path in (folder / "evaluation").iterdir()}
        assert files == {"report.json", "report.html", "samples.jsonl", "safety_eval.json"}
    with pytest.raises(SystemExit):
        main(["card", str(copy), "--repo", "org/name"])
    assert "org/name" in (copy / "README.md").read_text("utf-8")
    assert verify(copy).passed


def test_a_push_does_not_publish_a_signature_of_another_card(steered, tmp_path, monkeypatch):
    copy = shutil.copytree(steered, tmp_path / "copy")
    (copy / SIGNATURE_NAME).write_text("of the seal as it is")
    monkeypatch.setattr("mars_export.hub.destination_of", lambda *_: "org/name")
    monkeypatch.setattr("mars_export.hub.check_destination", lambda *_: None)
    monkeypatch.setattr("mars_export.hub.push", lambda *_, **__: "published")
    with pytest.raises(ExportError, match=r"now names org/name: sign steering_seal\.json again"):
        publish(copy)
    assert verify(copy).passed
    assert publish(copy) == "published"  # the card is the same, and so is the seal


RUN = """
import sys
from pathlib import Path
import mars_export.methods.calibrate as module
from mars_export.methods.base import Artefact
from mars_export.cli.main import main
finished = Artefact.load(Path(sys.argv[1]))
module.calibrate = lambda *_arguments, **_options: finished
main(sys.argv[2:])
"""
TWICE = RUN.replace(
    "main(sys.argv[2:])",
    """
for more in ([], ["--push"]):
    try:
        main([*sys.argv[2:], *more])
    except SystemExit as ended:
        assert not ended.code, ended
""",
)
LOAD = """
from mars_export.cli.main import main
try:
    main(["verify", "me/gemma3-MARS"])
except SystemExit as ended:
    assert not ended.code, ended
from transformers import AutoModelForImageTextToText, AutoProcessor
model = AutoModelForImageTextToText.from_pretrained("me/gemma3-MARS", trust_remote_code=True)
AutoProcessor.from_pretrained("me/gemma3-MARS", trust_remote_code=True)
print(model.steering.enabled)
"""


def test_a_disk_that_fills_up_loses_nothing(base, steered, tmp_path, main_job):
    """The limit stands for a full disk: it is met while the tokenizer is copied."""
    output = tmp_path / "out"
    arguments = [str(steered / "calibration"), "--model", str(base), "--output", str(output)]
    call = [sys.executable, "-c", RUN, *arguments, "--display", "plain", *FLAGS]
    limit = (base / "tokenizer.json").stat().st_size - 1

    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    full = subprocess.run(call, capture_output=True, text=True, preexec_fn=small_disk)
    assert full.returncode == 2, full.stderr
    error = full.stderr.splitlines()[-1]
    assert error.startswith("mars-export: error: cannot write ")
    assert "File too large; " in error
    assert "run the same command again" in error
    assert not output.exists()
    assert not (hidden(output) / "checkpoint").exists()
    done = main_job(*call[call.index("--model") :], cwd=tmp_path)
    assert "resuming after calibrate, finished in an earlier run" in done.stderr
    assert verify_files(output) == []


def test_from_the_hub_to_the_hub(base, steered, tmp_path):
    """A base on the Hub; `--push` on a finished output publishes it without its weights."""
    output = tmp_path / "out"
    with running_hub() as hub:
        hub.add_folder("org/gemma3", base)
        environment = {**os.environ, **hub.env(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        environment["HF_MODULES_CACHE"] = str(tmp_path / "modules")

        def run(code, *arguments):
            done = subprocess.run(
                [sys.executable, "-c", code, *map(str, arguments)],
                capture_output=True, text=True, env=environment,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            return done

        words = ["--model", "org/gemma3", "--output", output, "--suite", base / "suite.jsonl"]
        words += ["--display", "plain", *FLAGS]
        published = run(TWICE, steered / "calibration", *words).stderr
        assert "is already there, made with these settings" in published
        assert f"published: {hub.url}/me/gemma3-MARS/commit/" in published
        assert (hub.count("commit"), hub.count("duplicate")) == (1, 1)
        assert hub.received() < (base / "model.safetensors").stat().st_size / 2
        assert verify(output).passed
        files = hub.repos["me/gemma3-MARS"].head.files
        assert RUN_NAME not in files
        assert "me/gemma3-MARS" in files["README.md"].content.decode()
        assert "base_model: org/gemma3" in files["README.md"].content.decode()
        assert run(LOAD).stdout.split()[-1] == "True"
