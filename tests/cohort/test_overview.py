"""The state of a cohort is told from its statuses, as tables."""

import csv
import json
import os
import sys
from pathlib import Path

import pytest

from cardiacreg import InvalidInputError, cohort_status
from cardiacreg.cohort.overview import COLUMNS


def write_status(output, subject, state="done", **more):
    folder = output / "patients" / subject
    folder.mkdir(parents=True)
    status = {
        "schema_version": 1, "subject": subject, "state": state, "code": "", "message": "",
        "made_from": {"cardiacreg": "0.1.0", "options_sha256": "abc"}, "attempts": 1,
    } | more  # fmt: skip
    (folder / "status.json").write_text(json.dumps(status))


@pytest.fixture
def output(tmp_path):
    place = tmp_path / "out"
    done = {
        "findings": ["LOW_AGREEMENT"], "verdict": "look", "quality_score": 0.4375,
        "processor_seconds": 7.0, "frames": ["ED", "ES"],
        "agreement_dice": {"LV cavity": 0.9}, "measures": {"LVEDV (mL)": 101.5, "WT": None},
    }  # fmt: skip
    write_status(place, "a", **done)
    write_status(place, "b", "failed", code="EMPTY_LABELS", message="no\nlabels, at all")
    (place / "patients" / "c").mkdir()
    (place / "patients" / "d").mkdir()
    (place / "patients" / "d" / "status.json").write_text("{")
    (place / "cohort.json").write_text('{"patients": 9}')
    return place


def rows(place):
    return list(csv.DictReader(place.read_text(encoding="utf-8").splitlines()))


class TestOneFolder:
    def test_is_counted(self, output):
        found = cohort_status(output)
        assert found.counts == {"done": 1, "failed": 1, "unfinished": 2} and found.n_missing == 5
        assert found.codes == {"EMPTY_LABELS": 1} and found.findings == {"LOW_AGREEMENT": 1}
        assert found.processor_seconds == 7.0 and found.tables == ()
        assert found.failed == [("b", "EMPTY_LABELS", "no\nlabels, at all")]

    def test_becomes_tables(self, output):
        for _ in range(2):
            cohort_status(output, tables=output)
        table = {row["subject"]: row for row in rows(output / "cohort.csv")}
        assert list(table) == ["a", "b", "c", "d"] and tuple(table["a"]) == COLUMNS
        assert table["a"]["LVEDV (mL)"] == "101.5" and table["a"]["agreement LV cavity"] == "0.9"
        assert (table["a"]["verdict"], table["a"]["quality score"]) == ("look", "0.4375")
        assert (table["b"]["verdict"], table["b"]["quality score"]) == ("", "")
        assert table["a"]["frames"] == "ED ES" and table["b"]["message"] == "no labels, at all"
        assert (table["c"]["state"], table["c"]["message"]) == ("unfinished", "")
        assert "damaged" in table["d"]["message"]
        assert rows(output / "measures.csv") == [{"subject": "a", "LVEDV (mL)": "101.5", "WT": ""}]
        assert json.loads((output / "summary.json").read_text())["counts"]["missing"] == 5

    def test_is_the_same_in_parquet(self, output):
        parquet = pytest.importorskip("pyarrow.parquet")
        cohort_status(output, tables=output)
        found = parquet.read_table(output / "cohort.parquet").to_pylist()
        assert [row["subject"] for row in found] == ["a", "b", "c", "d"]
        assert found[0]["LVEDV (mL)"] == 101.5 and found[1]["LVEDV (mL)"] is None


class TestDamagedStatuses:
    @pytest.mark.parametrize(
        "field",
        ["code", "message", "computer", "ended", "attempts", "warnings", "seconds",
         "processor_seconds", "verdict", "quality_score", "process_peak_memory_mib", "frames",
         "findings", "agreement_dice",
         "measures", "made_from"],
    )  # fmt: skip
    @pytest.mark.parametrize("value", [[[1]], {"cardiacreg": []}, "\udcff", "a\0b"])
    def test_are_named_and_disturb_no_other(self, output, field, value):
        write_status(output, "e", **{field: value})
        found = cohort_status(output, tables=output)
        assert found.counts == {"done": 1, "failed": 1, "unfinished": 3}
        table = {row["subject"]: row for row in rows(output / "cohort.csv")}
        assert "damaged" in table["e"]["message"] and table["a"]["state"] == "done"

    @pytest.mark.parametrize("value", ["5", "true", "NaN", "1e400", "1" + "0" * 400])
    def test_hold_numbers_that_are_none(self, output, value):
        write_status(output, "e", measures={"LVEF (%)": 61.0})
        place = output / "patients/e/status.json"
        place.write_text(place.read_text().replace("61.0", value))
        found = cohort_status(output, tables=output)
        assert found.counts["done"] == (2 if value == "5" else 1)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are text")
def test_a_name_that_is_no_text_is_escaped(output, tmp_path):
    place = Path(os.fsdecode(bytes(tmp_path) + b"/\xff"))
    output.rename(place)
    cohort_status(place, tables=place)
    folders = {row["subject"]: row["folder"] for row in rows(place / "cohort.csv")}
    assert folders["b"].endswith("\\udcff/patients/b")


def test_several_folders_are_merged(output, tmp_path):
    other = tmp_path / "other"
    write_status(other, "b")
    write_status(other, "e")
    (other / "cohort.json").write_text('{"patients": 9}')
    found = cohort_status(output, other, tables=tmp_path / "tables")
    assert found.counts == {"done": 3, "unfinished": 2} and found.n_missing == 4
    folders = {row["subject"]: row["folder"] for row in rows(tmp_path / "tables" / "cohort.csv")}
    assert folders["b"] == str(other / "patients" / "b")


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(InvalidInputError) as told:
        cohort_status(tmp_path)
    assert told.value.code == "NO_COHORT"
