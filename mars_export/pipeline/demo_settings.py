"""The options of `mars-export demo`."""

from typing import Literal

from pydantic import Field, PositiveInt

from mars_export.evaluation.options import EvaluationOptions
from mars_export.pipeline.run_settings import RunSettings, setting
from mars_export.pipeline.settings import AnswerSettings

__all__ = ["DemoSettings"]


class DemoSettings(RunSettings):
    """How a steered directory is shown."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto", "Precision to run in; auto is the checkpoint's own.", group="Model"
    )
    max_new_tokens: PositiveInt = setting(
        EvaluationOptions().max_new_tokens,
        str(AnswerSettings.model_fields["max_new_tokens"].description),
        group="Running",
        metavar="N",
    )
    port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Port of the page; by default the first free one from 7860 on.",
        json_schema_extra={"group": "Running", "metavar": "N"},
    )
    browser: bool = setting(
        True, "Open the page in a browser; on unless turned off.", group="Running"
    )
