"""Which plots a card has, and drawing them to PNG bytes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mars_export.card.results import plane_modalities
from mars_export.checkpoint.manifest import Manifest
from mars_export.evaluation.report import Report, undecided
from mars_export.methods.mars.record import mars_record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GATES", "LAYERS", "PATHS", "PLANE", "REFUSAL", "SEPARATION", "draw", "planned"]

REFUSAL: Final = "assets/refusal_by_modality.png"
PLANE: Final = "assets/safety_over_refusal.png"
LAYERS: Final = "assets/layer_scores.png"
SEPARATION: Final = "assets/layer_separation.png"
GATES: Final = "assets/gate_histogram.png"
PATHS: Final = (REFUSAL, PLANE, LAYERS, SEPARATION, GATES)


def planned(manifest: Manifest, report: Report | None) -> tuple[str, ...]:
    """Paths of the plots that these records allow, relative to the card."""
    rates = report is not None and not undecided(report.cells)
    gates = report is not None and any(report.gates.get("on", {}).values())
    scores = mars_record(manifest.calibration).scores
    wanted = {
        REFUSAL: rates,
        PLANE: report is not None and rates and bool(plane_modalities(report)),
        LAYERS: bool(scores),
        SEPARATION: any(score.groups for score in scores),
        GATES: gates,
    }
    return tuple(path for path, there in wanted.items() if there)


def draw(manifest: Manifest, report: Report | None) -> dict[str, bytes]:
    """Draw every planned plot.

    Returns:
        PNG bytes by path relative to the card; the same records give the same bytes.
    """
    from mars_export.card.figures import gates, layers, plane, refusal, separation
    from mars_export.common import plotting as style

    calibration = manifest.calibration
    of_record = {LAYERS: layers.figure, SEPARATION: separation.figure}
    of_report: dict[str, Callable[[Report], Figure]] = {
        REFUSAL: refusal.figure,
        PLANE: plane.figure,
        GATES: gates.figure,
    }
    drawn: dict[str, bytes] = {}
    for path in planned(manifest, report):
        with style.sheet():
            if report is not None and path in of_report:
                figure = of_report[path](report)
            else:
                figure = of_record[path](calibration)
            drawn[path] = style.png(figure)
    return drawn
