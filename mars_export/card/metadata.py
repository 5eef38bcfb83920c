"""The YAML front matter that the Hub reads, through huggingface_hub's own types."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from mars_export.card.lines import by_group
from mars_export.checkpoint.manifest import BaseModelSource, Manifest
from mars_export.evaluation.report import STEERED, Cell, Report, label, undecided

__all__ = ["TAGS", "contact_of", "front_matter"]

AUDIO_TAG: Final = "audio-text-to-text"
TAGS: Final = (
    "activation-steering",
    "refusal-steering",
    "pre-steered",
    "custom_code",
    "safety",
)


def front_matter(
    manifest: Manifest, report: Report | None, name: str, contact: str | None = None
) -> str:
    """YAML between the `---` lines, without them.

    Args:
        manifest: Record of the steered directory.
        report: Its evaluation. The rates of the checkpoint alone become the card's `model-index`:
            the reference is another model, and readers look at the type of a metric only.
        name: Name of the checkpoint.
        contact: Where to report failures, if anybody said; kept here for the next card.
    """
    base = manifest.base
    fields: dict[str, Any] = {
        "language": base.languages or None,
        "license": base.license,
        "license_name": base.license_name,
        "license_link": base.license_link,
        "library_name": "transformers",
        "base_model": _known_base(base),
        "pipeline_tag": base.pipeline_tag,
        "tags": [manifest.calibration.method, *TAGS, *_heard(manifest)],
        **_lineage(base),
        "contact": contact,
    }
    if report is not None and not undecided(report.cells):
        entries = [
            _entry(arms, report, base.pipeline_tag, variant)
            for variant, cells in _shown(report)
            for arms in by_group(cells).values()
        ]
        fields |= {"model_name": name, "eval_results": entries}
    return ModelCardData(**fields).to_yaml()


def contact_of(card: str) -> str | None:
    """Where to report failures, as the front matter of a card says; None if it does not."""
    if not card.startswith("---"):
        return None
    contact = ModelCard(card, ignore_metadata_errors=True).data.get("contact")
    return None if contact is None else str(contact)


def _heard(manifest: Manifest) -> list[str]:
    """The Hub's name of what it does with sound, if that was calibrated."""
    return [AUDIO_TAG] if "audio" in manifest.calibration.source.modalities else []


def _lineage(base: BaseModelSource) -> dict[str, str]:
    """Relation to the base, and for a gated base the prompt that its copy must show as well."""
    fields = {"base_model_relation": "finetune"} if _known_base(base) else {}
    if base.gated:
        fields["extra_gated_prompt"] = (
            f"This is a modified copy of {base.name}, which is gated. "
            "Its license and terms of use apply to this copy."
        )
    return fields


def _known_base(base: BaseModelSource) -> str | None:
    """The repository of the base, or of what it was trained from."""
    if base.repo is None and base.derived_from and base.derived_from.revision:
        return base.derived_from.base
    return base.repo


def _shown(report: Report) -> Iterator[tuple[str, list[Cell]]]:
    """The requests as they are, and whatever else shows that the checkpoint does worse."""
    yield "", report.cells
    for variant in report.variants:
        worse = {
            (p.harmful, p.modality) for p in variant.pairs if p.arm == STEERED and p.harm == "shown"
        }
        yield variant.name, [c for c in variant.cells if (c.harmful, c.modality) in worse]


def _entry(arms: Mapping[str, Cell], report: Report, task: str, variant: str) -> EvalResult:
    cell = arms[STEERED]
    kind = " ".join(filter(None, (label(cell.harmful, cell.modality), variant)))
    others = {arm: f"{c.refused.count}/{c.refused.n}" for arm, c in arms.items() if arm != STEERED}
    subject = "harmful" if cell.harmful else "harmless"
    return EvalResult(
        task_type=task,
        dataset_type=report.suite.name,
        dataset_name=f"{report.suite.name}, {kind}",
        dataset_config=kind.replace(" ", "-"),
        dataset_split="evaluation",
        dataset_args={"sha256": report.suite.sha256},
        metric_type="refusal_rate" if cell.harmful else "over_refusal_rate",
        metric_name=f"Share of {subject} requests refused (style of the answer, not harm)",
        metric_value=round(cell.refused.rate, 6),
        metric_args={
            "steering": cell.arm,
            "count": cell.refused.count,
            "n": cell.refused.n,
            "clusters": cell.refused.clusters,
            "low_95": round(cell.refused.low, 6),
            "high_95": round(cell.refused.high, 6),
            "judge": report.judge,
            "compared_with": others,
        },
    )
