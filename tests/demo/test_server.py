"""The server of the page without a browser; skipped where gradio is not installed."""

import os
from unittest.mock import Mock

import pytest

from mars_export.common.errors import ExportError
from mars_export.demo.server import served

gradio = pytest.importorskip("gradio")


def test_a_proxy_is_not_asked_for_the_own_page(subject, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "intranet")
    monkeypatch.setenv("NO_PROXY", "intranet")
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    with served(subject) as url:
        assert url.startswith("http://127.0.0.1:")
    assert os.environ["no_proxy"].startswith("intranet,")


def test_a_page_that_does_not_answer_is_one_line(subject, monkeypatch):
    monkeypatch.setattr("gradio.networking.url_ok", lambda url: False)
    for name in ("GRADIO_TEMP_DIR", "no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    with pytest.raises(ExportError, match="does not answer on this machine"), served(subject):
        pass
    failing = Mock(side_effect=ValueError("another thing"))
    monkeypatch.setattr("gradio.networking.url_ok", failing)
    with pytest.raises(ValueError, match="another thing"), served(subject):
        pass
