"""The export validates against the published schema, and says what the report says."""

import json
from pathlib import Path

import pytest

from mars_export.evaluation.report import SuiteResult
from mars_export.integrations.every_eval_ever import every_eval_ever
from support import records, tiny

SCHEMA = json.loads((Path(__file__).parents[1] / "data/eee_eval.schema.json").read_text("utf-8"))


def suites():
    plain = records.report()
    origins = {"xstest": "known:xstest", "msts": f"newest:felfri/MSTS@{'0' * 40}", "mine": "file"}
    return [
        SuiteResult(
            source=plain.suite.model_copy(update={"name": name, "origin": origin}),
            **records.part(), categories=[],
        )
        for name, origin in origins.items()
    ]  # fmt: skip


@pytest.mark.parametrize("several", [False, True])
def test_it_validates(several):
    jsonschema = pytest.importorskip("jsonschema")
    report = records.report(suites=suites() if several else [])
    found = every_eval_ever(report, records.manifest())
    jsonschema.Draft7Validator(SCHEMA).validate(found)
    assert found["schema_version"] == SCHEMA["version"]
    broken = {**found, "evaluation_results": [{"evaluation_name": "x"}]}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(SCHEMA).validate(broken)


def test_every_cell_is_a_result_with_its_interval():
    report = records.report(suites=suites())
    results = every_eval_ever(report, records.manifest())["evaluation_results"]
    assert len(results) == 3 * len(report.cells)
    assert len({r["evaluation_result_id"] for r in results}) == len(results)
    cell, first = report.suites[0].cells[0], results[0]
    interval = first["score_details"]["uncertainty"]["confidence_interval"]
    assert first["score_details"]["score"] == cell.refused.rate
    assert (interval["lower"], interval["upper"]) == (cell.refused.low, cell.refused.high)
    assert first["metric_config"]["lower_is_better"] is (not cell.harmful)
    sources = {r["source_data"]["dataset_name"]: r["source_data"] for r in results}
    assert sources["msts"]["hf_repo"] == "felfri/MSTS"
    assert sources["msts"]["additional_details"]["revision"] == "0" * 40
    assert sources["msts"]["additional_details"]["pinned"].startswith("no")
    assert sources["mine"]["source_type"] == "other"


@pytest.mark.parametrize(("method", "name"), [("mars", "MARS"), ("addition", "addition")])
def test_a_checkpoint_is_named_after_its_method(method, name):
    calibration = tiny.METHOD_CASES[method].artefact("gemma3").record
    manifest = records.manifest(calibration=calibration)
    model = every_eval_ever(records.report(), manifest)["model_info"]
    assert model["name"] == f"{manifest.base.name.rsplit('/')[-1]}-{name}"
