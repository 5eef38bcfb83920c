"""What the tests showed of each family: `tested.jsonl`, written from their results."""

from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict

__all__ = ["Tested", "tested"]


class Tested(BaseModel):
    """Outcomes of one family's behaviour tests."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_type: str
    versions: dict[str, str]
    """`torch` and `transformers` that the tests ran with."""
    behaviours: dict[str, str]
    """Behaviour to its outcome; what follows a colon is the reason."""

    @property
    def passed(self) -> int:
        """Behaviours that hold."""
        return self._count("passed")

    @property
    def natively_refused(self) -> int:
        """Behaviours that Transformers itself refuses for the family."""
        return self._count("refused natively")

    @property
    def not_applicable(self) -> int:
        """Behaviours that have no meaning for the family."""
        return self._count("does not apply")

    @property
    def failed(self) -> int:
        """Everything else."""
        known = self.passed + self.natively_refused + self.not_applicable
        return len(self.behaviours) - known

    def _count(self, kind: str) -> int:
        return sum(outcome.split(":")[0] == kind for outcome in self.behaviours.values())


@cache
def tested() -> dict[str, Tested]:
    """Results by model type."""
    lines = (files("mars_export.families") / "tested.jsonl").read_text("utf-8").splitlines()
    found = map(Tested.model_validate_json, lines)
    return {line.model_type: line for line in found}
