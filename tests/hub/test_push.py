"""Publishing a steered directory."""

import json
import logging
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from mars_export import Settings, export, publish, write_seal
from mars_export.checkpoint.manifest import Manifest
from mars_export.checkpoint.seal import SIGNATURE_NAME
from mars_export.common.errors import ExportError
from mars_export.hub import destination_of, push
from mars_export.hub.readiness import published_files, require_ready
from support import hub_routes
from support.hub import Hub
from support.hub_directory import RENAMED, SHARD, base_files, edit_manifest, steered_directory
from support.hub_routes import Call, Reply

SMALL = 40_000
"""Bytes; far below the half megabyte of weights."""


@pytest.fixture
def steered(hub: Hub, tmp_path) -> Path:
    """A directory whose base lives on the local Hub, as a public repository of someone else."""
    base = hub.add("org/base", base_files())
    return steered_directory(tmp_path / "out", {"repo": base.id, "revision": base.head.sha})


def content(hub: Hub, repo_id: str) -> dict[str, bytes]:
    files = {path: blob.content for path, blob in hub.repos[repo_id].head.files.items()}
    del files[".gitattributes"]
    return files


def local(directory: Path) -> dict[str, bytes]:
    names = published_files(directory, require_ready(directory))
    return {name: (directory / name).read_bytes() for name in names}


def test_one_commit_and_no_weight_travels(hub: Hub, steered):
    notes: list[str] = []
    url = push(steered, note=notes.append)
    repo = hub.repos["me/base-MARS"]
    assert url == f"{hub.url}/me/base-MARS/commit/{repo.head.sha}"
    assert [commit.title for commit in repo.commits[1:]] == ["Pre-steered checkpoint of org/base"]
    answers = "evaluation/samples.jsonl"
    assert (steered / answers).is_file()
    assert content(hub, "me/base-MARS") == local(steered)
    assert answers not in content(hub, "me/base-MARS")
    assert (hub.count("commit"), hub.count("duplicate")) == (1, 1)
    assert hub.received() < SMALL
    assert notes == ["me/base-MARS: 1 copied on the Hub, 12 to upload"]


def test_pushing_again_changes_nothing(hub: Hub, steered):
    notes: list[str] = []
    first = push(steered, "steered")
    assert push(steered, "steered", note=notes.append) == first
    assert notes == ["me/steered is up to date"]
    assert hub.count("commit") == 1
    assert hub.count("lfs_upload") == 2  # steering tensors and a plot, once


def test_a_new_version_replaces_the_old_and_its_leftovers(hub: Hub, steered):
    push(steered, "steered")
    repo = hub.repos["me/steered"]
    leftovers = {"model.safetensors": b"old", "assets/old.png": b"old", "old.py": b"old"}
    kept = {"NOTES.md": b"mine", "gguf/model.gguf": b"mine"}
    repo.publish(leftovers | kept, (".safetensors", ".png"))
    (steered / "README.md").write_text("---\nlicense: gemma\n---\n# Steered again\n")
    write_seal(steered)
    push(steered, "steered")
    assert content(hub, "me/steered") == local(steered) | kept
    assert hub.count("duplicate") == 1


@pytest.mark.parametrize("name", [SIGNATURE_NAME, "assets/refusal.png"])
def test_what_lies_behind_a_link_is_not_published(steered, name):
    path, elsewhere = steered / name, steered.parent / "elsewhere"
    path.unlink(missing_ok=True)
    elsewhere.write_text("private")
    path.symlink_to(elsewhere)
    assert name not in set(published_files(steered, Manifest.read(steered)))


def test_only_what_belongs_to_the_checkpoint_is_published(hub: Hub, steered):
    (steered / ".env").write_text("HF_TOKEN=hf_private")
    (steered / "notes.txt").write_text("private")
    (steered / "evaluation/link.json").symlink_to(steered / ".env")
    push(steered, "steered")
    assert not {".env", "notes.txt", "evaluation/link.json"} & set(content(hub, "me/steered"))


@pytest.mark.parametrize(("status", "said"), [(403, "Forbidden"), (500, "other region")])
def test_a_refused_copy_becomes_an_upload(hub: Hub, steered, status, said):
    notes: list[str] = []
    hub.broken["duplicate"] = (status, said)
    push(steered, "steered", note=notes.append)
    assert content(hub, "me/steered") == local(steered)
    assert len(hub.repos["me/steered"].commits) == 2
    assert notes[-1] == "the Hub refused to copy from org/base: uploading the weights"
    assert hub.received("lfs_upload") > len(SHARD)


def test_a_copy_that_fails_for_one_file_becomes_an_upload(hub: Hub, steered):
    hub.repos["org/base"].objects.clear()
    push(steered, "steered")
    assert content(hub, "me/steered") == local(steered)


@pytest.mark.parametrize("change", ["no xet hash", "other content", "local base"])
def test_weights_that_cannot_be_copied_are_uploaded(hub: Hub, steered, change):
    if change == "no xet hash":
        hub.repos["org/base"].xet = False
    elif change == "other content":
        commit = hub.repos["org/base"].publish({"model.safetensors": b"new"}, (".safetensors",))
        edit_manifest(steered, revision=commit.sha)
    else:
        edit_manifest(steered, repo=None, revision=None)
    push(steered, "steered")
    assert content(hub, "me/steered") == local(steered)
    assert hub.count("duplicate") == 0
    assert hub.received("lfs_upload") > len(SHARD)


def test_other_failures_leave_the_repository_as_it_was(hub: Hub, steered):
    hub.broken["commit"] = (400, "the commit was not accepted")
    with pytest.raises(
        ExportError, match="the Hub answered 400 for me/steered: the commit was not"
    ):
        push(steered, "steered")
    assert len(hub.repos["me/steered"].commits) == 1
    del hub.broken["commit"]
    push(steered, "steered")
    assert content(hub, "me/steered") == local(steered)


def test_a_card_that_the_hub_refuses_is_told_before_anything_travels(hub: Hub, steered):
    hub.broken["validate_yaml"] = (400, "no")
    with pytest.raises(ExportError, match="me/steered: Invalid metadata"):
        push(steered, "steered")
    assert hub.count("lfs_upload") == hub.count("duplicate") == hub.count("commit") == 0


# --- who may see it ---------------------------------------------------------------------------


def restrict(hub: Hub, steered: Path, *, gated: str | bool = False, private: bool = False) -> None:
    base = hub.repos["org/base"]
    base.gated, base.private = gated, private
    hub.granted.add("org/base")
    edit_manifest(steered, gated=gated, private=private)


@pytest.mark.parametrize(
    ("base", "asked", "then"),
    [
        ({}, None, (False, False)),
        ({}, True, (True, False)),
        ({"gated": "manual"}, None, (True, False)),
        ({"gated": "manual"}, False, (False, "manual")),
        ({"gated": "auto"}, False, (False, "auto")),
        ({"private": True}, None, (True, False)),
        ({"private": True, "gated": "auto"}, True, (True, False)),
    ],
)
def test_a_new_repository_is_never_more_open_than_the_base(hub: Hub, steered, base, asked, then):
    restrict(hub, steered, **base)
    push(steered, "steered", private=asked)
    repo = hub.repos["me/steered"]
    assert (repo.private, repo.gated) == then
    routes = [r.route for r in hub.requests]
    assert "settings" not in routes or routes.index("settings") < routes.index("commit")


def test_a_private_base_is_never_published(hub: Hub, steered):
    restrict(hub, steered, private=True)
    with pytest.raises(ExportError, match="the base model is private: me/steered must be private"):
        push(steered, "steered", private=False)
    assert "me/steered" not in hub.repos


def test_a_gate_that_was_added_after_the_export_counts(hub: Hub, steered):
    restrict(hub, steered, gated="manual")
    edit_manifest(steered, gated=False)
    push(steered, "steered")
    assert hub.repos["me/steered"].private


def test_a_base_that_has_gone_is_treated_as_private(hub: Hub, steered):
    notes: list[str] = []
    del hub.repos["org/base"]
    push(steered, "steered", note=notes.append)
    assert hub.repos["me/steered"].private
    assert notes[0] == "org/base can no longer be seen: treated as private"
    assert content(hub, "me/steered") == local(steered)


def test_a_gate_that_does_not_close_stops_the_push(hub: Hub, steered, monkeypatch):
    restrict(hub, steered, gated="manual")

    def open_without_gate(call: Call, repo_id: str) -> Reply:
        hub.repos[repo_id].private = False
        return 200, {}, {}

    monkeypatch.setattr(hub_routes, "_settings", open_without_gate)
    with pytest.raises(ExportError, match="the base model is gated and me/steered is open"):
        push(steered, "steered", private=False)
    assert len(hub.repos["me/steered"].commits) == 1


@pytest.mark.parametrize(
    ("base", "asked", "message"),
    [
        ({"gated": "manual"}, None, "the base model is gated and me/steered is open"),
        ({"private": True}, None, "the base model is private and me/steered is public"),
        ({}, True, "me/steered is public: make it private"),
    ],
)
def test_an_open_repository_is_refused(hub: Hub, steered, base, asked, message):
    restrict(hub, steered, **base)
    hub.add("me/steered", {})
    with pytest.raises(ExportError, match=message):
        push(steered, "steered", private=asked)
    assert content(hub, "me/steered") == {}


def test_a_gated_repository_may_hold_a_gated_base(hub: Hub, steered):
    restrict(hub, steered, gated="manual")
    hub.add("me/steered", {}, gated="auto")
    push(steered, "steered")
    assert content(hub, "me/steered") == local(steered)


# --- where it goes ----------------------------------------------------------------------------


def test_a_repository_with_something_else_is_kept(hub: Hub, steered):
    hub.add("me/steered", {"config.json": b"mine", "LICENSE": b"mine"})
    with pytest.raises(ExportError, match=r"me/steered exists and is not a steered checkpoint"):
        push(steered, "steered")
    assert content(hub, "me/steered") == {"config.json": b"mine", "LICENSE": b"mine"}
    push(steered, "steered", overwrite=True)
    assert content(hub, "me/steered") == local(steered) | {"LICENSE": b"mine"}


def test_overwrite_of_an_export_is_about_its_directory(hub: Hub, steered, monkeypatch):
    for name in ("pipeline.stages.prepare", "pipeline.stages._make", "card.render.write_card"):
        monkeypatch.setattr(f"mars_export.{name}", lambda *_: None)
    hub.add("me/steered", {"config.json": b"mine"})
    settings = Settings(
        model="org/base", output=steered, push="steered", overwrite=True, display="none"
    )
    with pytest.raises(ExportError, match=r"me/steered exists and is not a steered checkpoint"):
        export(settings)
    assert content(hub, "me/steered") == {"config.json": b"mine"}


@pytest.mark.parametrize(
    ("repo_id", "name"),
    [(None, "me/base-MARS"), ("mine", "me/mine"), ("org/mine", "org/mine")],
)
def test_the_full_name_of_a_destination(hub: Hub, steered, repo_id, name):
    assert destination_of(steered, repo_id) == name


@pytest.mark.parametrize(
    ("repo_id", "message"),
    [
        ("a/b/c", "a/b/c cannot be a repository"),
        ("with space", "with space cannot be a repository"),
        ("org/steered", "the Hub answered 403 for org/steered: .*rights"),
        ("org/base", "org/base exists and is not a steered checkpoint"),
    ],
)
def test_a_bad_destination(hub: Hub, steered, repo_id, message):
    before = set(hub.repos)
    with pytest.raises(ExportError, match=message) as caught:
        push(steered, repo_id)
    assert "\n" not in str(caught.value)
    assert set(hub.repos) == before


def test_someone_elses_commit_in_between_is_noticed(hub: Hub, steered, monkeypatch):
    def interfere(note: str) -> None:
        hub.repos["me/steered"].publish({"NOTES.md": b"mine"}, ())

    with pytest.raises(ExportError, match="the Hub answered 412 for me/steered"):
        push(steered, "steered", note=interfere)


# --- what may go ------------------------------------------------------------------------------


def spoil(directory: Path, what: str) -> None:
    report = directory / "evaluation/report.json"
    if what == "tampered":
        (directory / RENAMED).write_bytes(SHARD[:-1] + b"x")
    elif what == "missing":
        (directory / "modeling_steered.py").unlink()
    elif what == "no card":
        (directory / "README.md").unlink()
    elif what == "no metadata":
        (directory / "README.md").write_text("# Steered\n")
    elif what == "no evaluation":
        report.unlink()
    elif what == "half an evaluation":
        record = json.loads(report.read_bytes())
        report.write_text(json.dumps(record | {"cells": record["cells"][:1]}))
    elif what == "no license":
        edit_manifest(directory, license="")
    elif what == "inactive":
        steered_directory(directory, active=False)
    elif what == "no manifest":
        (directory / "steering_manifest.json").unlink()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("tampered", f"{RENAMED} is not the file that was exported"),
        ("missing", "modeling_steered.py is missing"),
        ("no card", "README.md is missing or has no metadata"),
        ("no metadata", "README.md is missing or has no metadata"),
        ("no evaluation", "has not been evaluated"),
        ("half an evaluation", "the evaluation is incomplete"),
        ("no license", "names no license: export with --license"),
        ("inactive", "steering is not active: the probes were compared"),
        ("no manifest", "is not a steered checkpoint"),
    ],
)
def test_an_unfit_directory_is_not_published(hub: Hub, steered, what, message):
    spoil(steered, what)
    with pytest.raises(ExportError, match=message) as caught:
        push(steered, "steered")
    assert "\n" not in str(caught.value)
    assert hub.requests == []


# --- the token --------------------------------------------------------------------------------


def test_without_a_login_nothing_is_tried(hub: Hub, steered, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(
        ExportError, match="not logged in to the Hugging Face Hub: run `hf auth login`"
    ):
        push(steered)
    assert hub.requests == []


def test_a_wrong_login_is_told(hub: Hub, steered, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrongwrongwrongwrongwrongwrongwrong")
    with pytest.raises(
        ExportError,
        match="the Hub does not accept your login for publishing: run `hf auth login` again",
    ):
        push(steered)
    assert set(hub.repos) == {"org/base"}


def test_the_token_is_sent_in_the_header_and_shown_nowhere(hub: Hub, steered, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    notes: list[str] = []
    push(steered, "steered", note=notes.append)
    shown = "".join([*notes, caplog.text, *capfd.readouterr()])
    hub.broken["info"] = (500, f"failed for {hub.token}")
    with pytest.raises(ExportError, match=r"failed for \*\*\*") as caught:
        push(steered, "steered", note=notes.append)
    shown += str(caught.value)
    assert hub.token not in shown
    assert all(hub.token.encode() not in r.body and hub.token not in r.path for r in hub.requests)
    assert any(r.headers.get("authorization") == f"Bearer {hub.token}" for r in hub.requests)


def test_no_network_is_one_line(hub: Hub, steered, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ExportError, match="cannot reach the Hugging Face Hub") as caught:
        push(steered)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["bad id!!", "other/new"])
def test_a_refused_destination_leaves_the_card_as_it_was(hub: Hub, steered, name):
    before = (steered / "README.md").read_bytes()
    with pytest.raises(ExportError, match=name):
        publish(steered, name)
    assert (steered / "README.md").read_bytes() == before


def test_a_transfer_that_breaks_off(hub: Hub, steered, monkeypatch):
    def broken(*_args, **_options):
        raise ConnectionError("Network error: no route")

    monkeypatch.setattr(HfApi, "create_commit", broken)
    with pytest.raises(ExportError, match="broke off for me/base-MARS"):
        push(steered)
