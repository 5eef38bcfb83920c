"""Job files: the shell takes them, the YAML loads, and the program has every option in them."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from mars_export.cli.main import cli
from mars_export.families import families

FOLDER = Path(__file__).parents[2] / "examples" / "large"
SKY = yaml.safe_load((FOLDER / "sky.yaml").read_text("utf-8"))
SCRIPTS = {path.name: path.read_text("utf-8") for path in FOLDER.glob("*.sbatch")}
SCRIPTS |= {f"sky.yaml, {part}": SKY[part] for part in ("setup", "run")}
CALL = re.compile(r"mars[-_]export\s(.*)")


def calls(script):
    """Words behind the name of the program, of each call."""
    lines = script.replace("\\\n", " ").splitlines()
    found = [CALL.search(line) for line in lines if not line.startswith("#")]
    return [shlex.split(call[1]) for call in found if call]


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_shell_reads_it(name):
    subprocess.run(["bash", "-n"], input=SCRIPTS[name], text=True, check=True)


def test_every_option_is_one_of_the_program():
    found = {name: calls(script) for name, script in SCRIPTS.items()}
    assert [name for name, each in found.items() if not each] == ["sky.yaml, setup"]
    for (words,) in filter(None, found.values()):
        command = cli.commands.get(words[0], cli)
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known
        command.make_context(
            "x", words[1:] if command is not cli else words, resilient_parsing=True
        )


def test_slurm_gets_what_it_needs():
    for name in (name for name in SCRIPTS if name.endswith(".sbatch")):
        asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", SCRIPTS[name], re.MULTILINE))
        assert {"nodes", "gpus-per-node", "mem", "time"} <= asked.keys()
        assert "set -euo pipefail" in SCRIPTS[name]
        assert "\nexport SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK" in SCRIPTS[name]


def test_the_cloud_installs_what_the_families_need():
    installed = re.search(r"\.\[(.*)\]", SKY["setup"])[1].split(",")
    wanted = {extra for family in families().values() for extra in (family.extras or "").split(",")}
    assert wanted - {""} | {"large"} == set(installed)


def test_the_readme_names_every_file():
    text = (FOLDER / "README.md").read_text("utf-8")
    assert all(f"`{path.name}`" in text for path in FOLDER.iterdir() if path.name != "README.md")
