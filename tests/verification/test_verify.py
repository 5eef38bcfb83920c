"""Each check fails on what it is there for, and nothing of the checkpoint runs."""

import hashlib
import json
import os
import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from mars_export import ExportError, verify, write_seal
from mars_export._version import __version__
from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.checkpoint.modeling import MODELING_NAME
from mars_export.common.names import REPORT_NAME
from mars_export.evaluation.report import FirstToken, Report, SelfCheck
from support import tiny
from support.artefacts import pushed_probes
from support.hub_directory import add_evaluation_and_card

pytestmark = pytest.mark.use("verify", family="gemma3")
SHARD = "model-00001-of-00002.safetensors"


def failures(target, **options):
    """Check name to what it says, of those that failed."""
    found = verify(target, **options)
    failed = {c.name: c.detail for c in found.checks if c.status == "failed"}
    assert found.passed == (not failed)
    return failed


def forge(directory, change=lambda manifest: None):
    """Rewrite manifest and seal so that they fit the files; all that a forger need not guess."""
    manifest = json.loads((directory / MANIFEST_NAME).read_bytes())
    change(manifest)
    for entry in manifest["files"]:
        content = (directory / entry["path"]).read_bytes()
        entry |= {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    text = Manifest.model_validate(manifest).text()
    (directory / MANIFEST_NAME).write_text(text)
    write_seal(directory)


def edit(path, change):
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def test_an_export_is_verified(steered):
    found = verify(steered)
    assert found.passed
    skipped = {c.name for c in found.checks if c.status == "skipped"}
    assert skipped == {"base weights", "base files", "base configuration"}
    assert found.steering_sha256 == Manifest.read(steered).steering_sha256


def test_what_is_written_later_and_by_the_clients_of_the_hub_is_no_problem(steered):
    for name in ("README.md", "assets/a.png", "evaluation/report.json", ".export_run.json"):
        (steered / name).parent.mkdir(exist_ok=True)
        (steered / name).write_text("{}")
    (steered / "notes.txt").write_text("mine")
    write_seal(steered)
    (steered / ".cache/huggingface").mkdir(parents=True)
    (steered / ".cache/huggingface/trust.json").write_text("{}")
    assert failures(steered) == {}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("helper.py", "it is code"),
        ("custom_generate/generate.py", "it is code"),
        ("evaluation/__pycache__/x.cpython-311.pyc", "it is code"),
        ("pytorch_model.bin", "can run code"),
        ("assets/deep/optimizer.PT", "can run code"),
        ("model.safetensors", "change what is loaded"),
        ("adapter_config.json", "change what is loaded"),
        ("chat_template.jinja", "change what is loaded"),
        ("additional_chat_templates/tool.jinja", "change what is loaded"),
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_a_file_that_would_be_loaded_or_run(steered, name, why, listed):
    (steered / name).parent.mkdir(parents=True, exist_ok=True)
    (steered / name).write_bytes(b"x")
    said = failures(steered)
    assert why in said["nothing else"]
    if listed and "change" not in why:  # what a base may have is compared with the base instead
        entry = {"path": name, "sha256": "", "size": 0, "origin": "base", "base_path": name}
        forge(steered, lambda manifest: manifest["files"].append(entry))
        assert why in failures(steered)["nothing else"]


def test_a_missing_and_an_altered_file(steered):
    (steered / "generation_config.json").unlink()
    (steered / SHARD).unlink()  # a hard link: not to be written through
    (steered / SHARD).write_bytes(b"x")
    found = verify(steered)
    (check,) = [c for c in found.checks if c.name == "exported files"]
    assert check.problems == (
        "generation_config.json is missing",
        f"{SHARD} is not the file that was exported",
    )


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "loop", "/dev/zero"])
def test_a_link_out_of_the_directory(steered, target):
    (steered.parent / "outside").write_text("secret")
    (steered / "loop").symlink_to("loop")
    (steered / "README.md").symlink_to(target)
    assert "README.md" in failures(steered)["plain files"] or target == "loop"
    (check,) = [c for c in verify(steered).checks if c.name == "plain files"]
    assert "loop" in " ".join(check.problems)


def test_a_link_instead_of_a_file_and_of_a_folder(steered, tmp_path):
    shutil.move(steered / "config.json", tmp_path / "config.json")
    (steered / "config.json").symlink_to(tmp_path / "config.json")
    shutil.move(steered / "calibration", tmp_path / "calibration")
    (steered / "calibration").symlink_to(tmp_path / "calibration")
    said = failures(steered)
    assert "and 1 more" in said["plain files"]
    assert "config.json leads out" in said["configuration"]


def test_a_pipe_is_not_read(steered):
    (steered / "generation_config.json").unlink()
    os.mkfifo(steered / "generation_config.json")
    assert "is not a plain file" in failures(steered)["plain files"]


def test_a_snapshot_of_the_hubs_cache_is_a_directory_of_links(pristine, tmp_path):
    snapshot, blobs = tmp_path / "models--a--b/snapshots/0", tmp_path / "models--a--b/blobs"
    shutil.copytree(pristine, blobs)
    for path in sorted(p for p in blobs.rglob("*") if p.is_file()):
        link = snapshot / path.relative_to(blobs)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    assert failures(snapshot) == {}


@pytest.mark.parametrize(
    "path", ["../escape", "/etc/passwd", "a/../../b", "C:/x", "a\\b", "", "a\0b"]
)
def test_a_manifest_may_not_name_files_outside(steered, path):
    edit(steered / MANIFEST_NAME, lambda m: m["files"][0].update(path=path))
    with pytest.raises(ExportError, match="must be a relative path inside") as caught:
        verify(steered)
    assert "\n" not in str(caught.value)


def test_an_index_may_not_name_files_outside(steered):
    def move(index):
        index["weight_map"] = dict.fromkeys(index["weight_map"], "../base/model.safetensors")

    edit(steered / "model.safetensors.index.json", move)
    forge(steered)
    assert "../base/model.safetensors is no shard" in failures(steered)["weight index"]


def test_a_manifest_that_was_edited(steered):
    edit(steered / MANIFEST_NAME, lambda m: m.update(created="2020-01-01"))
    said = failures(steered)
    assert said.keys() == {"manifest", "sealed files"}
    assert said["manifest"] == f"{MANIFEST_NAME} was changed after the export"
    assert said["sealed files"].startswith(f"{MANIFEST_NAME} is not the one that was sealed")


def test_changed_code_is_found_even_when_the_manifest_was_forged(steered):
    with (steered / MODELING_NAME).open("a") as code:
        code.write("\nimport os\n")
    forge(steered)
    said = failures(steered)
    assert said.keys() == {"modeling file"}
    assert f"this mars-export, {__version__}, writes for Gemma 3; " in said["modeling file"]


def rule(name, value):
    return lambda config: config["steering"].update({name: value})


@pytest.mark.parametrize(
    ("change", "check", "why"),
    [
        (
            lambda c: c["auto_map"].update(AutoModel="someone/else--m.Model"),
            "configuration",
            'auto_map.AutoModel is "someone/else--m.Model", not "modeling_steered.SteeredGemma3Mod',
        ),
        (
            lambda c: c["auto_map"].update(AutoTokenizer="tok.Tok"),
            "configuration",
            "auto_map.AutoTokenizer does not belong there",
        ),
        (
            lambda c: c.update(transformers_weights="other.json"),
            "no other code",
            "loads something else",
        ),
        (
            lambda c: c["vision_config"].update(auto_map={"AutoModel": "m.M"}),
            "no other code",
            "below its top level",
        ),
        (lambda c: c.update(model_type="gemma3"), "configuration", "is not a steered checkpoint"),
        (
            lambda c: c.update(model_type="steered_llama"),
            "configuration",
            'model_type is "steered_llama", not "steered_gemma3"',
        ),
        (
            lambda c: c.update(architectures=["Gemma3ForConditionalGeneration"]),
            "configuration",
            'architectures is ["Gemma3',
        ),
        (
            lambda c: c["text_config"].update(hidden_activation="gelu"),
            "configuration",
            'text_config.hidden_activation is "gelu"',
        ),
        (rule("layers", [1]), "configuration", "steering.layers is [1], not [2]"),
        (rule("headers", []), "configuration", "steering.headers is [], not"),
        (rule("guarded", {}), "configuration", "steering.guarded"),
        (rule("refused", {"x": "image"}), "configuration", "steering.refused"),
        (rule("method", "none"), "configuration", 'steering.method is "none", not "mars"'),
        (rule("more", 1), "configuration", "steering.more does not belong there"),
        (lambda c: c["steering"].pop("layers"), "configuration", "steering.layers is missing"),
        (rule("sha256", "0" * 64), "configuration", "steering.sha256 is"),
        (lambda c: c.update(steering=None), "configuration", "is not a steered checkpoint"),
        (lambda c: c.update(text_config=[]), "configuration", "is not a steered checkpoint"),
    ],
)
def test_a_config_that_says_something_else(steered, change, check, why):
    edit(steered / "config.json", change)
    forge(steered)
    failure = failures(steered)[check]
    assert why in failure
    assert "\n" not in failure


def test_the_same_config_in_other_bytes(steered):
    path = steered / "config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes())))
    forge(steered)
    assert failures(steered) == {
        "configuration": "config.json differs from that of the export: "
        "the same content in other bytes"
    }


def test_another_digest_in_the_manifest(steered):
    forge(steered, lambda manifest: manifest.update(steering_sha256="0" * 64))
    assert "the manifest states another digest" in failures(steered)["configuration"]


@pytest.mark.parametrize("change", [{"norm": 2.0}, {"shape": [1]}, {"name": "other"}])
def test_other_tensors_in_the_manifest(steered, change):
    forge(steered, lambda manifest: manifest["tensors"][0].update(change))
    assert failures(steered) == {"steering tensors": "the manifest states other steering tensors"}


@pytest.mark.parametrize(
    "content", ["[]", "{", "null", "[" * 100_000, '{"steering": {}, "a": NaN}']
)
def test_a_config_that_is_none(steered, content):
    (steered / "config.json").write_text(content)
    forge(steered)
    assert "configuration" in failures(steered)


def test_code_named_by_a_tokenizer(steered):
    (steered / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["t.T", null]}}')
    entry = {"path": "tokenizer_config.json", "sha256": "", "size": 0, "origin": "base"}
    forge(steered, lambda manifest: manifest["files"].append(entry))
    said = failures(steered)
    assert said == {"no other code": "tokenizer_config.json names code of its own (auto_map)"}


def steering_of(directory):
    tensors = load_file(directory / "steering.safetensors")
    (prefix,) = {name.rpartition(".")[0] for name in tensors}
    return tensors, prefix


@pytest.mark.parametrize(
    "change",
    [
        lambda t, p: t[f"{p}.direction"].zero_(),
        lambda t, p: t[f"{p}.bounds"][0].fill_(torch.nan),
        lambda t, p: t[f"{p}.shift"][1].neg_(),
        lambda t, p: t[f"{p}.direction"].copy_(t[f"{p}.direction"].flip(0)),
        lambda t, p: t.update({f"{p}.bounds": t[f"{p}.bounds"].half()}),
        lambda t, p: t.update({f"{p}.bounds": torch.zeros(2)}),
        lambda t, p: t.pop(f"{p}.shift"),
        lambda t, p: t.update(extra=torch.zeros(1)),
    ],
)
def test_tensors_that_are_not_the_calibrated(steered, change):
    tensors, prefix = steering_of(steered)
    change(tensors, prefix)
    save_file(tensors, steered / "steering.safetensors", {"format": "pt"})
    forge(steered)
    assert failures(steered)["steering tensors"] == (
        "steering.safetensors is not what the calibration gives"
    )


def test_a_checkpoint_that_cannot_push(pristine, tmp_path, monkeypatch):
    """Made by somebody whose writer does not refuse it, so that all of its parts fit."""
    monkeypatch.setattr("mars_export.checkpoint.writer.push_problem", lambda *_: None)
    text = pushed_probes(["text"])
    for changes, why in (
        ({"cap": -1e9}, "nothing is steered: the cap is not above the gate's origin"),
        ({"probes": []}, "nothing is steered: no probe of the calibration is pushed"),
        ({"probes": text}, "no probe of the calibration is a pushed image request"),
    ):
        steered = tiny.export("gemma3", tmp_path / why, **changes)[1]
        assert failures(steered) == {"push": why}
        assert verify(steered, run=True, device="cpu").checks[-1].status == "skipped"
        if "cap" in changes:
            with pytest.raises(RuntimeError, match="can never steer, because the cap"):
                AutoModelForImageTextToText.from_pretrained(steered, trust_remote_code=True)
    (push,) = [check for check in verify(pristine).checks if check.name == "push"]
    assert push.detail == "the rule can push in every calibrated modality: text, image"


def test_an_index_that_leaves_the_steering_out(steered):
    _, prefix = steering_of(steered)

    def move(index):
        index["weight_map"][f"{prefix}.bounds"] = SHARD

    edit(steered / "model.safetensors.index.json", move)
    forge(steered)
    assert f'{prefix}.bounds is "{SHARD}"' in failures(steered)["weight index"]


def test_another_calibration_than_the_manifest_records(steered):
    tiny.save_calibration("gemma3", steered / "calibration", seed=9)
    forge(steered)
    assert "not the calibration that" in failures(steered)["steering tensors"]


def test_steering_hidden_in_a_base_shard(steered):
    _, prefix = steering_of(steered)
    shard = load_file(steered / SHARD) | {f"{prefix}.bounds": torch.zeros(5)}
    (steered / SHARD).unlink()
    save_file(shard, steered / SHARD)
    forge(steered)
    assert "holds steering tensors" in failures(steered)["weight index"]


def test_bad_input(tmp_path, steered):
    for target, message in [
        (tmp_path / "absent", "is no directory here"),
        ("absent", "is no directory here: give a steered directory, or a repository ORG/NAME"),
        (tmp_path, "is not a steered checkpoint"),
        (f"{steered}/config.json", "is a file"),
    ]:
        with pytest.raises(ExportError, match=message):
            verify(target)
    with pytest.raises(ExportError, match="--revision is for Hub repositories"):
        verify(steered, revision="main")
    raw = json.loads((steered / MANIFEST_NAME).read_bytes()) | {"schema_version": 0}
    (steered / MANIFEST_NAME).write_text(json.dumps(raw))
    with pytest.raises(ExportError, match=rf"by mars-export {re.escape(__version__)}\): sc"):
        verify(steered)
    (steered / MANIFEST_NAME).write_text("[" * 100_000)
    with pytest.raises(ExportError, match=MANIFEST_NAME):
        verify(steered)


def test_run_is_for_what_has_passed_and_repeats_the_probes(steered, monkeypatch):
    said = failures(steered, run=True, device="cpu")
    assert said.keys() == {"behavior"}  # a tiny checkpoint has no processor to make a probe with
    (steered / MODELING_NAME).write_text("raise SystemExit")
    found = verify(steered, run=True, device="cpu")
    assert (found.checks[-1].status, found.checks[-1].detail) == (
        "skipped",
        "not run, as a check failed",
    )


def recorded(**changes):
    first = {"probe": 0, "arm": "on", "tokens": [5, 3], "logits": [2.0, 1.0]}
    return [FirstToken.model_validate(first | changes)]


@pytest.mark.parametrize(
    ("active", "then", "status", "said"),
    [
        (False, [], "failed", "all probes"),
        (True, [], "passed", "all probes. No fingerprint"),
        (True, recorded(), "passed", "First tokens of 1 answers are those of the export"),
        (True, recorded(logits=[2.0001, 9.0], tokens=[5, 8]), "passed", "within 1.1e-05"),
        (True, recorded(logits=[2.1, 1.0]), "failed", "does not answer as at the export"),
        (True, recorded(tokens=[4, 5]), "failed", "does not answer as at the export"),
        (True, recorded(probe=1), "failed", "probe 1 with steering on does not answer"),
        (True, recorded(tokens=[], logits=[]), "failed", "does not answer"),
    ],
)
def test_run_says_what_the_probes_said(steered, monkeypatch, active, then, status, said):
    answer = SelfCheck(active=active, detail="all probes.", fingerprint=recorded())
    loaded = SimpleNamespace(model=SimpleNamespace(dtype=torch.float32))
    monkeypatch.setattr("mars_export.evaluation.generation.load_calibrated", lambda *_: loaded)
    monkeypatch.setattr("mars_export.evaluation.selfcheck.self_check", lambda *_: answer)
    add_evaluation_and_card(steered)
    path = steered / REPORT_NAME
    report = Report.model_validate_json(path.read_bytes())
    check = report.self_check.model_copy(update={"fingerprint": then})
    path.write_text(report.model_copy(update={"self_check": check}).model_dump_json())
    write_seal(steered)
    check = verify(steered, run=True, device="cpu").checks[-1]
    assert check.status == status
    assert said in check.detail
