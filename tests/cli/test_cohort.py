"""``cardiacreg refine PATIENT_FOLDER`` and ``cardiacreg cohort`` from outside."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from cardiacreg.cli.app import main
from tests.helpers.cohorts import QUICK, write_cohort, write_patient


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def quick(tiny_files):
    return ("--atlases", tiny_files.atlases, *QUICK)


class TestRefineAFolder:
    def test_writes_a_folder_for_the_patient(self, quick, tmp_path):
        folder = write_patient(tmp_path / "somebody")
        shown = run("refine", folder, "-o", tmp_path / "out", *quick)
        assert shown.exit_code in (0, 3), shown.output
        assert "ED: labels ED.nii.gz" in shown.stderr and "EF" in shown.stdout
        held = {path.name for path in (tmp_path / "out" / "somebody").iterdir()}
        assert held == {"ED", "ES", "measures.csv", "measures_units.json", "patient.json"}
        again = run("refine", folder, "-o", tmp_path / "out", *quick)
        assert again.exit_code == 1 and "OUTPUT_EXISTS" in again.stderr

    def test_writes_a_page_of_both_phases(self, quick, tmp_path):
        folder = write_patient(tmp_path / "somebody")
        shown = run("refine", folder, "-o", tmp_path / "out", *quick, "--report")
        assert shown.exit_code in (0, 3), shown.output
        place = tmp_path / "out" / "somebody" / "report.html"
        assert f"look at {place}" in shown.stderr.replace("\n", "")
        page = place.read_text(encoding="utf-8")
        assert "End-diastole" in page and "End-systole" in page and "<h1>somebody" in page
        titles = [line for line in shown.stderr.splitlines() if "] E" in line]
        assert any("] ED: registering" in line for line in titles)
        assert any("] ES: comparing" in line and "[100 %," not in line for line in titles)

    def test_tells_json(self, quick, tmp_path):
        folder = write_patient(tmp_path / "one", phases=("ED",))
        shown = run("refine", folder, "-o", tmp_path / "out", *quick, "-q", "--json")
        found = json.loads(shown.stdout)
        assert found["subject"] == "one" and found["measures"]["LVEDV (mL)"] > 10

    @pytest.mark.parametrize(
        "wrong", [("--frame", "1"), ("--image", "i.nii"), ("--other-frame", "x"), ("--frames", "all"),
                  ("--surface",), ("--surfaces", "stl"), ("--landmarks", "l.json"), ("-i", "s.nii")]
    )  # fmt: skip
    def test_wrong_usage(self, tmp_path, wrong):
        folder = write_patient(tmp_path / "one", phases=("ED",))
        assert run("refine", folder, "-o", tmp_path / "out", *wrong).exit_code == 2

    def test_one_of_both_is_needed(self, tmp_path):
        shown = run("refine", "-o", tmp_path / "out")
        assert shown.exit_code == 2 and "PATIENT_FOLDER" in shown.output

    def test_a_folder_without_a_patient(self, tmp_path):
        shown = run("refine", tmp_path, "-o", tmp_path / "out")
        assert shown.exit_code == 1 and "NO_PATIENT" in shown.stderr


class TestCohort:
    def test_is_refined_and_told(self, quick, tmp_path):
        cohort, out = write_cohort(tmp_path / "cohort", 2), tmp_path / "out"
        shown = run("cohort", cohort, "-o", out, "--shard", "1/1", *quick)
        assert shown.exit_code == 3, shown.output
        assert "failed [NOT_NIFTI] p1" in shown.stderr and "1 done, 1 failed" in shown.stdout
        again = run(
            "cohort", "-o", out, "--shard", "1/1", *quick, "--json", "-q", "--accept-failed", cohort
        )
        assert again.exit_code == 0, again.output
        assert json.loads(again.stdout)["counts"] == {"skipped": 1, "failed": 1}
        state = run("cohort", "status", out, "--page")
        page = (out / "cohort.html").read_text(encoding="utf-8")
        assert "patients/p0/ED/qc.png" in page
        assert state.exit_code == 0 and "1 done, 1 failed" in state.stdout
        assert "failed [NOT_NIFTI] p1" in state.stdout and (out / "cohort.csv").exists()
        found = json.loads(run("cohort", "status", out, "--json").stdout)
        assert found["counts"] == {"done": 1, "failed": 1, "missing": 0}

    @pytest.mark.parametrize(
        "wrong", [("--shard", "0/2"), ("--shard", "3/2"), ("--shard", "x"), ("--time-limit", "0"),
                  ("--surfaces", "step"), ("--workers", "0"), ("--workers", "1", "--shard", "1/2")]
    )  # fmt: skip
    def test_wrong_usage(self, tmp_path, wrong):
        assert run("cohort", tmp_path, "-o", tmp_path / "out", *wrong).exit_code == 2

    def test_messages_speak_of_options(self, tmp_path):
        assert "NO_COHORT" in run("cohort", "status", tmp_path).stderr
        assert run("cohort", "status", tmp_path, tmp_path).exit_code == 2
        assert (
            run("cohort", tmp_path / "m.csv", "-o", tmp_path / "o", "--shard", "1/1").exit_code == 1
        )

    def test_help(self):
        assert "status" in run("cohort", "--help").stdout
        assert "--shard" in run("cohort", "run", "--help").stdout
