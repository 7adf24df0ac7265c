"""Reports and surfaces of a cohort: by real processes, of a cine, and on the cohort's page."""

import json
import os
import sys
from dataclasses import replace

import pytest

from cardiacreg import InvalidInputError, cohort_status
from cardiacreg.cohort.extras import checked_formats
from cardiacreg.cohort.status import read_status
from cardiacreg.cohort.task import DONE, SKIPPED, Task
from cardiacreg.cohort.work import carry_out
from cardiacreg.io.nifti import write_label_frames
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.reports.cohort import write_cohort_report
from tests.helpers.cohorts import settings, start_cohort, statuses, write_cohort

DEATH_IN_THE_REPORT = """
import os, signal, sys

def die(event, arguments):
    if event == "open" and str(arguments[0]).endswith("patient.html.jinja"):
        with open(os.environ["DEATHS"], "a") as told:
            told.write(f"{os.getpid()}\\n")
        os.kill(os.getpid(), signal.SIGKILL)

if "patient_process" in " ".join(sys.orig_argv):
    sys.addaudithook(die)
"""


def ended(driver):
    """What a driver said, and how it ended."""
    said, _ = driver.communicate(timeout=200)
    return said, driver.returncode


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
class TestProcesses:
    @pytest.mark.parametrize("how", [("--shard", "1/1"), ("--workers", "1")])
    def test_reports_and_surfaces_are_written_and_linked(self, tmp_path, tiny_files, how):
        cohort, output = write_cohort(tmp_path / "cohort", 2), tmp_path / "out"
        extras = ("--report", "--surfaces", "stl")
        said, code = ended(start_cohort(cohort, output, tiny_files.atlases, *how, *extras))
        assert code == 3 and "failed [NOT_NIFTI] p1" in said and "--page" in said, said
        assert statuses(output) == ["p0", "p1"]
        status = cohort_status(output, tables=output)
        page = write_cohort_report(status.tables[0], output / "cohort.html").read_text("utf-8")
        assert 'href="patients/p0/report.html"' in page
        assert (output / "patients/p0/report.html").stat().st_size > 20_000
        assert (output / "patients/p0/ED/LV_ENDO.stl").stat().st_size > 1000
        marker = json.loads((output / "cohort.json").read_text())["settings"]
        assert (marker["report"], marker["surfaces"]) == (True, ["stl"])

    def test_a_report_that_kills_its_process_loses_no_model(self, tmp_path, tiny_files):
        (tmp_path / "sitecustomize.py").write_text(DEATH_IN_THE_REPORT)
        cohort, output, deaths = tmp_path / "cohort", tmp_path / "out", tmp_path / "deaths"
        write_cohort(cohort, 1)
        ways = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
                "DEATHS": str(deaths)}  # fmt: skip
        how = (cohort, output, tiny_files.atlases, "--shard", "1/1", "--report")
        said, code = ended(start_cohort(*how, environment=ways))
        assert code == 0 and "REPORT_FAILED" in said and "SIGKILL" in said, said
        assert len(set(deaths.read_text().split())) == 2
        found = read_status(output / "patients/p0")
        assert found["state"] == DONE and "REPORT_FAILED" in found["findings"]
        assert (output / "patients/p0/ED/labels.nii.gz").is_file()
        said, code = ended(start_cohort(*how, "--json", "-q"))
        assert code == 0 and json.loads(said)["counts"] == {"done": 1}, said
        again = read_status(output / "patients/p0")
        assert again["outputs_sha256"] == found["outputs_sha256"]
        assert "REPORT_FAILED" not in again["findings"] and "report.html" in again["extras_sha256"]


@pytest.mark.filterwarnings("ignore::cardiacreg.errors.InputWarning")
def test_of_a_cine_its_page_and_surfaces_of_both_phases(tmp_path, tiny_files):
    hearts = [make_toy_heart(size=size).labels for size in (1.0, 0.95, 0.9)]
    write_label_frames(tmp_path / "cine.nii.gz", hearts)
    row = {"subject": "c", "labels": str(tmp_path / "cine.nii.gz"), "frames": "all"}
    how = settings(tmp_path / "out", tiny_files.atlases, report=True, surfaces=("ply",))
    task = Task("c", row, how)
    outcome = carry_out(task)
    assert (outcome.state, outcome.message) == (DONE, "")
    text = (task.folder / "report.html").read_text(encoding="utf-8")
    assert "<h1>c" in text and "slices are left out" not in text
    assert {f"{phase}/LV_ENDO.ply" for phase in ("ED", "ES")} <= set(
        read_status(task.folder)["extras_sha256"]
    )
    sizes = [len((task.folder / phase / "EPI.ply").read_bytes()) for phase in ("ED", "ES")]
    assert sizes[0] != sizes[1] and carry_out(task).state == SKIPPED
    frames = {**row, "frames": "ED,ES"}
    plain = replace(how, report=False, surfaces=())
    assert carry_out(replace(task, row=frames, settings=plain)).state == DONE
    assert not list(task.folder.rglob("*.ply")) and not (task.folder / "report.html").exists()


@pytest.mark.parametrize("formats", ["step", ["vtp", "step"], [1]])
def test_unknown_formats_are_refused(formats):
    with pytest.raises(InvalidInputError, match="--surfaces"):
        checked_formats(formats)
