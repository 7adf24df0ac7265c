"""The site is built without a warning, opens from disk, and shows every page, name and command.

The scripts of the gallery are run by `test_gallery.py`; here their pages are made without running them.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cardiacreg

ROOT = Path(__file__).parents[2]
MADE = shutil.ignore_patterns("_build", "_drawings", "gallery", "reference", "__pycache__")
TAKEN = ("docs", "README.md", "CHANGELOG.md", "CONTRIBUTING.md")
FETCHED = re.compile(
    r"<(?:script|img|iframe|source)[^>]+src=\"(?:https?:)?//|@import|url\(\"?https?://"
)
FETCHED_LINK = re.compile(
    r"<link[^>]+rel=\"(?:stylesheet|preload|preconnect|icon)\"[^>]+href=\"(?:https?:)?//"
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; sources are copied, so that nothing is written into the checkout."""
    for name in (
        "sphinx",
        "furo",
        "myst_parser",
        "numpydoc",
        "sphinx_gallery",
        "sphinx_copybutton",
    ):
        pytest.importorskip(name, reason="the extra `docs` is not installed")
    folder = tmp_path_factory.mktemp("site")
    for name in TAKEN:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name, **({"ignore": MADE} if (ROOT / name).is_dir() else {}))
    shutil.copytree(ROOT / "examples", folder / "examples")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    settings = ["-D", "plot_gallery=0", "docs", "html"]
    done = subprocess.run(
        [*command, *settings],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return folder / "html"


def pages(site):
    return {
        path.relative_to(site): path.read_text(encoding="utf-8") for path in site.rglob("*.html")
    }


def test_every_document_is_a_page_that_the_contents_lead_to(site):
    menu = (site / "index.html").read_text(encoding="utf-8")
    documents = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    wanted = {path.with_suffix(".html") for path in documents if path.parts[0] not in ("_build",)}
    assert len(wanted) > 40 and wanted <= set(pages(site))
    for path in wanted:
        if path.parts[0] != "studies" and path.name != "index.html":
            assert f'href="{path.as_posix()}"' in menu, path
    studies = (site / "studies.html").read_text(encoding="utf-8")
    for path in (ROOT / "docs" / "studies").glob("*.md"):
        assert f'href="studies/{path.stem}.html"' in studies, path


def test_nothing_is_fetched_from_a_network(site):
    for path, text in pages(site).items():
        assert not FETCHED.search(text), path
        assert not FETCHED_LINK.search(text), path
    for style in site.rglob("*.css"):
        assert not FETCHED.search(style.read_text(encoding="utf-8")), style


def test_every_link_and_picture_is_there(site):
    for path, text in pages(site).items():
        for target in re.findall(r"(?:href|src)=\"([^\"#?]+)", text):
            if not re.match(r"\w+:|//", target):
                assert (site / path.parent / target).exists(), f"{path}: {target}"


def test_every_public_name_has_its_entry(site):
    text = "".join(text for path, text in pages(site).items() if path.parts[0] == "reference")
    for name in cardiacreg.__all__:
        assert f'id="cardiacreg.{name}"' in text, name


def test_every_command_shows_its_help(site):
    from cardiacreg.cli.app import main

    text = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    for name in main.commands:
        assert f"Usage: cardiacreg {name}" in text, name


def test_drawings_are_made_and_described(site):
    drawn = sorted((site / "_images").glob("*.svg"))
    names = {path.stem for path in drawn}
    assert {"frames", "slice_motion", "ends", "what_can_be_known", "raw_and_aligned"} <= names
    for path, text in pages(site).items():
        for picture in re.findall(r"<img[^>]*>", text):
            assert re.search(r'alt="[^"]', picture) or "_thumb.png" in picture, f"{path}: {picture}"


def test_the_gallery_has_a_page_for_every_script(site):
    scripts = sorted((ROOT / "examples" / "gallery").glob("*.py"))
    assert len(scripts) >= 7
    for script in scripts:
        assert (site / "gallery" / f"{script.stem}.html").is_file(), script


class TestInChromium:
    @pytest.mark.parametrize(
        "page", ["index", "usage", "concepts/ends", "reference/refinement", "studies/views"]
    )
    def test_opens_from_disk_without_complaints_and_fits_a_phone(self, site, browser, page):
        browser.set_window_size(420, 900)
        browser.get_log("browser")  # what earlier pages left
        browser.get((site / f"{page}.html").as_uri())
        widths = "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
        held, shown = browser.execute_script(widths)
        assert held <= shown
        loaded = "return [...document.images].every(each => each.complete && each.naturalWidth > 0)"
        assert browser.execute_script(loaded)
        assert not browser.get_log("browser")

    def test_is_searched_from_disk(self, site, browser):
        from selenium.webdriver.common.by import By
        from selenium.webdriver.support.ui import WebDriverWait

        browser.set_window_size(1200, 900)
        browser.get((site / "search.html").as_uri() + "?q=bullseye")
        found = WebDriverWait(browser, 60).until(
            lambda page: page.find_elements(By.CSS_SELECTOR, "#search-results li a")
        )
        assert any("reference/measures" in each.get_attribute("href") for each in found)
