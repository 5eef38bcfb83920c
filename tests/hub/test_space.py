"""Publishing a Space: only of what is published, and no more open than its base."""

from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from mars_export.common.errors import ExportError
from mars_export.demo import space as spaces
from mars_export.demo.publishing import make_space
from mars_export.hub import push
from support.hub import Hub
from support.hub_directory import base_files, steered_directory


@pytest.fixture
def make(hub: Hub, tmp_path, monkeypatch):
    """Publish a Space of a checkpoint that was pushed; options of its base."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(spaces, "version", lambda n: "6.31.0" if n == "gradio" else version(n))
    monkeypatch.setattr(spaces, "distribution", lambda _: SimpleNamespace(requires=[]))
    monkeypatch.setattr("mars_export.demo.publishing.require_extra", lambda: None)

    def run(*, pushed: bool = True, closed: bool | None = None, **base: object):
        there = hub.repos.get("org/base") or hub.add("org/base", base_files(), **base)
        hub.granted.add("org/base")
        source = {"repo": there.id, "revision": there.head.sha}
        directory = steered_directory(tmp_path / "out", source)
        if pushed:
            push(directory, "me/model")
        return make_space(directory, "me/demo", "me/model", publish=True, private=closed)

    return run


def content(hub: Hub) -> dict[str, bytes]:
    files = hub.repos["me/demo"].head.files
    return {path: blob.content for path, blob in files.items() if path != ".gitattributes"}


def test_the_folder_is_what_is_published(hub: Hub, make):
    folder, url = make()
    assert url == f"{hub.url}/spaces/me/demo"
    assert content(hub) == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert not hub.repos["me/demo"].private
    assert make(pushed=False) == (folder, url)  # again, onto what is there


def test_a_checkpoint_that_is_not_published_so_has_no_space(hub: Hub, make):
    with pytest.raises(ExportError, match="me/model"):
        make(pushed=False)
    assert "me/demo" not in hub.repos
    assert not Path("demo").exists()


@pytest.mark.parametrize("base", [{"private": True}, {"gated": "auto"}, {}])
def test_it_is_private_where_its_base_is_not_open_or_it_is_asked_for(hub: Hub, make, base):
    make(closed=None if base else True, **base)
    assert hub.repos["me/demo"].private
    hub.repos["me/demo"].private = False
    with pytest.raises(ExportError, match="is public and may not be"):
        make(pushed=False, closed=None if base else True)


def test_a_space_that_holds_something_else_is_left_alone(hub: Hub, make):
    hub.add("me/demo", {"notes.txt": b"mine"})
    with pytest.raises(ExportError, match=r"holds something else \(notes.txt\)"):
        make()
    assert content(hub) == {"notes.txt": b"mine"}
