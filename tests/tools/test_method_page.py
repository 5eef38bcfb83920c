"""Docstrings cite the page of methods, so every tag that they name has an anchor there."""

import re
from pathlib import Path

import pytest

import mars_export

PACKAGE = Path(mars_export.__file__).parent
PAGE = (PACKAGE.parent / "docs" / "method.md").read_text("utf-8")
TAG = re.compile(r"\b(?:A\d\.\d+|[ABCOPT][1-9](?!\.))\b")


def anchors(page):
    headings = re.findall(r"\{#([a-z0-9.-]+)\}", page)
    return {*headings, *re.findall(r'id="([a-z0-9.-]+)"', page)}


def cited():
    sources = [p for pattern in ("*.py", "*.j2") for p in PACKAGE.rglob(pattern)]
    for path in sorted(sources):
        for tag in TAG.findall(path.read_text("utf-8")):
            yield path.relative_to(PACKAGE).as_posix(), tag


def test_tags_are_recognized():
    assert TAG.findall("C1 of the page, A3.2 (A3.10), A3.n") == ["C1", "A3.2", "A3.10"]
    assert anchors('## A3.1 Text {#a3.1}\n<span id="c1"></span>') == {"a3.1", "c1"}


@pytest.mark.parametrize("path", sorted({path for path, _ in cited()}))
def test_every_cited_tag_has_an_anchor(path):
    tags = {tag for file, tag in cited() if file == path}
    assert {tag.lower() for tag in tags} <= anchors(PAGE)
