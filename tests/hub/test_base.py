"""Finding the base model."""

import re
from pathlib import Path

import pytest
from huggingface_hub import constants

from mars_export.common.errors import ExportError
from mars_export.hub import License, fetch_base, license_of
from mars_export.hub.license import BaseCard, read_card
from support import hub_routes
from support.hub import Hub
from support.hub_directory import CARD, SHARD, base_files


def write(directory: Path, files: dict[str, bytes]) -> Path:
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def test_a_local_directory_is_used_where_it_is(tmp_path):
    base = fetch_base(str(write(tmp_path / "model", base_files())))
    assert (base.path, base.repo, base.revision) == (tmp_path / "model", None, None)
    assert base.name == "model"
    assert base.card == BaseCard(License("gemma"), ("en",), "image-text-to-text")
    assert (base.gated, base.private) == (False, False)


def test_the_gate_of_a_downloaded_copy_is_remembered(tmp_path):
    card = CARD.replace("---\n#", "extra_gated_prompt: Agree.\n---\n#")
    assert fetch_base(str(write(tmp_path / "model", base_files(card)))).gated == "manual"


def test_a_repository_is_fetched_at_one_commit(hub: Hub, tmp_path):
    repo = hub.add("org/base", base_files())
    first = repo.head.sha
    repo.publish({"config.json": b"{}"}, ())
    base = fetch_base("org/base", first)
    assert (base.repo, base.revision, base.name) == ("org/base", first, "org/base")
    assert base.path.is_relative_to(tmp_path)
    assert (base.path / "model.safetensors").read_bytes() == SHARD
    assert (base.path / "config.json").read_bytes() == base_files()["config.json"]
    assert fetch_base("org/base").revision == repo.head.sha


def test_a_commit_during_the_download_is_noticed(hub: Hub, monkeypatch):
    repo, answer = hub.add("org/base", base_files()), hub_routes._info

    def answer_then_commit(call, repo_id, revision):
        reply = answer(call, repo_id, revision)
        repo.publish({"config.json": b"%d" % len(repo.commits)}, ())
        return reply

    monkeypatch.setattr(hub_routes, "_info", answer_then_commit)
    with pytest.raises(ExportError, match="org/base changed on the Hub during the download"):
        fetch_base("org/base")


def test_only_the_files_of_the_model_are_fetched(hub: Hub):
    index = b'{"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}'
    wanted = {"config.json", "model.safetensors.index.json", "part-1.safetensors"}
    wanted |= {
        "part-2.safetensors",
        "LICENSE",
        "modeling_x.py",
        "additional_chat_templates/t.jinja",
    }
    ignored = {"consolidated.safetensors", "pytorch_model.bin", "onnx/config.json", "picture.gif"}
    files = dict.fromkeys(wanted | ignored, b"{}") | {"model.safetensors.index.json": index}
    hub.add("org/base", files)
    base = fetch_base("org/base")
    found = {p.relative_to(base.path).as_posix() for p in base.path.rglob("*") if p.is_file()}
    assert found == wanted


@pytest.mark.parametrize("gated", ["auto", "manual"])
def test_gating_and_privacy_are_recorded(hub: Hub, gated):
    hub.add("me/base", base_files(), gated=gated, private=True)
    base = fetch_base("me/base")
    assert (base.gated, base.private) == (gated, True)


def test_a_cached_model_is_used_without_network(hub: Hub, monkeypatch):
    repo = hub.add("org/base", base_files())
    online = fetch_base("org/base")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert fetch_base("org/base") == online
    assert fetch_base("org/base", repo.head.sha) == online
    with pytest.raises(ExportError, match="cannot reach the Hugging Face Hub for org/other"):
        fetch_base("org/other")


@pytest.mark.parametrize(
    ("model", "revision", "message"),
    [
        ("./nowhere", None, r"\./nowhere is not a directory"),
        ("some/model/directory", None, "some/model/directory is not a directory"),
        ("~/nowhere-at-all", None, "is not a directory"),
        ("org/absent", None, "org/absent is neither a directory here nor a model on the Hub"),
        ("not a name", None, "not a name: Repo id must"),
        ("org/base", "v9", r"the Hub answered 404 for org/base: Invalid rev id: v9"),
        (
            "org/gated",
            None,
            r"org/gated is gated: accept its terms at http\S+/org/gated and run `hf",
        ),
        ("org/pickled", None, r"org/pickled has pickled weights only \(\.bin\)"),
        ("org/adapter", None, "org/adapter holds an adapter only: merge it"),
        ("org/bare", None, "org/bare has no safetensors weights"),
        ("org/nameless", None, "org/nameless has no config.json"),
    ],
)
def test_one_clear_line_when_there_is_no_such_base(hub: Hub, model, revision, message):
    hub.add("org/base", base_files())
    hub.add("org/gated", base_files(), gated="manual")
    hub.add("org/pickled", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    adapter = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"}
    hub.add("org/adapter", adapter)
    hub.add("org/bare", {"config.json": b"{}"})
    hub.add("org/nameless", {"model.safetensors": b"x"})
    with pytest.raises(ExportError, match=message) as caught:
        fetch_base(model, revision)
    assert "\n" not in str(caught.value)
    assert hub.token not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "the Hub does not accept your login for org/base: run `hf auth login` again"),
        (403, "the Hub answered 403 for org/base: because ***"),
        (429, "the Hub answered 429 for org/base"),
        (500, "the Hub answered 500 for org/base: because ***"),
    ],
)
def test_server_errors_are_told_in_one_line_without_secrets(hub: Hub, status, message):
    hub.add("org/base", base_files())
    said = "Invalid credentials in Authorization header" if status == 401 else "because hf_secret"
    hub.broken["info"] = (status, said)
    with pytest.raises(ExportError, match=re.escape(message)) as caught:
        fetch_base("org/base")
    assert "\n" not in str(caught.value)
    assert "hf_secret" not in str(caught.value)


def test_a_revision_needs_a_repository(tmp_path):
    with pytest.raises(ExportError, match="--revision is for Hub repositories"):
        fetch_base(str(write(tmp_path / "model", base_files())), "main")


def test_a_local_directory_without_safetensors_is_refused(tmp_path):
    files = {"config.json": b"{}", "pytorch_model.bin": b"x"}
    with pytest.raises(ExportError, match="pickled weights only"):
        fetch_base(str(write(tmp_path / "model", files)))


OTHER = License("other", "acme", "https://example.org/terms")


@pytest.mark.parametrize(
    ("front", "license", "languages"),
    [
        ("license: Apache-2.0", License("apache-2.0"), ()),
        ("license: [mit]\nlanguage: [en, no]", License("mit"), ("en", "no")),
        ("license: other\nlicense_name: acme\nlicense_link: https://example.org/terms", OTHER, ()),
        ("license: [mit, gpl]\nlanguage: de", None, ("de",)),
        ("license: unknown", None, ()),
        ("license: [", None, ()),
        ("tags: []", None, ()),
    ],
)
def test_the_card_of_a_base(tmp_path, front, license, languages):
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\n# Model\n")
    card = read_card(tmp_path)
    assert (card.license, card.languages) == (license, languages)


def test_no_card_is_an_empty_card(tmp_path):
    assert read_card(tmp_path) == BaseCard()


@pytest.mark.parametrize("override", [None, "OTHER"])
def test_a_license_is_inherited_with_its_name_and_link(override):
    assert license_of("org/base", BaseCard(OTHER), override) == OTHER


def test_an_unknown_license_must_be_stated():
    with pytest.raises(ExportError, match=r"org/base names no license: .*`--license apache-2.0`"):
        license_of("org/base", BaseCard())
    assert license_of("org/base", BaseCard(), "MIT") == License("mit")


def test_a_known_license_cannot_be_replaced():
    with pytest.raises(ExportError, match=r"is under gemma, .*leave out --license mit"):
        license_of("org/base", BaseCard(License("gemma")), "mit")
