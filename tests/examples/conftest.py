"""The modules of `examples/ablation`, and an organism to ask."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(ROOT / "ablation"))


@pytest.fixture(scope="session")
def suites():
    from mars_export.evaluation.suite import read_suite

    return {name: read_suite(ROOT / "organisms" / name / "suite.jsonl", name)
            for name in ("gemma3", "qwen3_vl")}  # fmt: skip


@pytest.fixture(scope="session")
def organism():
    """The Gemma 3 organism and its processor, as the study loads them."""
    from answers import Model

    from mars_export.families import family_of
    from mars_export.families.loading import load_base

    family = family_of("gemma3")
    native, processor = load_base(ROOT / "organisms" / "gemma3", family, dtype="auto", device="cpu")
    return Model(native, processor, family, refusal_tokens=[5], batch=4, tokens=8)
