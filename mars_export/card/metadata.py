"""The YAML front matter that the Hub reads, through huggingface_hub's own types."""

from typing import Any, Final

from huggingface_hub import EvalResult, ModelCardData

from mars_export.card.results import by_group
from mars_export.checkpoint.manifest import BaseModelSource, Manifest
from mars_export.evaluation.report import REFERENCE, STEERED, Cell, Report, label, undecided

__all__ = ["TAGS", "front_matter"]

TAGS: Final = (
    "activation-steering",
    "refusal-steering",
    "pre-steered",
    "custom_code",
    "safety",
)


def front_matter(manifest: Manifest, report: Report | None, name: str) -> str:
    """YAML between the `---` lines, without them.

    Args:
        manifest: Record of the steered directory.
        report: Its evaluation; the reference and the checkpoint become the card's `model-index`.
        name: Name of the checkpoint.
    """
    base = manifest.base
    fields: dict[str, Any] = {
        "language": base.languages or None,
        "license": base.license,
        "license_name": base.license_name,
        "license_link": base.license_link,
        "library_name": "transformers",
        "base_model": base.repo,
        "pipeline_tag": base.pipeline_tag,
        "tags": [manifest.calibration.method, *TAGS],
        **_lineage(base),
    }
    if report is not None and not undecided(report.cells):
        groups = by_group(report.cells).values()
        cells = [arms[arm] for arms in groups for arm in (REFERENCE, STEERED) if arm in arms]
        entries = [_entry(cell, report, base.pipeline_tag) for cell in cells]
        fields |= {"model_name": name, "eval_results": entries}
    return ModelCardData(**fields).to_yaml()


def _lineage(base: BaseModelSource) -> dict[str, str]:
    """Relation to the base, and for a gated base the prompt that its copy must show as well."""
    fields = {"base_model_relation": "finetune"} if base.repo else {}
    if base.gated:
        fields["extra_gated_prompt"] = (
            f"This is a modified copy of {base.name}, which is gated. "
            "Its license and terms of use apply to this copy."
        )
    return fields


def _entry(cell: Cell, report: Report, task: str) -> EvalResult:
    kind = label(cell.harmful, cell.modality)
    return EvalResult(
        task_type=task,
        dataset_type=report.suite.name,
        dataset_name=f"{report.suite.name}, {kind}",
        dataset_config=kind.replace(" ", "-"),
        dataset_split="evaluation",
        dataset_args={"sha256": report.suite.sha256},
        metric_type="refusal_rate",
        metric_name=f"Share refused, steering {cell.arm} (style of the response, not harm)",
        metric_value=round(cell.refused.rate, 6),
        metric_args={
            "steering": cell.arm,
            "count": cell.refused.count,
            "n": cell.refused.n,
            "wilson_95_low": round(cell.refused.low, 6),
            "wilson_95_high": round(cell.refused.high, 6),
            "judge": report.judge,
        },
    )
