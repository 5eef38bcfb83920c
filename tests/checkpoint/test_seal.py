"""Nothing in a steered directory changes unseen: not a byte, and no file comes, goes or moves."""

import shutil

import pytest

from mars_export import ExportError, verify, write_seal
from mars_export.checkpoint.files import LocalFiles
from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.checkpoint.seal import SEAL_NAME, Seal, broken_seals
from mars_export.cli.main import main
from support import tiny
from support.hub_directory import add_evaluation_and_card

pytestmark = pytest.mark.use("verify", family="gemma3")
REPORT = "evaluation/report.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A directory with evaluation and card that nobody may change."""
    return add_evaluation_and_card(tiny.export("gemma3", tmp_path_factory.mktemp("whole"))[1])


@pytest.fixture
def steered(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "steered")


def broken(directory):
    seal = Seal.read(directory / SEAL_NAME)
    files, manifest = LocalFiles(directory), Manifest.read(directory)
    return [f"{path} {what}" for path, what in broken_seals(files, manifest, seal)]


def append(path, text="\nmore\n"):
    path.write_bytes(path.read_bytes() + text.encode())


def test_a_library_call_without_evaluation_seals_too(tmp_path):
    _, directory = tiny.export("gemma3", tmp_path)
    assert Seal.read(directory / SEAL_NAME).files == []
    assert broken(directory) == []
    (directory / "README.md").write_text("a card that nobody sealed")
    assert broken(directory) == ["README.md was added after the directory was sealed"]


def test_the_same_files_give_the_same_seal(steered):
    before = (steered / SEAL_NAME).read_bytes()
    assert write_seal(steered) == steered / SEAL_NAME
    assert write_seal(steered, "README.md", "assets/") == steered / SEAL_NAME
    assert (steered / SEAL_NAME).read_bytes() == before


def test_what_was_not_written_keeps_its_entry(steered):
    """A new card does not seal damage to the evaluation."""
    append(steered / REPORT)
    (steered / "evaluation/safety_eval.json").unlink()
    (steered / "notes.txt").touch()
    append(steered / "README.md")
    (steered / "assets/refusal.png").unlink()
    (steered / "assets/new.png").touch()
    append(steered / MANIFEST_NAME, " ")
    damage = [
        f"{MANIFEST_NAME} is not the one that was sealed",
        f"{REPORT} was changed after it was sealed",
        "evaluation/safety_eval.json was removed after it was sealed",
        "notes.txt was added after the directory was sealed",
    ]
    card = ["README.md was changed", "assets/refusal.png was removed", "assets/new.png was added"]
    assert len(broken(steered)) == len(damage) + len(card)
    write_seal(steered, "README.md", "assets/")
    assert broken(steered) == damage
    write_seal(steered)
    assert broken(steered) == []


def test_an_edited_card_is_named_and_can_be_sealed(steered, capsys):
    append(steered / "README.md", "\nUse it with care.\n")
    failed = [check for check in verify(steered).checks if check.status == "failed"]
    assert [(check.name, check.detail) for check in failed] == [
        (
            "sealed files",
            "README.md was changed after it was sealed; if that was you, run `mars-export seal` "
            "on the directory",
        )
    ]
    with pytest.raises(SystemExit) as stopped:
        main(["seal", str(steered)])
    assert (stopped.value.code, capsys.readouterr().out) == (0, f"{steered / SEAL_NAME}\n")
    assert verify(steered).passed


def test_what_stays_at_home_may_be_absent_but_not_changed(steered):
    samples = steered / "evaluation/samples.jsonl"
    content = samples.read_bytes()
    samples.unlink()
    (check,) = [check for check in verify(steered).checks if check.name == "sealed files"]
    assert check.status == "passed"
    assert check.detail.endswith("not here, as a push leaves it out: evaluation/samples.jsonl")
    samples.write_bytes(content + b" ")
    assert not verify(steered).passed


@pytest.mark.parametrize("content", [None, "[]", "{}", '{"schema_version": 9}'])
def test_no_seal_or_none_that_can_be_read(steered, content):
    if content is None:
        (steered / SEAL_NAME).unlink()
    else:
        (steered / SEAL_NAME).write_text(content)
        with pytest.raises(ExportError, match="run `mars-export seal` on it"):
            write_seal(steered, "README.md")
    failed = [check.name for check in verify(steered).checks if check.status == "failed"]
    assert failed == ["sealed files"]
    write_seal(steered)
    assert verify(steered).passed


def test_without_a_seal_everything_is_sealed(steered):
    before = (steered / SEAL_NAME).read_bytes()
    (steered / SEAL_NAME).unlink()
    write_seal(steered, "README.md")
    assert (steered / SEAL_NAME).read_bytes() == before


def test_files_of_git_and_of_the_clients_of_the_hub_are_not_sealed(steered):
    hub = ".cache/huggingface/x.json"
    for name in (".gitattributes", ".gitignore", ".DS_Store", ".git/config", hub):
        (steered / name).parent.mkdir(parents=True, exist_ok=True)
        (steered / name).write_text("{}")
    before = (steered / SEAL_NAME).read_bytes()
    assert broken(steered) == []
    write_seal(steered)
    assert (steered / SEAL_NAME).read_bytes() == before
