"""The options of `mars-export compare`: those of an evaluation, and what is compared."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import PositiveInt, field_validator
from pydantic_core import PydanticCustomError

from mars_export.common.problems import near
from mars_export.evaluation.arms import NAMED_ARMS, NO_BASELINE, is_named_arm
from mars_export.pipeline.run_settings import RunSettings, setting
from mars_export.pipeline.settings import (
    EXPORTABLE,
    EvaluationSettings,
    ModelSettings,
    PromptSettings,
)
from mars_export.pipeline.words import listed, options_in

__all__ = ["ComparisonSettings"]


def _unknown(name: str, known: Collection[str]) -> PydanticCustomError:
    """The error for one of several names that is not known."""
    wanted = f"one of {', '.join(known)}{near(name, known)}"
    return PydanticCustomError("name", "{wanted}", {"wanted": wanted, "given": name})


class ComparisonSettings(EvaluationSettings, PromptSettings, ModelSettings):
    """Everything that `mars-export compare --model X` can be told."""

    method: tuple[str, ...] = setting(
        (),
        f"What to compare: {', '.join(EXPORTABLE)}, with options as NAME:OPTION=VALUE,...; may be "
        "given several times. Default: every method.",
        group="Comparison",
        metavar="METHOD",
    )
    baseline: tuple[str, ...] = setting(
        (),
        f"What to compare besides, without a checkpoint: {', '.join(NAMED_ARMS)}; {NO_BASELINE} "
        "for nothing; may be given several times. Default: all that need no second model.",
        group="Comparison",
        metavar="BASELINE",
    )
    batch_size: PositiveInt = setting(
        64,
        str(RunSettings.model_fields["batch_size"].description),
        group="Running",
        metavar="N",
    )
    output: Path | None = setting(
        None,
        "Directory to make. Default: NAME-compared, here.",
        group="Output",
        metavar="DIR",
    )
    overwrite: bool = setting(
        False,
        "Make checkpoints anew that were made with other settings.",
        group="Output",
    )

    @field_validator("method", "baseline", mode="before")
    @classmethod
    def _one_may_be_given(cls, value: Any) -> Any:
        return listed(value)

    @field_validator("method")
    @classmethod
    def _methods_make_checkpoints(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        for name in (word.partition(":")[0] for word in words):
            if name not in EXPORTABLE:
                raise _unknown(name, EXPORTABLE)
        return words

    @field_validator("baseline")
    @classmethod
    def _baselines_are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = (*NAMED_ARMS, NO_BASELINE)
        for name in names:
            if name != NO_BASELINE and not is_named_arm(name):
                raise _unknown(name, known)
        return names

    def methods(self) -> dict[str, dict[str, str]]:
        """Of every method to compare, the word that names it, with its options as given.

        Raises:
            ValueError: An option is not of the form OPTION=VALUE.
        """
        words = self.method or tuple(EXPORTABLE)
        return {word: options_in(word) for word in dict.fromkeys(words)}
