"""Pre-steered checkpoints of multimodal language models: calibrate, export, evaluate, publish.

    >>> from mars_export import Settings, export
    >>> export(Settings(model="organism:gemma3", output="steered"))  # doctest: +SKIP
    PosixPath('steered')

Names are loaded when they are first used, so that `import mars_export` stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from mars_export._version import __version__ as __version__

if TYPE_CHECKING:
    from mars_export.card.render import write_card
    from mars_export.checkpoint.writer import write_checkpoint
    from mars_export.common.errors import ExportError
    from mars_export.evaluation.evaluate import evaluate
    from mars_export.hub import push
    from mars_export.integrations.finetune.drift import measure_drift
    from mars_export.methods.calibrate import calibrate
    from mars_export.pipeline.settings import Settings
    from mars_export.pipeline.stages import export, recalibrate
    from mars_export.verification import verify

__all__ = [
    "ExportError",
    "Settings",
    "calibrate",
    "evaluate",
    "export",
    "measure_drift",
    "push",
    "recalibrate",
    "verify",
    "write_card",
    "write_checkpoint",
]


_HOME: Final = {
    "ExportError": "mars_export.common.errors",
    "Settings": "mars_export.pipeline.settings",
    "calibrate": "mars_export.methods.calibrate",
    "evaluate": "mars_export.evaluation.evaluate",
    "export": "mars_export.pipeline.stages",
    "measure_drift": "mars_export.integrations.finetune.drift",
    "push": "mars_export.hub",
    "recalibrate": "mars_export.pipeline.stages",
    "verify": "mars_export.verification",
    "write_card": "mars_export.card.render",
    "write_checkpoint": "mars_export.checkpoint.writer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
