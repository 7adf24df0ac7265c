"""What a command that refines says at its end: every file and folder that it names is there."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from cardiacreg.cli.app import main
from cardiacreg.cli.patient import _end_with_findings
from cardiacreg.errors import RefinementError
from cardiacreg.io.nifti import write_label_frames
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.reports import report
from cardiacreg.results import guards
from cardiacreg.results.guards import Finding
from tests.helpers.cohorts import QUICK, write_patient

pytestmark = pytest.mark.filterwarnings("ignore::cardiacreg.errors.InputWarning")
FILE = re.compile(r"[\w./-]+\.(?:png|html|csv|json|npz|stl|nii\.gz)\b")


@pytest.fixture(autouse=True)
def findings(monkeypatch):
    """Something is found about every frame, and every structure."""
    monkeypatch.setattr(guards, "LEAST_ORIENTATION_PROBABILITY", 1.1)
    monkeypatch.setattr(guards, "LEAST_AGREEMENT", 1.1)
    monkeypatch.setattr(guards, "MOST_SHARE_BEYOND", -1.0)


@pytest.fixture
def refine(tiny_files, tmp_path):
    """Refines, and returns what was said after the steps; nothing else may have gone wrong."""

    def run(*words):
        command = ["refine", *words, "-o", tmp_path / "out", "--atlases", tiny_files.atlases]
        command += [*QUICK, "--orientation", "auto", "--accept-failed", "--overwrite"]
        done = CliRunner().invoke(main, [str(word) for word in command])
        assert done.exit_code == 0, done.output
        assert "LOW_AGREEMENT" in done.stderr and "BEYOND_ENDS" in done.stderr
        return done.stdout + done.stderr.rpartition("%, ")[2]

    return run


def named(said, place):
    """Files and folders that are named, as they are found from the folder of the output."""
    found = set(FILE.findall(said)) | set(re.findall(rf"{re.escape(str(place))}[\w./-]*", said))
    return {each.rstrip(".") for each in found}


def check(said, place, *needed):
    for name in (names := named(said, place)):
        there = (place / name).exists() or list((place / "out").rglob(name.rpartition("/")[2]))
        assert there, f"{name} is named and not there: {said}"
    for each in needed:
        assert any(name.endswith(each) for name in names), (each, names)


def series(path):
    write_label_frames(path, [make_toy_heart(size=size).labels for size in (1.0, 0.95, 0.9)])
    return path


def test_of_a_frame(refine, tiny_files, tmp_path):
    check(refine("-i", tiny_files.labels), tmp_path, "out/qc.png")
    extras = ("--report", "--surfaces", "stl", "--transforms", "npz", "--surface")
    bids = ("--bids", tmp_path / "bids", "--bids-subject", "01")
    said = refine("-i", tiny_files.labels, *extras, *bids)
    check(said, tmp_path, "out/report.html", "/bids")


def test_of_a_cine(refine, tmp_path):
    source = series(tmp_path / "cine.nii.gz")
    said = refine("-i", source, "--frames", "all")
    assert "qc.png" not in said and f"cardiacreg report {tmp_path / 'out'}" in said
    check(said, tmp_path, "out/curves.png")
    bids = ("--bids", tmp_path / "bids", "--bids-subject", "01")
    said = refine("-i", source, "--frames", "all", "--report", *bids)
    assert "qc.png" not in said
    check(said, tmp_path, "out/report.html", "/bids")


def test_of_a_patients_folder(refine, tmp_path):
    folder = write_patient(tmp_path / "somebody")
    check(refine(folder), tmp_path, "out/somebody/ED/qc.png", "out/somebody/ES/qc.png")
    said = refine(folder, "--report", "--bids", tmp_path / "bids")
    check(said, tmp_path, "out/somebody/report.html", "/bids")


def test_of_a_patients_series(refine, tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    series(folder / "x_sa_gt.nii.gz")
    check(refine(folder, "--preset", "canonical"), tmp_path, "x/ED/qc.png", "x/ES/qc.png")


@pytest.mark.parametrize("kind", ["frame", "cine", "folder"])
def test_a_report_that_fails_loses_no_model(kind, tiny_files, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("no page today")

    monkeypatch.setattr(report, "patient_page", fail)
    words = {
        "frame": lambda: ["-i", tiny_files.labels],
        "cine": lambda: ["-i", series(tmp_path / "cine.nii.gz"), "--frames", "all"],
        "folder": lambda: [write_patient(tmp_path / "somebody")],
    }[kind]()
    command = ["refine", *words, "--report", "-o", tmp_path / "out", "--accept-failed", *QUICK]
    done = CliRunner().invoke(main, [*map(str, command), "--atlases", str(tiny_files.atlases)])
    assert done.exit_code == 1, done.output
    assert "report.html could not be made (ZeroDivisionError: no page today)" in done.stderr
    place = tmp_path / "out" / ("somebody" if kind == "folder" else "")
    assert f"the model is in {place}." in done.stderr
    assert list(place.rglob("labels.nii.gz")) and not list(place.rglob("report.html"))
    check(done.stdout + done.stderr.rpartition("the model is in")[2], tmp_path)


def test_what_most_frames_share_is_told_once(capsys):
    shared, own = Finding("VOLUME_DIFFERS", "differs"), Finding("LOW_AGREEMENT", "is low")
    frames = [SimpleNamespace(number=n, findings=(shared,)) for n in range(3)]
    frames[1].findings += (own,)
    whole = Finding("VOLUME_DIFFERS", "in 3 of 3 frames, as in frame 0: differs")
    told = SimpleNamespace(findings=(whole,), frames=frames)
    _end_with_findings(told, Path("out"), accept_failed=False)
    assert capsys.readouterr().err.splitlines() == [
        "warning [VOLUME_DIFFERS]: in 3 of 3 frames, as in frame 0: differs",
        "warning [LOW_AGREEMENT]: frame 1: is low",
    ]
    frames[2].findings += (Finding("FAILED_AGREEMENT", "RV cavity 0.2; look"),)
    with pytest.raises(RefinementError, match="frame 2: RV cavity 0.2"):
        _end_with_findings(told, Path("out"), accept_failed=False)
