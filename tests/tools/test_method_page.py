"""Docstrings cite the page of methods, so every tag that they name has an anchor there."""

import re
from pathlib import Path

import pytest

import mars_export

PACKAGE = Path(mars_export.__file__).parent
PAGE = (PACKAGE.parent / "docs" / "method.md").read_text("utf-8")
TAG = re.compile(r"\b(?:A\d\.\d+|[ABCOPT][1-9](?!\.))\b")


def anchors(page):
    return set(re.findall(r'<a id="([a-z0-9.-]+)"></a>', page))


def cited():
    sources = [p for pattern in ("*.py", "*.j2") for p in PACKAGE.rglob(pattern)]
    for path in sorted(sources):
        for tag in TAG.findall(path.read_text("utf-8")):
            yield path.relative_to(PACKAGE).as_posix(), tag


def test_tags_are_recognized():
    assert TAG.findall("C1 of the page, A3.2 (A3.10), A3.n") == ["C1", "A3.2", "A3.10"]
    assert anchors('<a id="a3.1"></a>\n\n### A3.1 Text\n- <a id="c1"></a>C1') == {"a3.1", "c1"}


@pytest.mark.parametrize("path", sorted({path for path, _ in cited()}))
def test_every_cited_tag_has_an_anchor(path):
    tags = {tag for file, tag in cited() if file == path}
    assert {tag.lower() for tag in tags} <= anchors(PAGE)


def test_the_page_is_named_where_its_tags_are_cited():
    """`A3.4` alone cannot be resolved by somebody who reads one file."""
    files = {path for path, _ in cited()}
    lost = [path for path in files if "docs/method.md" not in (PACKAGE / path).read_text("utf-8")]
    assert lost == []
