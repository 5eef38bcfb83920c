"""The page in a real Chromium: answers, files, mistakes, and not one request to elsewhere."""

import shutil
from pathlib import Path

import pytest

gradio = pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
PATIENCE = 120_000
"""Milliseconds; a busy machine may be slow."""


@pytest.fixture(scope="module")
def site(subject):
    """The running page: its address, and the folder of its uploads."""
    import os

    from mars_export.demo.server import served

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", "")  # put back at the end
        with served(subject) as url:
            folder = Path(os.environ["GRADIO_TEMP_DIR"])
            yield url, folder
    assert not folder.exists(), "nothing is left behind"


@pytest.fixture
def page(site, tmp_path):
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=CHROMIUM, headless=True, args=FLAGS
        )
        browser.set_default_timeout(PATIENCE)
        view, asked, errors = browser.pages[0], [], []
        view.on("request", lambda request: asked.append(request.url))
        view.on("pageerror", lambda error: errors.append(str(error)))
        view.goto(site[0])
        view.wait_for_selector("textarea")
        yield view
        browser.close()
    elsewhere = [u for u in asked if not u.startswith((site[0], "data:", "blob:"))]
    assert (elsewhere, errors) == ([], [])


def ask(page, text, files=()):
    if files:
        page.set_input_files("input[type=file]", [str(path) for path in files])
        page.wait_for_selector(".thumbnail-item, [class*=thumbnail]")
    page.fill("textarea", text)
    page.keyboard.press("Enter")


def finished(page, turns):
    page.wait_for_function(
        "n => document.querySelectorAll('.mars-turn').length === n && "
        "!document.querySelector('[data-done=false]')",
        arg=turns,
    )


def test_a_conversation_with_a_picture_and_html(page, site, subject, tmp_path):
    from PIL import Image

    Image.new("RGB", (32, 32), "steelblue").save(tmp_path / "a.png")
    nasty = "how <img src=x onerror=document.title='hacked'> ${1+1} {{ 1+1 }}"
    ask(page, nasty, [tmp_path / "a.png"])
    finished(page, 1)
    turn = page.locator(".mars-turn")
    assert turn.locator(".mars-asked p").inner_text() == nasty
    assert page.title() != "hacked"
    for words in ("Steering off", "Steering on", "Gate", "Margin", "Push", "picture"):
        assert words in turn.inner_text()
    assert turn.locator("circle").count() == sum(
        len(cloud)
        for clouds in [subject.scale.clouds["image"]]
        for cloud in (clouds.harmless, clouds.harmful)
    )
    assert not [path for path in site[1].rglob("*.png") if path.is_file()], "not kept"
    ask(page, "explain good2")
    finished(page, 2)
    page.get_by_role("button", name="New conversation").click()
    finished(page, 0)


def test_a_broken_file_is_one_line_and_the_words_stay(page, tmp_path):
    (tmp_path / "b.png").write_text("no picture")
    ask(page, "what is this", [tmp_path / "b.png"])
    notice = page.wait_for_selector(".mars-notice")
    assert "b.png: not a readable picture" in notice.inner_text()
    assert page.locator("textarea").input_value() == "what is this"
    assert page.locator(".mars-turn").count() == 0


def test_other_hosts_are_refused_and_the_policy_is_told(site):
    import urllib.error
    import urllib.request

    with urllib.request.urlopen(site[0]) as answer:
        policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'")
    other = urllib.request.Request(site[0], headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(other)
