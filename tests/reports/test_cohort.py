"""The report of a cohort: verdicts, outliers, links; and in a browser, sorting and filtering."""

import csv
import json
import re
from html import unescape

import numpy as np
import pytest

import cardiacreg
from cardiacreg.errors import InvalidInputError
from cardiacreg.reports.cohort import outliers, verdict_of_row


def rows(count=12):
    """Patients of a table: one failed, one unusual, one to look at."""
    found = [
        {
            "subject": f"P{n:03d}", "state": "done", "code": "", "message": "", "findings": "",
            "folder": f"patients/P{n:03d}", "attempts": 1, "LVEF (%)": 55 + n % 4,
            "LVEDV (mL)": 130 + 3 * (n % 5), "quality score": round(0.8 - 0.01 * n, 2),
        }
        for n in range(count)
    ]  # fmt: skip
    found[3]["findings"] = "VOLUME_DIFFERS BEYOND_ENDS"
    found[5] |= {"state": "failed", "code": "WRONG_PRESET", "message": "labels <b>differ</b>"}
    found[5]["LVEF (%)"] = found[5]["LVEDV (mL)"] = ""
    found[7]["LVEDV (mL)"] = 400
    found[3]["quality score"], found[5]["quality score"], found[9]["quality score"] = 0.31, "", 1.0
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    table = folder / "cohort.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows()[0].keys())
        writer.writeheader()
        writer.writerows(rows())
    place = folder / "patients/P001"
    place.mkdir(parents=True)
    (place / "report.html").write_text("<p>P001</p>")
    (place / "qc.png").write_bytes(b"not drawn here")
    return cardiacreg.write_cohort_report(table, folder / "pages/cohort.html", title="Study A")


def shown(page):
    """Subjects in the order of the table, with their verdicts."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r'<tr data-verdict="(\w+)"[^>]*>\s*<th scope="row">(.*?)</th>', text)
    return {re.sub("<[^>]*>", "", subject): verdict for verdict, subject in found}


def test_what_is_about_the_run_comes_after_the_heart_and_has_no_distribution(tmp_path):
    table = [
        {
            "subject": n,
            "warnings": 0,
            "seconds": 3.0 + k,
            "agreement LV wall": 0.9,
            "LVEF (%)": 50 + k,
        }
        for k, n in enumerate("abcd")
    ]
    text = cardiacreg.write_cohort_report(table, tmp_path / "p.html").read_text(encoding="utf-8")
    heads = re.findall(r'data-kind="number">([^<]+)</button>', unescape(text))
    assert heads == ["Verdict", "LVEF (%)", "warnings", "seconds", "agreement LV wall"]
    (words,) = re.findall(r'alt="Histograms\. ([^"]+)"', text)
    assert "LVEF" in words and "agreement" in words and "seconds" not in words


def test_a_report_of_the_patient_is_linked_from_the_folder_of_a_frame(tmp_path):
    (tmp_path / "P1/ED").mkdir(parents=True)
    (tmp_path / "P1/report.html").write_text("<p>P1</p>")
    row = {"subject": "P1", "folder": str(tmp_path / "P1/ED"), "LVEF (%)": 60}
    text = cardiacreg.write_cohort_report([row], tmp_path / "p.html").read_text(encoding="utf-8")
    (link,) = re.findall(r'href="([^"]*report.html)"', text)
    assert (tmp_path / link).read_text() == "<p>P1</p>"


def test_the_worst_come_first(page):
    order = list(shown(page).items())
    assert order[:2] == [("P005", "reject"), ("P003", "look")]
    assert len(order) == 12 and {word for _, word in order[2:]} == {"accept"}


def test_measures_are_the_columns_of_numbers(page):
    text = unescape(page.read_text(encoding="utf-8"))
    assert re.findall(r'data-kind="number">([^<]+)</button>', text) == [
        "Verdict", "quality score", "LVEF (%)", "LVEDV (mL)"
    ]  # fmt: skip
    assert re.findall(r'class="outside" data-value="([\d.]+)"', text) == ["0.31", "400.0"]
    assert "labels <b>differ" in text


def test_a_column_has_the_same_decimals_in_every_row(tmp_path):
    table = [
        {"subject": str(n), "count": n, "share": n / 9, "LVEDV (mL)": 50.25 * n} for n in range(3)
    ]
    text = cardiacreg.write_cohort_report(table, tmp_path / "c.html").read_text(encoding="utf-8")
    cells = re.findall(r'<td data-value="[^"]+">([^<]+)</td>', text)
    assert cells == ["0", "0.000", "0.0", "1", "0.111", "50.2", "2", "0.222", "100.5"]


def test_scores_have_their_distribution(page):
    text = unescape(page.read_text(encoding="utf-8"))
    assert "quality score: median 0.74, 0.31 to 1" in text


def test_text_of_the_table_is_no_markup(page):
    assert "<b>differ" not in page.read_text(encoding="utf-8")


def test_patients_are_linked_from_where_the_page_lies(page):
    text = page.read_text(encoding="utf-8")
    assert 'href="../patients/P001/report.html"' in text
    assert 'src="../patients/P001/qc.png"' in text and "P002/" not in text


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        ({}, "accept"), ({"state": "done"}, "accept"), ({"state": "unfinished"}, "look"),
        ({"state": "failed"}, "reject"), ({"findings": "LOW_AGREEMENT"}, "look"),
        ({"findings": "LOW_AGREEMENT,FAILED_AGREEMENT"}, "reject"),
        ({"verdict": "look", "state": "failed"}, "look"),
    ],
)  # fmt: skip
def test_verdicts_of_rows(row, verdict):
    assert verdict_of_row(row) == verdict


def test_outliers():
    values = np.array([10.0, 11, 9, 10, np.nan, 12, 8, 10, 30, 10])
    assert outliers(values).nonzero()[0].tolist() == [8]
    assert not outliers(values[:7]).any()
    assert not outliers(np.full(20, 5.0)).any()


def test_rows_may_be_json_or_in_memory(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps({"patients": rows()}))
    first = cardiacreg.write_cohort_report(tmp_path / "t.json", tmp_path / "a.html")
    second = cardiacreg.write_cohort_report(rows(), tmp_path / "b.html")
    assert shown(first) == shown(second)


@pytest.mark.parametrize(
    ("name", "content"),
    [("t.csv", "name,LVEF\nA,3\n"), ("t.csv", ""), ("t.json", "{"), ("t.json", "[1]")],
)
def test_another_table_is_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidInputError) as caught:
        cardiacreg.write_cohort_report(tmp_path / name, tmp_path / "page.html")
    assert caught.value.code == "BAD_TABLE"


def test_hundreds_of_patients_make_a_small_page(tmp_path):
    path = cardiacreg.write_cohort_report(rows(600), tmp_path / "many.html")
    assert path.stat().st_size < 2_000_000 and len(shown(path)) == 600


class TestInChromium:
    @pytest.fixture
    def opened(self, browser, page):
        browser.get("about:blank")
        browser.get(page.as_uri())
        return browser

    def subjects(self, browser):
        return browser.execute_script(
            "return Array.from(document.querySelectorAll('#cohort tbody tr'))"
            ".filter(row => !row.hidden).map(row => row.cells[0].textContent.trim())"
        )

    def heads(self, browser):
        return {
            head.text.rstrip(" ↕↑↓"): head
            for head in browser.find_elements("css selector", "thead button")
        }

    def test_a_click_sorts_and_another_turns_round(self, opened):
        head = self.heads(opened)["LVEDV (mL)"]
        head.click()
        upwards = self.subjects(opened)
        assert upwards[0] in ("P000", "P010") and upwards[-2:] == ["P007", "P005"]
        head.click()
        assert self.subjects(opened)[0] == "P007" and self.subjects(opened)[-1] == "P005"
        cell = head.find_element("xpath", "..")
        assert cell.get_attribute("aria-sort") == "descending"

    def test_the_lowest_scores_come_first(self, opened):
        head = self.heads(opened)["quality score"]
        head.click()
        assert self.subjects(opened)[:2] == ["P003", "P011"]
        assert self.subjects(opened)[-2:] == ["P009", "P005"]

    @pytest.mark.parametrize("width", [1280, 400])
    def test_nothing_is_wider_than_the_screen(self, opened, width):
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        try:
            wide = opened.execute_script("return document.documentElement.scrollWidth")
            table = opened.find_element("css selector", "[aria-label='Table of patients']")
            assert wide <= width
            assert opened.execute_script("return arguments[0].clientWidth", table) <= width
        finally:
            opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def test_text_and_keyboard_sort_too(self, opened):
        from selenium.webdriver.common.keys import Keys

        self.heads(opened)["Subject"].send_keys(Keys.ENTER)
        assert self.subjects(opened) == [f"P{n:03d}" for n in range(12)]

    def test_filters(self, opened):
        opened.find_element("id", "search").send_keys("beyond")
        assert self.subjects(opened) == ["P003"]
        opened.find_element("id", "search").clear()
        opened.find_element("id", "outliers").click()
        opened.find_element("id", "search").send_keys("p")
        assert self.subjects(opened) == ["P003", "P007"]
        assert opened.find_element("id", "shown").text == "2 of 12 shown"
