"""``cardiacreg surfaces``, ``refine --surfaces`` and ``cardiacreg measure`` from outside."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

import cardiacreg
from cardiacreg import read_surface
from cardiacreg.cli import model
from cardiacreg.cli.app import main
from cardiacreg.errors import kept_warnings
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.results import files


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_formats_of_the_command_are_those_of_the_files():
    assert model._FORMATS == files.MESH_FORMATS


def test_labels_become_files(tiny_files, tmp_path):
    shown = run("surfaces", tiny_files.labels, "-o", tmp_path / "out", "--format", "stl,ply",
                "--space", "LPS", "--triangles", 1500)  # fmt: skip
    assert shown.exit_code == 0, shown.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{name}.{ending}" for name in files.MESH_NAMES for ending in ("stl", "ply")
    }
    assert "LV_ENDO" in shown.stdout and "LPS mm" in shown.stdout
    ply, stl = (read_surface(tmp_path / "out" / f"EPI.{ending}") for ending in ("ply", "stl"))
    assert ply.is_closed() and stl.is_closed()
    again = run("surfaces", tiny_files.labels, "-o", tmp_path / "out", "--format", "stl")
    assert again.exit_code == 1 and "OUTPUT_EXISTS" in again.stderr


def test_json(tiny_files, tmp_path):
    shown = run("surfaces", tiny_files.labels, "-o", tmp_path / "out", "--json", "--triangles", 900)
    found = json.loads(shown.stdout)
    assert list(found["surfaces"]) == list(files.MESH_NAMES)
    assert found["surfaces"]["LV_ENDO"]["volume_ml"] == pytest.approx(31.8, rel=0.01)


def test_wrong_usage(tiny_files, tmp_path):
    assert run("surfaces", tiny_files.labels, "-o", tmp_path, "--format", "iges").exit_code == 2
    absent = run("surfaces", tmp_path / "absent.nii.gz", "-o", tmp_path)
    assert absent.exit_code == 1 and "FILE_NOT_FOUND" in absent.stderr
    empty = run("surfaces", tmp_path, "-o", tmp_path)
    assert empty.exit_code == 1 and "NO_RESULT" in empty.stderr


def test_refine_writes_surfaces_and_a_later_result_removes_them(tiny_files, tmp_path):
    spacing = ("--spacing", 2.5, 2.5, 4)
    arguments = ("refine", "-i", tiny_files.labels, "--atlases", tiny_files.atlases, *spacing,
                 "-o", tmp_path / "out", "-q")  # fmt: skip
    first = run(*arguments, "--surfaces", "vtp,stl")
    assert first.exit_code in (0, 3), first.output
    held = {path.name for path in (tmp_path / "out").iterdir()}
    assert held == {
        *files.FILE_NAMES,
        *(f"{name}.{ending}" for name in files.MESH_NAMES for ending in ("vtp", "stl")),
    }
    told = json.loads((tmp_path / "out" / "result.json").read_text())
    assert set(told["files_sha256"]) == held - {"result.json"}
    from_folder = run("surfaces", tmp_path / "out", "-o", tmp_path / "again")
    assert from_folder.exit_code == 0
    assert (tmp_path / "again" / "EPI.vtp").read_bytes() == (
        tmp_path / "out" / "EPI.vtp"
    ).read_bytes()
    assert run(*arguments, "--overwrite").exit_code in (0, 3)
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(files.FILE_NAMES)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"volumes": {"LV cavity": {"a": 1}}}'])
def test_a_folder_without_a_result(tmp_path, content):
    (tmp_path / "result.json").write_text(content)
    shown = run("surfaces", tmp_path, "-o", tmp_path / "out")
    assert shown.exit_code == 1 and "BAD_RESULT" in shown.stderr


# --- measure


def test_measures_of_two_phases(tiny_files, tmp_path):
    arguments = ("measure", tiny_files.labels, tiny_files.atlases / "smaller" / "labels.nii.gz",
                 "-o", tmp_path / "out", "--height-cm", 180, "--weight-kg", 80)  # fmt: skip
    shown = run(*arguments, "--name", "toy")
    assert shown.exit_code == 0, shown.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(model.MEASURE_FILES)
    assert "LVEF" in shown.stdout and "WT_Global" in shown.stdout
    assert (tmp_path / "out" / "measures.csv").read_text().splitlines()[1].startswith("toy,31.8")
    assert (tmp_path / "out" / "bullseye.png").read_bytes().startswith(b"\x89PNG")
    again = run(*arguments)
    assert again.exit_code == 1 and "OUTPUT_EXISTS" in again.stderr
    assert run(*arguments, "--overwrite").exit_code == 0


def test_measures_of_one_phase_as_json(tiny_files, tmp_path):
    shown = run("measure", tiny_files.labels, "-o", tmp_path / "out", "--json")
    found = json.loads(shown.stdout)["measures"]
    assert found["LVESV (mL)"] is None and found["LVEDV (mL)"] > 30


def test_measures_of_a_result_have_intervals(tiny_result, tmp_path):
    folder = tiny_result.save(tmp_path / "ed")
    shown = run("measure", folder, "-o", tmp_path / "out")
    assert shown.exit_code == 0, shown.output
    line = next(each for each in shown.stdout.splitlines() if each.startswith("LVEDV "))
    low, high = (float(each) for each in line.partition("[")[2].rstrip("]").split(","))
    assert low < high and "90 % intervals" in shown.stdout
    assert " low" not in shown.stdout.replace("[low", "") and "Septal curvature ED" in shown.stdout
    as_json = run("measure", folder, "-o", tmp_path / "out", "--overwrite", "--json")
    found = json.loads(as_json.stdout)
    interval = found["intervals_90_percent"]["LVEDV"]
    assert interval["low"] == pytest.approx(low, abs=0.01) == found["measures"]["LVEDV low (mL)"]
    header, row = (tmp_path / "out" / "measures.csv").read_text().splitlines()
    cells = dict(zip(header.split(","), row.split(","), strict=True))
    assert float(cells["LVEDV high (mL)"]) == pytest.approx(interval["high"], rel=1e-5)


def test_measuring_fails_with_one_line(tiny_files, tmp_path):
    absent = run("measure", tmp_path / "absent", "-o", tmp_path / "out")
    assert absent.exit_code == 1 and "FILE_NOT_FOUND" in absent.stderr
    half = run("measure", tiny_files.labels, "-o", tmp_path / "out", "--height-cm", 180)
    assert half.exit_code == 1 and "BAD_BODY" in half.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def patient(tiny_result, tmp_path_factory):
    """The folder of a patient with two frames, as ``refine PATIENT_FOLDER`` leaves it."""
    place = tmp_path_factory.mktemp("patients") / "patient7"
    for name in ("ED", "ES"):
        tiny_result.save(place / name)
    (place / "patient.json").write_text(json.dumps({"phases": {"ED": "ED", "ES": "ES"}}))
    return place


@pytest.fixture(scope="module")
def cine_folder(tmp_path_factory):
    """A cine saved without its transforms."""
    frames = [make_toy_heart(size=size).labels for size in (1.0, 0.85)]
    with kept_warnings():
        cine = cardiacreg.refine_cine(
            frames, atlases=[make_toy_heart(size=size) for size in (0.8, 0.9)],
            spacing_mm=(2.5, 2.5, 4.0),
            options=cardiacreg.RefineOptions(n_atlases=2, orientation="as-stored"),
        )  # fmt: skip
    return cine.save(tmp_path_factory.mktemp("cines") / "cine")


def test_a_patient_is_measured_by_one_folder(patient, tmp_path):
    of_both = run("measure", patient / "ED", patient / "ES", "-o", tmp_path / "a", "--json")
    of_one = run("measure", patient, "-o", tmp_path / "b", "--json")
    assert of_one.exit_code == 0, of_one.output
    assert json.loads(of_one.stdout)["measures"] == json.loads(of_both.stdout)["measures"]
    assert json.loads(of_one.stdout)["measures"]["LVEF (%)"] == pytest.approx(0.0)


def test_a_cine_is_measured_and_one_frame_of_it_drawn(cine_folder, tmp_path):
    done = run("measure", cine_folder, "-o", tmp_path / "numbers", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["measures"]
    assert found["LVEF (%)"] > 10 and found["LVESV (mL)"] < found["LVEDV (mL)"]
    for frame, column in ((0, "LVEDV (mL)"), ("ES", "LVESV (mL)")):
        drawn = run(
            "surfaces", cine_folder, "--frame", frame, "-o", tmp_path / str(frame), "--json"
        )
        assert drawn.exit_code == 0, drawn.output
        volume = json.loads(drawn.stdout)["surfaces"]["LV_ENDO"]["volume_ml"]
        assert volume == pytest.approx(found[column], rel=0.02)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("surfaces", "surfaces and mesh one frame of it"),
        ("verify", "cine.json"),
        ("convert", "--frame"),
    ],
)
def test_what_takes_no_cine_says_what_does(cine_folder, tmp_path, command, words):
    more = (tmp_path / "x.seg.nrrd",) if command == "convert" else ()
    more = ("-o", tmp_path / "x") if command == "surfaces" else more
    done = run(command, cine_folder, *more)
    assert done.exit_code == 1 and words in done.stderr


@pytest.mark.parametrize("command", ["surfaces", "verify", "convert"])
def test_what_takes_one_frame_names_those_of_a_patient(patient, tmp_path, command):
    more = (tmp_path / "x.seg.nrrd",) if command == "convert" else ()
    more = ("-o", tmp_path / "x") if command == "surfaces" else more
    done = run(command, patient, *more)
    assert done.exit_code == 1 and "ED, ES" in done.stderr


def test_convert_lists_what_it_converts_line_by_line():
    lines = run("convert", "--help").stdout.splitlines()
    kinds = ("labels", "contours", "images", "transforms", "landmarks", "surfaces")
    assert [k for k in kinds if any(line.startswith(f"  {k}  ") for line in lines)] == list(kinds)
