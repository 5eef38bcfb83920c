"""The bundled organisms, and the command line run on them."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ORGANISMS = ROOT / "examples" / "organisms"
FAMILIES = ("gemma3", "qwen3_vl")
WITH_CARDS = {path.parent.name for path in ORGANISMS.glob("*/config.json")}
SNIPPET = re.compile(r"```python\n(.*?)```", re.DOTALL)
BLOCK_PACKAGE = """
import sys
class Refuse:
    def find_spec(self, name, *rest):
        if name.split(".")[0] == "mars_export":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
"""


def readme_block(marker):
    """The code block of the README below `<!-- marker -->`."""
    readme = (ROOT / "README.md").read_text("utf-8")
    found = re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```\n", readme, re.DOTALL)
    assert found, marker
    return found[1]


def run_main_job(*arguments, cwd, check=True, env=None):
    """Run `mars-export` as a user does, in a process of its own; `env` is added to ours."""
    code = "from mars_export.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def run_card(directory, folder):
    """Run the Python of a directory's card in a process that cannot import the package."""
    code = "\n".join(SNIPPET.findall((directory / "README.md").read_text("utf-8")))
    assert "CHECKPOINT" in code
    (folder / directory.name).symlink_to(directory)
    return subprocess.run(
        [sys.executable, "-c", BLOCK_PACKAGE + code],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
