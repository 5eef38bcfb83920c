"""`evaluation/report.html`: a report with every answer, in one file that loads nothing else.

It holds what `samples.jsonl` holds, and stays at home as that does. What models and suites wrote
reaches the browser as JSON and is shown as text; the only script that may run is the page's own.
Free of torch.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Template
from markupsafe import Markup

from mars_export.common.html import pages
from mars_export.evaluation.page.plots import gate_rows, rate_rows
from mars_export.evaluation.page.rows import rows
from mars_export.evaluation.report import Report, SampleResult
from mars_export.methods.base import ArtefactRecord

__all__ = ["report_page"]

_ESCAPES: Final = str.maketrans(
    {"<": r"\u003c", ">": r"\u003e", "&": r"\u0026", "\u2028": r"\u2028", "\u2029": r"\u2029"}
)
"""What could end a script element, or a line of one."""


def report_page(
    report: Report,
    results: Sequence[SampleResult],
    calibration: ArtefactRecord,
    prompts: Mapping[str, str],
) -> str:
    """The page of an evaluation.

    Args:
        report: What is said of all.
        results: Every answer, as in `samples.jsonl`.
        calibration: Of the checkpoint; tells margins from gates.
        prompts: Words of a request by its id.
    """
    style, script = (_text(name) for name in ("page.css", "page.js"))
    data = {"arms": [arm.name for arm in report.arms], "rows": rows(results, calibration, prompts)}
    return _template().render(
        report=report,
        rates=rate_rows(report),
        gates=gate_rows(report),
        style=Markup(style),
        script=Markup(script),
        digest=_source(script),
        data=Markup(_escaped(data)),
    )


def _escaped(data: Any) -> str:
    """JSON that cannot end the element that it stands in, whatever strings it holds."""
    return json.dumps(data, separators=(",", ":")).translate(_ESCAPES)


def _source(script: str) -> str:
    """Names a script to the browser: no other one may run in the page."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _text(name: str) -> str:
    return files(__name__).joinpath(name).read_text("utf-8")


@cache
def _template() -> Template:
    return pages(__name__).get_template("page.html.j2")
