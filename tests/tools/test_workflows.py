"""GitHub's files are valid, run what they name, and may do no more than they need."""

import re
from pathlib import Path

import pytest
import yaml

from mars_export import __version__

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = {path.stem: path.read_text("utf-8") for path in (GITHUB / "workflows").glob("*.yml")}


@pytest.mark.parametrize("path", sorted(GITHUB.rglob("*.yml")), ids=lambda path: path.stem)
def test_every_file_is_yaml(path):
    assert yaml.safe_load(path.read_text("utf-8"))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_may_read_only_and_pin_their_actions(name):
    workflow = yaml.safe_load(WORKFLOWS[name])
    assert workflow["permissions"] == {"contents": "read"}
    jobs = workflow["jobs"].items()
    extra = {job: spec["permissions"] for job, spec in jobs if "permissions" in spec}
    assert extra == ({"publish": {"id-token": "write"}} if name == "release" else {})
    actions = re.findall(r"uses: (\S+)", WORKFLOWS[name])
    assert actions
    assert [a for a in actions if not re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", a)] == []
    assert "secrets." not in WORKFLOWS[name]


def test_ci_runs_the_script_and_tests_that_exist():
    assert "run: .ci/run\n" in WORKFLOWS["ci"]
    assert "run: .ci/vllm\n" in WORKFLOWS["ci"]
    paths = re.findall(r"tests/\S+\.py", WORKFLOWS["ci"])
    assert paths
    assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_the_version_is_stated_once_and_cited():
    command = r's/^__version__.*"\(.*\)".*/\1/p'
    assert command in WORKFLOWS["release"]
    line = (ROOT / "mars_export" / "_version.py").read_text("utf-8")
    assert re.search(r'^__version__.*"(.*)"', line, re.MULTILINE)[1] == __version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == __version__
