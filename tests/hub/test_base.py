"""Finding the base model."""

import re
from pathlib import Path

import pytest
from huggingface_hub import constants

from mars_export.common.errors import ExportError
from mars_export.families.directory import is_companion
from mars_export.hub import License, fetch_base, license_of
from mars_export.hub.license import BaseCard, read_card, with_terms
from mars_export.pipeline.settings import Settings
from mars_export.pipeline.stages import output_of
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
    assert base.card == BaseCard(
        License("gemma"), ("en",), "image-text-to-text", licenses=("gemma",)
    )
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
    index = b'{"metadata": {}, "weight_map": '
    index += b'{"a": "part-1.safetensors", "b": "part-2.safetensors"}}'
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
    with pytest.raises(ExportError, match="org/other is no directory here, and the Hub"):
        fetch_base("org/other")


@pytest.mark.parametrize(
    ("model", "revision", "message"),
    [
        ("./nowhere", None, r"\./nowhere is no directory here"),
        ("some/model/directory", None, "some/model/directory is no directory here"),
        ("~/nowhere-at-all", None, "is no directory here"),
        ("org/absent", None, "org/absent is neither a directory here nor a model on the Hub"),
        ("not a name", None, "not a name: Repo id must"),
        (" ", None, "the name of the model is blank: give a directory or ORG/NAME"),
        ("org/base@v9", None, "org/base@v9: give the model as org/base and --revision v9"),
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


def test_an_answer_of_something_else_than_a_hub(hub: Hub, tmp_path):
    hub.add("org/base", base_files())
    path = fetch_base("org/base").path
    for payload in ({}, [], b"<html>"):
        hub.meddle = lambda _, __, payload=payload: (200, payload, {})
        with pytest.raises(ExportError, match=r"^the answer of http\S+ for org/base is not und"):
            fetch_base("org/base")
        assert not fetch_base(str(path)).private


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
        ("tags: []", None, ()),
    ],
)
def test_the_card_of_a_base(tmp_path, front, license, languages):
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\n# Model\n")
    card = read_card(tmp_path)
    assert (card.license, card.languages) == (license, languages)


@pytest.mark.parametrize(
    ("front", "notes"),
    [("[One., {a: b}, Two.]", ("One.", "Two.")), ("One seed.", ("One seed.",)), ("3", ())],
)
def test_the_card_of_a_base_has_notes_for_an_evaluation(tmp_path, front, notes):
    (tmp_path / "README.md").write_text(f"---\nevaluation_notes: {front}\n---\n# Model\n")
    assert read_card(tmp_path).notes == notes


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (b"---\nlicense: [\n---\n", r"README.md, line 2: the front matter is not valid YAML"),
        (b"---\nlicense: gemma\nextra_gated_heading: Access: accept\n---\n", "line 3: .* gate are"),
        (b"---\nlicense: gemma\n  x: y\n---\n", "line 3: the front matter"),
        (b"\n---\r\na: b\r\n- c\r\n---\r\n", "line 4: the front matter"),
        (b"---\nlicense: gemma\n", "line 1: .*no block between two lines"),
        (b"---\n- gemma\n---\n", "line 2: .*no list of keys"),
        (b"---\na: b\nlicense: \xff\n---\n", "line 3: not UTF-8"),
        (b"---\nlicense: {a: b}\n---\n", "`license` of the front matter is no name of a license"),
        (b"---\nlicense: [mit, 3]\n---\n", "no name of a license"),
    ],
)
def test_a_card_that_cannot_be_read_is_no_card_without_license(tmp_path, card, message):
    (tmp_path / "README.md").write_bytes(card)
    with pytest.raises(ExportError, match=message):
        read_card(tmp_path)


@pytest.mark.parametrize(
    "card", [b"# Title\n", b"---\n---\n", b"\xef\xbb\xbf---\nlicense: mit\n---\n"]
)
def test_cards_that_can_be_read(tmp_path, card):
    (tmp_path / "README.md").write_bytes(card)
    assert read_card(tmp_path).licenses == (("mit",) if b"mit" in card else ())


def test_one_of_several_licenses_is_chosen():
    card = BaseCard(licenses=("mit", "gpl-3.0"))
    assert license_of("org/base", card, "MIT") == License("mit")
    for other in (None, "apache-2.0"):
        with pytest.raises(ExportError, match=r"several licenses \(mit, gpl-3.0\): state which"):
            license_of("org/base", card, other)


def test_the_terms_that_a_card_links_are_a_file_that_travels_or_an_address(tmp_path):
    (tmp_path / "Terms-of-use.TXT").touch()
    own, far = License("other", "a", "./Terms-of-use.TXT"), License("other", "a", "https://x.org/t")
    assert with_terms(own, tmp_path, None).link == "Terms-of-use.TXT"
    assert with_terms(far, tmp_path, None) == far
    assert is_companion("Terms-of-use.TXT")
    for link in ("absent.txt", "../LICENSE", "config.json"):
        (tmp_path / "config.json").touch()
        with pytest.raises(ExportError, match="which is no file of terms beside it"):
            with_terms(License("other", "a", link), tmp_path, None)
        assert (
            with_terms(License("other", "a", link), tmp_path, "https://h").link
            == f"https://h/{link}"
        )


def test_an_adapter_beside_the_weights_is_refused(tmp_path):
    files = {**base_files(), "adapter_config.json": b"{}"}
    with pytest.raises(ExportError, match="also holds an adapter"):
        fetch_base(str(write(tmp_path / "model", files)))


def test_a_snapshot_of_the_cache_is_its_repository(hub: Hub, monkeypatch):
    hub.add("org/base", base_files(), private=False)
    online = fetch_base("org/base")
    assert fetch_base(str(online.path)) == online
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert fetch_base(str(online.path)) == online
    assert output_of(Settings(model=str(online.path))) == Path("base-MARS")


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
