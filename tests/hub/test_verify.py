"""A checkpoint on the Hub, and the base that it was made from."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
from huggingface_hub import constants

from mars_export import ExportError, verify
from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.checkpoint.seal import SEAL_NAME, SIGNATURE_NAME, write_seal
from mars_export.checkpoint.writer import write_checkpoint
from mars_export.hub import push
from support import tiny
from support.hub_directory import CARD, add_evaluation_and_card

pytestmark = pytest.mark.use("verify", family="gemma3")
SHARD = "model-00001-of-00002.safetensors"
OF_BASE = ("base weights", "base files", "base configuration")


@pytest.fixture
def base(tmp_path):
    directory = tiny.save_base("gemma3", tmp_path / "base")
    (directory / "README.md").write_text(CARD)
    (directory / "tokenizer_config.json").write_text('{"a": 1}')
    return directory


@pytest.fixture
def steered(hub, base, tmp_path):
    """Made from `org/tiny` on the local Hub."""
    repo = hub.add_folder("org/tiny", base)
    found = {"repo": repo.id, "revision": repo.head.sha}
    write_checkpoint(
        base,
        tmp_path / "steered",
        source=tiny.source("gemma3").model_copy(update=found),
        calibration_dir=tiny.save_calibration("gemma3", tmp_path / "calibration"),
    )
    return add_evaluation_and_card(tmp_path / "steered")


def answers(target, **options):
    return {c.name: (c.status, c.detail) for c in verify(target, **options).checks}


def test_weights_files_and_configuration_are_the_bases(hub, steered):
    said = answers(steered)
    assert {status for status, _ in said.values()} == {"passed"}
    name = f"org/tiny@{hub.repos['org/tiny'].head.sha[:8]}"
    assert said["base weights"][1] == f"1 shards are those of {name}"
    assert said["base files"][1] == f"2 files are those of {name}"
    assert hub.count("resolve") <= 4, "config.json alone is downloaded"


def test_a_repository_is_verified_without_its_weights(hub, steered):
    push(steered, "steered")
    before = len(hub.requests)
    found = verify("me/steered")
    assert found.passed
    assert {c.status for c in found.checks} == {"passed"}
    assert found.commit == hub.repos["me/steered"].head.sha
    got = [r for r in hub.requests[before:] if r.route == "resolve" and SHARD in r.path]
    assert all("range" in r.headers for r in got if r.method == "GET"), "only the header"
    assert verify("me/steered", revision=found.commit).commit == found.commit


def test_a_signature_is_published_and_an_old_one_does_not_stay(hub, steered, tmp_path):
    model_signing = pytest.importorskip("model_signing")
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    key, pem = ec.generate_private_key(ec.SECP256R1()), form.Encoding.PEM
    private, public = tmp_path / "key.pem", tmp_path / "public.pem"
    private.write_bytes(key.private_bytes(pem, form.PrivateFormat.PKCS8, form.NoEncryption()))
    shown = form.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(pem, shown))
    signer = model_signing.signing.Config().use_elliptic_key_signer(private_key=private)
    signer.sign(steered / SEAL_NAME, steered / SIGNATURE_NAME)
    push(steered, "steered")
    status, said = answers("me/steered", public_key=public)["signature"]
    assert status == "passed", said

    (steered / SIGNATURE_NAME).unlink()
    push(steered, "steered")
    assert answers("me/steered", public_key=public)["signature"][0] == "failed"
    assert SIGNATURE_NAME not in hub.repos["me/steered"].head.files


@pytest.mark.parametrize(
    "name", [SHARD, "modeling_steered.py", "steering_host.py", "tokenizer_config.json"]
)
def test_a_repository_that_was_changed_afterwards(hub, steered, name):
    push(steered, "steered")
    repo = hub.repos["me/steered"]
    content = bytearray(repo.head.files[name].content)
    content[-1] ^= 1
    repo.publish({name: bytes(content)}, (".safetensors",))
    found = verify("me/steered")
    assert not found.passed
    (check,) = [c for c in found.checks if c.name == "exported files"]
    assert check.problems == (f"{name} is not the file that was exported",)
    assert verify("me/steered", revision=repo.commits[-2].sha).passed


def test_a_card_that_was_edited_on_the_hub_is_named_and_can_be_sealed(hub, steered):
    push(steered, "steered")
    repo = hub.repos["me/steered"]
    card = repo.head.files["README.md"].content + b"\nUse it with care.\n"
    repo.publish({"README.md": card}, ())
    failed = {
        name: said for name, (status, said) in answers("me/steered").items() if status == "failed"
    }
    assert failed.keys() == {"sealed files"}
    assert failed["sealed files"].startswith("README.md was changed after it was sealed; if that")
    (steered / "README.md").write_bytes(card)
    (steered / "evaluation/samples.jsonl").unlink()  # as in a download
    repo.publish({SEAL_NAME: write_seal(steered).read_bytes()}, ())
    assert verify("me/steered").passed


def test_a_directory_that_was_changed_after_it_was_sealed_is_not_published(hub, steered):
    (steered / "evaluation/utility.json").write_text("{}")
    with pytest.raises(ExportError, match=r"utility\.json was added after .* `mars-export seal`"):
        push(steered, "steered")
    write_seal(steered)
    push(steered, "steered")
    assert verify("me/steered").passed


def test_code_that_was_added_to_a_repository(hub, steered):
    push(steered, "steered")
    hub.repos["me/steered"].publish({"custom_generate/generate.py": b"1"}, ())
    assert answers("me/steered")["nothing else"][0] == "failed"


def test_weights_of_another_model_under_the_name_of_the_base(hub, steered):
    """The manifest is forged to fit; what the base's repository publishes is not."""
    content = (steered / SHARD).read_bytes()
    (steered / SHARD).unlink()
    (steered / SHARD).write_bytes(content[:-1] + b"\0")
    (steered / "tokenizer_config.json").write_text('{"a": 2}')
    config = json.loads((steered / "config.json").read_bytes())
    config["text_config"]["rms_norm_eps"] = 1.0
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (steered / "config.json").write_text(text)
    refit(steered)
    said = answers(steered)
    assert {name for name, (status, _) in said.items() if status == "failed"} == set(OF_BASE)
    assert f"{SHARD} is not the file of org/tiny@" in said["base weights"][1]
    assert (
        "config.json differs from that of the export onto org/tiny@"
        in (said["base configuration"][1])
    )
    assert "text_config.rms_norm_eps is 1.0, not" in said["base configuration"][1]


def refit(directory, **source):
    """Make manifest and seal fit the files, as a forger does."""
    record = json.loads((directory / MANIFEST_NAME).read_bytes())
    record["base"] |= source
    for entry in record["files"]:
        content = (directory / entry["path"]).read_bytes()
        entry |= {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        entry["origin"] = "added"  # it does not matter what it says
    (directory / MANIFEST_NAME).write_text(Manifest.model_validate(record).text())
    write_seal(directory)


def test_what_cannot_be_asked_is_said(hub, steered, monkeypatch):
    for name in OF_BASE:
        assert answers(steered, offline=True)[name][0] == "skipped"
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for name in OF_BASE:
        status, detail = answers(steered)[name]
        assert status == "skipped"
        assert detail.startswith("cannot reach the Hugging Face Hub for org/tiny")


def test_a_base_that_nobody_can_see_is_a_failure_and_a_gated_one_is_not(hub, steered):
    hub.repos["org/tiny"].gated = "manual"
    assert answers(steered)["base weights"][0] == "skipped"
    del hub.repos["org/tiny"]
    status, detail = answers(steered)["base weights"]
    assert status == "failed"
    assert "--offline leaves this check out" in detail


@pytest.mark.parametrize("revision", [None, "main", "../x"])
def test_a_base_without_a_commit_is_a_failure(hub, steered, revision):
    refit(steered, revision=revision)
    assert answers(steered)["base weights"] == (
        "failed",
        "the manifest names no commit of org/tiny",
    )


def test_bad_repositories(hub, base):
    hub.add("me/other", {"config.json": b"{}"})
    for repo, message in [
        ("me/absent", "is not on the Hub, or not visible to you"),
        ("me/other", f"me/other is not a steered checkpoint: it has no {MANIFEST_NAME}"),
        ("a b", "a b is no directory here"),
    ]:
        with pytest.raises(ExportError, match=message) as caught:
            verify(repo)
        assert "\n" not in str(caught.value)
    for option in ("offline", "run"):
        with pytest.raises(ExportError, match=f"--{option} needs a directory"):
            verify("me/other", **{option: True})


def test_a_huge_file_is_not_downloaded(hub, steered, monkeypatch):
    push(steered, "steered")
    monkeypatch.setattr("mars_export.hub.repository._SMALL", 100)
    with pytest.raises(ExportError, match="is too large for what it should be"):
        verify("me/steered")


def test_the_command_line_on_a_repository(hub, steered, tmp_path):
    push(steered, "steered")
    environment = {**os.environ, **hub.env(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "mars_export", "verify", "me/steered", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["commit"] == hub.repos["me/steered"].head.sha
