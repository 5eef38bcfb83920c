"""Records that can carry no honest card."""

import pytest

from mars_export.card.render import render
from mars_export.common.errors import ExportError
from mars_export.evaluation.report import SelfCheck
from support import records

MANIFEST, REPORT = records.manifest(), records.report()
HARMFUL_ONLY = {k: v for k, v in records.OUTCOMES.items() if k[0]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"self_check": SelfCheck(active=False, detail="no gate")}, "steering inactive .no gate"),
        ({"steering_sha256": records.sha("another")}, "about other steering tensors"),
        ({"created": "2026-02-28T10:00:00+00:00"}, "older than the checkpoint"),
        ({"cells": [], "pairs": []}, "holds no results"),
        ({"cells": [c for c in REPORT.cells if c.arm == "off"]}, "not run in every arm .on"),
        ({"cells": [c for c in REPORT.cells if c.arm == "on"]}, "not run in every arm .off"),
        ({"cells": REPORT.cells[1:]}, "not run in every arm"),
        ({"pairs": REPORT.pairs[1:]}, "harmful text in the arm on .refused. is not tested"),
        ({"arms": REPORT.arms[:1]}, "compares steering on with nothing"),
        ({"arms": REPORT.arms[1:]}, "compares steering on with nothing"),
    ],
)
def test_reports_that_carry_no_card(changes, message):
    with pytest.raises(ExportError, match=f"^model card not written: .*{message}"):
        render(MANIFEST, records.report(**changes))


def test_a_further_arm_is_run_on_everything():
    report = records.report(others={"safety-prompt": records.OUTCOMES})
    cells = [c for c in report.cells if (c.arm, c.modality) != ("safety-prompt", "video")]
    with pytest.raises(ExportError, match=r"video requests were not run in every arm .safety-pr"):
        render(MANIFEST, report.model_copy(update={"cells": cells}))


def test_harmful_requests_alone_carry_no_card():
    with pytest.raises(ExportError, match="holds harmful requests only"):
        render(MANIFEST, records.report(HARMFUL_ONLY))


@pytest.mark.parametrize("license", ["", "unknown", " Unknown "])
def test_an_unknown_license_carries_no_card(license):
    with pytest.raises(ExportError, match=r"the license of .* is not known"):
        render(records.manifest(base=records.base(license=license)), REPORT)
