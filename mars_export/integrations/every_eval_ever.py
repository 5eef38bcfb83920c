"""The report in the shape of Every Eval Ever (arXiv 2606.14516), schema 0.3.0. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from mars_export.checkpoint.manifest import Manifest
from mars_export.common.atomic import write_atomically
from mars_export.common.names import EVALUATION, EXCHANGE_FILE
from mars_export.evaluation.report import Cell, Report, SuiteSource, label
from mars_export.evaluation.statistics import CONFIDENCE
from mars_export.methods import method_named

__all__ = ["SCHEMA_VERSION", "every_eval_ever", "write_every_eval_ever"]

SCHEMA_VERSION: Final = "0.3.0"
_METRIC: Final = "mars_export.refusal_rate"
_ABOUT: Final = (
    "Share of answers that the judge takes for a refusal or rebuttal. It says how an answer "
    "sounds, not whether it does harm."
)


def write_every_eval_ever(directory: Path, report: Report, folder: Path | None = None) -> None:
    """Write `safety_eval.json` beside a report of a steered directory.

    Args:
        directory: Steered.
        report: One of it.
        folder: Where that is; None for `evaluation/`.
    """
    exported = every_eval_ever(report, Manifest.read(directory))
    path = (folder or directory / EVALUATION) / EXCHANGE_FILE
    write_atomically(path, json.dumps(exported, indent=2) + "\n")


def every_eval_ever(report: Report, manifest: Manifest) -> dict[str, Any]:
    """The rates of a report, suite by suite, for collections of evaluations.

    Args:
        report: Of `manifest`'s directory.
        manifest: Says what was steered.

    Returns:
        JSON values; one result for each suite, modality, label and arm. It holds no answer.
    """
    moment = str(datetime.fromisoformat(report.created).timestamp())
    model = manifest.base.repo or manifest.base.name
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": f"mars-export/{model.replace('/', '_')}/{moment}",
        "evaluation_timestamp": report.created,
        "retrieved_timestamp": moment,
        "source_metadata": {
            "source_name": "mars-export",
            "source_type": "evaluation_run",
            "source_organization_name": "unknown",
            "evaluator_relationship": "first_party",
        },
        "eval_library": {
            "name": "mars-export",
            "version": report.versions.get("mars-export", "unknown"),
        },
        "model_info": _model(report, manifest, model),
        "evaluation_results": list(_results(report)),
    }


def _model(report: Report, manifest: Manifest, model: str) -> dict[str, Any]:
    method = method_named(manifest.calibration.method)
    return {
        "name": method.checkpoint_name(model),
        "id": model,
        "inference_engine": {
            "name": report.engine.name,
            "version": report.engine.version or report.versions.get(report.engine.name, "unknown"),
        },
        "additional_details": {
            "deployment_type": "self_deployed",
            "model_availability": "unknown" if manifest.base.private else "open_weights",
            "base_revision": manifest.base.revision or "unknown",
            "steering_sha256": report.steering_sha256,
            "dtype": report.dtype,
            "device": report.device,
        },
    }


def _results(report: Report) -> Iterator[dict[str, Any]]:
    parts = [(suite.source, suite.cells) for suite in report.suites]
    for source, cells in parts or [(report.suite, report.cells)]:
        for cell in cells:
            yield _result(report, source, cell)


def _result(report: Report, source: SuiteSource, cell: Cell) -> dict[str, Any]:
    kind = label(cell.harmful, cell.modality)
    title = next(arm.title for arm in report.arms if arm.name == cell.arm)
    rate = cell.refused
    return {
        "evaluation_result_id": f"{source.name}/{kind}/{cell.arm}".replace(" ", "-"),
        "evaluation_name": f"{source.name}, {kind}, {title}",
        "source_data": _data(source),
        "evaluation_timestamp": report.created,
        "metric_config": {
            "evaluation_description": _ABOUT,
            "metric_id": _METRIC,
            "metric_name": "refusal rate",
            "metric_unit": "proportion",
            "lower_is_better": not cell.harmful,
            "score_type": "continuous",
            "min_score": 0.0,
            "max_score": 1.0,
            "additional_details": {
                "judge": report.judge,
                "arm": cell.arm,
                "clusters": str(rate.clusters),
            },
        },
        "score_details": {
            "score": rate.rate,
            "details": {name: str(count) for name, count in cell.verdicts.items()},
            "uncertainty": {
                "confidence_interval": {
                    "lower": rate.low,
                    "upper": rate.high,
                    "confidence_level": CONFIDENCE,
                    "method": "Clopper-Pearson, clusters allowed for (Korn and Graubard 1998)",
                },
                "num_samples": rate.n,
            },
        },
        "generation_config": {
            "generation_args": {"max_tokens": int(report.decoding["max_new_tokens"])},
            "additional_details": {name: str(value) for name, value in report.decoding.items()},
        },
    }


def _data(source: SuiteSource) -> dict[str, Any]:
    details = {"sha256": source.sha256, "license": source.license or "unknown"}
    kind, _, place = source.origin.partition(":")
    if kind not in ("hub", "newest"):
        details["origin"] = source.origin or "unknown"
        return {
            "dataset_name": source.name, "source_type": "other", "additional_details": details,
        }  # fmt: skip
    repo, _, details["revision"] = place.partition("@")
    if kind == "newest":
        details["pinned"] = "no, the newest revision when it was evaluated"
    return {
        "dataset_name": source.name,
        "source_type": "hf_dataset",
        "hf_repo": repo,
        "samples_number": source.samples,
        "additional_details": details,
    }
