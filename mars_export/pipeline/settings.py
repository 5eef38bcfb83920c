"""Every option of the program, once.

The command line, the `MARS_*` environment variables and the TOML file are all made from these
models (see `mars_export.cli.options`), so names, help texts and checks cannot drift apart.
"""

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import (
    BaseModel,
    Field,
    NonNegativeInt,
    PositiveInt,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from mars_export.common.problems import near
from mars_export.evaluation.arms import NO_BASELINE
from mars_export.evaluation.baselines import BASELINES
from mars_export.evaluation.changes import ENOUGH
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.report import MARGIN
from mars_export.families.placement import Placement
from mars_export.inputs.stimuli import KINDS, NEUTRAL, kinds_named, kinds_problem
from mars_export.methods import METHODS
from mars_export.methods.base import MethodOptions
from mars_export.methods.safety_prompt import SAFETY_PROMPT
from mars_export.pipeline.run_settings import PlacementSettings, RunSettings, setting
from mars_export.pipeline.words import listed, problem

__all__ = [
    "ENGINES",
    "EXPORTABLE",
    "NO_TUNING",
    "AnswerSettings",
    "EvaluationSettings",
    "ModelSettings",
    "PromptSettings",
    "PushSettings",
    "Settings",
    "sections",
]

EXPORTABLE: Final = {method.name: method for method in METHODS if method.exportable}
_OWNERS: Final = {
    option: tuple(name for name, m in EXPORTABLE.items() if option in m.Options.model_fields)
    for option in dict.fromkeys(n for m in EXPORTABLE.values() for n in m.Options.model_fields)
}
"""The methods that have an option: one name is one flag."""
ENGINES: Final = ("transformers", "endpoint", "vllm")
"""What can answer an evaluation."""
NO_TUNING: Final = "none"
"""In place of a suite to tune on."""
_SECTIONS: Final = tuple(
    dict.fromkeys(
        (
            *("Model", "Comparison", "Output", "Publishing", "Calibration"),
            *(f"Calibration ({', '.join(owners)})" for owners in _OWNERS.values()),
            *("Evaluation", "Running"),
        )
    )
)
"""Of the help text, in order. Every field of the settings names one of them."""

_YES: Final = frozenset({"1", "true", "yes", "on"})
_NO: Final = frozenset({"", "0", "false", "no", "off"})


class AnswerSettings(PlacementSettings):
    """What a steered directory is asked, and who judges the answers."""

    suite: tuple[str, ...] = setting(
        (),
        "What to evaluate on: a name of mars-export suites, NAME=PATH of your copy, or your own "
        "FILE; may be given several times.",
        group="Evaluation",
        metavar="SUITE",
    )
    judge: str = setting(
        "rules",
        "Who judges the answers; a guard may be GUARD:MODEL. See docs/evaluation.md.",
        group="Evaluation",
        metavar="rules|qwen3guard|wildguard|harmbench|llama-guard-4|URL",
    )
    max_new_tokens: PositiveInt = setting(
        EvaluationOptions().max_new_tokens,
        "Longest answer that is generated and judged, in tokens.",
        group="Evaluation",
        metavar="N",
    )

    @field_validator("suite", "arm", mode="before", check_fields=False)
    @classmethod
    def _one_may_stand_alone(cls, value: Any) -> Any:
        return listed(value)


class EvaluationSettings(AnswerSettings):
    """What to measure on a steered directory."""

    controls: bool = setting(
        EvaluationOptions().controls,
        "Also ask some requests of each kind in harmless other ways: beside neutral pictures, in a "
        "later turn, sampled, ...; on unless turned off.",
        group="Evaluation",
    )
    control_requests: PositiveInt = setting(
        EvaluationOptions().control_requests,
        "Requests of each label and modality that a control is put to, at most; to rule out harm "
        f"of {100 * MARGIN:g} points takes {ENOUGH} clusters where none gets worse.",
        group="Evaluation",
        metavar="N",
    )
    attacks: bool = setting(
        EvaluationOptions().attacks,
        "Also put every request through attacks: a prefilled answer, a system prompt.",
        group="Evaluation",
    )
    arm: tuple[str, ...] = setting(
        (),
        f"Also compare with a baseline ({', '.join(BASELINES)}), or with NAME=DIR, another steered "
        f"directory of the same base; {SAFETY_PROMPT.name} is compared anyway unless you give "
        f"{NO_BASELINE}; may be given several times.",
        group="Evaluation",
        metavar="ARM",
    )

    tensor_parallel: bool = setting(
        False,
        "The processes of torchrun hold a part of every layer each; see docs/large-models.md.",
        group="Running",
    )

    @model_validator(mode="after")
    def _layers_are_split_or_spread(self) -> "EvaluationSettings":
        if self.tensor_parallel and self.device_map != "none":
            raise problem("device_map", self.device_map, "left out: --tensor-parallel is given")
        return self

    @property
    def placement(self) -> Placement | None:
        """As of a device map, or that of a model which processes split."""
        if self.tensor_parallel:
            return Placement(device=self.device, split=True)
        return super().placement

    @property
    def options(self) -> EvaluationOptions:
        """The part that the evaluation itself is told."""
        asked = {"batch_size", "max_new_tokens", "controls", "control_requests", "attacks"}
        values = self.model_dump(include=asked)
        return EvaluationOptions(**values, arms=self.arm, device=self.where)


class PushSettings(RunSettings):
    """How to publish a steered directory."""

    private: bool = setting(
        False,
        "Make a new Hub repository private; it is anyway when the base is.",
        group="Publishing",
    )
    contact: str | None = setting(
        None,
        "Where to report failures, such as an address, for the model card; without it, the "
        "discussions of the repository.",
        group="Publishing",
        metavar="TEXT",
    )


class PromptSettings(PlacementSettings):
    """What to calibrate on."""

    harmful: Path | None = setting(
        None,
        "Prompts that the model should refuse, one a line; goes with --harmless.",
        group="Calibration",
        metavar="FILE",
    )
    harmless: Path | None = setting(
        None,
        "Prompts that the model should answer, one a line; goes with --harmful.",
        group="Calibration",
        metavar="FILE",
    )
    seed: NonNegativeInt = setting(
        0,
        "Seed of the neutral pictures and sounds, and of the prompt split.",
        group="Calibration",
        metavar="N",
    )
    neutral: str = setting(
        NEUTRAL,
        f"What neutral pictures show and sounds play: {NEUTRAL}, or with commas any of "
        f"{', '.join(KINDS)}.",
        group="Calibration",
        metavar="KIND,KIND",
    )

    tune_on: str | None = setting(
        None,
        "Requests with pictures, clips or sounds to tune origin and strength of MARS on, as "
        "--suite and other ones; half of their topics are kept to measure.",
        group="Calibration",
        metavar="SUITE",
    )

    @property
    def tunes(self) -> str | None:
        """The suite to tune on; None for none, which may be said by a word."""
        return None if self.tune_on == NO_TUNING else self.tune_on

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of the neutral stimuli, in turn."""
        return kinds_named(self.neutral)

    @field_validator("neutral")
    @classmethod
    def _kinds_can_be_drawn(cls, text: str) -> str:
        if wanted := kinds_problem(kinds_named(text)):
            raise PydanticCustomError("neutral", "{wanted}", {"wanted": wanted})
        return text

    @model_validator(mode="after")
    def _prompts_come_in_pairs(self) -> "PromptSettings":
        if (self.harmful is None) != (self.harmless is None):
            given, missing = ("--harmful", "--harmless")
            if self.harmful is None:
                given, missing = missing, given
            raise ValueError(f"{given} is given without {missing}; give both or neither")
        return self


class ModelSettings(BaseModel):
    """What is steered, and in which form it is loaded."""

    model: str = Field(
        min_length=1,
        description="Hub repository, local directory or organism:NAME (bundled toy model).",
        json_schema_extra={"group": "Model", "metavar": "X"},
    )
    revision: str | None = setting(
        None, "Branch, tag or commit of the Hub repository.", group="Model", metavar="REV"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto", "Precision to calibrate in; auto is the checkpoint's own.", group="Model"
    )
    thinking: Literal["auto", "on", "off"] = setting(
        "auto",
        "Mode of a chat template that can think; auto is the template's default.",
        group="Calibration",
    )
    quantization: Literal["none", "bnb-8bit", "bnb-4bit", "torchao-int8"] = setting(
        "none",
        "Calibrate and evaluate for loading in this quantization; the weights stay as they are.",
        group="Model",
    )
    allow_unknown_family: bool = setting(
        False,
        "Expert: try a family without a file, worked out from its classes and without tests.",
        group="Model",
    )

    @property
    def thinks(self) -> bool | None:
        """Setting of the chat template's thinking switch; None for its default."""
        return {"auto": None, "on": True, "off": False}[self.thinking]


class Settings(EvaluationSettings, PushSettings, PromptSettings, ModelSettings):
    """Everything that `mars-export --model X` can be told.

    Raises:
        pydantic.ValidationError: if a value is not valid; the command line turns this into one
            line that names the flag, variable or file it came from.
    """

    output: Path | None = setting(
        None,
        "Directory to make; appears complete or not at all. Default: NAME-METHOD, here.",
        group="Output",
        metavar="DIR",
    )
    overwrite: bool = setting(
        False, "Replace a steered directory that is already there.", group="Output"
    )
    dry_run: bool = setting(
        False,
        "Check everything that can be checked before weights are read, tell what the run takes of "
        "memory, and end.",
        group="Output",
    )
    push: bool | str = setting(
        False,
        "Publish to the Hub, in one commit; without REPO as YOU/NAME-METHOD.",
        group="Publishing",
        metavar="[REPO]",
    )
    license: str | None = setting(
        None,
        "License of the base model, when its card does not say.",
        group="Publishing",
        metavar="ID",
    )
    method: str = setting(
        "mars",
        "How to steer; each method has a section of its own options.",
        group="Calibration",
        metavar="|".join(EXPORTABLE),
    )
    method_options: SerializeAsAny[MethodOptions] = MethodOptions()
    """The method's own options; each may as well be named beside the other settings."""

    @field_validator("push", mode="before")
    @classmethod
    def _push_may_be_a_word(cls, value: Any) -> Any:
        word = value.strip().lower() if isinstance(value, str) else value
        return True if word in _YES else False if word in _NO else value

    @field_validator("method")
    @classmethod
    def _method_makes_a_checkpoint(cls, name: str) -> str:
        if name in EXPORTABLE:
            return name
        wanted = f"a method that makes a checkpoint: {', '.join(EXPORTABLE)}"
        if name in {method.name for method in METHODS}:
            wanted += f"; {name} is an arm of the evaluation"
        wanted += near(name, EXPORTABLE)
        raise PydanticCustomError("method", "{wanted}", {"wanted": wanted})

    @model_validator(mode="after")
    def _method_can_be_tuned(self) -> "Settings":
        if self.tunes and not EXPORTABLE[self.method].tunable:
            able = " and ".join(name for name, method in EXPORTABLE.items() if method.tunable)
            wanted = f"left out: {able} can be tuned, {self.method} cannot"
            raise problem("tune_on", self.tune_on, wanted)
        return self

    @model_validator(mode="before")
    @classmethod
    def _options_are_those_of_the_method(cls, values: Any) -> Any:
        """What is of another type than these is left to the checks of the fields."""
        if not isinstance(values, dict):
            return values
        name = values.get("method", cls.model_fields["method"].default)
        given = values.get("method_options") or {}
        if not isinstance(name, str) or not isinstance(given, dict | BaseModel):
            return values
        if name not in EXPORTABLE:
            return values
        options = EXPORTABLE[name].Options
        own = {option: values[option] for option in _OWNERS if option in values}
        for option in own.keys() - options.model_fields.keys():
            raise _foreign(option, own[option], name)
        stated = given.model_dump(exclude_unset=True) if isinstance(given, BaseModel) else given
        for option in own.keys() & stated.keys():
            raise problem(option, own[option], "given once: method_options has it too")
        rest = {field: value for field, value in values.items() if field not in own}
        return {**rest, "method_options": options(**{**stated, **own})}


def sections(model: type[BaseModel]) -> dict[str, dict[str, FieldInfo]]:
    """Sections of the help text, in order, each with its options.

    The options of every method that makes a checkpoint stand in sections of their own.
    """
    found: dict[str, dict[str, FieldInfo]] = {title: {} for title in _SECTIONS}
    for name, field in model.model_fields.items():
        if isinstance(extra := field.json_schema_extra, dict):
            found[str(extra["group"])][name] = field
    for option, owners in _OWNERS.items() if "method_options" in model.model_fields else ():
        field = EXPORTABLE[owners[0]].Options.model_fields[option]
        found[f"Calibration ({', '.join(owners)})"][option] = field
    return found


def _foreign(option: str, value: Any, method: str) -> ValidationError:
    """The error for an option of another method, at the place of the option."""
    owners = " and ".join(_OWNERS[option])
    return problem(option, value, f"left out: it is an option of {owners}, not of {method}")
