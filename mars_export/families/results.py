"""What the tests showed of each family: `tested.jsonl`, written from their results."""

from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict

__all__ = ["Tested", "read_tested", "tested"]


class Tested(BaseModel):
    """Outcomes of one family's tests; what follows a colon is the reason."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_type: str
    versions: dict[str, str]
    """`torch` and `transformers` that the tests ran with."""
    behaviors: dict[str, str]
    """What every family must do, and how it came out."""
    modes: dict[str, str] = {}
    """Ways of running, and how they came out; only those that were tried with the family."""


@cache
def tested() -> dict[str, Tested]:
    """Results by model type."""
    return read_tested((files("mars_export.families") / "tested.jsonl").read_text("utf-8"))


def read_tested(text: str) -> dict[str, Tested]:
    """Results by model type, from one JSON line for each."""
    found = map(Tested.model_validate_json, text.splitlines())
    return {line.model_type: line for line in found}
