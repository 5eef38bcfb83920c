"""Whether there will be a place to publish to, asked before the long work."""

import pytest

from mars_export.common.errors import ExportError
from mars_export.hub import check_destination
from mars_export.hub.access import require_rights
from support import tiny
from support.hub import Hub

BASE = tiny.source("gemma3")


def user(role="write", **more):
    return {"name": "me", "auth": {"accessToken": {"role": role}}, **more}


@pytest.mark.parametrize("name", ["new", "me/new", "me/steered", "me/empty"])
def test_a_place_that_is_free_or_a_steered_checkpoint(hub: Hub, name):
    hub.add("me/steered", {"steering_manifest.json": b"{}"})
    hub.add("me/empty", {})
    before = set(hub.repos)
    check_destination(BASE, name, None)
    assert set(hub.repos) == before


@pytest.mark.parametrize(
    ("name", "private", "message"),
    [
        ("other/new", None, "other/new: you are me, who may not write to other"),
        ("me/model", None, "exists and is not a steered checkpoint"),
        ("me/steered", True, "is public: make it private on the Hub"),
    ],
)
def test_a_place_that_cannot_be_published_to(hub: Hub, name, private, message):
    hub.add("me/model", {"config.json": b"{}"})
    hub.add("me/steered", {"steering_manifest.json": b"{}"})
    before = set(hub.repos)
    with pytest.raises(ExportError, match=message):
        check_destination(BASE, name, private)
    assert set(hub.repos) == before


@pytest.mark.parametrize("name", ["a b", "me/a b", "a/b/c", "bad id!!"])
def test_what_can_be_no_name_is_refused_before_the_hub_is_asked(hub: Hub, name):
    with pytest.raises(ExportError, match=f"{name} cannot be a repository: give ORG/NAME"):
        check_destination(BASE, name, None)
    assert hub.requests == []


def test_a_base_that_is_closed_needs_a_place_that_is(hub: Hub):
    hub.add("me/steered", {"steering_manifest.json": b"{}"})
    closed = BASE.model_copy(update={"gated": "manual"})
    with pytest.raises(ExportError, match="gated and me/steered is open"):
        check_destination(closed, "me/steered", None)


def test_nobody_is_logged_in(hub: Hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ExportError, match="not logged in"):
        check_destination(BASE, "me/new", None)


def test_rights_of_tokens_and_members():
    orgs = [{"name": "lab", "roleInOrg": "write"}, {"name": "club", "roleInOrg": "read"}]
    require_rights(user(), "me/x")
    require_rights({"name": "me"}, "me/x")
    require_rights(user("fineGrained", orgs=orgs), "lab/x")
    with pytest.raises(ExportError, match="may only read, and me/x is to be written"):
        require_rights(user("read"), "me/x")
    for repo in ("club/x", "far/x"):
        with pytest.raises(ExportError, match="who may not write to"):
            require_rights(user(orgs=orgs), repo)
