"""The report of a demo: what it says in its file and, where there is a browser, what a reader sees."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

from cardiacreg.cli import demo
from cardiacreg.cli.app import main
from cardiacreg.io import nifti
from cardiacreg.phantoms.acquisition import Degradation
from cardiacreg.phantoms.hearts import sample_heart
from cardiacreg.reports.beside_truth import METHODS, best_cells

HEADINGS = [
    "Assumptions and warnings", "Beside the truth", "Before and after", "Surfaces in 3D",
    "Volumes, input against model", "Slice shifts", "Measures", "Atlases", "Now your data",
    "How it was made",
]  # fmt: skip
PICTURES = 12
WIDTHS = (1280, 400)
DIGITS = {"dice": 3, "volume_error_ml": 1}


def coarse(seed):
    return sample_heart(seed, spacing_mm=(3, 3, 4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A demo of a coarse heart with two coarse atlases."""
    place = tmp_path_factory.mktemp("demo")
    for seed in range(2):
        atlas = place / "atlases" / str(seed)
        atlas.mkdir(parents=True)
        nifti.write_labels(atlas / "labels.nii.gz", coarse(seed).labels)
        nifti.write_volume(atlas / "image.nii.gz", coarse(seed).image)
    heart = coarse(10_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "_simulated", lambda: (heart, Degradation().of(heart, seed=10_002)))
        words = ("demo", "-o", place / "out", "--atlases", place / "atlases", "--spacing", 3, 3, 4)
        done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert "VOLUME_DIFFERS" not in done.output.partition("as published")[2]
    return place / "out"


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def measures(folder):
    return json.loads((folder / "measures.json").read_text(encoding="utf-8"))


def test_files(folder):
    assert {path.name for path in folder.iterdir()} == {
        "inputs", "refined", "as_published", "measures.json", "report.html",
    }  # fmt: skip
    done = CliRunner().invoke(main, ["demo", "-o", str(folder)])
    assert done.exit_code == 1 and "OUTPUT_EXISTS" in done.stderr


def test_the_page_needs_nothing_else(page):
    outside = re.sub(r'srcdoc="[^"]*"', "", page)
    sources = re.findall(r"(?:\bsrc|href)=['\"]([^'\"]{0,30})", outside)
    assert len(sources) > PICTURES
    assert all(source.startswith(("data:", "#")) for source in sources)


def test_every_picture_has_a_sentence(page):
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert len(captions) == page.count("<img") == PICTURES
    assert all(caption.endswith(".") for caption in captions)


def test_the_page_ends_with_what_to_do_next(page):
    last = page.partition("<h2>Now your data</h2>")[2]
    assert "cardiacreg refine -i seg.nii.gz -o out --preset acdc --report" in last
    assert "cardiacreg.refine(" in last
    for preset in ("acdc", "mms", "sslln", "totalsegmentator"):
        assert f"<code>{preset}</code>" in last


def test_times_are_without_compilation(page):
    seconds = float(re.search(r"The refinement took <b>([\d.]+) s</b>", page)[1])
    assert seconds > 0 and "is not in it" in page


def figures(**values):
    return {method: {"LV wall": {"dice": v, "error": v}} for method, v in values.items()}


def test_the_best_is_the_largest_overlap_and_the_smallest_distance():
    assert best_cells(figures(a=0.9, b=0.95001, c=0.95), "LV wall", "dice", 3) == {"0.950"}
    assert best_cells(figures(a=-2.0, b=0.5, c=-0.5), "LV wall", "error", 1) == {"0.5", "-0.5"}
    assert best_cells(figures(a=None), "LV wall", "error", 1) == set()


@pytest.fixture
def opened(browser, folder):
    browser.get((folder / "report.html").as_uri())
    return browser


def at_width(browser, width):
    """Show the page as on a screen of some width, in CSS pixels."""
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    assert browser.execute_script("return window.innerWidth") == width


def texts(browser, selector):
    return [found.text for found in browser.find_elements("css selector", selector)]


class TestInChromium:
    def test_no_error_is_on_the_console(self, opened):
        assert [line for line in opened.get_log("browser") if line["level"] != "INFO"] == []

    def test_headings(self, opened):
        assert opened.title == "cardiacreg demo" and texts(opened, "h1") == ["cardiacreg demo"]
        assert texts(opened, "h2") == HEADINGS

    def test_every_picture_is_drawn_and_described(self, opened):
        pictures = opened.find_elements("css selector", "img")
        assert len(pictures) == PICTURES
        for picture in pictures:
            assert opened.execute_script("return arguments[0].naturalWidth", picture) > 0
            assert picture.size["width"] > 0 and picture.get_attribute("alt")

    def test_tables_hold_the_measured_numbers(self, opened, measures):
        tables = opened.find_elements("css selector", "table[data-measure]")
        assert len(tables) == 6
        for table in tables:
            key = table.get_attribute("data-measure")
            head, *rows = table.find_elements("css selector", "tr")
            structures = [cell.text for cell in head.find_elements("css selector", "th")][1:]
            assert [row.get_attribute("data-method") for row in rows] == list(METHODS)
            for row in rows:
                cells = [cell.text for cell in row.find_elements("css selector", "th, td")]
                of_method = measures[row.get_attribute("data-method")]
                expected = [of_method[name][key] for name in structures]
                assert cells[0] == METHODS[row.get_attribute("data-method")]
                np.testing.assert_allclose(
                    [float(cell) for cell in cells[1:]], expected,
                    atol=0.5001 * 10.0 ** -DIGITS.get(key, 2),
                )  # fmt: skip
            assert len(table.find_elements("css selector", "strong")) >= len(structures)

    @pytest.mark.parametrize("width", WIDTHS)
    def test_nothing_is_wider_than_the_screen(self, opened, width):
        at_width(opened, width)
        sizes = (
            "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        wide, seen = opened.execute_script(sizes)
        assert wide <= seen <= width
