"""What is complete and unchanged is skipped, everything else is done again, and nothing is lost."""

import errno
import json
import os
from dataclasses import replace

import pytest

from cardiacreg.cohort import status, work
from cardiacreg.cohort.claims import LOCK, claimed
from cardiacreg.cohort.task import BUSY, DONE, FAILED, SKIPPED, Task
from cardiacreg.cohort.work import carry_out, record_lost
from tests.helpers.cohorts import settings, write_patient


@pytest.fixture
def task(tiny_files, tmp_path):
    """A patient whose refinement, measured once per session, is only copied here."""
    folder = write_patient(tmp_path / "data" / "p", phases=("ED",))
    row = {"subject": "p", "labels": str(folder)}
    return Task("p", row, settings(tmp_path / "out", tiny_files.atlases))


@pytest.fixture(scope="module")
def result(tiny_files, tmp_path_factory):
    import warnings

    from cardiacreg import refine_patient
    from tests.helpers.cohorts import SPACING_MM, quick_options

    folder = write_patient(tmp_path_factory.mktemp("data") / "p", phases=("ED",))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return refine_patient(
            folder, atlases=tiny_files.atlases, spacing_mm=SPACING_MM, options=quick_options()
        )


@pytest.fixture
def quick(monkeypatch, result):
    """Every refinement gives the same result at once; how often is counted."""
    calls = []

    def refined(patient, **how):
        calls.append(how)
        return replace(result, patient=patient)

    from cardiacreg.cohort import _refine_patient
    from cardiacreg.results import qc_figure

    monkeypatch.setattr(_refine_patient, "refine_patient", refined)
    monkeypatch.setattr(qc_figure, "draw_qc_figure", lambda result: None)
    monkeypatch.setattr(qc_figure, "png_bytes", lambda figure: b"a figure")
    return calls


def names_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_patient_is_refined_for_real(task):
    outcome = carry_out(task)
    assert (outcome.state, outcome.code) == (DONE, "")
    found = status.read_status(task.folder)
    assert found["agreement_dice"]["LV cavity"] > 0.9 and found["measures"]["LVEDV (mL)"] > 10
    assert found["verdict"] in ("accept", "look") and 0 < found["quality_score"] < 1
    assert found["processor_seconds"] > 0 and found["versions"]["numpy"]
    assert set(found["outputs_sha256"]) == names_in(task.folder) - {"status.json"}
    assert found["made_from"]["inputs_sha256"].keys() == {"ED labels", "patient.csv"}
    assert carry_out(task).state == SKIPPED


class TestResume:
    def test_skips_what_is_complete_and_unchanged(self, task, quick):
        assert carry_out(task).state == DONE
        before = (task.folder / "status.json").read_bytes()
        assert carry_out(task).state == SKIPPED
        assert len(quick) == 1 and (task.folder / "status.json").read_bytes() == before

    def test_a_moved_input_is_no_changed_one(self, task, quick, tmp_path):
        carry_out(task)
        (tmp_path / "data").rename(tmp_path / "elsewhere")
        row = {**task.row, "labels": str(tmp_path / "elsewhere" / "p")}
        assert carry_out(replace(task, row=row)).state == SKIPPED

    def change_input(self, task, monkeypatch):
        write_patient(task.settings.output.parent / "data" / "p", size=0.95, phases=("ED",))
        return task

    def change_options(self, task, monkeypatch):
        options = replace(task.settings.options, n_atlases=4)
        return replace(task, settings=replace(task.settings, options=options))

    def change_preset(self, task, monkeypatch):
        return replace(task, row={**task.row, "preset": "sslln"})

    def change_version(self, task, monkeypatch):
        monkeypatch.setattr(status, "__version__", "9.9.9")
        return task

    def change_atlases(self, task, monkeypatch):
        return replace(task, settings=replace(task.settings, atlases=task.settings.output.parent))

    def damage_an_output(self, task, monkeypatch):
        (task.folder / "ED" / "labels.nii.gz").write_bytes(b"damaged")
        return task

    def remove_an_output(self, task, monkeypatch):
        (task.folder / "measures.csv").unlink()
        return task

    def cut_the_status(self, task, monkeypatch):
        place = task.folder / "status.json"
        place.write_bytes(place.read_bytes()[:200])
        return task

    def garble_the_status(self, task, monkeypatch):
        (task.folder / "status.json").write_text('{"schema_version": 1, "state": "done"}')
        return task

    def alter_the_status(self, task, name, value):
        place = task.folder / "status.json"
        place.write_text(json.dumps(json.loads(place.read_text()) | {name: value}))
        return task

    def forget_the_outputs(self, task, monkeypatch):
        return self.alter_the_status(task, "outputs_sha256", {})

    def claim_files_that_cannot_be(self, task, monkeypatch):
        return self.alter_the_status(task, "outputs_sha256", {"ED/absent.nii.gz": None})

    def claim_files_of_no_name(self, task, monkeypatch):
        return self.alter_the_status(task, "outputs_sha256", {"a\0b": "0"})

    def list_numbers_as_outdated(self, task, monkeypatch):
        return self.alter_the_status(task, "outdated", [[1]])

    @pytest.mark.parametrize(
        "change",
        [change_input, change_options, change_preset, change_version, change_atlases, damage_an_output,
         remove_an_output, cut_the_status, garble_the_status, forget_the_outputs,
         claim_files_that_cannot_be, claim_files_of_no_name, list_numbers_as_outdated],
    )  # fmt: skip
    def test_does_again_what_changed(self, change, task, quick, monkeypatch):
        carry_out(task)
        assert carry_out(change(self, task, monkeypatch)).state == DONE
        assert len(quick) == 2

    def test_threads_and_limits_change_nothing(self, task, quick):
        carry_out(task)
        other = replace(task.settings, threads=2, time_limit_seconds=9.0)
        assert carry_out(replace(task, settings=other)).state == SKIPPED


class TestFailures:
    def test_of_the_input_are_final(self, task):
        place = task.settings.output.parent / "data" / "p" / "ED.nii.gz"
        content = place.read_bytes()
        place.write_bytes(b"no image")
        for _ in range(2):
            outcome = carry_out(task)
            assert (outcome.state, outcome.code) == (FAILED, "NOT_NIFTI")
        assert status.read_status(task.folder)["final"]
        place.write_bytes(content)
        assert carry_out(task).state == DONE

    def test_of_a_row_are_recorded(self, task, tmp_path):
        outcome = carry_out(replace(task, row={"subject": "p", "labels": "a=b;c"}))
        assert outcome.code == "BAD_MANIFEST"
        assert status.read_status(task.folder)["message"] == outcome.message

    def test_that_nobody_foresaw_are_told_with_their_place(self, task, monkeypatch, quick):
        from cardiacreg.cohort import _refine_patient

        def broken(patient, **how):
            raise ZeroDivisionError("by the test")

        monkeypatch.setattr(_refine_patient, "refine_patient", broken)
        outcome = carry_out(task)
        assert outcome.code == work.UNEXPECTED and "by the test" in outcome.message

    def test_of_memory_are_tried_again_alone(self, task, monkeypatch, quick):
        from cardiacreg.cohort import _refine_patient

        def hungry(patient, **how):
            raise MemoryError

        monkeypatch.setattr(_refine_patient, "refine_patient", hungry)
        assert carry_out(task).state == "lost"
        assert carry_out(replace(task, alone=True)).code == work.NO_MEMORY
        assert not status.read_status(task.folder)["final"]

    def test_of_a_process_are_no_final_word(self, task, quick):
        assert record_lost(task, "PROCESS_ENDED", "killed").state == FAILED
        assert status.read_status(task.folder)["message"] == "killed"
        assert carry_out(task).state == DONE

    def test_leave_an_earlier_result_and_name_it(self, task, quick):
        carry_out(task)
        held = names_in(task.folder)
        (task.settings.output.parent / "data" / "p" / "patient.csv").unlink()
        assert carry_out(task).state == FAILED
        assert names_in(task.folder) == held
        assert "ED/labels.nii.gz" in status.read_status(task.folder)["outdated"]


class TestOutputs:
    def test_of_an_earlier_result_go_and_those_of_others_stay(self, task, quick, result):
        other = replace(result, frames={"frame01": result.frames["ED"]})
        carry_out(task)
        (task.folder / "ED" / "notes.txt").write_text("mine")
        quick.clear()
        from cardiacreg.cohort import _refine_patient

        _refine_patient.refine_patient, before = (
            lambda patient, **how: replace(other, patient=patient),
            _refine_patient.refine_patient,
        )
        try:
            row = {**task.row, "preset": "sslln"}
            assert carry_out(replace(task, row=row)).state == DONE
        finally:
            _refine_patient.refine_patient = before
        assert names_in(task.folder / "ED") == {"notes.txt"}
        assert "result.json" in names_in(task.folder / "frame01")

    def test_are_removed_nowhere_else_whatever_a_status_claims(self, task, quick, tmp_path):
        carry_out(task)
        (tmp_path / "result.json").write_text("somebody's")
        place = task.folder / "status.json"
        found = json.loads(place.read_text())
        found["outputs_sha256"] |= {"../../../result.json": "0", str(tmp_path / "result.json"): "0"}
        place.write_text(json.dumps(found))
        assert carry_out(task).state == DONE
        assert (tmp_path / "result.json").read_text() == "somebody's"

    @pytest.mark.parametrize("call", ["fsync", "replace", "mkdir"])
    def test_a_full_disk_stops_the_run_and_costs_nothing(self, task, quick, monkeypatch, call):
        task.settings.output.mkdir()
        real = getattr(os, call)

        def full(*arguments, **keywords):
            if "out" in str(arguments[0]) or call == "fsync":
                raise OSError(errno.ENOSPC, "No space left on device", str(arguments[0]))
            return real(*arguments, **keywords)

        monkeypatch.setattr(os, call, full)
        outcome = carry_out(task)
        assert (
            outcome.stops
            and outcome.code == "OUTPUT_NOT_WRITABLE"
            and "No space" in outcome.message
        )
        monkeypatch.undo()
        assert status.read_status(task.folder) is None
        assert not task.folder.exists() or not list(task.folder.rglob(".*.partial"))

    def test_one_folder_that_cannot_be_written_stops_nobody_else(self, task, quick):
        task.folder.parent.mkdir(parents=True)
        task.folder.write_text("a file")
        outcome = carry_out(task)
        assert outcome.code == "OUTPUT_NOT_WRITABLE" and not outcome.stops

    def test_inputs_may_be_read_only(self, task, quick):
        folder = task.settings.output.parent / "data" / "p"
        for path in (*folder.iterdir(), folder):
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            assert carry_out(task).state == DONE
        finally:
            folder.chmod(0o755)


@pytest.fixture
def page(monkeypatch):
    """A page takes no time; how often it is made is counted."""
    made = []

    def drawn(case, **body):
        made.append(case.name)
        return f"page {len(made)} of {case.name}"

    from cardiacreg.reports import report

    monkeypatch.setattr(report, "patient_page", drawn)
    return made


def asking(task, **what):
    return replace(task, settings=replace(task.settings, **what))


class TestExtras:
    def test_are_made_for_real_and_known_to_the_status(self, task):
        wanted = asking(task, report=True, surfaces=("stl", "vtp"))
        outcome = carry_out(wanted)
        assert (outcome.state, outcome.message) == (DONE, "")
        text = (task.folder / "report.html").read_text(encoding="utf-8")
        assert "<h1>p" in text and "slices are left out" not in text
        assert (task.folder / "ED" / "LV_ENDO.stl").stat().st_size > 1000
        found = status.read_status(task.folder)
        made = {"report.html", *(f"ED/{n}.{f}" for f in ("stl", "vtp")
                                 for n in ("LV_ENDO", "LV_EPI", "RV_ENDO", "RV_EPI", "EPI"))}  # fmt: skip
        assert set(found["extras_sha256"]) == made
        every = {*found["outputs_sha256"], *made, "status.json"}
        assert every == names_in(task.folder)
        assert carry_out(wanted).state == SKIPPED

    def test_that_are_asked_for_later_refine_nothing_again(self, task, quick, page):
        carry_out(task)
        before = status.read_status(task.folder)
        assert carry_out(asking(task, report=True)).state == DONE
        after = status.read_status(task.folder)
        assert len(quick) == 1 and page == ["p"]
        assert after["outputs_sha256"] == before["outputs_sha256"]
        assert after["seconds"] > before["seconds"]
        assert carry_out(asking(task, report=True)).state == SKIPPED
        assert carry_out(task).state == SKIPPED and len(page) == 1

    @pytest.mark.parametrize("content", [None, b"another page"])
    def test_that_changed_are_made_again_where_they_are_asked_for(self, task, quick, page, content):
        carry_out(asking(task, report=True))
        place = task.folder / "report.html"
        place.unlink() if content is None else place.write_bytes(content)
        assert carry_out(task).state == SKIPPED
        assert carry_out(asking(task, report=True)).state == DONE
        assert len(quick) == 1 and place.read_text() == "page 2 of p"

    @pytest.mark.parametrize(
        "problem", [ZeroDivisionError("by the test"), MemoryError("by the test")]
    )
    def test_that_fail_lose_no_model_and_are_tried_again(
        self, task, quick, page, monkeypatch, problem
    ):
        from cardiacreg.reports import report

        def broken(case, **body):
            raise problem

        with monkeypatch.context() as patch:
            patch.setattr(report, "patient_page", broken)
            outcome = carry_out(asking(task, report=True))
        assert outcome.state == DONE and "REPORT_FAILED" in outcome.findings
        assert "by the test" in outcome.message
        found = status.read_status(task.folder)
        assert found["state"] == DONE and "REPORT_FAILED" in found["findings"]
        assert (task.folder / "ED" / "labels.nii.gz").is_file()
        assert not (task.folder / "report.html").exists()
        again = carry_out(asking(task, report=True))
        assert again.state == DONE and "REPORT_FAILED" not in again.findings and not again.message
        assert status.read_status(task.folder)["message"] == "" and len(quick) == 1

    def test_that_end_their_process_lose_no_model(self, task, quick, page):
        carry_out(task)
        wanted = asking(task, report=True, surfaces=("ply",))
        outcome = record_lost(wanted, "PROCESS_ENDED", "killed")
        assert (outcome.state, outcome.message) == (DONE, "killed")
        assert {"REPORT_FAILED", "SURFACES_FAILED"} <= set(outcome.findings)
        assert carry_out(wanted).state == DONE and len(quick) == 1
        assert status.read_status(task.folder)["findings"] == list(carry_out(task).findings)

    def test_of_an_earlier_model_go_with_it(self, task, quick, page):
        wanted = asking(task, report=True, surfaces=("ply",))
        carry_out(wanted)
        assert {"report.html", "ED/EPI.ply"} <= names_in(task.folder)
        other = replace(task, row={**task.row, "preset": "sslln"})
        assert carry_out(other).state == DONE
        assert not {"report.html", "ED/EPI.ply"} & names_in(task.folder)
        assert status.read_status(task.folder).get("extras_sha256") in (None, {})

    def test_a_full_disk_stops_the_run_and_keeps_the_model(self, task, quick, page, monkeypatch):
        carry_out(task)
        real = os.replace

        def full(source, target, **keywords):
            if str(target).endswith("report.html"):
                raise OSError(errno.ENOSPC, "No space left on device", str(target))
            return real(source, target, **keywords)

        monkeypatch.setattr(os, "replace", full)
        outcome = carry_out(asking(task, report=True))
        assert outcome.stops and outcome.code == "OUTPUT_NOT_WRITABLE"
        monkeypatch.undo()
        assert carry_out(task).state == SKIPPED

    def test_a_link_in_place_of_one_is_replaced_and_not_followed(self, task, quick, page, tmp_path):
        carry_out(task)
        (tmp_path / "mine").write_text("mine")
        (task.folder / "report.html").symlink_to(tmp_path / "mine")
        assert carry_out(asking(task, report=True)).state == DONE
        assert (tmp_path / "mine").read_text() == "mine"
        assert not (task.folder / "report.html").is_symlink()


class TestClaims:
    def test_of_another_run_are_respected(self, task, quick):
        with claimed(task.folder) as ours:
            assert ours
            assert carry_out(task).state == BUSY
        assert not quick and carry_out(task).state == DONE

    def test_leave_nothing(self, task, quick):
        carry_out(task)
        assert not (task.folder / LOCK).exists()
        empty = task.folder.with_name("nobody")
        with claimed(empty):
            pass
        assert not empty.exists()

    def test_of_killed_processes_are_taken_over_and_tidied_up(self, task, quick):
        stage = task.folder / "ED" / f".{'0' * 32}.partial"
        stage.mkdir(parents=True)
        (stage / "labels.nii.gz").write_bytes(b"half")
        (task.folder / LOCK).write_bytes(b"")
        assert carry_out(task).state == DONE
        assert not stage.exists() and not (task.folder / LOCK).exists()
