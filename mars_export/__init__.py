"""Pre-steered checkpoints of multimodal language models: calibrate, export, evaluate, publish.

    >>> from mars_export import Settings, export
    >>> export(Settings(model="organism:gemma3", output="steered"))  # doctest: +SKIP
    PosixPath('steered')

Whatever a command does, one of these calls does; `tests/test_public.py` names it. Names
are loaded when they are first used, so that `import mars_export` stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from mars_export._version import __version__ as __version__

if TYPE_CHECKING:
    from mars_export.calibration.data import MeasurementOptions as MeasurementOptions
    from mars_export.card.render import write_card as write_card
    from mars_export.checkpoint.manifest import BaseModelSource as BaseModelSource
    from mars_export.checkpoint.manifest import Manifest as Manifest
    from mars_export.checkpoint.seal import write_seal as write_seal
    from mars_export.checkpoint.writer import write_checkpoint as write_checkpoint
    from mars_export.common.errors import ExportError as ExportError
    from mars_export.common.progress import Progress as Progress
    from mars_export.common.progress import Tick as Tick
    from mars_export.common.progress import progress_for as progress_for
    from mars_export.comparison.record import Comparison as Comparison
    from mars_export.evaluation.adaptive.record import Adaptive as Adaptive
    from mars_export.evaluation.adaptive.record import Budget as Budget
    from mars_export.evaluation.ask import Replies as Replies
    from mars_export.evaluation.ask import ask as ask
    from mars_export.evaluation.engines.base import Engine as Engine
    from mars_export.evaluation.judges.base import Judge as Judge
    from mars_export.evaluation.judges.choice import judge_named as judge_named
    from mars_export.evaluation.options import EvaluationOptions as EvaluationOptions
    from mars_export.evaluation.report import Report as Report
    from mars_export.evaluation.suite import Suite as Suite
    from mars_export.evaluation.suites.catalog import open_suites as open_suites
    from mars_export.evaluation.suites.record import SuiteRecord as SuiteRecord
    from mars_export.evaluation.suites.record import known_suites as known_suites
    from mars_export.evaluation.utility import Utility as Utility
    from mars_export.families import Family as Family
    from mars_export.families import families as supported_families  # noqa: F401
    from mars_export.families.loading import load_base as load_base
    from mars_export.families.placement import Placement as Placement
    from mars_export.inputs.prompts import PromptSets as PromptSets
    from mars_export.inputs.prompts import from_files as prompts_from_files  # noqa: F401
    from mars_export.inputs.prompts import from_suite as prompts_from_suite  # noqa: F401
    from mars_export.inputs.prompts import packaged as packaged_prompts  # noqa: F401
    from mars_export.inputs.tuning import TuningSet as TuningSet
    from mars_export.integrations.finetune.drift import measure_drift as measure_drift
    from mars_export.integrations.finetune.record import Drift as Drift
    from mars_export.integrations.lmms_eval.comparison import from_logs as compare_utility  # noqa: F401
    from mars_export.integrations.lmms_eval.engine import measure as measure_utility  # noqa: F401
    from mars_export.integrations.onnx.export import export_onnx as export_onnx
    from mars_export.integrations.onnx.record import Onnx as Onnx
    from mars_export.methods.base import Artefact as Artefact
    from mars_export.methods.base import MethodOptions as MethodOptions
    from mars_export.methods.calibrate import calibrate as calibrate
    from mars_export.pipeline.attacks import attack as attack
    from mars_export.pipeline.comparison import compare as compare
    from mars_export.pipeline.comparison_settings import ComparisonSettings as ComparisonSettings
    from mars_export.pipeline.engines import engine_named as engine_named
    from mars_export.pipeline.evaluation import evaluate as evaluate
    from mars_export.pipeline.preflight import own_prompts as own_prompts
    from mars_export.pipeline.settings import PromptSettings as PromptSettings
    from mars_export.pipeline.settings import Settings as Settings
    from mars_export.pipeline.stages import adopt as adopt
    from mars_export.pipeline.stages import export as export
    from mars_export.pipeline.stages import publish as publish
    from mars_export.pipeline.stages import recalibrate as recalibrate
    from mars_export.pipeline.tuning import tuning_set as tuning_set
    from mars_export.verification import Verification as Verification
    from mars_export.verification import verify as verify

_HOME: Final = {
    "Adaptive": "evaluation.adaptive.record",
    "Artefact": "methods.base",
    "BaseModelSource": "checkpoint.manifest",
    "Budget": "evaluation.adaptive.record",
    "Comparison": "comparison.record",
    "ComparisonSettings": "pipeline.comparison_settings",
    "Drift": "integrations.finetune.record",
    "Engine": "evaluation.engines.base",
    "EvaluationOptions": "evaluation.options",
    "ExportError": "common.errors",
    "Family": "families",
    "Judge": "evaluation.judges.base",
    "Manifest": "checkpoint.manifest",
    "MeasurementOptions": "calibration.data",
    "MethodOptions": "methods.base",
    "Onnx": "integrations.onnx.record",
    "Progress": "common.progress",
    "Placement": "families.placement",
    "PromptSettings": "pipeline.settings",
    "PromptSets": "inputs.prompts",
    "Replies": "evaluation.ask",
    "Report": "evaluation.report",
    "Settings": "pipeline.settings",
    "Suite": "evaluation.suite",
    "SuiteRecord": "evaluation.suites.record",
    "Tick": "common.progress",
    "TuningSet": "inputs.tuning",
    "Utility": "evaluation.utility",
    "Verification": "verification",
    "adopt": "pipeline.stages",
    "ask": "evaluation.ask",
    "attack": "pipeline.attacks",
    "calibrate": "methods.calibrate",
    "compare": "pipeline.comparison",
    "compare_utility": "integrations.lmms_eval.comparison:from_logs",
    "engine_named": "pipeline.engines",
    "evaluate": "pipeline.evaluation",
    "export": "pipeline.stages",
    "export_onnx": "integrations.onnx.export",
    "judge_named": "evaluation.judges.choice",
    "known_suites": "evaluation.suites.record",
    "load_base": "families.loading",
    "measure_drift": "integrations.finetune.drift",
    "measure_utility": "integrations.lmms_eval.engine:measure",
    "open_suites": "evaluation.suites.catalog",
    "own_prompts": "pipeline.preflight",
    "packaged_prompts": "inputs.prompts:packaged",
    "progress_for": "common.progress",
    "prompts_from_files": "inputs.prompts:from_files",
    "prompts_from_suite": "inputs.prompts:from_suite",
    "publish": "pipeline.stages",
    "recalibrate": "pipeline.stages",
    "supported_families": "families:families",
    "tuning_set": "pipeline.tuning",
    "verify": "verification",
    "write_card": "card.render",
    "write_checkpoint": "checkpoint.writer",
    "write_seal": "checkpoint.seal",
}
"""Public name -> module, and the name there if it is another."""

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOME[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), attribute or name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
