"""Generated pages are up to date."""

import pytest

from tools.pages import pages

PAGES = pages()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_page_is_what_the_generator_makes(path):
    assert path.read_text("utf-8") == PAGES[path], "run python -m tools.pages"
