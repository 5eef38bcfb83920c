"""From a base on the Hub to a steered checkpoint on the Hub, loaded as a stranger loads it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mars_export.checkpoint.writer import write_checkpoint
from mars_export.hub import fetch_base, license_of, push
from support import tiny
from support.hub import Hub
from support.hub_directory import CARD, add_evaluation_and_card

LOAD = """
import sys
import torch
import transformers

def logits(name, **options):
    auto = transformers.AutoModelForImageTextToText
    model = auto.from_pretrained(name, trust_remote_code=True, **options).eval()
    with torch.no_grad():
        out = model(**torch.load(sys.argv[1])).logits
    assert any(model.steering.last), "nothing was steered"
    return out

local, repo, commit = sys.argv[2:]
here = logits(local)
assert torch.equal(here, logits(repo))
assert torch.equal(here, logits(repo, revision=commit))
try:
    transformers.AutoModelForImageTextToText.from_pretrained(repo, trust_remote_code=False)
except ValueError:
    print("equal")
"""


@pytest.fixture
def steered(hub: Hub, tmp_path) -> Path:
    base_dir = tiny.save_base("gemma3", tmp_path / "base")
    (base_dir / "README.md").write_text(CARD)
    hub.add_folder("org/tiny", base_dir)
    base = fetch_base("org/tiny")
    license = license_of(base.name, base.card)
    found = {"repo": base.repo, "revision": base.revision, "license": license.id, "name": base.name}
    target = tmp_path / "steered"
    write_checkpoint(
        base.path,
        target,
        source=tiny.source("gemma3").model_copy(update=found),
        calibration_dir=tiny.save_calibration("gemma3", tmp_path / "calibration"),
    )
    return add_evaluation_and_card(target)


def test_a_pushed_checkpoint_loads_from_the_hub(hub: Hub, steered: Path, tmp_path):
    weights = (steered / "model-00001-of-00002.safetensors").stat().st_size
    before = hub.received()
    push(steered, "tiny-steered")
    assert hub.count("duplicate") == 1
    assert hub.received() - before < weights / 4

    batch = tmp_path / "batch.pt"
    torch.save(tiny.inputs("gemma3", [(tiny.random_ids(9, i), None) for i in range(4)]), batch)
    commit = hub.repos["me/tiny-steered"].head.sha
    run = subprocess.run(
        [sys.executable, "-c", LOAD, str(batch), str(steered), "me/tiny-steered", commit],
        env=_env(hub, tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == "equal\n", run.stderr
    assert hub.token not in run.stderr


def _env(hub: Hub, home: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return inherited | hub.env(home / "home") | {"OMP_NUM_THREADS": "1"}
