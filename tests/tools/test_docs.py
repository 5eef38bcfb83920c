"""What the documentation names exists: files, sections, commands and options."""

import re
import shlex
from pathlib import Path

import click
import pytest

from mars_export.cli.main import cli
from tools.tables import REPOSITORY

ROOT = Path(__file__).parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "examples").glob("**/README.md"),
    *(ROOT / "model_cards").glob("*.md"),
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^ *```bash\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)

pages = pytest.mark.parametrize("page", sorted(PAGES), ids=lambda p: str(p.relative_to(ROOT)))


def anchors(page):
    """Ids in a page, or in the README of a folder: of `<a id="...">`, and of its headings."""
    page = page / "README.md" if page.is_dir() else page
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    return slugs | set(re.findall(r'id="([^"]+)"', text))


def local(link, page):
    """Path and anchor of a link into this repository, else None."""
    for prefix in (f"{REPOSITORY}/blob/main/", f"{REPOSITORY}/tree/main/"):
        if link.startswith(prefix):
            page, link = ROOT / "x", link.removeprefix(prefix)
    if re.match(r"[a-z]+:", link):
        return None
    path, _, anchor = link.partition("#")
    return ((page.parent / path) if path else page), anchor


@pages
def test_links_lead_somewhere(page):
    targets = filter(None, (local(link, page) for link in LINK.findall(page.read_text("utf-8"))))
    broken = [
        f"{path}#{anchor}"
        for path, anchor in targets
        if not path.exists() or (anchor and anchor not in anchors(path))
    ]
    assert broken == []


def commands(text):
    """Arguments of each `mars-export` call in the page's shell blocks."""
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0].endswith("mars-export"):
                yield words[1 : words.index("|") if "|" in words else None]


def unknown(words):
    """Options of a call that its command does not have."""
    name = words[0] if words and words[0] in cli.commands else None
    command = cli.commands[name] if name else cli
    options = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
    options |= {"--help", "-h"}
    given = [word.split("=")[0] for word in words if word.startswith("-")]
    return [option for option in given if option not in options]


@pages
def test_commands_have_the_options_that_are_shown(page):
    calls = list(commands(page.read_text("utf-8")))
    assert [(words, unknown(words)) for words in calls if unknown(words)] == []
    names = {words[0] for words in calls if words and not words[0].startswith("-")}
    assert names <= set(cli.commands)


def test_a_wrong_call_is_noticed():
    (call,) = commands("```bash\nmars-export verify steered --fast  # quick\n```\n")
    assert unknown(call) == ["--fast"]
    assert isinstance(cli, click.Group)


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 180


@pytest.mark.parametrize(
    "folder", [p for p in sorted((ROOT / "examples").iterdir()) if p.is_dir()], ids=lambda p: p.name
)
def test_every_example_has_a_readme(folder):
    assert (folder / "README.md").is_file()
