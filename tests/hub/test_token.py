"""The token: in the header of a request and nowhere else, whatever fails."""

import logging
import os
import subprocess
import sys

import pytest

from mars_export import ExportError, verify
from mars_export.hub import push
from support.hub_directory import base_files, steered_directory

OURS = "hf_sentinelsentinelsentinelsentinel01"
OTHER = "api_org_sentinelsentinelsentinel0002"
"""Tokens of other forms exist; no pattern finds them all."""

PUSH = ["whoami", "info", "create", "paths_info", "validate_yaml", "preupload"]
PUSH += ["lfs_batch", "lfs_upload", "duplicate", "commit"]


@pytest.fixture
def steered(hub, tmp_path):
    base = hub.add("org/base", base_files())
    return steered_directory(tmp_path / "out", {"repo": base.id, "revision": base.head.sha})


@pytest.fixture(params=[OURS, OTHER])
def token(request, hub, monkeypatch):
    hub.token = request.param
    monkeypatch.setenv("HF_TOKEN", hub.token)
    return hub.token


def assert_unseen(token, shown, hub, *folders):
    assert token not in shown
    for folder in folders:
        for path in (p for p in folder.rglob("*") if p.is_file()):
            assert token.encode() not in path.read_bytes(), path
    assert any(r.headers.get("authorization") == f"Bearer {token}" for r in hub.requests)
    assert all(token.encode() not in r.body and token not in r.path for r in hub.requests)


@pytest.mark.parametrize("route", PUSH)
@pytest.mark.parametrize("status", [400, 403])
def test_a_push_that_fails_while_the_server_repeats_the_token(
    hub, steered, token, route, status, tmp_path, caplog, capfd
):
    caplog.set_level(logging.DEBUG)
    hub.broken[route] = (status, f"refused for Bearer {token} at ?X-Token={token}")
    notes = []
    said = ""
    try:
        push(steered, "steered", note=notes.append)
    except ExportError as error:
        said = str(error)
    assert said or route == "duplicate", "a refused copy becomes an upload"
    caplog_of_ours = [r.getMessage() for r in caplog.records if r.name.startswith("mars_export")]
    shown = "".join([said, *notes, *caplog_of_ours, *capfd.readouterr()])
    assert_unseen(token, shown, hub, tmp_path)


@pytest.mark.parametrize("token", [OTHER], indirect=True)  # a process takes seconds to start
def test_the_command_line_shows_and_keeps_no_token(hub, steered, token, tmp_path):
    hub.broken["commit"] = (403, f"refused for Bearer {token}")
    environment = {**os.environ, **hub.env(tmp_path / "home", token), "HF_HUB_OFFLINE": "0"}
    for command in (["push", str(steered), "steered"], ["verify", "me/steered"]):
        done = subprocess.run(
            [sys.executable, "-m", "mars_export", *command],
            env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert_unseen(token, done.stdout + done.stderr, hub, tmp_path)


def test_a_verification_that_fails(hub, steered, token, tmp_path):
    push(steered, "steered")
    for route in ("info", "tree", "resolve"):
        hub.broken = {route: (403, f"refused for Bearer {token}")}
        with pytest.raises(ExportError) as caught:
            verify("me/steered")
        assert_unseen(token, str(caught.value), hub, tmp_path)
    hub.broken = {"tree": (403, f"refused for {token}")}
    assert_unseen(token, verify(steered).model_dump_json(), hub, tmp_path)
