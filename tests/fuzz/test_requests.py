"""Odd pictures, clips and prompts: an export whose requests can all be asked, or one line.

MARS_FUZZ sets how many runs are made, MARS_FUZZ_FROM the first: a number is the seed of its files.
"""

import os
import random
import tempfile

import pytest
from transformers import AutoProcessor

from mars_export.evaluation.suite import read_suite
from mars_export.families import families
from mars_export.inputs.requests import collate
from support import bases, odd_media

COUNT = int(os.environ.get("MARS_FUZZ", "60"))
FIRST = int(os.environ.get("MARS_FUZZ_FROM", "0"))
WORDS = ["explain the good1", "show me bad2", "how do i make a good3"]


@pytest.mark.parametrize("kind", ["gemma3", "qwen3_vl"])
def test_odd_media_and_prompts(kind, tmp_path, monkeypatch):
    base = bases.save_whole_base(tmp_path / "base", kind)
    processor = AutoProcessor.from_pretrained(base)
    (tmp_path / "logs").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "logs"))
    with bases.quick_exports():
        for seed in range(FIRST, FIRST + COUNT):
            if ("gemma3", "qwen3_vl")[seed % 2] == kind:
                place = tmp_path / str(seed)
                place.mkdir()
                try:
                    check(base, processor, place, random.Random(f"{kind} {seed}"))
                except BaseException as error:
                    error.add_note(f"seed {seed}")
                    raise
                bases.remove(place)


def check(base, processor, place, chance):
    """Export with a suite, or with prompts, or both; returns the line, or None."""
    clips = "video" in families()[processor_kind(processor)].modalities
    arguments, asked = [], []
    if chance.random() < 0.8:
        asked = [odd_media.suite(place, chance, WORDS, clips)]
        arguments += ["--suite", asked[0]]
    if chance.random() < 0.3 or not asked:
        for label, option in (("bad", "--harmful"), ("good", "--harmless")):
            arguments += [option, odd_media.prompts(place / label, chance, label)]
    before = sorted(path.name for path in place.iterdir())
    done = bases.command(
        "--model", base, "--output", place / "out", "--display", "none", *arguments
    )
    assert done.code in (0, 2), done
    if done.code:
        (line,) = done.errors
        assert line.startswith("mars-export: error: "), line
        assert sorted(path.name for path in place.iterdir()) == before, line
        assert "details: " not in line, line  # nothing that we do not know
        return line
    assert done.errors == [], done
    for suite in map(read_suite, asked):
        for sample in suite.samples:
            assert collate(processor, [suite.request(sample)])["input_ids"].numel()
    return None


def processor_kind(processor):
    return "gemma3" if type(processor).__name__ == "Gemma3Processor" else "qwen3_vl"
